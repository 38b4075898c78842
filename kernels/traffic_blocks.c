/* SPDX-License-Identifier: Apache-2.0 */
/* Bit-sliced counting of destinations. */
#include "kernels/traffic_blocks.h"

#include "base/isa.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Rank and node masks of four tokens. */
typedef uint64_t word __attribute__((vector_size(64)));
enum { WORD_TOKENS = 4, GROUP_WORDS = EP_TRAFFIC_GROUP / WORD_TOKENS, PLANES = 14 };

/* Plane p holds bit p of the count of each of the 512 positions; a block has 2^12 words. */
struct planes {
    word plane[PLANES];
};

/* a + b + c = 2 high + low, position by position; low may be a. */
INLINE void add_three(word *high, word *low, const word *a, const word *b, const word *c)
{
    const word half = *a ^ *b;
    *high = (*a & *b) | (half & *c);
    *low = half ^ *c;
}

INLINE void add_group(struct planes *p, const word *w)
{
    word twos[2];
    word fours[2];
    word eights[2];
    word sixteens;
    for (int e = 0; e < 2; e++) {
        for (int f = 0; f < 2; f++) {
            for (int t = 0; t < 2; t++, w += 2) {
                add_three(&twos[t], &p->plane[0], &p->plane[0], &w[0], &w[1]);
            }
            add_three(&fours[f], &p->plane[1], &p->plane[1], &twos[0], &twos[1]);
        }
        add_three(&eights[e], &p->plane[2], &p->plane[2], &fours[0], &fours[1]);
    }
    add_three(&sixteens, &p->plane[3], &p->plane[3], &eights[0], &eights[1]);
    for (int i = 4; i < PLANES; i++) {
        const word carry = p->plane[i] & sixteens;
        p->plane[i] ^= sixteens;
        sixteens = carry;
    }
}

INLINE void flush_planes(const struct planes *p, const struct ep_traffic_counts *counts)
{
    for (int i = 0; i < PLANES; i++) {
        uint64_t lanes[2 * WORD_TOKENS];
        memcpy(lanes, &p->plane[i], sizeof lanes);
        for (int l = 0; l < 2 * WORD_TOKENS; l++) {
            int64_t *rows = l % 2 == 0 ? counts->rank_rows : counts->node_rows;
            for (uint64_t left = lanes[l]; left != 0; left &= left - 1) {
                rows[__builtin_ctzll(left)] += (int64_t)1 << i;
            }
        }
    }
}

/* Masks of one group of tokens, and the hits of their experts; neighbouring slots count in
 * different lanes, so that one expert in a row of tokens does not wait for its own last count. */
INLINE void read_group(const int32_t *topk_idx, int64_t top_k, const struct ep_traffic_masks *masks,
                       uint32_t *hits, int64_t num_entries, struct ep_traffic_masks *group)
{
    for (int64_t t = 0; t < EP_TRAFFIC_GROUP; t++) {
        uint64_t rank = 0;
        uint64_t node = 0;
        for (int64_t j = 0; j < top_k; j++) {
            const int64_t e = topk_idx[t * top_k + j] + 1;
            rank |= masks[e].rank;
            node |= masks[e].node;
            hits[j % EP_TRAFFIC_LANES * num_entries + e]++;
        }
        group[t] = (struct ep_traffic_masks){rank, node};
    }
}

INLINE void count_fan_out(const struct ep_traffic_masks *group, uint32_t fan_out[2][2][65])
{
    for (int64_t t = 0; t < EP_TRAFFIC_GROUP; t++) {
        fan_out[0][t % 2][__builtin_popcountll(group[t].rank)]++;
        fan_out[1][t % 2][__builtin_popcountll(group[t].node)]++;
    }
}

INLINE void count_tokens(const int32_t *topk_idx, int64_t num_tokens, int64_t top_k,
                         const struct ep_traffic_masks *masks,
                         const struct ep_traffic_counts *counts)
{
    struct planes planes = {0};
    uint32_t fan_out[2][2][65] = {0};
    for (int64_t first = 0; first < num_tokens; first += EP_TRAFFIC_GROUP) {
        _Alignas(64) struct ep_traffic_masks group[EP_TRAFFIC_GROUP];
        word words[GROUP_WORDS];
        read_group(topk_idx + first * top_k, top_k, masks, counts->hits, counts->num_entries,
                   group);
        memcpy(words, group, sizeof words);
        add_group(&planes, words);
        count_fan_out(group, fan_out);
    }
    flush_planes(&planes, counts);
    for (int i = 0; i < 65; i++) {
        counts->rank_fan_out[i] += fan_out[0][0][i] + (int64_t)fan_out[0][1][i];
        counts->node_fan_out[i] += fan_out[1][0][i] + (int64_t)fan_out[1][1][i];
    }
}

/* The usual top-k as constants, so that the loop over slots is unrolled. */
EP_BEST_ISA void ep_traffic_count_block(const int32_t *topk_idx, int64_t num_tokens, int64_t top_k,
                                     const struct ep_traffic_masks *masks,
                                     const struct ep_traffic_counts *counts)
{
    EP_ASSERT(num_tokens % EP_TRAFFIC_GROUP == 0 && num_tokens <= EP_TRAFFIC_BLOCK);
    switch (top_k) {
    case 2:
        count_tokens(topk_idx, num_tokens, 2, masks, counts);
        break;
    case 4:
        count_tokens(topk_idx, num_tokens, 4, masks, counts);
        break;
    case 6:
        count_tokens(topk_idx, num_tokens, 6, masks, counts);
        break;
    case 8:
        count_tokens(topk_idx, num_tokens, 8, masks, counts);
        break;
    default:
        count_tokens(topk_idx, num_tokens, top_k, masks, counts);
        break;
    }
}
