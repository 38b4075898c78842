/* SPDX-License-Identifier: Apache-2.0 */
/* How many ranks of an EP group a token goes to: used by plan_sample.c alone. */
#ifndef EP_KERNELS_PLAN_SPREAD_H
#define EP_KERNELS_PLAN_SPREAD_H

#include "base/error.h"

#include <stdint.h>

/** Of one degree of expert parallelism. Init with ep_plan_spread_init, free with _fini. */
struct ep_plan_spread {
    int64_t ep;
    int64_t tokens;       /* counted */
    int64_t rows;         /* distinct (token, rank) among them */
    int32_t *expert_rank; /* [experts] contiguous */
    int64_t *last_token;  /* [ep] the last one that went there, counted from 1 */
};

/** ep divides num_experts. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_plan_spread_init(int64_t ep, int64_t num_experts,
                                                 struct ep_plan_spread *spread);
void ep_plan_spread_fini(struct ep_plan_spread *spread);

/** Count more tokens: topk_idx [num_tokens][top_k], -1 = unused. */
void ep_plan_spread_add(struct ep_plan_spread *spread, const int32_t *topk_idx, int64_t num_tokens,
                        int64_t top_k);

#endif
