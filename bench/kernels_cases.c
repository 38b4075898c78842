/* SPDX-License-Identifier: Apache-2.0 */
/* The list of kernel benchmarks, and what happens around each: starting together, records. */
#include "bench/kernels_cases.h"

#include "base/file.h"
#include "base/units.h"
#include "bench/kernels_case.h"
#include "bench/kernels_peaks.h"
#include "kernels/ffn.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ep_kernels_cases {
    struct ep_session *session;
    const struct ep_kernels_grid *grid;
    struct ep_gbench *bench;
    struct ep_kernels_slot slot;
    struct ep_kernels_case **items; /* [num], each on its own, since the shim keeps addresses */
    int64_t num;
    bool stopped; /* by a signal: what is left does not begin */
};

/* --- hooks of the shim ----------------------------------------------------------------------- */

static bool is_active(const struct ep_kernels_case *one)
{
    return ep_comm_rank(one->session->world) < one->ranks_active;
}

static enum ep_status begin(void *ctx)
{
    struct ep_kernels_case *one = ctx;
    enum ep_status status = EP_OK;
    EP_TRY(ep_session_interrupted(one->session, one->stopped));
    if (*one->stopped) {
        return ep_error_set(EP_ECHECK, "stopped by a signal");
    }
    if (is_active(one)) {
        status = one->kind->prepare(one);
    }
    one->counters = ep_os_counters_read();
out:
    return status;
}

static enum ep_status sync_ranks(void *ctx, enum ep_status local)
{
    const struct ep_kernels_case *one = ctx;
    const enum ep_status status = ep_comm_agree(one->session->world, local);
    return status == EP_OK ? ep_comm_barrier(one->session->world) : status;
}

static enum ep_status run(void *ctx)
{
    struct ep_kernels_case *one = ctx;
    return is_active(one) ? one->kind->run(one) : EP_OK;
}

static bool is_cold(const struct ep_kernels_case *one)
{
    return one->kind == &ep_kernels_gemm_kind || one->kind == &ep_kernels_ffn_kind ||
           one->kind == &ep_kernels_ffn_backward_kind;
}

static enum ep_status fill_record(const struct ep_kernels_case *one, double begin_s,
                                  struct ep_record *record)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_record_set_text(&record->case_name, "kernels/%s", one->name));
    EP_TRY(ep_record_set_text(&record->buffers, is_cold(one) ? "cold" : "warm"));
    EP_TRY(ep_record_set_text(&record->pages, "thp"));
    EP_TRY(ep_record_set_text(&record->cadence, "barrier"));
    EP_TRY(ep_record_set_text(&record->stop_reason, "fixed"));
    record->visit_idx = 0;
    record->ranks_active = one->ranks_active;
    record->start_utc_s = begin_s;
    record->warmup_s = NAN;
    record->ranks_active = one->ranks_active;
    if (one->flops > 0.0) {
        record->flops_per_s = (double)one->ranks_active * one->flops / record->median_s;
    }
    if (one->bytes > 0.0) {
        record->moved_bytes = (double)one->ranks_active * one->bytes;
        record->bw_bytes_per_s = record->moved_bytes / record->median_s;
    }
    EP_TRY(one->kind->fill(one, record));
out:
    return status;
}

