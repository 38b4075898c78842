/* SPDX-License-Identifier: Apache-2.0 */
/* Logits in pieces that stay in a cache, and a router over them. */
#include "kernels/gate_source.h"

#include "kernels/gate.h"
#include "kernels/logits.h"
#include "kernels/skew_popularity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 18 }; /* of logits */

struct ep_gate_source {
    const struct ep_router *router;
    struct ep_gate_config config;
    struct ep_logits *logits;
    int64_t num_slots;
    char *name;
    char id[17];
};

bool ep_gate_source_fits(const struct ep_skew *skew)
{
    const bool has_shares = skew->policy->fill_shares != NULL && !skew->by_source && skew->masked == 0;
    return has_shares || ep_popularity_is_of(skew);
}

int64_t ep_gate_source_top_k(const char *router)
{
    struct ep_gate_config config;
    if (ep_gate_config_parse(router, EP_MAX_EXPERTS, 0, &config) == EP_OK) {
        return config.top_k;
    }
    ep_error_clear(); /* an answer, not a failure */
    return 0;
}

/* FNV-1a, 64 bits, as routing_id's own: the skew's routing stands for its shape and popularity. */
static void fill_id(struct ep_gate_source *s)
{
    char all[160];
    snprintf(all, sizeof all, "%s/%s", ep_router_id(s->router), s->name);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *c = all; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    }
    snprintf(s->id, sizeof s->id, "%016" PRIx64, hash);
}

/* The config and slots of a router on a skew's logits. */
static enum ep_status configure(const char *text, const struct ep_skew *skew, int64_t num_experts,
                                int64_t top_k, struct ep_gate_config *config, int64_t *num_slots)
{
    enum ep_status status;
    struct ep_gate *gate = NULL;
    EP_TRY(ep_gate_config_parse(text, num_experts, top_k, config));
    if (config->top_k != top_k) {
        status = ep_error_set(EP_EINVAL, "--router %s is top-%" PRId64 ", not top-%" PRId64, text,
                              config->top_k, top_k);
        goto out;
    }
    if (!ep_gate_source_fits(skew)) {
        status = ep_error_set(EP_EINVAL,
                              "--router %s wants logits, which --skew uniform, zipf:S, "
                              "lognormal:S, dirichlet:A, gini:G, khot:N:F and counts:FILE can draw; %s "
                              "cannot",
                              text, skew->text);
        goto out;
    }
    EP_TRY(ep_gate_create(config, &gate));
    *num_slots = ep_gate_num_slots(gate);
out:
    ep_gate_destroy(gate);
    return status;
}

enum ep_status ep_gate_source_check(const char *text, const struct ep_skew *skew,
                                    int64_t num_experts, int64_t top_k)
{
    struct ep_gate_config config;
    int64_t num_slots = 0;
    return configure(text, skew, num_experts, top_k, &config, &num_slots);
}

static enum ep_status create_logits(const struct ep_router *router, struct ep_logits **logits)
{
    if (router->skew->policy->fill_shares == NULL) {
        return ep_logits_create(router->skew->text, router->num_experts, router->seed, logits);
    }
    double *shares = calloc((size_t)router->num_experts, sizeof *shares);
    if (shares == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for logits of %" PRId64 " experts",
                            router->num_experts);
    }
    enum ep_status status = router->skew->policy->fill_shares(router, shares);
    if (status == EP_OK) {
        status = ep_logits_create_of(shares, router->num_experts, router->seed, logits);
    }
    free(shares);
    return status;
}

enum ep_status ep_gate_source_create(const char *text, const struct ep_router *router,
                                     struct ep_gate_source **source)
{
    enum ep_status status;
    struct ep_gate_source *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a router");
    }
    s->router = router;
    EP_TRY(configure(text, router->skew, router->num_experts, router->top_k, &s->config,
                     &s->num_slots));
    s->config.seed = router->seed;
    EP_TRY(create_logits(router, &s->logits));
    s->name = strdup(text);
    if (s->name == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a router");
        goto out;
    }
    fill_id(s);
    *source = s;
    s = NULL;
