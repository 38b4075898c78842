/* SPDX-License-Identifier: Apache-2.0 */
/* Order statistics of samples: medians with distribution-free intervals, spread, autocorrelation. */
#ifndef EP_BASE_STATS_H
#define EP_BASE_STATS_H

#include "base/error.h"

#include <stdint.h>

/** What is kept of one set of samples. Absent values are NaN. */
struct ep_summary {
    int64_t num;   /* samples, >= 1 */
    double median; /* mean of the two middle values where num is even */
    double low;    /* order-statistic 95 % interval of the median; NaN where num < 6 */
    double high;
    double min;
    double max;
    double p95;  /* type-7 quantile */
    double p99;  /* NaN where num < 100: it would be the maximum under another name */
    double mad;  /* median absolute deviation from the median, unscaled */
    double lag1; /* lag-1 autocorrelation in the order given; NaN where num < 3 or constant */
};

/** Summarise samples in the order they were taken.
 *  samples  [num] finite, read only; num >= 1
 *  Returns EP_OK; EP_ENOMEM. O(num log num). */
EP_MUST_CHECK enum ep_status ep_stats_summarize(const double *samples, int64_t num,
                                                struct ep_summary *summary);

/** Sort ascending, in place. */
void ep_stats_sort(double *values, int64_t num);

/** Median and type-7 quantile (0 <= q <= 1) of an ascending array, num >= 1. */
double ep_stats_median_sorted(const double *sorted, int64_t num);
double ep_stats_quantile_sorted(const double *sorted, int64_t num, double q);

/** The value that another draw falls below with chance q: of n sorted draws the q (n + 1)-th, type 6
 *  (Hyndman and Fan 1996), num >= 1. For tails of few draws, which type 7 makes too short. */
double ep_stats_quantile_of_draws(const double *sorted, int64_t num, double q);

/** Distribution-free interval of the median at `level` (0.95): the narrowest symmetric pair of order
 *  statistics x(l), x(num+1-l) with coverage 1 - 2 P(Binomial(num, 1/2) <= l - 1) >= level.
 *  Returns 0 where num is too small to reach the level (num < 6 at 0.95), else 1.
 *  Source: David and Nagaraja, Order Statistics, section 7.1. */
int ep_stats_median_interval_sorted(const double *sorted, int64_t num, double level, double *low,
                                    double *high);

/** Which of `num` things is the fastest, where all were timed once in every round, so that a drift meets
 *  them alike: the least median of its time over the sum of the round's times. Those within `tie` of the
 *  least (0.01 = 1 %) are equal, and the last of them is taken.
 *  times  [num][num_rounds], all > 0; overwritten */
int64_t ep_stats_fastest(double *times, int64_t num, int64_t num_rounds, double tie);

#endif
