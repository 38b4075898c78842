/* SPDX-License-Identifier: Apache-2.0 */
/* What expert parallelism is weighed against: every rank gets every token and takes what its experts need;
 * combine sums each token's results over all ranks. `allgather` by MPI_Allgatherv and MPI_Reduce_scatter,
 * `allreduce` with all sums on all ranks (MPI_Allreduce), each also on a ring. What is sent does not depend
 * on the routing: rows nobody asked for count as padding. */
#include "bench/comm_mpi.h"
#include "bench/ring.h"
#include "bench/transport.h"
#include "kernels/combine.h"

#include <stdlib.h>
#include <string.h>

struct state {
    const struct ep_exchange *exchange;
    int rank, num_ranks;
    int64_t num_tokens;   /* of all ranks */
    int64_t *tokens;      /* [num_ranks] of each */
    int *ints;            /* [6][num_ranks]: rows, starts; choices, starts; elements of results, starts */
    int32_t *all_idx;     /* [num_tokens][top_k] slot of each choice, -1 unused */
    float *all_weight;    /* the same shape */
    int32_t *slots;       /* [local tokens][top_k] this rank's part of all_idx */
    int64_t num_local;
    int64_t *expert_start; /* [num_local + 1] */
    int64_t *next;         /* [num_local] fill marks */
    int64_t *token_start;  /* [num_tokens + 1] of the copies here, by token */
    int64_t *copy_row;     /* [copies here] place in `rows`, by token */
    float *copy_weight;    /* the same order */
    int64_t max_copies;
    char *gathered;        /* [num_tokens][row_bytes] */
    char *partial;         /* [num_tokens][combine_row_bytes] this rank's sums */
    char *rows, *outputs;  /* expert-major */
    char *scratch;         /* ring: the largest block of partial sums */
    MPI_Datatype row;
    MPI_Op sum;
};

/* bf16 + bf16, rounded: what a reduction in that type does at each step. */
static void add_bf16(const void *in, void *in_out, int64_t num)
{
    const uint16_t *a = in;
    uint16_t *b = in_out;
    for (int64_t i = 0; i < num; i++) {
        b[i] = ep_bf16_from_f32(ep_bf16_to_f32(a[i]) + ep_bf16_to_f32(b[i]));
    }
}

static void add_f32(const void *in, void *in_out, int64_t num)
{
    const float *a = in;
    float *b = in_out;
    for (int64_t i = 0; i < num; i++) {
        b[i] += a[i];
    }
}

static void sum_bf16(void *in, void *in_out, int *num, MPI_Datatype *type)
{
    (void)type;
    add_bf16(in, in_out, *num);
}

static void find_slots(struct state *s)
{
    const struct ep_exchange *x = s->exchange;
    const struct ep_routing *routing = x->routing;
    for (int64_t i = 0; i < routing->num_tokens * routing->top_k; i++) {
        const int32_t expert = routing->topk_idx[i];
        s->slots[i] = expert < 0 ? -1
                                 : (int32_t)ep_placement_slot(x->placement, expert, s->rank);
    }
}

/* Copies of this rank's experts: by expert, and within one in token order, which is (source, token). */
static int64_t count_experts(struct state *s)
{
    const struct ep_placement *placement = s->exchange->placement;
    const int64_t num = s->num_tokens * s->exchange->routing->top_k;
    memset(s->expert_start, 0, (size_t)(s->num_local + 1) * sizeof *s->expert_start);
    for (int64_t i = 0; i < num; i++) {
        const int32_t slot = s->all_idx[i];
        if (slot >= 0 && placement->slot_rank[slot] == s->rank) {
            s->expert_start[placement->slot_local[slot] + 1]++;
        }
    }
    for (int64_t e = 0; e < s->num_local; e++) {
        s->expert_start[e + 1] += s->expert_start[e];
    }
    return s->expert_start[s->num_local];
}

