/* SPDX-License-Identifier: Apache-2.0 */
/* Conditional Poisson sampling with given inclusion probabilities. */
#include "kernels/count_sampler.h"

#include "kernels/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_ROUNDS = 2000 };
static const double tolerance = 1e-7; /* of an inclusion probability, relative */

struct ep_count_sampler {
    int64_t top_k;
    int64_t num_always;  /* experts that every token has */
    int64_t num;         /* experts that a token may have */
    int64_t left;        /* drawn of those: top_k - num_always */
    int32_t *expert;     /* [num_always + num] those of every token first */
    double *weight;      /* [num] */
    double *sums;        /* [left + 1][num + 1] R(j, i) / R(j, 0): products of j weights from i on */
    double *scale;       /* [left + 1] R(j - 1, 0) / R(j, 0) */
};

/* R(j, i) = sum over sets of j of the weights i.. of their product, each row over its first value:
 * R(j, i) = R(j, i + 1) + w_i R(j - 1, i + 1). Only ratios within a row are ever used. */
static void fill_suffixes(const double *weight, int64_t num, int64_t left, double *sums,
                          double *scale)
{
    const int64_t width = num + 1;
    for (int64_t i = 0; i < width; i++) {
        sums[i] = 1;
    }
    for (int64_t j = 1; j <= left; j++) {
        double *row = sums + j * width;
        const double *above = row - width;
        row[num] = 0;
        for (int64_t i = num - 1; i >= 0; i--) {
            row[i] = row[i + 1] + weight[i] * above[i + 1];
        }
        scale[j] = 1 / row[0];
        for (int64_t i = 0; i <= num; i++) {
            row[i] *= scale[j];
        }
    }
}

/* P(i drawn) for all i, by walking the law of how many are left to draw at i: with j left, i is
 * drawn with probability w_i R(j - 1, i + 1) / R(j, i). `law` [left + 1] is scratch. */
static void fill_inclusions(const struct ep_count_sampler *s, double *law, double *inclusion)
{
    const int64_t width = s->num + 1;
    for (int64_t j = 0; j <= s->left; j++) {
        law[j] = j == s->left ? 1 : 0;
    }
    for (int64_t i = 0; i < s->num; i++) {
        inclusion[i] = 0;
        for (int64_t j = 1; j <= s->left; j++) {
            const double *row = s->sums + j * width;
            const double taken = s->weight[i] * s->scale[j] * row[i + 1 - width];
            const double drawn = row[i] > 0 ? law[j] * taken / row[i] : 0;
            inclusion[i] += drawn;
            law[j] -= drawn;
            law[j - 1] += drawn;
        }
    }
}

/* Scale each weight by asked / reached until they agree. */
static enum ep_status solve(struct ep_count_sampler *s, const double *asked, const char *name)
{
    double *inclusion = malloc((size_t)s->num * sizeof *inclusion);
    double *law = malloc((size_t)(s->left + 1) * sizeof *law);
    enum ep_status status = EP_OK;
    if (inclusion == NULL || law == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory to draw from counts", name);
        goto out;
    }
    for (int64_t i = 0; i < s->num; i++) {
        s->weight[i] = asked[i] / (1 - asked[i]);
    }
    double worst = INFINITY;
    for (int round = 0; round < MAX_ROUNDS && worst > tolerance; round++) {
        fill_suffixes(s->weight, s->num, s->left, s->sums, s->scale);
        fill_inclusions(s, law, inclusion);
        worst = 0;
        for (int64_t i = 0; i < s->num; i++) {
            const double error = fabs(inclusion[i] / asked[i] - 1);
            worst = error > worst || isnan(error) ? error : worst;
            s->weight[i] *= asked[i] / inclusion[i];
        }
    }
    fill_suffixes(s->weight, s->num, s->left, s->sums, s->scale);
    if (!(worst <= 1e-3)) {
        status = ep_error_set(EP_EINVAL,
                              "%s: no top-%" PRId64 " routing found that has the load of its counts",
                              name, s->top_k);
    }
out:
    free(inclusion);
    free(law);
    return status;
}

