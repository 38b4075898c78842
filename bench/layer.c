/* SPDX-License-Identifier: Apache-2.0 */
/* Building a layer and running its phases. */
#include "bench/layer.h"

#include "bench/comm_record.h"
#include "bench/kernels_gemm.h"
#include "bench/layer_backward.h"
#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what is timed ---------------------------------------------------------------------------- */

static enum ep_status run_route(void *state)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = state;
    const int64_t num_tokens = l->routing.num_tokens;
    const struct ep_gate_batch batch = {
        .num_tokens = num_tokens,
        .first_token = l->setting.map.start[ep_comm_rank(l->comm)],
        .logits = l->logits,
    };
    EP_TRY(ep_gemm_run(l->router, &num_tokens, l->exchange.tokens, l->logits));
    EP_TRY(ep_gate_route(l->gate, &batch, &l->gated));
out:
    return status;
}

void ep_layer_round_rows(enum ep_dtype dtype, int64_t num, const float *from, void *to)
{
    if (dtype != EP_BF16) {
        memcpy(to, from, (size_t)num * sizeof *from);
        return;
    }
    uint16_t *rounded = to;
    for (int64_t i = 0; i < num; i++) {
        rounded[i] = ep_bf16_from_f32(from[i]);
    }
}

/* All local experts in one call; fp32 results lie where combine takes them from. */
enum ep_status ep_layer_run_experts(struct ep_layer *l, const int64_t *num_rows,
                                    const struct ep_expert_rows *rows)
{
    if (l->experts == NULL) {
        return EP_OK;
    }
    const bool fp32 = l->point->combine_dtype == EP_FP32;
    float *outputs = fp32 ? (float *)(void *)rows->outputs : l->outputs;
    const enum ep_status status = ep_ffn_run(l->experts, num_rows, rows->rows, outputs);
    if (!fp32) {
        ep_layer_round_rows(EP_BF16, rows->start[rows->num_experts] * l->point->hidden, outputs,
                            rows->outputs);
    }
    return status;
}

static enum ep_status run_experts(void *state)
{
    struct ep_layer *l = state;
    return ep_layer_run_experts(l, l->num_rows, &l->rows);
}

static enum ep_status run_shared(void *state)
{
    struct ep_layer *l = state;
    return ep_ffn_run(l->shared, &l->shared_rows, l->exchange.tokens, l->shared_outputs);
}

void ep_layer_add_rows(const struct ep_layer *l, const float *shared, void *results, float *sums)
{
    const int64_t num = l->shared_rows * l->point->hidden;
    const bool is_bf16 = l->point->combine_dtype == EP_BF16;
    for (int64_t i = 0; i < num; i++) {
        const float combined =
            is_bf16 ? ep_bf16_to_f32(((uint16_t *)results)[i]) : ((float *)results)[i];
        const float sum = combined + (shared != NULL ? shared[i] : 0);
        if (sums != NULL) {
            sums[i] = sum;
        } else if (is_bf16) {
            ((uint16_t *)results)[i] = ep_bf16_from_f32(sum);
        } else {
            ((float *)results)[i] = sum;
        }
    }
}

static enum ep_status run_add(void *state)
{
    struct ep_layer *l = state;
    ep_layer_add_rows(l, l->shared_outputs, l->exchange.results, l->sums);
    return EP_OK;
}

static enum ep_status run_sum(void *state)
{
    struct ep_layer *l = state;
    return ep_comm_sum_f32(l->slices, l->sums, l->shared_rows * l->point->hidden);
}

static enum ep_status run_round(void *state)
{
    struct ep_layer *l = state;
    ep_layer_round_rows(l->point->combine_dtype, l->shared_rows * l->point->hidden, l->sums,
                        l->exchange.results);
    return EP_OK;
}

static bool has_shared(const struct ep_layer *l)
{
    return l->shape->shared_ffn > 0;
}

static bool has_slices(const struct ep_layer *l)
{
    return l->shape->tp > 1;
}

static bool has_sums(const struct ep_layer *l)
{
    return has_shared(l) || has_slices(l);
}

