/* SPDX-License-Identifier: Apache-2.0 */
/* MPI-3 shared windows, and barriers in them. */
#include "bench/comm_share.h"

#include "base/units.h"
#include "bench/comm_mpi.h"

#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { HUGE_PAGE_BYTES = 1 << 21 };

/* A second view of one segment, 2 MiB-aligned where the memory behind it is. */
struct view {
    char *reserved;
    size_t reserved_bytes;
};

struct ep_share {
    struct ep_comm *node; /* the ranks that see each other's segments */
    MPI_Win window;
    int num_world;   /* ranks of MPI_COMM_WORLD that segment has room for */
    char **segment;  /* [num_world] NULL where a rank has none here */
    struct view *views; /* [ranks of the node] */
};

/* Room on the file system that Open MPI and others put shared memory on; INT64_MAX where unknown. */
static int64_t free_bytes(void)
{
    struct statvfs fs;
    return statvfs("/dev/shm", &fs) == 0 ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize : INT64_MAX;
}

static enum ep_status check_room(const struct ep_comm *node, int64_t size_bytes)
{
    const int64_t room = free_bytes();
    const int num_ranks = ep_comm_size(node);
    if (size_bytes > room / num_ranks) {
        char has[32];
        char need[32];
        return ep_error_set(EP_EENV, "/dev/shm has room for %s, %d ranks need %s each (--memory)",
                            ep_format_bytes((double)room, has, sizeof has), num_ranks,
                            ep_format_bytes((double)size_bytes, need, sizeof need));
    }
    return EP_OK;
}

/* --- huge pages ------------------------------------------------------------------------------ */

/* Place in its file of mapped memory; -1 where that cannot be read. */
static int64_t file_offset(const char *memory)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return -1;
    }
    const uintptr_t at = (uintptr_t)memory;
    int64_t found = -1;
    char line[512];
    while (found < 0 && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t low = 0;
        uintptr_t high = 0;
        uint64_t offset = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64, &low, &high, &offset) == 3 &&
            at >= low && at < high) {
            found = (int64_t)(offset + (at - low));
        }
    }
    fclose(maps);
    return found;
}

/* MPI libraries map windows at any page; a huge page needs an address that is at the same place in 2 MiB as
 * the memory is in its file. mremap of size 0 maps shared memory once more. Where it fails the
 * library's address stays, with small pages. */
