/* SPDX-License-Identifier: Apache-2.0 */
/* Published tables: how many nodes a token goes to, bytes by hand, planted constants, bad tables. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/gate.h"
#include "kernels/group_spread.h"
#include "kernels/imbalance.h"
#include "results/published.h"

#include <math.h>
#include <stdlib.h>

/* --- spread ---------------------------------------------------------------------------------- */

static struct ep_group_spread expect(int64_t experts, int64_t top_k, int64_t groups, int64_t kept,
                                     int64_t parts)
{
    struct ep_group_spread spread;
    CHECK_OK(ep_group_spread_expect(experts, top_k, groups, kept, parts, &spread));
    return spread;
}

static void test_spread_by_hand(void **state)
{
    (void)state;
    /* 4 experts, 2 groups, 1 kept, both of its experts chosen */
    CHECK_NEAR(expect(4, 2, 2, 1, 2).groups, 1, 1e-12);
    CHECK_NEAR(expect(4, 2, 2, 1, 4).parts, 2, 1e-12);
    /* 2 kept: the second is of the same group in 1 of 3 cases, so 1/3 + 2 2/3 groups */
    CHECK_NEAR(expect(4, 2, 2, 2, 2).groups, 5.0 / 3, 1e-12);
    /* 6 experts, 3 groups of 2, top-3: without a limit 3 (1 - C(4,3)/C(6,3)) = 2.4; with 2 kept always
     * 2, for no group has three */
    CHECK_NEAR(expect(6, 3, 3, 3, 3).groups, 2.4, 1e-12);
    CHECK_NEAR(expect(6, 3, 3, 2, 3).groups, 2, 1e-12);
    CHECK_NEAR(expect(6, 3, 3, 2, 6).parts, 3, 1e-12);
}

/* Without a limit: the closed form of kernels/README.md, "Fan-out". */
static void test_spread_without_limit(void **state)
{
    (void)state;
    for (int64_t nodes = 1; nodes <= 8; nodes *= 2) {
        const struct ep_group_spread s = expect(256, 8, nodes, nodes, 8 * nodes);
        CHECK_NEAR(s.groups, ep_traffic_expected_groups(256, 8, nodes), 1e-9);
        CHECK_NEAR(s.parts, ep_traffic_expected_groups(256, 8, 8 * nodes), 1e-9);
    }
}

/* DeepEP at 64 ranks (256 experts, 8 nodes of which a token may use 4) against a router that does it. */
static void test_spread_against_router(void **state)
{
    (void)state;
    enum { TOKENS = 20000, EXPERTS = 256, TOP_K = 8 };
    struct ep_gate_config config;
    struct ep_gate *gate;
    struct ep_routing routing;
    struct ep_random random;
    float *logits = malloc((size_t)TOKENS * EXPERTS * sizeof *logits);
    assert_non_null(logits);
    CHECK_OK(ep_gate_config_parse("softmax-group:8:4", EXPERTS, TOP_K, &config));
    CHECK_OK(ep_gate_create(&config, &gate));
    CHECK_OK(ep_routing_init(TOKENS, EXPERTS, TOP_K, false, &routing));
    ep_random_init(&random, 1, EP_RANDOM_TEST, 0);
    for (int i = 0; i < TOKENS * EXPERTS; i++) {
        logits[i] = (float)ep_random_f64(&random);
    }
    CHECK_OK(ep_gate_route(gate, &(struct ep_gate_batch){.num_tokens = TOKENS, .logits = logits},
                           &routing));
    int64_t nodes = 0, ranks = 0;
    for (int t = 0; t < TOKENS; t++) {
        uint64_t to = 0; /* bit = rank; 4 experts each */
        for (int k = 0; k < TOP_K; k++) {
            to |= UINT64_C(1) << (routing.topk_idx[t * TOP_K + k] / 4);
        }
        for (int n = 0; n < 8; n++) {
            nodes += ((to >> (8 * n)) & 255) != 0;
        }
        ranks += __builtin_popcountll(to);
    }
    /* deviations of a token at most 0.15 nodes and 0.7 ranks; five times that over sqrt(20000) */
    const struct ep_group_spread s = expect(EXPERTS, TOP_K, 8, 4, 64);
    CHECK_NEAR((double)nodes / TOKENS, s.groups, 5 * 0.15 / sqrt(TOKENS));
    CHECK_NEAR((double)ranks / TOKENS, s.parts, 5 * 0.7 / sqrt(TOKENS));
    assert_true(ep_traffic_expected_groups(256, 8, 8) - s.groups > 1); /* the limit matters */
    ep_routing_fini(&routing);
    ep_gate_destroy(gate);
    free(logits);
}

