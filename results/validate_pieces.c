/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of the ping-pongs in runs: error on sizes not seen, and break points beside MPI's limits. */
#include "base/json.h"
#include "base/table.h"
#include "results/machine_file.h"
#include "results/pieces.h"
#include "results/run_dir.h"
#include "results/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_SIZES = 20, MAX_LIMITS = 32 };

/* Sizes at which time may change, ascending: what the MPI library was told of (eager limits, largest
 * fragments), and caches. */
struct limits {
    const char *names[MAX_LIMITS]; /* borrowed from the run */
    double bytes[MAX_LIMITS];
    int num;
};

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static void add_limit(struct limits *limits, const char *name, double bytes)
{
    if (!(bytes > 0) || limits->num == MAX_LIMITS) {
        return;
    }
    int at = limits->num++;
    for (; at > 0 && limits->bytes[at - 1] > bytes; at--) {
        limits->bytes[at] = limits->bytes[at - 1];
        limits->names[at] = limits->names[at - 1];
    }
    limits->bytes[at] = bytes;
    limits->names[at] = name;
}

static void find_limits(const struct ep_run *run, struct limits *limits)
{
    char *end;
    *limits = (struct limits){0};
    for (int64_t i = 0; i < run->mpi_settings.num; i++) {
        const struct ep_record_note *note = &run->mpi_settings.items[i];
        const double bytes = strtod(note->text, &end);
        if (*end == '\0' &&
            (ends_with(note->name, "eager_limit") || ends_with(note->name, "max_send_size"))) {
            add_limit(limits, note->name, bytes);
        }
    }
    for (int64_t i = 0; i < run->machine_facts.num; i++) {
        const struct ep_record_note *note = &run->machine_facts.items[i]; /* "L2": "1024 KiB, ..." */
        const double kib = strtod(note->text, &end);
        if (note->name[0] == 'L' && note->name[1] >= '1' && note->name[1] <= '9' &&
            strncmp(end, " KiB", 4) == 0) {
            add_limit(limits, note->name, 1024 * kib);
        }
    }
}

/* Names of limits that may be what ends a piece: from its last size to the next piece's first. */
static void name_break(const struct limits *limits, const struct ep_piece *piece, char *text,
                       size_t length)
{
    text[0] = '\0';
    for (int i = 0; i < limits->num; i++) {
        const size_t used = strlen(text);
        if (limits->bytes[i] >= piece->last_bytes && limits->bytes[i] <= piece[1].first_bytes) {
            snprintf(text + used, length - used, "%s%s %.0f", used > 0 ? ", " : "",
                     limits->names[i], limits->bytes[i]);
        }
    }
}

/* One level's ping-pongs of one run. */
struct series {
    const char *run, *level;
    const struct limits *limits;
    struct ep_pieces_choice choice;
    double limits_error; /* held out, of pieces that end at limits alone; NaN = no limits */
    int64_t num_sizes;
};

/* What the known limits alone explain. */
static enum ep_status choose_at_limits(const struct ep_pieces_points *points,
                                       struct ep_pieces_options options, struct series *s)
{
    enum ep_status status = EP_OK;
    struct ep_pieces_choice choice;
    double bytes[MAX_LIMITS];
    int num = 0;
    for (int i = 0; i < s->limits->num; i++) {
        if (num == 0 || s->limits->bytes[i] > bytes[num - 1]) {
            bytes[num++] = s->limits->bytes[i];
        }
    }
    s->limits_error = NAN;
    if (num > 0) {
        options.limits = bytes;
        options.num_limits = num;
        EP_TRY(ep_pieces_choose(points, &options, &choice));
        s->limits_error = choice.held_out_error;
    }
out:
    return status;
}

static void put_cells(const struct series *s, struct ep_table *table)
{
    char name[256];
    for (int i = 0; i < s->choice.pieces.num; i++) {
        const struct ep_piece *piece = &s->choice.pieces.pieces[i];
        const bool is_last = i + 1 == s->choice.pieces.num;
        ep_table_add(table, "%s", s->run);
        ep_table_add(table, "%s", s->level);
        ep_table_add(table, "%.0f", piece->first_bytes);
        ep_table_add(table, "%.0f", piece->last_bytes);
        ep_table_add(table, "%" PRId64, piece->num_points);
        ep_table_add(table, "%.3f", 1e6 * piece->latency_s);
        if (piece->s_per_byte > 0) {
            ep_table_add(table, "%.3f", 1e-9 / piece->s_per_byte);
        } else {
            ep_table_add(table, "-");
        }
        name[0] = '\0';
        if (!is_last) {
            name_break(s->limits, piece, name, sizeof name);
        }
        ep_table_add(table, "%s", name);
    }
}

static enum ep_status put_json(const struct series *s, json_t *rows)
{
    char name[256];
    json_t *pieces = json_array();
    for (int i = 0; i < s->choice.pieces.num; i++) {
        const struct ep_piece *piece = &s->choice.pieces.pieces[i];
        const bool is_last = i + 1 == s->choice.pieces.num;
        name[0] = '\0';
        if (!is_last) {
            name_break(s->limits, piece, name, sizeof name);
        }
        json_array_append_new(
            pieces,
            json_pack("{s:f,s:f,s:I,s:f,s:f,s:o,s:o,s:s}", "first_bytes", piece->first_bytes,
                      "last_bytes", piece->last_bytes, "points", (json_int_t)piece->num_points,
                      "latency_s", piece->latency_s, "s_per_byte", piece->s_per_byte, "end_bytes",
                      ep_json_real(piece->end_bytes), "next_bytes",
                      ep_json_real(is_last ? NAN : piece[1].first_bytes), "limits", name));
    }
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:I,s:i,s:o,s:o,s:o,s:o,s:o}", "validation", "pieces", "run", s->run, "level",
        s->level, "points", (json_int_t)s->num_sizes, "num_pieces", s->choice.pieces.num, "pieces",
        pieces, "error", ep_json_real_array(s->choice.error, s->choice.max_pieces),
        "standard_error", ep_json_real_array(s->choice.standard_error, s->choice.max_pieces),
        "held_out_error", ep_json_real(s->choice.held_out_error), "limits_error",
        ep_json_real(s->limits_error));
    if (row == NULL || json_array_append_new(rows, row) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    return EP_OK;
}

