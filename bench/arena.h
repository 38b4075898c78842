/* SPDX-License-Identifier: Apache-2.0 */
/* One region of memory for all message buffers, so that compared transports use the same pages. */
#ifndef EP_BENCH_ARENA_H
#define EP_BENCH_ARENA_H

#include "base/error.h"

#include <stdint.h>

enum ep_pages {
    EP_PAGES_4K, /* MADV_NOHUGEPAGE */
    EP_PAGES_THP /* MADV_HUGEPAGE; what the system really gives is in ep_arena_huge_bytes */
};

struct ep_arena;

/** Reserve `limit_bytes` of address space, 2 MiB-aligned; memory is taken as it is used.
 *  Returns EP_ENOMEM where the system refuses. */
EP_MUST_CHECK enum ep_status ep_arena_create(int64_t limit_bytes, enum ep_pages pages,
                                             struct ep_arena **arena);

/** An arena in memory that the caller keeps (and frees after the arena), untouched so far: less than 2 MiB of
 *  `size_bytes` is lost to alignment. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_arena_create_in(void *memory, int64_t size_bytes,
                                                enum ep_pages pages, struct ep_arena **arena);
void ep_arena_destroy(struct ep_arena *arena);

/** Bytes for one buffer, 64-byte-aligned, touched (no page fault later), contents undefined; valid
 *  until ep_arena_reset. size 0 is fine. Returns EP_ENOMEM where the limit would be passed, with
 *  `what` in the text. */
EP_MUST_CHECK enum ep_status ep_arena_alloc(struct ep_arena *arena, int64_t size_bytes,
                                            const char *what, void **memory);

/** Give back all buffers; the pages stay, so that the next case starts on the same ones. */
void ep_arena_reset(struct ep_arena *arena);

int64_t ep_arena_used_bytes(const struct ep_arena *arena);

/** Give back what was taken since ep_arena_used_bytes() was `used_bytes`. */
void ep_arena_release(struct ep_arena *arena, int64_t used_bytes);
int64_t ep_arena_peak_bytes(const struct ep_arena *arena);

/** Bytes of the arena that the kernel holds in huge pages now (AnonHugePages and ShmemPmdMapped of
 *  /proc/self/smaps); -1 where that cannot be read. */
int64_t ep_arena_huge_bytes(const struct ep_arena *arena);

/** "4k" or "thp"; parse for --pages. */
const char *ep_pages_name(enum ep_pages pages);
EP_MUST_CHECK enum ep_status ep_pages_parse(const char *text, enum ep_pages *pages);

#endif
