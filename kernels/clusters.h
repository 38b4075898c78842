/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic tokens that reward specialists: Gaussian clusters, each with a linear map to learn. */
#ifndef EP_KERNELS_CLUSTERS_H
#define EP_KERNELS_CLUSTERS_H

#include "base/error.h"

#include <stdint.h>

/** How tokens are made. A token of cluster c is
 *      x = sqrt(common) u + sqrt(centre) m_c + sqrt(1 - common - centre) n,
 *  u the same for all, m_c of the cluster, n its own, all standard normal in `dim` dimensions;
 *  its target is M_c x, M_c normal, scaled so that targets of each cluster have mean square 1.
 *  The common part makes fresh routers send most tokens to few experts; the own part is what one
 *  linear expert cannot map for several clusters.
 *  Source: kernels/README.md, "Training dynamics". */
struct ep_clusters_config {
    int64_t num_clusters;    /* >= 1 */
    int64_t dim;             /* elements of a token, >= 1 */
    int64_t num_outputs;     /* elements of a target, >= 1 */
    int64_t sequence_tokens; /* consecutive tokens that share their cluster, >= 1 */
    double common;           /* shares of the variance, >= 0, their sum <= 1 */
    double centre;
    double zipf; /* cluster of popularity rank r has the chance r^-zipf / sum, >= 0 */
    uint64_t seed;
};

struct ep_clusters;

/** Draw the clusters. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_clusters_create(const struct ep_clusters_config *config,
                                                struct ep_clusters **clusters);
void ep_clusters_destroy(struct ep_clusters *clusters);

/** Make tokens first_token .. first_token+num_tokens-1 of an endless stream; each depends on the
 *  configuration and its index alone.
 *  x        [num_tokens][dim], overwritten
 *  targets  [num_tokens][num_outputs], overwritten
 *  labels   [num_tokens] cluster, overwritten */
void ep_clusters_fill(const struct ep_clusters *clusters, int64_t first_token, int64_t num_tokens,
                      float *x, float *targets, int32_t *labels);

/** out[m] = sum_i x[i] w[i][m]: a row times a matrix [dim][num]. `out` is overwritten. */
void ep_clusters_map(const float *x, int64_t dim, const float *w, int64_t num, float *out);

#endif
