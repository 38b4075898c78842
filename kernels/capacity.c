/* SPDX-License-Identifier: Apache-2.0 */
/* The capacity rules of each system, in its own order of rounding, and texts of policies. */
#include "kernels/capacity.h"

#include "base/options.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- the rules ---------------------------------------------------------------------------- */

static double ceil_div(int64_t a, int64_t b)
{
    return (double)((a + b - 1) / b);
}

static double plain_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                         bool *by_need)
{
    (void)eval_fraction;
    (void)by_need;
    return ceil(factor * (double)s->tokens / (double)s->num_experts);
}

/* The caller passes num_tokens = T k; Python floats are doubles. */
static double megatron_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                            bool *by_need)
{
    (void)eval_fraction;
    (void)by_need;
    return ceil((double)(s->tokens * s->top_k) / (double)s->num_experts * factor);
}

/* The factor becomes a float32 tensor, so the product is a float32 one: 100 x 1.1 is 110 here and
 * 110.00000000000001 in Megatron. */
static double deepspeed_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                             bool *by_need)
{
    (void)eval_fraction;
    (void)by_need;
    const float mean = (float)((double)s->tokens / (double)s->num_experts);
    const float times = (float)(factor * (double)s->top_k);
    const float product = mean * times;
    return (double)ceilf(product);
}

static double fairseq_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                           bool *by_need)
{
    (void)by_need;
    if (!isnan(eval_fraction)) {
        return ceil(eval_fraction * (double)s->tokens);
    }
    const double mean = ceil_div(s->tokens, s->num_experts);
    return s->top_k == 1 ? trunc(factor * mean) : 2 * mean;
}

static bool fairseq_uses_factor(int64_t top_k, double eval_fraction)
{
    return top_k == 1 && isnan(eval_fraction);
}

static bool gshard_uses_factor(int64_t top_k, double eval_fraction)
{
    (void)top_k;
    (void)eval_fraction;
    return false;
}

static double gshard_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                          bool *by_need)
{
    (void)factor;
    (void)eval_fraction;
    (void)by_need;
    return (double)(2 * s->tokens / s->num_experts);
}

static double switch_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                          bool *by_need)
{
    (void)eval_fraction;
    (void)by_need;
    const double rows = trunc((double)s->tokens * factor / (double)s->num_experts);
    return fmin((double)s->tokens, rows);
}

/* Its Switch gate takes E as the experts of one rank, and counts the rows of all ranks together. */
static double fastmoe_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                           bool *by_need)
{
    (void)eval_fraction;
    (void)by_need;
    if (s->top_k == 1) {
        const double local = (double)s->num_experts / (double)s->num_ranks;
        return ceil(factor * (double)s->tokens / local);
    }
    return floor(ceil(factor * (double)s->tokens) * (double)s->top_k / (double)s->num_experts);
}

static enum ep_capacity_scope fastmoe_scope(int64_t top_k)
{
    return top_k == 1 ? EP_CAPACITY_PER_EXPERT : EP_CAPACITY_PER_SOURCE;
}

/* Factor < 0: the largest count, but no more than the formula with -factor (kept in the sign). */
static double tutel_rows(const struct ep_capacity_shape *s, double factor, double eval_fraction,
                         bool *by_need)
{
    (void)eval_fraction;
    const double mean = ceil_div(s->tokens, s->num_experts);
    *by_need = factor <= 0;
    return (double)s->top_k * trunc(fabs(factor) * mean);
}

static double megablocks_rows(const struct ep_capacity_shape *s, double factor,
                              double eval_fraction, bool *by_need)
{
    (void)eval_fraction;
    const double mean = (double)(s->top_k * s->tokens * s->num_ranks) / (double)s->num_experts;
    const double rows = trunc(factor * mean);
    *by_need = rows == 0;
    return rows;
}

static enum ep_capacity_scope megablocks_scope(int64_t top_k)
{
    (void)top_k;
    return EP_CAPACITY_PER_EXPERT;
}

/* least_factor of rules that want a factor above 0. */
static const double positive = 5e-324;

#define ANY_TOP_K                                                                                  \
    {                                                                                              \
        1, 0                                                                                       \
    }
#define DROPS(top1, top2, more)                                                                    \
    {                                                                                              \
        EP_DROP_##top1, EP_DROP_##top2, EP_DROP_##more                                             \
    }

