/* SPDX-License-Identifier: Apache-2.0 */
/* The published table: rows, their bytes, and constants fitted to them. */
#include "results/published.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "base/units.h"
#include "kernels/dtype.h"
#include "kernels/group_spread.h"
#include "kernels/imbalance.h"
#include "results/robust.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char data_path[] = "results/published/ep_bench.csv";

const char *ep_published_level_name(enum ep_published_level level)
{
    static const char *const names[] = {
        [EP_PUBLISHED_FIXED] = "latency",
        [EP_PUBLISHED_NVLINK] = "nvlink",
        [EP_PUBLISHED_RDMA] = "rdma",
        [EP_PUBLISHED_EITHER] = "nvlink or rdma",
    };
    return names[level];
}

/* --- reading --------------------------------------------------------------------------------- */

static enum ep_status find_text(const struct ep_csv *csv, const char *column, const char **text)
{
    const int64_t i = ep_csv_find_column(csv, column);
    if (i < 0) {
        return ep_error_set(EP_EINVAL, "%s: no column '%s'", csv->name, column);
    }
    *text = csv->fields[i];
    return EP_OK;
}

/* to [EP_PUBLISHED_TEXT] */
static enum ep_status copy_text(const struct ep_csv *csv, const char *column, char *to)
{
    enum ep_status status;
    const char *text = "";
    EP_TRY(find_text(csv, column, &text));
    if (strlen(text) >= EP_PUBLISHED_TEXT) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s:%" PRId64 ": %s is longer than %d bytes", csv->name,
                            csv->line, column, EP_PUBLISHED_TEXT - 1));
    }
    strcpy(to, text);
out:
    return status;
}

/* A number, which a trailing "?" marks as inferred; empty = `missing`. */
static enum ep_status get_number(const struct ep_csv *csv, const char *column, double missing,
                                 double *value)
{
    enum ep_status status;
    char text[EP_PUBLISHED_TEXT], what[160];
    EP_TRY(copy_text(csv, column, text));
    const size_t length = strlen(text);
    *value = missing;
    if (length == 0) {
        return EP_OK;
    }
    if (text[length - 1] == '?') {
        text[length - 1] = '\0';
    }
    snprintf(what, sizeof what, "%s:%" PRId64 ": %s", csv->name, csv->line, column);
    EP_TRY(ep_parse_f64(text, what, 0, 1e9, value));
out:
    return status;
}

static enum ep_status get_count(const struct ep_csv *csv, const char *column, int64_t min,
                                int64_t *value)
{
    enum ep_status status;
    double number;
    EP_TRY(get_number(csv, column, 0, &number));
    if (number != floor(number) || number < (double)min || number > 1e6) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s:%" PRId64 ": %s %g: expected a whole number from %" PRId64
                            " to 1000000", csv->name, csv->line, column, number, min));
    }
    *value = (int64_t)number;
out:
    return status;
}

static enum ep_status get_basis(const struct ep_csv *csv, struct ep_published_row *row)
{
    static const char *const names[] = {
        [EP_PUBLISHED_UNSTATED] = "algbw_unspecified",
        [EP_PUBLISHED_RANK_DEDUP] = "tok_rank_dedup_incl_local",
        [EP_PUBLISHED_NODE_DEDUP] = "tok_node_dedup_incl_local",
        [EP_PUBLISHED_TIME] = "none",
        [EP_PUBLISHED_DENSE] = "dense_padded_max_tokens_per_local_expert",
    };
    enum ep_status status;
    EP_TRY(copy_text(csv, "byte_basis", row->byte_basis_text));
    const size_t length = strcspn(row->byte_basis_text, "?");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strlen(names[i]) == length && strncmp(names[i], row->byte_basis_text, length) == 0) {
            row->basis = (enum ep_published_basis)i;
            return EP_OK;
        }
    }
    status = ep_error_set(EP_EINVAL, "%s:%" PRId64 ": byte_basis '%s' is none of those known",
                          csv->name, csv->line, row->byte_basis_text);
out:
    return status;
}

