/* SPDX-License-Identifier: Apache-2.0 */
/* Import of ucc_perftest's text. Columns and sizes: results/README.md, "Import". */
#include "results/import.h"

#include "results/import_lines.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int64_t size_bytes;
} types[] = {
    {"int8", 1},     {"uint8", 1},   {"int16", 2},   {"uint16", 2},   {"float16", 2},
    {"bfloat16", 2}, {"int32", 4},   {"uint32", 4},  {"float32", 4},  {"int64", 8},
    {"uint64", 8},   {"float64", 8}, {"int128", 16}, {"uint128", 16}, {"float128", 16},
};

/* Words of a line of results; with -F three bandwidths more. */
enum { AT_COUNT, AT_SIZE, AT_AVG, AT_MIN, AT_MAX, NUM_TIMES, AT_BW_MIN = 7, NUM_WITH_BW };

struct table {
    const char *how; /* transport; NULL = not yet told */
    int64_t type_bytes;
    bool in_place;
    bool is_stream;
    bool has_columns;
    int num_words;
    bool has_total; /* "Total time": UCC 1.5 and later, whose sizes are of a rank's buffer */
    int64_t num_rows;
    int64_t first_point;
    int64_t last_count;
    int64_t ratio;  /* of counts from line to line */
    bool is_even;   /* they grow by that ratio throughout */
    double bw_size; /* of the last line: a rank's buffer by its bandwidth; NaN = without */
};

/* The text behind "KEY:"; NULL where the line is another. */
static const char *value_of(const struct ep_import_lines *l, const char *key)
{
    if (!ep_import_begins(l->text, key) || l->text[strlen(key)] != ':') {
        return NULL;
    }
    const char *value = l->text + strlen(key) + 1;
    return value + strspn(value, " \t");
}

static enum ep_status read_type(const struct ep_import_lines *l, const char *value, struct table *t)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, value) == 0) {
            t->type_bytes = types[i].size_bytes;
            return EP_OK;
        }
    }
    return ep_import_lines_fail(l, "'%.40s' is no type of UCC that is known", value);
}

static enum ep_status read_collective(const struct ep_import_lines *l, const char *value,
                                      struct table *t)
{
    if (t->how != NULL) {
        return ep_import_lines_fail(l, "a second collective; one a file was expected");
    }
    if (strcasecmp(value, "alltoall") != 0 && strcasecmp(value, "alltoallv") != 0) {
        return ep_import_lines_fail(l, "'%.40s': alltoall or alltoallv was expected", value);
    }
    t->how = strcasecmp(value, "alltoall") == 0 ? "ucc-alltoall" : "ucc-alltoallv";
    return EP_OK;
}

/* Lines of the head that say nothing of the result. */
static bool is_known(const char *text)
{
    static const char *const heads[] = {
        "Memory type:", "Reduction:", "Warmup:", "Iterations:", "small", "large", "avg"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        if (ep_import_begins(text, heads[i])) {
            return true;
        }
    }
    return text[0] == '\0';
}

static enum ep_status read_head(struct ep_import_lines *l, struct table *t)
{
    const char *value = NULL;
    if ((value = value_of(l, "Collective")) != NULL) {
        return read_collective(l, value, t);
    }
    if ((value = value_of(l, "Datatype")) != NULL) {
        return read_type(l, value, t);
    }
    if ((value = value_of(l, "Inplace")) != NULL) {
        t->in_place = strcmp(value, "1") == 0;
    } else if ((value = value_of(l, "Iteration mode")) != NULL) {
        t->is_stream = strcmp(value, "streaming") == 0;
    } else if (value_of(l, "Total time") != NULL) {
        t->has_total = true;
    } else if (ep_import_begins(l->text, "Count ")) {
        const bool has_bw = strstr(l->text, "Bandwidth, GB/s") != NULL; /* "Bus" since UCC 1.6 */
        if (strstr(l->text, "Time, us") == NULL || t->how == NULL || t->type_bytes == 0) {
            return ep_import_lines_fail(l,
                                        "'Collective:', 'Datatype:' and then 'Count Size Time, us' "
                                        "were expected");
        }
        t->num_words = has_bw ? NUM_WITH_BW : NUM_TIMES;
        t->has_columns = true;
    } else if (!is_known(l->text)) {
        return ep_import_lines_fail(l, "'%.40s': a line of ucc_perftest was expected", l->text);
    }
    return EP_OK;
}

/* Of alltoallv only the generator of equal messages can be told: its counts grow by one ratio. */
static void watch_counts(int64_t count, struct table *t)
{
    if (t->num_rows == 1) {
        t->ratio = t->last_count > 0 ? count / t->last_count : 0;
    }
    if (t->num_rows > 0) {
        t->is_even = t->is_even && t->ratio > 1 && count / t->ratio == t->last_count &&
                     count % t->ratio == 0;
    }
    t->last_count = count;
    t->num_rows++;
}

