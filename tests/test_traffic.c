/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: row counts in three bases, features of a matrix, imbalance, and closed forms. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/features.h"
#include "kernels/imbalance.h"
#include "kernels/traffic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Ranks in nodes of `per_node`, for up to 256 ranks. */
static const int32_t *blocks(int64_t num_ranks, int64_t per_node)
{
    static int32_t rank_node[256];
    for (int64_t r = 0; r < num_ranks; r++) {
        rank_node[r] = (int32_t)(r / per_node);
    }
    return rank_node;
}

static void test_counts_by_hand(void **state)
{
    (void)state;
    /* 6 experts on 3 ranks: {0 1} {2 3} {4 5}; ranks 0 and 1 on node 0, rank 2 on node 1. */
    struct ep_placement p;
    struct ep_traffic t;
    const int32_t rank_node[] = {0, 0, 1};
    const int32_t rank0[] = {0, 1, 2,     /* ranks 0 1, node 0 */
                             4, 5, -1,    /* rank 2, node 1 */
                             0, 2, 4};    /* all three ranks, both nodes */
    const int32_t rank2[] = {5,  5,  5,   /* one expert three times: three copies, one rank */
                             -1, -1, -1}; /* nowhere */
    CHECK_OK(ep_placement_init_contiguous(6, 3, &p));
    CHECK_OK(ep_traffic_init(&p, rank_node, 2, 3, &t));
    CHECK_OK(ep_traffic_add(&t, 0, rank0, 3));
    CHECK_OK(ep_traffic_add(&t, 2, rank2, 2));
    const int64_t copies[] = {3, 2, 3, 0, 0, 0, 0, 0, 3};
    const int64_t ranks[] = {2, 2, 2, 0, 0, 0, 0, 0, 1};
    const int64_t nodes[] = {2, 2, 0, 0, 0, 1};
    const int64_t experts[] = {2, 1, 2, 0, 2, 4};
    const int64_t rank_fan_out[] = {1, 2, 1, 1}; /* none; {2} {2}; {0 1}; all */
    const int64_t node_fan_out[] = {1, 3, 1, 0};
    assert_memory_equal(t.copies, copies, sizeof copies);
    assert_memory_equal(t.ranks, ranks, sizeof ranks);
    assert_memory_equal(t.nodes, nodes, sizeof nodes);
    assert_memory_equal(t.expert_copies, experts, sizeof experts);
    assert_memory_equal(t.rank_fan_out, rank_fan_out, sizeof rank_fan_out);
    assert_memory_equal(t.node_fan_out, node_fan_out, sizeof node_fan_out);
    assert_int_equal(t.tokens[0], 3);
    assert_int_equal(t.tokens[2], 2);

    struct ep_traffic_totals totals;
    ep_traffic_sum(t.copies, 3, &totals);
    assert_int_equal(totals.total, 11);
    assert_int_equal(totals.remote, 5);
    assert_int_equal(totals.max_out, 5);
    assert_int_equal(totals.max_in, 3);
    CHECK_FAILS(ep_traffic_add(&t, 1, (const int32_t[]){0, 1, 6}, 1), EP_EINVAL,
                "token 0, slot 2: expert 6 is outside -1 to 5");
    CHECK_FAILS(ep_traffic_add(&t, 1, (const int32_t[]){0, -2, 1}, 1), EP_EINVAL, "expert -2");
    assert_int_equal(t.tokens[1], 0);
    ep_traffic_fini(&t);
    ep_placement_fini(&p);
}

