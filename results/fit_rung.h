/* SPDX-License-Identifier: Apache-2.0 */
/* The design of one rung on one group, and the numbers that come from fitting it many times. */
#ifndef EP_RESULTS_FIT_RUNG_H
#define EP_RESULTS_FIT_RUNG_H

#include "results/fit.h"
#include "results/robust.h"

/** Columns of a rung on the cases of a group. Left out are columns that are 0 in every case (ports
 *  that nobody has) and, of two that grow in proportion, the second, which joins the first. */
struct ep_fit_design {
    struct ep_rung_form form;
    const struct ep_fit_case *cases; /* [num_cases] borrowed */
    int64_t num_cases;
    int num_columns;
    bool linear;      /* rows do not depend on coefficients: at most one port, no schedule */
    double *rows;     /* [num_cases * num_columns] row-major; of ports: with all of them in */
    double *target_s; /* [num_cases] */
    int column_of[EP_RUNG_MAX_COLUMNS];   /* of each of the form's columns; -1 = left out */
    int merged_into[EP_RUNG_MAX_COLUMNS]; /* the form's column that it joined, or -1 */
    double ratio[EP_RUNG_MAX_COLUMNS];    /* own column / the one it joined */
};

/** Returns EP_EINVAL where a case lacks what the rung needs; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_design_init(const struct ep_rung_form *form,
                                                const struct ep_fit_case *cases,
                                                int64_t num_cases, struct ep_fit_design *design);
void ep_fit_design_fini(struct ep_fit_design *design);

/** The form's coefficients [form.num_columns] from the design's [num_columns]: all of a merged
 *  column is in the first, 0 in the others. */
void ep_fit_design_expand(const struct ep_fit_design *design, const double *coefficients,
                          double *full);

/** Whether two linear designs give the same predictions: as many columns, each proportional to one
 *  of the other's. False where one is not linear. */
bool ep_fit_design_is_same(const struct ep_fit_design *a, const struct ep_fit_design *b);

/** times [num_cases] by coefficients [num_columns]. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_design_predict(const struct ep_fit_design *design, const double *coefficients,
                           double *times_s);

/** The rows that bind at coefficients [num_columns], without columns that are 0 in all of them.
 *  rows  new [num_cases * *num_columns], to be freed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_design_rows(const struct ep_fit_design *design,
                                                const double *coefficients, double **rows,
                                                int *num_columns);

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
