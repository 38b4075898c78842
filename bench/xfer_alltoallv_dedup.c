/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `alltoallv-dedup`: one row per (token, destination rank), fanned out to that rank's
 * experts on arrival; combine sums them there and returns one row per (token, rank). */
#include "bench/comm_mpi.h"
#include "bench/transport.h"
#include "kernels/combine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Sent beside the rows: which expert each copy is for. Sorted by row within a source. */
struct copy_entry {
    int32_t row;          /* index among the rows of this (source, destination) pair */
    int32_t local_expert; /* on the destination */
    float weight;
};

/* Counts, starts and entries of one direction, all [num_ranks], in rows or entries. */
struct side {
    int *row_count, *row_start, *entry_count, *entry_start;
    int64_t num_rows, num_entries;
    struct copy_entry *entries;
    char *buffer; /* rows, rank by rank */
};

struct state {
    const struct ep_exchange *exchange;
    int rank, num_ranks;
    int64_t num_local;
    struct side out, in;
    int *pair_counts;      /* [2][num_ranks][2] (rows, entries) sent, received */
    int64_t *last_token;   /* [num_ranks] last token put into a rank's rows */
    int32_t *row_of;       /* [local tokens][top_k] row in out.buffer of each distinct rank, or -1 */
    int64_t *expert_start; /* [num_local + 1] */
    int64_t *next;         /* [num_local] fill marks */
    int64_t *row_entry;    /* [in.num_rows + 1] first entry of each received row */
    int64_t *expert_row;   /* [in.num_entries] place of each entry's copy in `rows` */
    char *rows, *outputs;  /* expert-major */
    MPI_Datatype row, combine_row, entry;
};

static void find_starts(const int *counts, int num, int *starts)
{
    for (int r = 0, sum = 0; r < num; r++) {
        starts[r] = sum;
        sum += counts[r];
    }
}

/* What is sent to rank r: each of my tokens with an expert there, once; the rank-dedup basis. */
static void count_rows(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
    memset(s->out.row_count, 0, (size_t)s->num_ranks * sizeof *s->out.row_count);
    memset(s->out.entry_count, 0, (size_t)s->num_ranks * sizeof *s->out.entry_count);
    for (int r = 0; r < s->num_ranks; r++) {
        s->last_token[r] = -1;
    }
    for (int64_t i = 0; i < x->routing->num_tokens * top_k; i++) {
        const int32_t expert = x->routing->topk_idx[i];
        if (expert < 0) {
            continue;
        }
        const int32_t rank = ep_placement_rank(x->placement, expert, s->rank);
        s->out.entry_count[rank]++;
        if (s->last_token[rank] != i / top_k) {
            s->last_token[rank] = i / top_k;
            s->out.row_count[rank]++;
        }
    }
}

static enum ep_status exchange_counts(struct state *s)
{
    enum ep_status status = EP_OK;
    int *sent = s->pair_counts;
    int *received = s->pair_counts + 2 * s->num_ranks;
    for (int r = 0; r < s->num_ranks; r++) {
        sent[2 * r] = s->out.row_count[r];
        sent[2 * r + 1] = s->out.entry_count[r];
    }
    EP_TRY(ep_comm_check(MPI_Alltoall(sent, 2, MPI_INT, received, 2, MPI_INT,
                                      ep_comm_handle(s->exchange->comm)),
                         "MPI_Alltoall of counts"));
    int64_t totals[4] = {0};
    for (int r = 0; r < s->num_ranks; r++) {
        s->in.row_count[r] = received[2 * r];
        s->in.entry_count[r] = received[2 * r + 1];
        totals[0] += s->out.row_count[r];
        totals[1] += s->out.entry_count[r];
        totals[2] += s->in.row_count[r];
        totals[3] += s->in.entry_count[r];
    }
    int as_int[4];
    EP_TRY(ep_comm_to_int(totals, 4, "alltoallv-dedup: rows of one rank", as_int));
    s->out.num_rows = totals[0];
    s->out.num_entries = totals[1];
    s->in.num_rows = totals[2];
    s->in.num_entries = totals[3];
    find_starts(s->out.row_count, s->num_ranks, s->out.row_start);
    find_starts(s->out.entry_count, s->num_ranks, s->out.entry_start);
    find_starts(s->in.row_count, s->num_ranks, s->in.row_start);
    find_starts(s->in.entry_count, s->num_ranks, s->in.entry_start);
out:
    return status;
}

