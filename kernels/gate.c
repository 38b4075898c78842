/* SPDX-License-Identifier: Apache-2.0 */
/* The table of routers, their configs, and the walk over a batch. */
#include "kernels/gate.h"

#include "base/options.h"
#include "base/units.h"
#include "kernels/gate_policy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ep_gate_policy *const policies[] = {
    &ep_gate_top1,          &ep_gate_top2,          &ep_gate_softmax, &ep_gate_softmax_renorm,
    &ep_gate_topk_softmax,  &ep_gate_softmax_group, &ep_gate_sigmoid, &ep_gate_sigmoid_bias,
    &ep_gate_sigmoid_group, &ep_gate_switch,        &ep_gate_gshard,  &ep_gate_noisy,
    &ep_gate_dropout,       &ep_gate_expert_choice, &ep_gate_hash,    &ep_gate_random,
};

/* Best first. */
static const struct ep_gate_isa *const isas[] = {&ep_gate_avx512, &ep_gate_avx2, &ep_gate_c};

enum {
    NUM_POLICIES = sizeof policies / sizeof policies[0],
    NUM_ISAS = sizeof isas / sizeof isas[0]
};

/* --- configs --------------------------------------------------------------------------------- */

static enum ep_status find_policy(const char *text, const struct ep_gate_policy **policy)
{
    const char *names[NUM_POLICIES];
    const size_t length = strcspn(text, ":");
    for (int i = 0; i < NUM_POLICIES; i++) {
        names[i] = policies[i]->name;
        if (strlen(names[i]) == length && strncmp(names[i], text, length) == 0) {
            *policy = policies[i];
            return EP_OK;
        }
    }
    char *name = strndup(text, length);
    const char *nearest = name != NULL ? ep_options_nearest(name, names, NUM_POLICIES) : NULL;
    free(name);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "unknown router '%s'; did you mean '%s'?", text, nearest)
               : ep_error_set(EP_EINVAL,
                              "unknown router '%s'; top1, top2, softmax, sigmoid-group, "
                              "... expected (`epbench route --list-routers`; a skew goes to --skew)",
                              text);
}

/* "GROUPS:KEPT" */
static enum ep_status parse_groups(const char *text, const char *params,
                                   struct ep_gate_config *config)
{
    enum ep_status status;
    struct ep_list list = {0};
    char what[96];
    snprintf(what, sizeof what, "router '%.40s': %s", text, config->policy->usage);
    EP_TRY(ep_list_split(params, ':', what, &list));
    if (list.num != 2) {
        status = ep_error_set(EP_EINVAL, "%s expected", what);
        goto out;
    }
    EP_TRY(ep_parse_i64(list.items[0], what, 1, EP_MAX_EXPERTS, &config->num_groups));
    EP_TRY(ep_parse_i64(list.items[1], what, 1, config->num_groups, &config->topk_groups));
out:
    ep_list_fini(&list);
    return status;
}

static enum ep_status parse_params(const char *text, const char *params,
                                   struct ep_gate_config *config)
{
    const struct ep_gate_policy *policy = config->policy;
    if (policy->group_rule != EP_GATE_NO_GROUPS) {
        return parse_groups(text, params, config);
    }
    if (policy->value_name == NULL) {
        return ep_error_set(EP_EINVAL, "router '%s': %s has no parameter", text, policy->name);
    }
    char what[96];
    snprintf(what, sizeof what, "router '%.40s': %s", text, policy->value_name);
    return ep_parse_f64(params, what, policy->min_value, policy->max_value, &config->value);
}

