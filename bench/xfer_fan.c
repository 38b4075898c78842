/* SPDX-License-Identifier: Apache-2.0 */
/* Rows through the shared memory of a node. */
#include "bench/xfer_fan.h"

#include "kernels/combine.h"
#include "kernels/row_copy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT, COUNT, LIST, ROWS, OUTPUTS, NUM_SHOWN };

const char *const ep_fan_ways[] = {
    [EP_FAN_PULL] = "pull",
    [EP_FAN_PULL_STREAM] = "pull-stream",
    [EP_FAN_PUSH] = "push",
    [EP_FAN_PUSH_STREAM] = "push-stream",
    [EP_NUM_FAN_WAYS] = NULL,
};

/* --- setting up ------------------------------------------------------------------------------ */

static enum ep_status allocate(struct ep_fan *f)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = f->exchange;
    const size_t members = (size_t)f->num_members;
    const size_t keys = (size_t)f->num_keys;
    const size_t counts = (size_t)f->num_nodes * keys;
    void *memory = NULL;
    f->member_at = calloc(counts + 1, sizeof *f->member_at);
    f->entry_at = calloc((size_t)f->max_entries + 1, sizeof *f->entry_at);
    f->shown = calloc(members, sizeof *f->shown);
    f->offset = calloc(members * NUM_SHOWN, sizeof *f->offset);
    f->next = calloc(counts + 1, sizeof *f->next);
    f->expert_start = calloc((size_t)f->num_local + 1, sizeof *f->expert_start);
    f->pull_start = calloc(members * (size_t)f->num_local + 1, sizeof *f->pull_start);
    f->row_entry = calloc((size_t)f->max_rows + 1, sizeof *f->row_entry);
    f->place = calloc((size_t)f->max_entries + 1, sizeof *f->place);
    if (f->member_at == NULL || f->entry_at == NULL || f->shown == NULL || f->offset == NULL || f->next == NULL ||
        f->expert_start == NULL || f->pull_start == NULL || f->row_entry == NULL || f->place == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for tables of %" PRId64 " copies",
                              f->max_entries);
        goto out;
    }
    EP_TRY(ep_arena_alloc(x->arena, (int64_t)(counts * sizeof *f->count), "counts", &memory));
    f->count = memory;
    EP_TRY(ep_arena_alloc(x->arena, f->max_entries * (int64_t)sizeof *f->list, "lists", &memory));
    f->list = memory;
out:
    return status;
}

/* Keys of the node's members, in their order; the ranks of comm are the members. */
static enum ep_status find_members(struct ep_fan *f)
{
    const struct ep_exchange *x = f->exchange;
    const struct ep_placement *placement = x->placement;
    const int own_rank = ep_comm_rank(x->comm);
    f->num_members = ep_comm_size(f->comm);
    f->member = ep_comm_rank(f->comm);
    f->num_nodes = 1;
    f->key_start = calloc((size_t)f->num_members + 1, sizeof *f->key_start);
    f->slot_key = calloc((size_t)placement->num_slots, sizeof *f->slot_key);
    f->world_rank = calloc((size_t)f->num_members, sizeof *f->world_rank);
    if (f->key_start == NULL || f->slot_key == NULL || f->world_rank == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %d ranks of a node", f->num_members);
    }
    for (int r = 0; r < ep_comm_size(x->comm); r++) { /* members are numbered in the ranks' order */
        if (f->rank_node[r] == f->rank_node[own_rank]) {
            const int32_t num = placement->local_start[r + 1] - placement->local_start[r];
            f->key_start[f->rank_index[r] + 1] = f->key_start[f->rank_index[r]] + num;
        }
        f->num_nodes = f->rank_node[r] < f->num_nodes ? f->num_nodes : f->rank_node[r] + 1;
    }
    f->num_keys = f->key_start[f->num_members];
    f->num_local = f->key_start[f->member + 1] - f->key_start[f->member];
    return EP_OK;
}

static void find_keys(struct ep_fan *f)
{
    const struct ep_placement *placement = f->exchange->placement;
    const int32_t node = f->rank_node[ep_comm_rank(f->exchange->comm)];
    for (int64_t slot = 0; slot < placement->num_slots; slot++) {
        const int32_t rank = placement->slot_rank[slot];
        f->slot_key[slot] = -1;
        if (f->rank_node[rank] == node) {
            const int32_t key = f->key_start[f->rank_index[rank]] + placement->slot_local[slot];
            f->slot_key[slot] = key;
            for (int n = 0; n < f->num_nodes; n++) {
                f->member_at[n * f->num_keys + key] = f->rank_index[rank];
            }
        }
    }
}

