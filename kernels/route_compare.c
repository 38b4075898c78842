/* SPDX-License-Identifier: Apache-2.0 */
/* Routing the same logits by several routers, and counting what each makes ranks send. */
#include "kernels/route_compare.h"

#include "base/units.h"
#include "kernels/dropping.h"
#include "kernels/logits.h"
#include "kernels/model_options.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What all routers share. */
struct setting {
    const struct ep_route_options *options;
    struct ep_logits *source;
    struct ep_placement placement;
    struct ep_token_map tokens;
    int32_t *rank_node; /* [num_ranks] */
    float *logits;      /* [tokens][experts] of all ranks; NULL where no router needs them */
};

/* --- one router ------------------------------------------------------------------------------ */

/* The router of the model that was asked for. */
static enum ep_status config_of_model(const struct ep_route_options *o, struct ep_compare_row *row)
{
    struct ep_model_options named = EP_MODEL_OPTIONS_NONE;
    struct ep_models *models = NULL;
    struct ep_model model;
    named.name = o->model;
    named.file = o->model_file;
    if (named.name == NULL && named.file == NULL) {
        return ep_error_set(EP_EINVAL, "--compare model: --model is needed");
    }
    enum ep_status status = ep_model_options_resolve(&named, &models, &model);
    if (status == EP_OK) {
        status = ep_gate_config_from_model(&model, &row->config, &row->is_assumed);
    }
    ep_models_destroy(models);
    return status;
}

static enum ep_status fill_config(const struct ep_compare *c, const struct ep_route_options *o,
                                  struct ep_compare_row *row)
{
    enum ep_status status;
    if (strcmp(row->text, "model") == 0) {
        EP_TRY(config_of_model(o, row));
        row->config.num_experts = c->num_experts;
        row->config.top_k = ep_route_option_given(o, EP_ROUTE_TOP_K) ? o->top_k : row->config.top_k;
    } else {
        EP_TRY(ep_gate_config_parse(row->text, c->num_experts, o->top_k, &row->config));
    }
    row->config.seed = c->seed;
out:
    return status;
}

struct fetcher {
    struct ep_gate *gate;
    const struct setting *setting;
};

static enum ep_status fetch(const void *context, int64_t source, bool with_weights,
                            struct ep_routing *routing, int64_t *first_token)
{
    const struct fetcher *f = context;
    const struct setting *s = f->setting;
    const int64_t num_experts = s->placement.num_experts;
    const struct ep_gate_batch batch = {
        .num_tokens = ep_token_map_count(&s->tokens, source),
        .first_token = s->tokens.start[source],
        .logits = s->logits != NULL ? s->logits + s->tokens.start[source] * num_experts : NULL};
    struct ep_routing made;
    enum ep_status status = ep_routing_init(batch.num_tokens, num_experts,
                                            ep_gate_num_slots(f->gate), with_weights, &made);
    if (status == EP_OK && (status = ep_gate_route(f->gate, &batch, &made)) != EP_OK) {
        ep_routing_fini(&made);
    }
    if (status == EP_OK) {
        *routing = made;
        *first_token = batch.first_token;
    }
    return status;
}

/* What was chosen: tokens by number of experts, and the fullest expert. counts [experts] is
 * scratch. */
static void count_choices(const struct ep_routing *routing, int64_t *counts,
                          struct ep_compare_row *row)
{
    const int64_t k = routing->top_k;
    memset(counts, 0, (size_t)routing->num_experts * sizeof *counts);
    for (int64_t t = 0; t < routing->num_tokens; t++) {
        int64_t num = 0;
        for (int64_t i = t * k; i < (t + 1) * k; i++) {
            if (routing->topk_idx[i] >= 0) {
                counts[routing->topk_idx[i]]++;
                num++;
            }
        }
        row->choices[num]++;
    }
    for (int64_t e = 0; e < routing->num_experts; e++) {
        row->needed_rows = counts[e] > row->needed_rows ? counts[e] : row->needed_rows;
    }
}