static void place(struct state *s)
{
    const struct ep_placement *placement = s->exchange->placement;
    const int64_t top_k = s->exchange->routing->top_k;
    int64_t copy = 0;
    for (int64_t e = 0; e < s->num_local; e++) {
        s->next[e] = s->expert_start[e];
    }
    for (int64_t t = 0; t < s->num_tokens; t++) {
        s->token_start[t] = copy;
        for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
            const int32_t slot = s->all_idx[i];
            if (slot >= 0 && placement->slot_rank[slot] == s->rank) {
                s->copy_row[copy] = s->next[placement->slot_local[slot]]++;
                s->copy_weight[copy++] = s->all_weight[i];
            }
        }
    }
    s->token_start[s->num_tokens] = copy;
}

static enum ep_status gather_choices(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_routing *routing = s->exchange->routing;
    const int *choices = s->ints + 2 * s->num_ranks;
    const int *starts = s->ints + 3 * s->num_ranks;
    MPI_Comm handle = ep_comm_handle(s->exchange->comm);
    find_slots(s);
    EP_TRY(ep_comm_check(MPI_Allgatherv(s->slots, choices[s->rank], MPI_INT32_T, s->all_idx,
                                        choices, starts, MPI_INT32_T, handle),
                         "MPI_Allgatherv of choices"));
    EP_TRY(ep_comm_check(MPI_Allgatherv(routing->topk_weight, choices[s->rank], MPI_FLOAT,
                                        s->all_weight, choices, starts, MPI_FLOAT, handle),
                         "MPI_Allgatherv of weights"));
out:
    return status;
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    const enum ep_status status = gather_choices(s);
    if (status == EP_OK) {
        const int64_t num = count_experts(s);
        EP_ASSERT(num == s->max_copies);
        place(s);
    }
    return status;
}

/* What is sent: all of this rank's rows, to all; kernels/traffic.c counts those that have an expert there. */
static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    return ep_comm_check(MPI_Allgatherv(x->tokens, s->ints[s->rank], s->row, s->gathered, s->ints,
                                        s->ints + s->num_ranks, s->row,
                                        ep_comm_handle(x->comm)),
                         "MPI_Allgatherv of rows");
}

static enum ep_status run_unpack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t t = 0; t < s->num_tokens; t++) {
        for (int64_t i = s->token_start[t]; i < s->token_start[t + 1]; i++) {
            memcpy(s->rows + s->copy_row[i] * x->row_bytes, s->gathered + t * x->row_bytes,
                   (size_t)x->row_bytes);
        }
    }
    return EP_OK;
}

/* This rank's part of every token's sum; zero where none of its experts was chosen. */
static enum ep_status run_combine_pack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t t = 0; t < s->num_tokens; t++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        const int64_t first = s->token_start[t];
        const int64_t num = s->token_start[t + 1] - first;
        for (int64_t i = 0; i < num; i++) {
            terms[i] = s->outputs + s->copy_row[first + i] * x->combine_row_bytes;
        }
        ep_combine_row(x->combine_dtype, x->hidden, num, terms, s->copy_weight + first,
                       s->partial + t * x->combine_row_bytes);
    }
    return EP_OK;
}

static MPI_Datatype element_of(const struct state *s)
{
    return s->exchange->combine_dtype == EP_FP32 ? MPI_FLOAT : MPI_UINT16_T;
}

static enum ep_status run_combine_exchange(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const bool fp32 = x->combine_dtype == EP_FP32;
    return ep_comm_check(MPI_Reduce_scatter(s->partial, x->results, s->ints + 4 * s->num_ranks,
                                            element_of(s), fp32 ? MPI_SUM : s->sum,
                                            ep_comm_handle(x->comm)),
                         "MPI_Reduce_scatter of results");
}

/* All sums on all ranks; sent as what each rank puts in, out and back. */
static enum ep_status run_allreduce(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const bool fp32 = x->combine_dtype == EP_FP32;
    return ep_comm_check(MPI_Allreduce(MPI_IN_PLACE, s->partial, (int)(s->num_tokens * x->hidden),
                                       element_of(s), fp32 ? MPI_SUM : s->sum,
                                       ep_comm_handle(x->comm)),
                         "MPI_Allreduce of results");
}

