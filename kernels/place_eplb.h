/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of EPLB (DeepSeek's Expert Parallelism Load Balancer), for its two policies and for
 * those that start from it. Source: README.md of deepseek-ai/EPLB (d52c72d). */
#ifndef EP_KERNELS_PLACE_EPLB_H
#define EP_KERNELS_PLACE_EPLB_H

#include "kernels/place.h"

/** Spread items over packs of equal counts: heaviest first (the first of equals), each into the
 *  lightest pack that has room (the first of equals); item i into pack i where each pack takes one.
 *  weight [num_items] fp32, as EPLB; num_items a multiple of num_packs
 *  pack, place  [num_items] overwritten: the pack of each item, and its place in it. EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_eplb_pack(const float *weight, int64_t num_items, int64_t num_packs,
                                          int64_t *pack, int64_t *place);

/** Groups to nodes: the first step of the hierarchical policy.
 *  node_order [num_groups] overwritten: groups of node 0 in the order they were packed, then those
 * of node 1, ... G must be a multiple of N. */
EP_MUST_CHECK enum ep_status ep_eplb_pack_groups(const struct ep_place_task *task,
                                                 int64_t *node_order);

/** The other two steps: inside each node, replicate the experts of its groups and pack the replicas
 *  to ranks. node_order as above; map [num_slots], overwritten. */
EP_MUST_CHECK enum ep_status ep_eplb_place_groups(const struct ep_place_task *task,
                                                  const int64_t *node_order, int32_t *map);

#endif