static enum ep_status end(void *ctx, const double *samples_s, int64_t num, double begin_s)
{
    struct ep_kernels_case *one = ctx;
    enum ep_status status = EP_OK;
    struct ep_session *session = one->session;
    const struct ep_os_counters counters = ep_os_counters_since(&one->counters);
    struct ep_harness_result result = {.num = num, .stop = EP_STOP_SAMPLES, .warmup_s = NAN};
    struct ep_record record;
    ep_record_init(&record, EP_RECORD_KERNELS);
    if (num == 0) {
        return EP_OK; /* every rank has the failure already */
    }
    result.samples_s = malloc((size_t)num * sizeof *result.samples_s);
    result.local_s = malloc((size_t)num * sizeof *result.local_s);
    if (result.samples_s == NULL || result.local_s == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " samples", num);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    for (int64_t i = 0; i < num; i++) {
        result.samples_s[i] = result.local_s[i] = is_active(one) ? samples_s[i] : 0.0;
    }
    EP_TRY(ep_comm_max_f64(session->world, result.samples_s, num));
    EP_TRY(ep_comm_agree(session->world,
                         ep_stats_summarize(result.samples_s, num, &result.summary)));
    one->median_s = result.summary.median;
    ep_stats_sort(result.local_s, num);
    result.local_median_s = ep_stats_median_sorted(result.local_s, num);
    EP_TRY(ep_comm_agree(session->world,
                         ep_session_begin_record(session, session->world, &record)));
    EP_TRY(ep_session_set_samples(session, session->world, &result, &counters, &record));
    if (ep_comm_is_root(session->world)) {
        status = fill_record(one, begin_s, &record);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(ep_session_add_record(session, &record));
out:
    ep_record_fini(&record);
    free(result.samples_s);
    free(result.local_s);
    return status;
}

/* --- the list -------------------------------------------------------------------------------- */

/* Calls of run in one sample, so that it takes about 2 ms at the rates of a current core; a function of
 * the case alone, since ranks must agree on it. */
static int64_t choose_iterations(const struct ep_kernels_case *one)
{
    /* small matrices cost what a call costs, once or twice an expert */
    const double calls = one->backend == NULL     ? 0
                         : one->num_experts > 0 ? 2 * (double)one->num_experts
                                                : 1;
    const double guess_s = one->route != NULL
                               ? one->route->guess_s
                               : one->flops / 1e11 + one->bytes / 2e10 + calls * 2e-6;
    const double wanted = 2e-3 / guess_s;
    return wanted < 1.0 ? 1 : wanted > 1e6 ? 1000000 : (int64_t)wanted;
}

/* Append a case on one rank and, with several, on all. `name` gets /ranks:R. */
static enum ep_status add_cases(struct ep_kernels_cases *cases, const struct ep_kernels_case *like,
                                const char *slot_key, const char *name)
{
    const int64_t size = ep_comm_size(cases->session->world);
    for (int64_t ranks = 1; ranks <= size; ranks = ranks < size ? size : size + 1) {
        struct ep_kernels_case *one = malloc(sizeof *one);
        struct ep_kernels_case **items =
            realloc(cases->items, (size_t)(cases->num + 1) * sizeof(struct ep_kernels_case *));
        cases->items = items != NULL ? items : cases->items;
        if (one == NULL || items == NULL) {
            free(one);
            return ep_error_set(EP_ENOMEM, "no memory for a list of benchmarks");
        }
        *one = *like;
        one->session = cases->session;
        one->grid = cases->grid;
        one->slot = &cases->slot;
        one->stopped = &cases->stopped;
        one->median_s = NAN;
        one->ranks_active = ranks;
        one->iterations = choose_iterations(one);
        snprintf(one->name, sizeof one->name, "%s/ranks:%" PRId64, name, ranks);
        snprintf(one->slot_key, sizeof one->slot_key, "%s", slot_key);
        items[cases->num++] = one;
        const struct ep_gbench_case hooks = {.name = one->name,
                                             .iterations = one->iterations,
                                             .flops = one->flops * (double)ranks,
                                             .bytes = one->bytes * (double)ranks,
                                             .items = one->items * (double)ranks,
                                             .begin = begin,
                                             .sync = sync_ranks,
                                             .run = run,
                                             .end = end,
                                             .ctx = one};
        const enum ep_status status =
            cases->bench != NULL ? ep_gbench_register(cases->bench, &hooks) : EP_OK;
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status add_gemms(struct ep_kernels_cases *cases, struct ep_kernels_case *like)
{
    const struct ep_kernels_grid *grid = cases->grid;
    for (int matrix = 0; matrix < 2; matrix++) {
        char key[160];
        like->kind = &ep_kernels_gemm_kind;
        like->is_w2 = matrix == 1;
        snprintf(key, sizeof key, "gemm/%s/%s/%s/%s", like->backend->name,
                 ep_dtype_name(like->dtype), like->shape->model, like->is_w2 ? "w2" : "w13");
        const struct ep_gemm_shape shape = {1, ep_kernels_case_k(like), ep_kernels_case_n(like),
                                            like->dtype};
        for (int64_t t = 0; t < grid->num_tokens; t++) {
            char name[192];
            like->tokens = grid->tokens[t];
            like->flops = ep_gemm_flops(&shape, like->tokens);
            like->bytes = ep_gemm_bytes(&shape, 1, like->tokens);
            snprintf(name, sizeof name, "%s/tokens:%" PRId64, key, like->tokens);
            const enum ep_status status = add_cases(cases, like, key, name);
            if (status != EP_OK) {
                return status;
            }
        }
    }
    return EP_OK;
}

static enum ep_status add_ffns(struct ep_kernels_cases *cases, struct ep_kernels_case *like,
                               bool is_backward)
{
    const struct ep_kernels_grid *grid = cases->grid;
    char key[160];
    struct ep_ffn_shape shape = {.kind = like->shape->gated ? EP_FFN_SWIGLU : EP_FFN_RELU,
                                 .num_groups = 1,
                                 .hidden = like->shape->hidden,
                                 .ffn = like->shape->ffn,
                                 .dtype = like->dtype};
    /* cold: the experts of one call together pass the caches; two at least, since it is grouped */
    const double expert_bytes = ep_ffn_bytes(&shape, 1, 0);
    const int64_t num = (int64_t)((double)ep_kernels_cold_bytes(cases->session, cases->grid->cold_caches) / expert_bytes);
    like->kind = is_backward ? &ep_kernels_ffn_backward_kind : &ep_kernels_ffn_kind;
    like->num_experts = num < 2 ? 2 : num > 64 ? 64 : num;
    shape.num_groups = like->num_experts;
    snprintf(key, sizeof key, "%s/%s/%s/%s/experts:%" PRId64,
             is_backward ? "ffn-backward" : "ffn", like->backend->name,
             ep_dtype_name(like->dtype), like->shape->model, like->num_experts);
    for (int64_t t = 0; t < grid->num_tokens; t++) {
        char name[192];
        like->tokens = grid->tokens[t];
        const int64_t rows = like->tokens * like->num_experts;
        like->flops = is_backward ? ep_ffn_backward_flops(&shape, rows, false)
                                  : ep_ffn_flops(&shape, rows);
        like->bytes = is_backward ? ep_ffn_backward_bytes(&shape, like->num_experts, rows, false)
                                  : ep_ffn_bytes(&shape, like->num_experts, rows);
        snprintf(name, sizeof name, "%s/tokens:%" PRId64, key, like->tokens);
        const enum ep_status status = add_cases(cases, like, key, name);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status add_permutes(struct ep_kernels_cases *cases,
                                   const struct ep_kernels_shape *shape, enum ep_dtype dtype)
{
    static const int64_t tokens[] = {64, 1024};
    for (size_t i = 0; i < 2 * sizeof tokens / sizeof *tokens && shape->top_k > 0; i++) {
        char key[160], name[192];
        struct ep_kernels_case like = {.kind = &ep_kernels_permute_kind,
                                       .shape = shape,
                                       .dtype = dtype,
                                       .tokens = tokens[i / 2],
                                       .is_unpermute = i % 2 == 1};
        /* as ep_permute_traffic_bytes: permute reads and writes each copy; the sum reads each copy
         * and writes each token */
        const double row = (double)(shape->hidden * ep_dtype_element_bytes(dtype));
        const double copies = (double)(like.tokens * shape->top_k);
        like.bytes = row * (copies + (like.is_unpermute ? (double)like.tokens : copies));
        snprintf(key, sizeof key, "permute/%s/%s/%" PRId64, ep_dtype_name(dtype), shape->model,
                 like.tokens);
        snprintf(name, sizeof name, "%s/%s/%s/tokens:%" PRId64,
                 like.is_unpermute ? "unpermute" : "permute", ep_dtype_name(dtype), shape->model,
                 like.tokens);
        const enum ep_status status = add_cases(cases, &like, key, name);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status add_peaks(struct ep_kernels_cases *cases)
{
    for (const struct ep_peak_loop *l = ep_peak_loops; l->name != NULL; l++) {
        char name[96];
        const struct ep_kernels_case like = {
            .kind = &ep_kernels_peak_kind,
            .loop = l,
            .flops = (double)ep_kernels_peak_rounds(l) * l->flops_per_round};
        snprintf(name, sizeof name, "peak/%s", l->name);
        const enum ep_status status =
            l->is_supported() ? add_cases(cases, &like, "peak", name) : EP_OK;
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status add_routes(struct ep_kernels_cases *cases)
{
    for (const struct ep_kernels_route *r = ep_kernels_routes; r->what != NULL; r++) {
        char name[96];
        const struct ep_kernels_case like = {
            .kind = &ep_kernels_route_kind, .route = r, .items = ep_kernels_route_pairs(r)};
        snprintf(name, sizeof name, "route/%s/%s", r->what, r->skew);
        const enum ep_status status = add_cases(cases, &like, name, name);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status add_streams(struct ep_kernels_cases *cases)
{
    /* the last one is beyond any cache: as cold as the weights */
    int64_t sizes[] = {(int64_t)16 << 10, (int64_t)256 << 10, (int64_t)4 << 20, (int64_t)16 << 20,
                       0};
    const size_t num = sizeof sizes / sizeof *sizes;
    sizes[num - 1] = ep_kernels_cold_bytes(cases->session, cases->grid->cold_caches);
    for (size_t i = 0; i < num; i++) {
        for (const struct ep_stream_loop *l = ep_stream_loops; l->name != NULL; l++) {
            char key[64], name[96], size[32];
            const struct ep_kernels_case like = {.kind = &ep_kernels_stream_kind,
                                                 .stream = l,
                                                 .size_bytes = sizes[i],
                                                 .bytes = (double)sizes[i] * l->bytes_per_byte};
            snprintf(key, sizeof key, "stream/%" PRId64, sizes[i]);
            if (sizes[i] >= 1 << 20) {
                snprintf(size, sizeof size, "%" PRId64 "MiB", sizes[i] >> 20);
            } else {
                snprintf(size, sizeof size, "%" PRId64 "KiB", sizes[i] >> 10);
            }
            snprintf(name, sizeof name, "%s/%s/%s", l->is_copy ? "copy" : "membw", l->name, size);
            const enum ep_status status =
                l->is_supported() ? add_cases(cases, &like, key, name) : EP_OK;
            if (status != EP_OK) {
                return status;
            }
        }
    }
    return EP_OK;
}

/* GEMMs and FFNs of one shape and dtype by all back ends that are there. */
static enum ep_status add_backends(struct ep_kernels_cases *cases,
                                   const struct ep_kernels_shape *shape, enum ep_dtype dtype)
{
    enum ep_status status = EP_OK;
    for (int64_t b = 0; b < cases->grid->num_backends; b++) {
        struct ep_kernels_case like = {.shape = shape, .dtype = dtype};
        const enum ep_status found =
            ep_gemm_find(cases->grid->backends[b], dtype, &like.backend);
        if (found == EP_EENV) {
            ep_session_warn(cases->session, cases->grid->backends[b], "%s",
                            ep_error_text());
            ep_error_clear();
            continue;
        }
        EP_TRY(found);
        EP_TRY(add_gemms(cases, &like));
        EP_TRY(add_ffns(cases, &like, false));
        EP_TRY(add_ffns(cases, &like, true));
    }
out:
    return status;
}

enum ep_status ep_kernels_cases_create(struct ep_session *session,
                                       const struct ep_kernels_grid *grid,
                                       struct ep_gbench *bench, struct ep_kernels_cases **cases)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_cases *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a list of benchmarks");
    }
    made->session = session;
    made->grid = grid;
    made->bench = bench;
    EP_TRY(add_peaks(made));
    EP_TRY(add_streams(made));
    EP_TRY(add_routes(made));
    for (int64_t s = 0; s < grid->num_shapes; s++) {
        for (int64_t d = 0; d < grid->num_dtypes; d++) {
            EP_TRY(add_permutes(made, &grid->shapes[s], grid->dtypes[d]));
            EP_TRY(add_backends(made, &grid->shapes[s], grid->dtypes[d]));
        }
    }
    *cases = made;
    made = NULL;
out:
    ep_kernels_cases_destroy(made);
    return status;
}

/* One case as the shim would run it. */
static enum ep_status measure_case(struct ep_kernels_case *one, int64_t repetitions)
{
    enum ep_status status = EP_OK;
    double samples_s[EP_KERNELS_MAX_SAMPLES];
    const double begin_s = ep_session_utc_s();
    status = sync_ranks(one, begin(one));
    for (int64_t r = 0; r < repetitions && status == EP_OK; r++) {
        const double start_s = ep_comm_now_s();
        for (int64_t i = 0; i < one->iterations && status == EP_OK; i++) {
            status = run(one);
        }
        samples_s[r] = (ep_comm_now_s() - start_s) / (double)one->iterations;
        status = sync_ranks(one, status);
    }
    return status == EP_OK ? end(one, samples_s, repetitions, begin_s) : status;
}

bool ep_kernels_cases_are_stopped(const struct ep_kernels_cases *cases)
{
    return cases->stopped;
}

/* What a resumed run has of a case is not measured again. */
static enum ep_status take_done_case(struct ep_kernels_case *one, bool *done)
{
    enum ep_status status = EP_OK;
    char *name = ep_format_new("kernels/%s", one->name);
    status = name == NULL ? ep_error_set(EP_ENOMEM, "no memory to resume") : EP_OK;
    EP_TRY(ep_comm_agree(one->session->world, status));
    EP_TRY(ep_session_is_done(one->session, name, 0, done, &one->median_s));
out:
    free(name);
    return status;
}

enum ep_status ep_kernels_cases_measure(struct ep_kernels_cases *cases, int64_t repetitions)
{
    enum ep_status status = EP_OK;
    struct ep_session *session = cases->session;
    int64_t num_done = 0;
    EP_ASSERT(repetitions >= 1 && repetitions <= EP_KERNELS_MAX_SAMPLES);
    for (int64_t i = 0; i < cases->num && !cases->stopped; i++) {
        bool done = false;
        if (session->options.resume) {
            EP_TRY(take_done_case(cases->items[i], &done));
        }
        status = done ? EP_OK : measure_case(cases->items[i], repetitions);
        if (cases->stopped) {
            ep_error_clear();
            status = EP_OK;
        }
        EP_TRY(status);
        num_done += !cases->stopped;
    }
    ep_session_count_visits(session, num_done, cases->num);
out:
    return status;
}

const struct ep_kernels_case *const *ep_kernels_cases_items(const struct ep_kernels_cases *cases,
                                                            int64_t *num)
{
    *num = cases->num;
    return (const struct ep_kernels_case *const *)cases->items;
}

void ep_kernels_cases_destroy(struct ep_kernels_cases *cases)
{
    if (cases == NULL) {
        return;
    }
    if (cases->slot.object != NULL) {
        cases->slot.destroy(cases->slot.object);
    }
    for (int64_t i = 0; i < cases->num; i++) {
        free(cases->items[i]);
    }
    free(cases->items);
    free(cases);
}
