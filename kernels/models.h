/* SPDX-License-Identifier: Apache-2.0 */
/* The model zoo: shapes of Mixture-of-Experts models, built into the program or from a file. */
#ifndef EP_KERNELS_MODELS_H
#define EP_KERNELS_MODELS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/** One model. Texts are borrowed from the zoo; numbers that a source does not give are NaN, counts
 *  that it does not give are 0. A dense model has no experts: num_experts, top_k, expert_ffn and
 *  num_moe_layers are 0. */
struct ep_model {
    const char *name;    /* "deepseek-v3" */
    int64_t hidden;      /* elements of a token row */
    int64_t expert_ffn;  /* inner width of one routed expert */
    int64_t num_experts; /* routed experts of a layer; 0 = dense */
    int64_t top_k;
    int64_t num_shared;       /* shared experts of a layer, each token uses all */
    int64_t shared_ffn_total; /* their inner widths, summed */
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
    int64_t dense_ffn;    /* inner width of the FFN of dense layers; 0 = unknown or no such layer */
    int64_t num_heads;    /* attention heads; 0 = unknown */
    int64_t num_kv_heads; /* of keys and values, where fewer; 0 = unknown or not grouped */
    const char *heads_source;
};

struct ep_csv;
struct json_t;

/** Models in the order of their file. Created by ep_models_create or ep_models_load. */
struct ep_models {
    const char *path; /* of the file, for messages; borrowed */
    int64_t num;
    struct ep_model *models; /* [num] */
    struct ep_csv *csv;      /* keeps the texts */
    struct json_t *json;     /* keeps the texts, where the file is JSON */
};

/** Read the built-in zoo. Returns EP_EINVAL with its line if the table is broken. */
EP_MUST_CHECK enum ep_status ep_models_create(struct ep_models **models);

/** Read a user's models: CSV with the zoo's columns, or JSON (an object, an array of them, or
 *  {"models": [...]}, keys = columns). Format: kernels/README.md, "Models".
 *  path  borrowed until destroy; "-" = standard input
 *  Returns EP_EINVAL with file and line (JSON: file and model) for a column that is unknown,
 * missing or out of range, for counts that contradict each other, and for a name that comes twice.
 */
EP_MUST_CHECK enum ep_status ep_models_load(const char *path, struct ep_models **models);
void ep_models_destroy(struct ep_models *models);

/** The model of that name, borrowed from `models`. Returns EP_EINVAL for an unknown name (the
 * nearest is suggested), and for a dense model: it has no experts to route to. */
EP_MUST_CHECK enum ep_status ep_models_find(const struct ep_models *models, const char *name,
                                            const struct ep_model **model);

/** The same, but a dense model is an answer too. */
EP_MUST_CHECK enum ep_status ep_models_find_any(const struct ep_models *models, const char *name,
                                                const struct ep_model **model);

/** The model `name` of a user's file, or of the zoo where file is NULL; name NULL where the file
 * holds one alone. models  keeps the texts; to be destroyed after `model`. Dense models are an
 * answer too. */
EP_MUST_CHECK enum ep_status ep_models_open(const char *file, const char *name,
                                            struct ep_models **models,
                                            const struct ep_model **model);

/** Returns EP_EINVAL for a dense model: it has no experts to route to. */
EP_MUST_CHECK enum ep_status ep_model_need_experts(const struct ep_model *model);

/** Counts that must hang together: top-k within the experts, MoE layers within the layers, groups
 *  that divide the experts, routed parameters as the shape has them; `where` opens the message. */
EP_MUST_CHECK enum ep_status ep_model_check(const struct ep_model *model, const char *where);

static inline bool ep_model_is_dense(const struct ep_model *model)
{
    return model->num_experts == 0;
}

/** True where the table's confidence says that it is a rumour. */
bool ep_model_is_rumour(const struct ep_model *model);

/** Columns of the zoo, for those who read or write a model field by field. */
enum ep_model_column_kind {
    EP_MODEL_TEXT,
    EP_MODEL_COUNT,         /* 1 and more */
    EP_MODEL_COUNT_OR_ZERO, /* empty = 0 */
    EP_MODEL_REAL_OR_NAN,   /* empty = NaN */
    EP_MODEL_FLAG           /* 0 or 1; in JSON true or false as well */
};

struct ep_model_column {
    const char *name;
    enum ep_model_column_kind kind;
    bool required;
    int offset; /* in struct ep_model */
};

/** Column `idx` >= 0 in the order of the file; NULL past the last. */
const struct ep_model_column *ep_model_column_at(int idx);

#endif
