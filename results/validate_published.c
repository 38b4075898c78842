/* SPDX-License-Identifier: Apache-2.0 */
/* Published tables against a model of two levels: each row with its bytes, and what is aimed at. */
#include "base/json.h"
#include "base/table.h"
#include "results/published.h"
#include "results/validate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char held_out_set[] = "deepep_v1_ht_held_out";
static const char theory_set[] = "insights_deepseek_v3";

/* What is aimed at, for the largest error of a set. */
static const struct target {
    const char *set;
    double max_error; /* of each row; NaN: rows have their own */
    const char *text;
} targets[] = {
    {"deepep_v1_ht", 0.07, "two constants fitted to these rows (in-sample)"},
    {"deepep_v1_ht_held_out", 0.12, "EP16 and EP32 from constants fitted to EP8 and EP64"},
    {"insights_deepseek_v3", NAN, "derived, each to half of the last digit printed"},
};
enum { NUM_TARGETS = sizeof targets / sizeof targets[0] };

/* One line of the table and of the JSON. */
struct line {
    const struct ep_published_row *row;
    const char *set;
    const char *fit_text;
    const struct ep_published_fit *fit; /* NULL = none */
    double max_error; /* aimed at; NaN = nothing */
};

static const struct target *find_target(const char *set)
{
    for (int i = 0; i < NUM_TARGETS; i++) {
        if (strcmp(targets[i].set, set) == 0) {
            return &targets[i];
        }
    }
    return NULL;
}

/* Bytes over what binds; the network's, where it may be either. */
static double physical_bytes(const struct ep_published_row *r)
{
    const enum ep_published_level level =
        r->binding == EP_PUBLISHED_EITHER ? EP_PUBLISHED_RDMA : r->binding;
    return isnan(r->predicted_s) || level == EP_PUBLISHED_FIXED ? NAN : r->level_bytes[level];
}

/* --- output ---------------------------------------------------------------------------------- */

static void put_number(struct ep_table *table, const char *format, double value)
{
    if (isnan(value)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, format, value);
    }
}

static void put_cells(const struct line *l, struct ep_table *table)
{
    const struct ep_published_row *r = l->row;
    const double error = r->predicted_s / r->published_s - 1;
    ep_table_add(table, "%s", l->set);
    ep_table_add(table, "%s", r->fit_group);
    ep_table_add(table, "%s", r->op);
    put_number(table, "%.0f", r->ranks > 0 ? (double)r->ranks : NAN);
    ep_table_add(table, "%" PRId64, r->num_tokens);
    ep_table_add(table, "%" PRId64, r->row_bytes);
    ep_table_add(table, "%s", r->byte_basis_text);
    put_number(table, "%.2f", 1e-6 * r->logical_bytes);
    put_number(table, "%.1f", 1e-9 * r->bw_bytes_per_s);
    put_number(table, "%.1f", 1e-9 * r->remote_bytes / r->published_s);
    put_number(table, "%.1f", 1e-9 * physical_bytes(r) / r->published_s);
    put_number(table, "%.2f", 1e6 * r->published_s);
    put_number(table, "%.2f", 1e6 * r->predicted_s);
    put_number(table, "%+.1f", 100 * error);
    ep_table_add(table, "%s", isnan(r->predicted_s) ? "-" : ep_published_level_name(r->binding));
    ep_table_add(table, "%s", isnan(r->predicted_s) ? "withheld"
                              : isnan(l->max_error)  ? ""
                              : fabs(error) <= l->max_error ? "ok"
                                                            : "MISSED");
}

static json_t *count_of(int64_t num)
{
    return num > 0 ? json_integer((json_int_t)num) : json_null();
}

static json_t *constants_of(const struct ep_published_fit *fit)
{
    const double *seconds = fit->seconds_per_byte;
    return json_pack("{s:f,s:o,s:o}", "latency_s", seconds[EP_PUBLISHED_FIXED],
                     "nvlink_bytes_per_s", ep_json_real(1 / seconds[EP_PUBLISHED_NVLINK]),
                     "rdma_bytes_per_s", ep_json_real(1 / seconds[EP_PUBLISHED_RDMA]));
}

