/* SPDX-License-Identifier: Apache-2.0 */
/* Routing by a router on drawn logits, rank by rank: a source of choices like any other. */
#ifndef EP_KERNELS_GATE_SOURCE_H
#define EP_KERNELS_GATE_SOURCE_H

#include "base/error.h"
#include "kernels/dropping.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stdint.h>

/** True where a skew can be drawn as logits: one popularity of experts, the same for all sources.
 *  Recorded and shaped choices (traces, hot ranks) have no logits, nor have +source and +masked. */
bool ep_gate_source_fits(const struct ep_skew *skew);

/** Top-k that a router has of itself ("switch": 1), 0 = any or an unknown router. */
int64_t ep_gate_source_top_k(const char *router);

/** What ep_gate_source_create refuses, whatever ranks and tokens there are. */
EP_MUST_CHECK enum ep_status ep_gate_source_check(const char *text, const struct ep_skew *skew,
                                                  int64_t num_experts, int64_t top_k);

struct ep_gate_source;

/** Route the tokens of `router` (its skew, shape, seed, placement and token map) anew: logits whose
 *  popularity is the skew's, by the router named `text` ("sigmoid-group:8:4", kernels/gate.h). Each
 *  rank's tokens are a batch. The router is borrowed and must outlive it.
 *  Returns EP_EINVAL for an unknown router, a shape that it does not have, a skew without logits.
 */
EP_MUST_CHECK enum ep_status ep_gate_source_create(const char *text, const struct ep_router *router,
                                                   struct ep_gate_source **source);
void ep_gate_source_destroy(struct ep_gate_source *source);

/** As an input of ep_dropping; shape.top_k is the router's, a routing may have more slots (expert
 *  choice). Its id stands for router and logits too. Borrows the source. */
struct ep_dropping_input ep_gate_source_input(const struct ep_gate_source *source);

/** What the router was asked for as, "sigmoid-group:8:4"; borrowed from the source. */
const char *ep_gate_source_name(const struct ep_gate_source *source);

/** 16 hex digits that stand for router, logits and tokens. Borrowed. */
const char *ep_gate_source_id(const struct ep_gate_source *source);

/** Slots per token of its routings, >= 1. */
int64_t ep_gate_source_num_slots(const struct ep_gate_source *source);

/** The tokens of one rank: allocates `routing`. Any rank in any order gives the same. Thread-safe.
 *  Returns EP_ENOMEM. O(tokens x experts). */
EP_MUST_CHECK enum ep_status ep_gate_source_generate(const struct ep_gate_source *source,
                                                     int64_t rank, bool with_weights,
                                                     struct ep_routing *routing);

#endif
