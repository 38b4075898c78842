/* SPDX-License-Identifier: Apache-2.0 */
/* Chances of successive draws: expert e arrives at time T_e, exponential with rate w_e; the first
 * top_k to arrive are drawn (Efraimidis and Spirakis, 2006). So the chance of e is the integral
 * over t of w_e e^(-w_e t) P(at most k - 1 others are there at t). Who is there at t is
 * independent: a product of polynomials 1 - p_i + p_i z, cut at z^k, from which e's factor is
 * divided out. */
#include "kernels/skew_popularity.h"

#include "base/stats.h"

#include <math.h>
#include <stdlib.h>

/* Arrivals likelier than 1/2 ("early") of which so many cannot all but k - 1 be missing. */
static int64_t most_early(int64_t top_k)
{
    return 4 * top_k + 100;
}

struct work {
    int64_t n;
    int64_t k;
    const double *weights;
    double *p;     /* [n] P(there) */
    double *late;  /* [k] polynomial of those with p <= 1/2, cut */
    double *early; /* [most_early + 1] polynomial of the others, whole */
    double *all;   /* [k] product, cut */
    double *below; /* [k] sums of late's first coefficients */
    int64_t num_early;
};

static enum ep_status start(struct work *w)
{
    const size_t size = (size_t)most_early(w->k) + 2;
    w->p = malloc((size_t)w->n * sizeof *w->p);
    w->late = malloc((size_t)w->k * sizeof *w->late);
    w->all = malloc((size_t)w->k * sizeof *w->all);
    w->early = malloc(size * sizeof *w->early);
    w->below = malloc((size_t)w->k * sizeof *w->below);
    return w->p != NULL && w->late != NULL && w->all != NULL && w->early != NULL && w->below != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for the chances of experts");
}

static void finish(struct work *w)
{
    free(w->p);
    free(w->late);
    free(w->all);
    free(w->early);
    free(w->below);
}

/* Multiply by 1 - p + p z; `size` coefficients are kept. */
static void multiply(double *polynomial, int64_t size, double p)
{
    for (int64_t j = size - 1; j > 0; j--) {
        polynomial[j] = polynomial[j] * (1 - p) + polynomial[j - 1] * p;
    }
    polynomial[0] *= 1 - p;
}

/* Polynomials at time t; false where so many are there that nothing can come any more. */
static bool fill_polynomials(struct work *w, double t)
{
    w->num_early = 0;
    for (int64_t j = 0; j < w->k; j++) {
        w->late[j] = j == 0;
        w->all[j] = 0;
    }
    w->early[0] = 1;
    for (int64_t i = 0; i < w->n; i++) {
        w->p[i] = -expm1(-w->weights[i] * t);
        if (w->p[i] <= 0.5) {
            multiply(w->late, w->k, w->p[i]);
            continue;
        }
        if (++w->num_early > most_early(w->k)) {
            return false;
        }
        w->early[w->num_early] = 0;
        multiply(w->early, w->num_early + 1, w->p[i]);
    }
    for (int64_t i = 0; i <= w->num_early && i < w->k; i++) {
        for (int64_t j = 0; i + j < w->k; j++) {
            w->all[i + j] += w->early[i] * w->late[j];
        }
    }
    return true;
}

/* P(at most k - 1 of the others), e being late: from the lowest coefficient, where errors shrink by
 * p / (1 - p). */
static double without_late(const struct work *w, double p)
{
    double sum = 0;
    double last = 0;
    for (int64_t j = 0; j < w->k; j++) {
        last = (w->all[j] - p * last) / (1 - p);
        sum += last;
    }
    return sum;
}

/* The same, e being early: from the highest coefficient. */
static double without_early(const struct work *w, double p)
{
    double sum = 0;
    double last = 0;
    for (int64_t j = w->num_early; j >= 1; j--) {
        last = (w->early[j] - (1 - p) * last) / p; /* coefficient j - 1 */
        sum += j - 1 < w->k ? last * w->below[w->k - j] : 0;
    }
    return sum;
}

/* Add step x integrand at t to all chances; returns the largest P(at most k - 1 of the others). */
static double add_node(struct work *w, double t, double step, double *chances)
{
    double highest = 0;
    for (int64_t j = 0; j < w->k; j++) {
        w->below[j] = w->late[j] + (j > 0 ? w->below[j - 1] : 0);
    }
    for (int64_t i = 0; i < w->n; i++) {
        const double p = w->p[i];
        const double open = fmin(1, fmax(0, p <= 0.5 ? without_late(w, p) : without_early(w, p)));
        chances[i] += step * w->weights[i] * t * exp(-w->weights[i] * t) * open;
        highest = fmax(highest, open);
    }
    return highest;
}

enum ep_status ep_popularity_chances(const double *weights, int64_t num_experts, int64_t top_k,
                                     double *chances)
{
    enum ep_status status;
    struct work w = {.n = num_experts, .k = top_k, .weights = weights};
    EP_ASSERT(top_k >= 1 && top_k <= num_experts);
    double sum = 0;
    for (int64_t i = 0; i < num_experts; i++) {
        chances[i] = top_k == num_experts;
        sum += weights[i];
    }
    EP_TRY(start(&w));
    /* trapezoids in log t: the integrand is a bump of width 1 / sqrt(k) and more, on which their
     * error falls as exp(-2 pi^2 width^2 / step^2) */
    const double step = fmin(0.25, 1 / sqrt((double)top_k));
    double open = top_k < num_experts ? 1 : 0;
    for (double x = log(1e-10 / sum); open > 1e-13; x += step) {
        open = fill_polynomials(&w, exp(x)) ? add_node(&w, exp(x), step, chances) : 0;
    }
out:
    finish(&w);
    return status;
}

double ep_popularity_gini(double *values, int64_t num)
{
    double sum = 0;
    double ranked = 0;
    ep_stats_sort(values, num);
    for (int64_t i = 0; i < num; i++) {
        ranked += (2 * (double)(i + 1) - (double)num - 1) * values[i];
        sum += values[i];
    }
    return ranked / ((double)num * sum);
}
