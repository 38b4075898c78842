/* SPDX-License-Identifier: Apache-2.0 */
/* A visit of one layer: in which order it is measured, and what its record holds. */
#include "bench/layer_case.h"

#include "base/file.h"
#include "bench/comm_record.h"
#include "bench/flush.h"
#include "bench/layer_backward.h"
#include "bench/layer_check.h"
#include "bench/layer_overlap.h"
#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_REPETITIONS = 5, MAX_REPETITIONS = 60, FLUSHED_CACHES = 3 };

/* Shares of a visit's time; phases take the rest. */
static const double whole_share = 0.4, dense_share = 0.1, single_share = 0.3;
static const double overlap_share = 0.5; /* of a visit's time on top, for each number of chunks */

/* One layer under measurement. */
struct run {
    const struct ep_layer_visits *visits;
    const struct ep_comm_effort *effort;
    struct ep_layer *layer;
    struct ep_flush *flush; /* read before each repetition where buffers are to be cold, else NULL */
    struct ep_os_counters before;
    struct ep_harness_result whole;
    struct ep_os_counters during;
    struct ep_layer_clocks clocks; /* with works, needs and times of its own */
    enum ep_layer_work works[EP_LAYER_MAX_PHASES];
    double *times_s;
    bool *needs;
    double clock_error_s;
    struct ep_layer_split split;
    struct ep_check check;
    double dense_s; /* NaN = not measured */
    struct ep_record_overlap *overlaps; /* [num_chunks of the visits] */
};

static void run_fini(struct run *r)
{
    ep_layer_destroy(r->layer);
    ep_flush_destroy(r->flush);
    ep_harness_result_fini(&r->whole);
    ep_layer_split_fini(&r->split);
    free(r->times_s);
    free(r->needs);
    free(r->overlaps);
}

static enum ep_status run_whole(void *ctx)
{
    return ep_layer_run(((struct run *)ctx)->layer);
}

static void begin_samples(void *ctx)
{
    ((struct run *)ctx)->before = ep_os_counters_read();
}

static enum ep_status empty_caches(void *ctx)
{
    const struct run *r = ctx;
    (void)ep_flush_run(r->flush);
    return EP_OK;
}

static struct ep_harness_plan plan_of(const struct run *r, double time_s)
{
    const struct ep_comm_effort *effort = r->effort;
    struct ep_harness_plan plan = ep_harness_plan_default(time_s);
    plan.cadence = r->visits->session->options.cadence;
    plan.stream_repetitions = EP_SESSION_STREAM_REPETITIONS;
    plan.warmup_repetitions = effort->warmup;
    plan.warmup_s = 0.1 * time_s;
    if (effort->max_samples > 0) {
        plan.max_samples = effort->max_samples;
        plan.min_samples = plan.min_samples < plan.max_samples ? plan.min_samples
                                                               : plan.max_samples;
    }
    return plan;
}

static enum ep_status measure_whole(struct run *r, double time_s)
{
    enum ep_status status = EP_OK;
    const struct ep_harness_env env = ep_comm_harness_env(r->layer->all);
    const struct ep_harness_plan plan = plan_of(r, time_s);
    const struct ep_harness_work work = {
        .run = run_whole,
        .prepare = r->flush != NULL ? empty_caches : NULL,
        .begin = begin_samples,
        .ctx = r,
    };
    EP_TRY(ep_harness_measure(&env, &work, &plan, &r->whole));
    r->during = ep_os_counters_since(&r->before);
out:
    return status;
}

/* --- phases ----------------------------------------------------------------------------------- */

static int64_t num_repetitions(const struct run *r, double time_s)
{
    const double fit = time_s / fmax(r->whole.summary.median, 1e-9);
    int64_t num = fit < MIN_REPETITIONS ? MIN_REPETITIONS : MAX_REPETITIONS;
    num = fit >= MIN_REPETITIONS && fit < MAX_REPETITIONS ? (int64_t)fit : num;
    return r->effort->max_samples > 0 && num > r->effort->max_samples ? r->effort->max_samples : num;
}

