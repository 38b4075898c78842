/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that all ranks of one node see: an MPI-3 shared window, one segment a rank. */
#ifndef EP_BENCH_COMM_SHARE_H
#define EP_BENCH_COMM_SHARE_H

#include "bench/arena.h"
#include "bench/comm.h"

#include <stdbool.h>
#include <stdint.h>

struct ep_share;

/** A segment of `size_bytes` for each rank of `comm`, seen by the ranks of its node; memory is taken as
 *  it is touched. Addresses allow huge pages where the system can. Collective, status agreed. Returns
 *  EP_EENV with the reason where the library makes no such window, or the file system behind shared
 *  memory has less room than all segments of a node need (else a first touch would end the job with
 *  SIGBUS). */
EP_MUST_CHECK enum ep_status ep_share_create(struct ep_comm *comm, int64_t size_bytes,
                                             struct ep_share **share);

/** Collective. NULL is fine. */
void ep_share_destroy(struct ep_share *share);

/** Where this process sees the segment of a rank of MPI_COMM_WORLD. Local. */
char *ep_share_segment(const struct ep_share *share, int world_rank);

/** True where this process sees that rank's segment: both are on one node. Local. */
bool ep_share_has(const struct ep_share *share, int world_rank);

/** A barrier through flags in the segments: what a rank wrote before is seen by all after. Cheaper than
 *  MPI's, and it yields where ranks have to wait for a core. */
struct ep_share_barrier;

/** Flags come from `arena`, which lies in this rank's segment. Collective over `comm`, a part of the
 *  node's ranks; status agreed. */
EP_MUST_CHECK enum ep_status ep_share_barrier_create(const struct ep_share *share,
                                                     struct ep_comm *comm, struct ep_arena *arena,
                                                     struct ep_share_barrier **barrier);
void ep_share_barrier_destroy(struct ep_share_barrier *barrier);

/** Streaming stores must have been ended (ep_row_stream_end). Collective over the barrier's ranks. */
EP_MUST_CHECK enum ep_status ep_share_barrier_wait(struct ep_share_barrier *barrier);

#endif