static enum ep_status put_json(const struct line *l, json_t *rows)
{
    const struct ep_published_row *r = l->row;
    const bool has = !isnan(r->predicted_s);
    const double error = r->predicted_s / r->published_s - 1;
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:I,s:I,s:I,s:o,s:I,s:s}", "validation", "published", "set",
        l->set, "fit_group", r->fit_group, "gpu", r->gpu, "op", r->op, "ep", count_of(r->ranks),
        "nodes", count_of(r->nodes), "tokens_per_rank", (json_int_t)r->num_tokens, "hidden",
        (json_int_t)r->hidden, "top_k", (json_int_t)r->top_k, "experts",
        count_of(r->num_experts), "row_bytes", (json_int_t)r->row_bytes, "byte_basis",
        r->byte_basis_text);
    json_t *values = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s?,s:s,s:o?,s:o,s:o,s:s?}",
        "nodes_per_token", ep_json_real(r->nodes_per_token), "ranks_per_token",
        ep_json_real(r->ranks_per_token), "logical_bytes", ep_json_real(r->logical_bytes),
        "nvlink_bytes", ep_json_real(r->level_bytes[EP_PUBLISHED_NVLINK]), "rdma_bytes",
        ep_json_real(r->level_bytes[EP_PUBLISHED_RDMA]), "physical_bytes",
        ep_json_real(physical_bytes(r)), "bw_logical_bytes_per_s", ep_json_real(r->bw_bytes_per_s),
        "bw_remote_bytes_per_s", ep_json_real(r->remote_bytes / r->published_s),
        "bw_physical_bytes_per_s", ep_json_real(physical_bytes(r) / r->published_s), "published_s",
        ep_json_real(r->published_s), "predicted_s", ep_json_real(r->predicted_s), "error",
        ep_json_real(error), "left_out_error", ep_json_real(r->left_out_s / r->published_s - 1), "line_bytes_per_s",
        ep_json_real(r->line_bytes_per_s), "binding_level", has ? ep_published_level_name(r->binding) : NULL,
        "fit", l->fit_text, "constants", l->fit != NULL ? constants_of(l->fit) : json_null(),
        "max_error", ep_json_real(l->max_error), "reached",
        isnan(l->max_error) ? json_null() : json_boolean(fabs(error) <= l->max_error), "withheld",
        has ? NULL : r->withheld);
    const bool is_lost = row == NULL || values == NULL || json_object_update(row, values) != 0 ||
                         json_array_append(rows, row) != 0;
    json_decref(row);
    json_decref(values);
    return is_lost ? ep_error_set(EP_ENOMEM, "no memory for JSON") : EP_OK;
}

/* Everything that a line goes to, and what came of each target. */
struct report {
    struct ep_table *table;
    json_t *rows;
    double worst[NUM_TARGETS]; /* largest error so far */
    int64_t num[NUM_TARGETS], num_missed[NUM_TARGETS];
};

static enum ep_status put(struct report *report, const struct line *l)
{
    const struct target *target = find_target(l->set);
    if (target != NULL) {
        const int i = (int)(target - targets);
        const double error = fabs(l->row->predicted_s / l->row->published_s - 1);
        report->worst[i] = fmax(report->worst[i], error);
        report->num[i]++;
        report->num_missed[i] += !(error <= l->max_error); /* what is withheld is missed */
    }
    put_cells(l, report->table);
    return put_json(l, report->rows);
}

/* --- what is judged -------------------------------------------------------------------------- */

static enum ep_status put_table(const struct ep_published *p, struct report *report)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < p->num; i++) {
        const struct ep_published_row *r = &p->rows[i];
        const struct ep_published_fit *fit = r->fit >= 0 ? &p->fits[r->fit] : NULL;
        const struct target *target = find_target(r->set);
        char text[64] = "none";
        if (fit != NULL) {
            snprintf(text, sizeof text, "in-sample: %" PRId64 " rows, %d constants", fit->num_rows,
                     fit->num_constants);
        }
        EP_TRY(put(report, &(struct line){.row = r,
                                          .set = r->set,
                                          .fit_text = text,
                                          .fit = fit,
                                          .max_error = target != NULL ? target->max_error : NAN}));
    }
out:
    return status;
}

