/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic records that follow one rung, with noise and outliers: what a fit must find. Never measured. */
#ifndef EP_RESULTS_PLANTED_H
#define EP_RESULTS_PLANTED_H

#include "results/fit.h"

/** What is planted: a rung on a machine that lets the next simpler one miss. */
struct ep_planted_design {
    const char *rung;
    int64_t ranks[4];           /* numbers of ranks, ending with 0 */
    int64_t ranks_per_node;
    int64_t nodes_per_switch;   /* 0 = no uplinks */
    double coefficients[EP_RUNG_MAX_PARAMETERS]; /* times, and 1/bandwidth */
    const char *text;           /* of the machine, in words */
};

/** Design `idx` >= 0, one per rung that can be chosen; NULL past the last. */
const struct ep_planted_design *ep_planted_design_at(int idx);

/** Comm records of one design: 10 patterns (even, skewed, one hot rank first or last, hot ranks of one
 *  node or of all, unlike for each source, to the neighbour, scattered) x 6 sizes x its numbers of ranks, whose time is
 *  the rung's times exp(noise x a standard normal), and with chance `outliers` 2 to 5 times that.
 *  matrices  [records->num] new, to be freed with ep_planted_fini(), of each record
 *  The same seed gives the same records. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_planted_make_records(const struct ep_planted_design *design,
                                                     uint64_t seed, double noise, double outliers,
                                                     struct ep_records *records,
                                                     struct ep_model_matrix **matrices);
void ep_planted_fini(struct ep_records *records, struct ep_model_matrix *matrices);

/** Point the cases of a fit of these records to their matrices. */
void ep_planted_set_matrices(const struct ep_records *records, struct ep_model_matrix *matrices,
                             struct ep_fit *fit);

#endif
