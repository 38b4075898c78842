/* SPDX-License-Identifier: Apache-2.0 */
/* Rungs that follow single messages: M5, the pairwise schedule, and M6, fluid flows over ports. */
#ifndef EP_RESULTS_RUNG_SCHEDULE_H
#define EP_RESULTS_RUNG_SCHEDULE_H

#include "results/model.h"

/** Rung M5 on the matrix of a case, P = its ranks. In step s = 1 .. P-1 rank i sends to i + s:
 *      e_i(s) = max(f_i(s-1), f_{i+s}(s-1)) + a + D[i][i+s] / B
 *      f_i(s) = max(e_i(s), e_{i-s}(s))         (indices mod P)
 *  and the time is the largest f. a and B are of the pair: inside a node, or between nodes.
 *  coefficients  a_in, 1/B_in, a_out, 1/B_out
 *  row           [4] messages and bytes, inside nodes and between, of the longest chain; overwritten
 *  false without a matrix or memory. O(P^2).
 *  Source: results/README.md, "The ladder"; the recurrence of MPI libraries' pairwise alltoallv. */
bool ep_rung_follow_steps(const struct ep_model_case *c, const double *coefficients, double *row);

#endif