enum ep_status ep_gate_config_parse(const char *text, int64_t num_experts, int64_t top_k,
                                    struct ep_gate_config *config)
{
    enum ep_status status;
    const struct ep_gate_policy *policy = NULL;
    EP_TRY(find_policy(text, &policy));
    struct ep_gate_config made = {.policy = policy,
                                  .num_experts = num_experts,
                                  .top_k = policy->top_k != 0 ? policy->top_k : top_k,
                                  .num_groups = policy->num_groups,
                                  .topk_groups = policy->topk_groups,
                                  .value = policy->value,
                                  .route_scale = 1,
                                  .seed = 1};
    if (policy->group_rule == EP_GATE_NO_GROUPS) {
        made.num_groups = made.topk_groups = 1;
    }
    made.top_k = made.top_k != 0 ? made.top_k : policy->usual_top_k;
    if (made.top_k == 0) {
        return ep_error_set(EP_EINVAL, "--top-k is needed for router %s", text);
    }
    const char *colon = strchr(text, ':');
    if (colon != NULL) {
        EP_TRY(parse_params(text, colon + 1, &made));
    }
    *config = made;
out:
    return status;
}

const char *ep_gate_name(const struct ep_gate_config *config)
{
    return config->policy->name;
}

bool ep_gate_describe(int index, const char **usage, const char **summary, const char **source)
{
    if (index < 0 || index >= NUM_POLICIES) {
        return false;
    }
    *usage = policies[index]->usage;
    *summary = policies[index]->summary;
    *source = policies[index]->source;
    return true;
}

bool ep_gate_is_sigmoid(const struct ep_gate_config *config)
{
    return config->policy->score == EP_GATE_SIGMOID;
}

bool ep_gate_needs_logits(const struct ep_gate_config *config)
{
    return config->policy->choose_blind == NULL;
}

bool ep_gate_is_batch(const struct ep_gate_config *config)
{
    return config->policy->choose_batch != NULL;
}

const char *ep_gate_isa(int index)
{
    for (int i = 0; i < NUM_ISAS; i++) {
        if (isas[i]->is_supported() && index-- == 0) {
            return isas[i]->name;
        }
    }
    return index == 0 ? "plain" : NULL;
}

/* --- creation -------------------------------------------------------------------------------- */

static enum ep_status check_shape(const struct ep_gate_config *c)
{
    const char *name = c->policy->name;
    if (c->num_experts < 1 || c->num_experts > EP_MAX_EXPERTS) {
        return ep_error_set(EP_EINVAL, "router %s: %" PRId64 " experts; 1 to %d expected", name,
                            c->num_experts, EP_MAX_EXPERTS);
    }
    if (c->top_k < 1 || c->top_k > c->num_experts) {
        return ep_error_set(EP_EINVAL, "router %s: top-%" PRId64 " of %" PRId64 " experts", name,
                            c->top_k, c->num_experts);
    }
    if (c->policy->top_k != 0 && c->top_k != c->policy->top_k) {
        return ep_error_set(EP_EINVAL, "router %s chooses %" PRId64 " experts, not %" PRId64, name,
                            c->policy->top_k, c->top_k);
    }
    if (c->num_groups < 1 || c->topk_groups < 1 || c->topk_groups > c->num_groups ||
        c->num_experts % c->num_groups != 0) {
        return ep_error_set(EP_EINVAL,
                            "router %s: %" PRId64 " experts do not make %" PRId64
                            " equal groups of which %" PRId64 " are kept",
                            name, c->num_experts, c->num_groups, c->topk_groups);
    }
    if (c->num_groups > 1 && c->policy->group_rule == EP_GATE_NO_GROUPS) {
        return ep_error_set(EP_EINVAL, "router %s has no groups", name);
    }
    const int64_t reachable = c->num_experts / c->num_groups * c->topk_groups;
    if (c->top_k > reachable) {
        return ep_error_set(EP_EINVAL,
                            "router %s: top-%" PRId64 " of the %" PRId64 " experts in %" PRId64
                            " of %" PRId64 " groups",
                            name, c->top_k, reachable, c->topk_groups, c->num_groups);
    }
    return EP_OK;
}

