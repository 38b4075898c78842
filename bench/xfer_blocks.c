/* SPDX-License-Identifier: Apache-2.0 */
/* Copies basis with exact counts: one block of rows for each rank. */
#include "bench/xfer_blocks.h"

#include <stdio.h>
#include <stdlib.h>

/* A library's path for derived types costs tens of ns a call: bytes wherever they fit. */
static enum ep_status fill_call(const struct ep_blocks *s, int64_t row_bytes, struct ep_blocks_call *call)
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
    const bool in_bytes = most <= ep_comm_count_limit() / row_bytes;
    const int64_t units = in_bytes ? row_bytes : 1;
    const int64_t scaled[1] = {most * units};
    int ignored = 0;
    char what[64];
    snprintf(what, sizeof what, "%s: %s of one rank", s->name, in_bytes ? "bytes" : "rows");
    EP_TRY(ep_comm_to_int(scaled, 1, what, &ignored));
    if (!in_bytes && call->row == MPI_DATATYPE_NULL) {
        EP_TRY(ep_comm_type_of_row(row_bytes, &call->row));
    }
    call->type = in_bytes ? MPI_BYTE : call->row;
    call->unit_bytes = in_bytes ? 1 : row_bytes;
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
static enum ep_status find_rows(struct ep_blocks *s)
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

enum ep_status ep_blocks_run_counts(void *state)
{
    struct ep_blocks *s = state;
    const enum ep_status status = ep_copies_count(&s->copies);
    return status == EP_OK ? find_rows(s) : status;
}

void ep_blocks_destroy(void *state)
{
    struct ep_blocks *s = state;
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

static enum ep_status allocate(size_t num_ranks, struct ep_blocks **state)
{
    struct ep_blocks *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a transport");
    }
    bool all = (s->rows = calloc(2 * num_ranks, sizeof *s->rows)) != NULL;
    for (int op = 0; op < EP_NUM_OPS; op++) {
        struct ep_blocks_call *c = &s->calls[op];
        c->type = c->row = MPI_DATATYPE_NULL;
        s->requests[op] = MPI_REQUEST_NULL;
        c->send_count = calloc(4 * num_ranks, sizeof *c->send_count);
        all = all && c->send_count != NULL;
        c->send_start = c->send_count + num_ranks;
        c->recv_count = c->send_count + 2 * num_ranks;
        c->recv_start = c->send_count + 3 * num_ranks;
    }
    return all ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a transport to %zu ranks", num_ranks);
}

enum ep_status ep_blocks_create(const char *name, const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct ep_blocks *s = NULL;
    EP_TRY(ep_comm_agree(exchange->comm, allocate((size_t)ep_comm_size(exchange->comm), &s)));
    s->handle = ep_comm_handle(exchange->comm);
    s->name = name;
    EP_TRY(ep_copies_init(exchange, &s->copies));
    status = find_rows(s);
    if (status == EP_OK) {
        const struct ep_copies_sizes sizes = {
            .send = ep_copies_num_sent(&s->copies),
            .most_send = exchange->most_sent,
            .recv = ep_copies_num_received(&s->copies),
            .most_recv = exchange->most_received,
        };
        status = ep_copies_allocate(&s->copies, name, &sizes);
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    *state = s;
    s = NULL;
out:
    ep_blocks_destroy(s);
    return status;
}

void ep_blocks_sent_rows(const void *state, int64_t *rows)
{
    const struct ep_blocks *s = state;
    ep_copies_send_rows(&s->copies, rows);
}

void ep_blocks_extras(const void *state, struct ep_transport_extras *extras)
{
    const struct ep_blocks *s = state;
    *extras = (struct ep_transport_extras){
        .metadata_bytes = ep_copies_metadata_bytes(&s->copies),
        .padding_bytes = 0,
    };
}
