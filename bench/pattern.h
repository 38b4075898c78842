/* SPDX-License-Identifier: Apache-2.0 */
/* Payload that says where it comes from, and the check that every row arrived once and whole. */
#ifndef EP_BENCH_PATTERN_H
#define EP_BENCH_PATTERN_H

#include "bench/transport.h"
#include "kernels/dropping.h"
#include "kernels/token_map.h"

#include <stdint.h>

/** Rows that had to be there, and what was found instead, of one rank. */
struct ep_check {
    int64_t rows;    /* expected */
    int64_t wrong;   /* contents of no expected row of that expert, or in another's place */
    int64_t missing; /* expected, not found */
    int64_t doubled; /* found more often than expected */
};

/** Fill token rows: row t of global token first_token + t; every byte depends on (token, position).
 *  rows  [num_tokens][row_bytes], overwritten */
void ep_pattern_fill_tokens(int64_t first_token, int64_t num_tokens, int64_t row_bytes,
                            char *rows);

/** Global tokens of the rows a rank must hold after dispatch, in the order they must have: by local
 *  expert, then source rank, then token. Made from every source's routing as sent, without a message.
 *  tokens  new array [*num_rows], to be freed; NULL where there are none
 *  start   new array [local experts + 1], to be freed: first row of each local expert */
EP_MUST_CHECK enum ep_status ep_pattern_expect_rows(const struct ep_dropping *dropping,
                                                    const struct ep_placement *placement,
                                                    const struct ep_token_map *map, int64_t rank,
                                                    int64_t **tokens, int64_t **start, int64_t *num_rows);

/** Compare every byte of dispatched rows with what is expected. */
EP_MUST_CHECK enum ep_status ep_pattern_check_rows(const struct ep_expert_rows *found,
                                                   int64_t row_bytes, const int64_t *tokens,
                                                   const int64_t *start, struct ep_check *check);

/** Write the experts' results for combine: element h of the row of (token, expert) is a multiple of
 *  1/128 in [-1, 1], exact in fp32 and bf16.
 *  experts  [rows->num_experts] global indices of the local experts */
void ep_pattern_fill_outputs(const struct ep_expert_rows *rows, const int64_t *tokens,
                             const int32_t *experts, enum ep_dtype dtype, int64_t hidden);

/** Compare combined rows with the weighted sums, in double. With r roundings to the row type on the way
 *  (1: the total; 2: partial sums too), an element may be off by (r u + (k + 1) 2^-23) sum |w v|:
 *  u = 2^-8 (bf16) or 2^-24 (fp32) for each rounding, and fp32 sums of k products. wrong counts rows.
 *  Source: Higham, Accuracy and Stability of Numerical Algorithms, section 4.2. */
void ep_pattern_check_results(const struct ep_routing *routing, int64_t first_token,
                              enum ep_dtype dtype, int64_t hidden, int roundings,
                              const char *results, struct ep_check *check);

#endif
