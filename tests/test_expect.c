/* SPDX-License-Identifier: Apache-2.0 */
/* Expected traffic against closed forms and against routings that were drawn and counted. */
#include "tests/check.h"

#include "kernels/expect.h"
#include "kernels/routing.h"

#include <math.h>

static struct ep_expect expect_of(const char *skew_text, int64_t experts, int64_t top_k,
                                  const char *router, int64_t ranks, int64_t ranks_per_node)
{
    struct ep_skew *skew;
    struct ep_expect expect;
    CHECK_OK(ep_skew_create(skew_text, &skew));
    const struct ep_expect_config config = {.skew = skew, .num_experts = experts, .top_k = top_k,
                                            .router = router, .num_ranks = ranks,
                                            .ranks_per_node = ranks_per_node, .seed = 1};
    CHECK_OK(ep_expect_init(&config, &expect));
    ep_skew_destroy(skew);
    return expect;
}

static void test_uniform(void **state)
{
    (void)state;
    /* U(G) = G (1 - C(E - E/G, k) / C(E, k)), E = 256, k = 8: DESIGN's table */
    const struct {
        int64_t groups;
        double u;
    } table[] = {{2, 1.993}, {4, 3.614}, {8, 5.295}, {16, 6.523}, {32, 7.267}, {64, 7.676}, {128, 7.890}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct ep_expect e = expect_of("uniform", 256, 8, NULL, table[i].groups, 1);
        CHECK_NEAR(e.ranks_per_token, table[i].u, 5e-4);
        CHECK_NEAR(e.nodes_per_token, e.ranks_per_token, 1e-12);
        ep_expect_fini(&e);
    }
    struct ep_expect e = expect_of("uniform", 256, 8, NULL, 64, 8);
    CHECK_NEAR(e.nodes_per_token, 5.295, 5e-4);
    double copies = 0;
    for (int64_t r = 0; r < 64; r++) {
        copies += e.copies[r];
    }
    CHECK_NEAR(copies, 8, 1e-9);
    ep_expect_fini(&e);
}

static struct ep_expect expect_placed(const char *skew_text, const struct ep_placement *placement,
                                      int64_t top_k, int64_t ranks_per_node)
{
    struct ep_skew *skew;
    struct ep_expect expect;
    CHECK_OK(ep_skew_create(skew_text, &skew));
    const struct ep_expect_config config = {
        .skew = skew, .num_experts = placement->num_experts, .top_k = top_k, .placement = placement,
        .num_ranks = placement->num_ranks, .ranks_per_node = ranks_per_node, .seed = 1};
    CHECK_OK(ep_expect_init(&config, &expect));
    ep_skew_destroy(skew);
    return expect;
}

static void test_placed(void **state)
{
    (void)state;
    struct ep_placement placement;
    /* in order, said expert by expert: as without a placement */
    const int32_t in_order[] = {0, 0, 1, 1, 2, 2, 3, 3};
    CHECK_OK(ep_placement_init_list(in_order, 8, 4, &placement));
    struct ep_expect a = expect_placed("zipf:1.0", &placement, 2, 2);
    struct ep_expect b = expect_of("zipf:1.0", 8, 2, NULL, 4, 2);
    for (int r = 0; r < 4; r++) {
        CHECK_NEAR(a.copies[r], b.copies[r], 1e-12);
        CHECK_NEAR(a.ranks[r], b.ranks[r], 1e-12);
        CHECK_NEAR(a.nodes[r / 2], b.nodes[r / 2], 1e-12);
    }
    assert_int_equal(a.num_drawn, 0);
    ep_expect_fini(&a);
    ep_expect_fini(&b);
    ep_placement_fini(&placement);

    /* Uniform, top-2 of 4; rank 0 has three experts, rank 1 one, rank 2 none: a token misses rank 0 never
     * (one other expert is not enough for two), reaches rank 1 with 2/4, copies are 3/2, 1/2 and 0. */
    const int32_t uneven[] = {0, 1, 0, 0};
    CHECK_OK(ep_placement_init_list(uneven, 4, 3, &placement));
    a = expect_placed("uniform", &placement, 2, 3);
    CHECK_NEAR(a.ranks[0], 1, 1e-12);
    CHECK_NEAR(a.ranks[1], 0.5, 1e-12);
    CHECK_NEAR(a.ranks[2], 0, 0);
    CHECK_NEAR(a.copies[0], 1.5, 1e-12);
    CHECK_NEAR(a.nodes[0], 1, 1e-12);
    ep_expect_fini(&a);
    ep_placement_fini(&placement);

    /* Expert 0 on both ranks, expert 1 on rank 1; top-1: of 16384 tokens from sources in turn rank 0 gets a
     * quarter (standard error 0.34 %) */
    CHECK_OK(ep_placement_init_slots((int32_t[]){0, 0, 1}, (int32_t[]){0, 1, 1}, 3, 2, 2, &placement));
    a = expect_placed("uniform", &placement, 1, 1);
    assert_true(a.num_drawn > 0);
    CHECK_NEAR(a.copies[0], 0.25, 0.02);
    CHECK_NEAR(a.copies[0] + a.copies[1], 1, 1e-9);
    ep_expect_fini(&a);

    /* of another shape */
    struct ep_skew *skew;
    CHECK_OK(ep_skew_create("uniform", &skew));
    const struct ep_expect_config other = {.skew = skew, .num_experts = 3, .top_k = 1,
                                           .placement = &placement, .num_ranks = 2,
                                           .ranks_per_node = 1};
    CHECK_FAILS(ep_expect_init(&other, &a), EP_EINVAL, "2 experts on 2 ranks; 3 on 2");
    ep_skew_destroy(skew);
    ep_placement_fini(&placement);
}

