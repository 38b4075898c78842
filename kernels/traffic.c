/* SPDX-License-Identifier: Apache-2.0 */
/* Counting rows: one pass over the indices, destinations of a token as bits where they fit a word.
 */
#include "kernels/traffic.h"

#include "kernels/skew_policy.h"
#include "kernels/traffic_blocks.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MASK_BITS = 64, CHUNK_TOKENS = 4096 };

/* Tables are indexed by expert + 1, so that -1 is a row of its own. */
struct ep_traffic_scratch {
    int64_t source; /* the tables are for this source; -1 = not made yet */
    int32_t *rank;  /* [num_experts + 1] where this source sends each expert's copies */
    struct ep_traffic_masks *masks; /* [num_experts + 1] 0 for -1; used up to 64 ranks */
    uint32_t *lane_hits; /* [EP_TRAFFIC_LANES][num_experts + 1] of the block being added */
    int64_t *hits;       /* [num_experts + 1] copies of the tokens being added */
    int64_t *rank_stamp; /* [num_ranks] the last token that went there; used above 64 ranks */
    int64_t *node_stamp; /* [num_nodes] */
    int64_t stamp;
    int32_t *node_index; /* [num_ranks] index of a rank within its node */
    int64_t *node_start; /* [num_nodes + 1] into node_ranks */
    int32_t *node_ranks; /* [num_ranks] ranks by node, ascending */
};

const char *ep_basis_name(enum ep_basis basis)
{
    static const char *const names[EP_NUM_BASES] = {
        [EP_BASIS_COPIES] = "copies",
        [EP_BASIS_RANK] = "rank-dedup",
        [EP_BASIS_NODE] = "node-dedup",
    };
    EP_ASSERT((unsigned)basis < EP_NUM_BASES);
    return names[basis];
}

static enum ep_status no_memory(void)
{
    return ep_error_set(EP_ENOMEM, "no memory to count traffic");
}

static enum ep_status allocate_scratch(struct ep_traffic *t)
{
    const size_t experts = (size_t)t->placement->num_experts + 1;
    const size_t ranks = (size_t)t->num_ranks;
    const size_t nodes = (size_t)t->num_nodes;
    struct ep_traffic_scratch *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return no_memory();
    }
    t->scratch = s;
    s->source = -1;
    s->rank = calloc(experts, sizeof *s->rank);
    s->masks = calloc(experts, sizeof *s->masks);
    s->lane_hits = calloc(EP_TRAFFIC_LANES * experts, sizeof *s->lane_hits);
    s->hits = calloc(experts, sizeof *s->hits);
    s->rank_stamp = calloc(ranks, sizeof *s->rank_stamp);
    s->node_stamp = calloc(nodes, sizeof *s->node_stamp);
    s->node_index = calloc(ranks, sizeof *s->node_index);
    s->node_start = calloc(nodes + 1, sizeof *s->node_start);
    s->node_ranks = calloc(ranks, sizeof *s->node_ranks);
    return s->rank != NULL && s->masks != NULL && s->lane_hits != NULL && s->hits != NULL &&
                   s->rank_stamp != NULL && s->node_stamp != NULL && s->node_index != NULL &&
                   s->node_start != NULL && s->node_ranks != NULL
               ? EP_OK
               : no_memory();
}

static enum ep_status allocate_counts(struct ep_traffic *t)
{
    const size_t ranks = (size_t)t->num_ranks;
    const size_t rows = t->one_row ? 1 : ranks;
    t->rank_node = calloc(ranks, sizeof *t->rank_node);
    t->tokens = calloc(ranks, sizeof *t->tokens);
    t->copies = calloc(rows * ranks, sizeof *t->copies);
    t->ranks = calloc(rows * ranks, sizeof *t->ranks);
    t->nodes = calloc(rows * (size_t)t->num_nodes, sizeof *t->nodes);
    t->expert_copies = calloc((size_t)t->placement->num_experts, sizeof *t->expert_copies);
    t->rank_fan_out = calloc((size_t)t->top_k + 1, sizeof *t->rank_fan_out);
    t->node_fan_out = calloc((size_t)t->top_k + 1, sizeof *t->node_fan_out);
    return t->rank_node != NULL && t->tokens != NULL && t->copies != NULL && t->ranks != NULL &&
                   t->nodes != NULL && t->expert_copies != NULL && t->rank_fan_out != NULL &&
                   t->node_fan_out != NULL
               ? EP_OK
               : no_memory();
}

