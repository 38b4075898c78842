/* SPDX-License-Identifier: Apache-2.0 */
/* Counting what binds, and saying it. */
#include "results/fit_explain.h"

#include "base/stats.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVELS = 12 };

/* --- what binds ------------------------------------------------------------------------------ */

/* Times by level: those without a name are latency. Returns how many there are. */
static int sum_levels(const struct ep_rung_form *form, const double *coefficients,
                      const struct ep_model_case *c, const char **levels, double *times_s)
{
    double terms[EP_RUNG_MAX_PARAMETERS];
    int num = 0;
    ep_rung_terms(form, c, coefficients, terms);
    for (int j = 0; j < form->rung->num_parameters; j++) {
        const struct ep_rung_parameter *p = &form->rung->parameters[j];
        const char *level = p->level != NULL ? p->level : "latency";
        int at = 0;
        while (at < num && strcmp(levels[at], level) != 0) {
            at++;
        }
        if (at == num) {
            levels[num] = level;
            times_s[num++] = 0;
        }
        times_s[at] += terms[j];
    }
    return num;
}

void ep_fit_find_binding(const struct ep_rung_form *form, const double *coefficients,
                         const struct ep_model_case *c, struct ep_fit_binding *binding)
{
    const char *levels[MAX_LEVELS];
    double times_s[MAX_LEVELS];
    const int num = sum_levels(form, coefficients, c, levels, times_s);
    int first = 0, second = -1;
    for (int i = 1; i < num; i++) {
        if (times_s[i] > times_s[first]) {
            second = first;
            first = i;
        } else if (second < 0 || times_s[i] > times_s[second]) {
            second = i;
        }
    }
    const bool has_second = second >= 0 && times_s[second] > 0;
    *binding = (struct ep_fit_binding){
        .level = levels[first],
        .runner_up = has_second ? levels[second] : NULL,
        .ratio = has_second ? times_s[second] / times_s[first] : 0,
    };
}

struct tally {
    const char *names[MAX_LEVELS];
    int64_t nums[MAX_LEVELS];
    int num;
};

static void count(struct tally *t, const char *name)
{
    int at = 0;
    while (at < t->num && strcmp(t->names[at], name) != 0) {
        at++;
    }
    if (at == MAX_LEVELS) {
        return;
    }
    if (at == t->num) {
        t->names[t->num] = name;
        t->nums[t->num++] = 0;
    }
    t->nums[at]++;
}

static int most_frequent(const struct tally *t)
{
    int best = -1;
    for (int i = 0; i < t->num; i++) {
        best = best < 0 || t->nums[i] > t->nums[best] ? i : best;
    }
    return best;
}

enum ep_status ep_fit_group_binding(const struct ep_fit_group *g, const char **level,
                                    int64_t *num_cases, const char **runner_up)
{
    struct tally firsts = {0}, seconds = {0};
    const struct ep_fit_rung *chosen = ep_fit_chosen(g);
    *level = *runner_up = NULL;
    *num_cases = 0;
    if (chosen == NULL) {
        return EP_OK;
    }
    struct ep_fit_binding *bindings = calloc((size_t)g->num_cases + 1, sizeof *bindings);
    if (bindings == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for what binds");
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        ep_fit_find_binding(&chosen->form, chosen->coefficients, &g->cases[i].model, &bindings[i]);
        count(&firsts, bindings[i].level);
    }
    const int first = most_frequent(&firsts);
    *level = firsts.names[first];
    *num_cases = firsts.nums[first];
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (bindings[i].runner_up != NULL && strcmp(bindings[i].level, *level) == 0) {
            count(&seconds, bindings[i].runner_up);
        }
    }
    const int second = most_frequent(&seconds);
    *runner_up = second >= 0 ? seconds.names[second] : NULL;
    free(bindings);
    return EP_OK;
}

/* --- sentences ------------------------------------------------------------------------------- */

static const char *describe(const char *level)
{
    static const struct {
        const char *level, *text;
    } texts[] = {
        {"latency", "latency, not bytes"},
        {"mean", "what ranks move on average"},
        {"rank", "the busiest rank"},
        {"memory", "the node's memory"},
        {"nic", "the busiest NIC"},
        {"uplink", "the busiest uplink"},
        {"copy", "copying on the ranks (pack and unpack)"},
        {"steps", "waiting for the largest message of each step"},
        {"node", "messages inside nodes"},
        {"network", "messages between nodes"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(texts[i].level, level) == 0) {
            return texts[i].text;
        }
    }
    return level;
}

static void explain_choice(const struct ep_fit_group *g, const struct ep_fit_rung *chosen, FILE *out)
{
    fprintf(out, "%s is enough (%s): on %ss that the fit had not seen it is off by %.1f %% in the median and "
            "%.1f %% at the 95th percentile", chosen->rung->name, chosen->rung->text, g->fold_kind,
            100 * chosen->held_out.median_ape, 100 * chosen->held_out.p95_ape);
    if (isnan(g->noise_floor)) {
        fprintf(out, "; each case was visited once, so how much of that is noise is not known.\n");
    } else {
        fprintf(out, "; two visits of one case differ by %.1f %%.%s\n", 100 * g->noise_floor,
                chosen->held_out.median_ape <= 1.5 * g->noise_floor
                    ? " The machine's noise hides what is left."
                    : " More than noise is left: something that the model does not know.");
    }
}

