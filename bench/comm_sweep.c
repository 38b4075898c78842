/* SPDX-License-Identifier: Apache-2.0 */
/* From lists to cases, and what a visit of one is. */
#include "bench/comm_sweep.h"

#include "bench/comm_record.h"
#include "bench/comm_style.h"
#include "bench/comm_table.h"
#include "bench/limits.h"
#include "bench/comm_visits.h"
#include "kernels/models.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 64, MAX_CASES = 100000, MAX_TOKENS = 1 << 24, MAX_HIDDEN = 1 << 20,
       ROUTING_ID_LENGTH = 32 };

struct numbers {
    int64_t items[MAX_LIST];
    int64_t num;
};

struct ep_comm_sweep {
    struct ep_comm_options options;
    struct numbers tokens, hidden, top_k, ranks;
    struct numbers tokens_per_rank; /* num 0 = equal */
    int64_t experts;                /* 0 = the skew's */
    const struct ep_skew *skews[MAX_LIST];
    int64_t num_skews;
    const struct ep_transport *transports[MAX_LIST + 1]; /* ended by NULL */
    int64_t num_transports;
    enum ep_dtype dtypes[MAX_LIST];
    int64_t num_dtypes;
    enum ep_dtype combine_dtype;
    bool has_combine_dtype;
    struct ep_list algorithms;
    bool spread;
    bool ops[EP_NUM_OPS];
    struct ep_models *models;
    const struct ep_model *model;
    struct ep_comm_case *cases; /* made by build_cases, when the number of ranks is known */
    int64_t num_cases;
    char (*routing_ids)[ROUTING_ID_LENGTH]; /* [num_cases], made by check_cases */
};

static enum ep_status parse_numbers(const char *text, const char *what, int64_t min, int64_t max,
                                    struct numbers *numbers)
{
    enum ep_status status = EP_OK;
    struct ep_list list = {0};
    EP_TRY(ep_list_split(text, ',', what, &list));
    if (list.num > MAX_LIST) {
        status = ep_error_set(EP_EINVAL, "%s: %" PRId64 " items, at most %d are possible", what,
                              list.num, MAX_LIST);
        goto out;
    }
    for (int64_t i = 0; i < list.num; i++) {
        EP_TRY(ep_parse_i64(list.items[i], what, min, max, &numbers->items[i]));
    }
    numbers->num = list.num;
out:
    ep_list_fini(&list);
    return status;
}

static enum ep_status add_skew(struct ep_comm_sweep *s, const char *text)
{
    struct ep_skew *skew = NULL;
    const struct ep_trace_options recorded = {.layer = s->options.layer,
                                              .format = s->options.trace_format};
    const enum ep_status status = ep_skew_create_with(text, &recorded, &skew);
    s->skews[s->num_skews] = skew;
    s->num_skews += status == EP_OK;
    return status;
}

static enum ep_status add_transport(struct ep_comm_sweep *s, const char *text)
{
    return ep_transport_find(text, &s->transports[s->num_transports++]);
}

static enum ep_status add_dtype(struct ep_comm_sweep *s, const char *text)
{
    return ep_dtype_parse(text, "--dtype", &s->dtypes[s->num_dtypes++]);
}

static enum ep_status add_op(struct ep_comm_sweep *s, const char *text)
{
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (strcmp(text, ep_op_name((enum ep_op)op)) == 0) {
            s->ops[op] = true;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--op: '%s' is not dispatch or combine", text);
}

/* Lists of names: which option, its default, and what adds one item. */
static enum ep_status parse_names(struct ep_comm_sweep *s)
{
    const char *transport = ep_comm_style_transport(s->options.capacity.style);
    const struct {
        const char *what, *text, *otherwise;
        enum ep_status (*add)(struct ep_comm_sweep *s, const char *text);
    } lists[] = {
        {"--skew", s->options.skew, "uniform", add_skew},
        {"--transport", s->options.transport, transport, add_transport},
        {"--dtype", s->options.dtype, "bf16", add_dtype},
        {"--op", s->options.ops, "dispatch,combine", add_op},
    };
    enum ep_status status = EP_OK;
    struct ep_list list = {0};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const char *text = lists[i].text != NULL ? lists[i].text : lists[i].otherwise;
        EP_TRY(ep_list_split(text, ',', lists[i].what, &list));
        if (list.num > MAX_LIST) {
            status = ep_error_set(EP_EINVAL, "%s: at most %d items", lists[i].what, MAX_LIST);
            goto out;
        }
        for (int64_t j = 0; j < list.num; j++) {
            EP_TRY(lists[i].add(s, list.items[j]));
        }
        ep_list_fini(&list);
    }
out:
    ep_list_fini(&list);
    return status;
}

