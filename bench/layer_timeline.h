/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks did when, in the Chrome trace format that Perfetto and chrome://tracing open. */
#ifndef EP_BENCH_LAYER_TIMELINE_H
#define EP_BENCH_LAYER_TIMELINE_H

#include "bench/layer_waits.h"

#include <stdint.h>

/** Cases, each a process with a row per rank and a slice per phase. */
struct ep_layer_timeline;

EP_MUST_CHECK enum ep_status ep_layer_timeline_create(struct ep_layer_timeline **timeline);
void ep_layer_timeline_destroy(struct ep_layer_timeline *timeline);

/** Put one repetition of a case into the timeline, in place of what was there of it.
 *  title   of the case, the same for every visit; copied
 *  names   [num_phases] of phases; copied
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_layer_timeline_set(struct ep_layer_timeline *timeline,
                                                   const char *title, const char *const *names,
                                                   const struct ep_layer_clocks *clocks,
                                                   int64_t repetition);

/** Write all cases; times in microseconds from the first entry of each. `args` of a slice has wait_us, what
 *  of it the rank waited for others. Returns EP_EIO. Source: "Trace Event Format" (Chromium), complete
 *  events. */
EP_MUST_CHECK enum ep_status ep_layer_timeline_write(const struct ep_layer_timeline *timeline,
                                                     const char *path);

#endif
