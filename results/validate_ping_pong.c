/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces against a real ping-pong whose change of protocol is known. */
#include "base/csv.h"
#include "base/embedded.h"
#include "base/json.h"
#include "base/stats.h"
#include "base/table.h"
#include "results/pieces.h"
#include "results/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static const char data_path[] = "results/published/pingpong_stampede.csv";

enum { MAX_REPETITIONS = 64 };

/* What is aimed at, and what is known of the platform: results/published/README.md. */
static const double max_over_floor = 1.1;
static const double known_change_bytes = 17420;
static const double max_change_error = 0.1;

/* Medians over repetitions, and over the even and the odd ones. */
struct ping_pong {
    double *size_bytes, *time_s; /* [num] */
    int64_t num;
    int64_t num_repetitions; /* of the last size */
    double split_half;       /* mean |even - odd| / mean of the two */
};

static void fini_ping_pong(struct ping_pong *p)
{
    free(p->size_bytes);
    free(p->time_s);
}

static double median_of(double *values, int64_t num)
{
    ep_stats_sort(values, num);
    return ep_stats_median_sorted(values, num);
}

/* halves [2][MAX_REPETITIONS]: even and odd repetitions of one size. */
static enum ep_status add_size(struct ping_pong *p, double size_bytes,
                               double halves[2][MAX_REPETITIONS], const int64_t *num)
{
    double all[2 * MAX_REPETITIONS];
    double half[2];
    if (num[0] == 0 || num[1] == 0) {
        return ep_error_set(EP_EINVAL, "%s: size %g has %" PRId64 " repetitions: expected at least 2",
                            data_path, size_bytes, num[0] + num[1]);
    }
    for (int64_t i = 0; i < num[0] + num[1]; i++) {
        all[i] = i < num[0] ? halves[0][i] : halves[1][i - num[0]];
    }
    for (int h = 0; h < 2; h++) {
        half[h] = median_of(halves[h], num[h]);
    }
    p->size_bytes[p->num] = size_bytes;
    p->time_s[p->num] = median_of(all, num[0] + num[1]);
    p->num_repetitions = num[0] + num[1];
    p->split_half += fabs(half[0] - half[1]) / ((half[0] + half[1]) / 2);
    p->num++;
    return EP_OK;
}

static enum ep_status read_rows(struct ep_csv *csv, struct ping_pong *p)
{
    enum ep_status status;
    double halves[2][MAX_REPETITIONS];
    int64_t num[2] = {0, 0};
    int64_t size = -1;
    int more;
    EP_TRY(ep_csv_read_header(csv));
    EP_TRY(ep_csv_next(csv, &more));
    while (more) {
        int64_t this_size, repetition;
        double time_s;
        EP_TRY(ep_csv_get_i64(csv, 0, 0, INT64_MAX / 2, &this_size));
        EP_TRY(ep_csv_get_i64(csv, 1, 0, MAX_REPETITIONS - 1, &repetition));
        EP_TRY(ep_csv_get_f64(csv, 2, 1e-12, 1e6, &time_s));
        if (this_size != size && size >= 0) {
            EP_TRY(add_size(p, (double)size, halves, num));
            num[0] = num[1] = 0;
        }
        size = this_size;
        const int64_t half = repetition % 2;
        if (num[half] == MAX_REPETITIONS / 2) {
            EP_TRY(ep_error_set(EP_EINVAL, "%s:%" PRId64 ": size %" PRId64 " has too many repetitions",
                                data_path, csv->line, size));
        }
        halves[half][num[half]++] = time_s;
        EP_TRY(ep_csv_next(csv, &more));
    }
    EP_TRY(add_size(p, (double)size, halves, num));
    p->split_half /= (double)p->num;
out:
    return status;
}

static enum ep_status load(struct ping_pong *p)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    const struct ep_embedded *file = ep_embedded_find(data_path);
    *p = (struct ping_pong){0};
    if (file == NULL) {
        return ep_error_set(EP_EINVAL, "%s is not in this program", data_path);
    }
    const size_t room = file->size_bytes / 8 + 1; /* a row is longer than that */
    p->size_bytes = calloc(room, sizeof *p->size_bytes);
    p->time_s = calloc(room, sizeof *p->time_s);
    if (p->size_bytes == NULL || p->time_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a ping-pong");
    }
    EP_TRY(ep_csv_init(data_path, (const char *)file->data, file->size_bytes, &csv));
    EP_TRY(read_rows(&csv, p));
out:
    ep_csv_fini(&csv);
    return status;
}

/* The piece whose end is nearest the known change. */
static const struct ep_piece *find_change(const struct ep_pieces *pieces)
{
    const struct ep_piece *nearest = NULL;
    for (int i = 0; i + 1 < pieces->num; i++) {
        const struct ep_piece *p = &pieces->pieces[i];
        if (nearest == NULL || fabs(p->end_bytes - known_change_bytes) <
                                   fabs(nearest->end_bytes - known_change_bytes)) {
            nearest = p;
        }
    }
    return nearest;
}

