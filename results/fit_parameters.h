/* SPDX-License-Identifier: Apache-2.0 */
/* From coefficients to parameters: intervals, gates, and which cases would tell what is withheld. */
#ifndef EP_RESULTS_FIT_PARAMETERS_H
#define EP_RESULTS_FIT_PARAMETERS_H

#include "results/fit_rung.h"

enum { EP_FIT_MIN_SIZES = 3, EP_FIT_MIN_SKEWS = 2 };

/** Fill parameters, num_parameters and coefficients of `r` (whose form, condition and fitted_s are
 *  filled). Gates: results/README.md, "When a value is withheld".
 *  coefficients  [design->num_columns] of the fit to all cases
 *  draws         [options->num_bootstraps * design->num_columns], or NULL: no intervals
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_parameters_fill(const struct ep_fit_group *g,
                                                    const struct ep_fit_design *design,
                                                    const double *coefficients,
                                                    const double *draws,
                                                    const struct ep_fit_options *options,
                                                    struct ep_fit_rung *r);

#endif
