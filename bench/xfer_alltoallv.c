/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `alltoallv`: one row per (token, expert), exact counts, one MPI_Alltoallv. */
#include "bench/xfer_alltoallv.h"

#include "bench/comm_mpi.h"
#include "bench/xfer_copies.h"

#include <limits.h>
#include <stdlib.h>

/* MPI's arguments for one row type: all counts and starts are in units of `type`. */
struct call {
    MPI_Datatype type; /* MPI_BYTE; one whole row where bytes would not fit MPI's int */
    MPI_Datatype row;  /* committed; MPI_DATATYPE_NULL if not needed */
    int *send_count, *send_start, *recv_count, *recv_start; /* [num_ranks] each */
};

struct state {
    struct ep_copies copies; /* first: shared phases take the state for it */
    struct call calls[EP_NUM_OPS];
    MPI_Comm handle;
    int64_t *rows; /* [2][num_ranks] sent to, received from each rank in a dispatch */
};

/* A library's path for derived types costs tens of ns a call: bytes wherever they fit. */
static enum ep_status fill_call(const struct state *s, int64_t row_bytes, struct call *call)
{
    enum ep_status status = EP_OK;
    const int num_ranks = s->copies.num_ranks;
    const int64_t *rows_to = s->rows;
    const int64_t *rows_from = s->rows + num_ranks;
    int64_t sent = 0;
    int64_t received = 0;
    for (int r = 0; r < num_ranks; r++) {
        sent += rows_to[r];
        received += rows_from[r];
    }
    const int64_t most = sent > received ? sent : received;
    const bool in_bytes = most <= INT_MAX / row_bytes;
    const int64_t units = in_bytes ? row_bytes : 1;
    const int64_t scaled[1] = {most * units};
    int ignored = 0;
    EP_TRY(ep_comm_to_int(scaled, 1, "alltoallv: rows of one rank", &ignored));
    if (!in_bytes && call->row == MPI_DATATYPE_NULL) {
        EP_TRY(ep_comm_type_of_row(row_bytes, &call->row));
    }
    call->type = in_bytes ? MPI_BYTE : call->row;
    int send_start = 0;
    int recv_start = 0;
    for (int r = 0; r < num_ranks; r++) {
        call->send_count[r] = (int)(rows_to[r] * units);
        call->recv_count[r] = (int)(rows_from[r] * units);
        call->send_start[r] = send_start;
        call->recv_start[r] = recv_start;
        send_start += call->send_count[r];
        recv_start += call->recv_count[r];
    }
out:
    return status;
}

/* What is sent: rows[r] rows of row_bytes to every rank r, self included; the copies basis. Bytes are
 * counted from the same routing by kernels/traffic.c, remote pairs only. */
static enum ep_status find_rows(struct state *s)
{
    enum ep_status status = EP_OK;
    struct ep_copies *c = &s->copies;
    ep_copies_send_rows(c, s->rows);
    ep_copies_recv_rows(c, s->rows + c->num_ranks);
    int64_t sent = 0;
    for (int64_t key = 0; key < c->num_keys; key++) {
        c->send_start[key] = sent;
        sent += c->send_count[key];
    }
    int64_t received = 0;
    for (int64_t block = 0; block < c->num_ranks * c->num_local; block++) {
        c->recv_start[block] = received;
        received += c->recv_count[block];
    }
    EP_TRY(fill_call(s, c->exchange->row_bytes, &s->calls[EP_OP_DISPATCH]));
    EP_TRY(fill_call(s, c->exchange->combine_row_bytes, &s->calls[EP_OP_COMBINE]));
out:
    return status;
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    const enum ep_status status = ep_copies_count(&s->copies);
    return status == EP_OK ? find_rows(s) : status;
}

static enum ep_status run_exchange(void *state)
{
    const struct state *s = state;
    const struct call *c = &s->calls[EP_OP_DISPATCH];
    return ep_comm_check(MPI_Alltoallv(s->copies.send, c->send_count, c->send_start, c->type,
                                       s->copies.recv, c->recv_count, c->recv_start, c->type,
                                       s->handle),
                         "MPI_Alltoallv of rows");
}

