/* SPDX-License-Identifier: Apache-2.0 */
/* Building and counting a case of `epbench route`. */
#include "kernels/route_case.h"

#include "base/units.h"
#include "kernels/counts.h"
#include "kernels/gate_source.h"
#include "kernels/min_tokens.h"
#include "kernels/route_capacity.h"
#include "kernels/route_placement.h"
#include "kernels/route_tokens.h"
#include "kernels/skew_policy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what was asked for ------------------------------------------------------------------- */

static bool is_recorded(const char *skew)
{
    return skew != NULL && (strncmp(skew, "trace:", 6) == 0 || strncmp(skew, "counts:", 7) == 0);
}

static enum ep_status check_combination(const struct ep_route_options *o)
{
    static const enum ep_route_option generator[] = {
        EP_ROUTE_SKEW,   EP_ROUTE_POPULARITY,      EP_ROUTE_MASKED,
        EP_ROUTE_TOKENS, EP_ROUTE_TOKENS_PER_RANK, EP_ROUTE_SEED};
    for (size_t i = 0; i < sizeof generator / sizeof generator[0]; i++) {
        if (o->assignments != NULL && ep_route_option_given(o, generator[i])) {
            return ep_error_set(EP_EINVAL, "%s cannot be given with --assignments",
                                ep_route_option_name(generator[i]));
        }
    }
    if (o->tokens != 0 && o->tokens_per_rank != NULL) {
        return ep_error_set(EP_EINVAL, "--tokens and --tokens-per-rank exclude each other");
    }
    if (o->assignments == NULL && o->tokens_to_ranks != NULL) {
        return ep_error_set(EP_EINVAL, "--tokens-to-ranks is for --assignments");
    }
    if (o->placement == NULL && (o->placement_policy != NULL || o->placement_layer >= 0)) {
        return ep_error_set(EP_EINVAL, "%s is for --placement",
                            o->placement_policy != NULL ? "--placement-policy"
                                                        : "--placement-layer");
    }
    const bool recorded = o->assignments != NULL || is_recorded(o->skew);
    if (!recorded && (o->layer >= 0 || o->trace_format != NULL)) {
        return ep_error_set(EP_EINVAL, "%s is for --assignments and the skews trace and counts",
                            o->layer >= 0 ? "--layer" : "--trace-format");
    }
    if (o->token_bytes != 0 && (o->hidden != 0 || ep_route_option_given(o, EP_ROUTE_DTYPE))) {
        return ep_error_set(EP_EINVAL, "--token-bytes replaces --hidden and --dtype; give one");
    }
    return EP_OK;
}

static void set_row(const struct ep_route_options *o, struct ep_route_case *r)
{
    r->hidden = o->token_bytes != 0 ? 0 : o->hidden != 0 ? o->hidden : EP_ROUTE_HIDDEN_DEFAULT;
    r->dtype = o->dtype;
    r->row_bytes = o->token_bytes != 0 ? o->token_bytes : ep_dtype_row_bytes(r->dtype, r->hidden);
    r->bw_bytes_per_s = o->bw_bytes_per_s > 0 ? o->bw_bytes_per_s : (double)NAN;
}

/* Nodes are blocks of consecutive ranks. */
static enum ep_status place_ranks(const struct ep_route_options *o, struct ep_route_case *r)
{
    const int64_t num_ranks = r->placement.num_ranks;
    const enum ep_status status = ep_route_options_nodes(o, num_ranks, &r->num_nodes);
    if (status != EP_OK) {
        return status;
    }
    r->num_ranks = num_ranks;
    r->rank_node = malloc((size_t)num_ranks * sizeof *r->rank_node);
    if (r->rank_node == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " ranks", num_ranks);
    }
    for (int64_t i = 0; i < num_ranks; i++) {
        r->rank_node[i] = (int32_t)(i / (num_ranks / r->num_nodes));
    }
    return EP_OK;
}

