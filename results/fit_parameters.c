/* SPDX-License-Identifier: Apache-2.0 */
/* Intervals and gates of parameters. */
#include "results/fit_parameters.h"

#include "base/stats.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONDITION 30.0
#define MAX_HALF_WIDTH 0.5

#define UNIT_TEXT_LENGTH 32

static const char *const more_sizes =
    "more sizes: at least 3 powers of two of --tokens, from where latency rules to where bytes do";
static const char *const more_skews =
    "skews that load ranks unevenly: --skew uniform,zipf:1.0,hot:2,hot:4 and --top-k 1,2,8";
static const char *const more_ranks = "other numbers of ranks: run and comm take --ranks 2,4,8";
static const char *const small_sizes = "smaller messages, where this time is most of the whole: "
                                       "--tokens 1,4,16";
static const char *const larger_sizes = "larger messages, where bytes are most of the time";
static const char *const more_visits = "more visits or a quieter machine (--visits 5)";

static const char *print_value(const char *unit, double value, char *text)
{
    if (strcmp(unit, "bytes/s") == 0) {
        return ep_format_bandwidth(value, text, UNIT_TEXT_LENGTH);
    }
    return ep_format_time(value, text, UNIT_TEXT_LENGTH);
}

/* Interval of one column's parameter from its bootstrap draws. */
static void read_interval(const double *draws, int num_draws, int num_columns, int column,
                          double tail, enum ep_parameter_form form, double *room,
                          struct ep_fit_parameter *p)
{
    for (int b = 0; b < num_draws; b++) {
        room[b] = draws[b * num_columns + column];
    }
    ep_stats_sort(room, num_draws);
    const double low = ep_stats_quantile_of_draws(room, num_draws, tail);
    const double high = ep_stats_quantile_of_draws(room, num_draws, 1 - tail);
    p->low = form == EP_PARAMETER_TIME ? low : 1 / high;
    p->high = form == EP_PARAMETER_TIME ? high : 1 / low;
}

/* --- what binds ------------------------------------------------------------------------------ */

/* In which cases a port is the slowest one, and how much it must do per second at the least. */
struct binding {
    int64_t num_cases;
    int64_t num_sizes;
    int64_t num_skews;
    double at_least; /* of the load over the time, a high quantile of the cases that have any */
};

static int64_t count_distinct(const int64_t *values, int64_t num)
{
    int64_t distinct = 0;
    for (int64_t i = 0; i < num; i++) {
        bool seen = false;
        for (int64_t j = 0; j < i && !seen; j++) {
            seen = values[j] == values[i];
        }
        distinct += !seen;
    }
    return distinct;
}

static bool is_slowest_port(const struct ep_rung *rung, const double *terms, int j)
{
    for (int other = 0; other < rung->num_parameters; other++) {
        if (rung->parameters[other].role == EP_ROLE_PORT && terms[other] > terms[j]) {
            return false;
        }
    }
    return terms[j] > 0;
}

static enum ep_status find_binding(const struct ep_fit_group *g, const struct ep_fit_rung *r, int j,
                                   struct binding *binding)
{
    const size_t room = (size_t)g->num_cases + 1;
    int64_t *sizes = calloc(room, sizeof *sizes), *skews = calloc(room, sizeof *skews);
    double *rates = calloc(room, sizeof *rates);
    *binding = (struct binding){.at_least = NAN};
    if (sizes == NULL || skews == NULL || rates == NULL) {
        free(sizes);
        free(skews);
        free(rates);
        return ep_error_set(EP_ENOMEM, "no memory for ports");
    }
    int64_t num_loaded = 0;
    for (int64_t i = 0; i < g->num_cases; i++) {
        const struct ep_fit_case *c = &g->cases[i];
        double terms[EP_RUNG_MAX_PARAMETERS];
        const double load = c->model.features.values[r->rung->parameters[j].term];
        ep_rung_terms(&r->form, &c->model, r->coefficients, terms);
        if (load > 0) {
            rates[num_loaded++] = load / c->time_s;
        }
        if (is_slowest_port(r->rung, terms, j)) {
            sizes[binding->num_cases] = c->size_class;
            skews[binding->num_cases++] = c->skew_idx;
        }
    }
    binding->num_sizes = count_distinct(sizes, binding->num_cases);
    binding->num_skews = count_distinct(skews, binding->num_cases);
    if (num_loaded > 0) {
        ep_stats_sort(rates, num_loaded);
        binding->at_least = ep_stats_quantile_sorted(rates, num_loaded, 0.9);
    }
    free(sizes);
    free(skews);
    free(rates);
    return EP_OK;
}

