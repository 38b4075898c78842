/* SPDX-License-Identifier: Apache-2.0 */
/* Bindings as lists of hardware threads: reading this process's, and where one sits on a host. */
#include "topologies/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1 << 20 }; /* numbers of hardware threads; the kernel's own limit is 8192 */

static enum ep_status no_list(const char *text)
{
    return ep_error_set(EP_EINVAL,
                        "'%.80s' is not a binding; expected a list of hardware threads such as "
                        "0-3,8",
                        text);
}

/* One item of a list, "8", "0-3" or "4-" (to the end); *next is left behind it. */
static bool read_range(const char **next, int64_t *first, int64_t *last)
{
    char *end = NULL;
    if (**next < '0' || **next > '9') {
        return false;
    }
    *first = *last = strtoll(*next, &end, 10);
    if (*end == '-') {
        end++;
        *last = LIMIT;
        if (*end >= '0' && *end <= '9') {
            *last = strtoll(end, &end, 10);
        }
    }
    *next = end;
    return *first <= LIMIT && *last <= LIMIT && *first <= *last && (*end == ',' || *end == '\0');
}

/* in_set [num_pus]: is the hardware thread in the list? */
static enum ep_status mark(const struct ep_machine *machine, const char *list, bool *in_set)
{
    const char *next = list;
    do {
        int64_t first = 0;
        int64_t last = 0;
        next += *next == ',' && next != list;
        if (!read_range(&next, &first, &last)) {
            return no_list(list);
        }
        for (int64_t i = 0; i < machine->num_pus; i++) {
            const int64_t os_idx = machine->pus[i].os_idx;
            in_set[i] = in_set[i] || (os_idx >= first && os_idx <= last);
        }
    } while (*next == ',');
    return EP_OK;
}

static enum ep_status count_places(const struct ep_machine *machine, const char *cpuset,
                                   int64_t *num_cores, int64_t *num_pus, int64_t *last_pu)
{
    bool *in_set = calloc((size_t)machine->num_pus, sizeof *in_set);
    if (in_set == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a binding");
    }
    const enum ep_status status = mark(machine, cpuset, in_set);
    int64_t cores = 0;
    int64_t pus = 0;
    int64_t last_core = -1;
    int64_t found = -1;
    for (int64_t i = 0; i < machine->num_pus; i++) {
        if (in_set[i]) {
            cores += machine->pus[i].core != last_core;
            last_core = machine->pus[i].core;
            found = i;
            pus++;
        }
    }
    free(in_set);
    if (status != EP_OK) {
        return status;
    }
    if (pus == 0) {
        return ep_error_set(EP_EINVAL, "binding '%.80s' names no hardware thread of the machine",
                            cpuset);
    }
    *num_cores = cores;
    *num_pus = pus;
    *last_pu = found;
    return EP_OK;
}

enum ep_status ep_machine_locate(const struct ep_machine *machine, const char *cpuset,
                                 int64_t *core, int64_t *pu)
{
    int64_t num_cores = 0;
    int64_t num_pus = 0;
    int64_t last_pu = -1;
    const enum ep_status status = count_places(machine, cpuset, &num_cores, &num_pus, &last_pu);
    if (status == EP_OK) {
        *core = num_cores == 1 ? machine->pus[last_pu].core : -1;
        *pu = num_pus == 1 ? last_pu : -1;
    }
    return status;
}

enum ep_status ep_machine_count_cores(const struct ep_machine *machine, const char *cpuset,
                                      int64_t *num_cores, int64_t *num_pus)
{
    int64_t last_pu = -1;
    return count_places(machine, cpuset, num_cores, num_pus, &last_pu);
}

static enum ep_status print_list(const cpu_set_t *set, int num_cpus, size_t size, char **list)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a binding");
    }
    const char *comma = "";
    for (int i = 0; i < num_cpus; i++) {
        if (!CPU_ISSET_S((size_t)i, size, set)) {
            continue;
        }
        int last = i;
        while (last + 1 < num_cpus && CPU_ISSET_S((size_t)last + 1, size, set)) {
            last++;
        }
        fprintf(out, "%s%d", comma, i);
        if (last > i) {
            fprintf(out, "-%d", last);
        }
        comma = ",";
        i = last;
    }
    if (fclose(out) != 0 || text == NULL) {
        free(text);
        return ep_error_set(EP_ENOMEM, "no memory for a binding");
    }
    *list = text;
    return EP_OK;
}

enum ep_status ep_machine_discover_binding(char **cpuset)
{
    /* The kernel refuses a set smaller than its own with EINVAL, and does not tell its size. */
    for (int num_cpus = 1024; num_cpus <= LIMIT; num_cpus *= 4) {
        const size_t size = CPU_ALLOC_SIZE(num_cpus);
        cpu_set_t *set = CPU_ALLOC((size_t)num_cpus);
        if (set == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for a binding");
        }
        const bool got = sched_getaffinity(0, size, set) == 0;
        const int cause = errno;
        enum ep_status status = EP_OK;
        if (got) {
            status = print_list(set, num_cpus, size, cpuset);
        }
        CPU_FREE(set);
        if (got) {
            return status;
        }
        if (cause != EINVAL) {
            return ep_error_set(EP_EENV, "the binding of this process cannot be read: %s",
                                strerror(cause));
        }
    }
    return ep_error_set(EP_EENV, "the binding of this process cannot be read: too many CPUs");
}
