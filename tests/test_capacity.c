/* SPDX-License-Identifier: Apache-2.0 */
/* Capacity: every system's formula by hand, and what dropping keeps, reroutes and loses. */
#include "tests/check.h"

#include "kernels/capacity.h"

#include <math.h>
#include <stdlib.h>

static const struct ep_capacity_rule *rule_of(const char *name)
{
    const struct ep_capacity_rule *rule = NULL;
    CHECK_OK(ep_capacity_find_rule(name, &rule));
    return rule;
}

/* One computation: the worked example unless changed. */
struct asked {
    const char *rule;
    int64_t tokens, top_k, ranks;
    double factor;
    int64_t min_rows, align, needed;
    double eval_fraction;
    bool dropless;
};

static struct ep_capacity_policy policy_of(const struct asked *a)
{
    struct ep_capacity_policy policy = ep_capacity_policy_default(rule_of(a->rule), a->top_k);
    policy.factor = a->factor;
    policy.min_rows = a->min_rows;
    policy.align = a->align;
    policy.eval_fraction = a->eval_fraction;
    policy.drop = a->dropless ? EP_DROP_NONE : policy.drop;
    return policy;
}

static struct asked example(const char *rule, int64_t top_k)
{
    return (struct asked){rule, 100, top_k, 1, 1.25, -1, 1, 57, NAN, false};
}

static struct ep_capacity compute(const struct asked *a)
{
    const struct ep_capacity_policy policy = policy_of(a);
    const struct ep_capacity_shape shape = {a->tokens, 8, a->top_k, a->ranks};
    struct ep_capacity capacity = {0};
    CHECK_OK(ep_capacity_compute(&policy, &shape, a->needed, &capacity));
    assert_true(!capacity.by_need || ep_capacity_needs_counts(&policy, &shape));
    return capacity;
}

static int64_t rows_of(struct asked a)
{
    return compute(&a).rows;
}

/* T = 100, E = 8, k = 2, cf = 1.25, one rank: the values in the systems' own order of rounding.
 * Megatron 25 x 1.25 = 31.25, up. DeepSpeed 12.5 x 2.5 = 31.25, up. Tutel 2 x int(1.25 x 13) = 2
 * x 16. FastMoE 125 x 2 / 8 = 31.25, down. Megablocks 1.25 x 25, down. Fairseq 2 x 13. GShard 200
 * / 8. */
static void test_worked_example(void **state)
{
    (void)state;
    assert_int_equal(rows_of(example("megatron", 2)), 32);
    assert_int_equal(rows_of(example("deepspeed", 2)), 32);
    assert_int_equal(rows_of(example("tutel", 2)), 32);
    assert_int_equal(rows_of(example("fastmoe", 2)), 31);
    assert_int_equal(rows_of(example("megablocks", 2)), 31);
    assert_int_equal(rows_of(example("fairseq", 2)), 26);
    assert_int_equal(rows_of(example("gshard", 2)), 25);
    /* 1.25 x 100 / 8 = 15.625: a buffer for it has 16 rows; Mesh TensorFlow truncates. */
    assert_int_equal(rows_of(example("plain", 2)), 16);
    assert_int_equal(rows_of(example("switch", 1)), 15);
    const struct ep_capacity_shape shape = {100, 8, 2, 1};
    CHECK_NEAR(ep_capacity_plain_bytes(&shape, 1.25, 4096), 64000, 0); /* 15.625 x 4096 */
}