static enum ep_status parse_combine_dtype(struct ep_comm_sweep *s)
{
    if (s->options.combine_dtype == NULL) {
        return EP_OK;
    }
    s->has_combine_dtype = true;
    const enum ep_status status =
        ep_dtype_parse(s->options.combine_dtype, "--combine-dtype", &s->combine_dtype);
    if (status == EP_OK && s->combine_dtype == EP_FP8) {
        return ep_error_set(EP_EINVAL, "--combine-dtype: sums are returned as fp32 or bf16");
    }
    return status;
}

/* Told before MPI starts and a directory is made. */
static enum ep_status check_any_token(const struct numbers *tokens_per_rank)
{
    for (int64_t i = 0; i < tokens_per_rank->num; i++) {
        if (tokens_per_rank->items[i] > 0) {
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--tokens-per-rank: no rank has a token; at least one is expected");
}

static enum ep_status parse_shape(struct ep_comm_sweep *s)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_options *o = &s->options;
    if (o->model != NULL || o->model_file != NULL) {
        EP_TRY(ep_models_open(o->model_file, o->model, &s->models, &s->model));
        EP_TRY(ep_model_need_experts(s->model));
        s->hidden = (struct numbers){{s->model->hidden}, 1};
        s->top_k = (struct numbers){{s->model->top_k}, 1};
        s->experts = s->model->num_experts;
    }
    EP_TRY(parse_numbers(o->tokens != NULL ? o->tokens : "512", "--tokens", 1, MAX_TOKENS,
                         &s->tokens));
    if (o->tokens_per_rank != NULL) {
        EP_TRY(parse_numbers(o->tokens_per_rank, "--tokens-per-rank", 0, MAX_TOKENS,
                             &s->tokens_per_rank));
        EP_TRY(check_any_token(&s->tokens_per_rank));
        s->tokens = (struct numbers){{0}, 1};
    }
    if (o->hidden != NULL || s->model == NULL) {
        EP_TRY(parse_numbers(o->hidden != NULL ? o->hidden : "2048", "--hidden", 1, MAX_HIDDEN,
                             &s->hidden));
    }
    if (o->top_k != NULL) {
        EP_TRY(parse_numbers(o->top_k, "--top-k", 1, EP_TRANSPORT_MAX_TOP_K, &s->top_k));
    }
    if (o->experts != NULL) {
        EP_TRY(ep_parse_i64(o->experts, "--experts", 1, EP_MAX_EXPERTS, &s->experts));
    }
    if (o->ranks != NULL) {
        EP_TRY(parse_numbers(o->ranks, "--ranks", 1, EP_MAX_RANKS, &s->ranks));
    }
    EP_TRY(ep_list_split(o->algorithm != NULL ? o->algorithm : "default", ',', "--algorithm",
                         &s->algorithms));
    for (int64_t i = 0; i < s->algorithms.num; i++) {
        EP_TRY(ep_transport_check_algorithm(s->algorithms.items[i]));
    }
    if (o->rank_order != NULL) {
        enum ep_rank_order order = EP_RANK_ORDER_PACKED;
        EP_TRY(ep_rank_order_parse(o->rank_order, "--rank-order", &order));
        s->spread = order == EP_RANK_ORDER_SPREAD;
    }
out:
    return status;
}

/* Experts and top-k of a skew; a trace in a sweep uses its own. `user_top_k` 0 = not given. */
static enum ep_status resolve(const struct ep_comm_sweep *s, const struct ep_skew *skew,
                              int64_t user_top_k, int64_t *experts, int64_t *top_k)
{
    const bool in_sweep = s->num_skews > 1 || s->top_k.num > 1;
    int64_t given_experts = s->experts;
    int64_t given_top_k = user_top_k;
    if (skew->num_experts == 0 && given_experts == 0) {
        given_experts = 64;
    }
    if (skew->top_k == 0 && given_top_k == 0) {
        const int64_t own_top_k = ep_capacity_options_top_k(&s->options.capacity);
        given_top_k = own_top_k > 0 ? own_top_k : 2;
    }
    return ep_skew_resolve_shape(skew, given_experts, given_top_k, in_sweep, experts, top_k);
}

/* Shapes do not depend on the number of ranks: contradictions are found before MPI starts. */
static enum ep_status check_shapes(const struct ep_comm_sweep *s)
{
    for (int64_t i = 0; i < s->num_skews; i++) {
        for (int64_t k = 0; k < (s->top_k.num > 0 ? s->top_k.num : 1); k++) {
            int64_t experts = 0;
            int64_t top_k = 0;
            enum ep_status status =
                resolve(s, s->skews[i], s->top_k.num > 0 ? s->top_k.items[k] : 0, &experts, &top_k);
            if (status == EP_OK) {
                status = ep_comm_style_check(&s->options.capacity, s->skews[i], experts, top_k);
            }
            if (status != EP_OK) {
                return status;
            }
        }
    }
    return EP_OK;
}

/* MPI's algorithm is the communicator's, and a point has one. */
static enum ep_status check_limits(const struct ep_comm_sweep *s)
{
    for (int64_t i = 0; s->options.limits && i < s->algorithms.num; i++) {
        bool is_way = strcmp(s->algorithms.items[i], "default") == 0;
        for (int64_t j = 0; j < s->num_transports; j++) {
            is_way = is_way || ep_transport_has_way(s->transports[j], s->algorithms.items[i]);
        }
        if (!is_way) {
            return ep_error_set(EP_EINVAL, "--limits with --algorithm %s: transports of one point are "
                                "timed in turns, with the MPI library's own algorithm",
                                s->algorithms.items[i]);
        }
    }
    return s->options.limits && s->options.cold
               ? ep_error_set(EP_EINVAL, "--limits with --cold: a turn begins with a repetition that "
                              "is not timed, so buffers are warm")
               : EP_OK;
}

enum ep_status ep_comm_sweep_create(const struct ep_comm_options *options,
                                    struct ep_comm_sweep **sweep)
{
    enum ep_status status = EP_OK;
    struct ep_comm_sweep *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a sweep");
    }
    s->options = *options;
    EP_TRY(parse_shape(s));
    EP_TRY(parse_names(s));
    EP_TRY(parse_combine_dtype(s));
    EP_TRY(check_shapes(s));
    EP_TRY(ep_comm_style_check_pad(&s->options.capacity, s->transports, s->num_transports));
    EP_TRY(check_limits(s));
    *sweep = s;
    s = NULL;
out:
    ep_comm_sweep_destroy(s);
    return status;
}

