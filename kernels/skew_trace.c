/* SPDX-License-Identifier: Apache-2.0 */
/* trace:FILE and trace:sample: recorded tokens in order, rank by rank, from the start again at the
 * end. */
#include "kernels/skew_policy.h"

#include <string.h>

static enum ep_status parse(const char *params, struct ep_skew *skew)
{
    if (params[0] == '\0') {
        return ep_error_set(EP_EINVAL, "skew '%s': trace:FILE or trace:sample expected",
                            skew->text);
    }
    const bool sample = strcmp(params, "sample") == 0;
    const enum ep_status status =
        sample ? ep_trace_load_sample(&skew->trace) : ep_trace_load(params, NULL, &skew->trace);
    if (status != EP_OK) {
        return status;
    }
    skew->num_experts = skew->trace->num_experts;
    skew->top_k = skew->trace->top_k;
    skew->more_experts = !sample;
    return EP_OK;
}

static void generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                     int32_t *topk_idx)
{
    const struct ep_trace *trace = router->skew->trace;
    const int64_t k = router->top_k;
    for (int64_t t = 0; t < num_tokens;) {
        const int64_t row = (first_token + t) % trace->num_tokens;
        const int64_t left = trace->num_tokens - row;
        const int64_t num = left < num_tokens - t ? left : num_tokens - t;
        memcpy(topk_idx + t * k, trace->topk_idx + row * k, (size_t)(num * k) * sizeof *topk_idx);
        t += num;
    }
}

const struct ep_skew_policy ep_skew_trace = {
    .name = "trace",
    .usage = "trace:FILE|sample",
    .summary =
        "recorded tokens in order, rank by rank, wrapping; experts and top-k are the trace's",
    .parse = parse,
    .generate = generate,
};
