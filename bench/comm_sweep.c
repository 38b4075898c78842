/* SPDX-License-Identifier: Apache-2.0 */
/* The lists of a sweep, and what a visit of one of its cases is. */
#include "bench/comm_cases.h"

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

enum { MAX_TOKENS = 1 << 24, MAX_HIDDEN = 1 << 20 };

static enum ep_status parse_numbers(const char *text, const char *what, int64_t min, int64_t max,
                                    struct ep_comm_numbers *numbers)
{
    enum ep_status status = EP_OK;
    struct ep_list list = {0};
    EP_TRY(ep_list_split(text, ',', what, &list));
    if (list.num > EP_COMM_MAX_LIST) {
        status = ep_error_set(EP_EINVAL, "%s: %" PRId64 " items, at most %d are possible", what,
                              list.num, EP_COMM_MAX_LIST);
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

static enum ep_status add_buffers(struct ep_comm_sweep *s, const char *text)
{
    return ep_buffers_parse(text, &s->buffers[s->num_buffers++]);
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
        {"--buffers", s->options.buffers, "exact", add_buffers},
        {"--op", s->options.ops, "dispatch,combine", add_op},
    };
    enum ep_status status = EP_OK;
    struct ep_list list = {0};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const char *text = lists[i].text != NULL ? lists[i].text : lists[i].otherwise;
        EP_TRY(ep_list_split(text, ',', lists[i].what, &list));
        if (list.num > EP_COMM_MAX_LIST) {
            status = ep_error_set(EP_EINVAL, "%s: at most %d items", lists[i].what, EP_COMM_MAX_LIST);
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
static enum ep_status check_any_token(const struct ep_comm_numbers *tokens_per_rank)
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
        s->hidden = (struct ep_comm_numbers){{s->model->hidden}, 1};
        s->top_k = (struct ep_comm_numbers){{s->model->top_k}, 1};
        s->experts = s->model->num_experts;
    }
    EP_TRY(parse_numbers(o->tokens != NULL ? o->tokens : "512", "--tokens", 1, MAX_TOKENS,
                         &s->tokens));
    if (o->tokens_per_rank != NULL) {
        EP_TRY(parse_numbers(o->tokens_per_rank, "--tokens-per-rank", 0, MAX_TOKENS,
                             &s->tokens_per_rank));
        EP_TRY(check_any_token(&s->tokens_per_rank));
        s->tokens = (struct ep_comm_numbers){{0}, 1};
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

/* Shapes do not depend on the number of ranks: contradictions are found before MPI starts. */
static enum ep_status check_shapes(const struct ep_comm_sweep *s)
{
    for (int64_t i = 0; i < s->num_skews; i++) {
        for (int64_t k = 0; k < (s->top_k.num > 0 ? s->top_k.num : 1); k++) {
            int64_t experts = 0;
            int64_t top_k = 0;
            enum ep_status status =
                ep_comm_cases_resolve(s, s->skews[i], s->top_k.num > 0 ? s->top_k.items[k] : 0, &experts, &top_k);
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
    if (s->options.limits && s->options.max_samples > 0) {
        return ep_error_set(EP_EINVAL, "--limits with --iters %" PRId64 ": transports of a point get as many "
                            "turns as fit --case-time", s->options.max_samples);
    }
    return s->options.limits && s->options.cold
               ? ep_error_set(EP_EINVAL, "--limits with --cold: a turn begins with a repetition that "
                              "is not timed, so buffers are warm")
               : EP_OK;
}

/* Who cannot size buffers of rows as is asked, and why. */
static enum ep_status check_buffers(const struct ep_comm_sweep *s)
{
    for (int64_t i = 0; i < s->num_buffers; i++) {
        const char *name = ep_buffers_name(s->buffers[i]);
        if (s->buffers[i] == EP_BUFFERS_EXACT) {
            continue;
        }
        if (s->options.limits) {
            return ep_error_set(EP_EINVAL, "--limits with --buffers %s: transports of one point stand side by "
                                "side in buffers that stay", name);
        }
        for (int64_t j = 0; j < s->num_transports; j++) {
            const struct ep_transport *t = s->transports[j];
            if (!t->sizes_most) {
                return ep_error_set(EP_EINVAL, "--buffers %s: the buffers of %s follow the tokens alone, or a "
                                    "stage's counts", name, t->name);
            }
            if (s->buffers[i] == EP_BUFFERS_DYNAMIC && !t->sizes_anew) {
                return ep_error_set(EP_EINVAL, "--buffers dynamic: the buffers of %s are windows that all ranks "
                                    "know; they are made once", t->name);
            }
        }
    }
    return EP_OK;
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
    EP_TRY(check_buffers(s));
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
        .groups = ep_comm_cases_groups(s),
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
