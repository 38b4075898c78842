/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: placements, token maps, skews and routers. */
#include "tests/check.h"

#include "kernels/routing.h"
#include "kernels/sample.h"

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
    status =
        status == EP_OK ? ep_placement_init_contiguous(experts, ranks, &rig->placement) : status;
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
        {"uniform", 16, 4, 4}, {"uniform", 8, 8, 4},  {"zipf:1.0", 16, 4, 3},
        {"zipf:3", 40, 40, 4}, {"hot:3@1", 16, 4, 4}, {"khot:3:0.5", 16, 4, 4},
        {"hot:2", 4, 2, 8},    {"zipf:20", 9, 5, 1},  {"trace:sample", 64, 6, 3},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rig rig;
        struct ep_routing whole;
        struct ep_routing part;
        CHECK_OK(
            open_rig(cases[c].skew, cases[c].experts, cases[c].top_k, cases[c].ranks, 60, 7, &rig));
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

/* Copies that each rank receives, from all tokens of the rig. */
static void count_ranks(const struct rig *rig, int64_t *loads, int64_t *experts)
{
    struct ep_routing r;
    for (int64_t s = 0; s < rig->placement.num_ranks; s++) {
        CHECK_OK(ep_router_generate_rank(rig->router, s, false, &r));
        for (int64_t i = 0; i < r.num_tokens * r.top_k; i++) {
            loads[ep_placement_rank(&rig->placement, r.topk_idx[i], s)]++;
            experts[r.topk_idx[i]]++;
        }
        ep_routing_fini(&r);
    }
}

static void test_hot_is_reached(void **state)
{
    (void)state;
    static const struct {
        int experts, top_k, ranks, tokens;
        const char *skew;
        int rank;
        double ratio;
    } cases[] = {
        {16, 4, 4, 64, "hot:2", 0, 2},         {16, 4, 4, 64, "hot:4@3", 3, 4},
        {16, 2, 2, 64, "hot:4", 0, 4},         {256, 8, 64, 32, "hot:8@5", 5, 8},
        {256, 8, 64, 32, "hot:1", 0, 1},       {64, 6, 8, 16, "hot:3@7", 7, 3},
        {10, 3, 4, 100, "hot:2@3", 3, 2},      {8, 2, 8, 200, "hot:7@2", 2, 7},
        {8, 2, 16, 200, "hot:3@9", 9, 3},      {4, 2, 8, 500, "hot:2@1", 1, 2},
        {16, 8, 4, 64, "hot:0.25@1", 1, 0.25}, {16, 4, 2, 3000, "hot:50", 0, 50},
        {12, 12, 3, 10, "hot:1", 0, 1},        {16, 1, 4, 64, "hot:10@2", 2, 10},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rig rig;
        int64_t loads[64] = {0};
        int64_t experts[256] = {0};
        CHECK_OK(open_rig(cases[c].skew, cases[c].experts, cases[c].top_k, cases[c].ranks,
                          cases[c].tokens, 5, &rig));
        count_ranks(&rig, loads, experts);
        double others = 0;
        for (int r = 0; r < cases[c].ranks; r++) {
            others += r == cases[c].rank ? 0 : (double)loads[r];
        }
        const double ratio = (double)loads[cases[c].rank] / (others / (cases[c].ranks - 1));
        CHECK_NEAR(ratio, cases[c].ratio, 0.1 * cases[c].ratio);
        close_rig(&rig);
    }
}

