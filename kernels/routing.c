/* SPDX-License-Identifier: Apache-2.0 */
/* Routers: a policy's generator with its weights and its identity. */
#include "kernels/routing.h"

#include "kernels/sample.h"
#include "kernels/skew_policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Entries of the permutations by source: 512 MiB. */
#define MAX_PERMUTED ((int64_t)1 << 27)

/* Streams of EP_RANDOM_PERMUTATION below are the skews' own. */
enum { FIRST_SOURCE = 16 };

enum ep_status ep_routing_init(int64_t num_tokens, int64_t num_experts, int64_t top_k,
                               bool with_weights, struct ep_routing *routing)
{
    EP_ASSERT(num_tokens >= 0 && num_experts >= 1 && top_k >= 1);
    struct ep_routing r = {.num_tokens = num_tokens, .num_experts = num_experts, .top_k = top_k};
    if (num_tokens > INT64_MAX / 16 / top_k) {
        return ep_error_set(EP_ENOMEM, "no memory for the routing of %" PRId64 " tokens",
                            num_tokens);
    }
    const size_t num = (size_t)(num_tokens * top_k);
    r.topk_idx = malloc((num + 1) * sizeof *r.topk_idx);
    r.topk_weight = with_weights ? calloc(num + 1, sizeof *r.topk_weight) : NULL;
    if (r.topk_idx == NULL || (with_weights && r.topk_weight == NULL)) {
        ep_routing_fini(&r);
        return ep_error_set(EP_ENOMEM, "no memory for the routing of %" PRId64 " tokens",
                            num_tokens);
    }
    memset(r.topk_idx, 0xff, num * sizeof *r.topk_idx);
    *routing = r;
    return EP_OK;
}

void ep_routing_fini(struct ep_routing *routing)
{
    free(routing->topk_idx);
    free(routing->topk_weight);
    *routing = (struct ep_routing){0};
}

/* FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash(uint64_t h, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) {
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return h;
}

static void fill_id(struct ep_router *router)
{
    const struct ep_skew *skew = router->skew;
    const struct ep_placement *placement = router->placement;
    const struct ep_token_map *tokens = router->tokens;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    h = hash(h, skew->text, strlen(skew->text) + 1);
    const int64_t shape[] = {router->num_experts, router->top_k, (int64_t)router->seed,
                             placement->num_ranks};
    h = hash(h, shape, sizeof shape);
    h = hash(h, placement->slot_start,
             (size_t)(placement->num_experts + 1) * sizeof *placement->slot_start);
    h = hash(h, placement->slot_rank, (size_t)placement->num_slots * sizeof *placement->slot_rank);
    h = hash(h, tokens->start, (size_t)(tokens->num_ranks + 1) * sizeof *tokens->start);
    if (skew->trace != NULL && skew->trace->counts != NULL) {
        h = hash(h, skew->trace->counts,
                 (size_t)skew->trace->num_experts * sizeof *skew->trace->counts);
    } else if (skew->trace != NULL) {
        const size_t num = (size_t)(skew->trace->num_tokens * skew->trace->top_k);
        h = hash(h, skew->trace->topk_idx, num * sizeof *skew->trace->topk_idx);
        if (skew->trace->topk_weight != NULL) {
            h = hash(h, skew->trace->topk_weight, num * sizeof *skew->trace->topk_weight);
        }
    }
    snprintf(router->id, sizeof router->id, "%016" PRIx64, h);
}

/* Experts as each source knows them: a permutation of its own. */
static enum ep_status permute_by_source(struct ep_router *router)
{
    const int64_t n = router->num_experts;
    const int64_t num_ranks = router->tokens->num_ranks;
    if (n * num_ranks > MAX_PERMUTED) {
        return ep_error_set(EP_EINVAL,
                            "skew %s: %" PRId64 " experts on %" PRId64
                            " ranks; +source keeps at most %" PRId64 " in all",
                            router->skew->text, n, num_ranks, MAX_PERMUTED);
    }
    int64_t *order = malloc((size_t)n * sizeof *order);
    router->by_source = malloc((size_t)(n * num_ranks) * sizeof *router->by_source);
    if (order == NULL || router->by_source == NULL) {
        free(order);
        return ep_error_set(EP_ENOMEM, "no memory for a router");
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        struct ep_random random;
        ep_random_init(&random, router->seed, EP_RANDOM_PERMUTATION, FIRST_SOURCE + (uint64_t)r);
        for (int64_t e = 0; e < n; e++) {
            order[e] = e;
        }
        ep_random_shuffle_i64(&random, order, n);
        for (int64_t e = 0; e < n; e++) {
            router->by_source[r * n + e] = (int32_t)order[e];
        }
    }
    free(order);
    return EP_OK;
}

enum ep_status ep_router_create(const struct ep_router_config *config, struct ep_router **router)
{
    enum ep_status status;
    EP_ASSERT(config->tokens->num_ranks == config->placement->num_ranks);
    int64_t experts = 0;
    int64_t top_k = 0;
    EP_ASSERT(config->placement->num_experts > 0);
    status = ep_skew_resolve_shape(config->skew, config->placement->num_experts, config->top_k,
                                   false, &experts, &top_k);
    if (status != EP_OK) {
        return status;
    }
    struct ep_router *created = calloc(1, sizeof *created);
    if (created == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a router");
    }
    *created = (struct ep_router){.skew = config->skew,
                                  .placement = config->placement,
                                  .tokens = config->tokens,
                                  .num_experts = experts,
                                  .top_k = top_k,
                                  .seed = config->seed};
    if (config->skew->policy->prepare != NULL) {
        EP_TRY(config->skew->policy->prepare(created));
    }
    if (config->skew->by_source) {
        EP_TRY(permute_by_source(created));
    }
    fill_id(created);
    *router = created;
    created = NULL;
out:
    ep_router_destroy(created);
    return status;
}

