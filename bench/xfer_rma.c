/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `rma`: MPI_Put of each rank's rows to their expert-major place on the owner, and of results to
 * their place in the source's buffer; nothing is unpacked on arrival. The copies basis. */
#include "bench/comm_mpi.h"
#include "bench/xfer_copies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state {
    struct ep_copies copies;  /* first: shared phases take the state for it */
    int64_t *place;           /* [num_keys] first row of this rank's block in the owner's `rows` */
    int64_t *own_place;       /* [num_ranks][num_local] of each source's block in `rows` here */
    int64_t *return_place;    /* [num_ranks][num_local] of the block in the source's `send` */
    int *to_count, *to_start; /* [num_ranks] each: numbers that go to an owner */
    int *from_count, *from_start; /* and that come from a source */
    MPI_Win windows[EP_NUM_OPS];  /* dispatch: `rows`; combine: `send` */
};

/* Where blocks go, told both ways: owners know the places in `rows`, sources those in `send`. */
static enum ep_status exchange_places(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_copies *c = &s->copies;
    MPI_Comm handle = ep_comm_handle(c->exchange->comm);
    for (int64_t e = 0; e < c->num_local; e++) {
        int64_t row = c->expert_start[e];
        for (int r = 0; r < c->num_ranks; r++) {
            s->own_place[r * c->num_local + e] = row;
            row += c->recv_count[r * c->num_local + e];
        }
    }
    int64_t sent = 0;
    for (int64_t key = 0; key < c->num_keys; key++) {
        c->send_start[key] = sent;
        sent += c->send_count[key];
    }
    EP_TRY(ep_comm_check(MPI_Alltoallv(s->own_place, s->from_count, s->from_start, MPI_INT64_T,
                                       s->place, s->to_count, s->to_start, MPI_INT64_T, handle),
                         "MPI_Alltoallv of places"));
    EP_TRY(ep_comm_check(MPI_Alltoallv(c->send_start, s->to_count, s->to_start, MPI_INT64_T,
                                       s->return_place, s->from_count, s->from_start, MPI_INT64_T,
                                       handle),
                         "MPI_Alltoallv of return places"));
out:
    return status;
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    const enum ep_status status = ep_copies_count(&s->copies);
    return status == EP_OK ? exchange_places(s) : status;
}

/* One block of rows; in pieces where it passes what MPI's int counts. */
static enum ep_status put(MPI_Win window, const char *from, int64_t size_bytes, int rank,
                          int64_t to_bytes)
{
    enum ep_status status = EP_OK;
    for (int64_t done = 0; done < size_bytes && status == EP_OK;) {
        const int64_t left = size_bytes - done;
        const int piece = (int)(left < ep_comm_count_limit() ? left : ep_comm_count_limit());
        status = ep_comm_check(MPI_Put(from + done, piece, MPI_BYTE, rank,
                                       (MPI_Aint)(to_bytes + done), piece, MPI_BYTE, window),
                               "MPI_Put of rows");
        done += piece;
    }
    return status;
}

/* The first fence waits until nobody reads the window's memory any more, the second until all is there. */
static enum ep_status fence(MPI_Win window, int assertion)
{
    if (window == MPI_WIN_NULL) { /* a single rank */
        return EP_OK;
    }
    return ep_comm_check(MPI_Win_fence(assertion, window), "MPI_Win_fence");
}

static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    enum ep_status status = EP_OK;
    const struct ep_copies *c = &s->copies;
    const int32_t *local_start = c->exchange->placement->local_start;
    const int64_t row_bytes = c->exchange->row_bytes;
    MPI_Win window = s->windows[EP_OP_DISPATCH];
    EP_TRY(fence(window, MPI_MODE_NOPRECEDE));
    for (int step = 0; step < c->num_ranks; step++) {
        const int rank = (c->rank + step) % c->num_ranks;
        for (int32_t key = local_start[rank]; key < local_start[rank + 1]; key++) {
            const char *from = c->send + c->send_start[key] * row_bytes;
            const int64_t size_bytes = c->send_count[key] * row_bytes;
            if (step == 0) {
                memcpy(c->rows + s->place[key] * row_bytes, from, (size_t)size_bytes);
            } else {
                EP_TRY(put(window, from, size_bytes, rank, s->place[key] * row_bytes));
            }
        }
    }
    EP_TRY(fence(window, MPI_MODE_NOSUCCEED));
out:
    return status;
}

static enum ep_status run_combine_exchange(void *state)
{
    struct state *s = state;
    enum ep_status status = EP_OK;
    const struct ep_copies *c = &s->copies;
    const int64_t row_bytes = c->exchange->combine_row_bytes;
    MPI_Win window = s->windows[EP_OP_COMBINE];
    EP_TRY(fence(window, MPI_MODE_NOPRECEDE));
    for (int step = 0; step < c->num_ranks; step++) {
        const int rank = (c->rank + step) % c->num_ranks;
        for (int64_t e = 0; e < c->num_local; e++) {
            const int64_t block = rank * c->num_local + e;
            const char *from = c->outputs + s->own_place[block] * row_bytes;
            const int64_t size_bytes = c->recv_count[block] * row_bytes;
            if (step == 0) {
                memcpy(c->send + s->return_place[block] * row_bytes, from, (size_t)size_bytes);
            } else {
                EP_TRY(put(window, from, size_bytes, rank, s->return_place[block] * row_bytes));
            }
        }
    }
    EP_TRY(fence(window, MPI_MODE_NOSUCCEED));
out:
    return status;
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (s->windows[op] != MPI_WIN_NULL) {
            MPI_Win_free(&s->windows[op]);
        }
    }
    free(s->place);
    free(s->own_place);
    free(s->to_count);
    ep_copies_fini(&s->copies);
    free(s);
}

