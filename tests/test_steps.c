/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: sweeps of trainings, their order and means, and the batch that experts ask for. */
#include "tests/check.h"

#include "kernels/steps.h"

#include <math.h>

/* Ten experts, mean copies 8 16 24 ... 80 of 440 tokens. The 10 % quantile (type 7) lies at 0.9 of
 * the way from the first to the second: 15.2. For 32 tokens: 440 x 32 / 15.2 = 926.3, in sequences
 * of 8: 928. At an even load 10 x 32 tokens. */
static void test_batch_by_hand(void **state)
{
    (void)state;
    const double loads[] = {80, 16, 24, 32, 40, 48, 56, 64, 72, 8};
    struct ep_min_tokens_shape shape10 = {
        .num_experts = 10, .top_k = 1, .num_tokens = 440, .sequence_tokens = 8};
    struct ep_min_tokens plan;
    char text[256];
    CHECK_OK(ep_min_tokens_plan(loads, &shape10, 32, &plan));
    CHECK_NEAR(plan.low_tokens, 15.2, 1e-12);
    assert_int_equal(plan.tokens, 928);
    assert_int_equal(plan.even_tokens, 320);
    assert_int_equal(plan.num_starved, 3); /* 8 16 24 */
    assert_true(ep_min_tokens_warn(&plan, text, sizeof text));
    assert_string_equal(text, "3 of 10 experts get fewer than 32 tokens per step "
                              "(--min-tokens-per-expert), the one at the 10 % quantile 15.2; 928 "
                              "tokens per step would do at this load, 320 at an even one");
    shape10.top_k = 4; /* the same loads come of 110 tokens */
    shape10.num_tokens = 110;
    CHECK_OK(ep_min_tokens_plan(loads, &shape10, 32, &plan));
    assert_int_equal(plan.tokens, 232); /* 110 x 32 / 15.2 = 231.6 */
    assert_int_equal(plan.even_tokens, 80);
    CHECK_OK(ep_min_tokens_plan(loads, &shape10, 15, &plan));
    assert_false(ep_min_tokens_warn(&plan, text, sizeof text));
    assert_string_equal(text, "");
    /* starved: an expert at the quantile with less than one token, whatever the batch */
    const double starved[] = {0.5, 0.5, 0.5, 438.5};
    const struct ep_min_tokens_shape shape4 = {
        .num_experts = 4, .top_k = 1, .num_tokens = 440, .sequence_tokens = 1};
    CHECK_OK(ep_min_tokens_plan(starved, &shape4, 32, &plan));
    assert_int_equal(plan.tokens, -1);
    assert_int_equal(plan.even_tokens, 128);
    assert_int_equal(plan.num_starved, 3);
    assert_true(ep_min_tokens_warn(&plan, text, sizeof text));
    assert_non_null(strstr(text, "no batch would do at this load, 128 at"));
}

static struct ep_steps_options make_options(int64_t num_steps)
{
    return (struct ep_steps_options){
        .num_steps = num_steps, .num_clusters = 3, .dim = 8, .sequence_tokens = 4};
}

static const struct ep_dynamics_config shape = {
    .num_experts = 4, .top_k = 2, .num_tokens = 32, .clusters.seed = 5};

static int64_t num_calls;
static int64_t last_index;

static void count_progress(int64_t index, int64_t num_cases)
{
    assert_int_equal(num_cases, 12);
    assert_int_equal(index, num_calls);
    last_index = index;
    num_calls++;
}