static void fill_entries(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    const struct ep_routing *routing = x->routing;
    int *next_row = s->pair_counts;                   /* [num_ranks], free for use here */
    int *next_entry = s->pair_counts + s->num_ranks;
    for (int r = 0; r < s->num_ranks; r++) {
        s->last_token[r] = -1;
        next_row[r] = 0;
        next_entry[r] = s->out.entry_start[r];
    }
    int64_t i = 0;
    for (int64_t t = 0; t < routing->num_tokens; t++) {
        for (int64_t j = 0; j < routing->top_k; j++, i++) {
            s->row_of[i] = -1;
            const int32_t expert = routing->topk_idx[i];
            if (expert < 0) {
                continue;
            }
            const int64_t slot = ep_placement_slot(x->placement, expert, s->rank);
            const int32_t rank = x->placement->slot_rank[slot];
            if (s->last_token[rank] != t) {
                s->last_token[rank] = t;
                s->row_of[i] = s->out.row_start[rank] + next_row[rank]++;
            }
            s->out.entries[next_entry[rank]++] = (struct copy_entry){
                .row = next_row[rank] - 1,
                .local_expert = x->placement->slot_local[slot],
                .weight = routing->topk_weight[i],
            };
        }
    }
}

/* Expert-major places of all received copies, in (source, token) order within an expert. */
static void place_entries(struct state *s)
{
    memset(s->expert_start, 0, (size_t)(s->num_local + 1) * sizeof *s->expert_start);
    for (int64_t i = 0; i < s->in.num_entries; i++) {
        s->expert_start[s->in.entries[i].local_expert + 1]++;
    }
    for (int64_t e = 0; e < s->num_local; e++) {
        s->expert_start[e + 1] += s->expert_start[e];
        s->next[e] = s->expert_start[e];
    }
    int64_t row = 0;
    for (int r = 0; r < s->num_ranks; r++) { /* every row has an entry at least */
        const int64_t end = s->in.entry_start[r] + s->in.entry_count[r];
        for (int64_t i = s->in.entry_start[r]; i < end; i++) {
            if (i == s->in.entry_start[r] || s->in.entries[i].row != s->in.entries[i - 1].row) {
                s->row_entry[row++] = i;
            }
        }
    }
    EP_ASSERT(row == s->in.num_rows);
    s->row_entry[row] = s->in.num_entries;
    for (int64_t i = 0; i < s->in.num_entries; i++) {
        s->expert_row[i] = s->next[s->in.entries[i].local_expert]++;
    }
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    enum ep_status status = EP_OK;
    count_rows(s);
    EP_TRY(exchange_counts(s));
    fill_entries(s);
    EP_TRY(ep_comm_check(MPI_Alltoallv(s->out.entries, s->out.entry_count, s->out.entry_start,
                                       s->entry, s->in.entries, s->in.entry_count,
                                       s->in.entry_start, s->entry,
                                       ep_comm_handle(s->exchange->comm)),
                         "MPI_Alltoallv of entries"));
    place_entries(s);
out:
    return status;
}

static enum ep_status run_pack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t t = 0; t < x->routing->num_tokens; t++) {
        for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
            if (s->row_of[i] >= 0) {
                memcpy(s->out.buffer + s->row_of[i] * x->row_bytes, x->tokens + t * x->row_bytes,
                       (size_t)x->row_bytes);
            }
        }
    }
    return EP_OK;
}

static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    return ep_comm_check(MPI_Alltoallv(s->out.buffer, s->out.row_count, s->out.row_start, s->row,
                                       s->in.buffer, s->in.row_count, s->in.row_start, s->row,
                                       ep_comm_handle(s->exchange->comm)),
                         "MPI_Alltoallv of rows");
}

static enum ep_status run_unpack(void *state)
{
    struct state *s = state;
    const int64_t row_bytes = s->exchange->row_bytes;
    const int threads = s->exchange->threads;
    for (int r = 0; r < s->num_ranks; r++) {
        const char *source = s->in.buffer + s->in.row_start[r] * row_bytes;
        const int64_t end = s->in.entry_start[r] + s->in.entry_count[r];
#pragma omp parallel for num_threads(threads) if (threads > 1)
        for (int64_t i = s->in.entry_start[r]; i < end; i++) {
            memcpy(s->rows + s->expert_row[i] * row_bytes,
                   source + s->in.entries[i].row * row_bytes, (size_t)row_bytes);
        }
    }
    return EP_OK;
}

