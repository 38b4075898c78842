/* SPDX-License-Identifier: Apache-2.0 */
/* What a fit found, in plain words: which level binds for which skews, where the plain formula fails. */
#ifndef EP_RESULTS_FIT_EXPLAIN_H
#define EP_RESULTS_FIT_EXPLAIN_H

#include "results/fit.h"

#include <stdio.h>

/** What most of a case's time goes to, by a rung: the largest of latency (l + a n, "latency"), the slowest
 *  port, and terms that add up ("copy", "steps"). */
struct ep_fit_binding {
    const char *level;     /* of the largest term: "latency", "rank", "nic", ... */
    const char *runner_up; /* of the next one; NULL = there is no other */
    double ratio;          /* next / largest, 0 to 1 */
};

void ep_fit_find_binding(const struct ep_rung_form *form, const double *coefficients,
                         const struct ep_model_case *c, struct ep_fit_binding *binding);

/** The level that binds in most cases of a group by its chosen rung, and how many these are; the level
 *  that comes second in most of these. NULL, 0 without a chosen rung. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_group_binding(const struct ep_fit_group *g, const char **level,
                                                  int64_t *num_cases, const char **runner_up);

/** Sentences, one per line, about one group. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_explain(const struct ep_fit_group *g, FILE *out);

#endif
