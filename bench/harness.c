/* SPDX-License-Identifier: Apache-2.0 */
/* The measuring loop. */
#include "bench/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_SAMPLES_IN_BUDGET = 3 };

struct ep_harness_plan ep_harness_plan_default(double budget_s)
{
    return (struct ep_harness_plan){
        .cadence = EP_CADENCE_BARRIER,
        .stream_repetitions = 1,
        .warmup_repetitions = 3,
        .warmup_s = 0,
        .min_samples = 20,
        .max_samples = 100000,
        .half_width = 0.02,
        .lag1 = 0.2,
        .budget_s = budget_s,
    };
}

const char *ep_harness_stop_name(enum ep_harness_stop stop)
{
    static const char *const names[] = {
        [EP_STOP_PRECISE] = "interval",
        [EP_STOP_BUDGET] = "budget",
        [EP_STOP_SAMPLES] = "max_samples",
    };
    return names[stop];
}

/* One sample: a repetition, or a block of them back to back. */
static enum ep_status take_sample(const struct ep_harness_env *env,
                                  const struct ep_harness_work *work,
                                  const struct ep_harness_plan *plan, double *time_s)
{
    enum ep_status status = EP_OK;
    const int64_t repetitions =
        plan->cadence == EP_CADENCE_STREAM ? plan->stream_repetitions : 1;
    if (work->prepare != NULL) {
        EP_TRY(work->prepare(work->ctx));
    }
    EP_TRY(env->sync(env->ctx));
    const double start_s = env->now_s(env->ctx);
    for (int64_t i = 0; i < repetitions; i++) {
        EP_TRY(work->run(work->ctx));
    }
    *time_s = (env->now_s(env->ctx) - start_s) / (double)repetitions;
out:
    return status;
}

/* Warm-up goes on until every rank has had enough of it; *sample_s is the last, agreed. */
static enum ep_status warm_up(const struct ep_harness_env *env,
                              const struct ep_harness_work *work,
                              const struct ep_harness_plan *plan, double *warmup_s,
                              double *sample_s)
{
    enum ep_status status = EP_OK;
    const double start_s = env->now_s(env->ctx);
    int64_t block = plan->warmup_repetitions;
    for (;;) {
        const double block_start_s = env->now_s(env->ctx);
        for (int64_t i = 0; i < block; i++) {
            double ignored = 0;
            EP_TRY(take_sample(env, work, plan, &ignored));
        }
        const double now_s = env->now_s(env->ctx);
        double agreed[2] = {now_s - start_s, (now_s - block_start_s) / (double)block};
        *warmup_s = agreed[0];
        EP_TRY(env->max(env->ctx, agreed, 2));
        *sample_s = agreed[1];
        if (agreed[0] >= plan->warmup_s || agreed[1] <= 0) {
            break;
        }
        /* half of what is missing, so that the last block is a short one */
        block = (int64_t)((plan->warmup_s - agreed[0]) / agreed[1] / 2) + 1;
    }
out:
    return status;
}

static enum ep_status reserve(struct ep_harness_result *result, int64_t *capacity, int64_t need)
{
    if (need <= *capacity) {
        return EP_OK;
    }
    double *samples = realloc(result->samples_s, (size_t)need * sizeof *samples);
    if (samples != NULL) {
        result->samples_s = samples;
    }
    double *local = realloc(result->local_s, (size_t)need * sizeof *local);
    if (local != NULL) {
        result->local_s = local;
    }
    if (samples == NULL || local == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %lld samples", (long long)need);
    }
    *capacity = need;
    return EP_OK;
}

static bool is_precise(const struct ep_summary *s, const struct ep_harness_plan *plan)
{
    const double half_width = (s->high - s->low) / 2;
    const bool uncorrelated = isnan(s->lag1) || s->lag1 < plan->lag1;
    return half_width <= plan->half_width * s->median && uncorrelated; /* false for NaN */
}

static int64_t clamp(double value, int64_t low, int64_t high)
{
    return value <= (double)low ? low : value >= (double)high ? high : (int64_t)value;
}

/* Samples of all ranks, and this rank's own median. */
static enum ep_status summarize(struct ep_harness_result *result)
{
    enum ep_status status = EP_OK;
    struct ep_summary local;
    EP_TRY(ep_stats_summarize(result->samples_s, result->num, &result->summary));
    EP_TRY(ep_stats_summarize(result->local_s, result->num, &local));
    result->local_median_s = local.median;
out:
    return status;
}

enum ep_status ep_harness_measure(const struct ep_harness_env *env,
                                  const struct ep_harness_work *work,
                                  const struct ep_harness_plan *plan,
                                  struct ep_harness_result *result)
{
    enum ep_status status = EP_OK;
    struct ep_harness_result r = {0};
    int64_t capacity = 0;
    double spent_s = 0;
    double sample_s = 0;
    if (!work->is_simulated) {
        EP_TRY(warm_up(env, work, plan, &r.warmup_s, &sample_s));
    }
    if (work->begin != NULL) {
        work->begin(work->ctx);
    }
    r.repetitions = plan->cadence == EP_CADENCE_STREAM ? plan->stream_repetitions : 1;

