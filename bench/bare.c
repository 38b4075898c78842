/* SPDX-License-Identifier: Apache-2.0 */
/* The harness held against a bare loop. */
#include "bench/bare.h"

#include "base/random.h"
#include "base/table.h"
#include "base/units.h"
#include "bench/pattern.h"
#include "bench/transport.h"
#include "bench/xfer_bare.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { NUM_KINDS = 4, MIN_REPETITIONS = 100, MAX_REPETITIONS = 5000, BATCH = 50, EXCHANGE = 2 };
/* Where MIN_REPETITIONS take too long: so many, in small batches, or none. */
enum { LEAST_REPETITIONS = 20, SMALL_BATCH = 5 };
/* Each of the two calls is made as often as the other: a call made less often is predicted less well by
 * the processor, which costs several ns. */
enum { KIND_PHASE, KIND_BARE, KIND_BARE_AGAIN, KIND_PHASE_AGAIN };

static const double tolerance = 0.015;
/* A size may take so many times its share of the time, or so long, whichever is more. */
enum { LONGEST_SHARES = 10 };
static const double least_limit_s = 5;

struct setup {
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router;
    struct ep_dropping *dropping; /* of nothing */
    struct ep_routing routing;
    struct ep_exchange exchange;
    const struct ep_transport *transport;
    void *state;
    struct ep_bare_call *call;
};

static enum ep_status set_up(struct ep_session *session, int64_t pair_bytes, struct setup *s)
{
    enum ep_status status = EP_OK;
    const int num_ranks = ep_comm_size(session->world);
    const int rank = ep_comm_rank(session->world);
    const int64_t row_bytes = pair_bytes < 65536 ? 64 : 4096;
    void *tokens = NULL;
    EP_TRY(ep_skew_create("uniform", &s->skew));
    EP_TRY(ep_placement_init_contiguous(num_ranks, num_ranks, &s->placement));
    EP_TRY(ep_token_map_init_equal(num_ranks, pair_bytes / row_bytes * num_ranks, &s->map));
    const struct ep_router_config config = {s->skew, &s->placement, &s->map, 1,
                                            session->options.seed};
    EP_TRY(ep_router_create(&config, &s->router));
    const struct ep_dropping_input input = ep_dropping_input_of_router(s->router);
    EP_TRY(ep_dropping_create(&input, NULL, &s->dropping));
    EP_TRY(ep_dropping_generate(s->dropping, rank, true, &s->routing, NULL));
    ep_arena_reset(session->arena);
    EP_TRY(ep_arena_alloc(session->arena, s->routing.num_tokens * row_bytes, "token rows",
                          &tokens));
    ep_pattern_fill_tokens(s->map.start[rank], s->routing.num_tokens, row_bytes, tokens);
    s->exchange = (struct ep_exchange){
        .comm = session->world, .placement = &s->placement, .routing = &s->routing,
        .hidden = row_bytes / 4, .dtype = EP_FP32, .combine_dtype = EP_FP32,
        .row_bytes = row_bytes, .combine_row_bytes = row_bytes, .threads = 1,
        .arena = session->arena,
        .tokens = tokens,
    };
    EP_TRY(ep_transport_find("alltoallv", &s->transport));
out:
    return status;
}

static void tear_down(struct setup *s)
{
    ep_bare_call_destroy(s->call);
    if (s->transport != NULL) {
        s->transport->destroy(s->state);
    }
    ep_routing_fini(&s->routing);
    ep_dropping_destroy(s->dropping);
    ep_router_destroy(s->router);
    ep_token_map_fini(&s->map);
    ep_placement_fini(&s->placement);
    ep_skew_destroy(s->skew);
}

/* One batch of `num` repetitions, each in an order of its own that all ranks draw alike.
 * times [NUM_KINDS][BATCH]. */
