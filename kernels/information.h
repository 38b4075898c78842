/* SPDX-License-Identifier: Apache-2.0 */
/* Entropy of a load, and how much the expert chosen says about a token's cluster or domain. */
#ifndef EP_KERNELS_INFORMATION_H
#define EP_KERNELS_INFORMATION_H

#include <stdint.h>

/** Mutual information, estimated from counts. */
struct ep_mutual_information {
    double bits;      /* plug-in estimate, >= 0; NaN without counts */
    double bias_bits; /* by how much that is too high on average, to first order in 1 / counts */
};

/** Entropy of counts / sum in bits, 0 to log2 num; NaN where the sum is 0.
 *  counts [num] >= 0, read only. Source: Shannon; H = - sum p log2 p. */
double ep_information_entropy(const int64_t *counts, int64_t num);

/** Mutual information of row and column from joint counts: the plug-in H(row) + H(column) - H(both)
 *  of counts / sum. For independent draws it is too high by (b - r - c + 1) / (2 sum ln 2) bits on
 *  average, b, r, c being the occupied cells, rows and columns; what is left is of order 1 / sum^2.
 *  joint [num_rows][num_columns] >= 0, read only. O(num_rows x num_columns).
 *  Source: Miller (1955) and Madow, for each entropy; Panzeri and Treves, Network 7 (1996) 87. */
struct ep_mutual_information ep_information_mutual(const int64_t *joint, int64_t num_rows,
                                                   int64_t num_columns);

#endif