/* EP16 and EP32 of DeepEP V1 from EP8 (which shows NVLink) and EP64 (which shows the network). */
static enum ep_status put_held_out(const struct ep_published *p, struct report *report)
{
    enum ep_status status = EP_OK;
    struct ep_published_fit fit;
    int64_t num = 0;
    const struct ep_published_row **known = calloc((size_t)p->num + 1, sizeof *known);
    if (known == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for published tables"));
    }
    for (int64_t i = 0; i < p->num; i++) {
        const struct ep_published_row *r = &p->rows[i];
        if (strcmp(r->set, "deepep_v1_ht") == 0 && (r->ranks == 8 || r->ranks == 64)) {
            known[num++] = r;
        }
    }
    if (num == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "the published table has no rows of deepep_v1_ht"));
    }
    ep_published_fit_rows(known, num, &fit);
    for (int64_t i = 0; i < p->num; i++) {
        struct ep_published_row r = p->rows[i];
        if (strcmp(r.set, "deepep_v1_ht") != 0 || r.ranks == 8 || r.ranks == 64) {
            continue;
        }
        r.predicted_s = ep_published_predict(&fit, &r, &r.binding);
        r.left_out_s = NAN;
        EP_TRY(put(report, &(struct line){.row = &r,
                                          .set = held_out_set,
                                          .fit_text = "held out: fitted to EP8 and EP64",
                                          .fit = &fit,
                                          .max_error = find_target(held_out_set)->max_error}));
    }
out:
    free(known);
    return status;
}

/* "Insights into DeepSeek-V3" (arXiv 2505.09343, section 4.3): 32 tokens per device, 8 routed experts
 * and the shared one, rows of about 7,000 elements, fp8 there (1 byte) and bf16 back (2 bytes), 61
 * layers of two micro-batches. A derivation: nothing is fitted. */
static const struct theory {
    const char *link;
    double bw_bytes_per_s;
    const char *op;
    int64_t repetitions; /* of one dispatch and combine */
    double published_s;
    double rounding; /* half of the last digit, relative */
} theories[] = {
    {"400 Gb/s InfiniBand", 50e9, "dispatch+combine", 1, 120.96e-6, 0.005 / 120.96},
    {"400 Gb/s InfiniBand", 50e9, "token", 2 * 61, 14.76e-3, 0.005 / 14.76},
    {"GB200 NVL72", 900e9, "dispatch+combine", 1, 6.72e-6, 0.005 / 6.72},
    {"GB200 NVL72", 900e9, "token", 2 * 61, 0.82e-3, 0.005 / 0.82},
};
enum { NUM_THEORIES = sizeof theories / sizeof theories[0] };

static enum ep_status put_theory(struct report *report)
{
    enum ep_status status = EP_OK;
    for (int i = 0; i < NUM_THEORIES; i++) {
        const struct theory *t = &theories[i];
        struct ep_published_row r = {.byte_basis_text = "copies",
                                     .num_tokens = 32,
                                     .hidden = 7000,
                                     .top_k = 9,
                                     .row_bytes = 3 * 7000,
                                     .bw_bytes_per_s = t->bw_bytes_per_s,
                                     .nodes_per_token = NAN,
                                     .ranks_per_token = NAN,
                                     .remote_bytes = NAN,
                                     .line_bytes_per_s = NAN,
                                     .left_out_s = NAN,
                                     .level_bytes = {NAN, NAN, NAN},
                                     .published_s = t->published_s,
                                     .fit = -1};
        snprintf(r.op, sizeof r.op, "%s", t->op);
        snprintf(r.fit_group, sizeof r.fit_group, "%s", t->link);
        const double one = ep_published_copies_time(r.num_tokens, r.top_k, r.hidden, 3,
                                                    t->bw_bytes_per_s);
        r.predicted_s = one * (double)t->repetitions;
        r.logical_bytes = r.predicted_s * t->bw_bytes_per_s;
        const bool is_nvlink = t->bw_bytes_per_s > 100e9;
        r.binding = is_nvlink ? EP_PUBLISHED_NVLINK : EP_PUBLISHED_RDMA;
        r.level_bytes[r.binding] = r.logical_bytes;
        EP_TRY(put(report, &(struct line){.row = &r,
                                          .set = theory_set,
                                          .fit_text = "derived: nothing is fitted",
                                          .max_error = t->rounding + 1e-12}));
    }
out:
    return status;
}

