/* SPDX-License-Identifier: Apache-2.0 */
/* The model zoo: shapes of Mixture-of-Experts models, built into the program. */
#ifndef EP_KERNELS_MODELS_H
#define EP_KERNELS_MODELS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/** One model. Texts are borrowed from the zoo; numbers that a source does not give are NaN. */
struct ep_model {
    const char *name;          /* "deepseek-v3" */
    int64_t hidden;            /* elements of a token row */
    int64_t expert_ffn;        /* inner width of one routed expert */
    int64_t num_experts;       /* routed experts of a layer */
    int64_t top_k;
    int64_t num_shared;        /* shared experts of a layer, each token uses all */
    int64_t shared_ffn_total;  /* their inner widths, summed */
    int64_t num_layers;
    int64_t num_moe_layers;
    bool gated;                /* three matrices per expert (SwiGLU, GeGLU), else two */
    const char *weight_dtype;  /* as published, may be empty */
    const char *router;        /* in words */
    int64_t num_groups;        /* groups that routing is limited to; 0 = none */
    int64_t topk_groups;       /* how many of them; 0 = none */
    double route_scale;        /* NaN = none */
    double published_total_b;  /* 1e9 parameters, as published; NaN = not */
    double published_active_b; /* per token */
    double routed_expert_b;    /* 1e9 parameters of all routed experts, as derived in the table */
    double active_routed_b;    /* of those that one token uses */
    const char *source;
    const char *confidence;
    const char *other_claims;
};

struct ep_csv;

/** All models in the order of kernels/data/model_zoo.csv. Created by ep_models_create. */
struct ep_models {
    int64_t num;
    struct ep_model *models; /* [num] */
    struct ep_csv *csv;      /* keeps the texts */
};

/** Read the built-in zoo. Returns EP_EINVAL with its line if the table is broken. */
EP_MUST_CHECK enum ep_status ep_models_create(struct ep_models **models);
void ep_models_destroy(struct ep_models *models);

/** The model of that name, borrowed from `models`. Returns EP_EINVAL for an unknown name; the nearest
 *  is suggested. */
EP_MUST_CHECK enum ep_status ep_models_find(const struct ep_models *models, const char *name,
                                            const struct ep_model **model);

#endif
