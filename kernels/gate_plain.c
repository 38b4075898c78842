/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of routers that choose by logits: one token at a time, in double. */
#include "kernels/gate_policy.h"

#include <inttypes.h>
#include <math.h>

enum ep_status ep_gate_check_logits(const struct ep_gate *gate, int64_t token, const float *x)
{
    for (int64_t e = 0; e < gate->config.num_experts; e++) {
        if (!(x[e] < INFINITY)) {
            return ep_error_set(EP_EINVAL,
                                "router %s: token %" PRId64 ", expert %" PRId64
                                ": logit %g; a finite number or -inf expected",
                                ep_gate_name(&gate->config), token, e, (double)x[e]);
        }
    }
    return EP_OK;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* What experts are ranked by. Softmax and the sigmoid alone rise with the logit, so the logit
 * itself is taken: nothing can round to a tie. */
static void fill_keys(const struct ep_gate *gate, const float *x, double *keys)
{
    const bool by_logit = gate->plan.bias == NULL;
    for (int64_t e = 0; e < gate->config.num_experts; e++) {
        const double logit = (double)x[e];
        keys[e] = by_logit || logit == -INFINITY ? logit : sigmoid(logit) + (double)gate->bias[e];
    }
}

/* Sum of the two highest keys of a group (of the one, where it has no second), or the highest. */
static double score_group(const struct ep_gate *gate, const double *keys, int64_t size)
{
    double first = -INFINITY;
    double second = -INFINITY;
    for (int64_t e = 0; e < size; e++) {
        second = keys[e] > first ? first : keys[e] > second ? keys[e] : second;
        first = keys[e] > first ? keys[e] : first;
    }
    const bool is_sum = gate->config.policy->group_rule == EP_GATE_GROUP_TOP2 && size > 1;
    return is_sum ? first + second : first;
}

/* Experts outside the best groups (ties: lowest index) get a key of -inf. */
static void limit_groups(struct ep_gate *gate, double *keys)
{
    const struct ep_gate_plan *plan = &gate->plan;
    const int64_t size = plan->group_size;
    for (int64_t g = 0; g < plan->num_groups; g++) {
        gate->groups[g] = 0;
    }
    for (int64_t n = 0; n < plan->topk_groups; n++) {
        int64_t best = -1;
        double best_score = -INFINITY;
        for (int64_t g = 0; g < plan->num_groups; g++) {
            const double score = score_group(gate, keys + g * size, size);
            if (gate->groups[g] == 0 && (best < 0 || score > best_score)) {
                best = g;
                best_score = score;
            }
        }
        gate->groups[best] = 1;
    }
    for (int64_t e = 0; e < plan->num_experts; e++) {
        keys[e] = gate->groups[e / size] != 0 ? keys[e] : -INFINITY;
    }
}

/* The weights of the experts chosen, in their order; n of them are used. */
static void fill_weights(const struct ep_gate *gate, const float *x, const int32_t *idx, int64_t n,
                         float *weight)
{
    const struct ep_gate_policy *policy = gate->config.policy;
    const int64_t k = gate->config.top_k;
    double sum = 0;
    double top = -INFINITY; /* of all experts: the highest may be outside the kept groups */
    for (int64_t e = 0; e < gate->config.num_experts; e++) {
        top = fmax(top, (double)x[e]);
    }
    if (policy->score == EP_GATE_SOFTMAX_CHOSEN || policy->renormalises) {
        for (int64_t i = 0; i < n; i++) {
            const double logit = (double)x[idx[i]];
            sum +=
                policy->score == EP_GATE_SIGMOID ? sigmoid(logit) : exp(logit - (double)x[idx[0]]);
        }
        top = n > 0 ? (double)x[idx[0]] : 0;
    } else if (policy->score == EP_GATE_SOFTMAX) {
        for (int64_t e = 0; e < gate->config.num_experts; e++) {
            sum += exp((double)x[e] - top);
        }
    } else {
        sum = 1;
    }
    for (int64_t i = 0; i < k; i++) {
        if (i >= n) {
            weight[i] = 0;
            continue;
        }
        const double logit = (double)x[idx[i]];
        const double score = policy->score == EP_GATE_SIGMOID ? sigmoid(logit) : exp(logit - top);
        weight[i] = sum > 0 ? (float)(score / sum * gate->config.route_scale) : 0;
    }
}

enum ep_status ep_gate_choose_plain(struct ep_gate *gate, int64_t token, const float *x,
                                    int32_t *idx, float *weight)
{
    const struct ep_gate_plan *plan = &gate->plan;
    double *keys = gate->keys;
    const enum ep_status status = ep_gate_check_logits(gate, token, x);
    if (status != EP_OK) {
        return status;
    }
    fill_keys(gate, x, keys);
    if (plan->num_groups > 1) {
        limit_groups(gate, keys);
    }
    int64_t n = 0;
    for (int64_t i = 0; i < plan->top_k; i++) {
        int64_t best = 0;
        for (int64_t e = 1; e < plan->num_experts; e++) {
            best = keys[e] > keys[best] ? e : best;
        }
        idx[i] = keys[best] > -INFINITY ? (int32_t)best : -1;
        n += idx[i] >= 0;
        keys[best] = -INFINITY;
    }
    if (weight != NULL) {
        fill_weights(gate, x, idx, n, weight);
    }
    return EP_OK;
}
