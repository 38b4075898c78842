/* SPDX-License-Identifier: Apache-2.0 */
/* The measuring loop: warm-up, repetitions, agreement over ranks, when to stop. No MPI, no clock of
 * its own: both come through hooks, so that tests run it under a fake clock. */
#ifndef EP_BENCH_HARNESS_H
#define EP_BENCH_HARNESS_H

#include "base/error.h"
#include "base/stats.h"

#include <stdbool.h>
#include <stdint.h>

/** What the loop needs from outside. Every rank runs the same loop in step. */
struct ep_harness_env {
    double (*now_s)(void *ctx); /* monotonic, s */
    /* Returns on all ranks at about the same time. */
    enum ep_status (*sync)(void *ctx);
    /* Element-wise maximum over all ranks of values [num], result on every rank, in place. */
    enum ep_status (*max)(void *ctx, double *values, int64_t num);
    /* `local` is this rank's status; returns the worst of all ranks on every rank. Called where memory
     * may be refused on one rank alone, so that no other waits for it in the next reduction. */
    enum ep_status (*agree)(void *ctx, enum ep_status local);
    void *ctx;
};

enum { EP_HARNESS_MAX_PHASES = 8 };

/** What is timed. All hooks are called by every rank in the same order. */
struct ep_harness_work {
    enum ep_status (*run)(void *ctx); /* the whole operation, once */
    /* Untimed, before every repetition (cold buffers); NULL = nothing to do. */
    enum ep_status (*prepare)(void *ctx);
    /* Untimed, once, between warm-up and the first sample: counting begins; NULL = nothing to do. */
    void (*begin)(void *ctx);
    void *ctx; /* of run, prepare and begin */
    /* The operation's phases in order; called directly, so that no call of ours is timed with them. */
    enum ep_status (*phases[EP_HARNESS_MAX_PHASES])(void *phase_ctx);
    int num_phases; /* 0: cannot be split */
    void *phase_ctx;
    bool is_simulated; /* every repetition takes the same: nothing is warmed up */
};

enum ep_cadence {
    EP_CADENCE_BARRIER, /* every repetition starts together */
    EP_CADENCE_STREAM   /* blocks of repetitions back to back */
};

/** When to stop. Zero-initialise and set what differs with ep_harness_plan_default(). */
struct ep_harness_plan {
    enum ep_cadence cadence;
    int64_t stream_repetitions; /* per sample with EP_CADENCE_STREAM, >= 1 */
    int64_t warmup_repetitions; /* at least so many, >= 1 */
    double warmup_s;            /* and at least so long (agreed over ranks), >= 0 */
    int64_t min_samples;        /* before the interval is looked at, >= 1 */
    int64_t max_samples;        /* never more */
    double half_width;          /* stop at half width / median <= this ... */
    double lag1;                /* ... and lag-1 autocorrelation < this */
    double budget_s;            /* time for the samples of the whole; warm-up apart */
};

/** Why the loop stopped. */
enum ep_harness_stop {
    EP_STOP_PRECISE,  /* interval narrow enough, samples not correlated */
    EP_STOP_BUDGET,   /* the time budget was used up */
    EP_STOP_SAMPLES   /* max_samples */
};

/** One visit's samples. Init with {0}; free with ep_harness_result_fini. */
struct ep_harness_result {
    int64_t num;
    double *samples_s; /* [num] max over ranks of (end - start), in the order taken */
    double *local_s;   /* [num] this rank's own times */
    struct ep_summary summary;
    double local_median_s;
    double warmup_s; /* this rank's, all warm-up repetitions together */
    int64_t repetitions; /* that each sample is the mean of, >= 1; 0: not told, as 1 */
    enum ep_harness_stop stop;
};

/** Samples of each phase, taken in a pass of their own. Init with {0}. */
struct ep_harness_phases {
    int num_phases;
    struct ep_harness_result *phases; /* [num_phases]; warmup_s and stop are not set */
};

/** min 20, half width 2 %, lag-1 0.2, 3 warm-up repetitions, budget as given. */
struct ep_harness_plan ep_harness_plan_default(double budget_s);

/** "interval", "budget", "max_samples": as written into records. */
const char *ep_harness_stop_name(enum ep_harness_stop stop);

/** Warm up and sample `work`. Interval and budget are looked at after min_samples and then every
 *  half as many again (20, 30, 45, 68, ...), on times that all ranks share, so that all stop at the
 *  same repetition. Where even min_samples would overrun the budget, fewer (at least 3) are taken.
 *  Between the two clock reads of a sample nothing but `run` happens.
 *  Returns what a hook returned; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_harness_measure(const struct ep_harness_env *env,
                                                const struct ep_harness_work *work,
                                                const struct ep_harness_plan *plan,
                                                struct ep_harness_result *result);

/** Sample each phase `num_samples` times: in each repetition every phase is preceded by a sync, so
 *  that one phase's unevenness is not charged to the next. work->num_phases >= 1. */
EP_MUST_CHECK enum ep_status ep_harness_measure_phases(const struct ep_harness_env *env,
                                                       const struct ep_harness_work *work,
                                                       int64_t num_samples,
                                                       struct ep_harness_phases *phases);

/** One repetition of one phase as ep_harness_measure_phases times it: sync, clock, phase, clock. */
EP_MUST_CHECK enum ep_status ep_harness_time_phase(const struct ep_harness_env *env,
                                                   const struct ep_harness_work *work, int phase,
                                                   double *time_s);

void ep_harness_result_fini(struct ep_harness_result *result);
void ep_harness_phases_fini(struct ep_harness_phases *phases);

#endif
