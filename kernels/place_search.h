/* SPDX-License-Identifier: Apache-2.0 */
/* Local search over maps of slots: swaps that spare tokens ranks and nodes, or even out loads. */
#ifndef EP_KERNELS_PLACE_SEARCH_H
#define EP_KERNELS_PLACE_SEARCH_H

#include "kernels/place.h"

/** What swaps are to bring down, and what they must keep. */
struct ep_place_goal {
    double rank_cost;  /* of one (token, rank) pair, >= 0 */
    double node_cost;  /* of one (token, node) pair, >= 0 */
    double rank_bound; /* most load of a rank */
    bool within_nodes; /* slots stay on their node */
};

/** Swap slots of different ranks so that task->tokens reach fewer ranks and nodes, at no more load
 *  than the bounds: simulated annealing with a penalty for load above them, then descent. Of all
 * maps seen within the bounds the cheapest is kept; no swap puts an expert on a rank twice. map
 * [num_slots] within the bound; replaced by one that costs no more Tokens beyond what is needed
 * are left out evenly (kernels/README.md, "Placement"). Replicas of an expert take turns over
 * tokens. Returns EP_ENOMEM. Deterministic: the task's seed. */
EP_MUST_CHECK enum ep_status ep_place_search(const struct ep_place_task *task,
                                             const struct ep_place_goal *goal, int32_t *map);

/** Swap slots so that the busiest rank has less to do, as long as any single swap helps; the order
 * of rank loads, largest first, falls with each. goal: within_nodes alone is read.
 */
EP_MUST_CHECK enum ep_status ep_place_balance(const struct ep_place_task *task,
                                              const struct ep_place_goal *goal, int32_t *map);

/** Distinct ranks and nodes of all tokens, summed; replicas taken in turns as the search does. */
struct ep_place_fan_out {
    int64_t ranks;
    int64_t nodes;
};
EP_MUST_CHECK enum ep_status ep_place_count_fan_out(const struct ep_place_task *task,
                                                    const int32_t *map,
                                                    struct ep_place_fan_out *fan_out);

#endif
