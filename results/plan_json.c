/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as JSON; keys: results/README.md, "plan". */
#include "results/plan_report.h"

#include "base/json.h"
#include "kernels/capacity_options.h"
#include "kernels/model_report.h"

#include <math.h>

static enum ep_status append(json_t *list, json_t *value)
{
    return json_array_append_new(list, value) == 0 ? EP_OK
                                                   : ep_error_set(EP_ENOMEM, "no memory for JSON");
}

/* Bytes are counted in doubles, and written as whole numbers. */
static json_t *whole(double value)
{
    return isnan(value) ? json_null() : json_integer((json_int_t)llround(value));
}

static json_t *text_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? json_string(text) : json_null();
}

static const char *const statistics[EP_PLAN_NUM_STATISTICS] = {
    [EP_PLAN_MEDIAN] = "median", [EP_PLAN_P99] = "p99", [EP_PLAN_WORST] = "worst"};

static enum ep_status add_statistics(json_t *object, const char *key, const double *values)
{
    enum ep_status status;
    json_t *all = json_object();
    EP_TRY(ep_json_set(object, key, all));
    for (int q = 0; q < EP_PLAN_NUM_STATISTICS; q++) {
        EP_TRY(ep_json_set(all, statistics[q], whole(values[q])));
    }
out:
    return status;
}

/* --- what was asked ----------------------------------------------------------------------- */

static enum ep_status add_capacity(const struct ep_capacity_policy *policy, json_t *root)
{
    char text[256];
    enum ep_status status;
    const bool ruled = policy != NULL && policy->rule != NULL;
    EP_TRY(
        ep_json_set(root, "capacity_rule", ruled ? json_string(policy->rule->name) : json_null()));
    EP_TRY(ep_json_set(root, "capacity_factor",
                       ruled ? ep_json_real(ep_capacity_factor(policy)) : json_null()));
    EP_TRY(ep_json_set(root, "capacity",
                       policy != NULL ? json_string(ep_capacity_describe(policy, text, sizeof text))
                                      : json_null()));
out:
    return status;
}

static enum ep_status add_config(const struct ep_plan_report *r, json_t *root)
{
    const struct ep_plan_config *c = r->config;
    enum ep_status status;
    json_t *model = NULL;
    EP_TRY(ep_model_report_json(c->model, 0, &model));
    EP_TRY(ep_json_set(root, "model", model));
    EP_TRY(ep_json_set(root, "world", json_integer(c->world)));
    EP_TRY(ep_json_set(root, "gpu_memory_bytes", whole(c->gpu_memory_bytes)));
    EP_TRY(ep_json_set(root, "tokens", json_integer(c->tokens)));
    EP_TRY(ep_json_set(root, "microbatches", json_integer(c->num_microbatches)));
    EP_TRY(ep_json_set(root, "weight_dtype", json_string(ep_weight_type_name(c->weights))));
    EP_TRY(ep_json_set(root, "dtype", json_string(ep_dtype_name(c->dispatch_dtype))));
    EP_TRY(ep_json_set(root, "combine_dtype", json_string(ep_dtype_name(c->combine_dtype))));
    EP_TRY(ep_json_set(root, "training", json_boolean(c->training)));
    EP_TRY(ep_json_set(root, "optimizer",
                       json_string(c->optimizer == EP_PLAN_ADAM ? "adam" : "none")));
    EP_TRY(ep_json_set(root, "gradient_bytes_per_param",
                       c->training ? ep_json_real(ep_plan_gradient_bytes()) : json_null()));
    EP_TRY(
        ep_json_set(root, "optimizer_bytes_per_param", ep_json_real(ep_plan_optimizer_bytes(c))));
    EP_TRY(ep_json_set(root, "shard_optimizer", json_boolean(c->shard_optimizer)));
    EP_TRY(ep_json_set(root, "recompute", json_boolean(c->recompute)));
    EP_TRY(add_capacity(c->capacity, root));
    EP_TRY(
        ep_json_set(root, "token_buffers",
                    json_string(c->buffers == EP_PLAN_BUFFERS_DEEPEP_LL ? "deepep-ll" : "plain")));
    EP_TRY(ep_json_set(root, "byte_basis", json_string(ep_basis_name(c->byte_basis))));
    EP_TRY(ep_json_set(root, "skew", json_string(c->skew)));
    EP_TRY(ep_json_set(root, "seed", json_integer((json_int_t)c->seed)));
    EP_TRY(ep_json_set(root, "samples", json_integer(c->num_samples)));
    EP_TRY(ep_json_set(root, "fits_by", json_string(statistics[ep_plan_deciding(c)])));
out:
    return status;
}

