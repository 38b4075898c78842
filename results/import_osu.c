/* SPDX-License-Identifier: Apache-2.0 */
/* Import of OSU micro-benchmarks' text: one table per title. Columns: results/README.md, "Import".
 */
#include "results/import.h"

#include "results/import_lines.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_COLUMNS = 16 };

enum role {
    ROLE_SIZE,
    ROLE_TIME,      /* mean over ranks, us */
    ROLE_TIME_MAX,  /* of the slowest rank, us */
    ROLE_BANDWIDTH, /* MB/s */
    ROLE_VALIDATION,
    ROLE_OTHER /* a number that is not used */
};

static const struct column {
    const char *name;
    enum role role;
} columns[] = {
    {"Size", ROLE_SIZE},
    {"Latency (us)", ROLE_TIME},
    {"Latency(us)", ROLE_TIME},
    {"Avg Latency(us)", ROLE_TIME},
    {"Avg Lat(us)", ROLE_TIME},
    {"Pure Comm.(us)", ROLE_TIME},
    {"Max Latency(us)", ROLE_TIME_MAX},
    {"Max Lat(us)", ROLE_TIME_MAX},
    {"Max Comm.(us)", ROLE_TIME_MAX},
    {"Bandwidth (MB/s)", ROLE_BANDWIDTH},
    {"Bi-Bandwidth (MB/s)", ROLE_BANDWIDTH},
    {"Validation", ROLE_VALIDATION},
    {"Min Latency(us)", ROLE_OTHER},
    {"Min Lat(us)", ROLE_OTHER},
    {"Min Comm.(us)", ROLE_OTHER},
    {"Iterations", ROLE_OTHER},
    {"Overall(us)", ROLE_OTHER},
    {"Compute(us)", ROLE_OTHER},
    {"Coll. Init(us)", ROLE_OTHER},
    {"MPI_Test(us)", ROLE_OTHER},
    {"MPI_Wait(us)", ROLE_OTHER},
    {"Overlap(%)", ROLE_OTHER},
};

static const struct benchmark {
    const char *title;
    const char *tool;
    const char *how; /* pattern or transport */
    enum ep_import_kind kind;
    int64_t num_ranks; /* -1 = any, not told */
    int ways;          /* directions at once */
} benchmarks[] = {
    {"Latency Test", "osu_latency", "pingpong", EP_IMPORT_LINK, 2, 1},
    {"Multi Latency Test", "osu_multi_lat", "pingpong", EP_IMPORT_LINK, -1, 1},
    {"Bandwidth Test", "osu_bw", "window", EP_IMPORT_LINK, 2, 1},
    {"Bi-Directional Bandwidth Test", "osu_bibw", "window-both", EP_IMPORT_LINK, 2, 2},
    {"All-to-All Personalized Exchange Latency Test", "osu_alltoall", "alltoall",
     EP_IMPORT_EXCHANGE, -1, 1},
    {"All-to-Allv Personalized Exchange Latency Test", "osu_alltoallv", "alltoallv",
     EP_IMPORT_EXCHANGE, -1, 1},
    {"Non-blocking All-to-All Latency Test", "osu_ialltoall", "ialltoall", EP_IMPORT_EXCHANGE, -1,
     1},
    {"Non-blocking All-to-Allv Latency Test", "osu_ialltoallv", "ialltoallv", EP_IMPORT_EXCHANGE,
     -1, 1},
};

/* Where the reader is in a text. */
struct table {
    const struct benchmark *benchmark; /* NULL before the first title */
    char tool[EP_IMPORT_TEXT];
    int num_columns; /* 0 before the line of columns */
    const struct column *columns[MAX_COLUMNS];
    int64_t num_rows;
    int64_t last_size;
};

