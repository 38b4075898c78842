/* SPDX-License-Identifier: Apache-2.0 */
/* Counting destinations of many tokens at once, up to 64 ranks: used by traffic.c alone. */
#ifndef EP_KERNELS_TRAFFIC_BLOCKS_H
#define EP_KERNELS_TRAFFIC_BLOCKS_H

#include "base/error.h"

#include <stdint.h>

/** Tokens are counted in groups of 64, at most EP_TRAFFIC_BLOCK at a time, so that 32 bits hold. */
enum { EP_TRAFFIC_GROUP = 64, EP_TRAFFIC_BLOCK = 1 << 14, EP_TRAFFIC_LANES = 4 };

/** Where the copies of one expert go. */
struct ep_traffic_masks {
    uint64_t rank; /* 1 << rank */
    uint64_t node; /* 1 << node */
};

/** All counts are added to. */
struct ep_traffic_counts {
    uint32_t *hits;        /* [EP_TRAFFIC_LANES][num_entries] copies by expert + 1, over lanes */
    int64_t num_entries;   /* experts + 1 */
    int64_t *rank_rows;    /* [64] tokens that go to each rank */
    int64_t *node_rows;    /* [64] */
    int64_t *rank_fan_out; /* [65] tokens by number of ranks */
    int64_t *node_fan_out; /* [65] */
};

/** Add a block of tokens.
 *  topk_idx    [num_tokens][top_k] experts or -1, checked; num_tokens a multiple of
 * EP_TRAFFIC_GROUP, at most EP_TRAFFIC_BLOCK masks       [num_entries] by expert + 1; all 0 for -1
 *  Tokens of a bit position are summed by carry-save adders over 64-byte words, 4 tokens to a word:
 *  about ten operations a token in place of one per destination. Instruction set chosen at run
 * time. Source: Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions", arXiv
 * 1611.07612, section 4 (Harley-Seal), positions kept apart. */
void ep_traffic_count_block(const int32_t *topk_idx, int64_t num_tokens, int64_t top_k,
                            const struct ep_traffic_masks *masks,
                            const struct ep_traffic_counts *counts);

#endif
