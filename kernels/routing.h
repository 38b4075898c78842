/* SPDX-License-Identifier: Apache-2.0 */
/* Routing: which experts each token goes to, with what weights; generated per global token index.
 */
#ifndef EP_KERNELS_ROUTING_H
#define EP_KERNELS_ROUTING_H

#include "base/error.h"
#include "kernels/placement.h"
#include "kernels/skew.h"
#include "kernels/token_map.h"

#include <stdbool.h>
#include <stdint.h>

/** The choice of experts for consecutive tokens. Init with ep_routing_init, free with _fini. */
struct ep_routing {
    int64_t num_tokens;
    int64_t num_experts; /* every index is below it */
    int64_t top_k;
    int32_t *topk_idx;  /* [num_tokens][top_k] expert, -1 = unused slot */
    float *topk_weight; /* [num_tokens][top_k] >= 0, 0 where unused; NULL if not asked for */
};

/** Allocate for num_tokens >= 0; indices are -1 and weights 0 until filled. */
EP_MUST_CHECK enum ep_status ep_routing_init(int64_t num_tokens, int64_t num_experts, int64_t top_k,
                                             bool with_weights, struct ep_routing *routing);
void ep_routing_fini(struct ep_routing *routing);

/** Borrowed by the router: all must outlive it and stay unchanged. */
struct ep_router_config {
    const struct ep_skew *skew;
    const struct ep_placement *placement; /* gives experts and ranks */
    const struct ep_token_map *tokens;    /* the same number of ranks as the placement */
    int64_t top_k;                        /* 1 to experts */
    uint64_t seed;
};

struct ep_router;

/** Prepare a generator. Returns EP_EINVAL for top_k > experts, a shape that contradicts the skew's
 *  trace, a hot ratio that cannot be reached, a hot rank that does not exist. */
EP_MUST_CHECK enum ep_status ep_router_create(const struct ep_router_config *config,
                                              struct ep_router **router);
void ep_router_destroy(struct ep_router *router);

/** Fill routing rows 0 .. num_tokens-1 with global tokens first_token .. first_token+num_tokens-1.
 *  The result depends on (skew, experts, top_k, seed, token) alone; for hot also on the placement
 *  and the token map. Any split into ranges gives the same rows, so a receiver can make everyone's.
 *  routing  of the router's experts and top_k, num_tokens or more rows; weights if it has them:
 *           the trace's, else positive and summing to 1 per token (to fp32 rounding).
 *  Thread-safe. O(num_tokens * top_k) but for zipf near top_k = experts. */
void ep_router_generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                        struct ep_routing *routing);

/** The tokens of one rank: allocates `routing` with that rank's count (may be 0) and fills it. */
EP_MUST_CHECK enum ep_status ep_router_generate_rank(const struct ep_router *router, int64_t rank,
                                                     bool with_weights, struct ep_routing *routing);

/** 16 hex digits that stand for everything the routing depends on (skew, trace content, shape,
 * seed, placement, token map): the record key routing_id. Borrowed from the router. */
const char *ep_router_id(const struct ep_router *router);

/** True where a trace has fewer rows than there are tokens, so that rows come again: warn. */
bool ep_router_wraps(const struct ep_router *router);

#endif
