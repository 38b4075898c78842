/* SPDX-License-Identifier: Apache-2.0 */
/* Point-to-point time against message size, in pieces: each its own latency and cost per byte. */
#ifndef EP_RESULTS_PIECES_H
#define EP_RESULTS_PIECES_H

#include "base/error.h"

#include <stdint.h>

enum { EP_PIECES_MAX = 12 };

/** What was measured: one time per size. */
struct ep_pieces_points {
    const double *size_bytes; /* [num] >= 0, ascending, all different */
    const double *time_s;     /* [num] > 0, finite: medians of repetitions */
    int64_t num;              /* 1 to 20000: the search takes num^2 */
};

struct ep_pieces_options {
    int max_pieces;        /* 1 to EP_PIECES_MAX */
    int64_t min_points;    /* sizes in a piece, >= 2 */
    int num_folds;         /* of the cross-validation, >= 2 */
    uint64_t seed;         /* of the folds */
    const double *limits;  /* [num_limits] ascending: largest sizes of a piece (eager limits, cache
                              sizes): pieces end there and nowhere else. NULL = anywhere. Borrowed */
    int num_limits;
};

/** 8 pieces of at least 5 sizes, 10 folds, seed 1, breaks anywhere. */
void ep_pieces_options_default(struct ep_pieces_options *options);

/** time = latency + size * cost, for sizes up to `end_bytes`. */
struct ep_piece {
    double latency_s;     /* >= 0; of size 0 on this line, not of a message */
    double s_per_byte;    /* >= 0; 1 / bandwidth */
    int64_t num_points;   /* sizes it was fitted to */
    double first_bytes;   /* the smallest and largest of them */
    double last_bytes;
    double end_bytes;     /* predicted up to here: a limit where one was given, else the geometric
                             mean of last_bytes and the next piece's first; infinite for the last */
};

struct ep_pieces {
    struct ep_piece pieces[EP_PIECES_MAX]; /* by rising size */
    int num;
    double relative_rms; /* of (time - predicted) / time over the points fitted to */
};

/** The best pieces: of all ways to cut the sizes into `num_pieces`, the one of least relative
 *  squared error, each piece a line with latency and cost >= 0 that need not meet its neighbours
 *  (a change of protocol is a jump). Exact, by dynamic programming over the sizes. Fewer pieces come
 *  back where min_points or the limits allow no more.
 *  Returns EP_EINVAL for points or options out of range; EP_ENOMEM. O(num^2 num_pieces).
 *  Source: Bellman and Roth, J. Am. Stat. Assoc. 64, 1969, "Curve fitting by segmented straight
 *  lines"; weights 1 / time^2: results/README.md, "The fit". */
EP_MUST_CHECK enum ep_status ep_pieces_fit(const struct ep_pieces_points *points,
                                           const struct ep_pieces_options *options,
                                           int num_pieces, struct ep_pieces *pieces);

/** Time of a message of `size_bytes` >= 0. */
double ep_pieces_predict(const struct ep_pieces *pieces, double size_bytes);

/** How many pieces, and how far off. Errors are means of |time - predicted| / time. */
struct ep_pieces_choice {
    struct ep_pieces pieces;            /* fitted to all points with the chosen number */
    int max_pieces;                     /* numbers 1 to this were tried */
    double error[EP_PIECES_MAX];        /* [k - 1] cross-validated, of k pieces */
    double standard_error[EP_PIECES_MAX]; /* [k - 1] of it, over folds */
    double held_out_error;  /* of sizes that neither fit nor choice has seen: in every fold the
                               number is chosen anew within the rest. NaN with few points */
};

/** Choose the number of pieces by cross-validation over sizes: the smallest whose error is within one
 *  standard error of the least (Breiman et al. 1984, section 3.4.3), and say how such a choice does on
 *  sizes it has not seen. Same results for the same seed.
 *  Returns as ep_pieces_fit; EP_EINVAL for fewer points than 2 * num_folds. */
EP_MUST_CHECK enum ep_status ep_pieces_choose(const struct ep_pieces_points *points,
                                              const struct ep_pieces_options *options,
                                              struct ep_pieces_choice *choice);

#endif
