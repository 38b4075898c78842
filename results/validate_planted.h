/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the fit finds what was planted: the rung, and its parameters inside their intervals. */
#ifndef EP_RESULTS_VALIDATE_PLANTED_H
#define EP_RESULTS_VALIDATE_PLANTED_H

#include "results/planted.h"

struct ep_planted_question {
    int num_seeds;
    int num_bootstraps;
    double noise;    /* relative standard deviation of a case's time, log-normal */
    double outliers; /* share of cases that take 2 to 5 times as long */
    int num_threads;
};

/** 1000 seeds, 200 bootstraps, 5 % noise, 10 % outliers. */
void ep_planted_question_default(struct ep_planted_question *question);

struct ep_planted_answer {
    const struct ep_planted_design *design;
    int num_cases; /* of one seed */
    int num_right; /* seeds in which the planted rung was chosen, or one that predicts the same */
    int num_by_size; /* seeds in which bandwidths were found to change with size, though none does */
    const char *simpler;     /* the rung before it in the ladder that comes nearest, NULL for M0 */
    double simpler_median;   /* its error without noise, in sample: median, and 95th percentile */
    double simpler_p95;
    int num_parameters;      /* that were planted */
    char names[EP_RUNG_MAX_PARAMETERS][32];
    double coverage[EP_RUNG_MAX_PARAMETERS]; /* share of seeds whose 95 % interval holds the truth */
    double half_width[EP_RUNG_MAX_PARAMETERS]; /* median over seeds, relative */
};

/** Plant one design with every seed and fit. Rungs up to M5s compete, and M5, M6 where they were planted.
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_validate_planted(const struct ep_planted_design *design,
                                                 const struct ep_planted_question *question,
                                                 struct ep_planted_answer *answer);

#endif
