/* SPDX-License-Identifier: Apache-2.0 */
/* Chances of ranks and nodes: closed forms, successive draws, or a sample of routed tokens. */
#include "kernels/expect.h"

#include "kernels/gate_source.h"
#include "kernels/skew_popularity.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWN_TOKENS = 16384 };

/* --- exact ----------------------------------------------------------------------------------- */

struct exact {
    int64_t num_experts;
    int64_t top_k;
    bool even;       /* all experts alike */
    double *shares;  /* [num_experts] popularity */
    double *chances; /* [num_experts] of each alone */
    double *merged;  /* [num_experts] room: the others, and one for all of a set */
    double *of_merged;
    bool *marked;    /* [num_experts] room: a set */
    int64_t known_first, known_num; /* the set asked for last */
    double known;
};

static double choose_none(int64_t num_experts, int64_t num, int64_t top_k)
{
    double none = 1; /* C(E - num, k) / C(E, k) */
    for (int64_t i = 0; i < top_k; i++) {
        none *= fmax(0, (double)(num_experts - num - i)) / (double)(num_experts - i);
    }
    return none;
}

/* That a token goes to one of the marked experts, `num` in all; not even. */
static enum ep_status chance_of_marked(struct exact *x, const bool *marked, int64_t num,
                                       double *chance)
{
    int64_t others = 0;
    double sum = 0;
    if (x->num_experts - num < x->top_k) {
        *chance = num > 0; /* the others are not enough */
        return EP_OK;
    }
    for (int64_t e = 0; e < x->num_experts; e++) {
        if (marked[e]) {
            sum += x->shares[e];
        } else {
            x->merged[others++] = x->shares[e];
        }
    }
    /* The first of the set comes at an exponential time of the summed rate, as one expert would. */
    x->merged[others] = sum;
    const enum ep_status status =
        ep_popularity_chances(x->merged, others + 1, x->top_k, x->of_merged);
    *chance = status == EP_OK ? x->of_merged[others] : 0;
    return status;
}

/* The chance that a token goes to one of experts first .. first + num - 1. */
static enum ep_status chance_of_set(struct exact *x, int64_t first, int64_t num, double *chance)
{
    if (num == 0) {
        *chance = 0;
        return EP_OK;
    }
    if (x->even) {
        *chance = 1 - choose_none(x->num_experts, num, x->top_k);
        return EP_OK;
    }
    if (num == 1) {
        *chance = x->chances[first];
        return EP_OK;
    }
    if (first == x->known_first && num == x->known_num) {
        *chance = x->known;
        return EP_OK;
    }
    for (int64_t e = 0; e < x->num_experts; e++) {
        x->marked[e] = e >= first && e < first + num;
    }
    const enum ep_status status = chance_of_marked(x, x->marked, num, chance);
    if (status == EP_OK) {
        x->known_first = first;
        x->known_num = num;
        x->known = *chance;
    }
    return status;
}

static enum ep_status exact_init(const struct ep_expect_config *c, struct exact *x)
{
    enum ep_status status;
    const size_t room = (size_t)c->num_experts + 1;
    *x = (struct exact){.num_experts = c->num_experts, .top_k = c->top_k, .known_first = -1};
    x->shares = calloc(room, sizeof *x->shares);
    x->chances = calloc(room, sizeof *x->chances);
    x->merged = calloc(room, sizeof *x->merged);
    x->of_merged = calloc(room, sizeof *x->of_merged);
    x->marked = calloc(room, sizeof *x->marked);
    if (x->marked == NULL || x->shares == NULL || x->chances == NULL || x->merged == NULL || x->of_merged == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for chances"));
    }
    EP_TRY(ep_popularity_fill_shares(c->skew, c->num_experts, c->seed, x->shares));
    x->even = true;
    for (int64_t e = 1; e < c->num_experts; e++) {
        x->even = x->even && x->shares[e] == x->shares[0];
    }
    if (!x->even) {
        EP_TRY(ep_popularity_chances(x->shares, c->num_experts, c->top_k, x->chances));
    } else {
        for (int64_t e = 0; e < c->num_experts; e++) {
            x->chances[e] = (double)c->top_k / (double)c->num_experts;
        }
    }
out:
    return status;
}

static void exact_fini(struct exact *x)
{
    free(x->shares);
    free(x->chances);
    free(x->merged);
    free(x->of_merged);
    free(x->marked);
}

