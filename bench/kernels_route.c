/* SPDX-License-Identifier: Apache-2.0 */
/* Benchmarks of routing itself: choosing experts, and counting what the choices make ranks send. */
#include "bench/kernels_case.h"

#include "kernels/routing.h"
#include "kernels/skew.h"
#include "kernels/traffic.h"

#include <stdio.h>
#include <stdlib.h>

/* DeepSeek-V3's shape on 64 ranks of 8 nodes. */
enum { EXPERTS = 256, TOP_K = 8, RANKS = 64, NODES = 8, COUNTED_TOKENS = 4096 };

const struct ep_kernels_route ep_kernels_routes[] = {
    {"generate", "uniform", false, 4096, 2e-4},
    {"generate", "zipf:1.0", false, 4096, 4e-4},
    {"count", "uniform", true, (int64_t)RANKS *COUNTED_TOKENS, 2e-3},
    {"count", "zipf:1.0", true, (int64_t)RANKS *COUNTED_TOKENS, 2e-3},
    {0},
};

double ep_kernels_route_pairs(const struct ep_kernels_route *route)
{
    return (double)route->num_tokens * TOP_K;
}

struct route_object {
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map tokens;
    struct ep_router *router;
    struct ep_routing routing; /* of all tokens of a run */
    struct ep_traffic traffic;
    int64_t *rows; /* [RANKS][RANKS] */
    struct ep_traffic_totals totals[EP_NUM_BASES];
};

static void route_destroy(void *object)
{
    struct route_object *o = object;
    free(o->rows);
    ep_traffic_fini(&o->traffic);
    ep_routing_fini(&o->routing);
    ep_router_destroy(o->router);
    ep_token_map_fini(&o->tokens);
    ep_placement_fini(&o->placement);
    ep_skew_destroy(o->skew);
    free(o);
}

static enum ep_status route_create(struct ep_kernels_case *one, void **object)
{
    enum ep_status status;
    int32_t rank_node[RANKS];
    struct route_object *o = calloc(1, sizeof *o);
    if (o == NULL || (o->rows = malloc(RANKS * RANKS * sizeof *o->rows)) == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to route");
        goto out;
    }
    for (int32_t r = 0; r < RANKS; r++) {
        rank_node[r] = r / (RANKS / NODES);
    }
    EP_TRY(ep_skew_create(one->route->skew, &o->skew));
    EP_TRY(ep_placement_init_contiguous(EXPERTS, RANKS, &o->placement));
    EP_TRY(ep_token_map_init_equal(RANKS, one->route->num_tokens / RANKS, &o->tokens));
    const struct ep_router_config config = {.skew = o->skew,
                                            .placement = &o->placement,
                                            .tokens = &o->tokens,
                                            .top_k = TOP_K,
                                            .seed = one->session->options.seed};
    EP_TRY(ep_router_create(&config, &o->router));
    EP_TRY(ep_routing_init(one->route->num_tokens, EXPERTS, TOP_K, false, &o->routing));
    EP_TRY(ep_traffic_init(&o->placement, rank_node, NODES, TOP_K, &o->traffic));
    ep_router_generate(o->router, 0, one->route->num_tokens, &o->routing);
    *object = o;
    o = NULL;
out:
    if (o != NULL) {
        route_destroy(o);
    }
    return status;
}

/* All bases with totals and maxima over ranks. */
static enum ep_status count(struct route_object *o)
{
    const int64_t num = o->routing.num_tokens / RANKS;
    for (int64_t r = 0; r < RANKS; r++) {
        const enum ep_status status =
            ep_traffic_add(&o->traffic, r, o->routing.topk_idx + r * num * TOP_K, num);
        if (status != EP_OK) {
            return status;
        }
    }
    for (int b = 0; b < EP_NUM_BASES; b++) {
        ep_traffic_fill_rows(&o->traffic, (enum ep_basis)b, o->rows);
        ep_traffic_sum(o->rows, RANKS, &o->totals[b]);
    }
    return EP_OK;
}

static enum ep_status route_run(struct ep_kernels_case *one)
{
    struct route_object *o = one->slot->object;
    if (one->route->counts) {
        return count(o);
    }
    ep_router_generate(o->router, 0, o->routing.num_tokens, &o->routing);
    return EP_OK;
}

/* What is counted adds up: every pair is a copy. */
static enum ep_status route_prepare(struct ep_kernels_case *one)
{
    enum ep_status status = ep_kernels_slot_fill(one, route_create, route_destroy);
    if (status == EP_OK) {
        status = route_run(one);
    }
    if (status != EP_OK || !one->route->counts) {
        return status;
    }
    const struct route_object *o = one->slot->object;
    const int64_t pairs = o->totals[EP_BASIS_COPIES].total;
    const int64_t asked = o->routing.num_tokens * TOP_K;
    return pairs % asked == 0 && pairs > 0 && o->totals[EP_BASIS_RANK].total <= pairs &&
                   o->totals[EP_BASIS_NODE].total <= o->totals[EP_BASIS_RANK].total
               ? EP_OK
               : ep_error_set(EP_ECHECK, "route/count: rows do not add up");
}

static enum ep_status route_fill(const struct ep_kernels_case *one, struct ep_record *record)
{
    enum ep_status status;
    EP_TRY(ep_record_set_text(&record->kernel, "route-%s", one->route->what));
    record->tokens = one->route->num_tokens;
    record->top_k = TOP_K;
    record->experts = EXPERTS;
    record->pairs_per_s =
        (double)one->ranks_active * ep_kernels_route_pairs(one->route) / record->median_s;
out:
    return status;
}

const struct ep_kernels_kind ep_kernels_route_kind = {route_prepare, route_run, route_fill};