static enum ep_status read_row(const struct ep_csv *csv, struct ep_published_row *row)
{
    enum ep_status status;
    const char *dtype_text = "";
    double bw, latency_us, line;
    enum ep_dtype dtype;
    *row = (struct ep_published_row){.line = csv->line, .published_s = NAN,
                                     .predicted_s = NAN, .left_out_s = NAN, .fit = -1};
    EP_TRY(copy_text(csv, "set", row->set));
    EP_TRY(copy_text(csv, "fit_group", row->fit_group));
    EP_TRY(copy_text(csv, "gpu", row->gpu));
    EP_TRY(copy_text(csv, "op", row->op));
    EP_TRY(get_basis(csv, row));
    EP_TRY(get_count(csv, "ep", 1, &row->ranks));
    EP_TRY(get_count(csv, "nodes", 0, &row->nodes));
    EP_TRY(get_count(csv, "tokens_per_rank", 1, &row->num_tokens));
    EP_TRY(get_count(csv, "hidden", 1, &row->hidden));
    EP_TRY(get_count(csv, "topk", 1, &row->top_k));
    EP_TRY(get_count(csv, "experts", 0, &row->num_experts));
    EP_TRY(get_count(csv, "topk_groups", 0, &row->topk_groups));
    EP_TRY(get_number(csv, "bw_gbs", NAN, &bw));
    EP_TRY(get_number(csv, "lat_us", NAN, &latency_us));
    EP_TRY(get_number(csv, "line_gbs", NAN, &line));
    EP_TRY(find_text(csv, "dtype", &dtype_text));
    /* "fp8_e4m3+fp32scale/128": what follows the type's name is what ep_dtype_row_bytes counts */
    char name[8] = "";
    snprintf(name, sizeof name, "%.*s", (int)strcspn(dtype_text, "_+"), dtype_text);
    EP_TRY(ep_dtype_parse(name, "dtype", &dtype));
    row->row_bytes = ep_dtype_row_bytes(dtype, row->hidden);
    row->bw_bytes_per_s = 1e9 * bw;
    row->line_bytes_per_s = 1e9 * line;
    row->latency_s = 1e-6 * latency_us;
    if (row->top_k > EP_GROUP_SPREAD_MAX_TOP_K ||
        (row->num_experts > 0 && row->top_k > row->num_experts)) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s:%" PRId64 ": topk %" PRId64 ": expected at most %d, and no "
                            "more than experts", csv->name, csv->line, row->top_k,
                            (int)EP_GROUP_SPREAD_MAX_TOP_K));
    }
    if (!(bw > 0) == !(latency_us > 0)) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s:%" PRId64 ": expected one of bw_gbs and lat_us > 0",
                            csv->name, csv->line));
    }
out:
    return status;
}

/* --- bytes ----------------------------------------------------------------------------------- */

static const char *why_not(const struct ep_published_row *r)
{
    return r->num_experts == 0             ? "the number of experts is not stated"
           : r->basis == EP_PUBLISHED_UNSTATED ? "which bytes its bandwidth counts is not stated"
           : r->nodes == 0                 ? "the number of nodes is not stated"
           : r->ranks == 1                 ? "one rank sends nothing"
           : r->ranks % r->nodes != 0 || r->num_experts % r->ranks != 0
               ? "ranks do not divide experts, or nodes ranks"
               : NULL;
}

/* Rows over each level: results/README.md, "validate", has the formulas. */
static enum ep_status derive_bytes(struct ep_published_row *r)
{
    enum ep_status status;
    struct ep_group_spread spread;
    const double ranks = (double)r->ranks, nodes = (double)r->nodes, per_node = ranks / nodes;
    const double bytes = (double)(r->num_tokens * r->row_bytes);
    EP_TRY(ep_group_spread_expect(r->num_experts, r->top_k, r->nodes,
                                  r->topk_groups > 0 ? r->topk_groups : r->nodes, r->ranks,
                                  &spread));
    r->nodes_per_token = spread.groups;
    r->ranks_per_token = spread.parts;
    if (r->basis == EP_PUBLISHED_RANK_DEDUP || r->basis == EP_PUBLISHED_NODE_DEDUP) {
        r->level_bytes[EP_PUBLISHED_NVLINK] = bytes * spread.parts * (1 - 1 / per_node);
        r->level_bytes[EP_PUBLISHED_RDMA] = bytes * spread.groups * (1 - 1 / nodes);
        const bool is_rank = r->basis == EP_PUBLISHED_RANK_DEDUP;
        r->logical_bytes = bytes * (is_rank ? spread.parts : spread.groups);
        r->remote_bytes = r->level_bytes[is_rank ? EP_PUBLISHED_NVLINK : EP_PUBLISHED_RDMA];
        r->published_s = r->logical_bytes / r->bw_bytes_per_s;
    } else {
        const double copies =
            (double)(r->basis == EP_PUBLISHED_DENSE ? r->num_experts : r->top_k);
        r->logical_bytes = bytes * copies;
        r->remote_bytes = NAN;
        r->level_bytes[EP_PUBLISHED_NVLINK] = r->logical_bytes * (per_node - 1) / ranks;
        r->level_bytes[EP_PUBLISHED_RDMA] = r->logical_bytes * (1 - 1 / nodes);
        r->published_s = r->latency_s;
    }
out:
    return status;
}

