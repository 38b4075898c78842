/* SPDX-License-Identifier: Apache-2.0 */
/* Copies basis: counting, packing and unpacking around the exchange. */
#include "bench/xfer_copies.h"

#include "bench/comm_mpi.h"
#include "kernels/combine.h"
#include "kernels/row_copy.h"

#include <stdlib.h>
#include <string.h>

static enum ep_status allocate(struct ep_copies *c)
{
    const struct ep_exchange *x = c->exchange;
    const size_t ranks = (size_t)c->num_ranks;
    const size_t keys = (size_t)c->num_keys;
    const size_t blocks = ranks * (size_t)c->num_local;
    const size_t slots = (size_t)(x->routing->num_tokens * x->routing->top_k);
    c->expert_key = calloc((size_t)x->placement->num_experts, sizeof *c->expert_key);
    c->send_count = calloc(keys, sizeof *c->send_count);
    c->send_start = calloc(keys, sizeof *c->send_start);
    c->position = calloc(slots + 1, sizeof *c->position);
    c->recv_count = calloc(blocks + 1, sizeof *c->recv_count);
    c->recv_start = calloc(blocks + 1, sizeof *c->recv_start);
    c->expert_start = calloc((size_t)c->num_local + 1, sizeof *c->expert_start);
    c->ints = calloc(4 * ranks, sizeof *c->ints);
    const bool all = c->expert_key != NULL && c->send_count != NULL && c->send_start != NULL &&
                     c->position != NULL && c->recv_count != NULL && c->recv_start != NULL &&
                     c->expert_start != NULL && c->ints != NULL;
    return all ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for tables of %zu copies", slots);
}

enum ep_status ep_copies_init(const struct ep_exchange *exchange, struct ep_copies *copies)
{
    enum ep_status status = EP_OK;
    const struct ep_placement *placement = exchange->placement;
    struct ep_copies c = {
        .exchange = exchange,
        .rank = ep_comm_rank(exchange->comm),
        .num_ranks = ep_comm_size(exchange->comm),
        .num_keys = placement->num_slots,
    };
    EP_ASSERT(exchange->routing->top_k <= EP_TRANSPORT_MAX_TOP_K);
    const int32_t *experts = NULL;
    c.num_local = ep_placement_local_experts(placement, c.rank, &experts);
    EP_TRY(ep_comm_agree(exchange->comm, allocate(&c)));
    for (int64_t e = 0; e < placement->num_experts; e++) {
        const int64_t slot = ep_placement_slot(placement, e, c.rank);
        c.expert_key[e] = placement->local_start[placement->slot_rank[slot]] +
                          placement->slot_local[slot];
    }
    EP_TRY(ep_copies_count(&c));
    *copies = c;
    c = (struct ep_copies){0};
out:
    ep_copies_fini(&c);
    return status;
}

void ep_copies_fini(struct ep_copies *c)
{
    free(c->expert_key);
    free(c->send_count);
    free(c->send_start);
    free(c->position);
    free(c->recv_count);
    free(c->recv_start);
    free(c->expert_start);
    free(c->ints);
    *c = (struct ep_copies){0};
}

enum ep_status ep_copies_count(struct ep_copies *c)
{
    const struct ep_routing *routing = c->exchange->routing;
    const int32_t *local_start = c->exchange->placement->local_start;
    const int64_t slots = routing->num_tokens * routing->top_k;
    memset(c->send_count, 0, (size_t)c->num_keys * sizeof *c->send_count);
    for (int64_t i = 0; i < slots; i++) {
        const int32_t expert = routing->topk_idx[i];
        if (expert >= 0) {
            c->send_count[c->expert_key[expert]]++;
        }
    }
    int *send_counts = c->ints;
    int *send_starts = c->ints + c->num_ranks;
    int *recv_counts = c->ints + 2 * c->num_ranks;
    int *recv_starts = c->ints + 3 * c->num_ranks;
    for (int r = 0; r < c->num_ranks; r++) {
        send_counts[r] = local_start[r + 1] - local_start[r];
        send_starts[r] = local_start[r];
        recv_counts[r] = (int)c->num_local;
        recv_starts[r] = r * (int)c->num_local;
    }
    const enum ep_status status = ep_comm_check(
        MPI_Alltoallv(c->send_count, send_counts, send_starts, MPI_INT32_T, c->recv_count,
                      recv_counts, recv_starts, MPI_INT32_T, ep_comm_handle(c->exchange->comm)),
        "MPI_Alltoallv of counts");
    int64_t start = 0;
    for (int64_t e = 0; e < c->num_local; e++) {
        c->expert_start[e] = start;
        for (int r = 0; r < c->num_ranks; r++) {
            start += c->recv_count[r * c->num_local + e];
        }
    }
    c->expert_start[c->num_local] = start;
    return status;
}

