/* SPDX-License-Identifier: Apache-2.0 */
/* Routers that change the logits at random first: Switch's jitter, noisy top-k, router dropout. */
#include "kernels/gate_policy.h"

#include <math.h>

/* A stream per token; expert e takes the numbers number e of it. */
static struct ep_random stream_of(const struct ep_gate *gate, int64_t token)
{
    struct ep_random random;
    ep_random_init(&random, gate->config.seed, EP_RANDOM_GATE, (uint64_t)token);
    return random;
}

/* Uniform in [0, 1) in steps of 2^-32. */
static double draw(struct ep_random *random)
{
    return (double)ep_random_u32(random) * 0x1p-32;
}

/* x u, u uniform in [1 - jitter, 1 + jitter). */
static void jitter(const struct ep_gate *gate, int64_t token, const float *noise_logits, float *x)
{
    struct ep_random random = stream_of(gate, token);
    (void)noise_logits;
    for (int64_t e = 0; e < gate->config.num_experts; e++) {
        const double factor = 1 + gate->config.value * (2 * draw(&random) - 1);
        x[e] = (float)((double)x[e] * factor);
    }
}

const struct ep_gate_policy ep_gate_switch = {
    .name = "switch",
    .usage = "switch[:JITTER]",
    .summary = "top1 of the logits times U(1 - JITTER, 1 + JITTER) (default 0.01)",
    .source = "Switch Transformer (recalled); Megatron and DeepSpeed jitter the router's input",
    .top_k = 1,
    .score = EP_GATE_SOFTMAX,
    .value_name = "JITTER",
    .value = 0.01,
    .min_value = 0,
    .max_value = 1,
    .perturb = jitter,
};

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* x + n softplus(noise logit) VALUE / ln 2, n standard normal (Box and Muller, 1958: both halves).
 */
static void add_noise(const struct ep_gate *gate, int64_t token, const float *noise_logits,
                      float *x)
{
    struct ep_random random = stream_of(gate, token);
    double normal[2] = {0, 0};
    for (int64_t e = 0; e < gate->config.num_experts; e++) {
        if (e % 2 == 0) {
            const double radius = sqrt(-2 * log(1 - draw(&random)));
            const double angle = 2 * M_PI * draw(&random);
            normal[0] = radius * cos(angle);
            normal[1] = radius * sin(angle);
        }
        const double spread = noise_logits != NULL ? softplus((double)noise_logits[e]) / M_LN2 : 1;
        x[e] = (float)((double)x[e] + normal[e % 2] * spread * gate->config.value);
    }
}

const struct ep_gate_policy ep_gate_noisy = {
    .name = "noisy-topk",
    .usage = "noisy-topk[:SPREAD]",
    .summary = "topk-softmax of logits with normal noise of that deviation (default ln 2)",
    .source = "Shazeer et al., arXiv 1701.06538, eq. 3-5 (recalled)",
    .score = EP_GATE_SOFTMAX_CHOSEN,
    .value_name = "SPREAD",
    .value = M_LN2,
    .min_value = 0,
    .max_value = 1e6,
    .perturb = add_noise,
};

/* -inf with chance VALUE. */
static void drop(const struct ep_gate *gate, int64_t token, const float *noise_logits, float *x)
{
    struct ep_random random = stream_of(gate, token);
    (void)noise_logits;
    for (int64_t e = 0; e < gate->config.num_experts; e++) {
        x[e] = draw(&random) < gate->config.value && x[e] < INFINITY ? -INFINITY : x[e];
    }
}

const struct ep_gate_policy ep_gate_dropout = {
    .name = "dropout",
    .usage = "dropout[:RATE]",
    .summary = "softmax-renorm over the experts that remain when each is left out with chance RATE "
               "(default 0.1)",
    .source = "own definition: dropout on the router's logits, per token and expert",
    .score = EP_GATE_SOFTMAX,
    .renormalises = true,
    .value_name = "RATE",
    .value = 0.1,
    .min_value = 0,
    .max_value = 1,
    .perturb = drop,
};
