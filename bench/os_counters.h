/* SPDX-License-Identifier: Apache-2.0 */
/* What the operating system did to us while samples were taken. */
#ifndef EP_BENCH_OS_COUNTERS_H
#define EP_BENCH_OS_COUNTERS_H

#include <stdint.h>

/** Counts since start, of this process; steal of the whole machine. */
struct ep_os_counters {
    double steal_s;           /* CPU time that the hypervisor took, all CPUs; NaN where not told */
    int64_t context_switches; /* involuntary */
    int64_t page_faults;      /* minor and major */
};

/** Read the counters now; take differences of two readings. */
struct ep_os_counters ep_os_counters_read(void);
struct ep_os_counters ep_os_counters_since(const struct ep_os_counters *start);

#endif
