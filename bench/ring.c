/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of a ring. */
#include "bench/ring.h"

enum { TAG_RING = 2 };

/* The rank `steps` further on the ring. */
static int ahead(const struct ep_ring *r, int steps)
{
    const int turn = steps % r->num_ranks;
    return (r->rank + (r->backward ? r->num_ranks - turn : turn)) % r->num_ranks;
}

/* Send one block on, take another from behind. */
static enum ep_status step(const struct ep_ring *r, const char *out, int out_block, char *in,
                           int in_block)
{
    enum ep_status status = EP_OK;
    MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    EP_TRY(ep_comm_check(MPI_Irecv(in, r->count[in_block], r->element,
                                   ahead(r, r->num_ranks - 1), TAG_RING, r->handle, &requests[0]),
                         "MPI_Irecv of a block"));
    EP_TRY(ep_comm_check(MPI_Isend(out, r->count[out_block], r->element, ahead(r, 1), TAG_RING,
                                   r->handle, &requests[1]),
                         "MPI_Isend of a block"));
    EP_TRY(ep_comm_check(MPI_Waitall(2, requests, MPI_STATUSES_IGNORE), "MPI_Waitall of blocks"));
out:
    return status;
}

static char *block(const struct ep_ring *r, char *buffer, int of)
{
    return buffer + r->start[of] * r->element_bytes;
}

enum ep_status ep_ring_allgather(const struct ep_ring *r, char *buffer)
{
    enum ep_status status = EP_OK;
    for (int s = 0; s < r->num_ranks - 1; s++) {
        const int out = ahead(r, r->num_ranks - s); /* own, then what came in the step before */
        const int in = ahead(r, r->num_ranks - 1 - s);
        EP_TRY(step(r, block(r, buffer, out), out, block(r, buffer, in), in));
    }
out:
    return status;
}

enum ep_status ep_ring_reduce_scatter(const struct ep_ring *r,
                                      void (*add)(const void *in, void *in_out, int64_t num),
                                      char *buffer, char *scratch)
{
    enum ep_status status = EP_OK;
    for (int s = 0; s < r->num_ranks - 1; s++) {
        const int out = ahead(r, r->num_ranks - 1 - s);
        const int in = ahead(r, 2 * r->num_ranks - 2 - s);
        EP_TRY(step(r, block(r, buffer, out), out, scratch, in));
        add(scratch, block(r, buffer, in), r->count[in]);
    }
out:
    return status;
}
