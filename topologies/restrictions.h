/* SPDX-License-Identifier: Apache-2.0 */
/* What keeps this process from using the whole machine: cgroup, affinity, CPU quota. */
#ifndef EP_TOPOLOGIES_RESTRICTIONS_H
#define EP_TOPOLOGIES_RESTRICTIONS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct ep_restrictions {
    int64_t complete_pus;  /* hardware threads that the machine has */
    int64_t allowed_pus;   /* that cgroup or cpuset allow; <= complete_pus */
    int64_t affinity_pus;  /* that this process is bound to; <= allowed_pus */
    int64_t usable_cores;  /* cores that it may use: distinct cores of the affinity, at most the
                              quota rounded up; >= 1 */
    double quota_cpus;     /* CPUs' worth of time that the cgroup grants; NaN: no quota */
    char quota_source[96]; /* file that says so; "" without a quota */
};

/** Restrictions of this process now (affinity: of the calling thread).
 *  Returns EP_EENV where the machine cannot be discovered. */
EP_MUST_CHECK enum ep_status ep_restrictions_discover(struct ep_restrictions *restrictions);

/** Number of cores that this process may use, for "one rank per core": restrictions.usable_cores,
 *  or 1 where discovery fails. */
int64_t ep_topo_count_usable_cores(void);

/** The tightest CPU quota along this process's cgroup path, version 1 (cpu.cfs_quota_us) and 2
 *  (cpu.max); hwloc does not read it.
 *  root        prefix of /proc and of mount points: "" on a live system, a directory in tests
 *  quota_cpus  NaN where there is none
 *  source      [length] file that holds it, "" where there is none */
void ep_restrictions_read_quota(const char *root, double *quota_cpus, char *source,
                                size_t length);

#endif
