/* SPDX-License-Identifier: Apache-2.0 */
/* Emptying the caches by reading, so that nothing is left to be written back while something is timed. */
#ifndef EP_BENCH_FLUSH_H
#define EP_BENCH_FLUSH_H

#include "base/error.h"

#include <stdint.h>

struct ep_flush;

/** Memory of its own pages, read-only from here on: what it brings into the caches is clean.
 *  size_bytes  >= 1; several times the last-level cache, since caches need not drop the oldest line
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_flush_create(int64_t size_bytes, struct ep_flush **flush);
void ep_flush_destroy(struct ep_flush *flush);

/** Read a byte of every 64-byte line: lines that were in the caches leave them, and those that were
 *  written go back to memory now. Returns the number of lines (each holds a 1). */
int64_t ep_flush_run(const struct ep_flush *flush);

#endif
