/* SPDX-License-Identifier: Apache-2.0 */
/* Counting sort, row copies and weighted sums. */
#include "kernels/permute.h"

#include "kernels/combine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* start[e + 1] becomes the rows of expert e. */
static enum ep_status count_rows(const int32_t *topk_idx, int64_t num_slots, int64_t top_k,
                                 int64_t num_experts, int64_t *start)
{
    for (int64_t s = 0; s < num_slots; s++) {
        if (topk_idx[s] < -1 || topk_idx[s] >= num_experts) {
            return ep_error_set(EP_EINVAL,
                                "token %" PRId64 ", slot %" PRId64 ": expert %" PRId32
                                " is outside -1 to %" PRId64,
                                s / top_k, s % top_k, topk_idx[s], num_experts - 1);
        }
        if (topk_idx[s] >= 0) {
            start[topk_idx[s] + 1]++;
        }
    }
    return EP_OK;
}

enum ep_status ep_permute_init(const int32_t *topk_idx, int64_t num_tokens, int64_t top_k,
                               int64_t num_experts, struct ep_permutation *permutation)
{
    enum ep_status status;
    const int64_t num_slots = num_tokens * top_k;
    if (top_k > EP_PERMUTE_MAX_TOP_K) {
        return ep_error_set(EP_EINVAL, "top-k %" PRId64 " is above %d", top_k, EP_PERMUTE_MAX_TOP_K);
    }
    struct ep_permutation p = {
        .num_tokens = num_tokens, .top_k = top_k, .num_experts = num_experts};
    int64_t *next = malloc((size_t)num_experts * sizeof *next);
    p.expert_start = calloc((size_t)num_experts + 1, sizeof *p.expert_start);
    p.row_token = malloc((size_t)(num_slots + 1) * sizeof *p.row_token);
    p.slot_row = malloc((size_t)(num_slots + 1) * sizeof *p.slot_row);
    if (next == NULL || p.expert_start == NULL || p.row_token == NULL || p.slot_row == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to permute %" PRId64 " rows", num_slots);
        goto out;
    }
    EP_TRY(count_rows(topk_idx, num_slots, top_k, num_experts, p.expert_start));
    for (int64_t e = 0; e < num_experts; e++) {
        next[e] = p.expert_start[e];
        p.expert_start[e + 1] += p.expert_start[e];
    }
    for (int64_t s = 0; s < num_slots; s++) {
        const int32_t e = topk_idx[s];
        p.slot_row[s] = e < 0 ? -1 : next[e]++;
        if (e >= 0) {
            p.row_token[p.slot_row[s]] = s / top_k;
        }
    }
    p.num_rows = p.expert_start[num_experts];
    free(next);
    *permutation = p;
    return EP_OK;
out:
    free(next);
    ep_permute_fini(&p);
    return status;
}

void ep_permute_fini(struct ep_permutation *permutation)
{
    free(permutation->expert_start);
    free(permutation->row_token);
    free(permutation->slot_row);
    *permutation = (struct ep_permutation){0};
}

void ep_permute_rows(const struct ep_permutation *permutation, const void *tokens,
                     int64_t row_bytes, void *permuted)
{
    const char *from = tokens;
    char *to = permuted;
    for (int64_t i = 0; i < permutation->num_rows; i++) {
        memcpy(to + i * row_bytes, from + permutation->row_token[i] * row_bytes, (size_t)row_bytes);
    }
}

enum ep_status ep_permute_sum_rows(const struct ep_permutation *permutation, const void *permuted,
                                   enum ep_dtype dtype, int64_t hidden, const float *topk_weight,
                                   void *tokens)
{
    if (dtype != EP_FP32 && dtype != EP_BF16) {
        return ep_error_set(EP_EINVAL, "rows of %s cannot be summed; fp32 or bf16 expected",
                            ep_dtype_name(dtype));
    }
    const int64_t top_k = permutation->top_k;
    const int64_t row_bytes = hidden * ep_dtype_element_bytes(dtype);
    for (int64_t t = 0; t < permutation->num_tokens; t++) {
        const void *rows[EP_PERMUTE_MAX_TOP_K];
        float weights[EP_PERMUTE_MAX_TOP_K];
        int64_t num = 0;
        for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
            if (permutation->slot_row[i] >= 0) {
                rows[num] = (const char *)permuted + permutation->slot_row[i] * row_bytes;
                weights[num++] = topk_weight != NULL ? topk_weight[i] : 1;
            }
        }
        ep_combine_row(dtype, hidden, num, rows, weights, (char *)tokens + t * row_bytes);
    }
    return EP_OK;
}

void ep_permute_traffic_bytes(const struct ep_permutation *permutation, int64_t row_bytes,
                              int64_t *permute_bytes, int64_t *sum_bytes)
{
    *permute_bytes = 2 * permutation->num_rows * row_bytes;
    *sum_bytes = (permutation->num_rows + permutation->num_tokens) * row_bytes;
}
