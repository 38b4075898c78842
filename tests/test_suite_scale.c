/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes that fit slow links, worked by hand. */
#include "tests/check.h"

#include "bench/suite_scale.h"

#include <math.h>
#include <stdlib.h>

static void check_divided(const char *tokens, int64_t divisor, const char *expected)
{
    char *text = ep_suite_divided_tokens(tokens, divisor);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void check_skews(int64_t num_nodes, int64_t ranks_per_node, const char *expected)
{
    char *text = ep_suite_skews_of_nodes("uniform,hot:4", num_nodes, ranks_per_node);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void test_skews_of_nodes(void **state)
{
    (void)state;
    check_skews(1, 8, "uniform,hot:4");
    check_skews(4, 1, "uniform,hot:4"); /* a rank has its NIC alone */
    check_skews(2, 4, "uniform,hot:4,hot:2@0-1,hot:2@0/4");
}

static void test_divided_tokens(void **state)
{
    (void)state;
    check_divided("64,512,2048", 32, "2,16,64");
    check_divided("64,512,2048", 1, "64,512,2048");
    check_divided("1,4,16,64", 8, "1,2,8"); /* 1/8, 4/8 -> 1, once */
    check_divided("9", 2, "4");
}

/* 4 ranks, two on each of two hosts: of 16 pairs (ordered, own ones too) 4 x 2 = 8 cross, 2 x 2 = 4 do not.
 * 100 B/s each at once over the network, 1000 B/s inside: 0.5 / 100 > 0.25 / 1000. */
static void test_seconds_per_byte(void **state)
{
    (void)state;
    struct ep_topo_level levels[] = {{.num_pairs = 0}, {.num_pairs = 2}, {.num_pairs = 4}};
    const struct ep_topo topo = {.num_ranks = 4, .num_levels = 3, .levels = levels};
    struct ep_links_level measured[] = {
        {.level = 1, .large_bw_bytes_per_s = 2000, .all_large_bw_bytes_per_s = 1000},
        {.level = 2, .large_bw_bytes_per_s = 200, .all_large_bw_bytes_per_s = 100}};
    const struct ep_links_summary links = {.levels = measured, .num_levels = 2};
    CHECK_NEAR(ep_suite_seconds_per_byte(&topo, &links), 0.005, 1e-12);
    measured[1].all_large_bw_bytes_per_s = NAN; /* no second pair: one at a time counts */
    CHECK_NEAR(ep_suite_seconds_per_byte(&topo, &links), 0.0025, 1e-12);
    measured[1].large_bw_bytes_per_s = NAN;
    CHECK_NEAR(ep_suite_seconds_per_byte(&topo, &links), 0.00025, 1e-12);
    const struct ep_links_summary none = {0};
    CHECK_NEAR(ep_suite_seconds_per_byte(&topo, &none), 0, 0);
}

/* 2 tokens x top-2 x 8 bytes (bf16, hidden 4) = 32 bytes, and 3 x 1 x 16 (fp32) = 48: 80 bytes at 0.5 s each,
 * 2 visits of 27 repetitions. */
static void test_least_time(void **state)
{
    (void)state;
    const struct ep_comm_case cases[] = {
        {.tokens = 2, .top_k = 2, .hidden = 4, .dtype = EP_BF16},
        {.tokens = 3, .top_k = 1, .hidden = 4, .dtype = EP_FP32}};
    CHECK_NEAR(ep_suite_least_time(cases, 2, 2, 0.5), 80 * 0.5 * 2 * 27, 1e-9);
    CHECK_NEAR(ep_suite_least_time(cases, 2, 2, 0), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_divided_tokens),
                                       cmocka_unit_test(test_skews_of_nodes),
                                       cmocka_unit_test(test_seconds_per_byte),
                                       cmocka_unit_test(test_least_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
