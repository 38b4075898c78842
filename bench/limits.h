/* SPDX-License-Identifier: Apache-2.0 */
/* `comm --limits`: transports of one point side by side, in turns, with what the machine could do at best. */
#ifndef EP_BENCH_LIMITS_H
#define EP_BENCH_LIMITS_H

#include "bench/comm_case.h"

#include <stdio.h>

/** What cannot be beaten on one host, timed as a transport is but moving nothing between ranks: all ranks
 *  copy as many bytes as they receive, or sum as many private rows as combine sums. Ended by NULL. */
extern const struct ep_transport *const ep_limits_bounds[];

/** The operation that a bound is of. */
enum ep_op ep_limits_bound_op(const struct ep_transport *bound);

struct ep_limits_table;

EP_MUST_CHECK enum ep_status ep_limits_table_create(struct ep_limits_table **table);
void ep_limits_table_destroy(struct ep_limits_table *table);

/** One transport at one point in one visit. */
struct ep_limits_entry {
    const char *point;     /* "uniform, top-k 8, hidden 4096, bf16, 1024 tokens" */
    const char *transport; /* with its algorithm, where one was named */
    bool shares;           /* it is judged against the others */
    bool is_base;          /* alltoallv: what others are over */
    enum ep_op op;
    int64_t received_bytes; /* by the busiest rank, own rows included */
    double median_s;
    /* [num_rounds] medians of a round's turns: its own, of the base, of the fastest transport over MPI, of
     * the best bound; NaN where there is none */
    const double *own_s, *base_s, *mpi_s, *bound_s;
    int64_t num_rounds;
};

EP_MUST_CHECK enum ep_status ep_limits_table_add(struct ep_limits_table *table,
                                                 const struct ep_limits_entry *entry);

/** Print each transport at each point, then geometric means and the least over the points of those in
 *  shared memory, against what is asked of them with these pages. */
EP_MUST_CHECK enum ep_status ep_limits_table_print(const struct ep_limits_table *table, bool thp,
                                                   FILE *out);

/** Cases by point: those that differ in how rows are sent alone. Free with ep_limits_points_fini. */
struct ep_limits_points {
    struct ep_comm_case *points; /* [num] the first case of each */
    int64_t num;
    int64_t *members; /* indices of cases; those of a point from first[point] to first[point + 1] */
    int64_t *first;
};

EP_MUST_CHECK enum ep_status ep_limits_points_init(const struct ep_comm_case *cases,
                                                   int64_t num_cases,
                                                   struct ep_limits_points *points);
void ep_limits_points_fini(struct ep_limits_points *points);

/** Visit a point: build all its cases and the bounds at once, and time them in turns: in each round, in an
 *  order of its own, every one runs once untimed and then a few times. Adds a record for each operation of
 *  each of them.
 *  cases      [num_cases] that differ in the transport, or a way of one, alone
 *  case_idx   their indices in `cases`, [num_idx]
 *  A case that cannot be here is left out with a note. Collective over the world, the status is agreed.
 *  Returns EP_ENOMEM where not even two of them have room. */
EP_MUST_CHECK enum ep_status ep_limits_visit(struct ep_session *session, struct ep_comm *part,
                                             const struct ep_comm_case *cases,
                                             const int64_t *case_idx, int64_t num_idx,
                                             const struct ep_comm_effort *effort, int64_t visit_idx,
                                             struct ep_limits_table *table);

#endif
