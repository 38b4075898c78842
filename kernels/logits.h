/* SPDX-License-Identifier: Apache-2.0 */
/* Router logits: drawn so that experts have a given popularity, or read from a file. */
#ifndef EP_KERNELS_LOGITS_H
#define EP_KERNELS_LOGITS_H

#include "base/error.h"

#include <stdint.h>

struct ep_logits;

/** Logits of a popularity p: x = ln(p_e E) + G, G standard Gumbel noise, drawn per (seed, token,
 *  expert). The expert with the highest logit is then e with chance p_e exactly, and the k highest
 *  are draws in proportion to p without replacement: what skew zipf:S draws.
 *  text  a skew that is one popularity of experts: "uniform", "zipf:S", "lognormal:S",
 *        "dirichlet:A", "gini:G" (of the popularity) or "counts:FILE", as kernels/skew.h has it
 *  Returns EP_EINVAL for other skews, a bad parameter, counts of another number of experts.
 *  Source: kernels/README.md, "Routers"; Gumbel-max, and Yellott 1977 for the k highest. */
EP_MUST_CHECK enum ep_status ep_logits_create(const char *text, int64_t num_experts, uint64_t seed,
                                              struct ep_logits **logits);

/** The same of given shares [num_experts] >= 0, sum 1; copied. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_logits_create_of(const double *shares, int64_t num_experts,
                                                 uint64_t seed, struct ep_logits **logits);

/** Logits of a file: .npy of fp32 or fp64, [tokens][experts]; anything else is read as CSV, whose
 *  header names the experts in turn: e0,e1,...  -inf is allowed there and in .npy.
 *  num_experts  0 = as many as the file has; else others are refused
 *  Returns EP_EINVAL, naming the file and the place, for NaN, +inf, another shape or type. */
EP_MUST_CHECK enum ep_status ep_logits_load(const char *path, int64_t num_experts,
                                            struct ep_logits **logits);
void ep_logits_destroy(struct ep_logits *logits);

int64_t ep_logits_num_experts(const struct ep_logits *logits);

/** Tokens of a file; 0 where logits are drawn: as many as wanted. */
int64_t ep_logits_num_tokens(const struct ep_logits *logits);

/** x [num_tokens][experts], overwritten, of global tokens first_token and after (of a file: its
 *  rows, which must be there). Any split gives the same rows. */
void ep_logits_fill(const struct ep_logits *logits, int64_t first_token, int64_t num_tokens,
                    float *x);

/** Popularity of expert `expert`; of a file NaN. */
double ep_logits_share(const struct ep_logits *logits, int64_t expert);

#endif
