/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `alltoall`: one row per (token, expert) in equal, padded slots, one MPI_Alltoall. */
#include "bench/comm_mpi.h"
#include "bench/xfer_copies.h"

#include <inttypes.h>
#include <stdlib.h>

struct state {
    struct ep_copies copies; /* first: shared phases take the state for it */
    MPI_Datatype row, combine_row;
    int64_t slot_rows;     /* rows per (source, expert): the capacity, or the largest count */
    int64_t max_slot_rows; /* the buffers are for so many */
    int rows_per_rank;     /* most experts of a rank x slot_rows */
};

/* Every (source rank, expert) pair has slot_rows rows in the buffers, filled or not; a rank with fewer
 * experts than the fullest has empty slots too. All of it crosses: the copies basis plus padding. */
static enum ep_status find_slots(struct state *s)
{
    enum ep_status status = EP_OK;
    struct ep_copies *c = &s->copies;
    const struct ep_exchange *x = c->exchange;
    int64_t largest = 0;
    for (int64_t key = 0; key < c->num_keys; key++) {
        largest = c->send_count[key] > largest ? c->send_count[key] : largest;
    }
    EP_TRY(ep_comm_max_i64(x->comm, &largest, 1));
    if (x->capacity > 0 && largest > x->capacity) {
        return ep_error_set(EP_EINVAL, "alltoall: an expert gets %" PRId64 " rows of one rank, over "
                            "the capacity of %" PRId64 " (--capacity)", largest, x->capacity);
    }
    s->slot_rows = x->capacity > 0 ? x->capacity : largest;
    const int64_t per_rank = x->placement->max_local * s->slot_rows;
    const int64_t limits[2] = {per_rank, per_rank * c->num_ranks};
    int as_int[2];
    EP_TRY(ep_comm_to_int(limits, 2, "alltoall: padded rows", as_int));
    s->rows_per_rank = as_int[0];
    const int32_t *local_start = x->placement->local_start;
    for (int r = 0; r < c->num_ranks; r++) {
        const int64_t first = r * per_rank;
        for (int32_t key = local_start[r]; key < local_start[r + 1]; key++) {
            c->send_start[key] = first + (key - local_start[r]) * s->slot_rows;
        }
        for (int64_t e = 0; e < c->num_local; e++) {
            c->recv_start[r * c->num_local + e] = first + e * s->slot_rows;
        }
    }
out:
    return status;
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    enum ep_status status = ep_copies_count(&s->copies);
    if (status == EP_OK) {
        status = find_slots(s);
    }
    EP_ASSERT(status != EP_OK || s->slot_rows <= s->max_slot_rows);
    return status;
}

static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    return ep_comm_check(MPI_Alltoall(s->copies.send, s->rows_per_rank, s->row, s->copies.recv,
                                      s->rows_per_rank, s->row,
                                      ep_comm_handle(s->copies.exchange->comm)),
                         "MPI_Alltoall of rows");
}

static enum ep_status run_combine_exchange(void *state)
{
    struct state *s = state;
    return ep_comm_check(MPI_Alltoall(s->copies.recv, s->rows_per_rank, s->combine_row,
                                      s->copies.send, s->rows_per_rank, s->combine_row,
                                      ep_comm_handle(s->copies.exchange->comm)),
                         "MPI_Alltoall of results");
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
    ep_copies_fini(&s->copies);
    free(s);
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        status = ep_error_set(EP_ENOMEM, "alltoall: no memory");
    } else {
        s->row = s->combine_row = MPI_DATATYPE_NULL;
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    EP_TRY(ep_copies_init(exchange, &s->copies));
    status = find_slots(s);
    if (status == EP_OK) {
        const int64_t slots = exchange->placement->max_local * s->copies.num_ranks;
        const struct ep_copies_sizes sizes = {
            .send = slots * s->slot_rows,
            .most_send = slots * exchange->most_slot,
            .recv = slots * s->slot_rows,
            .most_recv = slots * exchange->most_slot,
        };
        s->max_slot_rows = s->slot_rows;
        status = ep_copies_allocate(&s->copies, "alltoall", &sizes);
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

static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    for (int r = 0; r < s->copies.num_ranks; r++) {
        rows[r] = s->rows_per_rank;
    }
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    const struct ep_copies *c = &s->copies;
    const int32_t *local_start = c->exchange->placement->local_start;
    int64_t to_others = 0;
    for (int r = 0; r < c->num_ranks; r++) {
        for (int32_t key = local_start[r]; r != c->rank && key < local_start[r + 1]; key++) {
            to_others += c->send_count[key];
        }
    }
    const int64_t crossing = (int64_t)s->rows_per_rank * (c->num_ranks - 1);
    *e = (struct ep_transport_extras){
        /* counts, and the largest of them, which a reduction finds */
        .metadata_bytes = ep_copies_metadata_bytes(c) +
                          (c->num_ranks > 1 ? (int64_t)sizeof(int64_t) : 0),
        .padding_bytes = (crossing - to_others) * c->exchange->row_bytes,
    };
}

const struct ep_transport ep_transport_alltoall = {
    .name = "alltoall",
    .summary = "one row per (token, expert), MPI_Alltoall with padded slots",
    .basis = EP_BASIS_COPIES,
    .pads = true,
    .has_slots = true,
    .by_alltoall = true,
    .sizes_most = true,
    .sizes_anew = true,
    .roundings = 1,
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