/* The steps of a layer in order: a function of its own, or the phases of the transport. */
static const struct step {
    const char *name;
    enum ep_layer_work work;
    enum ep_status (*run)(void *layer); /* NULL: the transport's `op` */
    enum ep_op op;
    bool (*is_there)(const struct ep_layer *layer); /* NULL: always */
    bool is_backward; /* there where the layer runs backward too */
} steps[] = {
    {.name = "route", .work = EP_LAYER_ROUTE, .run = run_route},
    {.name = "dispatch", .op = EP_OP_DISPATCH},
    {.name = "shared", .work = EP_LAYER_COMPUTE, .run = run_shared, .is_there = has_shared},
    {.name = "experts", .work = EP_LAYER_COMPUTE, .run = run_experts},
    {.name = "combine", .op = EP_OP_COMBINE},
    {.name = "add", .work = EP_LAYER_COPY, .run = run_add, .is_there = has_sums},
    {.name = "sum", .work = EP_LAYER_EXCHANGE, .run = run_sum, .is_there = has_slices},
    {.name = "round", .work = EP_LAYER_COPY, .run = run_round, .is_there = has_slices},
    {.name = "back-dispatch", .op = EP_OP_DISPATCH, .is_backward = true},
    {.name = "back-shared", .work = EP_LAYER_COMPUTE, .run = ep_layer_back_shared,
     .is_there = has_shared, .is_backward = true},
    {.name = "back-experts", .work = EP_LAYER_COMPUTE, .run = ep_layer_back_experts,
     .is_backward = true},
    {.name = "back-combine", .op = EP_OP_COMBINE, .is_backward = true},
    {.name = "back-add", .work = EP_LAYER_COPY, .run = ep_layer_back_add, .is_there = has_sums,
     .is_backward = true},
    {.name = "back-sum", .work = EP_LAYER_EXCHANGE, .run = ep_layer_back_sum,
     .is_there = has_slices, .is_backward = true},
    {.name = "back-round", .work = EP_LAYER_COPY, .run = ep_layer_back_round,
     .is_there = has_slices, .is_backward = true},
};

static bool is_exchange(const char *phase)
{
    return strcmp(phase, "pack") != 0 && strcmp(phase, "unpack") != 0;
}

static void add_phase(struct ep_layer *l, const struct ep_layer_phase *phase)
{
    EP_ASSERT(l->num_phases < EP_LAYER_MAX_PHASES);
    l->phases[l->num_phases++] = *phase;
}

static void list_phases(struct ep_layer *l)
{
    const struct ep_transport *transport = l->point->transport;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        const struct step *step = &steps[i];
        const struct ep_transport_op *op = &transport->ops[step->op];
        if ((step->is_there != NULL && !step->is_there(l)) ||
            (step->is_backward && l->backward == NULL)) {
            continue;
        }
        if (step->run != NULL) {
            add_phase(l, &(struct ep_layer_phase){.step = step->name, .work = step->work,
                                                  .run = step->run, .state = l,
                                                  .among_slices =
                                                      step->work == EP_LAYER_EXCHANGE});
            continue;
        }
        for (int p = 0; p < op->num_phases; p++) {
            const char *name = op->phases[p].name;
            add_phase(l, &(struct ep_layer_phase){
                             .step = step->name,
                             .name = name,
                             .work = is_exchange(name) ? EP_LAYER_EXCHANGE : EP_LAYER_COPY,
                             .run = op->phases[p].run,
                             .state = step->is_backward ? l->backward->transport : l->transport,
                             .op = step->op,
                             .moves_rows = strcmp(name, "exchange") == 0,
                         });
        }
    }
}

const char *ep_layer_phase_name(const struct ep_layer_phase *phase, char *text)
{
    snprintf(text, EP_LAYER_NAME_LENGTH, "%s%s%s", phase->step, phase->name != NULL ? "-" : "",
             phase->name != NULL ? phase->name : "");
    return text;
}

enum ep_status ep_layer_run_phase(struct ep_layer *layer, int phase)
{
    const enum ep_status status = layer->phases[phase].run(layer->phases[phase].state);
    if (status != EP_OK) {
        ep_comm_abort(layer->all, status, ep_error_text());
    }
    return status;
}

