/* SPDX-License-Identifier: Apache-2.0 */
/* The design of one rung on one group: which columns there are, and the rows that bind at coefficients. */
#ifndef EP_RESULTS_FIT_DESIGN_H
#define EP_RESULTS_FIT_DESIGN_H

#include "results/fit.h"

struct ep_fit_kept;

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
    bool has_start; /* fits of a schedule to parts of the cases begin there */
    double start[EP_RUNG_MAX_COLUMNS];    /* [num_columns] coefficients */
    struct ep_fit_kept *kept; /* [num_cases] rows of rungs that are dear to follow; NULL = none are kept */
};

/** Returns EP_EINVAL where a case lacks what the rung needs; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_design_init(const struct ep_rung_form *form,
                                                const struct ep_fit_case *cases,
                                                int64_t num_cases, struct ep_fit_design *design);
void ep_fit_design_fini(struct ep_fit_design *design);

/** Have fits of a schedule to parts of the cases begin at coefficients [num_columns]: those of the fit to all. */
void ep_fit_design_set_start(struct ep_fit_design *design, const double *coefficients);

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

/** Rows [num * num_columns] at coefficients [num_columns] of the cases listed (NULL = all, in order), on all
 *  cores where that pays. Not for designs of which another thread fills rows at the same time. */
void ep_fit_design_fill(const struct ep_fit_design *design, const int64_t *cases, int64_t num,
                        const double *coefficients, double *rows);

/** The parameter that a column of the form belongs to. */
const struct ep_rung_parameter *ep_fit_design_parameter(const struct ep_fit_design *design, int column);

#endif
