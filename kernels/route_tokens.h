/* SPDX-License-Identifier: Apache-2.0 */
/* The rank of each token of a trace, from a CSV `token,rank`. */
#ifndef EP_KERNELS_ROUTE_TOKENS_H
#define EP_KERNELS_ROUTE_TOKENS_H

#include "base/error.h"
#include "kernels/trace.h"

#include <stdint.h>

/** Read `path` (header token,rank) and join it to the trace by token.
 *  rank_limit   ranks must be below it
 *  token_ranks  [trace->num_tokens] new array to be freed by the caller: rank of each token of the
 *               trace, in its order
 *  Returns EP_EINVAL with file:line for a token that comes twice, is missing, or is not in the
 *  trace, and for a rank outside. */
EP_MUST_CHECK enum ep_status ep_route_tokens_load(const char *path, const struct ep_trace *trace,
                                                  int64_t rank_limit, int32_t **token_ranks);

#endif
