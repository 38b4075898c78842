/* SPDX-License-Identifier: Apache-2.0 */
/* Stages of transports that move rows in steps. */
#include "bench/xfer_stage.h"

#include "kernels/combine.h"

#include <stdlib.h>
#include <string.h>

void ep_stage_find_nodes(const struct ep_comm *comm, int32_t *rank_node, int32_t *rank_index)
{
    for (int r = 0; r < ep_comm_size(comm); r++) {
        rank_node[r] = ep_comm_node_of(comm, r);
        rank_index[r] = 0;
        for (int q = 0; q < r; q++) {
            rank_index[r] += rank_node[q] == rank_node[r];
        }
    }
}

int64_t ep_stage_ask(const struct ep_exchange *exchange, struct ep_stage_entry *entries)
{
    const struct ep_routing *routing = exchange->routing;
    const struct ep_placement *placement = exchange->placement;
    const int64_t top_k = routing->top_k;
    const int32_t rank = ep_comm_rank(exchange->comm);
    struct ep_stage_entry *next = entries;
    for (int64_t t = 0; t < routing->num_tokens; t++) {
        const int32_t *experts = routing->topk_idx + t * top_k;
        const float *weights = routing->topk_weight + t * top_k;
        for (int64_t j = 0; j < top_k; j++) {
            if (experts[j] >= 0) {
                *next++ = (struct ep_stage_entry){
                    .row = (int32_t)t,
                    .slot = (int32_t)ep_placement_slot(placement, experts[j], rank),
                    .source = rank,
                    .weight = weights[j],
                };
            }
        }
    }
    return next - entries;
}

static enum ep_status allocate_side(size_t num_peers, struct ep_stage_side *side)
{
    side->row_count = calloc(4 * num_peers, sizeof *side->row_count);
    if (side->row_count == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a stage of %zu peers", num_peers);
    }
    side->row_start = side->row_count + num_peers;
    side->entry_count = side->row_count + 2 * num_peers;
    side->entry_start = side->row_count + 3 * num_peers;
    return EP_OK;
}

static enum ep_status allocate(struct ep_stage *s)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = s->exchange;
    const size_t num_peers = (size_t)s->num_peers;
    EP_TRY(allocate_side(num_peers, &s->out));
    EP_TRY(allocate_side(num_peers, &s->in));
    s->pair_counts = calloc(4 * num_peers, sizeof *s->pair_counts);
    s->last_row = calloc(num_peers, sizeof *s->last_row);
    if (s->pair_counts == NULL || s->last_row == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a stage of %zu peers", num_peers);
        goto out;
    }
    EP_TRY(ep_comm_type_of_row((int64_t)sizeof(struct ep_stage_entry), &s->entry));
    EP_TRY(ep_comm_type_of_row(x->row_bytes, &s->row[EP_OP_DISPATCH]));
    EP_TRY(ep_comm_type_of_row(x->combine_row_bytes, &s->row[EP_OP_COMBINE]));
out:
    return status;
}

enum ep_status ep_stage_init(const struct ep_exchange *exchange, int color, int key, bool dedup,
                             const int32_t *peer_of_slot, struct ep_stage *stage)
{
    enum ep_status status = EP_OK;
    struct ep_stage s = {
        .exchange = exchange,
        .dedup = dedup,
        .peer_of_slot = peer_of_slot,
        .entry = MPI_DATATYPE_NULL,
        .row = {MPI_DATATYPE_NULL, MPI_DATATYPE_NULL},
    };
    EP_TRY(ep_comm_create_split(exchange->comm, color, key, &s.comm));
    s.num_peers = ep_comm_size(s.comm);
    EP_TRY(ep_comm_agree(exchange->comm, allocate(&s)));
    *stage = s;
    return EP_OK;
out:
    ep_stage_fini(&s);
    return status;
}

static void free_type(MPI_Datatype *type)
{
    if (*type != MPI_DATATYPE_NULL) {
        MPI_Type_free(type);
    }
}

void ep_stage_fini(struct ep_stage *s)
{
    if (s->comm == NULL) {
        return; /* never made */
    }
    free_type(&s->entry);
    free_type(&s->row[EP_OP_DISPATCH]);
    free_type(&s->row[EP_OP_COMBINE]);
    free(s->out.row_count);
    free(s->out.entries);
    free(s->in.row_count);
    free(s->in.entries);
    free(s->pair_counts);
    free(s->last_row);
    free(s->fold_start);
    free(s->fold_row);
    free(s->fold_weight);
    ep_comm_destroy(s->comm);
    *s = (struct ep_stage){0};
}

/* Room for `num` elements where *max is less. */
static enum ep_status grow(void **array, int64_t *max, int64_t num, size_t size)
{
    if (*array != NULL && num <= *max) {
        return EP_OK;
    }
    void *larger = realloc(*array, (size_t)(num + 1) * size);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %lld entries of a stage", (long long)num);
    }
    *array = larger;
    *max = num;
    return EP_OK;
}

