/* SPDX-License-Identifier: Apache-2.0 */
/* Running policies on what was loaded, and judging them. */
#include "results/place_case.h"

#include "base/units.h"
#include "kernels/models.h"
#include "kernels/place_file.h"
#include "results/fit_rung.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_RANKS = 8, DEFAULT_HIDDEN = 7168, MAX_BLOCKS = 200 };
static const double interval_level = 0.95;

/* --- options ------------------------------------------------------------------------------- */

static char *add_warning(struct ep_place_case *run)
{
    EP_ASSERT(run->num_warnings < EP_PLACE_MAX_WARNINGS);
    return run->warnings[run->num_warnings++];
}

/* Weights of one expert in bf16: two matrices of hidden x ffn, three where gated. */
static void apply_model(const struct ep_model *model, struct ep_place_options *o)
{
    o->source.num_experts = o->source.num_experts != 0 ? o->source.num_experts : model->num_experts;
    if (o->source.counts == NULL && o->source.top_k == 0) {
        o->source.top_k = model->top_k;
    }
    if (o->hidden == 0 && o->token_bytes == 0) {
        o->hidden = model->hidden;
    }
    if (o->num_groups == 0 && model->num_groups > 0) {
        o->num_groups = model->num_groups;
    }
    if (o->expert_bytes == 0) {
        o->expert_bytes = (model->gated ? 3 : 2) * model->hidden * model->expert_ffn * 2;
    }
}

static enum ep_status set_model(struct ep_place_case *run)
{
    enum ep_status status;
    const struct ep_model *model = NULL;
    if (run->options.model == NULL && run->options.model_file == NULL) {
        return EP_OK;
    }
    EP_TRY(ep_models_open(run->options.model_file, run->options.model, &run->models, &model));
    EP_TRY(ep_model_need_experts(model));
    apply_model(model, &run->options);
out:
    return status;
}

static enum ep_status set_bytes(struct ep_place_case *run)
{
    struct ep_place_options *o = &run->options;
    if (o->token_bytes != 0 && (o->hidden != 0 || o->dtype_given)) {
        return ep_error_set(EP_EINVAL, "--token-bytes replaces --hidden and --dtype; give one");
    }
    if (o->token_bytes == 0 && o->hidden == 0) {
        o->hidden = DEFAULT_HIDDEN;
    }
    run->row_bytes = o->token_bytes != 0 ? o->token_bytes : ep_dtype_row_bytes(o->dtype, o->hidden);
    run->expert_bytes = o->expert_bytes;
    return EP_OK;
}

static enum ep_status set_nodes(struct ep_place_case *run)
{
    const struct ep_place_options *o = &run->options;
    const int64_t num_ranks = o->source.num_ranks;
    if (o->ranks_per_node != 0 && num_ranks % o->ranks_per_node != 0) {
        return ep_error_set(EP_EINVAL,
                            "--ranks-per-node %" PRId64 " does not divide %" PRId64 " ranks",
                            o->ranks_per_node, num_ranks);
    }
    if (o->ranks_per_node != 0 && o->num_nodes != 0 &&
        o->ranks_per_node * o->num_nodes != num_ranks) {
        return ep_error_set(EP_EINVAL,
                            "--nodes %" PRId64 " of --ranks-per-node %" PRId64
                            " contradict %" PRId64 " ranks",
                            o->num_nodes, o->ranks_per_node, num_ranks);
    }
    run->shape.num_ranks = num_ranks;
    run->shape.num_nodes = o->num_nodes != 0        ? o->num_nodes
                           : o->ranks_per_node != 0 ? num_ranks / o->ranks_per_node
                                                    : 1;
    return EP_OK;
}

/* As few slots as hold all experts, unless more are asked for. */
static enum ep_status set_shape(struct ep_place_case *run)
{
    const struct ep_place_options *o = &run->options;
    const int64_t ranks = run->shape.num_ranks;
    const int64_t experts = run->input.num_experts;
    run->shape.num_experts = experts;
    run->shape.num_groups = o->num_groups != 0 ? o->num_groups : 1;
    run->shape.num_slots = o->num_slots != 0 ? o->num_slots : (experts + ranks - 1) / ranks * ranks;
    return ep_place_check_shape(&run->shape);
}

/* --- policies ------------------------------------------------------------------------------ */

/* Of the input: all that it can feed. */
static bool is_possible(const struct ep_place_case *run, const struct ep_place_policy *policy)
{
    return (run->input.has_tokens || !policy->over_time) &&
           (ep_place_input_similar(&run->input) != NULL || !policy->needs_tokens);
}