/* All members in the same memory, seen from each alike. */
static enum ep_status check_share(const struct ep_fan *f)
{
    const struct ep_share *share = f->exchange->share;
    if (share == NULL) {
        return ep_error_set(EP_EENV, "buffers are not in shared memory (see the warning "
                            "private-buffers)");
    }
    for (int m = 0; m < f->num_members; m++) {
        if (!ep_share_has(share, (int)f->world_rank[m])) {
            return ep_error_set(EP_EENV, "the ranks are on %d nodes (hier-shm goes over the network "
                                "between them)", ep_comm_num_nodes(f->exchange->comm));
        }
    }
    return EP_OK;
}

/* Tell all members where this one's buffers lie in its segment, and find theirs. */
static enum ep_status show(struct ep_fan *f, const char *input)
{
    enum ep_status status = EP_OK;
    const struct ep_share *share = f->exchange->share;
    const char *base = ep_share_segment(share, (int)f->world_rank[f->member]);
    const char *own[NUM_SHOWN] = {input, (const char *)f->count, (const char *)f->list, f->rows,
                                  f->outputs};
    int64_t offset[NUM_SHOWN];
    for (int i = 0; i < NUM_SHOWN; i++) {
        offset[i] = own[i] != NULL ? own[i] - base : 0;
    }
    EP_TRY(ep_comm_allgather_i64(f->comm, offset, NUM_SHOWN, f->offset));
    for (int m = 0; m < f->num_members; m++) {
        char *segment = ep_share_segment(share, (int)f->world_rank[m]);
        const int64_t *at = f->offset + m * NUM_SHOWN;
        f->shown[m] = (struct ep_fan_shown){
            .input = segment + at[INPUT],
            .count = (const int32_t *)(const void *)(segment + at[COUNT]),
            .list = (const int32_t *)(const void *)(segment + at[LIST]),
            .rows = segment + at[ROWS],
            .outputs = segment + at[OUTPUTS],
        };
    }
out:
    return status;
}

enum ep_status ep_fan_init(const struct ep_exchange *exchange, const int32_t *rank_node,
                           const int32_t *rank_index, int64_t max_entries, int64_t max_rows,
                           struct ep_fan *fan)
{
    enum ep_status status = EP_OK;
    const int rank = ep_comm_rank(exchange->comm);
    struct ep_fan f = {
        .exchange = exchange,
        .rank_node = rank_node,
        .rank_index = rank_index,
        .max_entries = max_entries,
        .max_rows = max_rows,
    };
    for (int way = 0; way < EP_NUM_FAN_WAYS && exchange->algorithm != NULL; way++) {
        if (strcmp(exchange->algorithm, ep_fan_ways[way]) == 0) {
            f.way = (enum ep_fan_way)way;
            f.forced = true;
        }
    }
    EP_TRY(ep_comm_create_split(exchange->comm, rank_node[rank], rank_index[rank], &f.comm));
    EP_TRY(ep_comm_agree(exchange->comm, find_members(&f)));
    const int64_t own = ep_comm_world_rank(exchange->comm);
    EP_TRY(ep_comm_allgather_i64(f.comm, &own, 1, f.world_rank));
    EP_TRY(ep_comm_agree(exchange->comm, check_share(&f)));
    EP_TRY(ep_comm_agree(exchange->comm, allocate(&f)));
    find_keys(&f);
    EP_TRY(ep_comm_agree(exchange->comm, ep_share_barrier_create(exchange->share, f.comm,
                                                                 exchange->arena, &f.barrier)));
    EP_TRY(show(&f, NULL)); /* counts and lists */
    *fan = f;
    f = (struct ep_fan){0};
out:
    ep_fan_fini(&f);
    return status;
}

void ep_fan_fini(struct ep_fan *f)
{
    ep_share_barrier_destroy(f->barrier);
    free(f->key_start);
    free(f->member_at);
    free(f->entry_at);
    free(f->slot_key);
    free(f->shown);
    free(f->offset);
    free(f->world_rank);
    free(f->next);
    free(f->expert_start);
    free(f->pull_start);
    free(f->row_entry);
    free(f->place);
    ep_comm_destroy(f->comm);
    *f = (struct ep_fan){0};
}

