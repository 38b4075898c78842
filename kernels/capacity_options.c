/* SPDX-License-Identifier: Apache-2.0 */
/* Options of capacity and dropping, and the policy they make. */
#include "kernels/capacity_options.h"

#include "base/units.h"
#include "kernels/gate_source.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_RULE = 3000,
    KEY_ROWS,
    KEY_FACTOR,
    KEY_MIN,
    KEY_ALIGN,
    KEY_EVAL,
    KEY_DROP,
    KEY_OVERFLOW,
    KEY_PAD,
    KEY_STYLE,
    KEY_ROUTER
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What an expert takes, and what becomes of the rest:", 5},
    {"capacity-rule", KEY_RULE, "RULE", 0,
     "plain, megatron, deepspeed, fairseq (top-1 and 2), gshard (top-2), switch (top-1), fastmoe, tutel, "
     "megablocks: rows of an expert as that system computes them",
     5},
    {"capacity-factor", KEY_FACTOR, "F", 0, "its capacity factor (default: the system's own; plain and megatron have none and need it)", 5},
    {"min-capacity", KEY_MIN, "ROWS", 0, "its floor (default: the system's own)", 5},
    {"capacity-align", KEY_ALIGN, "N", 0, "round up to a multiple of N (tutel, gshard, deepspeed)", 5},
    {"capacity-eval", KEY_EVAL, "F", 0, "evaluation: this fraction of the tokens (fairseq)", 5},
    {"capacity", KEY_ROWS, "ROWS", 0, "rows per (source rank, expert), in place of a rule", 5},
    {"drop", KEY_DROP, "POLICY", 0,
     "which copies stay: none (all), order, choice, prob, random (default: the system's own)", 5},
    {"overflow", KEY_OVERFLOW, "WHERE", 0,
     "where others go: drop (default), next, expert:ID (an overflow expert)", 5},
    {"pad", KEY_PAD, NULL, 0, "pad every expert's rows to the capacity", 5},
    {"router", KEY_ROUTER, "NAME", 0,
     "route drawn logits of the skew's popularity by top1, top2, softmax, sigmoid-group, switch, "
     "gshard, ... (kernels/README.md, Routers); skews that are a popularity",
     5},
    {"style", KEY_STYLE, "SYSTEM", 0,
     "router, capacity, dropping and transport as megatron, deepspeed, fairseq, gshard, switch or "
     "deepep has them; other options override it",
     5},
    {0}};

enum ep_status ep_capacity_options_check(const struct ep_capacity_options *o)
{
    const struct {
        bool given;
        const char *name;
    } of_rule[] = {
        {o->has_factor, "--capacity-factor"},
        {o->has_min, "--min-capacity"},
        {o->align > 0, "--capacity-align"},
        {o->eval_fraction > 0, "--capacity-eval"},
    };
    if (o->rows > 0 && o->rule != NULL) {
        return ep_error_set(EP_EINVAL, "--capacity and --capacity-rule exclude each other");
    }
    for (size_t i = 0; i < sizeof of_rule / sizeof of_rule[0]; i++) {
        if (of_rule[i].given && o->rule == NULL) {
            return ep_error_set(EP_EINVAL, "%s needs a --capacity-rule", of_rule[i].name);
        }
    }
    if (o->rule == NULL && o->rows == 0 && (o->drop != NULL || o->overflow != NULL)) {
        return ep_error_set(EP_EINVAL, "%s needs a capacity: --capacity-rule or --capacity",
                            o->drop != NULL ? "--drop" : "--overflow");
    }
    return EP_OK;
}

enum ep_status ep_capacity_options_policy(const struct ep_capacity_options *o, int64_t top_k,
                                          uint64_t seed, struct ep_capacity_policy *policy)
{
    enum ep_status status = EP_OK;
    struct ep_capacity_policy p = ep_capacity_policy_default(o->rule, top_k);
    p.rows = o->rows;
    p.factor = o->has_factor ? o->factor : NAN;
    p.min_rows = o->has_min ? o->min_rows : -1;
    p.align = o->align > 0 ? o->align : 1;
    p.eval_fraction = o->eval_fraction > 0 ? o->eval_fraction : NAN;
    p.pad = o->pad;
    p.seed = seed;
    if (o->drop != NULL) {
        EP_TRY(ep_drop_parse(o->drop, "--drop", &p.drop));
    }
    if (o->overflow != NULL) {
        EP_TRY(ep_overflow_parse(o->overflow, "--overflow", &p));
    }
    if (p.drop == EP_DROP_NONE && p.overflow != EP_OVERFLOW_DROP) {
        status = ep_error_set(EP_EINVAL,
                              "--overflow %s: nothing overflows where nothing is "
                              "dropped; --drop order, choice, prob or random is needed",
                              o->overflow);
        goto out;
    }
    if (p.rule != NULL && isnan(ep_capacity_factor(&p))) {
        status = ep_error_set(EP_EINVAL, "--capacity-factor is needed: %s has no default",
                              p.rule->name);
        goto out;
    }
    *policy = p;
out:
    return status;
}

