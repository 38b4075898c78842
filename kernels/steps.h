/* SPDX-License-Identifier: Apache-2.0 */
/* A sweep of trainings of the small layer, and what it says about batches. */
#ifndef EP_KERNELS_STEPS_H
#define EP_KERNELS_STEPS_H

#include "base/error.h"
#include "kernels/dynamics.h"
#include "kernels/min_tokens.h"
#include "kernels/steps_options.h"

#include <stdbool.h>
#include <stdint.h>

/** What is kept of every step, in the order of tables and files. */
enum ep_steps_value {
    EP_STEPS_MAX_OVER_MEAN,
    EP_STEPS_IDLE_EXPERTS,
    EP_STEPS_MIN_TOKENS,
    EP_STEPS_MEDIAN_TOKENS,
    EP_STEPS_MAX_TOKENS,
    EP_STEPS_ENTROPY_BITS,
    EP_STEPS_MUTUAL_BITS,
    EP_STEPS_MUTUAL_BIAS_BITS,
    EP_STEPS_TASK_LOSS,
    EP_STEPS_AUX_LOSS,
    EP_STEPS_Z_LOSS,
    EP_STEPS_NUM_VALUES
};

/** Key in files ("max_over_mean"), and heading of tables. */
struct ep_steps_column {
    const char *key;
    const char *title;
    const char *format; /* of a mean in tables, for a double */
};
extern const struct ep_steps_column ep_steps_columns[EP_STEPS_NUM_VALUES];

/** One training. Values are means over the last tenth of the steps (at least one). */
struct ep_steps_case {
    double aux_weight;
    double jitter;
    double bias_rate;
    double finals[EP_STEPS_NUM_VALUES];
    double *final_loads;        /* [num_experts] */
    struct ep_min_tokens batch; /* by final_loads */
    double *values;             /* [num_steps][EP_STEPS_NUM_VALUES] */
    int64_t *loads;             /* [num_steps][num_experts] copies; NULL unless kept */
};

/** Made by ep_steps_create, freed with ep_steps_destroy. */
struct ep_steps {
    struct ep_dynamics_config config; /* but for what is swept */
    int64_t num_steps;
    int64_t num_final; /* steps that finals are means of */
    int64_t min_tokens;
    struct ep_steps_case *cases; /* [num_cases] weights fastest, then jitters, then bias rates */
    int64_t num_cases;
};

/** Called before training case `index`, and once after the last with index = num_cases. */
typedef void (*ep_steps_progress)(int64_t index, int64_t num_cases);

/** Train all combinations. Defaults: kernels/README.md, "route --steps".
 *  shape       num_experts, top_k, num_tokens (0 = default) and clusters.seed are read
 *  min_tokens  per expert and step, for the batch; 0 = 32
 *  keep_loads  keep the loads of every step
 *  progress    NULL = not called
 *  Returns EP_EINVAL as ep_dynamics_create and _advance, for top_k > experts, and for more numbers
 *  than may be kept; EP_ENOMEM. O(cases x steps x tokens x (experts + top_k) x dim). */
EP_MUST_CHECK enum ep_status ep_steps_create(const struct ep_steps_options *options,
                                             const struct ep_dynamics_config *shape,
                                             int64_t min_tokens, bool keep_loads,
                                             ep_steps_progress progress, struct ep_steps **steps);
void ep_steps_destroy(struct ep_steps *steps);

/** 0.01 to 0.1, the weights usually advised for losses that are 1 where balanced (Switch: 0.01). */
bool ep_steps_is_usual(double aux_weight);

#endif