/* The line is "# OSU MPI[-CUDA] TITLE vVERSION". */
static enum ep_status read_title(struct ep_import_lines *l, struct table *t)
{
    const char *title = l->text + strlen("# OSU ");
    const char *version = strstr(l->text, " v");
    for (const char *next = version; next != NULL; next = strstr(next + 1, " v")) {
        version = next; /* the last one */
    }
    if (!ep_import_begins(title, "MPI") || version == NULL || !isdigit((unsigned char)version[2])) {
        return ep_import_lines_fail(
            l, "'%.80s': a title '# OSU MPI ... Test vVERSION' was expected", l->text);
    }
    const size_t library = strcspn(title, " ");
    const char *number = version + 2;
    if (strspn(number, "0123456789.-abcdefghijklmnopqrstuvwxyz") != strlen(number) ||
        strlen(number) > 16 || library > 16 || title + library >= version) {
        return ep_import_lines_fail(
            l, "'%.80s': a title '# OSU MPI ... Test vVERSION' was expected", l->text);
    }
    const char *name = title + library + 1;
    const size_t length = (size_t)(version - name);
    for (size_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++) {
        const struct benchmark *b = &benchmarks[i];
        if (strlen(b->title) == length && strncmp(b->title, name, length) == 0) {
            *t = (struct table){.benchmark = b};
            snprintf(t->tool, sizeof t->tool, "%s%.*s %s", b->tool, (int)(library - strlen("MPI")),
                     title + strlen("MPI"), number);
            return EP_OK;
        }
    }
    return ep_import_lines_fail(l,
                                "'%.*s' is none of the OSU benchmarks that can be imported: "
                                "latency, multi latency, bandwidth, bi-directional bandwidth, "
                                "all-to-all and all-to-allv, blocking or not",
                                (int)length, name);
}

/* Names of columns have blanks in them: the longest that fits is taken. */
static const struct column *match_column(const char *text)
{
    const struct column *best = NULL;
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        const size_t length = strlen(columns[i].name);
        if (strncmp(text, columns[i].name, length) == 0 &&
            (text[length] == '\0' || isspace((unsigned char)text[length])) &&
            (best == NULL || length > strlen(best->name))) {
            best = &columns[i];
        }
    }
    return best;
}

static int find_role(const struct table *t, enum role role)
{
    for (int i = 0; i < t->num_columns; i++) {
        if (t->columns[i]->role == role) {
            return i;
        }
    }
    return -1;
}

static bool is_of_bandwidth(const struct benchmark *b)
{
    return strncmp(b->how, "window", 6) == 0;
}

static enum ep_status read_columns(struct ep_import_lines *l, struct table *t)
{
    if (t->benchmark == NULL || t->num_columns > 0) {
        return ep_import_lines_fail(l,
                                    "columns without a title '# OSU MPI ... Test vVERSION' before");
    }
    for (const char *next = l->text + 1;; next += strlen(t->columns[t->num_columns - 1]->name)) {
        while (isspace((unsigned char)*next)) {
            next++;
        }
        if (*next == '\0') {
            break;
        }
        const struct column *c = match_column(next);
        if (c == NULL || t->num_columns == MAX_COLUMNS) {
            return ep_import_lines_fail(l, "'%.40s' is no column of %s that is known", next,
                                        t->benchmark->tool);
        }
        t->columns[t->num_columns++] = c;
    }
    const enum role wanted = is_of_bandwidth(t->benchmark) ? ROLE_BANDWIDTH : ROLE_TIME;
    if (find_role(t, ROLE_SIZE) != 0 || find_role(t, wanted) < 0) {
        return ep_import_lines_fail(l, "columns '# Size' and %s were expected",
                                    wanted == ROLE_TIME ? "a latency in us"
                                                        : "a bandwidth in MB/s");
    }
    return EP_OK;
}

/* The time of a message (links) or call (exchanges), and what it is a mean over. */
static enum ep_status read_time(const struct ep_import_lines *l, const struct table *t,
                                int64_t size_bytes, double *time_s, double *bw, const char **mean)
{
    enum ep_status status = EP_OK;
    const struct benchmark *b = t->benchmark;
    const int slowest = b->kind == EP_IMPORT_EXCHANGE ? find_role(t, ROLE_TIME_MAX) : -1;
    double value = 0;
    if (is_of_bandwidth(b)) {
        const int at = find_role(t, ROLE_BANDWIDTH);
        EP_TRY(ep_import_lines_get_f64(l, at, t->columns[at]->name, 0, 1e12, &value));
        *bw = value * 1e6 / b->ways;
        *time_s = (double)size_bytes / *bw;
        *mean = "repetitions";
    } else {
        const int at = slowest >= 0 ? slowest : find_role(t, ROLE_TIME);
        EP_TRY(ep_import_lines_get_f64(l, at, t->columns[at]->name, 0, 1e12, &value));
        *time_s = value * 1e-6;
        *bw = (double)size_bytes / *time_s;
        *mean = slowest >= 0 || b->num_ranks == 2 ? "repetitions" : "repetitions and ranks";
    }
out:
    return status;
}