static void sort_ranks_by_node(struct ep_traffic *t)
{
    struct ep_traffic_scratch *s = t->scratch;
    for (int64_t r = 0; r < t->num_ranks; r++) {
        s->node_index[r] = (int32_t)s->node_start[t->rank_node[r] + 1]++;
    }
    for (int64_t n = 0; n < t->num_nodes; n++) {
        s->node_start[n + 1] += s->node_start[n];
    }
    for (int32_t r = 0; r < t->num_ranks; r++) {
        s->node_ranks[s->node_start[t->rank_node[r]] + s->node_index[r]] = r;
    }
}

static enum ep_status init(const struct ep_placement *placement, const int32_t *rank_node,
                           int64_t num_nodes, int64_t top_k, bool one_row,
                           struct ep_traffic *traffic)
{
    enum ep_status status;
    struct ep_traffic t = {.placement = placement,
                           .one_row = one_row,
                           .num_ranks = placement->num_ranks,
                           .num_nodes = rank_node != NULL ? num_nodes : 1,
                           .top_k = top_k};
    EP_ASSERT(t.num_nodes >= 1 && t.num_nodes <= t.num_ranks && top_k >= 1);
    EP_TRY(allocate_counts(&t));
    EP_TRY(allocate_scratch(&t));
    for (int64_t r = 0; rank_node != NULL && r < t.num_ranks; r++) {
        EP_ASSERT(rank_node[r] >= 0 && rank_node[r] < num_nodes);
        t.rank_node[r] = rank_node[r];
    }
    sort_ranks_by_node(&t);
    *traffic = t;
    return EP_OK;
out:
    ep_traffic_fini(&t);
    return status;
}

enum ep_status ep_traffic_init(const struct ep_placement *placement, const int32_t *rank_node,
                               int64_t num_nodes, int64_t top_k, struct ep_traffic *traffic)
{
    return init(placement, rank_node, num_nodes, top_k, false, traffic);
}

enum ep_status ep_traffic_init_row(const struct ep_placement *placement, const int32_t *rank_node,
                                   int64_t num_nodes, int64_t top_k, struct ep_traffic *traffic)
{
    return init(placement, rank_node, num_nodes, top_k, true, traffic);
}

void ep_traffic_fini(struct ep_traffic *traffic)
{
    struct ep_traffic_scratch *s = traffic->scratch;
    if (s != NULL) {
        free(s->rank);
        free(s->masks);
        free(s->lane_hits);
        free(s->hits);
        free(s->rank_stamp);
        free(s->node_stamp);
        free(s->node_index);
        free(s->node_start);
        free(s->node_ranks);
        free(s);
    }
    free(traffic->rank_node);
    free(traffic->tokens);
    free(traffic->copies);
    free(traffic->ranks);
    free(traffic->nodes);
    free(traffic->expert_copies);
    free(traffic->rank_fan_out);
    free(traffic->node_fan_out);
    *traffic = (struct ep_traffic){0};
}

/* --- counting ----------------------------------------------------------------------------- */

static bool fits_mask(const struct ep_traffic *t)
{
    return t->num_ranks <= MASK_BITS;
}

