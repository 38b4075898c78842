/* SPDX-License-Identifier: Apache-2.0 */
/* Rungs that follow single messages: M5, the pairwise schedule, and M6, fluid flows over ports. */
#ifndef EP_RESULTS_RUNG_SCHEDULE_H
#define EP_RESULTS_RUNG_SCHEDULE_H

#include "results/model.h"

/** Rung M5 on the matrix of a case, P = its ranks. In step s = 1 .. P-1 rank i sends to i + s (or i xor s):
 *      e_i(s) = max(f_i(s-1), f_{i+s}(s-1)) + a + max(D[i][i+s] / B, L_uplink / B_uplink, L_nic / B_nic)
 *      f_i(s) = max(e_i(s), e_{i-s}(s))         (indices mod P)
 *  and the time is the largest f. a and B are of the pair: inside a node, or between nodes, where a_uplink comes
 *  on top between switches. L is what the busiest lane of an uplink, or NIC of several ranks, that the message
 *  passes has to carry in step s: as if ranks began the step together.
 *  coefficients  a_in, 1/B_in, a_out, 1/B_out, a_uplink, 1/B_uplink, 1/B_nic
 *  row           [7] messages and bytes of the longest chain, bytes where they are slowest; overwritten
 *  false without a matrix or memory. O(P^2).
 *  Source: results/README.md, "The ladder"; the recurrence of MPI libraries' pairwise alltoallv. */
bool ep_rung_follow_steps(const struct ep_model_case *c, const double *coefficients, double *row);

/** Rung M6: all messages begin at once after the latency and share M4's ports max-min fairly (progressive
 *  filling): of a rank (in, out) with rate c_rank, of a node's NIC (in, out) with c_nic, of the lanes of uplinks (out,
 *  in) with c_uplink, and on one node its memory with c_memory, which a message passes twice, and what stays on its
 *  rank too.
 *  coefficients  l, a, 1/c_rank, 1/c_nic, 1/c_uplink, 1/c_memory; 0 = a port without limit
 *  row           [6] 1, messages of the busiest rank, and the derivatives of the time by each 1/c: the time is
 *                proportional to all of these together, so row times coefficients is it
 *  false without a matrix or memory. O(flows) per message that ends, at most.
 *  Source: Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2 (max-min fairness). */
bool ep_rung_follow_flows(const struct ep_model_case *c, const double *coefficients, double *row);

#endif