/* The owning rank's part of the sum: all copies of one received row, with their weights. */
static enum ep_status run_combine_pack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t row = 0; row < s->in.num_rows; row++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        float weights[EP_TRANSPORT_MAX_TOP_K];
        int64_t num = 0;
        for (int64_t i = s->row_entry[row]; i < s->row_entry[row + 1]; i++) {
            terms[num] = s->outputs + s->expert_row[i] * x->combine_row_bytes;
            weights[num++] = s->in.entries[i].weight;
        }
        ep_combine_row(x->combine_dtype, x->hidden, num, terms, weights,
                       s->in.buffer + row * x->combine_row_bytes);
    }
    return EP_OK;
}

static enum ep_status run_combine_exchange(void *state)
{
    struct state *s = state;
    return ep_comm_check(MPI_Alltoallv(s->in.buffer, s->in.row_count, s->in.row_start,
                                       s->combine_row, s->out.buffer, s->out.row_count,
                                       s->out.row_start, s->combine_row,
                                       ep_comm_handle(s->exchange->comm)),
                         "MPI_Alltoallv of results");
}

static enum ep_status run_combine_unpack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t t = 0; t < x->routing->num_tokens; t++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        float ones[EP_TRANSPORT_MAX_TOP_K];
        int64_t num = 0;
        for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
            if (s->row_of[i] >= 0) {
                terms[num] = s->out.buffer + s->row_of[i] * x->combine_row_bytes;
                ones[num++] = 1;
            }
        }
        ep_combine_row(x->combine_dtype, x->hidden, num, terms, ones,
                       x->results + t * x->combine_row_bytes);
    }
    return EP_OK;
}

static int64_t pack_bytes(const void *state)
{
    const struct state *s = state;
    return 2 * s->out.num_rows * s->exchange->row_bytes;
}

static int64_t unpack_bytes(const void *state)
{
    const struct state *s = state;
    return 2 * s->in.num_entries * s->exchange->row_bytes;
}

static int64_t combine_pack_bytes(const void *state)
{
    const struct state *s = state;
    return (s->in.num_entries + s->in.num_rows) * s->exchange->combine_row_bytes;
}

static int64_t combine_unpack_bytes(const void *state)
{
    const struct state *s = state;
    const int64_t num_rows = s->out.num_rows + s->exchange->routing->num_tokens;
    return num_rows * s->exchange->combine_row_bytes;
}

static void free_type(MPI_Datatype *type)
{
    if (*type != MPI_DATATYPE_NULL) {
        MPI_Type_free(type);
    }
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    free_type(&s->row);
    free_type(&s->combine_row);
    free_type(&s->entry);
    free(s->out.row_count);
    free(s->pair_counts);
    free(s->last_token);
    free(s->row_of);
    free(s->expert_start);
    free(s->next);
    free(s->row_entry);
    free(s->expert_row);
    free(s->out.entries);
    free(s->in.entries);
    free(s);
}

