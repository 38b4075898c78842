/* SPDX-License-Identifier: Apache-2.0 */
/* hot and khot: a group of experts gets a given share of all copies, or of the tokens; within and
 * outside the group every set is equally likely. The number of group experts of a token follows
 * Fisher's noncentral hypergeometric distribution, whose weight is solved for, so that hot:1 is
 * uniform routing. */
#include "kernels/skew_policy.h"

#include "base/random.h"
#include "base/units.h"
#include "kernels/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Odd, 2^64 / golden ratio: multiples of it mod 2^64 fill the range evenly over every stretch of
 * tokens (Knuth 6.4), so that the asked share is met by few tokens too. */
#define WEYL_STEP UINT64_C(0x9e3779b97f4a7c15)

/* Which experts are in the group depends on the source only where experts have replicas. */
struct state {
    int64_t group_size;   /* experts of the group, for the source that sees most of them */
    int32_t *order;       /* [num_experts] the group's experts, then the others */
    int32_t *seen;        /* [num_ranks][group_size] by source: experts in the group, then those
                             that this source sends elsewhere; NULL if all sources see all */
    int32_t *num_seen;    /* [num_ranks] how many are in the group; NULL likewise */
    int64_t *tokens_with; /* [group_size + 1] tokens whose source sees that many */
    uint64_t *below;      /* [group_size + 1][top_k + 1] 2^64 P(chosen <= n), by experts seen */
    uint64_t start;       /* of the Weyl sequence */
};

/* --- the distribution --------------------------------------------------------------------- */

static double log_choose(int64_t n, int64_t k)
{
    int sign;
    return lgamma_r((double)n + 1, &sign) - lgamma_r((double)k + 1, &sign) -
           lgamma_r((double)(n - k) + 1, &sign);
}

static int64_t least_chosen(const struct ep_router *r, int64_t seen)
{
    const int64_t others = r->num_experts - seen;
    return r->top_k > others ? r->top_k - others : 0;
}

static int64_t most_chosen(const struct ep_router *r, int64_t seen)
{
    return seen < r->top_k ? seen : r->top_k;
}

/* P(n of the group) for n = least .. most, at log weight w: C(seen, n) C(E - seen, k - n) e^(w n),
 * normalised. Returns the mean. */
static double fill_probabilities(const struct ep_router *r, int64_t seen, double w, double *p)
{
    const int64_t least = least_chosen(r, seen);
    const int64_t most = most_chosen(r, seen);
    double highest = -INFINITY;
    for (int64_t n = least; n <= most; n++) {
        p[n] =
            log_choose(seen, n) + log_choose(r->num_experts - seen, r->top_k - n) + w * (double)n;
        highest = fmax(highest, p[n]);
    }
    double sum = 0;
    double mean = 0;
    for (int64_t n = least; n <= most; n++) {
        p[n] = exp(p[n] - highest);
        sum += p[n];
        mean += p[n] * (double)n;
    }
    for (int64_t n = least; n <= most; n++) {
        p[n] /= sum;
    }
    return mean / sum;
}

/* What w is solved for: it rises with w. p is scratch [top_k + 1]. */
typedef double (*measure_fn)(const struct ep_router *r, double w, double *p);

/* Tokens with an expert of the group at log weight w; all tokens see the whole group. */
static double mean_tokens(const struct ep_router *r, double w, double *p)
{
    const struct state *state = r->state;
    const int64_t size = state->group_size;
    p[0] = 0;
    fill_probabilities(r, size, w, p);
    return (double)state->tokens_with[size] * (1 - (least_chosen(r, size) == 0 ? p[0] : 0));
}

/* Mean number of group copies over all tokens at log weight w. */
static double mean_copies(const struct ep_router *r, double w, double *p)
{
    const struct state *state = r->state;
    double sum = 0;
    for (int64_t seen = 1; seen <= state->group_size; seen++) {
        if (state->tokens_with[seen] > 0) {
            sum += (double)state->tokens_with[seen] * fill_probabilities(r, seen, w, p);
        }
    }
    return sum;
}

