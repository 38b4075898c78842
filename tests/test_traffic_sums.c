/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: sums without matrices are those of the matrices, whatever the threads. */
#include "tests/check.h"

#include "base/parallel.h"
#include "kernels/routing.h"
#include "kernels/traffic_sums.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEST_RANKS = 100 };

static void check_equal(const struct ep_traffic *matrices, const struct ep_traffic_sums *sums)
{
    const int64_t n = sums->num_ranks;
    int64_t *rows = malloc((size_t)(n * n) * sizeof *rows);
    int64_t loads[MAX_TEST_RANKS];
    for (int stage = 0; stage < EP_TRAFFIC_NUM_STAGES; stage++) {
        if (stage == EP_TRAFFIC_FAN_OUT) {
            ep_traffic_fill_fan_out(matrices, rows);
        } else {
            ep_traffic_fill_rows(matrices, (enum ep_basis)stage, rows);
        }
        struct ep_traffic_totals expected;
        ep_traffic_sum(rows, n, &expected);
        const struct ep_traffic_totals found = ep_traffic_sums_totals(sums, stage);
        assert_memory_equal(&found, &expected, sizeof found);
        for (int64_t i = 0; i < n; i++) {
            int64_t out = 0;
            int64_t in = 0;
            for (int64_t j = 0; j < n; j++) {
                out += i == j ? 0 : rows[i * n + j];
                in += i == j ? 0 : rows[j * n + i];
            }
            assert_int_equal(sums->out[stage][i], out);
            assert_int_equal(sums->in[stage][i], in);
        }
    }
    ep_traffic_fill_loads(matrices, loads);
    assert_memory_equal(sums->received, loads, (size_t)n * sizeof *loads);
    assert_memory_equal(sums->expert_copies, matrices->expert_copies,
                        (size_t)sums->num_experts * sizeof *sums->expert_copies);
    const size_t fan_out = (size_t)(sums->top_k + 1) * sizeof *sums->rank_fan_out;
    assert_memory_equal(sums->rank_fan_out, matrices->rank_fan_out, fan_out);
    assert_memory_equal(sums->node_fan_out, matrices->node_fan_out, fan_out);
    for (int64_t i = 0; i < n; i++) {
        int64_t sent = 0;
        for (int64_t j = 0; j < n; j++) {
            sent += matrices->copies[i * n + j];
        }
        assert_int_equal(sums->sent[i], sent);
    }
    free(rows);
}

static int64_t max_done;

static void note_progress(int64_t num_done, int64_t num_ranks)
{
    assert_true(num_done <= num_ranks);
    max_done = num_done > max_done ? num_done : max_done;
}

static void test_sums_are_those_of_matrices(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        int64_t experts;
        int64_t top_k;
        int64_t ranks;
        int64_t nodes;
        int64_t tokens;
    } cases[] = {
        {"uniform", 16, 4, 1, 1, 100},
        {"zipf:1", 16, 4, 8, 2, 513},
        {"zipf:1+masked:0.3", 64, 6, 64, 8, 90},
        {"uniform", 256, 8, 96, 12, 70},
        {"zipf:0.7", 5, 3, 3, 3, 64},
        {"hot:3@2", 8, 2, 16, 4, 200},
        {"zipf:2+source", 4, 2, 80, 5, 37},
        {"khot:2:0.9", 128, 8, 72, 3, 33},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct ep_skew *skew = NULL;
        struct ep_placement placement;
        struct ep_token_map tokens;
        struct ep_router *router = NULL;
        struct ep_traffic matrices;
        int32_t rank_node[MAX_TEST_RANKS];
        int64_t counts[MAX_TEST_RANKS];
        for (int64_t r = 0; r < cases[c].ranks; r++) {
            rank_node[r] = (int32_t)(r % cases[c].nodes); /* not blocks, and unequal */
            counts[r] = cases[c].tokens + r % 3 - 1;
        }
        CHECK_OK(ep_skew_create(cases[c].skew, &skew));
        CHECK_OK(ep_placement_init_contiguous(cases[c].experts, cases[c].ranks, &placement));
        CHECK_OK(ep_token_map_init_counts(cases[c].ranks, counts, &tokens));
        const struct ep_router_config config = {.skew = skew,
                                                .placement = &placement,
                                                .tokens = &tokens,
                                                .top_k = cases[c].top_k,
                                                .seed = c};
        CHECK_OK(ep_router_create(&config, &router));
        CHECK_OK(ep_traffic_init(&placement, rank_node, cases[c].nodes, cases[c].top_k, &matrices));
        CHECK_OK(ep_traffic_add_router(&matrices, router));
        const struct ep_traffic_input input = ep_traffic_input_of_router(router);
        static const int threads[] = {0, 1, 2, 7};
        for (int i = 0; i < 4; i++) {
            struct ep_traffic_sums sums;
            const struct ep_traffic_effort effort = {.num_threads = threads[i],
                                                     .progress = note_progress};
            max_done = 0;
            CHECK_OK(ep_traffic_sums_init(&placement, rank_node, cases[c].nodes, &input, &effort,
                                          &sums));
            assert_int_equal(max_done, cases[c].ranks);
            check_equal(&matrices, &sums);
            ep_traffic_sums_fini(&sums);
        }
        struct ep_traffic again;
        CHECK_OK(ep_traffic_init(&placement, rank_node, cases[c].nodes, cases[c].top_k, &again));
        CHECK_OK(ep_traffic_add_input(&again, &input));
        assert_memory_equal(again.ranks, matrices.ranks,
                            (size_t)(cases[c].ranks * cases[c].ranks) * sizeof *again.ranks);
        ep_traffic_fini(&again);
        ep_traffic_fini(&matrices);
        ep_router_destroy(router);
        ep_token_map_fini(&tokens);
        ep_placement_fini(&placement);
        ep_skew_destroy(skew);
    }
}

