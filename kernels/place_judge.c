/* SPDX-License-Identifier: Apache-2.0 */
/* Counting tokens under placements, block by block, and comparing two of them by bootstrap. */
#include "kernels/place_judge.h"

#include "base/random.h"
#include "base/stats.h"
#include "kernels/token_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- counting ------------------------------------------------------------------------------ */

struct counting {
    const struct ep_place_shape *shape;
    const struct ep_place_tokens *tokens;
    struct ep_token_map ranks; /* which rank has which tokens */
    struct ep_token_map blocks;
    int32_t *rank_node;                       /* [num_ranks] */
    int64_t *matrices[EP_PLACE_NUM_MATRICES]; /* [num_ranks][num_ranks] over all windows */
    int64_t *window;                          /* the same of one window */
    double *expert_load;                      /* [num_experts] of one block in one window */
    double *rank_load;                        /* [num_ranks] scratch */
};

static enum ep_status no_memory(void)
{
    return ep_error_set(EP_ENOMEM, "no memory to judge a placement");
}

static enum ep_status start(const struct ep_place_shape *shape,
                            const struct ep_place_tokens *tokens, int64_t num_blocks,
                            struct counting *c, struct ep_place_judgement *j)
{
    enum ep_status status;
    const size_t ranks = (size_t)shape->num_ranks;
    bool lost = false;
    *c = (struct counting){.shape = shape, .tokens = tokens};
    *j = (struct ep_place_judgement){
        .shape = *shape, .num_tokens = tokens->num_tokens, .num_blocks = num_blocks};
    EP_TRY(ep_token_map_init_blocks(shape->num_ranks, tokens->num_tokens, &c->ranks));
    EP_TRY(ep_token_map_init_blocks(num_blocks, tokens->num_tokens, &c->blocks));
    for (int m = 0; m < EP_PLACE_NUM_MATRICES; m++) {
        c->matrices[m] = calloc(ranks * ranks, sizeof *c->matrices[m]);
        lost = lost || c->matrices[m] == NULL;
    }
    c->window = calloc(ranks * ranks, sizeof *c->window);
    c->rank_node = calloc(ranks, sizeof *c->rank_node);
    c->expert_load = calloc((size_t)shape->num_experts, sizeof *c->expert_load);
    c->rank_load = calloc(ranks, sizeof *c->rank_load);
    j->rank_load = calloc(ranks, sizeof *j->rank_load);
    j->node_load = calloc((size_t)shape->num_nodes, sizeof *j->node_load);
    j->received = calloc(ranks, sizeof *j->received);
    j->block_load = calloc((size_t)num_blocks * ranks, sizeof *j->block_load);
    j->block_remote_rows = calloc((size_t)num_blocks, sizeof *j->block_remote_rows);
    j->block_cross_rows = calloc((size_t)num_blocks, sizeof *j->block_cross_rows);
    if (lost || c->window == NULL || c->rank_node == NULL || c->expert_load == NULL ||
        c->rank_load == NULL || j->rank_load == NULL || j->node_load == NULL ||
        j->received == NULL || j->block_load == NULL || j->block_remote_rows == NULL ||
        j->block_cross_rows == NULL) {
        status = no_memory();
        goto out;
    }
    for (int64_t r = 0; r < shape->num_ranks; r++) {
        c->rank_node[r] = (int32_t)ep_place_node_of_rank(shape, r);
    }
out:
    return status;
}

static void stop(struct counting *c)
{
    ep_token_map_fini(&c->ranks);
    ep_token_map_fini(&c->blocks);
    for (int m = 0; m < EP_PLACE_NUM_MATRICES; m++) {
        free(c->matrices[m]);
    }
    free(c->window);
    free(c->rank_node);
    free(c->expert_load);
    free(c->rank_load);
}

