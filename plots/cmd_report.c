/* SPDX-License-Identifier: Apache-2.0 */
/* epbench report: read runs, fit, draw the figures, write report.html, print a short summary. */
#include "base/command.h"
#include "base/file.h"
#include "base/options.h"
#include "plots/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_cmd_report(int argc, char **argv);

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
            ep_error_set(EP_EINVAL, "a run directory is missing: epbench report DIR...");
            return EINVAL;
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum ep_status read_runs(const struct input *in, struct ep_run **runs, int *num_runs)
{
    enum ep_status status = EP_OK;
    *runs = calloc((size_t)in->num_directories, sizeof **runs);
    if (*runs == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %d runs", in->num_directories);
    }
    for (; *num_runs < in->num_directories; (*num_runs)++) {
        EP_TRY(ep_run_read(in->directories[*num_runs], &(*runs)[*num_runs]));
    }
out:
    return status;
}

/* A run that cannot be fitted still has a report; *failure [to be freed] says why. */
static enum ep_status fit_records(const struct ep_records *records, struct ep_fit *fit,
                                  char **failure)
{
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    const enum ep_status status = ep_fit_records(records, &options, fit);
    if (status != EP_EINVAL) {
        return status;
    }
    *fit = (struct ep_fit){0};
    *failure = strdup(ep_error_text());
    ep_error_clear();
    return *failure != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a text");
}

enum ep_status ep_cmd_report(int argc, char **argv)
{
    static const struct argp argp = {
        NULL, parse, "DIR...",
        "Write report.html into the first DIR: one file, without scripts or references to anything "
        "outside, with the summary, figures, warnings, fit, links, kernels, machine and what was run. "
        "Prints its path and a short summary.",
        NULL, NULL, NULL};
    enum ep_status status = EP_OK;
    struct input in = {.num_directories = 0};
    struct ep_run *runs = NULL;
    int num_runs = 0;
    struct ep_records records = {0};
    struct ep_fit fit = {0};
    struct ep_report_facts facts = {0};
    struct ep_figure_result results[EP_MAX_FIGURES] = {{false, ""}};
    char *failure = NULL, *path = NULL;
    EP_TRY(ep_options_parse(&argp, argc, argv, &in));
    EP_TRY(read_runs(&in, &runs, &num_runs));
    EP_TRY(ep_records_read(in.directories, in.num_directories, &records));
    EP_TRY(fit_records(&records, &fit, &failure));
    const struct ep_figure_input figures = {&runs[0], &records, &fit};
    EP_TRY(ep_figures_draw(&figures, in.directories[0], results));
    EP_TRY(ep_report_facts_init(runs, num_runs, &records, &fit, &facts));
    const struct ep_report_input report = {in.directories, runs, num_runs, &records, &fit, failure,
                                           ep_figures, results, &facts};
    path = ep_path_join(in.directories[0], "report.html");
    status = path != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a path");
    EP_TRY(status);
    EP_TRY(ep_report_write(&report, path));
    printf("report: %s\n", path);
    EP_TRY(ep_report_print(&report, stdout));
out:
    free(path);
    free(failure);
    ep_report_facts_fini(&facts);
    ep_fit_fini(&fit);
    ep_records_fini(&records);
    for (int i = 0; i < num_runs; i++) {
        ep_run_fini(&runs[i]);
    }
    free(runs);
    return status;
}
