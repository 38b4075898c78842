/* SPDX-License-Identifier: Apache-2.0 */
/* Token rows to expert-major order and back, with weights. */
#ifndef EP_KERNELS_PERMUTE_H
#define EP_KERNELS_PERMUTE_H

#include "base/error.h"
#include "kernels/dtype.h"

#include <stdint.h>

enum { EP_PERMUTE_MAX_TOP_K = 1024 };

/** Where each copy of a token goes. Init with ep_permute_init, free with ep_permute_fini. */
struct ep_permutation {
    int64_t num_tokens;
    int64_t top_k;
    int64_t num_experts;
    int64_t num_rows;      /* used slots */
    int64_t *expert_start; /* [num_experts + 1] rows of expert e: start[e] .. start[e + 1] - 1 */
    int64_t *row_token;    /* [num_rows] source token; ascending (token, slot) within an expert */
    int64_t *slot_row;     /* [num_tokens][top_k] row of each copy; -1 = unused slot */
};

/** Stable counting sort by expert of topk_idx [num_tokens][top_k] (-1 = unused; read only).
 *  Returns EP_EINVAL if an index is < -1 or >= num_experts, or top_k > EP_PERMUTE_MAX_TOP_K. O(num_tokens top_k + num_experts).
 *  Traffic: reads the indices twice (2 x 4 B a slot), writes 8 B a slot and 8 B a row. */
EP_MUST_CHECK enum ep_status ep_permute_init(const int32_t *topk_idx, int64_t num_tokens,
                                             int64_t top_k, int64_t num_experts,
                                             struct ep_permutation *permutation);
void ep_permute_fini(struct ep_permutation *permutation);

/** Copy token rows to expert-major order: permuted row i is row row_token[i] of tokens.
 *  tokens    [num_tokens][row_bytes] read only
 *  permuted  [num_rows][row_bytes] overwritten; must not overlap tokens
 *  Traffic: ep_permute_traffic_bytes. */
void ep_permute_rows(const struct ep_permutation *permutation, const void *tokens,
                     int64_t row_bytes, void *permuted);

/** Sum each token's rows back, weighted, accumulated in fp32 in slot order; tokens with no used
 * slot become zero. permuted     [num_rows][hidden] of dtype (EP_FP32 or EP_BF16; others are
 * refused) topk_weight  [num_tokens][top_k] fp32; NULL = all 1 tokens       [num_tokens][hidden] of
 * the same dtype, overwritten Traffic: ep_permute_traffic_bytes. */
EP_MUST_CHECK enum ep_status ep_permute_sum_rows(const struct ep_permutation *permutation,
                                                 const void *permuted, enum ep_dtype dtype,
                                                 int64_t hidden, const float *topk_weight,
                                                 void *tokens);

/** Bytes of rows that must move: permute reads and writes num_rows rows (a token read again from
 * cache is still counted); summing reads num_rows rows and writes num_tokens. Ids and weights left
 * out. */
void ep_permute_traffic_bytes(const struct ep_permutation *permutation, int64_t row_bytes,
                              int64_t *permute_bytes, int64_t *sum_bytes);

#endif