/* Cases of one skew, by what binds: "hot:4: the busiest rank (5 of 6), latency (1)". */
static void explain_skew(const struct ep_fit_group *g, const struct ep_fit_rung *chosen, int64_t skew,
                         const char *name, FILE *out)
{
    struct tally levels = {0};
    int64_t num = 0;
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (g->cases[i].skew_idx == skew) {
            struct ep_fit_binding binding;
            ep_fit_find_binding(&chosen->form, chosen->coefficients, &g->cases[i].model, &binding);
            count(&levels, binding.level);
            num++;
        }
    }
    fprintf(out, "  %s:", name);
    for (int i = 0; i < levels.num; i++) {
        fprintf(out, "%s %s (%" PRId64 " of %" PRId64 ")", i > 0 ? "," : "", describe(levels.names[i]),
                levels.nums[i], num);
    }
    fprintf(out, "\n");
}

static enum ep_status explain_binding(const struct ep_fit_group *g, const struct ep_fit_rung *chosen,
                                      FILE *out)
{
    const char *level, *runner_up;
    int64_t num = 0;
    const enum ep_status status = ep_fit_group_binding(g, &level, &num, &runner_up);
    if (status != EP_OK) {
        return status;
    }
    fprintf(out, "What binds: %s, in %" PRId64 " of %" PRId64 " cases%s%s. By skew:\n", describe(level), num,
            g->num_cases, runner_up != NULL ? "; next comes " : "",
            runner_up != NULL ? describe(runner_up) : "");
    for (int64_t skew = 0; skew < g->num_skews; skew++) {
        for (int64_t i = 0; i < g->num_cases; i++) {
            if (g->cases[i].skew_idx == skew) {
                explain_skew(g, chosen, skew, g->cases[i].skew, out);
                break;
            }
        }
    }
    return EP_OK;
}

/* Median over a skew's cases of predicted / measured - 1. room [num_cases] */
static double signed_error(const struct ep_fit_group *g, const double *predicted_s, int64_t skew,
                           double *room)
{
    int64_t num = 0;
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (g->cases[i].skew_idx == skew && isfinite(predicted_s[i])) {
            room[num++] = predicted_s[i] / g->cases[i].time_s - 1;
        }
    }
    ep_stats_sort(room, num);
    return num > 0 ? ep_stats_median_sorted(room, num) : NAN;
}

static const char *skew_name(const struct ep_fit_group *g, int64_t skew)
{
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (g->cases[i].skew_idx == skew) {
            return g->cases[i].skew;
        }
    }
    return "-";
}

/* What M0 makes of the skews, held out where it was. */
static enum ep_status explain_plain(const struct ep_fit_group *g, const struct ep_fit_rung *chosen,
                                    FILE *out)
{
    const struct ep_fit_rung *plain = &g->rungs[0];
    int64_t lowest = -1, highest = -1;
    double low = INFINITY, high = -INFINITY;
    if (!plain->is_fitted || plain->held_out.num == 0) {
        return EP_OK;
    }
    double *room = calloc((size_t)g->num_cases + 1, sizeof *room);
    if (room == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for errors");
    }
    for (int64_t skew = 0; skew < g->num_skews; skew++) {
        const double error = signed_error(g, plain->held_out_s, skew, room);
        if (error < low) {
            low = error;
            lowest = skew;
        }
        if (error > high) {
            high = error;
            highest = skew;
        }
    }
    free(room);
    fprintf(out, "Plain bytes/bandwidth (M0), fitted to the same records, is off by %.1f %% in the median",
            100 * plain->held_out.median_ape);
    if (chosen != NULL && chosen != plain) {
        fprintf(out, ", %.1f times as far as %s",
                plain->held_out.median_ape / chosen->held_out.median_ape, chosen->rung->name);
    }
    if (lowest >= 0 && low < 0) {
        fprintf(out, "; it is %.0f %% too low for %s", -100 * low, skew_name(g, lowest));
    }
    if (highest >= 0 && high > 0) {
        fprintf(out, "%s %.0f %% too high for %s", low < 0 ? " and" : "; it is", 100 * high,
                skew_name(g, highest));
    }
    fprintf(out, ".\n");
    return EP_OK;
}

static void explain_withheld(const struct ep_fit_group *g, const struct ep_fit_rung *chosen, FILE *out)
{
    const char *reason, *advice;
    char names[256];
    bool any = false;
    for (int from = 0;
         ep_fit_next_withheld(chosen, &from, names, sizeof names, &reason, &advice);) {
        fprintf(out, "Withheld: %s: %s.%s%s%s\n", names, reason,
                advice != NULL ? " What would tell: " : "", advice != NULL ? advice : "",
                advice != NULL ? "." : "");
        any = true;
    }
    if (!any) {
        fprintf(out, "Nothing of it is withheld.\n");
    }
    (void)g;
}

enum ep_status ep_fit_explain(const struct ep_fit_group *g, FILE *out)
{
    enum ep_status status = EP_OK;
    const struct ep_fit_rung *chosen = ep_fit_chosen(g);
    fprintf(out, "%s (%s time, %" PRId64 " cases)\n", g->name, g->target, g->num_cases);
    if (chosen == NULL) {
        fprintf(out, "No rung was chosen: %" PRId64 " skews and %" PRId64 " sizes say too little about new "
                "cases.\n", g->num_skews, g->num_sizes);
    } else {
        explain_choice(g, chosen, out);
        EP_TRY(explain_binding(g, chosen, out));
    }
    EP_TRY(explain_plain(g, chosen, out));
    if (chosen != NULL) {
        explain_withheld(g, chosen, out);
    }
    fprintf(out, "\n");
out:
    return status;
}