/* Experts of rank r, or with replicas (P = R E) the one that it hosts, for sources of its residue. */
static enum ep_status fill_ranks(struct exact *x, struct ep_expect *e)
{
    enum ep_status status = EP_OK;
    const int64_t replicas = e->num_ranks > x->num_experts ? e->num_ranks / x->num_experts : 1;
    for (int64_t r = 0; r < e->num_ranks; r++) {
        if (replicas > 1) {
            e->copies[r] = e->ranks[r] = x->chances[r / replicas] / (double)replicas;
            continue;
        }
        const int64_t first = r * x->num_experts / e->num_ranks;
        const int64_t end = (r + 1) * x->num_experts / e->num_ranks;
        for (int64_t i = first; i < end; i++) {
            e->copies[r] += x->chances[i];
        }
        EP_TRY(chance_of_set(x, first, end - first, &e->ranks[r]));
    }
out:
    return status;
}

/* With replicas a source of residue j reaches the ranks R i + j alone: of a node those inside it. */
static enum ep_status fill_nodes(struct exact *x, int64_t ranks_per_node, struct ep_expect *e)
{
    enum ep_status status = EP_OK;
    const int64_t replicas = e->num_ranks > x->num_experts ? e->num_ranks / x->num_experts : 1;
    for (int64_t n = 0; n < e->num_nodes; n++) {
        const int64_t begin = n * ranks_per_node;
        const int64_t end =
            begin + ranks_per_node < e->num_ranks ? begin + ranks_per_node : e->num_ranks;
        if (replicas == 1) {
            const int64_t first = begin * x->num_experts / e->num_ranks;
            const int64_t last = end * x->num_experts / e->num_ranks;
            EP_TRY(chance_of_set(x, first, last - first, &e->nodes[n]));
            continue;
        }
        for (int64_t j = 0; j < replicas; j++) {
            const int64_t first = (begin - j + replicas - 1) / replicas;
            const int64_t last = (end - j + replicas - 1) / replicas;
            double chance = 0;
            EP_TRY(chance_of_set(x, first, last - first, &chance));
            e->nodes[n] += chance / (double)replicas;
        }
    }
out:
    return status;
}

/* Experts of ranks begin .. end - 1, as a given placement without replicas has them. */
static enum ep_status chance_of_ranks(struct exact *x, const struct ep_placement *placement,
                                      int64_t begin, int64_t end, double *copies, double *chance)
{
    int64_t num = 0;
    memset(x->marked, 0, (size_t)x->num_experts * sizeof *x->marked);
    for (int64_t r = begin; r < end; r++) {
        const int32_t *experts = NULL;
        const int64_t held = ep_placement_local_experts(placement, r, &experts);
        for (int64_t i = 0; i < held; i++) {
            x->marked[experts[i]] = true;
            *copies += x->chances[experts[i]];
        }
        num += held;
    }
    *chance = num == 0 ? 0 : 1 - choose_none(x->num_experts, num, x->top_k);
    return num == 0 || x->even ? EP_OK : chance_of_marked(x, x->marked, num, chance);
}

static enum ep_status fill_placed(struct exact *x, const struct ep_expect_config *c,
                                  struct ep_expect *e)
{
    enum ep_status status = EP_OK;
    for (int64_t r = 0; r < e->num_ranks; r++) {
        EP_TRY(chance_of_ranks(x, c->placement, r, r + 1, &e->copies[r], &e->ranks[r]));
    }
    for (int64_t n = 0; n < e->num_nodes; n++) {
        const int64_t begin = n * c->ranks_per_node, end = begin + c->ranks_per_node;
        double copies = 0;
        EP_TRY(chance_of_ranks(x, c->placement, begin, end < e->num_ranks ? end : e->num_ranks,
                               &copies, &e->nodes[n]));
    }
out:
    return status;
}

static enum ep_status fill_exact(const struct ep_expect_config *c, struct ep_expect *e)
{
    enum ep_status status;
    struct exact x = {0};
    if (!ep_popularity_is_of(c->skew)) {
        EP_TRY(ep_error_set(EP_EINVAL, "skew %s: expected traffic is known of skews with one popularity "
                            "for all sources only (uniform, zipf, counts, ...)", c->skew->text));
    }
    EP_TRY(exact_init(c, &x));
    if (c->placement != NULL) {
        status = fill_placed(&x, c, e);
        goto out;
    }
    EP_TRY(fill_ranks(&x, e));
    EP_TRY(fill_nodes(&x, c->ranks_per_node, e));
out:
    exact_fini(&x);
    return status;
}

/* --- drawn ----------------------------------------------------------------------------------- */

/* One token's experts: marks of ranks and nodes hold the last token that reached them. */
static void count_token(const struct ep_routing *routing, int64_t t,
                        const struct ep_placement *placement, int64_t ranks_per_node,
                        int64_t *rank_seen, int64_t *node_seen, struct ep_expect *e)
{
    for (int64_t k = 0; k < routing->top_k; k++) {
        const int32_t expert = routing->topk_idx[t * routing->top_k + k];
        if (expert < 0) {
            continue;
        }
        /* Any source: the tokens take turns. */
        const int64_t rank = ep_placement_rank(placement, expert, t);
        const int64_t node = rank / ranks_per_node;
        e->copies[rank] += 1.0 / DRAWN_TOKENS;
        e->ranks[rank] += rank_seen[rank] != t + 1 ? 1.0 / DRAWN_TOKENS : 0;
        e->nodes[node] += node_seen[node] != t + 1 ? 1.0 / DRAWN_TOKENS : 0;
        rank_seen[rank] = t + 1;
        node_seen[node] = t + 1;
    }
}

