/* SPDX-License-Identifier: Apache-2.0 */
/* The MPI library's own settings, read and written through MPI_T; for comm.c. A simulator's are those of its
 * command line (bench/simulated.h), and stay. */
#ifndef EP_BENCH_COMM_SETTINGS_H
#define EP_BENCH_COMM_SETTINGS_H

#include "base/error.h"

#include <stdbool.h>

/** Begin and end reading and writing settings, between MPI_Init and MPI_Finalize; the first notes those that
 *  matter here, for ep_comm_mpi_settings. EP_EMPI. */
EP_MUST_CHECK enum ep_status ep_comm_settings_start(void);
void ep_comm_settings_stop(void);

/** Write an integer control variable; the library reads it when a communicator is made. False where there
 *  is none of that name, or it does not keep the value. In a simulation: true where it was started so. */
bool ep_comm_settings_write(const char *name, int value);

#endif