static enum ep_status add_policy(const struct ep_place_policy *policy, struct ep_place_case *run)
{
    for (int64_t i = 0; i < run->num_policies; i++) {
        if (run->policies[i] == policy) {
            return ep_error_set(EP_EINVAL, "--policy: %s is named twice", policy->name);
        }
    }
    if (!is_possible(run, policy)) {
        return ep_error_set(EP_EINVAL,
                            "policy %s needs tokens (--skew or --assignments); %s has counts alone",
                            policy->name, run->input.name);
    }
    run->policies[run->num_policies++] = policy;
    return EP_OK;
}

static enum ep_status choose_policies(struct ep_place_case *run)
{
    enum ep_status status = EP_OK;
    const struct ep_place_policy *policy = NULL;
    struct ep_list list = {0};
    int64_t room = 0;
    if (run->options.policies != NULL) {
        EP_TRY(ep_list_split(run->options.policies, ',', "--policy", &list));
    }
    while (ep_place_policy_at((int)room) != NULL) {
        room++;
    }
    run->policies = calloc((size_t)(room + list.num), sizeof *run->policies);
    if (run->policies == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for policies");
        goto out;
    }
    for (int64_t i = 0; i < list.num; i++) {
        EP_TRY(ep_place_policy_find(list.items[i], &policy));
        EP_TRY(add_policy(policy, run));
    }
    for (int i = 0; list.num == 0 && (policy = ep_place_policy_at(i)) != NULL; i++) {
        if (is_possible(run, policy)) {
            EP_TRY(add_policy(policy, run));
        }
    }
out:
    ep_list_fini(&list);
    return status;
}

/* --- judging ------------------------------------------------------------------------------- */

/* Rows as sent are what a transport's features are of; a padded one sends more than there are. */
static bool is_padded(const char *transport)
{
    return strcmp(transport, "alltoall") == 0;
}

static void predict_time(const struct ep_place_case *run, const struct ep_fitted_group *group,
                         const struct ep_place_judgement *j, struct ep_place_time *time)
{
    *time = (struct ep_place_time){.group = group, .time_s = (double)NAN};
    int basis = 0;
    while (basis < EP_NUM_BASES &&
           strcmp(group->byte_basis, ep_basis_name((enum ep_basis)basis)) != 0) {
        basis++;
    }
    if (basis >= EP_BASIS_NODE) {
        time->withheld = "its rows go in two stages, which are not predicted apart";
        return;
    }
    if (is_padded(group->transport)) {
        time->withheld = "it pads rows, and by how much depends on the transport";
        return;
    }
    const struct ep_features *f = &j->features[basis];
    const struct ep_model_features features = {{
        [EP_FEATURE_RANKS] = (double)run->shape.num_ranks,
        [EP_FEATURE_REMOTE_BYTES] = (double)f->remote_bytes,
        [EP_FEATURE_MEAN_OUT_BYTES] = f->mean_out_bytes,
        [EP_FEATURE_H_RANK_BYTES] = (double)f->h_rank_bytes,
        [EP_FEATURE_MESSAGES] = (double)f->messages_max,
        [EP_FEATURE_MEMORY_BYTES] =
            run->shape.num_nodes == 1 ? 2 * (double)f->total_bytes : 0,
        [EP_FEATURE_NIC_BYTES] = (double)f->h_node_bytes,
        [EP_FEATURE_STEP_PORT_BYTES] = (double)f->step_port_bytes,
    }};
    if (ep_fitted_group_uses(group, EP_FEATURE_COPIED_BYTES)) {
        time->withheld = "it depends on bytes copied, which only the transport knows";
        return;
    }
    if (ep_fitted_group_uses(group, EP_FEATURE_UPLINK_BYTES) ||
        ep_fitted_group_uses(group, EP_FEATURE_UPLINK_MESSAGES)) {
        time->withheld = "it depends on uplinks, and which switch a node hangs on is not told";
        return;
    }
    time->time_s = ep_fitted_group_predict(group, &features);
    time->extrapolates = ep_fitted_group_extrapolates(group, &features);
}

static int64_t choose_num_blocks(int64_t num_tokens)
{
    const int64_t blocks = num_tokens / EP_PLACE_BLOCK_TOKENS;
    return blocks < 1 ? 1 : blocks > MAX_BLOCKS ? MAX_BLOCKS : blocks;
}

