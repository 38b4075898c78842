/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling what the busiest rank of each EP group receives: one stream of tokens per sample, of
 * which every group size reads its first part. */
#include "kernels/plan.h"

#include "base/stats.h"
#include "kernels/plan_spread.h"
#include "kernels/routing.h"
#include "kernels/skew_policy.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What decides how much a rank receives. */
struct group {
    int64_t num_tokens;    /* of all ranks of the group */
    int64_t source_tokens; /* of one of its ranks; 0 where nothing is dropped */
    int64_t capacity;      /* rows that an expert takes of a source rank */
    int64_t ep;
    double *most; /* [num_samples] copies on the busiest rank */
    int64_t kept; /* over all samples */
    int64_t asked;
};

/* Copies per expert over the tokens so far, of each source rank no more than its capacity. */
struct counter {
    int64_t source_tokens; /* 0 = all are kept */
    int64_t capacity;
    int64_t num_seen; /* tokens of the source rank at hand */
    int64_t asked;    /* copies of whole source ranks */
    int64_t *source;  /* [num_experts] its copies */
    int64_t *kept;    /* [num_experts] */
};

struct sampler {
    const struct ep_plan_config *config;
    struct ep_skew *skew;
    struct ep_placement placement; /* one rank: which experts are asked for is all that matters */
    struct ep_token_map tokens;
    struct ep_routing chunk;
    struct group *groups; /* [num_groups] by tokens */
    size_t num_groups;
    struct counter *counters; /* [num_counters] one per size and capacity of a source rank */
    size_t num_counters;
    struct ep_plan_spread *spreads; /* [num_spreads] one per EP */
    size_t num_spreads;
    int64_t step;   /* tokens counted at once: a divisor of all source ranks */
    int64_t *fresh; /* [num_experts] copies of one step */
    bool wraps;
};

/* Ranks per token are a mean, settled by the first tokens of each sample. */
enum { CHUNK_TOKENS = 4096, SPREAD_TOKENS = 16384 };

/* Tokens over all samples: days of work already. */
static const double max_sampled_tokens = 0x1p40;

/* --- groups ------------------------------------------------------------------------------- */

static struct group group_of_plan(const struct ep_plan_config *c, const struct ep_plan *p)
{
    const int64_t source_tokens = c->tokens / p->tp;
    return (struct group){.num_tokens = p->ep * p->expert_tp * source_tokens,
                          .source_tokens = c->capacity == NULL ? 0 : source_tokens,
                          .capacity = ep_plan_capacity(c, p),
                          .ep = p->ep};
}

static int compare_groups(const void *x, const void *y)
{
    const struct group *a = x;
    const struct group *b = y;
    if (a->num_tokens != b->num_tokens) {
        return a->num_tokens < b->num_tokens ? -1 : 1;
    }
    if (a->source_tokens != b->source_tokens) {
        return a->source_tokens < b->source_tokens ? -1 : 1;
    }
    if (a->capacity != b->capacity) {
        return a->capacity < b->capacity ? -1 : 1;
    }
    return (a->ep > b->ep) - (a->ep < b->ep);
}

static enum ep_status collect_groups(const struct ep_plan_set *set, struct sampler *s)
{
    s->groups = calloc((size_t)set->num, sizeof *s->groups);
    if (s->groups == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " plans", set->num);
    }
    for (int64_t i = 0; i < set->num; i++) {
        s->groups[i] = group_of_plan(s->config, &set->plans[i]);
    }
    qsort(s->groups, (size_t)set->num, sizeof *s->groups, compare_groups);
    for (int64_t i = 0; i < set->num; i++) {
        if (i == 0 || compare_groups(&s->groups[s->num_groups - 1], &s->groups[i]) != 0) {
            s->groups[s->num_groups++] = s->groups[i];
        }
    }
    for (size_t i = 0; i < s->num_groups; i++) {
        s->groups[i].most = calloc((size_t)s->config->num_samples, sizeof(double));
        if (s->groups[i].most == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for samples");
        }
    }
    return EP_OK;
}

/* --- counters ----------------------------------------------------------------------------- */

static struct counter *find_counter(const struct sampler *s, const struct group *group)
{
    for (size_t i = 0; i < s->num_counters; i++) {
        if (s->counters[i].source_tokens == group->source_tokens &&
            s->counters[i].capacity == group->capacity) {
            return &s->counters[i];
        }
    }
    return NULL;
}

static int64_t greatest_common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static enum ep_status make_counters(struct sampler *s)
{
    const size_t experts = (size_t)s->config->model->num_experts;
    s->counters = calloc(s->num_groups, sizeof *s->counters);
    s->fresh = calloc(experts, sizeof *s->fresh);
    if (s->counters == NULL || s->fresh == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to count copies");
    }
    for (size_t i = 0; i < s->num_groups; i++) {
        const int64_t source_tokens = s->groups[i].source_tokens;
        if (find_counter(s, &s->groups[i]) != NULL) {
            continue;
        }
        struct counter *counter = &s->counters[s->num_counters++];
        counter->source_tokens = source_tokens;
        counter->capacity = s->groups[i].capacity;
        counter->source = calloc(experts, sizeof *counter->source);
        counter->kept = calloc(experts, sizeof *counter->kept);
        if (counter->source == NULL || counter->kept == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory to count copies");
        }
        s->step = greatest_common_divisor(s->step, source_tokens);
    }
    s->step = s->step > 0 ? s->step : CHUNK_TOKENS;
    return EP_OK;
}

