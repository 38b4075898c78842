/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax routers: over all experts or over those chosen, renormalised or not, limited to groups.
 */
#include "kernels/gate_policy.h"

const struct ep_gate_policy ep_gate_softmax = {
    .name = "softmax",
    .usage = "softmax",
    .summary = "softmax over all experts, then top-k",
    .source = "deepseek-ai/DeepSeek-V3 inference/model.py (V2-Lite), allenai/OLMoE",
    .score = EP_GATE_SOFTMAX,
};

const struct ep_gate_policy ep_gate_softmax_renorm = {
    .name = "softmax-renorm",
    .usage = "softmax-renorm",
    .summary = "softmax over all experts, then top-k, weights divided by their sum",
    .source = "Megatron-MoE-ModelZoo (Qwen3), databricks/dbrx",
    .score = EP_GATE_SOFTMAX,
    .renormalises = true,
};

const struct ep_gate_policy ep_gate_topk_softmax = {
    .name = "topk-softmax",
    .usage = "topk-softmax",
    .summary = "top-k, then softmax over the chosen",
    .source = "Megatron-MoE-ModelZoo (Mixtral), openai/gpt-oss",
    .score = EP_GATE_SOFTMAX_CHOSEN,
};

const struct ep_gate_policy ep_gate_softmax_group = {
    .name = "softmax-group",
    .usage = "softmax-group[:GROUPS:KEPT]",
    .summary = "softmax, then top-k within the groups whose best expert is highest (default 8:3)",
    .source = "deepseek-ai/DeepSeek-V3 inference/model.py:Gate (V2)",
    .score = EP_GATE_SOFTMAX,
    .group_rule = EP_GATE_GROUP_MAX,
    .num_groups = 8,
    .topk_groups = 3,
};

const struct ep_gate_policy ep_gate_top1 = {
    .name = "top1",
    .usage = "top1",
    .summary = "softmax over all experts, the best one",
    .source = "Switch Transformer without jitter (recalled)",
    .top_k = 1,
    .score = EP_GATE_SOFTMAX,
};

const struct ep_gate_policy ep_gate_top2 = {
    .name = "top2",
    .usage = "top2",
    .summary = "softmax over all experts, the best two, weights divided by their sum",
    .source = "deepspeedai/DeepSpeed deepspeed/moe/sharded_moe.py:top2gating",
    .top_k = 2,
    .score = EP_GATE_SOFTMAX,
    .renormalises = true,
};