/* Clock readings of this rank, [repetitions][phases + 1]. Phases follow each other as in the whole: what
 * one leaves uneven the next one waits for. Repetition -1 warms up. */
static enum ep_status read_clocks(struct run *r, int64_t num, double *times_s)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = r->layer;
    for (int64_t n = -1; n < num; n++) {
        double *reading = times_s + (n < 0 ? 0 : n) * (l->num_phases + 1);
        if (r->flush != NULL) {
            EP_TRY(empty_caches(r));
        }
        EP_TRY(ep_comm_barrier(l->all));
        *reading++ = ep_comm_now_s();
        for (int p = 0; p < l->num_phases; p++) {
            EP_TRY(ep_layer_run_phase(l, p));
            *reading++ = ep_comm_now_s();
        }
    }
out:
    return status;
}

/* Who needs whom, from what each rank knows of itself. */
static enum ep_status gather_needs(struct run *r)
{
    enum ep_status status = EP_OK;
    const struct ep_layer *l = r->layer;
    const int64_t num_ranks = ep_comm_size(l->all);
    const int64_t num_own = l->num_phases * num_ranks;
    int64_t *own = calloc((size_t)(num_own * (num_ranks + 1)), sizeof *own);
    r->needs = calloc((size_t)(num_own * num_ranks), sizeof *r->needs);
    status = own == NULL || r->needs == NULL ? ep_error_set(EP_ENOMEM, "no memory for phases") : EP_OK;
    EP_TRY(ep_comm_agree(l->all, status));
    ep_layer_fill_needs(l, own);
    int64_t *all = own + num_own; /* [rank][phase][rank] */
    EP_TRY(ep_comm_allgather_i64(l->all, own, num_own, all));
    for (int64_t i = 0; i < num_ranks; i++) {
        for (int64_t p = 0; p < l->num_phases; p++) {
            for (int64_t j = 0; j < num_ranks; j++) {
                r->needs[(p * num_ranks + i) * num_ranks + j] = *all++ != 0;
            }
        }
    }
out:
    free(own);
    return status;
}

static enum ep_status measure_phases(struct run *r, double time_s)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = r->layer;
    const int64_t num_ranks = ep_comm_size(l->all);
    const int64_t num = num_repetitions(r, time_s);
    const int64_t num_own = num * (l->num_phases + 1);
    double offset_s = 0;
    double *own_s = calloc((size_t)num_own, sizeof *own_s);
    r->times_s = calloc((size_t)(num_own * num_ranks), sizeof *r->times_s);
    status = own_s == NULL || r->times_s == NULL ? ep_error_set(EP_ENOMEM, "no memory for phases")
                                                 : EP_OK;
    EP_TRY(ep_comm_agree(l->all, status));
    EP_TRY(gather_needs(r));
    EP_TRY(ep_comm_compare_clocks(l->all, &offset_s, &r->clock_error_s));
    EP_TRY(ep_comm_max_f64(l->all, &r->clock_error_s, 1));
    EP_TRY(read_clocks(r, num, own_s));
    for (int64_t i = 0; i < num_own; i++) {
        own_s[i] += offset_s;
    }
    EP_TRY(ep_comm_allgather_f64(l->all, own_s, num_own, r->times_s));
    for (int p = 0; p < l->num_phases; p++) {
        r->works[p] = l->phases[p].work;
    }
    r->clocks = (struct ep_layer_clocks){num_ranks, l->num_phases, num, r->times_s, r->works,
                                         r->needs};
    EP_TRY(ep_comm_agree(l->all, ep_layer_split_init(&r->clocks, &r->split)));
out:
    free(own_s);
    return status;
}

/* --- a dense FFN beside ----------------------------------------------------------------------- */

struct dense {
    struct ep_ffn *ffn;
    int64_t num_rows;
    const void *x;
    float *y;
    const void *dy; /* NULL: forward alone */
    float *const *dw13, *const *dw2;
};

static enum ep_status run_dense(void *ctx)
{
    struct dense *d = ctx;
    const enum ep_status status = ep_ffn_run(d->ffn, &d->num_rows, d->x, d->y);
    return status == EP_OK && d->dy != NULL
               ? ep_ffn_backward(d->ffn, &d->num_rows, d->x, d->dy, d->y, d->dw13, d->dw2)
               : status;
}