/* Every source twice where copies are dropped: as chosen, and as sent. */
static enum ep_status count_sources(const struct fetcher *f, const struct ep_dropping *dropping,
                                    struct ep_traffic *traffic, struct ep_compare_row *row)
{
    enum ep_status status = EP_OK;
    struct ep_routing routing = {0};
    int64_t *counts = malloc((size_t)row->config.num_experts * sizeof *counts);
    if (counts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to compare routers");
    }
    for (int64_t source = 0; source < traffic->num_ranks; source++) {
        int64_t first_token = 0;
        EP_TRY(fetch(f, source, false, &routing, &first_token));
        count_choices(&routing, counts, row);
        if (dropping != NULL) {
            ep_routing_fini(&routing);
            EP_TRY(ep_dropping_generate(dropping, source, false, &routing, &row->counts));
        }
        EP_TRY(ep_traffic_add(traffic, source, routing.topk_idx, routing.num_tokens));
        ep_routing_fini(&routing);
    }
    for (int64_t n = 0; dropping == NULL && n < row->num_choices; n++) {
        row->counts.tokens += row->choices[n];
        row->counts.asked += n * row->choices[n];
        row->counts.kept = row->counts.asked;
    }
out:
    ep_routing_fini(&routing);
    free(counts);
    return status;
}

static enum ep_status measure(const struct ep_compare *c, const struct ep_traffic *traffic,
                              struct ep_compare_row *row)
{
    enum ep_status status = EP_OK;
    int64_t *rows = malloc((size_t)(c->num_ranks * c->num_ranks) * sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a matrix of %" PRId64 " ranks", c->num_ranks);
    }
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        if (m == EP_ROUTE_FAN_OUT) {
            ep_traffic_fill_fan_out(traffic, rows);
        } else {
            ep_traffic_fill_rows(traffic, (enum ep_basis)m, rows);
        }
        ep_traffic_sum(rows, c->num_ranks, &row->rows[m]);
        if (row->rows[m].total > ((int64_t)1 << 62) / c->row_bytes) {
            status = ep_error_set(EP_EINVAL, "%" PRId64 " rows of %" PRId64 " bytes exceed 2^62",
                                  row->rows[m].total, c->row_bytes);
            goto out;
        }
    }
    EP_TRY(ep_imbalance_measure(traffic->expert_copies, c->num_experts, &row->expert));
    ep_traffic_fill_loads(traffic, rows);
    EP_TRY(ep_imbalance_measure(rows, c->num_ranks, &row->rank));
out:
    free(rows);
    return status;
}

static enum ep_status count_row(const struct ep_compare *c, const struct setting *s,
                                struct ep_compare_row *row)
{
    enum ep_status status;
    struct fetcher f = {.setting = s};
    struct ep_dropping *dropping = NULL;
    struct ep_traffic traffic = {0};
    struct ep_capacity_policy policy;
    EP_TRY(ep_gate_create(&row->config, &f.gate));
    row->isa = ep_gate_isa_name(f.gate);
    const int64_t slots = ep_gate_num_slots(f.gate);
    row->num_choices = slots + 1;
    row->choices = calloc((size_t)row->num_choices, sizeof *row->choices);
    if (row->choices == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to compare routers");
        goto out;
    }
    const struct ep_dropping_input input = {.context = &f,
                                            .fetch = fetch,
                                            .shape = {.tokens = s->tokens.max_tokens,
                                                      .num_experts = c->num_experts,
                                                      .top_k = row->config.top_k,
                                                      .num_ranks = c->num_ranks},
                                            .num_sources = c->num_ranks};
    EP_TRY(ep_capacity_options_policy(&s->options->capacity, row->config.top_k, c->seed, &policy));
    if (ep_capacity_is_set(&policy)) {
        EP_TRY(ep_dropping_create(&input, &policy, &dropping));
        row->capacity = *ep_dropping_capacity(dropping);
    }
    row->has_losses =
        c->with_losses && ep_gate_needs_logits(&row->config) && !ep_gate_is_batch(&row->config);
    if (row->has_losses) {
        EP_TRY(ep_route_losses_measure(&input, s->logits, ep_gate_is_sigmoid(&row->config),
                                       &row->losses));
    }
    EP_TRY(ep_traffic_init(&s->placement, s->rank_node, c->num_nodes, slots, &traffic));
    EP_TRY(count_sources(&f, dropping, &traffic, row));
    EP_TRY(measure(c, &traffic, row));
out:
    ep_traffic_fini(&traffic);
    ep_dropping_destroy(dropping);
    ep_gate_destroy(f.gate);
    return status;
}

