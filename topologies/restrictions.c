/* SPDX-License-Identifier: Apache-2.0 */
/* Cgroup, affinity and CPU quota of this process; hwloc reads the first alone. */
#include "topologies/restrictions.h"

#include "base/file.h"
#include "topologies/machine.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One mounted cgroup hierarchy and this process's place in it. */
struct hierarchy {
    bool is_v2;
    char mount[PATH_MAX]; /* where it is mounted */
    char base[PATH_MAX];  /* the cgroup that is mounted there: "/" unless a container's own */
    char path[PATH_MAX];  /* this process's cgroup */
};

static bool has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *p = strstr(list, word); p != NULL; p = strstr(p + 1, word)) {
        const bool starts = p == list || p[-1] == ',';
        if (starts && (p[length] == ',' || p[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* Lines of /proc/self/cgroup: "4:cpu,cpuacct:/user.slice" or, for version 2, "0::/user.slice". */
static bool read_own_path(const char *root, bool want_v2, char *path)
{
    char file_name[PATH_MAX];
    snprintf(file_name, sizeof file_name, "%s/proc/self/cgroup", root);
    FILE *file = fopen(file_name, "r");
    if (file == NULL) {
        return false;
    }
    char line[PATH_MAX + 256];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *own = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (own == NULL) {
            continue;
        }
        *own++ = '\0';
        controllers++;
        found = want_v2 ? controllers[0] == '\0' : has_word(controllers, "cpu");
        if (found) {
            snprintf(path, PATH_MAX, "%.4000s", own);
        }
    }
    fclose(file);
    return found;
}

/* Lines of mountinfo: "36 35 98:0 /base /mount opts ... - TYPE source super-options". */
static bool read_mount(const char *root, struct hierarchy *h)
{
    char file_name[PATH_MAX];
    snprintf(file_name, sizeof file_name, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(file_name, "r");
    if (file == NULL) {
        return false;
    }
    char line[3 * PATH_MAX];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        char base[PATH_MAX];
        char mount[PATH_MAX];
        char type[64];
        char options[PATH_MAX];
        const char *dash = strstr(line, " - ");
        if (dash == NULL || sscanf(line, "%*s %*s %*s %4095s %4095s", base, mount) != 2 ||
            sscanf(dash, " - %63s %*s %4095s", type, options) != 2) {
            continue;
        }
        found = h->is_v2 ? strcmp(type, "cgroup2") == 0
                         : strcmp(type, "cgroup") == 0 && has_word(options, "cpu");
        if (found) {
            memcpy(h->base, base, sizeof base);
            memcpy(h->mount, mount, sizeof mount);
        }
    }
    fclose(file);
    return found;
}

static bool read_line(const char *path, char *text, size_t length)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    const bool got = fgets(text, (int)length, file) != NULL;
    fclose(file);
    return got;
}

/* CPUs granted by one directory of the hierarchy; NaN where it grants all. */
static double read_directory(bool is_v2, const char *directory, char *source, size_t length)
{
    char path[PATH_MAX];
    char text[128];
    double quota = 0;
    double period = 0;
    snprintf(path, sizeof path, "%.4000s/%s", directory, is_v2 ? "cpu.max" : "cpu.cfs_quota_us");
    if (!read_line(path, text, sizeof text)) {
        return NAN;
    }
    snprintf(source, length, "%s", path);
    if (is_v2) {
        /* "max 100000" or "200000 100000" */
        return sscanf(text, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0
                   ? quota / period
                   : NAN;
    }
    quota = strtod(text, NULL); /* -1: none */
    snprintf(path, sizeof path, "%.4000s/cpu.cfs_period_us", directory);
    if (quota <= 0 || !read_line(path, text, sizeof text)) {
        return NAN;
    }
    period = strtod(text, NULL);
    return period > 0 ? quota / period : NAN;
}

/* The tightest grant from the process's cgroup up to the mounted one. */
static void walk_up(const char *root, struct hierarchy *h, double *tightest, char *source,
                    size_t length)
{
    const size_t base_length = strcmp(h->base, "/") == 0 ? 0 : strlen(h->base);
    const bool inside = strncmp(h->path, h->base, base_length) == 0;
    char *relative = inside ? h->path + base_length : h->path;
    for (;;) {
        char directory[3 * PATH_MAX];
        char here[PATH_MAX];
        snprintf(directory, sizeof directory, "%s%s%s", root, h->mount,
                 strcmp(relative, "/") == 0 ? "" : relative);
        const double granted = read_directory(h->is_v2, directory, here, sizeof here);
        if (!isnan(granted) && (isnan(*tightest) || granted < *tightest)) {
            *tightest = granted;
            snprintf(source, length, "%s", here);
        }
        char *slash = strrchr(relative, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

void ep_restrictions_read_quota(const char *root, double *quota_cpus, char *source, size_t length)
{
    *quota_cpus = NAN;
    source[0] = '\0';
    for (int v2 = 0; v2 < 2; v2++) {
        struct hierarchy *h = calloc(1, sizeof *h);
        if (h == NULL) {
            return;
        }
        h->is_v2 = v2;
        if (read_own_path(root, h->is_v2, h->path) && read_mount(root, h)) {
            walk_up(root, h, quota_cpus, source, length);
        }
        free(h);
    }
}

enum ep_status ep_restrictions_discover(struct ep_restrictions *restrictions)
{
    struct ep_restrictions found = {.usable_cores = 1};
    struct ep_machine *machine = NULL;
    char *xml = NULL;
    char *cpuset = NULL;
    size_t length = 0;
    enum ep_status status = EP_OK;
    EP_TRY(ep_machine_discover_xml(&xml, &length));
    EP_TRY(ep_machine_create("this host", xml, length, &machine));
    EP_TRY(ep_machine_discover_binding(&cpuset));
    found.complete_pus = machine->num_complete_pus;
    found.allowed_pus = machine->num_allowed_pus;
    EP_TRY(ep_machine_count_cores(machine, cpuset, &found.usable_cores, &found.affinity_pus));
    ep_restrictions_read_quota("", &found.quota_cpus, found.quota_source,
                               sizeof found.quota_source);
    if (!isnan(found.quota_cpus) && found.quota_cpus < (double)found.usable_cores) {
        const double rounded = ceil(found.quota_cpus);
        found.usable_cores = rounded > 1 ? (int64_t)rounded : 1;
    }
    *restrictions = found;
out:
    free(cpuset);
    free(xml);
    ep_machine_destroy(machine);
    return status;
}

int64_t ep_topo_count_usable_cores(void)
{
    struct ep_restrictions restrictions;
    if (ep_restrictions_discover(&restrictions) != EP_OK) {
        ep_error_clear();
        return 1;
    }
    return restrictions.usable_cores;
}