static enum ep_status allocate_tables(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    const size_t ranks = (size_t)s->num_ranks;
    const size_t slots = (size_t)(x->routing->num_tokens * x->routing->top_k) + 1;
    int *ints = calloc(8 * ranks, sizeof *ints);
    s->out.row_count = ints;
    s->pair_counts = calloc(4 * ranks, sizeof *s->pair_counts);
    s->last_token = calloc(ranks, sizeof *s->last_token);
    s->row_of = calloc(slots, sizeof *s->row_of);
    s->expert_start = calloc((size_t)s->num_local + 1, sizeof *s->expert_start);
    s->next = calloc((size_t)s->num_local + 1, sizeof *s->next);
    s->out.entries = calloc(slots, sizeof *s->out.entries);
    if (ints == NULL || s->pair_counts == NULL || s->last_token == NULL || s->row_of == NULL ||
        s->expert_start == NULL || s->next == NULL || s->out.entries == NULL) {
        return ep_error_set(EP_ENOMEM, "alltoallv-dedup: no memory for %zu copies", slots);
    }
    int **parts[8] = {&s->out.row_count, &s->out.row_start,  &s->out.entry_count,
                      &s->out.entry_start, &s->in.row_count, &s->in.row_start,
                      &s->in.entry_count, &s->in.entry_start};
    for (size_t i = 0; i < 8; i++) {
        *parts[i] = ints + i * ranks;
    }
    return EP_OK;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static enum ep_status allocate_received(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const int64_t widest =
        x->row_bytes > x->combine_row_bytes ? x->row_bytes : x->combine_row_bytes;
    const struct {
        int64_t rows, most_rows, row_bytes;
        char **where;
    } buffers[] = {
        {s->out.num_rows, smaller(x->most_sent, x->routing->num_tokens * s->num_ranks), widest,
         &s->out.buffer},
        {s->in.num_rows, smaller(x->most_received, x->all_tokens), widest, &s->in.buffer},
        {s->in.num_entries, x->most_received, x->row_bytes, &s->rows},
        {s->in.num_entries, x->most_received, x->combine_row_bytes, &s->outputs},
    };
    s->in.entries = calloc((size_t)s->in.num_entries + 1, sizeof *s->in.entries);
    s->expert_row = calloc((size_t)s->in.num_entries + 1, sizeof *s->expert_row);
    s->row_entry = calloc((size_t)s->in.num_rows + 1, sizeof *s->row_entry);
    if (s->in.entries == NULL || s->expert_row == NULL || s->row_entry == NULL) {
        return ep_error_set(EP_ENOMEM, "alltoallv-dedup: no memory for %" PRId64 " copies",
                            s->in.num_entries);
    }
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        void *memory = NULL;
        EP_TRY(ep_arena_alloc_rows(x->arena, buffers[i].rows, buffers[i].most_rows,
                                   buffers[i].row_bytes, "alltoallv-dedup", &memory));
        *buffers[i].where = memory;
    }
out:
    return status;
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        status = ep_error_set(EP_ENOMEM, "alltoallv-dedup: no memory");
    } else {
        const int32_t *experts = NULL;
        s->row = s->combine_row = s->entry = MPI_DATATYPE_NULL;
        s->exchange = exchange;
        s->rank = ep_comm_rank(exchange->comm);
        s->num_ranks = ep_comm_size(exchange->comm);
        s->num_local = ep_placement_local_experts(exchange->placement, s->rank, &experts);
        status = allocate_tables(s);
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    EP_TRY(ep_comm_type_of_row((int64_t)sizeof(struct copy_entry), &s->entry));
    EP_TRY(ep_comm_type_of_row(exchange->row_bytes, &s->row));
    EP_TRY(ep_comm_type_of_row(exchange->combine_row_bytes, &s->combine_row));
    count_rows(s);
    status = exchange_counts(s);
    if (status == EP_OK) {
        status = allocate_received(s);
    }
    EP_TRY(ep_comm_agree(exchange->comm, status));
    *state = s;
    s = NULL;
out:
    destroy(s);
    return status;
}

static void view(const void *state, struct ep_expert_rows *rows)
{
    const struct state *s = state;
    *rows = (struct ep_expert_rows){
        .num_experts = s->num_local,
        .start = s->expert_start,
        .rows = s->rows,
        .outputs = s->outputs,
    };
}

static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    for (int r = 0; r < s->num_ranks; r++) {
        rows[r] = s->out.row_count[r];
    }
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    const int64_t counts = (s->num_ranks - 1) * 2 * (int64_t)sizeof(int);
    const int64_t entries = s->out.num_entries - s->out.entry_count[s->rank];
    *e = (struct ep_transport_extras){
        .metadata_bytes = counts + entries * (int64_t)sizeof(struct copy_entry),
        .padding_bytes = 0,
    };
}

const struct ep_transport ep_transport_alltoallv_dedup = {
    .name = "alltoallv-dedup",
    .summary = "one row per (token, rank), fanned out and pre-summed on the owning rank",
    .basis = EP_BASIS_RANK,
    .by_alltoall = true,
    .sizes_most = true,
    .sizes_anew = true,
    .roundings = 2,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"pack", run_pack, pack_bytes},
                                       {"exchange", run_exchange, NULL},
                                       {"unpack", run_unpack, unpack_bytes}},
                            .num_phases = 4},
        [EP_OP_COMBINE] = {.phases = {{"pack", run_combine_pack, combine_pack_bytes},
                                      {"exchange", run_combine_exchange, NULL},
                                      {"unpack", run_combine_unpack, combine_unpack_bytes}},
                           .num_phases = 3},
    },
    .create = create,
    .view = view,
    .sent_rows = sent_rows,
    .extras = extras,
    .destroy = destroy,
};
