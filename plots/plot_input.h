/* SPDX-License-Identifier: Apache-2.0 */
/* What plot and report work on: the directories of the command line, their runs, records and fit. */
#ifndef EP_PLOTS_PLOT_INPUT_H
#define EP_PLOTS_PLOT_INPUT_H

#include "results/fit.h"
#include "results/run_dir.h"

enum { EP_PLOT_MAX_DIRECTORIES = 256 };

/** Begin with {0}; end with ep_plot_input_fini. Directories are borrowed from argv. */
struct ep_plot_input {
    const char *directories[EP_PLOT_MAX_DIRECTORIES];
    int num_directories;
    struct ep_run *runs; /* [num_runs], of the directories in turn */
    int num_runs;
    struct ep_records records; /* of all directories */
    struct ep_fit fit;         /* no groups where they could not be fitted */
    char *failure;             /* why they could not be; NULL = they were */
};

/** Parse `COMMAND DIR...` (doc: its help text), read and fit. Records that cannot be fitted are read all
 *  the same. Returns EP_EINVAL for no directory, one that is no run, or bad records; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_plot_input_read(const char *doc, int argc, char **argv,
                                                struct ep_plot_input *input);
void ep_plot_input_fini(struct ep_plot_input *input);

#endif