bool ep_comm_sweep_shares(const struct ep_comm_sweep *sweep)
{
    bool shares = false;
    for (int64_t i = 0; i < sweep->num_transports; i++) {
        shares = shares || sweep->transports[i]->shares;
    }
    return shares;
}

const struct ep_transport *const *ep_comm_sweep_transports(const struct ep_comm_sweep *sweep)
{
    return sweep->transports;
}

void ep_comm_sweep_destroy(struct ep_comm_sweep *s)
{
    if (s == NULL) {
        return;
    }
    for (int64_t i = 0; i < s->num_skews; i++) {
        ep_skew_destroy((struct ep_skew *)s->skews[i]);
    }
    ep_list_fini(&s->algorithms);
    ep_models_destroy(s->models);
    free(s->cases);
    free(s->routing_ids);
    free(s);
}

/* Append a case unless the same one is there: a trace in a sweep over top-k has one top-k only. */
static enum ep_status add_case(struct ep_comm_sweep *s, const struct ep_comm_case *point)
{
    for (int64_t i = s->num_cases - 1; point->skew->top_k > 0 && i >= 0; i--) {
        if (memcmp(&s->cases[i], point, sizeof *point) == 0) {
            return EP_OK;
        }
    }
    if (s->num_cases == MAX_CASES) {
        return ep_error_set(EP_EINVAL, "the sweep has more than %d cases", MAX_CASES);
    }
    struct ep_comm_case *larger =
        realloc(s->cases, (size_t)(s->num_cases + 1) * sizeof *larger);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " cases", s->num_cases + 1);
    }
    s->cases = larger;
    s->cases[s->num_cases++] = *point;
    return EP_OK;
}

