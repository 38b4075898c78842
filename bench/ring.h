/* SPDX-License-Identifier: Apache-2.0 */
/* All-gather and reduce-scatter on a ring, P - 1 steps of one block each: what a library may do, but in a
 * known way (Patarasuk and Yuan, JPDC 69 (2009) 117-124). Blocks may differ in size. Every rank sends all
 * blocks but one, so with equal blocks (P-1)/P of the buffer, whatever is in it. */
#ifndef EP_BENCH_RING_H
#define EP_BENCH_RING_H

#include "bench/comm_mpi.h"

#include <stdbool.h>

struct ep_ring {
    MPI_Comm handle;
    int rank, num_ranks;
    const int *count;        /* [num_ranks] elements of each rank's block, >= 0 */
    const int *start;        /* [num_ranks] elements before it */
    MPI_Datatype element;
    int64_t element_bytes;
    bool backward;           /* to rank - 1 in place of rank + 1 */
};

/** buffer holds this rank's block in its place; afterwards all blocks. Collective. */
EP_MUST_CHECK enum ep_status ep_ring_allgather(const struct ep_ring *ring, char *buffer);

/** buffer holds all blocks of this rank's addends; afterwards its own block is the sum over ranks, the
 *  others hold sums of some. add(in, in_out, num elements). scratch: room for the largest block. The sum of
 *  block r is taken in the order of the ring and ends at r. Collective. */
EP_MUST_CHECK enum ep_status ep_ring_reduce_scatter(const struct ep_ring *ring,
                                                    void (*add)(const void *in, void *in_out,
                                                                int64_t num),
                                                    char *buffer, char *scratch);

#endif
