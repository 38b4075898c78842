/* SPDX-License-Identifier: Apache-2.0 */
/* Losses that balance experts, as each framework has them, and the bias update without a loss. */
#ifndef EP_KERNELS_LOSSES_H
#define EP_KERNELS_LOSSES_H

#include "base/error.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stdint.h>

/** A routed batch of T tokens on E experts with the router's scores. All borrowed, read only. */
struct ep_loss_batch {
    const struct ep_routing *routing; /* slot 0 = first choice; -1 (unused, dropped) is no copy */
    const float *probs;      /* [T][E] >= 0, softmax; a sigmoid router gives s / sum of s */
    const float *logits;     /* [T][E] that decided; NULL unless the loss needs logits */
    const double *counts;    /* [E] copies in place of the routing's: the mean over micro-batches of
                              * Megatron's global loss; NULL = the routing's. Not per sequence. */
    int64_t sequence_tokens; /* tokens of a sequence, divides T; 0 = T. Losses per sequence only. */
    int64_t num_ranks; /* workers that share the E experts, >= 1. FastMoE's GShard gate only. */
    double gate_noise; /* deviation of the gate's noise x E, > 0. Tutel's load-importance only. */
};

/** What a loss weighs copies with; set from the batch. */
struct ep_loss_shape {
    double tokens; /* T, or the tokens of a sequence */
    double used;   /* slots in use, <= T k */
    double experts;
    double top_k;
    double ranks;
};

/** One loss: a row of ep_losses. All but load-importance are
 *  scale x sum_i copies_i x sum_t probs[t][i]; they differ in what is counted and in the scale. */
struct ep_loss {
    const char *name;
    const char *formula; /* f_i = copies_i / (T k), P_i = mean of probs, others spelled out */
    const char *source;
    bool recalled;     /* the source is a paper, from memory */
    bool first_only;   /* copies of the first choice alone */
    bool per_sequence; /* mean over sequences, each counted by itself */
    bool needs_logits; /* value only, no gradient */
    double (*scale)(const struct ep_loss_shape *shape);
};

/** Ended by a row without a name. */
extern const struct ep_loss ep_losses[];

/** The row of that name; `what` names the option. Returns EP_EINVAL with the names there are. */
EP_MUST_CHECK enum ep_status ep_loss_find(const char *name, const char *what,
                                          const struct ep_loss **loss);

/** True where the loss is defined for this top-k (FastMoE's Switch gate has top-1 alone). */
bool ep_loss_has_top_k(const struct ep_loss *loss, int64_t top_k);

/** Value of a loss with coefficient 1.
 *  Returns EP_EINVAL where the batch lacks what the loss needs: logits and noise, sequences that
 *  divide T, a top-k of 1 for fastmoe-switch; EP_ENOMEM. O(T (E + k)).
 *  Source: per row; kernels/README.md, "Losses". */
EP_MUST_CHECK enum ep_status ep_loss_evaluate(const struct ep_loss *loss,
                                              const struct ep_loss_batch *batch, double *value);

/** Add coefficient x d loss / d probs to `gradient` [T][E]. Copies are constants, as in all
 *  frameworks: counting has no gradient. Errors as ep_loss_evaluate; EP_EINVAL for a loss that
 *  needs logits. */
EP_MUST_CHECK enum ep_status ep_loss_add_gradient(const struct ep_loss *loss,
                                                  const struct ep_loss_batch *batch,
                                                  double coefficient, float *gradient);

/** The z-loss with coefficient 1: mean over tokens of logsumexp(logits)^2; num_tokens >= 1.
 *  Source: Megatron-LM moe_utils.py z_loss_func; ST-MoE (arXiv 2202.08906, recalled). */
double ep_loss_z(const float *logits, int64_t num_tokens, int64_t num_experts);

/** Add coefficient x d z-loss / d logits to `gradient` [T][E]: 2 logsumexp x softmax / T. */
void ep_loss_z_add_gradient(const float *logits, int64_t num_tokens, int64_t num_experts,
                            double coefficient, float *gradient);

/** Balance without a loss: bias_i += rate x sign(mean load - load_i), sign(0) = 0.
 *  loads  [num_experts] copies of a step; bias [num_experts], added to scores for the choice only
 *  Source: Megatron-LM moe_utils.py get_updated_expert_bias; DeepSeek-V3 (rate 1e-3, recalled). */
void ep_loss_update_bias(const int64_t *loads, int64_t num_experts, double rate, float *bias);

#endif