/* The log weight at which `measure` is `target`. */
static double solve_weight(const struct ep_router *r, measure_fn measure, double target, double *p)
{
    double low = -700;
    double high = 700;
    for (int i = 0; i < 100; i++) {
        const double middle = (low + high) / 2;
        if (measure(r, middle, p) < target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (low + high) / 2;
}

static void fill_below(const struct ep_router *r, double w, double *p)
{
    const struct state *state = r->state;
    for (int64_t seen = 0; seen <= state->group_size; seen++) {
        if (state->tokens_with[seen] == 0) {
            continue;
        }
        uint64_t *below = state->below + seen * (r->top_k + 1);
        const int64_t most = most_chosen(r, seen);
        fill_probabilities(r, seen, w, p);
        double sum = 0;
        for (int64_t n = 0; n <= r->top_k; n++) {
            sum += n >= least_chosen(r, seen) && n <= most ? p[n] : 0;
            below[n] = n >= most || sum >= 1 ? UINT64_MAX : (uint64_t)(sum * 0x1p64);
        }
    }
}

/* --- preparing ---------------------------------------------------------------------------- */

static void release(struct ep_router *router)
{
    struct state *state = router->state;
    free(state->order);
    free(state->seen);
    free(state->num_seen);
    free(state->tokens_with);
    free(state->below);
    free(state);
}

static enum ep_status no_memory(const struct ep_router *router)
{
    return ep_error_set(EP_ENOMEM, "no memory for skew %s", router->skew->text);
}

static enum ep_status allocate(struct ep_router *router, int64_t group_size, bool by_source)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return no_memory(router);
    }
    router->state = state;
    const size_t size = (size_t)group_size;
    const size_t ranks = (size_t)router->placement->num_ranks;
    state->group_size = group_size;
    state->order = malloc((size_t)router->num_experts * sizeof *state->order);
    state->tokens_with = calloc(size + 1, sizeof *state->tokens_with);
    state->below = calloc((size + 1) * ((size_t)router->top_k + 1), sizeof *state->below);
    bool lost = state->order == NULL || state->tokens_with == NULL || state->below == NULL;
    if (by_source) {
        state->seen = malloc(ranks * size * sizeof *state->seen);
        state->num_seen = calloc(ranks, sizeof *state->num_seen);
        lost = lost || state->seen == NULL || state->num_seen == NULL;
    }
    return lost ? no_memory(router) : EP_OK;
}

/* `group` [group_size] first, then all other experts, ascending. */
static enum ep_status fill_order(struct ep_router *router, const int32_t *group)
{
    struct state *state = router->state;
    bool *grouped = calloc((size_t)router->num_experts, sizeof *grouped);
    if (grouped == NULL) {
        return no_memory(router);
    }
    int64_t num = 0;
    for (; num < state->group_size; num++) {
        state->order[num] = group[num];
        grouped[group[num]] = true;
    }
    for (int32_t e = 0; e < router->num_experts; e++) {
        if (!grouped[e]) {
            state->order[num++] = e;
        }
    }
    free(grouped);
    return EP_OK;
}

/* Of the hot ranks' experts, those that each source really sends to one of them. */
static void fill_seen(struct ep_router *router, const bool *is_hot)
{
    struct state *state = router->state;
    const int64_t size = state->group_size;
    for (int64_t s = 0; s < router->placement->num_ranks; s++) {
        int32_t *seen = state->seen + s * size;
        int64_t front = 0;
        int64_t back = size;
        for (int64_t i = 0; i < size; i++) {
            const int32_t expert = state->order[i];
            if (is_hot[ep_placement_rank(router->placement, expert, s)]) {
                seen[front++] = expert;
            } else {
                seen[--back] = expert;
            }
        }
        state->num_seen[s] = (int32_t)front;
        state->tokens_with[front] += ep_token_map_count(router->tokens, s);
    }
}

/* Least and most copies that the group can get over all tokens. */
static void find_bounds(const struct ep_router *router, double *least, double *most)
{
    const struct state *state = router->state;
    *least = *most = 0;
    for (int64_t seen = 0; seen <= state->group_size; seen++) {
        *least += (double)state->tokens_with[seen] * (double)least_chosen(router, seen);
        *most += (double)state->tokens_with[seen] * (double)most_chosen(router, seen);
    }
}

static enum ep_status solve(struct ep_router *router, measure_fn measure, double target)
{
    struct state *state = router->state;
    double *p = malloc(((size_t)router->top_k + 1) * sizeof *p);
    if (p == NULL) {
        return no_memory(router);
    }
    fill_below(router, solve_weight(router, measure, target, p), p);
    free(p);
    struct ep_random random;
    ep_random_init(&random, router->seed, EP_RANDOM_PERMUTATION, 1);
    state->start = ep_random_u64(&random);
    return EP_OK;
}

