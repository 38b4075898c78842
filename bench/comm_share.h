/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that all ranks of one node see: an MPI-3 shared window, one segment a rank. */
#ifndef EP_BENCH_COMM_SHARE_H
#define EP_BENCH_COMM_SHARE_H

#include "bench/comm.h"

#include <stdint.h>

struct ep_share;

/** A segment of `size_bytes` for each rank of `comm`; memory is taken as it is touched. Collective, status
 *  agreed. Returns EP_EENV with the reason where ranks are on several nodes, the library makes no
 *  such window, or the file system behind shared memory has less room than all segments need (else a
 *  first touch would end the job with SIGBUS). */
EP_MUST_CHECK enum ep_status ep_share_create(struct ep_comm *comm, int64_t size_bytes,
                                             struct ep_share **share);

/** Collective. NULL is fine. */
void ep_share_destroy(struct ep_share *share);

/** Where this process sees the segment of a rank of MPI_COMM_WORLD. Local. */
char *ep_share_segment(const struct ep_share *share, int world_rank);

/** What was written before by any rank of `comm` is seen after by all: a barrier between two
 *  MPI_Win_sync. Collective over `comm`, a part of the share's ranks. */
EP_MUST_CHECK enum ep_status ep_share_sync(const struct ep_share *share, struct ep_comm *comm);

#endif