/* --- what they share ------------------------------------------------------------------------- */

static void fini_setting(struct setting *s)
{
    ep_logits_destroy(s->source);
    ep_placement_fini(&s->placement);
    ep_token_map_fini(&s->tokens);
    free(s->rank_node);
    free(s->logits);
}

static enum ep_status open_logits(const struct ep_compare_options *options, struct ep_compare *c,
                                  struct setting *s)
{
    const struct ep_route_options *o = s->options;
    if (options->logits != NULL) {
        if (o->skew != NULL || o->tokens != 0) {
            return ep_error_set(EP_EINVAL, "%s cannot be given with --logits",
                                o->skew != NULL ? "--skew" : "--tokens");
        }
        c->source = options->logits;
        c->from_file = true;
        return ep_logits_load(options->logits, o->num_experts, &s->source);
    }
    if (o->num_experts == 0) {
        return ep_error_set(EP_EINVAL, "--experts, --model or --logits is needed");
    }
    c->source = o->skew != NULL ? o->skew : "uniform";
    return ep_logits_create(c->source, o->num_experts, (uint64_t)o->seed, &s->source);
}

static enum ep_status place(struct ep_compare *c, struct setting *s)
{
    enum ep_status status;
    const struct ep_route_options *o = s->options;
    const int64_t tokens = ep_logits_num_tokens(s->source);
    const int64_t num_ranks = o->num_ranks != 0 ? o->num_ranks : EP_ROUTE_RANKS_DEFAULT;
    if (num_ranks > EP_ROUTE_MATRIX_RANKS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " ranks; %d at most are counted", num_ranks,
                            EP_ROUTE_MATRIX_RANKS);
    }
    EP_TRY(ep_placement_init_contiguous(c->num_experts, num_ranks, &s->placement));
    c->num_ranks = num_ranks;
    EP_TRY(ep_route_options_nodes(o, num_ranks, &c->num_nodes));
    s->rank_node = malloc((size_t)num_ranks * sizeof *s->rank_node);
    if (s->rank_node == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " ranks", num_ranks);
    }
    for (int64_t i = 0; i < num_ranks; i++) {
        s->rank_node[i] = (int32_t)(i / (num_ranks / c->num_nodes));
    }
    EP_TRY(tokens > 0
               ? ep_token_map_init_blocks(num_ranks, tokens, &s->tokens)
               : ep_token_map_init_equal(
                     num_ranks, o->tokens != 0 ? o->tokens : EP_ROUTE_TOKENS_DEFAULT, &s->tokens));
    c->num_tokens = s->tokens.num_tokens;
    c->tokens_per_rank = s->tokens.max_tokens;
out:
    return status;
}

static enum ep_status make_logits(const struct ep_compare *c, struct setting *s)
{
    bool needed = false;
    for (int64_t i = 0; i < c->num_rows; i++) {
        needed = needed || ep_gate_needs_logits(&c->rows[i].config);
    }
    if (!needed) {
        return EP_OK;
    }
    if (c->num_tokens > ((int64_t)1 << 29) / c->num_experts) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " tokens x %" PRId64 " experts exceed 2^29 logits; fewer "
                            "--tokens or --ranks are needed",
                            c->num_tokens, c->num_experts);
    }
    s->logits = malloc((size_t)(c->num_tokens * c->num_experts) * sizeof *s->logits);
    if (s->logits == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for logits of %" PRId64 " tokens", c->num_tokens);
    }
    ep_logits_fill(s->source, 0, c->num_tokens, s->logits);
    return EP_OK;
}