/* What is sent to each peer: one row per (asked row, peer) with dedup, else one per entry. */
static void count_rows(struct ep_stage *s, const struct ep_stage_entry *entries, int64_t num)
{
    memset(s->out.row_count, 0, (size_t)s->num_peers * sizeof *s->out.row_count);
    memset(s->out.entry_count, 0, (size_t)s->num_peers * sizeof *s->out.entry_count);
    for (int p = 0; p < s->num_peers; p++) {
        s->last_row[p] = -1;
    }
    for (int64_t i = 0; i < num; i++) {
        const int32_t peer = s->peer_of_slot[entries[i].slot];
        s->out.entry_count[peer]++;
        if (!s->dedup || s->last_row[peer] != entries[i].row) {
            s->last_row[peer] = entries[i].row;
            s->out.row_count[peer]++;
        }
    }
}

static void find_starts(struct ep_stage_side *side, int num_peers)
{
    int rows = 0;
    int entries = 0;
    for (int p = 0; p < num_peers; p++) {
        side->row_start[p] = rows;
        side->entry_start[p] = entries;
        rows += side->row_count[p];
        entries += side->entry_count[p];
    }
}

static enum ep_status exchange_counts(struct ep_stage *s)
{
    enum ep_status status = EP_OK;
    int *sent = s->pair_counts;
    int *received = s->pair_counts + 2 * s->num_peers;
    for (int p = 0; p < s->num_peers; p++) {
        sent[2 * p] = s->out.row_count[p];
        sent[2 * p + 1] = s->out.entry_count[p];
    }
    EP_TRY(ep_comm_check(MPI_Alltoall(sent, 2, MPI_INT, received, 2, MPI_INT,
                                      ep_comm_handle(s->comm)),
                         "MPI_Alltoall of counts"));
    int64_t totals[4] = {0};
    for (int p = 0; p < s->num_peers; p++) {
        s->in.row_count[p] = received[2 * p];
        s->in.entry_count[p] = received[2 * p + 1];
        totals[0] += s->out.row_count[p];
        totals[1] += s->out.entry_count[p];
        totals[2] += s->in.row_count[p];
        totals[3] += s->in.entry_count[p];
    }
    int as_int[4];
    EP_TRY(ep_comm_to_int(totals, 4, "rows of one rank in one stage", as_int));
    s->out.num_rows = totals[0];
    s->out.num_entries = totals[1];
    s->in.num_rows = totals[2];
    s->in.num_entries = totals[3];
    find_starts(&s->out, s->num_peers);
    find_starts(&s->in, s->num_peers);
out:
    return status;
}

static enum ep_status make_room(struct ep_stage *s)
{
    enum ep_status status = EP_OK;
    int64_t max_rows = s->max_fold;
    EP_TRY(grow((void **)&s->out.entries, &s->out.max_entries, s->out.num_entries,
                sizeof *s->out.entries));
    EP_TRY(grow((void **)&s->in.entries, &s->in.max_entries, s->in.num_entries,
                sizeof *s->in.entries));
    EP_TRY(grow((void **)&s->fold_row, &max_rows, s->out.num_rows, sizeof *s->fold_row));
    EP_TRY(grow((void **)&s->fold_weight, &s->max_fold, s->out.num_rows, sizeof *s->fold_weight));
    EP_TRY(grow((void **)&s->fold_start, &s->max_asked, s->num_asked, sizeof *s->fold_start));
out:
    return status;
}

/* Entries peer by peer, and which rows out belong to which asked row: entries come ordered by asked row,
 * so that a row out is new where the peer's last asked row was another. */
static void fill_entries(struct ep_stage *s, bool weigh, const struct ep_stage_entry *entries,
                         int64_t num)
{
    int *next_row = s->pair_counts; /* [num_peers], free for use here */
    int *next_entry = s->pair_counts + s->num_peers;
    for (int p = 0; p < s->num_peers; p++) {
        s->last_row[p] = -1;
        next_row[p] = 0;
        next_entry[p] = s->out.entry_start[p];
    }
    int64_t asked = 0;
    int64_t folded = 0;
    s->fold_start[0] = 0;
    for (int64_t i = 0; i < num; i++) {
        const int32_t peer = s->peer_of_slot[entries[i].slot];
        while (asked < entries[i].row) {
            s->fold_start[++asked] = folded;
        }
        if (!s->dedup || s->last_row[peer] != entries[i].row) {
            s->last_row[peer] = entries[i].row;
            s->fold_row[folded] = s->out.row_start[peer] + next_row[peer]++;
            s->fold_weight[folded++] = weigh ? entries[i].weight : 1;
        }
        s->out.entries[next_entry[peer]++] = (struct ep_stage_entry){
            .row = next_row[peer] - 1,
            .slot = entries[i].slot,
            .source = entries[i].source,
            .weight = weigh ? 1 : entries[i].weight,
        };
    }
    while (asked < s->num_asked) {
        s->fold_start[++asked] = folded;
    }
}

