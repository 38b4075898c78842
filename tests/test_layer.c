/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting and moving taken apart, stragglers, efficiency: against numbers worked by hand. */
#include "tests/check.h"

#include "bench/layer_waits.h"

#include <math.h>

/* Three ranks, two phases (compute, then an exchange), one repetition. Rank 0 computes 1 s, rank 1 4 s, rank
 * 2 2 s, all from second 10 on. The exchange moves for 0.5 s once the last needed rank is there: ranks 0 and
 * 1 need each other, rank 2 needs nobody, rank 0 needs rank 2 as well.
 *   rank 0 enters at 11, needs 1 (14) and 2 (12): waits 3 for rank 1, 1 for rank 2; leaves at 14.5
 *   rank 1 enters at 14, needs 0 (11):            waits 0;                          leaves at 14.5
 *   rank 2 enters at 12, needs nobody:            waits 0;                          leaves at 12.5 */
static const double times_s[3][1][3] = {
    {{10, 11, 14.5}},
    {{10, 14, 14.5}},
    {{10, 12, 12.5}},
};
static const enum ep_layer_work works[2] = {EP_LAYER_COMPUTE, EP_LAYER_EXCHANGE};
static const bool needs[2][3][3] = {
    {{true, true, true}, {true, true, true}, {true, true, true}}, /* of compute: not looked at */
    {{true, true, true}, {true, false, false}, {false, false, true}},
};

static struct ep_layer_clocks clocks_of_three(void)
{
    return (struct ep_layer_clocks){3, 2, 1, &times_s[0][0][0], works, &needs[0][0][0]};
}

static void test_split(void **state)
{
    (void)state;
    struct ep_layer_split split = {0};
    const struct ep_layer_clocks clocks = clocks_of_three();
    CHECK_OK(ep_layer_split_init(&clocks, &split));
    const double phase_s[2][3] = {{1, 4, 2}, {3.5, 0.5, 0.5}};
    const double wait_s[2][3] = {{0, 0, 0}, {3, 0, 0}};
    const double pair_s[3][3] = {{0, 3, 1}, {0, 0, 0}, {0, 0, 0}};
    for (int i = 0; i < 3; i++) {
        for (int p = 0; p < 2; p++) {
            CHECK_NEAR(split.phase_s[p * 3 + i], phase_s[p][i], 1e-12);
            CHECK_NEAR(split.wait_s[p * 3 + i], wait_s[p][i], 1e-12);
        }
        for (int j = 0; j < 3; j++) {
            CHECK_NEAR(split.pair_s[i * 3 + j], pair_s[i][j], 1e-12);
        }
    }
    double exchange_s[3];
    double waits_s[3];
    ep_layer_sum_work(&split, works, EP_LAYER_EXCHANGE, exchange_s, waits_s);
    CHECK_NEAR(exchange_s[0], 3.5, 1e-12);
    CHECK_NEAR(waits_s[0], 3, 1e-12);
    ep_layer_sum_work(&split, works, EP_LAYER_COPY, exchange_s, NULL);
    CHECK_NEAR(exchange_s[0], 0, 0);
    ep_layer_split_fini(&split);
}

/* A rank that leaves before the late one enters (its rows were there already) waits no longer than its own
 * phase; medians are over repetitions. Two ranks, one exchange, three repetitions: rank 0 enters at 0 and
 * leaves at 2, 2, 9; rank 1 enters at 5, 1, 4: waits 2 (cut), 1, 4: median 2. */
static void test_cut_and_median(void **state)
{
    (void)state;
    static const double times[2][3][2] = {{{0, 2}, {0, 2}, {0, 9}}, {{5, 6}, {1, 2}, {4, 9}}};
    static const enum ep_layer_work exchange[1] = {EP_LAYER_EXCHANGE};
    static const bool all[1][2][2] = {{{true, true}, {true, true}}};
    const struct ep_layer_clocks clocks = {2, 1, 3, &times[0][0][0], exchange, &all[0][0][0]};
    struct ep_layer_split split = {0};
    CHECK_NEAR(ep_layer_wait_s(&clocks, 0, 0, 0), 2, 0);
    CHECK_NEAR(ep_layer_wait_s(&clocks, 0, 2, 0), 4, 0);
    CHECK_OK(ep_layer_split_init(&clocks, &split));
    CHECK_NEAR(split.wait_s[0], 2, 0);
    CHECK_NEAR(split.pair_s[1], 2, 0);
    CHECK_NEAR(split.phase_s[0], 2, 0); /* of 2, 2, 9 */
    CHECK_NEAR(split.phase_s[1], 1, 0); /* of 1, 1, 5 */
    /* lengths 6, 2, 9: the median is that of repetition 0 */
    assert_int_equal(ep_layer_typical_repetition(&clocks), 0);
    ep_layer_split_fini(&split);
}

static void test_balance(void **state)
{
    (void)state;
    const double compute_s[3] = {1, 4, 1}; /* mean 2, slowest 4 */
    CHECK_NEAR(ep_layer_straggler(compute_s, 3), 2, 1e-12);
    CHECK_NEAR(ep_layer_utilisation(compute_s, 3), 0.5, 1e-12);
    const double idle_s[2] = {0, 0};
    assert_true(isnan(ep_layer_straggler(idle_s, 2)));
    assert_true(isnan(ep_layer_utilisation(idle_s, 2)));
    /* 4 ranks make 300 tokens/s, one alone 100: 300 / (4 x 100) */
    CHECK_NEAR(ep_layer_efficiency(300, 4, 100), 0.75, 1e-12);
    assert_true(isnan(ep_layer_efficiency(300, 4, NAN)));
    assert_true(isnan(ep_layer_efficiency(300, 4, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_cut_and_median),
        cmocka_unit_test(test_balance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
