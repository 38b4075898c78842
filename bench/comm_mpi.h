/* SPDX-License-Identifier: Apache-2.0 */
/* The MPI side of a communicator, for the transports and links only. */
#ifndef EP_BENCH_COMM_MPI_H
#define EP_BENCH_COMM_MPI_H

#include "bench/comm.h"

#include <mpi.h>

MPI_Comm ep_comm_handle(const struct ep_comm *comm);

/** A status from an MPI return code, with the library's text and the call's name. */
EP_MUST_CHECK enum ep_status ep_comm_check(int code, const char *call);

/** The largest count in one MPI call: 2^31 - 1. Tests lower it (>= 1), so that what is split or refused
 *  beyond it is seen with few bytes; the same on all ranks. */
int64_t ep_comm_count_limit(void);
void ep_comm_set_count_limit(int64_t limit);

/** Row counts or offsets as MPI's int; EP_EINVAL names `what` and the value where one is over the
 *  limit. out [num]. */
EP_MUST_CHECK enum ep_status ep_comm_to_int(const int64_t *values, int64_t num, const char *what,
                                            int *out);

/** A committed type of `row_bytes` bytes, so that counts are rows; free with MPI_Type_free. */
EP_MUST_CHECK enum ep_status ep_comm_type_of_row(int64_t row_bytes, MPI_Datatype *type);

#endif
