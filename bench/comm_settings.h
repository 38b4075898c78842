/* SPDX-License-Identifier: Apache-2.0 */
/* The MPI library's own settings, read and written through MPI_T; for comm.c. */
#ifndef EP_BENCH_COMM_SETTINGS_H
#define EP_BENCH_COMM_SETTINGS_H

#include <stdbool.h>

/** Note those that matter here, for ep_comm_mpi_settings. Once, after MPI_T is initialised. */
void ep_comm_settings_read(void);

/** Write an integer control variable; the library reads it when a communicator is made. False where there
 *  is none of that name, or it does not keep the value. */
bool ep_comm_settings_write(const char *name, int value);

#endif
