/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that a rank sends in a step, per collective, and experts spread, copied or cut. Formulas
 * and sources: kernels/README.md, "Plans". */
#include "kernels/plan.h"

#include "kernels/imbalance.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *key;
    const char *title;
} collectives[EP_PLAN_NUM_COLLECTIVES] = {
    [EP_PLAN_DISPATCH] = {"ep_dispatch", "EP dispatch"},
    [EP_PLAN_COMBINE] = {"ep_combine", "EP combine"},
    [EP_PLAN_EP_BACKWARD] = {"ep_backward", "EP backward"},
    [EP_PLAN_EXPERT_TP] = {"expert_tp", "expert TP"},
    [EP_PLAN_TP] = {"tp", "TP"},
    [EP_PLAN_PP] = {"pp", "PP"},
    [EP_PLAN_GRAD_EXPERTS] = {"grad_experts", "expert gradients"},
    [EP_PLAN_GRAD_REST] = {"grad_rest", "other gradients"},
};

const char *ep_plan_collective_key(enum ep_plan_collective collective)
{
    EP_ASSERT((unsigned)collective < EP_PLAN_NUM_COLLECTIVES);
    return collectives[collective].key;
}

const char *ep_plan_collective_title(enum ep_plan_collective collective)
{
    EP_ASSERT((unsigned)collective < EP_PLAN_NUM_COLLECTIVES);
    return collectives[collective].title;
}

enum { ACTIVATION_BYTES = 2 };

/* What a stage and a rank have, over all micro-batches of a step. */
struct scope {
    double tokens; /* of one rank: a TP rank's part of the sequence */
    double rows;   /* that one rank sends for one MoE layer, after dropping and padding */
    double layers;
    double moe_layers;
    double forward;  /* passes: one more where the backward pass computes the layer again */
    double backward; /* one where trained */
};

/* Of EP's collectives, own rank included. */
static double rows_per_token(const struct ep_plan_config *c, const struct ep_plan *p)
{
    return c->byte_basis == EP_BASIS_RANK
               ? p->received.ranks_per_token
               : p->received.copies_per_token * p->received.kept_fraction;
}

static struct scope make_scope(const struct ep_plan_config *c, const struct ep_plan *p,
                               int64_t stage)
{
    const struct ep_model *m = c->model;
    int64_t first = 0;
    int64_t end = 0;
    ep_plan_stage_layers(c, p, stage, &first, &end);
    const double tokens = (double)(c->num_microbatches * (c->tokens / p->tp));
    const double padded =
        (double)c->num_microbatches * (double)m->num_experts * (double)ep_plan_capacity(c, p);
    const bool pads = c->capacity != NULL && c->capacity->pad;
    return (struct scope){
        .tokens = tokens,
        .rows = pads ? padded : tokens * rows_per_token(c, p),
        .layers = (double)(end - first),
        .moe_layers = (double)ep_model_count_moe_layers(m, first, end),
        .forward = c->recompute ? 2 : 1,
        .backward = c->training ? 1 : 0,
    };
}

/* The part of evenly spread bytes that leaves one of n ranks. */
static double remote_part(int64_t n)
{
    return 1 - 1 / (double)n;
}

static void count_experts(const struct ep_plan_config *c, const struct ep_plan *p,
                          const struct scope *s, double *bytes)
{
    const double in = (double)ep_dtype_row_bytes(c->dispatch_dtype, c->model->hidden);
    const double out = (double)ep_dtype_row_bytes(c->combine_dtype, c->model->hidden);
    const double rows = s->moe_layers * s->rows;
    const double peers = (double)(p->expert_tp - 1);
    const double remote = rows * remote_part(p->ep);
    bytes[EP_PLAN_DISPATCH] = s->forward * remote * in;
    bytes[EP_PLAN_COMBINE] = s->forward * remote * out;
    bytes[EP_PLAN_EP_BACKWARD] = s->backward * remote * 2 * out;
    bytes[EP_PLAN_EXPERT_TP] = rows * peers * (s->forward * (in + out) + s->backward * 2 * out);
}

/* Each block (attention; FFN where it is cut) gathers its input and scatters the sum of its output.
 */
static void count_activations(const struct ep_plan_config *c, const struct ep_plan *p,
                              int64_t stage, const struct scope *s, double *bytes)
{
    const double row = ACTIVATION_BYTES * (double)c->model->hidden;
    const double shared = c->model->num_shared > 0 ? s->moe_layers : 0;
    const double blocks = s->layers + (s->layers - s->moe_layers) + shared;
    const double sends = (stage + 1 < p->pp ? 1 : 0) + (c->training && stage > 0 ? 1 : 0);
    bytes[EP_PLAN_TP] =
        2 * blocks * (s->forward + s->backward) * s->tokens * row * (double)(p->tp - 1);
    bytes[EP_PLAN_PP] = sends * s->tokens * row;
}

/* Ring all-reduce; with sharded state a reduce-scatter of gradients and an all-gather of weights.
 */
