/* SPDX-License-Identifier: Apache-2.0 */
/* Google Benchmark for C: cases with hooks, counters and fixed repetitions. C++ stays behind it. */
#ifndef EP_BENCH_GBENCH_SHIM_H
#define EP_BENCH_GBENCH_SHIM_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One benchmark. With several ranks every rank registers the same cases in the same order; all hooks
 *  are then called by every rank in step. Order: begin once, before the first repetition; then for
 *  each repetition sync, run x iterations, sync; then end once, with all samples. */
struct ep_gbench_case {
    const char *name; /* borrowed until ep_gbench_run returns */
    int64_t iterations; /* of `run` in one sample, >= 1; fixed, so that ranks agree */
    double flops;       /* of one call of run on all active ranks; 0 = no such counter */
    double bytes;       /* moved by one call on all active ranks; 0 = none */
    double items;       /* (token, expert) pairs of one call on all active ranks; 0 = none */
    enum ep_status (*begin)(void *ctx);
    /* `local` is this rank's status so far; returns what all ranks agree on. NULL = one rank. */
    enum ep_status (*sync)(void *ctx, enum ep_status local);
    enum ep_status (*run)(void *ctx);
    /* samples_s [num] seconds per call of run, this rank's own, in order; begin_s: when it began, s
     * since 1970. Called after a failure too, then with num = 0; its own failure counts. */
    enum ep_status (*end)(void *ctx, const double *samples_s, int64_t num, double begin_s);
    void *ctx;
};

struct ep_gbench;

/** Take Google Benchmark's flags (--benchmark_* and --v=) out of argv. *argc and argv shrink; argv
 *  stays NULL-terminated. Do this before argp sees them.
 *  quiet  this process reports nothing and writes no --benchmark_out (ranks other than 0)
 *  Returns EP_EINVAL for a flag that this library does not know or that has a bad value; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_gbench_create(int *argc, char **argv, bool quiet,
                                              struct ep_gbench **bench);
void ep_gbench_destroy(struct ep_gbench *bench);

/** Repetitions that the command line asked for (--benchmark_repetitions), or 0. */
int64_t ep_gbench_repetitions(const struct ep_gbench *bench);

/** Was a flag of this name given? Random interleaving is refused with several ranks, since each rank
 *  would draw its own order. */
bool ep_gbench_has_flag(const struct ep_gbench *bench, const char *name);

/** Add "key": "value" to the context that is reported. */
void ep_gbench_add_context(const char *key, const char *value);

/** Register a case (copied). */
EP_MUST_CHECK enum ep_status ep_gbench_register(struct ep_gbench *bench,
                                                const struct ep_gbench_case *one);

/** Run all cases that the filter keeps, each `repetitions` times unless the command line says another
 *  number; reports go to stdout. num_run: how many cases ran; num_kept: how many the filter keeps.
 *  Returns the first failure of a hook; the cases after it do not begin. With --benchmark_list_tests
 *  nothing runs, and both numbers are 0. */
EP_MUST_CHECK enum ep_status ep_gbench_run(struct ep_gbench *bench, int64_t repetitions,
                                           int64_t *num_run, int64_t *num_kept);

#ifdef __cplusplus
}
#endif

#endif