/* As many active parameters, no router, no exchange: the same tokens on the same ranks. */
static enum ep_status measure_dense(struct run *r, double time_s)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = r->layer;
    const struct ep_layer_shape *shape = l->shape;
    const int32_t expert = EP_LAYER_DENSE;
    const struct ep_layer_set set = {
        .backend = shape->backend,
        .shape = {shape->kind, 1, l->point->hidden,
                  l->point->top_k * shape->ffn + shape->shared_ffn, l->point->dtype},
        .experts = &expert,
        .slice = l->slice,
        .num_slices = shape->tp,
        .backward = shape->backward,
    };
    struct dense dense = {.num_rows = l->routing.num_tokens, .x = l->exchange.tokens};
    struct ep_harness_result result = {0};
    const struct ep_harness_env env = ep_comm_harness_env(l->all);
    const struct ep_harness_work work = {.run = run_dense, .ctx = &dense};
    const struct ep_harness_plan plan = plan_of(r, time_s);
    dense.y = ep_gemm_alloc((dense.num_rows + 1) * l->point->hidden * (int64_t)sizeof *dense.y);
    status = dense.y == NULL ? ep_error_set(EP_ENOMEM, "no memory for a dense FFN's results")
                             : ep_layer_bank_ffn(r->visits->bank, &set, dense.num_rows, &dense.ffn);
    if (status == EP_OK && l->backward != NULL) {
        dense.dy = l->backward->exchange.tokens;
        ep_layer_bank_gradients(r->visits->bank, dense.ffn, &dense.dw13, &dense.dw2);
    }
    status = status == EP_OK ? run_dense(&dense) : status; /* what a back end allocates, it has now */
    EP_TRY(ep_comm_agree(l->all, status));
    EP_TRY(ep_harness_measure(&env, &work, &plan, &result));
    r->dense_s = result.summary.median;
out:
    ep_harness_result_fini(&result);
    free(dense.y);
    return status;
}

/* --- chunks ------------------------------------------------------------------------------------ */

static enum ep_status measure_overlap(struct run *r, double time_s)
{
    enum ep_status status = EP_OK;
    const int64_t num = r->visits->num_chunks;
    r->overlaps = calloc((size_t)num + 1, sizeof *r->overlaps);
    status = r->overlaps != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for chunks");
    EP_TRY(ep_comm_agree(r->layer->all, status));
    for (int64_t i = 0; i < num; i++) {
        struct ep_check check = {0};
        EP_TRY(ep_layer_overlap_measure(r->layer, (int)r->visits->chunks[i], time_s,
                                        r->effort->check ? &check : NULL, &r->overlaps[i]));
        r->check.rows += check.rows;
        r->check.wrong += check.wrong;
    }
out:
    return status;
}

/* --- records ---------------------------------------------------------------------------------- */

static const char *pass_name(const struct ep_layer_shape *shape)
{
    return shape->backward ? "forward+backward" : "forward";
}

char *ep_layer_case_name(const struct ep_session *session, const struct ep_comm_case *point,
                         const struct ep_layer_shape *shape, const char *routing_id)
{
    static const char prefix[] = "comm/dispatch/";
    char *exchange = ep_comm_case_name(session, point, EP_OP_DISPATCH, routing_id);
    char *name = exchange == NULL
                     ? NULL
                     : ep_format_new("layer/%s/%s/%s/f%" PRId64 "/s%" PRId64 "/tp%" PRId64
                                     "/dp%" PRId64 "/%s",
                                     pass_name(shape), shape->backend->name,
                                     ep_ffn_kind_name(shape->kind), shape->ffn, shape->shared_ffn, shape->tp, shape->dp,
                                     exchange + sizeof prefix - 1);
    free(exchange);
    return name;
}

static int64_t all_tokens(const struct ep_layer *l)
{
    return l->setting.map.num_tokens * l->shape->dp;
}

