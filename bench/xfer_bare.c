/* SPDX-License-Identifier: Apache-2.0 */
/* A bare MPI_Alltoallv in bytes. */
#include "bench/xfer_bare.h"

#include "bench/comm_mpi.h"
#include "bench/xfer_alltoallv.h"

#include <limits.h>
#include <stdlib.h>

struct ep_bare_call {
    struct ep_alltoallv_arguments arguments;
    MPI_Comm handle;
    int *bytes; /* [4][num_ranks]: send counts, send starts, receive counts, receive starts */
    int num_ranks;
};

enum ep_status ep_bare_call_create(const void *alltoallv_state, struct ep_bare_call **call)
{
    struct ep_bare_call *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a bare call");
    }
    ep_alltoallv_get_arguments(alltoallv_state, &c->arguments);
    c->handle = ep_comm_handle(c->arguments.comm);
    c->num_ranks = ep_comm_size(c->arguments.comm);
    c->bytes = calloc(4 * (size_t)c->num_ranks, sizeof *c->bytes);
    enum ep_status status =
        c->bytes == NULL ? ep_error_set(EP_ENOMEM, "no memory for a bare call") : EP_OK;
    int64_t starts[2] = {0, 0};
    for (int r = 0; status == EP_OK && r < c->num_ranks; r++) {
        const int64_t bytes[2] = {c->arguments.rows_to[r] * c->arguments.row_bytes,
                                  c->arguments.rows_from[r] * c->arguments.row_bytes};
        for (int side = 0; side < 2; side++) {
            if (starts[side] + bytes[side] > INT_MAX) {
                status = ep_error_set(EP_EINVAL, "a bare call of %lld bytes does not fit MPI's int",
                                      (long long)(starts[side] + bytes[side]));
                break;
            }
            c->bytes[2 * side * c->num_ranks + r] = (int)bytes[side];
            c->bytes[(2 * side + 1) * c->num_ranks + r] = (int)starts[side];
            starts[side] += bytes[side];
        }
    }
    if (status != EP_OK) {
        ep_bare_call_destroy(c);
        return status;
    }
    *call = c;
    return EP_OK;
}

void ep_bare_call_destroy(struct ep_bare_call *call)
{
    if (call != NULL) {
        free(call->bytes);
        free(call);
    }
}

enum ep_status ep_bare_call_run(void *call)
{
    const struct ep_bare_call *c = call;
    return ep_comm_check(MPI_Alltoallv(c->arguments.send, c->bytes, c->bytes + c->num_ranks,
                                       MPI_BYTE, c->arguments.recv, c->bytes + 2 * c->num_ranks,
                                       c->bytes + 3 * c->num_ranks, MPI_BYTE, c->handle),
                         "bare MPI_Alltoallv");
}
