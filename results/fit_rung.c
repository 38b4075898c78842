/* SPDX-License-Identifier: Apache-2.0 */
/* Designs, held-out predictions and bootstrap draws of one rung. */
#include "results/fit_rung.h"

#include "base/random.h"
#include "base/stats.h"

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

static const struct ep_rung_parameter *parameter_of(const struct ep_rung_form *form, int column)
{
    int j = 0;
    while (column >= form->first_column[j] + form->width[j]) {
        j++;
    }
    return &form->rung->parameters[j];
}

/* Chains and flows depend on all rates together; times of a schedule may still be one constant. */
static bool may_join(const struct ep_rung_parameter *p)
{
    return p->role != EP_ROLE_SCHEDULE || p->form == EP_PARAMETER_TIME;
}

/* Columns that are nowhere above 0 are left out. Parameters of one form in proportion are one: at a
 * single P, l + a n. full [num_cases * form->num_columns] */
static void choose_columns(const double *full, struct ep_fit_design *design)
{
    const struct ep_rung_form *form = &design->form;
    const int width = form->num_columns;
    for (int j = 0; j < width; j++) {
        bool there = false;
        design->merged_into[j] = -1;
        design->ratio[j] = 1;
        design->column_of[j] = -1;
        for (int64_t i = 0; i < design->num_cases && !there; i++) {
            there = full[i * width + j] > 0;
        }
        for (int i = 0; i < j && there && design->merged_into[j] < 0; i++) {
            double ratio = 0;
            if (parameter_of(form, i)->form == parameter_of(form, j)->form &&
                may_join(parameter_of(form, i)) && design->column_of[i] >= 0 &&
                design->merged_into[i] < 0 &&
                is_proportional(full + j, width, full + i, width, design->num_cases, &ratio)) {
                design->merged_into[j] = i;
                design->ratio[j] = ratio;
                design->column_of[j] = design->column_of[i];
            }
        }
        if (there && design->merged_into[j] < 0) {
            design->column_of[j] = design->num_columns++;
        }
    }
}

/* A column by itself: all other coefficients 0, so a port is the slowest and a chain the heaviest. */
static bool fill_alone(const struct ep_rung_form *form, const struct ep_model_case *c, double *full)
{
    double row[MAX_COLUMNS], one[MAX_COLUMNS] = {0};
    for (int j = 0; j < form->num_columns; j++) {
        one[j] = 1;
        if (!ep_rung_row(form, c, one, row)) {
            return false;
        }
        full[j] = row[j];
        one[j] = 0;
    }
    return true;
}

/* With one port at most and no schedule, rows are what they are. */
static bool is_linear(const struct ep_fit_design *design)
{
    const struct ep_rung_parameter *port = NULL;
    for (int j = 0; j < design->form.num_columns; j++) {
        const struct ep_rung_parameter *p = parameter_of(&design->form, j);
        if (design->column_of[j] < 0 || design->merged_into[j] >= 0 || p->role == EP_ROLE_SUM) {
            continue;
        }
        if (p->role == EP_ROLE_SCHEDULE || (port != NULL && port != p)) {
            return false;
        }
        port = p;
    }
    return true;
}

