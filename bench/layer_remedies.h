/* SPDX-License-Identifier: Apache-2.0 */
/* What is done against experts that everybody chooses, each as a change of the options of a case. */
#ifndef EP_BENCH_LAYER_REMEDIES_H
#define EP_BENCH_LAYER_REMEDIES_H

#include "bench/comm_sweep.h"

struct ep_layer_remedy {
    const char *name; /* as in --remedies and records */
    const char *summary;
    /** Make the options those of the remedy. Returns EP_EINVAL, EP_ENOMEM. */
    enum ep_status (*apply)(struct ep_comm_options *options);
};

/** All remedies, ended by one without a name; the first changes nothing. */
extern const struct ep_layer_remedy ep_layer_remedies[];

/** Find by name; EP_EINVAL lists the names. */
EP_MUST_CHECK enum ep_status ep_layer_remedy_find(const char *name,
                                                  const struct ep_layer_remedy **remedy);

/** EP_EINVAL where options are given that the remedies set themselves: --router, --style, --placement,
 *  --replicas; or skews that not all of them can have. */
EP_MUST_CHECK enum ep_status ep_layer_remedies_check(const struct ep_comm_options *options);

#endif
