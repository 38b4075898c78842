/* SPDX-License-Identifier: Apache-2.0 */
/* lognormal:S and dirichlet:A: each expert's popularity is drawn by the seed. */
#include "kernels/skew_popularity.h"

#include "base/random.h"
#include "base/units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TWO_PI 6.283185307179586476925

/* (0, 1): its logarithm is finite and below 0. */
static double draw_open(struct ep_random *random)
{
    return ((double)(ep_random_u64(random) >> 11) + 0.5) * 0x1p-53;
}

/* Standard normal. Box and Muller, 1958. */
static double draw_normal(struct ep_random *random)
{
    const double radius = sqrt(-2 * log(draw_open(random)));
    return radius * cos(TWO_PI * draw_open(random));
}

/* Log of a gamma variate of shape a > 0. Marsaglia and Tsang, ACM TOMS 26(3), 2000; below 1 by
 * gamma(a) = gamma(a + 1) u^(1/a), in logarithms since that underflows. */
static double draw_log_gamma(struct ep_random *random, double a)
{
    const double boost = a < 1 ? log(draw_open(random)) / a : 0;
    const double d = (a < 1 ? a + 1 : a) - 1.0 / 3;
    const double c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = draw_normal(random);
        const double v = (1 + c * x) * (1 + c * x) * (1 + c * x);
        if (1 + c * x > 0 && log(draw_open(random)) < x * x / 2 + d - d * v + d * log(v)) {
            return log(d * v) + boost;
        }
    }
}

static enum ep_status prepare(struct ep_router *router,
                              double (*draw)(struct ep_random *random, double parameter))
{
    const int64_t n = router->num_experts;
    double *weights = malloc((size_t)n * sizeof *weights);
    if (weights == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
    }
    double highest = -INFINITY;
    for (int64_t e = 0; e < n; e++) {
        struct ep_random random;
        ep_random_init(&random, router->seed, EP_RANDOM_POPULARITY, (uint64_t)e);
        weights[e] = draw(&random, router->skew->value);
        highest = fmax(highest, weights[e]);
    }
    for (int64_t e = 0; e < n; e++) {
        weights[e] = fmax(exp(weights[e] - highest), EP_POPULARITY_LEAST);
    }
    const enum ep_status status = ep_popularity_prepare(router, weights);
    free(weights);
    return status;
}

static double draw_log_lognormal(struct ep_random *random, double s)
{
    return s * draw_normal(random);
}

static enum ep_status parse_lognormal(const char *params, struct ep_skew *skew)
{
    char what[80];
    snprintf(what, sizeof what, "skew '%.40s': deviation S", skew->text);
    return ep_parse_f64(params, what, 0, 100, &skew->value);
}

static enum ep_status prepare_lognormal(struct ep_router *router)
{
    return prepare(router, draw_log_lognormal);
}

static enum ep_status parse_dirichlet(const char *params, struct ep_skew *skew)
{
    char what[80];
    snprintf(what, sizeof what, "skew '%.40s': concentration A", skew->text);
    return ep_parse_f64(params, what, 1e-3, 1e9, &skew->value);
}

static enum ep_status prepare_dirichlet(struct ep_router *router)
{
    return prepare(router, draw_log_gamma);
}

const struct ep_skew_policy ep_skew_lognormal = {
    .name = "lognormal",
    .usage = "lognormal:S",
    .example = "lognormal:1.0",
    .summary = "popularity exp(S z), z standard normal for each expert",
    .parse = parse_lognormal,
    .prepare = prepare_lognormal,
    .generate = ep_popularity_generate,
    .release = ep_popularity_release,
};

const struct ep_skew_policy ep_skew_dirichlet = {
    .name = "dirichlet",
    .usage = "dirichlet:A",
    .example = "dirichlet:0.5",
    .summary = "popularity of a symmetric Dirichlet distribution of concentration A",
    .parse = parse_dirichlet,
    .prepare = prepare_dirichlet,
    .generate = ep_popularity_generate,
    .release = ep_popularity_release,
};
