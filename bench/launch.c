/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the mpirun line and execs it. */
#include "bench/launch.h"

#include "base/options.h"
#include "base/units.h"
#include "topologies/restrictions.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool ep_launch_is_needed(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "--usage") == 0) {
            return false;
        }
    }
    return ep_options_launcher_rank() < 0;
}

/* Value of "--name VALUE", "--name=VALUE" or "-n VALUE"; NULL if absent. */
static const char *find_value(int argc, char **argv, const char *option)
{
    const size_t length = strlen(option);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], option) == 0 && i + 1 < argc) {
            return argv[i + 1];
        }
        const bool is_long = option[1] == '-';
        if (is_long && strncmp(argv[i], option, length) == 0 && argv[i][length] == '=') {
            return argv[i] + length + 1;
        }
        if (!is_long && strncmp(argv[i], option, length) == 0 && argv[i][length] != '\0') {
            return argv[i] + length;
        }
    }
    return NULL;
}

/* As root, Open MPI wants to be told twice. */
static void allow_root(void)
{
    if (geteuid() != 0 || getenv("OMPI_ALLOW_RUN_AS_ROOT") != NULL) {
        return;
    }
    fprintf(stderr, "epbench: running as root: setting OMPI_ALLOW_RUN_AS_ROOT and "
                    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM for mpirun\n");
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
}

enum ep_status ep_launch(int argc, char **argv)
{
    const int64_t cores = ep_topo_count_usable_cores();
    int64_t ranks = cores;
    const char *n = find_value(argc, argv, "-n");
    if (n != NULL) {
        const enum ep_status status = ep_parse_i64(n, "-n", 1, 1 << 20, &ranks);
        if (status != EP_OK) {
            return status;
        }
    }
    const char *launcher = find_value(argc, argv, "--launcher");
    if (launcher == NULL) {
        launcher = getenv("EPBENCH_LAUNCHER");
    }
    const char *chosen = launcher;
    if (chosen == NULL) {
        chosen = ranks > cores ? "mpirun --oversubscribe --mca mpi_yield_when_idle 1 --bind-to none"
                               : "mpirun --bind-to core";
    }
    char program[4096];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) {
        return ep_error_set(EP_EENV, "the path of this program cannot be read: %s",
                            strerror(errno));
    }
    program[length] = '\0';
    allow_root();

    struct ep_list words = {0};
    const enum ep_status status = ep_list_split(chosen, ' ', "--launcher", &words);
    if (status != EP_OK) {
        return status;
    }
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, ranks);
    char **line = calloc((size_t)words.num + (size_t)argc + 4, sizeof *line);
    if (line == NULL) {
        ep_list_fini(&words);
        return ep_error_set(EP_ENOMEM, "no memory to start %s", chosen);
    }
    int64_t num = 0;
    for (int64_t i = 0; i < words.num; i++) {
        line[num++] = words.items[i];
    }
    line[num++] = (char[]){"-n"};
    line[num++] = number;
    line[num++] = program;
    for (int i = 1; i < argc; i++) {
        line[num++] = argv[i];
    }
    fflush(stdout);
    execvp(line[0], line);
    const int cause = errno;
    (void)ep_error_set(EP_EENV, "%s cannot be started: %s%s", words.items[0], strerror(cause),
                       cause == ENOENT ? " (Debian package openmpi-bin; or --launcher CMD)" : "");
    free(line);
    ep_list_fini(&words);
    return EP_EENV;
}
