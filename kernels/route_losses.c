/* SPDX-License-Identifier: Apache-2.0 */
/* Every loss of the table on every source rank's tokens. */
#include "kernels/route_losses.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Probabilities of one token from its logits; -inf is a chance of 0. */
static void fill_probs(const float *logits, int64_t num_experts, bool is_sigmoid, float *probs)
{
    float max = logits[0];
    double sum = 0;
    for (int64_t e = 1; e < num_experts; e++) {
        max = fmaxf(max, logits[e]);
    }
    for (int64_t e = 0; e < num_experts; e++) {
        probs[e] = is_sigmoid ? 1 / (1 + expf(-logits[e])) : expf(logits[e] - max);
        sum += (double)probs[e];
    }
    for (int64_t e = 0; e < num_experts; e++) {
        probs[e] = (float)((double)probs[e] / sum);
    }
}

/* Mean copies of each expert per source, and the sources that have tokens. */
static enum ep_status count_copies(const struct ep_dropping_input *input, double *counts,
                                   int64_t *num_sources)
{
    *num_sources = 0;
    memset(counts, 0, (size_t)input->shape.num_experts * sizeof *counts);
    for (int64_t s = 0; s < input->num_sources; s++) {
        struct ep_routing routing;
        int64_t first_token = 0;
        const enum ep_status status =
            input->fetch(input->context, s, false, &routing, &first_token);
        if (status != EP_OK) {
            return status;
        }
        for (int64_t i = 0; i < routing.num_tokens * routing.top_k; i++) {
            if (routing.topk_idx[i] >= 0) {
                counts[routing.topk_idx[i]]++;
            }
        }
        *num_sources += routing.num_tokens > 0;
        ep_routing_fini(&routing);
    }
    for (int64_t e = 0; e<input->shape.num_experts && * num_sources> 0; e++) {
        counts[e] /= (double)*num_sources;
    }
    return EP_OK;
}

/* A rank's batch: what a loss gets to see of it. */
static enum ep_status add_batch(const struct ep_loss_batch *batch, const double *global_counts,
                                double share, struct ep_route_losses *losses)
{
    for (int i = 0; ep_losses[i].name != NULL; i++) {
        if (isnan(losses->values[i])) {
            continue;
        }
        double value = 0;
        struct ep_loss_batch b = *batch;
        b.counts = strcmp(ep_losses[i].name, "megatron-global") == 0 ? global_counts : NULL;
        const enum ep_status status = ep_loss_evaluate(&ep_losses[i], &b, &value);
        if (status != EP_OK) {
            return status;
        }
        losses->values[i] += share * value;
    }
    return EP_OK;
}

static enum ep_status add_source(const struct ep_dropping_input *input, int64_t source,
                                 const float *logits, bool is_sigmoid, const double *global_counts,
                                 double share, struct ep_route_losses *losses)
{
    enum ep_status status;
    const int64_t num_experts = input->shape.num_experts;
    struct ep_routing routing = {0};
    int64_t first_token = 0;
    float *probs = NULL;
    EP_TRY(input->fetch(input->context, source, false, &routing, &first_token));
    if (routing.num_tokens == 0) {
        goto out;
    }
    probs = malloc((size_t)(routing.num_tokens * num_experts) * sizeof *probs);
    if (probs == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for the losses of a router"));
    }
    const float *first = logits + first_token * num_experts;
    for (int64_t t = 0; t < routing.num_tokens; t++) {
        fill_probs(first + t * num_experts, num_experts, is_sigmoid, probs + t * num_experts);
    }
    const struct ep_loss_batch batch = {
        .routing = &routing, .probs = probs, .logits = first, .num_ranks = input->shape.num_ranks};
    EP_TRY(add_batch(&batch, global_counts, share, losses));
    losses->z_loss += share * ep_loss_z(first, routing.num_tokens, num_experts);
out:
    free(probs);
    ep_routing_fini(&routing);
    return status;
}

enum ep_status ep_route_losses_measure(const struct ep_dropping_input *input, const float *logits,
                                       bool is_sigmoid, struct ep_route_losses *losses)
{
    enum ep_status status;
    struct ep_route_losses made = {.z_loss = 0};
    int64_t num_sources = 0;
    double *counts = malloc((size_t)input->shape.num_experts * sizeof *counts);
    if (counts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the losses of a router");
    }
    EP_TRY(count_copies(input, counts, &num_sources));
    for (int i = 0; ep_losses[i].name != NULL; i++) {
        EP_ASSERT(i < EP_ROUTE_MAX_LOSSES);
        const bool applies = !ep_losses[i].needs_logits && num_sources > 0 &&
                             ep_loss_has_top_k(&ep_losses[i], input->shape.top_k);
        made.values[i] = applies ? 0 : (double)NAN;
    }
    for (int64_t s = 0; s < input->num_sources; s++) {
        EP_TRY(add_source(input, s, logits, is_sigmoid, counts, 1 / (double)num_sources, &made));
    }
    *losses = made;
out:
    free(counts);
    return status;
}
