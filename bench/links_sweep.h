/* SPDX-License-Identifier: Apache-2.0 */
/* Every level measured: a sample of its pairs one by one, and all that fit at once, over sizes. */
#ifndef EP_BENCH_LINKS_SWEEP_H
#define EP_BENCH_LINKS_SWEEP_H

#include "bench/links.h"
#include "bench/session.h"
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct ep_links_options {
    int64_t begin_bytes;     /* first size, >= 1 */
    int64_t end_bytes;       /* last size; always measured, <= EP_LINKS_MAX_BYTES */
    double factor;           /* from size to size, > 1 */
    int64_t visits;          /* of each case, >= 1 */
    int64_t pairs_per_level; /* measured one by one, >= 1 */
    double case_time_s;      /* of the samples of one visit */
    double budget_s;         /* of the whole sweep; what is left then is skipped; 0 = no budget */
    bool progress;           /* a line with the time left, where stderr is a terminal */
};

/** 8 B to 4 MiB by factors of 4, 3 visits, 3 pairs a level, 30 ms a visit. */
struct ep_links_options ep_links_options_default(void);

/** 8 B to 4 MiB by factors of 32, 2 visits, 1 pair a level, 15 ms a visit. */
struct ep_links_options ep_links_options_quick(void);

/** Refuse sizes that make no sweep, or messages that do not fit the buffers (memory_bytes of one
 *  rank); before a run directory is made. Returns EP_OK or EP_EINVAL. */
EP_MUST_CHECK enum ep_status ep_links_options_check(const struct ep_links_options *options,
                                                    int64_t memory_bytes);

/** One size of one level, median over visits (and over pairs where they ran one by one). */
struct ep_links_point {
    int64_t level;
    bool all_at_once; /* concurrent_pairs together; else one pair at a time */
    int64_t concurrent_pairs;
    int64_t num_pairs; /* pairs that were measured */
    enum ep_links_pattern pattern;
    int64_t size_bytes;
    double time_s;                 /* of a message, one way */
    double low_pair_bytes_per_s;   /* slowest and fastest pair; NaN where pairs ran together */
    double high_pair_bytes_per_s;
    double bw_bytes_per_s;         /* one way, of each pair */
};

/** One level: the numbers that its row shows. NaN where not measured. */
struct ep_links_level {
    int64_t level;
    double latency_s;              /* smallest size, ping-pong, one pair at a time */
    double bw_bytes_per_s;         /* best size of windows, one pair at a time, one way */
    int64_t bw_size_bytes;         /* that size */
    double large_bw_bytes_per_s;   /* largest measured size of windows, one pair at a time, one way */
    int64_t concurrent_pairs;      /* 0: no second pair without a common rank */
    double all_bw_bytes_per_s;     /* best size of windows, all at once, each pair */
    double all_large_bw_bytes_per_s; /* the same of the largest size */
    double all_latency_s;          /* smallest size, ping-pong, all at once */
};

/** Init with {0}; free with ep_links_summary_fini. Complete on every rank. */
struct ep_links_summary {
    struct ep_links_point *points;
    int64_t num_points;
    struct ep_links_level *levels; /* levels of the topology that have pairs, nearest first */
    int64_t num_levels;
};

/** Measure all levels of the session's topology; one record per visit of a case. Sizes of which one repetition
 *  takes longer than 20 times case_time_s (all but the smallest) are skipped and listed. Sets the levels'
 *  measured values in the topology and, where the session writes, topology.xml.
 *  Collective over the world. With one rank there is nothing to do: an empty summary.
 *  Returns as ep_links_options_check; EP_ENOMEM; EP_EIO. */
EP_MUST_CHECK enum ep_status ep_links_sweep(struct ep_session *session,
                                            const struct ep_links_options *options,
                                            struct ep_links_summary *summary);
void ep_links_summary_fini(struct ep_links_summary *summary);

/** Rank 0: a row for each size of each level and pattern. */
EP_MUST_CHECK enum ep_status ep_links_print_points(const struct ep_session *session,
                                                   const struct ep_links_summary *summary,
                                                   FILE *out);

/** Rank 0: a row for each level. */
EP_MUST_CHECK enum ep_status ep_links_print_levels(const struct ep_session *session,
                                                   const struct ep_links_summary *summary,
                                                   FILE *out);

/** The summary as a new JSON object: `levels` and `points`. */
EP_MUST_CHECK enum ep_status ep_links_to_json(const struct ep_session *session,
                                              const struct ep_links_summary *summary,
                                              json_t **json);

#endif
