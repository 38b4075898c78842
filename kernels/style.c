/* SPDX-License-Identifier: Apache-2.0 */
/* The table of styles. */
#include "kernels/style.h"

#include "base/options.h"

#include <stddef.h>
#include <string.h>

/* clang-format off */
const struct ep_style ep_styles[] = {
    {.name = "megatron",
     .system = "Megatron-LM's MoE layer with the alltoall dispatcher",
     .router = "top1", .router_more = "topk-softmax", /* at k = 1 it wants the softmax first */
     .rule = "megatron", .rule_by_factor = true,
     .transport = "alltoallv",
     .beyond = "dropless unless a capacity factor is given; all-gather and reduce-scatter over tensor "
               "parallelism around the all-to-all; permutation fused with padding; shared experts "
               "overlapped; flex dispatchers (DeepEP, HybridEP, NCCL-EP)",
     .source = "NVIDIA/Megatron-LM:megatron/core/transformer/moe/{router,token_dispatcher}.py"},
    {.name = "deepspeed",
     .system = "DeepSpeed-MoE's MOELayer",
     .router = "top1", .router_more = "softmax",
     .rule = "deepspeed", .pad = true,
     .transport = "alltoall",
     .beyond = "weights divided by their sum after dropping; Gumbel noise on the second expert at "
               "k = 2; dispatch as a dense [T, E, C] product; residual experts; its hierarchical "
               "and parallelism-coordinated all-to-all",
     .source = "deepspeedai/DeepSpeed:deepspeed/moe/{layer,sharded_moe}.py"},
    {.name = "fairseq",
     .system = "Fairseq's branch moe",
     .router = "top1", .router_more = "softmax-renorm",
     .rule = "fairseq", .pad = true,
     .transport = "alltoall",
     .beyond = "Gumbel noise on the second expert at k = 2; dispatch as a dense [T, E, C] product; "
               "evaluation with a capacity of its own (--capacity-eval); batch-prioritised order",
     .source = "facebookresearch/fairseq (branch moe):fairseq/modules/moe/"},
    {.name = "gshard",
     .system = "GShard's top-2 layer",
     .router = "gshard", .router_more = "gshard",
     .rule = "gshard", .pad = true,
     .transport = "alltoall",
     .beyond = "groups smaller than a rank's tokens; one-hot einsums that XLA partitions",
     .source = "GShard, arXiv 2006.16668 (recalled)"},
    {.name = "switch",
     .system = "Switch Transformer's top-1 layer",
     .router = "switch:0.01", .router_more = "switch:0.01",
     .rule = "switch", .pad = true,
     .transport = "alltoall",
     .beyond = "a second round for tokens that overflowed (No-Token-Left-Behind, --overflow next is the "
               "nearest); float32 router in a bfloat16 model; one-hot einsums",
     .source = "Switch Transformers, arXiv 2101.03961 (recalled)"},
    {.name = "deepep",
     .system = "DeepEP's high-throughput kernels, as DeepSeek-V3 uses them",
     .router = "sigmoid-group:8:4", .router_more = "sigmoid-group:8:4",
     .transport = "hier", .nearest = "alltoallv-dedup",
     .beyond = "FP8 dispatch with BF16 combine (--dtype fp8); kernels on a part of the GPU's SMs; "
               "low-latency kernels with one slot per (token, expert) for decoding",
     .source = "deepseek-ai/DeepEP"},
    {.name = NULL},
};
/* clang-format on */

enum { MAX_STYLES = 16 };

enum ep_status ep_style_find(const char *name, const struct ep_style **style)
{
    const char *names[MAX_STYLES];
    int num = 0;
    for (const struct ep_style *s = ep_styles; s->name != NULL; s++) {
        if (strcmp(s->name, name) == 0) {
            *style = s;
            return EP_OK;
        }
        EP_ASSERT(num < MAX_STYLES);
        names[num++] = s->name;
    }
    const char *nearest = ep_options_nearest(name, names, num);
    return ep_error_set(EP_EINVAL,
                        "--style: unknown '%s'%s%s; there are megatron, deepspeed, "
                        "fairseq, gshard, switch, deepep",
                        name, nearest != NULL ? "; did you mean " : "",
                        nearest != NULL ? nearest : "");
}
