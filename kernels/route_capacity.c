/* SPDX-License-Identifier: Apache-2.0 */
/* A case's routing after capacity: rows, padding, buffers. */
#include "kernels/route_capacity.h"

#include "kernels/dropping.h"
#include "kernels/gate_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- assignments as sources --------------------------------------------------------------- */

/* Tokens of a file by rank, in the file's order. */
struct file_source {
    const struct ep_trace *trace;
    int64_t *start; /* [num_ranks + 1] of order */
    int64_t *order; /* [num_tokens] row of the trace */
};

static void fini_file(struct file_source *f)
{
    free(f->start);
    free(f->order);
}

static enum ep_status init_file(const struct ep_route_case *r, const int32_t *token_ranks,
                                struct file_source *f)
{
    const int64_t num_ranks = r->placement.num_ranks;
    f->trace = r->assignments;
    f->start = calloc((size_t)num_ranks + 2, sizeof *f->start);
    f->order = calloc((size_t)r->num_tokens, sizeof *f->order);
    if (f->start == NULL || f->order == NULL) {
        fini_file(f);
        *f = (struct file_source){0};
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " tokens", r->num_tokens);
    }
    for (int64_t t = 0; t < r->num_tokens; t++) {
        f->start[token_ranks[t] + 2]++;
    }
    for (int64_t i = 2; i <= num_ranks; i++) {
        f->start[i] += f->start[i - 1];
    }
    for (int64_t t = 0; t < r->num_tokens; t++) {
        f->order[f->start[token_ranks[t] + 1]++] = t;
    }
    return EP_OK;
}

static enum ep_status fetch_of_file(const void *context, int64_t source, bool with_weights,
                                    struct ep_routing *routing, int64_t *first_token)
{
    const struct file_source *f = context;
    const struct ep_trace *trace = f->trace;
    const int64_t num = f->start[source + 1] - f->start[source];
    const int64_t k = trace->top_k;
    const bool weights = with_weights && trace->topk_weight != NULL;
    const enum ep_status status = ep_routing_init(num, trace->num_experts, k, weights, routing);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < num; i++) {
        const int64_t row = f->order[f->start[source] + i];
        memcpy(routing->topk_idx + i * k, trace->topk_idx + row * k,
               (size_t)k * sizeof *routing->topk_idx);
        if (weights) {
            memcpy(routing->topk_weight + i * k, trace->topk_weight + row * k,
                   (size_t)k * sizeof *routing->topk_weight);
        }
    }
    *first_token = f->start[source];
    return EP_OK;
}

static struct ep_dropping_input input_of_file(const struct ep_route_case *r,
                                              const struct file_source *f)
{
    struct ep_dropping_input input = {
        .context = f,
        .fetch = fetch_of_file,
        .shape = {.num_experts = r->num_experts,
                  .top_k = r->top_k,
                  .num_ranks = r->placement.num_ranks},
        .num_sources = r->placement.num_ranks,
    };
    for (int64_t i = 0; i < input.num_sources; i++) {
        const int64_t num = f->start[i + 1] - f->start[i];
        input.shape.tokens = num > input.shape.tokens ? num : input.shape.tokens;
    }
    return input;
}

/* --- what is counted ---------------------------------------------------------------------- */

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Rows that the fullest rank sends and receives, own ones included. */
static void fill_buffers(const struct ep_traffic_sums *sums, struct ep_route_buffers *buffers)
{
    *buffers = (struct ep_route_buffers){0};
    for (int64_t i = 0; i < sums->num_ranks; i++) {
        buffers->send_rows = max_i64(buffers->send_rows, sums->sent[i]);
        buffers->receive_rows = max_i64(buffers->receive_rows, sums->received[i]);
    }
}

/* Slots of all sources on other ranks; with a capacity of all sources together an expert's slots
 * are where it is, and none of them is on the way. */
static int64_t count_remote_slots(const struct ep_route_case *r, const struct ep_capacity *capacity)
{
    int64_t slots = 0;
    if (capacity->scope == EP_CAPACITY_PER_EXPERT) {
        return 0;
    }
    for (int64_t source = 0; source < r->placement.num_ranks; source++) {
        for (int64_t e = 0; e < r->num_experts; e++) {
            slots += ep_placement_rank(&r->placement, e, source) != source;
        }
    }
    return slots * capacity->rows;
}

static enum ep_status fill_padding(const struct ep_route_case *r,
                                   const struct ep_dropping *dropping, struct ep_route_capacity *c)
{
    const int64_t rows = c->counts.kept + c->counts.rerouted;
    const bool per_source = c->capacity.scope == EP_CAPACITY_PER_SOURCE;
    const double slots = (double)c->capacity.rows * (double)r->num_experts *
                         (double)(per_source ? r->placement.num_ranks : 1);
    if (!c->policy.pad) {
        return EP_OK;
    }
    if (slots * (double)r->row_bytes > 0x1p62) {
        return ep_error_set(EP_EINVAL,
                            "--pad: %g slots of %" PRId64 " bytes exceed 2^62 bytes; a smaller "
                            "capacity is needed", slots, r->row_bytes);
    }
    c->padded_rows = ep_dropping_padded_rows(dropping, rows);
    c->padded_remote_rows =
        per_source ? count_remote_slots(r, &c->capacity) - c->rows[EP_BASIS_COPIES].remote : 0;
    const int64_t per_expert =
        per_source ? c->capacity.rows * r->placement.num_ranks : c->capacity.rows;
    c->bounded.receive_rows = r->placement.max_local * per_expert;
    if (per_source) {
        c->bounded.send_rows = r->num_experts * c->capacity.rows;
    }
    return EP_OK;
}