enum ep_status ep_copies_allocate(struct ep_copies *c, const char *name,
                                  const struct ep_copies_sizes *sizes)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = c->exchange;
    const int64_t received = ep_copies_num_received(c);
    const int64_t widest =
        x->row_bytes > x->combine_row_bytes ? x->row_bytes : x->combine_row_bytes;
    void *memory = NULL;
    static const double stream_fill = 1; /* of all three buffers of rows; "shm" in README.md */
    static const double hint_fill = 2;
    const int64_t summed = ep_copies_num_sent(c) + x->routing->num_tokens;
    const int64_t moved = summed + 2 * received;
    c->streams[EP_OP_DISPATCH] = ep_exchange_cache_fill(x, moved * x->row_bytes) > stream_fill;
    c->streams[EP_OP_COMBINE] = ep_exchange_cache_fill(x, moved * x->combine_row_bytes) > stream_fill;
    c->hints_sums = ep_exchange_cache_fill(x, summed * x->combine_row_bytes) > hint_fill;
    EP_TRY(ep_arena_alloc_rows(x->arena, sizes->send, sizes->most_send, widest, name, &memory));
    c->send = memory;
    EP_TRY(ep_arena_alloc_rows(x->arena, sizes->recv, sizes->most_recv, widest, name, &memory));
    c->recv = memory;
    EP_TRY(ep_arena_alloc_rows(x->arena, received, x->most_received, x->row_bytes, name, &memory));
    c->rows = memory;
    EP_TRY(ep_arena_alloc_rows(x->arena, received, x->most_received, x->combine_row_bytes, name, &memory));
    c->outputs = memory;
out:
    return status;
}

/* The send row of every copy, in token order within a key. */
static void find_positions(struct ep_copies *c)
{
    const struct ep_routing *routing = c->exchange->routing;
    int64_t *next = c->send_start; /* restored below: each ends where it began plus its count */
    for (int64_t i = 0; i < routing->num_tokens * routing->top_k; i++) {
        const int32_t expert = routing->topk_idx[i];
        c->position[i] = expert < 0 ? -1 : next[c->expert_key[expert]]++;
    }
    for (int64_t key = 0; key < c->num_keys; key++) {
        next[key] -= c->send_count[key];
    }
}

static void copy(const struct ep_copies *c, enum ep_op op, char *to, const char *from,
                 int64_t size_bytes)
{
    if (c->streams[op]) {
        ep_row_stream(to, from, (size_t)size_bytes);
    } else {
        memcpy(to, from, (size_t)size_bytes);
    }
}

enum ep_status ep_copies_run_pack(void *state)
{
    struct ep_copies *c = state;
    const struct ep_exchange *x = c->exchange;
    const int64_t top_k = x->routing->top_k;
    find_positions(c);
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
#pragma omp for
        for (int64_t t = 0; t < x->routing->num_tokens; t++) {
            for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
                if (c->position[i] >= 0) {
                    copy(c, EP_OP_DISPATCH, c->send + c->position[i] * x->row_bytes,
                         x->tokens + t * x->row_bytes, x->row_bytes);
                }
            }
        }
        ep_row_stream_end();
    }
    return EP_OK;
}

/* What came back for a token. Returns how many. */
static int64_t find_terms(const struct ep_copies *c, int64_t token, const void **terms,
                          float *weights)
{
    const struct ep_exchange *x = c->exchange;
    int64_t num = 0;
    for (int64_t j = token * x->routing->top_k; j < (token + 1) * x->routing->top_k; j++) {
        if (c->position[j] >= 0) {
            terms[num] = c->send + c->position[j] * x->combine_row_bytes;
            weights[num++] = x->routing->topk_weight[j];
        }
    }
    return num;
}

static void sum_token(const struct ep_copies *c, int64_t token)
{
    const struct ep_exchange *x = c->exchange;
    const void *rows[EP_TRANSPORT_MAX_TOP_K];
    const void *next[EP_TRANSPORT_MAX_TOP_K];
    float weights[EP_TRANSPORT_MAX_TOP_K];
    float ignored[EP_TRANSPORT_MAX_TOP_K];
    struct ep_combine_hints hints = {.stream = c->hints_sums, .next = next};
    if (c->hints_sums && token + 1 < x->routing->num_tokens) {
        hints.num_next = find_terms(c, token + 1, next, ignored);
    }
    const int64_t num = find_terms(c, token, rows, weights);
    ep_combine_row_hinted(x->combine_dtype, x->hidden, num, rows, weights, &hints,
                          x->results + token * x->combine_row_bytes);
}