/* Room for one more warning. */
static char *add_warning(struct ep_route_case *r)
{
    EP_ASSERT(r->num_warnings < EP_ROUTE_MAX_WARNINGS);
    return r->warnings[r->num_warnings++];
}

/* --- from a generator --------------------------------------------------------------------- */

/* The same number on each rank, or a list of as many numbers as there are ranks. */
static enum ep_status place_tokens(const struct ep_route_options *o, struct ep_route_case *r)
{
    enum ep_status status;
    const int64_t num_ranks = r->placement.num_ranks;
    struct ep_list list = {0};
    int64_t *counts = NULL;
    if (o->tokens_per_rank == NULL) {
        return ep_token_map_init_equal(
            num_ranks, o->tokens != 0 ? o->tokens : EP_ROUTE_TOKENS_DEFAULT, &r->tokens);
    }
    EP_TRY(ep_list_split(o->tokens_per_rank, ',', "--tokens-per-rank", &list));
    if (list.num != num_ranks) {
        status = ep_error_set(EP_EINVAL,
                              "--tokens-per-rank has %" PRId64 " numbers for %" PRId64 " ranks",
                              list.num, num_ranks);
        goto out;
    }
    counts = malloc((size_t)num_ranks * sizeof *counts);
    if (counts == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " ranks", num_ranks);
        goto out;
    }
    for (int64_t i = 0; i < num_ranks; i++) {
        EP_TRY(ep_parse_i64(list.items[i], "--tokens-per-rank", 0, INT32_MAX, &counts[i]));
    }
    status = ep_token_map_init_counts(num_ranks, counts, &r->tokens);
out:
    free(counts);
    ep_list_fini(&list);
    return status;
}

/* Tokens of each rank, 0 where they differ. */
static int64_t find_common_tokens(const struct ep_token_map *tokens)
{
    for (int64_t i = 1; i < tokens->num_ranks; i++) {
        if (ep_token_map_count(tokens, i) != ep_token_map_count(tokens, 0)) {
            return 0;
        }
    }
    return ep_token_map_count(tokens, 0);
}

/* The skew with what is asked for besides. */
static enum ep_status make_skew(const struct ep_route_options *o, struct ep_route_case *r)
{
    const struct ep_trace_options recorded = {.layer = o->layer, .format = o->trace_format};
    char *text = ep_skew_compose(o->skew != NULL ? o->skew : "uniform", o->by_source, o->masked);
    if (text == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a skew");
    }
    const enum ep_status status = ep_skew_create_with(text, &recorded, &r->skew);
    free(text);
    return status;
}

static enum ep_status fetch_of_gate(const void *context, int64_t source, struct ep_routing *routing)
{
    return ep_gate_source_generate(context, source, false, routing);
}

static enum ep_status start_gate(const char *name, struct ep_route_case *r)
{
    const enum ep_status status = ep_gate_source_create(name, r->router, &r->gate);
    if (status == EP_OK) {
        r->input.top_k = ep_gate_source_num_slots(r->gate);
        r->input.context = r->gate;
        r->input.fetch = fetch_of_gate;
    }
    return status;
}

static enum ep_status generate(const struct ep_route_options *o, struct ep_route_case *r)
{
    enum ep_status status;
    r->seed = (uint64_t)o->seed;
    EP_TRY(make_skew(o, r));
    r->source = r->skew->text;
    EP_TRY(ep_skew_resolve_shape(r->skew, o->num_experts, o->top_k, false, &r->num_experts,
                                 &r->top_k));
    const int64_t num_ranks =
        o->num_ranks != 0 || ep_route_names_placement(o) ? o->num_ranks : EP_ROUTE_RANKS_DEFAULT;
    EP_TRY(ep_route_place_experts(o, r->num_experts, num_ranks, &r->placement));
    EP_TRY(place_ranks(o, r));
    EP_TRY(place_tokens(o, r));
    const struct ep_router_config config = {.skew = r->skew,
                                            .placement = &r->placement,
                                            .tokens = &r->tokens,
                                            .top_k = r->top_k,
                                            .seed = r->seed};
    EP_TRY(ep_router_create(&config, &r->router));
    r->num_tokens = r->tokens.num_tokens;
    if (ep_router_wraps(r->router)) {
        snprintf(add_warning(r), EP_ROUTE_WARNING_SIZE,
                 "the trace has %" PRId64 " tokens for %" PRId64 ": its rows come again",
                 r->skew->trace->num_tokens, r->num_tokens);
    }
    r->input = ep_traffic_input_of_router(r->router);
    const char *router = ep_capacity_options_router(&o->capacity, r->skew, r->top_k);
    if (router != NULL) {
        EP_TRY(start_gate(router, r));
    }
out:
    return status;
}

