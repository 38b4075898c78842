/* SPDX-License-Identifier: Apache-2.0 */
/* Expected traffic of one token, without drawing all tokens: where it goes, with what chance. */
#ifndef EP_KERNELS_EXPECT_H
#define EP_KERNELS_EXPECT_H

#include "base/error.h"
#include "kernels/placement.h"
#include "kernels/skew.h"

#include <stdbool.h>
#include <stdint.h>

struct ep_expect_config {
    const struct ep_skew *skew; /* one popularity for all sources (ep_popularity_is_of) */
    int64_t num_experts;
    int64_t top_k;
    const char *router;     /* group-limited: "sigmoid-group:8:4"; NULL = tokens choose by the skew */
    const struct ep_placement *placement; /* of these experts on these ranks; NULL = contiguous */
    int64_t num_ranks;      /* of one EP group */
    int64_t ranks_per_node; /* >= 1; consecutive ranks */
    uint64_t seed;          /* of the order of popularity, and of tokens where they are drawn */
};

/** Chances of one token, averaged over the ranks that it may start from. */
struct ep_expect {
    int64_t num_ranks;
    int64_t num_nodes;
    double *copies;      /* [num_ranks] expected copies to a rank; sum = top-k */
    double *ranks;       /* [num_ranks] chance that a rank gets it at all */
    double *nodes;       /* [num_nodes] chance that a node gets it at all */
    double ranks_per_token; /* sum of ranks */
    double nodes_per_token;
    int64_t num_drawn;   /* tokens drawn to find the chances; 0 = exact */
};

/** Fill chances. By the skew: exact, as successive draws without replacement; a rank's (node's)
 *  experts count as one expert with the sum of their popularity, which the same formula takes. By a
 *  router, or where a given placement has replicas: frequencies over 16,384 drawn tokens (a standard error of
 *  at most 0.4 % of a token), each from another source. Contiguous, where num_ranks > num_experts a token goes to the replica that its source has.
 *  Returns EP_EINVAL for a skew of another kind, a shape or router that does not fit; EP_ENOMEM.
 *  O(num_nodes num_experts top_k) at most, with a placement O(num_ranks num_experts top_k);
 *  for uniform O(num_ranks).
 *  Source: kernels/README.md, "Expected loads". */
EP_MUST_CHECK enum ep_status ep_expect_init(const struct ep_expect_config *config,
                                            struct ep_expect *expect);
void ep_expect_fini(struct ep_expect *expect);

#endif
