/* SPDX-License-Identifier: Apache-2.0 */
/* Enumerating plans in both conventions, and putting them in order. */
#include "kernels/plan.h"

#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const convention_names[EP_PLAN_NUM_CONVENTIONS] = {
    [EP_PLAN_PRODUCT] = "product",
    [EP_PLAN_FOLDING] = "folding",
};

static const char *const rule_texts[EP_PLAN_NUM_RULES] = {
    [EP_PLAN_RULE_EXPERTS] = "EP does not divide the experts",
    [EP_PLAN_RULE_EP_IN_DP] = "EP does not divide DP",
    [EP_PLAN_RULE_EXPERT_TP] = "expert TP is above TP",
    [EP_PLAN_RULE_LAYERS] = "PP is above the layers",
    [EP_PLAN_RULE_HIDDEN] = "TP does not divide hidden",
    [EP_PLAN_RULE_HEADS] = "TP does not divide the attention heads",
    [EP_PLAN_RULE_EXPERT_FFN] = "expert TP does not divide the expert FFN",
    [EP_PLAN_RULE_SHARED_FFN] = "TP does not divide the shared FFN",
    [EP_PLAN_RULE_DENSE_FFN] = "TP does not divide the dense FFN",
    [EP_PLAN_RULE_TOKENS] = "TP does not divide the tokens",
};

const char *ep_plan_convention_name(enum ep_plan_convention convention)
{
    EP_ASSERT((unsigned)convention < EP_PLAN_NUM_CONVENTIONS);
    return convention_names[convention];
}

const char *ep_plan_rule_text(enum ep_plan_rule rule)
{
    EP_ASSERT((unsigned)rule < EP_PLAN_NUM_RULES);
    return rule_texts[rule];
}

double ep_plan_idle_fraction(const struct ep_plan_config *config, const struct ep_plan *plan)
{
    const double waiting = (double)(plan->pp - 1);
    return waiting / ((double)config->num_microbatches + waiting);
}

enum ep_plan_statistic ep_plan_deciding(const struct ep_plan_config *config)
{
    return config->num_samples >= 100 ? EP_PLAN_P99 : EP_PLAN_WORST;
}

/* --- rules -------------------------------------------------------------------------------- */

/* True where `degree` divides a width that may be unknown or absent (0). */
static bool divides(int64_t degree, int64_t width)
{
    return width % degree == 0;
}

/* The first rule that a plan breaks, or EP_PLAN_NUM_RULES. */
static enum ep_plan_rule find_broken_rule(const struct ep_plan_config *c, const struct ep_plan *p)
{
    const struct ep_model *m = c->model;
    const bool folded = p->convention == EP_PLAN_FOLDING;
    const bool kept[EP_PLAN_NUM_RULES] = {
        [EP_PLAN_RULE_EXPERTS] = divides(p->ep, m->num_experts),
        [EP_PLAN_RULE_EP_IN_DP] = !folded || divides(p->ep, p->dp),
        [EP_PLAN_RULE_EXPERT_TP] = !folded || p->expert_tp <= p->tp,
        [EP_PLAN_RULE_LAYERS] = p->pp <= m->num_layers,
        [EP_PLAN_RULE_HIDDEN] = divides(p->tp, m->hidden),
        [EP_PLAN_RULE_HEADS] = divides(p->tp, m->num_heads),
        [EP_PLAN_RULE_EXPERT_FFN] = divides(p->expert_tp, m->expert_ffn),
        [EP_PLAN_RULE_SHARED_FFN] = divides(p->tp, m->shared_ffn_total),
        [EP_PLAN_RULE_DENSE_FFN] = divides(p->tp, m->dense_ffn),
        [EP_PLAN_RULE_TOKENS] = divides(p->tp, c->tokens),
    };
    int rule = 0;
    while (rule < EP_PLAN_NUM_RULES && kept[rule]) {
        rule++;
    }
    return (enum ep_plan_rule)rule;
}

/* --- enumeration -------------------------------------------------------------------------- */

struct divisors {
    int64_t *values; /* [num] ascending */
    int64_t num;
};

