/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the program again under mpirun where no launcher did. */
#ifndef EP_BENCH_LAUNCH_H
#define EP_BENCH_LAUNCH_H

#include "base/error.h"

#include <stdint.h>

/** How ranks are started, as the options say. */
struct ep_launch_plan {
    int64_t num_ranks;    /* 0: one per core that this process may use */
    const char *launcher; /* NULL: EPBENCH_LAUNCHER, else mpirun with what the number of ranks needs */
    int64_t threads;      /* per rank: each rank is bound to so many cores */
    int64_t num_launches; /* >= 1 */
    const char *output;   /* -o DIR as given; NULL = none */
    const char *append;   /* --append DIR as given; NULL = none */
};

/** Run `mpirun -n N PROGRAM ARGUMENTS` in place of this process, with argv's command and options
 *  (argv[0] is "epbench COMMAND"). With several launches, one after the other: the first makes the run
 *  that the others append to; this process then ends with the worst exit status.
 *  Returns only where nothing could be started: EP_EENV naming the launcher; EP_EINVAL for several
 *  launches without a directory. */
EP_MUST_CHECK enum ep_status ep_launch(const struct ep_launch_plan *plan, int argc, char **argv);

#endif
