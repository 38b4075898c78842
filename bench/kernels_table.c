/* SPDX-License-Identifier: Apache-2.0 */
/* The comparison of GEMM back ends: measuring one row, and its records. */
#include "bench/kernels_table.h"

#include "base/file.h"
#include "base/json.h"
#include "bench/kernels_gemm.h"
#include "bench/kernels_peaks.h"
#include "bench/kernels_report.h"
#include "kernels/models.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BACKENDS = 8, MAX_SAMPLES = EP_KERNELS_MAX_SAMPLES };

static const enum ep_dtype default_dtypes[] = {EP_FP32, EP_BF16};
static const int64_t default_tokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
static const char *const default_backends[] = {"native", "onednn", "cblas"};

struct ep_kernels_grid ep_kernels_grid_default(void)
{
    return (struct ep_kernels_grid){
        .dtypes = default_dtypes,
        .num_dtypes = sizeof default_dtypes / sizeof *default_dtypes,
        .tokens = default_tokens,
        .num_tokens = sizeof default_tokens / sizeof *default_tokens,
        .backends = default_backends,
        .num_backends = sizeof default_backends / sizeof *default_backends,
        .row_budget_s = 0.8,
        .min_samples = 5,
        .cold_caches = 4,
    };
}

enum ep_status ep_kernels_shape_of_model(const char *file, const char *name,
                                         struct ep_kernels_shape *shape)
{
    enum ep_status status = EP_OK;
    struct ep_models *models = NULL;
    const struct ep_model *model = NULL;
    EP_TRY(ep_models_open(file, name, &models, &model));
    EP_TRY(ep_model_need_experts(model));
    *shape = (struct ep_kernels_shape){.model = name,
                                       .hidden = model->hidden,
                                       .ffn = model->expert_ffn,
                                       .gated = model->gated,
                                       .num_experts = model->num_experts,
                                       .top_k = model->top_k};
out:
    ep_models_destroy(models);
    return status;
}

/* What one block of rows shares: one matrix of one model in one dtype, packed by every back end. */
struct block {
    struct ep_session *session;
    struct ep_kernels_peaks *peaks;
    const struct ep_kernels_grid *grid;
    const struct ep_kernels_shape *shape;
    const char *matrix; /* "w13", "w2" */
    enum ep_dtype dtype;
    int64_t k, n;
    int num_backends;
    int default_idx; /* of the default back end in sets; -1 = not compared */
    struct ep_kernels_gemm *sets[MAX_BACKENDS];
    int64_t num_rows; /* measured now or before */
};

/* Samples of one row, slowest rank of each repetition. [0] peak, [1] read, then the back ends. */
struct samples {
    int num;
    struct ep_os_counters counters; /* of this rank, over the whole row */
    double local_s[MAX_BACKENDS + 2][MAX_SAMPLES];
    double max_s[MAX_BACKENDS + 2][MAX_SAMPLES];
};

static void block_fini(struct block *block)
{
    for (int b = 0; b < block->num_backends; b++) {
        ep_kernels_gemm_destroy(block->sets[b]);
        block->sets[b] = NULL;
    }
    block->num_backends = 0;
}

static int64_t largest(const int64_t *values, int64_t num)
{
    int64_t most = 0;
    for (int64_t i = 0; i < num; i++) {
        most = values[i] > most ? values[i] : most;
    }
    return most;
}

static enum ep_status add_backend(struct block *block, const char *name)
{
    struct ep_kernels_gemm_key key = {NULL, block->dtype, block->k, block->n};
    enum ep_status status = ep_gemm_find(name, block->dtype, &key.backend);
    if (status == EP_EENV) {
        ep_session_warn(block->session, name, "%s", ep_error_text());
        ep_error_clear();
        return EP_OK;
    }
    for (int b = 0; status == EP_OK && b < block->num_backends; b++) {
        if (block->sets[b]->key.backend == key.backend) { /* "default" beside its own name */
            return EP_OK;
        }
    }
    if (status == EP_OK) {
        status = ep_kernels_gemm_create(
            &key, ep_kernels_cold_bytes(block->session, block->grid->cold_caches),
            largest(block->grid->tokens, block->grid->num_tokens), block->session->options.seed,
            &block->sets[block->num_backends]);
    }
    status = ep_comm_agree(block->session->world, status);
    if (status == EP_OK) {
        if (key.backend == ep_gemm_default(block->dtype)) {
            block->default_idx = block->num_backends;
        }
        block->num_backends++;
    }
    return status;
}

