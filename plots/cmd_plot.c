/* SPDX-License-Identifier: Apache-2.0 */
/* epbench plot: the figures of one or more runs, as SVG, TSV and gnuplot script. */
#include "base/command.h"
#include "plots/figures.h"
#include "plots/plot_input.h"

#include <stdio.h>

enum ep_status ep_cmd_plot(int argc, char **argv);

/* One line a figure: its path, or why it was not drawn. Returns the number drawn. */
static int print_results(const char *directory, const struct ep_figure_result *results)
{
    int num_drawn = 0;
    for (int i = 0; ep_figures[i].name != NULL; i++) {
        if (results[i].drawn) {
            printf("%s/plots/%s.svg\n", directory, ep_figures[i].name);
            num_drawn++;
        } else {
            fprintf(stderr, "epbench plot: %s: not drawn: %s\n", ep_figures[i].name,
                    results[i].reason);
        }
    }
    return num_drawn;
}

enum ep_status ep_cmd_plot(int argc, char **argv)
{
    static const char doc[] =
        "Draw the figures of the runs into DIR/plots of the first: NAME.svg, the NAME.tsv it was drawn "
        "from, and NAME.gp, the whole gnuplot script. Prints the paths of the drawings; says on "
        "stderr which could not be drawn, and why.";
    enum ep_status status = EP_OK;
    struct ep_plot_input in = {.num_directories = 0};
    struct ep_figure_result results[EP_MAX_FIGURES];
    EP_TRY(ep_plot_input_read(doc, argc, argv, &in));
    if (in.failure != NULL) {
        fprintf(stderr, "epbench plot: %s\n", in.failure);
    }
    const struct ep_figure_input input = {&in.runs[0], &in.records, &in.fit};
    EP_TRY(ep_figures_draw(&input, in.directories[0], results));
    if (print_results(in.directories[0], results) == 0) {
        status = ep_error_set(EP_EENV, "no figure could be drawn");
    }
out:
    ep_plot_input_fini(&in);
    return status;
}
