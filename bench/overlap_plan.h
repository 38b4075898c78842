/* SPDX-License-Identifier: Apache-2.0 */
/* The order of a layer in chunks, and how short it can be at best. No MPI, no clock. */
#ifndef EP_BENCH_OVERLAP_PLAN_H
#define EP_BENCH_OVERLAP_PLAN_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/** What happens at a place of the schedule. START begins an exchange that goes on until its FINISH; all
 *  else keeps the rank busy. */
enum ep_overlap_act {
    EP_OVERLAP_ROUTE,  /* of all tokens: before it nothing is known to send */
    EP_OVERLAP_COUNTS, /* how many rows of a chunk go where */
    EP_OVERLAP_COPY,   /* pack or unpack of a chunk */
    EP_OVERLAP_SHARED, /* the shared experts on all tokens */
    EP_OVERLAP_EXPERTS,
    EP_OVERLAP_ADD,    /* the shared experts' results on the sums */
    EP_OVERLAP_START,
    EP_OVERLAP_FINISH,
};

struct ep_overlap_event {
    enum ep_overlap_act act;
    int chunk;  /* 0 where it is for all tokens */
    int op;     /* COPY, START, FINISH: enum ep_op */
    int phase;  /* COPY, COUNTS: the transport's phase */
};

enum { EP_OVERLAP_MAX_CHUNKS = 64, EP_OVERLAP_EVENTS_PER_CHUNK = 12, EP_OVERLAP_EXTRA_EVENTS = 4 };

/** Phases of a transport: indices in its operations. */
struct ep_overlap_phases {
    int counts, pack, unpack;           /* of dispatch */
    int combine_pack, combine_unpack;
};

/** List the events of a layer of `num_chunks` >= 1 chunks: the next chunk's dispatch starts before this one
 *  is waited for, and a chunk's combine runs under the next chunk's experts; the shared experts come while
 *  the first dispatch is under way.
 *  events  [num_chunks EP_OVERLAP_EVENTS_PER_CHUNK + EP_OVERLAP_EXTRA_EVENTS]; returns how many are used. */
int64_t ep_overlap_list(int num_chunks, bool has_shared, const struct ep_overlap_phases *phases,
                        struct ep_overlap_event *events);

/** How long the events take in that order if exchanges cost the rank nothing while it does something else
 *  and run one after the other: no better overlap of this schedule can be.
 *  time_s  [num] of each event by itself; of an exchange at its START, FINISH is not looked at */
double ep_overlap_bound_s(const struct ep_overlap_event *events, int64_t num, const double *time_s);

#endif