const struct ep_capacity_rule ep_capacity_rules[] = {
    {.name = "plain",
     .formula = "ceil(cf T / E)",
     .source = "the textbook form: capacity factor x tokens / experts, without k",
     .default_factor = NAN,
     .least_factor = positive,
     .only_top_k = ANY_TOP_K,
     .drops = DROPS(ORDER, ORDER, ORDER),
     .rows = plain_rows},
    {.name = "megatron",
     .formula = "ceil(T k / E x cf), in double",
     .source = "NVIDIA/Megatron-LM:megatron/core/transformer/moe/moe_utils.py:get_capacity, "
               "apply_router_token_dropping",
     .default_factor = NAN,
     .least_factor = positive,
     .only_top_k = ANY_TOP_K,
     .drops = DROPS(PROB, PROB, PROB),
     .rows = megatron_rows},
    {.name = "deepspeed",
     .formula = "max(ceil(T / E x (cf k)), min), in float",
     .source = "deepspeedai/DeepSpeed:deepspeed/moe/sharded_moe.py:_capacity, top1gating, "
               "top2gating, topkgating",
     .default_factor = 1,
     .least_factor = positive,
     .default_min = 4,
     .only_top_k = ANY_TOP_K,
     .aligns = EP_ALIGN_DROPLESS,
     .drops = DROPS(RANDOM, CHOICE, PROB),
     .rows = deepspeed_rows},
    {.name = "fairseq",
     .formula = "k = 1: int(cf ceil(T / E)); k = 2: 2 ceil(T / E); evaluation: ceil(fraction T)",
     .source = "facebookresearch/fairseq (branch moe):fairseq/modules/moe/top1gate.py, top2gate.py",
     .default_factor = 1,
     .least_factor = positive,
     .only_top_k = {1, 2},
     .has_eval = true,
     .drops = DROPS(ORDER, CHOICE, CHOICE),
     .rows = fairseq_rows,
     .uses_factor = fairseq_uses_factor},
    {.name = "gshard",
     .formula = "2 T / E, rounded down",
     .source = "GShard, arXiv 2006.16668, algorithm 1: 2 N / (G E), a rank's tokens being a group; "
               "its code, tensorflow/lingvo:lingvo/core/gshard_layers.py, rounds up to 4",
     .recalled = true,
     .default_factor = 2,
     .least_factor = positive,
     .only_top_k = {2, 2},
     .aligns = EP_ALIGN_ALWAYS,
     .drops = DROPS(CHOICE, CHOICE, CHOICE),
     .rows = gshard_rows,
     .uses_factor = gshard_uses_factor},
    {.name = "switch",
     .formula = "max(min(T, int(T cf / E)), min)",
     .source = "Switch Transformers, arXiv 2101.03961, rounded and with the floor as in "
               "tensorflow/mesh:mesh_tensorflow/transformer/moe.py",
     .recalled = true,
     .default_factor = 1.25,
     .least_factor = positive,
     .default_min = 4,
     .only_top_k = {1, 1},
     .drops = DROPS(ORDER, ORDER, ORDER),
     .rows = switch_rows},
    {.name = "fastmoe",
     .formula = "floor(ceil(cf T) k / E); k = 1: ceil(cf T P / E) rows of all ranks together",
     .source = "laekov/fastmoe:fmoe/gates/gshard_gate.py, switch_gate.py",
     .default_factor = 1.2,
     .least_factor = positive,
     .only_top_k = ANY_TOP_K,
     .drops = DROPS(ORDER, ORDER, ORDER),
     .rows = fastmoe_rows,
     .scope = fastmoe_scope},
    {.name = "tutel",
     .formula =
         "k int(cf ceil(T / E)); cf = 0: the largest count; cf < 0: min(largest, that of -cf)",
     .source = "microsoft/tutel:tutel/impls/fast_dispatch.py:extract_critical",
     .default_factor = 1,
     .least_factor = -HUGE_VAL,
     .only_top_k = ANY_TOP_K,
     .aligns = EP_ALIGN_ALWAYS,
     .drops = DROPS(CHOICE, CHOICE, CHOICE),
     .rows = tutel_rows},
    {.name = "megablocks",
     .formula = "int(cf k T P / E) rows of all ranks together; 0 = the largest count",
     .source = "databricks/megablocks:megablocks/layers/moe.py:expert_capacity",
     .default_factor = 1,
     .least_factor = 0,
     .only_top_k = ANY_TOP_K,
     .at_receiver = true,
     .drops = DROPS(ORDER, ORDER, ORDER),
     .rows = megablocks_rows,
     .scope = megablocks_scope},
    {.name = NULL},
};

/* --- texts -------------------------------------------------------------------------------- */

enum { MAX_NAMES = 16 };

/* EP_EINVAL for `text`, with the nearest of the names and all of them. */
static enum ep_status refuse_name(const char *text, const char *what, const char *const *names,
                                  int num)
{
    char all[256] = "";
    for (int i = 0; i < num; i++) {
        const size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i == 0 ? "" : ", ", names[i]);
    }
    const char *nearest = ep_options_nearest(text, names, num);
    if (nearest != NULL) {
        return ep_error_set(EP_EINVAL, "%s: unknown '%s'; did you mean %s? There are: %s", what,
                            text, nearest, all);
    }
    return ep_error_set(EP_EINVAL, "%s: unknown '%s'; there are: %s", what, text, all);
}

