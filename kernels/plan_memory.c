/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on a rank of one pipeline stage. Formulas and sources: kernels/README.md, "Plans". */
#include "kernels/plan.h"

#include <math.h>

/* Activations are computed with in 16 bits, whatever travels. */
enum { ACTIVATION_BYTES = 2 };

double ep_plan_gradient_bytes(void)
{
    return 4; /* accumulated in fp32 */
}

double ep_plan_optimizer_bytes(const struct ep_plan_config *config)
{
    if (config->optimizer == EP_PLAN_NO_OPTIMIZER) {
        return 0;
    }
    /* two fp32 moments, and an fp32 copy of weights that are stored in less */
    return config->weights == EP_WEIGHT_FP32 ? 8 : 12;
}

void ep_plan_stage_layers(const struct ep_plan_config *config, const struct ep_plan *plan,
                          int64_t stage, int64_t *first, int64_t *end)
{
    *first = stage * config->model->num_layers / plan->pp;
    *end = (stage + 1) * config->model->num_layers / plan->pp;
}

/* Parameters of a rank, by what they are replicated over. */
struct parameters {
    double routed; /* over expert DP */
    double shared; /* this and the others over the data replicas */
    double router;
    double rest; /* NaN = not known */
};

static struct parameters count_parameters(const struct ep_plan_config *c, const struct ep_plan *p,
                                          int64_t stage)
{
    const struct ep_model *m = c->model;
    struct ep_model_params all;
    int64_t first = 0;
    int64_t end = 0;
    ep_model_count_params(m, &all);
    ep_plan_stage_layers(c, p, stage, &first, &end);
    const double layers = (double)(end - first) / (double)m->num_layers;
    const double moe_layers =
        (double)ep_model_count_moe_layers(m, first, end) / (double)m->num_moe_layers;
    return (struct parameters){
        .routed = moe_layers * all.routed / (double)(p->ep * p->expert_tp),
        .shared = moe_layers * all.shared / (double)p->tp,
        .router = moe_layers * all.router,
        .rest = layers * all.rest / (double)p->tp,
    };
}

static void weigh_weights(const struct ep_plan_config *c, const struct parameters *n,
                          struct ep_plan_memory *memory)
{
    const double expert_bytes = ep_weight_type_expert_bytes(c->weights);
    const double rest_bytes = ep_weight_type_rest_bytes(c->weights);
    memory->routed = n->routed * expert_bytes;
    memory->shared = n->shared * expert_bytes;
    memory->router = n->router * rest_bytes;
    memory->rest = n->rest * rest_bytes;
}

static void weigh_training(const struct ep_plan_config *c, const struct ep_plan *p,
                           const struct parameters *n, struct ep_plan_memory *memory)
{
    const double others = n->shared + n->router + (isnan(n->rest) ? 0 : n->rest);
    const double experts_share = c->shard_optimizer ? (double)p->expert_dp : 1;
    const double others_share = c->shard_optimizer ? (double)p->data_replicas : 1;
    memory->gradients = c->training ? ep_plan_gradient_bytes() * (n->routed + others) : 0;
    memory->optimizer =
        ep_plan_optimizer_bytes(c) * (n->routed / experts_share + others / others_share);
}

/* --- activations -------------------------------------------------------------------------- */

/* Inner elements that an FFN of this width keeps per row: gate, up and their product; or up and
 * its activation. */
static double inner_elements(const struct ep_model *m, int64_t ffn, int64_t tp)
{
    return (m->gated ? 3.0 : 2.0) * (double)ffn / (double)tp;
}

/* Of one received copy in one layer: its row as it came, the inner elements, the row of the result.
 */
static double copy_bytes(const struct ep_plan_config *c, const struct ep_plan *p)
{
    const struct ep_model *m = c->model;
    return (double)ep_dtype_row_bytes(c->dispatch_dtype, m->hidden) +
           ACTIVATION_BYTES * inner_elements(m, m->expert_ffn, p->expert_tp) +
           (double)ep_dtype_row_bytes(c->combine_dtype, m->hidden);
}

/* Of a layer besides routed experts, per token of the DP rank and divided over TP. */
static double other_layer_bytes(const struct ep_plan_config *c, const struct ep_plan *p,
                                bool moe_layer)
{
    const struct ep_model *m = c->model;
    const double attention = 15.0 * (double)m->hidden / (double)p->tp;
    const int64_t ffn = moe_layer ? m->shared_ffn_total : m->dense_ffn;
    return (double)c->tokens * (attention + ACTIVATION_BYTES * inner_elements(m, ffn, p->tp));
}

/* Micro-batches whose activations a stage keeps at once: the 1F1B schedule. */
static int64_t count_in_flight(const struct ep_plan_config *c, const struct ep_plan *p,
                               int64_t stage)
{
    const int64_t behind = p->pp - stage;
    return behind < c->num_microbatches ? behind : c->num_microbatches;
}