/* Lists are nested by mixed radix: digit i of `index` picks from list i. */
static int64_t digit(int64_t *index, int64_t base)
{
    const int64_t value = *index % base;
    *index /= base;
    return value;
}

/* A transport that takes no algorithm of the list has one case; one that nobody takes is a mistake. */
static enum ep_status check_algorithms(const struct ep_comm_sweep *s)
{
    for (int64_t i = 0; i < s->algorithms.num; i++) {
        bool taken = false;
        for (int64_t j = 0; j < s->num_transports; j++) {
            taken = taken || ep_transport_takes(s->transports[j], s->algorithms.items[i]);
        }
        if (!taken) {
            return ep_error_set(EP_EINVAL, "--algorithm %s: %s does not use it",
                                s->algorithms.items[i], s->transports[0]->name);
        }
    }
    return EP_OK;
}

static int64_t num_groups(const struct ep_comm_sweep *s)
{
    return s->options.groups > 0 ? s->options.groups : 1;
}

/* world_size: of one group. */
static enum ep_status build_cases(struct ep_comm_sweep *s, int64_t world_size, uint64_t seed)
{
    enum ep_status status = EP_OK;
    EP_TRY(check_algorithms(s));
    if (s->ranks.num == 0) {
        s->ranks = (struct numbers){{world_size}, 1};
    }
    const int64_t num_top_k = s->top_k.num > 0 ? s->top_k.num : 1;
    const int64_t total = s->tokens.num * s->hidden.num * num_top_k * s->ranks.num * s->num_skews *
                          s->num_transports * s->num_dtypes * s->algorithms.num;
    for (int64_t i = 0; i < total; i++) {
        int64_t index = i;
        struct ep_comm_case point;
        memset(&point, 0, sizeof point); /* padding too: cases are compared as bytes */
        point.transport = s->transports[digit(&index, s->num_transports)];
        point.tokens = s->tokens.items[digit(&index, s->tokens.num)];
        const int64_t k = digit(&index, num_top_k);
        point.skew = s->skews[digit(&index, s->num_skews)];
        point.hidden = s->hidden.items[digit(&index, s->hidden.num)];
        point.dtype = s->dtypes[digit(&index, s->num_dtypes)];
        const int64_t algorithm = digit(&index, s->algorithms.num);
        point.algorithm = ep_transport_takes(point.transport, s->algorithms.items[algorithm])
                              ? s->algorithms.items[algorithm]
                              : "default";
        point.num_ranks = s->ranks.items[digit(&index, s->ranks.num)];
        point.spread = s->spread;
        point.placement = s->options.placement;
        point.replicas = s->options.replicas;
        point.combine_dtype = s->has_combine_dtype          ? s->combine_dtype
                              : point.dtype == EP_FP8 ? EP_BF16
                                                      : point.dtype;
        point.model = s->model != NULL ? s->model->name : NULL;
        point.cold = s->options.cold;
        point.style = s->options.capacity.style != NULL ? s->options.capacity.style->name : NULL;
        memcpy(point.ops, s->ops, sizeof point.ops);
        if (s->tokens_per_rank.num > 0) {
            point.tokens_per_rank = s->tokens_per_rank.items;
        }
        if (point.num_ranks > world_size) {
            return ep_error_set(EP_EINVAL, "--ranks %" PRId64 ": only %" PRId64 " were started",
                                point.num_ranks, world_size);
        }
        if (point.tokens_per_rank != NULL && s->tokens_per_rank.num != point.num_ranks) {
            return ep_error_set(EP_EINVAL, "--tokens-per-rank: %" PRId64 " numbers for %" PRId64
                                " ranks", s->tokens_per_rank.num, point.num_ranks);
        }
        EP_TRY(resolve(s, point.skew, s->top_k.num > 0 ? s->top_k.items[k] : 0, &point.experts,
                       &point.top_k));
        EP_TRY(ep_capacity_options_policy(&s->options.capacity, point.top_k, seed,
                                          &point.capacity));
        point.router = ep_capacity_options_router(&s->options.capacity, point.skew, point.top_k);
        point.capacity.pad = point.capacity.pad && point.transport->has_slots;
        EP_TRY(add_case(s, &point));
    }
out:
    return status;
}

