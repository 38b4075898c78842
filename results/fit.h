/* SPDX-License-Identifier: Apache-2.0 */
/* Fitting the ladder to records: groups, folds, errors, intervals, gates and the choice of a rung. */
#ifndef EP_RESULTS_FIT_H
#define EP_RESULTS_FIT_H

#include "base/error.h"
#include "results/model.h"
#include "results/record.h"
#include "results/run_dir.h"

#include <stdbool.h>
#include <stdint.h>

struct ep_fit_options {
    int num_bootstraps; /* 0 = no intervals */
    uint64_t seed;      /* of the bootstrap */
    double level;       /* of intervals, 0.95 */
    double peak_bytes_per_s; /* no rank can move more; NaN = taken from kernels records, if any */
    bool asked[EP_NUM_RUNGS]; /* of the rungs that are fitted on request only */
    int only;                 /* the one rung to fit, by index, and not to score; -1 = all */
};

/** 400 bootstraps, seed 1, level 0.95, no peak given, no rung on request. */
void ep_fit_options_default(struct ep_fit_options *options);

/** One case: all visits of one `case`, pooled. Texts are borrowed from the records. */
struct ep_fit_case {
    const char *case_name;
    const struct ep_record *record; /* the first visit: factors and features are those of all */
    const char *skew;
    int64_t skew_idx;   /* 0.., equal for equal skews */
    int64_t size_class; /* log2 of tokens * row bytes, rounded */
    struct ep_model_case model;     /* what rungs see; its matrix is filled by fit_matrices.h */
    double time_s; /* median of the visits' medians: the exchange where split, else the whole */
    int64_t num_visits;
    int64_t fold;    /* what is held out together */
    int64_t cluster; /* skew x size class: what the bootstrap draws */
};

/** Absolute errors of predictions, as fractions of the measured time. NaN where num is 0. */
struct ep_fit_scores {
    int64_t num;
    double median_ape;
    double p95_ape;
    double max_ape;
};

struct ep_fit_parameter {
    char name[32];   /* l, a, B, B@64KiB (at that size), or l+a*n where two cannot be told apart */
    const char *unit;
    const struct ep_rung_parameter *parameter; /* of the rung; NULL for merged ones */
    double value;    /* NaN where withheld */
    double low;      /* 95 % interval; NaN where there is none. With high NaN: at least that much */
    double high;
    char *withheld;  /* why the value must not be used; NULL = it may be */
    const char *advice; /* which cases would tell it; NULL = none is known */
    int64_t binds_in;   /* of a port: cases in which it is the slowest; -1 for others */
};

enum { EP_FIT_MAX_PARAMETERS = EP_RUNG_MAX_COLUMNS + 2 };

/** One rung on one group. */
struct ep_fit_rung {
    const struct ep_rung *rung;
    const struct ep_rung *same_as; /* an earlier rung with the same predictions here; NULL = none */
    bool is_fitted; /* not on request only, and with enough cases */
    struct ep_rung_form form;                 /* with the group's anchors where the rung has any */
    double coefficients[EP_RUNG_MAX_COLUMNS]; /* of the form; merged columns: all in the first */
    struct ep_fit_parameter parameters[EP_FIT_MAX_PARAMETERS];
    int num_parameters;
    double condition;
    struct ep_fit_scores in_sample;
    struct ep_fit_scores held_out;
    struct ep_fit_scores extrapolation; /* the largest size class, predicted from the others */
    double fold_score;    /* mean over folds of the median error in the fold: what choice goes by */
    double fold_score_se; /* its standard error */
    double coverage;      /* of nominal 95 % prediction intervals on held-out folds */
    double half_width;    /* of a prediction interval, relative; NaN with too few held-out cases */
    bool chosen;
    double *fitted_s;   /* [num_cases] in sample */
    double *held_out_s; /* [num_cases] from the folds the case is not in; NaN without folds */
};

