/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes between which bandwidths change: how many, and which. */
#ifndef EP_RESULTS_FIT_ANCHORS_H
#define EP_RESULTS_FIT_ANCHORS_H

#include "results/fit.h"

/** Choose anchors and num_anchors of a group, by rung M2. Candidates are the sizes of its cases
 *  (H_rank, half powers of two); of each number of anchors those that fit best in sample are taken,
 *  one being added at a time to the outermost two; and of these the fewest whose held-out score is
 *  within one standard error of the best, or of at most 1.25 times its error, provided that there are twice as many sizes as anchors.
 *  Without folds, or with bytes in fewer than 4 sizes, 1. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_choose_anchors(struct ep_fit_group *g);

#endif