static void make_tables(struct ep_traffic *t, int64_t source)
{
    struct ep_traffic_scratch *s = t->scratch;
    if (s->source >= 0 && (s->source == source || !t->placement->replicated)) {
        return;
    }
    s->source = source;
    s->rank[0] = -1;
    for (int64_t e = 0; e < t->placement->num_experts; e++) {
        const int32_t rank = ep_placement_rank(t->placement, e, source);
        s->rank[e + 1] = rank;
        if (fits_mask(t)) {
            s->masks[e + 1].rank = (uint64_t)1 << rank;
            s->masks[e + 1].node = (uint64_t)1 << t->rank_node[rank];
        }
    }
}

static enum ep_status check_indices(const struct ep_traffic *t, const int32_t *topk_idx,
                                    int64_t num_tokens)
{
    const uint32_t limit = (uint32_t)t->placement->num_experts;
    const int64_t num = num_tokens * t->top_k;
    uint32_t bad = 0;
    for (int64_t i = 0; i < num; i++) {
        bad |= (uint32_t)((uint32_t)topk_idx[i] + 1 > limit);
    }
    if (bad == 0) {
        return EP_OK;
    }
    int64_t i = 0;
    while (topk_idx[i] >= -1 && topk_idx[i] < (int32_t)limit) {
        i++;
    }
    return ep_error_set(EP_EINVAL,
                        "token %" PRId64 ", slot %" PRId64 ": expert %" PRId32
                        " is outside -1 to %" PRId64,
                        i / t->top_k, i % t->top_k, topk_idx[i], t->placement->num_experts - 1);
}

static inline void count_bits(uint64_t mask, int64_t *rows)
{
    for (; mask != 0; mask &= mask - 1) {
        rows[__builtin_ctzll(mask)]++;
    }
}

static int64_t *row_of(const struct ep_traffic *t, int64_t *matrix, int64_t source, int64_t width)
{
    return matrix + (t->one_row ? 0 : source * width);
}

static void add_by_masks(struct ep_traffic *t, int64_t source, const int32_t *topk_idx,
                         int64_t num_tokens)
{
    const struct ep_traffic_scratch *s = t->scratch;
    int64_t *rank_rows = row_of(t, t->ranks, source, t->num_ranks);
    int64_t *node_rows = row_of(t, t->nodes, source, t->num_nodes);
    for (int64_t i = 0; i < num_tokens; i++) {
        uint64_t ranks = 0;
        uint64_t nodes = 0;
        for (int64_t j = 0; j < t->top_k; j++) {
            const int32_t e = topk_idx[i * t->top_k + j] + 1;
            ranks |= s->masks[e].rank;
            nodes |= s->masks[e].node;
            s->hits[e]++;
        }
        count_bits(ranks, rank_rows);
        count_bits(nodes, node_rows);
        t->rank_fan_out[__builtin_popcountll(ranks)]++;
        t->node_fan_out[__builtin_popcountll(nodes)]++;
    }
}

/* As many whole groups as there are; returns the tokens counted. */
static int64_t add_by_blocks(struct ep_traffic *t, int64_t source, const int32_t *topk_idx,
                             int64_t num_tokens)
{
    const struct ep_traffic_scratch *s = t->scratch;
    const int64_t entries = t->placement->num_experts + 1;
    const int64_t whole = num_tokens - num_tokens % EP_TRAFFIC_GROUP;
    int64_t rank_rows[MASK_BITS] = {0};
    int64_t node_rows[MASK_BITS] = {0};
    int64_t rank_fan_out[MASK_BITS + 1] = {0};
    int64_t node_fan_out[MASK_BITS + 1] = {0};
    const struct ep_traffic_counts counts = {s->lane_hits, entries,      rank_rows,
                                             node_rows,    rank_fan_out, node_fan_out};
    for (int64_t first = 0; first < whole; first += EP_TRAFFIC_BLOCK) {
        const int64_t left = whole - first;
        ep_traffic_count_block(topk_idx + first * t->top_k,
                               left < EP_TRAFFIC_BLOCK ? left : EP_TRAFFIC_BLOCK, t->top_k,
                               s->masks, &counts);
        for (int64_t e = 0; e < EP_TRAFFIC_LANES * entries; e++) {
            s->hits[e % entries] += s->lane_hits[e];
            s->lane_hits[e] = 0;
        }
    }
    int64_t *ranks = row_of(t, t->ranks, source, t->num_ranks);
    int64_t *nodes = row_of(t, t->nodes, source, t->num_nodes);
    for (int64_t r = 0; r < t->num_ranks; r++) {
        ranks[r] += rank_rows[r];
    }
    for (int64_t n = 0; n < t->num_nodes; n++) {
        nodes[n] += node_rows[n];
    }
    for (int64_t n = 0; n <= MASK_BITS && n <= t->top_k; n++) {
        t->rank_fan_out[n] += rank_fan_out[n];
        t->node_fan_out[n] += node_fan_out[n];
    }
    return whole;
}