/* --- hot ---------------------------------------------------------------------------------- */

/* "last", or ranks and ranges with '/' between them, as ',' is between skews. */
static enum ep_status parse_hot_ranks(const char *text, const char *what, int64_t num_ranks,
                                      int32_t **ranks, int64_t *num)
{
    char last[24];
    snprintf(last, sizeof last, "%" PRId64, num_ranks - 1);
    char *list = strdup(strcmp(text, "last") == 0 ? last : text);
    if (list == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a skew");
    }
    for (char *p = list; *p != '\0'; p++) {
        *p = *p == '/' ? ',' : *p;
    }
    const enum ep_status status = ep_placement_parse_ranks(list, what, num_ranks, ranks, num);
    free(list);
    return status;
}

enum ep_status ep_skew_find_hot_ranks(const struct ep_skew *skew, int64_t num_ranks,
                                      int32_t **ranks, int64_t *num)
{
    int32_t *found = NULL;
    const char *text = skew->hot_ranks != NULL ? skew->hot_ranks : "0";
    enum ep_status status = parse_hot_ranks(text, "ranks", num_ranks, &found, num);
    if (status == EP_ENOMEM) {
        return status;
    }
    if (status != EP_OK || *num >= num_ranks) {
        free(found);
        ep_error_clear();
        return ep_error_set(EP_EINVAL,
                            "skew %s: rank%s %s and another are needed, but there %s %" PRId64
                            " rank%s", skew->text, strpbrk(text, "/-") != NULL ? "s" : "", text,
                            num_ranks == 1 ? "is" : "are", num_ranks, num_ranks == 1 ? "" : "s");
    }
    *ranks = found;
    return EP_OK;
}

static enum ep_status parse_hot(const char *params, struct ep_skew *skew)
{
    enum ep_status status;
    char what[80];
    char *ratio = strdup(params);
    if (ratio == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a skew");
    }
    char *at = strchr(ratio, '@');
    if (at != NULL) {
        *at = '\0';
        snprintf(what, sizeof what, "skew '%.40s': rank", skew->text);
        int32_t *ranks = NULL; /* which they are depends on how many there are */
        int64_t num = 0;
        EP_TRY(parse_hot_ranks(at + 1, what, EP_MAX_RANKS, &ranks, &num));
        free(ranks);
        skew->hot_ranks = strdup(at + 1);
        if (skew->hot_ranks == NULL) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a skew"));
        }
    }
    snprintf(what, sizeof what, "skew '%.40s': ratio R", skew->text);
    status = ep_parse_f64(ratio, what, 0, 1e12, &skew->value);
out:
    free(ratio);
    return status;
}

/* Copies of a hot rank over the mean of the others, where `copies` of `all` are on num_hot ranks. */
static double ratio_of(double copies, double all, int64_t num_hot, int64_t num_ranks)
{
    return copies >= all ? INFINITY
                         : copies / (double)num_hot * (double)(num_ranks - num_hot) / (all - copies);
}

static enum ep_status check_ratio(const struct ep_router *router, int64_t num_hot, double all)
{
    const int64_t ranks = router->placement->num_ranks;
    const double ratio = router->skew->value;
    double least = 0;
    double most = 0;
    find_bounds(router, &least, &most);
    const double largest = ratio_of(most, all, num_hot, ranks);
    const double smallest = ratio_of(least, all, num_hot, ranks);
    const bool too_large = ratio > largest * (1 + 1e-9);
    if (!too_large && !(ratio < smallest * (1 - 1e-9))) {
        return EP_OK;
    }
    return ep_error_set(EP_EINVAL,
                        "skew %s cannot be reached: with %" PRId64 " experts, top-%" PRId64
                        " and %" PRId64 " ranks, rank%s %s %s %.6g times the mean of the others",
                        router->skew->text, router->num_experts, router->top_k, ranks,
                        num_hot == 1 ? "" : "s",
                        router->skew->hot_ranks != NULL ? router->skew->hot_ranks : "0",
                        too_large         ? "can receive at most"
                        : num_hot == 1    ? "receives at least"
                                          : "receive at least",
                        too_large ? largest : smallest);
}

