/* SPDX-License-Identifier: Apache-2.0 */
/* Simulated annealing over swaps of slots. Every replica is a vertex with the list of its tokens;
 * how many of a token's experts are at each rank and node is kept, so that a swap is priced by
 * walking two lists. */
#include "kernels/place_search.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* On trace:sample three times the moves gain about 1 % of fan-out over ranks, a third of them loses
 * as much. */
enum { MAX_PINS = 1 << 16, MOVES_PER_SLOT = 3000, LEVELS = 100, PROBES = 512, MAX_SWEEPS = 50 };
#define MAX_COUNT_BYTES ((int64_t)64 << 20)
static const double cooling = 1e-3;    /* last temperature over first */
static const double last_penalty = 30; /* over first: load above a bound costs more and more */

struct state {
    const struct ep_place_task *task;
    const struct ep_place_goal *goal;
    int64_t num_slots;
    int64_t per_rank; /* slots of a rank */
    int64_t per_node; /* slots of a node */
    int64_t num_tokens;
    int32_t *expert; /* [num_slots] of each vertex: vertex v began in slot v */
    double *share;   /* [num_slots] load of each vertex */
    int64_t *start;  /* [num_slots + 1] tokens of vertex v are list[start[v]] .. ascending */
    int32_t *list;
    uint16_t *at_rank; /* [num_ranks][num_tokens] experts of a token at a rank */
    uint16_t *at_node; /* [num_nodes][num_tokens] */
    int32_t *vertex;   /* [num_slots] the vertex in each slot */
    double *rank_load;
    int32_t *map;     /* [num_slots] scratch of record() */
    double *exact;    /* [num_ranks] scratch of record() */
    int32_t *best;    /* [num_slots] vertices of the best state within the bound */
    int32_t *only[2]; /* [num_tokens] scratch of a swap: tokens of one vertex and not the other */
    int64_t num_only[2];
    double cost;
    double best_cost;
};

static void release(struct state *s)
{
    free(s->expert);
    free(s->share);
    free(s->start);
    free(s->list);
    free(s->at_rank);
    free(s->at_node);
    free(s->vertex);
    free(s->rank_load);
    free(s->map);
    free(s->exact);
    free(s->best);
    free(s->only[0]);
    free(s->only[1]);
}

static int64_t rank_of(const struct state *s, int64_t slot)
{
    return slot / s->per_rank;
}

static int64_t node_of(const struct state *s, int64_t slot)
{
    return slot / s->per_node;
}

/* --- setting up ---------------------------------------------------------------------------- */

/* Enough tokens to tell; beyond, swaps only take longer. */
static int64_t choose_num_tokens(const struct ep_place_task *task)
{
    const struct ep_place_tokens *tokens = task->tokens;
    if (tokens == NULL) {
        return 0;
    }
    const int64_t by_pins = MAX_PINS / tokens->top_k;
    const int64_t places = task->shape.num_ranks + task->shape.num_nodes;
    const int64_t by_bytes = MAX_COUNT_BYTES / (places * (int64_t)sizeof(uint16_t));
    const int64_t limit = by_pins < by_bytes ? by_pins : by_bytes;
    return tokens->num_tokens < limit ? tokens->num_tokens : limit > 0 ? limit : 1;
}

