/* SPDX-License-Identifier: Apache-2.0 */
/* Fitting every rung of a group, scoring it on what it has not seen, gating, and choosing. */
#include "results/fit.h"

#include "base/stats.h"
#include "base/units.h"
#include "results/fit_rung.h"

#include <gsl/gsl_errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Gates: results/README.md, "When a value is withheld". */
#define MAX_CONDITION 30.0
#define MAX_HALF_WIDTH 0.5
enum { MIN_SIZES = 3, MIN_CLUSTERS = 5, MIN_FOLDS = 2 };

#define UNIT_TEXT_LENGTH 32

void ep_fit_options_default(struct ep_fit_options *options)
{
    *options = (struct ep_fit_options){
        .num_bootstraps = 400, .seed = 1, .level = 0.95, .peak_bytes_per_s = NAN};
}

/* --- errors ---------------------------------------------------------------------------------- */

enum ep_status ep_fit_score(const struct ep_fit_case *cases, int64_t num_cases,
                            const double *predicted_s, struct ep_fit_scores *scores)
{
    double *errors = calloc((size_t)num_cases + 1, sizeof *errors);
    int64_t num = 0;
    if (errors == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for errors");
    }
    for (int64_t i = 0; i < num_cases; i++) {
        if (isfinite(predicted_s[i])) {
            errors[num++] = fabs(predicted_s[i] - cases[i].time_s) / cases[i].time_s;
        }
    }
    *scores = (struct ep_fit_scores){.num = num, .median_ape = NAN, .p95_ape = NAN, .max_ape = NAN};
    if (num > 0) {
        ep_stats_sort(errors, num);
        scores->median_ape = ep_stats_median_sorted(errors, num);
        scores->p95_ape = ep_stats_quantile_sorted(errors, num, 0.95);
        scores->max_ape = errors[num - 1];
    }
    free(errors);
    return EP_OK;
}

/* Mean over folds of the median error within the fold, and the standard error of that mean. */
static void score_folds(const struct ep_fit_group *g, double *errors, struct ep_fit_rung *r)
{
    double sum = 0, squares = 0;
    int64_t num_folds = 0;
    for (int64_t f = 0; f < g->num_folds; f++) {
        int64_t num = 0;
        for (int64_t i = 0; i < g->num_cases; i++) {
            if (g->cases[i].fold == f && isfinite(r->held_out_s[i])) {
                errors[num++] = fabs(r->held_out_s[i] - g->cases[i].time_s) / g->cases[i].time_s;
            }
        }
        if (num > 0) {
            ep_stats_sort(errors, num);
            const double median = ep_stats_median_sorted(errors, num);
            sum += median;
            squares += median * median;
            num_folds++;
        }
    }
    const double mean = sum / (double)num_folds;
    const double variance =
        fmax(0, squares - (double)num_folds * mean * mean) / (double)(num_folds - 1);
    r->fold_score = num_folds > 0 ? mean : NAN;
    r->fold_score_se = num_folds > 1 ? sqrt(variance / (double)num_folds) : NAN;
}

/* Share of held-out cases inside an interval whose width comes from the other folds' held-out
 * errors (split conformal). errors [num_cases] is room. */
static double cover_folds(const struct ep_fit_group *g, double level, double *errors,
                          const double *held_out_s)
{
    int64_t inside = 0, all = 0;
    for (int64_t f = 0; f < g->num_folds; f++) {
        int64_t num = 0;
        for (int64_t i = 0; i < g->num_cases; i++) {
            if (g->cases[i].fold != f && held_out_s[i] > 0) {
                errors[num++] = fabs(g->cases[i].time_s / held_out_s[i] - 1);
            }
        }
        if (num == 0) {
            continue;
        }
        ep_stats_sort(errors, num);
        int64_t order = (int64_t)ceil(level * (double)(num + 1));
        order = order > num ? num : order;
        for (int64_t i = 0; i < g->num_cases; i++) {
            if (g->cases[i].fold == f && held_out_s[i] > 0) {
                inside += fabs(g->cases[i].time_s / held_out_s[i] - 1) <= errors[order - 1];
                all++;
            }
        }
    }
    return all > 0 ? (double)inside / (double)all : NAN;
}

