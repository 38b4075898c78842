/* SPDX-License-Identifier: Apache-2.0 */
/* getrusage and /proc/stat. */
#include "bench/os_counters.h"

#include "bench/simulated.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static double read_steal_s(void)
{
    FILE *stat = fopen("/proc/stat", "re");
    if (stat == NULL) {
        return NAN;
    }
    int64_t ticks[8] = {0};
    /* cpu user nice system idle iowait irq softirq steal */
    const int found = fscanf(stat, "cpu %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
                             " %" SCNd64 " %" SCNd64 " %" SCNd64, &ticks[0], &ticks[1], &ticks[2],
                             &ticks[3], &ticks[4], &ticks[5], &ticks[6], &ticks[7]);
    fclose(stat);
    return found == 8 ? (double)ticks[7] / (double)sysconf(_SC_CLK_TCK) : NAN;
}

struct ep_os_counters ep_os_counters_read(void)
{
    struct rusage usage = {0};
    if (ep_simulated()) { /* the system knows nothing of simulated ranks */
        return (struct ep_os_counters){.steal_s = NAN};
    }
    getrusage(RUSAGE_SELF, &usage);
    return (struct ep_os_counters){
        .steal_s = read_steal_s(),
        .context_switches = usage.ru_nivcsw,
        .page_faults = usage.ru_minflt + usage.ru_majflt,
    };
}

struct ep_os_counters ep_os_counters_since(const struct ep_os_counters *start)
{
    const struct ep_os_counters now = ep_os_counters_read();
    return (struct ep_os_counters){
        .steal_s = now.steal_s - start->steal_s,
        .context_switches = now.context_switches - start->context_switches,
        .page_faults = now.page_faults - start->page_faults,
    };
}
