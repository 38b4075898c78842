/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing experts in proportion to a popularity, one after another, without replacement. */
#include "kernels/skew_popularity.h"

#include "kernels/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPEATS = 8, SMALL_TOP_K = 32 };

/* Column c of the alias table gives expert[c] below its threshold, alias[c] above it. */
struct column {
    uint32_t threshold; /* of 2^32 */
    int32_t expert;
    int32_t alias;
};

struct state {
    struct column *columns; /* [num_experts] */
    double *share;          /* [num_experts] popularity of each expert, sum 1 */
};

/* Walker's alias method, built by Vose's rule (IEEE TSE 17(9), 1991). */
static enum ep_status fill_columns(const double *share, int64_t n, struct column *columns)
{
    double *rest = malloc((size_t)n * sizeof *rest);
    int32_t *stack = malloc((size_t)n * sizeof *stack); /* small from below, large from above */
    if (rest == NULL || stack == NULL) {
        free(rest);
        free(stack);
        return ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
    }
    int64_t small = 0;
    int64_t large = n;
    for (int32_t e = 0; e < n; e++) {
        rest[e] = share[e] * (double)n;
        columns[e] = (struct column){.threshold = UINT32_MAX, .expert = e, .alias = e};
        if (rest[e] < 1) {
            stack[small++] = e;
        } else {
            stack[--large] = e;
        }
    }
    while (small > 0 && large < n) {
        const int32_t poor = stack[--small];
        const int32_t rich = stack[large];
        columns[poor].threshold = (uint32_t)(rest[poor] * 0x1p32);
        columns[poor].alias = rich;
        rest[rich] -= 1 - rest[poor];
        if (rest[rich] < 1) {
            large++;
            stack[small++] = rich;
        }
    }
    free(rest);
    free(stack);
    return EP_OK;
}

void ep_popularity_release(struct ep_router *router)
{
    struct state *state = router->state;
    free(state->columns);
    free(state->share);
    free(state);
}

/* Shares with sum 1. What is above 0 stays so, that it can be drawn where it must be. */
static enum ep_status fill_shares(const struct ep_router *router, const double *weights,
                                  double *share)
{
    double highest = 0;
    int64_t num_positive = 0;
    for (int64_t e = 0; e < router->num_experts; e++) {
        EP_ASSERT(weights[e] >= 0 && isfinite(weights[e]));
        highest = fmax(highest, weights[e]);
        num_positive += weights[e] > 0;
    }
    if (num_positive < router->top_k) {
        return ep_error_set(EP_EINVAL,
                            "skew %s: %" PRId64 " experts have a popularity above 0; top-%" PRId64
                            " needs as many",
                            router->skew->text, num_positive, router->top_k);
    }
    double sum = 0;
    for (int64_t e = 0; e < router->num_experts; e++) {
        share[e] = weights[e] > 0 ? fmax(weights[e] / highest, EP_POPULARITY_LEAST) : 0;
        sum += share[e];
    }
    for (int64_t e = 0; e < router->num_experts; e++) {
        share[e] /= sum;
    }
    return EP_OK;
}

enum ep_status ep_popularity_prepare(struct ep_router *router, const double *weights)
{
    enum ep_status status;
    const size_t n = (size_t)router->num_experts;
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
    }
    router->state = state;
    state->columns = malloc(n * sizeof *state->columns);
    state->share = malloc(n * sizeof *state->share);
    if (state->columns == NULL || state->share == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
        goto out;
    }
    EP_TRY(fill_shares(router, weights, state->share));
    EP_TRY(fill_columns(state->share, router->num_experts, state->columns));
    return EP_OK;
out:
    ep_popularity_release(router);
    router->state = NULL;
    return status;
}

enum ep_status ep_popularity_copy_shares(const struct ep_router *router, double *shares)
{
    const struct state *state = router->state;
    memcpy(shares, state->share, (size_t)router->num_experts * sizeof *shares);
    return EP_OK;
}

