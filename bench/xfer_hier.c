/* SPDX-License-Identifier: Apache-2.0 */
/* Transports in two stages, for nodes that share a network. `hier`: each token once per node over the
 * network, to the rank of that node with the source's own index; from there to each rank of the node that
 * needs it; results are summed on the experts' ranks, then in the node, then at the source. `hier2d`: each
 * copy first inside the node, to the rank with the destination's index, then over the network between
 * ranks of one index: P - 1 messages become (q - 1) + (N - 1), and no row is saved. */
#include "bench/comm_mpi.h"
#include "bench/transport.h"
#include "bench/xfer_stage.h"
#include "kernels/combine.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST, SECOND, NUM_STAGES };

struct state {
    const struct ep_exchange *exchange;
    int rank, num_ranks;
    bool dedup;
    struct ep_stage stages[NUM_STAGES];
    int32_t *rank_node, *rank_index; /* [num_ranks] node, and place in it */
    int32_t *slot_node, *slot_index; /* [num_slots] of the slot's rank */
    struct ep_stage_entry *asked;    /* [local tokens * top_k] used copies in token order */
    int64_t num_local;
    int64_t *expert_start; /* [num_local + 1] */
    int64_t *next;         /* [num_local][num_ranks] fill marks by expert and source */
    int64_t *row_entry;    /* [rows of the last stage + 1] first entry of each row that arrives */
    int64_t *expert_row;   /* [entries of the last stage] place of each copy in `rows` */
    char *rows, *outputs;  /* expert-major */
};

/* Both stages' counts and entries. What is sent: with dedup, one row per (token, node), then one per (token,
 * rank) in the node; without, one per copy in both. */
static enum ep_status count(struct state *s, bool first)
{
    enum ep_status status = EP_OK;
    const struct ep_stage_side *in = &s->stages[FIRST].in;
    const int64_t num = ep_stage_ask(s->exchange, s->asked);
    EP_TRY(ep_stage_count(&s->stages[FIRST], first, !s->dedup, s->asked, num,
                          s->exchange->routing->num_tokens));
    EP_TRY(ep_stage_count(&s->stages[SECOND], first, false, in->entries, in->num_entries,
                          in->num_rows));
out:
    return status;
}

/* Expert-major places of all copies, in (source, token) order within an expert. A source's rows arrive by
 * one way only, so those of one source are in token order already. */
static void place(struct state *s)
{
    const struct ep_stage_side *in = &s->stages[SECOND].in;
    const int32_t *slot_local = s->exchange->placement->slot_local;
    const int64_t num_blocks = s->num_local * s->num_ranks;
    memset(s->next, 0, (size_t)(num_blocks + 1) * sizeof *s->next);
    for (int64_t i = 0; i < in->num_entries; i++) {
        const struct ep_stage_entry *e = &in->entries[i];
        s->next[slot_local[e->slot] * s->num_ranks + e->source]++;
    }
    int64_t start = 0;
    for (int64_t block = 0; block < num_blocks; block++) {
        const int64_t num = s->next[block];
        if (block % s->num_ranks == 0) {
            s->expert_start[block / s->num_ranks] = start;
        }
        s->next[block] = start;
        start += num;
    }
    s->expert_start[s->num_local] = start;
    int64_t row = 0;
    for (int64_t i = 0; i < in->num_entries; i++) {
        const struct ep_stage_entry *e = &in->entries[i];
        if (i == 0 || e->row != in->entries[i - 1].row) {
            s->row_entry[row++] = i;
        }
        s->expert_row[i] = s->next[slot_local[e->slot] * s->num_ranks + e->source]++;
    }
    EP_ASSERT(row == in->num_rows);
    s->row_entry[row] = in->num_entries;
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    const enum ep_status status = count(s, false);
    if (status == EP_OK) {
        place(s);
    }
    return status;
}

static enum ep_status run_pack(void *state)
{
    struct state *s = state;
    ep_stage_pack(&s->stages[FIRST], s->exchange->tokens);
    return EP_OK;
}

static enum ep_status run_first(void *state)
{
    struct state *s = state;
    return ep_stage_move(&s->stages[FIRST], EP_OP_DISPATCH);
}

static enum ep_status run_second(void *state)
{
    struct state *s = state;
    ep_stage_pack(&s->stages[SECOND], s->stages[FIRST].in.buffer);
    return ep_stage_move(&s->stages[SECOND], EP_OP_DISPATCH);
}

static enum ep_status run_unpack(void *state)
{
    struct state *s = state;
    const struct ep_stage_side *in = &s->stages[SECOND].in;
    const int64_t row_bytes = s->exchange->row_bytes;
    const int threads = s->exchange->threads;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < in->num_entries; i++) {
        memcpy(s->rows + s->expert_row[i] * row_bytes,
               in->buffer + in->entries[i].row * row_bytes, (size_t)row_bytes);
    }
    return EP_OK;
}