static enum ep_status judge_part(const struct ep_place_case *run, const struct ep_place_task *task,
                                 const struct ep_place_tokens *tokens,
                                 const struct ep_place_result *result, struct ep_place_part *part)
{
    enum ep_status status;
    struct ep_place_schedule schedule = {result->map, 1, tokens->num_tokens};
    if (result->policy->over_time) {
        const struct ep_place_dynamic_options options = {.window_tokens =
                                                             run->options.window_tokens,
                                                         .every = run->options.every,
                                                         .hysteresis = run->options.hysteresis,
                                                         .policy = run->dynamic_policy};
        EP_TRY(ep_place_follow(task, tokens, result->map, &options, &part->dynamic));
        schedule = (struct ep_place_schedule){part->dynamic.maps, part->dynamic.num_windows,
                                              options.window_tokens};
    }
    EP_TRY(ep_place_judge(&run->shape, tokens, &schedule, run->row_bytes,
                          choose_num_blocks(tokens->num_tokens), &part->judgement));
    const int64_t num_groups = run->machine != NULL ? run->machine->num_groups : 0;
    part->times = calloc((size_t)num_groups + 1, sizeof *part->times);
    if (part->times == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for predictions");
        goto out;
    }
    for (int64_t g = 0; g < num_groups; g++) {
        predict_time(run, &run->machine->groups[g], &part->judgement, &part->times[g]);
    }
out:
    return status;
}

static enum ep_status run_policy(const struct ep_place_case *run, int64_t layer,
                                 const struct ep_place_policy *policy,
                                 struct ep_place_result *result)
{
    enum ep_status status;
    const struct ep_place_input *in = &run->input;
    const struct ep_place_task task = {.shape = run->shape,
                                       .load = in->fit.load + layer * in->num_experts,
                                       .tokens = ep_place_input_similar(in),
                                       .slack = run->options.slack,
                                       .seed = run->options.source.seed};
    *result = (struct ep_place_result){.policy = policy, .layer = in->first_layer + layer};
    result->map = calloc((size_t)run->shape.num_slots, sizeof *result->map);
    result->rank_load = calloc((size_t)run->shape.num_ranks, sizeof *result->rank_load);
    result->node_load = calloc((size_t)run->shape.num_nodes, sizeof *result->node_load);
    if (result->map == NULL || result->rank_load == NULL || result->node_load == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    EP_TRY(ep_place_run(policy->over_time ? run->dynamic_policy : policy, &task, result->map));
    EP_TRY(ep_place_fill_loads(&run->shape, task.load, result->map, result->rank_load,
                               result->node_load));
    if (in->has_tokens) {
        EP_TRY(judge_part(run, &task, &in->fitted, result, &result->fitted));
    }
    if (in->held_out.num_tokens > 0) {
        EP_TRY(judge_part(run, &task, &in->held_out, result, &result->held_out));
    }
out:
    return status;
}

/* --- differences --------------------------------------------------------------------------- */

static enum ep_status compare(const struct ep_place_case *run, const struct ep_place_part *other,
                              const char *name, struct ep_place_part *part)
{
    struct ep_place_against *against = &part->against[part->num_against++];
    const int64_t blocks = part->judgement.num_blocks;
    const double tail = blocks > 1 ? ep_fit_expanded_tail(interval_level, blocks) : 0;
    against->policy = name;
    return ep_place_compare(&part->judgement, &other->judgement, run->options.num_draws, tail,
                            run->options.source.seed, &against->difference);
}

/* Every policy against contiguous and eplb, where these were run too. */
static enum ep_status compare_all(struct ep_place_case *run)
{
    static const struct ep_place_policy *const others[] = {&ep_place_contiguous, &ep_place_eplb};
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < run->num_results; i++) {
        struct ep_place_result *result = &run->results[i];
        for (int64_t k = 0; k < run->num_results; k++) {
            const struct ep_place_result *other = &run->results[k];
            if (k == i || (other->policy != others[0] && other->policy != others[1])) {
                continue;
            }
            if (run->input.has_tokens) {
                EP_TRY(compare(run, &other->fitted, other->policy->name, &result->fitted));
            }
            if (run->input.held_out.num_tokens > 0) {
                EP_TRY(compare(run, &other->held_out, other->policy->name, &result->held_out));
            }
        }
    }
out:
    return status;
}

/* --- the whole ----------------------------------------------------------------------------- */