static enum ep_status allocate(const struct ep_place_task *task, struct state *s)
{
    const size_t slots = (size_t)s->num_slots;
    const size_t tokens = (size_t)s->num_tokens;
    const size_t ranks = (size_t)task->shape.num_ranks;
    const size_t nodes = (size_t)task->shape.num_nodes;
    const size_t pins = tokens * (size_t)(task->tokens != NULL ? task->tokens->top_k : 0);
    s->expert = calloc(slots, sizeof *s->expert);
    s->share = calloc(slots, sizeof *s->share);
    s->start = calloc(slots + 1, sizeof *s->start);
    s->list = calloc(pins + 1, sizeof *s->list);
    s->at_rank = calloc(ranks * tokens + 1, sizeof *s->at_rank);
    s->at_node = calloc(nodes * tokens + 1, sizeof *s->at_node);
    s->vertex = calloc(slots, sizeof *s->vertex);
    s->rank_load = calloc(ranks, sizeof *s->rank_load);
    s->map = calloc(slots, sizeof *s->map);
    s->exact = calloc(ranks, sizeof *s->exact);
    s->best = calloc(slots, sizeof *s->best);
    s->only[0] = calloc(tokens + 1, sizeof *s->only[0]);
    s->only[1] = calloc(tokens + 1, sizeof *s->only[1]);
    return s->expert != NULL && s->share != NULL && s->start != NULL && s->list != NULL &&
                   s->at_rank != NULL && s->at_node != NULL && s->vertex != NULL &&
                   s->rank_load != NULL && s->map != NULL && s->exact != NULL && s->best != NULL &&
                   s->only[0] != NULL && s->only[1] != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for a search over %zu slots", slots);
}

/* The slots of each expert, one after another, ascending: slots[first[e]] .. */
static enum ep_status index_slots(const struct ep_place_task *task, const int32_t *map,
                                  int64_t **first, int32_t **slots)
{
    const struct ep_place_shape *shape = &task->shape;
    int64_t *starts = calloc((size_t)shape->num_experts + 2, sizeof *starts);
    int32_t *sorted = calloc((size_t)shape->num_slots, sizeof *sorted);
    if (starts == NULL || sorted == NULL) {
        free(starts);
        free(sorted);
        return ep_error_set(EP_ENOMEM, "no memory for a search");
    }
    for (int64_t i = 0; i < shape->num_slots; i++) {
        starts[map[i] + 2]++;
    }
    for (int64_t e = 1; e <= shape->num_experts; e++) {
        starts[e + 1] += starts[e];
    }
    for (int64_t i = 0; i < shape->num_slots; i++) {
        sorted[starts[map[i] + 1]++] = (int32_t)i;
    }
    *first = starts;
    *slots = sorted;
    return EP_OK;
}

/* The vertex that kept token t uses for one of its experts, or -1 for an unused slot. */
static int64_t pin(const struct ep_place_task *task, int64_t num_tokens, int64_t t, int64_t slot,
                   const int64_t *first, const int32_t *slots)
{
    const struct ep_place_tokens *tokens = task->tokens;
    const int64_t row =
        num_tokens == tokens->num_tokens
            ? t
            : (int64_t)((double)t * (double)tokens->num_tokens / (double)num_tokens);
    const int32_t e = tokens->topk_idx[row * tokens->top_k + slot];
    return e < 0 ? -1 : slots[first[e] + t % (first[e + 1] - first[e])];
}

/* Lists of tokens, in two walks over the tokens: counting, then filling. */
static enum ep_status fill_lists(const struct ep_place_task *task, const int32_t *map,
                                 struct state *s)
{
    int64_t *first = NULL;
    int32_t *slots = NULL;
    enum ep_status status = index_slots(task, map, &first, &slots);
    if (status != EP_OK) {
        return status;
    }
    const int64_t top_k = task->tokens != NULL ? task->tokens->top_k : 0;
    for (int64_t t = 0; t < s->num_tokens; t++) {
        for (int64_t i = 0; i < top_k; i++) {
            const int64_t v = pin(task, s->num_tokens, t, i, first, slots);
            if (v >= 0) {
                s->start[v + 1]++;
            }
        }
    }
    for (int64_t v = 0; v < s->num_slots; v++) {
        s->start[v + 1] += s->start[v];
    }
    for (int64_t t = 0; t < s->num_tokens; t++) {
        for (int64_t i = 0; i < top_k; i++) {
            const int64_t v = pin(task, s->num_tokens, t, i, first, slots);
            if (v >= 0) {
                /* vertex, zero so far, counts what is filled */
                s->list[s->start[v] + s->vertex[v]++] = (int32_t)t;
            }
        }
    }
    for (int64_t v = 0; v < s->num_slots; v++) {
        s->expert[v] = map[v];
        s->share[v] = task->load[map[v]] / (double)(first[map[v] + 1] - first[map[v]]);
    }
    free(first);
    free(slots);
    return EP_OK;
}

