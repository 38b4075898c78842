/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the grouped expert FFN: loads, samples, records, rows. */
#include "bench/kernels_ffn.h"

#include "base/json.h"
#include "base/stats.h"
#include "bench/kernels_gemm.h"
#include "bench/kernels_peaks.h"
#include "bench/kernels_report.h"
#include "kernels/ffn.h"
#include "kernels/ffn_activation.h"
#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_EXPERTS = 4, MAX_EXPERTS = 256, MAX_SAMPLES = EP_KERNELS_MAX_SAMPLES };
enum { PEAK, READ, GROUPED, SINGLE, NUM_TIMES };

static const char *const form_names[] = {[GROUPED] = "grouped", [SINGLE] = "single"};

/* The experts of one model, dtype and back end. */
struct block {
    struct ep_session *session;
    struct ep_kernels_peaks *peaks;
    const struct ep_kernels_grid *grid;
    const struct ep_kernels_shape *model;
    const struct ep_gemm_backend *backend;
    struct ep_ffn_shape shape;
    struct ep_ffn *ffn;
    int64_t num_contents; /* expert e has those of e % num_contents; all their own where borrowed */
    void *w13[MAX_EXPERTS], *w2[MAX_EXPERTS];
    int64_t max_rows;
    void *x;
    float *y;
    float *inner;      /* of the GEMMs one by one */
    void *activated;
    int64_t *num_rows; /* [num_groups] */
};

struct row {
    int64_t tokens;
    bool is_skewed;
    int64_t total_rows, num_active, most_rows;
    double flops, bytes, weight_bytes;
    int num;
    struct ep_os_counters counters;
    double local_s[NUM_TIMES][MAX_SAMPLES], max_s[NUM_TIMES][MAX_SAMPLES];
    double median_s[NUM_TIMES], bound_s;
    bool by_peak;                    /* the bound is of flops for most experts */
    struct ep_kernels_share of_bound; /* bound / grouped */
    struct ep_kernels_share of_single; /* grouped / one by one */
};

/* Where rows go, and how far it came. */
struct table {
    FILE *out;
    json_t *json; /* NULL = none */
    int64_t num_short, num_rows;
    bool interrupted;
};

/* --- experts ---------------------------------------------------------------------------------- */

static void free_contents(struct block *b)
{
    for (int64_t i = 0; i < b->num_contents; i++) {
        free(b->w13[i]);
        free(b->w2[i]);
        b->w13[i] = b->w2[i] = NULL;
    }
}

static void block_fini(struct block *b)
{
    ep_ffn_destroy(b->ffn);
    free_contents(b);
    free(b->x);
    free(b->y);
    free(b->inner);
    free(b->activated);
    free(b->num_rows);
}

static void *new_values(const struct block *b, int64_t stream, int64_t num)
{
    void *values = ep_gemm_alloc(num * ep_dtype_element_bytes(b->shape.dtype));
    if (values != NULL) {
        ep_kernels_fill(b->shape.dtype, b->session->options.seed, stream, num, values);
    }
    return values;
}

static bool make_rows(struct block *b)
{
    const int64_t columns = ep_ffn_inner_columns(&b->shape), element = 4;
    b->num_rows = calloc((size_t)b->shape.num_groups, sizeof *b->num_rows);
    b->x = new_values(b, -1, b->max_rows * b->shape.hidden);
    b->y = ep_gemm_alloc(b->max_rows * b->shape.hidden * element);
    b->inner = ep_gemm_alloc(b->max_rows * columns * element);
    b->activated = ep_gemm_alloc(b->max_rows * b->shape.ffn * element);
    for (int64_t i = 0; i < b->num_contents; i++) {
        b->w13[i] = new_values(b, 2 * i, b->shape.hidden * columns);
        b->w2[i] = new_values(b, 2 * i + 1, b->shape.hidden * b->shape.ffn);
        if (b->w13[i] == NULL || b->w2[i] == NULL) {
            return false;
        }
    }
    return b->num_rows != NULL && b->x != NULL && b->y != NULL && b->inner != NULL &&
           b->activated != NULL;
}

