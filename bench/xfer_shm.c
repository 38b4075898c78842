/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `shm`: ranks of one node read and write each other's buffers in shared memory. A row goes once,
 * from the source's activations to its expert-major place; nothing is packed or unpacked. The copies
 * basis. Small exchanges are pulled by the owner with cached stores; what passes the caches is pushed by
 * the source with streaming stores, each row read once and written k times. Combine reads a token's
 * k results where the experts left them, and sums them in one pass. */
#include "bench/comm_share.h"
#include "bench/transport.h"
#include "kernels/combine.h"
#include "kernels/row_copy.h"

#include <stdlib.h>
#include <string.h>

/* What a rank shows to the others: all in its segment of the share. */
struct shown {
    const char *tokens;        /* [local tokens][row_bytes] */
    const int32_t *send_count; /* [num_keys] its copies per key; keys as in xfer_copies.h */
    const int32_t *key_token;  /* its copies' tokens, by key */
    char *rows, *outputs;      /* expert-major */
};

enum { TOKENS, SEND_COUNT, KEY_TOKEN, ROWS, OUTPUTS, NUM_SHOWN };

struct state {
    const struct ep_exchange *exchange;
    int rank, num_ranks;
    int64_t num_keys, num_local;
    bool pushes;
    struct shown *shown;   /* [num_ranks] */
    int64_t *offset;       /* [num_ranks][NUM_SHOWN] of those, within each one's segment */
    int *world_rank;       /* [num_ranks] */
    int32_t *expert_key;   /* [num_experts] key this rank sends an expert's rows to */
    int32_t *key_rank;     /* [num_keys] owner */
    int32_t *send_count, *key_token; /* own, writable */
    int64_t *key_start;    /* [num_keys + 1] first of a key in key_token */
    int64_t *key_row;      /* [num_keys] first row of this rank's block on the owner */
    int64_t *next;         /* [num_keys] fill marks */
    int64_t *place;        /* [local tokens][top_k] row on the owner, -1 unused */
    int64_t *expert_start; /* [num_local + 1] */
    char *rows, *outputs;
};

/* Sort own copies by key, and show how many there are of each. */
static void count_own(struct state *s)
{
    const struct ep_routing *routing = s->exchange->routing;
    const int64_t num = routing->num_tokens * routing->top_k;
    memset(s->send_count, 0, (size_t)s->num_keys * sizeof *s->send_count);
    for (int64_t i = 0; i < num; i++) {
        if (routing->topk_idx[i] >= 0) {
            s->send_count[s->expert_key[routing->topk_idx[i]]]++;
        }
    }
    s->key_start[0] = 0;
    for (int64_t key = 0; key < s->num_keys; key++) {
        s->next[key] = s->key_start[key];
        s->key_start[key + 1] = s->key_start[key] + s->send_count[key];
    }
    for (int64_t i = 0; i < num; i++) {
        if (routing->topk_idx[i] >= 0) {
            const int32_t key = s->expert_key[routing->topk_idx[i]];
            s->key_token[s->next[key]++] = (int32_t)(i / routing->top_k);
        }
    }
}

/* Everyone's counts are there: the places of this rank's blocks on all owners, and its own experts' rows.
 * Rows of an expert are ordered by (source, token). */
static void find_places(struct state *s)
{
    const struct ep_routing *routing = s->exchange->routing;
    const int32_t *local_start = s->exchange->placement->local_start;
    for (int r = 0; r < s->num_ranks; r++) {
        int64_t row = 0;
        for (int32_t key = local_start[r]; key < local_start[r + 1]; key++) {
            if (r == s->rank) {
                s->expert_start[key - local_start[r]] = row;
            }
            for (int source = 0; source < s->num_ranks; source++) {
                if (source == s->rank) {
                    s->key_row[key] = row;
                }
                row += s->shown[source].send_count[key];
            }
        }
        if (r == s->rank) {
            s->expert_start[s->num_local] = row;
        }
    }
    memcpy(s->next, s->key_row, (size_t)s->num_keys * sizeof *s->next);
    for (int64_t i = 0; i < routing->num_tokens * routing->top_k; i++) {
        const int32_t expert = routing->topk_idx[i];
        s->place[i] = expert < 0 ? -1 : s->next[s->expert_key[expert]]++;
    }
}

