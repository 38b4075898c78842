/* SPDX-License-Identifier: Apache-2.0 */
/* Linear fits by relative error: robust, with coefficients that are never negative. */
#ifndef EP_RESULTS_ROBUST_H
#define EP_RESULTS_ROBUST_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { EP_ROBUST_MAX_COLUMNS = 16 };

/** Least squares with coefficients >= 0, from normal equations, by active sets: columns enter one by
 *  one along the steepest slope, and leave where they would turn negative. The problem is convex, so
 *  where it stops is the answer. Source: Lawson and Hanson 1974, chapter 23.
 *  gram          [num_columns * num_columns] X'WX, row-major, read only
 *  rhs           [num_columns] X'Wy
 *  coefficients  [num_columns] written; 0 for columns that are inactive, zero or dependent */
void ep_robust_solve_nonnegative(const double *gram, const double *rhs, int num_columns,
                                 double *coefficients);

/** Room for fits of up to `num_rows` rows; one per thread. */
struct ep_robust_work;
EP_MUST_CHECK enum ep_status ep_robust_work_create(int64_t num_rows,
                                                   struct ep_robust_work **work);
void ep_robust_work_destroy(struct ep_robust_work *work);

/** What is fitted: target ~ design * coefficients. */
struct ep_robust_problem {
    double *design; /* [num_rows * num_columns] row-major, finite; rewritten by fill_rows */
    const double *target; /* [num_rows] > 0 */
    int64_t num_rows;
    int num_columns; /* 1 to EP_ROBUST_MAX_COLUMNS */
    /* Where rows depend on coefficients: writes the design at `coefficients` [num_columns]. NULL =
     * they do not. The fit is then a sequence of linear ones, each with the rows of the last. */
    void (*fill_rows)(void *context, const double *coefficients, double *design);
    void *context;
};

/** Fit with coefficients >= 0, minimising relative error.
 *  Starts from weights 1/target^2 (or from `start`), then repeats: rows scaled by the fitted value,
 *  Tukey's bisquare (4.685) on residuals over their robust scale (median of the absolute residuals
 *  without the num_columns smallest, / 0.6745), weighted least squares; until fitted values move
 *  less than `tolerance` (relative) or 200 times. With fewer than num_columns + 3 rows the start is
 *  the answer, since their scale cannot be known. With fill_rows, `start` is needed, and up to 8
 *  fits by 1/target^2 come first; a column that binds in no row keeps its coefficient on the way,
 *  and ends as 0 where it still binds in none.
 *  start         [num_columns] coefficients to start from, or NULL
 *  coefficients  [num_columns] written; work->fitted holds the fitted values after it
 *  Source: results/README.md, "The fit"; Holland and Welsch 1977 for the weights; as GSL's
 *  gsl_multifit_robust, which has neither weights nor a sign constraint. */
void ep_robust_fit(const struct ep_robust_problem *problem, const double *start, double tolerance,
                   struct ep_robust_work *work, double *coefficients);

/** Mean of |target - fitted| / target, each at most 1, after ep_robust_fit(): to compare starts. */
double ep_robust_loss(const struct ep_robust_problem *problem, const struct ep_robust_work *work);

/** Condition number (largest over smallest singular value) of the design with rows divided by
 *  `scale` and columns then normalised; infinite where columns are dependent or zero.
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_robust_condition(const double *design, const double *scale,
                                                 int64_t num_rows, int num_columns,
                                                 double *condition);

#endif
