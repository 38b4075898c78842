/* SPDX-License-Identifier: Apache-2.0 */
/* Forward, backward and update of the small layer, and what is measured of a step. */
#include "kernels/dynamics.h"

#include "base/random.h"
#include "base/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Streams of EP_RANDOM_DYNAMICS: what for in the upper byte, which one below. */
enum { ROUTER = 1, EXPERT, JITTER };

/* Of fresh logits and outputs, for tokens of variance 1. A router of deviation 0.02 and hidden size
 * 4,096 starts with logits of 0.02 x 64 = 1.3. */
#define ROUTER_SCALE 1.0f
#define EXPERT_SCALE 0.1f

#define DIVERGED 1e6 /* task loss; predicting 0 has 1 */

const char *const ep_dynamics_score_names[EP_DYNAMICS_NUM_SCORES] = {
    [EP_DYNAMICS_SOFTMAX] = "softmax",
    [EP_DYNAMICS_SIGMOID] = "sigmoid",
};

/* --- construction ---------------------------------------------------------------------------- */

static enum ep_status check_config(const struct ep_dynamics_config *c)
{
    EP_ASSERT(c->num_experts >= 1 && c->top_k >= 1 && c->top_k <= c->num_experts);
    EP_ASSERT(c->num_tokens >= 1 && c->aux_weight >= 0 && c->z_weight >= 0);
    if (c->num_tokens % c->clusters.sequence_tokens != 0) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " tokens per step are not whole sequences of %" PRId64,
                            c->num_tokens, c->clusters.sequence_tokens);
    }
    if (c->aux->needs_logits) {
        return ep_error_set(EP_EINVAL, "%s: has no gradient to train with", c->aux->name);
    }
    return EP_OK;
}

static enum ep_status allocate(struct ep_dynamics *d)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t tokens = c->num_tokens;
    const int64_t expert = c->clusters.dim * c->clusters.num_outputs;
    const struct {
        float **array;
        int64_t num;
    } floats[] = {
        {&d->router, c->clusters.dim * c->num_experts},
        {&d->router_gradient, c->clusters.dim * c->num_experts},
        {&d->experts, c->num_experts * expert},
        {&d->expert_gradient, c->num_experts * expert},
        {&d->bias, c->num_experts},
        {&d->x, tokens * c->clusters.dim},
        {&d->router_x, tokens * c->clusters.dim},
        {&d->targets, tokens * c->clusters.num_outputs},
        {&d->errors, tokens * c->clusters.num_outputs},
        {&d->outputs, tokens * c->top_k * c->clusters.num_outputs},
        {&d->logits, tokens * c->num_experts},
        {&d->scores, tokens * c->num_experts},
        {&d->probs, tokens * c->num_experts},
        {&d->score_gradient, tokens * c->num_experts},
        {&d->prob_gradient, tokens * c->num_experts},
    };
    bool complete = true;
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        *floats[i].array = calloc((size_t)floats[i].num, sizeof(float));
        complete = complete && *floats[i].array != NULL;
    }
    d->labels = calloc((size_t)tokens, sizeof *d->labels);
    d->loads = calloc((size_t)c->num_experts, sizeof *d->loads);
    d->sorted = calloc((size_t)c->num_experts, sizeof *d->sorted);
    d->joint = calloc((size_t)(c->clusters.num_clusters * c->num_experts), sizeof *d->joint);
    return complete && d->labels != NULL && d->loads != NULL && d->sorted != NULL &&
                   d->joint != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory to train on %" PRId64 " tokens", tokens);
}

static void draw_weights(struct ep_dynamics *d)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t dim = c->clusters.dim;
    const int64_t expert = dim * c->clusters.num_outputs;
    const float root = sqrtf((float)dim);
    struct ep_random random;
    for (int64_t i = 0; i < dim; i++) {
        ep_random_init(&random, c->clusters.seed, EP_RANDOM_DYNAMICS,
                       (uint64_t)ROUTER << 56 | (uint64_t)i);
        ep_random_normals(&random, ROUTER_SCALE / root, &d->router[i * c->num_experts],
                          c->num_experts);
    }
    for (int64_t e = 0; e < c->num_experts; e++) {
        ep_random_init(&random, c->clusters.seed, EP_RANDOM_DYNAMICS,
                       (uint64_t)EXPERT << 56 | (uint64_t)e);
        ep_random_normals(&random, EXPERT_SCALE / root, &d->experts[e * expert], expert);
    }
}

