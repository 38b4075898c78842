/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping and rerouting of one source's copies: first claims first, then what is left over. */
#include "kernels/capacity.h"

#include "base/random.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Scratch of one call. Copy c is slot c % top_k of token c / top_k. */
struct work {
    const struct ep_capacity_policy *policy;
    struct ep_routing *routing;
    int64_t *room;      /* [num_experts] the caller's */
    int64_t num_copies; /* slots, used or not */
    bool *over;         /* [num_copies] copies that their expert does not take */
    uint32_t *key;      /* [num_copies] the highest stay: prob and random */
    int64_t *order;     /* [num_copies] copies by expert: prob and random */
    int64_t *start;     /* [num_experts + 1] of order */
    int64_t *next;      /* [num_experts] a guess of the next expert with room: next */
};

static void fini_work(struct work *w)
{
    free(w->over);
    free(w->key);
    free(w->order);
    free(w->start);
    free(w->next);
}

static enum ep_status init_work(const struct ep_capacity_policy *policy, int64_t *room,
                                struct ep_routing *routing, struct work *w)
{
    *w = (struct work){.policy = policy, .routing = routing, .room = room};
    w->num_copies = routing->num_tokens * routing->top_k;
    const size_t num = (size_t)w->num_copies + 1;
    const size_t experts = (size_t)routing->num_experts + 1;
    const bool by_key = policy->drop == EP_DROP_PROB || policy->drop == EP_DROP_RANDOM;
    w->over = calloc(num, sizeof *w->over);
    w->key = by_key ? calloc(num, sizeof *w->key) : NULL;
    w->order = by_key ? calloc(num, sizeof *w->order) : NULL;
    w->start = by_key ? calloc(experts + 1, sizeof *w->start) : NULL;
    w->next = calloc(experts, sizeof *w->next);
    if (w->over == NULL || w->next == NULL ||
        (by_key && (w->key == NULL || w->order == NULL || w->start == NULL))) {
        fini_work(w);
        return ep_error_set(EP_ENOMEM, "no memory to drop of %" PRId64 " copies", w->num_copies);
    }
    return EP_OK;
}

/* --- first claims ------------------------------------------------------------------------- */

static void claim(struct work *w, int64_t copy)
{
    const int32_t expert = w->routing->topk_idx[copy];
    if (expert < 0) {
        return;
    }
    if (w->room[expert] > 0) {
        w->room[expert]--;
    } else {
        w->over[copy] = true;
    }
}

static void claim_in_order(struct work *w)
{
    for (int64_t copy = 0; copy < w->num_copies; copy++) {
        claim(w, copy);
    }
}

static void claim_by_choice(struct work *w)
{
    const int64_t top_k = w->routing->top_k;
    for (int64_t slot = 0; slot < top_k; slot++) {
        for (int64_t copy = slot; copy < w->num_copies; copy += top_k) {
            claim(w, copy);
        }
    }
}

/* Weights are >= 0, and then their bits, without the sign of -0, are in the order of their values.
 */
static void fill_weight_keys(struct work *w)
{
    memcpy(w->key, w->routing->topk_weight, (size_t)w->num_copies * sizeof *w->key);
    for (int64_t copy = 0; copy < w->num_copies; copy++) {
        w->key[copy] &= UINT32_C(0x7fffffff);
    }
}

static void fill_random_keys(struct work *w, int64_t first_token)
{
    const int64_t top_k = w->routing->top_k;
    for (int64_t t = 0; t < w->routing->num_tokens; t++) {
        struct ep_random random;
        ep_random_init(&random, w->policy->seed, EP_RANDOM_DROPPING, (uint64_t)(first_token + t));
        for (int64_t slot = 0; slot < top_k; slot++) {
            w->key[t * top_k + slot] = ep_random_u32(&random);
        }
    }
}

struct claimant {
    uint32_t key;
    int64_t copy;
};

static int compare_claimants(const void *a, const void *b)
{
    const struct claimant *x = a;
    const struct claimant *y = b;
    if (x->key != y->key) {
        return x->key > y->key ? -1 : 1;
    }
    return (x->copy > y->copy) - (x->copy < y->copy);
}

/* Mark all but the `room` copies of highest key of one expert. */
static enum ep_status keep_highest(struct work *w, int64_t expert)
{
    const int64_t *copies = w->order + w->start[expert];
    const int64_t num = w->start[expert + 1] - w->start[expert];
    const int64_t room = w->room[expert];
    if (num <= room) {
        w->room[expert] -= num;
        return EP_OK;
    }
    struct claimant *claimants = malloc((size_t)num * sizeof *claimants);
    if (claimants == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to choose of %" PRId64 " copies", num);
    }
    for (int64_t i = 0; i < num; i++) {
        claimants[i] = (struct claimant){w->key[copies[i]], copies[i]};
    }
    qsort(claimants, (size_t)num, sizeof *claimants, compare_claimants);
    for (int64_t i = room; i < num; i++) {
        w->over[claimants[i].copy] = true;
    }
    w->room[expert] = 0;
    free(claimants);
    return EP_OK;
}

