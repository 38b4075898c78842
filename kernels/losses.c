/* SPDX-License-Identifier: Apache-2.0 */
/* The table of balancing losses and what evaluates them. */
#include "kernels/losses.h"

#include "base/options.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double scale_plain(const struct ep_loss_shape *s)
{
    return 1 / (s->tokens * s->tokens * s->top_k);
}

static double scale_all(const struct ep_loss_shape *s)
{
    return s->experts / (s->tokens * s->tokens * s->top_k);
}

static double scale_first(const struct ep_loss_shape *s)
{
    return s->experts / (s->tokens * s->tokens);
}

static double scale_gshard(const struct ep_loss_shape *s)
{
    return 1 / (s->experts * s->tokens * s->tokens);
}

/* The code squares the experts of one worker, while its mean is over all of them. */
static double scale_fastmoe_gshard(const struct ep_loss_shape *s)
{
    const double local = s->experts / s->ranks;
    return local * local / (s->experts * s->tokens * s->tokens);
}

static double scale_fastmoe_switch(const struct ep_loss_shape *s)
{
    return s->experts / (s->used * s->used);
}

#define MEGATRON  "Megatron-LM megatron/core/transformer/moe/"
#define DEEPSPEED "DeepSpeed deepspeed/moe/sharded_moe.py "

const struct ep_loss ep_losses[] = {
    {.name = "plain",
     .formula = "sum f_i P_i",
     .source = "kernels/README.md, \"Losses\"",
     .scale = scale_plain},
    {.name = "megatron",
     .formula = "E sum f_i P_i",
     .source = MEGATRON "moe_utils.py switch_load_balancing_loss_func",
     .scale = scale_all},
    {.name = "megatron-seq",
     .formula = "mean over sequences of E sum f_i P_i, each of its own tokens",
     .source = MEGATRON "router.py _apply_seq_aux_loss",
     .per_sequence = true,
     .scale = scale_all},
    {.name = "megatron-global",
     .formula = "E sum f_i P_i, f_i the mean over the micro-batches so far",
     .source = MEGATRON "router.py _apply_global_aux_loss",
     .scale = scale_all},
    {.name = "deepspeed-top1",
     .formula = "E sum me_i ce_i, ce_i = first choices_i / T",
     .source = DEEPSPEED "top1gating",
     .first_only = true,
     .scale = scale_first},
    {.name = "deepspeed-top2",
     .formula = "E^2 mean(me_i ce_i), ce_i = first choices_i / T",
     .source = DEEPSPEED "top2gating",
     .first_only = true,
     .scale = scale_first},
    {.name = "deepspeed-topk",
     .formula = "E^2 mean(me_i ce_i) / k, ce_i = copies_i / T",
     .source = DEEPSPEED "topkgating",
     .scale = scale_all},
    {.name = "fairseq",
     .formula = "E^2 mean(me_i ce_i), ce_i = first choices_i / T",
     .source = "fairseq branch moe, fairseq/modules/moe/top1gate.py, top2gate.py",
     .first_only = true,
     .scale = scale_first},
    {.name = "gshard",
     .formula = "(1/E) sum (c_i / S) m_i, c_i = first choices_i, S = T",
     .source = "GShard, arXiv 2006.16668, algorithm 1",
     .recalled = true,
     .first_only = true,
     .scale = scale_gshard},
    {.name = "switch",
     .formula = "E sum f_i P_i, f_i = first choices_i / T",
     .source = "Switch Transformers, arXiv 2101.03961, eq. 4; weight 1e-2",
     .recalled = true,
     .first_only = true,
     .scale = scale_first},
    {.name = "fastmoe-gshard",
     .formula = "(E / workers)^2 mean(c_i m_i), c_i = first choices_i / T",
     .source = "FastMoE fmoe/gates/gshard_gate.py",
     .first_only = true,
     .scale = scale_fastmoe_gshard},
    {.name = "fastmoe-switch",
     .formula =
         "E sum f_i P_i over the U tokens that were not dropped: kept_i / U, sum of probs / U",
     .source = "FastMoE fmoe/gates/switch_gate.py",
     .scale = scale_fastmoe_switch},
    {.name = "tutel-gshard",
     .formula = "sum me_i ce_i / T, ce_i = first choices_i E / T, me_i = sum of probs",
     .source = "Tutel tutel/impls/losses.py gshard_loss",
     .first_only = true,
     .scale = scale_first},
    {.name = "tutel-load-importance",
     .formula = "(cv^2 of sum_t probs + cv^2 of sum_t Phi((probs - k-th logit) E / noise)) / 2",
     .source = "Tutel tutel/impls/losses.py load_importance_loss",
     .needs_logits = true},
    {.name = "megablocks",
     .formula = "E / (T k) sum copies_i P_i",
     .source = "Megablocks megablocks/layers/moe.py load_balancing_loss",
     .scale = scale_all},
    {.name = "deepseek-v3",
     .formula =
         "mean over sequences of sum f_i P_i, f_i = E / (k T) copies_i, probs = s / sum of s",
     .source = "DeepSeek-V3, arXiv 2412.19437, eq. 17 to 20; weight 1e-4",
     .recalled = true,
     .per_sequence = true,
     .scale = scale_all},
    {.name = NULL},
};