static void test_node_stages_by_hand(void **state)
{
    (void)state;
    /* 4 experts, one per rank; nodes {0 1} {2 3}. Rank 1 sends one token to experts 2 and 3. */
    struct ep_placement p;
    struct ep_traffic t;
    CHECK_OK(ep_placement_init_contiguous(4, 4, &p));
    CHECK_OK(ep_traffic_init(&p, blocks(4, 2), 2, 2, &t));
    CHECK_OK(ep_traffic_add(&t, 1, (const int32_t[]){2, 3}, 1));
    CHECK_OK(ep_traffic_add(&t, 0, (const int32_t[]){0, 1}, 1));
    /* rank 1 is second on its node, so the row lands on rank 3, which keeps one and sends one to
     * rank 2; rank 0's token stays on its node: fanned out from rank 0 itself */
    int64_t rows[16];
    const int64_t network[16] = {[0 * 4 + 0] = 1, [1 * 4 + 3] = 1};
    const int64_t fan_out[16] = {
        [0 * 4 + 0] = 1, [0 * 4 + 1] = 1, [3 * 4 + 2] = 1, [3 * 4 + 3] = 1};
    ep_traffic_fill_rows(&t, EP_BASIS_NODE, rows);
    assert_memory_equal(rows, network, sizeof rows);
    ep_traffic_fill_fan_out(&t, rows);
    assert_memory_equal(rows, fan_out, sizeof rows);
    ep_traffic_fini(&t);
    ep_placement_fini(&p);
}

/* Brute force: for each token and group, look at every slot. */
static void count_by_sets(const struct ep_placement *p, const int32_t *rank_node,
                          const int32_t *topk_idx, int64_t num_tokens, int64_t top_k,
                          int64_t source, int64_t num_nodes, int64_t *ranks, int64_t *nodes)
{
    for (int64_t t = 0; t < num_tokens; t++) {
        for (int64_t g = 0; g < p->num_ranks; g++) {
            int hit = 0;
            for (int64_t i = 0; i < top_k; i++) {
                const int32_t e = topk_idx[t * top_k + i];
                hit |= e >= 0 && ep_placement_rank(p, e, source) == g;
            }
            ranks[source * p->num_ranks + g] += hit;
        }
        for (int64_t n = 0; n < num_nodes; n++) {
            int hit = 0;
            for (int64_t i = 0; i < top_k; i++) {
                const int32_t e = topk_idx[t * top_k + i];
                hit |= e >= 0 && rank_node[ep_placement_rank(p, e, source)] == n;
            }
            nodes[source * num_nodes + n] += hit;
        }
    }
}

