/* SPDX-License-Identifier: Apache-2.0 */
/* Visiting cases in shuffled order within a budget: what the sweeps of `comm` and `layer` share. */
#ifndef EP_BENCH_COMM_VISITS_H
#define EP_BENCH_COMM_VISITS_H

#include "bench/comm_case.h"

#include <stdbool.h>
#include <stdint.h>

/** Cases, how often and how long each is visited, and what a visit does. All borrowed. */
struct ep_comm_visits {
    const char *name;                  /* of the command: for progress and what is left out */
    const struct ep_comm_case *cases;  /* [num_cases] */
    int64_t num_cases;
    int64_t groups;                    /* ranks that work for each of a case's, >= 1 */
    int64_t num_visits;                /* of each case */
    double case_s;                     /* time of one visit at most */
    double budget_s;                   /* of all; 0 = no limit */
    struct ep_comm_effort effort;      /* of each visit; visit_s is set here */
    /** Does the resumed run have this visit? Collective over the world. */
    enum ep_status (*is_done)(void *ctx, struct ep_session *session, int64_t case_idx,
                              int64_t visit_idx, bool *done);
    /** Measure and add the records. part: groups times the case's ranks, its algorithm forced; NULL on ranks that
     *  stand aside. Collective over the world, the status is agreed; EP_ENOMEM and EP_EENV leave the
     *  case out, with the reason. */
    enum ep_status (*visit)(void *ctx, struct ep_session *session, struct ep_comm *part,
                            int64_t case_idx, const struct ep_comm_effort *effort,
                            int64_t visit_idx);
    void *ctx;
};

/** Visit all cases: round by round, each in its own shuffled order, which the seed and the launch give.
 *  Over the budget what is left is skipped and listed; Ctrl-C ends after the visit in flight.
 *  Collective over the session's world; the status is agreed. */
EP_MUST_CHECK enum ep_status ep_comm_visits_run(const struct ep_comm_visits *visits,
                                                struct ep_session *session);

#endif
