/* SPDX-License-Identifier: Apache-2.0 */
/* A sweep of comm cases: every combination of its lists, visited in shuffled order within a budget. */
#ifndef EP_BENCH_COMM_SWEEP_H
#define EP_BENCH_COMM_SWEEP_H

#include "bench/comm_case.h"
#include "base/units.h"
#include "kernels/capacity_options.h"
#include "kernels/models.h"

#include <argp.h>

/** The options of `epbench comm`, as texts and numbers. Lists are comma-separated; NULL = default. */
struct ep_comm_options {
    const char *tokens, *tokens_per_rank, *hidden, *experts, *top_k, *skew, *transport, *dtype,
        *combine_dtype, *model, *model_file, *algorithm, *ranks, *rank_order, *ops,
        *trace_format, *placement, *buffers;
    int64_t layer; /* of traces and counts; -1 = not given */
    int64_t replicas; /* slots beyond one per expert; 0 = none */
    int64_t groups;   /* set by the command: so many ranks for each of a case's; 0 = one */
    struct ep_capacity_options capacity;
    bool cold;
    bool no_check;
    bool limits;        /* transports in turns, beside bounds */
    int64_t num_visits; /* of each case */
    int64_t max_samples, warmup;
    double case_s;      /* time of one visit of one case, both operations */
    double budget_s;    /* time of the whole sweep; 0 = no limit */
    double bare_s;      /* time for the comparison with a bare call; 0 = none */
    bool quiet;         /* no table at the end (set by `run`) */
};

/** --tokens --hidden ... as an argp child; input is a struct ep_comm_options. */
extern const struct argp ep_comm_argp;

struct ep_comm_options ep_comm_options_default(void);

/** The lists, parsed, and all loaded skews. */
struct ep_comm_sweep;

/** Parse the lists and load traces. No MPI: a bad option is found before it starts.
 *  Returns EP_EINVAL naming the option: unknown names, numbers out of range, top-k > experts, a
 *  trace's shape contradicted by an option that is no sweep. */
EP_MUST_CHECK enum ep_status ep_comm_sweep_create(const struct ep_comm_options *options,
                                                  struct ep_comm_sweep **sweep);
/** True where a transport of the sweep needs the session's buffers in shared memory. */
bool ep_comm_sweep_shares(const struct ep_comm_sweep *sweep);
/** The transports of the sweep, ended by NULL. */
const struct ep_transport *const *ep_comm_sweep_transports(const struct ep_comm_sweep *sweep);
void ep_comm_sweep_destroy(struct ep_comm_sweep *sweep);

/** The most ranks that --ranks asks for, times the groups; 0 = not given, all that there are. */
int64_t ep_comm_sweep_most_ranks(const struct ep_comm_sweep *sweep);

/** Make the cases for the session's ranks and see whether each can be; ep_comm_sweep_run() does it where
 *  this was not called before. Collective; EP_EINVAL as there. */
EP_MUST_CHECK enum ep_status ep_comm_sweep_prepare(struct ep_comm_sweep *sweep,
                                                   struct ep_session *session);

/** Of a prepared sweep: its cases [*num], the id of each one's routing, and its model (NULL = none);
 *  borrowed. For commands that do something else at the same points (bench/comm_visits.h). */
const struct ep_comm_case *ep_comm_sweep_cases(const struct ep_comm_sweep *sweep, int64_t *num);
const char *ep_comm_sweep_routing_id(const struct ep_comm_sweep *sweep, int64_t case_idx);
const struct ep_model *ep_comm_sweep_model(const struct ep_comm_sweep *sweep);

/** Run all cases: visit by visit, each visit in its own shuffled order. Cases that cannot be on
 *  these ranks (a hot ratio out of reach, P no multiple of E, no memory) end the sweep with EP_EINVAL
 *  before anything is timed where that can be known, else are skipped with the reason. Over the
 *  budget, what is left is skipped and listed. Ctrl-C ends after the visit in flight.
 *  Prints a table on stdout (rank 0) unless quiet. Collective over the session's world. */
EP_MUST_CHECK enum ep_status ep_comm_sweep_run(struct ep_comm_sweep *sweep,
                                               struct ep_session *session);

#endif