static void test_spread_bad_input(void **state)
{
    (void)state;
    struct ep_group_spread s;
    CHECK_FAILS(ep_group_spread_expect(10, 2, 4, 2, 4, &s), EP_EINVAL, "divide");
    CHECK_FAILS(ep_group_spread_expect(8, 2, 4, 2, 6, &s), EP_EINVAL, "divide");
    CHECK_FAILS(ep_group_spread_expect(8, 5, 4, 2, 4, &s), EP_EINVAL, "top-5");
    CHECK_FAILS(ep_group_spread_expect(256, 13, 4, 2, 4, &s), EP_EINVAL, "1 to 12");
}

/* --- tables ---------------------------------------------------------------------------------- */

#define HEADER                                                                                     \
    "set,gpu,mode,op,ep,nodes,tokens_per_rank,hidden,topk,experts,dtype,bw_gbs,lat_us,byte_basis," \
    "topk_groups,line_gbs,fit_group\n"

static struct ep_published read_table(const char *text)
{
    struct ep_published p;
    CHECK_OK(ep_published_read("t.csv", text, strlen(text), &p));
    return p;
}

/* 1000 tokens of 256 bf16 (512 B) or fp32 (1024 B), top-1 of 4: one row per token. On 2 ranks of a node
 * half of the 512,000 B cross NVLink, 256,000 B; on 2 nodes of 2, half cross the network, and half
 * NVLink. Planted: NVLink 2 GB/s, network 1 GB/s. One node: 256,000 / 2e9 = 128 us, printed as 512,000 B
 * / 128 us = 4 GB/s. Two: max(128, 256) = 256 us, printed as 2 GB/s. */
static void test_planted_table(void **state)
{
    (void)state;
    struct ep_published p = read_table(
        HEADER "s,g,ht,d,2,1,1000,256,1,4,bf16,4,,tok_rank_dedup_incl_local,,,f\n"
               "s,g,ht,d,2,1,1000,256,1,4,fp32,4,,tok_rank_dedup_incl_local?,,,f\n"
               "s,g,ht,d,4,2,1000,256,1,4,bf16,2,,tok_node_dedup_incl_local,,,f\n"
               "s,g,ht,d,4,2?,1000,256,1,4?,fp32,2,,tok_node_dedup_incl_local,,,f\n");
    assert_int_equal(p.num, 4);
    assert_int_equal(p.num_fits, 1);
    assert_int_equal(p.fits[0].num_constants, 2);
    CHECK_NEAR(p.fits[0].seconds_per_byte[EP_PUBLISHED_NVLINK], 0.5e-9, 1e-18);
    CHECK_NEAR(p.fits[0].seconds_per_byte[EP_PUBLISHED_RDMA], 1e-9, 1e-18);
    const double published_us[] = {128, 256, 256, 512};
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(1e6 * p.rows[i].published_s, published_us[i], 1e-6);
        CHECK_NEAR(1e6 * p.rows[i].predicted_s, published_us[i], 1e-6);
        assert_int_equal(p.rows[i].binding, i < 2 ? EP_PUBLISHED_NVLINK : EP_PUBLISHED_RDMA);
    }
    /* without the rows of 4 ranks nothing is known of the network, without those of 2 nothing of NVLink */
    for (int i = 0; i < 4; i++) {
        assert_true(isnan(p.rows[i].left_out_s));
    }
    CHECK_NEAR(p.rows[0].logical_bytes, 512000, 1e-6);
    CHECK_NEAR(p.rows[0].level_bytes[EP_PUBLISHED_NVLINK], 256000, 1e-6);
    CHECK_NEAR(p.rows[0].level_bytes[EP_PUBLISHED_RDMA], 0, 0);
    CHECK_NEAR(p.rows[2].level_bytes[EP_PUBLISHED_RDMA], 256000, 1e-6);
    ep_published_fini(&p);
}

