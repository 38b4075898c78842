/* SPDX-License-Identifier: Apache-2.0 */
/* From the pair classes of each kind of host to the levels of all hosts. */
#ifndef EP_TOPOLOGIES_LEVELS_H
#define EP_TOPOLOGIES_LEVELS_H

#include "topologies/topo.h"

/** Fill levels, class_level, the special levels and the counts of pairs of a topo whose hosts,
 *  machines and ranks are set. Classes with equal keys on different machines become one level.
 *  Returns EP_EINVAL where there are more than EP_TOPO_MAX_LEVELS; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_topo_build_levels(struct ep_topo *topo);

#endif
