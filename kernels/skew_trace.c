/* SPDX-License-Identifier: Apache-2.0 */
/* trace:FILE and trace:sample: recorded tokens in order, rank by rank, from the start again at the
 * end; counts:FILE, and a trace that holds counts: tokens drawn so that the load is theirs. */
#include "kernels/skew_policy.h"

#include "base/file.h"
#include "kernels/count_sampler.h"
#include "kernels/sample.h"
#include "kernels/skew_popularity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What --layer and --trace-format chose is said in the text, as [FORMAT:]FILE[@LAYER] would. */
static enum ep_status name_choices(const char *spec, struct ep_skew *skew)
{
    const struct ep_trace_options *given = skew->trace_options;
    char layer[24] = "";
    if (given == NULL) {
        return EP_OK;
    }
    const char *at = strrchr(spec, '@');
    const bool named = at != NULL && at[1] != '\0' && at[1 + strspn(at + 1, "0123456789")] == '\0';
    if (given->layer >= 0 && given->layer == skew->trace->layer && !named) {
        snprintf(layer, sizeof layer, "@%" PRId64, given->layer);
    }
    const bool forced = given->format != NULL && !ep_trace_names_format(spec);
    char *text = forced ? ep_format_new("trace:%s:%s%s", given->format, spec, layer)
                        : ep_format_new("%s%s", skew->text, layer);
    if (text == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a skew");
    }
    free(skew->text);
    skew->text = text;
    return EP_OK;
}

/* Take the trace of `spec`; the shape is its own. */
static enum ep_status load(const char *spec, struct ep_skew *skew)
{
    enum ep_status status = ep_trace_load(spec, skew->trace_options, &skew->trace);
    if (status != EP_OK) {
        return status;
    }
    const bool counts = skew->trace->counts != NULL;
    skew->num_experts = skew->trace->num_experts;
    skew->top_k = skew->trace->top_k;
    skew->more_experts =
        !counts && (skew->trace_options == NULL || skew->trace_options->num_experts == 0);
    return name_choices(spec, skew);
}

static enum ep_status parse(const char *params, struct ep_skew *skew)
{
    if (params[0] == '\0') {
        return ep_error_set(EP_EINVAL, "skew '%s': trace:FILE or trace:sample expected",
                            skew->text);
    }
    if (strcmp(params, "sample") != 0) {
        return load(params, skew);
    }
    if (skew->trace_options != NULL && skew->trace_options->layer >= 0) {
        return ep_error_set(EP_EINVAL, "--layer %" PRId64 ": trace:sample names no layers",
                            skew->trace_options->layer);
    }
    const enum ep_status status = ep_trace_load_sample(&skew->trace);
    if (status == EP_OK) {
        skew->num_experts = skew->trace->num_experts;
        skew->top_k = skew->trace->top_k;
    }
    return status;
}

static enum ep_status parse_counts(const char *params, struct ep_skew *skew)
{
    if (params[0] == '\0') {
        return ep_error_set(EP_EINVAL,
                            "skew '%s': counts:FILE or counts:MODEL/DOMAIN/LAYER "
                            "expected",
                            skew->text);
    }
    return load(skew->text, skew);
}

/* The sampler of a file of counts; a file of tokens needs none. */
static enum ep_status prepare(struct ep_router *router)
{
    const struct ep_trace *trace = router->skew->trace;
    struct ep_count_sampler *sampler = NULL;
    if (trace->counts == NULL) {
        return EP_OK;
    }
    const enum ep_status status = ep_count_sampler_create(
        trace->counts, trace->num_experts, router->top_k, router->skew->text, &sampler);
    router->state = sampler;
    return status;
}

static void release(struct ep_router *router)
{
    ep_count_sampler_destroy(router->state);
}

/* Weights of successive draws by which each expert comes with its chance [num], to 1e-4 or as near
 * as 200 rounds get: one that every token has would need an endless weight. As an expert comes by
 * time t with the chance 1 - e^(-weight t), a round scales weights by the logs of what is missed. */
