/* SPDX-License-Identifier: Apache-2.0 */
/* A loop over items on all cores. Results must not depend on who does which item. */
#ifndef EP_BASE_PARALLEL_H
#define EP_BASE_PARALLEL_H

#include "base/error.h"

#include <stdint.h>

/** The cores that this process may use, at least 1. */
int ep_parallel_cores(void);

/** What a loop does. */
struct ep_parallel {
    void *context;
    /** Do one item. thread: 0 to num_threads - 1, for scratch of its own. A failure ends the loop.
     */
    enum ep_status (*body)(void *context, int thread, int64_t item);
    /** Called by the calling thread, with the items done so far, as another hundredth of them is
     * done, and with all of them at the end, even where it failed before; NULL = nobody. */
    void (*progress)(void *context, int64_t num_done, int64_t num_items);
};

/** Do items 0 to num_items - 1, taken in order by num_threads >= 1 threads; the calling thread is
 * one. Where threads cannot be started fewer do it. Returns the failure of one item (with its
 * text), if any failed; then not all items were done. */
EP_MUST_CHECK enum ep_status ep_parallel_run(const struct ep_parallel *loop, int64_t num_items,
                                             int num_threads);

#endif
