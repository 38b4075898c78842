/* SPDX-License-Identifier: Apache-2.0 */
/* Fitting every rung of a group, and choosing. */
#include "results/fit.h"

#include "base/units.h"
#include "results/fit_anchors.h"
#include "results/fit_parameters.h"
#include "results/fit_score.h"
#include "results/robust.h"

#include <gsl/gsl_errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_CLUSTERS = 5, MIN_FOLDS = 2, UNIT_TEXT_LENGTH = 32 };

void ep_fit_options_default(struct ep_fit_options *options)
{
    *options = (struct ep_fit_options){
        .num_bootstraps = 400, .seed = 1, .level = 0.95, .peak_bytes_per_s = NAN, .only = -1};
}

/* --- one rung -------------------------------------------------------------------------------- */

/* Of the rows that bind at the fit. A port that never binds has no column there, and a gate of its
 * own; it says nothing of the others. */
static enum ep_status find_condition(const struct ep_fit_design *design, const double *coefficients,
                                     const double *scale, double *condition)
{
    enum ep_status status = EP_OK;
    double *rows = NULL;
    int num_columns = 0;
    EP_TRY(ep_fit_design_rows(design, coefficients, &rows, &num_columns));
    EP_TRY(ep_robust_condition(rows, scale, design->num_cases, num_columns, condition));
out:
    free(rows);
    return status;
}