enum ep_status ep_stage_count(struct ep_stage *stage, bool first, bool weigh,
                              const struct ep_stage_entry *entries, int64_t num_entries,
                              int64_t num_rows)
{
    enum ep_status status = EP_OK;
    EP_ASSERT(!weigh || !stage->dedup); /* the weights of copies that share a row stay theirs */
    stage->num_asked = num_rows;
    count_rows(stage, entries, num_entries);
    status = exchange_counts(stage);
    if (status == EP_OK) {
        status = make_room(stage);
    }
    EP_TRY(first ? ep_comm_agree(stage->exchange->comm, status) : status);
    fill_entries(stage, weigh, entries, num_entries);
    EP_TRY(ep_comm_check(MPI_Alltoallv(stage->out.entries, stage->out.entry_count,
                                       stage->out.entry_start, stage->entry, stage->in.entries,
                                       stage->in.entry_count, stage->in.entry_start, stage->entry,
                                       ep_comm_handle(stage->comm)),
                         "MPI_Alltoallv of entries"));
    for (int p = 0; p < stage->num_peers; p++) {
        struct ep_stage_entry *from = stage->in.entries + stage->in.entry_start[p];
        for (int i = 0; i < stage->in.entry_count[p]; i++) {
            from[i].row += stage->in.row_start[p];
        }
    }
out:
    return status;
}

enum ep_status ep_stage_allocate(struct ep_stage *stage, const char *name)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = stage->exchange;
    const int64_t widest =
        x->row_bytes > x->combine_row_bytes ? x->row_bytes : x->combine_row_bytes;
    void *memory = NULL;
    EP_TRY(ep_arena_alloc(x->arena, stage->out.num_rows * widest, name, &memory));
    stage->out.buffer = memory;
    EP_TRY(ep_arena_alloc(x->arena, stage->in.num_rows * widest, name, &memory));
    stage->in.buffer = memory;
out:
    return status;
}

void ep_stage_pack(struct ep_stage *stage, const char *rows)
{
    const struct ep_exchange *x = stage->exchange;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t row = 0; row < stage->num_asked; row++) {
        for (int64_t i = stage->fold_start[row]; i < stage->fold_start[row + 1]; i++) {
            memcpy(stage->out.buffer + stage->fold_row[i] * x->row_bytes, rows + row * x->row_bytes,
                   (size_t)x->row_bytes);
        }
    }
}

enum ep_status ep_stage_move(struct ep_stage *stage, enum ep_op op)
{
    const bool forward = op == EP_OP_DISPATCH;
    const struct ep_stage_side *from = forward ? &stage->out : &stage->in;
    const struct ep_stage_side *to = forward ? &stage->in : &stage->out;
    return ep_comm_check(MPI_Alltoallv(from->buffer, from->row_count, from->row_start,
                                       stage->row[op], to->buffer, to->row_count, to->row_start,
                                       stage->row[op], ep_comm_handle(stage->comm)),
                         forward ? "MPI_Alltoallv of rows" : "MPI_Alltoallv of results");
}

void ep_stage_fold(const struct ep_stage *stage, char *rows)
{
    const struct ep_exchange *x = stage->exchange;
#pragma omp parallel for num_threads(x->threads) if (x->threads > 1)
    for (int64_t row = 0; row < stage->num_asked; row++) {
        const void *terms[EP_TRANSPORT_MAX_TOP_K];
        const int64_t first = stage->fold_start[row];
        const int64_t num = stage->fold_start[row + 1] - first;
        EP_ASSERT(num <= EP_TRANSPORT_MAX_TOP_K);
        for (int64_t i = 0; i < num; i++) {
            terms[i] = stage->out.buffer + stage->fold_row[first + i] * x->combine_row_bytes;
        }
        char *to = rows + row * x->combine_row_bytes;
        if (num == 1 && stage->fold_weight[first] == 1) {
            memcpy(to, terms[0], (size_t)x->combine_row_bytes);
        } else {
            ep_combine_row(x->combine_dtype, x->hidden, num, terms, stage->fold_weight + first, to);
        }
    }
}

int64_t ep_stage_pack_bytes(const struct ep_stage *stage)
{
    return 2 * stage->out.num_rows * stage->exchange->row_bytes;
}

int64_t ep_stage_fold_bytes(const struct ep_stage *stage)
{
    return (stage->out.num_rows + stage->num_asked) * stage->exchange->combine_row_bytes;
}

int64_t ep_stage_metadata_bytes(const struct ep_stage *stage)
{
    const int self = ep_comm_rank(stage->comm);
    const int64_t entries = stage->out.num_entries - stage->out.entry_count[self];
    return (stage->num_peers - 1) * 2 * (int64_t)sizeof(int) +
           entries * (int64_t)sizeof(struct ep_stage_entry);
}