/** Cases that share their physics: one fit each. */
struct ep_fit_group {
    char *name;
    char *key; /* all that must be equal within a group */
    const struct ep_record *record; /* one of it */
    const char *target; /* exchange, whole */
    int num_anchors;    /* sizes between which bandwidths change; 1 = they do not */
    double anchors[EP_RUNG_MAX_ANCHORS]; /* bytes of the busiest rank, ascending */
    struct ep_fit_case *cases; /* [num_cases], by case name */
    int64_t num_cases;
    const char *fold_kind; /* skew, size, none */
    int64_t num_folds;
    int64_t num_clusters;
    int64_t num_sizes; /* size classes */
    int64_t num_skews;
    int64_t num_rank_counts;
    double noise_floor;        /* mean |ln(m1/m2)| of two visits; NaN with one visit */
    double launch_noise_floor; /* the same of two launches; NaN with one */
    struct ep_fit_rung rungs[EP_NUM_RUNGS];
    int chosen; /* rung index; -1 = none, and a note says why */
    double peak_bytes_per_s; /* of a rank: the bound of its bandwidths; NaN = unknown */
    char *peak_name;
    struct ep_record_notes notes;
};

struct ep_fit {
    struct ep_fit_group *groups; /* by name, those of the exchange first, then those of the whole */
    int64_t num_groups;
    int64_t num_primary; /* the first so many are one per key; the others are wholes of split ones */
    struct ep_model_matrix *matrices; /* [num_matrices] of cases; fit_matrices.h */
    int64_t num_matrices;
    struct ep_record_notes notes; /* about the records: left out, truncated, no peak known */
};

/** Fit every rung to every group of comm records (the null transport is left out, and records whose
 *  check failed are left out with a note).
 *  records  read only, must outlive `fit`, which borrows from them
 *  Returns EP_EINVAL without a usable comm or any links record, with hosts mixed, where the records of one case
 *  disagree in their factors or bytes, or where a time is not above zero; EP_ENOMEM.
 *  `fit` is overwritten. */
EP_MUST_CHECK enum ep_status ep_fit_records(const struct ep_records *records,
                                            const struct ep_fit_options *options,
                                            struct ep_fit *fit);

/** The same in two steps, with what lies between them (fit_matrices.h) done by the caller: `fit` holds
 *  what ep_fit_group_records() made of these records. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_groups(const struct ep_records *records,
                                           const struct ep_fit_options *options,
                                           struct ep_fit *fit);
void ep_fit_fini(struct ep_fit *fit);

/** The chosen rung of a group, or NULL. */
const struct ep_fit_rung *ep_fit_chosen(const struct ep_fit_group *group);

/** Withheld parameters of a rung, those with one reason together. `from` begins at 0 and moves on.
 *  names  "l, a"; reason and advice (NULL = none) are borrowed. false after the last. */
bool ep_fit_next_withheld(const struct ep_fit_rung *rung, int *from, char *names, size_t length,
                          const char **reason, const char **advice);

/** The first group that a comm record belongs to (of its exchange where that is split), or NULL. */
const struct ep_fit_group *ep_fit_find_group(const struct ep_fit *fit,
                                             const struct ep_record *record);

/* --- the steps, for tests -------------------------------------------------------------------- */

/** Pool records into groups of cases with folds and clusters; rungs stay empty. */
EP_MUST_CHECK enum ep_status ep_fit_group_records(const struct ep_records *records,
                                                  struct ep_fit *fit);

/** Fit, score, and choose among the rungs of one group whose cases and peak are filled. */
EP_MUST_CHECK enum ep_status ep_fit_group_rungs(struct ep_fit_group *group,
                                                const struct ep_fit_options *options);

/** Median, 95th percentile (type 7) and maximum of |predicted - measured| / measured over the cases
 *  whose prediction is finite. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_fit_score(const struct ep_fit_case *cases, int64_t num_cases,
                                          const double *predicted_s,
                                          struct ep_fit_scores *scores);

#endif
