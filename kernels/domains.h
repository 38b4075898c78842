/* SPDX-License-Identifier: Apache-2.0 */
/* How a model's load moves with the domain of the text: loads by domain, and how far they are apart. */
#ifndef EP_KERNELS_DOMAINS_H
#define EP_KERNELS_DOMAINS_H

#include "base/error.h"
#include "kernels/counts.h"
#include "kernels/imbalance.h"
#include "kernels/placement.h"

#include <stdint.h>

enum { EP_DOMAINS_HOTTEST = 3 };

/** The load of one domain, or the mean over domains. */
struct ep_domain_load {
    const char *name; /* "arxiv"; "mean" = every domain weighed the same */
    double tokens;    /* NaN for the mean */
    double *share;    /* [num_experts] of all copies, sum 1 */
    int32_t hottest[EP_DOMAINS_HOTTEST]; /* experts by falling share; -1 = there are no more */
    struct ep_imbalance expert;          /* of shares in parts of 2^40, as are the next two */
    struct ep_imbalance rank;            /* max/mean over ranks */
    struct ep_imbalance node;
    double distance_to_mean; /* total variation, see below; 0 for the mean itself */
};

/** One layer of a model. Made by ep_domains_measure, freed with ep_domains_fini. */
struct ep_domains {
    const struct ep_counts_model *model; /* borrowed from the counts */
    int64_t layer;
    int64_t num_domains;          /* >= 1 */
    struct ep_domain_load *loads; /* [num_domains + 1], the last is the mean */
    double *total_variation; /* [num_domains][num_domains] 1/2 sum |p_e - q_e|: the share of copies
                              * that would have to go to other experts, 0 to 1 */
    double *cosine; /* the same shape: 1 - p q / (|p| |q|), 0 to 1 */
    double by_chance; /* total variation that two samples of one and the same load have on average, if
                       * copies were independent; tokens of a text are not, so at least that */
};

/** Measure one layer.
 *  model, layer  of `counts`; at least one domain must have that layer (else EP_EINVAL)
 *  placement     of the model's experts; replicas share an expert's load equally
 *  num_nodes     divides the ranks; nodes are blocks of consecutive ranks
 *  Source of by_chance: the difference of two binomial shares of n and m copies has variance
 *  p (1 - p) (1/n + 1/m), and |normal| has the mean sqrt(2 / pi) sigma; p of the mean load, n and m
 *  the copies of the average domain. */
EP_MUST_CHECK enum ep_status ep_domains_measure(const struct ep_counts *counts, int64_t model,
                                                int64_t layer,
                                                const struct ep_placement *placement,
                                                int64_t num_nodes, struct ep_domains *domains);
void ep_domains_fini(struct ep_domains *domains);

#endif
