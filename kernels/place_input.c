/* SPDX-License-Identifier: Apache-2.0 */
/* Loading what placements are made from, and parting it. */
#include "kernels/place_input.h"

#include "kernels/routing.h"
#include "kernels/trace.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Drawn tokens: as many pairs as a search looks at, and more. */
enum { DEFAULT_TOKENS = 4096, DRAWN_TOKENS = 1 << 15 };
#define MAX_PAIRS         ((int64_t)1 << 30)
#define DEFAULT_FIT_SHARE 0.5

static enum ep_status check_source(const struct ep_place_source *s)
{
    const int given = (s->counts != NULL) + (s->skew != NULL) + (s->assignments != NULL);
    const bool profiles =
        s->profiles.path != NULL || s->profiles.model != NULL || s->profiles.layer >= 0;
    if (profiles && s->similarity == EP_PLACE_COACTIVATION) {
        return ep_error_set(EP_EINVAL, "profiles are for --similarity domains or layers");
    }
    if (given > 1 || (given == 0 && s->similarity == EP_PLACE_COACTIVATION)) {
        return ep_error_set(EP_EINVAL, "%s of --counts, --skew and --assignments is needed",
                            given == 0 ? "one" : "only one");
    }
    const struct {
        bool given;
        const char *name;
    } of_tokens[] = {{s->top_k != 0, "--top-k"}, /* which drawn tokens have too */
                     {s->tokens != 0, "--tokens"},
                     {s->layer >= 0, "--layer"},
                     {s->trace_format != NULL, "--trace-format"},
                     {s->fit_share != 0, "--fit-share"}};
    for (size_t i = 0; i < sizeof of_tokens / sizeof of_tokens[0]; i++) {
        const bool drawn = s->similarity != EP_PLACE_COACTIVATION && i == 0;
        if (s->counts != NULL && of_tokens[i].given && !drawn) {
            return ep_error_set(EP_EINVAL, "%s is for tokens; --counts has none",
                                of_tokens[i].name);
        }
    }
    if (s->assignments != NULL && s->tokens != 0) {
        return ep_error_set(EP_EINVAL, "--tokens is for --skew; the assignments' own are taken");
    }
    return EP_OK;
}

static enum ep_status load_counts(const struct ep_place_source *s, struct ep_place_input *in)
{
    enum ep_status status;
    in->name = s->counts;
    EP_TRY(ep_place_counts_load(s->counts, &in->fit));
    in->num_experts = in->fit.num_experts;
    if (s->num_experts != 0 && s->num_experts != in->num_experts) {
        status = ep_error_set(EP_EINVAL, "--experts %" PRId64 " contradicts %s, which has %" PRId64,
                              s->num_experts, s->counts, in->num_experts);
    }
out:
    return status;
}

/* Room for tokens; in->fitted counts all of them until they are parted. */
static enum ep_status allocate_tokens(int64_t num_tokens, int64_t top_k, struct ep_place_input *in)
{
    if (num_tokens > MAX_PAIRS / top_k) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " tokens of top-%" PRId64 " are more than 2^30 pairs",
                            num_tokens, top_k);
    }
    in->topk_idx = malloc((size_t)(num_tokens * top_k) * sizeof *in->topk_idx);
    if (in->topk_idx == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " tokens", num_tokens);
    }
    in->has_tokens = true;
    in->top_k = top_k;
    in->fitted = (struct ep_place_tokens){num_tokens, top_k, in->topk_idx};
    return EP_OK;
}

static enum ep_status load_assignments(const struct ep_place_source *s, struct ep_place_input *in)
{
    enum ep_status status;
    const struct ep_trace_options options = {
        .num_experts = s->num_experts, .layer = s->layer, .format = s->trace_format};
    struct ep_trace *trace = NULL;
    in->name = s->assignments;
    EP_TRY(ep_trace_load(s->assignments, &options, &trace));
    if (trace->counts != NULL) {
        status =
            ep_error_set(EP_EINVAL,
                         "%s: holds counts, no tokens; --skew counts:FILE draws some, --counts "
                         "places by a list of counts",
                         s->assignments);
        goto out;
    }
    if (s->top_k != 0 && s->top_k != trace->top_k) {
        status =
            ep_error_set(EP_EINVAL, "--top-k %" PRId64 " contradicts %s, which has top-%" PRId64,
                         s->top_k, s->assignments, trace->top_k);
        goto out;
    }
    EP_TRY(allocate_tokens(trace->num_tokens, trace->top_k, in));
    memcpy(in->topk_idx, trace->topk_idx,
           (size_t)(trace->num_tokens * trace->top_k) * sizeof *in->topk_idx);
    in->num_experts = trace->num_experts;
    in->first_layer = trace->layer >= 0 ? trace->layer : 0;
out:
    ep_trace_destroy(trace);
    return status;
}