/* Chances against the frequencies of 20,000 drawn tokens: 5 standard errors, at most 0.018. */
static void check_drawn(const char *skew_text, int64_t experts, int64_t top_k, int64_t ranks,
                        int64_t ranks_per_node)
{
    enum { TOKENS = 20000 };
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router;
    struct ep_routing routing;
    double by_rank[64] = {0}, by_node[64] = {0}, copies[64] = {0};
    CHECK_OK(ep_skew_create(skew_text, &skew));
    CHECK_OK(ep_placement_init_contiguous(experts, ranks, &placement));
    CHECK_OK(ep_token_map_init_equal(1, TOKENS, &map));
    struct ep_placement one;
    CHECK_OK(ep_placement_init_contiguous(experts, 1, &one));
    const struct ep_router_config config = {skew, &one, &map, top_k, 1};
    CHECK_OK(ep_router_create(&config, &router));
    CHECK_OK(ep_router_generate_rank(router, 0, false, &routing));
    for (int64_t t = 0; t < TOKENS; t++) {
        bool rank_seen[64] = {false}, node_seen[64] = {false};
        for (int64_t k = 0; k < top_k; k++) {
            const int64_t rank =
                ep_placement_rank(&placement, routing.topk_idx[t * top_k + k], t);
            copies[rank] += 1.0 / TOKENS;
            by_rank[rank] += rank_seen[rank] ? 0 : 1.0 / TOKENS;
            by_node[rank / ranks_per_node] += node_seen[rank / ranks_per_node] ? 0 : 1.0 / TOKENS;
            rank_seen[rank] = node_seen[rank / ranks_per_node] = true;
        }
    }
    struct ep_expect e = expect_of(skew_text, experts, top_k, NULL, ranks, ranks_per_node);
    for (int64_t r = 0; r < ranks; r++) {
        CHECK_NEAR(e.ranks[r], by_rank[r], 0.018);
        CHECK_NEAR(e.copies[r], copies[r], 0.018 * (double)top_k);
    }
    for (int64_t n = 0; n < e.num_nodes; n++) {
        CHECK_NEAR(e.nodes[n], by_node[n], 0.018);
    }
    ep_expect_fini(&e);
    ep_routing_fini(&routing);
    ep_router_destroy(router);
    ep_token_map_fini(&map);
    ep_placement_fini(&placement);
    ep_placement_fini(&one);
    ep_skew_destroy(skew);
}

static void test_against_draws(void **state)
{
    (void)state;
    check_drawn("zipf:1.0", 64, 6, 16, 4);
    check_drawn("zipf:0.6", 32, 4, 8, 8);
    check_drawn("zipf:1.2", 16, 2, 64, 4); /* four replicas of each expert */
    check_drawn("uniform", 16, 2, 64, 2);
    check_drawn("zipf:1.0", 10, 3, 4, 2); /* ranks with 2, 3, 2, 3 experts */
}

static void test_group_limited(void **state)
{
    (void)state;
    /* DeepSeek-V3: at most 4 of 8 groups. On 8 nodes a group is a node: published counts 3.983 nodes and
     * 7.477 ranks of 64 (DeepEP's routing, whose group score is the maximum; here the sum of two) */
    struct ep_expect e = expect_of("uniform", 256, 8, "sigmoid-group:8:4", 64, 8);
    assert_int_equal(e.num_drawn, 16384);
    assert_true(e.nodes_per_token <= 4);
    CHECK_NEAR(e.nodes_per_token, 3.98, 0.05);
    CHECK_NEAR(e.ranks_per_token, 7.48, 0.1);
    ep_expect_fini(&e);
}

static void test_refused(void **state)
{
    (void)state;
    struct ep_skew *skew;
    struct ep_expect e;
    CHECK_OK(ep_skew_create("hot:2", &skew));
    struct ep_expect_config config = {.skew = skew, .num_experts = 8, .top_k = 2, .num_ranks = 4,
                                      .ranks_per_node = 2, .seed = 1};
    CHECK_FAILS(ep_expect_init(&config, &e), EP_EINVAL, "hot:2");
    ep_skew_destroy(skew);
    CHECK_OK(ep_skew_create("uniform", &skew));
    config.skew = skew;
    config.num_ranks = 12;
    CHECK_FAILS(ep_expect_init(&config, &e), EP_EINVAL, "12 ranks are no multiple of 8");
    ep_skew_destroy(skew);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform), cmocka_unit_test(test_placed), cmocka_unit_test(test_against_draws),
        cmocka_unit_test(test_group_limited), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
