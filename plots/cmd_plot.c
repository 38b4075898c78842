/* SPDX-License-Identifier: Apache-2.0 */
/* epbench plot: the figures of one or more runs, as SVG, TSV and gnuplot script. */
#include "base/command.h"
#include "base/options.h"
#include "plots/figures.h"

#include <stdlib.h>

enum ep_status ep_cmd_plot(int argc, char **argv);

enum { MAX_DIRECTORIES = 256 };

struct input {
    const char *directories[MAX_DIRECTORIES];
    int num_directories;
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct input *in = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (in->num_directories == MAX_DIRECTORIES) {
            ep_error_set(EP_EINVAL, "more than %d directories", MAX_DIRECTORIES);
            return EINVAL;
        }
        in->directories[in->num_directories++] = text;
        return 0;
    case ARGP_KEY_END:
        if (in->num_directories == 0) {
            ep_error_set(EP_EINVAL, "a run directory is missing: epbench plot DIR...");
            return EINVAL;
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

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
    static const struct argp argp = {
        NULL, parse, "DIR...",
        "Draw the figures of the runs into DIR/plots of the first: NAME.svg, the NAME.tsv it was drawn "
        "from, and NAME.gp, the whole gnuplot script. Prints the paths of the drawings; says on "
        "stderr which could not be drawn, and why.",
        NULL, NULL, NULL};
    enum ep_status status = EP_OK;
    struct input in = {.num_directories = 0};
    struct ep_run run;
    struct ep_records records = {0};
    struct ep_fit fit = {0};
    struct ep_fit_options options;
    struct ep_figure_result results[EP_MAX_FIGURES];
    ep_run_init(&run);
    EP_TRY(ep_options_parse(&argp, argc, argv, &in));
    EP_TRY(ep_run_read(in.directories[0], &run));
    EP_TRY(ep_records_read(in.directories, in.num_directories, &records));
    ep_fit_options_default(&options);
    status = ep_fit_records(&records, &options, &fit);
    if (status == EP_EINVAL) {
        fprintf(stderr, "epbench plot: %s\n", ep_error_text());
        ep_error_clear();
        fit = (struct ep_fit){0};
        status = EP_OK;
    }
    EP_TRY(status);
    const struct ep_figure_input input = {&run, &records, &fit};
    EP_TRY(ep_figures_draw(&input, in.directories[0], results));
    if (print_results(in.directories[0], results) == 0) {
        status = ep_error_set(EP_EENV, "no figure could be drawn");
    }
out:
    ep_fit_fini(&fit);
    ep_records_fini(&records);
    ep_run_fini(&run);
    return status;
}