static char *view_aligned(char *segment, int64_t size_bytes, struct view *view)
{
#if defined(__linux__)
    const uintptr_t in_page = (uintptr_t)segment % (uintptr_t)sysconf(_SC_PAGESIZE);
    const size_t size = (size_t)size_bytes + in_page;
    const int64_t offset = file_offset(segment - in_page);
    if (offset < 0) {
        return segment;
    }
    view->reserved_bytes = size + HUGE_PAGE_BYTES;
    view->reserved = mmap(NULL, view->reserved_bytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (view->reserved == MAP_FAILED) {
        view->reserved = NULL;
        return segment;
    }
    const uintptr_t ahead = (uintptr_t)offset - (uintptr_t)view->reserved;
    char *to = view->reserved + ahead % HUGE_PAGE_BYTES;
    if (mremap(segment - in_page, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to) {
        return to + in_page;
    }
    munmap(view->reserved, view->reserved_bytes);
    view->reserved = NULL;
#else
    (void)size_bytes;
    (void)view;
#endif
    return segment;
}

/* --- windows --------------------------------------------------------------------------------- */

/* All segments of the node as this process sees them. */
static enum ep_status find_segments(struct ep_share *s, int64_t size_bytes)
{
    enum ep_status status = EP_OK;
    const int num_ranks = ep_comm_size(s->node);
    int64_t *world_ranks = calloc((size_t)num_ranks, sizeof *world_ranks);
    const int64_t own = ep_comm_world_rank(s->node);
    MPI_Comm_size(MPI_COMM_WORLD, &s->num_world);
    s->segment = calloc((size_t)s->num_world, sizeof *s->segment);
    s->views = calloc((size_t)num_ranks, sizeof *s->views);
    status = world_ranks != NULL && s->segment != NULL && s->views != NULL
                 ? EP_OK
                 : ep_error_set(EP_ENOMEM, "no memory for %d ranks", num_ranks);
    EP_TRY(ep_comm_agree(s->node, status));
    EP_TRY(ep_comm_allgather_i64(s->node, &own, 1, world_ranks));
    for (int r = 0; r < num_ranks; r++) {
        MPI_Aint size = 0;
        int unit = 0;
        char *segment = NULL;
        EP_TRY(ep_comm_check(MPI_Win_shared_query(s->window, r, &size, &unit, &segment),
                             "MPI_Win_shared_query"));
        s->segment[world_ranks[r]] = view_aligned(segment, size_bytes, &s->views[r]);
    }
out:
    free(world_ranks);
    return status;
}

/* Flags and rows are read and written by plain loads and stores: the window must be one memory. */
static enum ep_status check_unified(MPI_Win window)
{
    int *model = NULL;
    int found = 0;
    MPI_Win_get_attr(window, MPI_WIN_MODEL, &model, &found);
    return found != 0 && *model == MPI_WIN_UNIFIED
               ? EP_OK
               : ep_error_set(EP_EENV, "this MPI library's shared windows are not of the unified "
                              "memory model");
}

static enum ep_status allocate_window(struct ep_share *s, int64_t size_bytes)
{
    MPI_Info info = MPI_INFO_NULL;
    char *base = NULL;
    enum ep_status status = ep_comm_check(MPI_Info_create(&info), "MPI_Info_create");
    if (status != EP_OK) {
        return status;
    }
    MPI_Info_set(info, "alloc_shared_noncontig", "true");
    if (MPI_Win_allocate_shared((MPI_Aint)size_bytes, 1, info, ep_comm_handle(s->node), &base,
                                &s->window) != MPI_SUCCESS) {
        s->window = MPI_WIN_NULL;
        status = ep_error_set(EP_EENV, "this MPI library makes no shared window here");
    } else {
        status = check_unified(s->window);
    }
    MPI_Info_free(&info);
    return status;
}

enum ep_status ep_share_create(struct ep_comm *comm, int64_t size_bytes, struct ep_share **share)
{
    enum ep_status status = EP_OK;
    const int rank = ep_comm_rank(comm);
    struct ep_share *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->window = MPI_WIN_NULL;
    }
    EP_TRY(ep_comm_agree(comm, s != NULL ? EP_OK
                                         : ep_error_set(EP_ENOMEM, "no memory for a shared window")));
    EP_TRY(ep_comm_create_split(comm, ep_comm_node_of(comm, rank), rank, &s->node));
    EP_TRY(ep_comm_agree(comm, check_room(s->node, size_bytes)));
    EP_TRY(ep_comm_agree(comm, allocate_window(s, size_bytes)));
    EP_TRY(ep_comm_check(MPI_Win_lock_all(MPI_MODE_NOCHECK, s->window), "MPI_Win_lock_all"));
    EP_TRY(ep_comm_agree(comm, find_segments(s, size_bytes)));
    *share = s;
    s = NULL;
out:
    ep_share_destroy(s);
    return status;
}

void ep_share_destroy(struct ep_share *share)
{
    if (share == NULL) {
        return;
    }
    for (int r = 0; share->views != NULL && r < ep_comm_size(share->node); r++) {
        if (share->views[r].reserved != NULL) {
            munmap(share->views[r].reserved, share->views[r].reserved_bytes);
        }
    }
    if (share->window != MPI_WIN_NULL) {
        if (share->segment != NULL) { /* was locked */
            MPI_Win_unlock_all(share->window);
        }
        MPI_Win_free(&share->window);
    }
    ep_comm_destroy(share->node);
    free(share->segment);
    free(share->views);
    free(share);
}

char *ep_share_segment(const struct ep_share *share, int world_rank)
{
    EP_ASSERT(ep_share_has(share, world_rank));
    return share->segment[world_rank];
}

bool ep_share_has(const struct ep_share *share, int world_rank)
{
    EP_ASSERT(world_rank >= 0 && world_rank < share->num_world);
    return share->segment[world_rank] != NULL;
}

/* --- barriers -------------------------------------------------------------------------------- */

enum { LINE = 64, MAX_ROUNDS = 31, PATIENT_SPINS = 2000 };

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "flags between processes must be free of locks");

