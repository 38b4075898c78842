/* SPDX-License-Identifier: Apache-2.0 */
/* MPI-3 shared windows. */
#include "bench/comm_share.h"

#include "base/units.h"
#include "bench/comm_mpi.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

struct ep_share {
    MPI_Win window;
    int num_world;   /* ranks of MPI_COMM_WORLD that segment has room for */
    char **segment;  /* [num_world] NULL where a rank has none */
};

/* Room on the file system that Open MPI and others put shared memory on; INT64_MAX where unknown. */
static int64_t free_bytes(void)
{
    struct statvfs fs;
    return statvfs("/dev/shm", &fs) == 0 ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize : INT64_MAX;
}

static enum ep_status check_room(struct ep_comm *comm, int64_t size_bytes)
{
    const int64_t room = free_bytes();
    const int num_ranks = ep_comm_size(comm);
    if (ep_comm_num_nodes(comm) > 1) {
        return ep_error_set(EP_EENV, "the ranks are on %d nodes", ep_comm_num_nodes(comm));
    }
    if (size_bytes > room / num_ranks) {
        char has[32];
        char need[32];
        return ep_error_set(EP_EENV, "/dev/shm has room for %s, %d ranks need %s each (--memory)",
                            ep_format_bytes((double)room, has, sizeof has), num_ranks,
                            ep_format_bytes((double)size_bytes, need, sizeof need));
    }
    return EP_OK;
}

/* All segments as this process sees them. */
static enum ep_status find_segments(struct ep_comm *comm, struct ep_share *s)
{
    enum ep_status status = EP_OK;
    const int num_ranks = ep_comm_size(comm);
    int64_t *world_ranks = calloc((size_t)num_ranks, sizeof *world_ranks);
    const int64_t own = ep_comm_world_rank(comm);
    MPI_Comm_size(MPI_COMM_WORLD, &s->num_world);
    s->segment = calloc((size_t)s->num_world, sizeof *s->segment);
    status = world_ranks != NULL && s->segment != NULL
                 ? EP_OK
                 : ep_error_set(EP_ENOMEM, "no memory for %d ranks", num_ranks);
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(ep_comm_allgather_i64(comm, &own, 1, world_ranks));
    for (int r = 0; r < num_ranks; r++) {
        MPI_Aint size = 0;
        int unit = 0;
        EP_TRY(ep_comm_check(MPI_Win_shared_query(s->window, r, &size, &unit,
                                                  &s->segment[world_ranks[r]]),
                             "MPI_Win_shared_query"));
    }
out:
    free(world_ranks);
    return status;
}

enum ep_status ep_share_create(struct ep_comm *comm, int64_t size_bytes, struct ep_share **share)
{
    enum ep_status status = EP_OK;
    MPI_Info info = MPI_INFO_NULL;
    char *base = NULL;
    struct ep_share *s = calloc(1, sizeof *s);
    status = s == NULL ? ep_error_set(EP_ENOMEM, "no memory for a shared window")
                       : check_room(comm, size_bytes);
    if (s != NULL) {
        s->window = MPI_WIN_NULL;
    }
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(ep_comm_check(MPI_Info_create(&info), "MPI_Info_create"));
    EP_TRY(ep_comm_check(MPI_Info_set(info, "alloc_shared_noncontig", "true"), "MPI_Info_set"));
    if (MPI_Win_allocate_shared((MPI_Aint)size_bytes, 1, info, ep_comm_handle(comm), &base,
                                &s->window) != MPI_SUCCESS) {
        s->window = MPI_WIN_NULL;
        status = ep_error_set(EP_EENV, "this MPI library makes no shared window here");
    }
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(ep_comm_check(MPI_Win_lock_all(MPI_MODE_NOCHECK, s->window), "MPI_Win_lock_all"));
    EP_TRY(find_segments(comm, s));
    *share = s;
    s = NULL;
out:
    if (info != MPI_INFO_NULL) {
        MPI_Info_free(&info);
    }
    ep_share_destroy(s);
    return status;
}

void ep_share_destroy(struct ep_share *share)
{
    if (share == NULL) {
        return;
    }
    if (share->window != MPI_WIN_NULL) {
        MPI_Win_unlock_all(share->window);
        MPI_Win_free(&share->window);
    }
    free(share->segment);
    free(share);
}

char *ep_share_segment(const struct ep_share *share, int world_rank)
{
    EP_ASSERT(world_rank >= 0 && world_rank < share->num_world);
    EP_ASSERT(share->segment[world_rank] != NULL);
    return share->segment[world_rank];
}

enum ep_status ep_share_sync(const struct ep_share *share, struct ep_comm *comm)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_comm_check(MPI_Win_sync(share->window), "MPI_Win_sync"));
    EP_TRY(ep_comm_barrier(comm));
    EP_TRY(ep_comm_check(MPI_Win_sync(share->window), "MPI_Win_sync"));
out:
    return status;
}