/* The experts' rank: all copies of one row that arrived, with their weights (1 without dedup). */
static enum ep_status run_combine_pack(void *state)
{
    struct state *s = state;
    const struct ep_exchange *x = s->exchange;
    const struct ep_stage_side *in = &s->stages[SECOND].in;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t row = 0; row < in->num_rows; row++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        float weights[EP_TRANSPORT_MAX_TOP_K];
        int64_t num = 0;
        for (int64_t i = s->row_entry[row]; i < s->row_entry[row + 1]; i++) {
            terms[num] = s->outputs + s->expert_row[i] * x->combine_row_bytes;
            weights[num++] = in->entries[i].weight;
        }
        char *to = in->buffer + row * x->combine_row_bytes;
        if (s->dedup) {
            ep_combine_row(x->combine_dtype, x->hidden, num, terms, weights, to);
        } else {
            memcpy(to, terms[0], (size_t)x->combine_row_bytes);
        }
    }
    return EP_OK;
}

static enum ep_status run_combine_second(void *state)
{
    struct state *s = state;
    const enum ep_status status = ep_stage_move(&s->stages[SECOND], EP_OP_COMBINE);
    if (status == EP_OK) {
        ep_stage_fold(&s->stages[SECOND], s->stages[FIRST].in.buffer);
    }
    return status;
}

static enum ep_status run_combine_first(void *state)
{
    struct state *s = state;
    return ep_stage_move(&s->stages[FIRST], EP_OP_COMBINE);
}

static enum ep_status run_combine_unpack(void *state)
{
    struct state *s = state;
    ep_stage_fold(&s->stages[FIRST], s->exchange->results);
    return EP_OK;
}

static int64_t pack_bytes(const void *state)
{
    const struct state *s = state;
    return ep_stage_pack_bytes(&s->stages[FIRST]);
}

static int64_t second_bytes(const void *state)
{
    const struct state *s = state;
    return ep_stage_pack_bytes(&s->stages[SECOND]);
}

static int64_t unpack_bytes(const void *state)
{
    const struct state *s = state;
    return 2 * s->stages[SECOND].in.num_entries * s->exchange->row_bytes;
}

static int64_t combine_pack_bytes(const void *state)
{
    const struct state *s = state;
    const struct ep_stage_side *in = &s->stages[SECOND].in;
    return (in->num_entries + in->num_rows) * s->exchange->combine_row_bytes;
}

static int64_t combine_second_bytes(const void *state)
{
    const struct state *s = state;
    return ep_stage_fold_bytes(&s->stages[SECOND]);
}

static int64_t combine_unpack_bytes(const void *state)
{
    const struct state *s = state;
    return ep_stage_fold_bytes(&s->stages[FIRST]);
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    for (int i = 0; i < NUM_STAGES; i++) {
        ep_stage_fini(&s->stages[i]);
    }
    free(s->rank_node);
    free(s->slot_node);
    free(s->asked);
    free(s->expert_start);
    free(s->next);
    free(s->row_entry);
    free(s->expert_row);
    free(s);
}

static enum ep_status allocate(const struct ep_exchange *exchange, struct state **state)
{
    const size_t ranks = (size_t)ep_comm_size(exchange->comm);
    const size_t slots = (size_t)exchange->placement->num_slots;
    const size_t copies = (size_t)(exchange->routing->num_tokens * exchange->routing->top_k);
    struct state *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a transport in two stages");
    }
    const int32_t *experts = NULL;
    s->exchange = exchange;
    s->rank = ep_comm_rank(exchange->comm);
    s->num_ranks = (int)ranks;
    s->num_local = ep_placement_local_experts(exchange->placement, s->rank, &experts);
    s->rank_node = calloc(2 * ranks, sizeof *s->rank_node);
    s->slot_node = calloc(2 * slots, sizeof *s->slot_node);
    s->asked = calloc(copies + 1, sizeof *s->asked);
    s->expert_start = calloc((size_t)s->num_local + 1, sizeof *s->expert_start);
    s->next = calloc((size_t)s->num_local * ranks + 1, sizeof *s->next);
    if (s->rank_node == NULL || s->slot_node == NULL || s->asked == NULL ||
        s->expert_start == NULL || s->next == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for tables of %zu copies", copies);
    }
    s->rank_index = s->rank_node + ranks;
    s->slot_index = s->slot_node + slots;
    return EP_OK;
}

static void find_nodes(struct state *s)
{
    const struct ep_placement *placement = s->exchange->placement;
    ep_stage_find_nodes(s->exchange->comm, s->rank_node, s->rank_index);
    for (int64_t slot = 0; slot < placement->num_slots; slot++) {
        s->slot_node[slot] = s->rank_node[placement->slot_rank[slot]];
        s->slot_index[slot] = s->rank_index[placement->slot_rank[slot]];
    }
}

/* The column of one index over all nodes, and the ranks of one node. */
static enum ep_status make_stages(struct state *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const int node = s->rank_node[s->rank];
    const int index = s->rank_index[s->rank];
    struct ep_stage *column = &s->stages[s->dedup ? FIRST : SECOND];
    struct ep_stage *inside = &s->stages[s->dedup ? SECOND : FIRST];
    EP_TRY(ep_stage_init(x, index, node, s->dedup, s->slot_node, column));
    EP_TRY(ep_stage_init(x, node, index, s->dedup, s->slot_index, inside));
out:
    return status;
}