/* Can the case be on its ranks at all? Built and thrown away, nothing timed; for a capacity that comes
 * from counts all routing is made once. */
static enum ep_status check_case(const struct ep_comm_case *point, uint64_t seed, bool *wraps,
                                 char routing_id[ROUTING_ID_LENGTH])
{
    enum ep_status status = EP_OK;
    struct ep_comm_setting setting = {0};
    EP_TRY(ep_comm_setting_init(NULL, point, seed, &setting));
    *wraps = ep_router_wraps(setting.router);
    snprintf(routing_id, ROUTING_ID_LENGTH, "%s", ep_dropping_id(setting.dropping));
    EP_TRY(ep_comm_style_check_slots(point, ep_dropping_capacity(setting.dropping)));
out:
    ep_comm_setting_fini(&setting);
    return status;
}

static enum ep_status check_cases(struct ep_comm_sweep *s, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    s->routing_ids = calloc((size_t)s->num_cases + 1, sizeof *s->routing_ids);
    if (s->routing_ids == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " cases", s->num_cases);
    }
    for (int64_t i = 0; i < s->num_cases; i++) {
        bool wraps = false;
        EP_TRY(check_case(&s->cases[i], session->options.seed, &wraps, s->routing_ids[i]));
        if (wraps) {
            ep_session_warn(session, "trace-wraps", "%s has fewer tokens than the ranks "
                            "together: its rows come again", s->cases[i].skew->text);
        }
        const struct ep_trace *trace = s->cases[i].skew->trace;
        if (trace != NULL && trace->fan_out_sampled) {
            ep_session_warn(session, "fan-out-sampled",
                            "%s holds counts: the load of experts is recorded, which of them come "
                            "together is sampled",
                            s->cases[i].skew->text);
        }
    }
out:
    return status;
}

const struct ep_comm_case *ep_comm_sweep_cases(const struct ep_comm_sweep *s, int64_t *num)
{
    *num = s->num_cases;
    return s->cases;
}

const char *ep_comm_sweep_routing_id(const struct ep_comm_sweep *s, int64_t case_idx)
{
    return s->routing_ids[case_idx];
}

const struct ep_model *ep_comm_sweep_model(const struct ep_comm_sweep *s)
{
    return s->model;
}

/* What the visits of a sweep share. */
struct sweep_run {
    const struct ep_comm_sweep *sweep;
    struct ep_comm_table *table;
    struct ep_limits_table *limits; /* --limits */
    struct ep_limits_points points; /* that it visits */
};

static enum ep_status visit_one(void *ctx, struct ep_session *session, struct ep_comm *part,
                                int64_t idx, const struct ep_comm_effort *effort, int64_t visit)
{
    enum ep_status status = EP_OK;
    const struct sweep_run *run = ctx;
    const struct ep_comm_case *point = &run->sweep->cases[idx];
    struct ep_record records[EP_NUM_OPS];
    for (int op = 0; op < EP_NUM_OPS; op++) {
        ep_record_init(&records[op], EP_RECORD_COMM);
    }
    EP_TRY(ep_comm_case_visit(session, part, point, effort, visit, records));
    for (int op = 0; op < EP_NUM_OPS; op++) {
        if (point->ops[op] && ep_comm_is_root(session->world)) {
            status = ep_comm_table_add(run->table, &records[op]);
        }
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    for (int op = 0; op < EP_NUM_OPS; op++) {
        ep_record_fini(&records[op]);
    }
    return status;
}

/* Does the resumed run have this visit, all its operations? */
static enum ep_status is_done(void *ctx, struct ep_session *session, int64_t idx, int64_t visit,
                              bool *done)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_sweep *s = ((const struct sweep_run *)ctx)->sweep;
    *done = session->options.resume;
    for (int op = 0; op < EP_NUM_OPS && *done; op++) {
        if (!s->cases[idx].ops[op]) {
            continue;
        }
        char *name = ep_comm_case_name(session, &s->cases[idx], (enum ep_op)op,
                                       s->routing_ids[idx]);
        status = name == NULL ? ep_error_set(EP_ENOMEM, "no memory to resume") : EP_OK;
        EP_TRY(ep_comm_agree(session->world, status));
        status = ep_session_is_done(session, name, visit, done, NULL);
        free(name);
        EP_TRY(status);
    }
out:
    return status;
}

