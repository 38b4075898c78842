/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing experts in proportion to a popularity, one after another, without replacement. */
#include "kernels/skew_popularity.h"

#include "base/isa.h"
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
static inline int32_t look_up(const struct column *columns, uint32_t n, uint32_t word)
{
    const uint64_t product = (uint64_t)word * n;
    const struct column *column = &columns[product >> 32];
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
            expert = look_up(state->columns, n, ep_sample_word(random));
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

static void draw_alone(const struct ep_router *router, uint64_t token, int32_t *experts)
{
    struct ep_random random;
    ep_random_init(&random, router->seed, EP_RANDOM_ROUTING, token);
    draw_token(router, &random, experts);
}

/* Experts of EP_RANDOM_LANES tokens. */
typedef int32_t lanes __attribute__((vector_size(4 * EP_RANDOM_LANES)));

/* Which draws of the tokens repeat an earlier one: not 0. */
static inline __attribute__((always_inline)) void find_repeats(const lanes *drawn, int64_t num,
                                                               lanes *repeats)
{
    for (int64_t i = 0; i < num; i++) {
        lanes found = {0};
        for (int64_t j = 0; j < i; j++) {
            found |= drawn[j] == drawn[i];
        }
        repeats[i] = found;
    }
}

/* As draw_token for groups of EP_RANDOM_LANES tokens: num_words draws of each at once, of which those that repeat
 * none are taken in order, whatever their number, so that no branch depends on chance. A token for which they are too
 * few is drawn alone. */
static EP_BEST_ISA void draw_together(const struct ep_router *router, int64_t first_token,
                                      int64_t num_groups, int64_t num_words, int32_t *topk_idx)
{
    const struct column *columns = ((const struct state *)router->state)->columns;
    const uint32_t n = (uint32_t)router->num_experts;
    const int64_t k = router->top_k;
    for (int64_t g = 0; g < num_groups; g++) {
        uint64_t words[EP_RANDOM_WORDS][EP_RANDOM_LANES];
        lanes drawn[EP_RANDOM_WORDS];
        lanes repeats[EP_RANDOM_WORDS];
        const uint64_t first = (uint64_t)(first_token + g * EP_RANDOM_LANES);
        ep_random_fill_lanes(router->seed, EP_RANDOM_ROUTING, first, num_words, words);
        for (int64_t w = 0; w < num_words; w++) {
            for (int l = 0; l < EP_RANDOM_LANES; l++) {
                drawn[w][l] = look_up(columns, n, (uint32_t)words[w][l]);
            }
        }
        find_repeats(drawn, num_words, repeats);
        for (int l = 0; l < EP_RANDOM_LANES; l++) {
            int32_t taken[EP_RANDOM_WORDS];
            int32_t *experts = topk_idx + (g * EP_RANDOM_LANES + l) * k;
            int64_t num = 0;
            for (int64_t w = 0; w < num_words; w++) {
                taken[num] = drawn[w][l];
                num += repeats[w][l] == 0;
            }
            if (num >= k) {
                memcpy(experts, taken, (size_t)k * sizeof *experts);
            } else {
                draw_alone(router, first + (uint64_t)l, experts);
            }
        }
    }
}

void ep_popularity_generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                            int32_t *topk_idx)
{
    const int64_t k = router->top_k;
    const int64_t num_words = k + k / 2 < EP_RANDOM_WORDS ? k + k / 2 : EP_RANDOM_WORDS;
    int64_t done = 0;
    /* what is taken has at most num_words - k repeats, so that draw_token would not give up either */
    if (num_words >= k && num_words - k < MAX_REPEATS) {
        const int64_t num_groups = num_tokens / EP_RANDOM_LANES;
        draw_together(router, first_token, num_groups, num_words, topk_idx);
        done = num_groups * EP_RANDOM_LANES;
    }
    for (int64_t t = done; t < num_tokens; t++) {
        draw_alone(router, (uint64_t)(first_token + t), topk_idx + t * k);
    }
}
