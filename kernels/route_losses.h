/* SPDX-License-Identifier: Apache-2.0 */
/* Balancing losses of a routing on logits, as its ranks would compute them. */
#ifndef EP_KERNELS_ROUTE_LOSSES_H
#define EP_KERNELS_ROUTE_LOSSES_H

#include "base/error.h"
#include "kernels/dropping.h"
#include "kernels/losses.h"

#include <stdbool.h>

/** Rows of ep_losses, at most. */
enum { EP_ROUTE_MAX_LOSSES = 24 };

/** Means over the source ranks that have tokens; a rank's tokens are its batch and one sequence. */
struct ep_route_losses {
    double values[EP_ROUTE_MAX_LOSSES]; /* in the order of ep_losses, weight 1; NaN = does not
                                         * apply: needs a gate's noise, or another top-k */
    double z_loss;                      /* weight 1 */
};

/** Evaluate every loss on what all sources chose (before any capacity).
 *  input       sources; first_token of a source is its first row of the logits
 *  logits      [tokens of all sources][experts], no NaN
 *  is_sigmoid  scores are sigmoids, whose shares of their sum are the probabilities; else softmax
 *  megatron-global counts copies over all ranks, fastmoe-gshard divides by them.
 *  Returns EP_ENOMEM, and what fetch returns. Every source is fetched twice.
 *  O(losses x tokens x experts). */
EP_MUST_CHECK enum ep_status ep_route_losses_measure(const struct ep_dropping_input *input,
                                                     const float *logits, bool is_sigmoid,
                                                     struct ep_route_losses *losses);

#endif
