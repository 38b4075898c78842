/* SPDX-License-Identifier: Apache-2.0 */
/* Making what a case is made of. */
#include "bench/comm_setting.h"

#include "kernels/place.h"
#include "kernels/place_file.h"
#include "kernels/skew_policy.h"

#include <stdlib.h>

enum { PIECE_TOKENS = 4096 };

static enum ep_status init_map(const struct ep_comm_case *point, struct ep_token_map *map)
{
    return point->tokens_per_rank != NULL
               ? ep_token_map_init_counts(point->num_ranks, point->tokens_per_rank, map)
               : ep_token_map_init_equal(point->num_ranks, point->tokens, map);
}

/* Copies that each expert gets, loads [experts], of all tokens. */
static enum ep_status count_loads(const struct ep_router *router, const struct ep_comm_case *point,
                                  int64_t num_tokens, double *loads)
{
    struct ep_routing piece = {0};
    enum ep_status status =
        ep_routing_init(PIECE_TOKENS, point->experts, point->top_k, false, &piece);
    for (int64_t first = 0; status == EP_OK && first < num_tokens; first += PIECE_TOKENS) {
        const int64_t left = num_tokens - first;
        const int64_t num = left < PIECE_TOKENS ? left : PIECE_TOKENS;
        ep_router_generate(router, first, num, &piece);
        for (int64_t i = 0; i < num * point->top_k; i++) {
            if (piece.topk_idx[i] >= 0) {
                loads[piece.topk_idx[i]] += 1;
            }
        }
    }
    ep_routing_fini(&piece);
    return status;
}

/* EPLB with the loads of the very tokens that will be routed: the best that replicas can do. */
static enum ep_status place_replicas(const struct ep_comm_case *point, uint64_t seed,
                                     struct ep_placement *placement)
{
    enum ep_status status = EP_OK;
    const int64_t slots = point->experts + point->replicas;
    struct ep_placement plain = {0};
    struct ep_token_map map = {0};
    struct ep_router *router = NULL;
    const struct ep_place_policy *policy = NULL;
    struct ep_place_task task = {.shape = {point->experts, point->num_ranks, 1, 1,
                                           (slots + point->num_ranks - 1) / point->num_ranks *
                                               point->num_ranks},
                                 .seed = seed};
    double *loads = calloc((size_t)point->experts, sizeof *loads);
    int32_t *slot_expert = calloc((size_t)task.shape.num_slots, sizeof *slot_expert);
    if (loads == NULL || slot_expert == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for replicas");
        goto out;
    }
    if (point->skew->policy->fixed) {
        status = ep_error_set(EP_EINVAL, "--replicas: skew %s depends on where experts are",
                              point->skew->text);
        goto out;
    }
    EP_TRY(ep_placement_init_contiguous(point->experts, point->num_ranks, &plain));
    EP_TRY(init_map(point, &map));
    const struct ep_router_config config = {point->skew, &plain, &map, point->top_k, seed};
    EP_TRY(ep_router_create(&config, &router));
    EP_TRY(count_loads(router, point, map.num_tokens, loads));
    task.load = loads;
    EP_TRY(ep_place_check_shape(&task.shape));
    EP_TRY(ep_place_policy_find("eplb", &policy));
    EP_TRY(ep_place_run(policy, &task, slot_expert));
    EP_TRY(ep_place_init_placement(&task.shape, slot_expert, placement));
out:
    ep_router_destroy(router);
    ep_token_map_fini(&map);
    ep_placement_fini(&plain);
    free(loads);
    free(slot_expert);
    return status;
}

static enum ep_status place(const struct ep_comm_case *point, uint64_t seed,
                            struct ep_placement *placement)
{
    const struct ep_place_choice only = {
        .layer = -1, .num_ranks = point->num_ranks, .num_experts = point->experts};
    return point->placement != NULL ? ep_place_map_load(point->placement, &only, placement)
           : point->replicas > 0    ? place_replicas(point, seed, placement)
                                    : ep_placement_init_contiguous(point->experts,
                                                                   point->num_ranks, placement);
}

enum ep_status ep_comm_setting_init(struct ep_comm *comm, const struct ep_comm_case *point,
                                    uint64_t seed, struct ep_comm_setting *setting)
{
    enum ep_status status = EP_OK;
    setting->comm = comm;
    setting->point = point;
    EP_TRY(place(point, seed, &setting->placement));
    EP_TRY(init_map(point, &setting->map));
    const struct ep_router_config config = {
        .skew = point->skew,
        .placement = &setting->placement,
        .tokens = &setting->map,
        .top_k = point->top_k,
        .seed = seed,
    };
    EP_TRY(ep_router_create(&config, &setting->router));
    if (point->router != NULL) {
        EP_TRY(ep_gate_source_create(point->router, setting->router, &setting->gate));
    }
    const struct ep_dropping_input input = setting->gate != NULL
                                               ? ep_gate_source_input(setting->gate)
                                               : ep_dropping_input_of_router(setting->router);
    EP_TRY(ep_dropping_create(&input, &point->capacity, &setting->dropping));
out:
    return status;
}

