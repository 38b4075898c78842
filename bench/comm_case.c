/* SPDX-License-Identifier: Apache-2.0 */
/* A visit of one case: what is set up, in which order it is measured, and how it is checked. */
#include "bench/comm_visit.h"

#include "base/stats.h"
#include "bench/comm_record.h"
#include "bench/flush.h"
#include "bench/pattern.h"
#include "bench/simulated.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_PHASE_SAMPLES = 5, MAX_PHASE_SAMPLES = 60 };
enum { FLUSHED_CACHES = 3 }; /* last-level caches that are read to empty one */

/* Shares of a visit's time: whole and phases of each operation. */
static const double whole_share = 0.6;

/* The other ranks would wait in the next exchange for one that has no buffers. */
static void renew_buffers(struct ep_comm_visit *v)
{
    const double start_s = ep_comm_now_s();
    const enum ep_status status = ep_arena_renew_rows(v->exchange.arena);
    v->alloc_s[v->num_allocs++ % EP_COMM_VISIT_ALLOCS] = ep_comm_now_s() - start_s;
    if (status != EP_OK) {
        ep_comm_abort(v->setting.comm, status, ep_error_text());
    }
}

/* A dispatch whose buffers are made in it, once the counts say how large. */
static enum ep_status run_anew(struct ep_comm_visit *v)
{
    const struct ep_transport_op *op = &v->setting.point->transport->ops[v->op];
    enum ep_status status = EP_OK;
    bool has_buffers = false;
    for (int i = 0; i < op->num_phases && status == EP_OK; i++) {
        if (!has_buffers && strcmp(op->phases[i].name, "counts") != 0) {
            renew_buffers(v);
            has_buffers = true;
        }
        status = op->phases[i].run(v->state);
    }
    return status;
}

enum ep_status ep_comm_visit_run(void *visit)
{
    struct ep_comm_visit *v = visit;
    return v->op == EP_OP_DISPATCH && v->setting.point->buffers == EP_BUFFERS_DYNAMIC
               ? run_anew(v)
               : ep_transport_run(v->setting.point->transport, v->op, v->state);
}

static void begin_samples(void *ctx)
{
    struct ep_comm_visit *v = ctx;
    v->before = ep_os_counters_read();
}

static enum ep_status empty_caches(void *ctx)
{
    const struct ep_comm_visit *v = ctx;
    (void)ep_flush_run(v->flush);
    return EP_OK;
}

static enum ep_status set_up_routing(struct ep_session *s, struct ep_comm_visit *v)
{
    enum ep_status status = EP_OK;
    struct ep_comm_setting *setting = &v->setting;
    EP_TRY(ep_comm_setting_init(setting->comm, setting->point, s->options.seed, setting));
    EP_TRY(ep_dropping_generate(setting->dropping, ep_comm_rank(setting->comm), true, &v->routing,
                                &setting->counts));
out:
    return status;
}

static enum ep_status set_up_buffers(struct ep_session *s, struct ep_comm_visit *v)
{
    enum ep_status status = EP_OK;
    const int rank = ep_comm_rank(v->setting.comm);
    EP_TRY(ep_comm_setting_exchange(&v->setting, &v->routing, s, &v->exchange));
    ep_pattern_fill_tokens(v->setting.map.start[rank], v->routing.num_tokens,
                           v->exchange.row_bytes, (char *)v->exchange.tokens);
    if (v->setting.point->cold) {
        EP_TRY(ep_flush_create(FLUSHED_CACHES * v->exchange.cache_bytes + 1, &v->flush));
    }
out:
    return status;
}

/* The rows this rank must hold, verified against what it holds; and for combine the experts' results
 * put in place first. Runs the operation once more, untimed. */