static void test_dedup_against_sets(void **state)
{
    (void)state;
    static const struct {
        int experts, ranks, per_node, top_k, tokens;
    } cases[] = {
        /* up to 64 ranks groups of 64 tokens are counted together, in blocks of 16,384 */
        {16, 4, 2, 4, 16453}, {10, 3, 1, 10, 165},   {7, 5, 5, 3, 64},    {8, 16, 4, 3, 200},
        {4, 1, 1, 2, 32770},  {64, 64, 8, 6, 165},   {65, 65, 5, 9, 165}, {128, 128, 8, 5, 70},
        {40, 120, 6, 8, 37},  {256, 64, 1, 40, 129}, {64, 8, 4, 8, 1111}, {8, 2, 1, 1, 63},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const int64_t num_ranks = cases[c].ranks;
        const int64_t k = cases[c].top_k;
        const int64_t num_tokens = cases[c].tokens;
        const int64_t num_nodes = num_ranks / cases[c].per_node;
        const int32_t *rank_node = blocks(num_ranks, cases[c].per_node);
        struct ep_placement p;
        struct ep_traffic t;
        struct ep_random random;
        CHECK_OK(ep_placement_init_contiguous(cases[c].experts, num_ranks, &p));
        CHECK_OK(ep_traffic_init(&p, rank_node, num_nodes, k, &t));
        int64_t *ranks = calloc((size_t)(num_ranks * num_ranks), sizeof *ranks);
        int64_t *nodes = calloc((size_t)(num_ranks * num_nodes), sizeof *nodes);
        int32_t *idx = malloc((size_t)(num_tokens * k) * sizeof *idx);
        ep_random_init(&random, 3, EP_RANDOM_TEST, c);
        int64_t used = 0;
        for (int64_t s = 0; s < num_ranks; s++) {
            for (int64_t i = 0; i < num_tokens * k; i++) { /* with repeats and unused slots */
                idx[i] = (int32_t)ep_random_below(&random, (uint32_t)cases[c].experts + 1) - 1;
                used += idx[i] >= 0;
            }
            CHECK_OK(ep_traffic_add(&t, s, idx, num_tokens));
            count_by_sets(&p, rank_node, idx, num_tokens, k, s, num_nodes, ranks, nodes);
        }
        assert_memory_equal(t.ranks, ranks, (size_t)(num_ranks * num_ranks) * sizeof *ranks);
        assert_memory_equal(t.nodes, nodes, (size_t)(num_ranks * num_nodes) * sizeof *nodes);

        /* conservation: copies = used slots; fan-out counts every token once, and its sum is rows
         */
        struct ep_traffic_totals copies;
        struct ep_traffic_totals dedup;
        int64_t loads = 0;
        int64_t tokens = 0;
        int64_t rows = 0;
        ep_traffic_sum(t.copies, num_ranks, &copies);
        ep_traffic_sum(t.ranks, num_ranks, &dedup);
        for (int64_t e = 0; e < cases[c].experts; e++) {
            loads += t.expert_copies[e];
        }
        for (int64_t n = 0; n <= k; n++) {
            tokens += t.rank_fan_out[n];
            rows += n * t.rank_fan_out[n];
        }
        assert_int_equal(copies.total, used);
        assert_int_equal(loads, used);
        assert_int_equal(tokens, num_tokens * num_ranks);
        assert_int_equal(rows, dedup.total);

        /* both stages of node-dedup: the network carries nodes' rows, fan-out gives every rank
         * exactly its dedup rows */
        int64_t *stage = malloc((size_t)(num_ranks * num_ranks) * sizeof *stage);
        int64_t network = 0;
        for (int64_t i = 0; i < num_ranks * num_nodes; i++) {
            network += nodes[i];
        }
        ep_traffic_fill_rows(&t, EP_BASIS_NODE, stage);
        ep_traffic_sum(stage, num_ranks, &dedup);
        assert_int_equal(dedup.total, network);
        ep_traffic_fill_fan_out(&t, stage);
        for (int64_t j = 0; j < num_ranks; j++) {
            int64_t in = 0;
            int64_t expected = 0;
            for (int64_t i = 0; i < num_ranks; i++) {
                in += stage[i * num_ranks + j];
                expected += ranks[i * num_ranks + j];
                assert_true(stage[i * num_ranks + j] == 0 || rank_node[i] == rank_node[j]);
            }
            assert_int_equal(in, expected);
        }
        free(stage);
        free(idx);
        free(nodes);
        free(ranks);
        ep_traffic_fini(&t);
        ep_placement_fini(&p);
    }
}

static void test_expected_groups(void **state)
{
    (void)state;
    /* DeepEP's table for 256 experts, top-8 */
    static const double expected[] = {1.993, 3.614, 5.295, 6.523, 7.267, 7.676, 7.890};
    for (int i = 0; i < 7; i++) {
        CHECK_NEAR(ep_traffic_expected_groups(256, 8, 2 << i), expected[i], 0.0005);
    }
    CHECK_NEAR(ep_traffic_expected_groups(256, 8, 256), 8, 1e-12);
    CHECK_NEAR(ep_traffic_expected_groups(8, 8, 4), 4, 1e-12); /* k = E reaches every group */
    CHECK_NEAR(ep_traffic_expected_groups(4, 2, 1), 1, 1e-12);
    /* 4 experts in 2 groups, top-2: of 6 pairs 2 lie in one group: (2 * 1 + 4 * 2) / 6 */
    CHECK_NEAR(ep_traffic_expected_groups(4, 2, 2), 10.0 / 6, 1e-12);
}

/* Counted dedup of uniform routing meets U(G). A token's distinct groups have a standard deviation
 * below 1, so the mean of 65,536 tokens has one below 1/256; 4 of these are allowed. */
