/* SPDX-License-Identifier: Apache-2.0 */
/* Judging placements: rows and loads by hand, differences by blocks, placements that follow the
 * load. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/place_dynamic.h"
#include "kernels/place_judge.h"

#include <math.h>
#include <stdlib.h>

/* --- counting by hand ---------------------------------------------------------------------- */

/* Experts 0 1 on rank (and node) 0, 2 3 on 1. Tokens 0 and 1 start on rank 0, 2 and 3 on rank 1:
 * {0,1} stays; {0,2} one row out; {2,3} stays; {0,1} one row out, two copies. */
static const struct ep_place_shape two = {4, 2, 2, 1, 4};
static const int32_t hand_topk[8] = {0, 1, 0, 2, 2, 3, 0, 1};
static const struct ep_place_tokens hand_tokens = {4, 2, hand_topk};

static void test_judge_by_hand(void **state)
{
    static const int32_t map[4] = {0, 1, 2, 3};
    const struct ep_place_schedule still = {map, 1, 4};
    struct ep_place_judgement j;
    (void)state;
    CHECK_OK(ep_place_judge(&two, &hand_tokens, &still, 10, 2, &j));
    assert_int_equal(j.rows[EP_BASIS_COPIES].total, 8);
    assert_int_equal(j.rows[EP_BASIS_COPIES].remote, 3);
    assert_int_equal(j.rows[EP_BASIS_COPIES].max_out, 2); /* rank 1 */
    assert_int_equal(j.rows[EP_BASIS_RANK].total, 5);
    assert_int_equal(j.rows[EP_BASIS_RANK].remote, 2);
    assert_int_equal(j.cross_node_rows[EP_BASIS_COPIES], 3);
    assert_int_equal(j.cross_node_rows[EP_BASIS_NODE], 2);
    assert_int_equal(j.features[EP_BASIS_RANK].h_rank_bytes, 10);
    assert_int_equal(j.features[EP_BASIS_COPIES].remote_bytes, 30);
    /* copies of experts: 3 2 2 1 */
    CHECK_NEAR(j.rank_load[0], 5, 0);
    CHECK_NEAR(j.rank_load[1], 3, 0);
    CHECK_NEAR(j.node_load[0], 5, 0);
    assert_int_equal(j.received[0], 5);
    assert_int_equal(j.received[1], 3);
    /* blocks of two tokens: copies 3 | 1 and 2 | 2, one row out each */
    CHECK_NEAR(j.block_load[0], 3, 0);
    CHECK_NEAR(j.block_load[1], 1, 0);
    CHECK_NEAR(j.block_load[2], 2, 0);
    CHECK_NEAR(ep_place_block_max_over_mean(&j), (3.0 + 2.0) / (2.0 + 2.0), 1e-15);
    assert_int_equal(j.block_remote_rows[0], 1);
    assert_int_equal(j.block_remote_rows[1], 1);
    assert_int_equal(j.block_cross_rows[1], 1);
    ep_place_judgement_fini(&j);
}

/* From token 2 on the ranks have changed places: {2,3} now leaves rank 1 and {0,1} stays. Two
 * copies out in place of two; the second block's load is 2 | 2 as before. */
static void test_judge_windows(void **state)
{
    static const int32_t maps[8] = {0, 1, 2, 3, 2, 3, 0, 1};
    const struct ep_place_schedule moved = {maps, 2, 2};
    struct ep_place_judgement j;
    (void)state;
    CHECK_OK(ep_place_judge(&two, &hand_tokens, &moved, 1, 1, &j));
    assert_int_equal(j.rows[EP_BASIS_COPIES].remote, 1 + 2);
    assert_int_equal(j.rows[EP_BASIS_RANK].remote, 1 + 1);
    CHECK_NEAR(j.rank_load[0], 3 + 2, 0);
    assert_int_equal(j.received[1], 1 + 2);
    ep_place_judgement_fini(&j);
}

/* Expert 0 on both ranks: its load is split evenly, though source 0 uses replica 0 and source 1
 * replica 1, so that all copies of expert 0 stay. */