enum ep_status ep_layer_run(void *layer)
{
    struct ep_layer *l = layer;
    for (int p = 0; p < l->num_phases; p++) {
        const enum ep_status status = ep_layer_run_phase(l, p);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

/* Does this rank need rank j of all in a phase? */
static bool needs_rank(const struct ep_layer *l, const struct ep_layer_phase *phase, int64_t j)
{
    const int64_t tp = l->shape->tp;
    const int64_t num_ranks = ep_comm_size(l->comm);
    const int64_t own = ep_comm_rank(l->comm);
    const int64_t peer = j / tp % num_ranks;
    const int64_t from = phase->op == EP_OP_DISPATCH ? peer : own;
    const int64_t to = phase->op == EP_OP_DISPATCH ? own : peer;
    if (phase->work != EP_LAYER_EXCHANGE || j == ep_comm_rank(l->all) ||
        j / tp / num_ranks != l->copy) {
        return false;
    }
    if (phase->among_slices) {
        return peer == own;
    }
    return j % tp == l->slice && (!phase->moves_rows || l->setting.sent[from * num_ranks + to] > 0);
}

void ep_layer_fill_needs(const struct ep_layer *l, int64_t *needs)
{
    for (int p = 0; p < l->num_phases; p++) {
        for (int j = 0; j < ep_comm_size(l->all); j++) {
            *needs++ = needs_rank(l, &l->phases[p], j);
        }
    }
}

void ep_layer_fill_token(enum ep_dtype dtype, uint64_t seed, int64_t token, int64_t hidden,
                         void *row)
{
    ep_kernels_fill(dtype, ~seed, token, hidden, row);
}

/* --- building --------------------------------------------------------------------------------- */

/* This rank's place among copies and slices, and the communicators that follow from it. */
static enum ep_status set_up_groups(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    const int rank = ep_comm_rank(l->all);
    const int tp = (int)l->shape->tp;
    const int expert_rank = rank / tp % (int)l->point->num_ranks;
    l->copy = rank / tp / l->point->num_ranks;
    l->slice = rank % tp;
    l->seed = l->session->options.seed + (uint64_t)l->copy;
    EP_ASSERT(ep_comm_size(l->all) == l->shape->dp * l->point->num_ranks * tp);
    EP_TRY(ep_comm_create_split(l->all, (int)(l->copy * tp + l->slice), expert_rank, &l->comm));
    if (tp > 1) {
        EP_TRY(ep_comm_create_split(l->all, rank / tp, (int)l->slice, &l->slices));
    }
out:
    return status;
}

static enum ep_status set_up_routing(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_comm_setting_init(l->comm, l->point, l->seed, &l->setting));
    EP_TRY(ep_dropping_generate(l->setting.dropping, ep_comm_rank(l->comm), true, &l->routing,
                                &l->setting.counts));
out:
    return status;
}

static enum ep_status set_up_buffers(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    const int64_t first = l->setting.map.start[ep_comm_rank(l->comm)];
    ep_arena_reset(l->session->arena);
    EP_TRY(ep_comm_setting_exchange(&l->setting, &l->routing, l->session, &l->exchange));
    for (int64_t t = 0; t < l->routing.num_tokens; t++) {
        ep_layer_fill_token(l->point->dtype, l->seed, first + t, l->point->hidden,
                            (char *)l->exchange.tokens + t * l->exchange.row_bytes);
    }
out:
    return status;
}

/* Zeroed floats of `num`, at least one; *values is the caller's to free. */
static enum ep_status allocate(int64_t num, const char *what, float **values)
{
    *values = ep_gemm_alloc((num > 0 ? num : 1) * (int64_t)sizeof **values);
    return *values != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for %s", what);
}

static enum ep_status set_up_router(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    struct ep_gate_config config;
    const struct ep_gemm_shape shape = {1, l->point->hidden, l->point->experts, l->point->dtype};
    const struct ep_model *model = l->shape->model;
    const bool as_model = l->point->router == NULL && model != NULL &&
                          model->num_experts == l->point->experts && model->top_k == l->point->top_k;
    const char *text = l->point->router != NULL ? l->point->router : "topk-softmax";
    EP_TRY(as_model ? ep_gate_config_from_model(model, &config, NULL)
                    : ep_gate_config_parse(text, l->point->experts, l->point->top_k, &config));
    config.seed = l->seed;
    EP_TRY(ep_gate_create(&config, &l->gate));
    EP_TRY(ep_routing_init(l->routing.num_tokens, l->point->experts, ep_gate_num_slots(l->gate),
                           true, &l->gated));
    EP_TRY(allocate(l->routing.num_tokens * l->point->experts, "logits", &l->logits));
    EP_TRY(ep_layer_bank_router(l->bank, l->shape->backend, &shape, &l->router));
out:
    return status;
}

/* The experts of this rank, for as many rows as dispatch brings. */
static enum ep_status set_up_experts(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    const int32_t *experts = NULL;
    const int64_t num =
        ep_placement_local_experts(&l->setting.placement, ep_comm_rank(l->comm), &experts);
    const int64_t num_rows = l->rows.start[l->rows.num_experts];
    const struct ep_layer_set set = {
        .backend = l->shape->backend,
        .shape = {l->shape->kind, num, l->point->hidden, l->shape->ffn, l->point->dtype},
        .experts = experts,
        .slice = l->slice,
        .num_slices = l->shape->tp,
        .backward = l->shape->backward,
    };
    if (num == 0 || num_rows == 0) {
        return EP_OK;
    }
    l->num_rows = calloc((size_t)num, sizeof *l->num_rows);
    if (l->num_rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " experts", num);
    }
    for (int64_t e = 0; e < num; e++) {
        l->num_rows[e] = l->rows.start[e + 1] - l->rows.start[e];
    }
    if (l->point->combine_dtype != EP_FP32) {
        EP_TRY(allocate(num_rows * l->point->hidden, "the experts' results", &l->outputs));
    }
    EP_TRY(ep_layer_bank_ffn(l->bank, &set, num_rows, &l->experts));
out:
    return status;
}