static void test_uniform_meets_closed_form(void **state)
{
    (void)state;
    static const double expected[] = {1.993, 3.614, 5.295, 6.523, 7.267, 7.676, 7.890};
    for (int i = 0; i < 7; i++) {
        const int64_t num_ranks = 2 << i;
        struct ep_skew *skew = NULL;
        struct ep_placement p;
        struct ep_token_map map;
        struct ep_router *router = NULL;
        struct ep_traffic t;
        struct ep_traffic_totals totals;
        CHECK_OK(ep_skew_create("uniform", &skew));
        CHECK_OK(ep_placement_init_contiguous(256, num_ranks, &p));
        CHECK_OK(ep_token_map_init_equal(num_ranks, 65536 / num_ranks, &map));
        const struct ep_router_config config = {
            .skew = skew, .placement = &p, .tokens = &map, .top_k = 8, .seed = 11};
        CHECK_OK(ep_router_create(&config, &router));
        CHECK_OK(ep_traffic_init(&p, NULL, 1, 8, &t));
        CHECK_OK(ep_traffic_add_router(&t, router));
        ep_traffic_sum(t.ranks, num_ranks, &totals);
        CHECK_NEAR((double)totals.total / 65536, expected[i], 4.0 / 256 + 0.0005);
        /* and it is uniform: 2048 copies per expert expected, standard deviation 45 */
        for (int e = 0; e < 256; e++) {
            assert_in_range(t.expert_copies[e], 2048 - 230, 2048 + 230);
        }
        ep_traffic_fini(&t);
        ep_router_destroy(router);
        ep_token_map_fini(&map);
        ep_placement_fini(&p);
        ep_skew_destroy(skew);
    }
}

static int64_t parity_level(void *context, int64_t i, int64_t j)
{
    (*(int64_t *)context)++;
    return (i + j) % 2;
}

/* Five ranks: 0->1 10 in step 1, 2->4 7 in step 2, which 2 and 4 begin while 0 and 1 are at it. */
static void test_schedule(void **state)
{
    (void)state;
    int64_t rows[25] = {0};
    rows[0 * 5 + 1] = 10;
    rows[2 * 5 + 4] = 7;
    const struct ep_features_config config = {.num_ranks = 5, .row_bytes = 1};
    struct ep_features f;
    CHECK_OK(ep_features_init(rows, &config, &f));
    assert_int_equal(f.step_sum_bytes, 17);
    assert_int_equal(f.step_port_bytes, 17);
    assert_int_equal(f.schedule_bytes, 10);
    ep_features_fini(&f);
}

static void test_features_by_hand(void **state)
{
    (void)state;
    /* rows of 10 bytes; ranks 0 1 on node 0, ranks 2 3 on node 1; NICs: rank 0 and 1 share one */
    const int64_t rows[16] = {9, 1, 2, 0,  /* out 3, in 0 + 4 + 0 = 4 */
                              0, 1, 0, 5,  /* out 5, in 1 */
                              4, 0, 0, 0,  /* out 4, in 2 */
                              0, 0, 0, 2}; /* out 0, in 5 */
    const int32_t rank_node[] = {0, 0, 1, 1};
    const int32_t rank_nic[] = {0, 0, 1, 2};
    int64_t calls = 0;
    const struct ep_features_config config = {.num_ranks = 4,
                                              .row_bytes = 10,
                                              .rank_node = rank_node,
                                              .rank_nic = rank_nic,
                                              .num_levels = 2,
                                              .level = parity_level,
                                              .context = &calls};
    struct ep_features f;
    CHECK_OK(ep_features_init(rows, &config, &f));
    assert_int_equal(f.total_bytes, 240);
    assert_int_equal(f.remote_bytes, 120);
    assert_int_equal(f.max_out_bytes, 50);
    assert_int_equal(f.max_in_bytes, 50);
    CHECK_NEAR(f.mean_out_bytes, 30, 0);
    assert_int_equal(f.h_rank_bytes, 50);
    assert_int_equal(f.busiest_rank, 1);
    /* off-node: out of node 0: 0->2 20 + 1->3 50 = 70, into it 2->0 40 */
    assert_int_equal(f.h_node_bytes, 70);
    assert_int_equal(f.h_nic_bytes, 70);
    assert_int_equal(f.self_bytes_max, 90);
    /* step 1: D[0][1] 1, [1][2] 0, [2][3] 0, [3][0] 0 -> 1; step 2: [0][2] 2, [1][3] 5, [2][0] 4,
     * [3][1] 0 -> 5; step 3: all 0 */
    assert_int_equal(f.step_sum_bytes, 60);
    /* in step 2 0->2 20 and 1->3 50 leave node 0 together; 0->1 stays on it */
    assert_int_equal(f.step_port_bytes, 70);
    /* 0->1 until 10, then 1->3 until 60; 2->0 from 10 to 50 */
    assert_int_equal(f.schedule_bytes, 60);
    assert_int_equal(f.messages_max, 3);
    assert_int_equal(f.messages_nonzero_max, 2);
    /* rank 1 sends one message of 50 bytes: bin 5 holds 32 to 63 */
    assert_int_equal(f.hist[5].count, 1);
    assert_int_equal(f.hist[5].bytes, 50);
    /* level 1: odd sums, 0->1 only; level 0: the rest */
    assert_int_equal(f.levels[1].total_bytes, 10);
    assert_int_equal(f.levels[1].max_in_bytes, 10);
    assert_int_equal(f.levels[0].total_bytes, 110);
    assert_int_equal(f.levels[0].max_out_bytes, 50);
    assert_int_equal(f.levels[0].messages_max, 1);
    assert_int_equal(f.levels[0].hist[5].count, 1);
    assert_true(calls > 0);
    ep_features_fini(&f);

    /* one node, no NIC known, one rank */
    const int64_t one[] = {7};
    CHECK_OK(
        ep_features_init(one, &(struct ep_features_config){.num_ranks = 1, .row_bytes = 10}, &f));
    assert_int_equal(f.h_nic_bytes, -1);
    assert_int_equal(f.h_node_bytes, 0);
    assert_int_equal(f.remote_bytes, 0);
    assert_int_equal(f.total_bytes, 70);
    assert_int_equal(f.messages_max, 0);
    ep_features_fini(&f);
    const int64_t huge[] = {INT64_MAX / 8};
    CHECK_FAILS(
        ep_features_init(huge, &(struct ep_features_config){.num_ranks = 1, .row_bytes = 10}, &f),
        EP_EINVAL, "2^62");
}