static enum ep_status print(const struct ping_pong *p, const struct ep_pieces_choice *choice,
                            FILE *out)
{
    static const char *const error_headers[] = {"pieces", "error %", "+-"};
    static const char *const headers[] = {"from bytes", "to", "sizes", "latency us", "GB/s",
                                          "breaks at", "between", "and"};
    enum ep_status status;
    struct ep_table *errors = NULL, *table = NULL;
    EP_TRY(ep_table_create(error_headers, 3, &errors));
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int k = 0; k < choice->max_pieces; k++) {
        ep_table_add(errors, "%d%s", k + 1, k + 1 == choice->pieces.num ? " (chosen)" : "");
        ep_table_add(errors, "%.2f", 100 * choice->error[k]);
        ep_table_add(errors, "%.2f", 100 * choice->standard_error[k]);
    }
    for (int i = 0; i < choice->pieces.num; i++) {
        const struct ep_piece *piece = &choice->pieces.pieces[i];
        ep_table_add(table, "%.0f", piece->first_bytes);
        ep_table_add(table, "%.0f", piece->last_bytes);
        ep_table_add(table, "%" PRId64, piece->num_points);
        ep_table_add(table, "%.3f", 1e6 * piece->latency_s);
        ep_table_add(table, "%.3f", 1e-9 / piece->s_per_byte);
        if (i + 1 < choice->pieces.num) {
            ep_table_add(table, "%.0f", piece->end_bytes);
            ep_table_add(table, "%.0f", piece->last_bytes);
            ep_table_add(table, "%.0f", piece[1].first_bytes);
        } else {
            for (int c = 0; c < 3; c++) {
                ep_table_add(table, "-");
            }
        }
    }
    fprintf(out, "ping-pong: Stampede, %" PRId64 " sizes, medians of %" PRId64
            " repetitions; errors are means of |time - predicted| / time, cross-validated\n",
            p->num, p->num_repetitions);
    EP_TRY(ep_table_print(errors, out));
    fprintf(out, "\n");
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(errors);
    ep_table_destroy(table);
    return status;
}

static enum ep_status put_json(const struct ping_pong *p, const struct ep_pieces_choice *choice,
                               double held_out_target, const struct ep_piece *change,
                               bool is_accurate, bool is_found, json_t *rows)
{
    json_t *pieces = json_array();
    for (int i = 0; i < choice->pieces.num; i++) {
        const struct ep_piece *piece = &choice->pieces.pieces[i];
        const bool is_last = i + 1 == choice->pieces.num;
        json_array_append_new(
            pieces,
            json_pack("{s:f,s:f,s:I,s:f,s:f,s:o,s:o}", "first_bytes", piece->first_bytes,
                      "last_bytes", piece->last_bytes, "points", (json_int_t)piece->num_points,
                      "latency_s", piece->latency_s, "s_per_byte", piece->s_per_byte, "end_bytes",
                      ep_json_real(piece->end_bytes), "next_bytes",
                      ep_json_real(is_last ? NAN : piece[1].first_bytes)));
    }
    json_t *row = json_pack(
        "{s:s,s:s,s:I,s:I,s:i,s:o,s:o,s:o,s:f,s:f,s:f,s:b,s:f,s:o,s:b}", "validation", "ping-pong",
        "set", "pingpong_stampede", "points", (json_int_t)p->num, "repetitions",
        (json_int_t)p->num_repetitions, "num_pieces", choice->pieces.num, "pieces", pieces, "error",
        ep_json_real_array(choice->error, choice->max_pieces), "standard_error",
        ep_json_real_array(choice->standard_error, choice->max_pieces), "held_out_error",
        choice->held_out_error, "split_half", p->split_half, "held_out_target", held_out_target,
        "held_out_reached", is_accurate, "change_published_bytes", known_change_bytes,
        "change_bytes", ep_json_real(change != NULL ? change->end_bytes : NAN), "change_reached",
        is_found);
    if (row == NULL || json_array_append_new(rows, row) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    return EP_OK;
}

static enum ep_status run_ping_pong(const struct ep_validate_input *in, FILE *out, json_t *rows,
                                    bool *reached)
{
    enum ep_status status;
    struct ping_pong p = {0};
    struct ep_pieces_options options;
    struct ep_pieces_choice choice;
    ep_pieces_options_default(&options);
    options.seed = in->seed;
    EP_TRY(load(&p));
    const struct ep_pieces_points points = {p.size_bytes, p.time_s, p.num};
    EP_TRY(ep_pieces_choose(&points, &options, &choice));
    const double target = max_over_floor * p.split_half;
    const bool is_accurate = choice.held_out_error <= target;
    const struct ep_piece *change = find_change(&choice.pieces);
    const double found = change != NULL ? change->end_bytes : NAN;
    const bool is_found = fabs(found / known_change_bytes - 1) <= max_change_error;
    *reached = *reached && is_accurate && is_found;
    if (out != NULL) {
        EP_TRY(print(&p, &choice, out));
        fprintf(out,
                "\nheld-out mean error: %.2f %%, at most %.1f x %.2f %% (even against odd "
                "repetitions) = %.2f %%: %s\n"
                "change of protocol: at %.0f bytes, published %.0f, %.1f %% off, at most %.0f %%: "
                "%s\n\n",
                100 * choice.held_out_error, max_over_floor, 100 * p.split_half, 100 * target,
                is_accurate ? "ok" : "MISSED", found, known_change_bytes,
                100 * fabs(found / known_change_bytes - 1), 100 * max_change_error,
                is_found ? "ok" : "MISSED");
    }
    EP_TRY(put_json(&p, &choice, target, change, is_accurate, is_found, rows));
out:
    fini_ping_pong(&p);
    return status;
}

const struct ep_validation ep_validation_ping_pong = {
    .option = "ping-pong",
    .help = "Pieces of latency and bandwidth against a real ping-pong: error on sizes not seen, and "
            "its change of protocol",
    .run = run_ping_pong,
};