enum ep_status ep_copies_run_combine_unpack(void *state)
{
    const struct ep_copies *c = state;
    const struct ep_exchange *x = c->exchange;
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
#pragma omp for
        for (int64_t t = 0; t < x->routing->num_tokens; t++) {
            sum_token(c, t);
        }
        ep_row_stream_end();
    }
    return EP_OK;
}

/* Each (expert, source) block is one run of rows on both sides. */
static void move_blocks(const struct ep_copies *c, enum ep_op op, char *by_source, char *by_expert)
{
    const struct ep_exchange *x = c->exchange;
    const bool to_expert = op == EP_OP_DISPATCH;
    const int64_t row_bytes = to_expert ? x->row_bytes : x->combine_row_bytes;
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
#pragma omp for schedule(dynamic)
        for (int64_t e = 0; e < c->num_local; e++) {
            char *expert_rows = by_expert + c->expert_start[e] * row_bytes;
            for (int r = 0; r < c->num_ranks; r++) {
                const int64_t block = r * c->num_local + e;
                const int64_t size_bytes = c->recv_count[block] * row_bytes;
                char *source_rows = by_source + c->recv_start[block] * row_bytes;
                copy(c, op, to_expert ? expert_rows : source_rows,
                     to_expert ? source_rows : expert_rows, size_bytes);
                expert_rows += size_bytes;
            }
        }
        ep_row_stream_end();
    }
}

enum ep_status ep_copies_run_unpack(void *state)
{
    const struct ep_copies *c = state;
    move_blocks(c, EP_OP_DISPATCH, c->recv, c->rows);
    return EP_OK;
}

enum ep_status ep_copies_run_combine_pack(void *state)
{
    const struct ep_copies *c = state;
    move_blocks(c, EP_OP_COMBINE, c->recv, c->outputs);
    return EP_OK;
}

void ep_copies_send_rows(const struct ep_copies *c, int64_t *rows)
{
    const int32_t *local_start = c->exchange->placement->local_start;
    for (int r = 0; r < c->num_ranks; r++) {
        rows[r] = 0;
        for (int32_t key = local_start[r]; key < local_start[r + 1]; key++) {
            rows[r] += c->send_count[key];
        }
    }
}

void ep_copies_recv_rows(const struct ep_copies *c, int64_t *rows)
{
    for (int r = 0; r < c->num_ranks; r++) {
        rows[r] = 0;
        for (int64_t e = 0; e < c->num_local; e++) {
            rows[r] += c->recv_count[r * c->num_local + e];
        }
    }
}

int64_t ep_copies_num_sent(const struct ep_copies *c)
{
    int64_t num = 0;
    for (int64_t key = 0; key < c->num_keys; key++) {
        num += c->send_count[key];
    }
    return num;
}

int64_t ep_copies_num_received(const struct ep_copies *c)
{
    return c->expert_start[c->num_local];
}

int64_t ep_copies_metadata_bytes(const struct ep_copies *c)
{
    return (c->num_keys - c->num_local) * (int64_t)sizeof *c->send_count;
}

int64_t ep_copies_pack_bytes(const void *state)
{
    const struct ep_copies *c = state;
    return 2 * ep_copies_num_sent(c) * c->exchange->row_bytes;
}

int64_t ep_copies_unpack_bytes(const void *state)
{
    const struct ep_copies *c = state;
    return 2 * ep_copies_num_received(c) * c->exchange->row_bytes;
}

int64_t ep_copies_combine_pack_bytes(const void *state)
{
    const struct ep_copies *c = state;
    return 2 * ep_copies_num_received(c) * c->exchange->combine_row_bytes;
}

int64_t ep_copies_combine_unpack_bytes(const void *state)
{
    const struct ep_copies *c = state;
    const int64_t num_rows = ep_copies_num_sent(c) + c->exchange->routing->num_tokens;
    return num_rows * c->exchange->combine_row_bytes;
}

void ep_copies_view(const void *state, struct ep_expert_rows *rows)
{
    const struct ep_copies *c = state;
    *rows = (struct ep_expert_rows){
        .num_experts = c->num_local,
        .start = c->expert_start,
        .rows = c->rows,
        .outputs = c->outputs,
    };
}
