/* SPDX-License-Identifier: Apache-2.0 */
/* Measures of uneven load. */
#include "kernels/imbalance.h"

#include "base/stats.h"

#include <math.h>
#include <stdlib.h>

enum ep_status ep_imbalance_measure(const int64_t *loads, int64_t num,
                                    struct ep_imbalance *imbalance)
{
    EP_ASSERT(num >= 1);
    double *sorted = malloc((size_t)num * sizeof *sorted);
    if (sorted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to measure imbalance");
    }
    double sum = 0;
    for (int64_t i = 0; i < num; i++) {
        EP_ASSERT(loads[i] >= 0);
        sorted[i] = (double)loads[i];
        sum += sorted[i];
    }
    ep_stats_sort(sorted, num);
    const double n = (double)num;
    const double mean = sum / n;
    const double max = sorted[num - 1];
    double squares = 0;
    double ranked = 0;
    for (int64_t i = 0; i < num; i++) {
        squares += (sorted[i] - mean) * (sorted[i] - mean);
        ranked += (2 * (double)(i + 1) - n - 1) * sorted[i];
    }
    const double min = sorted[0];
    free(sorted);
    *imbalance = (struct ep_imbalance){.max = max,
                                       .min = min,
                                       .mean = mean,
                                       .max_over_mean = max / mean,
                                       .mean_over_max = mean / max,
                                       .excess = (max - mean) / mean,
                                       .max_over_min = (max + 1) / (min + 1),
                                       .cv = sqrt(squares / n) / mean,
                                       .gini = ranked / (n * sum)};
    return EP_OK;
}

double ep_traffic_expected_groups(int64_t num_experts, int64_t top_k, int64_t num_groups)
{
    EP_ASSERT(num_groups >= 1 && num_experts % num_groups == 0);
    EP_ASSERT(top_k >= 1 && top_k <= num_experts);
    const int64_t outside = num_experts - num_experts / num_groups;
    /* C(outside, k) / C(E, k), the chance that a group is missed, factor by factor */
    double missed = 1;
    for (int64_t i = 0; i < top_k; i++) {
        missed *= outside > i ? (double)(outside - i) / (double)(num_experts - i) : 0;
    }
    return (double)num_groups * (1 - missed);
}