/* A trace is taken once, whole; others give as many tokens per rank as asked for. */
static enum ep_status generate(const struct ep_place_source *s, struct ep_place_input *in)
{
    enum ep_status status;
    struct ep_skew *skew = NULL;
    struct ep_placement placement = {0};
    struct ep_token_map map = {0};
    struct ep_router *router = NULL;
    int64_t top_k = 0;
    in->name = s->skew;
    const struct ep_trace_options recorded = {.layer = s->layer, .format = s->trace_format};
    EP_TRY(ep_skew_create_with(s->skew, &recorded, &skew));
    const bool replayed = skew->trace != NULL && skew->trace->counts == NULL;
    in->drawn = skew->trace != NULL && (!replayed || skew->trace->fan_out_sampled);
    in->first_layer = skew->trace != NULL && skew->trace->layer >= 0 ? skew->trace->layer : 0;
    EP_TRY(ep_skew_resolve_shape(skew, s->num_experts, s->top_k, false, &in->num_experts, &top_k));
    const int64_t num_tokens = s->tokens == 0 && replayed
                                   ? skew->trace->num_tokens
                                   : (s->tokens != 0 ? s->tokens : DEFAULT_TOKENS) * s->num_ranks;
    EP_TRY(ep_placement_init_contiguous(in->num_experts, s->num_ranks, &placement));
    EP_TRY(ep_token_map_init_blocks(s->num_ranks, num_tokens, &map));
    EP_TRY(allocate_tokens(num_tokens, top_k, in));
    const struct ep_router_config config = {
        .skew = skew, .placement = &placement, .tokens = &map, .top_k = top_k, .seed = s->seed};
    EP_TRY(ep_router_create(&config, &router));
    struct ep_routing routing = {num_tokens, in->num_experts, top_k, in->topk_idx, NULL};
    ep_router_generate(router, 0, num_tokens, &routing);
out:
    ep_router_destroy(router);
    ep_token_map_fini(&map);
    ep_placement_fini(&placement);
    ep_skew_destroy(skew);
    return status;
}

/* Is token t fitted to? By blocks: of the first n blocks floor(n share) are. */
static bool is_fitted(const struct ep_place_source *s, int64_t t, int64_t num_tokens)
{
    if (s->split == EP_PLACE_BY_FIRST) {
        return (double)t < s->fit_share * (double)num_tokens;
    }
    const double block = (double)(t / EP_PLACE_BLOCK_TOKENS);
    return (int64_t)((block + 1) * s->fit_share) > (int64_t)(block * s->fit_share);
}

static enum ep_status part_tokens(const struct ep_place_source *s, struct ep_place_input *in)
{
    const int64_t num = in->fitted.num_tokens;
    const size_t row = (size_t)in->top_k * sizeof *in->topk_idx;
    int32_t *parted = malloc((size_t)num * row);
    if (parted == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " tokens", num);
    }
    int64_t num_fitted = 0;
    for (int64_t t = 0; t < num; t++) {
        num_fitted += is_fitted(s, t, num);
    }
    int64_t next[2] = {num_fitted, 0};
    for (int64_t t = 0; t < num; t++) {
        int64_t *place = &next[is_fitted(s, t, num)];
        memcpy(parted + (*place)++ * in->top_k, in->topk_idx + t * in->top_k, row);
    }
    free(in->topk_idx);
    in->topk_idx = parted;
    in->fitted = (struct ep_place_tokens){num_fitted, in->top_k, parted};
    in->held_out =
        (struct ep_place_tokens){num - num_fitted, in->top_k, parted + num_fitted * in->top_k};
    if (num_fitted == 0 || (num_fitted == num && s->fit_share < 1)) {
        return ep_error_set(EP_EINVAL,
                            "--fit-share %g of %" PRId64 " tokens leaves a part without any",
                            s->fit_share, num);
    }
    return EP_OK;
}

static enum ep_status count_tokens(struct ep_place_input *in)
{
    in->fit.num_layers = 1;
    in->fit.num_experts = in->num_experts;
    in->fit.load = calloc((size_t)in->num_experts, sizeof *in->fit.load);
    if (in->fit.load == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads");
    }
    for (int64_t i = 0; i < in->fitted.num_tokens * in->top_k; i++) {
        if (in->fitted.topk_idx[i] >= 0) {
            in->fit.load[in->fitted.topk_idx[i]]++;
        }
    }
    return EP_OK;
}

/* --- profiles ------------------------------------------------------------------------------ */