/* One source after another: token t of 4 ranks with 2 experts each goes to experts t and 9. */
static void fill_bad(const void *context, int64_t first_token, int64_t num_tokens,
                     struct ep_routing *routing)
{
    (void)context;
    for (int64_t t = 0; t < num_tokens; t++) {
        routing->topk_idx[2 * t] = (int32_t)(first_token + t);
        routing->topk_idx[2 * t + 1] = first_token + t == 3 ? 9 : -1;
    }
}

static void test_failures_of_threads_are_said(void **state)
{
    (void)state;
    struct ep_placement placement;
    struct ep_token_map tokens;
    struct ep_traffic_sums sums;
    CHECK_OK(ep_placement_init_contiguous(8, 4, &placement));
    CHECK_OK(ep_token_map_init_equal(4, 1, &tokens));
    const struct ep_traffic_input input = {
        .tokens = &tokens, .num_experts = 8, .top_k = 2, .fill = fill_bad};
    const struct ep_traffic_effort effort = {.num_threads = 3};
    CHECK_FAILS(ep_traffic_sums_init(&placement, NULL, 1, &input, &effort, &sums), EP_EINVAL,
                "expert 9 is outside -1 to 7");
    ep_token_map_fini(&tokens);
    ep_placement_fini(&placement);
}

static enum ep_status square(void *context, int thread, int64_t item)
{
    (void)thread;
    int64_t *squares = context;
    squares[item] += item * item;
    return EP_OK;
}

static void test_each_item_is_done_once(void **state)
{
    (void)state;
    int64_t squares[1000] = {0};
    const struct ep_parallel loop = {.context = squares, .body = square};
    CHECK_OK(ep_parallel_run(&loop, 1000, 5));
    CHECK_OK(ep_parallel_run(&loop, 0, 5));
    for (int64_t i = 0; i < 1000; i++) {
        assert_int_equal(squares[i], i * i);
    }
    assert_true(ep_parallel_cores() >= 1);
}

/* 4 experts on ranks 1 and 4 of 6: {0, 1} and {2, 3}; on 1, 3, 4 and 5 of 6, 2 experts have two
 * replicas each: source s uses replica s mod 2. */
static void test_experts_on_some_ranks(void **state)
{
    (void)state;
    struct ep_placement p;
    int32_t *ranks = NULL;
    int64_t num = 0;
    CHECK_OK(ep_placement_parse_ranks("1,4", "--x", 6, &ranks, &num));
    assert_int_equal(num, 2);
    CHECK_OK(ep_placement_init_subset(4, 6, ranks, num, &p));
    static const int expected[] = {1, 1, 4, 4};
    for (int e = 0; e < 4; e++) {
        assert_int_equal(ep_placement_rank(&p, e, 5), expected[e]);
    }
    assert_int_equal(p.num_ranks, 6);
    ep_placement_fini(&p);
    free(ranks);
    CHECK_OK(ep_placement_parse_ranks("1,3-5", "--x", 6, &ranks, &num));
    assert_int_equal(num, 4);
    CHECK_OK(ep_placement_init_subset(2, 6, ranks, num, &p));
    assert_int_equal(ep_placement_rank(&p, 0, 0), 1);
    assert_int_equal(ep_placement_rank(&p, 0, 3), 3);
    assert_int_equal(ep_placement_rank(&p, 1, 2), 4);
    assert_int_equal(ep_placement_rank(&p, 1, 5), 5);
    ep_placement_fini(&p);
    CHECK_FAILS(ep_placement_init_subset(3, 6, ranks, num, &p), EP_EINVAL, "4 ranks for 3 experts");
    free(ranks);
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {{"6", "outside 0 to 5"},
               {"3-1", "runs backwards"},
               {"0-3,2", "rank 2 after 3"},
               {"1,1", "rank 1 after 1"},
               {"", "empty"},
               {"0-", "not a whole number"},
               {"-1", "not a whole"},
               {"0-9", "outside 0 to 5"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(ep_placement_parse_ranks(bad[i].text, "--x", 6, &ranks, &num), EP_EINVAL,
                    bad[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_those_of_matrices),
        cmocka_unit_test(test_failures_of_threads_are_said),
        cmocka_unit_test(test_each_item_is_done_once),
        cmocka_unit_test(test_experts_on_some_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