static void test_judge_replicas(void **state)
{
    static const struct ep_place_shape shape = {3, 2, 1, 1, 4};
    static const int32_t map[4] = {0, 1, 0, 2};
    static const int32_t topk_idx[4] = {0, 0, 0, 2};
    const struct ep_place_tokens tokens = {4, 1, topk_idx};
    const struct ep_place_schedule still = {map, 1, 4};
    struct ep_place_judgement j;
    (void)state;
    CHECK_OK(ep_place_judge(&shape, &tokens, &still, 1, 4, &j));
    CHECK_NEAR(j.rank_load[0], 1.5, 1e-15);
    CHECK_NEAR(j.rank_load[1], 2.5, 1e-15);
    assert_int_equal(j.received[0], 2);
    assert_int_equal(j.received[1], 2);
    assert_int_equal(j.rows[EP_BASIS_COPIES].remote, 0);
    assert_int_equal(j.cross_node_rows[EP_BASIS_NODE], 0);
    ep_place_judgement_fini(&j);
}

static void test_judge_error(void **state)
{
    static const int32_t map[4] = {0, 1, 2, 3};
    static const int32_t topk_idx[1] = {-1};
    const struct ep_place_tokens tokens = {1, 1, topk_idx};
    const struct ep_place_schedule still = {map, 1, 1};
    const struct ep_place_schedule lost = {(const int32_t[4]){0, 1, 2, 2}, 1, 1};
    struct ep_place_judgement j;
    (void)state;
    /* no copy at all: no ratio */
    CHECK_OK(ep_place_judge(&two, &tokens, &still, 1, 1, &j));
    assert_true(isnan(ep_place_max_over_mean(j.rank_load, 2)));
    ep_place_judgement_fini(&j);
    CHECK_FAILS(ep_place_judge(&two, &tokens, &lost, 1, 1, &j), EP_EINVAL, "4 experts");
}

/* --- differences --------------------------------------------------------------------------- */

enum { BLOCKS = 20 };

/* 20 equal blocks of 2 tokens under two maps: every draw gives the same, so the interval is the
 * value. Tokens {0,1} and {0,1} from ranks in turn of 20 tokens. Map a holds both on rank 0; b one
 * on each. */
static void test_compare_constant(void **state)
{
    static const int32_t a_map[4] = {0, 1, 2, 3};
    static const int32_t b_map[4] = {0, 2, 1, 3};
    int32_t topk_idx[4 * BLOCKS];
    for (int i = 0; i < 4 * BLOCKS; i++) {
        topk_idx[i] = i % 2;
    }
    const struct ep_place_tokens tokens = {2 * BLOCKS, 2, topk_idx};
    const struct ep_place_schedule a_still = {a_map, 1, 2 * BLOCKS};
    const struct ep_place_schedule b_still = {b_map, 1, 2 * BLOCKS};
    struct ep_place_judgement a, b;
    struct ep_place_difference d;
    (void)state;
    CHECK_OK(ep_place_judge(&two, &tokens, &a_still, 1, BLOCKS, &a));
    CHECK_OK(ep_place_judge(&two, &tokens, &b_still, 1, BLOCKS, &b));
    CHECK_OK(ep_place_compare(&a, &b, 200, 0.025, 1, &d));
    /* all load on one rank of two against even: 2 - 1 */
    CHECK_NEAR(d.max_over_mean.value, 1, 1e-15);
    CHECK_NEAR(d.max_over_mean.low, 1, 1e-15);
    CHECK_NEAR(d.max_over_mean.high, 1, 1e-15);
    /* a: the tokens of rank 1 leave, 20 rows; b: every token sends one row away, 40 */
    CHECK_NEAR(d.remote_rows.value, -0.5, 1e-15);
    CHECK_NEAR(d.cross_rows.value, -0.5, 1e-15);
    ep_place_judgement_fini(&a);
    ep_place_judgement_fini(&b);
}

/* Blocks that differ: a's rows are b's twice over in half of them, none in the rest. The ratio over
 * n of 20 such blocks is n/10 - 1, n binomial(20, 1/2): the 2.5 % and 97.5 % quantiles are 6
 * and 14. */