enum ep_status ep_loss_find(const char *name, const char *what, const struct ep_loss **loss)
{
    const char *names[sizeof ep_losses / sizeof ep_losses[0]];
    int num = 0;
    for (; ep_losses[num].name != NULL; num++) {
        if (strcmp(ep_losses[num].name, name) == 0) {
            *loss = &ep_losses[num];
            return EP_OK;
        }
        names[num] = ep_losses[num].name;
    }
    char all[512] = "";
    for (int i = 0; i < num; i++) {
        strcat(strcat(all, i == 0 ? "" : ", "), names[i]);
        EP_ASSERT(strlen(all) < sizeof all - 64);
    }
    const char *nearest = ep_options_nearest(name, names, num);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "%s: no loss '%s'; did you mean %s?", what, name, nearest)
               : ep_error_set(EP_EINVAL, "%s: no loss '%s'; there are %s", what, name, all);
}

/* --- losses of counts and probabilities ------------------------------------------------------ */

/* Copies of tokens first .. first+num-1 per expert, as the loss counts them; the slots in use. */
static int64_t count_copies(const struct ep_loss *loss, const struct ep_routing *routing,
                            int64_t first, int64_t num, double *copies)
{
    int64_t used = 0;
    memset(copies, 0, (size_t)routing->num_experts * sizeof *copies);
    for (int64_t t = first; t < first + num; t++) {
        const int32_t *topk_idx = &routing->topk_idx[t * routing->top_k];
        for (int64_t k = 0; k < routing->top_k; k++) {
            if (topk_idx[k] >= 0) {
                copies[topk_idx[k]] += k == 0 || !loss->first_only;
                used++;
            }
        }
    }
    return used;
}

bool ep_loss_has_top_k(const struct ep_loss *loss, int64_t top_k)
{
    return loss->scale != scale_fastmoe_switch || top_k == 1;
}

static enum ep_status check_batch(const struct ep_loss *loss, const struct ep_loss_batch *batch)
{
    const struct ep_routing *r = batch->routing;
    EP_ASSERT(r->num_tokens >= 1 && batch->probs != NULL);
    const int64_t length = batch->sequence_tokens;
    if (loss->per_sequence && (length < 0 || (length > 0 && r->num_tokens % length != 0))) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " tokens are not whole sequences of %" PRId64,
                            loss->name, r->num_tokens, length);
    }
    if (!ep_loss_has_top_k(loss, r->top_k)) {
        return ep_error_set(EP_EINVAL, "%s: top-k is %" PRId64 ", this gate has top-1 alone",
                            loss->name, r->top_k);
    }
    if (loss->scale == scale_fastmoe_gshard && batch->num_ranks < 1) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " workers, 1 and more expected", loss->name,
                            batch->num_ranks);
    }
    if (loss->needs_logits && (batch->logits == NULL || !(batch->gate_noise > 0))) {
        return ep_error_set(EP_EINVAL, "%s: needs logits and a gate noise above 0", loss->name);
    }
    return EP_OK;
}

/* Weight of each expert's probabilities in tokens first .. first+num-1: d loss / d probs. */
static void weigh_experts(const struct ep_loss *loss, const struct ep_loss_batch *batch,
                          int64_t first, int64_t num, double *weights)
{
    const struct ep_routing *r = batch->routing;
    const struct ep_loss_shape shape = {
        .tokens = (double)num,
        .used = (double)count_copies(loss, r, first, num, weights),
        .experts = (double)r->num_experts,
        .top_k = (double)r->top_k,
        .ranks = (double)batch->num_ranks,
    };
    if (batch->counts != NULL && !loss->per_sequence) {
        memcpy(weights, batch->counts, (size_t)r->num_experts * sizeof *weights);
    }
    const double scale = shape.used > 0 ? loss->scale(&shape) : 0;
    for (int64_t e = 0; e < r->num_experts; e++) {
        weights[e] *= scale * (double)num / (double)r->num_tokens;
    }
}

/* --- Tutel's load and importance ------------------------------------------------------------- */

/* Squared coefficient of variation as the code takes it: unbiased variance / (mean^2 + 1e-10). */
static double squared_cv(const double *values, int64_t num)
{
    double mean = 0;
    double squares = 0;
    for (int64_t i = 0; i < num; i++) {
        mean += values[i] / (double)num;
    }
    for (int64_t i = 0; i < num; i++) {
        squares += (values[i] - mean) * (values[i] - mean);
    }
    return squares / (double)(num - 1) / (mean * mean + 1e-10);
}

