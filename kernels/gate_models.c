/* SPDX-License-Identifier: Apache-2.0 */
/* The router of each model of the zoo, read from the words of its row. */
#include "kernels/gate.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The first line whose words are all in the router text decides. */
static const struct {
    const char *words[2];
    const char *router;
    const char *router_in_groups; /* where the row names groups; NULL = the same */
    bool is_assumed;
} rules[] = {
    {{"sigmoid + bias", NULL}, "sigmoid-bias", "sigmoid-group", false},
    {{"sigmoid top1", NULL}, "sigmoid", NULL, false},
    {{"softmax top1", "jitter"}, "switch", NULL, false},
    {{"softmax top2", "prob 2*g2"}, "gshard", NULL, false},
    {{"softmax over selected", NULL}, "topk-softmax", NULL, false},
    {{"softmax", "no renorm"}, "softmax", NULL, false},
    {{"softmax", "renorm"}, "softmax-renorm", NULL, false},
    {{"softmax", NULL}, "softmax", "softmax-group", false},
    {{"(see source)", NULL}, "topk-softmax", NULL, true},
    {{"unknown", NULL}, "topk-softmax", NULL, true},
};

static bool has_words(const char *text, const char *const words[2])
{
    return strstr(text, words[0]) != NULL && (words[1] == NULL || strstr(text, words[1]) != NULL);
}

enum ep_status ep_gate_config_from_model(const struct ep_model *model,
                                         struct ep_gate_config *config, bool *assumed)
{
    const bool in_groups = model->num_groups > 1;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (!has_words(model->router, rules[i].words)) {
            continue;
        }
        const char *name = in_groups && rules[i].router_in_groups != NULL
                               ? rules[i].router_in_groups
                               : rules[i].router;
        struct ep_gate_config made;
        const enum ep_status status =
            ep_gate_config_parse(name, model->num_experts, model->top_k, &made);
        if (status != EP_OK) {
            return status;
        }
        if (in_groups && rules[i].router_in_groups != NULL) {
            made.num_groups = model->num_groups;
            made.topk_groups = model->topk_groups;
        }
        made.route_scale = isfinite(model->route_scale) ? model->route_scale : 1;
        *config = made;
        if (assumed != NULL) {
            *assumed = rules[i].is_assumed;
        }
        return EP_OK;
    }
    return ep_error_set(EP_EINVAL, "model %s: no router is known for '%s'", model->name,
                        model->router);
}
