/* SPDX-License-Identifier: Apache-2.0 */
/* Building and counting a case of `epbench route`. */
#include "kernels/route_case.h"

#include "base/units.h"
#include "kernels/counts.h"
#include "kernels/min_tokens.h"
#include "kernels/place_file.h"
#include "kernels/gate_source.h"
#include "kernels/route_capacity.h"
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
    static const enum ep_route_option generator[] = {EP_ROUTE_SKEW, EP_ROUTE_TOKENS,
                                                     EP_ROUTE_TOKENS_PER_RANK, EP_ROUTE_SEED};
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
    if (o->placement != NULL && o->experts_to_ranks != NULL) {
        return ep_error_set(EP_EINVAL, "--placement and --experts-to-ranks exclude each other");
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

static bool names_placement(const struct ep_route_options *o)
{
    return o->experts_to_ranks != NULL || o->placement != NULL;
}

/* From the list or the file; num_experts, num_ranks: 0 = as many as are named there. */
static enum ep_status read_placement(const struct ep_route_options *o, int64_t num_experts,
                                     int64_t num_ranks, struct ep_placement *placement)
{
    if (o->placement != NULL) {
        const struct ep_place_choice choice = {.layer = o->placement_layer,
                                               .policy = o->placement_policy,
                                               .num_ranks = num_ranks,
                                               .num_experts = num_experts};
        return ep_place_map_load(o->placement, &choice, placement);
    }
    struct ep_placement read;
    const enum ep_status status =
        ep_placement_parse(o->experts_to_ranks, "--experts-to-ranks", num_ranks, &read);
    if (status == EP_OK && num_experts != 0 && read.num_experts != num_experts) {
        const int64_t named = read.num_experts;
        ep_placement_fini(&read);
        return ep_error_set(EP_EINVAL,
                            "--experts-to-ranks names %" PRId64 " experts; %" PRId64 " expected",
                            named, num_experts);
    }
    *placement = status == EP_OK ? read : *placement;
    return status;
}

static enum ep_status place_experts(const struct ep_route_options *o, int64_t num_experts,
                                    int64_t num_ranks, struct ep_route_case *r)
{
    return names_placement(o) ? read_placement(o, num_experts, num_ranks, &r->placement)
                              : ep_placement_init_contiguous(num_experts, num_ranks, &r->placement);
}

static enum ep_status check_ranks(int64_t num_ranks)
{
    return num_ranks <= EP_ROUTE_MAX_RANKS
               ? EP_OK
               : ep_error_set(EP_EINVAL, "%" PRId64 " ranks; %d at most are counted", num_ranks,
                              EP_ROUTE_MAX_RANKS);
}

static enum ep_status start_traffic(const struct ep_route_options *o, int64_t num_slots,
                                    struct ep_route_case *r)
{
    enum ep_status status;
    const int64_t num_ranks = r->placement.num_ranks;
    int32_t *rank_node = NULL;
    EP_TRY(check_ranks(num_ranks));
    EP_TRY(ep_route_options_nodes(o, num_ranks, &r->num_nodes));
    rank_node = malloc((size_t)num_ranks * sizeof *rank_node);
    if (rank_node == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " ranks", num_ranks);
        goto out;
    }
    for (int64_t i = 0; i < num_ranks; i++) {
        rank_node[i] = (int32_t)(i / (num_ranks / r->num_nodes));
    }
    status = ep_traffic_init(&r->placement, rank_node, r->num_nodes, num_slots, &r->traffic);
out:
    free(rank_node);
    return status;
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
static int64_t find_common_tokens(const struct ep_traffic *traffic)
{
    for (int64_t i = 1; i < traffic->num_ranks; i++) {
        if (traffic->tokens[i] != traffic->tokens[0]) {
            return 0;
        }
    }
    return traffic->tokens[0];
}

static enum ep_status count_gate(struct ep_route_case *r)
{
    enum ep_status status = EP_OK;
    struct ep_routing routing = {0};
    for (int64_t i = 0; i < r->placement.num_ranks; i++) {
        EP_TRY(ep_gate_source_generate(r->gate, i, false, &routing));
        EP_TRY(ep_traffic_add(&r->traffic, i, routing.topk_idx, routing.num_tokens));
        ep_routing_fini(&routing);
    }
out:
    ep_routing_fini(&routing);
    return status;
}

static enum ep_status generate(const struct ep_route_options *o, struct ep_route_case *r)
{
    enum ep_status status;
    r->source = o->skew != NULL ? o->skew : "uniform";
    r->seed = (uint64_t)o->seed;
    const struct ep_trace_options recorded = {.layer = o->layer, .format = o->trace_format};
    EP_TRY(ep_skew_create_with(r->source, &recorded, &r->skew));
    r->source = r->skew->text;
    EP_TRY(ep_skew_resolve_shape(r->skew, o->num_experts, o->top_k, false, &r->num_experts,
                                 &r->top_k));
    EP_TRY(place_experts(
        o, r->num_experts,
        o->num_ranks != 0 || names_placement(o) ? o->num_ranks : EP_ROUTE_RANKS_DEFAULT, r));
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
    const char *router = ep_capacity_options_router(&o->capacity, r->skew, r->top_k);
    if (router != NULL) {
        EP_TRY(ep_gate_source_create(router, r->router, &r->gate));
    }
    EP_TRY(start_traffic(o, r->gate != NULL ? ep_gate_source_num_slots(r->gate) : r->top_k, r));
    status = r->gate != NULL ? count_gate(r) : ep_traffic_add_router(&r->traffic, r->router);
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
    if (o->num_ranks == 0 && !names_placement(o)) {
        status = ep_error_set(EP_EINVAL, "--experts-to-ranks or --ranks is needed");
        goto out;
    }
    EP_TRY(place_experts(o, r->num_experts, o->num_ranks, r));
    if (highest >= r->placement.num_ranks) {
        ep_placement_fini(&r->placement);
        EP_TRY(place_experts(o, r->num_experts, highest + 1, r));
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

/* Runs of tokens of one rank are added together. */
static enum ep_status count_file(struct ep_route_case *r, const int32_t *token_ranks)
{
    for (int64_t t = 0, end = 0; t < r->num_tokens; t = end) {
        for (end = t + 1; end < r->num_tokens && token_ranks[end] == token_ranks[t];) {
            end++;
        }
        const enum ep_status status = ep_traffic_add(
            &r->traffic, token_ranks[t], r->assignments->topk_idx + t * r->top_k, end - t);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
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
        return ep_error_set(EP_EINVAL, "%s: holds counts, no tokens; --top-k is needed to draw some",
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
    if (names_placement(o)) {
        struct ep_placement placement;
        EP_TRY(read_placement(o, o->num_experts, o->num_ranks, &placement));
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
    EP_TRY(start_traffic(o, r->top_k, r));
    if (token_ranks == NULL) {
        EP_TRY(block_ranks(r, &token_ranks));
    }
    if (r->assignments->num_duplicates > 0) {
        snprintf(add_warning(r), EP_ROUTE_WARNING_SIZE,
                 "in %" PRId64 " of %" PRId64
                 " rows an expert comes twice: the plain cost and copies count both",
                 r->assignments->num_duplicates, r->num_tokens);
    }
    EP_TRY(count_file(r, token_ranks));
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

static enum ep_status sum_matrices(struct ep_route_case *r)
{
    enum ep_status status = EP_OK;
    const int64_t num_ranks = r->traffic.num_ranks;
    int64_t *rows = malloc((size_t)(num_ranks * num_ranks) * sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a matrix of %" PRId64 " ranks", num_ranks);
    }
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        if (m == EP_ROUTE_FAN_OUT) {
            ep_traffic_fill_fan_out(&r->traffic, rows);
        } else {
            ep_traffic_fill_rows(&r->traffic, (enum ep_basis)m, rows);
        }
        ep_traffic_sum(rows, num_ranks, &r->rows[m]);
        if (max_i64(r->rows[m].total, 2 * r->num_tokens) > ((int64_t)1 << 62) / r->row_bytes) {
            status =
                ep_error_set(EP_EINVAL, "%" PRId64 " rows of %" PRId64 " bytes exceed 2^62 bytes",
                             r->rows[m].total, r->row_bytes);
        }
    }
    free(rows);
    return status;
}

static enum ep_status measure_loads(struct ep_route_case *r)
{
    enum ep_status status;
    const int64_t num_ranks = r->traffic.num_ranks;
    int64_t *ranks = calloc((size_t)num_ranks, sizeof *ranks);
    int64_t *nodes = calloc((size_t)r->num_nodes, sizeof *nodes);
    if (ranks == NULL || nodes == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for loads of %" PRId64 " ranks", num_ranks);
        goto out;
    }
    ep_traffic_fill_loads(&r->traffic, ranks);
    for (int64_t i = 0; i < num_ranks; i++) {
        nodes[r->traffic.rank_node[i]] += ranks[i];
    }
    EP_TRY(ep_imbalance_measure(r->traffic.expert_copies, r->num_experts,
                                &r->imbalance[EP_ROUTE_EXPERT]));
    EP_TRY(ep_imbalance_measure(ranks, num_ranks, &r->imbalance[EP_ROUTE_RANK]));
    EP_TRY(ep_imbalance_measure(nodes, r->num_nodes, &r->imbalance[EP_ROUTE_NODE]));
    r->hot_ratio = (double)NAN;
    if (r->skew != NULL && r->skew->policy == &ep_skew_hot) {
        const int64_t hot = ranks[r->skew->count];
        r->hot_ratio =
            (double)hot * (double)(num_ranks - 1) / (double)(r->rows[EP_BASIS_COPIES].total - hot);
    }
out:
    free(ranks);
    free(nodes);
    return status;
}

static void measure_fan_out(struct ep_route_case *r)
{
    const int64_t groups[] = {r->traffic.num_ranks, r->num_nodes};
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

/* The plain cost where the oracle was not run on arrays: the same sums from the copies matrix. */
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
        loads[e] = (double)r->traffic.expert_copies[e];
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
    route->tokens_per_rank = find_common_tokens(&route->traffic);
    EP_TRY(sum_matrices(route));
    EP_TRY(measure_loads(route));
    measure_fan_out(route);
    fill_plain(route);
    EP_TRY(o.min_tokens > 0 ? warn_of_batch(&o, route) : EP_OK);
    route->style = o.capacity.style;
    EP_TRY(ep_route_capacity_create(&o.capacity, route, token_ranks, &route->capacity));
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
    ep_traffic_fini(&route->traffic);
    ep_gate_source_destroy(route->gate);
    ep_router_destroy(route->router);
    ep_token_map_fini(&route->tokens);
    ep_placement_fini(&route->placement);
    ep_trace_destroy(route->assignments);
    ep_skew_destroy(route->skew);
    *route = (struct ep_route_case){0};
}
