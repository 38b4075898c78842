/* SPDX-License-Identifier: Apache-2.0 */
/* Starting gnuplot without a shell, in a scratch directory. */
#include "plots/gnuplot.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SVG_LIMIT_BYTES = 16 << 20, NUM_VARIABLES = 6 };

/* What gnuplot may see of the environment: enough to find itself, fonts and scratch space. */
static void fill_environment(char *variables[NUM_VARIABLES + 1])
{
    static const char *const names[NUM_VARIABLES - 1] = {"PATH", "HOME", "TMPDIR", "FONTCONFIG_PATH",
                                                         "LD_LIBRARY_PATH"};
    int num = 0;
    variables[num++] = strdup("LC_ALL=C.UTF-8"); /* a decimal point in every locale */
    for (int i = 0; i < NUM_VARIABLES - 1; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL) {
            variables[num++] = ep_format_new("%s=%s", names[i], value);
        }
    }
    variables[num] = NULL;
}

static int spawn_in(const char *directory, pid_t *child)
{
    char *const argv[] = {(char *)"gnuplot", (char *)"-d", (char *)"script.gp", NULL};
    char *variables[NUM_VARIABLES + 1] = {NULL};
    posix_spawn_file_actions_t actions;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0) {
        return error;
    }
    fill_environment(variables);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    error = posix_spawn_file_actions_addchdir_np(&actions, directory);
    error = error ? error : posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    error = error ? error : posix_spawn_file_actions_addopen(&actions, 1, "log", flags, 0600);
    error = error ? error : posix_spawn_file_actions_adddup2(&actions, 1, 2);
    error = error ? error : posix_spawnp(child, "gnuplot", &actions, NULL, argv, variables);
    posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; variables[i] != NULL; i++) {
        free(variables[i]);
    }
    return error;
}

/* What gnuplot said last, which is the fault (before it comes an echo of the command), into `line`. */
static void read_complaint(const char *directory, char *line, size_t length)
{
    char *path = ep_path_join(directory, "log");
    char *text = NULL, *rest = NULL;
    size_t text_length = 0;
    snprintf(line, length, "no reason given");
    if (path != NULL && ep_file_read(path, 1 << 20, &text, &text_length) == EP_OK) {
        for (char *l = strtok_r(text, "\r\n", &rest); l != NULL; l = strtok_r(NULL, "\r\n", &rest)) {
            if (l[strspn(l, " \t^")] != '\0') {
                snprintf(line, length, "%s", l + strspn(l, " \t"));
            }
        }
    }
    ep_error_clear();
    free(text);
    free(path);
}

static enum ep_status run_in(const char *directory)
{
    pid_t child = 0;
    int state = 0;
    const int error = spawn_in(directory, &child);
    if (error == ENOENT) {
        return ep_error_set(EP_EENV, "gnuplot is not installed (Debian package gnuplot-nox)");
    }
    if (error != 0) {
        return ep_error_set(EP_EENV, "gnuplot cannot be started: %s", strerror(error));
    }
    while (waitpid(child, &state, 0) < 0) {
        if (errno != EINTR) {
            return ep_error_set(EP_EENV, "gnuplot cannot be waited for: %s", strerror(errno));
        }
    }
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) {
        char line[160];
        read_complaint(directory, line, sizeof line);
        return ep_error_set(EP_EENV, "gnuplot failed: %s", line);
    }
    return EP_OK;
}

static enum ep_status write_in(const char *directory, const char *name, const char *text,
                               size_t length)
{
    char *path = ep_path_join(directory, name);
    if (path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    const enum ep_status status = ep_file_write(path, text, length);
    free(path);
    return status;
}

static void remove_in(const char *directory, const char *name)
{
    char *path = ep_path_join(directory, name);
    if (path != NULL) {
        (void)unlink(path);
    }
    free(path);
}

enum ep_status ep_gnuplot_draw(const char *name, const char *script, size_t script_length,
                               const char *tsv, size_t tsv_length, char **svg, size_t *svg_length)
{
    enum ep_status status = EP_OK;
    const char *parent = getenv("TMPDIR");
    char *directory = ep_path_join(parent != NULL && parent[0] == '/' ? parent : "/tmp",
                                   "epbench-plot-XXXXXX");
    char tsv_name[80], svg_name[80];
    char *path = NULL;
    if (directory == NULL || mkdtemp(directory) == NULL) {
        status = ep_error_set(EP_EIO, "%s: no scratch directory for gnuplot: %s",
                              directory != NULL ? directory : "/tmp", strerror(errno));
        free(directory);
        return status;
    }
    snprintf(tsv_name, sizeof tsv_name, "%s.tsv", name);
    snprintf(svg_name, sizeof svg_name, "%s.svg", name);
    EP_TRY(write_in(directory, "script.gp", script, script_length));
    EP_TRY(write_in(directory, tsv_name, tsv, tsv_length));
    EP_TRY(run_in(directory));
    path = ep_path_join(directory, svg_name);
    status = path != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a path");
    EP_TRY(status);
    if (ep_file_read(path, SVG_LIMIT_BYTES, svg, svg_length) != EP_OK) {
        ep_error_clear();
        status = ep_error_set(EP_EENV, "gnuplot wrote no %s", svg_name);
    }
out:
    free(path);
    remove_in(directory, "script.gp");
    remove_in(directory, "log");
    remove_in(directory, tsv_name);
    remove_in(directory, svg_name);
    (void)rmdir(directory);
    free(directory);
    return status;
}
