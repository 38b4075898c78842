/* SPDX-License-Identifier: Apache-2.0 */
/* Placements that bring together what is chosen together, never less even than EPLB's. */
#include "kernels/place_eplb.h"
#include "kernels/place_search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the bound from EPLB ------------------------------------------------------------------- */

static enum ep_status find_busiest(const struct ep_place_task *task, const int32_t *map,
                                   double *busiest)
{
    double *ranks = calloc((size_t)task->shape.num_ranks, sizeof *ranks);
    if (ranks == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads");
    }
    const enum ep_status status = ep_place_fill_loads(&task->shape, task->load, map, ranks, NULL);
    if (status == EP_OK) {
        *busiest = ep_place_max(ranks, task->shape.num_ranks);
    }
    free(ranks);
    return status;
}

/* --- coactivation -------------------------------------------------------------------------- */

/* EPLB's map, hierarchical or global, whichever has the less busy rank. */
static enum ep_status start_from_eplb(const struct ep_place_task *task, int32_t *map,
                                      double *busiest)
{
    enum ep_status status;
    const size_t size = (size_t)task->shape.num_slots * sizeof *map;
    double other = 0;
    int32_t *global = malloc(size);
    if (global == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a placement");
    }
    EP_TRY(ep_place_eplb.place(task, map));
    EP_TRY(find_busiest(task, map, busiest));
    EP_TRY(ep_place_eplb_global.place(task, global));
    EP_TRY(find_busiest(task, global, &other));
    if (other < *busiest) {
        memcpy(map, global, size);
        *busiest = other;
    }
out:
    free(global);
    return status;
}

static enum ep_status place_coactivation(const struct ep_place_task *task, int32_t *map)
{
    enum ep_status status;
    double busiest = 0;
    EP_TRY(start_from_eplb(task, map, &busiest));
    const struct ep_place_goal goal = {.rank_cost = 1,
                                       .node_cost = task->shape.num_nodes > 1 ? 1 : 0,
                                       .rank_bound = busiest * (1 + task->slack)};
    EP_TRY(ep_place_search(task, &goal, map));
out:
    return status;
}

/* --- hierarchical -------------------------------------------------------------------------- */

/* The problem of groups on nodes, as one of experts on ranks: a token's groups, each once. */
struct group_task {
    struct ep_place_task task;
    struct ep_place_tokens tokens;
    int32_t *topk_idx;
    double *load;
};

static void fill_group_row(const int32_t *experts, int64_t top_k, int64_t size, int32_t *groups)
{
    for (int64_t i = 0; i < top_k; i++) {
        groups[i] = experts[i] < 0 ? -1 : (int32_t)(experts[i] / size);
        for (int64_t j = 0; j < i; j++) {
            groups[i] = groups[j] == groups[i] ? -1 : groups[i];
        }
    }
}

static enum ep_status fill_group_tokens(const struct ep_place_tokens *tokens, int64_t size,
                                        struct group_task *g)
{
    g->topk_idx = malloc((size_t)(tokens->num_tokens * tokens->top_k) * sizeof *g->topk_idx);
    if (g->topk_idx == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the groups of tokens");
    }
    for (int64_t t = 0; t < tokens->num_tokens; t++) {
        fill_group_row(tokens->topk_idx + t * tokens->top_k, tokens->top_k, size,
                       g->topk_idx + t * tokens->top_k);
    }
    g->tokens = (struct ep_place_tokens){tokens->num_tokens, tokens->top_k, g->topk_idx};
    g->task.tokens = &g->tokens;
    return EP_OK;
}

static enum ep_status init_group_task(const struct ep_place_task *task, struct group_task *g)
{
    const struct ep_place_shape *shape = &task->shape;
    const int64_t size = shape->num_experts / shape->num_groups;
    *g = (struct group_task){.task = *task};
    g->load = calloc((size_t)shape->num_groups, sizeof *g->load);
    if (g->load == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the loads of groups");
    }
    for (int64_t e = 0; e < shape->num_experts; e++) {
        g->load[e / size] += task->load[e];
    }
    g->task.load = g->load;
    g->task.shape = (struct ep_place_shape){.num_experts = shape->num_groups,
                                            .num_ranks = shape->num_nodes,
                                            .num_nodes = 1,
                                            .num_groups = 1,
                                            .num_slots = shape->num_groups};
    return task->tokens != NULL ? fill_group_tokens(task->tokens, size, g) : EP_OK;
}

static void release_group_task(struct group_task *g)
{
    free(g->topk_idx);
    free(g->load);
}

/* Groups to nodes so that tokens reach few nodes, no node above `node_bound`, or without tokens as
 * evenly as swaps can; then as EPLB, and evened out. busiest: the most load of a rank that comes of
 * it. */