/* Marks hot ranks, and lists their experts once each: group [num_experts]. Returns how many experts. */
static int64_t mark_hot(const struct ep_placement *placement, const int32_t *hot, int64_t num_hot,
                        bool *is_hot, int32_t *group)
{
    int64_t size = 0;
    for (int64_t h = 0; h < num_hot; h++) {
        const int32_t *local = NULL;
        const int64_t held = ep_placement_local_experts(placement, hot[h], &local);
        is_hot[hot[h]] = true;
        for (int64_t i = 0; i < held; i++) {
            int64_t k = 0;
            while (placement->replicated && k < size && group[k] != local[i]) {
                k++;
            }
            if (!placement->replicated || k == size) {
                group[size++] = local[i];
            }
        }
    }
    return size;
}

static enum ep_status prepare_hot(struct ep_router *router)
{
    enum ep_status status;
    const struct ep_placement *placement = router->placement;
    int32_t *hot = NULL;
    int64_t num_hot = 0;
    int32_t *group = calloc((size_t)placement->num_experts, sizeof *group);
    bool *is_hot = calloc((size_t)placement->num_ranks, sizeof *is_hot);
    if (group == NULL || is_hot == NULL) {
        EP_TRY(no_memory(router));
    }
    EP_TRY(ep_skew_find_hot_ranks(router->skew, placement->num_ranks, &hot, &num_hot));
    const int64_t size = mark_hot(placement, hot, num_hot, is_hot, group);
    if (size == 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "skew %s: rank %" PRId32 " holds no expert",
                            router->skew->text, hot[0]));
    }
    EP_TRY(allocate(router, size, placement->replicated));
    struct state *state = router->state;
    EP_TRY(fill_order(router, group));
    if (placement->replicated) {
        fill_seen(router, is_hot);
    } else {
        state->tokens_with[size] = router->tokens->num_tokens;
    }
    const double all = (double)router->tokens->num_tokens * (double)router->top_k;
    EP_TRY(check_ratio(router, num_hot, all));
    const double hot_part = router->skew->value * (double)num_hot;
    EP_TRY(solve(router, mean_copies,
                 all * hot_part / (hot_part + (double)(placement->num_ranks - num_hot))));
out:
    if (status != EP_OK && router->state != NULL) {
        release(router);
        router->state = NULL;
    }
    free(hot);
    free(group);
    free(is_hot);
    return status;
}

/* --- khot --------------------------------------------------------------------------------- */

static enum ep_status parse_khot(const char *params, struct ep_skew *skew)
{
    enum ep_status status;
    struct ep_list list = {0};
    char what[80];
    snprintf(what, sizeof what, "skew '%.40s'", skew->text);
    EP_TRY(ep_list_split(params, ':', what, &list));
    if (list.num != 2) {
        status = ep_error_set(EP_EINVAL,
                              "%s: khot:N:F expected, N experts with share F of the tokens", what);
        goto out;
    }
    snprintf(what, sizeof what, "skew '%.40s': experts N", skew->text);
    EP_TRY(ep_parse_i64(list.items[0], what, 1, EP_MAX_EXPERTS, &skew->count));
    snprintf(what, sizeof what, "skew '%.40s': share F", skew->text);
    EP_TRY(ep_parse_f64(list.items[1], what, 0, 1, &skew->value));
out:
    ep_list_fini(&list);
    return status;
}

/* A token has one of the group for sure where there are not enough others. */
static enum ep_status check_share(const struct ep_router *router)
{
    const struct ep_skew *skew = router->skew;
    if (skew->value < 1 && least_chosen(router, skew->count) > 0) {
        return ep_error_set(EP_EINVAL,
                            "skew %s cannot be reached: of %" PRId64 " experts, only %" PRId64
                            " are not in the group, so all tokens of "
                            "top-%" PRId64 " choose one of it (F = 1)",
                            skew->text, router->num_experts, router->num_experts - skew->count,
                            router->top_k);
    }
    return EP_OK;
}

static enum ep_status prepare_khot(struct ep_router *router)
{
    enum ep_status status;
    const int64_t size = router->skew->count;
    int32_t *group = NULL;
    if (size > router->num_experts) {
        return ep_error_set(EP_EINVAL, "skew %s: there are only %" PRId64 " experts",
                            router->skew->text, router->num_experts);
    }
    EP_TRY(allocate(router, size, false));
    group = malloc((size_t)size * sizeof *group);
    if (group == NULL) {
        status = no_memory(router);
        goto out;
    }
    struct ep_random random;
    ep_random_init(&random, router->seed, EP_RANDOM_PERMUTATION, 0);
    ep_sample_subset(&random, router->num_experts, size, group);
    EP_TRY(fill_order(router, group));
    struct state *state = router->state;
    state->tokens_with[size] = router->tokens->num_tokens;
    EP_TRY(check_share(router));
    EP_TRY(solve(router, mean_tokens, (double)router->tokens->num_tokens * router->skew->value));
    free(group);
    return EP_OK;
out:
    free(group);
    if (router->state != NULL) {
        release(router);
        router->state = NULL;
    }
    return status;
}