/* 100 x 1.1 is 110.00000000000001 in double, and 110 in float, where 1.1 is 1.10000002. */
static void test_rounding(void **state)
{
    (void)state;
    struct asked a = example("megatron", 1);
    a.tokens = 800;
    a.factor = 1.1;
    assert_int_equal(rows_of(a), 111);
    a.rule = "deepspeed";
    assert_int_equal(rows_of(a), 110);
    a = example("fastmoe", 2); /* ceil(99.99) x 2 / 8 = 25; without the ceil 24.99 */
    a.tokens = 99;
    a.factor = 1.01;
    assert_int_equal(rows_of(a), 25);
    a = example("gshard", 2); /* 206 / 8 = 25.75 */
    a.tokens = 103;
    assert_int_equal(rows_of(a), 25);
    a = example("fairseq", 1); /* int(1.25 x ceil(12.5)) = int(16.25) */
    assert_int_equal(rows_of(a), 16);
    a = example("switch", 1); /* int(100 x 9 / 8) = 112, but there are 100 tokens */
    a.factor = 9;
    assert_int_equal(rows_of(a), 100);
}

static void test_floors_and_fractions(void **state)
{
    (void)state;
    struct asked a = example("deepspeed", 1);
    a.tokens = 8;
    a.factor = 1;
    assert_int_equal(rows_of(a), 4); /* one row by the formula, 4 by DeepSpeed's own floor */
    a.min_rows = 0;
    assert_int_equal(rows_of(a), 1);
    a.min_rows = 9;
    assert_int_equal(rows_of(a), 9);
    a = example("switch", 1); /* int(20 x 1.25 / 8) = 3, 4 by Mesh TensorFlow's floor, */
    a.tokens = 20;
    assert_int_equal(rows_of(a), 4);
    a.tokens = 2; /* which comes after the minimum with the tokens */
    assert_int_equal(rows_of(a), 4);
    a.min_rows = 0; /* as in the paper: int(0.3125) */
    assert_int_equal(rows_of(a), 0);
    a = example("gshard", 2); /* 25, which GShard's own code makes a multiple of 4 */
    a.align = 4;
    assert_int_equal(rows_of(a), 28);
    a = example("megatron", 2);
    a.min_rows = 40;
    assert_int_equal(rows_of(a), 40);
    a = example("fairseq", 2);
    a.eval_fraction = 0.25;
    assert_int_equal(rows_of(a), 25);
    a.tokens = 101; /* 25.25, up */
    assert_int_equal(rows_of(a), 26);
    a = example("deepspeed", 2); /* drop_tokens = False: the largest count, 57, padded to 8 ranks */
    a.dropless = true;
    assert_int_equal(rows_of(a), 57);
    a.align = 8;
    assert_int_equal(rows_of(a), 64);
    a.dropless = false; /* DeepSpeed does not align what it drops to */
    assert_int_equal(rows_of(a), 32);
}

static void test_largest_count(void **state)
{
    (void)state;
    struct asked a = example("tutel", 2);
    a.factor = 0;
    assert_int_equal(rows_of(a), 57);
    assert_true(compute(&a).by_need);
    a.factor = -1.25; /* min(57, 32), min(20, 32) */
    assert_int_equal(rows_of(a), 32);
    assert_false(compute(&a).by_need);
    a.needed = 20;
    assert_int_equal(rows_of(a), 20);
    a.factor = 1.25;
    a.align = 5;
    assert_int_equal(rows_of(a), 35);
    a = example("megablocks", 2);
    a.factor = 0;
    assert_int_equal(rows_of(a), 57);
    a.factor = 0.01; /* int(0.25) = 0 */
    assert_int_equal(rows_of(a), 57);
}

/* Megablocks counts the rows of all ranks: int(1.25 x 2 x 100 x 4 / 8) = 125. FastMoE's Switch gate
 * too, with E the experts of one rank, 2: ceil(125 / 2) = 63. */
static void test_scope(void **state)
{
    (void)state;
    struct asked a = example("megablocks", 2);
    a.ranks = 4;
    assert_int_equal(rows_of(a), 125);
    assert_int_equal(compute(&a).scope, EP_CAPACITY_PER_EXPERT);
    a = example("fastmoe", 1);
    a.ranks = 4;
    assert_int_equal(rows_of(a), 63);
    assert_int_equal(compute(&a).scope, EP_CAPACITY_PER_EXPERT);
    a.top_k = 2;
    assert_int_equal(rows_of(a), 31);
    assert_int_equal(compute(&a).scope, EP_CAPACITY_PER_SOURCE);
}