/* Counts, loads and cost of the state in s->vertex, from nothing. */
static void count_state(struct state *s)
{
    const struct ep_place_shape *shape = &s->task->shape;
    int64_t ranks = 0;
    int64_t nodes = 0;
    memset(s->at_rank, 0, (size_t)(shape->num_ranks * s->num_tokens) * sizeof *s->at_rank);
    memset(s->at_node, 0, (size_t)(shape->num_nodes * s->num_tokens) * sizeof *s->at_node);
    memset(s->rank_load, 0, (size_t)shape->num_ranks * sizeof *s->rank_load);
    for (int64_t i = 0; i < s->num_slots; i++) {
        const int32_t v = s->vertex[i];
        s->rank_load[rank_of(s, i)] += s->share[v];
        for (int64_t n = s->start[v]; n < s->start[v + 1]; n++) {
            ranks += s->at_rank[rank_of(s, i) * s->num_tokens + s->list[n]]++ == 0;
            nodes += s->at_node[node_of(s, i) * s->num_tokens + s->list[n]]++ == 0;
        }
    }
    s->cost = s->goal->rank_cost * (double)ranks + s->goal->node_cost * (double)nodes;
}

static enum ep_status set_up(const struct ep_place_task *task, const struct ep_place_goal *goal,
                             const int32_t *map, struct state *s)
{
    enum ep_status status;
    *s = (struct state){.task = task,
                        .goal = goal,
                        .num_slots = task->shape.num_slots,
                        .per_rank = task->shape.num_slots / task->shape.num_ranks,
                        .per_node = task->shape.num_slots / task->shape.num_nodes,
                        .num_tokens = choose_num_tokens(task)};
    EP_TRY(allocate(task, s));
    EP_TRY(fill_lists(task, map, s));
    for (int64_t i = 0; i < s->num_slots; i++) {
        s->vertex[i] = (int32_t)i;
        s->best[i] = (int32_t)i;
    }
    count_state(s);
    s->best_cost = s->cost;
out:
    return status;
}

static void read_map(const struct state *s, const int32_t *vertex, int32_t *map)
{
    for (int64_t i = 0; i < s->num_slots; i++) {
        map[i] = s->expert[vertex[i]];
    }
}

/* --- swaps --------------------------------------------------------------------------------- */

/* An expert comes to a rank once. */
static bool holds(const struct state *s, int64_t rank, int32_t expert)
{
    for (int64_t i = rank * s->per_rank; i < (rank + 1) * s->per_rank; i++) {
        if (s->expert[s->vertex[i]] == expert) {
            return true;
        }
    }
    return false;
}

static bool may_swap(const struct state *s, int64_t i, int64_t j)
{
    const int32_t e = s->expert[s->vertex[i]];
    const int32_t f = s->expert[s->vertex[j]];
    return rank_of(s, i) != rank_of(s, j) && e != f && !holds(s, rank_of(s, j), e) &&
           !holds(s, rank_of(s, i), f);
}

struct change {
    int64_t ranks; /* pairs of token and rank more */
    int64_t nodes;
};

