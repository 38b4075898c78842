/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the program again under mpirun where no launcher did. */
#ifndef EP_BENCH_LAUNCH_H
#define EP_BENCH_LAUNCH_H

#include "base/error.h"

#include <stdbool.h>

/** Is this process without a launcher, and not just asked for --help? */
bool ep_launch_is_needed(int argc, char **argv);

/** Replace this process by `mpirun -n N PROGRAM ARGUMENTS`; returns only on failure (EP_EENV).
 *  -n N (default: one rank per core that this process may use) and --launcher CMD (default:
 *  EPBENCH_LAUNCHER, else mpirun with the options that the number of ranks needs) are read from
 *  argv and stay there for the command, which ignores them. */
EP_MUST_CHECK enum ep_status ep_launch(int argc, char **argv);

#endif
