/* SPDX-License-Identifier: Apache-2.0 */
/* Where the shared options of `epbench route` put experts. */
#ifndef EP_KERNELS_ROUTE_PLACEMENT_H
#define EP_KERNELS_ROUTE_PLACEMENT_H

#include "base/error.h"
#include "kernels/placement.h"
#include "kernels/route_options.h"

#include <stdbool.h>
#include <stdint.h>

/** True where a list or file says where each expert is, so that it also says how many ranks there
 * are. */
bool ep_route_names_placement(const struct ep_route_options *options);

/** By --experts-to-ranks or --placement; by --expert-ranks contiguous over these ranks alone; else
 *  contiguous over all.
 *  num_experts, num_ranks  0 = as many as are named, where they are
 *  Returns EP_EINVAL where the options contradict these or each other, or a file is bad. */
EP_MUST_CHECK enum ep_status ep_route_place_experts(const struct ep_route_options *options,
                                                    int64_t num_experts, int64_t num_ranks,
                                                    struct ep_placement *placement);

#endif
