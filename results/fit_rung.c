/* SPDX-License-Identifier: Apache-2.0 */
/* Designs, held-out predictions and bootstrap draws of one rung. */
#include "results/fit_rung.h"

#include "base/random.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMETERS = EP_RUNG_MAX_PARAMETERS };

#define TOLERANCE 1e-8
/* A draw only has to be right to far less than the width of an interval. */
#define DRAW_TOLERANCE 1e-4

/* Column a of x is ratio times column b of y in every row (of `num`). */
static bool is_proportional(const double *x, int stride_x, const double *y, int stride_y,
                            int64_t num, double *ratio)
{
    double factor = NAN;
    for (int64_t i = 0; i < num; i++) {
        const double a = x[i * stride_x];
        const double b = y[i * stride_y];
        if (a == 0 && b == 0) {
            continue;
        }
        if (a == 0 || b == 0) {
            return false;
        }
        factor = isnan(factor) ? a / b : factor;
        if (fabs(a - factor * b) > 1e-9 * fabs(a)) {
            return false;
        }
    }
    *ratio = factor;
    return !isnan(factor);
}

/* Times in proportion are one parameter: at a single P, l + a n. */
static void merge_columns(const struct ep_rung *rung, const double *full, int64_t num_cases,
                          struct ep_fit_design *design)
{
    const int width = rung->num_parameters;
    for (int j = 0; j < width; j++) {
        design->merged_into[j] = -1;
        design->ratio[j] = 1;
        for (int i = 0; i < j && design->merged_into[j] < 0; i++) {
            double ratio = 0;
            if (rung->parameters[i].form == EP_PARAMETER_TIME &&
                rung->parameters[j].form == EP_PARAMETER_TIME && design->merged_into[i] < 0 &&
                is_proportional(full + j, width, full + i, width, num_cases, &ratio)) {
                design->merged_into[j] = i;
                design->ratio[j] = ratio;
                design->column_of[j] = design->column_of[i];
            }
        }
        if (design->merged_into[j] < 0) {
            design->column_of[j] = design->num_columns++;
        }
    }
}

enum ep_status ep_fit_design_init(const struct ep_rung *rung, const struct ep_fit_group *group,
                                  struct ep_fit_design *design)
{
    enum ep_status status = EP_OK;
    const int width = rung->num_parameters;
    struct ep_fit_design made = {.rung = rung, .num_cases = group->num_cases};
    double *full = calloc((size_t)(group->num_cases * width), sizeof *full);
    made.rows = calloc((size_t)(group->num_cases * width), sizeof *made.rows);
    made.target_s = calloc((size_t)group->num_cases, sizeof *made.target_s);
    if (full == NULL || made.rows == NULL || made.target_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a design"));
    }
    for (int64_t i = 0; i < group->num_cases; i++) {
        rung->fill_row(&group->cases[i].features, full + i * width);
        made.target_s[i] = group->cases[i].time_s;
    }
    merge_columns(rung, full, group->num_cases, &made);
    for (int64_t i = 0; i < group->num_cases; i++) {
        for (int j = 0; j < width; j++) {
            if (made.merged_into[j] < 0) {
                made.rows[i * made.num_columns + made.column_of[j]] = full[i * width + j];
            }
        }
    }
    *design = made;
out:
    free(full);
    if (status != EP_OK) {
        ep_fit_design_fini(&made);
    }
    return status;
}

void ep_fit_design_fini(struct ep_fit_design *design)
{
    free(design->rows);
    free(design->target_s);
    *design = (struct ep_fit_design){0};
}