/* The same with 8 ranks on 4 nodes, 384,000 B over the network in 384 us: 4/3 GB/s. Without 4 ranks, or
 * without 8, the others give both constants; without 2, none of the rest leans on NVLink as they do. */
static void test_left_out(void **state)
{
    (void)state;
    struct ep_published p = read_table(
        HEADER "s,g,ht,d,2,1,1000,256,1,8,bf16,4,,tok_rank_dedup_incl_local,,,f\n"
               "s,g,ht,d,2,1,1000,256,1,8,fp32,4,,tok_rank_dedup_incl_local,,,f\n"
               "s,g,ht,d,4,2,1000,256,1,8,bf16,2,,tok_node_dedup_incl_local,,,f\n"
               "s,g,ht,d,8,4,1000,256,1,8,bf16,1.333333333,,tok_node_dedup_incl_local,,,f\n");
    assert_true(isnan(p.rows[0].left_out_s) && isnan(p.rows[1].left_out_s));
    CHECK_NEAR(1e6 * p.rows[2].left_out_s, 256, 1e-4);
    CHECK_NEAR(1e6 * p.rows[3].left_out_s, 384, 1e-4);
    CHECK_NEAR(p.fits[0].mean_left_out_error, 0, 1e-6);
    ep_published_fini(&p);
}

/* Times with a fixed part: 10 us + bytes / 1 GB/s; top-2 copies of 1024 B, 2 ranks on 2 nodes: half of
 * 2048 T bytes cross the network. */
static void test_fixed_time(void **state)
{
    (void)state;
    struct ep_published p = read_table(
        HEADER "s,g,ll,d,2,2,10,256,2,4,fp32,,20.24,none,,,f\n"
               "s,g,ll,d,2,2,100,256,2,4,fp32,,112.4,none,,,f\n"
               "s,g,ll,d,2,2,1000,256,2,4,fp32,,1034,none,,,f\n"
               /* dense: 4 experts x 100 tokens x 1024 B, half of it over the network: 214.8 us */
               "s,g,ll,d,2,2,100,256,2,4,fp32,,214.8,dense_padded_max_tokens_per_local_expert,,,f\n");
    CHECK_NEAR(1e6 * p.fits[0].seconds_per_byte[EP_PUBLISHED_FIXED], 10, 1e-6);
    CHECK_NEAR(p.fits[0].seconds_per_byte[EP_PUBLISHED_RDMA], 1e-9, 1e-16);
    assert_int_equal(p.rows[0].binding, EP_PUBLISHED_RDMA); /* 10.24 us of bytes beside 10 us */
    CHECK_NEAR(p.rows[3].predicted_s / p.rows[3].published_s, 1, 1e-9);
    ep_published_fini(&p);
}

static void test_withheld(void **state)
{
    (void)state;
    struct ep_published p = read_table(
        HEADER "s,g,ht,d,2,1,1000,256,1,4,bf16,4,,tok_rank_dedup_incl_local,,1.9,f\n" /* 2 remote */
               "s,g,ht,d,2,1,1000,256,1,4,bf16,4,,algbw_unspecified,,,f\n"
               "s,g,ht,d,2,1,1000,256,1,,bf16,4,,tok_rank_dedup_incl_local,,,f\n"
               "s,g,ht,d,1,1,1000,256,1,4,bf16,4,,tok_rank_dedup_incl_local,,,f\n"
               "s,g,ht,d,2,,1000,256,1,4,bf16,4,,tok_rank_dedup_incl_local,,,f\n"
               "s,g,ht,d,2,1,1000,256,1,4,bf16,4,,tok_rank_dedup_incl_local,,,one row\n"
               /* same bytes on both levels in both rows: nobody can say which one binds */
               "s,g,ht,d,4,2,1000,256,1,4,bf16,2,,tok_node_dedup_incl_local,,,either\n"
               "s,g,ht,d,4,2,1000,256,1,4,fp32,2,,tok_node_dedup_incl_local,,,either\n");
    const char *const reasons[] = {"2.0 GB/s of remote bytes on a line of 1.9",
                                   "bytes its bandwidth counts",
                                   "number of experts",
                                   "one rank sends nothing",
                                   "number of nodes",
                                   "rest on this row alone"};
    for (int i = 0; i < 6; i++) {
        assert_true(isnan(p.rows[i].predicted_s));
        assert_non_null(strstr(p.rows[i].withheld, reasons[i]));
    }
    assert_int_equal(p.rows[7].binding, EP_PUBLISHED_EITHER);
    assert_string_equal(ep_published_level_name(p.rows[7].binding), "nvlink or rdma");
    ep_published_fini(&p);
}

