/* SPDX-License-Identifier: Apache-2.0 */
/* Non-negative least squares and the bisquare loop around it. */
#include "results/robust.h"

#include <gsl/gsl_eigen.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = EP_ROBUST_MAX_COLUMNS, MAX_ITERATIONS = 200 };

struct ep_robust_work {
    double *fitted;    /* [num_rows] */
    double *residual;  /* [num_rows] relative */
    double *scratch;   /* [num_rows] for order statistics */
    double *weight;    /* [num_rows] */
};

enum ep_status ep_robust_work_create(int64_t num_rows, struct ep_robust_work **work)
{
    struct ep_robust_work *made = calloc(1, sizeof *made);
    double *room = calloc((size_t)num_rows * 4 + 1, sizeof *room);
    if (made == NULL || room == NULL) {
        free(made);
        free(room);
        return ep_error_set(EP_ENOMEM, "no memory to fit %lld rows", (long long)num_rows);
    }
    made->fitted = room;
    made->residual = room + num_rows;
    made->scratch = room + 2 * num_rows;
    made->weight = room + 3 * num_rows;
    *work = made;
    return EP_OK;
}

void ep_robust_work_destroy(struct ep_robust_work *work)
{
    if (work != NULL) {
        free(work->fitted);
        free(work);
    }
}

/* Solve A x = b of `num` unknowns by Cholesky, A with unit diagonal; false where A is singular. */
static bool solve_cholesky(double a[MAX_COLUMNS][MAX_COLUMNS], const double *b, int num, double *x)
{
    for (int j = 0; j < num; j++) {
        double pivot = a[j][j];
        for (int k = 0; k < j; k++) {
            pivot -= a[j][k] * a[j][k];
        }
        /* Below rounding of the sums that made A, a column depends on those before it. */
        if (!(pivot > 1e-12)) {
            return false;
        }
        a[j][j] = sqrt(pivot);
        for (int i = j + 1; i < num; i++) {
            double sum = a[i][j];
            for (int k = 0; k < j; k++) {
                sum -= a[i][k] * a[j][k];
            }
            a[i][j] = sum / a[j][j];
        }
    }
    for (int i = 0; i < num; i++) {
        double sum = b[i];
        for (int k = 0; k < i; k++) {
            sum -= a[i][k] * x[k];
        }
        x[i] = sum / a[i][i];
    }
    for (int i = num - 1; i >= 0; i--) {
        double sum = x[i];
        for (int k = i + 1; k < num; k++) {
            sum -= a[k][i] * x[k];
        }
        x[i] = sum / a[i][i];
    }
    return true;
}

/* Normal equations with columns scaled to unit norm; columns of zeros have norm 0. */
struct scaled {
    int num;
    double norm[MAX_COLUMNS];
    double gram[MAX_COLUMNS][MAX_COLUMNS];
    double rhs[MAX_COLUMNS];
};

/* The columns of `set`, regardless of sign; the others are 0. False where they are dependent. */
static bool solve_set(const struct scaled *s, const bool *set, double *x)
{
    int columns[MAX_COLUMNS];
    int num = 0;
    double a[MAX_COLUMNS][MAX_COLUMNS];
    double b[MAX_COLUMNS];
    double found[MAX_COLUMNS];
    for (int j = 0; j < s->num; j++) {
        x[j] = 0;
        if (set[j]) {
            columns[num++] = j;
        }
    }
    for (int i = 0; i < num; i++) {
        b[i] = s->rhs[columns[i]];
        for (int j = 0; j <= i; j++) {
            a[i][j] = s->gram[columns[i]][columns[j]];
        }
    }
    if (!solve_cholesky(a, b, num, found)) {
        return false;
    }
    for (int i = 0; i < num; i++) {
        x[columns[i]] = found[i];
    }
    return true;
}

