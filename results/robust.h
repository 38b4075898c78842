/* SPDX-License-Identifier: Apache-2.0 */
/* Linear fits by relative error: robust, with coefficients that are never negative. */
#ifndef EP_RESULTS_ROBUST_H
#define EP_RESULTS_ROBUST_H

#include "base/error.h"

#include <stdint.h>

enum { EP_ROBUST_MAX_COLUMNS = 8 };

/** Least squares with coefficients >= 0, from normal equations, by trying every set of active
 *  columns (2^num_columns; the problem is convex, so the best feasible set is the answer).
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

/** Fit target ~ design * coefficients, coefficients >= 0, minimising relative error.
 *  Starts from weights 1/target^2 (or from `start`), then repeats: rows scaled by the fitted value,
 *  Tukey's bisquare (4.685) on residuals over their robust scale (median of the absolute residuals
 *  without the num_columns smallest, / 0.6745), weighted least squares; until fitted values move
 *  less than `tolerance` (relative) or 200 times. With fewer than num_columns + 3 rows the start is
 *  the answer, since their scale cannot be known.
 *  design        [num_rows * num_columns] row-major, finite, read only
 *  target        [num_rows] > 0
 *  start         [num_columns] coefficients to start from, or NULL
 *  coefficients  [num_columns] written
 *  Source: results/README.md, "The fit"; Holland and Welsch 1977 for the weights; as GSL's
 *  gsl_multifit_robust, which has neither weights nor a sign constraint. */
void ep_robust_fit(const double *design, const double *target, int64_t num_rows, int num_columns,
                   const double *start, double tolerance, struct ep_robust_work *work,
                   double *coefficients);

/** Condition number (largest over smallest singular value) of the design with rows divided by
 *  `scale` and columns then normalised; infinite where columns are dependent or zero.
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_robust_condition(const double *design, const double *scale,
                                                 int64_t num_rows, int num_columns,
                                                 double *condition);

#endif
