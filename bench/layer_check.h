/* SPDX-License-Identifier: Apache-2.0 */
/* A layer's results held against a plain computation in double. */
#ifndef EP_BENCH_LAYER_CHECK_H
#define EP_BENCH_LAYER_CHECK_H

#include "bench/layer.h"
#include "bench/pattern.h"

/** Clear the results, run the layer once more, and compare the rows of some of this rank's tokens, spread
 *  evenly, with sums in double from the rows and weights that the seed gives: no message, no buffer of the
 *  layer. An element may be off by what roundings to the row type and sums in fp32 explain (bench/README.md,
 *  "The layer"). Backward too: the gradients by those rows, and by the weights of one inner element of an
 *  expert of each rank, which counts as a row. check counts tokens: rows looked at, wrong; summed over ranks.
 *  Collective over the layer's ranks, the status is agreed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_layer_check(struct ep_layer *layer, struct ep_check *check);

/** The same of another way to run it: run(state), which fills the layer's results on all ranks. */
EP_MUST_CHECK enum ep_status ep_layer_check_run(struct ep_layer *layer,
                                                enum ep_status (*run)(void *state), void *state,
                                                struct ep_check *check);

#endif