static enum ep_status sync_ranks(const struct state *s)
{
    return ep_share_sync(s->exchange->share, s->exchange->comm);
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    count_own(s);
    const enum ep_status status = sync_ranks(s);
    if (status == EP_OK) {
        find_places(s);
    }
    return status;
}

/* The owner reads what each source has for each of its experts. */
static void pull(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    const int32_t first_key = x->placement->local_start[s->rank];
    const size_t row_bytes = (size_t)x->row_bytes;
    for (int step = 0; step < s->num_ranks; step++) { /* each begins with another source */
        const int source = (s->rank + step) % s->num_ranks;
        const struct shown *from = &s->shown[source];
        int64_t listed = 0;
        for (int32_t key = 0; key < first_key; key++) {
            listed += from->send_count[key];
        }
        for (int64_t e = 0; e < s->num_local; e++) {
            int64_t row = s->expert_start[e];
            for (int r = 0; r < source; r++) {
                row += s->shown[r].send_count[first_key + e];
            }
            const int64_t num = from->send_count[first_key + e];
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
            for (int64_t i = 0; i < num; i++) {
                memcpy(s->rows + (size_t)(row + i) * row_bytes,
                       from->tokens + (size_t)from->key_token[listed + i] * row_bytes, row_bytes);
            }
            listed += num;
        }
    }
}

/* The source writes each of its rows to all its places. */
static void push(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
    const size_t row_bytes = (size_t)x->row_bytes;
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
#pragma omp for
        for (int64_t t = 0; t < x->routing->num_tokens; t++) {
            const char *from = x->tokens + (size_t)t * row_bytes;
            for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
                if (s->place[i] >= 0) {
                    const int32_t key = s->expert_key[x->routing->topk_idx[i]];
                    ep_row_stream(s->shown[s->key_rank[key]].rows + (size_t)s->place[i] * row_bytes,
                                  from, row_bytes);
                }
            }
        }
        ep_row_stream_end();
    }
}

/* Ends when all rows are there, and nobody reads the activations any more. */
static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    if (s->pushes) {
        push(s);
    } else {
        pull(s);
    }
    return sync_ranks(s);
}

/* Begins when all results are there, ends when nobody reads them any more. */
static enum ep_status run_combine(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
    const enum ep_status status = sync_ranks(s);
    if (status != EP_OK) {
        return status;
    }
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t t = 0; t < x->routing->num_tokens; t++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        float weights[EP_TRANSPORT_MAX_TOP_K];
        int64_t num = 0;
        for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
            if (s->place[i] >= 0) {
                const int32_t key = s->expert_key[x->routing->topk_idx[i]];
                terms[num] =
                    s->shown[s->key_rank[key]].outputs + s->place[i] * x->combine_row_bytes;
                weights[num++] = x->routing->topk_weight[i];
            }
        }
        ep_combine_row(x->combine_dtype, x->hidden, num, terms, weights,
                       x->results + t * x->combine_row_bytes);
    }
    return sync_ranks(s);
}

static int64_t exchange_bytes(const void *state)
{
    const struct state *s = state;
    return 2 * s->expert_start[s->num_local] * s->exchange->row_bytes;
}

static int64_t combine_bytes(const void *state)
{
    const struct state *s = state;
    return (s->key_start[s->num_keys] + s->exchange->routing->num_tokens) *
           s->exchange->combine_row_bytes;
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    free(s->shown);
    free(s->offset);
    free(s->world_rank);
    free(s->expert_key);
    free(s->key_rank);
    free(s->key_start);
    free(s->key_row);
    free(s->next);
    free(s->place);
    free(s->expert_start);
    free(s);
}