/* --- gates ----------------------------------------------------------------------------------- */

static enum ep_status withhold(struct ep_fit_parameter *p, const char *advice, const char *reason)
{
    p->value = NAN;
    p->advice = advice;
    return ep_record_set_text(&p->withheld, "%s", reason);
}

/* What a rank can pass at most; NaN where this parameter has no such bound. Smaller sizes than the
 * largest may be in faster caches than the peak's. */
static double peak_of(const struct ep_fit_group *g, const struct ep_fit_rung *r,
                      const struct ep_rung_parameter *form, bool is_largest_size)
{
    static const char *const of_ranks[] = {"mean", "link", "rank"};
    const double ranks = g->record->ranks > 0 ? (double)g->record->ranks : 1;
    for (size_t i = 0; i < sizeof of_ranks / sizeof of_ranks[0]; i++) {
        /* M5s's rates are shares of one time, none of them a link's. */
        if (is_largest_size && form->level != NULL && strcmp(form->level, of_ranks[i]) == 0 &&
            strcmp(r->rung->name, "M5s") != 0) {
            return g->peak_bytes_per_s * (r->rung->bandwidth_is_total ? ranks : 1);
        }
    }
    return NAN;
}

static enum ep_status gate(const struct ep_fit_group *g, const struct ep_fit_rung *r, double peak,
                           struct ep_fit_parameter *p)
{
    char a[UNIT_TEXT_LENGTH], b[UNIT_TEXT_LENGTH], reason[256];
    const bool is_time = strcmp(p->unit, "bytes/s") != 0;
    if (g->num_sizes < EP_FIT_MIN_SIZES) {
        snprintf(reason, sizeof reason, "%" PRId64 " size%s, at least %d are needed", g->num_sizes,
                 g->num_sizes == 1 ? "" : "s", EP_FIT_MIN_SIZES);
        return withhold(p, more_sizes, reason);
    }
    if (!(r->condition <= MAX_CONDITION)) {
        snprintf(reason, sizeof reason, "condition number %.3g is above %g: these records cannot tell "
                 "the parameters apart", r->condition, MAX_CONDITION);
        return withhold(p, g->num_rank_counts == 1 ? more_skews : more_ranks, reason);
    }
    if (!isfinite(p->value)) {
        return withhold(p, larger_sizes, "the time does not grow with these bytes");
    }
    if (p->value == 0) {
        return withhold(p, small_sizes,
                        "fitted to 0, its lower limit: these records show no such time");
    }
    if (p->low < (1 - MAX_HALF_WIDTH) * p->value || p->high > (1 + MAX_HALF_WIDTH) * p->value) {
        snprintf(reason, sizeof reason, "its 95 %% interval, %s to %s, is wider than +-50 %%",
                 print_value(p->unit, p->low, a), print_value(p->unit, p->high, b));
        return withhold(p, is_time ? small_sizes : more_visits, reason);
    }
    if (p->value > peak) {
        snprintf(reason, sizeof reason, "%s is above %s, %s: not a physical bandwidth",
                 print_value(p->unit, p->value, a), g->peak_name, print_value(p->unit, peak, b));
        return withhold(p, larger_sizes, reason);
    }
    return EP_OK;
}