/* Counting sort of copies by expert, then a choice within each. */
static enum ep_status claim_by_key(struct work *w)
{
    const int32_t *topk_idx = w->routing->topk_idx;
    const int64_t num_experts = w->routing->num_experts;
    for (int64_t copy = 0; copy < w->num_copies; copy++) {
        if (topk_idx[copy] >= 0) {
            w->start[topk_idx[copy] + 2]++;
        }
    }
    for (int64_t e = 2; e <= num_experts; e++) {
        w->start[e] += w->start[e - 1];
    }
    for (int64_t copy = 0; copy < w->num_copies; copy++) {
        if (topk_idx[copy] >= 0) {
            w->order[w->start[topk_idx[copy] + 1]++] = copy;
        }
    }
    for (int64_t e = 0; e < num_experts; e++) {
        const enum ep_status status = keep_highest(w, e);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

/* --- what is left over -------------------------------------------------------------------- */

static bool token_has(const struct work *w, int64_t token, int64_t expert)
{
    const int64_t top_k = w->routing->top_k;
    for (int64_t slot = 0; slot < top_k; slot++) {
        if (w->routing->topk_idx[token * top_k + slot] == expert) {
            return true;
        }
    }
    return false;
}

/* The first expert from `expert` on, cyclically, with room; there is one. Room only shrinks, so
 * that experts passed once are full for good: the guess is kept and shortened. */
static int64_t find_room(struct work *w, int64_t expert)
{
    const int64_t num = w->routing->num_experts;
    int64_t found = expert;
    while (w->room[found] <= 0) {
        const int64_t step = w->next[found];
        found = (found + (step > 0 ? step : 1)) % num;
    }
    for (int64_t e = expert; e != found;) {
        const int64_t step = w->next[e] > 0 ? w->next[e] : 1;
        w->next[e] = (found - e + num) % num;
        e = (e + step) % num;
    }
    return found;
}

/* Where a copy goes that its expert does not take; -1 = nowhere. A token never gets an expert
 * twice; its own dropped choices count as had, they are full anyway. */
static int64_t find_other(struct work *w, int64_t copy, int64_t total_room)
{
    const int64_t token = copy / w->routing->top_k;
    const int64_t num = w->routing->num_experts;
    if (w->policy->overflow == EP_OVERFLOW_EXPERT) {
        const int64_t expert = w->policy->overflow_expert;
        return w->room[expert] > 0 && !token_has(w, token, expert) ? expert : -1;
    }
    if (w->policy->overflow == EP_OVERFLOW_DROP || total_room == 0) {
        return -1;
    }
    const int64_t asked = w->routing->topk_idx[copy];
    int64_t passed = 0; /* experts from the asked one on that were looked at */
    while (passed < num) {
        const int64_t from = (asked + passed) % num;
        const int64_t found = find_room(w, from);
        passed += (found - from + num) % num;
        if (passed < num && !token_has(w, token, found)) {
            return found;
        }
        passed++;
    }
    return -1;
}

static void place_rest(struct work *w, struct ep_capacity_counts *counts)
{
    struct ep_routing *r = w->routing;
    int64_t total_room = 0;
    for (int64_t e = 0; e < r->num_experts; e++) {
        total_room += w->room[e];
    }
    for (int64_t copy = 0; copy < w->num_copies; copy++) {
        if (!w->over[copy]) {
            continue;
        }
        const int64_t other = find_other(w, copy, total_room);
        if (other >= 0) {
            w->room[other]--;
            total_room--;
            w->over[copy] = false;
            r->topk_idx[copy] = (int32_t)other;
            counts->rerouted++;
        }
    }
}

/* Dropped slots become unused, and everything is counted. */
static void finish(struct work *w, struct ep_capacity_counts *counts)
{
    struct ep_routing *r = w->routing;
    int64_t asked = 0;
    int64_t dropped = 0;
    for (int64_t t = 0; t < r->num_tokens; t++) {
        int64_t used = 0;
        int64_t lost = 0;
        for (int64_t copy = t * r->top_k; copy < (t + 1) * r->top_k; copy++) {
            used += r->topk_idx[copy] >= 0;
            if (w->over[copy]) {
                lost++;
                r->topk_idx[copy] = -1;
                if (r->topk_weight != NULL) {
                    r->topk_weight[copy] = 0;
                }
            }
        }
        asked += used;
        dropped += lost;
        counts->tokens_dropped += lost > 0;
        counts->tokens_lost += lost > 0 && lost == used;
    }
    counts->tokens += r->num_tokens;
    counts->asked += asked;
    counts->dropped += dropped;
    counts->kept = counts->asked - counts->dropped - counts->rerouted;
}

/* Dropless: every expert takes all. */
static void claim_all(struct work *w)
{
    for (int64_t copy = 0; copy < w->num_copies; copy++) {
        if (w->routing->topk_idx[copy] >= 0) {
            w->room[w->routing->topk_idx[copy]]--;
        }
    }
}

enum ep_status ep_capacity_apply(const struct ep_capacity_policy *policy, int64_t first_token,
                                 int64_t *room, struct ep_routing *routing,
                                 struct ep_capacity_counts *counts)
{
    enum ep_status status = EP_OK;
    struct work w;
    if (policy->drop == EP_DROP_PROB && routing->topk_weight == NULL) {
        return ep_error_set(EP_EINVAL, "--drop prob: this routing has no weights");
    }
    status = init_work(policy, room, routing, &w);
    if (status != EP_OK) {
        return status;
    }
    switch (policy->drop) {
    case EP_DROP_ORDER:
        claim_in_order(&w);
        break;
    case EP_DROP_CHOICE:
        claim_by_choice(&w);
        break;
    case EP_DROP_PROB:
        fill_weight_keys(&w);
        EP_TRY(claim_by_key(&w));
        break;
    case EP_DROP_RANDOM:
        fill_random_keys(&w, first_token);
        EP_TRY(claim_by_key(&w));
        break;
    case EP_DROP_NONE:
    case EP_NUM_DROPS:
        claim_all(&w);
        break;
    }
    if (policy->drop != EP_DROP_NONE) {
        place_rest(&w, counts);
    }
    finish(&w, counts);
out:
    fini_work(&w);
    return status;
}
