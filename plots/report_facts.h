/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that a report states: counts, doubts, levels, what binds; worked out from records. */
#ifndef EP_PLOTS_REPORT_FACTS_H
#define EP_PLOTS_REPORT_FACTS_H

#include "base/error.h"
#include "results/fit.h"
#include "results/run_dir.h"

#include <stdint.h>

/** A warning by name, over all runs and records. Texts are borrowed. */
struct ep_report_doubt {
    const char *name;
    const char *example;      /* text of the first one */
    int64_t num_runs;         /* times among the warnings of runs */
    int64_t num_records[EP_RECORD_NUM_KINDS]; /* records that carry it */
    int64_t total;
};

/** What links records say of a level, in the sense of machine.json's `levels`. Absent: NaN, -1. */
struct ep_report_level {
    const char *name; /* borrowed from the records */
    double latency_s;
    int64_t latency_size_bytes;
    double bw_bytes_per_s; /* of one pair alone */
    int64_t bw_size_bytes;
    int64_t concurrent_pairs;
    double concurrent_bw_bytes_per_s; /* of each of them */
    int64_t num_binding; /* comm cases in which this level is the one that binds */
    double load_share;   /* median over cases of its load time over the largest level's, 0 to 1 */
};

enum { EP_REPORT_MAX_PHASES = 8 };

/** Where the time of one op and transport goes: medians over cases of phase / sum of phases. */
struct ep_report_split {
    const char *op;
    const char *transport;
    int64_t num_cases; /* records with phases */
    int num_phases;
    const char *phases[EP_REPORT_MAX_PHASES];
    double shares[EP_REPORT_MAX_PHASES]; /* largest first */
};

/** Records of one kind. */
struct ep_report_count {
    int64_t num_records;
    int64_t num_cases;
    int64_t min_visits; /* of a case */
    int64_t max_visits;
    int64_t num_launches;
};

struct ep_report_facts {
    struct ep_report_count counts[EP_RECORD_NUM_KINDS];
    int64_t num_records;
    int64_t num_checked; /* records with a check */
    int64_t num_failed;  /* of which not all rows were right */
    int64_t num_warned;  /* records with at least one warning */
    struct ep_report_doubt *doubts; /* most first */
    int64_t num_doubts;
    struct ep_report_level *levels; /* in the order of machine.json */
    int64_t num_levels;
    int64_t slowest_level;  /* index by bandwidth of one pair alone; -1 = none was measured */
    int64_t binding_level;  /* index; -1 = not known */
    int64_t runner_up_level; /* index; -1 = there is none */
    struct ep_report_split *splits; /* by op and transport, in order of appearance */
    int64_t num_splits;
    double null_s;       /* largest harness cost of a record with one; NaN = not measured */
    double null_share;   /* largest harness cost / median of a record */
    const struct ep_record *null_record; /* the record of null_share */
    int64_t num_withheld; /* parameters of chosen rungs that are withheld */
};

/** Work out the facts. All inputs are borrowed and must outlive `facts`, which is overwritten.
 *  runs  [num_runs], num_runs >= 1; fit may hold no groups.
 *  The level that binds a case is that with the largest (bytes of its busiest rank in one direction) /
 *  (bandwidth of a pair, with most pairs at work where that was measured); over cases, the one that
 *  binds most of them. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_report_facts_init(const struct ep_run *runs, int num_runs,
                                                  const struct ep_records *records,
                                                  const struct ep_fit *fit,
                                                  struct ep_report_facts *facts);
void ep_report_facts_fini(struct ep_report_facts *facts);

#endif