/* --- limits ----------------------------------------------------------------------------------- */

static enum ep_status visit_point(void *ctx, struct ep_session *session, struct ep_comm *part,
                                  int64_t idx, const struct ep_comm_effort *effort, int64_t visit)
{
    const struct sweep_run *run = ctx;
    const int64_t first = run->points.first[idx];
    return ep_limits_visit(session, part, run->sweep->cases, run->points.members + first,
                           run->points.first[idx + 1] - first, effort, visit, run->limits);
}

/* A point is done where all its cases are. */
static enum ep_status is_point_done(void *ctx, struct ep_session *session, int64_t idx, int64_t visit,
                                    bool *done)
{
    const struct sweep_run *run = ctx;
    enum ep_status status = EP_OK;
    *done = session->options.resume;
    for (int64_t i = run->points.first[idx];
         i < run->points.first[idx + 1] && *done && status == EP_OK; i++) {
        status = is_done(ctx, session, run->points.members[i], visit, done);
    }
    return status;
}

int64_t ep_comm_sweep_most_ranks(const struct ep_comm_sweep *s)
{
    int64_t most = 0;
    for (int64_t i = 0; i < s->ranks.num; i++) {
        most = s->ranks.items[i] > most ? s->ranks.items[i] : most;
    }
    return most * num_groups(s);
}

enum ep_status ep_comm_sweep_prepare(struct ep_comm_sweep *s, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    if (s->routing_ids != NULL) {
        return EP_OK;
    }
    const int64_t groups = num_groups(s);
    const int64_t size = ep_comm_size(session->world);
    status = size % groups == 0 || (s->ranks.num > 0 && size > groups)
                 ? build_cases(s, size / groups, session->options.seed)
                 : ep_error_set(EP_EINVAL, "%" PRId64 " ranks are no multiple of --tp x --dp = %" PRId64,
                                size, groups);
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(ep_comm_agree(session->world, check_cases(s, session)));
out:
    return status;
}

enum ep_status ep_comm_sweep_run(struct ep_comm_sweep *s, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    struct sweep_run run = {.sweep = s};
    const struct ep_comm_options *o = &s->options;
    EP_TRY(ep_comm_sweep_prepare(s, session));
    EP_TRY(ep_comm_agree(session->world, ep_comm_table_create(&run.table)));
    ep_comm_style_tell(session, &s->options, s->cases, s->num_cases);
    EP_TRY(ep_session_measure_null(session));
    struct ep_comm_visits visits = {
        .name = "comm",
        .cases = s->cases,
        .num_cases = s->num_cases,
        .groups = num_groups(s),
        .num_visits = o->num_visits,
        .case_s = o->case_s,
        .budget_s = o->budget_s,
        .effort = {.max_samples = o->max_samples, .warmup = o->warmup, .check = !o->no_check},
        .is_done = is_done,
        .visit = visit_one,
        .ctx = &run,
    };
    if (o->limits) {
        EP_TRY(ep_comm_agree(session->world, ep_limits_table_create(&run.limits)));
        EP_TRY(ep_comm_agree(session->world, ep_limits_points_init(s->cases, s->num_cases, &run.points)));
        visits.cases = run.points.points;
        visits.num_cases = run.points.num;
        visits.is_done = is_point_done;
        visits.visit = visit_point;
    }
    EP_TRY(ep_comm_visits_run(&visits, session));
    if (ep_comm_is_root(session->world) && !o->quiet) {
        status = o->limits ? ep_limits_table_print(run.limits, session->options.pages == EP_PAGES_THP,
                                                   stdout)
                           : ep_comm_table_print(run.table, session->null_cadence_s, stdout);
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    ep_comm_table_destroy(run.table);
    ep_limits_table_destroy(run.limits);
    ep_limits_points_fini(&run.points);
    return status;
}
