/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `epbench route --steps`: what is trained, and what is swept. */
#ifndef EP_KERNELS_STEPS_OPTIONS_H
#define EP_KERNELS_STEPS_OPTIONS_H

#include "base/error.h"
#include "kernels/dynamics.h"

#include <argp.h>
#include <stdint.h>

/** Most values of one swept option, and most steps. */
enum { EP_STEPS_MAX_SWEEP = 64, EP_STEPS_MAX_STEPS = 1000000 };

/** A list of numbers, "0,0.01,1". */
struct ep_steps_list {
    double values[EP_STEPS_MAX_SWEEP];
    int64_t num; /* 0 = not given */
};

/** As given on the command line; 0 or NULL = not given. */
struct ep_steps_options {
    int64_t num_steps; /* 0 = not this mode */
    struct ep_steps_list aux_weights;
    struct ep_steps_list jitters;
    struct ep_steps_list bias_rates;
    const struct ep_loss *aux;
    double z_weight;
    enum ep_dynamics_score score;
    int64_t num_clusters;
    int64_t dim;
    int64_t sequence_tokens;
    double zipf;
    double expert_rate;
    double router_rate;
    const char *path;  /* -o: TSV of every step; borrowed */
    const char *first; /* name of an option that needs --steps; borrowed literal */
};

/** --steps --aux-loss --jitter ... as an argp child; input is a struct ep_steps_options. At the end
 *  of parsing options without --steps are refused. */
extern const struct argp ep_steps_argp;

#endif
