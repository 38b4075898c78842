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

/* Solve with the columns of `set`; false where it is singular or leaves the feasible region.
 * *gain is by how much the sum of squares falls. Columns are scaled to unit norm. */
static bool solve_set(const double *gram, const double *rhs, int num_columns, unsigned set,
                      double *coefficients, double *gain)
{
    int columns[MAX_COLUMNS];
    int num = 0;
    double a[MAX_COLUMNS][MAX_COLUMNS];
    double b[MAX_COLUMNS];
    double x[MAX_COLUMNS];
    for (int j = 0; j < num_columns; j++) {
        if ((set >> j & 1u) != 0) {
            columns[num++] = j;
        }
    }
    for (int i = 0; i < num; i++) {
        const double norm = sqrt(gram[columns[i] * num_columns + columns[i]]);
        if (!(norm > 0)) {
            return false;
        }
        b[i] = rhs[columns[i]] / norm;
        for (int j = 0; j <= i; j++) {
            const double other = sqrt(gram[columns[j] * num_columns + columns[j]]);
            a[i][j] = gram[columns[i] * num_columns + columns[j]] / (norm * other);
        }
    }
    if (!solve_cholesky(a, b, num, x)) {
        return false;
    }
    memset(coefficients, 0, (size_t)num_columns * sizeof *coefficients);
    *gain = 0;
    for (int i = 0; i < num; i++) {
        if (!(x[i] >= 0)) {
            return false;
        }
        *gain += b[i] * x[i];
        coefficients[columns[i]] = x[i] / sqrt(gram[columns[i] * num_columns + columns[i]]);
    }
    return true;
}

void ep_robust_solve_nonnegative(const double *gram, const double *rhs, int num_columns,
                                 double *coefficients)
{
    const unsigned all = (1u << num_columns) - 1;
    double best = 0;
    /* Nearly always no sign constraint binds. */
    if (solve_set(gram, rhs, num_columns, all, coefficients, &best)) {
        return;
    }
    memset(coefficients, 0, (size_t)num_columns * sizeof *coefficients);
    best = 0;
    for (unsigned set = 1; set < all; set++) {
        double tried[MAX_COLUMNS];
        double gain = 0;
        if (solve_set(gram, rhs, num_columns, set, tried, &gain) && gain > best) {
            best = gain;
            memcpy(coefficients, tried, (size_t)num_columns * sizeof *coefficients);
        }
    }
}

/* Weighted least squares with the weights of `work`. */
static void solve_weighted(const double *design, const double *target, int64_t num_rows,
                           int num_columns, const struct ep_robust_work *work,
                           double *coefficients)
{
    double gram[MAX_COLUMNS * MAX_COLUMNS] = {0};
    double rhs[MAX_COLUMNS] = {0};
    for (int64_t r = 0; r < num_rows; r++) {
        const double *row = design + r * num_columns;
        for (int i = 0; i < num_columns; i++) {
            const double weighted = work->weight[r] * row[i];
            rhs[i] += weighted * target[r];
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
    ep_robust_solve_nonnegative(gram, rhs, num_columns, coefficients);
}

/* Fitted values, and by how much they moved at most, relative to the target. */
static double update_fitted(const double *design, const double *target, int64_t num_rows,
                            int num_columns, const double *coefficients, double *fitted)
{
    double moved = 0;
    for (int64_t r = 0; r < num_rows; r++) {
        double value = 0;
        for (int j = 0; j < num_columns; j++) {
            value += coefficients[j] * design[r * num_columns + j];
        }
        moved = fmax(moved, fabs(value - fitted[r]) / target[r]);
        fitted[r] = value;
    }
    return moved;
}

static void update_weights(const double *target, int64_t num_rows, int num_columns,
                           struct ep_robust_work *work)
{
    for (int64_t r = 0; r < num_rows; r++) {
        /* A fitted value far below the target would blow the row up without end. */
        const double scale = fmax(work->fitted[r], 1e-3 * target[r]);
        work->residual[r] = (target[r] - work->fitted[r]) / scale;
        work->scratch[r] = fabs(work->residual[r]);
        work->weight[r] = 1 / (scale * scale);
    }
    /* The median of all but the num_columns smallest: as many are small by construction. */
    const size_t middle = (size_t)(num_columns + (num_rows - num_columns) / 2);
    const double median = gsl_stats_select(work->scratch, 1, (size_t)num_rows, middle);
    const double sigma = fmax(median / 0.6745, 1e-9);
    for (int64_t r = 0; r < num_rows; r++) {
        const double u = work->residual[r] / (4.685 * sigma);
        const double v = u * u < 1 ? 1 - u * u : 0;
        work->weight[r] *= v * v;
    }
}

void ep_robust_fit(const double *design, const double *target, int64_t num_rows, int num_columns,
                   const double *start, double tolerance, struct ep_robust_work *work,
                   double *coefficients)
{
    EP_ASSERT(num_columns >= 1 && num_columns <= MAX_COLUMNS);
    if (start != NULL) {
        memcpy(coefficients, start, (size_t)num_columns * sizeof *coefficients);
    } else {
        for (int64_t r = 0; r < num_rows; r++) {
            work->weight[r] = 1 / (target[r] * target[r]);
        }
        solve_weighted(design, target, num_rows, num_columns, work, coefficients);
    }
    if (num_rows < num_columns + 3) {
        return;
    }
    memset(work->fitted, 0, (size_t)num_rows * sizeof *work->fitted);
    update_fitted(design, target, num_rows, num_columns, coefficients, work->fitted);
    double moved = HUGE_VAL;
    for (int i = 0; i < MAX_ITERATIONS && moved > tolerance; i++) {
        update_weights(target, num_rows, num_columns, work);
        solve_weighted(design, target, num_rows, num_columns, work, coefficients);
        moved = update_fitted(design, target, num_rows, num_columns, coefficients, work->fitted);
    }
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