static void test_defaults(void **state)
{
    (void)state;
    struct ep_capacity_policy policy = ep_capacity_policy_default(rule_of("fairseq"), 1);
    assert_true(ep_capacity_uses_factor(&policy, 1));
    assert_false(ep_capacity_uses_factor(&policy, 2));
    policy.eval_fraction = 0.25;
    assert_false(ep_capacity_uses_factor(&policy, 1));
    policy = ep_capacity_policy_default(rule_of("gshard"), 2);
    assert_false(ep_capacity_uses_factor(&policy, 2));
    policy = ep_capacity_policy_default(rule_of("tutel"), 2);
    assert_true(ep_capacity_uses_factor(&policy, 2));
    assert_int_equal(ep_capacity_policy_default(rule_of("megatron"), 8).drop, EP_DROP_PROB);
    assert_int_equal(ep_capacity_policy_default(rule_of("deepspeed"), 1).drop, EP_DROP_RANDOM);
    assert_int_equal(ep_capacity_policy_default(rule_of("deepspeed"), 2).drop, EP_DROP_CHOICE);
    assert_int_equal(ep_capacity_policy_default(rule_of("deepspeed"), 6).drop, EP_DROP_PROB);
    assert_int_equal(ep_capacity_policy_default(NULL, 2).drop, EP_DROP_NONE);
    struct asked a = example("switch", 1);
    a.factor = NAN; /* the system's own: 1.25 */
    assert_int_equal(rows_of(a), 15);
    for (const struct ep_capacity_rule *r = ep_capacity_rules; r->name != NULL; r++) {
        assert_non_null(r->formula);
        assert_non_null(r->source);
        assert_non_null(r->rows);
    }
}

static void refuse(struct asked a, const char *text)
{
    const struct ep_capacity_policy policy = policy_of(&a);
    const struct ep_capacity_shape shape = {a.tokens, 8, a.top_k, a.ranks};
    struct ep_capacity capacity = {.rows = -7};
    CHECK_FAILS(ep_capacity_compute(&policy, &shape, a.needed, &capacity), EP_EINVAL, text);
    assert_int_equal(capacity.rows, -7);
}

static void test_refused(void **state)
{
    (void)state;
    struct asked a = example("megatron", 2);
    a.factor = NAN;
    refuse(a, "--capacity-factor is needed: megatron has no default");
    a.factor = 0;
    refuse(a, "more than 0 is expected");
    a.factor = -1;
    refuse(a, "-1 is no factor of megatron");
    a.factor = INFINITY;
    refuse(a, "inf is no factor");
    a.factor = 1e12; /* 2.5e13 rows */
    refuse(a, "25000000000000 rows is more than 2147483647");
    a.factor = 1;
    a.align = 8;
    refuse(a, "megatron does not align");
    a.align = 1;
    a.eval_fraction = 0.25;
    refuse(a, "megatron has no evaluation fraction");
    a = example("megablocks", 2);
    a.factor = -0.5;
    refuse(a, "0 (the largest count) or more");
    a = example("tutel", 2);
    a.factor = INFINITY;
    refuse(a, "a finite number");
    refuse(example("gshard", 1), "top-2 only, not top-1");
    refuse(example("fairseq", 3), "top-1 and 2 only, not top-3");
    refuse(example("switch", 2), "top-1 only, not top-2");
    struct ep_capacity_policy policy = ep_capacity_policy_default(rule_of("plain"), 2);
    policy.factor = 1;
    policy.overflow = EP_OVERFLOW_EXPERT;
    policy.overflow_expert = 8;
    const struct ep_capacity_shape shape = {100, 8, 2, 1};
    struct ep_capacity capacity;
    CHECK_FAILS(ep_capacity_compute(&policy, &shape, 0, &capacity), EP_EINVAL,
                "--overflow expert:8: there are experts 0 to 7");
    const struct ep_capacity_rule *rule = NULL;
    CHECK_FAILS(ep_capacity_find_rule("megatrn", &rule), EP_EINVAL, "did you mean megatron?");
    enum ep_drop drop;
    CHECK_FAILS(ep_drop_parse("ordr", "--drop", &drop), EP_EINVAL, "did you mean order?");
    CHECK_FAILS(ep_overflow_parse("nxt", "--overflow", &policy), EP_EINVAL, "did you mean next?");
    CHECK_FAILS(ep_overflow_parse("expert:x", "--overflow", &policy), EP_EINVAL, "whole number");
    CHECK_OK(ep_overflow_parse("expert:3", "--overflow", &policy));
    assert_int_equal(policy.overflow_expert, 3);
}

