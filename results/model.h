/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model: what rungs see of a case, the ladder of rungs, and the time that each predicts. */
#ifndef EP_RESULTS_MODEL_H
#define EP_RESULTS_MODEL_H

#include "base/error.h"
#include "kernels/step_partner.h"
#include "results/record.h"

#include <stdbool.h>
#include <stdint.h>

/* What rungs see of a case. Bytes are those that really move, in the transport's basis. */
enum ep_model_feature {
    EP_FEATURE_RANKS,
    EP_FEATURE_REMOTE_BYTES, /* over all ranks */
    EP_FEATURE_MEAN_OUT_BYTES,
    EP_FEATURE_H_RANK_BYTES,
    EP_FEATURE_MESSAGES,       /* posted by the busiest rank */
    EP_FEATURE_MEMORY_BYTES,   /* read and written in the busiest node's memory, own rows included */
    EP_FEATURE_NIC_BYTES,      /* in or out of the busiest NIC; 0 on one node */
    EP_FEATURE_UPLINK_BYTES,   /* in or out of the busiest uplink; 0 where none is known */
    EP_FEATURE_STEP_PORT_BYTES, /* sum over steps of the most that a port carries; one node: message */
    EP_FEATURE_COPIED_BYTES,   /* read and written by pack, unpack and fan-out; busiest rank */
    EP_FEATURE_UPLINK_MESSAGES, /* of one rank to other switches; 0 where no uplinks are known */
    EP_NUM_FEATURES
};

struct ep_model_features {
    double values[EP_NUM_FEATURES];
};

/** JSON key of a feature, unit included: "h_rank_bytes". */
const char *ep_model_feature_name(enum ep_model_feature feature);

/** The features of a comm record. Returns EP_EINVAL, naming the case, where one that every record
 *  must have is absent; ports that a record does not name have 0 bytes. */
EP_MUST_CHECK enum ep_status ep_model_features_of_record(const struct ep_record *record,
                                                         struct ep_model_features *features);

/* One message of a pairwise exchange, with what the ports that it passes carry in its step. */
struct ep_model_step {
    double bytes;
    double nic_bytes;    /* out of its node or into the other, the larger; 0 with one rank per node */
    double uplink_bytes; /* of the lanes of both uplinks the larger; 0 below one switch */
    int32_t to;
    bool inside;  /* its node */
    bool crosses; /* to another switch */
};

/** Bytes that each rank sends to each, for rungs that follow single messages (M5, M6). */
struct ep_model_matrix {
    int64_t num_ranks;
    int64_t num_nodes;
    double *bytes;      /* [P][P] from, to; diagonal 0; owned */
    int32_t *rank_node; /* [P]; owned */
    double *self_bytes; /* [P] that stay on the rank; NULL = not known; owned */
    enum ep_step_partner steps;
    int64_t num_lanes;      /* of all uplinks; 0 = none known, and then the next three are NULL */
    int32_t *first_lane;    /* [num_nodes] of its switch's uplink; -1 = none; owned */
    int32_t *lanes;         /* [num_nodes] of its switch; owned */
    int32_t *node_position; /* [num_nodes] messages to the node take lane (this modulo lanes); owned */
    struct ep_model_step *step_list; /* ep_model_matrix_list_steps(), or NULL = made each time; owned */
};

void ep_model_matrix_fini(struct ep_model_matrix *matrix);

/** The lanes that a message takes out of its switch and into the other; -1 = that one has no uplink. */
struct ep_model_lanes {
    int64_t out;
    int64_t in;
};

/** false where both ranks are below one switch, or no uplink is known. */
bool ep_model_matrix_lanes(const struct ep_model_matrix *matrix, int64_t from, int64_t to,
                           struct ep_model_lanes *lanes);

/** All messages of a pairwise exchange, [P - 1 steps][P ranks], to be freed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_model_matrix_list_steps(const struct ep_model_matrix *matrix,
                                                        struct ep_model_step **steps);

/** A case as rungs see it. */
struct ep_model_case {
    struct ep_model_features features;
    const struct ep_model_matrix *matrix; /* NULL = not known: M5 and M6 predict NaN */
};

enum {
    EP_RUNG_MAX_PARAMETERS = 8,
    EP_RUNG_MAX_ANCHORS = 4,
    EP_RUNG_MAX_COLUMNS = 16
};

/* A parameter is a physical quantity; the fit works on its coefficient, which multiplies a column:
 * the parameter itself where it is a time, one over it where it is a bandwidth. */
