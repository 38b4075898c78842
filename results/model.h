/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model: features of a case, and the ladder of rungs that turn them into a time. */
#ifndef EP_RESULTS_MODEL_H
#define EP_RESULTS_MODEL_H

#include "base/error.h"
#include "results/record.h"

#include <stdbool.h>

/* What rungs see of a case. Bytes are those that really move, in the transport's basis. */
enum ep_model_feature {
    EP_FEATURE_RANKS,
    EP_FEATURE_REMOTE_BYTES, /* over all ranks */
    EP_FEATURE_MEAN_OUT_BYTES,
    EP_FEATURE_H_RANK_BYTES,
    EP_FEATURE_MESSAGES, /* posted by the busiest rank */
    EP_NUM_FEATURES
};

struct ep_model_features {
    double values[EP_NUM_FEATURES];
};

/** JSON key of a feature, unit included: "h_rank_bytes". */
const char *ep_model_feature_name(enum ep_model_feature feature);

/** The features of a comm record. Returns EP_EINVAL, naming the case, where one is absent. */
EP_MUST_CHECK enum ep_status ep_model_features_of_record(const struct ep_record *record,
                                                   struct ep_model_features *features);

enum { EP_RUNG_MAX_PARAMETERS = 4 };

/* A parameter is a physical quantity; the fit works on its coefficient, which multiplies a column:
 * the parameter itself where it is a time, one over it where it is a bandwidth. */
enum ep_parameter_form { EP_PARAMETER_TIME, EP_PARAMETER_BANDWIDTH };

struct ep_rung_parameter {
    const char *name; /* as in DESIGN's table: l, a, B */
    const char *unit; /* s, s/message, bytes/s */
    enum ep_parameter_form form;
};

/** One rung: time = sum over j of coefficient[j] * column[j], all coefficients >= 0. */
struct ep_rung {
    const char *name; /* M0, M0-link, M1, M2: ordered from simple to rich */
    const char *formula;
    int num_parameters;
    struct ep_rung_parameter parameters[EP_RUNG_MAX_PARAMETERS];
    bool can_be_chosen;      /* M0-link is a second form of M0, printed beside it only */
    bool bandwidth_is_total; /* B of all ranks together, not of one */
    /** The columns of one case. row [num_parameters], written. */
    void (*fill_row)(const struct ep_model_features *features, double *row);
};

enum { EP_NUM_RUNGS = 4 };

/** Rung 0 <= idx < EP_NUM_RUNGS, simplest first. */
const struct ep_rung *ep_rung_at(int idx);

/** The index of a rung by name; EP_EINVAL lists the names. */
EP_MUST_CHECK enum ep_status ep_rung_find(const char *name, int *idx);

/** Time in s by a rung's coefficients [num_parameters]. */
double ep_rung_predict(const struct ep_rung *rung, const struct ep_model_features *features,
                       const double *coefficients);

/** Parameter from coefficient and back: c, or 1/c (infinite where c = 0). */
double ep_rung_parameter_value(const struct ep_rung_parameter *parameter, double coefficient);

#endif
