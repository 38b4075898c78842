/* SPDX-License-Identifier: Apache-2.0 */
/* The measuring loop under a fake clock: order of events, agreement over ranks, stopping. */
#include "tests/check.h"

#include "bench/harness.h"

#include <math.h>
#include <stdio.h>

/* Two ranks are played in one process: this one, and a fixed slower one that max() brings in. */
struct fake {
    double now_s;
    double run_s[8];   /* durations, cycled */
    int num_runs;
    int run_idx;
    double clock_read_s; /* what a clock read costs */
    double other_rank_s; /* the other rank's time for everything reduced */
    char log[4096];      /* one letter an event */
    size_t length;
    int64_t num_reduced; /* values in the last reduction */
    int fail_run_at;     /* run index that fails, -1 = none */
    int num_agreed;
    int fail_agree_at;   /* agreement at which the other rank fails, 0 = none */
};

static void event(struct fake *f, char letter)
{
    if (f->length + 1 < sizeof f->log) {
        f->log[f->length++] = letter;
        f->log[f->length] = '\0';
    }
}

static double fake_now(void *ctx)
{
    struct fake *f = ctx;
    event(f, 't');
    f->now_s += f->clock_read_s;
    return f->now_s;
}

static enum ep_status fake_sync(void *ctx)
{
    struct fake *f = ctx;
    event(f, 's');
    f->now_s += 10; /* a slow barrier must not show in any sample */
    return EP_OK;
}

static enum ep_status fake_max(void *ctx, double *values, int64_t num)
{
    struct fake *f = ctx;
    event(f, 'm');
    for (int64_t i = 0; i < num; i++) {
        values[i] = fmax(values[i], f->other_rank_s);
    }
    f->num_reduced = num;
    return EP_OK;
}

static enum ep_status fake_agree(void *ctx, enum ep_status local)
{
    struct fake *f = ctx;
    event(f, 'a');
    if (++f->num_agreed == f->fail_agree_at) {
        return ep_error_set(EP_ENOMEM, "rank 1: no memory");
    }
    return local;
}

static enum ep_status fake_run(void *ctx)
{
    struct fake *f = ctx;
    event(f, 'r');
    if (f->run_idx == f->fail_run_at) {
        return ep_error_set(EP_EMPI, "planted failure");
    }
    f->now_s += f->run_s[f->run_idx++ % f->num_runs];
    return EP_OK;
}

static enum ep_status fake_phase_0(void *ctx)
{
    struct fake *f = ctx;
    event(f, '0');
    f->now_s += 1;
    return EP_OK;
}

static enum ep_status fake_phase_1(void *ctx)
{
    struct fake *f = ctx;
    event(f, '1');
    f->now_s += 2;
    return EP_OK;
}

static enum ep_status fake_phase_2(void *ctx)
{
    struct fake *f = ctx;
    event(f, '2');
    f->now_s += 3;
    return EP_OK;
}

static enum ep_status fake_prepare(void *ctx)
{
    struct fake *f = ctx;
    event(f, 'p');
    f->now_s += 100;
    return EP_OK;
}

static void fake_begin(void *ctx)
{
    event(ctx, 'b');
}

static struct ep_harness_env env_of(struct fake *f)
{
    return (struct ep_harness_env){fake_now, fake_sync, fake_max, fake_agree, f};
}

static void test_order_of_events(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {
        .run = fake_run, .prepare = fake_prepare, .begin = fake_begin, .ctx = &f};
    struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    plan.warmup_repetitions = 1;
    plan.min_samples = 2;
    plan.max_samples = 2;
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    /* warm-up: two clock reads around one repetition, one reduction; then counting begins (b), and a
     * batch of two: prepare and sync come before the first clock read, only `run` between the two. Ranks
     * agree (a) that they have memory before the batch, and that they could sum it up after it. */
    assert_string_equal(f.log, "tt" "pstrt" "tm" "b" "a" "t" "pstrt" "pstrt" "tm" "a");
    assert_int_equal(result.num, 2);
    CHECK_NEAR(result.samples_s[0], 1, 1e-12);
    assert_int_equal(result.stop, EP_STOP_SAMPLES);
    ep_harness_result_fini(&result);
}

static void test_sample_is_max_over_ranks(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1, 3}, .num_runs = 2, .other_rank_s = 2, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    plan.warmup_repetitions = 2;
    plan.min_samples = 4;
    plan.max_samples = 4;
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    /* own 1 3 1 3, the other rank's 2: maxima 2 3 2 3, median 2.5; own median 2 */
    CHECK_NEAR(result.samples_s[0], 2, 1e-12);
    CHECK_NEAR(result.samples_s[1], 3, 1e-12);
    CHECK_NEAR(result.summary.median, 2.5, 1e-12);
    CHECK_NEAR(result.local_median_s, 2, 1e-12);
    ep_harness_result_fini(&result);
}

static void test_stops_when_precise(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    const struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    assert_int_equal(result.num, 20);
    assert_int_equal(result.stop, EP_STOP_PRECISE);
    assert_string_equal(ep_harness_stop_name(result.stop), "interval");
    ep_harness_result_fini(&result);
}

