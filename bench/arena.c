/* SPDX-License-Identifier: Apache-2.0 */
/* The buffers' arena: a reserved mapping with a fill mark. */
#include "bench/arena.h"

#include "base/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN_BYTES = 64, HUGE_PAGE_BYTES = 1 << 21 };

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; kernels before refuse it */
#endif

struct ep_arena {
    char *mapping;
    size_t mapping_bytes;
    bool owns_mapping;
    bool collapses; /* asks for huge pages range by range */
    char *base; /* 2 MiB-aligned */
    int64_t limit_bytes;
    int64_t used_bytes;
    int64_t peak_bytes; /* touched so far */
};

/* Page-aligned inside, for the advice; a kernel without huge pages refuses it, and for shared memory it
 * counts only where the system says so (shmem_enabled): ep_arena_huge_bytes tells what came of it. */
static void advise(const struct ep_arena *a, enum ep_pages pages)
{
    (void)madvise(a->base, (size_t)a->limit_bytes,
                  pages == EP_PAGES_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/* Shared memory that was touched goes to huge pages on demand, whatever the system's settings, where the
 * kernel can and has them. A block that was begun before was done then. */
static void collapse(const struct ep_arena *a, int64_t from_bytes, int64_t to_bytes)
{
    const int64_t first = (from_bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    int64_t end = (to_bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    end = end <= a->limit_bytes ? end : a->limit_bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if (a->collapses && first < end) {
        (void)madvise(a->base + first, (size_t)(end - first), MADV_COLLAPSE);
    }
}

static char *align_huge(char *memory)
{
    const uintptr_t start = (uintptr_t)memory;
    return memory + (HUGE_PAGE_BYTES - start % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
}

enum ep_status ep_arena_create(int64_t limit_bytes, enum ep_pages pages, struct ep_arena **arena)
{
    struct ep_arena *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for an arena");
    }
    a->mapping_bytes = (size_t)limit_bytes + HUGE_PAGE_BYTES;
    a->mapping = mmap(NULL, a->mapping_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (a->mapping == MAP_FAILED) {
        free(a);
        return ep_error_set(EP_ENOMEM, "the system refuses to map %" PRId64 " bytes for buffers",
                            limit_bytes);
    }
    a->owns_mapping = true;
    a->base = align_huge(a->mapping);
    a->limit_bytes = limit_bytes;
    advise(a, pages);
    *arena = a;
    return EP_OK;
}

enum ep_status ep_arena_create_in(void *memory, int64_t size_bytes, enum ep_pages pages,
                                  struct ep_arena **arena)
{
    struct ep_arena *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for an arena");
    }
    a->mapping = memory;
    a->mapping_bytes = (size_t)size_bytes;
    a->base = align_huge(memory);
    a->limit_bytes = size_bytes - (a->base - a->mapping);
    EP_ASSERT(a->limit_bytes >= 0);
    a->collapses = pages == EP_PAGES_THP;
    advise(a, pages);
    *arena = a;
    return EP_OK;
}

void ep_arena_destroy(struct ep_arena *arena)
{
    if (arena != NULL) {
        if (arena->owns_mapping) {
            munmap(arena->mapping, arena->mapping_bytes);
        }
        free(arena);
    }
}

enum ep_status ep_arena_alloc(struct ep_arena *arena, int64_t size_bytes, const char *what,
                              void **memory)
{
    EP_ASSERT(size_bytes >= 0);
    if (size_bytes > arena->limit_bytes - arena->used_bytes - ALIGN_BYTES) {
        char need[32];
        char limit[32];
        return ep_error_set(EP_ENOMEM, "%s: %s more does not fit the buffer limit of %s per rank "
                            "(--memory)", what, ep_format_bytes((double)size_bytes, need, sizeof need),
                            ep_format_bytes((double)arena->limit_bytes, limit, sizeof limit));
    }
    *memory = arena->base + arena->used_bytes;
    arena->used_bytes += (size_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (arena->used_bytes > arena->peak_bytes) {
        memset(arena->base + arena->peak_bytes, 0,
               (size_t)(arena->used_bytes - arena->peak_bytes));
        collapse(arena, arena->peak_bytes, arena->used_bytes);
        arena->peak_bytes = arena->used_bytes;
    }
    return EP_OK;
}

void ep_arena_reset(struct ep_arena *arena)
{
    arena->used_bytes = 0;
}

int64_t ep_arena_used_bytes(const struct ep_arena *arena)
{
    return arena->used_bytes;
}

void ep_arena_release(struct ep_arena *arena, int64_t used_bytes)
{
    EP_ASSERT(used_bytes >= 0 && used_bytes <= arena->used_bytes);
    arena->used_bytes = used_bytes;
}

int64_t ep_arena_peak_bytes(const struct ep_arena *arena)
{
    return arena->peak_bytes;
}

int64_t ep_arena_huge_bytes(const struct ep_arena *arena)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    if (maps == NULL) {
        return -1;
    }
    const uintptr_t from = (uintptr_t)arena->mapping;
    const uintptr_t to = from + arena->mapping_bytes;
    bool inside = false;
    int64_t total_bytes = 0;
    char line[512];
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t low = 0;
        uintptr_t high = 0;
        int64_t kib = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &low, &high) == 2) {
            inside = low < to && high > from;
        } else if (inside && (sscanf(line, "AnonHugePages: %" SCNd64 " kB", &kib) == 1 ||
                              sscanf(line, "ShmemPmdMapped: %" SCNd64 " kB", &kib) == 1)) {
            total_bytes += kib * 1024;
        }
    }
    fclose(maps);
    return total_bytes;
}

const char *ep_pages_name(enum ep_pages pages)
{
    return pages == EP_PAGES_THP ? "thp" : "4k";
}

enum ep_status ep_pages_parse(const char *text, enum ep_pages *pages)
{
    if (strcmp(text, "4k") == 0) {
        *pages = EP_PAGES_4K;
    } else if (strcmp(text, "thp") == 0) {
        *pages = EP_PAGES_THP;
    } else {
        return ep_error_set(EP_EINVAL, "--pages: '%s' is not 4k or thp", text);
    }
    return EP_OK;
}