/* Every combination once, weights fastest; values are those of the layer trained alone. */
static void test_sweep(void **state)
{
    (void)state;
    struct ep_steps_options o = make_options(25);
    o.aux_weights = (struct ep_steps_list){.values = {0, 0.1, 1}, .num = 3};
    o.jitters = (struct ep_steps_list){.values = {0, 0.5}, .num = 2};
    o.bias_rates = (struct ep_steps_list){.values = {0, 0.01}, .num = 2};
    struct ep_steps *s = NULL;
    num_calls = 0;
    CHECK_OK(ep_steps_create(&o, &shape, 0, true, count_progress, &s));
    assert_int_equal(num_calls, 13);
    assert_int_equal(last_index, 12);
    assert_int_equal(s->num_cases, 12);
    assert_int_equal(s->num_final, 2);
    for (int64_t i = 0; i < 12; i++) {
        const struct ep_steps_case *c = &s->cases[i];
        assert_true(c->aux_weight == o.aux_weights.values[i % 3]);
        assert_true(c->jitter == o.jitters.values[i / 3 % 2]);
        assert_true(c->bias_rate == o.bias_rates.values[i / 6]);
    }
    const struct ep_steps_case *c = &s->cases[10]; /* 0.1, 0.5, 0.01 */
    struct ep_dynamics_config config = s->config;
    config.aux_weight = 0.1;
    config.jitter = 0.5;
    config.bias_rate = 0.01;
    struct ep_dynamics *alone = NULL;
    struct ep_dynamics_step m;
    double task_loss = 0;
    double first_load = 0;
    CHECK_OK(ep_dynamics_create(&config, &alone));
    for (int step = 0; step < 25; step++) {
        CHECK_OK(ep_dynamics_advance(alone, &m));
        const double *values = &c->values[step * EP_STEPS_NUM_VALUES];
        assert_true(values[EP_STEPS_TASK_LOSS] == m.task_loss);
        assert_true(values[EP_STEPS_MAX_TOKENS] == (double)m.max_tokens);
        assert_memory_equal(&c->loads[step * 4], m.loads, 4 * sizeof *m.loads);
        task_loss += step >= 23 ? m.task_loss / 2 : 0;
        first_load += step >= 23 ? (double)m.loads[0] / 2 : 0;
    }
    CHECK_NEAR(c->finals[EP_STEPS_TASK_LOSS], task_loss, 1e-12);
    CHECK_NEAR(c->final_loads[0], first_load, 1e-12);
    ep_dynamics_destroy(alone);
    ep_steps_destroy(s);
}

static void test_defaults_and_refusals(void **state)
{
    (void)state;
    struct ep_steps_options o = make_options(1);
    struct ep_dynamics_config none = {.num_tokens = 64};
    struct ep_steps *s = NULL;
    o.num_clusters = 0;
    CHECK_OK(ep_steps_create(&o, &none, 0, false, NULL, &s));
    assert_int_equal(s->num_cases, 8);
    assert_int_equal(s->num_final, 1);
    assert_int_equal(s->min_tokens, 32);
    assert_int_equal(s->config.num_experts, 16);
    assert_int_equal(s->config.clusters.num_clusters, 16);
    assert_int_equal(s->config.top_k, 1);
    assert_string_equal(s->config.aux->name, "megatron-seq");
    assert_null(s->cases[0].loads);
    int64_t usual = 0;
    for (int64_t i = 0; i < 8; i++) {
        usual += ep_steps_is_usual(s->cases[i].aux_weight);
    }
    assert_int_equal(usual, 3); /* 0.01 0.03 0.1 */
    ep_steps_destroy(s);
    ep_steps_destroy(NULL);

    struct ep_dynamics_config bad = shape;
    bad.top_k = 5;
    CHECK_FAILS(ep_steps_create(&o, &bad, 0, false, NULL, &s), EP_EINVAL, "--top-k 5");
    bad.top_k = 2;
    bad.num_tokens = 33;
    CHECK_FAILS(ep_steps_create(&o, &bad, 0, false, NULL, &s), EP_EINVAL, "whole sequences of 4");
    o.num_steps = EP_STEPS_MAX_STEPS;
    o.aux_weights.num = EP_STEPS_MAX_SWEEP;
    CHECK_FAILS(ep_steps_create(&o, &shape, 0, true, NULL, &s), EP_EINVAL, "values can be kept");
    o = make_options(1);
    o.dim = 1 << 16;
    bad.num_experts = 1 << 16;
    CHECK_FAILS(ep_steps_create(&o, &bad, 0, false, NULL, &s), EP_EINVAL, "numbers: at most");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_by_hand),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_defaults_and_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