/* Of what stays in the caches, rows with many copies are pushed, being read once; with few copies an owner
 * that pulls has them in its own cache afterwards. Sums write one row in k + 1, so that their hints pay only
 * where no cache can hold the rows. Source: bench/README.md, "shm". The same on all ranks. */
static enum ep_status choose_way(struct ep_fan *f)
{
    enum { MANY_COPIES = 4 };
    static const double stream_fill = 1;
    static const double hint_fill = 2;
    const struct ep_exchange *x = f->exchange;
    int64_t sums[2] = {f->num_rows, f->num_entries};
    const enum ep_status status = ep_comm_sum_i64(f->comm, sums, 2);
    const int64_t mean_rows = (sums[0] + sums[1]) / f->num_members;
    f->hints_sums = ep_exchange_cache_fill(x, mean_rows * x->combine_row_bytes) > hint_fill;
    if (f->forced) {
        return status;
    }
    if (ep_exchange_cache_fill(x, mean_rows * x->row_bytes) > stream_fill) {
        f->way = EP_FAN_PUSH_STREAM;
    } else {
        f->way = sums[1] >= MANY_COPIES * sums[0] ? EP_FAN_PUSH : EP_FAN_PULL;
    }
    return status;
}

enum ep_status ep_fan_allocate(struct ep_fan *f, const char *name, const char *input)
{
    enum ep_status status = EP_OK;
    const struct ep_exchange *x = f->exchange;
    const int64_t received = f->expert_start[f->num_local];
    void *memory = NULL;
    status = ep_arena_alloc_rows(x->arena, received, x->most_received, x->row_bytes, name, &memory);
    f->rows = memory;
    if (status == EP_OK) {
        status = ep_arena_alloc_rows(x->arena, received, x->most_received, x->combine_row_bytes, name,
                                     &memory);
        f->outputs = memory;
    }
    EP_TRY(ep_comm_agree(x->comm, status));
    EP_TRY(choose_way(f));
    EP_TRY(show(f, input));
out:
    return status;
}

/* --- counts and places ----------------------------------------------------------------------- */

/* How many copies there are of each (node of the source, key), and which entries each row has. Fields are
 * held in variables: the compiler cannot know that no count is one of them. */
static void count_own(struct ep_fan *f)
{
    const struct ep_stage_entry *entries = f->entries;
    const int32_t *slot_key = f->slot_key;
    const int32_t *rank_node = f->rank_node;
    const int32_t num_keys = (int32_t)f->num_keys;
    const int64_t num_entries = f->num_entries;
    int32_t *count = f->count;
    int32_t *entry_at = f->entry_at;
    int64_t *row_entry = f->row_entry;
    int64_t row = 0;
    memset(count, 0, (size_t)(f->num_nodes * num_keys) * sizeof *count);
    for (int64_t i = 0; i < num_entries; i++) {
        const struct ep_stage_entry *e = &entries[i];
        while (row <= e->row) {
            row_entry[row++] = i;
        }
        entry_at[i] = rank_node[e->source] * num_keys + slot_key[e->slot];
        count[entry_at[i]]++;
    }
    while (row <= f->num_rows) {
        row_entry[row++] = num_entries;
    }
}

/* Rows sorted by (key, node of the source): what owners pull from. */
static void list_own(struct ep_fan *f)
{
    int64_t start = 0;
    for (int64_t key = 0; key < f->num_keys; key++) {
        for (int node = 0; node < f->num_nodes; node++) {
            f->next[node * f->num_keys + key] = start;
            start += f->count[node * f->num_keys + key];
        }
    }
    for (int64_t i = 0; i < f->num_entries; i++) {
        f->list[f->next[f->entry_at[i]]++] = f->entries[i].row;
    }
}

/* First rows of this rank's copies by (node of the source, key), and of its own experts. Rows of an expert
 * are ordered by (source, token). */
