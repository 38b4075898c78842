/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `alltoallv`: one row per (token, expert), exact counts, one MPI_Alltoallv. */
#include "bench/xfer_alltoallv.h"

#include "bench/comm_mpi.h"
#include "bench/xfer_copies.h"

#include <stdlib.h>

struct state {
    struct ep_copies copies; /* first: shared phases take the state for it */
    MPI_Datatype row, combine_row; /* a row is one element, so that counts are rows */
    int64_t *rows;                 /* [2][num_ranks] sent to, received from each rank */
    int *send_count, *send_start, *recv_count, *recv_start; /* [num_ranks] each, in rows */
};

/* What is sent: rows_to[r] rows of row_bytes to every rank r, self included; the copies basis. Bytes
 * are counted from the same routing by kernels/traffic.c, remote pairs only. */
static enum ep_status find_rows(struct state *s)
{
    enum ep_status status = EP_OK;
    struct ep_copies *c = &s->copies;
    int64_t *rows_to = s->rows;
    int64_t *rows_from = s->rows + c->num_ranks;
    ep_copies_send_rows(c, rows_to);
    ep_copies_recv_rows(c, rows_from);
    EP_TRY(ep_comm_to_int(rows_to, c->num_ranks, "alltoallv: rows to one rank", s->send_count));
    EP_TRY(ep_comm_to_int(rows_from, c->num_ranks, "alltoallv: rows from one rank",
                          s->recv_count));
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
    const int64_t most[2] = {sent, received};
    int ignored[2];
    EP_TRY(ep_comm_to_int(most, 2, "alltoallv: rows of one rank", ignored));
    s->send_start[0] = s->recv_start[0] = 0;
    for (int r = 1; r < c->num_ranks; r++) {
        s->send_start[r] = s->send_start[r - 1] + s->send_count[r - 1];
        s->recv_start[r] = s->recv_start[r - 1] + s->recv_count[r - 1];
    }
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
    struct state *s = state;
    return ep_comm_check(MPI_Alltoallv(s->copies.send, s->send_count, s->send_start, s->row,
                                       s->copies.recv, s->recv_count, s->recv_start, s->row,
                                       ep_comm_handle(s->copies.exchange->comm)),
                         "MPI_Alltoallv of rows");
}

/* The transpose: what came in goes back, into the places of the send buffer. */
static enum ep_status run_combine_exchange(void *state)
{
    struct state *s = state;
    return ep_comm_check(MPI_Alltoallv(s->copies.recv, s->recv_count, s->recv_start,
                                       s->combine_row, s->copies.send, s->send_count,
                                       s->send_start, s->combine_row,
                                       ep_comm_handle(s->copies.exchange->comm)),
                         "MPI_Alltoallv of results");
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    if (s->row != MPI_DATATYPE_NULL) {
        MPI_Type_free(&s->row);
    }
    if (s->combine_row != MPI_DATATYPE_NULL) {
        MPI_Type_free(&s->combine_row);
    }
    free(s->send_count);
    free(s->rows);
    ep_copies_fini(&s->copies);
    free(s);
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    const size_t num_ranks = (size_t)ep_comm_size(exchange->comm);
    struct state *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->row = s->combine_row = MPI_DATATYPE_NULL;
        s->rows = calloc(2 * num_ranks, sizeof *s->rows);
        s->send_count = calloc(4 * num_ranks, sizeof *s->send_count);
    }
    if (s == NULL || s->rows == NULL || s->send_count == NULL) {
        status = ep_error_set(EP_ENOMEM, "alltoallv: no memory for %zu ranks", num_ranks);
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    s->send_start = s->send_count + num_ranks;
    s->recv_count = s->send_start + num_ranks;
    s->recv_start = s->recv_count + num_ranks;
    EP_TRY(ep_copies_init(exchange, &s->copies));
    status = find_rows(s);
    if (status == EP_OK) {
        status = ep_copies_allocate(&s->copies, "alltoallv", ep_copies_num_sent(&s->copies),
                                    ep_copies_num_received(&s->copies));
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    EP_TRY(ep_comm_type_of_row(exchange->row_bytes, &s->row));
    EP_TRY(ep_comm_type_of_row(exchange->combine_row_bytes, &s->combine_row));
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
        .send_count = s->send_count,
        .send_start = s->send_start,
        .recv_count = s->recv_count,
        .recv_start = s->recv_start,
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