/* Go from x towards `next` until the first coefficient of the set would be negative; it leaves. */
static bool step_back(int num, bool *set, double *x, const double *next)
{
    double share = 1;
    for (int j = 0; j < num; j++) {
        if (set[j] && !(next[j] > 0)) {
            share = fmin(share, x[j] / (x[j] - next[j]));
        }
    }
    if (share == 1) {
        memcpy(x, next, (size_t)num * sizeof *x);
        return false;
    }
    for (int j = 0; j < num; j++) {
        x[j] += share * (next[j] - x[j]);
        if (set[j] && !(next[j] > 0) && x[j] <= 1e-15) {
            x[j] = 0;
            set[j] = false;
        }
    }
    return true;
}

/* The inactive column along which the sum of squares falls fastest; -1 = along none. */
static int steepest(const struct scaled *s, const bool *set, const bool *banned, const double *x)
{
    int best = -1;
    double most = 0;
    for (int j = 0; j < s->num; j++) {
        double slope = s->rhs[j];
        for (int i = 0; i < s->num; i++) {
            slope -= s->gram[j][i] * x[i];
        }
        if (!set[j] && !banned[j] && s->norm[j] > 0 && slope > 1e-11 * fabs(s->rhs[j]) &&
            slope > most) {
            most = slope;
            best = j;
        }
    }
    return best;
}

void ep_robust_solve_nonnegative(const double *gram, const double *rhs, int num_columns,
                                 double *coefficients)
{
    struct scaled s = {.num = num_columns};
    bool set[MAX_COLUMNS] = {false}, banned[MAX_COLUMNS] = {false};
    double x[MAX_COLUMNS] = {0}, next[MAX_COLUMNS];
    bool all_there = true, all_positive = true;
    for (int i = 0; i < num_columns; i++) {
        s.norm[i] = sqrt(gram[i * num_columns + i]);
        all_there = all_there && s.norm[i] > 0;
        set[i] = true;
    }
    for (int i = 0; i < num_columns; i++) {
        s.rhs[i] = s.norm[i] > 0 ? rhs[i] / s.norm[i] : 0;
        for (int j = 0; j < num_columns; j++) {
            const double scale = s.norm[i] * s.norm[j];
            s.gram[i][j] = scale > 0 ? gram[i * num_columns + j] / scale : 0;
        }
    }
    /* Nearly always no sign constraint binds. */
    all_positive = all_there && solve_set(&s, set, next);
    for (int j = 0; j < num_columns && all_positive; j++) {
        all_positive = next[j] >= 0;
    }
    if (all_positive) {
        memcpy(x, next, sizeof x);
    } else {
        memset(set, 0, sizeof set);
        /* Each round adds a column and the sum of squares falls, so no set comes twice. */
        for (int round = 0, add; round < 64 && (add = steepest(&s, set, banned, x)) >= 0; round++) {
            set[add] = true;
            bool solved = solve_set(&s, set, next);
            if (!solved || !(next[add] > 0)) {
                set[add] = false;
                banned[add] = true;
                continue;
            }
            while (solved && step_back(num_columns, set, x, next)) {
                solved = solve_set(&s, set, next);
            }
            memset(banned, 0, sizeof banned);
        }
    }
    for (int j = 0; j < num_columns; j++) {
        coefficients[j] = s.norm[j] > 0 ? x[j] / s.norm[j] : 0;
    }
}

/* Weighted least squares with the weights of `work`. A column of zeros keeps its coefficient: it
 * binds in no row now, and may again. */
