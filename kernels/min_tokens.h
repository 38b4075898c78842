/* SPDX-License-Identifier: Apache-2.0 */
/* How many tokens an expert gets, and the batch that would give it enough. */
#ifndef EP_KERNELS_MIN_TOKENS_H
#define EP_KERNELS_MIN_TOKENS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Where a load was measured. */
struct ep_min_tokens_shape {
    int64_t num_experts;
    int64_t top_k;
    int64_t num_tokens;      /* of a step, over all ranks */
    int64_t sequence_tokens; /* a batch is a multiple of it, >= 1 */
};

/** The batch that an expert's tokens ask for. */
struct ep_min_tokens {
    int64_t wanted; /* tokens that each expert should get */
    int64_t num_experts;
    double low_tokens;   /* tokens per step of the expert at the 10 % quantile (type 7) of loads */
    int64_t num_starved; /* experts below the wanted tokens */
    int64_t tokens;      /* per step, for the quantile to reach the wanted at this load, in whole
                          * sequences; -1 = none would do: the quantile has not even one token */
    int64_t even_tokens; /* the same, were the load even */
};

/** Plan a batch.
 *  loads  [num_experts] copies per step (means may be fractions), in proportion to the batch
 *  Returns EP_ENOMEM. Source: kernels/README.md, "Tokens per expert". */
EP_MUST_CHECK enum ep_status ep_min_tokens_plan(const double *loads,
                                                const struct ep_min_tokens_shape *shape,
                                                int64_t wanted, struct ep_min_tokens *plan);

/** A sentence for people where the quantile is below the wanted tokens; else "" and false.
 *  text [size], 256 is enough. */
bool ep_min_tokens_warn(const struct ep_min_tokens *plan, char *text, size_t size);

#endif