static void test_compare_interval(void **state)
{
    double load[2 * BLOCKS] = {0};
    int64_t a_rows[BLOCKS], b_rows[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        a_rows[i] = i % 2 == 0 ? 20 : 0;
        b_rows[i] = 10;
        load[2 * i] = 1;
    }
    const struct ep_place_judgement a = {.shape = two,
                                         .num_blocks = BLOCKS,
                                         .block_load = load,
                                         .block_remote_rows = a_rows,
                                         .block_cross_rows = b_rows};
    const struct ep_place_judgement b = {.shape = two,
                                         .num_blocks = BLOCKS,
                                         .block_load = load,
                                         .block_remote_rows = b_rows,
                                         .block_cross_rows = b_rows};
    struct ep_place_judgement few = a;
    struct ep_place_difference d, again;
    (void)state;
    CHECK_OK(ep_place_compare(&a, &b, 4000, 0.025, 1, &d));
    CHECK_NEAR(d.remote_rows.value, 0, 1e-15);
    CHECK_NEAR(d.remote_rows.low, -0.4, 1e-12);
    CHECK_NEAR(d.remote_rows.high, 0.4, 1e-12);
    CHECK_NEAR(d.cross_rows.high, 0, 1e-15);
    CHECK_OK(ep_place_compare(&a, &b, 4000, 0.025, 1, &again));
    assert_memory_equal(&d, &again, sizeof d);
    /* too few blocks, or no draws: a value, no interval */
    few.num_blocks = EP_PLACE_MIN_BLOCKS - 1;
    CHECK_OK(ep_place_compare(&few, &few, 4000, 0.025, 1, &d));
    CHECK_NEAR(d.remote_rows.value, 0, 0);
    assert_true(isnan(d.remote_rows.low) && isnan(d.remote_rows.high));
    CHECK_OK(ep_place_compare(&a, &b, 0, 0.025, 1, &d));
    assert_true(isnan(d.remote_rows.low));
}

/* --- following the load -------------------------------------------------------------------- */