static enum ep_status block_init(struct block *block)
{
    enum ep_status status = EP_OK;
    block->default_idx = -1;
    EP_TRY(add_backend(block, "default"));
    for (int64_t b = 0; b < block->grid->num_backends; b++) {
        EP_ASSERT(block->num_backends < MAX_BACKENDS);
        EP_TRY(add_backend(block, block->grid->backends[b]));
    }
out:
    return status;
}

static enum ep_status time_backend(struct block *block, int b, int64_t tokens, double *time_s)
{
    const double start = ep_comm_now_s();
    const enum ep_status status = ep_kernels_gemm_run(block->sets[b], tokens);
    *time_s = ep_comm_now_s() - start;
    return status;
}

/* One repetition: everything once; the back ends begin with another one each time. */
static enum ep_status sample_once(struct block *block, int64_t tokens, struct samples *samples)
{
    enum ep_status status = EP_OK;
    struct ep_comm *world = block->session->world;
    const int s = samples->num, num = block->num_backends;
    EP_TRY(ep_comm_barrier(world));
    samples->local_s[0][s] = ep_kernels_peak_sample_s(block->peaks, block->dtype);
    EP_TRY(ep_comm_barrier(world));
    samples->local_s[1][s] = ep_kernels_read_sample_s(block->peaks);
    for (int i = 0; i < num; i++) {
        const int b = (i + s) % num;
        EP_TRY(ep_comm_barrier(world));
        EP_TRY(ep_comm_agree(world,
                             time_backend(block, b, tokens, &samples->local_s[2 + b][s])));
    }
    for (int c = 0; c < num + 2; c++) {
        samples->max_s[c][s] = samples->local_s[c][s];
        EP_TRY(ep_comm_max_f64(world, &samples->max_s[c][s], 1));
    }
    double *least_s = &block->peaks->least_s[block->dtype];
    *least_s = fmin(*least_s, samples->max_s[0][s]);
    samples->num++;
out:
    return status;
}

static enum ep_status warm_up(struct block *block, int64_t tokens)
{
    enum ep_status status = EP_OK;
    for (int b = 0; b < block->num_backends; b++) {
        status = ep_kernels_gemm_run(block->sets[b], tokens);
        if (status == EP_OK) {
            status = ep_kernels_gemm_check(block->sets[b], tokens);
        }
        EP_TRY(ep_comm_agree(block->session->world, status));
    }
out:
    return status;
}

static void evaluate_shares(const struct block *block, const struct samples *samples,
                            struct ep_kernels_row *row)
{
    const int num = samples->num;
    const double peak_s_per_flop = 1.0 / ep_kernels_peak_flops(block->peaks, block->dtype);
    const double read_s_per_byte = 1.0 / (double)block->peaks->slice_bytes;
    double bound_s[MAX_SAMPLES] = {0}, compute_s[MAX_SAMPLES] = {0};
    double weights_s[MAX_SAMPLES] = {0};
    for (int i = 0; i < num; i++) {
        compute_s[i] = row->flops * samples->max_s[0][i] * peak_s_per_flop;
        weights_s[i] = row->weight_bytes * samples->max_s[1][i] * read_s_per_byte;
        bound_s[i] = fmax(compute_s[i], row->bytes * samples->max_s[1][i] * read_s_per_byte);
    }
    const double *own_s = samples->max_s[2 + block->default_idx];
    row->peak_flops_per_s = row->flops / ep_kernels_median_of(compute_s, num);
    row->weights_s = ep_kernels_median_of(weights_s, num);
    row->read_bytes_per_s = row->weight_bytes / row->weights_s;
    row->bound_s = ep_kernels_median_of(bound_s, num);
    row->of_peak = ep_kernels_share_of(compute_s, own_s, num);
    row->of_roofline = ep_kernels_share_of(bound_s, own_s, num);
    row->of_read = ep_kernels_share_of(weights_s, own_s, num);
    row->peak_of_best =
        block->peaks->least_s[block->dtype] / ep_kernels_median_of(samples->max_s[0], num);
    row->of_best = (struct ep_kernels_share){1.0, 1.0, 1.0};
    for (int b = 0; b < block->num_backends; b++) {
        const double *other_s = samples->max_s[2 + b];
        const struct ep_kernels_share share = ep_kernels_share_of(other_s, own_s, num);
        row->backends[b] = block->sets[b]->key.backend->name;
        row->median_s[b] = ep_kernels_median_of(other_s, num);
        if (b != block->default_idx && share.median < row->of_best.median) {
            row->of_best = share;
        }
    }
}