static enum ep_status add_counts(const struct ep_plan_report *r, json_t *root)
{
    enum ep_status status;
    json_t *considered = json_object();
    json_t *rejected = json_object();
    json_t *notes = json_array();
    EP_TRY(ep_json_set(root, "considered", considered));
    EP_TRY(ep_json_set(root, "rejected", rejected));
    EP_TRY(ep_json_set(root, "notes", notes));
    for (int i = 0; i < EP_PLAN_NUM_CONVENTIONS; i++) {
        const char *name = ep_plan_convention_name((enum ep_plan_convention)i);
        json_t *counts = json_object();
        EP_TRY(ep_json_set(considered, name, json_integer(r->set->considered[i])));
        EP_TRY(ep_json_set(rejected, name, counts));
        for (int k = 0; k < EP_PLAN_NUM_RULES; k++) {
            EP_TRY(ep_json_set(counts, ep_plan_rule_text((enum ep_plan_rule)k),
                               json_integer(r->set->rejected[i][k])));
        }
    }
    for (int i = 0; i < r->num_notes; i++) {
        EP_TRY(append(notes, json_string(r->notes[i])));
    }
out:
    return status;
}

/* --- plans -------------------------------------------------------------------------------- */

static enum ep_status add_memory(const struct ep_plan_report *r, const struct ep_plan *p,
                                 json_t *plan)
{
    const struct ep_plan_memory *m = &p->memory;
    enum ep_status status;
    json_t *memory = json_object();
    EP_TRY(ep_json_set(plan, "memory_bytes", memory));
    EP_TRY(ep_json_set(memory, "total", whole(m->total[ep_plan_deciding(r->config)])));
    EP_TRY(add_statistics(memory, "totals", m->total));
    EP_TRY(ep_json_set(memory, "weights_routed", whole(m->routed)));
    EP_TRY(ep_json_set(memory, "weights_shared", whole(m->shared)));
    EP_TRY(ep_json_set(memory, "weights_router", whole(m->router)));
    EP_TRY(ep_json_set(memory, "weights_rest", whole(m->rest)));
    EP_TRY(ep_json_set(memory, "gradients", whole(m->gradients)));
    EP_TRY(ep_json_set(memory, "optimizer", whole(m->optimizer)));
    EP_TRY(add_statistics(memory, "token_buffers", m->token_buffers));
    EP_TRY(add_statistics(memory, "activations_experts", m->activations));
    EP_TRY(ep_json_set(memory, "activations_other", whole(m->other_activations)));
    EP_TRY(ep_json_set(memory, "stage", json_integer(m->stage)));
    EP_TRY(ep_json_set(memory, "lower_bound", json_boolean(p->lower_bound)));
out:
    return status;
}

static enum ep_status add_bytes(const struct ep_plan *p, json_t *plan)
{
    enum ep_status status;
    json_t *bytes = json_object();
    EP_TRY(ep_json_set(plan, "bytes_per_step", bytes));
    EP_TRY(ep_json_set(bytes, "total", whole(p->total_bytes)));
    for (int i = 0; i < EP_PLAN_NUM_COLLECTIVES; i++) {
        EP_TRY(ep_json_set(bytes, ep_plan_collective_key((enum ep_plan_collective)i),
                           whole(p->bytes[i])));
    }
out:
    return status;
}

static enum ep_status add_received(const struct ep_plan_report *r, const struct ep_plan *p,
                                   json_t *plan)
{
    enum ep_status status;
    json_t *received = json_object();
    EP_TRY(ep_json_set(plan, "received_copies", received));
    EP_TRY(ep_json_set(received, "mean", ep_json_real(p->received.mean)));
    for (int q = 0; q < EP_PLAN_NUM_STATISTICS; q++) {
        EP_TRY(ep_json_set(received, statistics[q], ep_json_real(p->received.copies[q])));
    }
    EP_TRY(ep_json_set(received, "copies_per_token", ep_json_real(p->received.copies_per_token)));
    EP_TRY(ep_json_set(received, "ranks_per_token", ep_json_real(p->received.ranks_per_token)));
    EP_TRY(ep_json_set(received, "capacity",
                       r->config->capacity != NULL ? json_integer(ep_plan_capacity(r->config, p))
                                                   : json_null()));
    EP_TRY(ep_json_set(received, "kept_fraction", ep_json_real(p->received.kept_fraction)));
out:
    return status;
}