/* --- dropping ----------------------------------------------------------------------------- */

/* Three experts, four tokens, two rows of each expert:
 *   t0 -> 0 1 (.9 .1)   t1 -> 0 1 (.6 .4)   t2 -> 0 2 (.7 .3)   t3 -> 1 0 (.8 .2) */
static void fill_small(struct ep_routing *r)
{
    static const int32_t experts[] = {0, 1, 0, 1, 0, 2, 1, 0};
    static const float weights[] = {.9f, .1f, .6f, .4f, .7f, .3f, .8f, .2f};
    CHECK_OK(ep_routing_init(4, 3, 2, true, r));
    memcpy(r->topk_idx, experts, sizeof experts);
    memcpy(r->topk_weight, weights, sizeof weights);
}

static void check_small(enum ep_drop drop, enum ep_overflow overflow, const int32_t *expected,
                        struct ep_capacity_counts want)
{
    struct ep_routing r;
    struct ep_capacity_counts counts = {0};
    struct ep_capacity_policy policy = ep_capacity_policy_default(NULL, 2);
    policy.rows = 2;
    policy.drop = drop;
    policy.overflow = overflow;
    policy.overflow_expert = 2;
    int64_t room[3] = {2, 2, 2};
    fill_small(&r);
    CHECK_OK(ep_capacity_apply(&policy, 0, room, &r, &counts));
    for (int i = 0; i < 8; i++) {
        assert_int_equal(r.topk_idx[i], expected[i]);
        assert_int_equal(r.topk_idx[i] < 0, r.topk_weight[i] == 0);
    }
    assert_memory_equal(&counts, &want, sizeof want);
    ep_routing_fini(&r);
}

static void test_small(void **state)
{
    (void)state;
    /* By token: 0 and 1 are full after t1. t3 loses both. */
    check_small(EP_DROP_ORDER, EP_OVERFLOW_DROP, (int32_t[]){0, 1, 0, 1, -1, 2, -1, -1},
                (struct ep_capacity_counts){4, 8, 5, 0, 3, 2, 1});
    /* First choices 0 0 (0) 1, then 1 (1) 2 (0); what is in brackets finds no room. */
    check_small(EP_DROP_CHOICE, EP_OVERFLOW_DROP, (int32_t[]){0, 1, 0, -1, -1, 2, 1, -1},
                (struct ep_capacity_counts){4, 8, 5, 0, 3, 3, 0});
    /* Expert 0: .9 and .7 of .9 .6 .7 .2; expert 1: .8 and .4 of .1 .4 .8. */
    check_small(EP_DROP_PROB, EP_OVERFLOW_DROP, (int32_t[]){0, -1, -1, 1, 0, 2, 1, -1},
                (struct ep_capacity_counts){4, 8, 5, 0, 3, 3, 0});
    /* t2 has expert 2 already; t3's first copy takes its last row, the second finds none. */
    check_small(EP_DROP_ORDER, EP_OVERFLOW_NEXT, (int32_t[]){0, 1, 0, 1, -1, 2, 2, -1},
                (struct ep_capacity_counts){4, 8, 5, 1, 2, 2, 0});
    check_small(EP_DROP_ORDER, EP_OVERFLOW_EXPERT, (int32_t[]){0, 1, 0, 1, -1, 2, 2, -1},
                (struct ep_capacity_counts){4, 8, 5, 1, 2, 2, 0});
    /* Dropless: all 4 of expert 0. */
    check_small(EP_DROP_NONE, EP_OVERFLOW_DROP, (int32_t[]){0, 1, 0, 1, 0, 2, 1, 0},
                (struct ep_capacity_counts){4, 8, 8, 0, 0, 0, 0});
}

