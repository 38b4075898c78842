/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/logits: the popularity that was asked for, any split, files and bad files. */
#include "tests/check.h"

#include "kernels/gate.h"
#include "kernels/logits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TOKENS = 20000, EXPERTS = 16 };

/* Copies of each expert under the top_k highest logits. */
static void count_chosen(const float *x, int64_t top_k, int64_t *counts)
{
    struct ep_gate_config config;
    struct ep_gate *gate = NULL;
    struct ep_routing routing;
    const struct ep_gate_batch batch = {.num_tokens = TOKENS, .logits = x};
    memset(counts, 0, EXPERTS * sizeof *counts);
    CHECK_OK(ep_gate_config_parse("softmax", EXPERTS, top_k, &config));
    CHECK_OK(ep_gate_create(&config, &gate));
    CHECK_OK(ep_routing_init(TOKENS, EXPERTS, top_k, false, &routing));
    CHECK_OK(ep_gate_route(gate, &batch, &routing));
    for (int64_t i = 0; i < TOKENS * top_k; i++) {
        counts[routing.topk_idx[i]]++;
    }
    ep_routing_fini(&routing);
    ep_gate_destroy(gate);
}

static void test_shares(void **state)
{
    (void)state;
    static const char *const skews[] = {"uniform", "zipf:1.2", "lognormal:0.8", "dirichlet:0.9"};
    float *x = malloc(sizeof *x * TOKENS * EXPERTS);
    int64_t counts[EXPERTS];
    for (size_t s = 0; s < sizeof skews / sizeof *skews; s++) {
        struct ep_logits *logits = NULL;
        double sum = 0;
        CHECK_OK(ep_logits_create(skews[s], EXPERTS, 3, &logits));
        ep_logits_fill(logits, 0, TOKENS, x);
        count_chosen(x, 1, counts);
        for (int e = 0; e < EXPERTS; e++) {
            const double share = ep_logits_share(logits, e);
            const double deviation = sqrt(share * (1 - share) / TOKENS);
            CHECK_NEAR((double)counts[e] / TOKENS, share, 5 * deviation);
            sum += share;
        }
        CHECK_NEAR(sum, 1, 1e-12);
        ep_logits_destroy(logits);
    }
    free(x);
}

/* Zipf 1 of three experts has shares 6 3 2 over 11; lognormal:0 and zipf:0 are uniform. */
static void test_popularity_by_hand(void **state)
{
    (void)state;
    struct ep_logits *logits = NULL;
    double found[3] = {0};
    CHECK_OK(ep_logits_create("zipf:1", 3, 5, &logits));
    for (int e = 0; e < 3; e++) {
        const double share = ep_logits_share(logits, e);
        const int rank = share > 0.5 ? 0 : share > 0.2 ? 1 : 2;
        found[rank] += share;
    }
    CHECK_NEAR(found[0], 6.0 / 11, 1e-12);
    CHECK_NEAR(found[1], 3.0 / 11, 1e-12);
    CHECK_NEAR(found[2], 2.0 / 11, 1e-12);
    ep_logits_destroy(logits);
    CHECK_OK(ep_logits_create("lognormal:0", 5, 5, &logits));
    CHECK_NEAR(ep_logits_share(logits, 4), 0.2, 1e-12);
    ep_logits_destroy(logits);
}

/* The k highest are what skew zipf draws, expert by expert. */
static void test_zipf_is_the_skew(void **state)
{
    (void)state;
    enum { TOP_K = 3, SEED = 11 };
    float *x = malloc(sizeof *x * TOKENS * EXPERTS);
    int64_t counts[EXPERTS], drawn[EXPERTS] = {0};
    struct ep_logits *logits = NULL;
    struct ep_skew *skew = NULL;
    struct ep_placement placement;
    struct ep_token_map tokens;
    struct ep_router *router = NULL;
    struct ep_routing routing;
    CHECK_OK(ep_logits_create("zipf:1", EXPERTS, SEED, &logits));
    ep_logits_fill(logits, 0, TOKENS, x);
    count_chosen(x, TOP_K, counts);
    CHECK_OK(ep_skew_create("zipf:1", &skew));
    CHECK_OK(ep_placement_init_contiguous(EXPERTS, 1, &placement));
    CHECK_OK(ep_token_map_init_equal(1, TOKENS, &tokens));
    const struct ep_router_config config = {
        .skew = skew, .placement = &placement, .tokens = &tokens, .top_k = TOP_K, .seed = SEED};
    CHECK_OK(ep_router_create(&config, &router));
    CHECK_OK(ep_router_generate_rank(router, 0, false, &routing));
    for (int64_t i = 0; i < TOKENS * TOP_K; i++) {
        drawn[routing.topk_idx[i]]++;
    }
    for (int e = 0; e < EXPERTS; e++) {
        const double share = (double)drawn[e] / TOKENS;
        const double deviation = sqrt(2 * share * (1 - share) / TOKENS); /* of two samples */
        CHECK_NEAR((double)counts[e] / TOKENS, share, 5 * deviation);
    }
    ep_routing_fini(&routing);
    ep_router_destroy(router);
    ep_token_map_fini(&tokens);
    ep_placement_fini(&placement);
    ep_skew_destroy(skew);
    ep_logits_destroy(logits);
    free(x);
}