/* Rows so far that leave their rank (rank-dedup) and their node (node-dedup). */
static void sum_leaving(const struct ep_traffic *t, int64_t *remote, int64_t *cross)
{
    *remote = 0;
    *cross = 0;
    for (int64_t i = 0; i < t->num_ranks; i++) {
        for (int64_t k = 0; k < t->num_ranks; k++) {
            *remote += k != i ? t->ranks[i * t->num_ranks + k] : 0;
        }
        for (int64_t n = 0; n < t->num_nodes; n++) {
            *cross += n != t->rank_node[i] ? t->nodes[i * t->num_nodes + n] : 0;
        }
    }
}

/* Tokens of one rank at a time. */
static enum ep_status add_traffic(const struct counting *c, int64_t first, int64_t end,
                                  struct ep_traffic *traffic)
{
    enum ep_status status = EP_OK;
    for (int64_t t = first, next = first; t < end && status == EP_OK; t = next) {
        const int64_t rank = ep_token_map_rank(&c->ranks, t);
        next = c->ranks.start[rank + 1] < end ? c->ranks.start[rank + 1] : end;
        status =
            ep_traffic_add(traffic, rank, c->tokens->topk_idx + t * c->tokens->top_k, next - t);
    }
    return status;
}

static enum ep_status add_loads(struct counting *c, const int32_t *map, int64_t first, int64_t end,
                                double *block_load)
{
    memset(c->expert_load, 0, (size_t)c->shape->num_experts * sizeof *c->expert_load);
    for (int64_t i = first * c->tokens->top_k; i < end * c->tokens->top_k; i++) {
        if (c->tokens->topk_idx[i] >= 0) {
            c->expert_load[c->tokens->topk_idx[i]]++;
        }
    }
    const enum ep_status status =
        ep_place_fill_loads(c->shape, c->expert_load, map, c->rank_load, NULL);
    for (int64_t r = 0; r < c->shape->num_ranks && status == EP_OK; r++) {
        block_load[r] += c->rank_load[r];
    }
    return status;
}

static void add_matrices(struct counting *c, const struct ep_traffic *traffic)
{
    const int64_t num = c->shape->num_ranks * c->shape->num_ranks;
    for (int m = 0; m < EP_PLACE_NUM_MATRICES; m++) {
        if (m == EP_PLACE_FAN_OUT) {
            ep_traffic_fill_fan_out(traffic, c->window);
        } else {
            ep_traffic_fill_rows(traffic, (enum ep_basis)m, c->window);
        }
        for (int64_t i = 0; i < num; i++) {
            c->matrices[m][i] += c->window[i];
        }
    }
}

/* Tokens first .. end - 1, all under one map. */
static enum ep_status count_window(struct counting *c, const int32_t *map, int64_t first,
                                   int64_t end, struct ep_place_judgement *j)
{
    enum ep_status status;
    struct ep_placement placement = {0};
    struct ep_traffic traffic = {0};
    int64_t remote = 0, cross = 0;
    EP_TRY(ep_place_init_placement(c->shape, map, &placement));
    EP_TRY(
        ep_traffic_init(&placement, c->rank_node, c->shape->num_nodes, c->tokens->top_k, &traffic));
    for (int64_t t = first, next = first; t < end; t = next) {
        const int64_t block = ep_token_map_rank(&c->blocks, t);
        int64_t remote_now, cross_now;
        next = c->blocks.start[block + 1] < end ? c->blocks.start[block + 1] : end;
        EP_TRY(add_traffic(c, t, next, &traffic));
        EP_TRY(add_loads(c, map, t, next, j->block_load + block * c->shape->num_ranks));
        sum_leaving(&traffic, &remote_now, &cross_now);
        j->block_remote_rows[block] += remote_now - remote;
        j->block_cross_rows[block] += cross_now - cross;
        remote = remote_now;
        cross = cross_now;
    }
    add_matrices(c, &traffic);
out:
    ep_traffic_fini(&traffic);
    ep_placement_fini(&placement);
    return status;
}

static int64_t sum_cross_node(const struct counting *c, const int64_t *rows)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < c->shape->num_ranks; i++) {
        for (int64_t k = 0; k < c->shape->num_ranks; k++) {
            sum += c->rank_node[i] != c->rank_node[k] ? rows[i * c->shape->num_ranks + k] : 0;
        }
    }
    return sum;
}