enum ep_status ep_capacity_find_rule(const char *name, const struct ep_capacity_rule **rule)
{
    const char *names[MAX_NAMES];
    int num = 0;
    for (const struct ep_capacity_rule *r = ep_capacity_rules; r->name != NULL; r++) {
        if (strcmp(r->name, name) == 0) {
            *rule = r;
            return EP_OK;
        }
        EP_ASSERT(num < MAX_NAMES);
        names[num++] = r->name;
    }
    return refuse_name(name, "--capacity-rule", names, num);
}

static const char *const drop_names[EP_NUM_DROPS] = {
    [EP_DROP_NONE] = "none", [EP_DROP_ORDER] = "order",   [EP_DROP_CHOICE] = "choice",
    [EP_DROP_PROB] = "prob", [EP_DROP_RANDOM] = "random",
};

static const char *const overflow_names[EP_NUM_OVERFLOWS] = {
    [EP_OVERFLOW_DROP] = "drop",
    [EP_OVERFLOW_NEXT] = "next",
    [EP_OVERFLOW_EXPERT] = "expert:ID",
};

const char *ep_drop_name(enum ep_drop drop)
{
    return drop_names[drop];
}

enum ep_status ep_drop_parse(const char *text, const char *what, enum ep_drop *drop)
{
    for (int i = 0; i < EP_NUM_DROPS; i++) {
        if (strcmp(text, drop_names[i]) == 0) {
            *drop = (enum ep_drop)i;
            return EP_OK;
        }
    }
    return refuse_name(text, what, drop_names, EP_NUM_DROPS);
}

enum ep_status ep_overflow_parse(const char *text, const char *what,
                                 struct ep_capacity_policy *policy)
{
    static const char expert[] = "expert:";
    if (strncmp(text, expert, sizeof expert - 1) == 0) {
        const enum ep_status status = ep_parse_i64(text + sizeof expert - 1, what, 0,
                                                   EP_MAX_EXPERTS - 1, &policy->overflow_expert);
        if (status == EP_OK) {
            policy->overflow = EP_OVERFLOW_EXPERT;
        }
        return status;
    }
    for (int i = 0; i < EP_OVERFLOW_EXPERT; i++) {
        if (strcmp(text, overflow_names[i]) == 0) {
            policy->overflow = (enum ep_overflow)i;
            return EP_OK;
        }
    }
    return refuse_name(text, what, overflow_names, EP_NUM_OVERFLOWS);
}

const char *ep_overflow_text(const struct ep_capacity_policy *policy, char *text, size_t size)
{
    if (policy->overflow == EP_OVERFLOW_EXPERT) {
        snprintf(text, size, "expert:%" PRId64, policy->overflow_expert);
    } else {
        snprintf(text, size, "%s", overflow_names[policy->overflow]);
    }
    return text;
}

/* --- rows --------------------------------------------------------------------------------- */

struct ep_capacity_policy ep_capacity_policy_default(const struct ep_capacity_rule *rule,
                                                     int64_t top_k)
{
    return (struct ep_capacity_policy){
        .rule = rule,
        .factor = NAN,
        .min_rows = -1,
        .align = 1,
        .eval_fraction = NAN,
        .drop = rule != NULL ? rule->drops[top_k < 3 ? top_k - 1 : 2] : EP_DROP_NONE,
        .overflow = EP_OVERFLOW_DROP,
    };
}

double ep_capacity_factor(const struct ep_capacity_policy *policy)
{
    return isnan(policy->factor) && policy->rule != NULL ? policy->rule->default_factor
                                                         : policy->factor;
}

bool ep_capacity_uses_factor(const struct ep_capacity_policy *policy, int64_t top_k)
{
    return policy->rule != NULL &&
           (policy->rule->uses_factor == NULL ||
            policy->rule->uses_factor(top_k, policy->eval_fraction));
}

int64_t ep_capacity_floor(const struct ep_capacity_policy *policy)
{
    if (policy->min_rows >= 0) {
        return policy->min_rows;
    }
    return policy->rule != NULL ? policy->rule->default_min : 0;
}

static enum ep_status check_factor(const struct ep_capacity_policy *policy)
{
    const struct ep_capacity_rule *rule = policy->rule;
    const double factor = ep_capacity_factor(policy);
    if (isnan(factor)) {
        return ep_error_set(EP_EINVAL, "--capacity-factor is needed: %s has no default",
                            rule->name);
    }
    if (isinf(factor) || factor < rule->least_factor) {
        return ep_error_set(EP_EINVAL, "--capacity-factor: %g is no factor of %s; %s", factor,
                            rule->name,
                            rule->least_factor > 0    ? "more than 0 is expected"
                            : rule->least_factor == 0 ? "0 (the largest count) or more is expected"
                                                      : "a finite number is expected");
    }
    return EP_OK;
}

