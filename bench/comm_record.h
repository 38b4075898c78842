/* SPDX-License-Identifier: Apache-2.0 */
/* From a measured case to its record: byte features, bandwidths, phases, names. */
#ifndef EP_BENCH_COMM_RECORD_H
#define EP_BENCH_COMM_RECORD_H

#include "bench/comm_setting.h"
#include "kernels/features.h"

/** Count rows in all bases from every rank's routing as sent, sum up what was dropped of it, and gather
 *  what the transport really sends.
 *  Returns EP_ECHECK where a transport without padding sends other rows than its basis says.
 *  Collective over setting->comm. */
EP_MUST_CHECK enum ep_status ep_comm_record_count(struct ep_comm_setting *setting,
                                                  const struct ep_routing *routing,
                                                  const void *state);

/** Fill a comm record but for samples and check. Collective over setting->comm; the record matters on
 *  its rank 0. Bandwidths: physical is h_rank_bytes (the busiest rank's larger direction, remote,
 *  padding included) over the exchange phase (else the whole); logical is the busiest rank's rows,
 *  own ones included, over the same time. */
EP_MUST_CHECK enum ep_status ep_comm_record_fill(struct ep_session *session,
                                                 const struct ep_comm_setting *setting,
                                                 enum ep_op op, const void *state,
                                                 const struct ep_harness_phases *phases,
                                                 struct ep_record *record);

/** All factors of a case in one text, the key `case` of its records; new string, NULL without memory.
 *  routing_id stands for skew, shape, seed, placement and tokens; the names are for readers. */
char *ep_comm_case_name(const struct ep_session *session, const struct ep_comm_case *point,
                        enum ep_op op, const char *routing_id);

/** Rank 0: keep the rows of this routing beside the records (up to 64 ranks). */
EP_MUST_CHECK enum ep_status ep_comm_record_write_traffic(const struct ep_comm_setting *setting,
                                                          const char *directory);

#endif