static enum ep_status check_numbers(const struct ep_gate_config *c)
{
    const struct ep_gate_policy *policy = c->policy;
    if (!(c->route_scale > 0) || !(c->route_scale < 1e30)) {
        return ep_error_set(EP_EINVAL, "router %s: route scale %g; above 0 expected", policy->name,
                            c->route_scale);
    }
    if (policy->value_name != NULL &&
        !(c->value >= policy->min_value && c->value <= policy->max_value)) {
        return ep_error_set(EP_EINVAL, "router %s: %s %g is outside %g to %g", policy->name,
                            policy->value_name, c->value, policy->min_value, policy->max_value);
    }
    if (c->bias != NULL && !policy->has_bias) {
        return ep_error_set(EP_EINVAL, "router %s has no bias", policy->name);
    }
    for (int64_t e = 0; c->bias != NULL && e < c->num_experts; e++) {
        if (!isfinite(c->bias[e])) {
            return ep_error_set(EP_EINVAL, "router %s: bias %g of expert %" PRId64 " is not finite",
                                policy->name, (double)c->bias[e], e);
        }
    }
    return EP_OK;
}

/* The widest instruction set, or the one asked for; none where the shape is beyond the kernels. */
static enum ep_status choose_isa(struct ep_gate *gate)
{
    const struct ep_gate_config *c = &gate->config;
    const bool fits = c->top_k <= EP_GATE_FAST_TOP_K && c->num_groups <= EP_GATE_FAST_GROUPS &&
                      c->policy->choose_blind == NULL && c->policy->choose_batch == NULL;
    const char *wanted = c->isa != NULL ? c->isa : ep_gate_isa(0);
    for (int i = 0; i < NUM_ISAS; i++) {
        if (strcmp(isas[i]->name, wanted) == 0 && isas[i]->is_supported()) {
            gate->isa = fits ? isas[i] : NULL;
            return EP_OK;
        }
    }
    return strcmp(wanted, "plain") == 0
               ? EP_OK
               : ep_error_set(EP_EINVAL, "this CPU has no router kernels for '%s'", wanted);
}

/* How far apart two keys, or sums of two, must be in fp32 to be in the same order in double. A
 * sigmoid is within 4 and the sum with the bias within 1 + |bias| of 2^-24 (kernels/README.md,
 * "Routers"); twice that is asked. */
static void fill_margins(const struct ep_gate *gate, struct ep_gate_plan *plan)
{
    float largest = 0;
    if (plan->bias == NULL) {
        return;
    }
    for (int64_t e = 0; e < plan->num_experts; e++) {
        largest = fmaxf(largest, fabsf(gate->bias[e]));
    }
    plan->key_margin = 0x1p-24f * (20 + 4 * largest);
    plan->group_margin = 0x1p-24f * (48 + 12 * largest);
}

static void fill_plan(struct ep_gate *gate)
{
    const struct ep_gate_config *c = &gate->config;
    struct ep_gate_plan *plan = &gate->plan;
    plan->num_experts = c->num_experts;
    plan->padded = (c->num_experts + EP_GATE_BLOCK - 1) / EP_GATE_BLOCK * EP_GATE_BLOCK;
    plan->top_k = c->top_k;
    plan->score = c->policy->score;
    plan->renormalises = c->policy->renormalises;
    plan->group_rule = c->policy->group_rule;
    plan->num_groups = c->num_groups;
    plan->topk_groups = c->topk_groups;
    plan->group_size = c->num_experts / c->num_groups;
    plan->route_scale = (float)c->route_scale;
}

