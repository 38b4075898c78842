/* SPDX-License-Identifier: Apache-2.0 */
/* The pairwise schedule (rung M5) where ranks share ports: NICs, and uplinks of switches. */
#ifndef EP_KERNELS_PORT_SCHEDULE_H
#define EP_KERNELS_PORT_SCHEDULE_H

#include "base/error.h"
#include "kernels/step_partner.h"

#include <stdint.h>

enum { EP_PORT_SCHEDULE_MAX_RANKS = 128 };

/** Ports between ranks. Inside a NIC's host nothing passes a port. */
struct ep_port_network {
    int64_t num_ranks;
    const int32_t *rank_nic;   /* [num_ranks] 0 to num_nics - 1: the one NIC of the rank's host */
    int64_t num_nics;
    double nic_bytes_per_s;    /* each way, of every NIC */
    const int32_t *nic_switch; /* [num_nics] 0 to num_switches - 1, -1 = none; NULL = no uplinks */
    int64_t num_switches;
    const double *uplink_bytes_per_s; /* [num_switches] each way, of one lane; between different switches */
    const int32_t *switch_lanes; /* [num_switches] >= 1: equal links side by side; NULL = one each */
    /* [num_nics] >= 0: a message to this NIC takes lane (this modulo lanes) of both uplinks, D-mod-k; NULL = all
     * lane 0 */
    const int32_t *nic_position;
    enum ep_step_partner steps; /* who sends to whom; XOR: num_ranks is a power of two */
};

/** Lanes of the uplinks of all switches together. */
int64_t ep_port_num_lanes(const struct ep_port_network *network);

/** Seconds of a pairwise exchange without latency. In step s = 1 .. P - 1 rank i sends to its partner of the step; a message is
 *  under way once both of its ranks are in step s, and a rank goes on once its own and the one it gets are
 *  through. Messages under way share every port max-min fairly (progressive filling; Bertsekas and Gallager,
 *  Data Networks, 2nd ed., section 6.5.2). With one rank per NIC and no uplinks this is rung M5's recurrence.
 *  rows      [P][P] from, to; >= 0
 *  Returns EP_EINVAL beyond EP_PORT_SCHEDULE_MAX_RANKS, EP_ENOMEM. O(P^4) at most. */
EP_MUST_CHECK enum ep_status ep_port_schedule_time(const struct ep_port_network *network,
                                                   const int64_t *rows, int64_t row_bytes,
                                                   double *time_s);

/** Bytes of a NIC that pass in the time of a pairwise exchange whose ranks begin every step together: the sum over
 *  steps of the most that one port has to carry in the step, those of an uplink times the NIC's rate over its own.
 *  Inside a NIC's host nothing passes. One rank per NIC and no uplinks: step_sum_bytes of features.h.
 *  step_bytes  written where EP_OK. Returns EP_ENOMEM. O(P (P + ports)). */
EP_MUST_CHECK enum ep_status ep_port_step_bytes(const struct ep_port_network *network,
                                                const int64_t *rows, int64_t row_bytes,
                                                int64_t *step_bytes);

/** Messages to other switches, empty ones too, of the rank that has most of them; 0 without uplinks. */
int64_t ep_port_uplink_messages(const struct ep_port_network *network);

/** Bytes through each switch's uplink, out and in [ep_port_num_lanes()], switch after switch; overwritten. */
void ep_port_uplink_bytes(const struct ep_port_network *network, const int64_t *rows,
                          int64_t row_bytes, int64_t *out_bytes, int64_t *in_bytes);

#endif
