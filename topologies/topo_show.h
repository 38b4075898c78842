/* SPDX-License-Identifier: Apache-2.0 */
/* A topology as a table for people and as JSON for programs. */
#ifndef EP_TOPOLOGIES_TOPO_SHOW_H
#define EP_TOPOLOGIES_TOPO_SHOW_H

#include "base/json.h"
#include "topologies/restrictions.h"
#include "topologies/topo.h"

#include <stdio.h>

enum { EP_TOPO_MAX_PAIR_RANKS = 2048 }; /* --pairs lists ranks^2 / 2 pairs */

/** Print machines, levels with their numbers of pairs, and ranks.
 *  restrictions  of this host, or NULL where the topology is not of this host */
EP_MUST_CHECK enum ep_status ep_topo_print(const struct ep_topo *topo,
                                           const struct ep_restrictions *restrictions, FILE *out);

/** Print the level of each pair, one row per pair i < k. Returns EP_EINVAL beyond
 *  EP_TOPO_MAX_PAIR_RANKS ranks. */
EP_MUST_CHECK enum ep_status ep_topo_print_pairs(const struct ep_topo *topo, FILE *out);

/** The same as a new JSON object: schema, hosts, machines, levels, ranks, ports, rank_to_nic, restrictions, warnings,
 *  and `pairs` where asked for. Keys: topologies/README.md. */
EP_MUST_CHECK enum ep_status ep_topo_to_json(const struct ep_topo *topo,
                                             const struct ep_restrictions *restrictions,
                                             bool with_pairs, json_t **json);

/** Doubts about the layout, each with advice, as a new JSON array of texts; may be empty. */
EP_MUST_CHECK enum ep_status ep_topo_warnings(const struct ep_topo *topo,
                                              const struct ep_restrictions *restrictions,
                                              json_t **warnings);

#endif