/* Sort experts into those of every token, those of some, and those of none. */
static enum ep_status sort_experts(const double *counts, int64_t num_experts, const char *name,
                                   struct ep_count_sampler *s, double *asked)
{
    double sum = 0;
    for (int64_t e = 0; e < num_experts; e++) {
        sum += counts[e];
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t e = 0; e < num_experts; e++) {
            const double share = counts[e] / sum * (double)s->top_k;
            const bool always = share > 1 - 1e-9;
            if (share > 1 + 1e-9) {
                return ep_error_set(EP_EINVAL,
                                    "%s: expert %" PRId64 " has %.4g %% of the counts; top-%" PRId64
                                    " routing gives an expert %.4g %% at most",
                                    name, e, 100 * counts[e] / sum, s->top_k,
                                    100 / (double)s->top_k);
            }
            if (pass == 0 && always) {
                s->expert[s->num_always++] = (int32_t)e;
            } else if (pass == 1 && !always && counts[e] > 0) {
                asked[s->num] = share;
                s->expert[s->num_always + s->num++] = (int32_t)e;
            }
        }
    }
    s->left = s->top_k - s->num_always;
    return s->left <= s->num && s->left >= 0
               ? EP_OK
               : ep_error_set(EP_EINVAL,
                              "%s: %" PRId64 " experts have counts; top-%" PRId64
                              " needs as many and more",
                              name, s->num_always + s->num, s->top_k);
}

enum ep_status ep_count_sampler_create(const double *counts, int64_t num_experts, int64_t top_k,
                                       const char *name, struct ep_count_sampler **sampler)
{
    EP_ASSERT(num_experts >= 1 && top_k >= 1);
    enum ep_status status;
    struct ep_count_sampler *s = calloc(1, sizeof *s);
    double *asked = calloc((size_t)num_experts, sizeof *asked);
    if (s == NULL || asked == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory to draw from counts", name);
        goto out;
    }
    s->top_k = top_k;
    s->expert = malloc((size_t)num_experts * sizeof *s->expert);
    if (s->expert == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory to draw from counts", name);
        goto out;
    }
    EP_TRY(sort_experts(counts, num_experts, name, s, asked));
    s->weight = malloc((size_t)(s->num + 1) * sizeof *s->weight);
    s->sums = malloc((size_t)((s->left + 1) * (s->num + 1)) * sizeof *s->sums);
    s->scale = malloc((size_t)(s->left + 1) * sizeof *s->scale);
    if (s->weight == NULL || s->sums == NULL || s->scale == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory to draw from counts", name);
        goto out;
    }
    if (s->left > 0 && s->left < s->num) {
        EP_TRY(solve(s, asked, name));
    } else { /* all or none of them */
        for (int64_t i = 0; i < s->num; i++) {
            s->weight[i] = 1;
        }
        fill_suffixes(s->weight, s->num, s->left, s->sums, s->scale);
    }
    *sampler = s;
    s = NULL;
out:
    ep_count_sampler_destroy(s);
    free(asked);
    return status;
}

void ep_count_sampler_destroy(struct ep_count_sampler *sampler)
{
    if (sampler == NULL) {
        return;
    }
    free(sampler->expert);
    free(sampler->weight);
    free(sampler->sums);
    free(sampler->scale);
    free(sampler);
}

/* 53 bits in [0, 1). */
static double draw_unit(struct ep_random *random)
{
    const uint64_t high = ep_sample_word(random) >> 5;
    const uint64_t low = ep_sample_word(random) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

void ep_count_sampler_draw(const struct ep_count_sampler *sampler, struct ep_random *random,
                           int32_t *experts)
{
    const int64_t width = sampler->num + 1;
    int64_t num = 0;
    for (; num < sampler->num_always; num++) {
        experts[num] = sampler->expert[num];
    }
    int64_t first = 0;
    for (int64_t j = sampler->left; j > 0; j--) {
        /* P(the next is i or after) = R(j, i) / R(j, first): the last i where that exceeds u */
        const double *row = sampler->sums + j * width;
        const double bound = draw_unit(random) * row[first];
        int64_t low = first;
        for (int64_t high = sampler->num - j; low < high;) {
            const int64_t middle = low + (high - low + 1) / 2;
            if (row[middle] > bound) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        experts[num++] = sampler->expert[sampler->num_always + low];
        first = low + 1;
    }
    for (int64_t i = num - 1; i > 0; i--) { /* Fisher-Yates: slots say nothing of expert numbers */
        const int64_t j = ep_sample_below(random, (uint32_t)i + 1);
        const int32_t kept = experts[i];
        experts[i] = experts[j];
        experts[j] = kept;
    }
}