/* The transpose: what came in goes back, into the places of the send buffer. */
static enum ep_status run_combine_exchange(void *state)
{
    const struct state *s = state;
    const struct call *c = &s->calls[EP_OP_COMBINE];
    return ep_comm_check(MPI_Alltoallv(s->copies.recv, c->recv_count, c->recv_start, c->type,
                                       s->copies.send, c->send_count, c->send_start, c->type,
                                       s->handle),
                         "MPI_Alltoallv of results");
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (s->calls[op].row != MPI_DATATYPE_NULL) {
            MPI_Type_free(&s->calls[op].row);
        }
        free(s->calls[op].send_count);
    }
    free(s->rows);
    ep_copies_fini(&s->copies);
    free(s);
}

static enum ep_status allocate(size_t num_ranks, struct state **state)
{
    struct state *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "alltoallv: no memory");
    }
    bool all = (s->rows = calloc(2 * num_ranks, sizeof *s->rows)) != NULL;
    for (int op = 0; op < EP_NUM_OPS; op++) {
        struct call *c = &s->calls[op];
        c->type = c->row = MPI_DATATYPE_NULL;
        c->send_count = calloc(4 * num_ranks, sizeof *c->send_count);
        all = all && c->send_count != NULL;
        c->send_start = c->send_count + num_ranks;
        c->recv_count = c->send_count + 2 * num_ranks;
        c->recv_start = c->send_count + 3 * num_ranks;
    }
    return all ? EP_OK : ep_error_set(EP_ENOMEM, "alltoallv: no memory for %zu ranks", num_ranks);
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = NULL;
    EP_TRY(ep_comm_agree(exchange->comm, allocate((size_t)ep_comm_size(exchange->comm), &s)));
    s->handle = ep_comm_handle(exchange->comm);
    EP_TRY(ep_copies_init(exchange, &s->copies));
    status = find_rows(s);
    if (status == EP_OK) {
        status = ep_copies_allocate(&s->copies, "alltoallv", ep_copies_num_sent(&s->copies),
                                    ep_copies_num_received(&s->copies));
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    *state = s;
    s = NULL;
out:
    destroy(s);
    return status;
}

void ep_alltoallv_get_arguments(const void *state, struct ep_alltoallv_arguments *arguments)
{
    const struct state *s = state;
    *arguments = (struct ep_alltoallv_arguments){
        .comm = s->copies.exchange->comm,
        .row_bytes = s->copies.exchange->row_bytes,
        .send = s->copies.send,
        .recv = s->copies.recv,
        .rows_to = s->rows,
        .rows_from = s->rows + s->copies.num_ranks,
    };
}

static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    ep_copies_send_rows(&s->copies, rows);
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    *e = (struct ep_transport_extras){
        .metadata_bytes = ep_copies_metadata_bytes(&s->copies),
        .padding_bytes = 0,
    };
}

const struct ep_transport ep_transport_alltoallv = {
    .name = "alltoallv",
    .summary = "one row per (token, expert), MPI_Alltoallv with exact counts",
    .basis = EP_BASIS_COPIES,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"pack", ep_copies_run_pack, ep_copies_pack_bytes},
                                       {"exchange", run_exchange, NULL},
                                       {"unpack", ep_copies_run_unpack, ep_copies_unpack_bytes}},
                            .num_phases = 4},
        [EP_OP_COMBINE] = {.phases = {{"pack", ep_copies_run_combine_pack,
                                       ep_copies_combine_pack_bytes},
                                      {"exchange", run_combine_exchange, NULL},
                                      {"unpack", ep_copies_run_combine_unpack,
                                       ep_copies_combine_unpack_bytes}},
                           .num_phases = 3},
    },
    .create = create,
    .view = ep_copies_view,
    .sent_rows = sent_rows,
    .extras = extras,
    .destroy = destroy,
};
