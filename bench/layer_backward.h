/* SPDX-License-Identifier: Apache-2.0 */
/* The backward pass of a layer: gradients go to the experts as tokens do, and come back as results do. */
#ifndef EP_BENCH_LAYER_BACKWARD_H
#define EP_BENCH_LAYER_BACKWARD_H

#include "bench/layer.h"

/** Both exchanges once more, with buffers and a transport state of their own. */
struct ep_layer_backward {
    struct ep_routing routing;   /* as sent forward, all weights 1: gradients are weighted at the experts */
    struct ep_exchange exchange; /* tokens: dy; results: dx */
    void *transport;             /* state */
    struct ep_expert_rows rows;  /* dy at the experts, weighted in place */
    float *row_weights;          /* [rows] of the routing */
    float *dx;                   /* [rows][hidden] before rounding; NULL where combine's rows are fp32 */
    float *const *dw13, *const *dw2; /* [local experts] gradients, the bank's */
    float *shared_dx;            /* [local tokens][hidden]; NULL without shared experts */
    float *const *shared_dw13, *const *shared_dw2;
    float *sums;                 /* [local tokens][hidden]; NULL where tp is 1 */
};

/** Buffers, the second transport state and the rows' weights, once forward's are there; gradients by the
 *  results are made. Collective over the layer's ranks, the status is agreed.
 *  layer->backward is set; the layer destroys it. */
EP_MUST_CHECK enum ep_status ep_layer_backward_create(struct ep_layer *layer);
void ep_layer_backward_destroy(struct ep_layer *layer);

/** The steps, as phases of a layer: dX and dW of the experts on the rows that came, of the shared experts on
 *  this rank's tokens; their sum; the sum over slices; rounding. state: struct ep_layer. */
enum ep_status ep_layer_back_experts(void *layer);
enum ep_status ep_layer_back_shared(void *layer);
enum ep_status ep_layer_back_add(void *layer);
enum ep_status ep_layer_back_sum(void *layer);
enum ep_status ep_layer_back_round(void *layer);

#endif