static void test_schedule_and_correlation(void **state)
{
    (void)state;
    /* Runs of eight: 1 1 1 1 1.5 1.5 1.5 1.5: strongly correlated and never precise, so the
     * loop looks at 20, 30, 45, 68, 102 samples and stops at the limit of 102. */
    struct fake f = {.run_s = {1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5}, .num_runs = 8, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    plan.max_samples = 102;
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    assert_int_equal(result.num, 102);
    assert_int_equal(result.stop, EP_STOP_SAMPLES);
    assert_true(result.summary.lag1 > 0.2);
    /* the reductions: warm-up, then after samples 20, 30, 45, 68 and 102 */
    int64_t runs = 0;
    int64_t at[8] = {0};
    int num_at = 0;
    for (const char *p = f.log; *p != '\0'; p++) {
        runs += *p == 'r';
        if (*p == 'm') {
            at[num_at++] = runs - 3; /* three warm-up repetitions */
        }
    }
    assert_int_equal(num_at, 6);
    const int64_t expected[] = {0, 20, 30, 45, 68, 102};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(at[i], expected[i]);
    }
    assert_int_equal(f.num_reduced, 102 - 68 + 1);
    ep_harness_result_fini(&result);
}

static void test_budget(void **state)
{
    (void)state;
    /* A sample takes 11 s with its barrier, the budget is 60 s: 5 samples fit. */
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    struct ep_harness_plan plan = ep_harness_plan_default(60);
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    assert_int_equal(result.num, 5);
    assert_int_equal(result.stop, EP_STOP_BUDGET);
    ep_harness_result_fini(&result);
    /* a budget below one sample still takes three */
    plan.budget_s = 0.001;
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    assert_int_equal(result.num, 3);
    ep_harness_result_fini(&result);
}

static void test_warmup_time(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    plan.warmup_s = 200; /* repetitions of 11 s with their barrier */
    plan.max_samples = 20;
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    assert_true(result.warmup_s >= 200 && result.warmup_s < 200 + 4 * 11);
    ep_harness_result_fini(&result);
}

static void test_stream_has_one_sync_a_block(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    plan.cadence = EP_CADENCE_STREAM;
    plan.stream_repetitions = 3;
    plan.warmup_repetitions = 1;
    plan.min_samples = plan.max_samples = 1;
    struct ep_harness_result result = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    assert_string_equal(f.log, "tt" "strrrt" "tm" "a" "t" "strrrt" "tm" "a");
    CHECK_NEAR(result.samples_s[0], 1, 1e-12);
    ep_harness_result_fini(&result);
}

static void test_phases(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .clock_read_s = 0, .other_rank_s = 2,
                     .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {
        .run = fake_run, .ctx = &f, .phases = {fake_phase_0, fake_phase_1, fake_phase_2},
        .num_phases = 3, .phase_ctx = &f};
    struct ep_harness_phases phases = {0};
    CHECK_OK(ep_harness_measure_phases(&env, &work, 2, &phases));
    assert_string_equal(f.log, "a" "st0tst1tst2t" "st0tst1tst2t" "st0tst1tst2t" "mamama");
    assert_int_equal(phases.num_phases, 3);
    CHECK_NEAR(phases.phases[0].summary.median, 2, 1e-12); /* the other rank's */
    CHECK_NEAR(phases.phases[0].local_median_s, 1, 1e-12);
    CHECK_NEAR(phases.phases[2].summary.median, 3, 1e-12);
    ep_harness_phases_fini(&phases);
}

/* Simulated time: nothing is warmed up, neither the whole nor phases. */
static void test_simulated(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f, .phases = {fake_phase_0},
                                         .num_phases = 1, .phase_ctx = &f, .is_simulated = true};
    struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    plan.min_samples = plan.max_samples = 1;
    struct ep_harness_result result = {0};
    struct ep_harness_phases phases = {0};
    CHECK_OK(ep_harness_measure(&env, &work, &plan, &result));
    CHECK_OK(ep_harness_measure_phases(&env, &work, 1, &phases));
    assert_string_equal(f.log, "a" "t" "strt" "tm" "a" "a" "st0t" "ma");
    CHECK_NEAR(result.samples_s[0], 1, 1e-12);
    CHECK_NEAR(result.warmup_s, 0, 0);
    ep_harness_result_fini(&result);
    ep_harness_phases_fini(&phases);
}

static void test_failure_leaves_result_untouched(void **state)
{
    (void)state;
    struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = 7};
    const struct ep_harness_env env = env_of(&f);
    const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
    const struct ep_harness_plan plan = ep_harness_plan_default(1e9);
    struct ep_harness_result result = {0};
    CHECK_FAILS(ep_harness_measure(&env, &work, &plan, &result), EP_EMPI, "planted failure");
    assert_null(result.samples_s);
}

static void test_another_rank_has_no_memory(void **state)
{
    (void)state;
    /* Of one batch: before its samples, and after its reduction. Nothing may follow that waits for all. */
    static const char *const logs[] = {"tt" "strt" "tm" "a", "tt" "strt" "tm" "a" "t" "strt" "tm" "a"};
    for (int at = 1; at <= 2; at++) {
        struct fake f = {.run_s = {1}, .num_runs = 1, .fail_run_at = -1, .fail_agree_at = at};
        const struct ep_harness_env env = env_of(&f);
        const struct ep_harness_work work = {.run = fake_run, .ctx = &f};
        struct ep_harness_plan plan = ep_harness_plan_default(1e9);
        plan.warmup_repetitions = 1;
        plan.min_samples = plan.max_samples = 1;
        struct ep_harness_result result = {0};
        CHECK_FAILS(ep_harness_measure(&env, &work, &plan, &result), EP_ENOMEM, "rank 1: no memory");
        assert_string_equal(f.log, logs[at - 1]);
        assert_null(result.samples_s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_events),
        cmocka_unit_test(test_sample_is_max_over_ranks),
        cmocka_unit_test(test_stops_when_precise),
        cmocka_unit_test(test_schedule_and_correlation),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_warmup_time),
        cmocka_unit_test(test_stream_has_one_sync_a_block),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_simulated),
        cmocka_unit_test(test_failure_leaves_result_untouched),
        cmocka_unit_test(test_another_rank_has_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