enum ep_status ep_dynamics_create(const struct ep_dynamics_config *config,
                                  struct ep_dynamics **dynamics)
{
    enum ep_status status;
    struct ep_dynamics *d = NULL;
    EP_TRY(check_config(config));
    d = calloc(1, sizeof *d);
    if (d == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to train");
    }
    d->config = *config;
    EP_TRY(allocate(d));
    EP_TRY(
        ep_routing_init(config->num_tokens, config->num_experts, config->top_k, true, &d->routing));
    EP_TRY(ep_clusters_create(&config->clusters, &d->clusters));
    draw_weights(d);
    *dynamics = d;
    return EP_OK;
out:
    ep_dynamics_destroy(d);
    return status;
}

void ep_dynamics_destroy(struct ep_dynamics *d)
{
    if (d == NULL) {
        return;
    }
    float *const floats[] = {
        d->router, d->router_gradient, d->experts, d->expert_gradient, d->bias,
        d->x,      d->router_x,        d->targets, d->errors,          d->outputs,
        d->logits, d->scores,          d->probs,   d->score_gradient,  d->prob_gradient};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        free(floats[i]);
    }
    free(d->labels);
    free(d->loads);
    free(d->sorted);
    free(d->joint);
    ep_routing_fini(&d->routing);
    ep_clusters_destroy(d->clusters);
    free(d);
}

/* --- forward --------------------------------------------------------------------------------- */

void ep_dynamics_load(struct ep_dynamics *d, int64_t step)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t dim = c->clusters.dim;
    const int64_t first = step * c->num_tokens;
    ep_clusters_fill(d->clusters, first, c->num_tokens, d->x, d->targets, d->labels);
    memcpy(d->router_x, d->x, (size_t)(c->num_tokens * dim) * sizeof *d->x);
    for (int64_t t = 0; t < c->num_tokens && c->jitter > 0; t++) {
        struct ep_random random;
        ep_random_init(&random, c->clusters.seed, EP_RANDOM_DYNAMICS,
                       (uint64_t)JITTER << 56 | (uint64_t)(first + t));
        for (int64_t i = 0; i < dim; i++) {
            const double u = (double)ep_random_u32(&random) * 0x1p-31 - 1; /* [-1, 1) */
            d->router_x[t * dim + i] *= (float)(1 + c->jitter * u);
        }
    }
}

/* Scores of one token from its logits, and what they are of their sum. */
static void score_row(enum ep_dynamics_score score, const float *logits, int64_t num, float *scores,
                      float *probs)
{
    float max = logits[0];
    float sum = 0;
    for (int64_t e = 1; e < num; e++) {
        max = fmaxf(max, logits[e]);
    }
    for (int64_t e = 0; e < num; e++) {
        scores[e] =
            score == EP_DYNAMICS_SOFTMAX ? expf(logits[e] - max) : 1 / (1 + expf(-logits[e]));
        sum += scores[e];
    }
    for (int64_t e = 0; e < num; e++) {
        probs[e] = scores[e] / sum;
        scores[e] = score == EP_DYNAMICS_SOFTMAX ? probs[e] : scores[e];
    }
}

/* The top-k of score + bias, highest first; of equals the lower index. */
static void choose(const float *scores, const float *bias, int64_t num, int64_t top_k,
                   int32_t *topk_idx)
{
    for (int64_t k = 0; k < top_k; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < num; e++) {
            bool taken = false;
            for (int64_t i = 0; i < k; i++) {
                taken = taken || topk_idx[i] == e;
            }
            if (!taken && (best < 0 || scores[e] + bias[e] > scores[best] + bias[best])) {
                best = e;
            }
        }
        topk_idx[k] = best;
    }
}

static void weigh(const float *scores, const int32_t *topk_idx, int64_t top_k, float *weights)
{
    float sum = 0;
    for (int64_t k = 0; k < top_k; k++) {
        weights[k] = scores[topk_idx[k]];
        sum += weights[k];
    }
    for (int64_t k = 0; k < top_k && top_k > 1; k++) {
        weights[k] /= sum;
    }
}

/* Outputs of the chosen experts and the error of their sum; returns its squares. */
static double combine_row(struct ep_dynamics *d, int64_t t)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t dim = c->clusters.dim;
    const int64_t num = c->clusters.num_outputs;
    float *errors = &d->errors[t * num];
    double squares = 0;
    for (int64_t o = 0; o < num; o++) {
        errors[o] = -d->targets[t * num + o];
    }
    for (int64_t slot = t * c->top_k; slot < (t + 1) * c->top_k; slot++) {
        const int64_t e = d->routing.topk_idx[slot];
        float *out = &d->outputs[slot * num];
        ep_clusters_map(&d->x[t * dim], dim, &d->experts[e * dim * num], num, out);
        for (int64_t o = 0; o < num; o++) {
            errors[o] += d->routing.topk_weight[slot] * out[o];
        }
    }
    for (int64_t o = 0; o < num; o++) {
        squares += (double)errors[o] * (double)errors[o];
    }
    return squares;
}