static enum ep_status place_groups(const struct ep_place_task *task, const struct group_task *g,
                                   double node_bound, int32_t *map, double *busiest)
{
    enum ep_status status;
    static const struct ep_place_goal within = {.within_nodes = true};
    const int64_t num_groups = task->shape.num_groups;
    const struct ep_place_goal goal = {.rank_cost = 1, .rank_bound = node_bound};
    int64_t *order = malloc((size_t)num_groups * sizeof *order);
    int32_t *groups = malloc((size_t)num_groups * sizeof *groups);
    if (order == NULL || groups == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for groups");
        goto out;
    }
    EP_TRY(ep_eplb_pack_groups(task, order));
    for (int64_t i = 0; i < num_groups; i++) {
        groups[i] = (int32_t)order[i];
    }
    EP_TRY(g->task.tokens != NULL ? ep_place_search(&g->task, &goal, groups)
                                  : ep_place_balance(&g->task, &goal, groups));
    for (int64_t i = 0; i < num_groups; i++) {
        order[i] = groups[i];
    }
    EP_TRY(ep_eplb_place_groups(task, order, map));
    EP_TRY(ep_place_balance(task, &within, map));
    EP_TRY(find_busiest(task, map, busiest));
out:
    free(order);
    free(groups);
    return status;
}

/* Whole groups between nodes. A node that could just carry its groups may still not be able to
 * spread them over its ranks, so its bound is drawn in until it does; else EPLB's own map stays. */
static enum ep_status search_groups(const struct ep_place_task *task, double rank_bound,
                                    int32_t *map)
{
    static const double tightness[] = {1, 0.75, 0.5, 0.25};
    enum ep_status status;
    const struct ep_place_shape *shape = &task->shape;
    const double ranks_per_node = (double)shape->num_ranks / (double)shape->num_nodes;
    const size_t size = (size_t)shape->num_slots * sizeof *map;
    int32_t *tried = malloc(size);
    struct group_task g = {0};
    double mean = 0;
    double busiest = (double)INFINITY;
    if (tried == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    EP_TRY(init_group_task(task, &g));
    for (int64_t i = 0; i < shape->num_groups; i++) {
        mean += g.load[i] / (double)shape->num_ranks;
    }
    for (size_t i = 0; i < sizeof tightness / sizeof tightness[0] && busiest > rank_bound; i++) {
        const double bound = mean + tightness[i] * (rank_bound - mean);
        EP_TRY(place_groups(task, &g, bound * ranks_per_node, tried, &busiest));
    }
    if (busiest <= rank_bound) {
        memcpy(map, tried, size);
    }
out:
    free(tried);
    release_group_task(&g);
    return status;
}

/* Nodes first, as rows between nodes cost most; then the ranks of each node. Some cost of ranks in
 * the first search leads it: a token that reaches all nodes often does so after any one swap. */
static enum ep_status search_nodes_then_ranks(const struct ep_place_task *task, double rank_bound,
                                              int32_t *map)
{
    enum ep_status status = EP_OK;
    const struct ep_place_goal nodes = {
        .node_cost = 1, .rank_cost = 0.25, .rank_bound = rank_bound};
    const struct ep_place_goal ranks = {
        .rank_cost = 1, .rank_bound = rank_bound, .within_nodes = true};
    if (ep_place_keeps_groups(&task->shape)) {
        EP_TRY(search_groups(task, rank_bound, map));
    } else if (task->shape.num_nodes > 1) {
        EP_TRY(ep_place_search(task, &nodes, map));
    }
    EP_TRY(ep_place_search(task, &ranks, map));
out:
    return status;
}

/* Whole groups evened out over nodes first, where that helps the ranks in the end. */
static enum ep_status even_out_groups(const struct ep_place_task *task, int32_t *map)
{
    enum ep_status status;
    const size_t size = (size_t)task->shape.num_slots * sizeof *map;
    int32_t *tried = malloc(size);
    struct group_task g = {0};
    double now = 0, then = 0;
    if (tried == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    EP_TRY(init_group_task(task, &g));
    EP_TRY(place_groups(task, &g, (double)INFINITY, tried, &then));
    EP_TRY(find_busiest(task, map, &now));
    if (then < now) {
        memcpy(map, tried, size);
    }
out:
    free(tried);
    release_group_task(&g);
    return status;
}

static enum ep_status place_hierarchical(const struct ep_place_task *task, int32_t *map)
{
    enum ep_status status;
    double busiest = 0;
    const bool grouped = ep_place_keeps_groups(&task->shape);
    const struct ep_place_goal even = {.within_nodes = grouped};
    EP_TRY(ep_place_eplb.place(task, map));
    if (task->tokens == NULL) {
        EP_TRY(ep_place_balance(task, &even, map));
        EP_TRY(grouped ? even_out_groups(task, map) : EP_OK);
    } else {
        EP_TRY(find_busiest(task, map, &busiest));
        EP_TRY(search_nodes_then_ranks(task, busiest * (1 + task->slack), map));
    }
out:
    return status;
}

const struct ep_place_policy ep_place_coactivation = {
    .name = "coactivation",
    .summary = "experts that tokens choose together on one rank or node; no busier than EPLB",
    .needs_tokens = true,
    .knows_tokens = true,
    .place = place_coactivation,
};

const struct ep_place_policy ep_place_hierarchical = {
    .name = "hierarchical",
    .summary =
        "similar experts on one node, then on one rank; groups as EPLB keeps them, no busier",
    .knows_tokens = true,
    .place = place_hierarchical,
};