static void evaluate_row(const struct block *block, int64_t tokens, const struct samples *samples,
                         struct ep_kernels_row *row)
{
    const struct ep_gemm_shape shape = {1, block->k, block->n, block->dtype};
    *row = (struct ep_kernels_row){.model = block->shape->model,
                                   .matrix = block->matrix,
                                   .dtype = block->dtype,
                                   .tokens = tokens,
                                   .k = block->k,
                                   .n = block->n,
                                   .num_backends = block->num_backends,
                                   .default_idx = block->default_idx,
                                   .num_samples = samples->num};
    row->flops = ep_gemm_flops(&shape, tokens);
    row->bytes = ep_gemm_bytes(&shape, 1, tokens);
    row->weight_bytes =
        (double)block->k * (double)block->n * (double)ep_dtype_element_bytes(block->dtype);
    evaluate_shares(block, samples, row);
}

/* All ranks go by the same samples, so they decide alike. */
static enum ep_status measure_row(struct block *block, int64_t tokens, struct samples *samples,
                                  struct ep_kernels_row *row)
{
    enum ep_status status = EP_OK;
    const struct ep_kernels_grid *grid = block->grid;
    double spent_s = 0.0;
    bool go_on = true;
    samples->num = 0;
    EP_TRY(warm_up(block, tokens));
    const struct ep_os_counters start = ep_os_counters_read();
    while (go_on) {
        EP_TRY(sample_once(block, tokens, samples));
        for (int c = 0; c < block->num_backends + 2; c++) {
            spent_s += samples->max_s[c][samples->num - 1];
        }
        evaluate_row(block, tokens, samples, row);
        /* long rows: three will do */
        const double allowed_s = samples->num < 3                    ? INFINITY
                                 : samples->num < grid->min_samples  ? 4 * grid->row_budget_s
                                 : ep_kernels_row_is_open(row)       ? 3 * grid->row_budget_s
                                                                     : grid->row_budget_s;
        go_on = spent_s < allowed_s && samples->num < MAX_SAMPLES;
    }
    samples->counters = ep_os_counters_since(&start);
    row->num_switches = samples->counters.context_switches;
    EP_TRY(ep_comm_sum_i64(block->session->world, &row->num_switches, 1));
out:
    return status;
}

/* Fill a record's samples and common keys; collective, the status is agreed. */
static enum ep_status add_samples(struct block *block, struct samples *samples, int c,
                                  struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_comm *world = block->session->world;
    struct ep_harness_result result = {.num = samples->num,
                                       .samples_s = samples->max_s[c],
                                       .local_s = samples->local_s[c],
                                       .local_median_s = ep_kernels_median_of(samples->local_s[c],
                                                                   samples->num),
                                       .warmup_s = NAN,
                                       .stop = EP_STOP_BUDGET};
    EP_TRY(ep_comm_agree(world, ep_session_begin_record(block->session, world, record)));
    EP_TRY(ep_session_set_samples(block->session, world, &result, &samples->counters, record));
    record->visit_idx = 0; /* or what follows, see ep_session_add_record */
    record->ranks_active = ep_comm_size(world);
out:
    return status;
}

static char *new_case_name(const struct block *block, const char *backend, int64_t tokens)
{
    return ep_format_new("kernels/gemm/%s/%s/%s/%s/tokens:%" PRId64 "/ranks:%d", backend,
                         ep_dtype_name(block->dtype), block->shape->model, block->matrix, tokens,
                         ep_comm_size(block->session->world));
}