static void find_starts(struct ep_fan *f)
{
    const int num_ranks = ep_comm_size(f->exchange->comm);
    for (int m = 0; m < f->num_members; m++) {
        int64_t row = 0;
        for (int32_t key = f->key_start[m]; key < f->key_start[m + 1]; key++) {
            if (m == f->member) {
                f->expert_start[key - f->key_start[m]] = row;
            }
            for (int source = 0; source < num_ranks; source++) {
                const int64_t at = f->rank_node[source] * f->num_keys + key;
                if (f->rank_index[source] == f->member) {
                    f->next[at] = row;
                }
                row += f->shown[f->rank_index[source]].count[at];
            }
        }
        if (m == f->member) {
            f->expert_start[f->num_local] = row;
        }
        EP_ASSERT(row <= INT32_MAX);
    }
}

static void find_places(struct ep_fan *f)
{
    const int64_t num_entries = f->num_entries;
    const int32_t *entry_at = f->entry_at;
    const int32_t *member_at = f->member_at;
    struct ep_fan_place *place = f->place;
    int64_t *next = f->next;
    for (int64_t i = 0; i < num_entries; i++) {
        const int32_t at = entry_at[i];
        place[i] = (struct ep_fan_place){.member = member_at[at], .row = (int32_t)next[at]++};
    }
}

/* Where each member's list has the copies for each own expert. */
static void find_lists(struct ep_fan *f)
{
    for (int m = 0; m < f->num_members; m++) {
        int64_t listed = 0;
        for (int64_t key = 0; key < f->key_start[f->member + 1]; key++) {
            if (key >= f->key_start[f->member]) {
                f->pull_start[m * f->num_local + key - f->key_start[f->member]] = listed;
            }
            for (int node = 0; node < f->num_nodes; node++) {
                listed += f->shown[m].count[node * f->num_keys + key];
            }
        }
    }
}

static bool pulls(const struct ep_fan *f)
{
    return f->way == EP_FAN_PULL || f->way == EP_FAN_PULL_STREAM;
}

static bool streams(const struct ep_fan *f)
{
    return f->way == EP_FAN_PULL_STREAM || f->way == EP_FAN_PUSH_STREAM;
}

enum ep_status ep_fan_count(struct ep_fan *f, const struct ep_stage_entry *entries,
                            int64_t num_entries, int64_t num_rows)
{
    EP_ASSERT(num_entries <= f->max_entries && num_rows <= f->max_rows);
    f->entries = entries;
    f->num_entries = num_entries;
    f->num_rows = num_rows;
    count_own(f);
    if (pulls(f)) {
        list_own(f);
    }
    const enum ep_status status = ep_fan_sync(f);
    if (status == EP_OK) {
        find_starts(f);
        find_places(f);
        if (pulls(f)) {
            find_lists(f);
        }
    }
    return status;
}

enum ep_status ep_fan_sync(struct ep_fan *f)
{
    return ep_share_barrier_wait(f->barrier);
}

/* --- rows ------------------------------------------------------------------------------------ */

/* Rows that one member has for one key and node, to `row` on. */
static void pull_block(const struct ep_fan *f, const struct ep_fan_shown *from, const int32_t *list,
                       int64_t num, int64_t row)
{
    const struct ep_exchange *x = f->exchange;
    const size_t row_bytes = (size_t)x->row_bytes;
    for (int64_t i = 0; i < num; i++) {
        char *to = f->rows + (size_t)(row + i) * row_bytes;
        const char *source = from->input + (size_t)list[i] * row_bytes;
        if (streams(f)) {
            ep_row_stream(to, source, row_bytes);
        } else {
            memcpy(to, source, row_bytes);
        }
    }
}

/* All sources' rows for one own expert. */
static void pull_expert(const struct ep_fan *f, int64_t expert)
{
    const int num_ranks = ep_comm_size(f->exchange->comm);
    const int64_t key = f->key_start[f->member] + expert;
    for (int step = 0; step < f->num_members; step++) { /* each begins with another member */
        const int from = (f->member + step) % f->num_members;
        int64_t listed = f->pull_start[from * f->num_local + expert];
        int64_t row = f->expert_start[expert];
        for (int source = 0; source < num_ranks; source++) {
            const int holder = f->rank_index[source];
            const int64_t num = f->shown[holder].count[f->rank_node[source] * f->num_keys + key];
            if (holder == from) {
                pull_block(f, &f->shown[from], f->shown[from].list + listed, num, row);
                listed += num;
            }
            row += num;
        }
    }
}

static void pull(const struct ep_fan *f)
{
    const int threads = f->exchange->threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(dynamic)
        for (int64_t e = 0; e < f->num_local; e++) {
            pull_expert(f, e);
        }
        ep_row_stream_end();
    }
}