static enum ep_status hold_out(const struct ep_fit_group *g, const struct ep_fit_design *design,
                               double level, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    double *errors = calloc((size_t)g->num_cases + 1, sizeof *errors);
    int64_t *folds = calloc((size_t)g->num_cases + 1, sizeof *folds);
    if (errors == NULL || folds == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for folds"));
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        folds[i] = g->cases[i].fold;
    }
    EP_TRY(ep_fit_hold_out(design, folds, g->num_folds, r->held_out_s));
    EP_TRY(ep_fit_score(g->cases, g->num_cases, r->held_out_s, &r->held_out));
    score_folds(g, errors, r);
    r->coverage = cover_folds(g, level, errors, r->held_out_s);
out:
    free(errors);
    free(folds);
    return status;
}

/* The largest size class, from a fit to the others. */
static enum ep_status extrapolate(const struct ep_fit_group *g, const struct ep_fit_design *design,
                                  struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    double coefficients[EP_RUNG_MAX_PARAMETERS];
    int64_t largest = INT64_MIN;
    bool *keep = calloc((size_t)g->num_cases + 1, sizeof *keep);
    double *predicted_s = calloc((size_t)g->num_cases + 1, sizeof *predicted_s);
    if (keep == NULL || predicted_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory to extrapolate"));
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        largest = g->cases[i].size_class > largest ? g->cases[i].size_class : largest;
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        keep[i] = g->cases[i].size_class != largest;
    }
    status = ep_fit_subset(design, keep, coefficients);
    if (status == EP_EINVAL) {
        ep_error_clear();
        status = EP_OK;
        goto out;
    }
    EP_TRY(status);
    ep_fit_design_predict(design, coefficients, predicted_s);
    for (int64_t i = 0; i < g->num_cases; i++) {
        predicted_s[i] = keep[i] ? NAN : predicted_s[i];
    }
    EP_TRY(ep_fit_score(g->cases, g->num_cases, predicted_s, &r->extrapolation));
out:
    free(keep);
    free(predicted_s);
    return status;
}

/* --- parameters ------------------------------------------------------------------------------ */

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
    const double low = ep_stats_quantile_sorted(room, num_draws, tail);
    const double high = ep_stats_quantile_sorted(room, num_draws, 1 - tail);
    p->low = form == EP_PARAMETER_TIME ? low : 1 / high;
    p->high = form == EP_PARAMETER_TIME ? high : 1 / low;
}

/* What a gate says against a value; "" = nothing. */
static void gate(const struct ep_fit_group *g, const struct ep_fit_rung *r,
                 const struct ep_fit_parameter *p, char *reason, size_t length)
{
    char a[UNIT_TEXT_LENGTH], b[UNIT_TEXT_LENGTH];
    const bool is_bandwidth = strcmp(p->unit, "bytes/s") == 0;
    const double ranks = g->record->ranks > 0 ? (double)g->record->ranks : 1;
    const double peak = g->peak_bytes_per_s * (r->rung->bandwidth_is_total ? ranks : 1);
    reason[0] = '\0';
    if (g->num_sizes < MIN_SIZES) {
        snprintf(reason, length, "%" PRId64 " size%s, at least %d are needed", g->num_sizes,
                 g->num_sizes == 1 ? "" : "s", MIN_SIZES);
    } else if (!(r->condition <= MAX_CONDITION)) {
        snprintf(reason, length, "condition number %.3g is above %g: these records cannot tell the "
                 "parameters apart", r->condition, MAX_CONDITION);
    } else if (!isfinite(p->value)) {
        snprintf(reason, length, "the time does not grow with these bytes");
    } else if (p->value == 0) {
        snprintf(reason, length, "fitted to 0, its lower limit: these records show no such time");
    } else if (p->low < (1 - MAX_HALF_WIDTH) * p->value ||
               p->high > (1 + MAX_HALF_WIDTH) * p->value) {
        snprintf(reason, length, "its 95 %% interval, %s to %s, is wider than +-50 %%",
                 print_value(p->unit, p->low, a), print_value(p->unit, p->high, b));
    } else if (is_bandwidth && p->value > peak) {
        snprintf(reason, length, "%s is above %s, %s: not a physical bandwidth",
                 print_value(p->unit, p->value, a), g->peak_name,
                 print_value(p->unit, peak, b));
    }
}

static enum ep_status withhold(struct ep_fit_parameter *p, const char *reason)
{
    p->value = NAN;
    return ep_record_set_text(&p->withheld, "%s", reason);
}

