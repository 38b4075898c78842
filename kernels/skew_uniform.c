/* SPDX-License-Identifier: Apache-2.0 */
/* uniform: every set of top-k experts is equally likely. */
#include "kernels/skew_policy.h"

#include "kernels/sample.h"

static enum ep_status parse(const char *params, struct ep_skew *skew)
{
    return params[0] == '\0' && skew->text[sizeof "uniform" - 1] == '\0'
               ? EP_OK
               : ep_error_set(EP_EINVAL, "skew '%s': uniform takes no parameter", skew->text);
}

static void generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                     int32_t *topk_idx)
{
    ep_sample_subsets(router->seed, EP_RANDOM_ROUTING, (uint64_t)first_token, num_tokens,
                      router->num_experts, router->top_k, topk_idx);
}

const struct ep_skew_policy ep_skew_uniform = {
    .name = "uniform",
    .usage = "uniform",
    .summary = "every set of top-k experts equally likely",
    .parse = parse,
    .generate = generate,
};
