/* SPDX-License-Identifier: Apache-2.0 */
/* Expert choice: each expert takes the tokens that score highest for it, the same number each. */
#include "kernels/gate_policy.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens of an expert: floor(T c / E), one at least, all at most. c: VALUE, or top-k. */
static int64_t tokens_of_expert(const struct ep_gate *gate, int64_t num_tokens)
{
    const double factor = gate->config.value > 0 ? gate->config.value : (double)gate->config.top_k;
    const double num = floor((double)num_tokens * factor / (double)gate->config.num_experts);
    return num < 1 ? 1 : num > (double)num_tokens ? num_tokens : (int64_t)num;
}

/* ln sum exp of one token's logits; -inf where all are. */
static double log_sum(const float *x, int64_t num)
{
    double top = -INFINITY;
    double sum = 0;
    for (int64_t e = 0; e < num; e++) {
        top = fmax(top, (double)x[e]);
    }
    for (int64_t e = 0; top > -INFINITY && e < num; e++) {
        sum += exp((double)x[e] - top);
    }
    return top > -INFINITY ? top + log(sum) : -INFINITY;
}

/* The value of rank `rank` (0 = highest); reorders. Hoare's FIND, CACM 4(7), 1961. */
static double select_value(double *values, int64_t num, int64_t rank)
{
    int64_t low = 0;
    int64_t high = num - 1;
    while (low < high) {
        const double pivot = values[low + (high - low) / 2];
        int64_t i = low;
        int64_t j = high;
        while (i <= j) {
            while (values[i] > pivot) {
                i++;
            }
            while (values[j] < pivot) {
                j--;
            }
            if (i <= j) {
                const double kept = values[i];
                values[i++] = values[j];
                values[j--] = kept;
            }
        }
        if (rank <= j) {
            high = j;
        } else if (rank >= i) {
            low = i;
        } else {
            return values[rank];
        }
    }
    return values[rank];
}

/* One expert's tokens: all above the last score that gets in, and the first of those equal to it.
 */
static void choose_tokens(const struct ep_gate *gate, int64_t expert, const double *keys,
                          double *scratch, int64_t num_chosen, int64_t *used,
                          struct ep_routing *routing, int64_t num_tokens)
{
    const int64_t slots = routing->top_k;
    memcpy(scratch, keys, (size_t)num_tokens * sizeof *scratch);
    const double last = select_value(scratch, num_tokens, num_chosen - 1);
    int64_t num_equal = num_chosen;
    for (int64_t t = 0; t < num_tokens; t++) {
        num_equal -= keys[t] > last;
    }
    for (int64_t t = 0; t < num_tokens; t++) {
        if (keys[t] == -INFINITY || keys[t] < last || (keys[t] == last && num_equal-- <= 0)) {
            continue;
        }
        const int64_t slot = t * slots + used[t]++;
        routing->topk_idx[slot] = (int32_t)expert;
        if (routing->topk_weight != NULL) {
            routing->topk_weight[slot] = (float)(exp(keys[t]) * gate->config.route_scale);
        }
    }
}

static enum ep_status choose_batch(struct ep_gate *gate, const struct ep_gate_batch *batch,
                                   struct ep_routing *routing)
{
    enum ep_status status = EP_OK;
    const int64_t num = batch->num_tokens;
    const int64_t num_experts = gate->config.num_experts;
    const size_t size = (size_t)num + 1;
    double *sums = malloc(size * sizeof *sums);
    double *keys = malloc(size * sizeof *keys);
    double *scratch = malloc(size * sizeof *scratch);
    int64_t *used = calloc(size, sizeof *used);
    if (sums == NULL || keys == NULL || scratch == NULL || used == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for expert choice of %" PRId64 " tokens", num);
        goto out;
    }
    memset(routing->topk_idx, 0xff, (size_t)(num * routing->top_k) * sizeof *routing->topk_idx);
    if (routing->topk_weight != NULL) {
        memset(routing->topk_weight, 0,
               (size_t)(num * routing->top_k) * sizeof *routing->topk_weight);
    }
    for (int64_t t = 0; t < num; t++) {
        const float *x = batch->logits + t * num_experts;
        EP_TRY(ep_gate_check_logits(gate, batch->first_token + t, x));
        sums[t] = log_sum(x, num_experts);
    }
    for (int64_t e = 0; num > 0 && e < num_experts; e++) {
        for (int64_t t = 0; t < num; t++) {
            const double logit = (double)batch->logits[t * num_experts + e];
            keys[t] = logit > -INFINITY ? logit - sums[t] : -INFINITY;
        }
        choose_tokens(gate, e, keys, scratch, tokens_of_expert(gate, num), used, routing, num);
    }
out:
    free(sums);
    free(keys);
    free(scratch);
    free(used);
    return status;
}

const struct ep_gate_policy ep_gate_expert_choice = {
    .name = "expert-choice",
    .usage = "expert-choice[:FACTOR]",
    .summary = "each expert takes its floor(tokens x FACTOR / experts) best tokens by softmax "
               "(default: top-k, or 2)",
    .source = "Zhou et al., arXiv 2202.09368 (recalled)",
    .usual_top_k = 2,
    .score = EP_GATE_SOFTMAX,
    .value_name = "FACTOR",
    .value = 0,
    .min_value = 0,
    .max_value = EP_MAX_EXPERTS,
    .choose_batch = choose_batch,
};
