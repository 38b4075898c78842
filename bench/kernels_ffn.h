/* SPDX-License-Identifier: Apache-2.0 */
/* The grouped expert FFN against its GEMMs called one by one, and against reading its weights. */
#ifndef EP_BENCH_KERNELS_FFN_H
#define EP_BENCH_KERNELS_FFN_H

#include "base/error.h"
#include "bench/kernels_table.h"
#include "bench/session.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/** Asked of the grouped FFN: its time over that of the GEMMs one by one is not above 1 (its 95 % interval
 *  holds 1 or lies below); and up to EP_KERNELS_FFN_FEW rows per expert, EP_KERNELS_FFN_ASKED of the bound:
 *  summed over experts, the longer of weight bytes / read bandwidth and flops / peak. */
#define EP_KERNELS_FFN_ASKED 0.75
enum { EP_KERNELS_FFN_FEW = 8 };

/** Measure a grid on all ranks at once and print it row by row on rank 0 to `out`. For each shape, dtype,
 *  back end and number of rows per expert (the grid's tokens) there are two loads of equal total:
 *  `equal`, and `skewed`: half of the rows to expert 0, none to every fourth, the rest evenly. Local
 *  experts: as many as pass the caches (cold_caches), at least 4. In each repetition every rank measures,
 *  one after the other and starting together: the peak, the read bandwidth, the grouped call
 *  (ep_ffn_run), and per expert a GEMM, the activation, a GEMM, as calls of their own; the order of the
 *  last two alternates. A sample is the slowest rank's; shares are medians of ratios within a
 *  repetition. Results of both are checked. One record per row and form.
 *  json       array that one object per row is appended to; NULL = none
 *  num_short  rows short of what is asked
 *  Collective. Returns EP_ECHECK where a result is wrong. */
EP_MUST_CHECK enum ep_status ep_kernels_ffn_run(struct ep_session *session,
                                                const struct ep_kernels_grid *grid, FILE *out,
                                                json_t *json, int64_t *num_short);

#endif