static bool is_ping_pong(const struct ep_link_point *p)
{
    return strcmp(p->pattern, "pingpong") == 0 && p->concurrent_pairs == 1;
}

/* points [num] of one level. */
static enum ep_status judge(const struct ep_link_point *points, int64_t num, struct series *s,
                            struct ep_table *errors, struct ep_table *table, json_t *rows)
{
    enum ep_status status = EP_OK;
    struct ep_pieces_options options;
    double *size_bytes = calloc((size_t)num + 1, sizeof *size_bytes);
    double *time_s = calloc((size_t)num + 1, sizeof *time_s);
    if (size_bytes == NULL || time_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a ping-pong"));
    }
    if (num < MIN_SIZES) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s: ping-pongs of level %s have %" PRId64 " sizes: expected at "
                            "least %d to choose pieces (epbench links --factor 1.3)", s->run, s->level,
                            num, (int)MIN_SIZES));
    }
    for (int64_t i = 0; i < num; i++) {
        size_bytes[i] = (double)points[i].size_bytes;
        time_s[i] = points[i].time_s;
    }
    ep_pieces_options_default(&options);
    options.min_points = num < 60 ? 3 : options.min_points;
    const struct ep_pieces_points all = {size_bytes, time_s, num};
    EP_TRY(ep_pieces_choose(&all, &options, &s->choice));
    EP_TRY(choose_at_limits(&all, options, s));
    s->num_sizes = num;
    ep_table_add(errors, "%s", s->run);
    ep_table_add(errors, "%s", s->level);
    ep_table_add(errors, "%" PRId64, num);
    ep_table_add(errors, "%d", s->choice.pieces.num);
    ep_table_add(errors, "%.1f", 100 * s->choice.held_out_error);
    if (isnan(s->limits_error)) {
        ep_table_add(errors, "-");
    } else {
        ep_table_add(errors, "%.1f", 100 * s->limits_error);
    }
    ep_table_add(errors, "%.1f", 100 * s->choice.error[0]);
    put_cells(s, table);
    EP_TRY(put_json(s, rows));
out:
    free(size_bytes);
    free(time_s);
    return status;
}

static enum ep_status judge_run(const char *directory, struct ep_table *errors,
                                struct ep_table *table, json_t *rows)
{
    enum ep_status status;
    struct ep_records records = {0};
    struct ep_run run;
    struct limits limits;
    struct ep_link_point *points = NULL;
    int64_t num = 0, num_judged = 0;
    ep_run_init(&run);
    EP_TRY(ep_run_read(directory, &run));
    EP_TRY(ep_records_read(&directory, 1, &records));
    EP_TRY(ep_link_points_pool(&records, &points, &num));
    find_limits(&run, &limits);
    for (int64_t first = 0, next; first < num; first = next) {
        next = first + 1;
        while (next < num && strcmp(points[next].level, points[first].level) == 0 &&
               is_ping_pong(&points[next]) == is_ping_pong(&points[first])) {
            next++;
        }
        if (is_ping_pong(&points[first])) {
            struct series s = {.run = directory, .level = points[first].level, .limits = &limits};
            EP_TRY(judge(points + first, next - first, &s, errors, table, rows));
            num_judged++;
        }
    }
    if (num_judged == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s has no ping-pongs (epbench links)", directory));
    }
out:
    free(points);
    ep_records_fini(&records);
    ep_run_fini(&run);
    return status;
}

static enum ep_status run_pieces(const struct ep_validate_input *in, FILE *out, json_t *rows,
                                 bool *reached)
{
    static const char *const error_headers[] = {"run", "level", "sizes", "pieces", "held out %",
                                                "at limits %", "one piece %"};
    static const char *const headers[] = {"run", "level", "from bytes", "to", "sizes",
                                          "latency us", "GB/s", "ends at"};
    enum ep_status status = EP_OK;
    struct ep_table *errors = NULL, *table = NULL;
    (void)reached; /* how good is good depends on the machine */
    if (in->num_directories == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "--pieces: the runs are missing: epbench validate --pieces "
                            "DIR..."));
    }
    EP_TRY(ep_table_create(error_headers, 7, &errors));
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int i = 0; i < in->num_directories; i++) {
        EP_TRY(judge_run(in->directories[i], errors, table, rows));
    }
    if (out != NULL) {
        fprintf(out, "pieces: means of |time - predicted| / time of ping-pongs, of sizes not seen (at limits: by pieces that "
                "end at settings of the MPI library and caches alone)\n");
        EP_TRY(ep_table_print(errors, out));
        fprintf(out, "\n");
        EP_TRY(ep_table_print(table, out));
        fprintf(out, "ends at: settings of the MPI library and caches between this piece's last size and "
                "the next one's first, in bytes\n\n");
    }
out:
    ep_table_destroy(errors);
    ep_table_destroy(table);
    return status;
}

const struct ep_validation ep_validation_pieces = {
    .option = "pieces",
    .help = "Pieces of latency and bandwidth of the ping-pongs (epbench links) in the runs DIR...: error on "
            "sizes not seen, and where pieces end beside MPI's limits",
    .takes_runs = true,
    .run = run_pieces,
};