static void reset_counters(const struct sampler *s)
{
    const size_t size = (size_t)s->config->model->num_experts * sizeof(int64_t);
    for (size_t i = 0; i < s->num_counters; i++) {
        s->counters[i].num_seen = 0;
        s->counters[i].asked = 0;
        memset(s->counters[i].source, 0, size);
        memset(s->counters[i].kept, 0, size);
    }
}

static void count_step(const struct sampler *s, struct counter *counter, int64_t num_tokens)
{
    const int64_t experts = s->config->model->num_experts;
    if (counter->source_tokens == 0) {
        for (int64_t e = 0; e < experts; e++) {
            counter->kept[e] += s->fresh[e];
            counter->asked += s->fresh[e];
        }
        return;
    }
    for (int64_t e = 0; e < experts; e++) {
        counter->source[e] += s->fresh[e];
    }
    counter->num_seen += num_tokens;
    if (counter->num_seen == counter->source_tokens) {
        for (int64_t e = 0; e < experts; e++) {
            const int64_t copies = counter->source[e];
            counter->asked += copies;
            counter->kept[e] += copies < counter->capacity ? copies : counter->capacity;
            counter->source[e] = 0;
        }
        counter->num_seen = 0;
    }
}

/* Count tokens [first, first + num) of the chunk, step by step. */
static void count_chunk(const struct sampler *s, int64_t num)
{
    const int64_t top_k = s->chunk.top_k;
    for (int64_t t = 0; t < num; t += s->step) {
        const int64_t tokens = num - t < s->step ? num - t : s->step;
        const int32_t *idx = s->chunk.topk_idx + t * top_k;
        memset(s->fresh, 0, (size_t)s->config->model->num_experts * sizeof *s->fresh);
        for (int64_t i = 0; i < tokens * top_k; i++) {
            if (idx[i] >= 0) {
                s->fresh[idx[i]]++;
            }
        }
        for (size_t i = 0; i < s->num_counters; i++) {
            count_step(s, &s->counters[i], tokens);
        }
    }
}

/* --- ranks per token ---------------------------------------------------------------------- */

static struct ep_plan_spread *find_spread(const struct sampler *s, int64_t ep)
{
    for (size_t i = 0; i < s->num_spreads; i++) {
        if (s->spreads[i].ep == ep) {
            return &s->spreads[i];
        }
    }
    return NULL;
}

static enum ep_status make_spreads(struct sampler *s)
{
    enum ep_status status = EP_OK;
    s->spreads = calloc(s->num_groups, sizeof *s->spreads);
    if (s->spreads == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to count the ranks of tokens");
    }
    for (size_t i = 0; i < s->num_groups; i++) {
        if (find_spread(s, s->groups[i].ep) == NULL) {
            EP_TRY(ep_plan_spread_init(s->groups[i].ep, s->config->model->num_experts,
                                       &s->spreads[s->num_spreads]));
            s->num_spreads++;
        }
    }
out:
    return status;
}

/* --- samples ------------------------------------------------------------------------------ */

static void read_group(const struct sampler *s, struct group *group, int64_t sample)
{
    const int64_t experts = s->config->model->num_experts;
    const int64_t local = experts / group->ep;
    const struct counter *counter = find_counter(s, group);
    const bool pads = s->config->capacity != NULL && s->config->capacity->pad;
    int64_t most = 0;
    for (int64_t r = 0; r < group->ep; r++) {
        int64_t copies = 0;
        for (int64_t e = 0; e < local; e++) {
            copies += counter->kept[r * local + e];
        }
        most = copies > most ? copies : most;
        group->kept += copies;
    }
    if (pads) { /* experts take whole rooms, of every source */
        most = local * group->capacity * (group->num_tokens / group->source_tokens);
    }
    group->most[sample] = (double)most;
    group->asked += counter->asked;
}

/* Chunks end at each group's last token, and hold whole steps. */
static enum ep_status take_sample(struct sampler *s, int64_t sample)
{
    enum ep_status status;
    struct ep_router *router = NULL;
    const int64_t first = sample * s->groups[s->num_groups - 1].num_tokens;
    const int64_t chunk = CHUNK_TOKENS < s->step ? s->step : CHUNK_TOKENS / s->step * s->step;
    const struct ep_router_config config = {.skew = s->skew,
                                            .placement = &s->placement,
                                            .tokens = &s->tokens,
                                            .top_k = s->config->model->top_k,
                                            .seed = s->config->seed + (uint64_t)sample};
    int64_t done = 0;
    EP_TRY(ep_router_create(&config, &router));
    s->wraps = s->wraps || ep_router_wraps(router);
    reset_counters(s);
    for (size_t g = 0; g < s->num_groups; g++) {
        while (done < s->groups[g].num_tokens) {
            const int64_t left = s->groups[g].num_tokens - done;
            const int64_t num = left < chunk ? left : chunk;
            ep_router_generate(router, first + done, num, &s->chunk);
            count_chunk(s, num);
            for (size_t i = 0; i < s->num_spreads && done < SPREAD_TOKENS; i++) {
                ep_plan_spread_add(&s->spreads[i], s->chunk.topk_idx, num, s->chunk.top_k);
            }
            done += num;
        }
        read_group(s, &s->groups[g], sample);
    }
out:
    ep_router_destroy(router);
    return status;
}