static void test_any_split_is_the_same(void **state)
{
    (void)state;
    float whole[40 * EXPERTS], part[40 * EXPERTS];
    struct ep_logits *logits = NULL;
    CHECK_OK(ep_logits_create("zipf:0.5", EXPERTS, 1, &logits));
    ep_logits_fill(logits, 7, 40, whole);
    ep_logits_fill(logits, 7, 13, part);
    ep_logits_fill(logits, 20, 27, part + 13 * EXPERTS);
    assert_memory_equal(whole, part, sizeof whole);
    ep_logits_destroy(logits);
}

/* --- files ----------------------------------------------------------------------------------- */

static char file[64];

static void write_file(const char *ending, const void *bytes, size_t size)
{
    snprintf(file, sizeof file, "/tmp/epbench-logits-%d%s", (int)getpid(), ending);
    FILE *out = fopen(file, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    fclose(out);
}

static void write_npy(const char *type, int64_t rows, const void *values, size_t size)
{
    char bytes[1024] = "\x93NUMPY\x01";
    char text[160];
    snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%d, 3)}", type,
             (int)rows);
    memset(bytes + 10, ' ', 118);
    memcpy(bytes + 10, text, strlen(text));
    bytes[7] = 0;
    bytes[8] = 118;
    bytes[9] = 0;
    bytes[127] = '\n';
    memcpy(bytes + 128, values, size);
    write_file(".npy", bytes, 128 + size);
}

static void test_files(void **state)
{
    (void)state;
    const float f4[] = {1, 2, 3, -INFINITY, 5.5f, 6};
    const double f8[] = {1, 2, 3, -INFINITY, 5.5, 6};
    const char csv[] = "e0,e1,e2\n1,2,3\n-inf,5.5,6\n";
    for (int kind = 0; kind < 3; kind++) {
        struct ep_logits *logits = NULL;
        float x[6];
        if (kind == 0) {
            write_npy("<f4", 2, f4, sizeof f4);
        } else if (kind == 1) {
            write_npy("<f8", 2, f8, sizeof f8);
        } else {
            write_file(".csv", csv, strlen(csv));
        }
        CHECK_OK(ep_logits_load(file, kind == 0 ? 3 : 0, &logits));
        assert_int_equal(ep_logits_num_experts(logits), 3);
        assert_int_equal(ep_logits_num_tokens(logits), 2);
        ep_logits_fill(logits, 0, 2, x);
        assert_memory_equal(x, f4, sizeof f4);
        ep_logits_fill(logits, 1, 1, x);
        assert_memory_equal(x, f4 + 3, 3 * sizeof *f4);
        assert_true(isnan(ep_logits_share(logits, 0)));
        ep_logits_destroy(logits);
        unlink(file);
    }
}

static void test_bad_input(void **state)
{
    (void)state;
    struct ep_logits *logits = NULL;
    const float bad[] = {1, 2, 3, 4, NAN, 6};
    const double large[] = {1, 2, 3, 4, 5, 1e300};
    const int32_t whole[] = {1, 2, 3, 4, 5, 6};
    CHECK_FAILS(ep_logits_create("hot:2", 4, 1, &logits), EP_EINVAL, "no logits have skew 'hot:2'");
    CHECK_FAILS(ep_logits_create("zipf:1+source", 4, 1, &logits), EP_EINVAL, "one popularity");
    CHECK_FAILS(ep_logits_create("zipf:1+masked:0.5", 4, 1, &logits), EP_EINVAL, "one popularity");
    CHECK_FAILS(ep_logits_create("nosuch", 4, 1, &logits), EP_EINVAL, "unknown skew");
    CHECK_FAILS(ep_logits_create("zipf:", 4, 1, &logits), EP_EINVAL, "for example zipf:1.0");
    CHECK_FAILS(ep_logits_create("zipf:-1", 4, 1, &logits), EP_EINVAL, "outside 0 to 20");
    CHECK_FAILS(ep_logits_create("lognormal:x", 4, 1, &logits), EP_EINVAL, "deviation S");
    write_npy("<f4", 2, bad, sizeof bad);
    CHECK_FAILS(ep_logits_load(file, 0, &logits), EP_EINVAL, "token 1, expert 1: nan");
    CHECK_FAILS(ep_logits_load(file, 4, &logits), EP_EINVAL, "3 experts; 4 expected");
    write_npy("<f8", 2, large, sizeof large);
    CHECK_FAILS(ep_logits_load(file, 0, &logits), EP_EINVAL, "token 1, expert 2: 1e+300");
    write_npy("<i4", 2, whole, sizeof whole);
    CHECK_FAILS(ep_logits_load(file, 0, &logits), EP_EINVAL, "2 dimensions of <i4");
    write_npy("<f4", 0, bad, 0);
    CHECK_FAILS(ep_logits_load(file, 0, &logits), EP_EINVAL, "has no token");
    unlink(file);
    const struct {
        const char *text, *message;
    } cases[] = {{"e0,e2\n1,2\n", ".csv:1: column 'e2'; e1 expected"},
                 {"e0,e1\n1,2\n3\n", ".csv:3: has 1 field"},
                 {"e0,e1\n1,nan\n", "nan"},
                 {"e0,e1\n1,inf\n", "inf"},
                 {"e0,e1\n", "has no token"},
                 {"", "is empty"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(".csv", cases[i].text, strlen(cases[i].text));
        CHECK_FAILS(ep_logits_load(file, 0, &logits), EP_EINVAL, cases[i].message);
    }
    unlink(file);
    CHECK_FAILS(ep_logits_load("/no/such.npy", 0, &logits), EP_EINVAL, "/no/such.npy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_popularity_by_hand),
        cmocka_unit_test(test_zipf_is_the_skew),
        cmocka_unit_test(test_any_split_is_the_same),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