static void add_by_stamps(struct ep_traffic *t, int64_t source, const int32_t *topk_idx,
                          int64_t num_tokens)
{
    struct ep_traffic_scratch *s = t->scratch;
    int64_t *rank_rows = row_of(t, t->ranks, source, t->num_ranks);
    int64_t *node_rows = row_of(t, t->nodes, source, t->num_nodes);
    for (int64_t i = 0; i < num_tokens; i++) {
        int64_t num_ranks = 0;
        int64_t num_nodes = 0;
        s->stamp++;
        for (int64_t j = 0; j < t->top_k; j++) {
            const int32_t e = topk_idx[i * t->top_k + j] + 1;
            s->hits[e]++;
            if (e == 0 || s->rank_stamp[s->rank[e]] == s->stamp) {
                continue;
            }
            const int32_t rank = s->rank[e];
            const int32_t node = t->rank_node[rank];
            s->rank_stamp[rank] = s->stamp;
            rank_rows[rank]++;
            num_ranks++;
            if (s->node_stamp[node] != s->stamp) {
                s->node_stamp[node] = s->stamp;
                node_rows[node]++;
                num_nodes++;
            }
        }
        t->rank_fan_out[num_ranks]++;
        t->node_fan_out[num_nodes]++;
    }
}

enum ep_status ep_traffic_add(struct ep_traffic *traffic, int64_t source, const int32_t *topk_idx,
                              int64_t num_tokens)
{
    struct ep_traffic_scratch *s = traffic->scratch;
    EP_ASSERT(source >= 0 && source < traffic->num_ranks);
    const enum ep_status status = check_indices(traffic, topk_idx, num_tokens);
    if (status != EP_OK) {
        return status;
    }
    make_tables(traffic, source);
    if (fits_mask(traffic)) {
        const int64_t done = add_by_blocks(traffic, source, topk_idx, num_tokens);
        add_by_masks(traffic, source, topk_idx + done * traffic->top_k, num_tokens - done);
    } else {
        add_by_stamps(traffic, source, topk_idx, num_tokens);
    }
    int64_t *copies = row_of(traffic, traffic->copies, source, traffic->num_ranks);
    for (int64_t e = 0; e < traffic->placement->num_experts; e++) {
        const int64_t hits = s->hits[e + 1];
        s->hits[e + 1] = 0;
        copies[s->rank[e + 1]] += hits;
        traffic->expert_copies[e] += hits;
    }
    traffic->tokens[source] += num_tokens;
    return EP_OK;
}

enum ep_status ep_traffic_add_router(struct ep_traffic *traffic, const struct ep_router *router)
{
    enum ep_status status;
    struct ep_routing routing;
    const struct ep_token_map *tokens = router->tokens;
    EP_ASSERT(router->top_k == traffic->top_k && tokens->num_ranks == traffic->num_ranks);
    status = ep_routing_init(CHUNK_TOKENS, router->num_experts, router->top_k, false, &routing);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t r = 0; r < tokens->num_ranks; r++) {
        for (int64_t t = tokens->start[r]; t < tokens->start[r + 1]; t += CHUNK_TOKENS) {
            const int64_t left = tokens->start[r + 1] - t;
            const int64_t num = left < CHUNK_TOKENS ? left : CHUNK_TOKENS;
            ep_router_generate(router, t, num, &routing);
            EP_TRY(ep_traffic_add(traffic, r, routing.topk_idx, num));
        }
    }
