/* SPDX-License-Identifier: Apache-2.0 */
/* Placements that follow the load: re-placed every n windows, if it is worth the weights moved. */
#ifndef EP_KERNELS_PLACE_DYNAMIC_H
#define EP_KERNELS_PLACE_DYNAMIC_H

#include "base/error.h"
#include "kernels/place.h"

#include <stdint.h>

struct ep_place_dynamic_options {
    const struct ep_place_policy *policy; /* that makes each new map */
    int64_t window_tokens;                /* >= 1 */
    int64_t every;                        /* windows between two looks, and what is looked at */
    double hysteresis; /* the busiest rank must get this much less to do, 0.05 = 5 % */
};

/** What happened. Init by ep_place_follow, free with ep_place_dynamic_fini. */
struct ep_place_dynamic {
    int64_t num_windows;
    int32_t *maps;         /* [num_windows][num_slots] in force in each window */
    int64_t num_looks;     /* times that a new map was made */
    int64_t num_replaced;  /* times that it was taken */
    int64_t experts_moved; /* weights of an expert sent to a rank that did not hold it */
};

/** Walk over tokens in windows. The map of a window is chosen from windows before it alone: after
 * every `every` windows the policy is run on the loads (and tokens) of those, its nodes and ranks
 * are renumbered so that little moves, and it is taken if its busiest rank would have had at least
 *  `hysteresis` less to do than the busiest of the map in force.
 *  task    shape, slack and seed; load and tokens are not read
 *  tokens  experts within the shape
 *  start   [num_slots] in force from the first window on */
EP_MUST_CHECK enum ep_status ep_place_follow(const struct ep_place_task *task,
                                             const struct ep_place_tokens *tokens,
                                             const int32_t *start,
                                             const struct ep_place_dynamic_options *options,
                                             struct ep_place_dynamic *dynamic);
void ep_place_dynamic_fini(struct ep_place_dynamic *dynamic);

/** Renumber nodes, ranks of a node and slots of a rank of `map`, in place, so that it is like
 * `old`: pairs with most experts in common first. Never worse than leaving it as it is. [num_slots]
 * both. */
EP_MUST_CHECK enum ep_status ep_place_match(const struct ep_place_shape *shape, const int32_t *old,
                                            int32_t *map);

/** Experts that ranks hold under `map` and did not under `old`, each once per rank. */
int64_t ep_place_count_moved(const struct ep_place_shape *shape, const int32_t *old,
                             const int32_t *map);

#endif