/* Of 4 bytes each, aligned to a cache line. */
static void *alloc_words(int64_t num)
{
    const size_t bytes = (size_t)num * sizeof(int32_t);
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static enum ep_status alloc_scratch(struct ep_gate *gate)
{
    const struct ep_gate_policy *policy = gate->config.policy;
    struct ep_gate_plan *plan = &gate->plan;
    const int64_t num = plan->padded;
    const bool has_bias = policy->has_bias;
    gate->bias = has_bias ? alloc_words(num) : NULL;
    gate->chunk = policy->perturb != NULL ? alloc_words(EP_GATE_CHUNK * plan->num_experts) : NULL;
    gate->keys = malloc((size_t)num * sizeof *gate->keys);
    gate->groups = malloc((size_t)plan->num_groups * sizeof *gate->groups);
    plan->rows = alloc_words(EP_GATE_TILE * num);
    plan->keys = alloc_words(EP_GATE_TILE * num);
    plan->active = alloc_words(EP_GATE_TILE * num / EP_GATE_BLOCK);
    plan->candidate_key = alloc_words(EP_GATE_TILE * (num + EP_GATE_BLOCK));
    plan->candidate_idx = alloc_words(EP_GATE_TILE * (num + EP_GATE_BLOCK));
    if ((has_bias && gate->bias == NULL) || (policy->perturb != NULL && gate->chunk == NULL) ||
        gate->keys == NULL || gate->groups == NULL || plan->rows == NULL || plan->keys == NULL ||
        plan->active == NULL || plan->candidate_key == NULL || plan->candidate_idx == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a router of %" PRId64 " experts",
                            plan->num_experts);
    }
    for (int64_t i = 0; i < EP_GATE_TILE * num; i++) { /* keys of the padding are -inf */
        plan->rows[i] = has_bias ? 0 : -INFINITY;
    }
    for (int64_t e = 0; has_bias && e < num; e++) {
        const float *bias = gate->config.bias;
        gate->bias[e] = e >= plan->num_experts ? -INFINITY : bias != NULL ? bias[e] : 0;
    }
    plan->bias = gate->bias;
    gate->config.bias = gate->bias;
    return EP_OK;
}

enum ep_status ep_gate_create(const struct ep_gate_config *config, struct ep_gate **gate)
{
    enum ep_status status;
    struct ep_gate *made = NULL;
    EP_TRY(check_shape(config));
    EP_TRY(check_numbers(config));
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a router");
    }
    made->config = *config;
    fill_plan(made);
    EP_TRY(choose_isa(made));
    EP_TRY(alloc_scratch(made));
    fill_margins(made, &made->plan);
    if (config->policy->prepare != NULL) {
        EP_TRY(config->policy->prepare(made));
    }
    *gate = made;
    return EP_OK;
out:
    ep_gate_destroy(made);
    return status;
}

void ep_gate_destroy(struct ep_gate *gate)
{
    if (gate == NULL) {
        return;
    }
    if (gate->state != NULL) {
        gate->config.policy->release(gate);
    }
    free(gate->bias);
    free(gate->chunk);
    free(gate->keys);
    free(gate->groups);
    free(gate->plan.rows);
    free(gate->plan.keys);
    free(gate->plan.active);
    free(gate->plan.candidate_key);
    free(gate->plan.candidate_idx);
    free(gate);
}

int64_t ep_gate_num_slots(const struct ep_gate *gate)
{
    return ep_gate_is_batch(&gate->config) ? gate->config.num_experts : gate->config.top_k;
}

const char *ep_gate_isa_name(const struct ep_gate *gate)
{
    return gate->isa != NULL ? gate->isa->name : "plain";
}

/* --- routing --------------------------------------------------------------------------------- */

static float *weights_of(const struct ep_routing *routing, int64_t token)
{
    return routing->topk_weight != NULL ? routing->topk_weight + token * routing->top_k : NULL;
}

/* Up to EP_GATE_CHUNK rows of logits x, which are tokens first and after of the batch. What the
 * kernels cannot settle is settled by the definition. */
