/* SPDX-License-Identifier: Apache-2.0 */
/* Fits of one rung, held-out predictions and bootstrap draws. */
#include "results/fit_rung.h"

#include "base/random.h"
#include "base/stats.h"
#include "results/fit_design.h"
#include "results/robust.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = EP_RUNG_MAX_COLUMNS, MAX_STARTS = 4 };

#define TOLERANCE 1e-8
/* Schedules are dear to follow. */
#define SCHEDULE_TOLERANCE 1e-5
/* A draw only has to be right to far less than the width of an interval. */
#define DRAW_TOLERANCE 1e-4

/* Room for a choice of cases and their fit. */
struct picked {
    const struct ep_fit_design *design;
    int64_t *cases; /* [num] */
    double *rows;
    double *target_s;
    int64_t num;
    struct ep_robust_work *work;
};

static enum ep_status picked_init(const struct ep_fit_design *design, int64_t most,
                                  struct picked *picked)
{
    *picked = (struct picked){
        .design = design,
        .cases = calloc((size_t)most + 1, sizeof *picked->cases),
        .rows = calloc((size_t)(most * design->num_columns) + 1, sizeof *picked->rows),
        .target_s = calloc((size_t)most + 1, sizeof *picked->target_s),
    };
    if (picked->cases == NULL || picked->rows == NULL || picked->target_s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to fit");
    }
    return ep_robust_work_create(most, &picked->work);
}

static void picked_fini(struct picked *picked)
{
    free(picked->cases);
    free(picked->rows);
    free(picked->target_s);
    ep_robust_work_destroy(picked->work);
}

static void pick(const struct ep_fit_design *design, int64_t i, struct picked *picked)
{
    const int width = design->num_columns;
    memcpy(picked->rows + picked->num * width, design->rows + i * width,
           (size_t)width * sizeof *picked->rows);
    picked->cases[picked->num] = i;
    picked->target_s[picked->num++] = design->target_s[i];
}

/* For ep_robust_fit(): a bootstrap's cases come in runs of one cluster, never twice in a row. */
static void fill_picked_rows(void *context, const double *coefficients, double *rows)
{
    const struct picked *picked = context;
    ep_fit_design_fill(picked->design, picked->cases, picked->num, coefficients, rows);
}

static struct ep_robust_problem problem_of(struct picked *picked)
{
    return (struct ep_robust_problem){
        .design = picked->rows,
        .target = picked->target_s,
        .num_rows = picked->num,
        .num_columns = picked->design->num_columns,
        .fill_rows = picked->design->linear ? NULL : fill_picked_rows,
        .context = picked,
    };
}

/* A low quantile of what a column alone would have to cost to explain each case's time: no term can
 * take longer than the whole. scratch [num] */
static double most_of_column(const struct picked *picked, int column, double tail, double *scratch)
{
    const struct ep_fit_design *design = picked->design;
    int64_t num = 0;
    for (int64_t i = 0; i < picked->num; i++) {
        const double alone = design->rows[picked->cases[i] * design->num_columns + column];
        if (alone > 0) {
            scratch[num++] = picked->target_s[i] / alone;
        }
    }
    if (num == 0) {
        return 0;
    }
    ep_stats_sort(scratch, num);
    return ep_stats_quantile_sorted(scratch, num, tail);
}

/* From where ports and schedules begin: every term at the most it can be, with times (latencies)
 * smaller; or all but one much smaller, one after the other. */
static void make_start(const struct picked *picked, int which, double *scratch, double *start)
{
    const struct ep_fit_design *design = picked->design;
    int bandwidths = 0;
    for (int j = 0; j < design->form.num_columns; j++) {
        const struct ep_rung_parameter *p = ep_fit_design_parameter(design, j);
        if (design->column_of[j] < 0 || design->merged_into[j] >= 0) {
            continue;
        }
        double value = most_of_column(picked, design->column_of[j], 0.05, scratch);
        if (p->form == EP_PARAMETER_TIME) {
            value *= 0.3;
        } else {
            bandwidths++;
            value *= which == 0 || bandwidths == which ? 1 : 0.3;
        }
        start[design->column_of[j]] = value;
    }
}

/* From several starts; the one with the least loss. */
static double fit_from_starts(struct picked *picked, double *scratch, double *coefficients)
{
    const struct ep_robust_problem problem = problem_of(picked);
    const int width = picked->design->num_columns;
    double least = HUGE_VAL;
    const struct ep_fit_design *design = picked->design;
    const bool once = design->linear || design->has_start || design->form.rung->one_start;
    const double tolerance =
        design->form.rung->follow != NULL ? SCHEDULE_TOLERANCE : TOLERANCE;
    for (int i = 0; i < (once ? 1 : MAX_STARTS); i++) {
        double start[MAX_COLUMNS], found[MAX_COLUMNS];
        if (design->has_start) {
            memcpy(start, design->start, sizeof start);
        } else if (!design->linear) {
            make_start(picked, i, scratch, start);
        }
        ep_robust_fit(&problem, design->linear ? NULL : start, tolerance, picked->work,
                      found);
        const double loss = ep_robust_loss(&problem, picked->work);
        if (loss < least || i == 0) {
            least = loss;
            memcpy(coefficients, found, (size_t)width * sizeof *coefficients);
        }
    }
    return least;
}

