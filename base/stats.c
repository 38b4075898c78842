/* SPDX-License-Identifier: Apache-2.0 */
/* Order statistics of samples, on GSL where it has them. */
#include "base/stats.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void ep_stats_sort(double *values, int64_t num)
{
    gsl_sort(values, 1, (size_t)num);
}

double ep_stats_median_sorted(const double *sorted, int64_t num)
{
    EP_ASSERT(num >= 1);
    return gsl_stats_median_from_sorted_data(sorted, 1, (size_t)num);
}

double ep_stats_quantile_sorted(const double *sorted, int64_t num, double q)
{
    EP_ASSERT(num >= 1);
    return gsl_stats_quantile_from_sorted_data(sorted, 1, (size_t)num, q);
}

double ep_stats_quantile_of_draws(const double *sorted, int64_t num, double q)
{
    const double at = fmin(fmax(q * (double)(num + 1) - 1, 0), (double)(num - 1));
    const int64_t below = (int64_t)at;
    const int64_t above = below + 1 < num ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

int ep_stats_median_interval_sorted(const double *sorted, int64_t num, double level, double *low,
                                    double *high)
{
    /* l is 1-based; coverage shrinks as l grows, so take the largest l that still reaches it. */
    int64_t l = 0;
    while (2 * (l + 1) <= num &&
           1 - 2 * gsl_cdf_binomial_P((unsigned)l, 0.5, (unsigned)num) >= level) {
        l++;
    }
    if (l == 0) {
        return 0;
    }
    *low = sorted[l - 1];
    *high = sorted[num - l];
    return 1;
}

static double lag1(const double *samples, int64_t num)
{
    if (num < 3) {
        return NAN;
    }
    const double variance = gsl_stats_variance(samples, 1, (size_t)num);
    return variance > 0 ? gsl_stats_lag1_autocorrelation(samples, 1, (size_t)num) : NAN;
}

enum ep_status ep_stats_summarize(const double *samples, int64_t num, struct ep_summary *summary)
{
    EP_ASSERT(num >= 1);
    double *sorted = malloc(2 * (size_t)num * sizeof *sorted);
    if (sorted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to sort %lld samples", (long long)num);
    }
    double *scratch = sorted + num;
    memcpy(sorted, samples, (size_t)num * sizeof *sorted);
    ep_stats_sort(sorted, num);
    struct ep_summary s = {
        .num = num,
        .median = ep_stats_median_sorted(sorted, num),
        .low = NAN,
        .high = NAN,
        .min = sorted[0],
        .max = sorted[num - 1],
        .p95 = ep_stats_quantile_sorted(sorted, num, 0.95),
        .p99 = num >= 100 ? ep_stats_quantile_sorted(sorted, num, 0.99) : NAN,
        .mad = gsl_stats_mad0(sorted, 1, (size_t)num, scratch),
        .lag1 = lag1(samples, num),
    };
    if (!ep_stats_median_interval_sorted(sorted, num, 0.95, &s.low, &s.high)) {
        s.low = s.high = NAN;
    }
    *summary = s;
    free(sorted);
    return EP_OK;
}

int64_t ep_stats_fastest(double *times, int64_t num, int64_t num_rounds, double tie)
{
    EP_ASSERT(num >= 1 && num_rounds >= 1);
    for (int64_t round = 0; round < num_rounds; round++) {
        double sum = 0;
        for (int64_t i = 0; i < num; i++) {
            sum += times[i * num_rounds + round];
        }
        for (int64_t i = 0; i < num; i++) {
            times[i * num_rounds + round] /= sum;
        }
    }
    double least = HUGE_VAL;
    for (int64_t i = 0; i < num; i++) {
        ep_stats_sort(times + i * num_rounds, num_rounds);
        least = fmin(least, ep_stats_median_sorted(times + i * num_rounds, num_rounds));
    }
    int64_t last = 0;
    for (int64_t i = 0; i < num; i++) {
        const double median = ep_stats_median_sorted(times + i * num_rounds, num_rounds);
        last = median <= (1 + tie) * least ? i : last;
    }
    return last;
}
