/* SPDX-License-Identifier: Apache-2.0 */
/* Sources, their capacity, and what of each is sent. */
#include "kernels/dropping.h"

#include "kernels/skew_policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ep_dropping {
    struct ep_dropping_input input;
    struct ep_capacity_policy policy;
    struct ep_capacity capacity;
    int32_t *room; /* [num_sources][experts] before each source; NULL = the capacity, every time */
    char id[17];
};

/* --- sources ------------------------------------------------------------------------------ */

static enum ep_status fetch_of_router(const void *context, int64_t source, bool with_weights,
                                      struct ep_routing *routing, int64_t *first_token)
{
    const struct ep_router *router = context;
    *first_token = router->tokens->start[source];
    return ep_router_generate_rank(router, source, with_weights, routing);
}

struct ep_dropping_input ep_dropping_input_of_router(const struct ep_router *router)
{
    return (struct ep_dropping_input){
        .context = router,
        .fetch = fetch_of_router,
        .shape = {.tokens = router->tokens->max_tokens,
                  .num_experts = router->num_experts,
                  .top_k = router->top_k,
                  .num_ranks = router->tokens->num_ranks},
        .num_sources = router->tokens->num_ranks,
        .id = ep_router_id(router),
    };
}

static bool needs_weights(const struct ep_dropping *d)
{
    return ep_capacity_is_set(&d->policy) && d->policy.drop == EP_DROP_PROB;
}

static bool at_receiver(const struct ep_dropping *d)
{
    return d->policy.rule != NULL && d->policy.rule->at_receiver;
}

/* --- capacity ----------------------------------------------------------------------------- */

/* The largest count of a (source, expert) pair, and of an expert over all sources. */
static enum ep_status count_needed(const struct ep_dropping *d, int64_t *of_source,
                                   int64_t *of_expert)
{
    enum ep_status status = EP_OK;
    const int64_t num_experts = d->input.shape.num_experts;
    int64_t *counts = calloc((size_t)(2 * num_experts), sizeof *counts);
    if (counts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for counts of %" PRId64 " experts", num_experts);
    }
    int64_t *totals = counts + num_experts;
    for (int64_t s = 0; s < d->input.num_sources; s++) {
        struct ep_routing routing;
        int64_t first_token = 0;
        EP_TRY(d->input.fetch(d->input.context, s, false, &routing, &first_token));
        for (int64_t i = 0; i < routing.num_tokens * routing.top_k; i++) {
            if (routing.topk_idx[i] >= 0) {
                counts[routing.topk_idx[i]]++;
            }
        }
        for (int64_t e = 0; e < num_experts; e++) {
            *of_source = counts[e] > *of_source ? counts[e] : *of_source;
            totals[e] += counts[e];
            *of_expert = totals[e] > *of_expert ? totals[e] : *of_expert;
            counts[e] = 0;
        }
        ep_routing_fini(&routing);
    }
out:
    free(counts);
    return status;
}

static enum ep_status find_capacity(struct ep_dropping *d)
{
    enum ep_status status = EP_OK;
    int64_t of_source = 0;
    int64_t of_expert = 0;
    /* Refuses what it must before anything is counted. */
    EP_TRY(ep_capacity_compute(&d->policy, &d->input.shape, 0, &d->capacity));
    if (ep_capacity_needs_counts(&d->policy, &d->input.shape)) {
        EP_TRY(count_needed(d, &of_source, &of_expert));
        const bool per_source = d->capacity.scope == EP_CAPACITY_PER_SOURCE;
        EP_TRY(ep_capacity_compute(&d->policy, &d->input.shape, per_source ? of_source : of_expert,
                                   &d->capacity));
    }
out:
    return status;
}

/* --- what is sent ------------------------------------------------------------------------- */

static enum ep_status copy_routing(const struct ep_routing *from, struct ep_routing *to)
{
    const size_t num = (size_t)(from->num_tokens * from->top_k);
    const enum ep_status status = ep_routing_init(from->num_tokens, from->num_experts, from->top_k,
                                                  from->topk_weight != NULL, to);
    if (status != EP_OK) {
        return status;
    }
    memcpy(to->topk_idx, from->topk_idx, num * sizeof *to->topk_idx);
    if (from->topk_weight != NULL) {
        memcpy(to->topk_weight, from->topk_weight, num * sizeof *to->topk_weight);
    }
    return EP_OK;
}

/* One source with the room that is left for it; room is lowered. */
static enum ep_status drop_source(const struct ep_dropping *d, int64_t source, bool with_weights,
                                  int64_t *room, struct ep_routing *routing,
                                  struct ep_capacity_counts *counts)
{
    enum ep_status status = EP_OK;
    struct ep_routing sent = {0};
    struct ep_routing bounded = {0};
    int64_t first_token = 0;
    EP_TRY(d->input.fetch(d->input.context, source, with_weights || needs_weights(d), &sent,
                          &first_token));
    if (at_receiver(d)) {
        EP_TRY(copy_routing(&sent, &bounded));
        EP_TRY(ep_capacity_apply(&d->policy, first_token, room, &bounded, counts));
    } else {
        EP_TRY(ep_capacity_apply(&d->policy, first_token, room, &sent, counts));
    }
    *routing = sent;
    sent = (struct ep_routing){0};
out:
    ep_routing_fini(&bounded);
    ep_routing_fini(&sent);
    return status;
}