/* A port that is seldom or never the slowest: only how much it can take at least is known. */
static enum ep_status gate_port(const struct ep_fit_group *g, const struct ep_fit_rung *r, int j,
                                struct ep_fit_parameter *p)
{
    struct binding binding;
    char least[UNIT_TEXT_LENGTH], reason[256];
    enum ep_status status = find_binding(g, r, j, &binding);
    if (status != EP_OK) {
        return status;
    }
    p->binds_in = binding.num_cases;
    if (p->withheld != NULL ||
        (binding.num_sizes >= EP_FIT_MIN_SIZES && binding.num_skews >= EP_FIT_MIN_SKEWS)) {
        return EP_OK;
    }
    p->low = binding.at_least;
    p->high = NAN;
    snprintf(reason, sizeof reason, "the slowest port in %" PRId64 " of %" PRId64 " cases (%" PRId64
             " sizes, %" PRId64 " skews; %d and %d are needed): it can take at least %s",
             binding.num_cases, g->num_cases, binding.num_sizes, binding.num_skews, EP_FIT_MIN_SIZES,
             EP_FIT_MIN_SKEWS, print_value(p->unit, p->low, least));
    return withhold(p, more_skews, reason);
}

/* --- merged ---------------------------------------------------------------------------------- */

static bool are_times(const struct ep_rung_parameter *a, const struct ep_rung_parameter *b)
{
    return a->form == EP_PARAMETER_TIME && b->form == EP_PARAMETER_TIME;
}

/* "l+a*n" in place of two times that the records cannot tell apart. */
static enum ep_status add_merged_times(double ratio, struct ep_fit_parameter *first,
                                       struct ep_fit_parameter *second, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    struct ep_fit_parameter *p = &r->parameters[r->num_parameters++];
    struct ep_fit_parameter *both[] = {first, second};
    *p = *first;
    p->withheld = NULL;
    p->parameter = NULL;
    snprintf(p->name, sizeof p->name, "%s+%s*n", first->parameter->name, second->parameter->name);
    if (first->withheld != NULL) {
        EP_TRY(ep_record_set_text(&p->withheld, "%s", first->withheld));
    }
    for (int i = 0; i < 2; i++) {
        char reason[96];
        both[i]->low = NAN;
        both[i]->high = NAN;
        snprintf(reason, sizeof reason, "all records have n = %g messages: only %s is seen", ratio,
                 p->name);
        EP_TRY(withhold(both[i], more_ranks, reason));
    }
out:
    return status;
}

/* A bandwidth whose bytes grow with another's in all records. */
static enum ep_status withhold_merged(const struct ep_fit_parameter *first,
                                      struct ep_fit_parameter *p)
{
    char reason[128];
    p->low = NAN;
    p->high = NAN;
    snprintf(reason, sizeof reason, "its bytes are in one proportion to those of %s in all records",
             first->name);
    return withhold(p, more_skews, reason);
}

/* --- all of a rung --------------------------------------------------------------------------- */

static void name_parameter(const struct ep_rung_form *form, int j, int anchor,
                           struct ep_fit_parameter *p)
{
    char size[UNIT_TEXT_LENGTH];
    const char *name = form->rung->parameters[j].name;
    if (form->width[j] == 1) {
        snprintf(p->name, sizeof p->name, "%s", name);
        return;
    }
    ep_format_bytes(form->anchors[anchor], size, sizeof size);
    char *space = strchr(size, ' ');
    if (space != NULL) {
        memmove(space, space + 1, strlen(space));
    }
    snprintf(p->name, sizeof p->name, "%.8s@%.20s", name, size);
}