static void test_unused_slots(void **state)
{
    (void)state;
    struct ep_routing r;
    struct ep_capacity_counts counts = {0};
    struct ep_capacity_policy policy = ep_capacity_policy_default(NULL, 2);
    policy.drop = EP_DROP_ORDER;
    CHECK_OK(ep_routing_init(3, 2, 2, false, &r)); /* t0 none, t1 -> 1, t2 -> 1 */
    r.topk_idx[2] = 1;
    r.topk_idx[5] = 1;
    int64_t room[2] = {0, 1};
    CHECK_OK(ep_capacity_apply(&policy, 0, room, &r, &counts));
    const struct ep_capacity_counts want = {3, 2, 1, 0, 1, 1, 1};
    assert_memory_equal(&counts, &want, sizeof want);
    policy.drop = EP_DROP_PROB;
    CHECK_FAILS(ep_capacity_apply(&policy, 0, room, &r, &counts), EP_EINVAL, "no weights");
    ep_routing_fini(&r);
}

enum { TOKENS = 500, EXPERTS = 16, TOP_K = 4 };

static void generate(uint64_t seed, struct ep_routing *r)
{
    struct ep_skew *skew = NULL;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router = NULL;
    CHECK_OK(ep_skew_create("zipf:1", &skew));
    CHECK_OK(ep_placement_init_contiguous(EXPERTS, 2, &placement));
    CHECK_OK(ep_token_map_init_equal(2, TOKENS, &map));
    const struct ep_router_config config = {skew, &placement, &map, TOP_K, seed};
    CHECK_OK(ep_router_create(&config, &router));
    CHECK_OK(ep_router_generate_rank(router, 1, true, r));
    ep_router_destroy(router);
    ep_token_map_fini(&map);
    ep_placement_fini(&placement);
    ep_skew_destroy(skew);
}

static void count_experts(const struct ep_routing *r, int64_t counts[EXPERTS])
{
    memset(counts, 0, EXPERTS * sizeof *counts);
    for (int64_t i = 0; i < r->num_tokens * r->top_k; i++) {
        if (r->topk_idx[i] >= 0) {
            counts[r->topk_idx[i]]++;
        }
    }
}

static bool has_expert(const struct ep_routing *r, int64_t token, int32_t expert)
{
    bool has = false;
    for (int64_t j = token * TOP_K; j < (token + 1) * TOP_K; j++) {
        has = has || r->topk_idx[j] == expert;
    }
    return has;
}

/* No expert twice; a slot that was dropped under `next` had no other expert with room. */
static void check_tokens(const struct ep_routing *before, const struct ep_routing *after,
                         const int64_t *room, enum ep_overflow overflow)
{
    for (int64_t t = 0; t < TOKENS; t++) {
        bool dropped = false;
        for (int64_t j = t * TOP_K; j < (t + 1) * TOP_K; j++) {
            const int32_t e = after->topk_idx[j];
            dropped = dropped || e < 0;
            for (int64_t i = t * TOP_K; e >= 0 && i < j; i++) {
                assert_int_not_equal(after->topk_idx[i], e);
            }
        }
        for (int32_t e = 0; dropped && overflow == EP_OVERFLOW_NEXT && e < EXPERTS; e++) {
            assert_true(room[e] == 0 || has_expert(before, t, e) || has_expert(after, t, e));
        }
    }
}