static void test_hot_ranks(void **state)
{
    (void)state;
    /* which of 8 ranks are hot */
    static const struct {
        const char *skew;
        const char *hot; /* a letter per rank */
        double ratio;
    } cases[] = {
        {"hot:2@0-3", "hhhh....", 2}, {"hot:3@0/4", "h...h...", 3}, {"hot:2@last", ".......h", 2},
        {"hot:1.5@1/3-4", ".h.hh...", 1.5},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rig rig;
        int64_t loads[64] = {0};
        int64_t experts[256] = {0};
        CHECK_OK(open_rig(cases[c].skew, 64, 4, 8, 1000, 5, &rig));
        count_ranks(&rig, loads, experts);
        double others = 0;
        int num_others = 0;
        for (int r = 0; r < 8; r++) {
            others += cases[c].hot[r] == '.' ? (double)loads[r] : 0;
            num_others += cases[c].hot[r] == '.';
        }
        for (int r = 0; r < 8; r++) { /* some 5000 copies each: 3 % is two standard errors */
            const double ratio = (double)loads[r] / (others / num_others);
            const double asked = cases[c].hot[r] == 'h' ? cases[c].ratio : 1;
            CHECK_NEAR(ratio, asked, 0.06 * asked);
        }
        close_rig(&rig);
    }
    struct rig rig;
    struct ep_skew *skew = NULL;
    CHECK_FAILS(open_rig("hot:2@0-7", 64, 4, 8, 10, 5, &rig), EP_EINVAL, "ranks 0-7 and another");
    close_rig(&rig);
    CHECK_FAILS(open_rig("hot:2@2/9", 64, 4, 8, 10, 5, &rig), EP_EINVAL, "there are 8 ranks");
    close_rig(&rig);
    CHECK_FAILS(ep_skew_create("hot:2@4/1", &skew), EP_EINVAL, "ascending ranks");
    CHECK_FAILS(ep_skew_create("hot:2@first", &skew), EP_EINVAL, "rank");
    CHECK_FAILS(ep_skew_create("hot:2@", &skew), EP_EINVAL, "rank");
}

static void test_hot_out_of_reach(void **state)
{
    (void)state;
    struct rig rig;
    /* 16 experts on 4 ranks, top-8: m = 4, largest 4 * 3 / (8 - 4) = 3 */
    CHECK_FAILS(open_rig("hot:3.5", 16, 8, 4, 8, 1, &rig), EP_EINVAL, "at most 3 times");
    close_rig(&rig);
    CHECK_OK(open_rig("hot:3", 16, 8, 4, 8, 1, &rig));
    close_rig(&rig);
    /* one expert per rank, top-2 of 8: 1 * 7 / (2 - 1) = 7 */
    CHECK_FAILS(open_rig("hot:7.1@3", 8, 2, 8, 8, 1, &rig), EP_EINVAL,
                "rank 3 can receive at most 7");
    close_rig(&rig);
    /* k = E: each rank gets all it can: 12 experts on 3 ranks, ratio 1 and nothing else */
    CHECK_FAILS(open_rig("hot:0.5", 12, 12, 3, 8, 1, &rig), EP_EINVAL, "at least 1 times");
    close_rig(&rig);
    /* 4 experts on 8 ranks, top-2: half of the sources reach rank 1, with one copy of two at most:
     * a share of 1/4 is 1/4 * 7 / (3/4) times the others */
    CHECK_FAILS(open_rig("hot:2.4@1", 4, 2, 8, 8, 1, &rig), EP_EINVAL, "at most 2.33333 times");
    close_rig(&rig);
    CHECK_FAILS(open_rig("hot:2@4", 16, 2, 4, 8, 1, &rig), EP_EINVAL, "there are 4 ranks");
    close_rig(&rig);
    CHECK_FAILS(open_rig("hot:2", 16, 2, 1, 8, 1, &rig), EP_EINVAL, "there is 1 rank");
    close_rig(&rig);
}

/* Top-1: the counts are multinomial with probability r^-1 / H(8), H(8) = 2.717857. */
static void test_zipf_frequencies(void **state)
{
    (void)state;
    struct rig rig;
    int64_t loads[1] = {0};
    int64_t experts[8] = {0};
    CHECK_OK(open_rig("zipf:1", 8, 1, 1, 100000, 3, &rig));
    count_ranks(&rig, loads, experts);
    for (int i = 0; i < 8; i++) { /* sort descending */
        for (int j = i + 1; j < 8; j++) {
            if (experts[j] > experts[i]) {
                const int64_t kept = experts[i];
                experts[i] = experts[j];
                experts[j] = kept;
            }
        }
    }
    double chi2 = 0;
    for (int i = 0; i < 8; i++) {
        const double expected = 100000 / (2.717857142857143 * (i + 1));
        chi2 += ((double)experts[i] - expected) * ((double)experts[i] - expected) / expected;
    }
    assert_true(chi2 < 24.3); /* 7 degrees of freedom: above that once in 1000 seeds */
    close_rig(&rig);
}