static enum ep_status solve_weights(const double *chances, int64_t num, int64_t top_k,
                                    double *weights)
{
    enum ep_status status = EP_OK;
    double *reached = malloc((size_t)num * sizeof *reached);
    double error = 1;
    if (reached == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the shares of %" PRId64 " experts", num);
    }
    memcpy(weights, chances, (size_t)num * sizeof *weights);
    for (int round = 0; round < 200 && error > 1e-4; round++) {
        EP_TRY(ep_popularity_chances(weights, num, top_k, reached));
        error = 0;
        for (int64_t i = 0; i < num; i++) {
            const double most = 1 - 1e-9;
            error = fmax(error, fabs(reached[i] / chances[i] - 1));
            weights[i] *= log1p(-fmin(chances[i], most)) / log1p(-fmin(reached[i], most));
        }
    }
out:
    free(reached);
    return status;
}

/* Of experts that have any counts; the others' shares are 0. */
static enum ep_status fill_shares(const struct ep_router *router, double *shares)
{
    const struct ep_trace *trace = router->skew->trace;
    enum ep_status status = EP_OK;
    double *chances = malloc(2 * (size_t)trace->num_experts * sizeof *chances);
    double sum = 0;
    int64_t num = 0;
    if (chances == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the shares of %" PRId64 " experts",
                            trace->num_experts);
    }
    double *weights = chances + trace->num_experts;
    for (int64_t e = 0; e < trace->num_experts; e++) {
        sum += trace->counts[e];
    }
    for (int64_t e = 0; e < trace->num_experts; e++) {
        if (trace->counts[e] > 0) {
            chances[num++] = (double)router->top_k * trace->counts[e] / sum;
        }
    }
    EP_TRY(solve_weights(chances, num, router->top_k, weights));
    sum = 0;
    for (int64_t i = 0; i < num; i++) {
        sum += weights[i];
    }
    for (int64_t e = 0, i = 0; e < trace->num_experts; e++) {
        shares[e] = trace->counts[e] > 0 ? weights[i++] / sum : 0;
    }
out:
    free(chances);
    return status;
}

static void draw(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                 int32_t *topk_idx)
{
    struct ep_random random[EP_RANDOM_LANES];
    const int64_t k = router->top_k;
    for (int64_t t = 0, num = 0; t < num_tokens; t += num) {
        num = ep_sample_tokens(random, router->seed, EP_RANDOM_ROUTING, first_token + t,
                               num_tokens - t, 3 * k);
        for (int64_t i = 0; i < num; i++) {
            ep_count_sampler_draw(router->state, &random[i], topk_idx + (t + i) * k);
        }
    }
}

static void replay(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                   int32_t *topk_idx)
{
    const struct ep_trace *trace = router->skew->trace;
    const int64_t k = router->top_k;
    for (int64_t t = 0; t < num_tokens;) {
        const int64_t row = (first_token + t) % trace->num_tokens;
        const int64_t left = trace->num_tokens - row;
        const int64_t num = left < num_tokens - t ? left : num_tokens - t;
        memcpy(topk_idx + t * k, trace->topk_idx + row * k, (size_t)(num * k) * sizeof *topk_idx);
        t += num;
    }
}

static void generate(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                     int32_t *topk_idx)
{
    if (router->state != NULL) {
        draw(router, first_token, num_tokens, topk_idx);
    } else {
        replay(router, first_token, num_tokens, topk_idx);
    }
}

const struct ep_skew_policy ep_skew_trace = {
    .name = "trace",
    .usage = "trace:FILE|sample",
    .example = "trace:sample",
    .summary =
        "recorded tokens in order, rank by rank, wrapping; experts and top-k are the trace's",
    .fixed = true,
    .parse = parse,
    .prepare = prepare,
    .generate = generate,
    .release = release,
};

const struct ep_skew_policy ep_skew_counts = {
    .name = "counts",
    .usage = "counts:FILE|MODEL/DOMAIN/LAYER",
    .example = "counts:mixtral-8x7b/c4/0",
    .summary = "tokens drawn so that the load on experts is that of recorded counts",
    .parse = parse_counts,
    .prepare = prepare,
    .generate = generate,
    .fill_shares = fill_shares,
    .release = release,
};
