/* SPDX-License-Identifier: Apache-2.0 */
/* How many nodes and ranks a token goes to on average under group-limited routing. */
#ifndef EP_KERNELS_GROUP_SPREAD_H
#define EP_KERNELS_GROUP_SPREAD_H

#include "base/error.h"

#include <stdint.h>

enum { EP_GROUP_SPREAD_MAX_TOP_K = 12 };

struct ep_group_spread {
    double groups; /* expected distinct groups of a token */
    double parts;  /* expected distinct parts: ranks, where groups are nodes */
};

/** Expected spread where every expert's score is as likely to be high as any other's, a group's score
 *  is its best expert's, the topk_groups best groups are kept and the top_k best experts inside them
 *  are chosen. Exact: experts in falling order of score are draws without replacement; until as many
 *  groups have been seen as are kept, every draw counts, afterwards those of the kept groups alone.
 *  Experts lie in num_groups equal groups and these in equal parts: num_parts is a multiple of
 *  num_groups and divides num_experts. topk_groups >= num_groups: no limit.
 *  Returns EP_EINVAL where that does not hold, where top_k is beyond the experts of the kept groups
 *  or beyond EP_GROUP_SPREAD_MAX_TOP_K (time grows as its factorial's root).
 *  Source: DeepEP, tests/legacy/test_internode.py, for the routing; results/README.md, "validate". */
EP_MUST_CHECK enum ep_status ep_group_spread_expect(int64_t num_experts, int64_t top_k,
                                                    int64_t num_groups, int64_t topk_groups,
                                                    int64_t num_parts,
                                                    struct ep_group_spread *spread);

#endif
