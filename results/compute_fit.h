/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels records to parts: a roofline per kernel, back end, type and number of ranks at work. */
#ifndef EP_RESULTS_COMPUTE_FIT_H
#define EP_RESULTS_COMPUTE_FIT_H

#include "results/roofline.h"

struct ep_compute_fit {
    struct ep_part *parts; /* [num_parts], by kernel, back end, type, ranks at work */
    int64_t num_parts;
};

/** Fit each group of kernels records: gemm, ffn-..., permute and unpermute. Work and bytes are of one rank.
 *  Sizes are held out, one number of rows of an expert (of tokens for permute) at a time.
 *  records  read only; must outlive `fit`. None of these kernels: no parts.
 *  Returns EP_ENOMEM. `fit` is overwritten. */
EP_MUST_CHECK enum ep_status ep_compute_fit_records(const struct ep_records *records,
                                                    const struct ep_fit_options *options,
                                                    struct ep_compute_fit *fit);
void ep_compute_fit_fini(struct ep_compute_fit *fit);

/* What a layer is predicted from. */
enum ep_compute_use { EP_COMPUTE_EXPERTS, EP_COMPUTE_PERMUTE, EP_COMPUTE_UNPERMUTE, EP_COMPUTE_NUM_USES };

/** "experts", "permute", "unpermute". */
const char *ep_compute_use_name(enum ep_compute_use use);

/** The part that a layer's phase is predicted from, of a type: with most ranks at work, and then, of experts,
 *  the back end with the most flop/s. NULL = none whose flop/s (bytes/s) stand. */
const struct ep_part *ep_compute_fit_find(const struct ep_compute_fit *fit, enum ep_compute_use use,
                                          const char *dtype);

#endif