static enum ep_status allocate_arrived(struct state *s, const char *name)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const struct ep_stage_side *in = &s->stages[SECOND].in;
    void *memory = NULL;
    s->row_entry = calloc((size_t)in->num_rows + 1, sizeof *s->row_entry);
    s->expert_row = calloc((size_t)in->num_entries + 1, sizeof *s->expert_row);
    if (s->row_entry == NULL || s->expert_row == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for tables of received rows");
        goto out;
    }
    EP_TRY(ep_stage_allocate(&s->stages[FIRST], name));
    EP_TRY(ep_stage_allocate(&s->stages[SECOND], name));
    EP_TRY(ep_arena_alloc(x->arena, in->num_entries * x->row_bytes, name, &memory));
    s->rows = memory;
    EP_TRY(ep_arena_alloc(x->arena, in->num_entries * x->combine_row_bytes, name, &memory));
    s->outputs = memory;
    place(s);
out:
    return status;
}

static enum ep_status create(const char *name, bool dedup, const struct ep_exchange *exchange,
                             void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = NULL;
    if (ep_comm_ranks_per_node(exchange->comm) == 0) {
        return ep_error_set(EP_EENV, "%s needs equally many ranks on each node", name);
    }
    EP_TRY(ep_comm_agree(exchange->comm, allocate(exchange, &s)));
    s->dedup = dedup;
    find_nodes(s);
    EP_TRY(make_stages(s));
    EP_TRY(ep_comm_agree(exchange->comm, count(s, true)));
    EP_TRY(ep_comm_agree(exchange->comm, allocate_arrived(s, name)));
    *state = s;
    s = NULL;
out:
    destroy(s);
    return status;
}

static enum ep_status create_hier(const struct ep_exchange *exchange, void **state)
{
    return create("hier", true, exchange, state);
}

static enum ep_status create_hier2d(const struct ep_exchange *exchange, void **state)
{
    return create("hier2d", false, exchange, state);
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

/* The network stage: one row per (token, node), to the rank of that node with this one's index. */
static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    for (int r = 0; r < s->num_ranks; r++) {
        const bool in_column = s->rank_index[r] == s->rank_index[s->rank];
        rows[r] = in_column ? s->stages[FIRST].out.row_count[s->rank_node[r]] : 0;
    }
}

/* Where copies end, whatever way they take. */
static void sent_copies(const void *state, int64_t *rows)
{
    const struct state *s = state;
    memset(rows, 0, (size_t)s->num_ranks * sizeof *rows);
    for (int64_t i = 0; i < s->stages[FIRST].out.num_entries; i++) {
        rows[s->exchange->placement->slot_rank[s->asked[i].slot]]++;
    }
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    *e = (struct ep_transport_extras){
        .metadata_bytes = ep_stage_metadata_bytes(&s->stages[FIRST]) +
                          ep_stage_metadata_bytes(&s->stages[SECOND]),
        .padding_bytes = 0,
    };
}

const struct ep_transport ep_transport_hier = {
    .name = "hier",
    .summary = "one row per (token, node) over the network, fanned out and pre-summed in the node",
    .basis = EP_BASIS_NODE,
    .by_alltoall = true,
    .roundings = 3,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"pack", run_pack, pack_bytes},
                                       {"exchange", run_first, NULL},
                                       {"fan-out", run_second, second_bytes},
                                       {"unpack", run_unpack, unpack_bytes}},
                            .num_phases = 5},
        [EP_OP_COMBINE] = {.phases = {{"pack", run_combine_pack, combine_pack_bytes},
                                      {"fan-out", run_combine_second, combine_second_bytes},
                                      {"exchange", run_combine_first, NULL},
                                      {"unpack", run_combine_unpack, combine_unpack_bytes}},
                           .num_phases = 4},
    },
    .create = create_hier,
    .view = view,
    .sent_rows = sent_rows,
    .extras = extras,
    .destroy = destroy,
};

const struct ep_transport ep_transport_hier2d = {
    .name = "hier2d",
    .summary = "one row per (token, expert), inside the node by destination, then over the network",
    .basis = EP_BASIS_COPIES,
    .by_alltoall = true,
    .roundings = 1,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"pack", run_pack, pack_bytes},
                                       {"fan-out", run_first, NULL},
                                       {"exchange", run_second, second_bytes},
                                       {"unpack", run_unpack, unpack_bytes}},
                            .num_phases = 5},
        [EP_OP_COMBINE] = {.phases = {{"pack", run_combine_pack, combine_pack_bytes},
                                      {"exchange", run_combine_second, combine_second_bytes},
                                      {"fan-out", run_combine_first, NULL},
                                      {"unpack", run_combine_unpack, combine_unpack_bytes}},
                           .num_phases = 4},
    },
    .create = create_hier2d,
    .view = view,
    .sent_rows = sent_copies,
    .extras = extras,
    .destroy = destroy,
};