out:
    ep_gate_source_destroy(s);
    return status;
}

void ep_gate_source_destroy(struct ep_gate_source *source)
{
    if (source != NULL) {
        ep_logits_destroy(source->logits);
        free(source->name);
        free(source);
    }
}

const char *ep_gate_source_name(const struct ep_gate_source *source)
{
    return source->name;
}

const char *ep_gate_source_id(const struct ep_gate_source *source)
{
    return source->id;
}

int64_t ep_gate_source_num_slots(const struct ep_gate_source *source)
{
    return source->num_slots;
}

/* Rows from `first` on as a routing of their own, which borrows. */
static struct ep_routing part_of(const struct ep_routing *all, int64_t first, int64_t num)
{
    struct ep_routing part = *all;
    part.num_tokens = num;
    part.topk_idx += first * all->top_k;
    part.topk_weight = all->topk_weight != NULL ? all->topk_weight + first * all->top_k : NULL;
    return part;
}

/* A batch router takes all tokens of the rank at once, others piece by piece. */
static enum ep_status route_all(const struct ep_gate_source *s, struct ep_gate *gate,
                                int64_t first_token, struct ep_routing *routing)
{
    enum ep_status status = EP_OK;
    const int64_t num_experts = s->router->num_experts;
    const int64_t row_bytes = num_experts * (int64_t)sizeof(float);
    int64_t piece = ep_gate_is_batch(&s->config) ? routing->num_tokens : PIECE_BYTES / row_bytes;
    piece = piece < 1 ? 1 : piece;
    piece = piece > routing->num_tokens ? routing->num_tokens : piece;
    const bool drawn = ep_gate_needs_logits(&s->config);
    float *x = drawn ? malloc((size_t)(piece * row_bytes) + 1) : NULL;
    if (drawn && x == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for logits of %" PRId64 " tokens", piece);
    }
    for (int64_t t = 0; t < routing->num_tokens; t += piece) {
        const int64_t left = routing->num_tokens - t;
        const int64_t num = left < piece ? left : piece;
        struct ep_routing part = part_of(routing, t, num);
        if (drawn) {
            ep_logits_fill(s->logits, first_token + t, num, x);
        }
        const struct ep_gate_batch batch = {
            .num_tokens = num, .first_token = first_token + t, .logits = x};
        EP_TRY(ep_gate_route(gate, &batch, &part));
    }
out:
    free(x);
    return status;
}

enum ep_status ep_gate_source_generate(const struct ep_gate_source *source, int64_t rank,
                                       bool with_weights, struct ep_routing *routing)
{
    enum ep_status status;
    struct ep_gate *gate = NULL;
    struct ep_routing made = {0};
    const struct ep_token_map *tokens = source->router->tokens;
    EP_TRY(ep_gate_create(&source->config, &gate));
    EP_TRY(ep_routing_init(ep_token_map_count(tokens, rank), source->router->num_experts,
                           source->num_slots, with_weights, &made));
    EP_TRY(route_all(source, gate, tokens->start[rank], &made));
    *routing = made;
    made = (struct ep_routing){0};
out:
    ep_routing_fini(&made);
    ep_gate_destroy(gate);
    return status;
}

static enum ep_status fetch(const void *context, int64_t source, bool with_weights,
                            struct ep_routing *routing, int64_t *first_token)
{
    const struct ep_gate_source *s = context;
    *first_token = s->router->tokens->start[source];
    return ep_gate_source_generate(s, source, with_weights, routing);
}

struct ep_dropping_input ep_gate_source_input(const struct ep_gate_source *source)
{
    struct ep_dropping_input input = ep_dropping_input_of_router(source->router);
    input.context = source;
    input.fetch = fetch;
    input.id = source->id;
    return input;
}
