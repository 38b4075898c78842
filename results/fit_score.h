/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of a rung on what was held out, and what prediction intervals follow from them. */
#ifndef EP_RESULTS_FIT_SCORE_H
#define EP_RESULTS_FIT_SCORE_H

#include "results/fit_rung.h"

/** Predict every case of a group from fits without its fold: held_out_s, held_out, fold_score,
 *  fold_score_se, coverage and half_width of `r`, at interval level `level`. Returns EP_ENOMEM.
 *  Source: results/README.md, "The fit"; split conformal intervals of Lei et al. 2018 (Journal of
 *  the American Statistical Association 113). */
EP_MUST_CHECK enum ep_status ep_fit_score_folds(const struct ep_fit_group *g,
                                                const struct ep_fit_design *design, double level,
                                                struct ep_fit_rung *r);

/** extrapolation of `r`: the largest size class from a fit to the others; untouched where these are
 *  too few. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_score_largest(const struct ep_fit_group *g,
                                                  const struct ep_fit_design *design,
                                                  struct ep_fit_rung *r);

#endif