/* Tokens that have both vertices notice no swap. */
static void part_tokens(struct state *s, int64_t u, int64_t v)
{
    int64_t m = s->start[u];
    int64_t n = s->start[v];
    const int64_t m_end = s->start[u + 1];
    const int64_t n_end = s->start[v + 1];
    int64_t num_u = 0;
    int64_t num_v = 0;
    while (m < m_end && n < n_end) {
        const int32_t x = s->list[m];
        const int32_t y = s->list[n];
        /* written always, kept where it counts: no branch to miss */
        s->only[0][num_u] = x;
        s->only[1][num_v] = y;
        num_u += x < y;
        num_v += y < x;
        m += x <= y;
        n += y <= x;
    }
    memcpy(s->only[0] + num_u, s->list + m, (size_t)(m_end - m) * sizeof *s->list);
    memcpy(s->only[1] + num_v, s->list + n, (size_t)(n_end - n) * sizeof *s->list);
    s->num_only[0] = num_u + (m_end - m);
    s->num_only[1] = num_v + (n_end - n);
}

/* Places more that tokens reach when `num` of them each move one expert from -> to. */
static int64_t price_move(const int32_t *tokens, int64_t num, const uint16_t *from,
                          const uint16_t *to)
{
    int64_t more = 0;
    for (int64_t i = 0; i < num; i++) {
        more += (to[tokens[i]] == 0) - (from[tokens[i]] == 1);
    }
    return more;
}

static void do_move(const int32_t *tokens, int64_t num, uint16_t *from, uint16_t *to)
{
    for (int64_t i = 0; i < num; i++) {
        from[tokens[i]]--;
        to[tokens[i]]++;
    }
}

/* What a swap does to cost; the tokens stay parted for apply_swap. */
static double price_swap(struct state *s, int64_t i, int64_t j)
{
    const struct ep_place_goal *goal = s->goal;
    double cost = 0;
    part_tokens(s, s->vertex[i], s->vertex[j]);
    if (goal->rank_cost > 0) {
        const uint16_t *a = s->at_rank + rank_of(s, i) * s->num_tokens;
        const uint16_t *b = s->at_rank + rank_of(s, j) * s->num_tokens;
        cost += goal->rank_cost * (double)(price_move(s->only[0], s->num_only[0], a, b) +
                                           price_move(s->only[1], s->num_only[1], b, a));
    }
    if (goal->node_cost > 0 && node_of(s, i) != node_of(s, j)) {
        const uint16_t *x = s->at_node + node_of(s, i) * s->num_tokens;
        const uint16_t *y = s->at_node + node_of(s, j) * s->num_tokens;
        cost += goal->node_cost * (double)(price_move(s->only[0], s->num_only[0], x, y) +
                                           price_move(s->only[1], s->num_only[1], y, x));
    }
    return cost;
}

static void apply_swap(struct state *s, int64_t i, int64_t j, double cost)
{
    const int32_t u = s->vertex[i];
    const int32_t v = s->vertex[j];
    const double moved = s->share[u] - s->share[v];
    uint16_t *a = s->at_rank + rank_of(s, i) * s->num_tokens;
    uint16_t *b = s->at_rank + rank_of(s, j) * s->num_tokens;
    do_move(s->only[0], s->num_only[0], a, b);
    do_move(s->only[1], s->num_only[1], b, a);
    s->rank_load[rank_of(s, i)] -= moved;
    s->rank_load[rank_of(s, j)] += moved;
    if (node_of(s, i) != node_of(s, j)) {
        uint16_t *x = s->at_node + node_of(s, i) * s->num_tokens;
        uint16_t *y = s->at_node + node_of(s, j) * s->num_tokens;
        do_move(s->only[0], s->num_only[0], x, y);
        do_move(s->only[1], s->num_only[1], y, x);
    }
    s->vertex[i] = v;
    s->vertex[j] = u;
    s->cost += cost;
}

/* --- the bound ----------------------------------------------------------------------------- */

static double above(double load, double bound)
{
    return load > bound ? load - bound : 0;
}

