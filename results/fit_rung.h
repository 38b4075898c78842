/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that come from fitting the design of a rung many times. */
#ifndef EP_RESULTS_FIT_RUNG_H
#define EP_RESULTS_FIT_RUNG_H

#include "results/fit_design.h"

/** Predict every case from fits without its fold. folds [num_cases] in 0..num_folds-1.
 *  held_out_s [num_cases] written. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_hold_out(const struct ep_fit_design *design,
                                             const int64_t *folds, int64_t num_folds,
                                             double *held_out_s);

/** Fit to the cases with keep[i] alone; where rows depend on coefficients, from several starts, of
 *  which the one with the least ep_robust_loss() is taken. coefficients [num_columns]; loss (NULL =
 *  not wanted). Returns EP_EINVAL where fewer are kept than there are columns. */
EP_MUST_CHECK enum ep_status ep_fit_subset(const struct ep_fit_design *design, const bool *keep,
                                           double *coefficients, double *loss);

/** Draw clusters with replacement and fit again. clusters [num_cases] in 0..num_clusters-1;
 *  start [num_columns] is the fit to all; draws [num_bootstraps * num_columns] written. Draw b
 *  depends on (seed, b) alone. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_bootstrap(const struct ep_fit_design *design,
                                              const int64_t *clusters, int64_t num_clusters,
                                              int num_bootstraps, uint64_t seed,
                                              const double *start, double *draws);

/** Tail probability to read off bootstrap quantiles so that an interval over few clusters covers:
 *  Phi(-sqrt(n/(n-1)) t), t the Student quantile at (1+level)/2 with n-1 degrees of freedom.
 *  Source: Hesterberg 2015, What Teachers Should Know About the Bootstrap, on expanded percentile intervals. */
double ep_fit_expanded_tail(double level, int64_t num_clusters);

#endif
