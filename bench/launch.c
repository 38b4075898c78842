/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the mpirun line and runs it. */
#include "bench/launch.h"

#include "base/units.h"
#include "topologies/restrictions.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* As root, Open MPI wants to be told twice. */
static void allow_root(void)
{
    static const char *const names[] = {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"};
    if (geteuid() != 0 || (getenv(names[0]) != NULL && getenv(names[1]) != NULL)) {
        return;
    }
    fprintf(stderr, "epbench: running as root: setting %s and %s for mpirun\n", names[0], names[1]);
    setenv(names[0], "1", 1);
    setenv(names[1], "1", 1);
}

/* Open MPI kills its ranks 1 s after it asked them to end: let them finish the record in flight. Open MPI 4
 * waits nearly twice that after every rank that ends with an error, so that a refusal takes as long. */
static void grant_time_to_end(void)
{
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "2", 0); /* Open MPI 4 */
    setenv("PRTE_MCA_odls_base_sigkill_timeout", "2", 0); /* Open MPI 5 */
}

/* The words of one launch. */
struct line {
    char **words;
    int64_t num;
};

/* Is words[i] an option for the output directory? Sets how many words it takes. */
static int output_words(char *const *argv, int i)
{
    if (strcmp(argv[i], "-o") == 0 || strcmp(argv[i], "--output") == 0) {
        return 2;
    }
    return strncmp(argv[i], "-o", 2) == 0 || strncmp(argv[i], "--output=", 9) == 0;
}

/* Options of ours go before those of the user, since his may end with "--". */
static void add_arguments(struct line *line, const struct ep_launch_plan *plan, int argc,
                          char **argv, bool appends, const char *launch_idx)
{
    static char command[64];
    const char *space = strchr(argv[0], ' ');
    snprintf(command, sizeof command, "%s", space != NULL ? space + 1 : argv[0]);
    line->words[line->num++] = command;
    if (appends) {
        line->words[line->num++] = (char *)"--append";
        line->words[line->num++] = (char *)plan->output;
    }
    if (launch_idx != NULL) {
        line->words[line->num++] = (char *)"--launch-idx";
        line->words[line->num++] = (char *)launch_idx;
    }
    for (int i = 1; i < argc; i++) {
        const int skipped = appends ? output_words(argv, i) : 0;
        if (skipped > 0) {
            i += skipped - 1;
        } else {
            line->words[line->num++] = argv[i];
        }
    }
}

static int run_and_wait(char **words)
{
    const pid_t child = fork();
    if (child == 0) {
        execvp(words[0], words);
        _exit(127);
    }
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (child < 0 || !WIFEXITED(status)) {
        return 3;
    }
    return WEXITSTATUS(status);
}

/* Launch after launch; ends the process. */
static enum ep_status run_launches(const struct ep_launch_plan *plan, struct line *line, int argc,
                                   char **argv)
{
    const int64_t start = line->num;
    int worst = 0;
    for (int64_t i = 0; i < plan->num_launches; i++) {
        char idx[32];
        snprintf(idx, sizeof idx, "%" PRId64, i);
        line->num = start;
        add_arguments(line, plan, argc, argv, i > 0 && plan->append == NULL, idx);
        line->words[line->num] = NULL;
        const int code = run_and_wait(line->words);
        if (code == 127) {
            return ep_error_set(EP_EENV, "%s cannot be started (Debian package openmpi-bin; or "
                                "--launcher CMD)", line->words[0]);
        }
        worst = code > worst ? code : worst;
        if (code > 1) {
            break; /* bad input or no environment: again would be the same */
        }
    }
    exit(worst);
}

enum ep_status ep_launch(const struct ep_launch_plan *plan, int argc, char **argv)
{
    enum ep_status status = EP_OK;
    struct ep_list launcher = {0};
    struct line line = {0};
    char bound[96];
    const int64_t cores = ep_topo_count_usable_cores();
    const int64_t per_rank = plan->threads > 1 ? plan->threads : 1;
    const int64_t fitting = cores / per_rank > 0 ? cores / per_rank : 1;
    const int64_t ranks = plan->num_ranks > 0 ? plan->num_ranks : fitting;
    const char *chosen = plan->launcher != NULL ? plan->launcher : getenv("EPBENCH_LAUNCHER");
    if (chosen == NULL) {
        snprintf(bound, sizeof bound, "mpirun --map-by slot:PE=%" PRId64 " --bind-to core",
                 per_rank);
        chosen = ranks * per_rank > cores
                     ? "mpirun --oversubscribe --mca mpi_yield_when_idle 1 --bind-to none"
                 : per_rank > 1 ? bound
                                : "mpirun --bind-to core";
    }
    char program[4096];
    char number[32];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) {
        return ep_error_set(EP_EENV, "the path of this program cannot be read from /proc/self/exe: %s",
                            strerror(errno));
    }
    program[length] = '\0';
    snprintf(number, sizeof number, "%" PRId64, ranks);
    allow_root();
    grant_time_to_end();
    EP_TRY(ep_list_split(chosen, ' ', "--launcher", &launcher));
    line.words = calloc((size_t)launcher.num + (size_t)argc + 10, sizeof *line.words);
    if (line.words == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to start %s", chosen);
        goto out;
    }
    for (int64_t i = 0; i < launcher.num; i++) {
        line.words[line.num++] = launcher.items[i];
    }
    line.words[line.num++] = (char *)"-n";
    line.words[line.num++] = number;
    line.words[line.num++] = program;
    fflush(stdout);
    if (plan->num_launches > 1) {
        if (plan->output == NULL && plan->append == NULL) {
            status = ep_error_set(EP_EINVAL, "--launches %" PRId64 " needs a directory that all of "
                                  "them write to: -o DIR", plan->num_launches);
            goto out;
        }
        EP_TRY(run_launches(plan, &line, argc, argv));
    }
    add_arguments(&line, plan, argc, argv, false, NULL);
    execvp(line.words[0], line.words);
    status = ep_error_set(EP_EENV, "%s cannot be started: %s%s", line.words[0], strerror(errno),
                          errno == ENOENT ? " (Debian package openmpi-bin; or --launcher CMD)" : "");
out:
    free(line.words);
    ep_list_fini(&launcher);
    return status;
}