/* Two contents will do where packing gives each expert its own copy. */
static enum ep_status make_ffn(struct block *b)
{
    enum ep_status status = EP_OK;
    bool borrows = false;
    const size_t num = (size_t)b->shape.num_groups;
    const void **matrices = calloc(2 * num, sizeof *matrices);
    EP_TRY(ep_gemm_find_borrowing(b->backend, b->shape.dtype, &borrows));
    b->num_contents = borrows ? b->shape.num_groups : 2;
    if (matrices == NULL || !make_rows(b)) {
        status = ep_error_set(EP_ENOMEM, "no memory for %zu experts of %s", num, b->model->model);
        goto out;
    }
    for (size_t e = 0; e < num; e++) {
        matrices[e] = b->w13[e % (size_t)b->num_contents];
        matrices[num + e] = b->w2[e % (size_t)b->num_contents];
    }
    EP_TRY(ep_ffn_create(b->backend, &b->shape, matrices, matrices + num, b->max_rows, &b->ffn));
    if (!borrows) {
        free_contents(b);
    }
out:
    free(matrices);
    return status;
}

static enum ep_status block_init(struct block *b)
{
    const struct ep_kernels_grid *grid = b->grid;
    int64_t most = 0;
    b->shape.num_groups = 1;
    const double expert_bytes = ep_ffn_bytes(&b->shape, 1, 0);
    const double cold = (double)ep_kernels_cold_bytes(b->session, grid->cold_caches);
    const int64_t num = (int64_t)ceil(cold / expert_bytes);
    b->shape.num_groups = num < MIN_EXPERTS ? MIN_EXPERTS : num > MAX_EXPERTS ? MAX_EXPERTS : num;
    for (int64_t t = 0; t < grid->num_tokens; t++) {
        most = grid->tokens[t] > most ? grid->tokens[t] : most;
    }
    b->max_rows = most * b->shape.num_groups;
    return ep_comm_agree(b->session->world, make_ffn(b));
}

/* --- loads ------------------------------------------------------------------------------------ */

static bool is_idle(int64_t expert)
{
    return expert % 4 == 3;
}

/* Half to expert 0, nothing to every fourth, what is left evenly. */
static void skew_rows(int64_t total, int64_t num_experts, int64_t *num_rows)
{
    int64_t left = total - (total + 1) / 2, others = 0;
    for (int64_t e = 1; e < num_experts; e++) {
        others += !is_idle(e);
    }
    num_rows[0] = (total + 1) / 2;
    for (int64_t e = 1; e < num_experts; e++) {
        num_rows[e] = is_idle(e) ? 0 : (left + others - 1) / others;
        left -= num_rows[e];
        others -= !is_idle(e);
    }
}

static void load_row(struct block *b, struct row *row)
{
    const int64_t num = b->shape.num_groups;
    row->total_rows = row->tokens * num;
    for (int64_t e = 0; e < num; e++) {
        b->num_rows[e] = row->tokens;
    }
    if (row->is_skewed) {
        skew_rows(row->total_rows, num, b->num_rows);
    }
    for (int64_t e = 0; e < num; e++) {
        row->num_active += b->num_rows[e] > 0;
        row->most_rows = b->num_rows[e] > row->most_rows ? b->num_rows[e] : row->most_rows;
    }
    row->flops = ep_ffn_flops(&b->shape, row->total_rows);
    row->bytes = ep_ffn_bytes(&b->shape, row->num_active, row->total_rows);
    row->weight_bytes = ep_ffn_bytes(&b->shape, row->num_active, 0);
}

/* --- what is timed ---------------------------------------------------------------------------- */

/* What one does without a grouped call. */
static enum ep_status run_single(struct block *b)
{
    enum ep_status status = EP_OK;
    const struct ep_gemm_packed *w13 = ep_ffn_gemm(b->ffn, 0), *w2 = ep_ffn_gemm(b->ffn, 1);
    const int64_t row_bytes = b->shape.hidden * ep_dtype_element_bytes(b->shape.dtype);
    int64_t row = 0;
    for (int64_t e = 0; e < b->shape.num_groups; e++) {
        const int64_t num = b->num_rows[e];
        EP_TRY(ep_gemm_run_group(w13, e, num, (const char *)b->x + row * row_bytes, b->inner));
        ep_ffn_activate_rows(&b->shape, num, b->inner, b->activated);
        EP_TRY(ep_gemm_run_group(w2, e, num, b->activated, b->y + row * b->shape.hidden));
        row += num;
    }
out:
    return status;
}

static enum ep_status time_form(struct block *b, int form, double *time_s)
{
    const double start_s = ep_comm_now_s();
    const enum ep_status status =
        form == GROUPED ? ep_ffn_run(b->ffn, b->num_rows, b->x, b->y) : run_single(b);
    *time_s = ep_comm_now_s() - start_s;
    return status;
}