/* The holder writes each of its rows to all its places. */
static void push(const struct ep_fan *f, const char *input)
{
    const struct ep_exchange *x = f->exchange;
    const size_t row_bytes = (size_t)x->row_bytes;
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
#pragma omp for
        for (int64_t row = 0; row < f->num_rows; row++) {
            const char *from = input + (size_t)row * row_bytes;
            for (int64_t i = f->row_entry[row]; i < f->row_entry[row + 1]; i++) {
                const struct ep_fan_place *place = &f->place[i];
                char *to = f->shown[place->member].rows + (size_t)place->row * row_bytes;
                if (streams(f)) {
                    ep_row_stream(to, from, row_bytes);
                } else {
                    memcpy(to, from, row_bytes);
                }
            }
        }
        ep_row_stream_end();
    }
}

enum ep_status ep_fan_out(struct ep_fan *f)
{
    if (pulls(f)) {
        pull(f);
    } else {
        push(f, f->shown[f->member].input);
    }
    return ep_fan_sync(f);
}

/* The results of a row, where the experts left them. Returns how many. */
static int64_t find_terms(const struct ep_fan *f, int64_t row, const void **terms)
{
    const size_t row_bytes = (size_t)f->exchange->combine_row_bytes;
    const int64_t first = f->row_entry[row];
    const int64_t num = f->row_entry[row + 1] - first;
    EP_ASSERT(num <= EP_TRANSPORT_MAX_TOP_K);
    for (int64_t i = 0; i < num; i++) {
        const struct ep_fan_place *place = &f->place[first + i];
        terms[i] = f->shown[place->member].outputs + (size_t)place->row * row_bytes;
    }
    return num;
}

static void sum_row(const struct ep_fan *f, int64_t row, char *sum)
{
    const struct ep_exchange *x = f->exchange;
    const void *terms[EP_TRANSPORT_MAX_TOP_K];
    const void *next[EP_TRANSPORT_MAX_TOP_K];
    float weights[EP_TRANSPORT_MAX_TOP_K];
    const int64_t num = find_terms(f, row, terms);
    for (int64_t i = 0; i < num; i++) {
        weights[i] = f->entries[f->row_entry[row] + i].weight;
    }
    const struct ep_combine_hints hints = {
        .stream = f->hints_sums,
        .num_next = f->hints_sums && row + 1 < f->num_rows ? find_terms(f, row + 1, next) : 0,
        .next = next,
    };
    ep_combine_row_hinted(x->combine_dtype, x->hidden, num, terms, weights, &hints, sum);
}

enum ep_status ep_fan_sum(struct ep_fan *f, char *sums)
{
    const struct ep_exchange *x = f->exchange;
    const enum ep_status status = ep_fan_sync(f);
    if (status != EP_OK) {
        return status;
    }
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
#pragma omp for
        for (int64_t row = 0; row < f->num_rows; row++) {
            sum_row(f, row, sums + (size_t)row * (size_t)x->combine_row_bytes);
        }
        ep_row_stream_end();
    }
    return ep_fan_sync(f);
}

/* --- what it cost ---------------------------------------------------------------------------- */

int64_t ep_fan_out_bytes(const struct ep_fan *f)
{
    const int64_t row_bytes = f->exchange->row_bytes;
    return pulls(f) ? 2 * f->expert_start[f->num_local] * row_bytes
                    : (f->num_rows + f->num_entries) * row_bytes;
}

int64_t ep_fan_sum_bytes(const struct ep_fan *f)
{
    return (f->num_entries + f->num_rows) * f->exchange->combine_row_bytes;
}

/* Counts go to all others; where they pull, the rows of their copies too. */
int64_t ep_fan_metadata_bytes(const struct ep_fan *f)
{
    int64_t remote = 0;
    for (int64_t i = 0; i < f->num_entries && pulls(f); i++) {
        remote += f->place[i].member != f->member;
    }
    return ((f->num_members - 1) * f->num_nodes * f->num_keys + remote) * (int64_t)sizeof(int32_t);
}

void ep_fan_view(const struct ep_fan *f, struct ep_expert_rows *rows)
{
    *rows = (struct ep_expert_rows){
        .num_experts = f->num_local,
        .start = f->expert_start,
        .rows = f->rows,
        .outputs = f->outputs,
    };
}