/* What is sent: all blocks of rows but one, to the next rank. */
static enum ep_status run_ring_exchange(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const struct ep_ring ring = {
        .handle = ep_comm_handle(x->comm), .rank = s->rank, .num_ranks = s->num_ranks,
        .count = s->ints, .start = s->ints + s->num_ranks,
        .element = s->row, .element_bytes = x->row_bytes,
    };
    memcpy(s->gathered + ring.start[s->rank] * x->row_bytes, x->tokens,
           (size_t)(ring.count[s->rank] * x->row_bytes));
    return ep_ring_allgather(&ring, s->gathered);
}

/* The other way round, so that it is the transpose of dispatch. */
static struct ep_ring ring_of_sums(const struct state *s)
{
    return (struct ep_ring){
        .handle = ep_comm_handle(s->exchange->comm), .rank = s->rank, .num_ranks = s->num_ranks,
        .count = s->ints + 4 * s->num_ranks, .start = s->ints + 5 * s->num_ranks,
        .element = element_of(s),
        .element_bytes = s->exchange->combine_row_bytes / s->exchange->hidden,
        .backward = true,
    };
}

static enum ep_status run_ring_reduce_scatter(void *state)
{
    struct state *s = state;
    const struct ep_ring ring = ring_of_sums(s);
    return ep_ring_reduce_scatter(&ring, s->exchange->combine_dtype == EP_FP32 ? add_f32 : add_bf16,
                                  s->partial, s->scratch);
}

static enum ep_status run_ring_allreduce(void *state)
{
    struct state *s = state;
    const struct ep_ring ring = ring_of_sums(s);
    const enum ep_status status = run_ring_reduce_scatter(state);
    return status == EP_OK ? ep_ring_allgather(&ring, s->partial) : status;
}

/* This rank's tokens out of what is there of all. */
static enum ep_status run_combine_unpack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    memcpy(x->results, s->partial + s->ints[s->num_ranks + s->rank] * x->combine_row_bytes,
           (size_t)(s->tokens[s->rank] * x->combine_row_bytes));
    return EP_OK;
}

static int64_t unpack_bytes(const void *state)
{
    const struct state *s = state;
    return 2 * s->max_copies * s->exchange->row_bytes;
}

static int64_t combine_pack_bytes(const void *state)
{
    const struct state *s = state;
    return (s->max_copies + s->num_tokens) * s->exchange->combine_row_bytes;
}

static int64_t combine_unpack_bytes(const void *state)
{
    const struct state *s = state;
    return 2 * s->tokens[s->rank] * s->exchange->combine_row_bytes;
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
    if (s->sum != MPI_OP_NULL) {
        MPI_Op_free(&s->sum);
    }
    free(s->tokens);
    free(s->ints);
    free(s->all_idx);
    free(s->all_weight);
    free(s->slots);
    free(s->expert_start);
    free(s->next);
    free(s->token_start);
    free(s->copy_row);
    free(s->copy_weight);
    free(s);
}

static enum ep_status allocate(const struct ep_exchange *exchange, struct state **state)
{
    const size_t ranks = (size_t)ep_comm_size(exchange->comm);
    struct state *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a transport");
    }
    const int32_t *experts = NULL;
    s->exchange = exchange;
    s->row = MPI_DATATYPE_NULL;
    s->sum = MPI_OP_NULL;
    s->rank = ep_comm_rank(exchange->comm);
    s->num_ranks = (int)ranks;
    s->num_local = ep_placement_local_experts(exchange->placement, s->rank, &experts);
    s->tokens = calloc(ranks, sizeof *s->tokens);
    s->ints = calloc(6 * ranks, sizeof *s->ints);
    s->expert_start = calloc((size_t)s->num_local + 1, sizeof *s->expert_start);
    s->next = calloc((size_t)s->num_local + 1, sizeof *s->next);
    return s->tokens != NULL && s->ints != NULL && s->expert_start != NULL && s->next != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for %zu ranks", ranks);
}