static enum ep_status fill_phases(const struct run *r, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    char name[EP_LAYER_NAME_LENGTH];
    const int64_t num_ranks = r->split.num_ranks;
    for (int64_t p = 0; p < r->split.num_phases; p++) {
        struct ep_record_phase *item = NULL;
        const double *time_s = r->split.phase_s + p * num_ranks;
        EP_TRY(ep_record_add_phase(record, ep_layer_phase_name(&r->layer->phases[p], name), &item));
        EP_TRY(ep_record_set_f64s(&item->rank_median_s, time_s, num_ranks));
        if (r->works[p] == EP_LAYER_EXCHANGE) {
            EP_TRY(ep_record_set_f64s(&item->rank_wait_s, r->split.wait_s + p * num_ranks,
                                      num_ranks));
        }
        item->median_s = time_s[0];
        for (int64_t i = 1; i < num_ranks; i++) {
            item->median_s = fmax(item->median_s, time_s[i]);
        }
    }
out:
    return status;
}

static double mean_of(const double *values, int64_t num)
{
    double sum = 0;
    for (int64_t i = 0; i < num; i++) {
        sum += values[i];
    }
    return sum / (double)num;
}

/* What is computed from the phases of all ranks. */
static enum ep_status fill_balance(const struct run *r, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int64_t num = r->split.num_ranks;
    double *sums = calloc((size_t)num, 4 * sizeof *sums);
    if (sums == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the record of a layer");
    }
    double *compute_s = sums, *exchange_s = sums + num, *wait_s = sums + 2 * num,
           *copy_s = sums + 3 * num;
    ep_layer_sum_work(&r->split, r->works, EP_LAYER_COMPUTE, compute_s, NULL);
    ep_layer_sum_work(&r->split, r->works, EP_LAYER_EXCHANGE, exchange_s, wait_s);
    ep_layer_sum_work(&r->split, r->works, EP_LAYER_COPY, copy_s, NULL);
    const double compute = mean_of(compute_s, num);
    const double wait = mean_of(wait_s, num);
    record->straggler = ep_layer_straggler(compute_s, num);
    record->utilisation = ep_layer_utilisation(compute_s, num);
    if (compute > 0) {
        record->move_over_compute =
            fmax(mean_of(exchange_s, num) - wait + mean_of(copy_s, num), 0) / compute;
        record->wait_over_compute = wait / compute;
    }
    EP_TRY(ep_record_set_f64s(&record->compute_s, compute_s, num));
    EP_TRY(ep_record_set_f64s(&record->wait_matrix_s, r->split.pair_s, num * num));
out:
    free(sums);
    return status;
}

static enum ep_status fill_root(const struct run *r, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const struct ep_layer *l = r->layer;
    const struct ep_layer_shape *shape = l->shape;
    EP_TRY(ep_record_set_text(&record->op, "%s", pass_name(shape)));
    record->ffn = shape->ffn;
    record->shared_ffn = shape->shared_ffn;
    record->tp = shape->tp;
    record->dp = shape->dp;
    EP_TRY(ep_record_set_text(&record->activation, "%s", ep_ffn_kind_name(shape->kind)));
    EP_TRY(ep_record_set_text(&record->backend, "%s", shape->backend->name));
    if (r->visits->remedy != NULL) {
        EP_TRY(ep_record_set_text(&record->remedy, "%s", r->visits->remedy));
    }
    /* A bandwidth over a whole layer would say nothing. */
    record->bw_bytes_per_s = NAN;
    record->bw_logical_bytes_per_s = NAN;
    free(record->bw_time);
    record->bw_time = NULL;
    record->bound_s = NAN; /* of one exchange */
    free(record->bound_name);
    record->bound_name = NULL;
    EP_TRY(fill_phases(r, record));
    EP_TRY(fill_balance(r, record));
    record->tokens_per_s = (double)all_tokens(l) / record->median_s;
    record->dense_s = r->dense_s;
    for (int64_t i = 0; r->overlaps != NULL && i < r->visits->num_chunks; i++) {
        struct ep_record_overlap *item = NULL;
        EP_TRY(ep_record_add_overlap(record, &item));
        *item = r->overlaps[i];
    }
    record->clock_error_s = r->clock_error_s;
    free(record->case_name);
    record->case_name = ep_layer_case_name(r->visits->session, l->point, shape, record->routing_id);
    if (record->case_name == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the name of a case");
    }
out:
    return status;
}

