/* SPDX-License-Identifier: Apache-2.0 */
/* A sweep from the inside: what its lists (comm_sweep.c) and its cases (comm_cases.c) share. */
#ifndef EP_BENCH_COMM_CASES_H
#define EP_BENCH_COMM_CASES_H

#include "bench/comm_sweep.h"

#include "base/units.h"
#include "kernels/models.h"

enum { EP_COMM_MAX_LIST = 64, EP_COMM_ROUTING_ID_LENGTH = 32 };

struct ep_comm_numbers {
    int64_t items[EP_COMM_MAX_LIST];
    int64_t num;
};

struct ep_comm_sweep {
    struct ep_comm_options options;
    struct ep_comm_numbers tokens, hidden, top_k, ranks;
    struct ep_comm_numbers tokens_per_rank; /* num 0 = equal */
    int64_t experts;                /* 0 = the skew's */
    const struct ep_skew *skews[EP_COMM_MAX_LIST];
    int64_t num_skews;
    const struct ep_transport *transports[EP_COMM_MAX_LIST + 1]; /* ended by NULL */
    int64_t num_transports;
    enum ep_dtype dtypes[EP_COMM_MAX_LIST];
    int64_t num_dtypes;
    enum ep_dtype combine_dtype;
    bool has_combine_dtype;
    struct ep_list algorithms;
    enum ep_buffers buffers[EP_COMM_MAX_LIST];
    int64_t num_buffers;
    bool spread;
    bool ops[EP_NUM_OPS];
    struct ep_models *models;
    const struct ep_model *model;
    struct ep_comm_case *cases; /* made by build_cases, when the number of ranks is known */
    int64_t num_cases;
    char (*routing_ids)[EP_COMM_ROUTING_ID_LENGTH]; /* [num_cases], made by check_cases */
};

/** Experts and top-k of a skew; a trace in a sweep uses its own. `user_top_k` 0 = not given. */
EP_MUST_CHECK enum ep_status ep_comm_cases_resolve(const struct ep_comm_sweep *sweep,
                                                   const struct ep_skew *skew, int64_t user_top_k,
                                                   int64_t *experts, int64_t *top_k);

/** --tp x --dp: the groups of ranks that do the same side by side; 1 = none. */
int64_t ep_comm_cases_groups(const struct ep_comm_sweep *sweep);

#endif