/* Two ports can explain the same cases (of even loads, the rank's and the memory's). One that lowers
 * the loss by less than 1 % is left out, the last of the table first: it would bind elsewhere. */
static double drop_needless_ports(struct picked *picked, double loss, double *coefficients)
{
    const struct ep_fit_design *design = picked->design;
    const struct ep_robust_problem problem = problem_of(picked);
    const struct ep_rung *rung = design->form.rung;
    for (int j = rung->num_parameters - 1; j >= 0 && !design->linear; j--) {
        double start[MAX_COLUMNS], found[MAX_COLUMNS];
        bool binds = false;
        memcpy(start, coefficients, sizeof start);
        for (int k = 0; k < design->form.width[j]; k++) {
            const int column = design->form.first_column[j] + k;
            if (design->column_of[column] >= 0 && design->merged_into[column] < 0) {
                binds = binds || start[design->column_of[column]] > 0;
                start[design->column_of[column]] = 0;
            }
        }
        if (rung->parameters[j].role != EP_ROLE_PORT || !binds) {
            continue;
        }
        ep_robust_fit(&problem, start, TOLERANCE, picked->work, found);
        const double without = ep_robust_loss(&problem, picked->work);
        if (without <= 1.01 * loss + 1e-6) {
            loss = without;
            memcpy(coefficients, found, (size_t)design->num_columns * sizeof *coefficients);
        }
    }
    return loss;
}

/* Fit to what was picked. loss as in ep_fit_subset(). */
static enum ep_status fit_picked(struct picked *picked, double *coefficients, double *loss)
{
    double found[MAX_COLUMNS] = {0};
    double *scratch = calloc((size_t)picked->num + 1, sizeof *scratch);
    if (scratch == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to fit");
    }
    const double least = drop_needless_ports(picked, fit_from_starts(picked, scratch, found), found);
    memcpy(coefficients, found, (size_t)picked->design->num_columns * sizeof *coefficients);
    free(scratch);
    if (loss != NULL) {
        *loss = least;
    }
    return EP_OK;
}

enum ep_status ep_fit_subset(const struct ep_fit_design *design, const bool *keep,
                             double *coefficients, double *loss)
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
    EP_TRY(fit_picked(&picked, coefficients, loss));
out:
    picked_fini(&picked);
    return status;
}

enum ep_status ep_fit_hold_out(const struct ep_fit_design *design, const int64_t *folds,
                               int64_t num_folds, double *held_out_s)
{
    bool *keep = calloc((size_t)design->num_cases + 1, sizeof *keep);
    double *times_s = calloc((size_t)design->num_cases + 1, sizeof *times_s);
    enum ep_status status = keep != NULL && times_s != NULL
                                ? EP_OK
                                : ep_error_set(EP_ENOMEM, "no memory for folds");
    for (int64_t f = 0; f < num_folds && status == EP_OK; f++) {
        double coefficients[MAX_COLUMNS];
        for (int64_t i = 0; i < design->num_cases; i++) {
            keep[i] = folds[i] != f;
        }
        status = ep_fit_subset(design, keep, coefficients, NULL);
        const bool too_few = status == EP_EINVAL;
        if (too_few) {
            ep_error_clear();
            status = EP_OK;
        } else if (status == EP_OK) {
            status = ep_fit_design_predict(design, coefficients, times_s);
        }
        for (int64_t i = 0; i < design->num_cases && status == EP_OK; i++) {
            if (folds[i] == f) {
                held_out_s[i] = too_few ? NAN : times_s[i];
            }
        }
    }
    free(keep);
    free(times_s);
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

/* Flows are dear to follow, and what binds hardly changes within an interval: their draws keep the
 * rows that bind at the fit to all. rows is to be freed. */
static enum ep_status freeze_schedule(const struct ep_fit_design *design, const double *start,
                                      struct ep_fit_design *frozen, double **rows)
{
    *frozen = *design;
    *rows = NULL;
    if (!design->form.rung->one_start) {
        return EP_OK;
    }
    *rows = calloc((size_t)(design->num_cases * design->num_columns) + 1, sizeof **rows);
    if (*rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a bootstrap");
    }
    ep_fit_design_fill(design, NULL, design->num_cases, start, *rows);
    frozen->rows = *rows;
    frozen->linear = true;
    return EP_OK;
}

enum ep_status ep_fit_bootstrap(const struct ep_fit_design *whole, const int64_t *clusters,
                                int64_t num_clusters, int num_bootstraps, uint64_t seed,
                                const double *start, double *draws)
{
    enum ep_status status = EP_OK;
    int64_t *members = NULL, *begins = NULL;
    struct picked picked = {0};
    struct ep_fit_design frozen;
    const struct ep_fit_design *design = &frozen;
    double *rows = NULL;
    int64_t largest = 0;
    EP_TRY(freeze_schedule(whole, start, &frozen, &rows));
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
        const struct ep_robust_problem problem = problem_of(&picked);
        ep_robust_fit(&problem, start, DRAW_TOLERANCE, picked.work,
                      draws + (int64_t)b * design->num_columns);
    }
out:
    picked_fini(&picked);
    free(rows);
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