static enum ep_status verify(struct ep_comm_visit *v, struct ep_check *check)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_setting *setting = &v->setting;
    const struct ep_transport *transport = setting->point->transport;
    const int rank = ep_comm_rank(setting->comm);
    int64_t *tokens = NULL;
    int64_t *start = NULL;
    int64_t num_rows = 0;
    struct ep_expert_rows rows = {0};
    status = ep_pattern_expect_rows(setting->dropping, &setting->placement, &setting->map,
                                    rank, &tokens, &start, &num_rows);
    EP_TRY(ep_comm_agree(setting->comm, status));
    if (v->op == EP_OP_DISPATCH) {
        /* What the last measured repetition left must not pass for this one's result. */
        transport->view(v->state, &rows);
        memset((char *)rows.rows, 0xa5, (size_t)(rows.start[rows.num_experts] *
                                                 v->exchange.row_bytes));
        EP_TRY(ep_comm_visit_run(v));
        transport->view(v->state, &rows);
        status = ep_pattern_check_rows(&rows, v->exchange.row_bytes, tokens, start, check);
    } else {
        const int32_t *experts = NULL;
        (void)ep_placement_local_experts(&setting->placement, rank, &experts);
        transport->view(v->state, &rows);
        ep_pattern_fill_outputs(&rows, tokens, experts, v->exchange.combine_dtype,
                                v->exchange.hidden);
        memset(v->exchange.results, 0xa5, (size_t)(v->routing.num_tokens *
                                                   v->exchange.combine_row_bytes));
        EP_TRY(ep_comm_visit_run(v));
        ep_pattern_check_results(&v->routing, setting->map.start[rank],
                                 v->exchange.combine_dtype, v->exchange.hidden,
                                 ep_transport_roundings(transport, ep_comm_size(setting->comm)),
                                 v->exchange.results, check);
    }
    EP_TRY(ep_comm_agree(setting->comm, status));
    int64_t sums[4] = {check->rows, check->wrong, check->missing, check->doubled};
    EP_TRY(ep_comm_sum_i64(setting->comm, sums, 4));
    *check = (struct ep_check){sums[0], sums[1], sums[2], sums[3]};
out:
    free(tokens);
    free(start);
    return status;
}

static struct ep_harness_plan plan_of(const struct ep_session *s, const struct ep_comm_effort *effort,
                                      double time_s)
{
    struct ep_harness_plan plan = ep_harness_plan_default(whole_share * time_s);
    plan.cadence = s->options.cadence;
    plan.stream_repetitions = EP_SESSION_STREAM_REPETITIONS;
    plan.warmup_repetitions = effort->warmup;
    plan.warmup_s = 0.05 * time_s;
    if (effort->max_samples > 0 || ep_simulated()) {
        plan.max_samples = ep_simulated() ? 1 : effort->max_samples;
        plan.min_samples = plan.min_samples < plan.max_samples ? plan.min_samples
                                                               : plan.max_samples;
    }
    return plan;
}

/* Results that no expert computed are what was in memory before: among them subnormal numbers, which
 * sums are slow on (1.7 times, Zen 4). */
static void clear_outputs(const struct ep_comm_visit *v)
{
    struct ep_expert_rows rows;
    if (v->setting.point->transport->view != NULL) {
        v->setting.point->transport->view(v->state, &rows);
        memset(rows.outputs, 0, (size_t)(rows.start[rows.num_experts] * v->exchange.combine_row_bytes));
    }
}