static enum ep_status check_policy(const struct ep_capacity_policy *policy,
                                   const struct ep_capacity_shape *shape)
{
    const struct ep_capacity_rule *rule = policy->rule;
    if (policy->overflow == EP_OVERFLOW_EXPERT && policy->overflow_expert >= shape->num_experts) {
        return ep_error_set(EP_EINVAL,
                            "--overflow expert:%" PRId64 ": there are experts 0 to %" PRId64,
                            policy->overflow_expert, shape->num_experts - 1);
    }
    if (rule == NULL) {
        return EP_OK;
    }
    const int64_t *only = rule->only_top_k;
    if (only[0] <= only[1] && (shape->top_k < only[0] || shape->top_k > only[1])) {
        char range[64];
        snprintf(range, sizeof range, only[0] == only[1] ? "%" PRId64 : "%" PRId64 " and %" PRId64,
                 only[0], only[1]);
        return ep_error_set(EP_EINVAL,
                            "--capacity-rule %s: its system has top-%s only, not top-%" PRId64,
                            rule->name, range, shape->top_k);
    }
    if (!isnan(policy->eval_fraction) && !rule->has_eval) {
        return ep_error_set(EP_EINVAL, "--capacity-eval: %s has no evaluation fraction",
                            rule->name);
    }
    if (policy->align > 1 && rule->aligns == EP_ALIGN_NEVER) {
        return ep_error_set(EP_EINVAL, "--capacity-align: %s does not align its capacity",
                            rule->name);
    }
    return check_factor(policy);
}

bool ep_capacity_needs_counts(const struct ep_capacity_policy *policy,
                              const struct ep_capacity_shape *shape)
{
    bool by_need = policy->drop == EP_DROP_NONE;
    if (policy->rule != NULL && !by_need && !isnan(ep_capacity_factor(policy))) {
        (void)policy->rule->rows(shape, ep_capacity_factor(policy), policy->eval_fraction,
                                 &by_need);
    }
    return by_need;
}

/* Rows and whether they come from the largest count: the formula, or what was given. */
static double raw_rows(const struct ep_capacity_policy *policy,
                       const struct ep_capacity_shape *shape, int64_t needed, bool *by_need)
{
    if (policy->rule == NULL) {
        *by_need = policy->drop == EP_DROP_NONE && policy->rows == 0;
        return *by_need ? (double)needed : (double)policy->rows;
    }
    const double factor = ep_capacity_factor(policy);
    const double rows = policy->rule->rows(shape, factor, policy->eval_fraction, by_need);
    if (policy->drop == EP_DROP_NONE) {
        *by_need = true;
        return (double)needed;
    }
    if (*by_need && factor < 0) { /* Tutel: as needed, but bounded */
        *by_need = (double)needed <= rows;
        return fmin((double)needed, rows);
    }
    return *by_need ? (double)needed : rows;
}

static bool aligns(const struct ep_capacity_policy *policy)
{
    const enum ep_capacity_align when =
        policy->rule != NULL ? policy->rule->aligns : EP_ALIGN_NEVER;
    return when == EP_ALIGN_ALWAYS || (when == EP_ALIGN_DROPLESS && policy->drop == EP_DROP_NONE);
}

enum ep_status ep_capacity_compute(const struct ep_capacity_policy *policy,
                                   const struct ep_capacity_shape *shape, int64_t needed,
                                   struct ep_capacity *capacity)
{
    const enum ep_status status = check_policy(policy, shape);
    if (status != EP_OK) {
        return status;
    }
    struct ep_capacity c = {.scope = EP_CAPACITY_PER_SOURCE};
    if (policy->rule != NULL && policy->rule->scope != NULL) {
        c.scope = policy->rule->scope(shape->top_k);
    }
    double rows = raw_rows(policy, shape, needed, &c.by_need);
    if (!c.by_need && policy->rule != NULL) {
        rows = fmax(rows, (double)ep_capacity_floor(policy));
    }
    if (aligns(policy)) {
        rows = ceil(rows / (double)policy->align) * (double)policy->align;
    }
    if (!(rows <= INT32_MAX)) {
        return ep_error_set(EP_EINVAL, "a capacity of %.0f rows is more than %d", rows, INT32_MAX);
    }
    c.rows = (int64_t)rows;
    *capacity = c;
    return EP_OK;
}

double ep_capacity_plain_bytes(const struct ep_capacity_shape *shape, double factor,
                               int64_t row_bytes)
{
    return factor * (double)shape->tokens / (double)shape->num_experts * (double)row_bytes;
}