static enum ep_status fill_gemm_record(const struct block *block, const struct ep_kernels_row *row,
                                       int b, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const double ranks = (double)record->ranks_active;
    const bool by_peak = row->flops / row->bound_s > 0.999 * row->peak_flops_per_s;
    record->case_name = new_case_name(block, row->backends[b], row->tokens);
    if (record->case_name == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the name of a case");
    }
    EP_TRY(ep_record_set_text(&record->buffers, "cold"));
    EP_TRY(ep_record_set_text(&record->pages, "thp"));
    EP_TRY(ep_record_set_text(&record->kernel, "gemm"));
    EP_TRY(ep_record_set_text(&record->model, "%s", row->model));
    EP_TRY(ep_record_set_text(&record->dtype, "%s", ep_dtype_name(row->dtype)));
    EP_TRY(ep_record_set_text(&record->bound_name, by_peak ? "peak" : "read bandwidth"));
    EP_TRY(ep_record_set_text(&record->gemm.backend, "%s", row->backends[b]));
    EP_TRY(ep_record_set_text(&record->gemm.dtype, "%s", ep_dtype_name(row->dtype)));
    record->bound_s = row->bound_s;
    record->gemm.m = row->tokens;
    record->gemm.n = row->n;
    record->gemm.k = row->k;
    record->gemm.groups = 1;
    record->gemm.weights_cold = 1;
    record->gemm.ranks_active = record->ranks_active;
    record->gemm.flops = row->flops;
    record->gemm.bytes = row->bytes;
    record->flops_per_s = ranks * row->flops / row->median_s[b];
    record->moved_bytes = ranks * row->bytes;
    record->bw_bytes_per_s = record->moved_bytes / row->median_s[b];
out:
    return status;
}

static enum ep_status add_gemm_record(struct block *block, const struct ep_kernels_row *row, int b,
                                      struct samples *samples)
{
    enum ep_status status = EP_OK;
    struct ep_record record;
    ep_record_init(&record, EP_RECORD_KERNELS);
    EP_TRY(add_samples(block, samples, 2 + b, &record));
    EP_TRY(ep_comm_agree(block->session->world, fill_gemm_record(block, row, b, &record)));
    EP_TRY(ep_session_add_record(block->session, &record));
out:
    ep_record_fini(&record);
    return status;
}

static enum ep_status fill_peak_record(const struct block *block, bool is_read,
                                       struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const struct ep_kernels_peaks *peaks = block->peaks;
    const double ranks = (double)record->ranks_active;
    EP_TRY(ep_record_set_text(&record->buffers, "cold"));
    EP_TRY(ep_record_set_text(&record->pages, "thp"));
    EP_TRY(ep_record_set_text(&record->case_name, "kernels/%s/%s/%s/ranks:%" PRId64,
                              is_read ? "membw" : "peak",
                              is_read ? peaks->read->name : peaks->loops[block->dtype]->name,
                              ep_dtype_name(block->dtype), record->ranks_active));
    EP_TRY(ep_record_set_text(&record->kernel, "%s", is_read ? "read" : "peak"));
    EP_TRY(ep_record_set_text(&record->dtype, "%s", ep_dtype_name(block->dtype)));
    if (is_read) {
        record->working_set_bytes = peaks->buffer_bytes;
        record->moved_bytes = ranks * (double)peaks->slice_bytes;
        record->bw_bytes_per_s = record->moved_bytes / record->median_s;
    } else {
        record->flops_per_s =
            ranks * ep_kernels_peak_flops(peaks, block->dtype) / record->median_s;
    }
out:
    return status;
}

/* The peak and the read bandwidth under the rows of one block: a visit of them for each block. */
static enum ep_status add_peak_record(struct block *block, bool is_read, struct samples *samples)
{
    enum ep_status status = EP_OK;
    struct ep_record record;
    ep_record_init(&record, EP_RECORD_KERNELS);
    EP_TRY(add_samples(block, samples, is_read ? 1 : 0, &record));
    EP_TRY(ep_comm_agree(block->session->world, fill_peak_record(block, is_read, &record)));
    EP_TRY(ep_session_add_record(block->session, &record));
out:
    ep_record_fini(&record);
    return status;
}

/* Has a resumed run every record of the row? */
static enum ep_status is_row_done(struct block *block, int64_t tokens, bool *done)
{
    enum ep_status status = EP_OK;
    *done = block->session->options.resume;
    for (int b = 0; b < block->num_backends && *done; b++) {
        char *name = new_case_name(block, block->sets[b]->key.backend->name, tokens);
        status = name == NULL ? ep_error_set(EP_ENOMEM, "no memory to resume") : EP_OK;
        status = ep_comm_agree(block->session->world, status);
        if (status == EP_OK) {
            status = ep_session_is_done(block->session, name, 0, done, NULL);
        }
        free(name);
        EP_TRY(status);
    }
out:
    return status;
}

