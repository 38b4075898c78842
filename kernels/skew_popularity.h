/* SPDX-License-Identifier: Apache-2.0 */
/* What all skews share that draw experts by popularity: successive draws without replacement. */
#ifndef EP_KERNELS_SKEW_POPULARITY_H
#define EP_KERNELS_SKEW_POPULARITY_H

#include "base/error.h"
#include "kernels/skew_policy.h"

#include <stdbool.h>
#include <stdint.h>

/** The least popularity above 0, as part of the highest: less is taken as this. */
#define EP_POPULARITY_LEAST 1e-290

/** The hooks of such a policy. _prepare makes router->state of `weights` [num_experts] >= 0, not
 *  all 0, in any unit; read only. Returns EP_EINVAL where fewer than top_k are above 0, EP_ENOMEM.
 */
EP_MUST_CHECK enum ep_status ep_popularity_prepare(struct ep_router *router, const double *weights);
void ep_popularity_release(struct ep_router *router);
void ep_popularity_generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                            int32_t *topk_idx);

/** The popularity by which the router draws, as a policy's fill_shares. */
EP_MUST_CHECK enum ep_status ep_popularity_copy_shares(const struct ep_router *router,
                                                       double *shares);

/** Does the skew draw by a popularity of its experts (uniform and counts too), the same for all
 *  sources, and use every slot? */
bool ep_popularity_is_of(const struct ep_skew *skew);

/** That popularity, sum 1, for draws of one expert: shares [num_experts] overwritten. The skew must be
 *  one that ep_popularity_is_of. Returns as the skew's prepare. */
EP_MUST_CHECK enum ep_status ep_popularity_fill_shares(const struct ep_skew *skew,
                                                       int64_t num_experts, uint64_t seed,
                                                       double *shares);

/** `weights` [num_experts]: (i + 1)^-s of the expert with popularity rank i, in an order that the
 *  seed draws. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_popularity_fill_zipf(const struct ep_router *router, double s,
                                                     double *weights);

/** The chance that a token chooses each expert, where it draws `top_k` of them one after another in
 *  proportion to what is left of `weights` (Plackett-Luce).
 *  weights     [num_experts] > 0
 *  chances     [num_experts] in [0, 1], sum top_k; overwritten
 *  Returns EP_ENOMEM. O(num_experts top_k) times some hundred. Error below 1e-6.
 *  Source: kernels/README.md, "Expected loads". */
EP_MUST_CHECK enum ep_status ep_popularity_chances(const double *weights, int64_t num_experts,
                                                   int64_t top_k, double *chances);

/** Gini coefficient of values [num] >= 0 with a sum above 0; `values` is sorted in place. */
double ep_popularity_gini(double *values, int64_t num);

#endif
