/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting, moving and stragglers from clock readings. */
#include "bench/layer_waits.h"

#include "base/stats.h"

#include <math.h>
#include <stdlib.h>

static double at(const struct ep_layer_clocks *c, int64_t rank, int64_t repetition, int64_t reading)
{
    return c->times_s[(rank * c->num_repetitions + repetition) * (c->num_phases + 1) + reading];
}

static double median_of(double *values, int64_t num)
{
    ep_stats_sort(values, num);
    return ep_stats_median_sorted(values, num);
}

/* How long rank i waited in a phase for rank j to enter it. */
static double wait_for(const struct ep_layer_clocks *c, int64_t phase, int64_t repetition, int64_t i,
                       int64_t j)
{
    const double entry_s = at(c, i, repetition, phase);
    const double until_s = fmin(at(c, j, repetition, phase), at(c, i, repetition, phase + 1));
    return fmax(until_s - entry_s, 0);
}

static bool is_needed(const struct ep_layer_clocks *c, int64_t phase, int64_t i, int64_t j)
{
    return c->works[phase] == EP_LAYER_EXCHANGE && i != j &&
           c->needs[(phase * c->num_ranks + i) * c->num_ranks + j];
}

double ep_layer_wait_s(const struct ep_layer_clocks *c, int64_t phase, int64_t repetition,
                       int64_t rank)
{
    double wait_s = 0;
    for (int64_t j = 0; j < c->num_ranks; j++) {
        if (is_needed(c, phase, rank, j)) {
            wait_s = fmax(wait_s, wait_for(c, phase, repetition, rank, j));
        }
    }
    return wait_s;
}

/* One rank's medians in one phase; scratch [num_repetitions]. */
static void split_phase(const struct ep_layer_clocks *c, int64_t phase, int64_t rank, double *scratch,
                        struct ep_layer_split *split)
{
    const int64_t num = c->num_repetitions;
    for (int64_t n = 0; n < num; n++) {
        scratch[n] = at(c, rank, n, phase + 1) - at(c, rank, n, phase);
    }
    split->phase_s[phase * c->num_ranks + rank] = median_of(scratch, num);
    for (int64_t n = 0; n < num; n++) {
        scratch[n] = ep_layer_wait_s(c, phase, n, rank);
    }
    split->wait_s[phase * c->num_ranks + rank] = median_of(scratch, num);
    for (int64_t j = 0; j < c->num_ranks; j++) {
        for (int64_t n = 0; n < num; n++) {
            scratch[n] = is_needed(c, phase, rank, j) ? wait_for(c, phase, n, rank, j) : 0;
        }
        split->pair_s[rank * c->num_ranks + j] += median_of(scratch, num);
    }
}

enum ep_status ep_layer_split_init(const struct ep_layer_clocks *c, struct ep_layer_split *split)
{
    EP_ASSERT(c->num_ranks >= 1 && c->num_phases >= 1 && c->num_repetitions >= 1);
    const size_t cells = (size_t)(c->num_phases * c->num_ranks);
    struct ep_layer_split made = {
        .num_ranks = c->num_ranks,
        .num_phases = c->num_phases,
        .phase_s = calloc(cells, sizeof(double)),
        .wait_s = calloc(cells, sizeof(double)),
        .pair_s = calloc((size_t)(c->num_ranks * c->num_ranks), sizeof(double)),
    };
    double *scratch = calloc((size_t)c->num_repetitions, sizeof *scratch);
    if (made.phase_s == NULL || made.wait_s == NULL || made.pair_s == NULL || scratch == NULL) {
        ep_layer_split_fini(&made);
        free(scratch);
        return ep_error_set(EP_ENOMEM, "no memory for the waits of %lld ranks",
                            (long long)c->num_ranks);
    }
    for (int64_t phase = 0; phase < c->num_phases; phase++) {
        for (int64_t rank = 0; rank < c->num_ranks; rank++) {
            split_phase(c, phase, rank, scratch, &made);
        }
    }
    free(scratch);
    *split = made;
    return EP_OK;
}

void ep_layer_split_fini(struct ep_layer_split *split)
{
    free(split->phase_s);
    free(split->wait_s);
    free(split->pair_s);
    *split = (struct ep_layer_split){0};
}

void ep_layer_sum_work(const struct ep_layer_split *split, const enum ep_layer_work *works,
                       enum ep_layer_work work, double *time_s, double *wait_s)
{
    for (int64_t rank = 0; rank < split->num_ranks; rank++) {
        double time = 0;
        double wait = 0;
        for (int64_t phase = 0; phase < split->num_phases; phase++) {
            if (works[phase] == work) {
                time += split->phase_s[phase * split->num_ranks + rank];
                wait += split->wait_s[phase * split->num_ranks + rank];
            }
        }
        time_s[rank] = time;
        if (wait_s != NULL) {
            wait_s[rank] = wait;
        }
    }
}

/* From the first entry of any rank to the last exit. */
static double length_of(const struct ep_layer_clocks *c, int64_t repetition)
{
    double begin_s = HUGE_VAL;
    double end_s = -HUGE_VAL;
    for (int64_t rank = 0; rank < c->num_ranks; rank++) {
        begin_s = fmin(begin_s, at(c, rank, repetition, 0));
        end_s = fmax(end_s, at(c, rank, repetition, c->num_phases));
    }
    return end_s - begin_s;
}

/* The one with as many shorter as longer ones; no copy to sort, repetitions are few. */
int64_t ep_layer_typical_repetition(const struct ep_layer_clocks *c)
{
    int64_t typical = 0;
    int64_t least = INT64_MAX;
    for (int64_t n = 0; n < c->num_repetitions; n++) {
        int64_t balance = 0;
        for (int64_t m = 0; m < c->num_repetitions; m++) {
            const double difference_s = length_of(c, m) - length_of(c, n);
            balance += (difference_s > 0) - (difference_s < 0);
        }
        if (llabs(balance) < least) {
            least = llabs(balance);
            typical = n;
        }
    }
    return typical;
}

static void sum_and_max(const double *values, int64_t num, double *sum, double *most)
{
    *sum = 0;
    *most = values[0];
    for (int64_t i = 0; i < num; i++) {
        *sum += values[i];
        *most = fmax(*most, values[i]);
    }
}

double ep_layer_straggler(const double *values, int64_t num)
{
    double sum = 0;
    double most = 0;
    sum_and_max(values, num, &sum, &most);
    return sum > 0 ? most * (double)num / sum : NAN;
}

double ep_layer_utilisation(const double *values, int64_t num)
{
    double sum = 0;
    double most = 0;
    sum_and_max(values, num, &sum, &most);
    return most > 0 ? sum / (double)num / most : NAN;
}

double ep_layer_efficiency(double tokens_per_s, int64_t num_ranks, double single_tokens_per_s)
{
    return single_tokens_per_s > 0 ? tokens_per_s / ((double)num_ranks * single_tokens_per_s) : NAN;
}
