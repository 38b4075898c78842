/* SPDX-License-Identifier: Apache-2.0 */
/* A whole layer from its parts: phases that a rank does alone, exchanges, and who waits for whom. */
#ifndef EP_RESULTS_LAYER_FIT_H
#define EP_RESULTS_LAYER_FIT_H

#include "results/fit.h"
#include "results/roofline.h"

/** A phase of the layer, fitted on its own. One of the two. */
struct ep_layer_part {
    char *name;              /* as in the records: dispatch-exchange, experts */
    bool is_exchange;        /* ranks wait for one another in it */
    struct ep_part part;     /* of what a rank does alone: a case per layer case and rank */
    struct ep_fit exchange;  /* one group: time without waits of the slowest rank; the ladder */
    const double *fitted_s;  /* [layer cases] (exchange) or [layer cases][ranks]; borrowed */
    const double *held_out_s;
    double share;            /* of the layer's time, mean over cases, slowest rank; in-sample */
};

/** Layers of one kind: transport, back end, types, numbers of ranks, pass. */
struct ep_layer_group {
    char *name;
    struct ep_fit_group *whole; /* cases, folds, noise floor, and measured times; borrowed */
    int64_t num_ranks;
    struct ep_layer_part *parts; /* [num_parts], in the order they run */
    int64_t num_parts;
    double *fitted_s;   /* [cases] parts fitted to all cases */
    double *held_out_s; /* [cases] parts fitted without the fold; NaN where there are no folds */
    struct ep_fit_scores in_sample, held_out;
    double coverage;    /* of intervals from the other cases' held-out errors; NaN = not known */
    double half_width;
};

struct ep_layer_fit {
    struct ep_layer_group *groups;
    int64_t num_groups;
    struct ep_fit wholes;
    struct ep_records synthetic; /* what `wholes` borrows from; items share texts with the records */
    char **texts;                /* [num_texts] of those */
    int64_t num_texts;
    struct ep_record_notes notes;
};

/** Fit the parts of every group of layer records of two or more ranks, and put the whole together: a rank
 *  goes through its phases one after the other, and at an exchange all wait for the last (results/README.md,
 *  "The whole layer"). No time of a whole layer is fitted to.
 *  records  read only; must outlive `fit`. None of a layer: no groups.
 *  Returns EP_ENOMEM; EP_EINVAL as ep_fit_group_records. `fit` is overwritten. */
EP_MUST_CHECK enum ep_status ep_layer_fit_records(const struct ep_records *records,
                                                  const struct ep_fit_options *options,
                                                  struct ep_layer_fit *fit);
void ep_layer_fit_fini(struct ep_layer_fit *fit);

/** Times of another run's cases by the parts of `group`.
 *  fresh        a group of the same name, fitted to that run (its work is taken, not its coefficients)
 *  predicted_s  [fresh->whole->num_cases] written; NaN where a rung needs what a case lacks
 *  Returns EP_EINVAL where the phases are others; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_layer_fit_predict(const struct ep_layer_group *group,
                                                  const struct ep_layer_group *fresh,
                                                  double *predicted_s);

/** Times of a layer whose phases take part_s: the latest rank at the end, s.
 *  is_exchange  [num_parts]
 *  part_s       [num_parts][num_ranks] s; of an exchange the first of the line counts */
double ep_layer_compose(const bool *is_exchange, const double *part_s, int64_t num_parts,
                        int64_t num_ranks);

#endif