void ep_comm_setting_fini(struct ep_comm_setting *s)
{
    ep_traffic_fini(&s->traffic);
    ep_dropping_destroy(s->dropping);
    ep_gate_source_destroy(s->gate);
    ep_router_destroy(s->router);
    ep_token_map_fini(&s->map);
    ep_placement_fini(&s->placement);
    free(s->sent);
    free(s->world_rank);
}

/* Rows of a (source, expert) slot where a transport pads: the capacity, if it was given or is to be
 * padded to; 0 = the largest count there is. */
static int64_t slot_rows(const struct ep_comm_setting *setting)
{
    const struct ep_capacity_policy *policy = &setting->point->capacity;
    return policy->rows > 0 || policy->pad ? ep_dropping_capacity(setting->dropping)->rows : 0;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool ep_comm_setting_is_bounded(const struct ep_comm_setting *setting)
{
    const struct ep_capacity_policy *policy = &setting->point->capacity;
    const struct ep_capacity *capacity = ep_dropping_capacity(setting->dropping);
    const bool at_receiver = policy->rule != NULL && policy->rule->at_receiver;
    return ep_capacity_is_set(policy) && !capacity->by_need && !at_receiver;
}

/* The most rows that can come. A token is sent to an expert once, unless that is where overflow goes. */
static void fill_most(const struct ep_comm_setting *setting, const struct ep_routing *routing,
                      struct ep_exchange *x)
{
    const struct ep_token_map *map = &setting->map;
    const struct ep_capacity *capacity = ep_dropping_capacity(setting->dropping);
    const bool per_source = capacity->scope == EP_CAPACITY_PER_SOURCE;
    const bool may_double = setting->point->capacity.overflow == EP_OVERFLOW_EXPERT;
    const int32_t *experts = NULL;
    const int64_t num_local =
        ep_placement_local_experts(&setting->placement, ep_comm_rank(setting->comm), &experts);
    const int64_t copies = routing->top_k; /* of a token */
    x->most_sent = routing->num_tokens * copies;
    x->most_received = map->num_tokens * (may_double ? copies : smaller(copies, num_local));
    x->most_slot = map->max_tokens * (may_double ? copies : 1);
    x->all_tokens = map->num_tokens;
    if (ep_comm_setting_is_bounded(setting)) {
        const int64_t rows = capacity->rows;
        x->most_slot = smaller(x->most_slot, rows);
        x->most_sent = smaller(x->most_sent, setting->placement.num_slots * rows);
        x->most_received =
            smaller(x->most_received, num_local * rows * (per_source ? map->num_ranks : 1));
    }
}

enum ep_status ep_comm_setting_exchange(const struct ep_comm_setting *setting,
                                        const struct ep_routing *routing,
                                        struct ep_session *session, struct ep_exchange *exchange)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_case *point = setting->point;
    void *tokens = NULL;
    void *results = NULL;
    const int64_t row_bytes = ep_dtype_row_bytes(point->dtype, point->hidden);
    const int64_t combine_row_bytes = ep_dtype_row_bytes(point->combine_dtype, point->hidden);
    struct ep_topo_caches caches;
    ep_topo_get_caches(session->topo, 0, &caches);
    EP_TRY(ep_arena_alloc(session->arena, routing->num_tokens * row_bytes, "token rows", &tokens));
    EP_TRY(ep_arena_alloc(session->arena, routing->num_tokens * combine_row_bytes, "combined rows",
                          &results));
    *exchange = (struct ep_exchange){
        .comm = setting->comm,
        .placement = &setting->placement,
        .routing = routing,
        .hidden = point->hidden,
        .dtype = point->dtype,
        .combine_dtype = point->combine_dtype,
        .row_bytes = row_bytes,
        .combine_row_bytes = combine_row_bytes,
        .algorithm = point->algorithm,
        .capacity = slot_rows(setting),
        .threads = (int)session->options.threads,
        .arena = session->arena,
        .share = session->share,
        .cache_bytes = caches.l3_bytes > 0 ? caches.l3_bytes : caches.l2_bytes,
        .tokens = tokens,
        .results = results,
    };
    fill_most(setting, routing, exchange);
out:
    return status;
}
