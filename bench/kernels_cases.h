/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmarks of `epbench kernels`: what each prepares, times and records. */
#ifndef EP_BENCH_KERNELS_CASES_H
#define EP_BENCH_KERNELS_CASES_H

#include "base/error.h"
#include "bench/gbench_shim.h"
#include "bench/kernels_table.h"
#include "bench/session.h"

#include <stdbool.h>
#include <stdint.h>

struct ep_kernels_cases;
struct ep_kernels_case;

/** Make all cases of the grid, and peaks and memory streams, on one rank and on all ranks at once:
 *    gemm/BACKEND/DTYPE/MODEL/w13|w2/tokens:M/ranks:R
 *    ffn/BACKEND/DTYPE/MODEL/experts:G/tokens:M/ranks:R
 *    permute|unpermute/DTYPE/MODEL/tokens:M/ranks:R
 *    route/generate|count/SKEW/ranks:R
 *    peak/LOOP/ranks:R, membw/LOOP/SIZE/ranks:R, copy/LOOP/SIZE/ranks:R
 *  and register them. Nothing is allocated until a case runs. The grid is borrowed until destroy.
 *  Back ends that are not available are left out with a warning. Without shapes there are only peaks and
 *  streams. bench NULL: nothing is registered, see ep_kernels_cases_measure. Collective. */
EP_MUST_CHECK enum ep_status ep_kernels_cases_create(struct ep_session *session,
                                                     const struct ep_kernels_grid *grid,
                                                     struct ep_gbench *bench,
                                                     struct ep_kernels_cases **cases);
/** Run all cases without Google Benchmark, `repetitions` (1 .. EP_KERNELS_MAX_SAMPLES) samples each:
 *  the same work, samples and records. What a resumed run has is not measured again; after a signal no
 *  other case begins. Collective. */
EP_MUST_CHECK enum ep_status ep_kernels_cases_measure(struct ep_kernels_cases *cases,
                                                      int64_t repetitions);

/** Did a signal stop them? Then what is left did not begin, and ep_gbench_run() returned EP_ECHECK. */
bool ep_kernels_cases_are_stopped(const struct ep_kernels_cases *cases);

/** The cases in order, borrowed. */
const struct ep_kernels_case *const *ep_kernels_cases_items(const struct ep_kernels_cases *cases,
                                                            int64_t *num);
void ep_kernels_cases_destroy(struct ep_kernels_cases *cases);

#endif
