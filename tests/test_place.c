/* SPDX-License-Identifier: Apache-2.0 */
/* Placement policies: EPLB's published example and one by hand, conservation, bounds, planted
 * clusters. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/place.h"
#include "kernels/place_search.h"

#include <math.h>
#include <stdlib.h>

/* --- EPLB ---------------------------------------------------------------------------------- */

/* README.md of deepseek-ai/EPLB (d52c72d), "Interface and Example": two layers of 12 experts, 16
 * replicas, 4 groups, 2 nodes, 8 GPUs, and the map that it prints. */
static void test_eplb_readme(void **state)
{
    static const double load[2][12] = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                                       {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};
    static const int32_t expected[2][16] = {{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
                                            {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}};
    (void)state;
    for (int layer = 0; layer < 2; layer++) {
        const struct ep_place_task task = {.shape = {12, 8, 2, 4, 16}, .load = load[layer]};
        int32_t map[16];
        CHECK_OK(ep_place_run(&ep_place_eplb, &task, map));
        assert_memory_equal(map, expected[layer], sizeof map);
    }
}

/* Loads 8, 4, 2, 2 in 6 slots on 2 ranks. Both extra slots go to expert 0: 8 > 4, then 8/2 = 4/1
 * and the first wins. Replicas 0 1 2 3 0 0 weigh 8/3 4 2 2 8/3 8/3. Heaviest first into the
 * lightest rank with room: 1 -> rank 0 (4); 0 -> rank 1 (2.67); 0 -> rank 1 (5.33); 0 -> rank 0
 * (6.67); 2 -> rank 1 (7.33, full); 3 -> rank 0 (8.67). */
static const double hand_load[4] = {8, 4, 2, 2};
static const int32_t hand_map[6] = {1, 0, 3, 0, 0, 2};

static void test_eplb_by_hand(void **state)
{
    /* 1 group on 2 nodes: the hierarchical policy falls back to the global one. */
    const struct ep_place_task task = {.shape = {4, 2, 2, 1, 6}, .load = hand_load};
    int32_t map[6];
    double ranks[2], nodes[2];
    (void)state;
    CHECK_OK(ep_place_run(&ep_place_eplb_global, &task, map));
    assert_memory_equal(map, hand_map, sizeof map);
    CHECK_OK(ep_place_run(&ep_place_eplb, &task, map));
    assert_memory_equal(map, hand_map, sizeof map);
    CHECK_OK(ep_place_fill_loads(&task.shape, hand_load, map, ranks, nodes));
    CHECK_NEAR(ranks[0], 26.0 / 3, 1e-12);
    CHECK_NEAR(ranks[1], 22.0 / 3, 1e-12);
    CHECK_NEAR(nodes[0], 26.0 / 3, 1e-12);
    CHECK_NEAR(ep_place_max_over_mean(ranks, 2), 26.0 / 24, 1e-12);
}

/* One item per pack: rank i gets expert i whatever it weighs. */
static void test_eplb_identity(void **state)
{
    static const double load[4] = {1, 9, 3, 5};
    static const int32_t expected[4] = {0, 1, 2, 3};
    const struct ep_place_task task = {.shape = {4, 4, 1, 1, 4}, .load = load};
    int32_t map[4];
    (void)state;
    CHECK_OK(ep_place_run(&ep_place_eplb_global, &task, map));
    assert_memory_equal(map, expected, sizeof map);
}

/* The two replicas of expert 0 on rank 1 become one; experts 0 on ranks 0 and 1 stay two. */
static void test_merged_placement(void **state)
{
    const struct ep_place_shape shape = {4, 2, 1, 1, 6};
    struct ep_placement placement;
    (void)state;
    CHECK_OK(ep_place_init_placement(&shape, hand_map, &placement));
    assert_int_equal(placement.num_slots, 5);
    assert_int_equal(placement.slot_start[1], 2);
    assert_int_equal(placement.slot_rank[0], 0);
    assert_int_equal(placement.slot_rank[1], 1);
    assert_true(ep_placement_find_local(&placement, 2, 1) >= 0);
    assert_true(ep_placement_find_local(&placement, 3, 1) < 0);
    ep_placement_fini(&placement);
}

/* --- policies that look at no load --------------------------------------------------------- */

static void test_simple(void **state)
{
    static const double load[8] = {0};
    static const int32_t wrapped[10] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1};
    static const int32_t dealt[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    static const int32_t doubled[8] = {0, 0, 1, 1, 2, 2, 3, 3};
    const struct ep_place_task extra = {.shape = {8, 5, 1, 1, 10}, .load = load};
    const struct ep_place_task equal = {.shape = {8, 4, 1, 1, 8}, .load = load};
    const struct ep_place_task more_ranks = {.shape = {4, 8, 1, 1, 8}, .load = load};
    int32_t map[10];
    (void)state;
    CHECK_OK(ep_place_run(&ep_place_contiguous, &extra, map));
    assert_memory_equal(map, wrapped, sizeof wrapped);
    CHECK_OK(ep_place_run(&ep_place_round_robin, &equal, map));
    assert_memory_equal(map, dealt, sizeof dealt);
    /* as ep_placement_init_contiguous has it: rank r hosts expert floor(r E/P) */
    CHECK_OK(ep_place_run(&ep_place_contiguous, &more_ranks, map));
    assert_memory_equal(map, doubled, sizeof doubled);
}

/* --- properties over random shapes --------------------------------------------------------- */

struct problem {
    struct ep_place_task task;
    struct ep_place_tokens tokens;
    double load[64];
    int32_t topk_idx[256 * 3];
};

static int64_t draw(struct ep_random *random, int64_t low, int64_t high)
{
    return low + ep_random_below(random, (uint32_t)(high - low + 1));
}

static int64_t draw_divisor(struct ep_random *random, int64_t number)
{
    for (;;) {
        const int64_t d = draw(random, 1, number);
        if (number % d == 0) {
            return d;
        }
    }
}

/* Groups that nodes divide and that they do not, more ranks than experts, no spare slot and many,
 * loads of zero, equal loads and wild ones. */
static void draw_problem(struct ep_random *random, struct problem *p)
{
    const int64_t experts = draw(random, 1, 32);
    const int64_t ranks = draw(random, 1, 12);
    const int64_t least = (experts + ranks - 1) / ranks * ranks;
    *p = (struct problem){0};
    p->task.shape = (struct ep_place_shape){.num_experts = experts,
                                            .num_ranks = ranks,
                                            .num_nodes = draw_divisor(random, ranks),
                                            .num_groups = draw_divisor(random, experts),
                                            .num_slots = least + ranks * draw(random, 0, 2)};
    const int64_t kind = draw(random, 0, 3);
    for (int64_t e = 0; e < experts; e++) {
        p->load[e] = kind == 0   ? 0
                     : kind == 1 ? 7
                     : kind == 2 ? (double)draw(random, 0, 1000)
                                 : exp(12 * ep_random_f64(random));
    }
    for (int64_t i = 0; i < 256; i++) {
        for (int64_t j = 0; j < 3; j++) {
            const int32_t e = (int32_t)(draw(random, 0, experts - 1));
            const bool again =
                (j > 0 && p->topk_idx[3 * i] == e) || (j > 1 && p->topk_idx[3 * i + 1] == e);
            p->topk_idx[3 * i + j] = again ? -1 : e;
        }
    }
    p->tokens = (struct ep_place_tokens){256, 3, p->topk_idx};
    p->task.load = p->load;
    p->task.seed = ep_random_u32(random);
}

/* Every expert has a slot, groups stay on a node where EPLB keeps them, and no load is lost. */
static void check_map(const struct ep_place_task *task, const struct ep_place_policy *policy,
                      const int32_t *map, double *busiest)
{
    const struct ep_place_shape *s = &task->shape;
    double ranks[12], nodes[12];
    double given = 0, placed = 0;
    int seen[32] = {0};
    int64_t group_node[32];
    for (int64_t i = 0; i < s->num_slots; i++) {
        assert_in_range(map[i], 0, s->num_experts - 1);
        seen[map[i]]++;
    }
    for (int64_t e = 0; e < s->num_experts; e++) {
        assert_true(seen[e] >= 1);
        given += task->load[e];
        group_node[e] = -1;
    }
    CHECK_OK(ep_place_fill_loads(s, task->load, map, ranks, nodes));
    *busiest = ep_place_max(ranks, s->num_ranks);
    for (int64_t n = 0; n < s->num_nodes; n++) {
        placed += nodes[n];
    }
    CHECK_NEAR(placed, given, 1e-9 * given);
    if ((policy == &ep_place_eplb || policy == &ep_place_hierarchical) &&
        ep_place_keeps_groups(s)) {
        for (int64_t i = 0; i < s->num_slots; i++) {
            const int64_t group = map[i] / (s->num_experts / s->num_groups);
            const int64_t node = i / (s->num_slots / s->num_nodes);
            assert_true(group_node[group] == -1 || group_node[group] == node);
            group_node[group] = node;
        }
    }
}

static double run_policy(const struct ep_place_task *task, const struct ep_place_policy *policy)
{
    int32_t map[64], again[64];
    double busiest = 0;
    CHECK_OK(ep_place_run(policy, task, map));
    check_map(task, policy, map, &busiest);
    CHECK_OK(ep_place_run(policy, task, again));
    assert_memory_equal(map, again, (size_t)task->shape.num_slots * sizeof *map);
    return busiest;
}

static void test_properties(void **state)
{
    struct ep_random random;
    (void)state;
    ep_random_init(&random, 7, EP_RANDOM_TEST, 0);
    for (int i = 0; i < 300; i++) {
        struct problem p;
        draw_problem(&random, &p);
        run_policy(&p.task, &ep_place_contiguous);
        run_policy(&p.task, &ep_place_round_robin);
        run_policy(&p.task, &ep_place_random);
        const double eplb = run_policy(&p.task, &ep_place_eplb);
        const double global = run_policy(&p.task, &ep_place_eplb_global);
        /* without tokens, balance is all there is to gain */
        assert_true(run_policy(&p.task, &ep_place_hierarchical) <= eplb);
        if (i % 15 != 0) {
            continue; /* searches take their time */
        }
        p.task.tokens = &p.tokens;
        assert_true(run_policy(&p.task, &ep_place_hierarchical) <= eplb);
        const double together = run_policy(&p.task, &ep_place_coactivation);
        assert_true(together <= eplb && together <= global);
    }
}

/* Loads 10 9 8 1 1 1 on 3 ranks of 2: EPLB packs 10+1, 9+1, 8+1. A start as bad as 10+9, 8+1, 1+1
 * must get there too: the best that pairs allow is 11. */
static void test_balance(void **state)
{
    static const double load[6] = {10, 9, 8, 1, 1, 1};
    static const struct ep_place_goal anywhere = {0};
    const struct ep_place_task task = {.shape = {6, 3, 1, 1, 6}, .load = load};
    int32_t map[6] = {0, 1, 2, 3, 4, 5};
    double ranks[3];
    (void)state;
    CHECK_OK(ep_place_balance(&task, &anywhere, map));
    CHECK_OK(ep_place_fill_loads(&task.shape, load, map, ranks, NULL));
    CHECK_NEAR(ep_place_max(ranks, 3), 11, 0);
}

/* --- planted clusters ---------------------------------------------------------------------- */

enum { CLUSTERS = 8, PLANTED = 32, TOKENS = 4000 };

/* Cluster c is experts c, c + 8, c + 16, c + 24, and a token takes one whole cluster; a share of
 * `noise` of the tokens takes one expert of another cluster in place of its last. */
static void plant(double noise, int32_t *topk_idx, double *load)
{
    struct ep_random random;
    ep_random_init(&random, 3, EP_RANDOM_TEST, 1);
    memset(load, 0, PLANTED * sizeof *load);
    for (int64_t t = 0; t < TOKENS; t++) {
        const int64_t c = draw(&random, 0, CLUSTERS - 1);
        for (int64_t i = 0; i < 4; i++) {
            int64_t e = c + CLUSTERS * i;
            if (i == 3 && ep_random_f64(&random) < noise) {
                e = (c + draw(&random, 1, CLUSTERS - 1)) % CLUSTERS + CLUSTERS * 3;
            }
            topk_idx[4 * t + i] = (int32_t)e;
            load[e]++;
        }
    }
}

static struct ep_place_fan_out reach(const struct ep_place_task *task,
                                     const struct ep_place_policy *policy)
{
    int32_t map[64];
    struct ep_place_fan_out fan_out;
    CHECK_OK(ep_place_run(policy, task, map));
    CHECK_OK(ep_place_count_fan_out(task, map, &fan_out));
    return fan_out;
}

static void test_planted(void **state)
{
    static int32_t topk_idx[4 * TOKENS];
    double load[PLANTED];
    const struct ep_place_tokens tokens = {TOKENS, 4, topk_idx};
    const struct ep_place_task task = {.shape = {PLANTED, 8, 2, 1, PLANTED},
                                       .load = load,
                                       .tokens = &tokens,
                                       .seed = 1,
                                       .slack = 0.5};
    const struct ep_place_task even = {
        .shape = {PLANTED, 8, 2, 1, PLANTED}, .load = load, .tokens = &tokens, .seed = 1};
    (void)state;
    plant(0, topk_idx, load);
    /* contiguous: cluster c lies on ranks c/4, c/4 + 2, c/4 + 4, c/4 + 6: 4 ranks on 2 nodes */
    const struct ep_place_fan_out apart = reach(&task, &ep_place_contiguous);
    assert_int_equal(apart.ranks, 4 * TOKENS);
    assert_int_equal(apart.nodes, 2 * TOKENS);
    /* a cluster fits a rank: one rank, one node, once ranks may be as uneven as clusters are */
    const struct ep_place_fan_out found = reach(&task, &ep_place_coactivation);
    assert_int_equal(found.ranks, TOKENS);
    assert_int_equal(found.nodes, TOKENS);
    const struct ep_place_fan_out nested = reach(&task, &ep_place_hierarchical);
    assert_int_equal(nested.ranks, TOKENS);
    assert_int_equal(nested.nodes, TOKENS);
    /* as even as EPLB and with noise, most of it is still there */
    plant(0.2, topk_idx, load);
    const struct ep_place_fan_out eplb = reach(&even, &ep_place_eplb);
    const struct ep_place_fan_out held = reach(&even, &ep_place_hierarchical);
    assert_true(held.nodes < 0.8 * (double)eplb.nodes);
    assert_true(reach(&even, &ep_place_coactivation).ranks < 0.8 * (double)eplb.ranks);
}

/* Groups must stay whole, but which share a node is free: tokens take one expert of group g and one
 * of g + 4, so pairs (g, g + 4) belong together; contiguous puts them on different nodes. */
static void test_planted_groups(void **state)
{
    static int32_t topk_idx[2 * TOKENS];
    double load[16] = {0};
    (void)state;
    for (int32_t t = 0; t < TOKENS; t++) {
        topk_idx[2 * t] = t % 8;
        topk_idx[2 * t + 1] = t % 8 + 8;
    }
    for (int64_t i = 0; i < (int64_t)(sizeof topk_idx / sizeof topk_idx[0]); i++) {
        load[topk_idx[i]]++;
    }
    const struct ep_place_tokens tokens = {TOKENS, 2, topk_idx};
    const struct ep_place_task task = {
        .shape = {16, 4, 2, 8, 16}, .load = load, .tokens = &tokens, .seed = 1};
    assert_int_equal(reach(&task, &ep_place_contiguous).nodes, 2 * TOKENS);
    assert_int_equal(reach(&task, &ep_place_hierarchical).nodes, TOKENS);
}

/* Two replicas of expert 0 take turns: tokens 0, 2, .. use the first slot, 1, 3, .. the second, and
 * the fan-out of {0, 1} is 2 ranks or 1 by turns. */
static void test_fan_out_of_replicas(void **state)
{
    static const int32_t topk_idx[8] = {0, 1, 0, 1, 0, 1, 0, -1};
    static const int32_t map[4] = {0, 2, 1, 0};
    static const double load[3] = {4, 3, 0};
    const struct ep_place_tokens tokens = {4, 2, topk_idx};
    const struct ep_place_task task = {
        .shape = {3, 2, 2, 1, 4}, .load = load, .tokens = &tokens, .seed = 1};
    struct ep_place_fan_out fan_out;
    (void)state;
    CHECK_OK(ep_place_count_fan_out(&task, map, &fan_out));
    assert_int_equal(fan_out.ranks, 2 + 1 + 2 + 1);
    assert_int_equal(fan_out.nodes, 2 + 1 + 2 + 1);
}

/* --- bad input ----------------------------------------------------------------------------- */

static void test_errors(void **state)
{
    static const double load[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const struct ep_place_policy *policy = NULL;
    struct ep_place_task task = {.shape = {8, 4, 2, 2, 8}, .load = load};
    int32_t map[16] = {-7};
    (void)state;
    CHECK_FAILS(ep_place_policy_find("epbl", &policy), EP_EINVAL, "did you mean 'eplb'?");
    CHECK_FAILS(ep_place_policy_find("best", &policy), EP_EINVAL,
                "contiguous, round-robin, random");
    CHECK_FAILS(ep_place_run(&ep_place_coactivation, &task, map), EP_EINVAL, "coactivation");
    task.shape.num_slots = 10;
    CHECK_FAILS(ep_place_run(&ep_place_eplb, &task, map), EP_EINVAL,
                "10 is no multiple of 4 ranks");
    task.shape.num_slots = 4;
    CHECK_FAILS(ep_place_run(&ep_place_eplb, &task, map), EP_EINVAL,
                "4 is less than the 8 experts");
    task.shape = (struct ep_place_shape){8, 4, 2, 3, 8};
    CHECK_FAILS(ep_place_run(&ep_place_eplb, &task, map), EP_EINVAL,
                "--groups 3 does not divide 8 experts");
    task.shape = (struct ep_place_shape){8, 4, 3, 2, 8};
    CHECK_FAILS(ep_place_run(&ep_place_eplb, &task, map), EP_EINVAL,
                "--nodes 3 does not divide 4 ranks");
    task.shape = (struct ep_place_shape){8, 2048, 1, 1, 2048};
    CHECK_FAILS(ep_place_run(&ep_place_eplb, &task, map), EP_EINVAL, "--ranks: 2048");
    assert_int_equal(map[0], -7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eplb_readme),    cmocka_unit_test(test_eplb_by_hand),
        cmocka_unit_test(test_eplb_identity),  cmocka_unit_test(test_merged_placement),
        cmocka_unit_test(test_simple),         cmocka_unit_test(test_properties),
        cmocka_unit_test(test_balance),        cmocka_unit_test(test_planted),
        cmocka_unit_test(test_planted_groups), cmocka_unit_test(test_fan_out_of_replicas),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