static enum ep_status route_chunk(struct ep_gate *gate, const struct ep_gate_isa *isa,
                                  const struct ep_gate_batch *batch, int64_t first, int64_t num,
                                  const float *x, struct ep_routing *routing)
{
    const int64_t num_experts = gate->config.num_experts;
    int32_t *idx = routing->topk_idx + first * gate->config.top_k;
    uint64_t left = num == EP_GATE_CHUNK ? UINT64_MAX : ((uint64_t)1 << num) - 1;
    if (isa != NULL) {
        left = isa->route(&gate->plan, x, num, idx, weights_of(routing, first));
    }
    for (; left != 0; left &= left - 1) {
        const int64_t t = __builtin_ctzll(left);
        const enum ep_status status =
            ep_gate_choose_plain(gate, batch->first_token + first + t, x + t * num_experts,
                                 idx + t * gate->config.top_k, weights_of(routing, first + t));
        if (status != EP_OK) {
            return status;
        }
    }
    for (int64_t t = 0; gate->config.policy->thin != NULL && t < num; t++) {
        gate->config.policy->thin(gate, batch->first_token + first + t, x + t * num_experts,
                                  idx + t * gate->config.top_k, weights_of(routing, first + t));
    }
    return EP_OK;
}

/* The rows' logits, changed where the router does so. */
static const float *perturb_chunk(const struct ep_gate *gate, const struct ep_gate_batch *batch,
                                  int64_t first, int64_t num)
{
    const int64_t num_experts = gate->config.num_experts;
    const float *x = batch->logits + first * num_experts;
    if (gate->config.policy->perturb == NULL) {
        return x;
    }
    memcpy(gate->chunk, x, (size_t)(num * num_experts) * sizeof *x);
    for (int64_t t = 0; t < num; t++) {
        const float *noise =
            batch->noise_logits != NULL ? batch->noise_logits + (first + t) * num_experts : NULL;
        gate->config.policy->perturb(gate, batch->first_token + first + t, noise,
                                     gate->chunk + t * num_experts);
    }
    return gate->chunk;
}

static enum ep_status route_logits(struct ep_gate *gate, const struct ep_gate_isa *isa,
                                   const struct ep_gate_batch *batch, struct ep_routing *routing)
{
    for (int64_t first = 0; first < batch->num_tokens; first += EP_GATE_CHUNK) {
        const int64_t left = batch->num_tokens - first;
        const int64_t num = left < EP_GATE_CHUNK ? left : EP_GATE_CHUNK;
        const float *x = perturb_chunk(gate, batch, first, num);
        const enum ep_status status = route_chunk(gate, isa, batch, first, num, x, routing);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static void route_blind(const struct ep_gate *gate, const struct ep_gate_batch *batch,
                        struct ep_routing *routing)
{
    const int64_t k = gate->config.top_k;
    const float weight = (float)(gate->config.route_scale / (double)k);
    for (int64_t t = 0; t < batch->num_tokens; t++) {
        float *weights = weights_of(routing, t);
        gate->config.policy->choose_blind(gate, batch->first_token + t,
                                          batch->token_ids != NULL ? batch->token_ids[t] : -1,
                                          routing->topk_idx + t * k);
        for (int64_t i = 0; weights != NULL && i < k; i++) {
            weights[i] = weight;
        }
    }
}

static enum ep_status route(struct ep_gate *gate, const struct ep_gate_isa *isa,
                            const struct ep_gate_batch *batch, struct ep_routing *routing)
{
    const struct ep_gate_policy *policy = gate->config.policy;
    EP_ASSERT(routing->num_experts == gate->config.num_experts);
    EP_ASSERT(routing->top_k == ep_gate_num_slots(gate));
    EP_ASSERT(batch->num_tokens >= 0 && batch->num_tokens <= routing->num_tokens);
    EP_ASSERT(batch->logits != NULL || policy->choose_blind != NULL || batch->num_tokens == 0);
    if (policy->choose_batch != NULL) {
        return policy->choose_batch(gate, batch, routing);
    }
    if (policy->choose_blind != NULL) {
        route_blind(gate, batch, routing);
        return EP_OK;
    }
    return route_logits(gate, isa, batch, routing);
}

enum ep_status ep_gate_route(struct ep_gate *gate, const struct ep_gate_batch *batch,
                             struct ep_routing *routing)
{
    return route(gate, gate->isa, batch, routing);
}

enum ep_status ep_gate_route_plain(struct ep_gate *gate, const struct ep_gate_batch *batch,
                                   struct ep_routing *routing)
{
    return route(gate, NULL, batch, routing);
}