/* parameter_at [form->num_columns]: where each of the form's columns went, -1 = left out. */
static enum ep_status fill_columns(const struct ep_fit_group *g, const struct ep_fit_design *d,
                                   const double *draws, const struct ep_fit_options *options,
                                   double *room, int *parameter_at, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    const struct ep_rung_form *form = &d->form;
    const double tail = draws != NULL ? ep_fit_expanded_tail(options->level, g->num_clusters) : 0;
    for (int j = 0; j < form->rung->num_parameters; j++) {
        const struct ep_rung_parameter *parameter = &form->rung->parameters[j];
        for (int k = 0; k < form->width[j]; k++) {
            const int column = form->first_column[j] + k;
            parameter_at[column] = -1;
            if (d->column_of[column] < 0) {
                continue;
            }
            parameter_at[column] = r->num_parameters;
            struct ep_fit_parameter *p = &r->parameters[r->num_parameters++];
            const int source = d->merged_into[column] >= 0 ? d->merged_into[column] : column;
            *p = (struct ep_fit_parameter){.unit = parameter->unit, .parameter = parameter,
                                           .low = NAN, .high = NAN, .binds_in = -1};
            name_parameter(form, j, k, p);
            p->value = ep_rung_parameter_value(parameter, r->coefficients[source]);
            if (draws != NULL) {
                read_interval(draws, options->num_bootstraps, d->num_columns, d->column_of[column],
                              tail, parameter->form, room, p);
            }
            const bool own = d->merged_into[column] < 0;
            const bool is_port = own && !d->linear && parameter->role == EP_ROLE_PORT;
            if (own && (isfinite(p->value) || !is_port)) {
                EP_TRY(gate(g, r, peak_of(g, r, parameter, k == form->width[j] - 1), p));
            }
            if (is_port) {
                EP_TRY(gate_port(g, r, j, p));
            }
        }
    }
out:
    return status;
}

enum ep_status ep_fit_parameters_fill(const struct ep_fit_group *g,
                                      const struct ep_fit_design *design,
                                      const double *coefficients, const double *draws,
                                      const struct ep_fit_options *options, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    const struct ep_rung_form *form = &design->form;
    int parameter_at[EP_RUNG_MAX_COLUMNS];
    double *room = calloc((size_t)options->num_bootstraps + 1, sizeof *room);
    if (room == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for intervals");
    }
    ep_fit_design_expand(design, coefficients, r->coefficients);
    EP_TRY(fill_columns(g, design, draws, options, room, parameter_at, r));
    for (int column = 0; column < form->num_columns; column++) {
        if (design->merged_into[column] < 0) {
            continue;
        }
        struct ep_fit_parameter *first = &r->parameters[parameter_at[design->merged_into[column]]];
        struct ep_fit_parameter *second = &r->parameters[parameter_at[column]];
        EP_TRY(are_times(first->parameter, second->parameter)
                   ? add_merged_times(design->ratio[column], first, second, r)
                   : withhold_merged(first, second));
    }
out:
    free(room);
    return status;
}

bool ep_fit_next_withheld(const struct ep_fit_rung *rung, int *from, char *names, size_t length,
                          const char **reason, const char **advice)
{
    for (; *from < rung->num_parameters; (*from)++) {
        const struct ep_fit_parameter *first = &rung->parameters[*from];
        bool was_named = first->withheld == NULL;
        for (int j = 0; j < *from && !was_named; j++) {
            was_named = rung->parameters[j].withheld != NULL &&
                        strcmp(rung->parameters[j].withheld, first->withheld) == 0;
        }
        if (was_named) {
            continue;
        }
        size_t used = 0;
        for (int j = *from; j < rung->num_parameters && used < length; j++) {
            const struct ep_fit_parameter *p = &rung->parameters[j];
            if (p->withheld != NULL && strcmp(p->withheld, first->withheld) == 0) {
                const int put = snprintf(names + used, length - used, "%s%s", used > 0 ? ", " : "",
                                         p->name);
                used += put > 0 ? (size_t)put : 0;
            }
        }
        *reason = first->withheld;
        *advice = first->advice;
        (*from)++;
        return true;
    }
    return false;
}