static enum ep_status find_divisors(int64_t number, struct divisors *divisors)
{
    divisors->values = malloc((size_t)number * sizeof *divisors->values);
    if (divisors->values == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to plan for %" PRId64 " ranks", number);
    }
    for (int64_t d = 1; d <= number; d++) {
        if (number % d == 0) {
            divisors->values[divisors->num++] = d;
        }
    }
    return EP_OK;
}

static bool asked_for(const struct ep_plan_degrees *degrees, int64_t value)
{
    bool found = degrees->num == 0;
    for (int64_t i = 0; i < degrees->num && !found; i++) {
        found = degrees->values[i] == value;
    }
    return found;
}

static enum ep_status append_plan(struct ep_plan_set *set, int64_t *capacity,
                                  const struct ep_plan *plan)
{
    if (set->num == *capacity) {
        const int64_t wanted = *capacity > 0 ? 2 * *capacity : 256;
        struct ep_plan *larger = realloc(set->plans, (size_t)wanted * sizeof *larger);
        if (larger == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " plans", wanted);
        }
        set->plans = larger;
        *capacity = wanted;
    }
    set->plans[set->num++] = *plan;
    return EP_OK;
}

static enum ep_status take_plan(const struct ep_plan_config *c, const struct ep_plan *plan,
                                struct ep_plan_set *set, int64_t *capacity)
{
    if (!asked_for(&c->ep, plan->ep) || !asked_for(&c->tp, plan->tp) ||
        !asked_for(&c->dp, plan->dp) || !asked_for(&c->pp, plan->pp)) {
        return EP_OK;
    }
    const enum ep_plan_rule broken = find_broken_rule(c, plan);
    set->considered[plan->convention]++;
    if (broken < EP_PLAN_NUM_RULES) {
        set->rejected[plan->convention][broken]++;
        return EP_OK;
    }
    return append_plan(set, capacity, plan);
}

/* All plans of one (PP, TP, EP): one of the product, one folded per expert TP. */
static enum ep_status take_plans(const struct ep_plan_config *c, const struct divisors *d,
                                 struct ep_plan plan, struct ep_plan_set *set, int64_t *capacity)
{
    enum ep_status status = EP_OK;
    const int64_t per_stage = c->world / plan.pp;
    if (per_stage % (plan.tp * plan.ep) == 0) {
        plan.convention = EP_PLAN_PRODUCT;
        plan.dp = per_stage / (plan.tp * plan.ep);
        plan.expert_tp = plan.tp;
        plan.expert_dp = plan.dp;
        plan.data_replicas = plan.dp * plan.ep;
        EP_TRY(take_plan(c, &plan, set, capacity));
    }
    plan.convention = EP_PLAN_FOLDING;
    plan.dp = per_stage / plan.tp;
    plan.data_replicas = plan.dp;
    for (int64_t i = 0; i < d->num && d->values[i] <= per_stage / plan.ep; i++) {
        if (per_stage % (plan.ep * d->values[i]) == 0) {
            plan.expert_tp = d->values[i];
            plan.expert_dp = per_stage / (plan.ep * plan.expert_tp);
            EP_TRY(take_plan(c, &plan, set, capacity));
        }
    }
out:
    return status;
}

enum ep_status ep_plan_enumerate(const struct ep_plan_config *config, struct ep_plan_set *set)
{
    enum ep_status status;
    struct divisors d = {0};
    int64_t capacity = 0;
    EP_TRY(find_divisors(config->world, &d));
    for (int64_t a = 0; a < d.num; a++) {
        const int64_t per_stage = config->world / d.values[a];
        for (int64_t b = 0; b < d.num; b++) {
            for (int64_t e = 0; e < d.num && per_stage % d.values[b] == 0; e++) {
                const struct ep_plan plan = {
                    .pp = d.values[a], .tp = d.values[b], .ep = d.values[e]};
                if (per_stage % plan.ep == 0) {
                    EP_TRY(take_plans(config, &d, plan, set, &capacity));
                }
            }
        }
    }
out:
    free(d.values);
    return status;
}