out:
    ep_routing_fini(&routing);
    return status;
}

const int32_t *ep_traffic_targets(struct ep_traffic *traffic, int64_t source)
{
    make_tables(traffic, source);
    return traffic->scratch->rank + 1;
}

/* --- matrices ----------------------------------------------------------------------------- */

int64_t ep_traffic_landing_rank(const struct ep_traffic *t, int64_t source, int64_t node)
{
    const struct ep_traffic_scratch *s = t->scratch;
    if (t->rank_node[source] == node) {
        return source;
    }
    const int64_t size = s->node_start[node + 1] - s->node_start[node];
    return s->node_ranks[s->node_start[node] + s->node_index[source] % size];
}

void ep_traffic_fill_rows(const struct ep_traffic *traffic, enum ep_basis basis, int64_t *rows)
{
    const int64_t num_ranks = traffic->num_ranks;
    const size_t size = (size_t)(num_ranks * num_ranks) * sizeof *rows;
    if (basis != EP_BASIS_NODE) {
        memcpy(rows, basis == EP_BASIS_COPIES ? traffic->copies : traffic->ranks, size);
        return;
    }
    memset(rows, 0, size);
    for (int64_t i = 0; i < num_ranks; i++) {
        for (int64_t n = 0; n < traffic->num_nodes; n++) {
            const int64_t num = traffic->nodes[i * traffic->num_nodes + n];
            if (num > 0) {
                rows[i * num_ranks + ep_traffic_landing_rank(traffic, i, n)] += num;
            }
        }
    }
}

void ep_traffic_fill_fan_out(const struct ep_traffic *traffic, int64_t *rows)
{
    const int64_t num_ranks = traffic->num_ranks;
    memset(rows, 0, (size_t)(num_ranks * num_ranks) * sizeof *rows);
    for (int64_t i = 0; i < num_ranks; i++) {
        for (int64_t j = 0; j < num_ranks; j++) {
            const int64_t num = traffic->ranks[i * num_ranks + j];
            if (num > 0) {
                rows[ep_traffic_landing_rank(traffic, i, traffic->rank_node[j]) * num_ranks + j] +=
                    num;
            }
        }
    }
}

void ep_traffic_fill_loads(const struct ep_traffic *traffic, int64_t *loads)
{
    memset(loads, 0, (size_t)traffic->num_ranks * sizeof *loads);
    for (int64_t i = 0; i < traffic->num_ranks; i++) {
        for (int64_t j = 0; j < traffic->num_ranks; j++) {
            loads[j] += traffic->copies[i * traffic->num_ranks + j];
        }
    }
}

void ep_traffic_transpose(const int64_t *rows, int64_t num_ranks, int64_t *transposed)
{
    for (int64_t i = 0; i < num_ranks; i++) {
        for (int64_t j = 0; j < num_ranks; j++) {
            transposed[j * num_ranks + i] = rows[i * num_ranks + j];
        }
    }
}

void ep_traffic_sum(const int64_t *rows, int64_t num_ranks, struct ep_traffic_totals *totals)
{
    struct ep_traffic_totals sum = {0};
    for (int64_t i = 0; i < num_ranks; i++) {
        int64_t out = 0;
        int64_t in = 0;
        for (int64_t j = 0; j < num_ranks; j++) {
            out += i == j ? 0 : rows[i * num_ranks + j];
            in += i == j ? 0 : rows[j * num_ranks + i];
        }
        sum.total += out + rows[i * num_ranks + i];
        sum.remote += out;
        sum.max_out = out > sum.max_out ? out : sum.max_out;
        sum.max_in = in > sum.max_in ? in : sum.max_in;
    }
    *totals = sum;
}