static double reduce_bytes(const struct ep_plan_config *c, double weights_bytes,
                           double weight_bytes_each, int64_t ranks)
{
    const double params = weights_bytes / weight_bytes_each;
    const double gradients = params * ep_plan_gradient_bytes();
    const double back = c->shard_optimizer ? weights_bytes : gradients;
    return remote_part(ranks) * (gradients + back);
}

static void count_gradients(const struct ep_plan_config *c, const struct ep_plan *p, int64_t stage,
                            double *bytes)
{
    struct ep_plan_memory memory;
    const double expert_bytes = ep_weight_type_expert_bytes(c->weights);
    const double rest_bytes = ep_weight_type_rest_bytes(c->weights);
    if (!c->training) {
        return;
    }
    ep_plan_weigh_stage(c, p, stage, &memory);
    const double rest = memory.router + (isnan(memory.rest) ? 0 : memory.rest);
    bytes[EP_PLAN_GRAD_EXPERTS] = reduce_bytes(c, memory.routed, expert_bytes, p->expert_dp);
    bytes[EP_PLAN_GRAD_REST] = reduce_bytes(c, memory.shared, expert_bytes, p->data_replicas) +
                               reduce_bytes(c, rest, rest_bytes, p->data_replicas);
}

void ep_plan_count_stage_bytes(const struct ep_plan_config *config, const struct ep_plan *plan,
                               int64_t stage, double *bytes)
{
    const struct scope scope = make_scope(config, plan, stage);
    memset(bytes, 0, EP_PLAN_NUM_COLLECTIVES * sizeof *bytes);
    count_experts(config, plan, &scope, bytes);
    count_activations(config, plan, stage, &scope, bytes);
    count_gradients(config, plan, stage, bytes);
}

/* --- experts spread, copied or cut -------------------------------------------------------- */

static void compare_spread(const struct ep_plan_config *c, int64_t num_ranks, double in, double out,
                           struct ep_plan_strategy *s)
{
    const struct ep_model *m = c->model;
    /* ranks above the experts are replicas: a source has one expert of all at home */
    const int64_t groups = num_ranks < m->num_experts ? num_ranks : m->num_experts;
    const double copies = (double)m->top_k * remote_part(groups);
    int64_t local = 0;
    s->possible = ep_model_max_local_experts(m, num_ranks, &local) == EP_OK;
    if (!s->possible) {
        ep_error_clear();
        s->impossible = "the experts cannot be dealt to these ranks";
    }
    s->expert_bytes *= (double)local / (double)m->num_experts;
    s->dispatch_bytes_per_token = copies * in;
    s->combine_bytes_per_token = copies * out;
    if (strcmp(c->skew, "uniform") == 0 && m->num_experts % num_ranks == 0) {
        s->dedup_bytes_per_token = remote_part(num_ranks) * (in + out) *
                                   ep_traffic_expected_groups(m->num_experts, m->top_k, num_ranks);
    }
}

static void compare_cut(const struct ep_plan_config *c, int64_t num_ranks, double in, double out,
                        struct ep_plan_strategy *s)
{
    s->possible = c->model->expert_ffn % num_ranks == 0;
    s->impossible = s->possible ? NULL : "the ranks do not divide the experts' inner width";
    s->expert_bytes /= (double)num_ranks;
    s->dispatch_bytes_per_token = (double)(num_ranks - 1) * in;
    s->combine_bytes_per_token = (double)(num_ranks - 1) * out;
}

void ep_plan_compare_strategies(const struct ep_plan_config *config, int64_t num_ranks,
                                struct ep_plan_strategy *strategies)
{
    static const char *const names[EP_PLAN_NUM_STRATEGIES] = {
        [EP_PLAN_EXPERTS_SPREAD] = "EP",
        [EP_PLAN_EXPERTS_COPIED] = "replicate",
        [EP_PLAN_EXPERTS_CUT] = "TP",
    };
    struct ep_model_params params;
    ep_model_count_params(config->model, &params);
    const double expert_bytes = ep_weight_type_expert_bytes(config->weights);
    const double others =
        params.shared * expert_bytes +
        (params.router + params.rest) * ep_weight_type_rest_bytes(config->weights);
    const double in = (double)ep_dtype_row_bytes(config->dispatch_dtype, config->model->hidden);
    const double out = (double)ep_dtype_row_bytes(config->combine_dtype, config->model->hidden);
    for (int i = 0; i < EP_PLAN_NUM_STRATEGIES; i++) {
        struct ep_plan_strategy *s = &strategies[i];
        *s = (struct ep_plan_strategy){.name = names[i],
                                       .possible = true,
                                       .expert_bytes = params.routed * expert_bytes,
                                       .dedup_bytes_per_token = (double)NAN};
        if (i == EP_PLAN_EXPERTS_SPREAD) {
            compare_spread(config, num_ranks, in, out, s);
        } else if (i == EP_PLAN_EXPERTS_CUT) {
            compare_cut(config, num_ranks, in, out, s);
        }
        s->weight_bytes = s->expert_bytes + others;
    }
}