/* --- the whole ---------------------------------------------------------------------------- */

static struct ep_capacity_shape capacity_shape(const struct ep_plan_config *c,
                                               const struct ep_plan *p)
{
    return (struct ep_capacity_shape){.tokens = c->tokens / p->tp,
                                      .num_experts = c->model->num_experts,
                                      .top_k = c->model->top_k,
                                      .num_ranks = p->ep};
}

int64_t ep_plan_capacity(const struct ep_plan_config *config, const struct ep_plan *plan)
{
    struct ep_capacity capacity = {0};
    if (config->capacity == NULL) {
        return 0;
    }
    const struct ep_capacity_shape shape = capacity_shape(config, plan);
    const enum ep_status status = ep_capacity_compute(config->capacity, &shape, 0, &capacity);
    EP_ASSERT(status == EP_OK);
    return capacity.rows;
}

/* What a plan needs to know before any token is routed, for each of the plans. */
static enum ep_status check_capacity(const struct ep_plan_config *c, const struct ep_plan_set *set)
{
    enum ep_status status = EP_OK;
    const struct ep_capacity_policy *policy = c->capacity;
    if (policy == NULL) {
        return EP_OK;
    }
    if (policy->overflow != EP_OVERFLOW_DROP) {
        return ep_error_set(EP_EINVAL, "plans drop what an expert does not take; no --overflow");
    }
    if (policy->rule == NULL && policy->drop == EP_DROP_NONE) {
        return ep_error_set(EP_EINVAL,
                            "--capacity %" PRId64 " needs --drop order, choice, prob or random: "
                            "which copies stay", policy->rows);
    }
    for (int64_t i = 0; i < set->num; i++) {
        const struct ep_capacity_shape shape = capacity_shape(c, &set->plans[i]);
        struct ep_capacity capacity = {0};
        if (ep_capacity_needs_counts(policy, &shape)) {
            return ep_error_set(EP_EINVAL,
                                "this capacity is the largest count there is, which is to "
                                "plan for dropless: leave it out");
        }
        EP_TRY(ep_capacity_compute(policy, &shape, 0, &capacity));
        if (capacity.scope != EP_CAPACITY_PER_SOURCE) {
            return ep_error_set(EP_EINVAL,
                                "--capacity-rule %s counts the rows of all ranks together; plans "
                                "know capacities of one source rank",
                                policy->rule->name);
        }
    }
out:
    return status;
}

static enum ep_status check_config(const struct ep_plan_config *c)
{
    const enum ep_status status = ep_model_need_experts(c->model);
    if (status != EP_OK) {
        return status;
    }
    if (c->world < 1 || c->world > EP_PLAN_MAX_WORLD) {
        return ep_error_set(EP_EINVAL, "a world of %" PRId64 " ranks is outside 1 to %d", c->world,
                            EP_PLAN_MAX_WORLD);
    }
    if (c->optimizer != EP_PLAN_NO_OPTIMIZER && !c->training) {
        return ep_error_set(EP_EINVAL, "an optimizer is for training");
    }
    if (c->byte_basis == EP_BASIS_NODE) {
        return ep_error_set(EP_EINVAL,
                            "plans know no nodes; the byte basis is copies or rank-dedup");
    }
    if (c->byte_basis == EP_BASIS_RANK && c->capacity != NULL) {
        return ep_error_set(EP_EINVAL, "rank-dedup is not known for what a capacity leaves");
    }
    if (c->num_samples < 1 || c->num_samples > EP_PLAN_MAX_SAMPLES) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " samples are outside 1 to %d", c->num_samples,
                            EP_PLAN_MAX_SAMPLES);
    }
    return EP_OK;
}

