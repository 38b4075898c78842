/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: the plain functions, permutation, row types and the model zoo. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/dtype.h"
#include "kernels/models.h"
#include "kernels/combine.h"
#include "kernels/permute.h"
#include "kernels/plain.h"
#include "kernels/row_copy.h"
#include "kernels/traffic.h"

#include <math.h>
#include <stdlib.h>

static void test_plain_cost(void **state)
{
    (void)state;
    /* experts 0 1 on rank 0, 2 3 on rank 1; tokens 0 1 on rank 0, 2 3 on rank 1.
     * token 0 -> 0 1: local local; 1 -> 2 3: remote remote; 2 -> 0 3: remote local; 3 -> 1 -1:
     * remote */
    const int32_t assignments[] = {0, 1, 2, 3, 0, 3, 1, -1};
    const int32_t experts[] = {0, 0, 1, 1};
    const int32_t tokens[] = {0, 0, 1, 1};
    struct ep_plain_cost cost;
    CHECK_OK(ep_plain_routing_cost(assignments, 4, 2, experts, 4, tokens, 8192, 400, &cost));
    assert_int_equal(cost.local_tokens, 3);
    assert_int_equal(cost.remote_tokens, 4);
    assert_int_equal(cost.total_remote_bytes, 32768);
    /* 32768 B / 50e9 B/s = 0.65536 us = 0.00065536 ms -> 0.0007 */
    CHECK_NEAR(cost.comm_time_ms, 0.0007, 0);
    /* 32768 B / (0.008 Gb/s = 1e6 B/s) = 32.768 ms exactly */
    CHECK_OK(ep_plain_routing_cost(assignments, 4, 2, experts, 4, tokens, 8192, 0.008, &cost));
    CHECK_NEAR(cost.comm_time_ms, 32.768, 0);
    CHECK_OK(ep_plain_routing_cost(assignments, 0, 2, experts, 4, tokens, 8192, 1, &cost));
    assert_int_equal(cost.remote_tokens, 0);
    CHECK_NEAR(cost.comm_time_ms, 0, 0);
    CHECK_FAILS(ep_plain_routing_cost(assignments, 4, 2, experts, 3, tokens, 8192, 400, &cost),
                EP_EINVAL, "token 1: expert 3 is outside -1 to 2");
    CHECK_FAILS(ep_plain_routing_cost(assignments, 4, 2, experts, 4, tokens, 8192, 0, &cost),
                EP_EINVAL, "bandwidth");
    CHECK_FAILS(
        ep_plain_routing_cost(assignments, 4, 2, experts, 4, tokens, 8192, (double)NAN, &cost),
        EP_EINVAL, "bandwidth");
    CHECK_FAILS(
        ep_plain_routing_cost(assignments, 4, 2, experts, 4, tokens, INT64_MAX / 2, 400, &cost),
        EP_EINVAL, "exceed 2^63");
    CHECK_FAILS(ep_plain_routing_cost(assignments, 4, 2, experts, 4, tokens, -1, 400, &cost),
                EP_EINVAL, "-1 bytes");
}

/* The plain cost is the oracle of the copies basis. */
static void test_copies_agree_with_plain_cost(void **state)
{
    (void)state;
    enum { TOKENS = 300, TOP_K = 3, EXPERTS = 11, RANKS = 4 };
    struct ep_random random;
    struct ep_placement p;
    struct ep_traffic t;
    struct ep_traffic_totals totals;
    struct ep_plain_cost cost;
    int32_t idx[TOKENS * TOP_K];
    int32_t token_rank[TOKENS];
    int32_t expert_rank[EXPERTS];
    ep_random_init(&random, 1, EP_RANDOM_TEST, 0);
    for (int e = 0; e < EXPERTS; e++) {
        expert_rank[e] = (int32_t)ep_random_below(&random, RANKS);
    }
    CHECK_OK(ep_placement_init_list(expert_rank, EXPERTS, RANKS, &p));
    CHECK_OK(ep_traffic_init(&p, NULL, 1, TOP_K, &t));
    for (int i = 0; i < TOKENS; i++) {
        token_rank[i] = (int32_t)ep_random_below(&random, RANKS);
        for (int j = 0; j < TOP_K; j++) {
            idx[i * TOP_K + j] = (int32_t)ep_random_below(&random, EXPERTS + 1) - 1;
        }
        CHECK_OK(ep_traffic_add(&t, token_rank[i], idx + (ptrdiff_t)i * TOP_K, 1));
    }
    CHECK_OK(
        ep_plain_routing_cost(idx, TOKENS, TOP_K, expert_rank, EXPERTS, token_rank, 10, 1, &cost));
    ep_traffic_sum(t.copies, RANKS, &totals);
    assert_true(totals.remote > 0 && totals.remote < totals.total);
    assert_int_equal(totals.remote, cost.remote_tokens);
    assert_int_equal(totals.total, cost.remote_tokens + cost.local_tokens);
    ep_traffic_fini(&t);
    ep_placement_fini(&p);
}