const char *ep_capacity_options_router(const struct ep_capacity_options *o,
                                       const struct ep_skew *skew, int64_t top_k)
{
    if (o->router != NULL || o->style == NULL || !ep_gate_source_fits(skew)) {
        return o->router;
    }
    return top_k == 1 ? o->style->router : o->style->router_more;
}

int64_t ep_capacity_options_top_k(const struct ep_capacity_options *o)
{
    const char *router = o->router != NULL  ? o->router
                         : o->style != NULL ? o->style->router_more
                                            : NULL;
    return router != NULL ? ep_gate_source_top_k(router) : 0;
}

const char *ep_capacity_describe(const struct ep_capacity_policy *p, char *text, size_t size)
{
    char bound[160] = "no capacity";
    char overflow[32];
    if (p->rule != NULL) {
        snprintf(bound, sizeof bound, "%s (%s)", p->rule->name, p->rule->formula);
    } else if (p->rows > 0) {
        snprintf(bound, sizeof bound, "%" PRId64 " rows", p->rows);
    }
    snprintf(text, size, "%s, drop %s, overflow %s%s", bound, ep_drop_name(p->drop),
             ep_overflow_text(p, overflow, sizeof overflow), p->pad ? ", padded" : "");
    return text;
}

/* --- parsing ------------------------------------------------------------------------------ */

static enum ep_status parse_factor(const char *arg, double *factor)
{
    return ep_parse_f64(arg, "--capacity-factor", -1e15, 1e15, factor);
}

static enum ep_status parse_eval(const char *arg, double *fraction)
{
    const enum ep_status status = ep_parse_f64(arg, "--capacity-eval", 0, 1, fraction);
    return status != EP_OK || *fraction > 0
               ? status
               : ep_error_set(EP_EINVAL, "--capacity-eval: a fraction above 0 is expected");
}

static enum ep_status check_texts(const struct ep_capacity_options *o)
{
    struct ep_capacity_policy ignored;
    enum ep_drop drop;
    enum ep_status status = EP_OK;
    if (o->drop != NULL) {
        EP_TRY(ep_drop_parse(o->drop, "--drop", &drop));
    }
    if (o->overflow != NULL) {
        EP_TRY(ep_overflow_parse(o->overflow, "--overflow", &ignored));
    }
out:
    return status;
}

/* What the style says where the user did not. */
static enum ep_status apply_style(struct ep_capacity_options *o)
{
    const struct ep_style *style = o->style;
    if (style == NULL || o->rule != NULL || o->rows > 0 || style->rule == NULL ||
        (style->rule_by_factor && !o->has_factor)) {
        return EP_OK;
    }
    o->pad = o->pad || style->pad;
    return ep_capacity_find_rule(style->rule, &o->rule);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ep_capacity_options *o = state->input;
    enum ep_status status = EP_OK;
    switch (key) {
    case KEY_RULE:
        status = ep_capacity_find_rule(arg, &o->rule);
        break;
    case KEY_ROWS:
        status = ep_parse_i64(arg, "--capacity", 1, INT32_MAX, &o->rows);
        break;
    case KEY_FACTOR:
        o->has_factor = true;
        status = parse_factor(arg, &o->factor);
        break;
    case KEY_MIN:
        o->has_min = true;
        status = ep_parse_i64(arg, "--min-capacity", 0, INT32_MAX, &o->min_rows);
        break;
    case KEY_ALIGN:
        status = ep_parse_i64(arg, "--capacity-align", 1, 1 << 20, &o->align);
        break;
    case KEY_EVAL:
        status = parse_eval(arg, &o->eval_fraction);
        break;
    case KEY_DROP:
        o->drop = arg;
        status = check_texts(o);
        break;
    case KEY_OVERFLOW:
        o->overflow = arg;
        status = check_texts(o);
        break;
    case KEY_PAD:
        o->pad = true;
        break;
    case KEY_ROUTER:
        o->router = arg;
        break;
    case KEY_STYLE:
        status = ep_style_find(arg, &o->style);
        break;
    case ARGP_KEY_SUCCESS:
        status = apply_style(o);
        status = status == EP_OK ? ep_capacity_options_check(o) : status;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return status == EP_OK ? 0 : EINVAL;
}

const struct argp ep_capacity_argp = {.options = options, .parser = parse};
