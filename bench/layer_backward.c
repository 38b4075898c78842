/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of a layer. */
#include "bench/layer_backward.h"

#include "kernels/gemm_backends.h"

#include <stdlib.h>

/* --- what is timed ---------------------------------------------------------------------------- */

/* A token's gradient counts for each of its experts by the router's weight. */
static void weigh_rows(const struct ep_layer *l)
{
    const struct ep_layer_backward *b = l->backward;
    const int64_t hidden = l->point->hidden;
    for (int64_t row = 0; row < b->rows.start[b->rows.num_experts]; row++) {
        const float weight = b->row_weights[row];
        char *values = (char *)b->rows.rows + row * b->exchange.row_bytes;
        for (int64_t h = 0; h < hidden; h++) {
            if (l->point->dtype == EP_BF16) {
                uint16_t *value = (uint16_t *)(void *)values + h;
                *value = ep_bf16_from_f32(ep_bf16_to_f32(*value) * weight);
            } else {
                ((float *)(void *)values)[h] *= weight;
            }
        }
    }
}

enum ep_status ep_layer_back_experts(void *layer)
{
    struct ep_layer *l = layer;
    struct ep_layer_backward *b = l->backward;
    if (l->experts == NULL) {
        return EP_OK;
    }
    float *dx = b->dx != NULL ? b->dx : (float *)(void *)b->rows.outputs;
    weigh_rows(l);
    const enum ep_status status = ep_ffn_backward(l->experts, l->num_rows, l->rows.rows,
                                                  b->rows.rows, dx, b->dw13, b->dw2);
    if (b->dx != NULL) {
        ep_layer_round_rows(l->point->combine_dtype,
                            b->rows.start[b->rows.num_experts] * l->point->hidden, b->dx,
                            b->rows.outputs);
    }
    return status;
}

enum ep_status ep_layer_back_shared(void *layer)
{
    struct ep_layer *l = layer;
    const struct ep_layer_backward *b = l->backward;
    return ep_ffn_backward(l->shared, &l->shared_rows, l->exchange.tokens, b->exchange.tokens,
                           b->shared_dx, b->shared_dw13, b->shared_dw2);
}

enum ep_status ep_layer_back_add(void *layer)
{
    struct ep_layer *l = layer;
    const struct ep_layer_backward *b = l->backward;
    ep_layer_add_rows(l, b->shared_dx, b->exchange.results, b->sums);
    return EP_OK;
}

enum ep_status ep_layer_back_sum(void *layer)
{
    struct ep_layer *l = layer;
    return ep_comm_sum_f32(l->slices, l->backward->sums, l->shared_rows * l->point->hidden);
}

enum ep_status ep_layer_back_round(void *layer)
{
    struct ep_layer *l = layer;
    ep_layer_round_rows(l->point->combine_dtype, l->shared_rows * l->point->hidden,
                        l->backward->sums, l->backward->exchange.results);
    return EP_OK;
}

/* --- building --------------------------------------------------------------------------------- */

static enum ep_status allocate(int64_t num, float **values)
{
    *values = ep_gemm_alloc((num > 0 ? num : 1) * (int64_t)sizeof **values);
    return *values != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for gradients");
}

/* Weights 1 where a slot is used; rows of dy from the seed. */
static enum ep_status set_up_rows(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    struct ep_layer_backward *b = l->backward;
    const struct ep_routing *sent = &l->routing;
    const int64_t num = sent->num_tokens * sent->top_k;
    const int64_t first = l->setting.map.start[ep_comm_rank(l->comm)];
    EP_TRY(ep_routing_init(sent->num_tokens, sent->num_experts, sent->top_k, true, &b->routing));
    for (int64_t i = 0; i < num; i++) {
        b->routing.topk_idx[i] = sent->topk_idx[i];
        b->routing.topk_weight[i] = sent->topk_idx[i] >= 0 ? 1 : 0;
    }
    EP_TRY(ep_comm_setting_exchange(&l->setting, &b->routing, l->session, &b->exchange));
    for (int64_t t = 0; t < sent->num_tokens; t++) {
        ep_layer_fill_token(l->point->dtype, ~l->seed, first + t, l->point->hidden,
                            (char *)b->exchange.tokens + t * b->exchange.row_bytes);
    }
out:
    return status;
}

/* Weights of the rows that come, made of every source's routing: by expert, then source, then token. */
static enum ep_status set_up_weights(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    struct ep_layer_backward *b = l->backward;
    const int rank = ep_comm_rank(l->comm);
    struct ep_routing from = {0};
    int64_t *next = calloc((size_t)b->rows.num_experts + 1, sizeof *next);
    EP_TRY(next != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for gradients"));
    EP_TRY(allocate(b->rows.start[b->rows.num_experts], &b->row_weights));
    for (int source = 0; source < ep_comm_size(l->comm); source++) {
        EP_TRY(ep_dropping_generate(l->setting.dropping, source, true, &from, NULL));
        for (int64_t i = 0; i < from.num_tokens * from.top_k; i++) {
            const int32_t expert = from.topk_idx[i];
            if (expert >= 0 && ep_placement_rank(&l->setting.placement, expert, source) == rank) {
                const int32_t local =
                    ep_placement_local_idx(&l->setting.placement, expert, source);
                b->row_weights[b->rows.start[local] + next[local]++] = from.topk_weight[i];
            }
        }
        ep_routing_fini(&from);
    }
out:
    ep_routing_fini(&from);
    free(next);
    return status;
}

static enum ep_status set_up_gradients(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    struct ep_layer_backward *b = l->backward;
    const int64_t hidden = l->point->hidden;
    EP_TRY(set_up_weights(l));
    if (l->point->combine_dtype != EP_FP32) {
        EP_TRY(allocate(b->rows.start[b->rows.num_experts] * hidden, &b->dx));
    }
    if (l->experts != NULL) {
        ep_layer_bank_gradients(l->bank, l->experts, &b->dw13, &b->dw2);
    }
    if (l->shared != NULL) {
        EP_TRY(allocate(l->shared_rows * hidden, &b->shared_dx));
        ep_layer_bank_gradients(l->bank, l->shared, &b->shared_dw13, &b->shared_dw2);
    }
    if (l->slices != NULL) {
        EP_TRY(allocate(l->shared_rows * hidden, &b->sums));
    }
out:
    return status;
}

enum ep_status ep_layer_backward_create(struct ep_layer *l)
{
    enum ep_status status = EP_OK;
    const struct ep_transport *transport = l->point->transport;
    l->backward = calloc(1, sizeof *l->backward);
    status = l->backward != NULL ? set_up_rows(l) : ep_error_set(EP_ENOMEM, "no memory for gradients");
    EP_TRY(ep_comm_agree(l->all, status));
    struct ep_layer_backward *b = l->backward;
    status = transport->create(&b->exchange, &b->transport);
    EP_TRY(ep_comm_agree(l->all, status));
    status = ep_transport_run(transport, EP_OP_DISPATCH, b->transport);
    EP_TRY(ep_comm_agree(l->all, status));
    transport->view(b->transport, &b->rows);
    EP_TRY(ep_comm_agree(l->all, set_up_gradients(l)));
out:
    return status;
}

void ep_layer_backward_destroy(struct ep_layer *l)
{
    struct ep_layer_backward *b = l->backward;
    if (b == NULL) {
        return;
    }
    l->point->transport->destroy(b->transport);
    ep_routing_fini(&b->routing);
    free(b->row_weights);
    free(b->dx);
    free(b->shared_dx);
    free(b->sums);
    free(b);
    l->backward = NULL;
}