/* --- from a file -------------------------------------------------------------------------- */

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Ranks there are: as asked for, else as far as experts and tokens name them. */
static enum ep_status place_file(const struct ep_route_options *o, struct ep_route_case *r,
                                 int32_t **token_ranks)
{
    enum ep_status status;
    const bool by_file = o->tokens_to_ranks != NULL && strcmp(o->tokens_to_ranks, "block") != 0;
    int64_t highest = -1;
    if (by_file) {
        EP_TRY(ep_route_tokens_load(o->tokens_to_ranks, r->assignments,
                                    o->num_ranks != 0 ? o->num_ranks : EP_ROUTE_MAX_RANKS,
                                    token_ranks));
        for (int64_t t = 0; t < r->num_tokens; t++) {
            highest = max_i64(highest, (*token_ranks)[t]);
        }
    }
    if (o->num_ranks == 0 && !ep_route_names_placement(o)) {
        status = ep_error_set(EP_EINVAL, "--experts-to-ranks or --ranks is needed");
        goto out;
    }
    EP_TRY(ep_route_place_experts(o, r->num_experts, o->num_ranks, &r->placement));
    if (highest >= r->placement.num_ranks) {
        ep_placement_fini(&r->placement);
        EP_TRY(ep_route_place_experts(o, r->num_experts, highest + 1, &r->placement));
    }
out:
    return status;
}

static enum ep_status block_ranks(struct ep_route_case *r, int32_t **token_ranks)
{
    struct ep_token_map map;
    const enum ep_status status =
        ep_token_map_init_blocks(r->placement.num_ranks, r->num_tokens, &map);
    if (status != EP_OK) {
        return status;
    }
    int32_t *ranks = malloc((size_t)r->num_tokens * sizeof *ranks);
    for (int64_t i = 0; ranks != NULL && i < map.num_ranks; i++) {
        for (int64_t t = map.start[i]; t < map.start[i + 1]; t++) {
            ranks[t] = (int32_t)i;
        }
    }
    ep_token_map_fini(&map);
    *token_ranks = ranks;
    return ranks != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for ranks of tokens");
}

/* Tokens of the file by rank, each rank's in the order of the file. */
static enum ep_status order_file(struct ep_route_case *r, const int32_t *token_ranks)
{
    const int64_t num_ranks = r->num_ranks;
    int64_t *next = calloc((size_t)num_ranks, sizeof *next);
    r->order = malloc((size_t)r->num_tokens * sizeof *r->order);
    if (next == NULL || r->order == NULL) {
        free(next);
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " tokens", r->num_tokens);
    }
    for (int64_t t = 0; t < r->num_tokens; t++) {
        next[token_ranks[t]]++;
    }
    const enum ep_status status = ep_token_map_init_counts(num_ranks, next, &r->tokens);
    if (status == EP_OK) {
        memcpy(next, r->tokens.start, (size_t)num_ranks * sizeof *next);
        for (int64_t t = 0; t < r->num_tokens; t++) {
            r->order[next[token_ranks[t]]++] = t;
        }
    }
    free(next);
    return status;
}

