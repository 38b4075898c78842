/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what plot and report work on. */
#include "plots/plot_input.h"

#include "base/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct ep_plot_input *in = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (in->num_directories == EP_PLOT_MAX_DIRECTORIES) {
            ep_error_set(EP_EINVAL, "more than %d directories", EP_PLOT_MAX_DIRECTORIES);
            return EINVAL;
        }
        in->directories[in->num_directories++] = text;
        return 0;
    case ARGP_KEY_END:
        if (in->num_directories == 0) {
            ep_error_set(EP_EINVAL, "a run directory is missing: %s DIR...", state->argv[0]);
            return EINVAL;
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum ep_status read_runs(struct ep_plot_input *in)
{
    enum ep_status status = EP_OK;
    in->runs = calloc((size_t)in->num_directories, sizeof *in->runs);
    if (in->runs == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %d runs", in->num_directories);
    }
    for (; in->num_runs < in->num_directories; in->num_runs++) {
        EP_TRY(ep_run_read(in->directories[in->num_runs], &in->runs[in->num_runs]));
    }
out:
    return status;
}

static enum ep_status fit_records(struct ep_plot_input *in)
{
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    const enum ep_status status = ep_fit_records(&in->records, &options, &in->fit);
    if (status != EP_EINVAL) {
        return status;
    }
    in->fit = (struct ep_fit){0};
    in->failure = strdup(ep_error_text());
    ep_error_clear();
    return in->failure != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a text");
}

enum ep_status ep_plot_input_read(const char *doc, int argc, char **argv,
                                  struct ep_plot_input *input)
{
    enum ep_status status = EP_OK;
    const struct argp argp = {NULL, parse, "DIR...", doc, NULL, NULL, NULL};
    EP_TRY(ep_options_parse(&argp, argc, argv, input));
    EP_TRY(read_runs(input));
    EP_TRY(ep_records_read(input->directories, input->num_directories, &input->records));
    EP_TRY(fit_records(input));
out:
    return status;
}

void ep_plot_input_fini(struct ep_plot_input *input)
{
    free(input->failure);
    ep_fit_fini(&input->fit);
    ep_records_fini(&input->records);
    for (int i = 0; i < input->num_runs; i++) {
        ep_run_fini(&input->runs[i]);
    }
    free(input->runs);
}
