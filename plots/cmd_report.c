/* SPDX-License-Identifier: Apache-2.0 */
/* epbench report: read runs, fit, draw the figures, write report.html, print a short summary. */
#include "base/command.h"
#include "base/file.h"
#include "plots/plot_input.h"
#include "plots/report.h"

#include <stdlib.h>

enum ep_status ep_cmd_report(int argc, char **argv);

enum ep_status ep_cmd_report(int argc, char **argv)
{
    static const char doc[] =
        "Write report.html into the first DIR: one file, without scripts or references to anything "
        "outside, with the summary, figures, warnings, fit, links, kernels, machine and what was run. "
        "Prints its path and a short summary.";
    enum ep_status status = EP_OK;
    struct ep_plot_input in = {.num_directories = 0};
    struct ep_report_facts facts = {0};
    struct ep_figure_result results[EP_MAX_FIGURES] = {{false, ""}};
    char *path = NULL;
    EP_TRY(ep_plot_input_read(doc, argc, argv, &in));
    const struct ep_figure_input figures = {&in.runs[0], &in.records, &in.fit};
    EP_TRY(ep_figures_draw(&figures, in.directories[0], results));
    EP_TRY(ep_report_facts_init(in.runs, in.num_runs, &in.records, &in.fit, &facts));
    const struct ep_report_input report = {in.directories, in.runs,    in.num_runs,
                                           &in.records,    &in.fit,    in.failure,
                                           ep_figures,     results,    &facts};
    path = ep_path_join(in.directories[0], "report.html");
    status = path != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a path");
    EP_TRY(status);
    EP_TRY(ep_report_write(&report, path));
    printf("report: %s\n", path);
    EP_TRY(ep_report_print(&report, stdout));
out:
    free(path);
    ep_report_facts_fini(&facts);
    ep_plot_input_fini(&in);
    return status;
}