/* Load above the bound that a swap adds (or, below 0, takes away). */
static double price_load(const struct state *s, int64_t i, int64_t j)
{
    const double bound = s->goal->rank_bound;
    const double moved = s->share[s->vertex[i]] - s->share[s->vertex[j]];
    const double a = s->rank_load[rank_of(s, i)];
    const double b = s->rank_load[rank_of(s, j)];
    return above(a - moved, bound) + above(b + moved, bound) - above(a, bound) - above(b, bound);
}

static bool is_within(const struct state *s, const double *rank_load)
{
    return ep_place_max(rank_load, s->task->shape.num_ranks) <= s->goal->rank_bound;
}

/* Keep the state if it is the best within the bound so far, by loads that have not drifted. */
static enum ep_status record(struct state *s)
{
    if (s->cost >= s->best_cost || !is_within(s, s->rank_load)) {
        return EP_OK;
    }
    read_map(s, s->vertex, s->map);
    const enum ep_status status =
        ep_place_fill_loads(&s->task->shape, s->task->load, s->map, s->exact, NULL);
    if (status == EP_OK && is_within(s, s->exact)) {
        memcpy(s->best, s->vertex, (size_t)s->num_slots * sizeof *s->best);
        s->best_cost = s->cost;
    }
    return status;
}

/* --- annealing ----------------------------------------------------------------------------- */

/* Two slots of different ranks, on one node where the goal says so; false where they do not do. */
static bool draw_pair(const struct state *s, struct ep_random *random, int64_t *i, int64_t *j)
{
    *i = ep_random_below(random, (uint32_t)s->num_slots);
    if (s->goal->within_nodes) {
        *j = node_of(s, *i) * s->per_node + ep_random_below(random, (uint32_t)s->per_node);
    } else {
        *j = ep_random_below(random, (uint32_t)s->num_slots);
    }
    return may_swap(s, *i, *j);
}

/* Mean sizes of changes, which set the temperature and the price of load. */
static void probe(struct state *s, struct ep_random *random, double *cost, double *load)
{
    int64_t num = 0;
    *cost = 0;
    *load = 0;
    for (int p = 0; p < PROBES; p++) {
        int64_t i, j;
        if (draw_pair(s, random, &i, &j)) {
            *cost += fabs(price_swap(s, i, j));
            *load += fabs(s->share[s->vertex[i]] - s->share[s->vertex[j]]);
            num++;
        }
    }
    *cost /= (double)(num > 0 ? num : 1);
    *load /= (double)(num > 0 ? num : 1);
}

static enum ep_status anneal(struct state *s)
{
    enum ep_status status = EP_OK;
    struct ep_random random;
    double mean_cost, mean_load;
    ep_random_init(&random, s->task->seed, EP_RANDOM_ORDER, 0);
    probe(s, &random, &mean_cost, &mean_load);
    if (mean_cost == 0) {
        return EP_OK;
    }
    for (int level = 0; level < LEVELS; level++) {
        const double progress = (double)level / (LEVELS - 1);
        const double temperature = mean_cost / 2 * pow(cooling, progress);
        const double penalty =
            mean_load > 0 ? mean_cost / mean_load * pow(last_penalty, progress) : 0;
        for (int64_t m = 0; m < MOVES_PER_SLOT / LEVELS * s->num_slots; m++) {
            int64_t i, j;
            if (!draw_pair(s, &random, &i, &j)) {
                continue;
            }
            const double most = -temperature * log(1 - ep_random_f64(&random));
            const double load = penalty * price_load(s, i, j);
            const double cost = price_swap(s, i, j);
            if (cost + load <= most) {
                apply_swap(s, i, j, cost);
                EP_TRY(record(s));
            }
        }
    }
out:
    return status;
}