/* Capacity of all sources together: what each one finds, in order of ranks. */
static enum ep_status find_room(struct ep_dropping *d)
{
    enum ep_status status = EP_OK;
    const int64_t num_experts = d->input.shape.num_experts;
    int64_t *room = malloc((size_t)num_experts * sizeof *room);
    d->room = calloc((size_t)(num_experts * d->input.num_sources), sizeof *d->room);
    if (room == NULL || d->room == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the capacity of %" PRId64 " sources",
                              d->input.num_sources);
        goto out;
    }
    for (int64_t e = 0; e < num_experts; e++) {
        room[e] = d->capacity.rows;
    }
    for (int64_t s = 0; s < d->input.num_sources; s++) {
        struct ep_routing routing;
        struct ep_capacity_counts ignored = {0};
        for (int64_t e = 0; e < num_experts; e++) {
            d->room[s * num_experts + e] = (int32_t)room[e];
        }
        EP_TRY(drop_source(d, s, false, room, &routing, &ignored));
        ep_routing_fini(&routing);
    }
out:
    free(room);
    return status;
}

/* FNV-1a, 64 bits, as routing_id's own. */
static void fill_id(struct ep_dropping *d)
{
    const struct ep_capacity_policy *p = &d->policy;
    const bool whole = !ep_capacity_is_set(p) || p->drop == EP_DROP_NONE || at_receiver(d);
    if (d->input.id == NULL) {
        return;
    }
    if (whole) {
        snprintf(d->id, sizeof d->id, "%s", d->input.id);
        return;
    }
    char text[160];
    snprintf(text, sizeof text, "%s/%" PRId64 "/%d/%s/%d:%" PRId64 "/%" PRIu64, d->input.id,
             d->capacity.rows, (int)d->capacity.scope, ep_drop_name(p->drop), (int)p->overflow,
             p->overflow_expert, p->drop == EP_DROP_RANDOM ? p->seed : 0);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *c = text; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    }
    snprintf(d->id, sizeof d->id, "%016" PRIx64, hash);
}

enum ep_status ep_dropping_create(const struct ep_dropping_input *input,
                                  const struct ep_capacity_policy *policy,
                                  struct ep_dropping **dropping)
{
    enum ep_status status = EP_OK;
    struct ep_dropping *d = calloc(1, sizeof *d);
    if (d == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a capacity");
    }
    d->input = *input;
    d->policy = policy != NULL ? *policy : ep_capacity_policy_default(NULL, 1);
    if (ep_capacity_is_set(&d->policy)) {
        EP_TRY(find_capacity(d));
        if (d->capacity.scope == EP_CAPACITY_PER_EXPERT && d->policy.drop != EP_DROP_NONE) {
            EP_TRY(find_room(d));
        }
    }
    fill_id(d);
    *dropping = d;
    d = NULL;
out:
    ep_dropping_destroy(d);
    return status;
}

void ep_dropping_destroy(struct ep_dropping *dropping)
{
    if (dropping != NULL) {
        free(dropping->room);
        free(dropping);
    }
}

enum ep_status ep_dropping_generate(const struct ep_dropping *d, int64_t source, bool with_weights,
                                    struct ep_routing *routing, struct ep_capacity_counts *counts)
{
    const int64_t num_experts = d->input.shape.num_experts;
    struct ep_capacity_counts ignored = {0};
    int64_t *room = malloc((size_t)num_experts * sizeof *room);
    if (room == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " experts", num_experts);
    }
    for (int64_t e = 0; e < num_experts; e++) {
        room[e] = d->room != NULL ? d->room[source * num_experts + e] : d->capacity.rows;
    }
    const enum ep_status status =
        drop_source(d, source, with_weights, room, routing, counts != NULL ? counts : &ignored);
    free(room);
    return status;
}

const struct ep_capacity *ep_dropping_capacity(const struct ep_dropping *dropping)
{
    return &dropping->capacity;
}

const struct ep_capacity_policy *ep_dropping_policy(const struct ep_dropping *dropping)
{
    return &dropping->policy;
}

const char *ep_dropping_id(const struct ep_dropping *dropping)
{
    return dropping->input.id != NULL ? dropping->id : NULL;
}

int64_t ep_dropping_padded_rows(const struct ep_dropping *dropping, int64_t rows)
{
    const struct ep_capacity *capacity = &dropping->capacity;
    if (!dropping->policy.pad) {
        return 0;
    }
    const int64_t times =
        capacity->scope == EP_CAPACITY_PER_SOURCE ? dropping->input.num_sources : 1;
    return capacity->rows * dropping->input.shape.num_experts * times - rows;
}