static enum ep_status fill_drawn(const struct ep_expect_config *c, struct ep_expect *e)
{
    enum ep_status status;
    struct ep_placement contiguous = {0}, one = {0};
    const struct ep_placement *placement = c->placement != NULL ? c->placement : &contiguous;
    struct ep_token_map tokens = {0};
    struct ep_router *router = NULL;
    struct ep_gate_source *source = NULL;
    struct ep_routing routing = {0};
    int64_t *rank_seen = calloc((size_t)c->num_ranks, sizeof *rank_seen);
    int64_t *node_seen = calloc((size_t)c->num_ranks, sizeof *node_seen);
    if (rank_seen == NULL || node_seen == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for chances"));
    }
    if (c->router != NULL) {
        EP_TRY(ep_gate_source_check(c->router, c->skew, c->num_experts, c->top_k));
    }
    if (c->placement == NULL) {
        EP_TRY(ep_placement_init_contiguous(c->num_experts, c->num_ranks, &contiguous));
    }
    /* Choices do not depend on where experts are. */
    EP_TRY(ep_placement_init_contiguous(c->num_experts, 1, &one));
    EP_TRY(ep_token_map_init_equal(1, DRAWN_TOKENS, &tokens));
    const struct ep_router_config config = {.skew = c->skew, .placement = &one, .tokens = &tokens,
                                            .top_k = c->top_k, .seed = c->seed};
    EP_TRY(ep_router_create(&config, &router));
    if (c->router != NULL) {
        EP_TRY(ep_gate_source_create(c->router, router, &source));
        EP_TRY(ep_gate_source_generate(source, 0, false, &routing));
    } else {
        EP_TRY(ep_router_generate_rank(router, 0, false, &routing));
    }
    for (int64_t t = 0; t < DRAWN_TOKENS; t++) {
        count_token(&routing, t, placement, c->ranks_per_node, rank_seen, node_seen, e);
    }
    e->num_drawn = DRAWN_TOKENS;
out:
    ep_routing_fini(&routing);
    ep_gate_source_destroy(source);
    ep_router_destroy(router);
    ep_token_map_fini(&tokens);
    ep_placement_fini(&one);
    ep_placement_fini(&contiguous);
    free(rank_seen);
    free(node_seen);
    return status;
}

/* --- all ------------------------------------------------------------------------------------- */

enum ep_status ep_expect_init(const struct ep_expect_config *config, struct ep_expect *expect)
{
    enum ep_status status = EP_OK;
    const int64_t num = config->num_ranks;
    struct ep_expect made = {.num_ranks = num,
                             .num_nodes = (num + config->ranks_per_node - 1) /
                                          config->ranks_per_node};
    made.copies = calloc((size_t)num, sizeof *made.copies);
    made.ranks = calloc((size_t)num, sizeof *made.ranks);
    made.nodes = calloc((size_t)made.num_nodes, sizeof *made.nodes);
    if (made.copies == NULL || made.ranks == NULL || made.nodes == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for the chances of %" PRId64 " ranks", num));
    }
    if (config->placement == NULL && num > config->num_experts && num % config->num_experts != 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "%" PRId64 " ranks are no multiple of %" PRId64 " experts", num,
                            config->num_experts));
    }
    if (config->placement != NULL && (config->placement->num_experts != config->num_experts ||
                                      config->placement->num_ranks != num)) {
        EP_TRY(ep_error_set(EP_EINVAL, "the placement is of %" PRId64 " experts on %" PRId64 " ranks; %"
                            PRId64 " on %" PRId64 " were expected", config->placement->num_experts,
                            config->placement->num_ranks, config->num_experts, num));
    }
    const bool by_replicas = config->placement != NULL && config->placement->replicated;
    EP_TRY(config->router != NULL || by_replicas ? fill_drawn(config, &made)
                                                 : fill_exact(config, &made));
    for (int64_t r = 0; r < num; r++) {
        made.ranks_per_token += made.ranks[r];
    }
    for (int64_t n = 0; n < made.num_nodes; n++) {
        made.nodes_per_token += made.nodes[n];
    }
    *expect = made;
out:
    if (status != EP_OK) {
        ep_expect_fini(&made);
    }
    return status;
}

void ep_expect_fini(struct ep_expect *expect)
{
    free(expect->copies);
    free(expect->ranks);
    free(expect->nodes);
    *expect = (struct ep_expect){0};
}