/* top-k of tokens drawn: as asked for, the table's, or that of the tokens placed. */
static enum ep_status choose_top_k(const struct ep_place_source *s,
                                   const struct ep_place_profiles *profiles, int64_t input_top_k,
                                   int64_t *top_k)
{
    *top_k = s->top_k != 0 ? s->top_k : profiles->top_k > 0 ? profiles->top_k : input_top_k;
    if (*top_k == 0) {
        return ep_error_set(EP_EINVAL,
                            "profiles of layers do not say how many experts a token has; "
                            "--top-k is needed");
    }
    return *top_k <= profiles->num_experts
               ? EP_OK
               : ep_error_set(EP_EINVAL,
                              "--top-k %" PRId64 " is more than the %" PRId64
                              " experts of the profiles",
                              *top_k, profiles->num_experts);
}

/* Nothing but profiles: what is placed for, and judged on, is drawn from them. */
static enum ep_status draw_tokens(const struct ep_place_source *s,
                                  const struct ep_place_profiles *profiles,
                                  struct ep_place_input *in)
{
    enum ep_status status;
    int64_t top_k = 0;
    const int64_t num_tokens = s->tokens != 0 ? s->tokens * s->num_ranks : DRAWN_TOKENS;
    in->name = ep_place_similarity_name(s->similarity);
    in->drawn = true;
    in->first_layer = s->profiles.layer >= 0 ? s->profiles.layer : 0;
    in->num_experts =
        s->num_experts > profiles->num_experts ? s->num_experts : profiles->num_experts;
    EP_TRY(choose_top_k(s, profiles, 0, &top_k));
    EP_TRY(allocate_tokens(num_tokens, top_k, in));
    EP_TRY(ep_place_profiles_draw(profiles, num_tokens, top_k, s->seed, in->topk_idx));
out:
    return status;
}

/* Tokens for the searches alone, beside counts or tokens that loads come from. */
static enum ep_status draw_similar(const struct ep_place_source *s,
                                   const struct ep_place_profiles *profiles,
                                   struct ep_place_input *in)
{
    enum ep_status status;
    int64_t top_k = 0;
    if (profiles->num_experts > in->num_experts) {
        return ep_error_set(EP_EINVAL, "the profiles have %" PRId64 " experts, %s has %" PRId64,
                            profiles->num_experts, in->name, in->num_experts);
    }
    if (in->fit.num_layers > 1) {
        return ep_error_set(EP_EINVAL, "profiles are of one layer; %s has %" PRId64, in->name,
                            in->fit.num_layers);
    }
    EP_TRY(choose_top_k(s, profiles, in->top_k, &top_k));
    in->similar_idx = malloc((size_t)(DRAWN_TOKENS * top_k) * sizeof *in->similar_idx);
    if (in->similar_idx == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for tokens");
        goto out;
    }
    EP_TRY(ep_place_profiles_draw(profiles, DRAWN_TOKENS, top_k, s->seed, in->similar_idx));
    in->similar = (struct ep_place_tokens){DRAWN_TOKENS, top_k, in->similar_idx};
out:
    return status;
}

const struct ep_place_tokens *ep_place_input_similar(const struct ep_place_input *input)
{
    return input->similar.num_tokens > 0 ? &input->similar
           : input->has_tokens           ? &input->fitted
                                         : NULL;
}

enum ep_status ep_place_input_load(const struct ep_place_source *source,
                                   struct ep_place_input *input)
{
    enum ep_status status;
    struct ep_place_input in = {0};
    struct ep_place_profiles profiles = {0};
    const bool has_profiles = source->similarity != EP_PLACE_COACTIVATION;
    EP_TRY(check_source(source));
    if (has_profiles) {
        EP_TRY(ep_place_profiles_load(source->similarity, &source->profiles, &profiles));
    }
    if (source->counts != NULL) {
        EP_TRY(load_counts(source, &in));
    } else {
        struct ep_place_source parts = *source;
        parts.fit_share = source->fit_share != 0 ? source->fit_share : DEFAULT_FIT_SHARE;
        EP_TRY(source->assignments != NULL ? load_assignments(source, &in)
               : source->skew != NULL      ? generate(source, &in)
                                           : draw_tokens(source, &profiles, &in));
        EP_TRY(part_tokens(&parts, &in));
        EP_TRY(count_tokens(&in));
    }
    if (has_profiles &&
        (source->counts != NULL || source->skew != NULL || source->assignments != NULL)) {
        EP_TRY(draw_similar(source, &profiles, &in));
    }
    *input = in;
    in = (struct ep_place_input){0};
out:
    ep_place_profiles_fini(&profiles);
    ep_place_input_fini(&in);
    return status;
}

void ep_place_input_fini(struct ep_place_input *input)
{
    ep_place_counts_fini(&input->fit);
    free(input->topk_idx);
    free(input->similar_idx);
    *input = (struct ep_place_input){0};
}