static enum ep_status keep_timeline(const struct run *r, const char *title)
{
    enum ep_status status = EP_OK;
    char names[EP_LAYER_MAX_PHASES][EP_LAYER_NAME_LENGTH];
    const char *borrowed[EP_LAYER_MAX_PHASES];
    for (int p = 0; p < r->layer->num_phases; p++) {
        borrowed[p] = ep_layer_phase_name(&r->layer->phases[p], names[p]);
    }
    if (r->visits->timeline != NULL) {
        status = ep_layer_timeline_set(r->visits->timeline, title, borrowed, &r->clocks,
                                       ep_layer_typical_repetition(&r->clocks));
    }
    return status;
}

/* Rows of every expert on every rank. Collective; a rank without memory is heard by all. */
static enum ep_status fill_expert_rows(const struct ep_layer *l, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int64_t size = ep_comm_size(l->all);
    const int64_t num = l->rows.num_experts;
    int64_t width = num, total = 0;
    EP_TRY(ep_comm_max_i64(l->all, &width, 1));
    int64_t *own = calloc((size_t)width + 1, sizeof *own);
    int64_t *all = calloc((size_t)(size * (width + 1)), sizeof *all);
    int64_t *held = calloc((size_t)size, sizeof *held);
    if (own == NULL || all == NULL || held == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the rows of experts");
    }
    status = ep_comm_agree(l->all, status);
    if (status == EP_OK) {
        own[width] = num;
        for (int64_t e = 0; e < num; e++) {
            own[e] = l->rows.start[e + 1] - l->rows.start[e];
        }
        status = ep_comm_allgather_i64(l->all, own, width + 1, all);
    }
    for (int64_t r = 0; status == EP_OK && r < size; r++) {
        held[r] = all[r * (width + 1) + width];
        memmove(all + total, all + r * (width + 1), (size_t)held[r] * sizeof *all);
        total += held[r];
    }
    if (status == EP_OK && ep_comm_is_root(l->all)) {
        status = ep_record_set_i64s(&record->rank_experts, held, size);
    }
    if (status == EP_OK && ep_comm_is_root(l->all)) {
        status = ep_record_set_i64s(&record->expert_rows, all, total);
    }
    free(own);
    free(all);
    free(held);
    status = ep_comm_agree(l->all, status);
out:
    return status;
}

static enum ep_status fill_record(struct run *r, int64_t visit_idx, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = r->layer;
    const struct ep_harness_phases no_phases = {0};
    struct ep_session *s = r->visits->session;
    record->visit_idx = visit_idx;
    EP_TRY(ep_comm_record_fill(s, &l->setting, EP_OP_DISPATCH, l->transport, &no_phases, record));
    EP_TRY(fill_expert_rows(l, record));
    if (ep_comm_is_root(l->all)) {
        status = fill_root(r, record);
        if (status == EP_OK) {
            status = keep_timeline(r, record->case_name);
        }
    }
    EP_TRY(ep_comm_agree(l->all, status));
out:
    return status;
}

/* --- a visit ---------------------------------------------------------------------------------- */