enum ep_status ep_fit_design_init(const struct ep_rung_form *form, const struct ep_fit_case *cases,
                                  int64_t num_cases, struct ep_fit_design *design)
{
    enum ep_status status = EP_OK;
    const int width = form->num_columns;
    struct ep_fit_design made = {.form = *form, .cases = cases, .num_cases = num_cases};
    double *full = calloc((size_t)(num_cases * width) + 1, sizeof *full);
    made.rows = calloc((size_t)(num_cases * width) + 1, sizeof *made.rows);
    made.target_s = calloc((size_t)num_cases + 1, sizeof *made.target_s);
    if (full == NULL || made.rows == NULL || made.target_s == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for a design"));
    }
    for (int64_t i = 0; i < num_cases; i++) {
        made.target_s[i] = cases[i].time_s;
        if (!fill_alone(form, &cases[i].model, full + i * width)) {
            EP_TRY(ep_error_set(EP_EINVAL, "case '%s' has no message matrix, which %s needs",
                                cases[i].case_name, form->rung->name));
        }
    }
    choose_columns(full, &made);
    made.linear = is_linear(&made);
    for (int64_t i = 0; i < num_cases; i++) {
        for (int j = 0; j < width; j++) {
            if (made.column_of[j] >= 0 && made.merged_into[j] < 0) {
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

void ep_fit_design_expand(const struct ep_fit_design *design, const double *coefficients,
                          double *full)
{
    for (int j = 0; j < design->form.num_columns; j++) {
        const bool own = design->column_of[j] >= 0 && design->merged_into[j] < 0;
        full[j] = own ? coefficients[design->column_of[j]] : 0;
    }
}

/* The row of one case at coefficients; full is these, expanded. */
static void fill_row(const struct ep_fit_design *design, int64_t i, const double *full, double *row)
{
    double wide[MAX_COLUMNS];
    ep_rung_row(&design->form, &design->cases[i].model, full, wide);
    for (int j = 0; j < design->form.num_columns; j++) {
        if (design->column_of[j] >= 0 && design->merged_into[j] < 0) {
            row[design->column_of[j]] = wide[j];
        }
    }
}

bool ep_fit_design_is_same(const struct ep_fit_design *a, const struct ep_fit_design *b)
{
    if (a->num_columns != b->num_columns || !a->linear || !b->linear) {
        return false;
    }
    bool taken[MAX_COLUMNS] = {false};
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

enum ep_status ep_fit_design_predict(const struct ep_fit_design *design,
                                     const double *coefficients, double *times_s)
{
    double full[MAX_COLUMNS];
    ep_fit_design_expand(design, coefficients, full);
    for (int64_t i = 0; i < design->num_cases; i++) {
        double row[MAX_COLUMNS];
        if (design->linear) {
            memcpy(row, design->rows + i * design->num_columns,
                   (size_t)design->num_columns * sizeof *row);
        } else {
            fill_row(design, i, full, row);
        }
        times_s[i] = dot(row, coefficients, design->num_columns);
        if (!isfinite(times_s[i])) {
            return ep_error_set(EP_ENOMEM, "no memory to follow messages");
        }
    }
    return EP_OK;
}

enum ep_status ep_fit_design_rows(const struct ep_fit_design *design, const double *coefficients,
                                  double **rows, int *num_columns)
{
    const int width = design->num_columns;
    double full[MAX_COLUMNS];
    double *made = calloc((size_t)(design->num_cases * width) + 1, sizeof *made);
    bool kept[MAX_COLUMNS] = {false};
    int num = 0;
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for rows");
    }
    ep_fit_design_expand(design, coefficients, full);
    for (int64_t i = 0; i < design->num_cases; i++) {
        if (design->linear) {
            memcpy(made + i * width, design->rows + i * width, (size_t)width * sizeof *made);
        } else {
            fill_row(design, i, full, made + i * width);
        }
        for (int j = 0; j < width; j++) {
            kept[j] = kept[j] || made[i * width + j] > 0;
        }
    }
    for (int j = 0; j < width; j++) {
        num += kept[j];
    }
    for (int64_t i = 0, to = 0; i < design->num_cases; i++) {
        for (int j = 0; j < width; j++) {
            if (kept[j]) {
                made[to++] = made[i * width + j];
            }
        }
    }
    *rows = made;
    *num_columns = num;
    return EP_OK;
}

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
    double full[MAX_COLUMNS];
    ep_fit_design_expand(picked->design, coefficients, full);
    for (int64_t i = 0; i < picked->num; i++) {
        fill_row(picked->design, picked->cases[i], full, rows + i * picked->design->num_columns);
    }
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
        const struct ep_rung_parameter *p = parameter_of(&design->form, j);
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
    const bool once = picked->design->linear || picked->design->form.rung->one_start;
    const double tolerance =
        picked->design->form.rung->follow != NULL ? SCHEDULE_TOLERANCE : TOLERANCE;
    for (int i = 0; i < (once ? 1 : MAX_STARTS); i++) {
        double start[MAX_COLUMNS], found[MAX_COLUMNS];
        if (!picked->design->linear) {
            make_start(picked, i, scratch, start);
        }
        ep_robust_fit(&problem, picked->design->linear ? NULL : start, tolerance, picked->work,
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
    const int width = design->num_columns;
    double full[MAX_COLUMNS];
    *rows = calloc((size_t)(design->num_cases * width) + 1, sizeof **rows);
    if (*rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a bootstrap");
    }
    ep_fit_design_expand(design, start, full);
    for (int64_t i = 0; i < design->num_cases; i++) {
        fill_row(design, i, full, *rows + i * width);
    }
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