/* Warm up, and check the last row of the last expert that has one: whatever went wrong before it moves it. */
static enum ep_status check_forms(struct block *b, const struct row *row)
{
    enum ep_status status = EP_OK;
    int64_t last = b->shape.num_groups - 1;
    while (b->num_rows[last] == 0) {
        last--;
    }
    for (int form = GROUPED; form <= SINGLE; form++) {
        double unused_s = 0;
        memset(b->y, 0xff, (size_t)(row->total_rows * b->shape.hidden) * sizeof *b->y); /* NaN */
        status = time_form(b, form, &unused_s);
        if (status == EP_OK) {
            status = ep_kernels_ffn_check(&b->shape, b->session->options.seed, last % b->num_contents,
                                          row->total_rows - 1, b->y);
        }
        EP_TRY(ep_comm_agree(b->session->world, status));
    }
out:
    return status;
}

static enum ep_status sample_once(struct block *b, struct row *row)
{
    enum ep_status status = EP_OK;
    struct ep_comm *world = b->session->world;
    const int s = row->num;
    EP_TRY(ep_comm_barrier(world));
    row->local_s[PEAK][s] = ep_kernels_peak_sample_s(b->peaks, b->shape.dtype);
    EP_TRY(ep_comm_barrier(world));
    row->local_s[READ][s] = ep_kernels_read_sample_s(b->peaks);
    for (int i = 0; i < 2; i++) {
        const int form = (i + s) % 2 == 0 ? GROUPED : SINGLE;
        EP_TRY(ep_comm_barrier(world));
        EP_TRY(ep_comm_agree(world, time_form(b, form, &row->local_s[form][s])));
    }
    for (int c = 0; c < NUM_TIMES; c++) {
        row->max_s[c][s] = row->local_s[c][s];
        EP_TRY(ep_comm_max_f64(world, &row->max_s[c][s], 1));
    }
    row->num++;
out:
    return status;
}

static void evaluate(const struct block *b, struct row *row)
{
    const int num = row->num;
    const double flops_per_row = ep_ffn_flops(&b->shape, 1);
    const double expert_bytes = ep_ffn_bytes(&b->shape, 1, 0);
    double bounds_s[MAX_SAMPLES] = {0};
    double compute_s = 0;
    for (int s = 0; s < num; s++) {
        const double s_per_flop =
            row->max_s[PEAK][s] / ep_kernels_peak_flops(b->peaks, b->shape.dtype);
        const double read_s =
            expert_bytes * row->max_s[READ][s] / (double)b->peaks->slice_bytes;
        compute_s = 0;
        for (int64_t e = 0; e < b->shape.num_groups; e++) {
            const double flops_s = (double)b->num_rows[e] * flops_per_row * s_per_flop;
            bounds_s[s] += b->num_rows[e] > 0 ? fmax(flops_s, read_s) : 0.0;
            compute_s += flops_s > read_s ? flops_s : 0.0;
        }
        row->by_peak = compute_s > 0.5 * bounds_s[s];
    }
    for (int c = 0; c < NUM_TIMES; c++) {
        row->median_s[c] = ep_kernels_median_of(row->max_s[c], num);
    }
    row->bound_s = ep_kernels_median_of(bounds_s, num);
    row->of_bound = ep_kernels_share_of(bounds_s, row->max_s[GROUPED], num);
    row->of_single = ep_kernels_share_of(row->max_s[GROUPED], row->max_s[SINGLE], num);
}

/* Fewer than 6 samples have no interval; a row that looks slower then is sampled on until it has one. */
static bool has_interval(const struct row *row)
{
    return isfinite(row->of_single.low);
}

static bool is_slower(const struct row *row)
{
    return has_interval(row) ? row->of_single.low > 1.0 : row->of_single.median > 1.0;
}

static bool is_asked(const struct row *row)
{
    return row->tokens <= EP_KERNELS_FFN_FEW;
}

static bool is_short(const struct row *row)
{
    return is_slower(row) || (is_asked(row) && !(row->of_bound.median >= EP_KERNELS_FFN_ASKED));
}

/* Nothing is faster than its bound: the peaks beside it were measured in slower moments of the machine. */
static bool is_beyond(const struct row *row)
{
    static const double scatter = 1.1; /* of single medians on a quiet machine */
    return row->of_bound.median > scatter;
}

