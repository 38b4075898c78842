/* SPDX-License-Identifier: Apache-2.0 */
/* One region of memory for all message buffers, so that compared transports use the same pages. */
#ifndef EP_BENCH_ARENA_H
#define EP_BENCH_ARENA_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum ep_pages {
    EP_PAGES_4K, /* MADV_NOHUGEPAGE */
    EP_PAGES_THP /* MADV_HUGEPAGE; what the system really gives is in ep_arena_huge_bytes */
};

/** How buffers of rows, whose number a step decides, are sized and kept. */
enum ep_buffers {
    EP_BUFFERS_EXACT,   /* once, for the rows that the case has */
    EP_BUFFERS_STATIC,  /* once, for the most rows that could come */
    EP_BUFFERS_DYNAMIC, /* for the rows of each step, anew in each */
    EP_NUM_BUFFERS
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

/** An arena whose pages are one block of 16 MiB again and again: for payloads that nobody looks at, of many ranks
 *  on one machine. What is written in one place shows in others. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_arena_create_folded(int64_t limit_bytes, struct ep_arena **arena);
void ep_arena_destroy(struct ep_arena *arena);

/** Bytes for one buffer, 64-byte-aligned, touched (no page fault later), contents undefined; valid
 *  until ep_arena_reset. size 0 is fine. Returns EP_ENOMEM where the limit would be passed, with
 *  `what` in the text. */
EP_MUST_CHECK enum ep_status ep_arena_alloc(struct ep_arena *arena, int64_t size_bytes,
                                            const char *what, void **memory);

/** A buffer of rows, as the policy of ep_arena_begin_rows has it: for `num_rows`, or where static for
 *  `most_rows` if that is more. Else as ep_arena_alloc. */
EP_MUST_CHECK enum ep_status ep_arena_alloc_rows(struct ep_arena *arena, int64_t num_rows,
                                                 int64_t most_rows, int64_t row_bytes,
                                                 const char *what, void **memory);

/** From here on buffers of rows follow `policy`; those before are forgotten by the two below. */
void ep_arena_begin_rows(struct ep_arena *arena, enum ep_buffers policy);

/** Bytes of the buffers of rows: as they are, and as the rows that the case has need them. */
void ep_arena_count_rows(const struct ep_arena *arena, int64_t *size_bytes, int64_t *used_bytes);

/** True where buffers of rows can be given back and taken anew: not in memory that the caller keeps. */
bool ep_arena_renews(const struct ep_arena *arena);

/** Give the buffers of rows back to the system, and take as many bytes anew at the same addresses, untouched
 *  ones being touched: what freeing and allocating large blocks costs. Contents are lost. Not with `exact`.
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_arena_renew_rows(struct ep_arena *arena);

/** "exact", "static" or "dynamic"; parse for --buffers. */
const char *ep_buffers_name(enum ep_buffers policy);
EP_MUST_CHECK enum ep_status ep_buffers_parse(const char *text, enum ep_buffers *policy);

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
