/* SPDX-License-Identifier: Apache-2.0 */
/* From the lists of a sweep to its cases. */
#include "bench/comm_cases.h"

#include "bench/comm_setting.h"
#include "bench/comm_style.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CASES = 100000 };

enum ep_status ep_comm_cases_resolve(const struct ep_comm_sweep *s, const struct ep_skew *skew,
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

/* Append a case unless the same one is there: a trace in a sweep over top-k has one top-k only, and a
 * transport that takes no algorithm of the list one algorithm. */
static enum ep_status add_case(struct ep_comm_sweep *s, const struct ep_comm_case *point)
{
    const bool may_repeat = point->skew->top_k > 0 || s->algorithms.num > 1;
    for (int64_t i = s->num_cases - 1; may_repeat && i >= 0; i--) {
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

int64_t ep_comm_cases_groups(const struct ep_comm_sweep *s)
{
    return s->options.groups > 0 ? s->options.groups : 1;
}

/* world_size: of one group. */
static enum ep_status build_cases(struct ep_comm_sweep *s, int64_t world_size, uint64_t seed)
{
    enum ep_status status = EP_OK;
    EP_TRY(check_algorithms(s));
    if (s->ranks.num == 0) {
        s->ranks = (struct ep_comm_numbers){{world_size}, 1};
    }
    const int64_t num_top_k = s->top_k.num > 0 ? s->top_k.num : 1;
    const int64_t total = s->tokens.num * s->hidden.num * num_top_k * s->ranks.num * s->num_skews *
                          s->num_transports * s->num_dtypes * s->algorithms.num *
                          s->num_buffers;
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
        point.buffers = s->buffers[digit(&index, s->num_buffers)];
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
        EP_TRY(ep_comm_cases_resolve(s, point.skew, s->top_k.num > 0 ? s->top_k.items[k] : 0, &point.experts,
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
                                 char routing_id[EP_COMM_ROUTING_ID_LENGTH])
{
    enum ep_status status = EP_OK;
    struct ep_comm_setting setting = {0};
    EP_TRY(ep_comm_setting_init(NULL, point, seed, &setting));
    *wraps = ep_router_wraps(setting.router);
    snprintf(routing_id, EP_COMM_ROUTING_ID_LENGTH, "%s", ep_dropping_id(setting.dropping));
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

int64_t ep_comm_sweep_most_ranks(const struct ep_comm_sweep *s)
{
    int64_t most = 0;
    for (int64_t i = 0; i < s->ranks.num; i++) {
        most = s->ranks.items[i] > most ? s->ranks.items[i] : most;
    }
    return most * ep_comm_cases_groups(s);
}

enum ep_status ep_comm_sweep_prepare(struct ep_comm_sweep *s, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    if (s->routing_ids != NULL) {
        return EP_OK;
    }
    const int64_t groups = ep_comm_cases_groups(s);
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
