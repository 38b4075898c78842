/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters and weight bytes of a model: routed, shared, router, and the rest that is derived. */
#ifndef EP_KERNELS_MODEL_SIZES_H
#define EP_KERNELS_MODEL_SIZES_H

#include "base/error.h"
#include "kernels/models.h"

#include <stdint.h>

/** Parameters of a model, exact in double. Source: kernels/README.md, "Models". */
struct ep_model_params {
    double expert;        /* of one routed expert: matrices x hidden x ffn; 0 = dense */
    double routed;        /* MoE layers x experts x expert */
    double routed_active; /* MoE layers x top-k x expert: those one token uses */
    double shared;        /* shared experts of all layers */
    double router;        /* MoE layers x hidden x experts */
    double total;         /* as published; NaN = not */
    double rest; /* total - routed - shared - router: attention, embeddings, dense FFNs; NaN =
                    unknown */
    const char *rest_unknown; /* why; NULL where it is known. A literal */
};

void ep_model_count_params(const struct ep_model *model, struct ep_model_params *params);

/** Types that weights are stored in. */
enum ep_weight_type {
    EP_WEIGHT_FP32,
    EP_WEIGHT_BF16,
    EP_WEIGHT_FP8,
    EP_WEIGHT_MXFP4,
    EP_NUM_WEIGHT_TYPES
};

/** "fp32", "bf16", "fp8", "mxfp4". */
const char *ep_weight_type_name(enum ep_weight_type type);

/** Bytes per parameter of experts, scales included: 4; 2; 1 + 4/128^2 (fp8, one fp32 scale per
 * block of 128 x 128, as DeepSeek-V3 publishes); 1/2 + 1/32 (mxfp4, one byte of scale per 32: OCP
 * Microscaling Formats v1.0). The rest of the model and routers are bf16 where experts are fp8 or
 * mxfp4, else of the same type. */
double ep_weight_type_expert_bytes(enum ep_weight_type type);
double ep_weight_type_rest_bytes(enum ep_weight_type type);

/** Find a type by its name; `what` names the option. Returns EP_EINVAL with the names there are. */
EP_MUST_CHECK enum ep_status ep_weight_type_parse(const char *text, const char *what,
                                                  enum ep_weight_type *type);

/** The type that a model is published in: the first that its `weight_dtype` names; bf16 where it
 *  names none that is known.
 *  note  a literal that says what was decided where the text was not plain; NULL else */
enum ep_weight_type ep_weight_type_of_model(const struct ep_model *model, const char **note);

/** MoE layers among layers first .. end-1, 0 <= first <= end <= layers. Where the layers are a
 * multiple of the MoE layers, every (layers / MoE layers)-th is one (the last of its block); else
 * the dense layers come first. Sources: transformers interleave_moe_layer_step of Llama 4;
 * first_k_dense_replace of DeepSeek-V3. */
int64_t ep_model_count_moe_layers(const struct ep_model *model, int64_t first, int64_t end);

/** Most experts of a layer on one of num_ranks by the contiguous rule (kernels/README.md, "Experts
 *  on ranks"). Returns EP_EINVAL for ranks above the experts that are no multiple of them. */
EP_MUST_CHECK enum ep_status ep_model_max_local_experts(const struct ep_model *model,
                                                        int64_t num_ranks, int64_t *max_local);

#endif