static enum ep_status allocate(const struct ep_exchange *x, struct state **state)
{
    enum ep_status status = EP_OK;
    void *memory = NULL;
    struct state *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "shm: no memory");
    }
    const int32_t *experts = NULL;
    s->exchange = x;
    s->rank = ep_comm_rank(x->comm);
    s->num_ranks = ep_comm_size(x->comm);
    s->num_keys = x->placement->num_slots;
    s->num_local = ep_placement_local_experts(x->placement, s->rank, &experts);
    const size_t ranks = (size_t)s->num_ranks;
    const size_t keys = (size_t)s->num_keys;
    const size_t slots = (size_t)(x->routing->num_tokens * x->routing->top_k);
    s->shown = calloc(ranks, sizeof *s->shown);
    s->offset = calloc(ranks * NUM_SHOWN, sizeof *s->offset);
    s->world_rank = calloc(ranks, sizeof *s->world_rank);
    s->expert_key = calloc((size_t)x->placement->num_experts, sizeof *s->expert_key);
    s->key_rank = calloc(keys, sizeof *s->key_rank);
    s->key_start = calloc(keys + 1, sizeof *s->key_start);
    s->key_row = calloc(keys, sizeof *s->key_row);
    s->next = calloc(keys, sizeof *s->next);
    s->place = calloc(slots + 1, sizeof *s->place);
    s->expert_start = calloc((size_t)s->num_local + 1, sizeof *s->expert_start);
    if (s->shown == NULL || s->offset == NULL || s->world_rank == NULL || s->expert_key == NULL ||
        s->key_rank == NULL || s->key_start == NULL || s->key_row == NULL || s->next == NULL ||
        s->place == NULL || s->expert_start == NULL) {
        status = ep_error_set(EP_ENOMEM, "shm: no memory for tables of %zu copies", slots);
        goto out;
    }
    EP_TRY(ep_arena_alloc(x->arena, s->num_keys * (int64_t)sizeof *s->send_count, "shm", &memory));
    s->send_count = memory;
    EP_TRY(ep_arena_alloc(x->arena, (int64_t)(slots * sizeof *s->key_token), "shm", &memory));
    s->key_token = memory;
out:
    return status;
}

static void find_keys(struct state *s)
{
    const struct ep_placement *placement = s->exchange->placement;
    for (int64_t slot = 0; slot < placement->num_slots; slot++) {
        const int32_t rank = placement->slot_rank[slot];
        s->key_rank[placement->local_start[rank] + placement->slot_local[slot]] = rank;
    }
    for (int64_t e = 0; e < placement->num_experts; e++) {
        const int64_t slot = ep_placement_slot(placement, e, s->rank);
        s->expert_key[e] =
            placement->local_start[placement->slot_rank[slot]] + placement->slot_local[slot];
    }
}

/* Tell all ranks where this one's buffers lie in its segment, and find theirs. */
static enum ep_status show(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const char *base = ep_share_segment(x->share, ep_comm_world_rank(x->comm));
    const char *own[NUM_SHOWN] = {x->tokens, (const char *)s->send_count,
                                  (const char *)s->key_token, s->rows, s->outputs};
    int64_t offset[NUM_SHOWN];
    for (int i = 0; i < NUM_SHOWN; i++) {
        offset[i] = own[i] != NULL ? own[i] - base : 0;
    }
    EP_TRY(ep_comm_allgather_i64(x->comm, offset, NUM_SHOWN, s->offset));
    for (int r = 0; r < s->num_ranks; r++) {
        char *segment = ep_share_segment(x->share, s->world_rank[r]);
        const int64_t *at = s->offset + r * NUM_SHOWN;
        s->shown[r] = (struct shown){
            .tokens = segment + at[TOKENS],
            .send_count = (const int32_t *)(const void *)(segment + at[SEND_COUNT]),
            .key_token = (const int32_t *)(const void *)(segment + at[KEY_TOKEN]),
            .rows = segment + at[ROWS],
            .outputs = segment + at[OUTPUTS],
        };
    }
out:
    return status;
}

