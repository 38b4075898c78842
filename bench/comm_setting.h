/* SPDX-License-Identifier: Apache-2.0 */
/* What a case is made of on its ranks: placement, tokens, routing as sent, and buffers. */
#ifndef EP_BENCH_COMM_SETTING_H
#define EP_BENCH_COMM_SETTING_H

#include "bench/comm_case.h"
#include "kernels/dropping.h"
#include "kernels/gate_source.h"
#include "kernels/token_map.h"
#include "kernels/traffic.h"

/** What one visit's records have in common. Begin with {0} and ep_comm_setting_init; end with
 *  ep_comm_setting_fini. */
struct ep_comm_setting {
    struct ep_comm *comm; /* borrowed; NULL = only to see whether the case can be */
    const struct ep_comm_case *point;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router;
    struct ep_gate_source *gate; /* routes the router's tokens by logits; NULL = not asked for */
    struct ep_dropping *dropping;     /* what of the routing is sent */
    struct ep_capacity_counts counts; /* over all ranks, once recorded */
    struct ep_traffic traffic; /* rows in all bases, the same on all ranks */
    int64_t *sent;             /* [num_ranks][num_ranks] rows really on the way in a dispatch */
    int64_t *world_rank;       /* [num_ranks] rank in the session's topology */
    int64_t metadata_bytes;    /* over all ranks */
    int64_t padding_bytes;
};

/** Placement, tokens, router and capacity of a case; the same on every rank. Not collective.
 *  setting  zeroed; fini it whatever is returned
 *  Returns EP_EINVAL where the case cannot be, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_comm_setting_init(struct ep_comm *comm,
                                                  const struct ep_comm_case *point, uint64_t seed,
                                                  struct ep_comm_setting *setting);
void ep_comm_setting_fini(struct ep_comm_setting *setting);

/** True where a capacity that is known before any token is routed bounds what a rank receives. */
bool ep_comm_setting_is_bounded(const struct ep_comm_setting *setting);

/** What the transport is given: takes token rows and result rows from the session's arena, contents
 *  undefined. Not collective. Borrows setting and routing. */
EP_MUST_CHECK enum ep_status ep_comm_setting_exchange(const struct ep_comm_setting *setting,
                                                      const struct ep_routing *routing,
                                                      struct ep_session *session,
                                                      struct ep_exchange *exchange);

#endif
