/* SPDX-License-Identifier: Apache-2.0 */
/* The plain functions: the shortest true statement of routing cost and of dispatch, the oracles of
 * everything else. */
#ifndef EP_KERNELS_PLAIN_H
#define EP_KERNELS_PLAIN_H

#include "base/error.h"

#include <stdint.h>

struct ep_plain_cost {
    int64_t local_tokens;       /* (token, expert) pairs whose expert is on the token's own rank */
    int64_t remote_tokens;      /* all other pairs */
    int64_t total_remote_bytes; /* remote_tokens * token_hidden_bytes */
    double comm_time_ms; /* total_remote_bytes / (bandwidth_gbps * 1e9 / 8) * 1000, to 4 places */
};

/** The plain routing cost: every remote (token, expert) pair is one row over one link.
 *  token_assignments  [num_tokens][top_k] expert in [0, num_experts), -1 = unused; read only
 *  expert_to_gpu      [num_experts] rank of each expert
 *  token_to_gpu       [num_tokens] rank of each token
 *  bandwidth_gbps     gigabits per second, > 0
 *  Returns EP_EINVAL for an index out of range, a bandwidth <= 0 or bytes beyond 2^63 - 1; `cost`
 * is then untouched. O(num_tokens * top_k) time, O(1) space. Source: kernels/README.md, "Plain
 * cost". */
EP_MUST_CHECK enum ep_status ep_plain_routing_cost(
    const int32_t *token_assignments, int64_t num_tokens, int64_t top_k,
    const int32_t *expert_to_gpu, int64_t num_experts, const int32_t *token_to_gpu,
    int64_t token_hidden_bytes, double bandwidth_gbps, struct ep_plain_cost *cost);

/** The time part of the plain cost: total_remote_bytes / (bandwidth_gbps * 1e9 / 8) * 1000 ms,
 * rounded to 4 places (ties to even); NaN where the bandwidth is NaN. */
double ep_plain_comm_time_ms(int64_t total_remote_bytes, double bandwidth_gbps);

/** The choice of experts that ep_plain_dispatch follows. */
struct ep_plain_routing {
    int64_t num_tokens;
    int64_t top_k;
    int64_t num_experts;      /* over all ranks, a multiple of world_size */
    const int32_t *topk_idx;  /* [num_tokens][top_k] expert, -1 = unused */
    const float *topk_weight; /* [num_tokens][top_k]; NULL = all 1 */
};

/** What one rank of an expert-parallel layer computes, tokens known to all: the sum of the outputs
 * over ranks is the whole layer. tokens     [num_tokens][hidden] fp32, read only expert_Ws
 * [num_experts / world_size][hidden][out_dim] fp32: this rank's own matrices only, experts [rank
 * E/P, (rank + 1) E/P) output     [num_tokens][out_dim], overwritten: zero but for tokens routed
 * here, which get the weighted sum over this rank's chosen experts of row times matrix (in double)
 *  Returns EP_EINVAL where num_experts is no multiple of world_size, rank is outside, or an index
 * is out of range (output then undefined). O(1) space. Source: kernels/README.md, "Plain dispatch".
 */
EP_MUST_CHECK enum ep_status ep_plain_dispatch(const float *tokens, int64_t hidden,
                                               const struct ep_plain_routing *routing,
                                               const float *expert_Ws, int64_t out_dim,
                                               int64_t rank, int64_t world_size, float *output);

#endif