static enum ep_status take_batch(const struct ep_harness_env *env, struct setup *s,
                                 struct ep_random *random, int num, double *times)
{
    enum ep_status status = EP_OK;
    const struct ep_transport_op *op = &s->transport->ops[EP_OP_DISPATCH];
    const struct ep_harness_work of_phase = {
        .phases = {op->phases[EXCHANGE].run}, .num_phases = 1, .phase_ctx = s->state};
    const struct ep_harness_work of_call = {
        .phases = {ep_bare_call_run}, .num_phases = 1, .phase_ctx = s->call};
    for (int i = 0; i < num; i++) {
        int64_t order[NUM_KINDS] = {KIND_PHASE, KIND_BARE, KIND_BARE_AGAIN, KIND_PHASE_AGAIN};
        ep_random_shuffle_i64(random, order, NUM_KINDS);
        for (int j = 0; j < NUM_KINDS; j++) {
            const bool is_phase = order[j] == KIND_PHASE || order[j] == KIND_PHASE_AGAIN;
            EP_TRY(ep_harness_time_phase(env, is_phase ? &of_phase : &of_call, 0,
                                         &times[order[j] * BATCH + i]));
        }
    }
    EP_TRY(env->max(env->ctx, times, NUM_KINDS * BATCH));
out:
    return status;
}

static enum ep_status ratio_of(const double *a, const double *b, int64_t num, double *median,
                               double *low, double *high)
{
    struct ep_summary summary;
    double *ratios = malloc((size_t)num * sizeof *ratios);
    if (ratios == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for ratios");
    }
    for (int64_t i = 0; i < num; i++) {
        ratios[i] = a[i] / b[i];
    }
    const enum ep_status status = ep_stats_summarize(ratios, num, &summary);
    if (status == EP_OK) {
        *median = summary.median;
        *low = summary.low;
        *high = summary.high;
    }
    free(ratios);
    return status;
}

/* From times [NUM_KINDS][MAX_REPETITIONS + BATCH] to the row; means [2 * row->num] is room to work in. */
static enum ep_status compare(const double *times, double *means, struct ep_bare_row *row)
{
    enum ep_status status = EP_OK;
    const int64_t num = row->num;
    const double *phase = times + KIND_PHASE * (MAX_REPETITIONS + BATCH);
    const double *bare = times + KIND_BARE * (MAX_REPETITIONS + BATCH);
    const double *again = times + KIND_BARE_AGAIN * (MAX_REPETITIONS + BATCH);
    const double *phase_again = times + KIND_PHASE_AGAIN * (MAX_REPETITIONS + BATCH);
    struct ep_summary of_phase;
    struct ep_summary of_bare;
    for (int64_t i = 0; i < num; i++) { /* a repetition's two calls of each kind are one sample */
        means[i] = (phase[i] + phase_again[i]) / 2;
        means[num + i] = (bare[i] + again[i]) / 2;
    }
    EP_TRY(ep_stats_summarize(means, num, &of_phase));
    EP_TRY(ep_stats_summarize(means + num, num, &of_bare));
    row->exchange_s = of_phase.median;
    row->bare_s = of_bare.median;
    EP_TRY(ratio_of(means, means + num, num, &row->ratio, &row->low, &row->high));
    EP_TRY(ratio_of(again, bare, num, &row->control_ratio, &row->control_low, &row->control_high));
out:
    return status;
}

