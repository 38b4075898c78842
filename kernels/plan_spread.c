/* SPDX-License-Identifier: Apache-2.0 */
/* Distinct ranks of tokens, by the last token that each rank has seen. */
#include "kernels/plan_spread.h"

#include <stdlib.h>

enum ep_status ep_plan_spread_init(int64_t ep, int64_t num_experts, struct ep_plan_spread *spread)
{
    struct ep_plan_spread made = {.ep = ep};
    made.expert_rank = malloc((size_t)num_experts * sizeof *made.expert_rank);
    made.last_token = calloc((size_t)ep, sizeof *made.last_token);
    if (made.expert_rank == NULL || made.last_token == NULL) {
        ep_plan_spread_fini(&made);
        return ep_error_set(EP_ENOMEM, "no memory to count the ranks of tokens");
    }
    for (int64_t e = 0; e < num_experts; e++) {
        made.expert_rank[e] = (int32_t)(e / (num_experts / ep));
    }
    *spread = made;
    return EP_OK;
}

void ep_plan_spread_fini(struct ep_plan_spread *spread)
{
    free(spread->expert_rank);
    free(spread->last_token);
    *spread = (struct ep_plan_spread){0};
}

void ep_plan_spread_add(struct ep_plan_spread *spread, const int32_t *topk_idx, int64_t num_tokens,
                        int64_t top_k)
{
    for (int64_t t = 0; t < num_tokens; t++) {
        spread->tokens++;
        for (int64_t k = 0; k < top_k; k++) {
            const int32_t expert = topk_idx[t * top_k + k];
            if (expert >= 0) {
                int64_t *last = &spread->last_token[spread->expert_rank[expert]];
                spread->rows += *last != spread->tokens;
                *last = spread->tokens;
            }
        }
    }
}