/* All that follows from how many tokens each rank has. */
static enum ep_status allocate_tokens(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
    for (int r = 0; r < s->num_ranks; r++) {
        s->num_tokens += s->tokens[r];
    }
    const int64_t totals[3] = {s->num_tokens, s->num_tokens * top_k, s->num_tokens * x->hidden};
    int as_int[3];
    EP_TRY(ep_comm_to_int(totals, 3, "allgather: elements of all tokens", as_int));
    int start = 0;
    for (int r = 0; r < s->num_ranks; r++) {
        s->ints[r] = (int)s->tokens[r];
        s->ints[s->num_ranks + r] = start;
        s->ints[2 * s->num_ranks + r] = (int)(s->tokens[r] * top_k);
        s->ints[3 * s->num_ranks + r] = (int)(start * top_k);
        s->ints[4 * s->num_ranks + r] = (int)(s->tokens[r] * x->hidden);
        s->ints[5 * s->num_ranks + r] = (int)(start * x->hidden);
        start += (int)s->tokens[r];
    }
    const size_t choices = (size_t)(s->num_tokens * top_k) + 1;
    s->all_idx = calloc(choices, sizeof *s->all_idx);
    s->all_weight = calloc(choices, sizeof *s->all_weight);
    s->slots = calloc((size_t)(x->routing->num_tokens * top_k) + 1, sizeof *s->slots);
    s->token_start = calloc((size_t)s->num_tokens + 1, sizeof *s->token_start);
    if (s->all_idx == NULL || s->all_weight == NULL || s->slots == NULL || s->token_start == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %zu choices", choices);
        goto out;
    }
    EP_TRY(ep_comm_type_of_row(x->row_bytes, &s->row));
    EP_TRY(ep_comm_check(MPI_Op_create(sum_bf16, 1, &s->sum), "MPI_Op_create"));
out:
    return status;
}

static enum ep_status allocate_copies(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    void *memory = NULL;
    s->max_copies = count_experts(s);
    s->copy_row = calloc((size_t)s->max_copies + 1, sizeof *s->copy_row);
    s->copy_weight = calloc((size_t)s->max_copies + 1, sizeof *s->copy_weight);
    if (s->copy_row == NULL || s->copy_weight == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for tables of copies");
        goto out;
    }
    EP_TRY(ep_arena_alloc(x->arena, s->num_tokens * x->row_bytes, "allgather", &memory));
    s->gathered = memory;
    EP_TRY(ep_arena_alloc(x->arena, s->num_tokens * x->combine_row_bytes, "allgather", &memory));
    s->partial = memory;
    EP_TRY(ep_arena_alloc(x->arena, s->max_copies * x->row_bytes, "allgather", &memory));
    s->rows = memory;
    EP_TRY(ep_arena_alloc(x->arena, s->max_copies * x->combine_row_bytes, "allgather", &memory));
    s->outputs = memory;
    int64_t most = 0;
    for (int r = 0; r < s->num_ranks; r++) {
        most = s->tokens[r] > most ? s->tokens[r] : most;
    }
    EP_TRY(ep_arena_alloc(x->arena, most * x->combine_row_bytes, "allgather", &memory));
    s->scratch = memory;
    place(s);
out:
    return status;
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = NULL;
    EP_TRY(ep_comm_agree(exchange->comm, allocate(exchange, &s)));
    EP_TRY(ep_comm_allgather_i64(exchange->comm, &exchange->routing->num_tokens, 1, s->tokens));
    EP_TRY(ep_comm_agree(exchange->comm, allocate_tokens(s)));
    EP_TRY(ep_comm_agree(exchange->comm, gather_choices(s)));
    EP_TRY(ep_comm_agree(exchange->comm, allocate_copies(s)));
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
        rows[r] = s->exchange->routing->num_tokens;
    }
}

