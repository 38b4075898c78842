/* SPDX-License-Identifier: Apache-2.0 */
/* What crosses NICs and uplinks, and the bound that follows. */
#ifndef EP_BENCH_COMM_PORTS_H
#define EP_BENCH_COMM_PORTS_H

#include "bench/comm_setting.h"
#include "bench/session.h"
#include "kernels/step_partner.h"

/** Does the session know the rate of the nodes' NICs, and are there several nodes? */
bool ep_comm_ports_known(const struct ep_session *session, const struct ep_comm_setting *setting);

/** Ports, the bound by the busiest of them, step_port_bytes, switches and messages between them, and schedule_bytes
 *  where ranks share a NIC or there are uplinks.
 *  rows  [num_ranks][num_ranks] as the operation sends them
 *  ep_comm_ports_known() holds, and h_nic_bytes and row_bytes are in the record. Any rank; not collective.
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_comm_ports_fill(const struct ep_session *session,
                                                const struct ep_comm_setting *setting,
                                                const int64_t *rows, enum ep_step_partner steps,
                                                struct ep_record *record);

#endif