/* One layer on the ranks of `comm`: built, measured, verified, recorded, gone. */
static enum ep_status visit_layer(const struct ep_layer_visits *v, struct ep_comm *comm,
                                  const struct ep_comm_case *point,
                                  const struct ep_layer_shape *shape,
                                  const struct ep_comm_effort *effort, bool with_dense,
                                  int64_t visit_idx, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const double time_s = effort->visit_s;
    struct run r = {.visits = v, .effort = effort, .dense_s = NAN};
    EP_TRY(ep_layer_create(v->session, v->bank, comm, point, shape, &r.layer));
    if (point->cold) {
        status = ep_flush_create(FLUSHED_CACHES * r.layer->exchange.cache_bytes + 1, &r.flush);
    }
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(ep_comm_agree(comm, ep_session_begin_record(v->session, comm, record)));
    record->null_s = v->session->null_cadence_s;
    EP_TRY(measure_whole(&r, whole_share * time_s));
    EP_TRY(measure_phases(&r, (1 - whole_share - dense_share) * time_s));
    if (with_dense) {
        EP_TRY(measure_dense(&r, dense_share * time_s));
    }
    EP_TRY(ep_session_set_samples(v->session, comm, &r.whole, &r.during, record));
    if (effort->check) {
        EP_TRY(ep_layer_check(r.layer, &r.check));
    }
    if (v->num_chunks > 0 && ep_comm_size(comm) > 1) {
        EP_TRY(measure_overlap(&r, overlap_share * time_s));
    }
    if (effort->check) {
        record->verified = r.check.wrong == 0;
        record->check = (struct ep_record_check){r.check.rows, r.check.wrong, 0, 0};
    }
    EP_TRY(fill_record(&r, visit_idx, record));
out:
    run_fini(&r);
    return status;
}

/* Rank 0 alone, with all experts: the same tokens per rank. *measured: it could be. */
static enum ep_status visit_single(const struct ep_layer_visits *v,
                                   const struct ep_comm_case *all,
                                   const struct ep_comm_effort *effort, int64_t visit_idx,
                                   struct ep_record *record, bool *measured)
{
    struct ep_comm_case point = *all;
    struct ep_comm_effort part = *effort;
    struct ep_layer_shape shape = *v->shape;
    shape.tp = 1;
    shape.dp = 1;
    point.num_ranks = 1;
    point.spread = false;
    point.placement = NULL;
    point.replicas = 0;
    point.tokens_per_rank = NULL;
    for (int64_t r = 0; all->tokens_per_rank != NULL && r < all->num_ranks; r++) {
        point.tokens = all->tokens_per_rank[r] > point.tokens ? all->tokens_per_rank[r] : point.tokens;
    }
    part.visit_s *= single_share;
    enum ep_status status = visit_layer(v, v->single, &point, &shape, &part, false, visit_idx, record);
    *measured = status == EP_OK;
    if (status == EP_EINVAL || status == EP_ENOMEM || status == EP_EENV) {
        ep_session_skip(v->session, "one-rank", "%s, %" PRId64 " tokens: no efficiency: %s",
                        point.skew->text, point.tokens, ep_error_text());
        ep_error_clear();
        status = EP_OK;
    }
    return status;
}

enum ep_status ep_layer_case_visit(const struct ep_layer_visits *v, struct ep_comm *part,
                                   const struct ep_comm_case *point,
                                   const struct ep_comm_effort *effort, int64_t visit_idx,
                                   struct ep_record records[EP_LAYER_NUM_RECORDS])
{
    enum ep_status status = EP_OK;
    struct ep_comm *world = v->session->world;
    struct ep_record *record = &records[EP_LAYER_ALL_RANKS];
    struct ep_record *single = &records[EP_LAYER_ONE_RANK];
    struct ep_comm_effort own = *effort;
    bool measured = false;
    own.visit_s *= 1 - single_share;
    if (part != NULL) {
        status = visit_layer(v, part, point, v->shape, &own, true, visit_idx, record);
    }
    EP_TRY(ep_comm_agree(world, status));
    if (v->single != NULL && point->num_ranks * v->shape->tp * v->shape->dp > 1) {
        status = visit_single(v, point, effort, visit_idx, single, &measured);
    }
    EP_TRY(ep_comm_wait_idle(world));
    EP_TRY(ep_comm_agree(world, status));
    if (measured) {
        record->single_tokens_per_s = single->tokens_per_s;
        record->efficiency =
            ep_layer_efficiency(record->tokens_per_s, record->ranks, single->tokens_per_s);
    }
    EP_TRY(ep_session_add_record(v->session, record));
    int64_t has_single = measured;
    EP_TRY(ep_comm_max_i64(world, &has_single, 1));
    if (has_single) {
        EP_TRY(ep_session_add_record(v->session, single));
    }
out:
    return status;
}
