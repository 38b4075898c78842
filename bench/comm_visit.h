/* SPDX-License-Identifier: Apache-2.0 */
/* One case that is built and can be run, measured by whoever has it; several can stand at a time. */
#ifndef EP_BENCH_COMM_VISIT_H
#define EP_BENCH_COMM_VISIT_H

#include "bench/comm_setting.h"
#include "bench/flush.h"

enum { EP_COMM_VISIT_ALLOCS = 512 };

struct ep_comm_visit {
    struct ep_comm_setting setting; /* what records need */
    struct ep_routing routing;      /* this rank's tokens */
    struct ep_exchange exchange;
    void *state;
    struct ep_flush *flush; /* read before each repetition where buffers are to be cold, else NULL */
    enum ep_op op;          /* that ep_comm_visit_run runs */
    int64_t rows_size_bytes, rows_used_bytes; /* of its buffers of rows on this rank */
    double alloc_s[EP_COMM_VISIT_ALLOCS]; /* ring of the last allocations of buffers of rows on this rank */
    int64_t num_allocs;
    struct ep_os_counters before; /* when samples began */
};

/** Build routing, buffers (from the session's arena, which is not reset) and transport, and dispatch once.
 *  comm   the ranks that measure, with the algorithm forced
 *  visit  fini it whatever is returned
 *  Collective over comm, the status is agreed. EP_EINVAL: the case cannot be; EP_ENOMEM, EP_EENV. */
EP_MUST_CHECK enum ep_status ep_comm_visit_init(struct ep_session *session, struct ep_comm *comm,
                                                const struct ep_comm_case *point,
                                                struct ep_comm_visit *visit);
void ep_comm_visit_fini(struct ep_comm_visit *visit);

/** visit->op once; the caches are as they are. Collective. */
enum ep_status ep_comm_visit_run(void *visit);

/** Once the whole of visit->op was measured: its phases for about `time_s`, verification, and the record, which
 *  ep_session_begin_record began. Collective over the case's ranks. */
EP_MUST_CHECK enum ep_status ep_comm_visit_finish(struct ep_session *session,
                                                  struct ep_comm_visit *visit,
                                                  const struct ep_comm_effort *effort, double time_s,
                                                  const struct ep_harness_result *whole,
                                                  const struct ep_os_counters *during,
                                                  int64_t visit_idx, struct ep_record *record);

#endif