static void fill_of_file(const void *context, int64_t first_token, int64_t num_tokens,
                         struct ep_routing *routing)
{
    const struct ep_route_case *r = context;
    const size_t size = (size_t)r->top_k * sizeof *routing->topk_idx;
    for (int64_t i = 0; i < num_tokens; i++) {
        memcpy(routing->topk_idx + i * r->top_k,
               r->assignments->topk_idx + r->order[first_token + i] * r->top_k, size);
    }
}

/* A file of counts becomes the tokens that it counts, drawn. */
static enum ep_status draw_file(const struct ep_route_options *o, struct ep_route_case *r)
{
    struct ep_trace *drawn = NULL;
    const int64_t top_k = r->assignments->top_k != 0 ? r->assignments->top_k : o->top_k;
    if (r->assignments->counts == NULL) {
        return EP_OK;
    }
    if (top_k == 0) {
        return ep_error_set(EP_EINVAL,
                            "%s: holds counts, no tokens; --top-k is needed to draw some",
                            o->assignments);
    }
    const enum ep_status status =
        ep_counts_draw_trace(r->assignments, top_k, (uint64_t)o->seed, &drawn);
    if (status == EP_OK) {
        ep_trace_destroy(r->assignments);
        r->assignments = drawn;
    }
    return status;
}

/* Experts named by a placement, --experts or --model bound the file's; else it says. */
static enum ep_status load_file(const struct ep_route_options *o, struct ep_route_case *r)
{
    enum ep_status status;
    struct ep_trace_options options = {.num_experts = o->num_experts,
                                       .layer = o->layer,
                                       .allow_duplicates = true,
                                       .format = o->trace_format};
    if (ep_route_names_placement(o)) {
        struct ep_placement placement;
        EP_TRY(ep_route_place_experts(o, o->num_experts, o->num_ranks, &placement));
        options.num_experts = placement.num_experts;
        ep_placement_fini(&placement);
    }
    EP_TRY(ep_trace_load(o->assignments, &options, &r->assignments));
    EP_TRY(draw_file(o, r));
    r->num_experts = r->assignments->num_experts;
    r->num_tokens = r->assignments->num_tokens;
    r->top_k = r->assignments->top_k;
    if (o->top_k != 0 && o->top_k != r->top_k) {
        status =
            ep_error_set(EP_EINVAL, "--top-k %" PRId64 " contradicts %s, which has top-%" PRId64,
                         o->top_k, o->assignments, r->top_k);
    }
out:
    return status;
}

/* The rank of each token is the caller's to free, failed or not. */
static enum ep_status read_file(const struct ep_route_options *o, struct ep_route_case *r,
                                int32_t **ranks)
{
    enum ep_status status;
    int32_t *token_ranks = NULL;
    r->source = o->assignments;
    r->from_file = true;
    EP_TRY(load_file(o, r));
    EP_TRY(place_file(o, r, &token_ranks));
    EP_TRY(place_ranks(o, r));
    if (token_ranks == NULL) {
        EP_TRY(block_ranks(r, &token_ranks));
    }
    if (r->assignments->num_duplicates > 0) {
        snprintf(add_warning(r), EP_ROUTE_WARNING_SIZE,
                 "in %" PRId64 " of %" PRId64
                 " rows an expert comes twice: the plain cost and copies count both",
                 r->assignments->num_duplicates, r->num_tokens);
    }
    EP_TRY(order_file(r, token_ranks));
    r->input = (struct ep_traffic_input){.tokens = &r->tokens,
                                         .num_experts = r->num_experts,
                                         .top_k = r->top_k,
                                         .context = r,
                                         .fill = fill_of_file};
    if (!r->placement.replicated && r->bw_bytes_per_s > 0) {
        EP_TRY(ep_plain_routing_cost(r->assignments->topk_idx, r->num_tokens, r->top_k,
                                     r->placement.slot_rank, r->num_experts, token_ranks,
                                     r->row_bytes, r->bw_bytes_per_s * 8 / 1e9, &r->plain));
    }
out:
    *ranks = token_ranks;
    return status;
}

/* --- what is counted ---------------------------------------------------------------------- */

