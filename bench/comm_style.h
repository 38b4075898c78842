/* SPDX-License-Identifier: Apache-2.0 */
/* What capacity and style options mean for a sweep of comm cases. */
#ifndef EP_BENCH_COMM_STYLE_H
#define EP_BENCH_COMM_STYLE_H

#include "bench/comm_sweep.h"

#include <stdint.h>

/** EP_EINVAL for what is wrong with router and capacity whatever the tokens and ranks. */
EP_MUST_CHECK enum ep_status ep_comm_style_check(const struct ep_capacity_options *options,
                                                 const struct ep_skew *skew, int64_t experts,
                                                 int64_t top_k);

/** EP_EINVAL where --pad was given and none of the transports [num] has slots to pad. */
EP_MUST_CHECK enum ep_status
ep_comm_style_check_pad(const struct ep_capacity_options *options,
                        const struct ep_transport *const *transports, int64_t num);

/** EP_EINVAL where a case is to be padded, but its capacity has no slots of each source rank. */
EP_MUST_CHECK enum ep_status ep_comm_style_check_slots(const struct ep_comm_case *point,
                                                       const struct ep_capacity *capacity);

/** The transport of a style, by name: its own, or the nearest where this program lacks it; without a
 *  style "alltoallv". */
const char *ep_comm_style_transport(const struct ep_style *style);

/** Say on stderr (rank 0) what a style set in the first case and what the system has beyond, and note
 *  as doubts about the run what it could not set in any of the cases [num_cases >= 1], and a capacity
 *  factor that a rule does not use. */
void ep_comm_style_tell(struct ep_session *session, const struct ep_comm_options *options,
                        const struct ep_comm_case *cases, int64_t num_cases);

#endif