/* What is sent, counted by many threads: each source counts what was dropped of it apart. */
struct sent {
    const struct ep_dropping *dropping;
    struct ep_capacity_counts *counts; /* [num_sources] */
};

static enum ep_status fetch_sent(const void *context, int64_t rank, struct ep_routing *routing)
{
    const struct sent *sent = context;
    return ep_dropping_generate(sent->dropping, rank, false, routing, &sent->counts[rank]);
}

static void add_counts(const struct ep_capacity_counts *from, struct ep_capacity_counts *to)
{
    to->tokens += from->tokens;
    to->asked += from->asked;
    to->kept += from->kept;
    to->rerouted += from->rerouted;
    to->dropped += from->dropped;
    to->tokens_dropped += from->tokens_dropped;
    to->tokens_lost += from->tokens_lost;
}

static enum ep_status measure(const struct ep_route_case *r, const struct ep_traffic_sums *sums,
                              struct ep_route_capacity *c)
{
    enum ep_status status;
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        c->rows[m] = ep_traffic_sums_totals(sums, m);
    }
    fill_buffers(sums, &c->bounded);
    fill_buffers(&r->sums, &c->whole);
    EP_TRY(ep_imbalance_measure(sums->expert_copies, r->num_experts, &c->imbalance[0]));
    status = ep_imbalance_measure(sums->received, sums->num_ranks, &c->imbalance[1]);
out:
    return status;
}

static enum ep_status apply(const struct ep_route_case *r, const struct ep_dropping_input *input,
                            int num_threads, struct ep_route_capacity *c)
{
    enum ep_status status;
    struct ep_dropping *dropping = NULL;
    struct ep_traffic_sums sums = {0};
    const struct ep_traffic_effort effort = {.num_threads = num_threads};
    struct ep_capacity_counts *counts = calloc((size_t)input->num_sources, sizeof *counts);
    if (counts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " sources", input->num_sources);
    }
    EP_TRY(ep_dropping_create(input, &c->policy, &dropping));
    c->capacity = *ep_dropping_capacity(dropping);
    c->shape = input->shape;
    if (ep_dropping_id(dropping) != NULL) {
        snprintf(c->id, sizeof c->id, "%s", ep_dropping_id(dropping));
    }
    const struct sent sent = {dropping, counts};
    struct ep_traffic_input all = r->input;
    all.context = &sent;
    all.fill = NULL;
    all.fetch = fetch_sent;
    EP_TRY(ep_traffic_sums_init(&r->placement, r->rank_node, r->num_nodes, &all, &effort, &sums));
    for (int64_t i = 0; i < input->num_sources; i++) {
        add_counts(&counts[i], &c->counts);
    }
    EP_TRY(measure(r, &sums, c));
    EP_TRY(fill_padding(r, dropping, c));
out:
    ep_traffic_sums_fini(&sums);
    ep_dropping_destroy(dropping);
    free(counts);
    return status;
}

enum ep_status ep_route_capacity_create(const struct ep_capacity_options *options,
                                        const struct ep_route_case *route,
                                        const int32_t *token_ranks, int num_threads,
                                        struct ep_route_capacity **made)
{
    enum ep_status status = EP_OK;
    struct file_source file = {0};
    struct ep_route_capacity *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a capacity");
    }
    EP_TRY(ep_capacity_options_policy(options, route->top_k, route->seed, &c->policy));
    if (!ep_capacity_is_set(&c->policy)) {
        goto out;
    }
    if (c->policy.rule == NULL && c->policy.rows > 0 && c->policy.drop == EP_DROP_NONE) {
        status = ep_error_set(EP_EINVAL,
                              "--capacity %" PRId64 " needs --drop order, choice, prob "
                              "or random: which copies stay",
                              c->policy.rows);
        goto out;
    }
    struct ep_dropping_input input;
    if (route->from_file) {
        EP_TRY(init_file(route, token_ranks, &file));
        input = input_of_file(route, &file);
    } else if (route->gate != NULL) {
        input = ep_gate_source_input(route->gate);
    } else {
        input = ep_dropping_input_of_router(route->router);
    }
    EP_TRY(apply(route, &input, num_threads, c));
    *made = c;
    c = NULL;
out:
    fini_file(&file);
    ep_route_capacity_destroy(c);
    return status;
}

void ep_route_capacity_destroy(struct ep_route_capacity *capacity)
{
    free(capacity);
}
