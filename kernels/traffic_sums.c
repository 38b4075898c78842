/* SPDX-License-Identifier: Apache-2.0 */
/* Counting one source after another, its row folded into sums. */
#include "kernels/traffic_sums.h"

#include "base/parallel.h"
#include "kernels/skew_policy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_TOKENS = 4096,
    PAIRS_PER_THREAD = 1 << 20, /* a thread pays off from about so many */
};

/* --- inputs ------------------------------------------------------------------------------- */

static void fill_of_router(const void *context, int64_t first_token, int64_t num_tokens,
                           struct ep_routing *routing)
{
    ep_router_generate(context, first_token, num_tokens, routing);
}

struct ep_traffic_input ep_traffic_input_of_router(const struct ep_router *router)
{
    return (struct ep_traffic_input){.tokens = router->tokens,
                                     .num_experts = router->num_experts,
                                     .top_k = router->top_k,
                                     .context = router,
                                     .fill = fill_of_router};
}

static enum ep_status fetch_source(struct ep_traffic *traffic, const struct ep_traffic_input *input,
                                   int64_t source)
{
    struct ep_routing routing = {0};
    enum ep_status status = input->fetch(input->context, source, &routing);
    if (status == EP_OK) {
        status = ep_traffic_add(traffic, source, routing.topk_idx, routing.num_tokens);
    }
    ep_routing_fini(&routing);
    return status;
}

