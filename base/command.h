/* SPDX-License-Identifier: Apache-2.0 */
/* A command of the program: one row of the table in bench/epbench.c. */
#ifndef EP_BASE_COMMAND_H
#define EP_BASE_COMMAND_H

#include "base/error.h"

#include <stdbool.h>

struct ep_command {
    const char *name;    /* as typed, and `epbench NAME` in messages */
    const char *summary; /* one line for `epbench help` */
    bool needs_ranks;    /* runs under MPI; started without a launcher it starts mpirun itself */
    /** argv[0] is "epbench NAME". stdout is data, stderr is talk. A failure's text is in
     *  ep_error_text(); main prints it and exits with ep_status_exit_code(). */
    enum ep_status (*run)(int argc, char **argv);
};

#endif