static void test_plain_dispatch(void **state)
{
    (void)state;
    /* 2 ranks, 2 experts each of 2 x 1 matrices: expert e is (e + 1, 10 (e + 1)).
     * token rows (1, 0) and (0, 1) and (1, 1): expert e gives e + 1, 10 (e + 1), 11 (e + 1). */
    const float tokens[] = {1, 0, 0, 1, 1, 1};
    const float rank0[] = {1, 10, 2, 20};
    const float rank1[] = {3, 30, 4, 40};
    const int32_t idx[] = {0, 3, 2, 3, 1, -1};
    const float weight[] = {0.5F, 0.25F, 0.5F, 0.5F, 1, 0};
    struct ep_plain_routing routing = {
        .num_tokens = 3, .top_k = 2, .num_experts = 4, .topk_idx = idx, .topk_weight = weight};
    float out[3];
    CHECK_OK(ep_plain_dispatch(tokens, 2, &routing, rank0, 1, 0, 2, out));
    CHECK_NEAR((double)out[0], 0.5 * 1, 0);
    CHECK_NEAR((double)out[1], 0, 0); /* routed to rank 1 only */
    CHECK_NEAR((double)out[2], 22, 0);
    CHECK_OK(ep_plain_dispatch(tokens, 2, &routing, rank1, 1, 1, 2, out));
    CHECK_NEAR((double)out[0], 0.25 * 4, 0);
    CHECK_NEAR((double)out[1], 0.5 * 30 + 0.5 * 40, 0);
    CHECK_NEAR((double)out[2], 0, 0);
    routing.topk_weight = NULL;
    CHECK_OK(ep_plain_dispatch(tokens, 2, &routing, rank1, 1, 1, 2, out));
    CHECK_NEAR((double)out[1], 70, 0);
    CHECK_FAILS(ep_plain_dispatch(tokens, 2, &routing, rank1, 1, 0, 3, out), EP_EINVAL,
                "4 experts on 3 ranks");
    CHECK_FAILS(ep_plain_dispatch(tokens, 2, &routing, rank1, 1, 2, 2, out), EP_EINVAL,
                "rank 2 of 2");
    routing.num_experts = 2;
    CHECK_FAILS(ep_plain_dispatch(tokens, 2, &routing, rank1, 1, 0, 2, out), EP_EINVAL,
                "token 0: expert 3 is outside");
}

/* The sum over ranks is the layer on one rank, and does not depend on how many there are. */
static void test_dispatch_sums_to_the_layer(void **state)
{
    (void)state;
    enum { TOKENS = 20, HIDDEN = 5, OUT = 3, EXPERTS = 6, TOP_K = 3 };
    struct ep_random random;
    float tokens[TOKENS * HIDDEN];
    float matrices[EXPERTS * HIDDEN * OUT];
    float weight[TOKENS * TOP_K];
    int32_t idx[TOKENS * TOP_K];
    ep_random_init(&random, 2, EP_RANDOM_TEST, 0);
    for (int i = 0; i < TOKENS * HIDDEN; i++) {
        tokens[i] = (float)ep_random_f64(&random) - 0.5F;
    }
    for (int i = 0; i < EXPERTS * HIDDEN * OUT; i++) {
        matrices[i] = (float)ep_random_f64(&random) - 0.5F;
    }
    for (int i = 0; i < TOKENS * TOP_K; i++) {
        weight[i] = (float)ep_random_f64(&random);
        idx[i] = (int32_t)ep_random_below(&random, EXPERTS);
    }
    const struct ep_plain_routing routing = {TOKENS, TOP_K, EXPERTS, idx, weight};
    float whole[TOKENS * OUT];
    CHECK_OK(ep_plain_dispatch(tokens, HIDDEN, &routing, matrices, OUT, 0, 1, whole));
    for (int ranks = 2; ranks <= 6; ranks += ranks == 3 ? 3 : 1) {
        double sum[TOKENS * OUT] = {0};
        for (int r = 0; r < ranks; r++) {
            float part[TOKENS * OUT];
            CHECK_OK(ep_plain_dispatch(tokens, HIDDEN, &routing,
                                       matrices + (ptrdiff_t)r * EXPERTS / ranks * HIDDEN * OUT,
                                       OUT, r, ranks, part));
            for (int i = 0; i < TOKENS * OUT; i++) {
                sum[i] += (double)part[i];
            }
        }
        for (int i = 0; i < TOKENS * OUT; i++) { /* up to 6 roundings of values below 4 */
            CHECK_NEAR(sum[i], (double)whole[i], 4 * 6 * 0x1p-24);
        }
    }
}

