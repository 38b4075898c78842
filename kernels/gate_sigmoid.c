/* SPDX-License-Identifier: Apache-2.0 */
/* Sigmoid routers: alone, with a bias that steers the choice only, and limited to groups. */
#include "kernels/gate_policy.h"

const struct ep_gate_policy ep_gate_sigmoid = {
    .name = "sigmoid",
    .usage = "sigmoid",
    .summary = "sigmoid of each logit, top-k, weights as they are",
    .source = "transformers configuration_llama4.py",
    .score = EP_GATE_SIGMOID,
};

const struct ep_gate_policy ep_gate_sigmoid_bias = {
    .name = "sigmoid-bias",
    .usage = "sigmoid-bias",
    .summary = "top-k of sigmoid + bias; weights: the sigmoids without bias, divided by their sum",
    .source = "Megatron-MoE-ModelZoo (Kimi-K2), transformers configuration_glm4_moe.py",
    .score = EP_GATE_SIGMOID,
    .renormalises = true,
    .has_bias = true,
};

const struct ep_gate_policy ep_gate_sigmoid_group = {
    .name = "sigmoid-group",
    .usage = "sigmoid-group[:GROUPS:KEPT]",
    .summary = "sigmoid-bias within the groups whose best two sum highest (default 8:4)",
    .source = "deepseek-ai/DeepSeek-V3 inference/model.py:Gate",
    .score = EP_GATE_SIGMOID,
    .renormalises = true,
    .has_bias = true,
    .group_rule = EP_GATE_GROUP_TOP2,
    .num_groups = 8,
    .topk_groups = 4,
};