static enum ep_status count_tokens(const struct ep_route_options *o, struct ep_route_case *r)
{
    const struct ep_traffic_effort effort = {.num_threads = (int)o->num_threads,
                                             .progress = ep_route_show_progress};
    const enum ep_status status = ep_traffic_sums_init(&r->placement, r->rank_node, r->num_nodes,
                                                       &r->input, &effort, &r->sums);
    if (status != EP_OK) {
        return status;
    }
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        r->rows[m] = ep_traffic_sums_totals(&r->sums, m);
        if (max_i64(r->rows[m].total, 2 * r->num_tokens) > ((int64_t)1 << 62) / r->row_bytes) {
            return ep_error_set(EP_EINVAL,
                                "%" PRId64 " rows of %" PRId64 " bytes exceed 2^62 bytes",
                                r->rows[m].total, r->row_bytes);
        }
    }
    return EP_OK;
}

static enum ep_status measure_loads(struct ep_route_case *r)
{
    enum ep_status status;
    const int64_t *ranks = r->sums.received;
    int64_t *nodes = calloc((size_t)r->num_nodes, sizeof *nodes);
    if (nodes == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for loads of %" PRId64 " nodes", r->num_nodes);
    }
    for (int64_t i = 0; i < r->num_ranks; i++) {
        nodes[r->rank_node[i]] += ranks[i];
    }
    EP_TRY(ep_imbalance_measure(r->sums.expert_copies, r->num_experts,
                                &r->imbalance[EP_ROUTE_EXPERT]));
    EP_TRY(ep_imbalance_measure(ranks, r->num_ranks, &r->imbalance[EP_ROUTE_RANK]));
    EP_TRY(ep_imbalance_measure(nodes, r->num_nodes, &r->imbalance[EP_ROUTE_NODE]));
    r->hot_ratio = (double)NAN;
    if (r->skew != NULL && r->skew->policy == &ep_skew_hot) {
        int32_t *hot_ranks = NULL;
        int64_t num_hot = 0, hot = 0;
        EP_TRY(ep_skew_find_hot_ranks(r->skew, r->num_ranks, &hot_ranks, &num_hot));
        for (int64_t i = 0; i < num_hot; i++) {
            hot += ranks[hot_ranks[i]];
        }
        free(hot_ranks);
        r->hot_ratio = (double)hot / (double)num_hot * (double)(r->num_ranks - num_hot) /
                       (double)(r->rows[EP_BASIS_COPIES].total - hot);
    }
out:
    free(nodes);
    return status;
}

static void measure_fan_out(struct ep_route_case *r)
{
    const int64_t groups[] = {r->num_ranks, r->num_nodes};
    const int64_t rows[] = {r->rows[EP_BASIS_RANK].total, r->rows[EP_BASIS_NODE].total};
    const bool equal = !r->placement.replicated &&
                       r->placement.max_local * r->placement.num_ranks == r->num_experts;
    for (int i = 0; i < 2; i++) {
        r->mean_fan_out[i] = (double)rows[i] / (double)r->num_tokens;
        r->expected_fan_out[i] =
            equal && r->top_k <= r->num_experts
                ? ep_traffic_expected_groups(r->num_experts, r->top_k, groups[i])
                : (double)NAN;
    }
}

/* The plain cost where the oracle was not run on arrays: the same sums from the copies. */
static void fill_plain(struct ep_route_case *r)
{
    const struct ep_traffic_totals *copies = &r->rows[EP_BASIS_COPIES];
    const bool by_oracle = r->from_file && r->plain.local_tokens + r->plain.remote_tokens > 0;
    EP_ASSERT(!by_oracle || r->plain.remote_tokens == copies->remote);
    r->plain.local_tokens = copies->total - copies->remote;
    r->plain.remote_tokens = copies->remote;
    r->plain.total_remote_bytes = copies->remote * r->row_bytes;
    if (!by_oracle) {
        r->plain.comm_time_ms =
            ep_plain_comm_time_ms(r->plain.total_remote_bytes, r->bw_bytes_per_s * 8 / 1e9);
    }
    const double fraction = copies->total > 0 ? (double)copies->remote / (double)copies->total : 0;
    r->textbook_fraction_bytes = llround((double)r->num_tokens * (double)r->row_bytes * fraction);
    r->textbook_twice_bytes = 2 * r->num_tokens * r->row_bytes;
}

