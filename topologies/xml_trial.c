/* SPDX-License-Identifier: Apache-2.0 */
/* Reading XML from outside in a child first, since hwloc can crash on damaged files. */
#include "topologies/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The largest hosts that are supported load in a few seconds and some hundred MiB; a damaged
 * os_index asks for a bitmap of gigabytes. */
enum { LIMIT_CPU_S = 60 };
#define LIMIT_MEMORY_BYTES ((rlim_t)8 << 30)

_Noreturn static void read_in_child(const char *what, const char *xml, size_t length)
{
    /* handlers of MPI or of a test would hide the death that is to be seen */
    static const int deadly[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
        (void)signal(deadly[i], SIG_DFL);
    }
    const struct rlimit no_core = {0, 0};
    const struct rlimit cpu = {LIMIT_CPU_S, LIMIT_CPU_S};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)setrlimit(RLIMIT_CPU, &cpu);
#ifndef __SANITIZE_ADDRESS__ /* its shadow alone is terabytes of address space */
    const struct rlimit memory = {LIMIT_MEMORY_BYTES, LIMIT_MEMORY_BYTES};
    (void)setrlimit(RLIMIT_AS, &memory);
#endif
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) {
        (void)dup2(null, STDOUT_FILENO);
        (void)dup2(null, STDERR_FILENO);
    }
    struct ep_machine *machine = NULL;
    const enum ep_status status = ep_machine_create(what, xml, length, &machine);
    ep_machine_destroy(machine);
    _exit(status == EP_OK ? 0 : 1);
}

enum ep_status ep_machine_try_xml(const char *what, const char *xml, size_t length)
{
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) {
        return ep_error_set(EP_EENV, "%s: no process to read it in: %s", what, strerror(errno));
    }
    if (child == 0) {
        read_in_child(what, xml, length);
    }
    int how = 0;
    while (waitpid(child, &how, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(how)) {
        return ep_error_set(EP_EINVAL,
                            "%s: is damaged: hwloc %s on it; expected XML as lstopo or epbench "
                            "export it (version 1 or 2)",
                            what, WTERMSIG(how) == SIGXCPU ? "does not end" : "crashes");
    }
    return EP_OK;
}