bool ep_popularity_is_of(const struct ep_skew *skew)
{
    const bool draws = skew->policy->generate == ep_popularity_generate ||
                       skew->policy == &ep_skew_uniform || skew->policy == &ep_skew_counts;
    return draws && !skew->by_source && skew->masked == 0;
}

enum ep_status ep_popularity_fill_shares(const struct ep_skew *skew, int64_t num_experts,
                                         uint64_t seed, double *shares)
{
    struct ep_router router = {
        .skew = skew, .num_experts = num_experts, .top_k = 1, .seed = seed};
    EP_ASSERT(ep_popularity_is_of(skew));
    if (skew->policy == &ep_skew_uniform) {
        for (int64_t e = 0; e < num_experts; e++) {
            shares[e] = 1 / (double)num_experts;
        }
        return EP_OK;
    }
    enum ep_status status = skew->policy->prepare(&router);
    if (status == EP_OK) {
        status = skew->policy->fill_shares != NULL ? skew->policy->fill_shares(&router, shares)
                                                   : ep_popularity_copy_shares(&router, shares);
        skew->policy->release(&router);
    }
    return status;
}

/* The high half of word * n picks a column, the low half decides within it. */
static inline int32_t draw_one(const struct state *state, uint32_t n, struct ep_random *random)
{
    const uint64_t product = (uint64_t)ep_sample_word(random) * n;
    const struct column *column = &state->columns[product >> 32];
    return (uint32_t)product < column->threshold ? column->expert : column->alias;
}

/* Where redrawing takes long: the same distribution by a walk over the experts not taken yet. */
static int32_t draw_rest(const struct state *state, int64_t n, const uint64_t *taken,
                         struct ep_random *random)
{
    double sum = 0;
    for (int64_t e = 0; e < n; e++) {
        sum += (taken[e / 64] >> e % 64 & 1) != 0 ? 0 : state->share[e];
    }
    double left = ep_random_f64(random) * sum;
    int32_t last = -1;
    for (int32_t e = 0; e < n; e++) {
        if ((taken[e / 64] >> e % 64 & 1) == 0 && state->share[e] > 0) {
            last = e;
            left -= state->share[e];
            if (left < 0) {
                break;
            }
        }
    }
    return last;
}

/* Successive draws in proportion to popularity, each expert once. */
static void draw_token(const struct ep_router *router, struct ep_random *random, int32_t *experts)
{
    const struct state *state = router->state;
    const uint32_t n = (uint32_t)router->num_experts;
    uint64_t taken[EP_MAX_EXPERTS / 64];
    bool marked = false;
    for (int64_t i = 0; i < router->top_k; i++) {
        int32_t expert = -1;
        for (int repeat = 0; expert < 0 && repeat < MAX_REPEATS; repeat++) {
            expert = draw_one(state, n, random);
            const bool again = marked ? (taken[expert / 64] >> expert % 64 & 1) != 0
                                      : ep_sample_has(experts, i, expert);
            expert = again ? -1 : expert;
        }
        if (!marked && (expert < 0 || i + 1 == SMALL_TOP_K)) {
            memset(taken, 0, (n + 63) / 64 * sizeof taken[0]);
            for (int64_t j = 0; j < i; j++) {
                taken[experts[j] / 64] |= (uint64_t)1 << experts[j] % 64;
            }
            marked = true;
        }
        if (expert < 0) {
            expert = draw_rest(state, n, taken, random);
        }
        if (marked) {
            taken[expert / 64] |= (uint64_t)1 << expert % 64;
        }
        experts[i] = expert;
    }
}

void ep_popularity_generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                            int32_t *topk_idx)
{
    struct ep_random random[EP_RANDOM_LANES];
    const int64_t k = router->top_k;
    for (int64_t t = 0, num = 0; t < num_tokens; t += num) {
        num = ep_sample_tokens(random, router->seed, EP_RANDOM_ROUTING, first_token + t,
                               num_tokens - t, k + k / 2);
        for (int64_t i = 0; i < num; i++) {
            draw_token(router, &random[i], topk_idx + (t + i) * k);
        }
    }
}
