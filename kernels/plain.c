/* SPDX-License-Identifier: Apache-2.0 */
/* The oracles: written to be read against their definitions, not to be fast. */
#include "kernels/plain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* printf rounds the exact value correctly, ties to even, as Python's round does. */
static double round_to_4_places(double value)
{
    char text[400];
    snprintf(text, sizeof text, "%.4f", value);
    return strtod(text, NULL);
}

double ep_plain_comm_time_ms(int64_t total_remote_bytes, double bandwidth_gbps)
{
    return round_to_4_places((double)total_remote_bytes / (bandwidth_gbps * 1e9 / 8) * 1000);
}

static enum ep_status check_expert(int64_t expert, int64_t num_experts, int64_t token)
{
    return expert >= -1 && expert < num_experts
               ? EP_OK
               : ep_error_set(EP_EINVAL,
                              "token %" PRId64 ": expert %" PRId64 " is outside -1 to %" PRId64,
                              token, expert, num_experts - 1);
}

enum ep_status ep_plain_routing_cost(const int32_t *token_assignments, int64_t num_tokens,
                                     int64_t top_k, const int32_t *expert_to_gpu,
                                     int64_t num_experts, const int32_t *token_to_gpu,
                                     int64_t token_hidden_bytes, double bandwidth_gbps,
                                     struct ep_plain_cost *cost)
{
    if (!(bandwidth_gbps > 0) || !isfinite(bandwidth_gbps)) {
        return ep_error_set(EP_EINVAL, "bandwidth of %g Gb/s; more than 0 expected",
                            bandwidth_gbps);
    }
    if (token_hidden_bytes < 0) {
        return ep_error_set(EP_EINVAL, "token of %" PRId64 " bytes; 0 and more expected",
                            token_hidden_bytes);
    }
    struct ep_plain_cost sum = {0};
    for (int64_t t = 0; t < num_tokens; t++) {
        for (int64_t i = 0; i < top_k; i++) {
            const int32_t expert = token_assignments[t * top_k + i];
            const enum ep_status status = check_expert(expert, num_experts, t);
            if (status != EP_OK) {
                return status;
            }
            if (expert >= 0) {
                const int64_t remote = expert_to_gpu[expert] != token_to_gpu[t];
                sum.remote_tokens += remote;
                sum.local_tokens += 1 - remote;
            }
        }
    }
    if (token_hidden_bytes > 0 && sum.remote_tokens > INT64_MAX / token_hidden_bytes) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " remote tokens of %" PRId64 " bytes exceed 2^63 - 1 bytes",
                            sum.remote_tokens, token_hidden_bytes);
    }
    sum.total_remote_bytes = sum.remote_tokens * token_hidden_bytes;
    sum.comm_time_ms = ep_plain_comm_time_ms(sum.total_remote_bytes, bandwidth_gbps);
    *cost = sum;
    return EP_OK;
}

/* One element of token's output: the weighted sum over chosen experts in [first, end). */
static double output_element(const float *row, int64_t hidden, const int32_t *experts,
                             const float *weights, int64_t top_k, const float *expert_Ws,
                             int64_t first, int64_t end, int64_t out_dim, int64_t column)
{
    double sum = 0;
    for (int64_t i = 0; i < top_k; i++) {
        if (experts[i] < first || experts[i] >= end) {
            continue;
        }
        const float *matrix = expert_Ws + (experts[i] - first) * hidden * out_dim;
        double dot = 0;
        for (int64_t h = 0; h < hidden; h++) {
            dot += (double)row[h] * (double)matrix[h * out_dim + column];
        }
        sum += dot * (weights != NULL ? (double)weights[i] : 1);
    }
    return sum;
}

enum ep_status ep_plain_dispatch(const float *tokens, int64_t hidden,
                                 const struct ep_plain_routing *routing, const float *expert_Ws,
                                 int64_t out_dim, int64_t rank, int64_t world_size, float *output)
{
    const int64_t k = routing->top_k;
    if (world_size < 1 || rank < 0 || rank >= world_size) {
        return ep_error_set(EP_EINVAL, "rank %" PRId64 " of %" PRId64 " ranks", rank, world_size);
    }
    if (routing->num_experts < 1 || routing->num_experts % world_size != 0) {
        return ep_error_set(
            EP_EINVAL, "%" PRId64 " experts on %" PRId64 " ranks; a multiple of the ranks expected",
            routing->num_experts, world_size);
    }
    const int64_t local = routing->num_experts / world_size;
    for (int64_t t = 0; t < routing->num_tokens; t++) {
        const int32_t *experts = routing->topk_idx + t * k;
        const float *weights = routing->topk_weight != NULL ? routing->topk_weight + t * k : NULL;
        for (int64_t i = 0; i < k; i++) {
            const enum ep_status status = check_expert(experts[i], routing->num_experts, t);
            if (status != EP_OK) {
                return status;
            }
        }
        for (int64_t o = 0; o < out_dim; o++) {
            output[t * out_dim + o] =
                (float)output_element(tokens + t * hidden, hidden, experts, weights, k, expert_Ws,
                                      rank * local, (rank + 1) * local, out_dim, o);
        }
    }
    return EP_OK;
}