/* Own rows stay; all others come through the ring, and all but the next rank's go on. */
static void ring_sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    const int next = (s->rank + 1) % s->num_ranks;
    memset(rows, 0, (size_t)s->num_ranks * sizeof *rows);
    rows[next] = s->num_tokens - s->tokens[next];
    rows[s->rank] = s->tokens[s->rank];
}

/* Rows that the rank-dedup basis does not count: sent to ranks without an expert of the token. */
static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const int64_t top_k = x->routing->top_k;
    int64_t asked = 0;
    for (int64_t t = 0; t < x->routing->num_tokens; t++) {
        for (int64_t i = t * top_k; i < (t + 1) * top_k; i++) {
            const int32_t rank = s->slots[i] < 0 ? s->rank
                                                 : x->placement->slot_rank[s->slots[i]];
            bool is_new = rank != s->rank;
            for (int64_t j = t * top_k; j < i && is_new; j++) {
                is_new = s->slots[j] < 0 || x->placement->slot_rank[s->slots[j]] != rank;
            }
            asked += is_new;
        }
    }
    const int64_t sent = (s->num_ranks - 1) * x->routing->num_tokens;
    const int64_t choice_bytes = (int64_t)(sizeof *s->slots + sizeof *x->routing->topk_weight);
    *e = (struct ep_transport_extras){
        .metadata_bytes = sent * top_k * choice_bytes,
        .padding_bytes = (sent - asked) * x->row_bytes,
    };
}

#define DISPATCH(exchange)                                                                         \
    {.phases = {{"counts", run_counts, NULL},                                                      \
                {"exchange", exchange, NULL},                                                      \
                {"unpack", run_unpack, unpack_bytes}},                                             \
     .num_phases = 3}
#define COMBINE(exchange)                                                                          \
    {.phases = {{"pack", run_combine_pack, combine_pack_bytes},                                    \
                {"exchange", exchange, NULL},                                                      \
                {"unpack", run_combine_unpack, combine_unpack_bytes}},                             \
     .num_phases = 3}
#define FUNCTIONS(sent)                                                                            \
    .basis = EP_BASIS_RANK, .pads = true, .roundings = EP_ROUNDINGS_PER_RANK, .create = create,    \
    .view = view, .sent_rows = sent, .extras = extras, .destroy = destroy

const struct ep_transport ep_transport_allgather = {
    .name = "allgather",
    .summary = "every token to every rank, MPI_Allgatherv; results by MPI_Reduce_scatter",
    .ops = {DISPATCH(run_exchange),
            {.phases = {{"pack", run_combine_pack, combine_pack_bytes},
                        {"exchange", run_combine_exchange, NULL}},
             .num_phases = 2}},
    FUNCTIONS(sent_rows),
};

const struct ep_transport ep_transport_allgather_ring = {
    .name = "allgather-ring",
    .summary = "the same on a ring: P - 1 steps of MPI_Isend and MPI_Irecv to the next rank",
    .ops = {DISPATCH(run_ring_exchange), COMBINE(run_ring_reduce_scatter)},
    FUNCTIONS(ring_sent_rows),
};

const struct ep_transport ep_transport_allreduce = {
    .name = "allreduce",
    .summary = "dispatch as allgather; results of all tokens to all ranks by MPI_Allreduce",
    .combine_passes = 2,
    .ops = {DISPATCH(run_exchange), COMBINE(run_allreduce)},
    FUNCTIONS(sent_rows),
};

const struct ep_transport ep_transport_allreduce_ring = {
    .name = "allreduce-ring",
    .summary = "the same on a ring: reduce-scatter, then all-gather",
    .combine_passes = 2,
    .ops = {DISPATCH(run_ring_exchange), COMBINE(run_ring_allreduce)},
    FUNCTIONS(ring_sent_rows),
};
