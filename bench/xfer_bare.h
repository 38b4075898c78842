/* SPDX-License-Identifier: Apache-2.0 */
/* The buffers and counts of an alltoallv transport, for a bare call on the same. */
#ifndef EP_BENCH_XFER_BARE_H
#define EP_BENCH_XFER_BARE_H

#include "base/error.h"

struct ep_bare_call;

/** Arguments of MPI_Alltoallv in bytes, taken from a state of the transport `alltoallv`, which must
 *  outlive it. Not collective. */
EP_MUST_CHECK enum ep_status ep_bare_call_create(const void *alltoallv_state,
                                                 struct ep_bare_call **call);
void ep_bare_call_destroy(struct ep_bare_call *call);

/** MPI_Alltoallv, nothing else. Collective. */
EP_MUST_CHECK enum ep_status ep_bare_call_run(void *call);

#endif