static void solve_weighted(const struct ep_robust_problem *p, const struct ep_robust_work *work,
                           double *coefficients)
{
    const int num_columns = p->num_columns;
    double gram[MAX_COLUMNS * MAX_COLUMNS] = {0};
    double rhs[MAX_COLUMNS] = {0};
    double solved[MAX_COLUMNS];
    for (int64_t r = 0; r < p->num_rows; r++) {
        const double *row = p->design + r * num_columns;
        if (work->weight[r] == 0) {
            continue;
        }
        for (int i = 0; i < num_columns; i++) {
            const double weighted = work->weight[r] * row[i];
            rhs[i] += weighted * p->target[r];
            for (int j = 0; j <= i; j++) {
                gram[i * num_columns + j] += weighted * row[j];
            }
        }
    }
    for (int i = 0; i < num_columns; i++) {
        for (int j = i + 1; j < num_columns; j++) {
            gram[i * num_columns + j] = gram[j * num_columns + i];
        }
    }
    ep_robust_solve_nonnegative(gram, rhs, num_columns, solved);
    for (int i = 0; i < num_columns; i++) {
        if (p->fill_rows == NULL || gram[i * num_columns + i] > 0) {
            coefficients[i] = solved[i];
        }
    }
}

/* Fitted values, and by how much they moved at most, relative to the target. */
static double update_fitted(const struct ep_robust_problem *p, const double *coefficients,
                            double *fitted)
{
    double moved = 0;
    if (p->fill_rows != NULL) {
        p->fill_rows(p->context, coefficients, p->design);
    }
    for (int64_t r = 0; r < p->num_rows; r++) {
        double value = 0;
        for (int j = 0; j < p->num_columns; j++) {
            value += coefficients[j] * p->design[r * p->num_columns + j];
        }
        moved = fmax(moved, fabs(value - fitted[r]) / p->target[r]);
        fitted[r] = value;
    }
    return moved;
}

static void weigh_by_target(const struct ep_robust_problem *p, struct ep_robust_work *work)
{
    for (int64_t r = 0; r < p->num_rows; r++) {
        work->weight[r] = 1 / (p->target[r] * p->target[r]);
    }
}

static void update_weights(const struct ep_robust_problem *p, struct ep_robust_work *work)
{
    const int64_t num_rows = p->num_rows;
    for (int64_t r = 0; r < num_rows; r++) {
        /* A fitted value far below the target would blow the row up without end. */
        const double scale = fmax(work->fitted[r], 1e-3 * p->target[r]);
        work->residual[r] = (p->target[r] - work->fitted[r]) / scale;
        work->scratch[r] = fabs(work->residual[r]);
        work->weight[r] = 1 / (scale * scale);
    }
    /* The median of all but the num_columns smallest: as many are small by construction. */
    const size_t middle = (size_t)(p->num_columns + (num_rows - p->num_columns) / 2);
    const double median = gsl_stats_select(work->scratch, 1, (size_t)num_rows, middle);
    const double sigma = fmax(median / 0.6745, 1e-9);
    for (int64_t r = 0; r < num_rows; r++) {
        const double u = work->residual[r] / (4.685 * sigma);
        const double v = u * u < 1 ? 1 - u * u : 0;
        work->weight[r] *= v * v;
    }
}

/* Rows that depend on coefficients: solve, move there in steps that shrink (two rows that take
 * turns to bind would otherwise never settle), until fitted values stand or `most` times. */
static void iterate(const struct ep_robust_problem *p, bool robust, int most, double tolerance,
                    struct ep_robust_work *work, double *coefficients)
{
    double moved = HUGE_VAL;
    double share = 1;
    for (int i = 0; i < most && moved > tolerance; i++) {
        double next[MAX_COLUMNS];
        if (robust) {
            update_weights(p, work);
        }
        memcpy(next, coefficients, (size_t)p->num_columns * sizeof *next);
        solve_weighted(p, work, next);
        share = p->fill_rows != NULL && i >= 8 && i % 4 == 0 ? 0.7 * share : share;
        for (int j = 0; j < p->num_columns; j++) {
            coefficients[j] += share * (next[j] - coefficients[j]);
        }
        moved = update_fitted(p, coefficients, work->fitted);
    }
}