static enum ep_status derive(struct ep_published_row *r)
{
    enum ep_status status = EP_OK;
    const char *reason = why_not(r);
    if (reason == NULL) {
        EP_TRY(derive_bytes(r));
        if (r->remote_bytes / r->published_s > r->line_bytes_per_s) {
            snprintf(r->withheld, sizeof r->withheld,
                     "%.1f GB/s of remote bytes on a line of %.1f GB/s: it cannot be these bytes",
                     1e-9 * r->remote_bytes / r->published_s, 1e-9 * r->line_bytes_per_s);
        }
        return EP_OK;
    }
    snprintf(r->withheld, sizeof r->withheld, "%s", reason);
    r->nodes_per_token = r->ranks_per_token = r->logical_bytes = r->remote_bytes = NAN;
    for (int l = 0; l < EP_PUBLISHED_NUM_LEVELS; l++) {
        r->level_bytes[l] = NAN;
    }
out:
    return status;
}

/* --- the fit --------------------------------------------------------------------------------- */

static bool is_bound_by_nvlink(const struct ep_published_fit *fit,
                               const struct ep_published_row *row)
{
    return row->level_bytes[EP_PUBLISHED_NVLINK] * fit->seconds_per_byte[EP_PUBLISHED_NVLINK] >
           row->level_bytes[EP_PUBLISHED_RDMA] * fit->seconds_per_byte[EP_PUBLISHED_RDMA];
}

double ep_published_predict(const struct ep_published_fit *fit, const struct ep_published_row *row,
                            enum ep_published_level *binding)
{
    const enum ep_published_level level =
        is_bound_by_nvlink(fit, row) ? EP_PUBLISHED_NVLINK : EP_PUBLISHED_RDMA;
    const double fixed = fit->seconds_per_byte[EP_PUBLISHED_FIXED];
    const double bytes = row->level_bytes[level] * fit->seconds_per_byte[level];
    if (binding != NULL) {
        *binding = fixed > bytes    ? EP_PUBLISHED_FIXED
                   : fit->is_either ? EP_PUBLISHED_EITHER
                                    : level;
    }
    return fixed + bytes;
}

/* Sum of squares of predicted / published - 1. */
static double loss_of(const struct ep_published_fit *fit,
                      const struct ep_published_row *const *rows, int64_t num)
{
    double sum = 0;
    for (int64_t i = 0; i < num; i++) {
        const double error = ep_published_predict(fit, rows[i], NULL) / rows[i]->published_s - 1;
        sum += error * error;
    }
    return sum;
}

/* RDMA bytes per NVLink byte: whatever the constants are, rows above some value of it are bound by
 * RDMA and the others by NVLink. */
static double ratio_of(const struct ep_published_row *r)
{
    return r->level_bytes[EP_PUBLISHED_RDMA] / r->level_bytes[EP_PUBLISHED_NVLINK];
}

/* The constants if rows up to `threshold` are bound by NVLink and the others by RDMA. */
static void solve(const struct ep_published_row *const *rows, int64_t num, double threshold,
                  bool has_fixed, struct ep_published_fit *fit)
{
    enum { N = EP_PUBLISHED_NUM_LEVELS };
    double gram[N * N] = {0}, rhs[N] = {0};
    for (int64_t i = 0; i < num; i++) {
        const struct ep_published_row *r = rows[i];
        const bool is_nvlink = ratio_of(r) <= threshold;
        const int level = is_nvlink ? EP_PUBLISHED_NVLINK : EP_PUBLISHED_RDMA;
        double x[N] = {0};
        x[EP_PUBLISHED_FIXED] = has_fixed ? 1 / r->published_s : 0;
        x[level] = r->level_bytes[level] / r->published_s;
        for (int a = 0; a < N; a++) {
            rhs[a] += x[a];
            for (int b = 0; b < N; b++) {
                gram[a * N + b] += x[a] * x[b];
            }
        }
    }
    ep_robust_solve_nonnegative(gram, rhs, N, fit->seconds_per_byte);
}

