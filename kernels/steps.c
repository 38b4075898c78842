/* SPDX-License-Identifier: Apache-2.0 */
/* Training every combination of a sweep, and summing it up. */
#include "kernels/steps.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers that may be kept of all steps: 1 GiB of doubles. */
#define MAX_KEPT ((int64_t)1 << 27)

const struct ep_steps_column ep_steps_columns[EP_STEPS_NUM_VALUES] = {
    [EP_STEPS_MAX_OVER_MEAN] = {"max_over_mean", "max/mean", "%.2f"},
    [EP_STEPS_IDLE_EXPERTS] = {"idle_experts", "idle experts", "%.1f"},
    [EP_STEPS_MIN_TOKENS] = {"min_tokens", "min tokens", "%.1f"},
    [EP_STEPS_MEDIAN_TOKENS] = {"median_tokens", "median", "%.1f"},
    [EP_STEPS_MAX_TOKENS] = {"max_tokens", "max", "%.1f"},
    [EP_STEPS_ENTROPY_BITS] = {"entropy_bits", "entropy bits", "%.2f"},
    [EP_STEPS_MUTUAL_BITS] = {"mutual_bits", "mutual bits", "%.2f"},
    [EP_STEPS_MUTUAL_BIAS_BITS] = {"mutual_bias_bits", "of it bias", "%.2f"},
    [EP_STEPS_TASK_LOSS] = {"task_loss", "task loss", "%.3f"},
    [EP_STEPS_AUX_LOSS] = {"aux_loss", "aux loss", "%.3f"},
    [EP_STEPS_Z_LOSS] = {"z_loss", "z-loss", "%.2f"},
};

static const struct ep_steps_list default_weights = {
    .values = {0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1}, .num = 8};
static const struct ep_steps_list off = {.values = {0}, .num = 1};

bool ep_steps_is_usual(double aux_weight)
{
    return aux_weight >= 0.01 && aux_weight <= 0.1;
}

static int64_t or_else(int64_t given, int64_t otherwise)
{
    return given > 0 ? given : otherwise;
}

static enum ep_status fill_config(const struct ep_steps_options *o,
                                  const struct ep_dynamics_config *shape,
                                  struct ep_dynamics_config *config)
{
    const int64_t num_experts = or_else(shape->num_experts, 16);
    *config = (struct ep_dynamics_config){
        .clusters = {.num_clusters = or_else(o->num_clusters, num_experts),
                     .dim = or_else(o->dim, 32),
                     .num_outputs = 8,
                     .sequence_tokens = or_else(o->sequence_tokens, 8),
                     .common = 0.4,
                     .centre = 0.25,
                     .zipf = o->zipf,
                     .seed = shape->clusters.seed},
        .num_experts = num_experts,
        .top_k = or_else(shape->top_k, 1),
        .num_tokens = or_else(shape->num_tokens, 1024),
        .score = o->score,
        .aux = o->aux,
        .z_weight = o->z_weight,
        .expert_rate = o->expert_rate > 0 ? o->expert_rate : 1,
        .router_rate = o->router_rate > 0 ? o->router_rate : 2,
    };
    if (config->top_k > num_experts) {
        return ep_error_set(EP_EINVAL, "--top-k %" PRId64 ": there are %" PRId64 " experts",
                            config->top_k, num_experts);
    }
    const struct ep_clusters_config *c = &config->clusters;
    const double floats =
        (double)c->dim * (double)c->num_outputs * (double)(2 * num_experts + c->num_clusters) +
        (double)config->num_tokens * (double)(5 * num_experts + 2 * c->dim) +
        (double)c->num_clusters * (double)num_experts;
    if (floats > (double)MAX_KEPT) {
        return ep_error_set(EP_EINVAL,
                            "a layer and batch of %.3g numbers: at most %.3g; fewer experts, "
                            "tokens, clusters or dimensions are needed",
                            floats, (double)MAX_KEPT);
    }
    if (config->aux == NULL) {
        return ep_loss_find("megatron-seq", "--aux-formula", &config->aux);
    }
    return EP_OK;
}

static void keep_step(const struct ep_dynamics_step *m, double *values)
{
    values[EP_STEPS_MAX_OVER_MEAN] = m->max_over_mean;
    values[EP_STEPS_IDLE_EXPERTS] = (double)m->idle_experts;
    values[EP_STEPS_MIN_TOKENS] = (double)m->min_tokens;
    values[EP_STEPS_MEDIAN_TOKENS] = m->median_tokens;
    values[EP_STEPS_MAX_TOKENS] = (double)m->max_tokens;
    values[EP_STEPS_ENTROPY_BITS] = m->entropy_bits;
    values[EP_STEPS_MUTUAL_BITS] = m->mutual.bits;
    values[EP_STEPS_MUTUAL_BIAS_BITS] = m->mutual.bias_bits;
    values[EP_STEPS_TASK_LOSS] = m->task_loss;
    values[EP_STEPS_AUX_LOSS] = m->aux_loss;
    values[EP_STEPS_Z_LOSS] = m->z_loss;
}

/* Means over the last steps. */
static void sum_up(const struct ep_steps *s, struct ep_steps_case *c)
{
    for (int64_t step = s->num_steps - s->num_final; step < s->num_steps; step++) {
        for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
            c->finals[v] += c->values[step * EP_STEPS_NUM_VALUES + v] / (double)s->num_final;
        }
    }
}

