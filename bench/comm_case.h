/* SPDX-License-Identifier: Apache-2.0 */
/* One point of `epbench comm`: set up, measure, verify, record. */
#ifndef EP_BENCH_COMM_CASE_H
#define EP_BENCH_COMM_CASE_H

#include "bench/session.h"
#include "bench/transport.h"
#include "kernels/capacity.h"
#include "kernels/skew.h"

#include <stdint.h>

/** All factors of a point; the same on all ranks. */
struct ep_comm_case {
    const struct ep_transport *transport;
    const char *algorithm; /* "default", "linear", "pairwise" */
    const struct ep_skew *skew;
    const char *model;     /* its name in the zoo or file, or NULL */
    int64_t num_ranks;
    bool spread;           /* rank order */
    const char *placement; /* file with one map; NULL = contiguous */
    int64_t replicas;      /* slots beyond one per expert, filled by EPLB for the loads of the skew */
    int64_t experts;
    int64_t top_k;
    int64_t tokens;                 /* per rank */
    const int64_t *tokens_per_rank; /* [num_ranks] in place of tokens; NULL = equal */
    int64_t hidden;
    enum ep_dtype dtype;
    enum ep_dtype combine_dtype;
    struct ep_capacity_policy capacity; /* what experts take; all bytes set, cases are compared */
    const char *router;                 /* on logits of the skew's popularity; NULL = the skew's own */
    const char *style;                  /* of kernels/style.h that was asked for, or NULL */
    enum ep_buffers buffers;            /* how buffers of rows are sized */
    bool cold;                          /* caches are emptied before every repetition */
    bool ops[EP_NUM_OPS];
};

/** How long and how often. */
struct ep_comm_effort {
    double visit_s;         /* time for one visit of one case: all its samples and phases */
    int64_t max_samples;    /* --iters; 0 = as many as the interval needs */
    int64_t warmup;         /* repetitions, >= 1 */
    bool check;             /* verify every visit */
};

/** Visit a case: create routing, buffers and transport, measure each operation whole and phase by
 *  phase, verify it, and add one record per operation.
 *  part     the ranks that measure, with the algorithm forced; NULL on ranks that stand aside
 *  records  [EP_NUM_OPS], initialised by the caller and his to free; filled on rank 0 for the
 *           operations that the case asks for
 *  Collective over the world; the status is agreed. EP_EINVAL: the case cannot be (says why). */
EP_MUST_CHECK enum ep_status ep_comm_case_visit(struct ep_session *session, struct ep_comm *part,
                                                const struct ep_comm_case *point,
                                                const struct ep_comm_effort *effort,
                                                int64_t visit_idx,
                                                struct ep_record records[EP_NUM_OPS]);

#endif