static enum ep_status allocate_rows(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const int64_t received = s->expert_start[s->num_local];
    void *memory = NULL;
    EP_TRY(ep_arena_alloc(x->arena, received * x->row_bytes, "shm", &memory));
    s->rows = memory;
    EP_TRY(ep_arena_alloc(x->arena, received * x->combine_row_bytes, "shm", &memory));
    s->outputs = memory;
out:
    return status;
}

/* Push where the rows that all ranks write, and the activations they read, pass half the last-level
 * cache: then cached stores read each line first only to write it back. The same on all ranks. */
static enum ep_status choose_way(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    int64_t moved = (s->expert_start[s->num_local] + x->routing->num_tokens) * x->row_bytes;
    const enum ep_status status = ep_comm_sum_i64(x->comm, &moved, 1);
    s->pushes = x->cache_bytes > 0 && moved > x->cache_bytes / 2;
    return status;
}

static enum ep_status find_world_ranks(struct state *s)
{
    enum ep_status status = EP_OK;
    const int64_t own = ep_comm_world_rank(s->exchange->comm);
    int64_t *all = calloc((size_t)s->num_ranks, sizeof *all);
    status = all != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "shm: no memory");
    EP_TRY(ep_comm_agree(s->exchange->comm, status));
    EP_TRY(ep_comm_allgather_i64(s->exchange->comm, &own, 1, all));
    for (int r = 0; r < s->num_ranks; r++) {
        s->world_rank[r] = (int)all[r];
    }
out:
    free(all);
    return status;
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = NULL;
    if (exchange->share == NULL) {
        return ep_error_set(EP_EENV, "shm: buffers are not in shared memory (see the warning "
                            "private-buffers)");
    }
    EP_TRY(ep_comm_agree(exchange->comm, allocate(exchange, &s)));
    EP_TRY(find_world_ranks(s));
    find_keys(s);
    EP_TRY(show(s)); /* counts and lists */
    count_own(s);
    EP_TRY(sync_ranks(s));
    find_places(s);
    EP_TRY(choose_way(s));
    EP_TRY(ep_comm_agree(exchange->comm, allocate_rows(s)));
    EP_TRY(show(s)); /* rows and outputs too */
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
    memset(rows, 0, (size_t)s->num_ranks * sizeof *rows);
    for (int64_t key = 0; key < s->num_keys; key++) {
        rows[s->key_rank[key]] += s->send_count[key];
    }
}

/* What others read of it: its counts, and where they pull, the tokens of their copies. */
static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    int64_t remote = 0;
    for (int64_t key = 0; key < s->num_keys && !s->pushes; key++) {
        remote += s->key_rank[key] != s->rank ? s->send_count[key] : 0;
    }
    *e = (struct ep_transport_extras){
        .metadata_bytes = ((s->num_ranks - 1) * s->num_keys + remote) * (int64_t)sizeof(int32_t),
        .padding_bytes = 0,
    };
}

const struct ep_transport ep_transport_shm = {
    .name = "shm",
    .summary = "one row per (token, expert), read and written in place through shared memory",
    .basis = EP_BASIS_COPIES,
    .shares = true,
    .roundings = 1,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"exchange", run_exchange, exchange_bytes}},
                            .num_phases = 2},
        [EP_OP_COMBINE] = {.phases = {{"exchange", run_combine, combine_bytes}}, .num_phases = 1},
    },
    .create = create,
    .view = view,
    .sent_rows = sent_rows,
    .extras = extras,
    .destroy = destroy,
};
