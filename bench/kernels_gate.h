/* SPDX-License-Identifier: Apache-2.0 */
/* Routers timed on cold logits, against one read of these logits. */
#ifndef EP_BENCH_KERNELS_GATE_H
#define EP_BENCH_KERNELS_GATE_H

#include "base/error.h"
#include "bench/session.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/** Most of the time to read its logits once that the sigmoid group-limited router may take. */
#define EP_KERNELS_GATE_ASKED 6.0

/** Time the routers of some models on 4,096 tokens, on all ranks at once, and print a row each on
 *  rank 0 to `out`; the first one by every instruction set of this CPU. In each repetition a rank
 *  reads the logits of one batch with its fastest loop, then routes another batch, rows in turn;
 *  batches lie in a ring of `cold_caches` last-level caches, so that both come from memory. Ratios
 *  are medians of ratios within a repetition. The first tokens are held against the plain function.
 *  json       array that one object per row is appended to; NULL = none
 *  num_short  rows above EP_KERNELS_GATE_ASKED where that is asked
 *  One record per row. Collective. Returns EP_ECHECK where a choice is wrong.
 *  Method: kernels/README.md, "Routers". */
EP_MUST_CHECK enum ep_status ep_kernels_gate_run(struct ep_session *session, int64_t cold_caches,
                                                 FILE *out, json_t *json, int64_t *num_short);

#endif
