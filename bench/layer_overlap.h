/* SPDX-License-Identifier: Apache-2.0 */
/* A layer in chunks, whose exchanges run while experts compute: what of them is hidden, and what that costs. */
#ifndef EP_BENCH_LAYER_OVERLAP_H
#define EP_BENCH_LAYER_OVERLAP_H

#include "bench/layer.h"
#include "bench/pattern.h"
#include "results/record.h"

/** Measure the layer in `num_chunks` chunks beside the layer as a whole, for about `time_s`: in each
 *  repetition the whole, the chunks one after the other with nothing overlapped, and the chunks overlapped.
 *  Verify the last (every token of ep_layer_check), where check is not NULL.
 *  layer    built; its transport can leave exchanges running (struct ep_transport's start and finish); some rank
 *           has a token for each chunk
 *  result   medians over repetitions, see results/README.md ("overlap"); on rank 0
 *  Takes buffers from the session's arena and gives them back. Collective over the layer's ranks, the
 *  status is agreed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_layer_overlap_measure(struct ep_layer *layer, int num_chunks,
                                                      double time_s, struct ep_check *check,
                                                      struct ep_record_overlap *result);

#endif
