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
#include <unistd.h>

enum { ALIGN_BYTES = 64, PAGE_BYTES = 1 << 12, HUGE_PAGE_BYTES = 1 << 21, MAX_ROW_BUFFERS = 16 };
enum { FOLDED_BYTES = 1 << 24 };

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; kernels before refuse it */
#endif

struct ep_arena {
    char *mapping;
    size_t mapping_bytes;
    bool owns_mapping;
    bool collapses; /* asks for huge pages range by range */
    char *base; /* 2 MiB-aligned where there is room for that */
    int64_t limit_bytes;
    int64_t used_bytes;
    int64_t peak_bytes; /* touched so far */
    enum ep_pages pages;
    enum ep_buffers policy;
    struct range {
        int64_t first, size_bytes; /* on pages of its own, unless exact */
    } rows[MAX_ROW_BUFFERS];
    int num_rows;
    int64_t rows_size_bytes, rows_used_bytes;
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

static char *align(char *memory, uintptr_t unit)
{
    const uintptr_t start = (uintptr_t)memory;
    return memory + (unit - start % unit) % unit;
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
    a->base = align(a->mapping, HUGE_PAGE_BYTES);
    a->limit_bytes = limit_bytes;
    a->pages = pages;
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
    /* What has no room for a huge page should not lose its memory to their alignment. */
    a->base = align(memory, size_bytes >= 2 * HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : ALIGN_BYTES);
    const int64_t lost_bytes = a->base - a->mapping;
    a->limit_bytes = size_bytes > lost_bytes ? size_bytes - lost_bytes : 0;
    a->collapses = pages == EP_PAGES_THP;
    a->pages = pages;
    advise(a, pages);
    *arena = a;
    return EP_OK;
}

/* `num_bytes` of address space, block after block of the same memory; MAP_FAILED where the system refuses. */
static char *map_folded(size_t num_bytes)
{
    const int file = memfd_create("epbench", MFD_CLOEXEC);
    char *memory = MAP_FAILED;
    if (file >= 0 && ftruncate(file, FOLDED_BYTES) == 0) {
        memory = mmap(NULL, num_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    for (size_t at = 0; memory != MAP_FAILED && at < num_bytes; at += FOLDED_BYTES) {
        const size_t left = num_bytes - at;
        if (mmap(memory + at, left < FOLDED_BYTES ? left : FOLDED_BYTES, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
            munmap(memory, num_bytes);
            memory = MAP_FAILED;
        }
    }
    if (file >= 0) {
        close(file); /* mappings keep it */
    }
    return memory;
}

enum ep_status ep_arena_create_folded(int64_t limit_bytes, struct ep_arena **arena)
{
    char *memory = map_folded((size_t)limit_bytes);
    if (memory == MAP_FAILED) {
        return ep_error_set(EP_ENOMEM, "the system refuses to map %" PRId64 " bytes of folded buffers",
                            limit_bytes);
    }
    const enum ep_status status = ep_arena_create_in(memory, limit_bytes, EP_PAGES_4K, arena);
    if (status != EP_OK) {
        munmap(memory, (size_t)limit_bytes);
        return status;
    }
    (*arena)->owns_mapping = true;
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

/* --- buffers of rows ---------------------------------------------------------------------------- */

static const char *const policies[] = {
    [EP_BUFFERS_EXACT] = "exact",
    [EP_BUFFERS_STATIC] = "static",
    [EP_BUFFERS_DYNAMIC] = "dynamic",
};

const char *ep_buffers_name(enum ep_buffers policy)
{
    return policies[policy];
}

enum ep_status ep_buffers_parse(const char *text, enum ep_buffers *policy)
{
    for (int i = 0; i < EP_NUM_BUFFERS; i++) {
        if (strcmp(text, policies[i]) == 0) {
            *policy = (enum ep_buffers)i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--buffers: '%s' is not exact, static or dynamic", text);
}

void ep_arena_begin_rows(struct ep_arena *arena, enum ep_buffers policy)
{
    arena->policy = policy;
    arena->num_rows = 0;
    arena->rows_size_bytes = 0;
    arena->rows_used_bytes = 0;
}

static int64_t round_up(int64_t value, int64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

enum ep_status ep_arena_alloc_rows(struct ep_arena *a, int64_t num_rows, int64_t most_rows,
                                   int64_t row_bytes, const char *what, void **memory)
{
    EP_ASSERT(num_rows >= 0);
    const int64_t used_bytes = num_rows * row_bytes;
    const int64_t most_bytes = (most_rows > num_rows ? most_rows : num_rows) * row_bytes;
    const int64_t size_bytes = a->policy == EP_BUFFERS_STATIC ? most_bytes : used_bytes;
    a->rows_used_bytes += used_bytes;
    a->rows_size_bytes += size_bytes;
    if (a->policy == EP_BUFFERS_EXACT) {
        return ep_arena_alloc(a, size_bytes, what, memory);
    }
    const int64_t page_bytes = a->pages == EP_PAGES_THP ? HUGE_PAGE_BYTES : PAGE_BYTES;
    const int64_t whole_bytes = round_up(size_bytes, page_bytes);
    const int64_t gap_bytes = round_up(a->used_bytes, page_bytes) - a->used_bytes;
    void *gap = NULL;
    enum ep_status status = ep_arena_alloc(a, gap_bytes, what, &gap);
    const int64_t first = a->used_bytes;
    if (status == EP_OK) {
        status = ep_arena_alloc(a, whole_bytes, what, memory);
    }
    if (status == EP_OK && whole_bytes > 0) {
        EP_ASSERT(a->num_rows < MAX_ROW_BUFFERS && first % page_bytes == 0);
        a->rows[a->num_rows++] = (struct range){first, whole_bytes};
    }
    return status;
}

void ep_arena_count_rows(const struct ep_arena *arena, int64_t *size_bytes, int64_t *used_bytes)
{
    *size_bytes = arena->rows_size_bytes;
    *used_bytes = arena->rows_used_bytes;
}

bool ep_arena_renews(const struct ep_arena *arena)
{
    return arena->owns_mapping;
}

enum ep_status ep_arena_renew_rows(struct ep_arena *a)
{
    EP_ASSERT(a->owns_mapping && a->policy != EP_BUFFERS_EXACT);
    for (int i = 0; i < a->num_rows; i++) {
        char *at = a->base + a->rows[i].first;
        const size_t size = (size_t)a->rows[i].size_bytes;
        if (mmap(at, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
            return ep_error_set(EP_ENOMEM, "the system refuses to map %zu bytes for buffers anew", size);
        }
        (void)madvise(at, size, a->pages == EP_PAGES_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        for (size_t byte = 0; byte < size; byte += PAGE_BYTES) {
            *(volatile char *)(at + byte) = 0;
        }
    }
    return EP_OK;
}

void ep_arena_reset(struct ep_arena *arena)
{
    arena->used_bytes = 0;
    ep_arena_begin_rows(arena, EP_BUFFERS_EXACT);
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
