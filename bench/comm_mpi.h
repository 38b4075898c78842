/* SPDX-License-Identifier: Apache-2.0 */
/* The MPI side of a communicator, for the transports and links only. */
#ifndef EP_BENCH_COMM_MPI_H
#define EP_BENCH_COMM_MPI_H

#include "bench/comm.h"

#include <mpi.h>

MPI_Comm ep_comm_handle(const struct ep_comm *comm);

/** A status from an MPI return code, with the library's text and the call's name. */
EP_MUST_CHECK enum ep_status ep_comm_check(int code, const char *call);

/** Row counts or offsets as MPI's int; EP_EINVAL names `what` and the value where one is over
 *  2^31 - 1. out [num]. */
EP_MUST_CHECK enum ep_status ep_comm_to_int(const int64_t *values, int64_t num, const char *what,
                                            int *out);

/** A committed type of `row_bytes` bytes, so that counts are rows; free with MPI_Type_free. */
EP_MUST_CHECK enum ep_status ep_comm_type_of_row(int64_t row_bytes, MPI_Datatype *type);

#endif
