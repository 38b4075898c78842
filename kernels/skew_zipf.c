/* SPDX-License-Identifier: Apache-2.0 */
/* zipf:S and gini:G: popularity rank^-S, with S given or solved for the asked Gini coefficient. */
#include "kernels/skew_popularity.h"

#include "base/random.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Experts x top-k that chances are solved for; some seconds. */
#define MAX_SOLVED ((int64_t)1 << 17)

/* --- zipf --------------------------------------------------------------------------------- */

static enum ep_status parse_zipf(const char *params, struct ep_skew *skew)
{
    char what[80];
    snprintf(what, sizeof what, "skew '%.40s': exponent S", skew->text);
    return ep_parse_f64(params, what, 0, 20, &skew->value);
}

enum ep_status ep_popularity_fill_zipf(const struct ep_router *router, double s, double *weights)
{
    const int64_t n = router->num_experts;
    int64_t *order = malloc((size_t)n * sizeof *order);
    if (order == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
    }
    for (int64_t i = 0; i < n; i++) {
        order[i] = i;
    }
    struct ep_random random;
    ep_random_init(&random, router->seed, EP_RANDOM_PERMUTATION, 0);
    ep_random_shuffle_i64(&random, order, n);
    for (int64_t i = 0; i < n; i++) {
        weights[order[i]] = pow((double)(i + 1), -s);
    }
    free(order);
    return EP_OK;
}

static enum ep_status prepare_exponent(struct ep_router *router, double s)
{
    double *weights = malloc((size_t)router->num_experts * sizeof *weights);
    if (weights == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
    }
    enum ep_status status = ep_popularity_fill_zipf(router, s, weights);
    if (status == EP_OK) {
        status = ep_popularity_prepare(router, weights);
    }
    free(weights);
    return status;
}

static enum ep_status prepare_zipf(struct ep_router *router)
{
    return prepare_exponent(router, router->skew->value);
}

const struct ep_skew_policy ep_skew_zipf = {
    .name = "zipf",
    .usage = "zipf:S",
    .example = "zipf:1.0",
    .summary = "popularity rank^-S, experts permuted by the seed",
    .parse = parse_zipf,
    .prepare = prepare_zipf,
    .generate = ep_popularity_generate,
    .release = ep_popularity_release,
};

/* --- gini --------------------------------------------------------------------------------- */

static enum ep_status parse_gini(const char *params, struct ep_skew *skew)
{
    char what[80];
    snprintf(what, sizeof what, "skew '%.40s': Gini coefficient G", skew->text);
    return ep_parse_f64(params, what, 0, 1, &skew->value);
}

/* Gini coefficient of the loads to be expected at exponent s. scratch [2][num_experts]. */
static enum ep_status expected_gini(const struct ep_router *router, double s, double *scratch,
                                    double *gini)
{
    const int64_t n = router->num_experts;
    double *chances = scratch + n;
    for (int64_t i = 0; i < n; i++) {
        scratch[i] = fmax(pow((double)(i + 1), -s), EP_POPULARITY_LEAST);
    }
    const enum ep_status status = ep_popularity_chances(scratch, n, router->top_k, chances);
    if (status == EP_OK) {
        *gini = ep_popularity_gini(chances, n);
    }
    return status;
}

/* The exponent at which the coefficient, which rises with it, is the asked one. Bisection: its
 * slope spans many orders. */
static enum ep_status solve(const struct ep_router *router, double *scratch, double *exponent)
{
    enum ep_status status;
    const double asked = router->skew->value;
    double low = 0;
    /* beyond, the least popular would fall below what is told apart */
    double high = -log10(EP_POPULARITY_LEAST) / log10((double)router->num_experts + 1);
    double gini = 0;
    EP_TRY(expected_gini(router, high, scratch, &gini));
    if (asked > gini + 1e-9) {
        status = ep_error_set(EP_EINVAL,
                              "skew %s cannot be reached: top-%" PRId64 " of %" PRId64
                              " experts have a Gini coefficient of at most %.6g",
                              router->skew->text, router->top_k, router->num_experts, gini);
        goto out;
    }
    while (high - low > 1e-7 * (1 + low)) {
        const double middle = (low + high) / 2;
        EP_TRY(expected_gini(router, middle, scratch, &gini));
        *(gini < asked ? &low : &high) = middle;
    }
    *exponent = asked > 0 ? (low + high) / 2 : 0;
out:
    return status;
}

static enum ep_status prepare_gini(struct ep_router *router)
{
    enum ep_status status;
    double exponent = 0;
    if (router->num_experts * router->top_k > MAX_SOLVED) {
        return ep_error_set(EP_EINVAL,
                            "skew %s: top-%" PRId64 " of %" PRId64
                            " experts; solved for where their product is at most %" PRId64,
                            router->skew->text, router->top_k, router->num_experts, MAX_SOLVED);
    }
    double *scratch = malloc(2 * (size_t)router->num_experts * sizeof *scratch);
    if (scratch == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the popularity of experts");
    }
    EP_TRY(solve(router, scratch, &exponent));
    EP_TRY(prepare_exponent(router, exponent));
out:
    free(scratch);
    return status;
}

const struct ep_skew_policy ep_skew_gini = {
    .name = "gini",
    .usage = "gini:G",
    .example = "gini:0.5",
    .summary = "popularity rank^-S with S solved so that expected expert loads have Gini G",
    .parse = parse_gini,
    .prepare = prepare_gini,
    .generate = ep_popularity_generate,
    .fill_shares = ep_popularity_copy_shares,
    .release = ep_popularity_release,
};
