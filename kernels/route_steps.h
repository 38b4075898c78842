/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench route --steps`: a sweep of trainings as tables, TSV and JSON. */
#ifndef EP_KERNELS_ROUTE_STEPS_H
#define EP_KERNELS_ROUTE_STEPS_H

#include "base/error.h"
#include "kernels/route_case.h"

/** Train as options->steps says (num_steps >= 1), print or save. Returns EP_EINVAL for options of
 * the counting that do not apply, a file that exists, and as ep_steps_create; EP_EIO where a file
 * cannot be written. */
EP_MUST_CHECK enum ep_status ep_route_steps_run(const struct ep_route_options *options);

#endif