/* What a recording does not say. */
static void warn_of_recording(struct ep_route_case *r)
{
    const struct ep_trace *trace = r->from_file ? r->assignments : r->skew->trace;
    r->fan_out_sampled = trace != NULL && trace->fan_out_sampled;
    if (r->fan_out_sampled) {
        snprintf(add_warning(r), EP_ROUTE_WARNING_SIZE,
                 "tokens are drawn from counts: the load of experts is recorded, fan-out (which "
                 "experts come together) is sampled");
    }
    if (trace != NULL && trace->num_left_out > 0) {
        snprintf(add_warning(r), EP_ROUTE_WARNING_SIZE,
                 "%" PRId64 " records of multi-token prediction were left out",
                 trace->num_left_out);
    }
}

/* Tokens of all ranks are a step's. */
static enum ep_status warn_of_batch(const struct ep_route_options *o, struct ep_route_case *r)
{
    enum ep_status status;
    struct ep_min_tokens plan;
    const struct ep_min_tokens_shape shape = {.num_experts = r->num_experts,
                                              .top_k = r->top_k,
                                              .num_tokens = r->num_tokens,
                                              .sequence_tokens = 1};
    double *loads = malloc((size_t)r->num_experts * sizeof *loads);
    if (loads == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " experts", r->num_experts);
    }
    for (int64_t e = 0; e < r->num_experts; e++) {
        loads[e] = (double)r->sums.expert_copies[e];
    }
    EP_TRY(ep_min_tokens_plan(loads, &shape, o->min_tokens, &plan));
    if (plan.low_tokens < (double)plan.wanted) {
        ep_min_tokens_warn(&plan, add_warning(r), EP_ROUTE_WARNING_SIZE);
    }
out:
    free(loads);
    return status;
}

enum ep_status ep_route_case_init(const struct ep_route_options *options,
                                  struct ep_route_case *route)
{
    enum ep_status status;
    int32_t *token_ranks = NULL;
    struct ep_route_options o = *options;
    *route = (struct ep_route_case){0};
    EP_TRY(check_combination(&o));
    EP_TRY(ep_route_options_apply_model(&o));
    o.top_k = o.top_k != 0 ? o.top_k : ep_capacity_options_top_k(&o.capacity);
    set_row(&o, route);
    EP_TRY(o.assignments != NULL ? read_file(&o, route, &token_ranks) : generate(&o, route));
    warn_of_recording(route);
    route->tokens_per_rank = find_common_tokens(&route->tokens);
    EP_TRY(count_tokens(&o, route));
    EP_TRY(measure_loads(route));
    measure_fan_out(route);
    fill_plain(route);
    EP_TRY(o.min_tokens > 0 ? warn_of_batch(&o, route) : EP_OK);
    route->style = o.capacity.style;
    EP_TRY(ep_route_capacity_create(&o.capacity, route, token_ranks, (int)o.num_threads,
                                    &route->capacity));
out:
    free(token_ranks);
    if (status != EP_OK) {
        ep_route_case_fini(route);
    }
    return status;
}

void ep_route_case_fini(struct ep_route_case *route)
{
    ep_route_capacity_destroy(route->capacity);
    ep_traffic_sums_fini(&route->sums);
    ep_gate_source_destroy(route->gate);
    ep_router_destroy(route->router);
    ep_token_map_fini(&route->tokens);
    free(route->order);
    free(route->rank_node);
    ep_placement_fini(&route->placement);
    ep_trace_destroy(route->assignments);
    ep_skew_destroy(route->skew);
    *route = (struct ep_route_case){0};
}
