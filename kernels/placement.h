/* SPDX-License-Identifier: Apache-2.0 */
/* Which rank holds which expert: experts have one replica or more, each in a slot of one rank. */
#ifndef EP_KERNELS_PLACEMENT_H
#define EP_KERNELS_PLACEMENT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { EP_MAX_EXPERTS = 1 << 16, EP_MAX_RANKS = 1 << 20 };

/** A slot is one replica of an expert on one rank; slots are numbered by expert, then replica.
 *  Init with one of ep_placement_init_*; free with ep_placement_fini. Read only afterwards. */
struct ep_placement {
    int64_t num_experts;   /* 1 to EP_MAX_EXPERTS */
    int64_t num_ranks;     /* 1 to EP_MAX_RANKS */
    int64_t num_slots;     /* >= num_experts */
    int64_t max_local;     /* most experts on one rank, >= 1 */
    bool replicated;       /* some expert has more than one replica */
    int32_t *slot_start;   /* [num_experts + 1]: slots of expert e are slot_start[e] .. [e+1]-1 */
    int32_t *slot_rank;    /* [num_slots] the rank a slot is on */
    int32_t *slot_local;   /* [num_slots] index of the slot's expert among its rank's experts */
    int32_t *local_start;  /* [num_ranks + 1]: experts of rank r start at local_expert[start[r]] */
    int32_t *local_expert; /* [num_slots] ascending within each rank */
};

/** Contiguous: rank r holds experts [floor(r E/P), floor((r+1) E/P)). Where P > E, P must be a
 *  multiple of E; rank r then hosts expert floor(r E/P) and source s sends to replica s mod (P/E).
 *  `placement` is overwritten. Returns EP_EINVAL for counts out of range or P no multiple of E > P.
 *  Source: kernels/README.md, "Experts on ranks". */
EP_MUST_CHECK enum ep_status ep_placement_init_contiguous(int64_t num_experts, int64_t num_ranks,
                                                          struct ep_placement *placement);

/** One replica each: expert_rank [num_experts], each in [0, num_ranks); ranks may hold none. */
EP_MUST_CHECK enum ep_status ep_placement_init_list(const int32_t *expert_rank, int64_t num_experts,
                                                    int64_t num_ranks,
                                                    struct ep_placement *placement);

/** General: slot i is a replica of slot_expert[i] on slot_rank[i]. Every expert needs a replica;
 *  two replicas of an expert on one rank are refused. Replicas keep the order given. */
EP_MUST_CHECK enum ep_status ep_placement_init_slots(const int32_t *slot_expert,
                                                     const int32_t *slot_rank, int64_t num_slots,
                                                     int64_t num_experts, int64_t num_ranks,
                                                     struct ep_placement *placement);

/** From a text "0,0,1,1": the rank of each expert in turn. num_ranks 0 = the highest rank named
 * + 1. `what` names the option in messages. */
EP_MUST_CHECK enum ep_status ep_placement_parse(const char *text, const char *what,
                                                int64_t num_ranks, struct ep_placement *placement);

/** Contiguous over some ranks: the i-th of `holders` [num_holders], ascending, is what rank i of
 *  num_holders is in ep_placement_init_contiguous; all others hold none. */
EP_MUST_CHECK enum ep_status ep_placement_init_subset(int64_t num_experts, int64_t num_ranks,
                                                      const int32_t *holders, int64_t num_holders,
                                                      struct ep_placement *placement);

/** Ranks from a text "0-3,8", each below num_ranks, ascending, none twice: *ranks is the caller's
 * to free. `what` names the option in messages. */
EP_MUST_CHECK enum ep_status ep_placement_parse_ranks(const char *text, const char *what,
                                                      int64_t num_ranks, int32_t **ranks,
                                                      int64_t *num);
void ep_placement_fini(struct ep_placement *placement);

/** The slot that rank `source` sends to for `expert`: replica number source mod replicas. O(1). */
static inline int64_t ep_placement_slot(const struct ep_placement *placement, int64_t expert,
                                        int64_t source)
{
    const int32_t *start = placement->slot_start + expert;
    const int32_t replicas = start[1] - start[0];
    return start[0] + (replicas == 1 ? 0 : source % replicas);
}

/** The rank that `source` sends its tokens for `expert` to. O(1). */
static inline int32_t ep_placement_rank(const struct ep_placement *placement, int64_t expert,
                                        int64_t source)
{
    return placement->slot_rank[ep_placement_slot(placement, expert, source)];
}

/** Index of `expert` among the experts of the rank that `source` sends to. O(1). */
static inline int32_t ep_placement_local_idx(const struct ep_placement *placement, int64_t expert,
                                             int64_t source)
{
    return placement->slot_local[ep_placement_slot(placement, expert, source)];
}

/** Experts of a rank, ascending: *experts is borrowed. Returns how many (>= 0). */
static inline int64_t ep_placement_local_experts(const struct ep_placement *placement, int64_t rank,
                                                 const int32_t **experts)
{
    *experts = placement->local_expert + placement->local_start[rank];
    return placement->local_start[rank + 1] - placement->local_start[rank];
}

/** Index of `expert` among those of `rank`, or -1 if it is not there. O(log experts of rank). */
int64_t ep_placement_find_local(const struct ep_placement *placement, int64_t expert, int64_t rank);

#endif
