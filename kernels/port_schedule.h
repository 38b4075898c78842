/* SPDX-License-Identifier: Apache-2.0 */
/* The pairwise schedule (rung M5) where ranks share ports: NICs, and uplinks of switches. */
#ifndef EP_KERNELS_PORT_SCHEDULE_H
#define EP_KERNELS_PORT_SCHEDULE_H

#include "base/error.h"

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
};

/** Lanes of the uplinks of all switches together. */
int64_t ep_port_num_lanes(const struct ep_port_network *network);

/** Seconds of a pairwise exchange without latency. In step s = 1 .. P - 1 rank i sends to i + s; a message is
 *  under way once both of its ranks are in step s, and a rank goes on once its own and the one it gets are
 *  through. Messages under way share every port max-min fairly (progressive filling; Bertsekas and Gallager,
 *  Data Networks, 2nd ed., section 6.5.2). With one rank per NIC and no uplinks this is rung M5's recurrence.
 *  rows      [P][P] from, to; >= 0
 *  Returns EP_EINVAL beyond EP_PORT_SCHEDULE_MAX_RANKS, EP_ENOMEM. O(P^4) at most. */
EP_MUST_CHECK enum ep_status ep_port_schedule_time(const struct ep_port_network *network,
                                                   const int64_t *rows, int64_t row_bytes,
                                                   double *time_s);

/** Bytes through each switch's uplink, out and in [ep_port_num_lanes()], switch after switch; overwritten. */
void ep_port_uplink_bytes(const struct ep_port_network *network, const int64_t *rows,
                          int64_t row_bytes, int64_t *out_bytes, int64_t *in_bytes);

#endif