/* "l+a*n" in place of two times that the records cannot tell apart. */
static enum ep_status add_merged(const struct ep_fit_design *d, int first, int second,
                                 const struct ep_fit_parameter *together, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    struct ep_fit_parameter *p = &r->parameters[r->num_parameters++];
    *p = *together;
    p->withheld = NULL;
    snprintf(p->name, sizeof p->name, "%s+%s*n", d->rung->parameters[first].name,
             d->rung->parameters[second].name);
    if (together->withheld != NULL) {
        EP_TRY(ep_record_set_text(&p->withheld, "%s", together->withheld));
    }
    const int both[] = {first, second};
    for (int i = 0; i < 2; i++) {
        struct ep_fit_parameter *apart = &r->parameters[both[i]];
        apart->low = NAN;
        apart->high = NAN;
        char reason[96];
        snprintf(reason, sizeof reason, "all records have n = %g messages: only %s is seen",
                 d->ratio[second], p->name);
        EP_TRY(withhold(apart, reason));
    }
out:
    return status;
}

static enum ep_status fill_parameters(const struct ep_fit_group *g, const struct ep_fit_design *d,
                                      const double *coefficients, const double *draws,
                                      const struct ep_fit_options *options,
                                      struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    const double tail = draws != NULL ? ep_fit_expanded_tail(options->level, g->num_clusters) : 0;
    double *room = calloc((size_t)options->num_bootstraps + 1, sizeof *room);
    if (room == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for intervals");
    }
    r->num_parameters = d->rung->num_parameters;
    for (int j = 0; j < d->rung->num_parameters; j++) {
        const struct ep_rung_parameter *form = &d->rung->parameters[j];
        struct ep_fit_parameter *p = &r->parameters[j];
        const double coefficient = coefficients[d->column_of[j]];
        r->coefficients[j] = d->merged_into[j] < 0 ? coefficient : 0;
        *p = (struct ep_fit_parameter){.unit = form->unit, .low = NAN, .high = NAN};
        snprintf(p->name, sizeof p->name, "%s", form->name);
        p->value = ep_rung_parameter_value(form, coefficient);
        if (draws != NULL) {
            read_interval(draws, options->num_bootstraps, d->num_columns, d->column_of[j], tail,
                          form->form, room, p);
        }
        char reason[256];
        gate(g, r, p, reason, sizeof reason);
        if (reason[0] != '\0') {
            EP_TRY(withhold(p, reason));
        }
    }
    for (int j = 0; j < d->rung->num_parameters; j++) {
        if (d->merged_into[j] >= 0) {
            EP_TRY(add_merged(d, d->merged_into[j], j, &r->parameters[d->merged_into[j]], r));
        }
    }
out:
    free(room);
    return status;
}

/* --- one rung -------------------------------------------------------------------------------- */

static enum ep_status fit_rung(const struct ep_fit_group *g, const struct ep_fit_design *design,
                               const struct ep_fit_options *options, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    double coefficients[EP_RUNG_MAX_PARAMETERS];
    double *draws = NULL;
    double *scale = calloc((size_t)g->num_cases + 1, sizeof *scale);
    bool *all = calloc((size_t)g->num_cases + 1, sizeof *all);
    r->fitted_s = calloc((size_t)g->num_cases + 1, sizeof *r->fitted_s);
    r->held_out_s = calloc((size_t)g->num_cases + 1, sizeof *r->held_out_s);
    if (scale == NULL || all == NULL || r->fitted_s == NULL || r->held_out_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory to fit"));
    }
    for (int64_t i = 0; i < g->num_cases; i++) {
        all[i] = true;
        r->held_out_s[i] = NAN;
    }
    EP_TRY(ep_fit_subset(design, all, coefficients));
    ep_fit_design_predict(design, coefficients, r->fitted_s);
    for (int64_t i = 0; i < g->num_cases; i++) {
        scale[i] = fmax(r->fitted_s[i], 1e-3 * g->cases[i].time_s);
    }
    EP_TRY(ep_robust_condition(design->rows, scale, g->num_cases, design->num_columns,
                               &r->condition));
    EP_TRY(ep_fit_score(g->cases, g->num_cases, r->fitted_s, &r->in_sample));
    if (g->num_folds >= MIN_FOLDS) {
        EP_TRY(hold_out(g, design, options->level, r));
    }
    if (g->num_sizes >= MIN_SIZES) {
        EP_TRY(extrapolate(g, design, r));
    }
    if (g->num_clusters >= MIN_CLUSTERS && options->num_bootstraps > 0) {
        draws = calloc((size_t)(options->num_bootstraps * design->num_columns), sizeof *draws);
        int64_t *clusters = calloc((size_t)g->num_cases + 1, sizeof *clusters);
        for (int64_t i = 0; i < g->num_cases && clusters != NULL; i++) {
            clusters[i] = g->cases[i].cluster;
        }
        status = draws != NULL && clusters != NULL
                     ? ep_fit_bootstrap(design, clusters, g->num_clusters, options->num_bootstraps,
                                        options->seed, coefficients, draws)
                     : ep_error_set(EP_ENOMEM, "no memory for a bootstrap");
        free(clusters);
        EP_TRY(status);
    }
    EP_TRY(fill_parameters(g, design, coefficients, draws, options, r));
out:
    free(draws);
    free(scale);
    free(all);
    return status;
}