static void warn(struct ep_place_case *run)
{
    const struct ep_place_input *in = &run->input;
    const int64_t judged =
        in->held_out.num_tokens > 0 ? in->held_out.num_tokens : in->fitted.num_tokens;
    if (in->has_tokens && judged / EP_PLACE_BLOCK_TOKENS < EP_PLACE_MIN_BLOCKS) {
        snprintf(add_warning(run), EP_PLACE_WARNING_SIZE,
                 "%" PRId64 " tokens to judge on are fewer than %d blocks of %d: no intervals",
                 judged, EP_PLACE_MIN_BLOCKS, EP_PLACE_BLOCK_TOKENS);
    }
    if (in->drawn) {
        snprintf(
            add_warning(run), EP_PLACE_WARNING_SIZE,
            "tokens are drawn from counts: load is real, which experts come together is chance");
    }
    for (int64_t i = 0; i < run->num_policies; i++) {
        if (run->policies[i]->knows_tokens && ep_place_input_similar(in) == NULL) {
            snprintf(
                add_warning(run), EP_PLACE_WARNING_SIZE,
                "counts do not say which experts are chosen together: policy %s only evens out "
                "loads",
                run->policies[i]->name);
        }
        if (run->policies[i] == &ep_place_eplb &&
            run->shape.num_groups % run->shape.num_nodes != 0) {
            snprintf(add_warning(run), EP_PLACE_WARNING_SIZE,
                     "experts in %" PRId64 " groups (--groups) cannot be shared out evenly to %" PRId64
                     " nodes: policy eplb is eplb-global here",
                     run->shape.num_groups, run->shape.num_nodes);
        }
    }
}

static enum ep_status prepare(const struct ep_place_options *options, struct ep_place_case *run)
{
    enum ep_status status;
    *run = (struct ep_place_case){.options = *options};
    if (run->options.source.num_ranks == 0) {
        run->options.source.num_ranks = DEFAULT_RANKS;
    }
    EP_TRY(set_model(run));
    EP_TRY(set_bytes(run));
    EP_TRY(set_nodes(run));
    EP_TRY(ep_place_input_load(&run->options.source, &run->input));
    EP_TRY(set_shape(run));
    EP_TRY(choose_policies(run));
    EP_TRY(ep_place_policy_find(run->options.dynamic_policy, &run->dynamic_policy));
    if (run->dynamic_policy->over_time) {
        status = ep_error_set(EP_EINVAL, "--dynamic-policy: %s cannot place anew by itself",
                              run->dynamic_policy->name);
        goto out;
    }
    if (run->options.save_path != NULL && run->num_policies != 1) {
        status =
            ep_error_set(EP_EINVAL, "--save writes the maps of one policy; --policy names %" PRId64,
                         run->num_policies);
        goto out;
    }
    if (run->options.machine != NULL && !run->input.has_tokens) {
        status = ep_error_set(EP_EINVAL, "--machine predicts times of tokens; --counts has none");
        goto out;
    }
    if (run->options.machine != NULL) {
        EP_TRY(ep_fitted_machine_read(run->options.machine, &run->machine));
    }
    warn(run);
out:
    return status;
}

static enum ep_status save_maps(const struct ep_place_case *run)
{
    const int64_t num_slots = run->shape.num_slots;
    int32_t *maps = malloc((size_t)(run->num_results * num_slots) * sizeof *maps);
    if (maps == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for maps");
    }
    for (int64_t i = 0; i < run->num_results; i++) {
        memcpy(maps + i * num_slots, run->results[i].map, (size_t)num_slots * sizeof *maps);
    }
    const enum ep_status status =
        ep_place_maps_save(run->options.save_path, maps, run->num_results, num_slots);
    free(maps);
    return status;
}

enum ep_status ep_place_case_init(const struct ep_place_options *options, struct ep_place_case *run)
{
    enum ep_status status;
    EP_TRY(prepare(options, run));
    run->results =
        calloc((size_t)(run->input.fit.num_layers * run->num_policies), sizeof *run->results);
    if (run->results == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for results");
        goto out;
    }
    for (int64_t layer = 0; layer < run->input.fit.num_layers; layer++) {
        for (int64_t p = 0; p < run->num_policies; p++) {
            EP_TRY(run_policy(run, layer, run->policies[p], &run->results[run->num_results++]));
        }
    }
    if (run->input.has_tokens) {
        EP_TRY(compare_all(run));
    }
    if (run->options.save_path != NULL) {
        EP_TRY(save_maps(run));
    }
    return EP_OK;
out:
    ep_place_case_fini(run);
    return status;
}

static void release_part(struct ep_place_part *part)
{
    ep_place_judgement_fini(&part->judgement);
    ep_place_dynamic_fini(&part->dynamic);
    free(part->times);
}

void ep_place_case_fini(struct ep_place_case *run)
{
    for (int64_t i = 0; i < run->num_results; i++) {
        free(run->results[i].map);
        free(run->results[i].rank_load);
        free(run->results[i].node_load);
        release_part(&run->results[i].fitted);
        release_part(&run->results[i].held_out);
    }
    free(run->results);
    free(run->policies);
    ep_fitted_machine_destroy(run->machine);
    ep_place_input_fini(&run->input);
    ep_models_destroy(run->models);
    *run = (struct ep_place_case){0};
}
