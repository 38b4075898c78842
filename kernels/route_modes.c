/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of modes and report sections of `epbench route`. */
#include "kernels/route_mode.h"

static const struct ep_route_mode *const modes[] = {
    &ep_route_mode_steps,
    &ep_route_mode_compare,
    &ep_route_mode_domains,
    NULL,
};

static const struct ep_route_section *const sections[] = {
    &ep_route_section_matrix,
    NULL,
};

_Static_assert(sizeof modes / sizeof modes[0] <= EP_ROUTE_MAX_PARTS + 1, "modes");
_Static_assert(sizeof sections / sizeof sections[0] <= EP_ROUTE_MAX_PARTS + 1, "sections");

const struct ep_route_mode *ep_route_mode_get(int index)
{
    return modes[index];
}

const struct ep_route_section *ep_route_section_get(int index)
{
    return sections[index];
}