static enum ep_status allocate_places(struct state *s)
{
    const struct ep_copies *c = &s->copies;
    const int32_t *local_start = c->exchange->placement->local_start;
    const size_t ranks = (size_t)c->num_ranks;
    const size_t blocks = ranks * (size_t)c->num_local;
    s->place = calloc((size_t)c->num_keys + 1, sizeof *s->place);
    s->own_place = calloc(2 * blocks + 1, sizeof *s->own_place);
    s->to_count = calloc(4 * ranks, sizeof *s->to_count);
    if (s->place == NULL || s->own_place == NULL || s->to_count == NULL) {
        return ep_error_set(EP_ENOMEM, "rma: no memory for places of %zu blocks", blocks);
    }
    s->return_place = s->own_place + blocks;
    s->to_start = s->to_count + ranks;
    s->from_count = s->to_count + 2 * ranks;
    s->from_start = s->to_count + 3 * ranks;
    for (int r = 0; r < c->num_ranks; r++) {
        s->to_count[r] = local_start[r + 1] - local_start[r];
        s->to_start[r] = local_start[r];
        s->from_count[r] = (int)c->num_local;
        s->from_start[r] = r * (int)c->num_local;
    }
    return EP_OK;
}

static enum ep_status create_window(const struct ep_copies *c, char *memory, int64_t num_rows,
                                    int64_t row_bytes, MPI_Win *window)
{
    if (c->num_ranks == 1) {
        return EP_OK; /* all rows are its own; some libraries refuse a window for one */
    }
    enum ep_status status =
        ep_comm_check(MPI_Win_create(memory, (MPI_Aint)(num_rows * row_bytes), 1, MPI_INFO_NULL,
                                     ep_comm_handle(c->exchange->comm), window),
                      "MPI_Win_create");
    if (status != EP_OK) {
        char reason[256];
        snprintf(reason, sizeof reason, "%s", ep_error_text());
        ep_error_clear();
        status = ep_error_set(EP_EENV, "rma: this MPI library makes no window here: %s", reason);
    }
    return status;
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct ep_copies *c = NULL;
    struct state *s = calloc(1, sizeof *s);
    status = s != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "rma: no memory");
    EP_TRY(ep_comm_agree(exchange->comm, status));
    s->windows[EP_OP_DISPATCH] = s->windows[EP_OP_COMBINE] = MPI_WIN_NULL;
    c = &s->copies;
    EP_TRY(ep_copies_init(exchange, c));
    EP_TRY(ep_comm_agree(exchange->comm, allocate_places(s)));
    EP_TRY(ep_comm_agree(exchange->comm, exchange_places(s)));
    const struct ep_copies_sizes sizes = {.send = ep_copies_num_sent(c),
                                          .most_send = exchange->most_sent};
    status = ep_copies_allocate(c, "rma", &sizes);
    EP_TRY(ep_comm_agree(exchange->comm, status));
    EP_TRY(create_window(c, c->rows, ep_copies_num_received(c), exchange->row_bytes,
                         &s->windows[EP_OP_DISPATCH]));
    EP_TRY(create_window(c, c->send, ep_copies_num_sent(c), exchange->combine_row_bytes,
                         &s->windows[EP_OP_COMBINE]));
    *state = s;
    s = NULL;
out:
    destroy(s);
    return status;
}

static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    ep_copies_send_rows(&s->copies, rows);
}

/* Counts, and two places for each block. */
static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    const struct ep_copies *c = &s->copies;
    const int64_t to_owners = c->num_keys - c->num_local;
    const int64_t to_sources = (c->num_ranks - 1) * c->num_local;
    *e = (struct ep_transport_extras){
        .metadata_bytes = ep_copies_metadata_bytes(c) +
                          (to_owners + to_sources) * (int64_t)sizeof *s->place,
        .padding_bytes = 0,
    };
}

const struct ep_transport ep_transport_rma = {
    .name = "rma",
    .summary = "one row per (token, expert), MPI_Put to its expert-major place",
    .basis = EP_BASIS_COPIES,
    .sizes_most = true,
    .roundings = 1,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"pack", ep_copies_run_pack, ep_copies_pack_bytes},
                                       {"exchange", run_exchange, NULL}},
                            .num_phases = 3},
        [EP_OP_COMBINE] = {.phases = {{"exchange", run_combine_exchange, NULL},
                                      {"unpack", ep_copies_run_combine_unpack,
                                       ep_copies_combine_unpack_bytes}},
                           .num_phases = 2},
    },
    .create = create,
    .view = ep_copies_view,
    .sent_rows = sent_rows,
    .extras = extras,
    .destroy = destroy,
};
