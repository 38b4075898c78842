/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as tables and JSON, with predicted times of the three ways to hold experts. */
#ifndef EP_RESULTS_PLAN_REPORT_H
#define EP_RESULTS_PLAN_REPORT_H

#include "base/error.h"
#include "kernels/plan.h"
#include "results/fitted_machine.h"

#include <stdint.h>
#include <stdio.h>

enum { EP_PLAN_MAX_NOTES = 12 };

/** One of the ways to hold a layer's experts, with its time for one layer. */
struct ep_plan_timed_strategy {
    struct ep_plan_strategy strategy;
    double time_s;      /* dispatch and combine of one layer; NaN = no machine or bandwidth given */
    const char *by[2];  /* what gave the times there and back; NULL = none */
    const char *beyond; /* feature outside of what the machine file has seen; NULL = none */
};

struct ep_plan_report {
    const struct ep_plan_config *config;
    const struct ep_plan_set *set;
    const char *weight_note;                 /* about the type of weights; NULL = none */
    const struct ep_fitted_machine *machine; /* NULL = none */
    double bw_bytes_per_s;                   /* NaN = none */
    int64_t num_ranks;                       /* of the strategies */
    struct ep_plan_timed_strategy strategies[EP_PLAN_NUM_STRATEGIES];
    const char *notes[EP_PLAN_MAX_NOTES]; /* literals: what is not known or not counted */
    int num_notes;
};

/** Time the strategies and collect the notes; the fields before num_ranks and it are set already.
 * Returns EP_EINVAL where the machine file cannot say. */
EP_MUST_CHECK enum ep_status ep_plan_report_finish(struct ep_plan_report *report);

/** Tables: at most `most` plans (0 = all). */
EP_MUST_CHECK enum ep_status ep_plan_report_print(const struct ep_plan_report *report, int64_t most,
                                                  FILE *out);

/** JSON with every plan; keys: results/README.md, "plan". */
EP_MUST_CHECK enum ep_status ep_plan_report_save(const struct ep_plan_report *report,
                                                 const char *path);

#endif
