/* SPDX-License-Identifier: Apache-2.0 */
/* How uneven a load is, in the ways the field prints it, and the closed form of even routing. */
#ifndef EP_KERNELS_IMBALANCE_H
#define EP_KERNELS_IMBALANCE_H

#include "base/error.h"

#include <stdint.h>

/** Measures of loads on experts, ranks or nodes. Ratios to the mean are NaN where that is 0. */
struct ep_imbalance {
    double max;
    double min;
    double mean;
    double max_over_mean; /* >= 1: FastMoE */
    double mean_over_max; /* "balancedness", 0 to 1: SGLang, vLLM */
    double excess;        /* (max - mean) / mean, >= 0: TensorRT-LLM */
    double max_over_min;  /* (max + 1) / (min + 1), >= 1: FastMoE; loads are whole numbers */
    double cv;            /* standard deviation (divisor num) over mean */
    double gini;          /* 0 = even, (num - 1) / num = all on one */
};

/** loads [num] >= 0, read only, num >= 1. Returns EP_ENOMEM. O(num log num).
 *  Gini = sum_i (2 i - num - 1) x_i / (num sum x), x ascending, i from 1.
 *  Source: kernels/README.md, "Imbalance". */
EP_MUST_CHECK enum ep_status ep_imbalance_measure(const int64_t *loads, int64_t num,
                                                  struct ep_imbalance *imbalance);

/** Expected distinct groups of a token under uniform top-k of num_experts without replacement, the
 *  experts in num_groups equal groups: U(G) = G (1 - C(E - E/G, k) / C(E, k)).
 *  num_experts is a multiple of num_groups, 1 <= top_k <= num_experts.
 *  Source: kernels/README.md, "Fan-out"; DeepEP, deep_ep/buffers/elastic.py. */
double ep_traffic_expected_groups(int64_t num_experts, int64_t top_k, int64_t num_groups);

#endif