/* ln P(a token of top_k successive draws has none of the group), an expert of which is e^log_weight times as
 * likely as another: the chance that every draw takes one of the others. */
static double log_none(const struct ep_router *router, double log_weight)
{
    const double group = (double)router->skew->count * exp(log_weight);
    double sum = 0;
    for (int64_t i = 0; i < router->top_k; i++) {
        const double others = (double)(router->num_experts - router->skew->count - i);
        sum += log(others / (others + group));
    }
    return sum;
}

/* The weight at which the share F of tokens draws one of the group: log_none falls with it. */
static enum ep_status fill_khot_shares(const struct ep_router *router, double *shares)
{
    const struct state *state = router->state;
    const int64_t size = router->skew->count;
    const double target = log1p(-router->skew->value);
    double low = -600;
    double high = 600;
    for (int i = 0; i < 100; i++) {
        const double middle = (low + high) / 2;
        if (log_none(router, middle) > target) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const double weight = exp((low + high) / 2);
    const double sum = (double)size * weight + (double)(router->num_experts - size);
    for (int64_t i = 0; i < router->num_experts; i++) {
        shares[state->order[i]] = (i < size ? weight : 1) / sum;
    }
    return EP_OK;
}

/* --- generating --------------------------------------------------------------------------- */

static void draw_token(const struct ep_router *router, struct ep_random *random, int64_t token,
                       int64_t num_seen, const int32_t *seen, int32_t *experts)
{
    const struct state *state = router->state;
    const int64_t k = router->top_k;
    const uint64_t *below = state->below + num_seen * (k + 1);
    const uint64_t level = state->start + (uint64_t)token * WEYL_STEP;
    int64_t chosen = 0;
    while (level > below[chosen]) {
        chosen++;
    }
    ep_sample_subset(random, num_seen, chosen, experts);
    ep_sample_subset(random, router->num_experts - num_seen, k - chosen, experts + chosen);
    for (int64_t i = 0; i < k; i++) {
        const int64_t place = experts[i] + (i < chosen ? 0 : num_seen);
        experts[i] = place < state->group_size ? seen[place] : state->order[place];
    }
}

static void generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                     int32_t *topk_idx)
{
    const struct state *state = router->state;
    int64_t source = -1;
    int64_t source_end = 0;
    int64_t num_seen = state->group_size;
    const int32_t *seen = state->order;
    struct ep_random random[EP_RANDOM_LANES];
    for (int64_t t = 0; t < num_tokens; t++) {
        const int64_t token = first_token + t;
        if (t % EP_RANDOM_LANES == 0) {
            ep_sample_tokens(random, router->seed, EP_RANDOM_ROUTING, token, num_tokens - t,
                             router->top_k);
        }
        if (state->seen != NULL && token >= source_end) {
            source = ep_token_map_rank(router->tokens, token);
            source_end = router->tokens->start[source + 1];
            num_seen = state->num_seen[source];
            seen = state->seen + source * state->group_size;
        }
        draw_token(router, &random[t % EP_RANDOM_LANES], token, num_seen, seen,
                   topk_idx + t * router->top_k);
    }
}

const struct ep_skew_policy ep_skew_hot = {
    .name = "hot",
    .fixed = true,
    .usage = "hot:R[@RANKS]",
    .example = "hot:4",
    .summary = "RANK (default 0) receives R times the mean copies of the others",
    .parse = parse_hot,
    .prepare = prepare_hot,
    .generate = generate,
    .release = release,
};

const struct ep_skew_policy ep_skew_khot = {
    .name = "khot",
    .usage = "khot:N:F",
    .example = "khot:1:0.9",
    .summary = "the share F of tokens chooses one or more of N experts, drawn by the seed",
    .parse = parse_khot,
    .prepare = prepare_khot,
    .generate = generate,
    .fill_shares = fill_khot_shares,
    .release = release,
};