/* From the best state: swaps that cost less and stay within the bound, until none is left. */
static enum ep_status descend(struct state *s)
{
    enum ep_status status = EP_OK;
    memcpy(s->vertex, s->best, (size_t)s->num_slots * sizeof *s->vertex);
    count_state(s);
    bool again = true;
    for (int sweep = 0; sweep < MAX_SWEEPS && again; sweep++) {
        again = false;
        for (int64_t i = 0; i < s->num_slots; i++) {
            const int64_t end =
                s->goal->within_nodes ? (node_of(s, i) + 1) * s->per_node : s->num_slots;
            for (int64_t j = i + 1; j < end; j++) {
                if (!may_swap(s, i, j) || price_load(s, i, j) > 0) {
                    continue;
                }
                const double cost = price_swap(s, i, j);
                if (cost < 0) {
                    apply_swap(s, i, j, cost);
                    EP_TRY(record(s));
                    again = true;
                }
            }
        }
    }
out:
    return status;
}

enum ep_status ep_place_search(const struct ep_place_task *task, const struct ep_place_goal *goal,
                               int32_t *map)
{
    enum ep_status status;
    struct state s;
    EP_ASSERT(task->tokens != NULL && task->tokens->top_k <= UINT16_MAX);
    EP_TRY(set_up(task, goal, map, &s));
    EP_TRY(anneal(&s));
    EP_TRY(descend(&s));
    read_map(&s, s.best, map);
out:
    release(&s);
    return status;
}

/* --- balance alone ------------------------------------------------------------------------- */

/* The swap of a slot of `rank` that leaves the larger of two loads least; false where none helps.
 */
static bool find_relief(const struct state *s, int64_t rank, int64_t *best_i, int64_t *best_j)
{
    double least = s->rank_load[rank];
    bool found = false;
    for (int64_t i = rank * s->per_rank; i < (rank + 1) * s->per_rank; i++) {
        const int64_t first = s->goal->within_nodes ? node_of(s, i) * s->per_node : 0;
        const int64_t end = s->goal->within_nodes ? first + s->per_node : s->num_slots;
        for (int64_t j = first; j < end; j++) {
            const double moved = s->share[s->vertex[i]] - s->share[s->vertex[j]];
            const double a = s->rank_load[rank] - moved;
            const double b = s->rank_load[rank_of(s, j)] + moved;
            const double larger = a > b ? a : b;
            if (larger < least && may_swap(s, i, j)) {
                least = larger;
                *best_i = i;
                *best_j = j;
                found = true;
            }
        }
    }
    return found;
}

enum ep_status ep_place_balance(const struct ep_place_task *task, const struct ep_place_goal *goal,
                                int32_t *map)
{
    enum ep_status status;
    struct ep_place_task loads = *task;
    struct ep_place_goal unbound = *goal;
    struct state s;
    loads.tokens = NULL;
    unbound.rank_bound = (double)INFINITY;
    EP_TRY(set_up(&loads, &unbound, map, &s));
    for (int64_t step = 0; step < MAX_SWEEPS * s.num_slots; step++) {
        int64_t busiest = 0, i = 0, j = 0;
        for (int64_t r = 1; r < task->shape.num_ranks; r++) {
            busiest = s.rank_load[r] > s.rank_load[busiest] ? r : busiest;
        }
        if (!find_relief(&s, busiest, &i, &j)) {
            break;
        }
        s.num_only[0] = s.num_only[1] = 0;
        apply_swap(&s, i, j, 0);
    }
    read_map(&s, s.vertex, map);
out:
    release(&s);
    return status;
}

enum ep_status ep_place_count_fan_out(const struct ep_place_task *task, const int32_t *map,
                                      struct ep_place_fan_out *fan_out)
{
    static const struct ep_place_goal ranks = {.rank_cost = 1};
    static const struct ep_place_goal nodes = {.node_cost = 1};
    enum ep_status status;
    struct state s;
    EP_ASSERT(task->tokens != NULL);
    EP_TRY(set_up(task, &ranks, map, &s));
    fan_out->ranks = llround(s.cost);
    s.goal = &nodes;
    count_state(&s);
    fan_out->nodes = llround(s.cost);
out:
    release(&s);
    return status;
}