void ep_router_destroy(struct ep_router *router)
{
    if (router == NULL) {
        return;
    }
    if (router->state != NULL) {
        router->skew->policy->release(router);
    }
    free(router->by_source);
    free(router);
}

static void copy_trace_weights(const struct ep_router *router, int64_t first_token,
                               int64_t num_tokens, const int32_t *topk_idx, float *topk_weight)
{
    const struct ep_trace *trace = router->skew->trace;
    const int64_t k = router->top_k;
    for (int64_t t = 0; t < num_tokens; t++) {
        const int64_t row = (first_token + t) % trace->num_tokens;
        for (int64_t i = 0; i < k; i++) {
            topk_weight[t * k + i] = topk_idx[t * k + i] >= 0 ? trace->topk_weight[row * k + i] : 0;
        }
    }
}

/* Each used slot draws from (0, 1] in steps of 2^-24, exact in fp32; then the row is normalised. */
static void draw_weights(const struct ep_router *router, struct ep_random *random,
                         const int32_t *experts, float *weight)
{
    double sum = 0;
    for (int64_t i = 0; i < router->top_k; i++) {
        const float drawn = (float)((ep_sample_word(random) >> 8) + 1) * 0x1p-24f;
        weight[i] = experts[i] >= 0 ? drawn : 0;
        sum += (double)weight[i];
    }
    const double scale = sum > 0 ? 1 / sum : 0;
    for (int64_t i = 0; i < router->top_k; i++) {
        weight[i] = (float)((double)weight[i] * scale);
    }
}

static void apply_permutations(const struct ep_router *router, int64_t first_token,
                               int64_t num_tokens, int32_t *topk_idx)
{
    const int64_t k = router->top_k;
    for (int64_t t = first_token, end = 0; t < first_token + num_tokens; t = end) {
        const int64_t source = ep_token_map_rank(router->tokens, t);
        const int32_t *permuted = router->by_source + source * router->num_experts;
        end = router->tokens->start[source + 1];
        end = end < first_token + num_tokens ? end : first_token + num_tokens;
        for (int64_t i = (t - first_token) * k; i < (end - first_token) * k; i++) {
            topk_idx[i] = permuted[topk_idx[i]];
        }
    }
}

/* Each slot by itself. */
static void mask_slots(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                       int32_t *topk_idx)
{
    struct ep_random random[EP_RANDOM_LANES];
    const int64_t k = router->top_k;
    const uint32_t limit = (uint32_t)(router->skew->masked * 0x1p32);
    for (int64_t t = 0, num = 0; t < num_tokens; t += num) {
        num = ep_sample_tokens(random, router->seed, EP_RANDOM_MASK, first_token + t,
                               num_tokens - t, k);
        for (int64_t i = 0; i < num * k; i++) {
            if (ep_sample_word(&random[i / k]) < limit) {
                topk_idx[t * k + i] = -1;
            }
        }
    }
}

void ep_router_generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                        struct ep_routing *routing)
{
    EP_ASSERT(routing->top_k == router->top_k && routing->num_experts == router->num_experts);
    EP_ASSERT(num_tokens <= routing->num_tokens && first_token >= 0);
    router->skew->policy->generate(router, first_token, num_tokens, routing->topk_idx);
    if (router->by_source != NULL) {
        apply_permutations(router, first_token, num_tokens, routing->topk_idx);
    }
    if (router->skew->masked > 0) {
        mask_slots(router, first_token, num_tokens, routing->topk_idx);
    }
    if (routing->topk_weight == NULL) {
        return;
    }
    if (router->skew->trace != NULL && router->skew->trace->topk_weight != NULL) {
        copy_trace_weights(router, first_token, num_tokens, routing->topk_idx,
                           routing->topk_weight);
        return;
    }
    struct ep_random random[EP_RANDOM_LANES];
    const int64_t k = router->top_k;
    for (int64_t t = 0, num = 0; t < num_tokens; t += num) {
        num = ep_sample_tokens(random, router->seed, EP_RANDOM_WEIGHTS, first_token + t,
                               num_tokens - t, k);
        for (int64_t i = t; i < t + num; i++) {
            draw_weights(router, &random[i - t], routing->topk_idx + i * k,
                         routing->topk_weight + i * k);
        }
    }
}

enum ep_status ep_router_generate_rank(const struct ep_router *router, int64_t rank,
                                       bool with_weights, struct ep_routing *routing)
{
    const int64_t num_tokens = ep_token_map_count(router->tokens, rank);
    struct ep_routing made;
    const enum ep_status status =
        ep_routing_init(num_tokens, router->num_experts, router->top_k, with_weights, &made);
    if (status != EP_OK) {
        return status;
    }
    ep_router_generate(router, router->tokens->start[rank], num_tokens, &made);
    *routing = made;
    return EP_OK;
}

const char *ep_router_id(const struct ep_router *router)
{
    return router->id;
}

bool ep_router_wraps(const struct ep_router *router)
{
    return router->skew->trace != NULL && router->skew->trace->counts == NULL &&
           router->tokens->num_tokens > router->skew->trace->num_tokens;
}