static enum ep_status set_row_bytes(const struct ep_route_options *o, struct ep_compare *c)
{
    if (o->token_bytes != 0 && (o->hidden != 0 || ep_route_option_given(o, EP_ROUTE_DTYPE))) {
        return ep_error_set(EP_EINVAL, "--token-bytes replaces --hidden and --dtype; give one");
    }
    const int64_t hidden = o->hidden != 0 ? o->hidden : EP_ROUTE_HIDDEN_DEFAULT;
    c->row_bytes = o->token_bytes != 0 ? o->token_bytes : ep_dtype_row_bytes(o->dtype, hidden);
    return EP_OK;
}

static enum ep_status list_routers(const struct ep_route_options *o, const char *text,
                                   struct ep_compare *c)
{
    enum ep_status status;
    struct ep_list list = {0};
    EP_TRY(ep_list_split(text, ',', "--compare", &list));
    c->rows = calloc((size_t)list.num, sizeof *c->rows);
    if (c->rows == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to compare routers");
        goto out;
    }
    c->num_rows = list.num;
    for (int64_t i = 0; i < list.num; i++) {
        c->rows[i].text = list.items[i]; /* it moves over */
        list.items[i] = NULL;
        EP_TRY(fill_config(c, o, &c->rows[i]));
    }
out:
    ep_list_fini(&list);
    return status;
}

enum ep_status ep_compare_create(const struct ep_route_options *shared,
                                 const struct ep_compare_options *options,
                                 struct ep_compare **compare)
{
    enum ep_status status;
    struct ep_route_options o = *shared;
    struct setting s = {.options = &o};
    struct ep_compare *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to compare routers");
    }
    if (o.capacity.router != NULL) {
        status =
            ep_error_set(EP_EINVAL, "--router does not apply to --compare, which names routers");
        goto out;
    }
    EP_TRY(ep_route_options_apply_model(&o));
    EP_TRY(set_row_bytes(&o, c));
    c->seed = (uint64_t)o.seed;
    c->with_losses = options->losses;
    EP_TRY(open_logits(options, c, &s));
    c->num_experts = ep_logits_num_experts(s.source);
    EP_TRY(list_routers(&o, options->routers, c));
    EP_TRY(place(c, &s));
    EP_TRY(make_logits(c, &s));
    EP_TRY(
        ep_capacity_options_policy(&o.capacity, o.top_k != 0 ? o.top_k : 1, c->seed, &c->policy));
    for (int64_t i = 0; i < c->num_rows; i++) {
        EP_TRY(count_row(c, &s, &c->rows[i]));
    }
    *compare = c;
    c = NULL;
out:
    fini_setting(&s);
    ep_compare_destroy(c);
    return status;
}

void ep_compare_destroy(struct ep_compare *compare)
{
    if (compare == NULL) {
        return;
    }
    for (int64_t i = 0; i < compare->num_rows; i++) {
        free(compare->rows[i].text);
        free(compare->rows[i].choices);
    }
    free(compare->rows);
    free(compare);
}

int64_t ep_compare_tokens_without(const struct ep_compare_row *row)
{
    return row->choices[0];
}

double ep_compare_mean_choices(const struct ep_compare_row *row)
{
    int64_t tokens = 0;
    int64_t copies = 0;
    for (int64_t n = 0; n < row->num_choices; n++) {
        tokens += row->choices[n];
        copies += n * row->choices[n];
    }
    return tokens > 0 ? (double)copies / (double)tokens : 0;
}
