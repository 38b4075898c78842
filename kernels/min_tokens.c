/* SPDX-License-Identifier: Apache-2.0 */
/* Batches from loads. */
#include "kernels/min_tokens.h"

#include "base/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t whole_sequences(double tokens, int64_t sequence_tokens)
{
    return (int64_t)ceil(tokens / (double)sequence_tokens) * sequence_tokens;
}

enum ep_status ep_min_tokens_plan(const double *loads, const struct ep_min_tokens_shape *shape,
                                  int64_t wanted, struct ep_min_tokens *plan)
{
    const int64_t num = shape->num_experts;
    double *sorted = malloc((size_t)num * sizeof *sorted);
    if (sorted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads of %" PRId64 " experts", num);
    }
    memcpy(sorted, loads, (size_t)num * sizeof *sorted);
    ep_stats_sort(sorted, num);
    const double copies = (double)wanted * (double)num; /* of all experts, if even */
    struct ep_min_tokens made = {
        .wanted = wanted,
        .num_experts = num,
        .low_tokens = ep_stats_quantile_sorted(sorted, num, 0.1),
        .tokens = -1,
        .even_tokens = whole_sequences(copies / (double)shape->top_k, shape->sequence_tokens),
    };
    for (int64_t e = 0; e < num; e++) {
        made.num_starved += sorted[e] < (double)wanted;
    }
    if (made.low_tokens >= 1) {
        const double factor = (double)wanted / made.low_tokens;
        made.tokens = whole_sequences((double)shape->num_tokens * factor, shape->sequence_tokens);
    }
    free(sorted);
    *plan = made;
    return EP_OK;
}

bool ep_min_tokens_warn(const struct ep_min_tokens *p, char *text, size_t size)
{
    char batch[96] = "no batch would do";
    text[0] = '\0';
    if (p->low_tokens >= (double)p->wanted) {
        return false;
    }
    if (p->tokens >= 0) {
        snprintf(batch, sizeof batch, "%" PRId64 " tokens per step would do", p->tokens);
    }
    snprintf(text, size,
             "%" PRId64 " of %" PRId64 " experts get fewer than %" PRId64
             " tokens per step (--min-tokens-per-expert), the one at the 10 %% quantile %.1f; %s "
             "at this load, %" PRId64 " at an even one",
             p->num_starved, p->num_experts, p->wanted, p->low_tokens, batch, p->even_tokens);
    return true;
}