static enum ep_status read_validation(const struct ep_import_lines *l, const struct table *t,
                                      int64_t *verified)
{
    const int at = find_role(t, ROLE_VALIDATION);
    if (at < 0) {
        return EP_OK;
    }
    if (strcmp(l->words[at], "Pass") != 0 && strcmp(l->words[at], "Fail") != 0) {
        return ep_import_lines_fail(l, "Validation is '%.20s'; Pass or Fail was expected",
                                    l->words[at]);
    }
    *verified = strcmp(l->words[at], "Pass") == 0;
    return EP_OK;
}

static enum ep_status read_row(struct ep_import_lines *l, struct table *t,
                               const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    int64_t size_bytes = 0, verified = -1;
    double time_s = 0, bw = NAN, unused = 0;
    const char *mean = NULL;
    struct ep_import_point *p = NULL;
    EP_TRY(ep_import_lines_split(l));
    if (t->num_columns == 0) {
        EP_TRY(
            ep_import_lines_fail(l,
                                 "'%.40s': '# OSU MPI ... Test vVERSION' and a line '# Size ...' "
                                 "were expected before it",
                                 l->words[0]));
    }
    if (l->num_words != t->num_columns) {
        EP_TRY(ep_import_lines_fail(l, "%d numbers; the table of %s has %d columns", l->num_words,
                                    t->benchmark->tool, t->num_columns));
    }
    EP_TRY(ep_import_lines_get_i64(l, 0, "Size", 0, INT64_C(1) << 50, &size_bytes));
    if (t->num_rows > 0 && size_bytes <= t->last_size) {
        EP_TRY(ep_import_lines_fail(l,
                                    "size %" PRId64 " after %" PRId64 "; ascending sizes were "
                                    "expected",
                                    size_bytes, t->last_size));
    }
    for (int i = 1; i < t->num_columns; i++) {
        if (t->columns[i]->role != ROLE_VALIDATION) {
            EP_TRY(ep_import_lines_get_f64(l, i, t->columns[i]->name, 0, 1e15, &unused));
        }
    }
    EP_TRY(read_time(l, t, size_bytes, &time_s, &bw, &mean));
    EP_TRY(read_validation(l, t, &verified));
    t->num_rows++;
    t->last_size = size_bytes;
    EP_TRY(ep_import_add_point(import, l->where, size_bytes, time_s, &p));
    if (p == NULL) {
        goto out;
    }
    p->kind = t->benchmark->kind;
    snprintf(p->tool, sizeof p->tool, "%s", t->tool);
    p->how = t->benchmark->how;
    p->cadence = p->kind == EP_IMPORT_EXCHANGE ? "barrier" : "stream";
    p->num_ranks = t->benchmark->num_ranks;
    p->mean = mean;
    p->verified = verified;
    p->bw_bytes_per_s = bw;
    if (p->kind == EP_IMPORT_LINK && p->num_ranks < 0 && options->num_ranks > 0) {
        p->concurrent_pairs = options->num_ranks / 2;
    }
out:
    return status;
}

static enum ep_status end_table(const struct ep_import_lines *l, const struct table *t)
{
    if (t->benchmark != NULL && t->num_rows == 0) {
        return ep_import_lines_fail(l, "the table of %s has no line with a size; is the text cut?",
                                    t->benchmark->tool);
    }
    return EP_OK;
}

enum ep_status ep_import_read_osu(const char *name, const char *text, size_t length,
                                  const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    struct ep_import_lines l = {0};
    struct table t = {0};
    EP_TRY(ep_import_lines_init(name, text, length, &l));
    while (ep_import_lines_next(&l)) {
        if (ep_import_begins(l.text, "# OSU ")) {
            EP_TRY(end_table(&l, &t));
            EP_TRY(read_title(&l, &t));
        } else if (ep_import_begins(l.text, "# Size")) {
            EP_TRY(read_columns(&l, &t));
        } else if (l.text[0] != '\0' && l.text[0] != '#') {
            EP_TRY(read_row(&l, &t, options, import));
        }
    }
    EP_TRY(end_table(&l, &t));
out:
    ep_import_lines_fini(&l);
    return status;
}
