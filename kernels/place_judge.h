/* SPDX-License-Identifier: Apache-2.0 */
/* What a placement does to tokens: loads, rows in the three bases, and how sure a difference is. */
#ifndef EP_KERNELS_PLACE_JUDGE_H
#define EP_KERNELS_PLACE_JUDGE_H

#include "base/error.h"
#include "kernels/features.h"
#include "kernels/place.h"
#include "kernels/traffic.h"

#include <stdint.h>

/** Maps in turn over tokens: window w = tokens w window_tokens .., the last as long as there are
 * any. One map and a window of all tokens is a placement that stands still. Borrowed. */
struct ep_place_schedule {
    const int32_t *maps;   /* [num_windows][num_slots] */
    int64_t num_windows;   /* >= 1 */
    int64_t window_tokens; /* >= 1 */
};

/** Matrices that are counted: three bases, and node-dedup's second stage. */
enum { EP_PLACE_FAN_OUT = EP_NUM_BASES, EP_PLACE_NUM_MATRICES };

/** Counts over some tokens. Made by ep_place_judge, freed with ep_place_judgement_fini. Rows in all
 * but features, which are bytes. */
struct ep_place_judgement {
    struct ep_place_shape shape;
    int64_t num_tokens;
    double *rank_load; /* [num_ranks] copies, an expert's split evenly over its replicas */
    double *node_load; /* [num_nodes] */
    int64_t *received; /* [num_ranks] copies, source s sending to replica s mod replicas */
    struct ep_traffic_totals rows[EP_PLACE_NUM_MATRICES];
    int64_t cross_node_rows[EP_NUM_BASES];     /* rows whose source is on another node */
    struct ep_features features[EP_NUM_BASES]; /* of bytes between ranks, one phase: no levels */
    int64_t num_blocks;
    double *block_load;         /* [num_blocks][num_ranks] as rank_load */
    int64_t *block_remote_rows; /* [num_blocks] rank-dedup, to other ranks */
    int64_t *block_cross_rows;  /* [num_blocks] node-dedup, to other nodes */
};

/** Count tokens under a schedule of maps. Tokens start from ranks in near-equal blocks: rank r has
 *  [floor(r T/P), floor((r + 1) T/P)), as `epbench route --assignments` has them.
 *  num_blocks  1 to tokens: near-equal blocks of consecutive tokens that block_* are kept for
 *  Returns EP_EINVAL where an expert is out of range or bytes exceed 2^62; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_place_judge(const struct ep_place_shape *shape,
                                            const struct ep_place_tokens *tokens,
                                            const struct ep_place_schedule *schedule,
                                            int64_t row_bytes, int64_t num_blocks,
                                            struct ep_place_judgement *judgement);
void ep_place_judgement_fini(struct ep_place_judgement *judgement);

/** Load of the busiest rank of each block, summed, over the mean load summed: how uneven ranks are
 * where they wait for each other after every block, and not once in all. NaN without load. */
double ep_place_block_max_over_mean(const struct ep_place_judgement *judgement);

/** A value with a 95 % interval; low and high are NaN where there is none. */
struct ep_place_interval {
    double value;
    double low;
    double high;
};

/** One placement against another on the same tokens. */
struct ep_place_difference {
    struct ep_place_interval max_over_mean; /* of rank loads: this less the other */
    struct ep_place_interval remote_rows;   /* rank-dedup: this over the other, less 1 */
    struct ep_place_interval cross_rows;    /* node-dedup: the same; NaN on one node */
};

/** Blocks below which no interval is given. */
enum { EP_PLACE_MIN_BLOCKS = 10 };

/** Paired bootstrap: `num_draws` times as many blocks as there are are drawn with replacement, the
 * same for both, and each measure is taken anew; the interval is the `tail` and 1 - `tail`
 * quantiles (type 7). Draw d depends on (seed, d) alone. a and b must be of the same tokens and
 * blocks. Source: Davison and Hinkley, Bootstrap Methods and their Application, section 8.2
 * (blocks). */
EP_MUST_CHECK enum ep_status ep_place_compare(const struct ep_place_judgement *a,
                                              const struct ep_place_judgement *b, int num_draws,
                                              double tail, uint64_t seed,
                                              struct ep_place_difference *difference);

#endif