static enum ep_status read_row(struct ep_import_lines *l, struct table *t,
                               const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    int64_t count = 0, size_bytes = 0;
    double times_us[3], bw = 0;
    static const char *const names[] = {"Time avg", "Time min", "Time max"};
    struct ep_import_point *p = NULL;
    EP_TRY(ep_import_lines_split(l));
    if (!t->has_columns || t->has_total) {
        EP_TRY(ep_import_lines_fail(
            l, "'%.40s': a line 'Count Size Time, us' was expected before it", l->words[0]));
    }
    if (l->num_words != t->num_words) {
        EP_TRY(ep_import_lines_fail(l, "%d numbers; %d columns were expected", l->num_words,
                                    t->num_words));
    }
    EP_TRY(ep_import_lines_get_i64(l, AT_COUNT, "Count", 1, INT64_C(1) << 46, &count));
    EP_TRY(ep_import_lines_get_i64(l, AT_SIZE, "Size", 1, INT64_C(1) << 50, &size_bytes));
    for (int i = 0; i < 3; i++) {
        EP_TRY(ep_import_lines_get_f64(l, AT_AVG + i, names[i], 0, 1e12, &times_us[i]));
    }
    if (size_bytes != count * t->type_bytes) {
        EP_TRY(ep_import_lines_fail(
            l, "Size %" PRId64 "; Count %" PRId64 " of %" PRId64 " bytes makes %" PRId64,
            size_bytes, count, t->type_bytes, count * t->type_bytes));
    }
    if (times_us[1] > times_us[0] || times_us[0] > times_us[2]) {
        EP_TRY(ep_import_lines_fail(l,
                                    "times avg %g, min %g, max %g; min <= avg <= max was expected",
                                    times_us[0], times_us[1], times_us[2]));
    }
    watch_counts(count, t);
    EP_TRY(ep_import_add_point(import, l->where, size_bytes, times_us[2] * 1e-6, &p));
    t->bw_size = NAN;
    if (t->num_words == NUM_WITH_BW && !t->in_place && options->num_ranks > 1) {
        const double ranks = (double)options->num_ranks;
        EP_TRY(ep_import_lines_get_f64(l, AT_BW_MIN, "Bus Bandwidth min", 0, 1e9, &bw));
        t->bw_size = bw >= 1 ? bw * 1e3 * times_us[2] * ranks / (ranks - 1) : NAN;
    }
    snprintf(p->tool, sizeof p->tool, "ucc_perftest %s%s", t->how + strlen("ucc-"),
             t->in_place ? " in place" : "");
    p->kind = EP_IMPORT_EXCHANGE;
    p->how = t->how;
    p->cadence = t->is_stream ? "stream" : "barrier";
    p->num_ranks = options->num_ranks;
    p->mean = "repetitions";
out:
    return status;
}

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 0.02 * b;
}

/* Whether sizes are of a rank's buffer, or of a message: by the option, the last line of UCC 1.5
 * and later, or the bandwidth. */
static enum ep_status find_size_of(const struct ep_import_lines *l, const struct table *t,
                                   const struct ep_import_options *options, int64_t last_size,
                                   bool *is_buffer)
{
    const double ranks = (double)options->num_ranks;
    if (options->size_of != NULL || t->has_total) {
        *is_buffer = options->size_of != NULL ? strcmp(options->size_of, "rank") == 0 : true;
    } else if (!isnan(t->bw_size)) {
        *is_buffer = is_near(t->bw_size, (double)last_size);
    } else {
        return ep_import_lines_fail(l,
                                    "no line 'Total time': the text is cut, or of UCC before 1.5, "
                                    "whose sizes are those of a message: --size-of message");
    }
    const double sent = (double)last_size * (*is_buffer ? 1 : ranks);
    if (!isnan(t->bw_size) && !is_near(t->bw_size, sent)) {
        return ep_import_lines_fail(
            l,
            "by its bandwidth a rank sends %.4g bytes in the last line, by its "
            "size %.4g: other --ranks or --size-of were expected",
            t->bw_size, sent);
    }
    return EP_OK;
}

/* Sizes of a rank's buffer become those of a message. */
static enum ep_status divide_sizes(const struct ep_import_lines *l, const struct table *t,
                                   const struct ep_import_options *options,
                                   struct ep_import *import)
{
    bool is_buffer = false;
    if (options->num_ranks < 1) {
        return ep_import_lines_fail(l, "the text of ucc_perftest does not tell how many ranks: "
                                       "--ranks N");
    }
    if (strcmp(t->how, "ucc-alltoallv") == 0 && (t->num_rows < 2 || !t->is_even)) {
        return ep_import_lines_fail(
            l, "counts of alltoallv that do not grow by one ratio: they are of a "
               "generator whose messages the text does not tell");
    }
    const enum ep_status status =
        find_size_of(l, t, options, import->points[import->num_points - 1].size_bytes, &is_buffer);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = t->first_point; i < import->num_points; i++) {
        struct ep_import_point *p = &import->points[i];
        if (is_buffer && p->size_bytes % options->num_ranks != 0) {
            return ep_error_set(EP_EINVAL,
                                "%s: Size %" PRId64 " is no whole number of messages to %" PRId64
                                " ranks",
                                p->where, p->size_bytes, options->num_ranks);
        }
        p->size_bytes /= is_buffer ? options->num_ranks : 1;
    }
    return EP_OK;
}

enum ep_status ep_import_read_ucc(const char *name, const char *text, size_t length,
                                  const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    struct ep_import_lines l = {0};
    struct table t = {.first_point = import->num_points, .is_even = true, .bw_size = NAN};
    if (options->size_of != NULL && strcmp(options->size_of, "message") != 0 &&
        strcmp(options->size_of, "rank") != 0) {
        return ep_error_set(EP_EINVAL, "--size-of: '%s'; message or rank was expected",
                            options->size_of);
    }
    EP_TRY(ep_import_lines_init(name, text, length, &l));
    while (ep_import_lines_next(&l)) {
        if (isdigit((unsigned char)l.text[0]) || l.text[0] == '-') {
            EP_TRY(read_row(&l, &t, options, import));
        } else {
            EP_TRY(read_head(&l, &t));
        }
    }
    if (t.num_rows > 0) {
        EP_TRY(divide_sizes(&l, &t, options, import));
    }
out:
    ep_import_lines_fini(&l);
    return status;
}