enum ep_status ep_comm_visit_init(struct ep_session *s, struct ep_comm *comm,
                                  const struct ep_comm_case *point, struct ep_comm_visit *v)
{
    enum ep_status status = EP_OK;
    *v = (struct ep_comm_visit){.setting = {.comm = comm, .point = point}};
    EP_TRY(ep_comm_agree(comm, set_up_routing(s, v)));
    EP_TRY(ep_comm_agree(comm, set_up_buffers(s, v)));
    ep_arena_begin_rows(s->arena, point->buffers);
    EP_TRY(point->transport->create(&v->exchange, &v->state));
    ep_arena_count_rows(s->arena, &v->rows_size_bytes, &v->rows_used_bytes);
    if (point->buffers == EP_BUFFERS_STATIC && ep_arena_renews(s->arena)) { /* to see what that takes */
        renew_buffers(v);
    }
    EP_TRY(ep_comm_record_count(&v->setting, &v->routing, v->state));
    v->op = EP_OP_DISPATCH;
    if (!ep_simulated() || point->ops[EP_OP_COMBINE]) { /* which needs one */
        EP_TRY(ep_comm_visit_run(v));
    }
    clear_outputs(v);
out:
    return status;
}

void ep_comm_visit_fini(struct ep_comm_visit *v)
{
    if (v->setting.point != NULL) {
        v->setting.point->transport->destroy(v->state);
    }
    ep_comm_setting_fini(&v->setting);
    ep_routing_fini(&v->routing);
    ep_flush_destroy(v->flush);
}

static struct ep_harness_work work_of(struct ep_comm_visit *v)
{
    const struct ep_transport_op *op = &v->setting.point->transport->ops[v->op];
    struct ep_harness_work work = {
        .run = ep_comm_visit_run,
        .prepare = v->flush != NULL ? empty_caches : NULL,
        .begin = begin_samples,
        .ctx = v,
        .num_phases = op->num_phases,
        .phase_ctx = v->state,
        .is_simulated = ep_simulated(),
    };
    for (int i = 0; i < work.num_phases; i++) {
        work.phases[i] = op->phases[i].run;
    }
    return work;
}

/* What buffers of rows take, on the rank where that is most. */
static enum ep_status fill_buffers(const struct ep_comm_visit *v, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_comm *comm = v->setting.comm;
    const enum ep_buffers policy = v->setting.point->buffers;
    const char *sized_by = policy != EP_BUFFERS_STATIC                ? "counts"
                           : ep_comm_setting_is_bounded(&v->setting) ? "capacity"
                                                                     : "worst case";
    int64_t most[3] = {v->rows_size_bytes, v->rows_used_bytes, v->rows_size_bytes - v->rows_used_bytes};
    EP_TRY(ep_comm_max_i64(comm, most, 3));
    double alloc_s[EP_COMM_VISIT_ALLOCS];
    double median_s = NAN;
    const int64_t num = v->num_allocs < EP_COMM_VISIT_ALLOCS ? v->num_allocs : EP_COMM_VISIT_ALLOCS;
    if (num > 0) { /* on all ranks or on none */
        memcpy(alloc_s, v->alloc_s, (size_t)num * sizeof *alloc_s);
        ep_stats_sort(alloc_s, num);
        median_s = ep_stats_median_sorted(alloc_s, num);
        EP_TRY(ep_comm_max_f64(comm, &median_s, 1));
    }
    record->buffer_peak_bytes = most[0];
    record->buffer_used_bytes = most[1];
    record->buffer_waste_bytes = most[2];
    record->buffer_alloc_s = median_s;
    EP_TRY(ep_comm_agree(comm, ep_record_set_text(&record->buffer_policy, "%s", ep_buffers_name(policy))));
    EP_TRY(ep_comm_agree(comm, ep_record_set_text(&record->buffer_sized_by, "%s", sized_by)));
out:
    return status;
}

