/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of capacity options before a sweep, and what a style sets in it. */
#include "bench/comm_style.h"

#include "kernels/gate_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum ep_status ep_comm_style_check(const struct ep_capacity_options *options,
                                   const struct ep_skew *skew, int64_t experts, int64_t top_k)
{
    enum ep_status status;
    struct ep_capacity ignored;
    struct ep_capacity_policy policy;
    const struct ep_capacity_shape shape = {1, experts, top_k, 1};
    const char *router = ep_capacity_options_router(options, skew, top_k);
    if (router != NULL) {
        EP_TRY(ep_gate_source_check(router, skew, experts, top_k));
    }
    EP_TRY(ep_capacity_options_policy(options, top_k, 0, &policy));
    status = ep_capacity_compute(&policy, &shape, 0, &ignored);
out:
    return status;
}

enum ep_status ep_comm_style_check_pad(const struct ep_capacity_options *options,
                                       const struct ep_transport *const *transports, int64_t num)
{
    bool pads = !options->pad;
    for (int64_t i = 0; i < num; i++) {
        pads = pads || transports[i]->has_slots;
    }
    return pads ? EP_OK
                : ep_error_set(EP_EINVAL, "--pad: none of these transports has slots to pad; "
                                          "--transport alltoall has");
}

enum ep_status ep_comm_style_check_slots(const struct ep_comm_case *point,
                                         const struct ep_capacity *capacity)
{
    return !point->capacity.pad || capacity->scope == EP_CAPACITY_PER_SOURCE
               ? EP_OK
               : ep_error_set(EP_EINVAL,
                              "--pad: %s at top-%" PRId64 " bounds the rows of all ranks "
                              "together; there is no equal slot per rank to pad",
                              point->capacity.rule->name, point->top_k);
}

static bool has_transport(const char *name)
{
    for (int t = 0; ep_transports[t] != NULL; t++) {
        if (strcmp(ep_transports[t]->name, name) == 0) {
            return true;
        }
    }
    return false;
}

const char *ep_comm_style_transport(const struct ep_style *style)
{
    if (style == NULL) {
        return "alltoallv";
    }
    return has_transport(style->transport) ? style->transport : style->nearest;
}

/* What was asked for and some case cannot have, each said once. */
static void warn_of_case(struct ep_session *session, const struct ep_comm_options *options,
                         const struct ep_comm_case *point)
{
    const struct ep_style *style = options->capacity.style;
    if (style != NULL && point->router == NULL) {
        ep_session_warn(session, "style-router",
                        "style %s routes by %s; tokens that follow %s have no logits, and keep "
                        "their own choices",
                        style->name, point->top_k == 1 ? style->router : style->router_more,
                        point->skew->text);
    }
    if (options->capacity.has_factor && point->capacity.rule != NULL &&
        !ep_capacity_uses_factor(&point->capacity, point->top_k)) {
        ep_session_warn(session, "capacity-factor",
                        "rule %s uses no --capacity-factor at top-%" PRId64,
                        point->capacity.rule->name, point->top_k);
    }
}

void ep_comm_style_tell(struct ep_session *session, const struct ep_comm_options *options,
                        const struct ep_comm_case *cases, int64_t num_cases)
{
    char text[320];
    const struct ep_style *style = options->capacity.style;
    for (int64_t i = 0; i < num_cases; i++) {
        warn_of_case(session, options, &cases[i]);
    }
    if (style == NULL) {
        return;
    }
    const char *set = ep_comm_style_transport(style);
    if (ep_comm_is_root(session->world)) {
        fprintf(stderr, "style %s (%s)\n  set: router %s; transport %s; %s\n  beyond: %s\n",
                style->name, style->system, cases->router != NULL ? cases->router : "none",
                options->transport != NULL ? options->transport : set,
                ep_capacity_describe(&cases->capacity, text, sizeof text), style->beyond);
    }
    if (strcmp(set, style->transport) != 0 && options->transport == NULL) {
        ep_session_warn(session, "style-transport",
                        "style %s has the transport %s; this program lacks it and uses %s, the "
                        "nearest",
                        style->name, style->transport, set);
    }
}
