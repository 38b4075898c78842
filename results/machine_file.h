/* SPDX-License-Identifier: Apache-2.0 */
/* machine.json: what was fitted, with intervals and gates, for `predict --machine` and others. */
#ifndef EP_RESULTS_MACHINE_FILE_H
#define EP_RESULTS_MACHINE_FILE_H

#include "base/error.h"
#include "results/fit.h"
#include "results/parts.h"

#include <jansson.h>

/** The whole of machine.json; results/README.md documents each key.
 *  run      of the first directory: host, machine and placement; read only
 *  parts    of the same records; NULL = left out
 *  json     new reference
 *  Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_machine_file_make(const struct ep_records *records,
                                                  const struct ep_run *run,
                                                  const struct ep_fit *fit,
                                                  const struct ep_parts *parts,
                                                  const struct ep_fit_options *options,
                                                  json_t **json);

/** What links records say of one level, by pattern, size and number of pairs at once. */
struct ep_link_point {
    const char *level;   /* borrowed from the records */
    const char *pattern; /* "" where absent */
    int64_t size_bytes;
    int64_t concurrent_pairs;
    double time_s; /* median of the visits' medians */
    double bw_bytes_per_s; /* of one pair; median of the visits'; size / time where absent */
};

/** Pool links records, sorted by level, pattern, pairs and size. `points` [*num_points], to be
 *  freed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_link_points_pool(const struct ep_records *records,
                                                 struct ep_link_point **points,
                                                 int64_t *num_points);

#endif
