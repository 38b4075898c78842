/* SPDX-License-Identifier: Apache-2.0 */
/* Time of what a rank does alone (GEMMs, copies, the router): a roofline with fixed costs, and its fit. */
#ifndef EP_RESULTS_ROOFLINE_H
#define EP_RESULTS_ROOFLINE_H

#include "base/error.h"
#include "results/fit.h"

#include <stdbool.h>
#include <stdint.h>

/* Alike calls, for example of one GEMM: flop (2 per multiply-add) and bytes of each. */
struct ep_work_piece {
    double count;
    double flops;
    double bytes;
};

/* What one measured time is of. */
struct ep_work {
    double starts; /* how often the fixed cost is paid: 1 */
    const struct ep_work_piece *pieces; /* [num_pieces]; borrowed */
    int64_t num_pieces;
};

/* Coefficients: s, s per call, s/flop, s/byte. Parameters: the first two, flop/s, bytes/s. */
enum ep_roofline_column {
    EP_ROOFLINE_START,
    EP_ROOFLINE_CALL,
    EP_ROOFLINE_FLOP,
    EP_ROOFLINE_BYTE,
    EP_ROOFLINE_NUM
};

/* How the time of flops and that of bytes join: side by side, the longer counts (Williams, Waterman,
 * Patterson, CACM 52(4), 2009), or one after the other (a back end that unpacks before it multiplies). */
enum ep_roofline_form { EP_ROOFLINE_LONGER, EP_ROOFLINE_BOTH, EP_ROOFLINE_NUM_FORMS };

/** "longer", "both"; "start", "call", "flops", "bytes" and their units. */
const char *ep_roofline_form_name(enum ep_roofline_form form);
const char *ep_roofline_column_name(enum ep_roofline_column column);
const char *ep_roofline_column_unit(enum ep_roofline_column column);

/** starts * start + sum over pieces of count * (call + longer or sum of flops / F and bytes / B), in s. */
double ep_roofline_time(enum ep_roofline_form form, const double coefficients[EP_ROOFLINE_NUM],
                        const struct ep_work *work);

struct ep_part_case {
    const char *name; /* borrowed */
    struct ep_work work;
    double time_s;    /* > 0 */
    int64_t fold;     /* held out together */
};

struct ep_part_parameter {
    double value; /* s, s/call, flop/s or bytes/s; NaN = withheld, or not in these cases */
    double low, high;
    const char *withheld; /* why; NULL = it stands */
};

/** One part: a kernel of one back end and type, or a phase of a layer. */
struct ep_part {
    char *name;
    const char *kernel, *backend, *dtype; /* of kernels; borrowed; NULL = does not apply */
    int64_t ranks_active;                 /* -1 = does not apply */
    struct ep_part_case *cases;           /* [num_cases]; owned */
    int64_t num_cases, num_folds, num_sizes;
    struct ep_work_piece *pieces; /* of all cases; owned */
    enum ep_roofline_form form;
    double coefficients[EP_ROOFLINE_NUM];
    struct ep_part_parameter parameters[EP_ROOFLINE_NUM];
    double condition;
    struct ep_fit_scores in_sample, held_out;
    double half_width;  /* of a 95 % prediction interval, relative; NaN = not known */
    double *fitted_s;   /* [num_cases] */
    double *held_out_s; /* [num_cases]; NaN without folds */
};

/** Fit a part whose cases are filled: both forms, of which the one with the lower held-out error stands (in
 *  sample where nothing can be held out), coefficients >= 0, relative and robust as rungs are. Parameters
 *  are withheld with fewer than 3 sizes, where the condition number exceeds 30, where a 95 % interval is
 *  wider than +-50 %, and where they are 0. Source: results/README.md, "Parts".
 *  Returns EP_EINVAL without cases; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_part_fit(struct ep_part *part,
                                         const struct ep_fit_options *options);
void ep_part_fini(struct ep_part *part);

/** Scores of predictions against measured times; NaN predictions do not count. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_part_score(const double *measured_s, const double *predicted_s,
                                           int64_t num, struct ep_fit_scores *scores);

/** Half width of a split conformal interval, relative to the prediction: the (num + 1) level-th smallest
 *  |measured / predicted - 1|. NaN where num is too small for it. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_part_half_width(const double *measured_s, const double *predicted_s,
                                                int64_t num, double level, double *half_width);

#endif