/* What binds in no row is not known to take any time. */
static void forget_idle(const struct ep_robust_problem *p, double *coefficients)
{
    for (int j = 0; j < p->num_columns; j++) {
        bool binds = false;
        for (int64_t r = 0; r < p->num_rows && !binds; r++) {
            binds = p->design[r * p->num_columns + j] > 0;
        }
        coefficients[j] = binds ? coefficients[j] : 0;
    }
}

void ep_robust_fit(const struct ep_robust_problem *p, const double *start, double tolerance,
                   struct ep_robust_work *work, double *coefficients)
{
    enum { RELATIVE_ITERATIONS = 8 };
    EP_ASSERT(p->num_columns >= 1 && p->num_columns <= MAX_COLUMNS);
    EP_ASSERT(p->fill_rows == NULL || start != NULL);
    const bool is_draw = start != NULL && p->fill_rows == NULL;
    memset(work->fitted, 0, (size_t)p->num_rows * sizeof *work->fitted);
    if (start != NULL) {
        memcpy(coefficients, start, (size_t)p->num_columns * sizeof *coefficients);
        update_fitted(p, coefficients, work->fitted);
    }
    if (!is_draw) {
        weigh_by_target(p, work);
    }
    if (start == NULL) {
        solve_weighted(p, work, coefficients);
        update_fitted(p, coefficients, work->fitted);
    } else if (p->fill_rows != NULL) {
        iterate(p, false, RELATIVE_ITERATIONS, 1e-3, work, coefficients);
    }
    if (p->num_rows >= p->num_columns + 3) {
        iterate(p, true, MAX_ITERATIONS, tolerance, work, coefficients);
    }
    if (p->fill_rows != NULL) {
        forget_idle(p, coefficients);
    }
}

double ep_robust_loss(const struct ep_robust_problem *p, const struct ep_robust_work *work)
{
    double sum = 0;
    for (int64_t r = 0; r < p->num_rows; r++) {
        sum += fmin(1, fabs(p->target[r] - work->fitted[r]) / p->target[r]);
    }
    return sum / (double)p->num_rows;
}

enum ep_status ep_robust_condition(const double *design, const double *scale, int64_t num_rows,
                                   int num_columns, double *condition)
{
    double gram[MAX_COLUMNS * MAX_COLUMNS] = {0};
    for (int64_t r = 0; r < num_rows; r++) {
        for (int i = 0; i < num_columns; i++) {
            for (int j = 0; j < num_columns; j++) {
                gram[i * num_columns + j] += design[r * num_columns + i] / scale[r] *
                                             (design[r * num_columns + j] / scale[r]);
            }
        }
    }
    double norms[MAX_COLUMNS];
    for (int i = 0; i < num_columns; i++) {
        norms[i] = sqrt(gram[i * num_columns + i]);
        if (!(norms[i] > 0)) {
            *condition = HUGE_VAL;
            return EP_OK;
        }
    }
    gsl_matrix *matrix = gsl_matrix_alloc((size_t)num_columns, (size_t)num_columns);
    gsl_vector *values = gsl_vector_alloc((size_t)num_columns);
    gsl_eigen_symm_workspace *room = gsl_eigen_symm_alloc((size_t)num_columns);
    enum ep_status status = EP_OK;
    if (matrix == NULL || values == NULL || room == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a condition number");
    } else {
        for (int i = 0; i < num_columns; i++) {
            for (int j = 0; j < num_columns; j++) {
                gsl_matrix_set(matrix, (size_t)i, (size_t)j,
                               gram[i * num_columns + j] / (norms[i] * norms[j]));
            }
        }
        gsl_eigen_symm(matrix, values, room);
        /* Singular values are the roots of the Gram matrix's eigenvalues; below 1e-12 is rounding. */
        const double least = gsl_vector_min(values);
        *condition = least > 1e-12 ? sqrt(gsl_vector_max(values) / least) : HUGE_VAL;
    }
    gsl_eigen_symm_free(room);
    gsl_vector_free(values);
    gsl_matrix_free(matrix);
    return status;
}
