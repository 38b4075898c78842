/* SPDX-License-Identifier: Apache-2.0 */
/* One point of `epbench layer`: build, measure whole and by phases, compare, verify, record. */
#ifndef EP_BENCH_LAYER_CASE_H
#define EP_BENCH_LAYER_CASE_H

#include "bench/layer.h"
#include "bench/layer_timeline.h"

/** What the visits of all cases share. All borrowed. */
struct ep_layer_visits {
    struct ep_session *session;
    struct ep_layer_bank *bank;
    struct ep_comm *single; /* of rank 0 alone; NULL on the others */
    const struct ep_layer_shape *shape; /* of the layer; the one rank has tp and dp 1 */
    struct ep_layer_timeline *timeline; /* rank 0; NULL = not asked for */
    const int64_t *chunks; /* [num_chunks] numbers of chunks to overlap; none = not asked for */
    int64_t num_chunks;
    const char *remedy; /* that the case at hand is of (bench/layer_remedies.h); NULL = not asked for */
};

/** Records of a visit: the layer, and one rank with all experts on the same tokens. */
enum { EP_LAYER_ALL_RANKS, EP_LAYER_ONE_RANK, EP_LAYER_NUM_RECORDS };

/** Visit a case: the layer on its ranks, a dense FFN of equal active parameters, then rank 0 alone with all
 *  experts while the others sleep. Adds one record, or two; the second is left out with a note where one
 *  rank cannot have the case (a hot rank, no memory, a transport between hosts), or it is on one rank anyway.
 *  part     the ranks that measure; NULL on those that stand aside
 *  records  [EP_LAYER_NUM_RECORDS], initialised by the caller and his to free; rank 0. One without samples
 *           was not added.
 *  Collective over the world; the status is agreed. */
EP_MUST_CHECK enum ep_status ep_layer_case_visit(const struct ep_layer_visits *visits,
                                                 struct ep_comm *part,
                                                 const struct ep_comm_case *point,
                                                 const struct ep_comm_effort *effort,
                                                 int64_t visit_idx,
                                                 struct ep_record records[EP_LAYER_NUM_RECORDS]);

/** The key `case` of its records; new string, NULL without memory. */
char *ep_layer_case_name(const struct ep_session *session, const struct ep_comm_case *point,
                         const struct ep_layer_shape *shape, const char *routing_id);

#endif