    const int64_t floor_samples =
        plan->min_samples < MIN_SAMPLES_IN_BUDGET ? plan->min_samples : MIN_SAMPLES_IN_BUDGET;
    int64_t target = plan->min_samples;
    for (;;) {
        /* All ranks share sample_s and spent_s, so all compute the same target. */
        if (sample_s > 0) {
            const double left = (plan->budget_s - spent_s) / sample_s;
            target = clamp((double)r.num + left, r.num + 1, target);
        }
        target = clamp((double)target, floor_samples, plan->max_samples);
        EP_TRY(env->agree(env->ctx, reserve(&r, &capacity, target + 1)));
        const double start_s = env->now_s(env->ctx);
        const int64_t first = r.num;
        for (; r.num < target; r.num++) {
            EP_TRY(take_sample(env, work, plan, &r.local_s[r.num]));
        }
        /* One reduction for the batch: its times, and how long it took all told. */
        const int64_t batch = r.num - first;
        memcpy(r.samples_s + first, r.local_s + first, (size_t)batch * sizeof *r.samples_s);
        r.samples_s[r.num] = env->now_s(env->ctx) - start_s;
        EP_TRY(env->max(env->ctx, r.samples_s + first, batch + 1));
        spent_s += r.samples_s[r.num];
        sample_s = r.samples_s[r.num] / (double)batch;

        EP_TRY(env->agree(env->ctx, summarize(&r)));
        if (r.num >= plan->min_samples && is_precise(&r.summary, plan)) {
            r.stop = EP_STOP_PRECISE;
            break;
        }
        if (r.num >= plan->max_samples) {
            r.stop = EP_STOP_SAMPLES;
            break;
        }
        if (spent_s + sample_s > plan->budget_s && r.num >= floor_samples) {
            r.stop = EP_STOP_BUDGET;
            break;
        }
        target = r.num + (r.num + 1) / 2;
    }
    *result = r;
    r = (struct ep_harness_result){0};
out:
    ep_harness_result_fini(&r);
    return status;
}

enum ep_status ep_harness_time_phase(const struct ep_harness_env *env,
                                     const struct ep_harness_work *work, int phase,
                                     double *time_s)
{
    enum ep_status status = EP_OK;
    enum ep_status (*const run)(void *) = work->phases[phase];
    EP_TRY(env->sync(env->ctx));
    const double start_s = env->now_s(env->ctx);
    EP_TRY(run(work->phase_ctx));
    *time_s = env->now_s(env->ctx) - start_s;
out:
    return status;
}

static enum ep_status reserve_phases(struct ep_harness_phases *p, int num_phases,
                                     int64_t num_samples)
{
    enum ep_status status = EP_OK;
    p->phases = calloc((size_t)num_phases, sizeof *p->phases);
    if (p->phases == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %d phases", num_phases);
    }
    p->num_phases = num_phases;
    for (int i = 0; i < num_phases; i++) {
        int64_t capacity = 0;
        EP_TRY(reserve(&p->phases[i], &capacity, num_samples));
    }
out:
    return status;
}

enum ep_status ep_harness_measure_phases(const struct ep_harness_env *env,
                                         const struct ep_harness_work *work, int64_t num_samples,
                                         struct ep_harness_phases *phases)
{
    EP_ASSERT(work->num_phases >= 1 && num_samples >= 1);
    enum ep_status status = EP_OK;
    struct ep_harness_phases p = {0};
    EP_TRY(env->agree(env->ctx, reserve_phases(&p, work->num_phases, num_samples)));
    for (int64_t n = work->is_simulated ? 0 : -1; n < num_samples; n++) { /* repetition -1 warms up */
        if (work->prepare != NULL) {
            EP_TRY(work->prepare(work->ctx));
        }
        for (int i = 0; i < p.num_phases; i++) {
            double time_s = 0;
            EP_TRY(ep_harness_time_phase(env, work, i, &time_s));
            if (n >= 0) {
                p.phases[i].local_s[n] = time_s;
            }
        }
    }
    for (int i = 0; i < p.num_phases; i++) {
        struct ep_harness_result *r = &p.phases[i];
        r->num = num_samples;
        memcpy(r->samples_s, r->local_s, (size_t)num_samples * sizeof *r->samples_s);
        EP_TRY(env->max(env->ctx, r->samples_s, num_samples));
        EP_TRY(env->agree(env->ctx, summarize(r)));
    }
    *phases = p;
    p = (struct ep_harness_phases){0};
out:
    ep_harness_phases_fini(&p);
    return status;
}

void ep_harness_result_fini(struct ep_harness_result *result)
{
    free(result->samples_s);
    free(result->local_s);
    *result = (struct ep_harness_result){0};
}

void ep_harness_phases_fini(struct ep_harness_phases *phases)
{
    for (int i = 0; i < phases->num_phases; i++) {
        ep_harness_result_fini(&phases->phases[i]);
    }
    free(phases->phases);
    *phases = (struct ep_harness_phases){0};
}