static enum ep_status run_row(struct block *block, int64_t tokens, bool is_first, FILE *out,
                              json_t *json, int64_t *num_short)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_row row;
    struct samples *samples = calloc(1, sizeof *samples);
    status = samples == NULL ? ep_error_set(EP_ENOMEM, "no memory for samples") : EP_OK;
    EP_TRY(ep_comm_agree(block->session->world, status));
    EP_TRY(measure_row(block, tokens, samples, &row));
    if (is_first) {
        EP_TRY(add_peak_record(block, false, samples));
        EP_TRY(add_peak_record(block, true, samples));
    }
    for (int b = 0; b < block->num_backends; b++) {
        EP_TRY(add_gemm_record(block, &row, b, samples));
    }
    *num_short += ep_kernels_row_is_short(&row);
    if (ep_comm_is_root(block->session->world)) {
        ep_kernels_row_print(&row, out);
        if (json != NULL) {
            status = ep_kernels_row_to_json(&row, json);
        }
    }
    EP_TRY(ep_comm_agree(block->session->world, status));
out:
    free(samples);
    return status;
}

/* Agreed over ranks: true, and noted as skipped, where the whole table's time is used up. */
static enum ep_status is_late(struct block *block, double start_s, bool *late)
{
    double spent_s = ep_comm_now_s() - start_s;
    enum ep_status status = ep_comm_max_f64(block->session->world, &spent_s, 1);
    *late = block->grid->budget_s > 0.0 && spent_s > block->grid->budget_s;
    if (status == EP_OK && *late) {
        char name[128];
        snprintf(name, sizeof name, "gemm %s %s %s", block->shape->model, block->matrix,
                 ep_dtype_name(block->dtype));
        ep_session_skip(block->session, name, "%.0f s for GEMMs were used up",
                        block->grid->budget_s);
    }
    return status;
}

static enum ep_status run_block(struct block *block, double start_s, FILE *out, json_t *json,
                                int64_t *num_short, bool *interrupted)
{
    enum ep_status status = EP_OK;
    bool late = false;
    EP_TRY(is_late(block, start_s, &late));
    if (late) {
        goto out;
    }
    EP_TRY(block_init(block));
    if (ep_comm_is_root(block->session->world)) {
        ep_kernels_row_print_head(block->sets, block->num_backends, out);
    }
    for (int64_t t = 0; t < block->grid->num_tokens && !late; t++) {
        const int64_t tokens = block->grid->tokens[t];
        bool done = false;
        EP_TRY(is_row_done(block, tokens, &done));
        if (!done) {
            EP_TRY(ep_session_interrupted(block->session, interrupted));
        }
        if (*interrupted) {
            break;
        }
        EP_TRY(done ? EP_OK : run_row(block, tokens, t == 0, out, json, num_short));
        block->num_rows++;
        if (t + 1 < block->grid->num_tokens) {
            EP_TRY(is_late(block, start_s, &late));
        }
    }
out:
    block_fini(block);
    return status;
}

enum ep_status ep_kernels_table_run(struct ep_session *session, const struct ep_kernels_grid *grid,
                                    FILE *out, json_t *json, int64_t *num_short)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_peaks *peaks = NULL;
    bool interrupted = false;
    int64_t num_rows = 0;
    const int64_t num_blocks = 2 * grid->num_shapes * grid->num_dtypes;
    const double start_s = ep_comm_now_s();
    *num_short = 0;
    EP_TRY(ep_kernels_peaks_create(session, grid->cold_caches, &peaks));
    if (ep_comm_is_root(session->world)) {
        ep_kernels_print_legend(peaks, ep_comm_size(session->world), out);
    }
    for (int64_t i = 0; i < num_blocks; i++) {
        const struct ep_kernels_shape *shape = &grid->shapes[i / (2 * grid->num_dtypes)];
        const bool is_w2 = i % 2 == 1;
        const int64_t inner = shape->gated ? 2 * shape->ffn : shape->ffn;
        struct block block = {.session = session,
                              .peaks = peaks,
                              .grid = grid,
                              .shape = shape,
                              .matrix = is_w2 ? "w2" : "w13",
                              .dtype = grid->dtypes[i / 2 % grid->num_dtypes],
                              .k = is_w2 ? shape->ffn : shape->hidden,
                              .n = is_w2 ? shape->hidden : inner};
        EP_TRY(ep_session_interrupted(session, &interrupted));
        if (interrupted) {
            break;
        }
        EP_TRY(run_block(&block, start_s, out, json, num_short, &interrupted));
        num_rows += block.num_rows;
    }
    ep_session_count_visits(session, num_rows, num_blocks * grid->num_tokens);
out:
    ep_kernels_peaks_destroy(peaks);
    return status;
}
