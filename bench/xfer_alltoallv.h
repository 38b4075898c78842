/* SPDX-License-Identifier: Apache-2.0 */
/* What the transport `alltoallv` passes to MPI, in rows. */
#ifndef EP_BENCH_XFER_ALLTOALLV_H
#define EP_BENCH_XFER_ALLTOALLV_H

#include "bench/comm.h"

#include <stdint.h>

/** Borrowed from the state, valid until the next dispatch. Blocks follow each other rank by rank. */
struct ep_alltoallv_arguments {
    struct ep_comm *comm;
    int64_t row_bytes;
    const void *send;
    void *recv;
    const int64_t *rows_to;   /* [num_ranks] */
    const int64_t *rows_from; /* [num_ranks] */
};

void ep_alltoallv_get_arguments(const void *state, struct ep_alltoallv_arguments *arguments);

#endif