static void test_bad_tables(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"set,gpu\ns,g\n", "no column 'fit_group'"},
        {HEADER "s,g,ht,d,2,1,1000,256,1,4,bf16,4,,bytes,,,f\n", "t.csv:2: byte_basis 'bytes'"},
        {HEADER "s,g,ht,d,2,1,1000,256,1,4,bf16,,,none,,,f\n", "one of bw_gbs and lat_us"},
        {HEADER "s,g,ht,d,2,1,1000,256,1,4,bf16,4,4,none,,,f\n", "one of bw_gbs and lat_us"},
        {HEADER "s,g,ht,d,2,1,1000,256,1,4,bf17,4,,none,,,f\n", "bf17"},
        {HEADER "s,g,ht,d,x,1,1000,256,1,4,bf16,4,,none,,,f\n", "t.csv:2: ep"},
        {HEADER "s,g,ht,d,2.5,1,1000,256,1,4,bf16,4,,none,,,f\n", "ep 2.5"},
        {HEADER "s,g,ht,d,0,1,1000,256,1,4,bf16,4,,none,,,f\n", "ep 0"},
        {HEADER "s,g,ht,d,2,1,1000,256,5,4,bf16,4,,none,,,f\n", "t.csv:2: topk 5"},
        {HEADER "s,g\n", "t.csv:2"},
        {"", "t.csv"},
    };
    struct ep_published p;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(ep_published_read("t.csv", bad[i].text, strlen(bad[i].text), &p), EP_EINVAL,
                    bad[i].message);
    }
}

/* The shipped table: DeepEP's times as derived elsewhere from its printed bandwidths, in us (8 and 16
 * ranks by U(8) = 5.295 and U(2) = 1.993, 64 by a simulated router's 3.983). */
static void test_shipped_table(void **state)
{
    (void)state;
    static const double us[] = {1048, 1968, 1403, 2722, 1887, 3725, 2365, 4678};
    struct ep_published p;
    CHECK_OK(ep_published_load(&p));
    assert_int_equal(p.num, 220);
    for (int i = 0; i < 8; i++) {
        assert_string_equal(p.rows[i].set, "deepep_v1_ht");
        CHECK_NEAR(1e6 * p.rows[i].published_s / us[i], 1, 1e-3);
    }
    for (int64_t i = 0; i < p.num; i++) {
        /* withheld with a reason, or predicted */
        assert_true(isnan(p.rows[i].predicted_s) == (p.rows[i].withheld[0] != '\0'));
    }
    ep_published_fini(&p);
}

static void test_theory(void **state)
{
    (void)state;
    /* 3 B x 32 tokens x 9 copies x 7000 = 6,048,000 B */
    CHECK_NEAR(1e6 * ep_published_copies_time(32, 9, 7000, 3, 50e9), 120.96, 1e-9);
    CHECK_NEAR(1e6 * ep_published_copies_time(32, 9, 7000, 3, 900e9), 6.72, 1e-9);
    CHECK_NEAR(1e6 * ep_published_copies_time(32, 9, 7168, 3, 50e9), 123.86, 0.005);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread_by_hand),        cmocka_unit_test(test_spread_without_limit),
        cmocka_unit_test(test_spread_against_router), cmocka_unit_test(test_spread_bad_input),
        cmocka_unit_test(test_planted_table),         cmocka_unit_test(test_fixed_time),
        cmocka_unit_test(test_withheld),              cmocka_unit_test(test_bad_tables),
        cmocka_unit_test(test_shipped_table),         cmocka_unit_test(test_theory),
        cmocka_unit_test(test_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