bool ep_fit_design_is_same(const struct ep_fit_design *a, const struct ep_fit_design *b)
{
    if (a->num_columns != b->num_columns) {
        return false;
    }
    bool taken[MAX_PARAMETERS] = {false};
    for (int i = 0; i < a->num_columns; i++) {
        bool found = false;
        for (int j = 0; j < b->num_columns && !found; j++) {
            double ratio = 0;
            if (!taken[j] && is_proportional(a->rows + i, a->num_columns, b->rows + j,
                                             b->num_columns, a->num_cases, &ratio)) {
                taken[j] = true;
                found = true;
            }
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static double dot(const double *a, const double *b, int num)
{
    double sum = 0;
    for (int j = 0; j < num; j++) {
        sum += a[j] * b[j];
    }
    return sum;
}

void ep_fit_design_predict(const struct ep_fit_design *design, const double *coefficients,
                           double *times_s)
{
    for (int64_t i = 0; i < design->num_cases; i++) {
        times_s[i] = dot(design->rows + i * design->num_columns, coefficients,
                         design->num_columns);
    }
}

/* Room for a choice of rows and their fit. */
struct picked {
    double *rows;
    double *target_s;
    int64_t num;
    struct ep_robust_work *work;
};

static enum ep_status picked_init(const struct ep_fit_design *design, int64_t most,
                                  struct picked *picked)
{
    *picked = (struct picked){
        .rows = calloc((size_t)(most * design->num_columns) + 1, sizeof *picked->rows),
        .target_s = calloc((size_t)most + 1, sizeof *picked->target_s),
    };
    if (picked->rows == NULL || picked->target_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to fit");
    }
    return ep_robust_work_create(most, &picked->work);
}

static void picked_fini(struct picked *picked)
{
    free(picked->rows);
    free(picked->target_s);
    ep_robust_work_destroy(picked->work);
}

static void pick(const struct ep_fit_design *design, int64_t i, struct picked *picked)
{
    const int width = design->num_columns;
    memcpy(picked->rows + picked->num * width, design->rows + i * width,
           (size_t)width * sizeof *picked->rows);
    picked->target_s[picked->num++] = design->target_s[i];
}

enum ep_status ep_fit_subset(const struct ep_fit_design *design, const bool *keep,
                             double *coefficients)
{
    enum ep_status status = EP_OK;
    struct picked picked;
    EP_TRY(picked_init(design, design->num_cases, &picked));
    for (int64_t i = 0; i < design->num_cases; i++) {
        if (keep[i]) {
            pick(design, i, &picked);
        }
    }
    if (picked.num < design->num_columns) {
        EP_TRY(ep_error_set(EP_EINVAL, "%lld cases for %d parameters", (long long)picked.num,
                            design->num_columns));
    }
    ep_robust_fit(picked.rows, picked.target_s, picked.num, design->num_columns, NULL, TOLERANCE,
                  picked.work, coefficients);
out:
    picked_fini(&picked);
    return status;
}

enum ep_status ep_fit_hold_out(const struct ep_fit_design *design, const int64_t *folds,
                               int64_t num_folds, double *held_out_s)
{
    bool *keep = calloc((size_t)design->num_cases + 1, sizeof *keep);
    if (keep == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for folds");
    }
    enum ep_status status = EP_OK;
    for (int64_t f = 0; f < num_folds && status == EP_OK; f++) {
        double coefficients[MAX_PARAMETERS];
        for (int64_t i = 0; i < design->num_cases; i++) {
            keep[i] = folds[i] != f;
        }
        status = ep_fit_subset(design, keep, coefficients);
        const bool too_few = status == EP_EINVAL;
        if (too_few) {
            ep_error_clear();
            status = EP_OK;
        }
        for (int64_t i = 0; i < design->num_cases && status == EP_OK; i++) {
            if (folds[i] == f) {
                held_out_s[i] = too_few ? NAN
                                        : dot(design->rows + i * design->num_columns,
                                              coefficients, design->num_columns);
            }
        }
    }
    free(keep);
    return status;
}

/* Cases listed cluster by cluster: cluster c holds members[begins[c]] to members[begins[c+1]-1]. */
static enum ep_status list_members(const int64_t *clusters, int64_t num_cases,
                                   int64_t num_clusters, int64_t **members, int64_t **begins)
{
    int64_t *begin = calloc((size_t)num_clusters + 2, sizeof *begin);
    int64_t *member = calloc((size_t)num_cases + 1, sizeof *member);
    if (begin == NULL || member == NULL) {
        free(begin);
        free(member);
        return ep_error_set(EP_ENOMEM, "no memory for clusters");
    }
    /* A counting sort; begin[c + 1] runs ahead of cluster c while it is being filled. */
    for (int64_t i = 0; i < num_cases; i++) {
        begin[clusters[i] + 2]++;
    }
    for (int64_t c = 1; c <= num_clusters + 1; c++) {
        begin[c] += begin[c - 1];
    }
    for (int64_t i = 0; i < num_cases; i++) {
        member[begin[clusters[i] + 1]++] = i;
    }
    *members = member;
    *begins = begin;
    return EP_OK;
}

enum ep_status ep_fit_bootstrap(const struct ep_fit_design *design, const int64_t *clusters,
                                int64_t num_clusters, int num_bootstraps, uint64_t seed,
                                const double *start, double *draws)
{
    enum ep_status status = EP_OK;
    int64_t *members = NULL, *begins = NULL;
    struct picked picked = {0};
    int64_t largest = 0;
    EP_TRY(list_members(clusters, design->num_cases, num_clusters, &members, &begins));
    for (int64_t c = 0; c < num_clusters; c++) {
        const int64_t size = begins[c + 1] - begins[c];
        largest = size > largest ? size : largest;
    }
    EP_TRY(picked_init(design, largest * num_clusters, &picked));
    for (int b = 0; b < num_bootstraps; b++) {
        struct ep_random random;
        ep_random_init(&random, seed, EP_RANDOM_BOOTSTRAP, (uint64_t)b);
        picked.num = 0;
        for (int64_t draw = 0; draw < num_clusters; draw++) {
            const uint32_t c = ep_random_below(&random, (uint32_t)num_clusters);
            for (int64_t m = begins[c]; m < begins[c + 1]; m++) {
                pick(design, members[m], &picked);
            }
        }
        ep_robust_fit(picked.rows, picked.target_s, picked.num, design->num_columns, start,
                      DRAW_TOLERANCE, picked.work, draws + (int64_t)b * design->num_columns);
    }
out:
    picked_fini(&picked);
    free(members);
    free(begins);
    return status;
}

double ep_fit_expanded_tail(double level, int64_t num_clusters)
{
    const double n = (double)num_clusters;
    const double t = gsl_cdf_tdist_Pinv((1 + level) / 2, n - 1);
    return gsl_cdf_ugaussian_P(-sqrt(n / (n - 1)) * t);
}