static void test_match(void **state)
{
    static const struct ep_place_shape shape = {8, 4, 2, 1, 8};
    static const int32_t old[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    int32_t renamed[8] = {7, 6, 5, 4, 1, 0, 3, 2}; /* nodes, ranks and slots the other way round */
    int32_t moved[8] = {0, 1, 2, 7, 4, 5, 6, 3};   /* 3 and 7 have changed places */
    int32_t replica[4] = {0, 1, 0, 0};             /* of shape 2 experts, 2 ranks */
    static const struct ep_place_shape small = {2, 2, 1, 1, 4};
    static const int32_t before[4] = {0, 1, 1, 1};
    (void)state;
    assert_int_equal(ep_place_count_moved(&shape, old, renamed), 8);
    CHECK_OK(ep_place_match(&shape, old, renamed));
    assert_memory_equal(renamed, old, sizeof old);
    CHECK_OK(ep_place_match(&shape, old, moved));
    assert_int_equal(ep_place_count_moved(&shape, old, moved), 2);
    /* rank 1 held expert 1 alone and now holds 0: one expert to fetch, however many slots */
    assert_int_equal(ep_place_count_moved(&small, before, replica), 1);
}

enum { FOLLOWED = 1200, WINDOW = 100 };

/* 8 experts, one per token; experts 0 and 1 are hot for 600 tokens, then 6 and 7. */
static void drift(int32_t *topk_idx)
{
    struct ep_random random;
    ep_random_init(&random, 5, EP_RANDOM_TEST, 2);
    for (int t = 0; t < FOLLOWED; t++) {
        const int32_t hot = t < FOLLOWED / 2 ? 0 : 6;
        topk_idx[t] = ep_random_below(&random, 4) > 0 ? hot + (int32_t)ep_random_below(&random, 2)
                                                      : (int32_t)ep_random_below(&random, 8);
    }
}

static void test_follow(void **state)
{
    static const struct ep_place_shape shape = {8, 4, 2, 1, 12};
    static const double load[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    int32_t topk_idx[FOLLOWED];
    int32_t start[12];
    drift(topk_idx);
    const struct ep_place_tokens tokens = {FOLLOWED, 1, topk_idx};
    const struct ep_place_tokens half = {FOLLOWED / 2, 1, topk_idx};
    const struct ep_place_task task = {.shape = shape, .load = load};
    struct ep_place_dynamic_options options = {&ep_place_eplb_global, WINDOW, 2, 0.05};
    struct ep_place_dynamic d, short_sighted, stubborn;
    int64_t replicas[8];
    int64_t moved = 0, replaced = 0;
    (void)state;
    CHECK_OK(ep_place_run(&ep_place_eplb_global, &task, start));
    CHECK_OK(ep_place_follow(&task, &tokens, start, &options, &d));
    assert_int_equal(d.num_windows, 12);
    assert_int_equal(d.num_looks, 5); /* before windows 2, 4, 6, 8, 10 */
    assert_memory_equal(d.maps, start, sizeof start);
    for (int64_t w = 0; w < d.num_windows; w++) {
        const int32_t *map = d.maps + w * 12;
        CHECK_OK(ep_place_count_replicas(&shape, map, replicas)); /* none lost, 12 in all */
        if (w > 0) {
            moved += ep_place_count_moved(&shape, map - 12, map);
            replaced += memcmp(map - 12, map, sizeof start) != 0;
        }
    }
    assert_int_equal(moved, d.experts_moved);
    assert_int_equal(replaced, d.num_replaced);
    /* once at the start and once after the drift, at least */
    assert_true(d.num_replaced >= 2);
    assert_memory_not_equal(d.maps + 5 * 12, d.maps + 11 * 12, sizeof start);
    /* what comes later changes nothing before */
    CHECK_OK(ep_place_follow(&task, &half, start, &options, &short_sighted));
    assert_memory_equal(d.maps, short_sighted.maps, 6 * sizeof start);
    /* nothing is worth it */
    options.hysteresis = 1;
    CHECK_OK(ep_place_follow(&task, &tokens, start, &options, &stubborn));
    assert_int_equal(stubborn.num_replaced, 0);
    assert_int_equal(stubborn.experts_moved, 0);
    ep_place_dynamic_fini(&d);
    ep_place_dynamic_fini(&short_sighted);
    ep_place_dynamic_fini(&stubborn);
}

/* The load drifts, so following it must pay: less max/mean over all tokens than standing still. */
static void test_follow_pays(void **state)
{
    static const struct ep_place_shape shape = {8, 4, 1, 1, 8};
    int32_t topk_idx[FOLLOWED];
    int32_t start[8];
    double load[8] = {0};
    struct ep_place_dynamic d;
    struct ep_place_judgement moving, still;
    (void)state;
    drift(topk_idx);
    for (int t = 0; t < FOLLOWED / 2; t++) {
        load[topk_idx[t]]++;
    }
    const struct ep_place_tokens later = {FOLLOWED / 2, 1, topk_idx + FOLLOWED / 2};
    const struct ep_place_task task = {.shape = shape, .load = load};
    const struct ep_place_dynamic_options options = {&ep_place_eplb, WINDOW, 1, 0.05};
    CHECK_OK(ep_place_run(&ep_place_eplb, &task, start));
    CHECK_OK(ep_place_follow(&task, &later, start, &options, &d));
    const struct ep_place_schedule moves = {d.maps, d.num_windows, WINDOW};
    const struct ep_place_schedule stands = {start, 1, FOLLOWED / 2};
    CHECK_OK(ep_place_judge(&shape, &later, &moves, 1, 1, &moving));
    CHECK_OK(ep_place_judge(&shape, &later, &stands, 1, 1, &still));
    assert_true(ep_place_max_over_mean(moving.rank_load, 4) <
                ep_place_max_over_mean(still.rank_load, 4));
    ep_place_judgement_fini(&moving);
    ep_place_judgement_fini(&still);
    ep_place_dynamic_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge_by_hand),
        cmocka_unit_test(test_judge_windows),
        cmocka_unit_test(test_judge_replicas),
        cmocka_unit_test(test_judge_error),
        cmocka_unit_test(test_compare_constant),
        cmocka_unit_test(test_compare_interval),
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_follow_pays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