enum ep_parameter_form { EP_PARAMETER_TIME, EP_PARAMETER_BANDWIDTH };

/* How a parameter's term joins the others: it is added, or it is a port, of which the slowest
 * counts; rungs with a schedule do neither. */
enum ep_parameter_role { EP_ROLE_SUM, EP_ROLE_PORT, EP_ROLE_SCHEDULE };

/* What the coefficient multiplies, beside the features themselves. */
enum { EP_TERM_ONE = -1, EP_TERM_PEERS = -2, EP_TERM_NEAR_MESSAGES = -3 };

struct ep_rung_parameter {
    const char *name; /* l, a, B, c_nic */
    const char *unit; /* s, s/message, bytes/s */
    enum ep_parameter_form form;
    enum ep_parameter_role role;
    int term;       /* a feature, or EP_TERM_ONE (1), EP_TERM_PEERS (ranks - 1),
               * EP_TERM_NEAR_MESSAGES (messages but those over uplinks) */
    bool by_size;   /* of a bandwidth: may change with H_rank (anchors) */
    const char *level; /* what binds where this term is the largest: "rank", "nic"; NULL = latency */
};

struct ep_rung_form;

/** One rung. Its time is a sum of terms, of ports the largest one, or a schedule. All of them grow
 *  in proportion where every coefficient does, so at any coefficients the time is the dot product
 *  of these and a row: the columns that bind there. */
struct ep_rung {
    const char *name; /* M0, M0-link, M1, ...: ordered from simple to rich */
    const char *formula;
    const char *text; /* what it says, in plain words */
    int num_parameters;
    struct ep_rung_parameter parameters[EP_RUNG_MAX_PARAMETERS];
    bool can_be_chosen;      /* M0-link is a second form of M0, printed beside it only */
    bool bandwidth_is_total; /* B of all ranks together, not of one */
    bool one_start;          /* what binds hardly depends on where the fit begins */
    bool on_request;         /* fitted only where it is asked for: it follows single messages */
    /** Of a schedule: row [num_parameters] at coefficients [num_parameters]; false where the case
     *  has no matrix. NULL for terms and ports. */
    bool (*follow)(const struct ep_model_case *c, const double *coefficients, double *row);
};

enum { EP_NUM_RUNGS = 9 };

/** Rung 0 <= idx < EP_NUM_RUNGS, simplest first. */
const struct ep_rung *ep_rung_at(int idx);

/** The index of a rung by name; EP_EINVAL lists the names. */
EP_MUST_CHECK enum ep_status ep_rung_find(const char *name, int *idx);

/** A rung with the sizes between which its bandwidths change: 1/B at each anchor, in between
 *  linear in the logarithm of H_rank, beyond the outer ones constant. One anchor or none: B is
 *  one number. Columns follow parameters, those of one parameter side by side. */
struct ep_rung_form {
    const struct ep_rung *rung;
    int num_anchors;                          /* >= 1; with 1 the size does not matter */
    double anchors[EP_RUNG_MAX_ANCHORS];      /* bytes, ascending */
    int num_columns;
    int first_column[EP_RUNG_MAX_PARAMETERS]; /* of each parameter */
    int width[EP_RUNG_MAX_PARAMETERS];        /* columns of each parameter: 1 or num_anchors */
};

/** num_anchors 0 or 1: no anchors. */
void ep_rung_form_init(const struct ep_rung *rung, const double *anchors, int num_anchors,
                       struct ep_rung_form *form);

/** Whether rows depend on coefficients: with ports or a schedule. */
bool ep_rung_is_linear(const struct ep_rung *rung);

/** row [num_columns] of a case at coefficients [num_columns] (which linear rungs do not read).
 *  false where the case lacks what the rung needs; row is then 0. */
bool ep_rung_row(const struct ep_rung_form *form, const struct ep_model_case *c,
                 const double *coefficients, double *row);

/** Time in s by coefficients [num_columns]; NaN where the case lacks what the rung needs. */
double ep_rung_predict(const struct ep_rung_form *form, const struct ep_model_case *c,
                       const double *coefficients);

/** Time in s of each parameter's term: shares of a sum, whole times of ports.
 *  terms [num_parameters], written. */
void ep_rung_terms(const struct ep_rung_form *form, const struct ep_model_case *c,
                   const double *coefficients, double *terms);

/** Parameter from coefficient: c, or 1/c (infinite where c = 0). */
double ep_rung_parameter_value(const struct ep_rung_parameter *parameter, double coefficient);

#endif