/* Sums over every policy and overflow: each expert gets min(asked, capacity) of its own. */
static void test_conservation(void **state)
{
    (void)state;
    struct ep_routing before;
    generate(3, &before);
    int64_t asked[EXPERTS];
    count_experts(&before, asked);
    for (int drop = EP_DROP_ORDER; drop < EP_NUM_DROPS; drop++) {
        for (int overflow = 0; overflow < EP_NUM_OVERFLOWS; overflow++) {
            struct ep_routing after;
            struct ep_capacity_counts counts = {0};
            struct ep_capacity_policy policy = ep_capacity_policy_default(NULL, TOP_K);
            policy.drop = (enum ep_drop)drop;
            policy.overflow = (enum ep_overflow)overflow;
            policy.overflow_expert = 5;
            const int64_t capacity = 110; /* 2000 copies, room for 1760 */
            int64_t room[EXPERTS], got[EXPERTS];
            for (int e = 0; e < EXPERTS; e++) {
                room[e] = capacity;
            }
            generate(3, &after);
            CHECK_OK(ep_capacity_apply(&policy, TOKENS, room, &after, &counts));
            count_experts(&after, got);
            int64_t kept = 0, total = 0;
            for (int e = 0; e < EXPERTS; e++) {
                const int64_t own = asked[e] < capacity ? asked[e] : capacity;
                assert_int_equal(room[e], capacity - got[e]);
                assert_true(got[e] >= own && got[e] <= capacity);
                kept += own;
                total += got[e];
            }
            assert_int_equal(counts.asked, TOKENS * TOP_K);
            assert_int_equal(counts.kept, kept);
            assert_int_equal(counts.kept + counts.rerouted, total);
            assert_int_equal(counts.kept + counts.rerouted + counts.dropped, counts.asked);
            assert_true(counts.dropped > 0);
            assert_int_equal(counts.rerouted > 0, overflow != EP_OVERFLOW_DROP);
            check_tokens(&before, &after, room, policy.overflow);
            ep_routing_fini(&after);
        }
    }
    ep_routing_fini(&before);
}

/* The kept of a random choice: the same for a seed and token, others for others, not the first. */
static void test_random_choice(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        int64_t first_token;
    } runs[] = {{7, 1000}, {7, 1000}, {8, 1000}, {7, 2000}};
    struct ep_capacity_policy policy = ep_capacity_policy_default(NULL, 1);
    policy.drop = EP_DROP_RANDOM;
    int32_t kept[4][TOKENS];
    for (int run = 0; run < 4; run++) {
        struct ep_routing r;
        struct ep_capacity_counts counts = {0};
        int64_t room[1] = {TOKENS / 2};
        double mean = 0;
        policy.seed = runs[run].seed;
        CHECK_OK(ep_routing_init(TOKENS, 1, 1, false, &r));
        memset(r.topk_idx, 0, TOKENS * sizeof *r.topk_idx);
        CHECK_OK(ep_capacity_apply(&policy, runs[run].first_token, room, &r, &counts));
        assert_int_equal(counts.kept, TOKENS / 2);
        memcpy(kept[run], r.topk_idx, sizeof kept[run]);
        for (int t = 0; t < TOKENS; t++) {
            mean += r.topk_idx[t] == 0 ? t / (TOKENS / 2.0) : 0;
        }
        /* Mean of 250 of the numbers 0 to 499 without replacement: 249.5, standard deviation
         * 144.3 sqrt(1/250 (1 - 250/500)) = 6.5. In order of tokens it would be 124.5. */
        CHECK_NEAR(mean, 249.5, 33);
        ep_routing_fini(&r);
    }
    assert_memory_equal(kept[0], kept[1], sizeof kept[0]);
    assert_memory_not_equal(kept[0], kept[2], sizeof kept[0]);
    assert_memory_not_equal(kept[0], kept[3], sizeof kept[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_floors_and_fractions),
        cmocka_unit_test(test_largest_count),
        cmocka_unit_test(test_scope),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_unused_slots),
        cmocka_unit_test(test_conservation),
        cmocka_unit_test(test_random_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