/* Could more samples turn the verdict? */
static bool is_open(const struct row *row)
{
    const bool by_bound = is_asked(row) && row->of_bound.low < EP_KERNELS_FFN_ASKED &&
                          row->of_bound.high >= EP_KERNELS_FFN_ASKED;
    return by_bound || is_slower(row) || (is_asked(row) && is_beyond(row));
}

static enum ep_status measure(struct block *b, struct row *row)
{
    enum ep_status status = EP_OK;
    double spent_s = 0;
    bool go_on = true;
    load_row(b, row);
    EP_TRY(check_forms(b, row));
    const struct ep_os_counters start = ep_os_counters_read();
    while (go_on) {
        EP_TRY(sample_once(b, row));
        for (int c = 0; c < NUM_TIMES; c++) {
            spent_s += row->max_s[c][row->num - 1];
        }
        evaluate(b, row);
        const double budget_s = b->grid->row_budget_s;
        const bool must_go_on = row->num < 3 || (is_slower(row) && !has_interval(row));
        const double allowed_s = must_go_on                        ? INFINITY
                                 : row->num < b->grid->min_samples ? 4 * budget_s
                                 : is_open(row)                    ? 3 * budget_s
                                                                   : budget_s;
        go_on = spent_s < allowed_s && row->num < MAX_SAMPLES;
    }
    row->counters = ep_os_counters_since(&start);
out:
    return status;
}

/* --- what is kept and shown ------------------------------------------------------------------- */

static enum ep_status fill_record(const struct block *b, const struct row *row, int form,
                                  struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int ranks = ep_comm_size(b->session->world);
    const char *dtype = ep_dtype_name(b->shape.dtype), *kind = ep_ffn_kind_name(b->shape.kind);
    EP_TRY(ep_record_set_text(&record->case_name,
                              "kernels/ffn-%s/%s/%s/%s/%s/experts:%" PRId64 "/%s/tokens:%" PRId64
                              "/ranks:%d",
                              form_names[form], kind, b->backend->name, dtype, b->model->model,
                              b->shape.num_groups, row->is_skewed ? "skewed" : "equal", row->tokens,
                              ranks));
    EP_TRY(ep_record_set_text(&record->kernel, "ffn-%s-%s", kind, form_names[form]));
    EP_TRY(ep_record_set_text(&record->model, "%s", b->model->model));
    EP_TRY(ep_record_set_text(&record->dtype, "%s", dtype));
    EP_TRY(ep_record_set_text(&record->buffers, "cold"));
    EP_TRY(ep_record_set_text(&record->pages, "thp"));
    EP_TRY(ep_record_set_text(&record->bound_name, row->by_peak ? "peak" : "read bandwidth"));
    EP_TRY(ep_record_set_text(&record->gemm.backend, "%s", b->backend->name));
    EP_TRY(ep_record_set_text(&record->gemm.dtype, "%s", dtype));
    record->bound_s = row->bound_s;
    record->gemm.m = row->total_rows;
    record->gemm.n = ep_ffn_inner_columns(&b->shape);
    record->gemm.k = b->shape.hidden;
    record->gemm.groups = b->shape.num_groups;
    record->gemm.weights_cold = 1;
    record->gemm.ranks_active = ranks;
    record->gemm.flops = row->flops;
    record->gemm.bytes = row->bytes;
    record->ranks_active = ranks;
    record->visit_idx = 0; /* or what follows, see ep_session_add_record */
    record->flops_per_s = ranks * row->flops / row->median_s[form];
    record->moved_bytes = ranks * row->bytes;
    record->bw_bytes_per_s = record->moved_bytes / row->median_s[form];
out:
    return status;
}

static enum ep_status add_record(struct block *b, struct row *row, int form)
{
    enum ep_status status = EP_OK;
    struct ep_comm *world = b->session->world;
    struct ep_record record;
    struct ep_harness_result result = {.num = row->num,
                                       .samples_s = row->max_s[form],
                                       .local_s = row->local_s[form],
                                       .local_median_s =
                                           ep_kernels_median_of(row->local_s[form], row->num),
                                       .warmup_s = NAN,
                                       .stop = EP_STOP_BUDGET};
    ep_record_init(&record, EP_RECORD_KERNELS);
    EP_TRY(ep_comm_agree(world, ep_session_begin_record(b->session, world, &record)));
    EP_TRY(ep_session_set_samples(b->session, world, &result, &row->counters, &record));
    EP_TRY(ep_comm_agree(world, fill_record(b, row, form, &record)));
    EP_TRY(ep_session_add_record(b->session, &record));
out:
    ep_record_fini(&record);
    return status;
}