void ep_published_fit_rows(const struct ep_published_row *const *rows, int64_t num,
                           struct ep_published_fit *fit)
{
    bool has_fixed = false;
    double best = INFINITY;
    bool is_one_ratio = ratio_of(rows[0]) > 0 && isfinite(ratio_of(rows[0]));
    for (int64_t i = 0; i < num; i++) {
        has_fixed = has_fixed || rows[i]->num_tokens != rows[0]->num_tokens;
        is_one_ratio = is_one_ratio && fabs(ratio_of(rows[i]) / ratio_of(rows[0]) - 1) < 1e-9;
    }
    *fit = (struct ep_published_fit){.num_rows = num, .is_either = is_one_ratio};
    for (int64_t i = -1; i < num; i++) {
        struct ep_published_fit tried = *fit;
        solve(rows, num, i < 0 ? -1 : ratio_of(rows[i]), has_fixed, &tried);
        const double loss = loss_of(&tried, rows, num);
        if (loss < best * (1 - 1e-9)) { /* of equal ones the first: all by RDMA */
            best = loss;
            memcpy(fit->seconds_per_byte, tried.seconds_per_byte, sizeof fit->seconds_per_byte);
        }
    }
    fit->num_bound[EP_PUBLISHED_FIXED] = has_fixed ? num : 0;
    for (int64_t i = 0; i < num; i++) {
        fit->num_bound[is_bound_by_nvlink(fit, rows[i]) ? EP_PUBLISHED_NVLINK
                                                        : EP_PUBLISHED_RDMA]++;
    }
    for (int l = 0; l < EP_PUBLISHED_NUM_LEVELS; l++) {
        fit->num_constants += fit->num_bound[l] > 0;
    }
}

/* Why a row has no prediction by a fit that it is part of; an empty text where it has one. */
static void find_reason(const struct ep_published_fit *fit, const struct ep_published_row *row,
                        char *reason, size_t length)
{
    const double *seconds = fit->seconds_per_byte;
    const int level = is_bound_by_nvlink(fit, row) ? EP_PUBLISHED_NVLINK : EP_PUBLISHED_RDMA;
    reason[0] = '\0';
    if (fit->num_rows <= fit->num_constants || fit->num_bound[level] < 2) {
        snprintf(reason, length, "%" PRId64 " rows for %d constants: one would rest on this row alone",
                 fit->num_rows, fit->num_constants);
    } else if (seconds[EP_PUBLISHED_RDMA] > 0 &&
               seconds[EP_PUBLISHED_NVLINK] > seconds[EP_PUBLISHED_RDMA]) {
        snprintf(reason, length,
                 "bytes do not explain these times: NVLink would be slower (%.1f GB/s) than the "
                 "network (%.1f GB/s)", 1e-9 / seconds[EP_PUBLISHED_NVLINK],
                 1e-9 / seconds[EP_PUBLISHED_RDMA]);
    }
}

static void judge(struct ep_published_row *r, int fit_index, struct ep_published_fit *fit,
                  int64_t *num_judged)
{
    r->fit = fit_index;
    find_reason(fit, r, r->withheld, sizeof r->withheld);
    if (r->withheld[0] != '\0') {
        return;
    }
    r->predicted_s = ep_published_predict(fit, r, &r->binding);
    const double error = fabs(r->predicted_s / r->published_s - 1);
    fit->mean_error = (fit->mean_error * (double)*num_judged + error) / (double)(*num_judged + 1);
    fit->max_error = fmax(fit->max_error, error);
    ++*num_judged;
}

/* Do rows show all that a row needs? A level that binds none of them is known not to bind a row that
 * leans on it no more than they do; of another, nothing is known. */
static bool is_shown(const struct ep_published_fit *fit, const struct ep_published_row *const *rows,
                     int64_t num, const struct ep_published_row *row)
{
    double lowest = INFINITY, highest = 0;
    for (int64_t i = 0; i < num; i++) {
        lowest = fmin(lowest, ratio_of(rows[i]));
        highest = fmax(highest, ratio_of(rows[i]));
    }
    return num > fit->num_constants &&
           (fit->num_bound[EP_PUBLISHED_NVLINK] > 0 || ratio_of(row) >= lowest) &&
           (fit->num_bound[EP_PUBLISHED_RDMA] > 0 || ratio_of(row) <= highest);
}

/* Predict each row by the others' constants, those with as many ranks left out too.
 * rest [num] scratch. */
