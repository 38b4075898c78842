/* SPDX-License-Identifier: Apache-2.0 */
/* The time of one MoE layer of a model on a machine: a catalogue's rates, or what was fitted. */
#ifndef EP_RESULTS_PREDICT_H
#define EP_RESULTS_PREDICT_H

#include "kernels/dtype.h"
#include "kernels/expect.h"
#include "kernels/model_sizes.h"
#include "results/fitted_machine.h"
#include "topologies/catalogue.h"

/** How a transport moves rows: a row of the table of those that can be predicted. */
struct ep_predict_transport {
    const char *name;
    const char *basis; /* copies, rank-dedup, node-dedup */
    bool to_all;       /* every row to every rank (all-gather) */
    const char *text;
};

/** Transport `idx` >= 0; NULL past the last. */
const struct ep_predict_transport *ep_predict_transport_at(int idx);
EP_MUST_CHECK enum ep_status ep_predict_transport_find(const char *name,
                                                       const struct ep_predict_transport **found);

/** What is asked. Everything is borrowed. */
struct ep_predict_question {
    const struct ep_model *model;
    const struct ep_skew *skew;
    const char *router;     /* group-limited router of the model; NULL = by the skew alone */
    const struct ep_placement *placement; /* of the experts on a group's ranks; NULL = contiguous */
    int64_t ep;             /* ranks of one expert-parallel group */
    int64_t world;          /* all ranks, a multiple of ep: world / ep groups side by side */
    int64_t ranks_per_node; /* 0 = the machine's */
    int64_t tokens;         /* per rank */
    const struct ep_predict_transport *transport;
    enum ep_dtype dtype;         /* of dispatch */
    enum ep_dtype combine_dtype;
    enum ep_weight_type weights;
    uint64_t seed;
    const struct ep_known_machine *known;   /* or */
    const struct ep_fitted_machine *fitted; /* one of the two; the other NULL */
};

enum { EP_PREDICT_MAX_PHASES = 6, EP_PREDICT_MAX_PORTS = 6 };

/** A resource of one phase and how long it works. */
struct ep_predict_port {
    const char *level;  /* scale-up, pair, nic, memory, flops, latency, or of a fitted rung */
    double load;        /* bytes or flop; NaN of a fitted rung's terms */
    double rate;        /* per s; NaN of a fitted rung's terms */
    double time_s;
};

struct ep_predict_phase {
    const char *name;       /* dispatch, permute, experts, shared, unpermute, combine */
    double time_s;          /* NaN = withheld */
    double low_s, high_s;   /* 95 % prediction interval; NaN where nothing was held against it */
    const char *level;      /* that takes longest */
    const char *runner_up;  /* NULL = none */
    struct ep_predict_port ports[EP_PREDICT_MAX_PORTS];
    int num_ports;
    const char *by;          /* the group of machine.json; NULL = the catalogue */
    const char *extrapolates; /* feature beyond what was fitted; NULL = none */
    const char *withheld;    /* why there is no time */
};

struct ep_prediction {
    int64_t num_nodes;      /* of one group */
    double ranks_per_token, nodes_per_token;
    int64_t num_drawn;      /* tokens drawn for these; 0 = exact */
    double copies_max;      /* rows that the busiest rank's experts get */
    double imbalance;       /* those over the mean */
    struct ep_predict_phase phases[EP_PREDICT_MAX_PHASES];
    int num_phases;
    double time_s;          /* sum of phases, nothing overlapped; NaN where one is withheld */
    double low_s, high_s;
    const char *level;      /* that binds for longest over all phases */
    const char *runner_up;
    double move_over_compute; /* dispatch and combine over experts and shared; NaN = not known */
    double weight_bytes;    /* on a rank: its experts of all layers, and everything else once */
    double buffer_bytes;    /* rows of one layer, received and to be sent back, busiest rank */
    double memory_bytes;    /* of a rank; NaN = not known */
};

/** Predict. A phase of a catalogue's machine is the latency of a step and its slowest port, where ports
 *  work side by side (rung M4's form; results/README.md, "predict"). Of a fitted machine, dispatch and
 *  combine are the chosen rungs of the transport's groups on the expected bytes; where these are of the
 *  exchange alone, packing and unpacking are phases of their own (permute, unpermute), as far as the file knows
 *  them; experts are its fitted roofline.
 *  Returns EP_EINVAL for counts that do not fit; as ep_expect_init. */
EP_MUST_CHECK enum ep_status ep_predict(const struct ep_predict_question *question,
                                        struct ep_prediction *prediction);

#endif