static enum ep_status set_up_shared(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    const int32_t expert = EP_LAYER_SHARED;
    const struct ep_layer_set set = {
        .backend = l->shape->backend,
        .shape = {l->shape->kind, 1, l->point->hidden, l->shape->shared_ffn, l->point->dtype},
        .experts = &expert,
        .slice = l->slice,
        .num_slices = l->shape->tp,
        .backward = l->shape->backward,
    };
    l->shared_rows = l->routing.num_tokens;
    if (has_slices(l)) {
        EP_TRY(allocate(l->shared_rows * l->point->hidden, "sums over slices", &l->sums));
    }
    if (l->shape->shared_ffn == 0) {
        return EP_OK;
    }
    EP_TRY(allocate(l->shared_rows * l->point->hidden, "the shared experts' results",
                    &l->shared_outputs));
    EP_TRY(ep_layer_bank_ffn(l->bank, &set, l->shared_rows, &l->shared));
out:
    return status;
}

/* Every phase once, so that what fails on one rank alone is known before others wait for it. */
static enum ep_status run_once(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    for (int p = 0; p < l->num_phases; p++) {
        status = l->phases[p].run(l->phases[p].state);
        EP_TRY(ep_comm_agree(l->all, status));
    }
out:
    return status;
}

enum ep_status ep_layer_create(struct ep_session *session, struct ep_layer_bank *bank,
                               struct ep_comm *all, const struct ep_comm_case *point,
                               const struct ep_layer_shape *shape, struct ep_layer **layer)
{
    enum ep_status status = EP_OK;
    struct ep_layer *l = calloc(1, sizeof *l);
    if (l != NULL) {
        *l = (struct ep_layer){.all = all, .point = point, .shape = shape, .session = session,
                               .bank = bank};
    }
    EP_TRY(ep_comm_agree(all, l != NULL ? EP_OK
                                         : ep_error_set(EP_ENOMEM, "no memory for a layer")));
    EP_TRY(ep_comm_agree(all, set_up_groups(l)));
    EP_TRY(ep_comm_agree(all, set_up_routing(l)));
    EP_TRY(ep_comm_agree(all, set_up_buffers(l)));
    EP_TRY(ep_comm_agree(all, point->transport->create(&l->exchange, &l->transport)));
    EP_TRY(ep_comm_agree(all, ep_comm_record_count(&l->setting, &l->routing, l->transport)));
    status = ep_transport_run(point->transport, EP_OP_DISPATCH, l->transport);
    EP_TRY(ep_comm_agree(all, status));
    point->transport->view(l->transport, &l->rows);
    EP_TRY(ep_comm_agree(all, set_up_router(l)));
    EP_TRY(ep_comm_agree(all, set_up_shared(l)));
    EP_TRY(ep_comm_agree(all, set_up_experts(l)));
    if (shape->backward) {
        EP_TRY(ep_layer_backward_create(l));
    }
    list_phases(l);
    EP_TRY(run_once(l));
    *layer = l;
    l = NULL;
out:
    ep_layer_destroy(l);
    return status;
}

void ep_layer_destroy(struct ep_layer *l)
{
    if (l == NULL) {
        return;
    }
    ep_layer_backward_destroy(l);
    l->point->transport->destroy(l->transport);
    free(l->outputs);
    free(l->shared_outputs);
    free(l->sums);
    free(l->num_rows);
    free(l->logits);
    ep_gate_destroy(l->gate);
    ep_routing_fini(&l->gated);
    ep_routing_fini(&l->routing);
    ep_comm_setting_fini(&l->setting);
    ep_comm_destroy(l->slices);
    ep_comm_destroy(l->comm);
    free(l);
}