/* The threshold is the k-th logit although what is compared is a probability: as in the code. */
static double load_importance(const struct ep_loss_batch *batch, double *load, double *importance)
{
    const struct ep_routing *r = batch->routing;
    const int64_t num = r->num_experts;
    const double deviation = batch->gate_noise / (double)num;
    memset(load, 0, (size_t)num * sizeof *load);
    memset(importance, 0, (size_t)num * sizeof *importance);
    for (int64_t t = 0; t < r->num_tokens; t++) {
        const int32_t last = r->topk_idx[(t + 1) * r->top_k - 1];
        for (int64_t e = 0; e < num; e++) {
            const double prob = (double)batch->probs[t * num + e];
            importance[e] += prob;
            if (last >= 0) {
                const double over = prob - (double)batch->logits[t * num + last];
                load[e] += 0.5 * erfc(-over / deviation * sqrt(0.5));
            }
        }
    }
    return (squared_cv(importance, num) + squared_cv(load, num)) / 2;
}

/* --- values and gradients -------------------------------------------------------------------- */

static int64_t group_tokens(const struct ep_loss *loss, const struct ep_loss_batch *batch)
{
    return loss->per_sequence && batch->sequence_tokens > 0 ? batch->sequence_tokens
                                                            : batch->routing->num_tokens;
}

enum ep_status ep_loss_evaluate(const struct ep_loss *loss, const struct ep_loss_batch *batch,
                                double *value)
{
    const struct ep_routing *r = batch->routing;
    enum ep_status status;
    double *weights = NULL;
    EP_TRY(check_batch(loss, batch));
    weights = calloc((size_t)r->num_experts * 2, sizeof *weights);
    if (weights == NULL) {
        EP_TRY(
            ep_error_set(EP_ENOMEM, "no memory for a loss of %" PRId64 " experts", r->num_experts));
    }
    if (loss->needs_logits) {
        *value = load_importance(batch, weights, weights + r->num_experts);
        goto out;
    }
    double sum = 0;
    const int64_t length = group_tokens(loss, batch);
    for (int64_t first = 0; first < r->num_tokens; first += length) {
        weigh_experts(loss, batch, first, length, weights);
        for (int64_t t = first; t < first + length; t++) {
            for (int64_t e = 0; e < r->num_experts; e++) {
                sum += weights[e] * (double)batch->probs[t * r->num_experts + e];
            }
        }
    }
    *value = sum;
out:
    free(weights);
    return status;
}

enum ep_status ep_loss_add_gradient(const struct ep_loss *loss, const struct ep_loss_batch *batch,
                                    double coefficient, float *gradient)
{
    const struct ep_routing *r = batch->routing;
    enum ep_status status;
    double *weights = NULL;
    if (loss->needs_logits) {
        return ep_error_set(EP_EINVAL, "%s: has a value here, but no gradient to train with",
                            loss->name);
    }
    EP_TRY(check_batch(loss, batch));
    weights = calloc((size_t)r->num_experts, sizeof *weights);
    if (weights == NULL) {
        EP_TRY(
            ep_error_set(EP_ENOMEM, "no memory for a loss of %" PRId64 " experts", r->num_experts));
    }
    const int64_t length = group_tokens(loss, batch);
    for (int64_t first = 0; first < r->num_tokens; first += length) {
        weigh_experts(loss, batch, first, length, weights);
        for (int64_t t = first; t < first + length; t++) {
            for (int64_t e = 0; e < r->num_experts; e++) {
                gradient[t * r->num_experts + e] += (float)(coefficient * weights[e]);
            }
        }
    }
out:
    free(weights);
    return status;
}

/* --- z-loss and bias ------------------------------------------------------------------------- */

static double log_sum_exp(const float *logits, int64_t num)
{
    EP_ASSERT(num >= 1);
    double max = (double)logits[0];
    for (int64_t e = 1; e < num; e++) {
        max = fmax(max, (double)logits[e]);
    }
    double sum = exp((double)logits[0] - max);
    for (int64_t e = 1; e < num; e++) {
        sum += exp((double)logits[e] - max);
    }
    return max + log(sum);
}

double ep_loss_z(const float *logits, int64_t num_tokens, int64_t num_experts)
{
    double sum = 0;
    for (int64_t t = 0; t < num_tokens; t++) {
        const double z = log_sum_exp(&logits[t * num_experts], num_experts);
        sum += z * z;
    }
    return sum / (double)num_tokens;
}

void ep_loss_z_add_gradient(const float *logits, int64_t num_tokens, int64_t num_experts,
                            double coefficient, float *gradient)
{
    for (int64_t t = 0; t < num_tokens; t++) {
        const float *row = &logits[t * num_experts];
        const double z = log_sum_exp(row, num_experts);
        for (int64_t e = 0; e < num_experts; e++) {
            gradient[t * num_experts + e] +=
                (float)(coefficient * 2 * z * exp((double)row[e] - z) / (double)num_tokens);
        }
    }
}

void ep_loss_update_bias(const int64_t *loads, int64_t num_experts, double rate, float *bias)
{
    int64_t total = 0;
    for (int64_t e = 0; e < num_experts; e++) {
        total += loads[e];
    }
    for (int64_t e = 0; e < num_experts; e++) {
        const int64_t short_of = total - loads[e] * num_experts; /* x experts: no rounding */
        bias[e] += (float)(rate * (double)((short_of > 0) - (short_of < 0)));
    }
}
