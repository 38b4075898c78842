/* SPDX-License-Identifier: Apache-2.0 */
/* Does the harness add anything? The exchange phase against a bare MPI_Alltoallv on the same buffers. */
#ifndef EP_BENCH_BARE_H
#define EP_BENCH_BARE_H

#include "bench/session.h"

#include <stdio.h>

/** One size. Ratios are medians over repetitions of paired times, with their 95 % interval. */
struct ep_bare_row {
    int64_t pair_bytes;  /* bytes per pair of ranks, on average */
    int64_t num;         /* repetitions, each of two calls of both kinds; 0: too slow */
    double exchange_s;   /* median of the exchange phase, timed as `epbench comm` times it */
    double bare_s;       /* median of the bare call */
    double needed_s;     /* where num is 0: what the fewest repetitions would take */
    double ratio, low, high;                         /* exchange phase / bare */
    double control_ratio, control_low, control_high; /* bare / bare again */
};

/** Measure one size: uniform routing, one expert per rank. In each repetition the phase runs twice
 *  and the bare call twice, in an order drawn anew, nothing else between them; rows are verified
 *  afterwards. budget_s bounds the time, at least 100 repetitions; 20 where 100 would take longer than
 *  limit_s, none (row->num = 0) where 20 would. Collective over the world. */
EP_MUST_CHECK enum ep_status ep_bare_measure(struct ep_session *session, int64_t pair_bytes,
                                             double budget_s, double limit_s,
                                             struct ep_bare_row *row);

/** 64 B to 16 MiB per pair, as far as a size does not take ten times its share of budget_s and 5 s; prints the table and notes every size that is not inside 1 +- 0.015. */
EP_MUST_CHECK enum ep_status ep_bare_run(struct ep_session *session, double budget_s, FILE *out);

#endif
