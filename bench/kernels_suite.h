/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels stage of `epbench run`: peaks and streams, then expert GEMMs compared. */
#ifndef EP_BENCH_KERNELS_SUITE_H
#define EP_BENCH_KERNELS_SUITE_H

#include "base/error.h"
#include "bench/session.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Measure and record arithmetic peaks and memory streams on one rank and on all at once, then the GEMM
 *  comparison, and print both on rank 0 to `out`.
 *  is_quick  one small expert (qwen3-30b-a3b) at 1, 16 and 128 tokens; else the whole grid of
 *            ep_kernels_grid_default for mixtral-8x7b and deepseek-v3
 *  budget_s  of the whole stage; what would begin later is skipped and listed in the run
 *  num_short rows whose default back end is below what is asked; a printed finding, not a failure
 *  Returns EP_ECHECK where a product is wrong. Collective. */
EP_MUST_CHECK enum ep_status ep_kernels_suite_run(struct ep_session *session, bool is_quick,
                                                  double budget_s, FILE *out, int64_t *num_short);

#endif
