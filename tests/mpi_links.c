/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between pairs: they arrive whole, wrong ones are noticed, failures reach every rank. */
#include "tests/check.h"

#include "bench/links.h"

#include <stdio.h>
#include <unistd.h>

static struct ep_comm *world;

static void measure(enum ep_links_pattern pattern, int64_t size_bytes, int64_t (*pairs)[2],
                    int64_t num_pairs, struct ep_links_check *check)
{
    struct ep_arena *arena = NULL;
    struct ep_harness_result result = {0};
    int64_t repetitions = 0;
    struct ep_os_counters counters;
    const struct ep_links_case work = {.pattern = pattern,
                                       .size_bytes = size_bytes,
                                       .pairs = (const int64_t(*)[2])pairs,
                                       .num_pairs = num_pairs,
                                       .seed = 7};
    CHECK_OK(ep_arena_create(64 << 20, EP_PAGES_4K, &arena));
    CHECK_OK(ep_links_measure(world, arena, &work, 0.002, &result, &repetitions, &counters, check));
    assert_true(result.num >= 3);
    assert_true(repetitions >= 1);
    assert_true(result.summary.min > 0);
    assert_int_equal(result.repetitions, repetitions);
    ep_harness_result_fini(&result);
    ep_arena_destroy(arena);
}

static void test_window_size(void **state)
{
    (void)state;
    assert_int_equal(ep_links_window(8), 16);
    assert_int_equal(ep_links_window(1 << 20), 16);
    assert_int_equal(ep_links_window(4 << 20), 4);
    assert_int_equal(ep_links_window(3 << 20), 5);
    assert_int_equal(ep_links_window(1 << 30), 2);
}

static void test_one_pair(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    if (size < 2) {
        return;
    }
    int64_t pairs[1][2] = {{size - 1, 0}};
    static const int64_t sizes[] = {1, 7, 4096, 65537, 1 << 20};
    struct ep_links_check check;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        measure(EP_LINKS_PINGPONG, sizes[i], pairs, 1, &check);
        assert_int_equal(check.messages, 2); /* one each way */
        assert_int_equal(check.wrong, 0);
        measure(EP_LINKS_WINDOW, sizes[i], pairs, 1, &check);
        assert_int_equal(check.messages, 16);
        assert_int_equal(check.wrong, 0);
    }
}

static void test_pairs_at_once(void **state)
{
    (void)state;
    const int64_t num = ep_comm_size(world) / 2;
    int64_t pairs[8][2];
    struct ep_links_check check;
    if (num < 1) {
        return;
    }
    for (int64_t p = 0; p < num; p++) {
        pairs[p][0] = p;
        pairs[p][1] = p + num;
    }
    measure(EP_LINKS_PINGPONG, 100, pairs, num, &check);
    assert_int_equal(check.messages, 2 * num);
    assert_int_equal(check.wrong, 0);
    measure(EP_LINKS_WINDOW, 100, pairs, num, &check);
    assert_int_equal(check.messages, 16 * num);
    assert_int_equal(check.wrong, 0);
}

/* Ranks that disagree about the contents stand for a network that damages them. */
static void test_wrong_contents(void **state)
{
    (void)state;
    if (ep_comm_size(world) < 2) {
        return;
    }
    struct ep_arena *arena = NULL;
    CHECK_OK(ep_arena_create(64 << 20, EP_PAGES_4K, &arena));
    const int64_t pairs[1][2] = {{0, 1}};
    for (int pattern = 0; pattern < EP_LINKS_NUM_PATTERNS; pattern++) {
        struct ep_harness_result result = {0};
        struct ep_links_check check;
        int64_t repetitions = 0;
    struct ep_os_counters counters;
        const struct ep_links_case work = {.pattern = (enum ep_links_pattern)pattern,
                                           .size_bytes = 33,
                                           .pairs = pairs,
                                           .num_pairs = 1,
                                           .seed = (uint64_t)ep_comm_rank(world)};
        CHECK_OK(ep_links_measure(world, arena, &work, 0.001, &result, &repetitions, &counters,
                                  &check));
        assert_int_equal(check.wrong, check.messages);
        assert_true(check.wrong > 0);
        ep_harness_result_fini(&result);
    }
    ep_arena_destroy(arena);
}

static void test_no_room(void **state)
{
    (void)state;
    if (ep_comm_size(world) < 2) {
        return;
    }
    struct ep_arena *arena = NULL;
    struct ep_harness_result result = {0};
    struct ep_links_check check;
    int64_t repetitions = 0;
    struct ep_os_counters counters;
    const int64_t pairs[1][2] = {{0, 1}};
    const struct ep_links_case work = {
        .pattern = EP_LINKS_WINDOW, .size_bytes = 8 << 20, .pairs = pairs, .num_pairs = 1};
    CHECK_OK(ep_arena_create(4 << 20, EP_PAGES_4K, &arena));
    /* ranks outside the pair hear of it too */
    CHECK_FAILS(ep_links_measure(world, arena, &work, 0.001, &result, &repetitions, &counters,
                                 &check),
                EP_ENOMEM, "messages to be sent");
    ep_error_clear();
    ep_arena_destroy(arena);
}

int main(void)
{
    if (ep_comm_init(&world) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_size), cmocka_unit_test(test_one_pair),
        cmocka_unit_test(test_pairs_at_once), cmocka_unit_test(test_wrong_contents),
        cmocka_unit_test(test_no_room),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ep_comm_finalize(world);
    return failed;
}