static enum ep_status check_amount(const struct sampler *s)
{
    const int64_t tokens = s->groups[s->num_groups - 1].num_tokens;
    return (double)tokens * (double)s->config->num_samples <= max_sampled_tokens
               ? EP_OK
               : ep_error_set(EP_EINVAL,
                              "%" PRId64 " samples of %" PRId64
                              " tokens are too many; sample less, "
                              "or plan with fewer tokens",
                              s->config->num_samples, tokens);
}

static enum ep_status start(const struct ep_plan_set *set, struct sampler *s)
{
    enum ep_status status;
    const struct ep_plan_config *c = s->config;
    const struct ep_model *m = c->model;
    int64_t experts = 0;
    int64_t top_k = 0;
    EP_TRY(ep_skew_create(c->skew, &s->skew));
    if (s->skew->policy == &ep_skew_hot || s->skew->by_source) {
        status = ep_error_set(EP_EINVAL,
                              "skew '%s' depends on the ranks, which are what is planned; take "
                              "khot, zipf or a trace, common to all sources",
                              c->skew);
        goto out;
    }
    EP_TRY(ep_skew_resolve_shape(s->skew, m->num_experts, m->top_k, false, &experts, &top_k));
    EP_TRY(ep_placement_init_contiguous(m->num_experts, 1, &s->placement));
    EP_TRY(collect_groups(set, s));
    EP_TRY(make_counters(s));
    EP_TRY(make_spreads(s));
    EP_TRY(check_amount(s));
    EP_TRY(ep_token_map_init_equal(1, c->num_samples * s->groups[s->num_groups - 1].num_tokens,
                                   &s->tokens));
    status = ep_routing_init(CHUNK_TOKENS < s->step ? s->step : CHUNK_TOKENS, m->num_experts,
                             m->top_k, false, &s->chunk);
out:
    return status;
}

static void finish(struct sampler *s)
{
    for (size_t i = 0; i < s->num_groups; i++) {
        free(s->groups[i].most);
    }
    for (size_t i = 0; i < s->num_counters; i++) {
        free(s->counters[i].source);
        free(s->counters[i].kept);
    }
    for (size_t i = 0; i < s->num_spreads; i++) {
        ep_plan_spread_fini(&s->spreads[i]);
    }
    free(s->groups);
    free(s->spreads);
    free(s->counters);
    free(s->fresh);
    ep_routing_fini(&s->chunk);
    ep_token_map_fini(&s->tokens);
    ep_placement_fini(&s->placement);
    ep_skew_destroy(s->skew);
}

static void summarize(const struct sampler *s, const struct group *group,
                      struct ep_plan_received *received)
{
    const int64_t num = s->config->num_samples;
    const struct ep_plan_spread *spread = find_spread(s, group->ep);
    received->ranks_per_token = (double)spread->rows / (double)spread->tokens;
    received->copies[EP_PLAN_MEDIAN] = ep_stats_median_sorted(group->most, num);
    received->copies[EP_PLAN_P99] =
        num >= 100 ? ep_stats_quantile_sorted(group->most, num, 0.99) : (double)NAN;
    received->copies[EP_PLAN_WORST] = group->most[num - 1];
    received->kept_fraction = group->asked > 0 ? (double)group->kept / (double)group->asked : 1;
    received->copies_per_token = (double)group->asked / ((double)num * (double)group->num_tokens);
    received->mean = (double)group->asked / (double)num / (double)group->ep;
}

enum ep_status ep_plan_sample_received(const struct ep_plan_config *config, struct ep_plan_set *set)
{
    enum ep_status status = EP_OK;
    struct sampler s = {.config = config};
    if (set->num == 0) {
        return EP_OK;
    }
    EP_TRY(start(set, &s));
    for (int64_t i = 0; i < config->num_samples; i++) {
        EP_TRY(take_sample(&s, i));
        if (config->progress != NULL) {
            config->progress(i + 1, config->num_samples);
        }
    }
    for (size_t i = 0; i < s.num_groups; i++) {
        ep_stats_sort(s.groups[i].most, config->num_samples);
    }
    for (int64_t i = 0; i < set->num; i++) {
        const struct group key = group_of_plan(config, &set->plans[i]);
        const struct group *found =
            bsearch(&key, s.groups, s.num_groups, sizeof *s.groups, compare_groups);
        EP_ASSERT(found != NULL);
        summarize(&s, found, &set->plans[i].received);
    }
    set->wraps = s.wraps;
out:
    finish(&s);
    return status;
}