static void leave_out(struct ep_published_row *const *rows, int64_t num,
                      const struct ep_published_row **rest, struct ep_published_fit *fit)
{
    double sum = 0;
    int64_t num_predicted = 0;
    for (int64_t i = 0; i < num; i++) {
        struct ep_published_row *r = rows[i];
        struct ep_published_fit others;
        int64_t num_rest = 0;
        for (int64_t j = 0; j < num; j++) {
            if (rows[j]->ranks != r->ranks) {
                rest[num_rest++] = rows[j];
            }
        }
        if (r->withheld[0] != '\0' || num_rest == 0) {
            continue;
        }
        ep_published_fit_rows(rest, num_rest, &others);
        if (is_shown(&others, rest, num_rest, r)) {
            r->left_out_s = ep_published_predict(&others, r, NULL);
            sum += fabs(r->left_out_s / r->published_s - 1);
            num_predicted++;
        }
    }
    fit->mean_left_out_error = sum / (double)num_predicted;
}

static bool is_same_fit(const struct ep_published_row *a, const struct ep_published_row *b)
{
    return strcmp(a->set, b->set) == 0 && strcmp(a->fit_group, b->fit_group) == 0;
}

/* Rows that share constants with row `first`, which no fit has yet. chosen, rest [num] scratch. */
static void fit_group_of(struct ep_published *p, int64_t first, struct ep_published_row **chosen,
                         const struct ep_published_row **rest)
{
    struct ep_published_fit *fit = &p->fits[p->num_fits];
    int64_t num = 0, num_judged = 0;
    for (int64_t i = first; i < p->num; i++) {
        if (p->rows[i].withheld[0] == '\0' && is_same_fit(&p->rows[first], &p->rows[i])) {
            chosen[num++] = &p->rows[i];
        }
    }
    ep_published_fit_rows((const struct ep_published_row *const *)chosen, num, fit);
    fit->set = p->rows[first].set;
    fit->fit_group = p->rows[first].fit_group;
    for (int64_t i = 0; i < num; i++) {
        judge(chosen[i], p->num_fits, fit, &num_judged);
    }
    if (num_judged == 0) {
        fit->mean_error = fit->max_error = NAN;
    }
    leave_out(chosen, num, rest, fit);
    p->num_fits++;
}

static enum ep_status fit_all(struct ep_published *p)
{
    enum ep_status status = EP_OK;
    struct ep_published_row **chosen = calloc((size_t)p->num + 1, sizeof *chosen);
    const struct ep_published_row **rest = calloc((size_t)p->num + 1, sizeof *rest);
    p->fits = calloc((size_t)p->num + 1, sizeof *p->fits);
    if (chosen == NULL || rest == NULL || p->fits == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory to fit published tables"));
    }
    for (int64_t i = 0; i < p->num; i++) {
        if (p->rows[i].fit < 0 && p->rows[i].withheld[0] == '\0') {
            fit_group_of(p, i, chosen, rest);
        }
    }
out:
    free(chosen);
    free(rest);
    return status;
}

static enum ep_status add_row(struct ep_published *p, const struct ep_published_row *row,
                              int64_t *capacity)
{
    if (p->num == *capacity) {
        *capacity = 2 * *capacity + 64;
        struct ep_published_row *rows = realloc(p->rows, (size_t)*capacity * sizeof *rows);
        if (rows == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for published tables");
        }
        p->rows = rows;
    }
    p->rows[p->num++] = *row;
    return EP_OK;
}

enum ep_status ep_published_read(const char *name, const char *text, size_t length,
                                 struct ep_published *published)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    struct ep_published made = {0};
    struct ep_published_row row;
    int64_t capacity = 0;
    int more;
    EP_TRY(ep_csv_init(name, text, length, &csv));
    EP_TRY(ep_csv_read_header(&csv));
    EP_TRY(ep_csv_next(&csv, &more));
    while (more) {
        EP_TRY(read_row(&csv, &row));
        EP_TRY(derive(&row));
        EP_TRY(add_row(&made, &row, &capacity));
        EP_TRY(ep_csv_next(&csv, &more));
    }
    EP_TRY(fit_all(&made));
    *published = made;
    made = (struct ep_published){0};
out:
    ep_csv_fini(&csv);
    ep_published_fini(&made);
    return status;
}

enum ep_status ep_published_load(struct ep_published *published)
{
    const struct ep_embedded *file = ep_embedded_find(data_path);
    if (file == NULL) {
        return ep_error_set(EP_EINVAL, "%s is not in this program", data_path);
    }
    return ep_published_read(data_path, (const char *)file->data, file->size_bytes, published);
}

void ep_published_fini(struct ep_published *published)
{
    free(published->rows);
    free(published->fits);
    *published = (struct ep_published){0};
}

double ep_published_copies_time(int64_t num_tokens, int64_t copies_per_token, int64_t hidden,
                                int64_t element_bytes, double bw_bytes_per_s)
{
    return (double)(element_bytes * num_tokens * copies_per_token * hidden) / bw_bytes_per_s;
}