/* Dissemination: in round i a rank tells the one 2^i further, and waits for the one 2^i before it. A flag
 * has one writer, and counts up. Source: Hensgen, Finkel, Manber, "Two algorithms for barrier
 * synchronization", 1988. */
struct ep_share_barrier {
    struct ep_comm *comm;
    int num_rounds;
    int64_t max_spins; /* before it yields */
    uint64_t epoch;
    _Atomic uint64_t *own[MAX_ROUNDS];
    _Atomic uint64_t *peer[MAX_ROUNDS];
};

static _Atomic uint64_t *flag_at(char *lines, int round)
{
    return (_Atomic uint64_t *)(void *)(lines + (ptrdiff_t)round * LINE);
}

static enum ep_status find_flags(const struct ep_share *share, char *lines,
                                 struct ep_share_barrier *b)
{
    enum ep_status status = EP_OK;
    const int size = ep_comm_size(b->comm);
    const int rank = ep_comm_rank(b->comm);
    const int64_t world_rank = ep_comm_world_rank(b->comm);
    const int64_t own[2] = {world_rank, lines - ep_share_segment(share, (int)world_rank)};
    int64_t(*all)[2] = calloc((size_t)size, sizeof *all);
    status = all != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for %d ranks", size);
    EP_TRY(ep_comm_agree(b->comm, status));
    for (int i = 0; i < b->num_rounds; i++) {
        b->own[i] = flag_at(lines, i);
        atomic_store(b->own[i], 0); /* before anybody leaves the gathering below */
    }
    EP_TRY(ep_comm_allgather_i64(b->comm, own, 2, &all[0][0]));
    for (int i = 0; i < b->num_rounds; i++) {
        const int64_t *peer = all[(rank + (1 << i)) % size];
        b->peer[i] = flag_at(ep_share_segment(share, (int)peer[0]) + peer[1], i);
    }
out:
    free(all);
    return status;
}

enum ep_status ep_share_barrier_create(const struct ep_share *share, struct ep_comm *comm,
                                       struct ep_arena *arena, struct ep_share_barrier **barrier)
{
    enum ep_status status = EP_OK;
    void *lines = NULL;
    struct ep_share_barrier *b = calloc(1, sizeof *b);
    if (b == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a barrier");
    } else {
        b->comm = comm;
        while (1 << b->num_rounds < ep_comm_size(comm)) {
            b->num_rounds++;
        }
        b->max_spins = ep_comm_size(comm) <= sysconf(_SC_NPROCESSORS_ONLN) ? PATIENT_SPINS : 0;
        status = ep_arena_alloc(arena, (b->num_rounds + 1) * LINE, "flags", &lines);
    }
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(find_flags(share, lines, b));
    *barrier = b;
    b = NULL;
out:
    free(b);
    return status;
}

void ep_share_barrier_destroy(struct ep_share_barrier *barrier)
{
    free(barrier);
}

static void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* One that waits long gives its core away, and lets MPI go on: the awaited rank may still be inside a call
 * that needs this one's progress. */
static enum ep_status await(const struct ep_share_barrier *b, const _Atomic uint64_t *flag)
{
    enum ep_status status = EP_OK;
    for (int64_t spins = 0; atomic_load_explicit(flag, memory_order_acquire) < b->epoch; spins++) {
        if (spins < b->max_spins) {
            pause_core();
            continue;
        }
        int ignored = 0;
        EP_TRY(ep_comm_check(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, ep_comm_handle(b->comm),
                                        &ignored, MPI_STATUS_IGNORE),
                             "MPI_Iprobe"));
        sched_yield();
    }
out:
    return status;
}

enum ep_status ep_share_barrier_wait(struct ep_share_barrier *b)
{
    enum ep_status status = EP_OK;
    b->epoch++;
    for (int i = 0; i < b->num_rounds; i++) {
        atomic_store_explicit(b->peer[i], b->epoch, memory_order_release);
        EP_TRY(await(b, b->own[i]));
    }
out:
    return status;
}