static void test_permute_by_hand(void **state)
{
    (void)state;
    struct ep_permutation p;
    const int32_t idx[] = {2, 0, -1, 2, 0, 2}; /* 3 tokens, top-2, 4 experts; 1 and 3 stay empty */
    CHECK_OK(ep_permute_init(idx, 3, 2, 4, &p));
    const int64_t start[] = {0, 2, 2, 5, 5};
    const int64_t token[] = {0, 2, 0, 1, 2};
    const int64_t row[] = {2, 0, -1, 3, 1, 4};
    assert_int_equal(p.num_rows, 5);
    assert_memory_equal(p.expert_start, start, sizeof start);
    assert_memory_equal(p.row_token, token, sizeof token);
    assert_memory_equal(p.slot_row, row, sizeof row);

    const char rows[] = "abcABCxyz"; /* rows of three bytes: an odd size */
    char permuted[15];
    ep_permute_rows(&p, rows, 3, permuted);
    assert_memory_equal(permuted, "abcxyzabcABCxyz", 15);

    int64_t permute_bytes = 0;
    int64_t sum_bytes = 0;
    ep_permute_traffic_bytes(&p, 3, &permute_bytes, &sum_bytes);
    assert_int_equal(permute_bytes, 30); /* five rows read, five written */
    assert_int_equal(sum_bytes, 24);     /* five rows read, three written */
    ep_permute_fini(&p);
    CHECK_FAILS(ep_permute_init(idx, 3, 2, 2, &p), EP_EINVAL,
                "token 0, slot 0: expert 2 is outside -1 to 1");
}

/* Experts that double nothing: permute and sum back with weights that add to 1 gives the tokens, in
 * each dtype, at hidden sizes around the block of the sum. */
static void test_permute_and_back(void **state)
{
    (void)state;
    enum { TOKENS = 9, TOP_K = 3, EXPERTS = 5 };
    static const int hiddens[] = {1, 7, 511, 512, 513, 1030};
    struct ep_random random;
    int32_t idx[TOKENS * TOP_K];
    float weight[TOKENS * TOP_K];
    ep_random_init(&random, 5, EP_RANDOM_TEST, 0);
    for (int i = 0; i < TOKENS * TOP_K; i++) {
        idx[i] = (int32_t)ep_random_below(&random, EXPERTS);
        weight[i] = i % TOP_K == 0 ? 0.5F : 0.25F;
    }
    for (int j = 0; j < TOP_K; j++) {
        idx[4 * TOP_K + j] = -1; /* token 4 goes nowhere */
    }
    for (size_t h = 0; h < sizeof hiddens / sizeof hiddens[0]; h++) {
        const int64_t num = (int64_t)TOKENS * hiddens[h];
        struct ep_permutation p;
        CHECK_OK(ep_permute_init(idx, TOKENS, TOP_K, EXPERTS, &p));
        float *tokens = malloc((size_t)num * sizeof *tokens);
        uint16_t *halves = malloc((size_t)num * sizeof *halves);
        float *rows = malloc((size_t)(num * TOP_K) * sizeof *rows);
        float *back = malloc((size_t)num * sizeof *back);
        for (int64_t i = 0; i < num; i++) { /* small whole numbers: exact in bf16 and in sums */
            tokens[i] = (float)ep_random_below(&random, 64) - 32;
            halves[i] = ep_bf16_from_f32(tokens[i]);
        }
        ep_permute_rows(&p, tokens, 4 * hiddens[h], rows);
        CHECK_OK(ep_permute_sum_rows(&p, rows, EP_FP32, hiddens[h], weight, back));
        for (int64_t i = 0; i < num; i++) {
            CHECK_NEAR((double)back[i], i / hiddens[h] == 4 ? 0 : (double)tokens[i], 0);
        }
        ep_permute_rows(&p, halves, 2 * hiddens[h], rows);
        CHECK_OK(ep_permute_sum_rows(&p, rows, EP_BF16, hiddens[h], NULL, back));
        for (int64_t i = 0; i < num; i++) { /* weights 1: three copies of the row */
            const double sum = i / hiddens[h] == 4 ? 0 : 3 * (double)tokens[i];
            CHECK_NEAR((double)ep_bf16_to_f32(((uint16_t *)back)[i]), sum, 0);
        }
        CHECK_FAILS(ep_permute_sum_rows(&p, rows, EP_FP8, hiddens[h], NULL, back), EP_EINVAL,
                    "rows of fp8");
        free(back);
        free(rows);
        free(halves);
        free(tokens);
        ep_permute_fini(&p);
    }
}

