/* SPDX-License-Identifier: Apache-2.0 */
/* A small MoE layer in training: a linear router and linear experts, by plain gradient descent. */
#ifndef EP_KERNELS_DYNAMICS_H
#define EP_KERNELS_DYNAMICS_H

#include "base/error.h"
#include "kernels/clusters.h"
#include "kernels/information.h"
#include "kernels/losses.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stdint.h>

enum ep_dynamics_score { EP_DYNAMICS_SOFTMAX, EP_DYNAMICS_SIGMOID, EP_DYNAMICS_NUM_SCORES };

/** "softmax" or "sigmoid". */
extern const char *const ep_dynamics_score_names[EP_DYNAMICS_NUM_SCORES];

/** What is trained, and on what. */
struct ep_dynamics_config {
    struct ep_clusters_config clusters; /* its seed is that of the initial weights, too */
    int64_t num_experts;
    int64_t top_k;      /* 1 to experts */
    int64_t num_tokens; /* per step, whole sequences */
    enum ep_dynamics_score score;
    const struct ep_loss *aux; /* one that has a gradient */
    double aux_weight;         /* >= 0 */
    double z_weight;           /* >= 0 */
    double jitter;    /* the router's input is multiplied with U(1 - jitter, 1 + jitter), 0 = off */
    double bias_rate; /* bias update without a loss, per step, 0 = off */
    double expert_rate; /* learning rate x dim / num_outputs, > 0; stable below about 1 / common */
    double router_rate; /* learning rate x dim, > 0 */
};

/** What was measured at one step, before its update. */
struct ep_dynamics_step {
    int64_t step;         /* from 0 */
    double task_loss;     /* mean squared error of tokens and outputs; predicting 0 has 1 */
    double aux_loss;      /* weight 1 */
    double z_loss;        /* weight 1 */
    double max_over_mean; /* of the copies per expert */
    double entropy_bits;  /* of the copies per expert, up to log2 experts */
    struct ep_mutual_information mutual; /* of a copy's cluster and expert */
    int64_t idle_experts; /* without tokens, so that their weights have no gradient */
    int64_t min_tokens;   /* copies of the expert with fewest, half of the way, and most */
    double median_tokens;
    int64_t max_tokens;
    const int64_t *loads; /* [num_experts] copies; borrowed until the next step */
};

/** The layer and its batch. Arrays are open for tests; owned by the struct. */
struct ep_dynamics {
    struct ep_dynamics_config config;
    struct ep_clusters *clusters;
    int64_t step;
    float *router;  /* [dim][num_experts] */
    float *experts; /* [num_experts][dim][num_outputs] */
    float *bias;    /* [num_experts] added to scores for the choice only */
    float *router_gradient;
    float *expert_gradient;
    /* of the batch */
    float *x;                  /* [num_tokens][dim] */
    float *router_x;           /* the same with jitter */
    float *targets;            /* [num_tokens][num_outputs] */
    int32_t *labels;           /* [num_tokens] cluster */
    float *logits;             /* [num_tokens][num_experts] */
    float *scores;             /* softmax or sigmoid of logits */
    float *probs;              /* scores over their sum, for the auxiliary loss */
    struct ep_routing routing; /* with the weights of the combination */
    float *outputs;            /* [num_tokens][top_k][num_outputs] of the chosen experts */
    float *errors;             /* [num_tokens][num_outputs] combination - target */
    float *score_gradient;     /* [num_tokens][num_experts], then that of logits */
    float *prob_gradient;      /* [num_tokens][num_experts] */
    int64_t *loads;            /* [num_experts] */
    int64_t *joint;            /* [num_clusters][num_experts] copies */
    double *sorted;            /* [num_experts] */
};

/** Draw the initial weights, normal: fresh logits have about variance 1, outputs deviation 0.1.
 *  Returns EP_EINVAL for an auxiliary loss that has no gradient, or tokens that are no whole
 *  sequences; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_dynamics_create(const struct ep_dynamics_config *config,
                                                struct ep_dynamics **dynamics);
void ep_dynamics_destroy(struct ep_dynamics *dynamics);

/** One step: fresh tokens, forward, measure, backward, update.
 *  Weights of the combination: the chosen score for top-1 (Switch), the chosen scores over their
 *  sum for more (Mixtral, DeepSeek-V3). Update: parameter -= learning rate x gradient of
 *  task_loss + aux_weight x aux_loss + z_weight x z_loss.
 *  Returns EP_EINVAL where the task loss runs away (learning rates too high); EP_ENOMEM.
 *  Source: kernels/README.md, "Training dynamics". */
EP_MUST_CHECK enum ep_status ep_dynamics_advance(struct ep_dynamics *dynamics,
                                                 struct ep_dynamics_step *measured);

/* --- the parts of a step, for tests ----------------------------------------------------------- */

/** Make the tokens of `step`, and jitter them. */
void ep_dynamics_load(struct ep_dynamics *dynamics, int64_t step);

/** Logits, scores and probs; choose experts if `select`, else keep the choice; outputs and errors.
 *  Returns the task loss. */
double ep_dynamics_forward(struct ep_dynamics *dynamics, bool select);

/** Gradients of the weighted sum of losses, the choice held fixed; overwritten. */
EP_MUST_CHECK enum ep_status ep_dynamics_backward(struct ep_dynamics *dynamics);

#endif