static enum ep_status print_fits(const struct ep_published *p, FILE *out)
{
    static const char *const headers[] = {"set", "fit", "rows", "constants", "latency us",
                                          "NVLink GB/s", "RDMA GB/s", "mean |error| %", "max %",
                                          "ranks left out %"};
    enum ep_status status;
    struct ep_table *table = NULL;
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int i = 0; i < p->num_fits; i++) {
        const struct ep_published_fit *f = &p->fits[i];
        const double *seconds = f->seconds_per_byte;
        ep_table_add(table, "%s", f->set);
        ep_table_add(table, "%s", f->fit_group);
        ep_table_add(table, "%" PRId64, f->num_rows);
        ep_table_add(table, "%d", f->num_constants);
        put_number(table, "%.1f", f->num_bound[EP_PUBLISHED_FIXED] > 0
                                      ? 1e6 * seconds[EP_PUBLISHED_FIXED]
                                      : NAN);
        for (int l = EP_PUBLISHED_NVLINK; l <= EP_PUBLISHED_RDMA; l++) {
            put_number(table, "%.1f", seconds[l] > 0 ? 1e-9 / seconds[l] : NAN);
        }
        put_number(table, "%.1f", 100 * f->mean_error);
        put_number(table, "%.1f", 100 * f->max_error);
        put_number(table, "%.1f", 100 * f->mean_left_out_error);
    }
    fprintf(out, "\nfits: constants, and errors of the rows that made them (in-sample); a link without a "
                 "number binds in no row.\nranks left out: mean |error| of rows predicted by those "
                 "with other numbers of ranks\n");
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

/* Each reason once, with how many rows it holds back. */
static void print_withheld(const struct ep_published *p, FILE *out)
{
    for (int64_t i = 0; i < p->num; i++) {
        const struct ep_published_row *r = &p->rows[i];
        int64_t num = 0;
        bool is_first = true;
        for (int64_t j = 0; j < p->num; j++) {
            const bool is_same = strcmp(r->withheld, p->rows[j].withheld) == 0 &&
                                 strcmp(r->set, p->rows[j].set) == 0;
            is_first = is_first && !(is_same && j < i);
            num += is_same;
        }
        if (r->withheld[0] != '\0' && is_first) {
            fprintf(out, "withheld: %s, %" PRId64 " rows: %s\n", r->set, num, r->withheld);
        }
    }
}

/* Bandwidths that no wire carries: they count bytes that stay at home. */
static void print_beyond_line(const struct ep_published *p, FILE *out)
{
    int64_t num = 0;
    double highest = 0;
    for (int64_t i = 0; i < p->num; i++) {
        const struct ep_published_row *r = &p->rows[i];
        if (r->remote_bytes > 0 && r->bw_bytes_per_s > r->line_bytes_per_s) {
            num++;
            highest = fmax(highest, r->remote_bytes / r->published_s / r->line_bytes_per_s);
        }
    }
    if (num > 0) {
        fprintf(out, "%" PRId64 " rows print more than the line rate of their link, since they count the "
                "own node's bytes; without them they use at most %.0f %% of it\n", num, 100 * highest);
    }
}

static enum ep_status run_published(const struct ep_validate_input *in, FILE *out, json_t *rows,
                                    bool *reached)
{
    static const char *const headers[] = {
        "set", "fit", "op", "EP", "tokens", "row bytes", "byte basis", "logical MB", "printed GB/s",
        "of it remote", "through what binds", "published us", "predicted us", "error %", "binds", "target"};
    enum ep_status status;
    struct ep_published p = {0};
    struct report report = {.rows = rows};
    (void)in;
    EP_TRY(ep_published_load(&p));
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &report.table));
    EP_TRY(put_table(&p, &report));
    EP_TRY(put_held_out(&p, &report));
    EP_TRY(put_theory(&report));
    if (out != NULL) {
        fprintf(out, "published: t = max(NVLink bytes / B, network bytes / B') per rank, own rank and "
                     "own node left out; logical bytes count them in\n");
        EP_TRY(ep_table_print(report.table, out));
        EP_TRY(print_fits(&p, out));
        fprintf(out, "\n");
        print_withheld(&p, out);
        print_beyond_line(&p, out);
    }
    for (int i = 0; i < NUM_TARGETS; i++) {
        const bool is_reached = report.num[i] > 0 && report.num_missed[i] == 0;
        *reached = *reached && is_reached;
        if (out != NULL) {
            char aim[32] = "";
            if (!isnan(targets[i].max_error)) {
                snprintf(aim, sizeof aim, ", aimed at %.0f %%", 100 * targets[i].max_error);
            }
            fprintf(out, "%s, %" PRId64 " rows, %s: off by at most %.2f %%%s: %s\n",
                    targets[i].set, report.num[i], targets[i].text, 100 * report.worst[i], aim,
                    is_reached ? "ok" : "MISSED");
        }
    }
    if (out != NULL) {
        fprintf(out, "\n");
    }
out:
    ep_table_destroy(report.table);
    ep_published_fini(&p);
    return status;
}

const struct ep_validation ep_validation_published = {
    .option = "published",
    .help = "Published tables of DeepEP and others against a model of two levels, with the bytes that "
            "each bandwidth counts",
    .run = run_published,
};
