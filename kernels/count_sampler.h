/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing a token's experts so that their load is that of given counts. */
#ifndef EP_KERNELS_COUNT_SAMPLER_H
#define EP_KERNELS_COUNT_SAMPLER_H

#include "base/error.h"
#include "base/random.h"

#include <stdint.h>

struct ep_count_sampler;

/** Prepare drawing top_k distinct experts per token such that expert e is among them with
 *  probability exactly top_k counts[e] / sum: the load is that of the counts. Of all ways to do
 *  that it is the one of greatest entropy (conditional Poisson sampling), so which experts come
 *  together, and with it fan-out, is as random as the load allows.
 *  counts  [num_experts] >= 0, finite; read only
 *  name    for messages
 *  Returns EP_EINVAL where an expert has more than 1 / top_k of the sum (a token has each expert at
 *  most once, so no top-k routing has such a load) or fewer than top_k experts have any; EP_ENOMEM.
 *  O(num_experts * top_k) a round of solving, some tens of rounds; memory of that many doubles.
 *  Source: Chen, Dempster, Liu, Biometrika 81(3), 1994, "Weighted finite population sampling to
 *  maximize entropy": weights by iteration, and drawing by the sums of products R. */
EP_MUST_CHECK enum ep_status ep_count_sampler_create(const double *counts, int64_t num_experts,
                                                     int64_t top_k, const char *name,
                                                     struct ep_count_sampler **sampler);
void ep_count_sampler_destroy(struct ep_count_sampler *sampler);

/** Draw one token: experts [top_k], distinct, in random order. Takes 2 * top_k - 1 draws at most.
 *  O(top_k log num_experts). Thread-safe for distinct streams. */
void ep_count_sampler_draw(const struct ep_count_sampler *sampler, struct ep_random *random,
                           int32_t *experts);

#endif
