/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: placements, token maps, skews and routers. */
#include "tests/check.h"

#include "kernels/routing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* All that a router needs, for tests. */
struct rig {
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map tokens;
    struct ep_router *router;
};

static enum ep_status open_rig(const char *skew, int64_t experts, int64_t top_k, int64_t ranks,
                               int64_t tokens, uint64_t seed, struct rig *rig)
{
    *rig = (struct rig){0};
    enum ep_status status = ep_skew_create(skew, &rig->skew);
    status = status == EP_OK ? ep_placement_init_contiguous(experts, ranks, &rig->placement)
                             : status;
    status = status == EP_OK ? ep_token_map_init_equal(ranks, tokens, &rig->tokens) : status;
    const struct ep_router_config config = {.skew = rig->skew,
                                            .placement = &rig->placement,
                                            .tokens = &rig->tokens,
                                            .top_k = top_k,
                                            .seed = seed};
    return status == EP_OK ? ep_router_create(&config, &rig->router) : status;
}

static void close_rig(struct rig *rig)
{
    ep_router_destroy(rig->router);
    ep_token_map_fini(&rig->tokens);
    ep_placement_fini(&rig->placement);
    ep_skew_destroy(rig->skew);
}

static void test_contiguous(void **state)
{
    (void)state;
    struct ep_placement p;
    /* 5 experts on 3 ranks: bounds floor(5/3) = 1, floor(10/3) = 3, 5 -> {0}, {1, 2}, {3, 4} */
    CHECK_OK(ep_placement_init_contiguous(5, 3, &p));
    const int ranks[] = {0, 1, 1, 2, 2};
    const int locals[] = {0, 0, 1, 0, 1};
    for (int e = 0; e < 5; e++) {
        assert_int_equal(ep_placement_rank(&p, e, 1), ranks[e]);
        assert_int_equal(ep_placement_local_idx(&p, e, 1), locals[e]);
        for (int r = 0; r < 3; r++) {
            assert_int_equal(ep_placement_find_local(&p, e, r), r == ranks[e] ? locals[e] : -1);
        }
    }
    const int32_t *experts = NULL;
    assert_int_equal(ep_placement_local_experts(&p, 2, &experts), 2);
    assert_int_equal(experts[0], 3);
    assert_int_equal(experts[1], 4);
    assert_int_equal(p.max_local, 2);
    ep_placement_fini(&p);
    /* 2 experts on 6 ranks: ranks 0-2 host expert 0, 3-5 expert 1; source s uses replica s mod 3 */
    CHECK_OK(ep_placement_init_contiguous(2, 6, &p));
    assert_true(p.replicated);
    for (int s = 0; s < 6; s++) {
        assert_int_equal(ep_placement_rank(&p, 0, s), s % 3);
        assert_int_equal(ep_placement_rank(&p, 1, s), 3 + s % 3);
        assert_int_equal(ep_placement_local_idx(&p, 1, s), 0);
    }
    ep_placement_fini(&p);
    CHECK_FAILS(ep_placement_init_contiguous(4, 6, &p), EP_EINVAL, "6 ranks for 4 experts");
    CHECK_FAILS(ep_placement_init_contiguous(0, 6, &p), EP_EINVAL, "0 experts");
    CHECK_FAILS(ep_placement_init_contiguous(4, 0, &p), EP_EINVAL, "0 ranks");
}

static void test_placement_lists(void **state)
{
    (void)state;
    struct ep_placement p;
    CHECK_OK(ep_placement_parse("2,0,2,0", "--x", 4, &p));
    assert_int_equal(ep_placement_rank(&p, 2, 3), 2);
    assert_int_equal(ep_placement_local_idx(&p, 2, 3), 1);
    const int32_t *experts = NULL;
    assert_int_equal(ep_placement_local_experts(&p, 1, &experts), 0);
    ep_placement_fini(&p);
    CHECK_OK(ep_placement_parse("0,0,1,1", "--x", 0, &p));
    assert_int_equal(p.num_ranks, 2);
    ep_placement_fini(&p);
    CHECK_FAILS(ep_placement_parse("0,4", "--x", 4, &p), EP_EINVAL, "--x: expert 1: 4 is outside");
    CHECK_FAILS(ep_placement_parse("0,,1", "--x", 4, &p), EP_EINVAL, "item 2");
    CHECK_FAILS(ep_placement_parse("0,a", "--x", 4, &p), EP_EINVAL, "'a' is not a whole number");
    const int32_t slots[] = {0, 1, 1};
    const int32_t twice[] = {0, 1, 1};
    const int32_t apart[] = {0, 1, 0};
    CHECK_FAILS(ep_placement_init_slots(slots, twice, 3, 2, 2, &p), EP_EINVAL,
                "expert 1 is placed twice on rank 1");
    CHECK_FAILS(ep_placement_init_slots(slots, apart, 3, 3, 2, &p), EP_EINVAL,
                "expert 2 is placed on no rank");
    CHECK_OK(ep_placement_init_slots(slots, apart, 3, 2, 2, &p));
    assert_int_equal(ep_placement_rank(&p, 1, 0), 1); /* the first replica given */
    assert_int_equal(ep_placement_rank(&p, 1, 1), 0);
    assert_int_equal(ep_placement_local_idx(&p, 1, 1), 1);
    ep_placement_fini(&p);
}