static enum ep_status train(const struct ep_steps *s, struct ep_steps_case *c)
{
    enum ep_status status;
    struct ep_dynamics *dynamics = NULL;
    struct ep_dynamics_config config = s->config;
    struct ep_dynamics_step measured;
    const int64_t num = config.num_experts;
    config.aux_weight = c->aux_weight;
    config.jitter = c->jitter;
    config.bias_rate = c->bias_rate;
    EP_TRY(ep_dynamics_create(&config, &dynamics));
    for (int64_t step = 0; step < s->num_steps; step++) {
        EP_TRY(ep_dynamics_advance(dynamics, &measured));
        keep_step(&measured, &c->values[step * EP_STEPS_NUM_VALUES]);
        if (c->loads != NULL) {
            memcpy(&c->loads[step * num], measured.loads, (size_t)num * sizeof *c->loads);
        }
        for (int64_t e = 0; e < num && step >= s->num_steps - s->num_final; e++) {
            c->final_loads[e] += (double)measured.loads[e] / (double)s->num_final;
        }
    }
    sum_up(s, c);
    const struct ep_min_tokens_shape shape = {.num_experts = num,
                                              .top_k = config.top_k,
                                              .num_tokens = config.num_tokens,
                                              .sequence_tokens = config.clusters.sequence_tokens};
    EP_TRY(ep_min_tokens_plan(c->final_loads, &shape, s->min_tokens, &c->batch));
out:
    ep_dynamics_destroy(dynamics);
    return status;
}

static enum ep_status allocate_case(const struct ep_steps *s, bool keep_loads,
                                    struct ep_steps_case *c)
{
    const int64_t num = s->config.num_experts;
    c->final_loads = calloc((size_t)num, sizeof *c->final_loads);
    c->values = calloc((size_t)(s->num_steps * EP_STEPS_NUM_VALUES), sizeof *c->values);
    c->loads = keep_loads ? calloc((size_t)(s->num_steps * num), sizeof *c->loads) : NULL;
    return c->final_loads != NULL && c->values != NULL && (c->loads != NULL || !keep_loads)
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " steps", s->num_steps);
}

/* One case per combination. */
static enum ep_status make_cases(const struct ep_steps_options *o, bool keep_loads,
                                 struct ep_steps *s)
{
    enum ep_status status = EP_OK;
    const struct ep_steps_list *weights =
        o->aux_weights.num > 0 ? &o->aux_weights : &default_weights;
    const struct ep_steps_list *jitters = o->jitters.num > 0 ? &o->jitters : &off;
    const struct ep_steps_list *rates = o->bias_rates.num > 0 ? &o->bias_rates : &off;
    const int64_t num = weights->num * jitters->num * rates->num;
    const int64_t kept = EP_STEPS_NUM_VALUES + (keep_loads ? s->config.num_experts : 0);
    if (num > MAX_KEPT / kept / s->num_steps) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " trainings of %" PRId64 " steps with %" PRId64
                            " values each: at most %" PRId64 " values can be kept",
                            num, s->num_steps, kept, MAX_KEPT);
    }
    s->cases = calloc((size_t)num, sizeof *s->cases);
    if (s->cases == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " trainings", num);
    }
    for (; s->num_cases < num; s->num_cases++) {
        struct ep_steps_case *c = &s->cases[s->num_cases];
        c->aux_weight = weights->values[s->num_cases % weights->num];
        c->jitter = jitters->values[s->num_cases / weights->num % jitters->num];
        c->bias_rate = rates->values[s->num_cases / weights->num / jitters->num];
    }
    for (int64_t i = 0; i < num; i++) {
        EP_TRY(allocate_case(s, keep_loads, &s->cases[i]));
    }
out:
    return status;
}

enum ep_status ep_steps_create(const struct ep_steps_options *options,
                               const struct ep_dynamics_config *shape, int64_t min_tokens,
                               bool keep_loads, ep_steps_progress progress, struct ep_steps **steps)
{
    enum ep_status status;
    struct ep_steps *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to train");
    }
    EP_ASSERT(options->num_steps >= 1);
    s->num_steps = options->num_steps;
    s->num_final = s->num_steps >= 10 ? s->num_steps / 10 : 1;
    s->min_tokens = or_else(min_tokens, 32);
    EP_TRY(fill_config(options, shape, &s->config));
    EP_TRY(make_cases(options, keep_loads, s));
    for (int64_t i = 0; i < s->num_cases; i++) {
        if (progress != NULL) {
            progress(i, s->num_cases);
        }
        EP_TRY(train(s, &s->cases[i]));
    }
    *steps = s;
out:
    if (progress != NULL && s->num_cases > 0) {
        progress(s->num_cases, s->num_cases);
    }
    if (status != EP_OK) {
        ep_steps_destroy(s);
    }
    return status;
}

void ep_steps_destroy(struct ep_steps *steps)
{
    if (steps == NULL) {
        return;
    }
    for (int64_t i = 0; i < steps->num_cases; i++) {
        free(steps->cases[i].final_loads);
        free(steps->cases[i].values);
        free(steps->cases[i].loads);
    }
    free(steps->cases);
    free(steps);
}
