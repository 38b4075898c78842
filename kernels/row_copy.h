/* SPDX-License-Identifier: Apache-2.0 */
/* Copying rows past the caches: for rows that somebody else reads next, or nobody soon. */
#ifndef EP_KERNELS_ROW_COPY_H
#define EP_KERNELS_ROW_COPY_H

#include <stddef.h>

/** Copy `size_bytes` from `from` to `to`, any alignment, not overlapping. Whole cache lines are written by
 *  streaming stores where the CPU has them, so that they are not read first and displace nothing. Call
 *  ep_row_stream_end before telling others that the rows are there. */
void ep_row_stream(void *to, const void *from, size_t size_bytes);

/** Order the streaming stores of this thread before what it writes later. */
void ep_row_stream_end(void);

#endif