static enum ep_status add_plan(const struct ep_plan_report *r, const struct ep_plan *p,
                               json_t *plans)
{
    enum ep_status status;
    json_t *plan = json_object();
    EP_TRY(ep_json_set(plan, "convention", json_string(ep_plan_convention_name(p->convention))));
    EP_TRY(ep_json_set(plan, "ep", json_integer(p->ep)));
    EP_TRY(ep_json_set(plan, "tp", json_integer(p->tp)));
    EP_TRY(ep_json_set(plan, "dp", json_integer(p->dp)));
    EP_TRY(ep_json_set(plan, "pp", json_integer(p->pp)));
    EP_TRY(ep_json_set(plan, "expert_tp", json_integer(p->expert_tp)));
    EP_TRY(ep_json_set(plan, "expert_dp", json_integer(p->expert_dp)));
    EP_TRY(ep_json_set(plan, "data_replicas", json_integer(p->data_replicas)));
    EP_TRY(add_memory(r, p, plan));
    EP_TRY(add_bytes(p, plan));
    EP_TRY(ep_json_set(plan, "bytes_per_token", ep_json_real(p->bytes_per_token)));
    EP_TRY(ep_json_set(plan, "pipeline_idle_fraction",
                       ep_json_real(ep_plan_idle_fraction(r->config, p))));
    EP_TRY(add_received(r, p, plan));
    EP_TRY(ep_json_set(plan, "fits", p->fits < 0 ? json_null() : json_boolean(p->fits)));
    EP_TRY(ep_json_set(plan, "reason", json_string(p->reason)));
    EP_TRY(append(plans, json_incref(plan)));
out:
    json_decref(plan);
    return status;
}

/* --- experts spread, copied or cut -------------------------------------------------------- */

static enum ep_status add_strategy(const struct ep_plan_timed_strategy *t, json_t *list)
{
    const struct ep_plan_strategy *s = &t->strategy;
    enum ep_status status;
    json_t *one = json_object();
    EP_TRY(ep_json_set(one, "experts", json_string(s->name)));
    EP_TRY(ep_json_set(one, "possible", json_boolean(s->possible)));
    EP_TRY(ep_json_set(one, "reason", text_or_null(s->impossible)));
    EP_TRY(ep_json_set(one, "expert_bytes_per_rank",
                       s->possible ? whole(s->expert_bytes) : json_null()));
    EP_TRY(ep_json_set(one, "weight_bytes_per_rank",
                       s->possible ? whole(s->weight_bytes) : json_null()));
    EP_TRY(ep_json_set(one, "dispatch_bytes_per_token", ep_json_real(s->dispatch_bytes_per_token)));
    EP_TRY(ep_json_set(one, "combine_bytes_per_token", ep_json_real(s->combine_bytes_per_token)));
    EP_TRY(ep_json_set(one, "bytes_per_token",
                       ep_json_real(s->dispatch_bytes_per_token + s->combine_bytes_per_token)));
    EP_TRY(ep_json_set(one, "dedup_bytes_per_token", ep_json_real(s->dedup_bytes_per_token)));
    EP_TRY(ep_json_set(one, "layer_time_s", ep_json_real(t->time_s)));
    json_t *by = json_array();
    EP_TRY(ep_json_set(one, "time_by", by));
    for (int i = 0; i < 2 && t->by[i] != NULL; i++) {
        EP_TRY(append(by, json_string(t->by[i])));
    }
    EP_TRY(ep_json_set(one, "time_beyond", text_or_null(t->beyond)));
    EP_TRY(append(list, json_incref(one)));
out:
    json_decref(one);
    return status;
}

static enum ep_status add_strategies(const struct ep_plan_report *r, json_t *root)
{
    enum ep_status status;
    json_t *list = json_array();
    EP_TRY(ep_json_set(root, "strategies", list));
    EP_TRY(ep_json_set(root, "strategy_ranks", json_integer(r->num_ranks)));
    for (int i = 0; i < EP_PLAN_NUM_STRATEGIES; i++) {
        EP_TRY(add_strategy(&r->strategies[i], list));
    }
out:
    return status;
}

enum ep_status ep_plan_report_save(const struct ep_plan_report *report, const char *path)
{
    enum ep_status status;
    json_t *root = json_object();
    json_t *plans = json_array();
    EP_TRY(ep_json_set(root, "schema", json_string("epbench-plan-1")));
    EP_TRY(add_config(report, root));
    EP_TRY(add_counts(report, root));
    EP_TRY(add_strategies(report, root));
    for (int64_t i = 0; i < report->set->num; i++) {
        EP_TRY(add_plan(report, &report->set->plans[i], plans));
    }
    EP_TRY(ep_json_set(root, "plans", json_incref(plans)));
    EP_TRY(ep_json_save(path, root));
out:
    json_decref(plans);
    json_decref(root);
    return status;
}