/* One rank's tokens, piece by piece where that can be. routing: room for CHUNK_TOKENS. */
static enum ep_status add_source(struct ep_traffic *traffic, const struct ep_traffic_input *input,
                                 int64_t source, struct ep_routing *routing)
{
    const int64_t end = input->tokens->start[source + 1];
    if (input->fetch != NULL) {
        return fetch_source(traffic, input, source);
    }
    for (int64_t t = input->tokens->start[source]; t < end; t += CHUNK_TOKENS) {
        const int64_t num = end - t < CHUNK_TOKENS ? end - t : CHUNK_TOKENS;
        input->fill(input->context, t, num, routing);
        const enum ep_status status = ep_traffic_add(traffic, source, routing->topk_idx, num);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status init_chunk(const struct ep_traffic_input *input, struct ep_routing *routing)
{
    return ep_routing_init(CHUNK_TOKENS, input->num_experts, input->top_k, false, routing);
}

enum ep_status ep_traffic_add_input(struct ep_traffic *traffic,
                                    const struct ep_traffic_input *input)
{
    enum ep_status status;
    struct ep_routing routing = {0};
    EP_TRY(init_chunk(input, &routing));
    for (int64_t r = 0; r < input->tokens->num_ranks; r++) {
        EP_TRY(add_source(traffic, input, r, &routing));
    }
out:
    ep_routing_fini(&routing);
    return status;
}

/* --- sums --------------------------------------------------------------------------------- */

static enum ep_status allocate(int64_t num_ranks, int64_t num_experts, int64_t top_k,
                               struct ep_traffic_sums *sums)
{
    const size_t ranks = (size_t)num_ranks;
    struct ep_traffic_sums s = {.num_ranks = num_ranks, .num_experts = num_experts, .top_k = top_k};
    bool lost = false;
    for (int i = 0; i < EP_TRAFFIC_NUM_STAGES; i++) {
        s.out[i] = calloc(ranks, sizeof *s.out[i]);
        s.in[i] = calloc(ranks, sizeof *s.in[i]);
        lost = lost || s.out[i] == NULL || s.in[i] == NULL;
    }
    s.sent = calloc(ranks, sizeof *s.sent);
    s.received = calloc(ranks, sizeof *s.received);
    s.expert_copies = calloc((size_t)num_experts, sizeof *s.expert_copies);
    s.rank_fan_out = calloc((size_t)top_k + 1, sizeof *s.rank_fan_out);
    s.node_fan_out = calloc((size_t)top_k + 1, sizeof *s.node_fan_out);
    *sums = s;
    return lost || s.sent == NULL || s.received == NULL || s.expert_copies == NULL ||
                   s.rank_fan_out == NULL || s.node_fan_out == NULL
               ? ep_error_set(EP_ENOMEM, "no memory to count %" PRId64 " ranks", num_ranks)
               : EP_OK;
}

void ep_traffic_sums_fini(struct ep_traffic_sums *sums)
{
    for (int i = 0; i < EP_TRAFFIC_NUM_STAGES; i++) {
        free(sums->out[i]);
        free(sums->in[i]);
    }
    free(sums->sent);
    free(sums->received);
    free(sums->expert_copies);
    free(sums->rank_fan_out);
    free(sums->node_fan_out);
    *sums = (struct ep_traffic_sums){0};
}

/* Rows from one rank to another; those that stay are no remote ones. */
static void add_rows(struct ep_traffic_sums *sums, int stage, int64_t from, int64_t to, int64_t num)
{
    sums->total[stage] += num;
    if (from != to) {
        sums->out[stage][from] += num;
        sums->in[stage][to] += num;
    }
}

/* Move the row of `source` into the sums. It is 0 but at ranks that hold an expert for it. */
static void fold_row(struct ep_traffic *t, int64_t source, struct ep_traffic_sums *sums)
{
    const int32_t *targets = ep_traffic_targets(t, source);
    for (int64_t e = 0; e < sums->num_experts; e++) {
        const int64_t to = targets[e];
        const int64_t node = t->rank_node[to];
        if (t->copies[to] == 0) {
            continue;
        }
        const int64_t landing = ep_traffic_landing_rank(t, source, node);
        add_rows(sums, EP_BASIS_COPIES, source, to, t->copies[to]);
        add_rows(sums, EP_BASIS_RANK, source, to, t->ranks[to]);
        add_rows(sums, EP_BASIS_NODE, source, landing, t->nodes[node]);
        add_rows(sums, EP_TRAFFIC_FAN_OUT, landing, to, t->ranks[to]);
        sums->sent[source] += t->copies[to];
        sums->received[to] += t->copies[to];
        t->copies[to] = 0;
        t->ranks[to] = 0;
        t->nodes[node] = 0;
    }
}

static void add_array(const int64_t *values, int64_t num, int64_t *sums)
{
    for (int64_t i = 0; i < num; i++) {
        sums[i] += values[i];
    }
}

/* What a thread has: its sums, and counts that ep_traffic keeps over all sources. */
static void merge(const struct ep_traffic *t, const struct ep_traffic_sums *part,
                  struct ep_traffic_sums *sums)
{
    for (int i = 0; i < EP_TRAFFIC_NUM_STAGES; i++) {
        sums->total[i] += part->total[i];
        add_array(part->out[i], sums->num_ranks, sums->out[i]);
        add_array(part->in[i], sums->num_ranks, sums->in[i]);
    }
    add_array(part->sent, sums->num_ranks, sums->sent);
    add_array(part->received, sums->num_ranks, sums->received);
    add_array(t->expert_copies, sums->num_experts, sums->expert_copies);
    add_array(t->rank_fan_out, sums->top_k + 1, sums->rank_fan_out);
    add_array(t->node_fan_out, sums->top_k + 1, sums->node_fan_out);
}

/* --- threads ------------------------------------------------------------------------------ */

struct worker {
    struct ep_traffic traffic;
    struct ep_traffic_sums sums;
    struct ep_routing routing;
};

struct count {
    const struct ep_traffic_input *input;
    const struct ep_traffic_effort *effort;
    struct worker *workers;
};

static enum ep_status count_source(void *context, int thread, int64_t source)
{
    struct count *count = context;
    struct worker *w = &count->workers[thread];
    const enum ep_status status = add_source(&w->traffic, count->input, source, &w->routing);
    if (status == EP_OK) {
        fold_row(&w->traffic, source, &w->sums);
    }
    return status;
}

static void tell(void *context, int64_t num_done, int64_t num_items)
{
    const struct count *count = context;
    count->effort->progress(num_done, num_items);
}

static int choose_threads(const struct ep_traffic_input *input,
                          const struct ep_traffic_effort *effort)
{
    const int cores = effort->num_threads > 0 ? effort->num_threads : ep_parallel_cores();
    const int64_t useful = 1 + input->tokens->num_tokens / (PAIRS_PER_THREAD / input->top_k + 1);
    const int64_t most = useful < input->tokens->num_ranks ? useful : input->tokens->num_ranks;
    return effort->num_threads > 0 || cores < most ? cores : (int)most;
}

enum ep_status ep_traffic_sums_init(const struct ep_placement *placement, const int32_t *rank_node,
                                    int64_t num_nodes, const struct ep_traffic_input *input,
                                    const struct ep_traffic_effort *effort,
                                    struct ep_traffic_sums *sums)
{
    enum ep_status status;
    const int num_threads = choose_threads(input, effort);
    struct ep_traffic_sums made = {0};
    struct count count = {.input = input, .effort = effort};
    EP_ASSERT(input->tokens->num_ranks == placement->num_ranks);
    EP_ASSERT(input->num_experts == placement->num_experts);
    EP_TRY(allocate(placement->num_ranks, placement->num_experts, input->top_k, &made));
    count.workers = calloc((size_t)num_threads, sizeof *count.workers);
    if (count.workers == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %d threads", num_threads);
        goto out;
    }
    for (int i = 0; i < num_threads; i++) {
        struct worker *w = &count.workers[i];
        EP_TRY(ep_traffic_init_row(placement, rank_node, num_nodes, input->top_k, &w->traffic));
        EP_TRY(allocate(placement->num_ranks, placement->num_experts, input->top_k, &w->sums));
        EP_TRY(init_chunk(input, &w->routing));
    }
    const struct ep_parallel loop = {.context = &count,
                                     .body = count_source,
                                     .progress = effort->progress != NULL ? tell : NULL};
    EP_TRY(ep_parallel_run(&loop, placement->num_ranks, num_threads));
    for (int i = 0; i < num_threads; i++) {
        merge(&count.workers[i].traffic, &count.workers[i].sums, &made);
    }
    *sums = made;
    made = (struct ep_traffic_sums){0};
out:
    for (int i = 0; count.workers != NULL && i < num_threads; i++) {
        ep_traffic_fini(&count.workers[i].traffic);
        ep_traffic_sums_fini(&count.workers[i].sums);
        ep_routing_fini(&count.workers[i].routing);
    }
    free(count.workers);
    ep_traffic_sums_fini(&made);
    return status;
}

struct ep_traffic_totals ep_traffic_sums_totals(const struct ep_traffic_sums *sums, int stage)
{
    struct ep_traffic_totals totals = {.total = sums->total[stage]};
    for (int64_t r = 0; r < sums->num_ranks; r++) {
        const int64_t out = sums->out[stage][r];
        const int64_t in = sums->in[stage][r];
        totals.remote += out;
        totals.max_out = out > totals.max_out ? out : totals.max_out;
        totals.max_in = in > totals.max_in ? in : totals.max_in;
    }
    return totals;
}
