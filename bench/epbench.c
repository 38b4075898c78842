/* SPDX-License-Identifier: Apache-2.0 */
/* The roof: the table of commands, and the only place that prints a failure and exits. */
#include "base/command.h"
#include "base/options.h"
#include "bench/comm.h"
#include "bench/simulated.h"
#include "bench/version.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/types.h>

#define COMMAND(id) enum ep_status ep_cmd_##id(int argc, char **argv)

COMMAND(run);
COMMAND(comm);
COMMAND(layer);
COMMAND(kernels);
COMMAND(topo);
COMMAND(links);
COMMAND(fit);
COMMAND(import);
COMMAND(plot);
COMMAND(report);
COMMAND(route);
COMMAND(place);
COMMAND(models);
COMMAND(plan);
COMMAND(validate);
COMMAND(predict);

static const struct ep_command commands[] = {
    {"run", "the whole suite on this allocation, then fit, figures and report", true, ep_cmd_run},
    {"topo", "show hosts, the levels between ranks, and where ranks sit", false, ep_cmd_topo},
    {"route", "routing statistics, byte counts and the plain cost", false, ep_cmd_route},
    {"place", "where experts should live: policies compared on loads or a trace", false, ep_cmd_place},
    {"models", "the model zoo: shapes, parameters, weights per rank; or your own model", false,
     ep_cmd_models},
    {"plan", "every EP x TP x DP x PP of a model: memory per rank and bytes per step", false,
     ep_cmd_plan},
    {"links", "latency and bandwidth of each level, one pair at a time and all at once", true,
     ep_cmd_links},
    {"fit", "fit the cost model to records: parameters, errors, which rung to use", false, ep_cmd_fit},
    {"predict", "a model's MoE layer on a machine, fitted or of the catalogue: time, what binds", false,
     ep_cmd_predict},
    {"validate", "predictions against planted laws and other runs: how far off they are", false,
     ep_cmd_validate},
    {"import", "results of OSU, nccl-tests and others as a run, for fit, plot and report", false,
     ep_cmd_import},
    {"plot", "the figures of one or more runs: SVG, data and gnuplot script", false, ep_cmd_plot},
    {"report", "report.html of one or more runs: figures, fit, warnings, what was run", false,
     ep_cmd_report},
    {"kernels", "expert GEMMs, FFNs, permute, copies, measured peaks, on one and on all ranks", true,
     ep_cmd_kernels},
    {"comm", "dispatch and combine over a sweep of skew, top-k, tokens, transports", true, ep_cmd_comm},
    {"layer", "a whole MoE layer: phases, waits, stragglers, speed on one rank and on all", true,
     ep_cmd_layer},
    {.name = NULL},
};

static const struct ep_command *find_command(const char *name)
{
    for (const struct ep_command *c = commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static void print_help(FILE *out)
{
    fprintf(out, "epbench: benchmarks and cost models for expert parallelism\n\n"
                 "usage: epbench COMMAND [options]\n"
                 "       epbench COMMAND --help, or epbench help COMMAND\n\n"
                 "commands:\n");
    for (const struct ep_command *c = commands; c->name != NULL; c++) {
        fprintf(out, "  %-9s %s%s\n", c->name, c->summary, c->needs_ranks ? " (MPI)" : "");
    }
    fprintf(out, "\nCommands marked (MPI) run under mpirun or another launcher; without one they\n"
                 "start mpirun with one rank per core (-n N for another number of ranks).\n"
                 "exit status: 0 good; 1 a check failed, or a signal ended it early; 2 usage or bad\n"
                 "input; 3 environment. Ctrl-C ends after the record in flight; what is measured is kept.\n");
}

static enum ep_status unknown_command(const char *name)
{
    const char *names[sizeof commands / sizeof commands[0]] = {NULL};
    int num = 0;
    for (const struct ep_command *c = commands; c->name != NULL; c++) {
        names[num++] = c->name;
    }
    const char *nearest = ep_options_nearest(name, names, num);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "unknown command '%s'; did you mean '%s'?", name, nearest)
               : ep_error_set(EP_EINVAL, "unknown command '%s'; see epbench help", name);
}

static enum ep_status run_command(int argc, char **argv, char *title, size_t length)
{
    if (argc < 2) {
        return ep_error_set(EP_EINVAL, "a command is missing; see epbench help");
    }
    const bool asks_help = strcmp(argv[1], "help") == 0;
    if ((asks_help && argc == 2) || strcmp(argv[1], "--help") == 0) {
        print_help(stdout);
        return EP_OK;
    }
    if (asks_help) { /* help COMMAND is COMMAND --help */
        static char option[] = "--help";
        argv[1] = argv[2];
        argv[2] = option;
        argc = 3;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("epbench %s\n", ep_version());
        return EP_OK;
    }
    const struct ep_command *command = find_command(argv[1]);
    if (command == NULL) {
        return unknown_command(argv[1]);
    }
    snprintf(title, length, "epbench %s", command->name);
    argv[1] = title;
    const enum ep_status status = ep_options_check_text(argc - 1, argv + 1);
    return status == EP_OK ? command->run(argc - 1, argv + 1) : status;
}

int main(int argc, char **argv)
{
    char title[64] = "epbench";
    if (ep_simulated()) {
        ep_options_set_launcher_rank(ep_simulated_rank());
    }
    enum ep_status status = run_command(argc, argv, title, sizeof title);
    if (fflush(stdout) != 0 && status == EP_OK) {
        status = ep_error_set(EP_EIO, "standard output cannot be written");
    }
    if (status != EP_OK && ep_options_launcher_rank() <= 0 && ep_error_text()[0] != '\0') {
        fprintf(stderr, "%s: %s\n", title, ep_error_text());
    }
    /* Only now: a rank that ends badly makes the launcher end the others, silent or not. Before MPI
     * started nothing keeps the others from being first: they leave rank 0 a second to speak. */
    if (status != EP_OK && ep_options_launcher_rank() > 0 && !ep_comm_is_started()) {
        sleep(1);
    }
    ep_comm_finalize(NULL);
    return ep_status_exit_code(status);
}