static enum ep_status finish(const struct counting *c, int64_t row_bytes,
                             struct ep_place_judgement *j)
{
    enum ep_status status = EP_OK;
    const int64_t num_ranks = c->shape->num_ranks;
    const struct ep_features_config config = {
        .num_ranks = num_ranks, .row_bytes = row_bytes, .rank_node = c->rank_node};
    for (int m = 0; m < EP_PLACE_NUM_MATRICES; m++) {
        ep_traffic_sum(c->matrices[m], num_ranks, &j->rows[m]);
    }
    for (int basis = 0; basis < EP_NUM_BASES; basis++) {
        j->cross_node_rows[basis] = sum_cross_node(c, c->matrices[basis]);
        EP_TRY(ep_features_init(c->matrices[basis], &config, &j->features[basis]));
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        for (int64_t i = 0; i < num_ranks; i++) {
            j->received[r] += c->matrices[EP_BASIS_COPIES][i * num_ranks + r];
        }
        for (int64_t b = 0; b < j->num_blocks; b++) {
            j->rank_load[r] += j->block_load[b * num_ranks + r];
        }
        j->node_load[c->rank_node[r]] += j->rank_load[r];
    }
out:
    return status;
}

enum ep_status ep_place_judge(const struct ep_place_shape *shape,
                              const struct ep_place_tokens *tokens,
                              const struct ep_place_schedule *schedule, int64_t row_bytes,
                              int64_t num_blocks, struct ep_place_judgement *judgement)
{
    enum ep_status status;
    struct counting c = {0};
    struct ep_place_judgement j = {0};
    EP_ASSERT(schedule->num_windows >= 1 && schedule->window_tokens >= 1);
    EP_ASSERT(num_blocks >= 1 && num_blocks <= tokens->num_tokens);
    EP_TRY(start(shape, tokens, num_blocks, &c, &j));
    for (int64_t w = 0; w < schedule->num_windows; w++) {
        const int64_t first = w * schedule->window_tokens;
        const bool last = w == schedule->num_windows - 1;
        const int64_t end = last ? tokens->num_tokens : first + schedule->window_tokens;
        EP_TRY(count_window(&c, schedule->maps + w * shape->num_slots, first, end, &j));
    }
    EP_TRY(finish(&c, row_bytes, &j));
    *judgement = j;
    j = (struct ep_place_judgement){0};
out:
    stop(&c);
    ep_place_judgement_fini(&j);
    return status;
}

void ep_place_judgement_fini(struct ep_place_judgement *judgement)
{
    free(judgement->rank_load);
    free(judgement->node_load);
    free(judgement->received);
    free(judgement->block_load);
    free(judgement->block_remote_rows);
    free(judgement->block_cross_rows);
    for (int basis = 0; basis < EP_NUM_BASES; basis++) {
        ep_features_fini(&judgement->features[basis]);
    }
    *judgement = (struct ep_place_judgement){0};
}

double ep_place_block_max_over_mean(const struct ep_place_judgement *j)
{
    const int64_t num_ranks = j->shape.num_ranks;
    double busiest = 0;
    double all = 0;
    for (int64_t b = 0; b < j->num_blocks; b++) {
        busiest += ep_place_max(j->block_load + b * num_ranks, num_ranks);
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        all += j->rank_load[r];
    }
    return all > 0 ? busiest * (double)num_ranks / all : (double)NAN;
}

/* --- comparing ----------------------------------------------------------------------------- */

enum measure { MAX_OVER_MEAN, REMOTE_ROWS, CROSS_ROWS, NUM_MEASURES };

/* Of blocks drawn `times` [num_blocks] each. load [num_ranks] is scratch. */
static void measure_blocks(const struct ep_place_judgement *j, const int64_t *times, double *load,
                           double values[NUM_MEASURES])
{
    const int64_t num_ranks = j->shape.num_ranks;
    memset(load, 0, (size_t)num_ranks * sizeof *load);
    values[REMOTE_ROWS] = 0;
    values[CROSS_ROWS] = 0;
    for (int64_t b = 0; b < j->num_blocks; b++) {
        for (int64_t r = 0; r < num_ranks && times[b] > 0; r++) {
            load[r] += (double)times[b] * j->block_load[b * num_ranks + r];
        }
        values[REMOTE_ROWS] += (double)(times[b] * j->block_remote_rows[b]);
        values[CROSS_ROWS] += (double)(times[b] * j->block_cross_rows[b]);
    }
    values[MAX_OVER_MEAN] = ep_place_max_over_mean(load, num_ranks);
}