static void print_legend(const struct ep_kernels_peaks *peaks, int num_ranks, FILE *out)
{
    fprintf(out,
            "Expert FFNs of all local experts, weights cold, %d rank%s at once, one thread each; "
            "figures are per rank.\nequal: the same rows for each expert; skewed: half of the rows "
            "to one, none to every fourth. bound: summed over\nexperts, the longer of weight bytes / "
            "read bandwidth (%s) and flops / peak (fp32 %s, bf16 %s),\nboth measured. one by one: "
            "GEMM, activation, GEMM per expert, as calls of their own. of bound: bound / grouped "
            "(%.2f asked\nup to %d rows per expert); ratio: grouped / one by one, not above 1 "
            "asked; medians within a repetition, [95 %% interval].\n",
            num_ranks, num_ranks == 1 ? "" : "s", peaks->read->name, peaks->loops[EP_FP32]->name,
            peaks->loops[EP_BF16]->name, EP_KERNELS_FFN_ASKED, (int)EP_KERNELS_FFN_FEW);
}

static void print_head(const struct block *b, FILE *out)
{
    fprintf(out, "\n%s, %s, %s: %" PRId64 " experts of %" PRId64 " x %" PRId64 " (%s)\n", b->model->model,
            ep_dtype_name(b->shape.dtype), b->backend->name, b->shape.num_groups, b->shape.hidden,
            b->shape.ffn, ep_ffn_kind_name(b->shape.kind));
    fprintf(out, "%6s %-6s %6s %6s %7s %6s %10s %10s %10s %8s  %-18s %s\n", "tokens", "load", "active",
            "most", "peak", "read", "bound", "grouped", "one by one", "of bound", "ratio", "");
    fprintf(out, "%6s %-6s %6s %6s %7s %6s %10s %10s %10s\n", "", "", "", "rows", "GF/s", "GB/s",
            "us", "us", "us");
}

static void print_row(const struct block *b, const struct row *row, FILE *out)
{
    fprintf(out,
            "%6" PRId64 " %-6s %6" PRId64 " %6" PRId64 " %7.1f %6.1f %10.0f %10.0f %10.0f %8.2f  ",
            row->tokens, row->is_skewed ? "skewed" : "equal", row->num_active, row->most_rows,
            ep_kernels_peak_flops(b->peaks, b->shape.dtype) / row->median_s[PEAK] / 1e9,
            (double)b->peaks->slice_bytes / row->median_s[READ] / 1e9, row->bound_s * 1e6,
            row->median_s[GROUPED] * 1e6, row->median_s[SINGLE] * 1e6, row->of_bound.median);
    if (has_interval(row)) {
        fprintf(out, "%.3f [%.3f %.3f]", row->of_single.median, row->of_single.low,
                row->of_single.high);
    } else {
        fprintf(out, "%.3f %13s", row->of_single.median, "");
    }
    fprintf(out, " %s%s\n", is_short(row) ? is_open(row) ? "SHORT (may turn)" : "SHORT" : "ok",
            is_beyond(row) ? " (bound measured too low)" : "");
    fflush(out);
}

static enum ep_status append_json(const struct block *b, const struct row *row, json_t *json)
{
    enum ep_status status = EP_OK;
    json_t *object = json_object();
    if (object == NULL || json_array_append_new(json, object) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for a row of results");
    }
    EP_TRY(ep_json_set(object, "model", json_string(b->model->model)));
    EP_TRY(ep_json_set(object, "dtype", json_string(ep_dtype_name(b->shape.dtype))));
    EP_TRY(ep_json_set(object, "backend", json_string(b->backend->name)));
    EP_TRY(ep_json_set(object, "experts", json_integer(b->shape.num_groups)));
    EP_TRY(ep_json_set(object, "tokens", json_integer(row->tokens)));
    EP_TRY(ep_json_set(object, "load", json_string(row->is_skewed ? "skewed" : "equal")));
    EP_TRY(ep_json_set(object, "active", json_integer(row->num_active)));
    EP_TRY(ep_json_set(object, "most_rows", json_integer(row->most_rows)));
    EP_TRY(ep_json_set(object, "samples", json_integer(row->num)));
    EP_TRY(ep_json_set(object, "weight_bytes", ep_json_real(row->weight_bytes)));
    EP_TRY(ep_json_set(object, "flops", ep_json_real(row->flops)));
    EP_TRY(ep_json_set(object, "bound_s", ep_json_real(row->bound_s)));
    EP_TRY(ep_json_set(object, "bound_name", json_string(row->by_peak ? "peak" : "read bandwidth")));
    EP_TRY(ep_json_set(object, "grouped_s", ep_json_real(row->median_s[GROUPED])));
    EP_TRY(ep_json_set(object, "single_s", ep_json_real(row->median_s[SINGLE])));
    EP_TRY(ep_json_set(object, "of_bound", ep_json_real(row->of_bound.median)));
    EP_TRY(ep_json_set(object, "of_bound_low", ep_json_real(row->of_bound.low)));
    EP_TRY(ep_json_set(object, "of_bound_high", ep_json_real(row->of_bound.high)));
    EP_TRY(ep_json_set(object, "of_single", ep_json_real(row->of_single.median)));
    EP_TRY(ep_json_set(object, "of_single_low", ep_json_real(row->of_single.low)));
    EP_TRY(ep_json_set(object, "of_single_high", ep_json_real(row->of_single.high)));
    EP_TRY(ep_json_set(object, "short", json_boolean(is_short(row))));
out:
    return status;
}

