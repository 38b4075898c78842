/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `alltoallv`: one row of row_bytes per (token, expert), own rows included, exact counts, one
 * MPI_Alltoallv: the copies basis. xfer_copies.c counts and packs the rows, xfer_blocks.c (find_rows) makes
 * MPI's arguments of the counts, kernels/traffic.c counts the same bytes from the routing, remote only. */
#include "bench/xfer_alltoallv.h"

#include "bench/xfer_blocks.h"

static enum ep_status run_exchange(void *state)
{
    const struct ep_blocks *s = state;
    const struct ep_blocks_call *c = &s->calls[EP_OP_DISPATCH];
    return ep_comm_check(MPI_Alltoallv(s->copies.send, c->send_count, c->send_start, c->type,
                                       s->copies.recv, c->recv_count, c->recv_start, c->type,
                                       s->handle),
                         "MPI_Alltoallv of rows");
}

/* The transpose: what came in goes back, into the places of the send buffer. */
static enum ep_status run_combine_exchange(void *state)
{
    const struct ep_blocks *s = state;
    const struct ep_blocks_call *c = &s->calls[EP_OP_COMBINE];
    return ep_comm_check(MPI_Alltoallv(s->copies.recv, c->recv_count, c->recv_start, c->type,
                                       s->copies.send, c->send_count, c->send_start, c->type,
                                       s->handle),
                         "MPI_Alltoallv of results");
}

/* The same calls, but not waited for. Whether rows move meanwhile is the library's affair. */
static enum ep_status start(void *state, enum ep_op op)
{
    struct ep_blocks *s = state;
    const struct ep_blocks_call *c = &s->calls[op];
    int code = 0;
    if (op == EP_OP_DISPATCH) {
        code = MPI_Ialltoallv(s->copies.send, c->send_count, c->send_start, c->type, s->copies.recv,
                              c->recv_count, c->recv_start, c->type, s->handle, &s->requests[op]);
    } else {
        code = MPI_Ialltoallv(s->copies.recv, c->recv_count, c->recv_start, c->type, s->copies.send,
                              c->send_count, c->send_start, c->type, s->handle, &s->requests[op]);
    }
    return ep_comm_check(code, "MPI_Ialltoallv");
}

static enum ep_status finish(void *state, enum ep_op op)
{
    struct ep_blocks *s = state;
    return ep_comm_check(MPI_Wait(&s->requests[op], MPI_STATUS_IGNORE), "MPI_Wait of rows");
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    return ep_blocks_create("alltoallv", exchange, state);
}

void ep_alltoallv_get_arguments(const void *state, struct ep_alltoallv_arguments *arguments)
{
    const struct ep_blocks *s = state;
    *arguments = (struct ep_alltoallv_arguments){
        .comm = s->copies.exchange->comm,
        .row_bytes = s->copies.exchange->row_bytes,
        .send = s->copies.send,
        .recv = s->copies.recv,
        .rows_to = s->rows,
        .rows_from = s->rows + s->copies.num_ranks,
    };
}

const struct ep_transport ep_transport_alltoallv = {
    .name = "alltoallv",
    .summary = "one row per (token, expert), MPI_Alltoallv with exact counts",
    .basis = EP_BASIS_COPIES,
    .sizes_most = true,
    .sizes_anew = true,
    .by_alltoall = true,
    .roundings = 1,
    .ops = EP_BLOCKS_OPS(run_exchange, run_combine_exchange),
    .start = start,
    .finish = finish,
    .create = create,
    .view = ep_copies_view,
    .sent_rows = ep_blocks_sent_rows,
    .extras = ep_blocks_extras,
    .destroy = ep_blocks_destroy,
};