static enum ep_status verify(struct ep_session *session, struct setup *s)
{
    enum ep_status status = EP_OK;
    struct ep_check check = {0};
    struct ep_expert_rows rows;
    int64_t *tokens = NULL;
    int64_t *start = NULL;
    int64_t num_rows = 0;
    const int rank = ep_comm_rank(session->world);
    status = ep_pattern_expect_rows(s->dropping, &s->placement, &s->map, rank, &tokens, &start,
                                    &num_rows);
    EP_TRY(ep_comm_agree(session->world, status));
    /* unpack what the last exchange brought */
    EP_TRY(s->transport->ops[EP_OP_DISPATCH].phases[EXCHANGE + 1].run(s->state));
    s->transport->view(s->state, &rows);
    status = ep_pattern_check_rows(&rows, s->exchange.row_bytes, tokens, start, &check);
    if (status == EP_OK && check.wrong + check.missing + check.doubled > 0) {
        status = ep_error_set(EP_ECHECK, "the exchange brought wrong rows");
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    free(tokens);
    free(start);
    return status;
}

/* How many repetitions at least, and by how many at a time, where a call takes `call_s`: as many as ever
 * unless that passes limit_s. Returns the seconds that they take, warm-up and all. */
static double plan_batches(double call_s, double limit_s, int *batch, int64_t *least)
{
    const double repetition_s = NUM_KINDS * call_s;
    const bool fast = (MIN_REPETITIONS + BATCH) * repetition_s <= limit_s;
    *batch = fast ? BATCH : SMALL_BATCH;
    *least = fast ? MIN_REPETITIONS : LEAST_REPETITIONS;
    return (double)(*least + *batch) * repetition_s;
}

/* One exchange, the second of all; the slowest rank's time. */
static enum ep_status time_call(struct ep_session *session, struct setup *s, double *call_s)
{
    enum ep_status status = EP_OK;
    const struct ep_harness_env env = ep_comm_harness_env(session->world);
    const struct ep_transport_op *op = &s->transport->ops[EP_OP_DISPATCH];
    const struct ep_harness_work work = {
        .phases = {op->phases[EXCHANGE].run}, .num_phases = 1, .phase_ctx = s->state};
    EP_TRY(ep_harness_time_phase(&env, &work, 0, call_s));
    EP_TRY(ep_comm_max_f64(session->world, call_s, 1));
out:
    return status;
}

enum ep_status ep_bare_measure(struct ep_session *session, int64_t pair_bytes, double budget_s,
                               double limit_s, struct ep_bare_row *row)
{
    enum ep_status status = EP_OK;
    struct setup s = {0};
    struct ep_random random;
    double call_s = 0;
    int batch_size = 0;
    int64_t least = 0;
    double *times = calloc(NUM_KINDS * (MAX_REPETITIONS + BATCH), sizeof *times);
    double *batch = calloc(NUM_KINDS * BATCH, sizeof *batch);
    double *means = calloc(2 * (MAX_REPETITIONS + BATCH), sizeof *means);
    if (times == NULL || batch == NULL || means == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for samples");
    } else {
        status = set_up(session, pair_bytes, &s);
    }
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(s.transport->create(&s.exchange, &s.state));
    EP_TRY(ep_transport_run(s.transport, EP_OP_DISPATCH, s.state));
    EP_TRY(ep_comm_agree(session->world, ep_bare_call_create(s.state, &s.call)));
    ep_random_init(&random, session->options.seed, EP_RANDOM_ORDER, (uint64_t)pair_bytes);
    const struct ep_harness_env env = ep_comm_harness_env(session->world);
    EP_TRY(time_call(session, &s, &call_s));
    const double needed_s = plan_batches(call_s, limit_s, &batch_size, &least);
    if (needed_s > limit_s) {
        *row = (struct ep_bare_row){.pair_bytes = pair_bytes, .needed_s = needed_s};
        goto out;
    }
    EP_TRY(take_batch(&env, &s, &random, batch_size, batch)); /* warm-up */
    const double start_s = ep_comm_now_s();
    double spent_s = 0;
    int64_t num = 0;
    while (num < MAX_REPETITIONS && (num < least || spent_s < budget_s)) {
        EP_TRY(take_batch(&env, &s, &random, batch_size, batch));
        for (int kind = 0; kind < NUM_KINDS; kind++) {
            for (int i = 0; i < batch_size; i++) {
                times[kind * (MAX_REPETITIONS + BATCH) + num + i] = batch[kind * BATCH + i];
            }
        }
        num += batch_size;
        spent_s = ep_comm_now_s() - start_s;
        EP_TRY(ep_comm_max_f64(session->world, &spent_s, 1));
    }
    struct ep_bare_row r = {.pair_bytes = pair_bytes, .num = num};
    EP_TRY(ep_comm_agree(session->world, compare(times, means, &r)));
    EP_TRY(verify(session, &s));
    *row = r;
out:
    tear_down(&s);
    free(times);
    free(batch);
    free(means);
    return status;
}

enum ep_status ep_bare_run(struct ep_session *session, double budget_s, FILE *out)
{
    static const char *const headers[] = {"per pair", "repetitions", "exchange phase", "bare call",
                                          "ratio",    "95 %",        "bare/bare",      "95 %",
                                          "within 1.5 %"};
    /* Large messages need most of the time to be as sure of their median. */
    static const int64_t sizes[] = {64, 1024, 16384, 262144, 1 << 20, 1 << 22, 1 << 24};
    static const double shares[] = {0.04, 0.04, 0.06, 0.06, 0.1, 0.25, 0.45};
    enum ep_status status = EP_OK;
    struct ep_table *table = NULL;
    char text[32];
    const size_t num_sizes = sizeof sizes / sizeof sizes[0];
    int64_t num_done = 0;
    EP_TRY(ep_comm_agree(session->world, ep_table_create(headers, 9, &table)));
    for (size_t i = 0; i < num_sizes; i++) {
        struct ep_bare_row r;
        bool interrupted = false;
        EP_TRY(ep_session_interrupted(session, &interrupted));
        if (interrupted) {
            ep_session_skip(session, "bare", "interrupted");
            break;
        }
        const char *const size = ep_format_bytes((double)sizes[i], text, sizeof text);
        if (sizes[i] > INT_MAX / ep_comm_size(session->world)) {
            ep_session_skip(session, "bare", "%s per pair: all of a rank's bytes do not fit "
                            "MPI's int", size);
            continue;
        }
        const double limit_s = fmax(LONGEST_SHARES * budget_s * shares[i], least_limit_s);
        const enum ep_status measured =
            ep_bare_measure(session, sizes[i], budget_s * shares[i], limit_s, &r);
        if (measured == EP_ENOMEM) { /* agreed on; smaller sizes and later stages go on */
            ep_session_skip(session, "bare", "%s per pair: %s", size, ep_error_text());
            ep_error_clear();
            continue;
        }
        EP_TRY(measured);
        if (r.num == 0) {
            char needed[32], limit[32];
            ep_session_skip(session, "slow-link", "bare: %s per pair and more: %d repetitions take %s, more "
                            "than %s", size, LEAST_REPETITIONS,
                            ep_format_time(r.needed_s, needed, sizeof needed),
                            ep_format_time(limit_s, limit, sizeof limit));
            break;
        }
        num_done++;
        const bool within = r.low >= 1 - tolerance && r.high <= 1 + tolerance;
        ep_table_add(table, "%s", ep_format_bytes((double)sizes[i], text, sizeof text));
        ep_table_add(table, "%" PRId64, r.num);
        ep_table_add(table, "%s", ep_format_time(r.exchange_s, text, sizeof text));
        ep_table_add(table, "%s", ep_format_time(r.bare_s, text, sizeof text));
        ep_table_add(table, "%.4f", r.ratio);
        ep_table_add(table, "%.4f to %.4f", r.low, r.high);
        ep_table_add(table, "%.4f", r.control_ratio);
        ep_table_add(table, "%.4f to %.4f", r.control_low, r.control_high);
        ep_table_add(table, "%s", within ? "yes" : "no");
        if (ep_comm_is_root(session->world)) {
            char name[64];
            snprintf(name, sizeof name, "harness against bare MPI_Alltoallv, %s per pair",
                     ep_format_bytes((double)sizes[i], text, sizeof text));
            EP_TRY(ep_record_add_note(&session->run.machine_facts, name,
                                      "median ratio %.4f (%.4f to %.4f), control %.4f (%.4f to "
                                      "%.4f)", r.ratio, r.low, r.high, r.control_ratio,
                                      r.control_low, r.control_high));
        }
        if (!within) {
            ep_session_warn(session, "harness-agreement", "%s per pair: the exchange phase is "
                            "%.4f (%.4f to %.4f) of a bare MPI_Alltoallv; control %.4f (%.4f "
                            "to %.4f)",
                            ep_format_bytes((double)sizes[i], text, sizeof text), r.ratio,
                            r.low, r.high, r.control_ratio, r.control_low,
                            r.control_high);
        }
    }
    ep_session_count_visits(session, num_done, (int64_t)num_sizes);
    if (ep_comm_is_root(session->world)) {
        EP_TRY(ep_table_print(table, out));
    }
out:
    ep_table_destroy(table);
    return status;
}