static enum ep_status run_row(struct block *b, int64_t tokens, bool is_skewed, struct table *t)
{
    enum ep_status status = EP_OK;
    struct row *row = calloc(1, sizeof *row);
    status = row == NULL ? ep_error_set(EP_ENOMEM, "no memory for samples") : EP_OK;
    EP_TRY(ep_comm_agree(b->session->world, status));
    row->tokens = tokens;
    row->is_skewed = is_skewed;
    EP_TRY(measure(b, row));
    EP_TRY(add_record(b, row, GROUPED));
    EP_TRY(add_record(b, row, SINGLE));
    t->num_short += is_short(row);
    t->num_rows++;
    if (ep_comm_is_root(b->session->world)) {
        print_row(b, row, t->out);
        status = t->json != NULL ? append_json(b, row, t->json) : EP_OK;
    }
    EP_TRY(ep_comm_agree(b->session->world, status));
out:
    free(row);
    return status;
}

static enum ep_status run_block(struct block *b, struct table *t)
{
    enum ep_status status = EP_OK;
    EP_TRY(block_init(b));
    if (ep_comm_is_root(b->session->world)) {
        print_head(b, t->out);
    }
    for (int64_t i = 0; i < 2 * b->grid->num_tokens; i++) {
        EP_TRY(ep_session_interrupted(b->session, &t->interrupted));
        if (t->interrupted) {
            break;
        }
        EP_TRY(run_row(b, b->grid->tokens[i / 2], i % 2 == 1, t));
    }
out:
    block_fini(b);
    return status;
}

/* A back end that cannot do a dtype is left out with a warning. */
static enum ep_status run_backend(struct block block, const char *name, struct table *t)
{
    enum ep_status status = ep_gemm_find(name, block.shape.dtype, &block.backend);
    if (status == EP_EENV) {
        ep_session_warn(block.session, name, "%s", ep_error_text());
        ep_error_clear();
        return EP_OK;
    }
    return status == EP_OK ? run_block(&block, t) : status;
}

enum ep_status ep_kernels_ffn_run(struct ep_session *session, const struct ep_kernels_grid *grid,
                                  FILE *out, json_t *json, int64_t *num_short)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_peaks *peaks = NULL;
    struct table table = {.out = out, .json = json};
    const int64_t num = grid->num_shapes * grid->num_dtypes * grid->num_backends;
    *num_short = 0;
    EP_TRY(ep_kernels_peaks_create(session, grid->cold_caches, &peaks));
    if (ep_comm_is_root(session->world)) {
        print_legend(peaks, ep_comm_size(session->world), out);
    }
    for (int64_t i = 0; i < num && !table.interrupted; i++) {
        const struct ep_kernels_shape *model =
            &grid->shapes[i / grid->num_backends / grid->num_dtypes];
        const struct block block = {
            .session = session,
            .peaks = peaks,
            .grid = grid,
            .model = model,
            .shape = {.kind = model->gated ? EP_FFN_SWIGLU : EP_FFN_RELU,
                      .hidden = model->hidden,
                      .ffn = model->ffn,
                      .dtype = grid->dtypes[i / grid->num_backends % grid->num_dtypes]}};
        EP_TRY(run_backend(block, grid->backends[i % grid->num_backends], &table));
    }
    *num_short = table.num_short;
    ep_session_count_visits(session, table.num_rows, 2 * num * grid->num_tokens);
out:
    ep_kernels_peaks_destroy(peaks);
    return status;
}