static void test_row_bytes(void **state)
{
    (void)state;
    enum ep_dtype dtype = EP_FP32;
    /* DeepEP's rows at hidden 7168: bf16 14336, fp8 7168 + 4 * 56 = 7392 */
    assert_int_equal(ep_dtype_row_bytes(EP_BF16, 7168), 14336);
    assert_int_equal(ep_dtype_row_bytes(EP_FP8, 7168), 7392);
    assert_int_equal(ep_dtype_row_bytes(EP_FP32, 7168), 28672);
    assert_int_equal(ep_dtype_row_bytes(EP_FP8, 1), 5);
    assert_int_equal(ep_dtype_row_bytes(EP_FP8, 129), 137);
    CHECK_OK(ep_dtype_parse("fp8", "--dtype", &dtype));
    assert_int_equal(dtype, EP_FP8);
    CHECK_FAILS(ep_dtype_parse("bf15", "--dtype", &dtype), EP_EINVAL, "did you mean bf16");
    CHECK_FAILS(ep_dtype_parse("quarter", "--dtype", &dtype), EP_EINVAL, "fp32, bf16 or fp8");
    assert_string_equal(ep_dtype_name(EP_BF16), "bf16");
}

static void test_models(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    const struct ep_model *model = NULL;
    CHECK_OK(ep_models_create(&models));
    assert_int_equal(models->num, 32);
    CHECK_OK(ep_models_find(models, "deepseek-v3", &model));
    assert_int_equal(model->hidden, 7168);
    assert_int_equal(model->expert_ffn, 2048);
    assert_int_equal(model->num_experts, 256);
    assert_int_equal(model->top_k, 8);
    assert_int_equal(model->num_groups, 8);
    assert_int_equal(model->topk_groups, 4);
    assert_int_equal(model->num_moe_layers, 58);
    assert_true(model->gated);
    CHECK_NEAR(model->route_scale, 2.5, 0);
    assert_string_equal(model->weight_dtype, "fp8");
    CHECK_OK(ep_models_find(models, "switch-base-128", &model));
    assert_int_equal(model->num_groups, 0);
    assert_false(model->gated);
    assert_true(isnan(model->route_scale));
    assert_true(isnan(model->published_active_b));
    CHECK_FAILS(ep_models_find(models, "deepseek-v4", &model), EP_EINVAL,
                "there are deepseek-v4-flash, deepseek-v4-pro");
    CHECK_FAILS(ep_models_find(models, "mixtral-8x77b", &model), EP_EINVAL, "'mixtral-8x7b'");
    CHECK_FAILS(ep_models_find(models, "zzzzzz", &model), EP_EINVAL, "unknown model 'zzzzzz'");
    ep_models_destroy(models);
}