/* How often a layer's activations are kept: once where nothing is kept for a backward pass. */
struct kept {
    double moe_layers; /* whole MoE layers, over the micro-batches in flight */
    double dense_layers;
    double inputs; /* layer inputs alone, with recomputation */
};

static struct kept count_kept(const struct ep_plan_config *c, const struct ep_plan *p,
                              int64_t stage)
{
    int64_t first = 0;
    int64_t end = 0;
    ep_plan_stage_layers(c, p, stage, &first, &end);
    const double moe = (double)ep_model_count_moe_layers(c->model, first, end);
    const double layers = (double)(end - first);
    const double flight = (double)count_in_flight(c, p, stage);
    const double one_moe = moe > 0 ? 1 : 0;
    if (!c->training || c->recompute) {
        return (struct kept){.moe_layers = one_moe,
                             .dense_layers = c->training ? 1 - one_moe : 0,
                             .inputs = c->training ? layers * flight : 0};
    }
    return (struct kept){.moe_layers = moe * flight, .dense_layers = (layers - moe) * flight};
}

static void weigh_activations(const struct ep_plan_config *c, const struct ep_plan *p,
                              int64_t stage, struct ep_plan_memory *memory)
{
    const struct kept kept = count_kept(c, p, stage);
    const double row = ACTIVATION_BYTES * (double)c->model->hidden;
    memory->other_activations = c->training
                                    ? kept.moe_layers * other_layer_bytes(c, p, true) +
                                          kept.dense_layers * other_layer_bytes(c, p, false) +
                                          kept.inputs * row * (double)c->tokens / (double)p->tp
                                    : 0;
    for (int q = 0; q < EP_PLAN_NUM_STATISTICS; q++) {
        memory->activations[q] = kept.moe_layers * p->received.copies[q] * copy_bytes(c, p);
    }
}

/* One message per (expert, token) both ways, sent and received, twice, and a counter per expert:
 * DeepEP csrc/legacy/config.hpp, LowLatencyLayout. */
static double deepep_ll_bytes(int64_t tokens, int64_t num_experts, int64_t hidden)
{
    const int64_t scales = (hidden + 127) / 128;
    const int64_t fp8_row = hidden + 4 * scales;
    const int64_t dispatch = 16 + (2 * hidden > fp8_row ? 2 * hidden : fp8_row);
    const int64_t combine = 4 * scales + 2 * hidden;
    const double messages = (double)num_experts * (double)tokens;
    const double send = fmax((double)tokens * (double)dispatch, messages * (double)combine);
    const double receive = messages * (double)(dispatch > combine ? dispatch : combine);
    return 2 * (send + receive + (double)((4 * num_experts + 127) / 128 * 128));
}

/* Buffers of dispatch and combine, used by one layer after the other: what a rank sends, and what
 * it receives. */
static void weigh_buffers(const struct ep_plan_config *c, const struct ep_plan *p, int64_t stage,
                          struct ep_plan_memory *memory)
{
    const struct ep_model *m = c->model;
    const int64_t source_tokens = c->tokens / p->tp;
    const double row = (double)(ep_dtype_row_bytes(c->dispatch_dtype, m->hidden) +
                                ep_dtype_row_bytes(c->combine_dtype, m->hidden));
    int64_t first = 0;
    int64_t end = 0;
    ep_plan_stage_layers(c, p, stage, &first, &end);
    const bool used = ep_model_count_moe_layers(m, first, end) > 0;
    for (int q = 0; q < EP_PLAN_NUM_STATISTICS; q++) {
        double rows = (double)(source_tokens * m->top_k) + p->received.copies[q];
        if (c->capacity != NULL) { /* every expert's room, from every source */
            const double room = (double)ep_plan_capacity(c, p);
            rows = (double)m->num_experts * room * (1 + (double)p->expert_tp);
        }
        const double size_bytes = c->buffers == EP_PLAN_BUFFERS_DEEPEP_LL
                                      ? deepep_ll_bytes(source_tokens, m->num_experts, m->hidden)
                                      : rows * row;
        memory->token_buffers[q] = used ? size_bytes : 0;
    }
}

void ep_plan_weigh_stage(const struct ep_plan_config *config, const struct ep_plan *plan,
                         int64_t stage, struct ep_plan_memory *memory)
{
    const struct parameters n = count_parameters(config, plan, stage);
    struct ep_plan_memory made = {.stage = stage};
    weigh_weights(config, &n, &made);
    weigh_training(config, plan, &n, &made);
    weigh_activations(config, plan, stage, &made);
    weigh_buffers(config, plan, stage, &made);
    const double fixed = made.routed + made.shared + made.router +
                         (isnan(made.rest) ? 0 : made.rest) + made.gradients + made.optimizer +
                         made.other_activations;
    for (int q = 0; q < EP_PLAN_NUM_STATISTICS; q++) {
        made.total[q] = fixed + made.token_buffers[q] + made.activations[q];
    }
    *memory = made;
}
