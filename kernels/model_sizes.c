/* SPDX-License-Identifier: Apache-2.0 */
/* Parameter counts, weight types, and where the MoE layers are. */
#include "kernels/model_sizes.h"

#include "base/options.h"
#include "kernels/placement.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *name;
    double expert_bytes;
    double rest_bytes;
} weight_types[EP_NUM_WEIGHT_TYPES] = {
    [EP_WEIGHT_FP32] = {"fp32", 4, 4},
    [EP_WEIGHT_BF16] = {"bf16", 2, 2},
    [EP_WEIGHT_FP8] = {"fp8", 1 + 4.0 / (128 * 128), 2},
    [EP_WEIGHT_MXFP4] = {"mxfp4", 0.5 + 1.0 / 32, 2},
};

void ep_model_count_params(const struct ep_model *model, struct ep_model_params *params)
{
    const double layers = (double)model->num_moe_layers;
    const double matrices = model->gated ? 3 : 2;
    const double hidden = (double)model->hidden;
    struct ep_model_params p = {.total = model->published_total_b * 1e9};
    p.expert = matrices * hidden * (double)model->expert_ffn;
    p.routed = layers * (double)model->num_experts * p.expert;
    p.routed_active = layers * (double)model->top_k * p.expert;
    p.shared = layers * matrices * hidden * (double)model->shared_ffn_total;
    p.router = layers * hidden * (double)model->num_experts;
    p.rest = p.total - p.routed - p.shared - p.router;
    if (isnan(p.total)) {
        p.rest_unknown = "no total is published";
    } else if (p.rest < 0) {
        p.rest = (double)NAN;
        p.rest_unknown = "the published total is below the experts' own parameters";
    }
    *params = p;
}

const char *ep_weight_type_name(enum ep_weight_type type)
{
    EP_ASSERT((unsigned)type < EP_NUM_WEIGHT_TYPES);
    return weight_types[type].name;
}

double ep_weight_type_expert_bytes(enum ep_weight_type type)
{
    EP_ASSERT((unsigned)type < EP_NUM_WEIGHT_TYPES);
    return weight_types[type].expert_bytes;
}

double ep_weight_type_rest_bytes(enum ep_weight_type type)
{
    EP_ASSERT((unsigned)type < EP_NUM_WEIGHT_TYPES);
    return weight_types[type].rest_bytes;
}

enum ep_status ep_weight_type_parse(const char *text, const char *what, enum ep_weight_type *type)
{
    const char *names[EP_NUM_WEIGHT_TYPES];
    for (int i = 0; i < EP_NUM_WEIGHT_TYPES; i++) {
        names[i] = weight_types[i].name;
        if (strcmp(names[i], text) == 0) {
            *type = (enum ep_weight_type)i;
            return EP_OK;
        }
    }
    const char *nearest = ep_options_nearest(text, names, EP_NUM_WEIGHT_TYPES);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "%s: unknown type '%s'; did you mean %s?", what, text,
                              nearest)
               : ep_error_set(EP_EINVAL, "%s: unknown type '%s'; fp32, bf16, fp8 or mxfp4 expected",
                              what, text);
}

enum ep_weight_type ep_weight_type_of_model(const struct ep_model *model, const char **note)
{
    const char *text = model->weight_dtype;
    const char *first = NULL;
    enum ep_weight_type type = EP_WEIGHT_BF16;
    for (int i = 0; i < EP_NUM_WEIGHT_TYPES; i++) {
        const char *found = strstr(text, weight_types[i].name);
        if (found != NULL && (first == NULL || found < first)) {
            first = found;
            type = (enum ep_weight_type)i;
        }
    }
    *note = first == NULL               ? "weight type not known: bf16 taken"
            : strchr(text, '/') != NULL ? "two weight types published: the first taken"
                                        : NULL;
    return type;
}

int64_t ep_model_count_moe_layers(const struct ep_model *model, int64_t first, int64_t end)
{
    const int64_t moe = model->num_moe_layers;
    if (moe == 0) {
        return 0;
    }
    if (model->num_layers % moe == 0) {
        const int64_t step = model->num_layers / moe;
        return end / step - first / step;
    }
    const int64_t dense = model->num_layers - moe;
    return (end > dense ? end - dense : 0) - (first > dense ? first - dense : 0);
}

enum ep_status ep_model_max_local_experts(const struct ep_model *model, int64_t num_ranks,
                                          int64_t *max_local)
{
    struct ep_placement placement = {0};
    const enum ep_status status =
        ep_placement_init_contiguous(model->num_experts, num_ranks, &placement);
    if (status == EP_OK) {
        *max_local = placement.max_local;
    }
    ep_placement_fini(&placement);
    return status;
}