/* Top-2 of 3, popularity 6/11, 3/11, 2/11: P(set without the last) = 6/11 * 3/5 + 3/11 * 6/8
 * = 0.53182; without the second 6/11 * 2/5 + 2/11 * 6/9 = 0.33939; without the first 0.12879. */
static void test_zipf_without_replacement(void **state)
{
    (void)state;
    struct rig rig;
    struct ep_routing r;
    CHECK_OK(open_rig("zipf:1", 3, 2, 1, 60000, 9, &rig));
    CHECK_OK(ep_router_generate_rank(rig.router, 0, false, &r));
    double missing[3] = {0};
    for (int64_t t = 0; t < r.num_tokens; t++) {
        missing[3 - r.topk_idx[2 * t] - r.topk_idx[2 * t + 1]] += 1.0 / 60000;
    }
    double low = 1;
    double high = 0;
    for (int e = 0; e < 3; e++) {
        low = missing[e] < low ? missing[e] : low;
        high = missing[e] > high ? missing[e] : high;
    }
    CHECK_NEAR(high, 0.53182, 0.01); /* standard deviation 0.002 */
    CHECK_NEAR(low, 0.12879, 0.01);
    ep_routing_fini(&r);
    close_rig(&rig);
}

/* The walk over all experts, taken where redrawing fails, has the same distribution: with S = 8 the
 * second expert is nearly always drawn by it. P(third of 3 chosen second | first first) =
 * 3^-8 / (2^-8 + 3^-8) = 0.03756. */
static void test_zipf_steep(void **state)
{
    (void)state;
    struct rig rig;
    struct ep_routing r;
    CHECK_OK(open_rig("zipf:8", 3, 2, 1, 60000, 2, &rig));
    CHECK_OK(ep_router_generate_rank(rig.router, 0, false, &r));
    int64_t pairs[3] = {0};
    for (int64_t t = 0; t < r.num_tokens; t++) {
        pairs[r.topk_idx[2 * t] + r.topk_idx[2 * t + 1] - 1]++;
    }
    /* the sets {first, second}, {first, third}, {second, third}; the middle count is wanted */
    const int64_t high = pairs[0] > pairs[1] ? (pairs[0] > pairs[2] ? pairs[0] : pairs[2])
                                             : (pairs[1] > pairs[2] ? pairs[1] : pairs[2]);
    const int64_t low = pairs[0] < pairs[1] ? (pairs[0] < pairs[2] ? pairs[0] : pairs[2])
                                            : (pairs[1] < pairs[2] ? pairs[1] : pairs[2]);
    const int64_t middle = 60000 - high - low;
    CHECK_NEAR((double)middle / 60000, 0.0376, 0.004); /* standard deviation 0.0008 */
    close_rig(&rig);
    ep_routing_fini(&r);
}

static void test_seeds_differ(void **state)
{
    (void)state;
    static const char *const skews[] = {"uniform", "zipf:1", "hot:2", "khot:4:0.5"};
    for (int i = 0; i < 4; i++) {
        struct rig a;
        struct rig b;
        struct ep_routing x;
        struct ep_routing y;
        CHECK_OK(open_rig(skews[i], 32, 4, 4, 50, 1, &a));
        CHECK_OK(open_rig(skews[i], 32, 4, 4, 50, 2, &b));
        CHECK_OK(ep_router_generate_rank(a.router, 1, true, &x));
        CHECK_OK(ep_router_generate_rank(b.router, 1, true, &y));
        assert_memory_not_equal(x.topk_idx, y.topk_idx, 200 * sizeof *x.topk_idx);
        assert_memory_not_equal(x.topk_weight, y.topk_weight, 200 * sizeof *x.topk_weight);
        assert_string_not_equal(ep_router_id(a.router), ep_router_id(b.router));
        ep_routing_fini(&x);
        ep_routing_fini(&y);
        close_rig(&a);
        close_rig(&b);
    }
}

