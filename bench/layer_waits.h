/* SPDX-License-Identifier: Apache-2.0 */
/* Where the time of a layer goes: waiting apart from moving, who waited for whom, stragglers. Arithmetic
 * on clock readings; no MPI, no clock. */
#ifndef EP_BENCH_LAYER_WAITS_H
#define EP_BENCH_LAYER_WAITS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/** What a phase does; the sums that are reported follow from it. */
enum ep_layer_work {
    EP_LAYER_ROUTE,    /* the router: its GEMM and the choice of experts */
    EP_LAYER_COPY,     /* rows are moved inside the rank: pack, unpack, weighted sums */
    EP_LAYER_EXCHANGE, /* ranks wait for each other, and rows or counts cross */
    EP_LAYER_COMPUTE,  /* GEMMs of experts and shared experts */
    EP_LAYER_NUM_WORKS
};

/** Clock readings of some repetitions of all phases, back to back, on all ranks. Borrowed. */
struct ep_layer_clocks {
    int64_t num_ranks;
    int64_t num_phases;
    int64_t num_repetitions;
    /* [num_ranks][num_repetitions][num_phases + 1] seconds of one clock: reading p is where phase p
     * begins and phase p - 1 ends */
    const double *times_s;
    const enum ep_layer_work *works; /* [num_phases] */
    /* [num_phases][num_ranks][num_ranks]: rank i (line) cannot end the phase before rank j has entered it;
     * looked at only where the phase is an exchange. The diagonal does not count. */
    const bool *needs;
};

/** Medians over repetitions. Init with {0}, free with ep_layer_split_fini. */
struct ep_layer_split {
    int64_t num_ranks;
    int64_t num_phases;
    double *phase_s; /* [num_phases][num_ranks] from entry to exit */
    double *wait_s;  /* [num_phases][num_ranks] of that, until the last rank that it needs has entered; 0
                        where the phase is no exchange */
    double *pair_s;  /* [num_ranks][num_ranks] rank i (line) waited so long for rank j: summed over
                        exchanges, j's entry minus i's where it is later, at most i's phase; waits for
                        several at once are not divided among them */
};

/** What a rank waits in one repetition of an exchange: the most, over the ranks j that it needs, of
 *  max(0, min(entry_j, its exit) - its entry); the rest is moving. 0 where the phase is no exchange. */
double ep_layer_wait_s(const struct ep_layer_clocks *clocks, int64_t phase, int64_t repetition,
                       int64_t rank);

/** Take waiting and moving apart: medians over repetitions of what ep_layer_wait_s says. Returns EP_ENOMEM. O(phases ranks^2 repetitions). Source: bench/README.md, "The layer". */
EP_MUST_CHECK enum ep_status ep_layer_split_init(const struct ep_layer_clocks *clocks,
                                                 struct ep_layer_split *split);
void ep_layer_split_fini(struct ep_layer_split *split);

/** Sum over the phases of one kind of work, [num_ranks] overwritten. wait_s as in the split, or NULL. */
void ep_layer_sum_work(const struct ep_layer_split *split, const enum ep_layer_work *works,
                       enum ep_layer_work work, double *time_s, double *wait_s);

/** The repetition whose slowest rank is nearest the median of all: what a timeline shows. */
int64_t ep_layer_typical_repetition(const struct ep_layer_clocks *clocks);

/** Slowest over mean; NaN where all are 0. values [num] >= 0, num >= 1. */
double ep_layer_straggler(const double *values, int64_t num);

/** Mean over slowest: how much of the ranks' time is used if all wait for the slowest; NaN likewise. */
double ep_layer_utilisation(const double *values, int64_t num);

/** Weak scaling: tokens/s of `num_ranks` ranks over num_ranks times those of one. NaN where either is
 *  not known. */
double ep_layer_efficiency(double tokens_per_s, int64_t num_ranks, double single_tokens_per_s);

#endif
