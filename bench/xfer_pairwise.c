/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `pairwise`: the rows of alltoallv, in P - 1 steps of one MPI_Isend and one MPI_Irecv each. */
#include "bench/xfer_blocks.h"

#include <string.h>

enum { TAG_ROWS = 1 };

/* One side of all steps: blocks in a buffer. */
struct side {
    char *buffer;
    const int *count, *start; /* [num_ranks], units */
};

/* Step s sends to rank + s and takes from rank - s, and ends when both are through: nobody is in the next
 * step before its two partners are (rung M5 of the model). Empty blocks are sent too, as in MPI's own
 * pairwise algorithm: each step has its latency. */
static enum ep_status run_steps(const struct ep_blocks *s, const struct ep_blocks_call *call,
                                const struct side *out, const struct side *in)
{
    enum ep_status status = EP_OK;
    const int num_ranks = s->copies.num_ranks;
    const int rank = s->copies.rank;
    const int64_t unit = call->unit_bytes;
    memcpy(in->buffer + in->start[rank] * unit, out->buffer + out->start[rank] * unit,
           (size_t)(out->count[rank] * unit));
    for (int step = 1; step < num_ranks; step++) {
        const int to = (rank + step) % num_ranks;
        const int from = (rank - step + num_ranks) % num_ranks;
        MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        EP_TRY(ep_comm_check(MPI_Irecv(in->buffer + in->start[from] * unit, in->count[from],
                                       call->type, from, TAG_ROWS, s->handle, &requests[0]),
                             "MPI_Irecv of rows"));
        EP_TRY(ep_comm_check(MPI_Isend(out->buffer + out->start[to] * unit, out->count[to],
                                       call->type, to, TAG_ROWS, s->handle, &requests[1]),
                             "MPI_Isend of rows"));
        EP_TRY(ep_comm_check(MPI_Waitall(2, requests, MPI_STATUSES_IGNORE),
                             "MPI_Waitall of rows"));
    }
out:
    return status;
}

static enum ep_status run_exchange(void *state)
{
    const struct ep_blocks *s = state;
    const struct ep_blocks_call *c = &s->calls[EP_OP_DISPATCH];
    return run_steps(s, c, &(struct side){s->copies.send, c->send_count, c->send_start},
                     &(struct side){s->copies.recv, c->recv_count, c->recv_start});
}

/* The transpose: what came in goes back, into the places of the send buffer. */
static enum ep_status run_combine_exchange(void *state)
{
    const struct ep_blocks *s = state;
    const struct ep_blocks_call *c = &s->calls[EP_OP_COMBINE];
    return run_steps(s, c, &(struct side){s->copies.recv, c->recv_count, c->recv_start},
                     &(struct side){s->copies.send, c->send_count, c->send_start});
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    return ep_blocks_create("pairwise", exchange, state);
}

const struct ep_transport ep_transport_pairwise = {
    .name = "pairwise",
    .summary = "one row per (token, expert), MPI_Isend and MPI_Irecv in shifted order, step by step",
    .basis = EP_BASIS_COPIES,
    .sizes_most = true,
    .sizes_anew = true,
    .roundings = 1,
    .ops = EP_BLOCKS_OPS(run_exchange, run_combine_exchange),
    .create = create,
    .view = ep_copies_view,
    .sent_rows = ep_blocks_sent_rows,
    .extras = ep_blocks_extras,
    .destroy = ep_blocks_destroy,
};