/* The number of ranks changes who has which token, not where tokens go. */
static void test_same_on_any_rank_count(void **state)
{
    (void)state;
    struct rig few;
    struct rig many;
    struct ep_routing x;
    struct ep_routing y;
    CHECK_OK(open_rig("zipf:0.7", 24, 4, 2, 60, 8, &few));
    CHECK_OK(open_rig("zipf:0.7", 24, 4, 6, 20, 8, &many));
    CHECK_OK(ep_routing_init(120, 24, 4, true, &x));
    CHECK_OK(ep_routing_init(120, 24, 4, true, &y));
    ep_router_generate(few.router, 0, 120, &x);
    ep_router_generate(many.router, 0, 120, &y);
    assert_memory_equal(x.topk_idx, y.topk_idx, 480 * sizeof *x.topk_idx);
    assert_memory_equal(x.topk_weight, y.topk_weight, 480 * sizeof *x.topk_weight);
    ep_routing_fini(&x);
    ep_routing_fini(&y);
    close_rig(&few);
    close_rig(&many);
}

#define GOLDEN_UNIFORM                                                                             \
    {                                                                                              \
        34, 19, 62, 17, 59, 11, 15, 37                                                             \
    }
#define GOLDEN_ZIPF                                                                                \
    {                                                                                              \
        46, 25, 17, 39, 50, 12, 16, 46                                                             \
    }
/* Golden rows: a change of these is a change of every published routing. */
static void test_golden(void **state)
{
    (void)state;
    struct rig rig;
    struct ep_routing r;
    const int32_t uniform[] = GOLDEN_UNIFORM;
    const int32_t zipf[] = GOLDEN_ZIPF;
    CHECK_OK(open_rig("uniform", 64, 4, 2, 2, 7, &rig));
    CHECK_OK(ep_router_generate_rank(rig.router, 1, false, &r));
    assert_memory_equal(r.topk_idx, uniform, sizeof uniform);
    ep_routing_fini(&r);
    close_rig(&rig);
    CHECK_OK(open_rig("zipf:1", 64, 4, 2, 2, 7, &rig));
    CHECK_OK(ep_router_generate_rank(rig.router, 1, false, &r));
    assert_memory_equal(r.topk_idx, zipf, sizeof zipf);
    ep_routing_fini(&r);
    close_rig(&rig);
}

static void test_unused_slots_and_empty_ranks(void **state)
{
    (void)state;
    const char text[] = "token,e0,e1,w0,w1\n0,1,-1,0.5,9\n1,-1,-1,1,1\n2,0,2,0.25,0.75\n";
    struct ep_trace *trace = NULL;
    CHECK_OK(ep_trace_load_text("t.csv", text, strlen(text), NULL, &trace));
    assert_int_equal(trace->num_experts, 3);
    CHECK_NEAR((double)trace->topk_weight[1], 0, 0); /* of an unused slot */
    ep_trace_destroy(trace);

    struct rig rig = {0};
    struct ep_routing r;
    CHECK_OK(ep_skew_create("uniform", &rig.skew));
    CHECK_OK(ep_placement_init_contiguous(4, 3, &rig.placement));
    CHECK_OK(ep_token_map_init_counts(3, (const int64_t[]){0, 5, 0}, &rig.tokens));
    const struct ep_router_config config = {
        .skew = rig.skew, .placement = &rig.placement, .tokens = &rig.tokens, .top_k = 2};
    CHECK_OK(ep_router_create(&config, &rig.router));
    CHECK_OK(ep_router_generate_rank(rig.router, 0, true, &r));
    assert_int_equal(r.num_tokens, 0);
    ep_routing_fini(&r);
    CHECK_OK(ep_router_generate_rank(rig.router, 1, true, &r));
    assert_int_equal(r.num_tokens, 5);
    check_rows(&r);
    ep_routing_fini(&r);
    close_rig(&rig);
}