static void test_transpose(void **state)
{
    (void)state;
    /* combine sends back what dispatch brought: what goes out of one comes into the other */
    const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    const int64_t expected[] = {1, 4, 7, 2, 5, 8, 3, 6, 9};
    int64_t transposed[9];
    ep_traffic_transpose(rows, 3, transposed);
    assert_memory_equal(transposed, expected, sizeof expected);
}

static void test_imbalance(void **state)
{
    (void)state;
    struct ep_imbalance m;
    /* 1 2 3 6: mean 3, deviations -2 -1 0 3, variance 14/4; Gini = (-3*1 -1*2 +1*3 +3*6) / (4*12)
     */
    CHECK_OK(ep_imbalance_measure((const int64_t[]){6, 1, 3, 2}, 4, &m));
    CHECK_NEAR(m.max_over_mean, 2, 1e-12);
    CHECK_NEAR(m.mean_over_max, 0.5, 1e-12);
    CHECK_NEAR(m.excess, 1, 1e-12);
    CHECK_NEAR(m.cv, 1.8708286933869707 / 3, 1e-12);
    CHECK_NEAR(m.gini, 16.0 / 48, 1e-12);
    CHECK_NEAR(m.max_over_min, 3.5, 1e-12); /* (6 + 1) / (1 + 1) */
    CHECK_OK(ep_imbalance_measure((const int64_t[]){0, 0, 5, 0}, 4, &m));
    CHECK_NEAR(m.gini, 0.75, 1e-12);
    CHECK_NEAR(m.max_over_min, 6, 1e-12);
    CHECK_OK(ep_imbalance_measure((const int64_t[]){5, 5, 5}, 3, &m));
    CHECK_NEAR(m.gini, 0, 1e-12);
    CHECK_NEAR(m.cv, 0, 1e-12);
    CHECK_OK(ep_imbalance_measure((const int64_t[]){0, 0}, 2, &m));
    assert_true(isnan(m.max_over_mean) && isnan(m.gini) && isnan(m.cv));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_by_hand),
        cmocka_unit_test(test_node_stages_by_hand),
        cmocka_unit_test(test_dedup_against_sets),
        cmocka_unit_test(test_expected_groups),
        cmocka_unit_test(test_uniform_meets_closed_form),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_features_by_hand),
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_imbalance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
