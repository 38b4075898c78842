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

/** Rung M6: all messages begin at once after the latency and share ports max-min fairly (progressive
 *  filling), each port of a rank (in, out) with rate c_rank and of a node's NIC (in, out) with c_nic.
 *  coefficients  l, a, 1/c_rank, 1/c_nic; 0 = a port without limit
 *  row           [4] 1, messages of the busiest rank, and the derivatives of the time by 1/c_rank and
 *                1/c_nic: the time is proportional to both together, so row times coefficients is it
 *  false without a matrix or memory. O(flows^2 ports): meant for tens of ranks.
 *  Source: Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2 (max-min fairness). */
bool ep_rung_follow_flows(const struct ep_model_case *c, const double *coefficients, double *row);

#endif