double ep_dynamics_forward(struct ep_dynamics *d, bool select)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t dim = c->clusters.dim;
    const int64_t num = c->num_experts;
    double squares = 0;
    for (int64_t t = 0; t < c->num_tokens; t++) {
        int32_t *topk_idx = &d->routing.topk_idx[t * c->top_k];
        ep_clusters_map(&d->router_x[t * dim], dim, d->router, num, &d->logits[t * num]);
        score_row(c->score, &d->logits[t * num], num, &d->scores[t * num], &d->probs[t * num]);
        if (select) {
            choose(&d->scores[t * num], d->bias, num, c->top_k, topk_idx);
        }
        weigh(&d->scores[t * num], topk_idx, c->top_k, &d->routing.topk_weight[t * c->top_k]);
        squares += combine_row(d, t);
    }
    return squares / (double)(c->num_tokens * c->clusters.num_outputs);
}

/* --- backward -------------------------------------------------------------------------------- */

static struct ep_loss_batch loss_batch(const struct ep_dynamics *d)
{
    return (struct ep_loss_batch){.routing = &d->routing,
                                  .probs = d->probs,
                                  .logits = d->logits,
                                  .sequence_tokens = d->config.clusters.sequence_tokens,
                                  .num_ranks = 1};
}

/* w[m] += sum over i of x[i] g[m], a rank-1 update of [dim][num] */
static void add_outer(const float *x, int64_t dim, const float *g, int64_t num, float *w)
{
    for (int64_t i = 0; i < dim; i++) {
        for (int64_t m = 0; m < num; m++) {
            w[i * num + m] += x[i] * g[m];
        }
    }
}

/* Gradient of the task loss by the experts' matrices and the chosen scores of one token. */
static void task_backward_row(struct ep_dynamics *d, int64_t t)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t dim = c->clusters.dim;
    const int64_t num = c->clusters.num_outputs;
    const float scale = 2 / (float)(c->num_tokens * num);
    const int64_t first = t * c->top_k;
    const int32_t *topk_idx = d->routing.topk_idx + first;
    const float *weights = d->routing.topk_weight + first;
    float *scores = &d->score_gradient[t * c->num_experts];
    float chosen_sum = 0;
    float mean = 0; /* of the weights' gradients, weighted */
    for (int64_t k = 0; k < c->top_k; k++) {
        float *out = &d->outputs[(first + k) * num];
        float by_weight = 0;
        for (int64_t o = 0; o < num; o++) {
            const float by_output = scale * d->errors[t * num + o];
            by_weight += by_output * out[o];
            out[o] = by_output * weights[k]; /* the output is not needed any more */
        }
        add_outer(&d->x[t * dim], dim, out, num, &d->expert_gradient[topk_idx[k] * dim * num]);
        scores[topk_idx[k]] += by_weight;
        mean += weights[k] * by_weight;
        chosen_sum += d->scores[t * c->num_experts + topk_idx[k]];
    }
    for (int64_t k = 0; k < c->top_k && c->top_k > 1; k++) {
        scores[topk_idx[k]] = (scores[topk_idx[k]] - mean) / chosen_sum;
    }
}

/* From gradients by scores and probs to that by logits, in score_gradient. */
static void logits_backward_row(struct ep_dynamics *d, int64_t t)
{
    const int64_t num = d->config.num_experts;
    const float *scores = &d->scores[t * num];
    const float *probs = &d->probs[t * num];
    const float *by_probs = &d->prob_gradient[t * num];
    float *gradient = &d->score_gradient[t * num];
    float mean = 0;
    if (d->config.score == EP_DYNAMICS_SOFTMAX) {
        for (int64_t e = 0; e < num; e++) {
            gradient[e] += by_probs[e];
            mean += probs[e] * gradient[e];
        }
        for (int64_t e = 0; e < num; e++) {
            gradient[e] = probs[e] * (gradient[e] - mean);
        }
        return;
    }
    float sum = 0;
    for (int64_t e = 0; e < num; e++) {
        sum += scores[e];
        mean += probs[e] * by_probs[e];
    }
    for (int64_t e = 0; e < num; e++) {
        gradient[e] = (gradient[e] + (by_probs[e] - mean) / sum) * scores[e] * (1 - scores[e]);
    }
}

