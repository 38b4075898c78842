/* SPDX-License-Identifier: Apache-2.0 */
/* Re-placing over windows of a trace, with as few weights moved as renumbering ranks allows. */
#include "kernels/place_dynamic.h"

#include <stdlib.h>
#include <string.h>

/* --- renumbering --------------------------------------------------------------------------- */

static bool contains(const int32_t *slots, int64_t num, int32_t expert)
{
    for (int64_t i = 0; i < num; i++) {
        if (slots[i] == expert) {
            return true;
        }
    }
    return false;
}

/* Distinct experts of `slots` that `others` hold too. */
static int64_t count_common(const int32_t *slots, const int32_t *others, int64_t num)
{
    int64_t common = 0;
    for (int64_t i = 0; i < num; i++) {
        common += !contains(slots, i, slots[i]) && contains(others, num, slots[i]);
    }
    return common;
}

int64_t ep_place_count_moved(const struct ep_place_shape *shape, const int32_t *old,
                             const int32_t *map)
{
    const int64_t per_rank = shape->num_slots / shape->num_ranks;
    int64_t moved = 0;
    for (int64_t r = 0; r < shape->num_ranks; r++) {
        const int32_t *now = map + r * per_rank;
        for (int64_t i = 0; i < per_rank; i++) {
            moved += !contains(now, i, now[i]) && !contains(old + r * per_rank, per_rank, now[i]);
        }
    }
    return moved;
}

struct pair {
    int64_t common;
    int32_t old_idx;
    int32_t new_idx;
};

static int most_first(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    if (x->common != y->common) {
        return x->common > y->common ? -1 : 1;
    }
    /* of equals, what need not be renumbered */
    const bool x_stays = x->old_idx == x->new_idx;
    const bool y_stays = y->old_idx == y->new_idx;
    if (x_stays != y_stays) {
        return x_stays ? -1 : 1;
    }
    return x->old_idx != y->old_idx ? (x->old_idx > y->old_idx) - (x->old_idx < y->old_idx)
                                    : (x->new_idx > y->new_idx) - (x->new_idx < y->new_idx);
}

/* Permute `num` parts of `size` slots of `map` to be like those of `old`. */
static enum ep_status match_parts(const int32_t *old, int64_t num, int64_t size, int32_t *map)
{
    struct pair *pairs = malloc((size_t)(num * num) * sizeof *pairs);
    bool *taken = calloc((size_t)num * 2, sizeof *taken);
    int32_t *permuted = malloc((size_t)(num * size) * sizeof *permuted);
    enum ep_status status = EP_OK;
    if (pairs == NULL || taken == NULL || permuted == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to compare placements");
        goto out;
    }
    for (int64_t i = 0; i < num; i++) {
        for (int64_t k = 0; k < num; k++) {
            pairs[i * num + k] = (struct pair){count_common(map + k * size, old + i * size, size),
                                               (int32_t)i, (int32_t)k};
        }
    }
    qsort(pairs, (size_t)(num * num), sizeof *pairs, most_first);
    for (int64_t p = 0; p < num * num; p++) {
        bool *old_taken = &taken[pairs[p].old_idx];
        bool *new_taken = &taken[num + pairs[p].new_idx];
        if (!*old_taken && !*new_taken) {
            *old_taken = *new_taken = true;
            memcpy(permuted + pairs[p].old_idx * size, map + pairs[p].new_idx * size,
                   (size_t)size * sizeof *map);
        }
    }
    memcpy(map, permuted, (size_t)(num * size) * sizeof *map);
out:
    free(pairs);
    free(taken);
    free(permuted);
    return status;
}

/* Experts that stay on a rank keep their slot. */
static void match_slots(const int32_t *old, int64_t num, int32_t *slots)
{
    for (int64_t i = 0; i < num; i++) {
        for (int64_t k = 0; k < num && slots[i] != old[i]; k++) {
            if (slots[k] == old[i] && slots[k] != old[k]) {
                slots[k] = slots[i];
                slots[i] = old[i];
            }
        }
    }
}

enum ep_status ep_place_match(const struct ep_place_shape *shape, const int32_t *old, int32_t *map)
{
    enum ep_status status;
    const size_t size = (size_t)shape->num_slots * sizeof *map;
    const int64_t per_node = shape->num_slots / shape->num_nodes;
    const int64_t per_rank = shape->num_slots / shape->num_ranks;
    int32_t *matched = malloc(size);
    if (matched == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to compare placements");
    }
    memcpy(matched, map, size);
    EP_TRY(match_parts(old, shape->num_nodes, per_node, matched));
    for (int64_t n = 0; n < shape->num_nodes; n++) {
        EP_TRY(match_parts(old + n * per_node, shape->num_ranks / shape->num_nodes, per_rank,
                           matched + n * per_node));
    }
    /* what is best pair by pair need not be best in all */
    if (ep_place_count_moved(shape, old, matched) < ep_place_count_moved(shape, old, map)) {
        memcpy(map, matched, size);
    }
    for (int64_t r = 0; r < shape->num_ranks; r++) {
        match_slots(old + r * per_rank, per_rank, map + r * per_rank);
    }
out:
    free(matched);
    return status;
}