static enum ep_status fit_rung(const struct ep_fit_group *g, struct ep_fit_design *design,
                               const struct ep_fit_options *options, struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    double coefficients[EP_RUNG_MAX_COLUMNS];
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
    EP_TRY(ep_fit_subset(design, all, coefficients, NULL));
    ep_fit_design_set_start(design, coefficients);
    EP_TRY(ep_fit_design_predict(design, coefficients, r->fitted_s));
    for (int64_t i = 0; i < g->num_cases; i++) {
        scale[i] = fmax(r->fitted_s[i], 1e-3 * g->cases[i].time_s);
    }
    EP_TRY(find_condition(design, coefficients, scale, &r->condition));
    EP_TRY(ep_fit_score(g->cases, g->num_cases, r->fitted_s, &r->in_sample));
    if (g->num_folds >= MIN_FOLDS && options->only < 0) {
        EP_TRY(ep_fit_score_folds(g, design, options->level, r));
    }
    if (g->num_sizes >= EP_FIT_MIN_SIZES && options->only < 0) {
        EP_TRY(ep_fit_score_largest(g, design, r));
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
    EP_TRY(ep_fit_parameters_fill(g, design, coefficients, draws, options, r));
    r->is_fitted = true;
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

/* Whether two rungs predict the same for every case, in sample and held out: so a port that never
 * binds, and a schedule of two ranks. */
static bool predict_the_same(const struct ep_fit_group *g, const struct ep_fit_rung *a,
                             const struct ep_fit_rung *b)
{
    for (int64_t i = 0; i < g->num_cases; i++) {
        const double left[] = {a->fitted_s[i], a->held_out_s[i]};
        const double right[] = {b->fitted_s[i], b->held_out_s[i]};
        for (int k = 0; k < 2; k++) {
            if (isnan(left[k]) != isnan(right[k]) ||
                fabs(left[k] - right[k]) > 1e-6 * fabs(left[k])) {
                return false;
            }
        }
    }
    return true;
}

static void find_same(const struct ep_fit_group *g, const struct ep_fit_design *designs, int i,
                      struct ep_fit_rung *r)
{
    for (int j = 0; j < i && r->same_as == NULL; j++) {
        const struct ep_fit_rung *earlier = &g->rungs[j];
        if (earlier->is_fitted && earlier->same_as == NULL &&
            (ep_fit_design_is_same(&designs[i], &designs[j]) ||
             (!designs[i].linear && predict_the_same(g, r, earlier)))) {
            r->same_as = earlier->rung;
        }
    }
}

static bool has_matrices(const struct ep_fit_group *g)
{
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (g->cases[i].model.matrix == NULL) {
            return false;
        }
    }
    return true;
}

/* Whether this rung can and is to be fitted; a note says why it cannot. */
static enum ep_status is_wanted(struct ep_fit_group *g, const struct ep_fit_options *options, int i,
                                bool *wanted)
{
    const struct ep_rung *rung = ep_rung_at(i);
    *wanted = options->only >= 0 ? i == options->only : !rung->on_request || options->asked[i];
    if (*wanted && rung->follow != NULL && !has_matrices(g)) {
        *wanted = false;
        return ep_record_add_note(&g->notes, "no-matrix",
                                  "%s follows single messages, and not every case has its traffic/ "
                                  "file (up to 64 ranks, rows in one stage): not fitted",
                                  rung->name);
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
                                           .coverage = NAN,
                                           .half_width = NAN};
        ep_rung_form_init(ep_rung_at(i), NULL, 0, &g->rungs[i].form);
    }
    EP_TRY(ep_fit_choose_anchors(g));
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        struct ep_fit_rung *r = &g->rungs[i];
        bool wanted = false;
        ep_rung_form_init(ep_rung_at(i), g->anchors, g->num_anchors, &r->form);
        EP_TRY(is_wanted(g, options, i, &wanted));
        if (!wanted) {
            continue;
        }
        EP_TRY(ep_fit_design_init(&r->form, g->cases, g->num_cases, &designs[i]));
        if (g->num_cases < designs[i].num_columns) {
            EP_TRY(ep_record_add_note(&g->notes, "too-few-cases",
                                      "%s has %d parameters for %" PRId64 " cases: not fitted",
                                      ep_rung_at(i)->name, designs[i].num_columns, g->num_cases));
            continue;
        }
        EP_TRY(fit_rung(g, &designs[i], options, r));
        find_same(g, designs, i, r);
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
        most = fmax(most, 2 * g->cases[i].model.features.values[EP_FEATURE_H_RANK_BYTES]);
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

enum ep_status ep_fit_groups(const struct ep_records *records, const struct ep_fit_options *options,
                             struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    bool has_copies = false;
    const bool is_given = !isnan(options->peak_bytes_per_s);
    for (int64_t i = 0; i < records->num; i++) {
        has_copies = has_copies || is_copy(&records->items[i]);
    }
    if (!is_given && !has_copies) {
        EP_TRY(ep_record_add_note(&fit->notes, "no-peak",
                                  "no copy peak is recorded (epbench kernels): bandwidths are not "
                                  "held against a physical bound"));
    }
    for (int64_t i = 0; i < fit->num_groups; i++) {
        struct ep_fit_group *g = &fit->groups[i];
        g->peak_bytes_per_s = options->peak_bytes_per_s;
        if (is_given) {
            EP_TRY(ep_record_set_text(&g->peak_name, "the peak given"));
        } else if (has_copies && g->record->nodes <= 1) {
            /* A copy inside one host bounds nothing between hosts. */
            EP_TRY(find_peak(records, g));
        }
        EP_TRY(ep_fit_group_rungs(g, options));
    }
out:
    return status;
}

enum ep_status ep_fit_records(const struct ep_records *records,
                              const struct ep_fit_options *options, struct ep_fit *fit)
{
    enum ep_status status = EP_OK;
    struct ep_fit made;
    EP_TRY(ep_fit_group_records(records, &made));
    status = ep_fit_groups(records, options, &made);
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
    for (int64_t i = 0; i < fit->num_matrices; i++) {
        ep_model_matrix_fini(&fit->matrices[i]);
    }
    free(fit->matrices);
    free(fit->groups);
    free_notes(&fit->notes);
    *fit = (struct ep_fit){0};
}

const struct ep_fit_rung *ep_fit_chosen(const struct ep_fit_group *group)
{
    return group->chosen >= 0 ? &group->rungs[group->chosen] : NULL;
}