static double over_less_1(double a, double b)
{
    return b > 0 ? a / b - 1 : (double)NAN;
}

static void differ(const struct ep_place_judgement *a, const struct ep_place_judgement *b,
                   const int64_t *times, double *load, double differences[NUM_MEASURES])
{
    double x[NUM_MEASURES], y[NUM_MEASURES];
    measure_blocks(a, times, load, x);
    measure_blocks(b, times, load, y);
    differences[MAX_OVER_MEAN] = x[MAX_OVER_MEAN] - y[MAX_OVER_MEAN];
    differences[REMOTE_ROWS] = over_less_1(x[REMOTE_ROWS], y[REMOTE_ROWS]);
    differences[CROSS_ROWS] = over_less_1(x[CROSS_ROWS], y[CROSS_ROWS]);
}

static void draw_blocks(uint64_t seed, int draw, int64_t num_blocks, int64_t *times)
{
    struct ep_random random;
    ep_random_init(&random, seed, EP_RANDOM_BOOTSTRAP, (uint64_t)draw);
    memset(times, 0, (size_t)num_blocks * sizeof *times);
    for (int64_t b = 0; b < num_blocks; b++) {
        times[ep_random_below(&random, (uint32_t)num_blocks)]++;
    }
}

/* values [num_draws] are sorted here; none at all where a draw has no value. */
static void set_interval(double *values, int num_draws, double tail,
                         struct ep_place_interval *interval)
{
    interval->low = interval->high = (double)NAN;
    for (int d = 0; d < num_draws; d++) {
        if (isnan(values[d])) {
            return;
        }
    }
    if (num_draws > 0) {
        ep_stats_sort(values, num_draws);
        interval->low = ep_stats_quantile_sorted(values, num_draws, tail);
        interval->high = ep_stats_quantile_sorted(values, num_draws, 1 - tail);
    }
}

enum ep_status ep_place_compare(const struct ep_place_judgement *a,
                                const struct ep_place_judgement *b, int num_draws, double tail,
                                uint64_t seed, struct ep_place_difference *difference)
{
    EP_ASSERT(a->num_blocks == b->num_blocks && a->shape.num_ranks == b->shape.num_ranks);
    const int draws = a->num_blocks >= EP_PLACE_MIN_BLOCKS ? num_draws : 0;
    struct ep_place_interval *const intervals[NUM_MEASURES] = {
        &difference->max_over_mean, &difference->remote_rows, &difference->cross_rows};
    int64_t *times = malloc((size_t)a->num_blocks * sizeof *times);
    double *load = malloc((size_t)a->shape.num_ranks * sizeof *load);
    double *values = malloc((size_t)(draws + 1) * NUM_MEASURES * sizeof *values);
    enum ep_status status = EP_OK;
    if (times == NULL || load == NULL || values == NULL) {
        status = no_memory();
        goto out;
    }
    double drawn[NUM_MEASURES];
    for (int d = 0; d < draws; d++) {
        draw_blocks(seed, d, a->num_blocks, times);
        differ(a, b, times, load, drawn);
        for (int m = 0; m < NUM_MEASURES; m++) {
            values[m * draws + d] = drawn[m];
        }
    }
    for (int64_t i = 0; i < a->num_blocks; i++) {
        times[i] = 1;
    }
    differ(a, b, times, load, drawn);
    for (int m = 0; m < NUM_MEASURES; m++) {
        intervals[m]->value = drawn[m];
        set_interval(values + m * draws, draws, tail, intervals[m]);
    }
out:
    free(times);
    free(load);
    free(values);
    return status;
}