static void weigh(const struct ep_plan_config *c, struct ep_plan *p)
{
    const enum ep_plan_statistic by = ep_plan_deciding(c);
    struct ep_model_params params;
    ep_model_count_params(c->model, &params);
    p->lower_bound = isnan(params.rest);
    p->total_bytes = -1;
    p->memory.total[by] = -1;
    double all_ranks = 0;
    for (int64_t s = 0; s < p->pp; s++) {
        struct ep_plan_memory memory;
        double bytes[EP_PLAN_NUM_COLLECTIVES];
        double sum = 0;
        ep_plan_weigh_stage(c, p, s, &memory);
        if (memory.total[by] > p->memory.total[by]) {
            p->memory = memory;
        }
        ep_plan_count_stage_bytes(c, p, s, bytes);
        for (int i = 0; i < EP_PLAN_NUM_COLLECTIVES; i++) {
            sum += bytes[i];
        }
        all_ranks += sum * (double)(c->world / p->pp);
        if (sum > p->total_bytes) {
            p->total_bytes = sum;
            memcpy(p->bytes, bytes, sizeof bytes);
        }
    }
    p->bytes_per_token =
        all_ranks / ((double)p->data_replicas * (double)c->num_microbatches * (double)c->tokens);
}

static void judge(const struct ep_plan_config *c, struct ep_plan *p)
{
    const enum ep_plan_statistic by = ep_plan_deciding(c);
    const double needed = p->memory.total[by];
    const char *bound = p->lower_bound ? "at least " : "";
    const char *name = by == EP_PLAN_P99 ? "p99" : "the worst sample";
    char need[32];
    char have[32];
    ep_format_bytes(needed, need, sizeof need);
    ep_format_bytes(c->gpu_memory_bytes, have, sizeof have);
    if (isnan(c->gpu_memory_bytes)) {
        p->fits = -1;
        snprintf(p->reason, sizeof p->reason, "no --gpu-memory given");
    } else if (needed > c->gpu_memory_bytes) {
        p->fits = 0;
        snprintf(p->reason, sizeof p->reason, "over --gpu-memory: %s%s at %s, %s there is", bound,
                 need, name, have);
    } else if (p->lower_bound) {
        p->fits = -1;
        snprintf(p->reason, sizeof p->reason,
                 "%s%s of %s at %s: the model's parameters besides experts are not known", bound,
                 need, have, name);
    } else {
        p->fits = 1;
        snprintf(p->reason, sizeof p->reason, "%s of %s at %s", need, have, name);
    }
}

static int compare_counts(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* Those that fit, then those that may, then the others; each by bytes per token, then by degrees.
 */
static int compare_plans(const void *x, const void *y)
{
    const struct ep_plan *a = x;
    const struct ep_plan *b = y;
    const int class_a = a->fits == 1 ? 0 : a->fits == -1 ? 1 : 2;
    const int class_b = b->fits == 1 ? 0 : b->fits == -1 ? 1 : 2;
    if (class_a != class_b) {
        return class_a - class_b;
    }
    if (a->bytes_per_token != b->bytes_per_token) {
        return a->bytes_per_token < b->bytes_per_token ? -1 : 1;
    }
    const int64_t keys[][2] = {{(int64_t)a->convention, (int64_t)b->convention},
                               {a->pp, b->pp},
                               {a->tp, b->tp},
                               {a->ep, b->ep},
                               {a->expert_tp, b->expert_tp}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const int order = compare_counts(keys[i][0], keys[i][1]);
        if (order != 0) {
            return order;
        }
    }
    return 0;
}

enum ep_status ep_plan_set_make(const struct ep_plan_config *config, struct ep_plan_set *set)
{
    enum ep_status status;
    struct ep_plan_set made = {0};
    EP_TRY(check_config(config));
    EP_TRY(ep_plan_enumerate(config, &made));
    EP_TRY(check_capacity(config, &made));
    EP_TRY(ep_plan_sample_received(config, &made));
    for (int64_t i = 0; i < made.num; i++) {
        weigh(config, &made.plans[i]);
        judge(config, &made.plans[i]);
    }
    if (made.num > 0) {
        qsort(made.plans, (size_t)made.num, sizeof *made.plans, compare_plans);
    }
    *set = made;
    made = (struct ep_plan_set){0};
out:
    ep_plan_set_fini(&made);
    return status;
}

void ep_plan_set_fini(struct ep_plan_set *set)
{
    free(set->plans);
    *set = (struct ep_plan_set){0};
}