static void test_combine_bf16(void **state)
{
    (void)state;
    /* 3 x 64 elements, which wide registers take, and 5 more. 1 x a + 0.5 x b. */
    enum { HIDDEN = 197 };
    uint16_t a[HIDDEN], b[HIDDEN], sums[HIDDEN];
    const void *const rows[] = {a, b};
    const float weights[] = {1, 0.5f};
    for (int h = 0; h < HIDDEN; h++) {
        a[h] = ep_bf16_from_f32((float)(h % 50));
        b[h] = ep_bf16_from_f32(1);
    }
    /* Among the first, and among the last: bf16 steps by 2 from 256 on, so 257 is a tie that goes to 256,
     * and 259 one that goes to 260 (even last bit); a NaN stays one; 1.5 times the largest is infinite. */
    static const struct {
        float a, b, sum;
    } special[] = {{256, 2, 256}, {258, 2, 260}, {INFINITY, 1, INFINITY}, {0x1.fep127f, 0x1.fep127f, INFINITY}};
    for (int i = 0; i < 4; i++) {
        for (int place = 0; place < 2; place++) {
            const int h = place == 0 ? 10 + i : 192 + i;
            a[h] = ep_bf16_from_f32(special[i].a);
            b[h] = ep_bf16_from_f32(special[i].b);
        }
    }
    a[20] = a[196] = 0x7f81; /* a NaN whose upper half alone is not quiet */
    ep_combine_row(EP_BF16, HIDDEN, 2, rows, weights, sums);
    for (int h = 0; h < HIDDEN; h++) {
        const int i = h >= 192 ? h - 192 : h - 10;
        const float expected = i >= 0 && i < 4 ? special[i].sum : (float)(h % 50) + 0.5f;
        if (h == 20 || h == 196) {
            assert_true(isnan(ep_bf16_to_f32(sums[h])));
        } else {
            assert_true(ep_bf16_to_f32(sums[h]) == expected);
        }
    }
    ep_combine_row(EP_BF16, HIDDEN, 0, rows, weights, sums);
    assert_int_equal(sums[0] | sums[64] | sums[196], 0);
}

/* Hints change no sum: written past the caches where whole lines can be, and next to nothing else. */
static void test_combine_hints(void **state)
{
    (void)state;
    enum { HIDDEN = 197, MOST_OFF = 3 };
    _Alignas(64) uint16_t sums[MOST_OFF + HIDDEN + 1];
    uint16_t a[HIDDEN], b[HIDDEN], plain[HIDDEN];
    const void *const rows[] = {a, b};
    const float weights[] = {0.3f, 0.7f};
    for (int h = 0; h < HIDDEN; h++) {
        a[h] = ep_bf16_from_f32((float)h / 7);
        b[h] = ep_bf16_from_f32(100 - (float)h / 3);
    }
    ep_combine_row(EP_BF16, HIDDEN, 2, rows, weights, plain);
    for (int off = 0; off <= MOST_OFF; off += MOST_OFF) {
        const struct ep_combine_hints hints = {.stream = true, .num_next = 2, .next = rows};
        memset(sums, 0x5a, sizeof sums);
        ep_combine_row_hinted(EP_BF16, HIDDEN, 2, rows, weights, &hints, sums + off);
        ep_row_stream_end();
        assert_memory_equal(sums + off, plain, sizeof plain);
        assert_int_equal(sums[off + HIDDEN], 0x5a5a);
    }
}

/* Any alignment, any length, and not a byte beside. */
static void test_row_stream(void **state)
{
    (void)state;
    enum { LONGEST = 300, AROUND = 70 };
    char from[LONGEST + AROUND], to[LONGEST + 2 * AROUND];
    for (int i = 0; i < LONGEST + AROUND; i++) {
        from[i] = (char)(i * 7 + 1);
    }
    for (int size = 0; size <= LONGEST; size += 23) {
        for (int off = 0; off < AROUND; off += 9) {
            memset(to, 0, sizeof to);
            ep_row_stream(to + off, from + off / 2, (size_t)size);
            ep_row_stream_end();
            assert_memory_equal(to + off, from + off / 2, size);
            assert_int_equal(to[off + size], 0);
            assert_true(off == 0 || to[off - 1] == 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_cost),      cmocka_unit_test(test_copies_agree_with_plain_cost),
        cmocka_unit_test(test_plain_dispatch),  cmocka_unit_test(test_dispatch_sums_to_the_layer),
        cmocka_unit_test(test_permute_by_hand), cmocka_unit_test(test_permute_and_back),
        cmocka_unit_test(test_row_bytes),       cmocka_unit_test(test_models),
        cmocka_unit_test(test_combine_bf16),     cmocka_unit_test(test_combine_hints),
        cmocka_unit_test(test_row_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