enum ep_status ep_comm_visit_finish(struct ep_session *s, struct ep_comm_visit *v,
                                    const struct ep_comm_effort *effort, double time_s,
                                    const struct ep_harness_result *whole,
                                    const struct ep_os_counters *during, int64_t visit_idx,
                                    struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_comm *comm = v->setting.comm;
    const struct ep_transport *transport = v->setting.point->transport;
    struct ep_harness_phases phases = {0};
    struct ep_check check = {0};
    const struct ep_harness_env env = ep_comm_harness_env(comm);
    const struct ep_harness_work work = work_of(v);
    record->null_s = s->null_cadence_s;
    if (work.num_phases > 0) {
        const double fit = time_s / fmax(whole->summary.median, 1e-9);
        int64_t num = fit < MIN_PHASE_SAMPLES ? MIN_PHASE_SAMPLES : MAX_PHASE_SAMPLES;
        num = fit >= MIN_PHASE_SAMPLES && fit < MAX_PHASE_SAMPLES ? (int64_t)fit : num;
        num = effort->max_samples > 0 && num > effort->max_samples ? effort->max_samples : num;
        num = ep_simulated() ? 1 : num;
        EP_TRY(ep_harness_measure_phases(&env, &work, num, &phases));
    }
    EP_TRY(ep_session_set_samples(s, comm, whole, during, record));
    if (effort->check && transport->view != NULL) {
        EP_TRY(verify(v, &check));
        record->verified = check.wrong == 0 && check.missing == 0 && check.doubled == 0;
        record->check = (struct ep_record_check){check.rows, check.wrong, check.missing,
                                                 check.doubled};
    }
    record->visit_idx = visit_idx;
    EP_TRY(ep_comm_record_fill(s, &v->setting, v->op, v->state, &phases, record));
    EP_TRY(fill_buffers(v, record));
out:
    ep_harness_phases_fini(&phases);
    return status;
}

static enum ep_status measure_op(struct ep_session *s, struct ep_comm_visit *v,
                                 const struct ep_comm_effort *effort, double time_s,
                                 int64_t visit_idx, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    struct ep_comm *comm = v->setting.comm;
    struct ep_harness_result whole = {0};
    const struct ep_harness_env env = ep_comm_harness_env(comm);
    const struct ep_harness_work work = work_of(v);
    const struct ep_harness_plan plan = plan_of(s, effort, time_s);
    EP_TRY(ep_comm_agree(comm, ep_session_begin_record(s, comm, record)));
    EP_TRY(ep_harness_measure(&env, &work, &plan, &whole));
    const struct ep_os_counters during = ep_os_counters_since(&v->before);
    EP_TRY(ep_comm_visit_finish(s, v, effort, (1 - whole_share) * time_s, &whole, &during, visit_idx,
                                record));
out:
    ep_harness_result_fini(&whole);
    return status;
}

/* Everything the measuring ranks do; statuses are agreed among them. */
static enum ep_status visit_part(struct ep_session *s, struct ep_comm *part,
                                 const struct ep_comm_case *point, struct ep_comm_visit *v,
                                 const struct ep_comm_effort *effort, int64_t visit_idx,
                                 struct ep_record *records)
{
    enum ep_status status = EP_OK;
    ep_arena_reset(s->arena);
    EP_TRY(ep_comm_visit_init(s, part, point, v));
    const int num_ops = point->ops[EP_OP_DISPATCH] + point->ops[EP_OP_COMBINE];
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (point->ops[op]) {
            v->op = (enum ep_op)op;
            EP_TRY(measure_op(s, v, effort, effort->visit_s / num_ops, visit_idx, &records[op]));
        }
    }
out:
    return status;
}

enum ep_status ep_comm_case_visit(struct ep_session *session, struct ep_comm *part,
                                  const struct ep_comm_case *point,
                                  const struct ep_comm_effort *effort, int64_t visit_idx,
                                  struct ep_record records[EP_NUM_OPS])
{
    enum ep_status status = EP_OK;
    struct ep_comm_visit v = {.setting = {.comm = part, .point = point}};
    if (part != NULL) {
        status = visit_part(session, part, point, &v, effort, visit_idx, records);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (point->ops[op]) {
            EP_TRY(ep_session_add_record(session, &records[op]));
        }
    }
    if (session->writes && ep_comm_is_root(session->world)) {
        status = ep_comm_record_write_traffic(&v.setting, session->dir.path);
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    ep_comm_visit_fini(&v);
    return status;
}