/* The simplest rung whose score is within one standard error of the best. */
static void choose_rung(struct ep_fit_group *g)
{
    int best = -1;
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        const struct ep_fit_rung *r = &g->rungs[i];
        if (r->rung->can_be_chosen && r->same_as == NULL && isfinite(r->fold_score) &&
            (best < 0 || r->fold_score < g->rungs[best].fold_score)) {
            best = i;
        }
    }
    for (int i = 0; i <= best; i++) {
        struct ep_fit_rung *r = &g->rungs[i];
        const double limit =
            g->rungs[best].fold_score +
            (isfinite(g->rungs[best].fold_score_se) ? g->rungs[best].fold_score_se : 0);
        if (r->rung->can_be_chosen && r->same_as == NULL && r->fold_score <= limit) {
            r->chosen = true;
            g->chosen = i;
            return;
        }
    }
}

static enum ep_status note_choice(struct ep_fit_group *g)
{
    if (g->num_clusters < MIN_CLUSTERS) {
        return ep_record_add_note(&g->notes, "too-few-groups",
                                  "%" PRId64 " groups of skew x size, %d are needed: no intervals "
                                  "and no choice of a rung", g->num_clusters, MIN_CLUSTERS);
    }
    if (g->num_folds >= MIN_FOLDS) {
        choose_rung(g);
    }
    return EP_OK;
}

enum ep_status ep_fit_group_rungs(struct ep_fit_group *g, const struct ep_fit_options *options)
{
    enum ep_status status = EP_OK;
    struct ep_fit_design designs[EP_NUM_RUNGS] = {0};
    static const struct ep_fit_scores none = {0, NAN, NAN, NAN};
    gsl_set_error_handler_off();
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        g->rungs[i] = (struct ep_fit_rung){.rung = ep_rung_at(i),
                                           .condition = NAN,
                                           .in_sample = none,
                                           .held_out = none,
                                           .extrapolation = none,
                                           .fold_score = NAN,
                                           .fold_score_se = NAN,
                                           .coverage = NAN};
        EP_TRY(ep_fit_design_init(ep_rung_at(i), g, &designs[i]));
        for (int j = 0; j < i && g->rungs[i].same_as == NULL; j++) {
            if (g->rungs[j].same_as == NULL && ep_fit_design_is_same(&designs[i], &designs[j])) {
                g->rungs[i].same_as = ep_rung_at(j);
            }
        }
        if (g->num_cases < designs[i].num_columns) {
            EP_TRY(ep_record_add_note(&g->notes, "too-few-cases",
                                      "%s has %d parameters for %" PRId64 " cases: not fitted",
                                      ep_rung_at(i)->name, designs[i].num_columns, g->num_cases));
            continue;
        }
        EP_TRY(fit_rung(g, &designs[i], options, &g->rungs[i]));
    }
    EP_TRY(note_choice(g));
out:
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        ep_fit_design_fini(&designs[i]);
    }
    return status;
}

/* --- all groups ------------------------------------------------------------------------------ */

static bool is_copy(const struct ep_record *r)
{
    return r->kind == EP_RECORD_KERNELS && strncmp(r->kernel, "copy", 4) == 0 && r->moved_bytes > 0 &&
           r->min_s > 0;
}