enum ep_status ep_dynamics_backward(struct ep_dynamics *d)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t num = c->num_experts;
    const int64_t dim = c->clusters.dim;
    const struct ep_loss_batch batch = loss_batch(d);
    const size_t table = (size_t)(c->num_tokens * num) * sizeof(float);
    memset(d->score_gradient, 0, table);
    memset(d->prob_gradient, 0, table);
    memset(d->router_gradient, 0, (size_t)(dim * num) * sizeof(float));
    memset(d->expert_gradient, 0, (size_t)(num * dim * c->clusters.num_outputs) * sizeof(float));
    const enum ep_status status =
        c->aux_weight > 0 ? ep_loss_add_gradient(c->aux, &batch, c->aux_weight, d->prob_gradient)
                          : EP_OK;
    if (status != EP_OK) {
        return status;
    }
    for (int64_t t = 0; t < c->num_tokens; t++) {
        task_backward_row(d, t);
        logits_backward_row(d, t);
    }
    if (c->z_weight > 0) {
        ep_loss_z_add_gradient(d->logits, c->num_tokens, num, c->z_weight, d->score_gradient);
    }
    for (int64_t t = 0; t < c->num_tokens; t++) {
        add_outer(&d->router_x[t * dim], dim, &d->score_gradient[t * num], num, d->router_gradient);
    }
    return EP_OK;
}

/* --- a step ---------------------------------------------------------------------------------- */

static enum ep_status measure(struct ep_dynamics *d, double task_loss, struct ep_dynamics_step *m)
{
    const struct ep_dynamics_config *c = &d->config;
    const int64_t num = c->num_experts;
    const struct ep_loss_batch batch = loss_batch(d);
    memset(d->loads, 0, (size_t)num * sizeof *d->loads);
    memset(d->joint, 0, (size_t)(c->clusters.num_clusters * num) * sizeof *d->joint);
    for (int64_t t = 0; t < c->num_tokens; t++) {
        for (int64_t k = 0; k < c->top_k; k++) {
            const int32_t e = d->routing.topk_idx[t * c->top_k + k];
            d->loads[e]++;
            d->joint[d->labels[t] * num + e]++;
        }
    }
    *m = (struct ep_dynamics_step){.step = d->step, .task_loss = task_loss, .loads = d->loads};
    for (int64_t e = 0; e < num; e++) {
        d->sorted[e] = (double)d->loads[e];
        m->idle_experts += d->loads[e] == 0;
    }
    ep_stats_sort(d->sorted, num);
    m->min_tokens = (int64_t)d->sorted[0];
    m->max_tokens = (int64_t)d->sorted[num - 1];
    m->median_tokens = ep_stats_median_sorted(d->sorted, num);
    m->max_over_mean = d->sorted[num - 1] * (double)num / (double)(c->num_tokens * c->top_k);
    m->entropy_bits = ep_information_entropy(d->loads, num);
    m->mutual = ep_information_mutual(d->joint, c->clusters.num_clusters, num);
    m->z_loss = ep_loss_z(d->logits, c->num_tokens, num);
    return ep_loss_evaluate(c->aux, &batch, &m->aux_loss);
}

static void descend(float *weights, const float *gradient, int64_t num, double rate)
{
    for (int64_t i = 0; i < num; i++) {
        weights[i] -= (float)rate * gradient[i];
    }
}

enum ep_status ep_dynamics_advance(struct ep_dynamics *d, struct ep_dynamics_step *measured)
{
    const struct ep_dynamics_config *c = &d->config;
    enum ep_status status;
    ep_dynamics_load(d, d->step);
    const double task_loss = ep_dynamics_forward(d, true);
    if (!(task_loss < DIVERGED)) {
        return ep_error_set(EP_EINVAL,
                            "training diverged at step %" PRId64 " with auxiliary weight %g: lower "
                            "learning rates than %g (experts) and %g (router) are needed",
                            d->step, c->aux_weight, c->expert_rate, c->router_rate);
    }
    EP_TRY(measure(d, task_loss, measured));
    EP_TRY(ep_dynamics_backward(d));
    const double dim = (double)c->clusters.dim;
    const int64_t expert = c->clusters.dim * c->clusters.num_outputs;
    descend(d->router, d->router_gradient, c->clusters.dim * c->num_experts, c->router_rate / dim);
    descend(d->experts, d->expert_gradient, c->num_experts * expert,
            c->expert_rate * (double)c->clusters.num_outputs / dim);
    if (c->bias_rate > 0) {
        ep_loss_update_bias(d->loads, c->num_experts, c->bias_rate, d->bias);
    }
    d->step++;
out:
    return status;
}
