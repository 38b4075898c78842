/* SPDX-License-Identifier: Apache-2.0 */
/* What a rung is worth on cases it has not seen. */
#include "results/fit_score.h"

#include "base/stats.h"

#include <math.h>
#include <stdlib.h>

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

/* The relative error that all held-out cases stay within at that level (conformal); with too few of
 * them none is known. errors [num_cases] is room. */
static double find_half_width(const struct ep_fit_group *g, double level, double *errors,
                              const double *held_out_s)
{
    int64_t num = 0;
    for (int64_t i = 0; i < g->num_cases; i++) {
        if (held_out_s[i] > 0) {
            errors[num++] = fabs(g->cases[i].time_s / held_out_s[i] - 1);
        }
    }
    const int64_t order = (int64_t)ceil(level * (double)(num + 1));
    if (order > num) {
        return NAN;
    }
    ep_stats_sort(errors, num);
    return errors[order - 1];
}

enum ep_status ep_fit_score_folds(const struct ep_fit_group *g, const struct ep_fit_design *design,
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
    r->half_width = find_half_width(g, level, errors, r->held_out_s);
out:
    free(errors);
    free(folds);
    return status;
}

/* The largest size class, from a fit to the others. */
enum ep_status ep_fit_score_largest(const struct ep_fit_group *g, const struct ep_fit_design *design,
                                  struct ep_fit_rung *r)
{
    enum ep_status status = EP_OK;
    double coefficients[EP_RUNG_MAX_COLUMNS];
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
    status = ep_fit_subset(design, keep, coefficients, NULL);
    if (status == EP_EINVAL) {
        ep_error_clear();
        status = EP_OK;
        goto out;
    }
    EP_TRY(status);
    EP_TRY(ep_fit_design_predict(design, coefficients, predicted_s));
    for (int64_t i = 0; i < g->num_cases; i++) {
        predicted_s[i] = keep[i] ? NAN : predicted_s[i];
    }
    EP_TRY(ep_fit_score(g->cases, g->num_cases, predicted_s, &r->extrapolation));
out:
    free(keep);
    free(predicted_s);
    return status;
}