static void test_sample_trace(void **state)
{
    (void)state;
    struct rig rig;
    struct ep_routing r;
    int64_t experts = 0;
    int64_t top_k = 0;
    CHECK_OK(open_rig("trace:sample", 64, 6, 2, 5000, 1, &rig));
    assert_true(ep_router_wraps(rig.router));
    CHECK_OK(ep_routing_init(2, 64, 6, true, &r));
    /* the file's second row, and token 8327 + 1 is it again */
    const int32_t second[] = {14, 20, 35, 42, 63, 60};
    ep_router_generate(rig.router, 1, 1, &r);
    assert_memory_equal(r.topk_idx, second, sizeof second);
    ep_router_generate(rig.router, 8328, 1, &r);
    assert_memory_equal(r.topk_idx, second, sizeof second);
    ep_router_generate(rig.router, 8326, 2, &r); /* the last row, then the first */
    const int32_t around[] = {3, 17, 18, 26, 43, 53, 3, 38, 50, 60, 62, 63};
    assert_memory_equal(r.topk_idx, around, sizeof around);
    ep_routing_fini(&r);

    /* alone, a contradicting option is refused; in a sweep the case uses its own */
    CHECK_FAILS(ep_skew_resolve_shape(rig.skew, 128, 0, false, &experts, &top_k), EP_EINVAL,
                "--experts 128 contradicts trace:sample, which has 64");
    CHECK_FAILS(ep_skew_resolve_shape(rig.skew, 0, 2, false, &experts, &top_k), EP_EINVAL,
                "--top-k 2 contradicts");
    CHECK_OK(ep_skew_resolve_shape(rig.skew, 16, 2, true, &experts, &top_k));
    assert_int_equal(experts, 64);
    assert_int_equal(top_k, 6);
    CHECK_OK(ep_skew_resolve_shape(rig.skew, 64, 6, false, &experts, &top_k));
    close_rig(&rig);
    struct ep_skew *uniform = NULL;
    CHECK_OK(ep_skew_create("uniform", &uniform));
    CHECK_FAILS(ep_skew_resolve_shape(uniform, 0, 2, false, &experts, &top_k), EP_EINVAL,
                "--experts is needed");
    CHECK_FAILS(ep_skew_resolve_shape(uniform, 8, 0, true, &experts, &top_k), EP_EINVAL,
                "--top-k is needed");
    ep_skew_destroy(uniform);
}

static void test_top_k_beyond_experts(void **state)
{
    (void)state;
    struct rig rig;
    CHECK_FAILS(open_rig("uniform", 4, 5, 2, 8, 1, &rig), EP_EINVAL, "top-5 of 4 experts");
    close_rig(&rig);
}

/* Subsets drawn together are each stream's own, in whole and in broken groups; a limit of 2^30 makes one draw in
 * four or so fail Lemire's first test, and 40 of 64 is drawn by selection. */
static void test_subsets_together(void **state)
{
    (void)state;
    static const struct {
        int64_t limit, num;
    } cases[] = {{8, 2}, {64, 6}, {256, 8}, {7, 7}, {257, 16}, {1 << 30, 8}, {300, 20}, {64, 40}};
    enum { NUM_STREAMS = 37 };
    int32_t together[NUM_STREAMS * 40];
    int32_t alone[40];
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const int64_t num = cases[c].num;
        ep_sample_subsets(7, EP_RANDOM_TEST, 0xfffffff3, NUM_STREAMS, cases[c].limit, num, together);
        for (int s = 0; s < NUM_STREAMS; s++) {
            struct ep_random random;
            ep_random_init(&random, 7, EP_RANDOM_TEST, UINT64_C(0xfffffff3) + (uint64_t)s);
            ep_sample_subset(&random, cases[c].limit, num, alone);
            assert_memory_equal(together + s * num, alone, (size_t)num * sizeof alone[0]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subsets_together),
        cmocka_unit_test(test_contiguous),
        cmocka_unit_test(test_placement_lists),
        cmocka_unit_test(test_token_maps),
        cmocka_unit_test(test_any_split_is_the_same),
        cmocka_unit_test(test_hot_is_reached),
        cmocka_unit_test(test_hot_ranks),
        cmocka_unit_test(test_hot_out_of_reach),
        cmocka_unit_test(test_zipf_frequencies),
        cmocka_unit_test(test_zipf_without_replacement),
        cmocka_unit_test(test_zipf_steep),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_same_on_any_rank_count),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_unused_slots_and_empty_ranks),
        cmocka_unit_test(test_sample_trace),
        cmocka_unit_test(test_top_k_beyond_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