/* --- following ----------------------------------------------------------------------------- */

struct follower {
    struct ep_place_task task;     /* of the windows looked at */
    struct ep_place_tokens tokens; /* the same */
    double *load;                  /* [num_experts] */
    double *rank_load;             /* [num_ranks] */
    int32_t *candidate;            /* [num_slots] */
};

static void look_at(struct follower *f, const struct ep_place_tokens *tokens, int64_t first,
                    int64_t end)
{
    f->tokens = (struct ep_place_tokens){end - first, tokens->top_k,
                                         tokens->topk_idx + first * tokens->top_k};
    memset(f->load, 0, (size_t)f->task.shape.num_experts * sizeof *f->load);
    for (int64_t i = 0; i < f->tokens.num_tokens * tokens->top_k; i++) {
        if (f->tokens.topk_idx[i] >= 0) {
            f->load[f->tokens.topk_idx[i]]++;
        }
    }
}

static enum ep_status find_busiest(struct follower *f, const int32_t *map, double *busiest)
{
    const enum ep_status status =
        ep_place_fill_loads(&f->task.shape, f->load, map, f->rank_load, NULL);
    *busiest = status == EP_OK ? ep_place_max(f->rank_load, f->task.shape.num_ranks) : 0;
    return status;
}

/* The map in force after a look: `map` is replaced where the candidate is worth it. */
static enum ep_status reconsider(struct follower *f, const struct ep_place_dynamic_options *options,
                                 int32_t *map, struct ep_place_dynamic *d)
{
    enum ep_status status;
    double now = 0, then = 0;
    EP_TRY(ep_place_run(options->policy, &f->task, f->candidate));
    EP_TRY(find_busiest(f, map, &now));
    EP_TRY(find_busiest(f, f->candidate, &then));
    d->num_looks++;
    if (then < now && then <= now * (1 - options->hysteresis)) {
        EP_TRY(ep_place_match(&f->task.shape, map, f->candidate));
        d->num_replaced++;
        d->experts_moved += ep_place_count_moved(&f->task.shape, map, f->candidate);
        memcpy(map, f->candidate, (size_t)f->task.shape.num_slots * sizeof *map);
    }
out:
    return status;
}

static enum ep_status follow(struct follower *f, const struct ep_place_tokens *tokens,
                             const int32_t *start, const struct ep_place_dynamic_options *options,
                             struct ep_place_dynamic *d)
{
    enum ep_status status = EP_OK;
    const int64_t slots = f->task.shape.num_slots;
    memcpy(d->maps, start, (size_t)slots * sizeof *d->maps);
    for (int64_t w = 1; w < d->num_windows; w++) {
        int32_t *map = d->maps + w * slots;
        memcpy(map, map - slots, (size_t)slots * sizeof *map);
        if (w % options->every == 0) {
            look_at(f, tokens, (w - options->every) * options->window_tokens,
                    w * options->window_tokens);
            EP_TRY(reconsider(f, options, map, d));
        }
    }
out:
    return status;
}

enum ep_status ep_place_follow(const struct ep_place_task *task,
                               const struct ep_place_tokens *tokens, const int32_t *start,
                               const struct ep_place_dynamic_options *options,
                               struct ep_place_dynamic *dynamic)
{
    enum ep_status status;
    const int64_t window = options->window_tokens;
    struct follower f = {.task = *task};
    struct ep_place_dynamic d = {0};
    EP_ASSERT(window >= 1 && options->every >= 1 && tokens->num_tokens >= 1);
    d.num_windows = (tokens->num_tokens + window - 1) / window;
    d.maps = calloc((size_t)(d.num_windows * task->shape.num_slots), sizeof *d.maps);
    f.load = calloc((size_t)task->shape.num_experts, sizeof *f.load);
    f.rank_load = calloc((size_t)task->shape.num_ranks, sizeof *f.rank_load);
    f.candidate = calloc((size_t)task->shape.num_slots, sizeof *f.candidate);
    if (d.maps == NULL || f.load == NULL || f.rank_load == NULL || f.candidate == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %lld windows", (long long)d.num_windows);
        goto out;
    }
    f.task.load = f.load;
    f.task.tokens = &f.tokens;
    EP_TRY(follow(&f, tokens, start, options, &d));
    *dynamic = d;
    d = (struct ep_place_dynamic){0};
out:
    free(f.load);
    free(f.rank_load);
    free(f.candidate);
    ep_place_dynamic_fini(&d);
    return status;
}

void ep_place_dynamic_fini(struct ep_place_dynamic *dynamic)
{
    free(dynamic->maps);
    *dynamic = (struct ep_place_dynamic){0};
}
