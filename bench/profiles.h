/* SPDX-License-Identifier: Apache-2.0 */
/* The profiles of `epbench run`: what each stage measures and how long it may take. */
#ifndef EP_BENCH_PROFILES_H
#define EP_BENCH_PROFILES_H

#include "bench/layer_sweep.h"

/** One profile. Times are budgets; what does not fit is skipped and listed. */
struct ep_profile {
    const char *name;
    const char *summary;
    double links_s;
    double kernels_s;
    double bare_s; /* the exchange phase against a bare call */
    struct ep_comm_options comm[2]; /* sweeps in turn; budget_s 0 = no second sweep */
    struct ep_layer_options layer;
};

/** By name; EP_EINVAL lists the names. */
EP_MUST_CHECK enum ep_status ep_profile_find(const char *name, const struct ep_profile **profile);

#endif