/* The bytes that a rank reads and writes in the group's largest case. */
static double largest_working_set(const struct ep_fit_group *g)
{
    double most = 0;
    for (int64_t i = 0; i < g->num_cases; i++) {
        most = fmax(most, 2 * (double)g->cases[i].record->h_rank_bytes);
    }
    return most;
}

/* Which copies count against a working set: those from this set on. Of the recorded sets it is the
 * largest that is not above the working set, or the smallest where all are above. */
static double first_set(const struct ep_records *records, double working_set)
{
    double below = -INFINITY;
    double least = INFINITY;
    for (int64_t i = 0; i < records->num; i++) {
        const double set = (double)records->items[i].working_set_bytes;
        if (is_copy(&records->items[i])) {
            below = set <= working_set ? fmax(below, set) : below;
            least = fmin(least, set);
        }
    }
    return fmax(below, least);
}

/* The fastest copy of one rank: no rank can pass more payload through its memory. Records count what
 * all active ranks read plus write, so a payload byte counts twice. The bandwidth of a model holds for
 * the group's largest case too, so copies of smaller working sets, in faster caches, do not count. */
static enum ep_status find_peak(const struct ep_records *records, struct ep_fit_group *g)
{
    char text[UNIT_TEXT_LENGTH];
    const double set = first_set(records, largest_working_set(g));
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (is_copy(r) && (double)r->working_set_bytes >= set) {
            const double num_ranks = r->ranks_active > 0 ? (double)r->ranks_active : 1;
            g->peak_bytes_per_s =
                fmax(g->peak_bytes_per_s, r->moved_bytes / 2 / num_ranks / r->min_s);
        }
    }
    return ep_record_set_text(&g->peak_name, "the measured copy peak (working sets from %s on)",
                              ep_format_bytes(set, text, sizeof text));
}

enum ep_status ep_fit_records(const struct ep_records *records,
                              const struct ep_fit_options *options, struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    struct ep_fit made;
    bool has_copies = false;
    const bool is_given = !isnan(options->peak_bytes_per_s);
    EP_TRY(ep_fit_group_records(records, &made));
    for (int64_t i = 0; i < records->num; i++) {
        has_copies = has_copies || is_copy(&records->items[i]);
    }
    if (!is_given && !has_copies) {
        status = ep_record_add_note(&made.notes, "no-peak",
                                    "no copy peak is recorded (epbench kernels): bandwidths are not "
                                    "held against a physical bound");
    }
    for (int64_t i = 0; i < made.num_groups && status == EP_OK; i++) {
        struct ep_fit_group *g = &made.groups[i];
        g->peak_bytes_per_s = options->peak_bytes_per_s;
        if (is_given) {
            status = ep_record_set_text(&g->peak_name, "the peak given");
        } else if (has_copies && g->record->nodes <= 1) {
            /* A copy inside one host bounds nothing between hosts. */
            status = find_peak(records, g);
        }
        status = status == EP_OK ? ep_fit_group_rungs(g, options) : status;
    }
    if (status != EP_OK) {
        ep_fit_fini(&made);
        return status;
    }
    *fit = made;
out:
    return status;
}

static void free_notes(struct ep_record_notes *notes)
{
    for (int64_t i = 0; i < notes->num; i++) {
        free(notes->items[i].name);
        free(notes->items[i].text);
    }
    free(notes->items);
}

void ep_fit_fini(struct ep_fit *fit)
{
    for (int64_t i = 0; i < fit->num_groups; i++) {
        struct ep_fit_group *g = &fit->groups[i];
        for (int r = 0; r < EP_NUM_RUNGS; r++) {
            for (int j = 0; j < g->rungs[r].num_parameters; j++) {
                free(g->rungs[r].parameters[j].withheld);
            }
            free(g->rungs[r].fitted_s);
            free(g->rungs[r].held_out_s);
        }
        free(g->name);
        free(g->key);
        free(g->peak_name);
        free(g->cases);
        free_notes(&g->notes);
    }
    free(fit->groups);
    free_notes(&fit->notes);
    *fit = (struct ep_fit){0};
}

const struct ep_fit_rung *ep_fit_chosen(const struct ep_fit_group *group)
{
    return group->chosen >= 0 ? &group->rungs[group->chosen] : NULL;
}