static void test_token_maps(void **state)
{
    (void)state;
    struct ep_token_map map;
    CHECK_OK(ep_token_map_init_counts(4, (const int64_t[]){0, 3, 0, 2}, &map));
    const int ranks[] = {1, 1, 1, 3, 3};
    for (int t = 0; t < 5; t++) {
        assert_int_equal(ep_token_map_rank(&map, t), ranks[t]);
    }
    assert_int_equal(map.max_tokens, 3);
    ep_token_map_fini(&map);
    /* 5 tokens on 3 ranks: bounds 1, 3, 5 */
    CHECK_OK(ep_token_map_init_blocks(3, 5, &map));
    assert_int_equal(map.start[1], 1);
    assert_int_equal(map.start[2], 3);
    ep_token_map_fini(&map);
    CHECK_FAILS(ep_token_map_init_equal(4, 0, &map), EP_EINVAL, "no rank has a token");
    CHECK_FAILS(ep_token_map_init_counts(2, (const int64_t[]){1, -1}, &map), EP_EINVAL,
                "rank 1 has -1 tokens");
}

/* Every row: distinct experts in range, weights positive with sum 1. */
static void check_rows(const struct ep_routing *r)
{
    for (int64_t t = 0; t < r->num_tokens; t++) {
        double sum = 0;
        for (int64_t i = 0; i < r->top_k; i++) {
            const int32_t e = r->topk_idx[t * r->top_k + i];
            assert_in_range(e, 0, r->num_experts - 1);
            for (int64_t j = 0; j < i; j++) {
                assert_int_not_equal(e, r->topk_idx[t * r->top_k + j]);
            }
            assert_true(r->topk_weight[t * r->top_k + i] > 0);
            sum += (double)r->topk_weight[t * r->top_k + i];
        }
        CHECK_NEAR(sum, 1, 1e-6);
    }
}

static void test_any_split_is_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        int experts, top_k, ranks;
    } cases[] = {
        {"uniform", 16, 4, 4}, {"uniform", 8, 8, 4},    {"zipf:1.0", 16, 4, 3}, {"zipf:3", 40, 40, 4},
        {"hot:3@1", 16, 4, 4}, {"khot:3:0.5", 16, 4, 4}, {"hot:2", 4, 2, 8},    {"zipf:20", 9, 5, 1},
        {"trace:sample", 64, 6, 3},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rig rig;
        struct ep_routing whole;
        struct ep_routing part;
        CHECK_OK(open_rig(cases[c].skew, cases[c].experts, cases[c].top_k, cases[c].ranks, 60, 7,
                          &rig));
        const int64_t num = rig.tokens.num_tokens;
        const int64_t k = cases[c].top_k;
        CHECK_OK(ep_routing_init(num, cases[c].experts, k, true, &whole));
        ep_router_generate(rig.router, 0, num, &whole);
        check_rows(&whole);
        for (int64_t first = 0; first < num; first += 17) {
            const int64_t some = num - first < 17 ? num - first : 17;
            CHECK_OK(ep_routing_init(some, cases[c].experts, k, true, &part));
            ep_router_generate(rig.router, first, some, &part);
            assert_memory_equal(part.topk_idx, whole.topk_idx + first * k,
                                (size_t)(some * k) * sizeof *part.topk_idx);
            assert_memory_equal(part.topk_weight, whole.topk_weight + first * k,
                                (size_t)(some * k) * sizeof *part.topk_weight);
            ep_routing_fini(&part);
        }
        CHECK_OK(ep_router_generate_rank(rig.router, cases[c].ranks - 1, true, &part));
        assert_int_equal(part.num_tokens, 60);
        assert_memory_equal(part.topk_idx, whole.topk_idx + (num - 60) * k,
                            (size_t)(60 * k) * sizeof *part.topk_idx);
        ep_routing_fini(&part);
        ep_routing_fini(&whole);
        close_rig(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contiguous),
        cmocka_unit_test(test_placement_lists),
        cmocka_unit_test(test_token_maps),
        cmocka_unit_test(test_any_split_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
