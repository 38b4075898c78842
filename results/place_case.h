/* SPDX-License-Identifier: Apache-2.0 */
/* One run of `epbench place`: policies on loads or tokens, and all that is found out about each. */
#ifndef EP_RESULTS_PLACE_CASE_H
#define EP_RESULTS_PLACE_CASE_H

#include "base/error.h"
#include "kernels/dtype.h"
#include "kernels/models.h"
#include "kernels/place.h"
#include "kernels/place_dynamic.h"
#include "kernels/place_input.h"
#include "kernels/place_judge.h"
#include "results/fitted_machine.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { EP_PLACE_MAX_WARNINGS = 8, EP_PLACE_WARNING_SIZE = 256 };

/** As given on the command line; 0, NULL = not given. Texts are borrowed. */
struct ep_place_options {
    struct ep_place_source source;
    const char *model;      /* experts, top-k, hidden, groups and the size of an expert */
    const char *model_file; /* where it is from; NULL = the zoo */
    int64_t ranks_per_node;
    int64_t num_nodes;
    int64_t num_groups;
    int64_t num_slots;
    const char *policies; /* comma-separated */
    double slack;
    int64_t window_tokens;
    int64_t every;
    double hysteresis;
    const char *dynamic_policy;
    int64_t expert_bytes;
    int64_t hidden;
    enum ep_dtype dtype;
    bool dtype_given;
    int64_t token_bytes;
    const char *machine; /* machine.json */
    int num_draws;       /* of the bootstrap */
    const char *json_path;
    const char *save_path;
};

/** The time a fitted group predicts. */
struct ep_place_time {
    const struct ep_fitted_group *group;
    double time_s;            /* NaN = withheld */
    const char *withheld;     /* why there is none; NULL = there is */
    const char *extrapolates; /* first feature outside of what was fitted; NULL = none */
};

/** Against another policy on the same tokens. */
struct ep_place_against {
    const char *policy;
    struct ep_place_difference difference;
};

/** What a policy's placement does to one part of the tokens. */
struct ep_place_part {
    struct ep_place_judgement judgement;
    struct ep_place_dynamic dynamic; /* no windows but for the policy dynamic */
    struct ep_place_time *times;     /* [machine->num_groups] */
    struct ep_place_against against[2];
    int num_against;
};

/** One policy on one layer. */
struct ep_place_result {
    const struct ep_place_policy *policy;
    int64_t layer;
    int32_t *map;      /* [num_slots] */
    double *rank_load; /* [num_ranks] of what was fitted to, split evenly over replicas */
    double *node_load;
    struct ep_place_part fitted;   /* of tokens; else no blocks */
    struct ep_place_part held_out; /* the same; no blocks where nothing is held out */
};

/** Made by ep_place_case_init, freed with ep_place_case_fini. */
struct ep_place_case {
    struct ep_place_options options; /* defaults filled in */
    struct ep_place_input input;
    struct ep_place_shape shape;
    struct ep_models *models;
    struct ep_fitted_machine *machine; /* NULL = none */
    int64_t row_bytes;
    int64_t expert_bytes;                    /* 0 = not known */
    const struct ep_place_policy **policies; /* [num_policies] */
    int64_t num_policies;
    const struct ep_place_policy *dynamic_policy; /* that dynamic starts with and places anew by */
    struct ep_place_result *results;              /* [num_layers * num_policies] layer by layer */
    int64_t num_results;
    char warnings[EP_PLACE_MAX_WARNINGS][EP_PLACE_WARNING_SIZE];
    int num_warnings;
};

/** Load, place and judge. `run` keeps pointers into itself and must not move. Returns EP_EINVAL for
 *  options that contradict each other or bad files, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_place_case_init(const struct ep_place_options *options,
                                                struct ep_place_case *run);
void ep_place_case_fini(struct ep_place_case *run);

/** Tables on `out`. */
EP_MUST_CHECK enum ep_status ep_place_case_print(const struct ep_place_case *run, FILE *out);

/** The same as JSON to a file ("-" = standard output). Keys: results/README.md, "place". */
EP_MUST_CHECK enum ep_status ep_place_case_save(const struct ep_place_case *run, const char *path);

#endif
