/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: what each skew makes of the loads of experts, and what it refuses. */
#include "tests/check.h"

#include "kernels/routing.h"
#include "kernels/skew_popularity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The routing of all tokens. */
struct rig {
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map tokens;
    struct ep_router *router;
    struct ep_routing routing;
};

static enum ep_status open_rig(const char *skew, int64_t experts, int64_t top_k, int64_t ranks,
                               int64_t tokens, struct rig *rig)
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
                                            .seed = 7};
    status = status == EP_OK ? ep_router_create(&config, &rig->router) : status;
    status = status == EP_OK ? ep_routing_init(ranks * tokens, experts, top_k, true, &rig->routing)
                             : status;
    if (status == EP_OK) {
        ep_router_generate(rig->router, 0, ranks * tokens, &rig->routing);
    }
    return status;
}

static void close_rig(struct rig *rig)
{
    ep_routing_fini(&rig->routing);
    ep_router_destroy(rig->router);
    ep_token_map_fini(&rig->tokens);
    ep_placement_fini(&rig->placement);
    ep_skew_destroy(rig->skew);
}

/* Copies of each expert in tokens first .. first + num - 1; checks that none comes twice. */
static void count_loads(const struct rig *rig, int64_t first, int64_t num, int64_t *loads)
{
    const struct ep_routing *r = &rig->routing;
    memset(loads, 0, (size_t)r->num_experts * sizeof *loads);
    for (int64_t t = first; t < first + num; t++) {
        for (int64_t i = 0; i < r->top_k; i++) {
            const int32_t e = r->topk_idx[t * r->top_k + i];
            assert_in_range(e + 1, 0, r->num_experts);
            for (int64_t j = 0; e >= 0 && j < i; j++) {
                assert_int_not_equal(e, r->topk_idx[t * r->top_k + j]);
            }
            if (e >= 0) {
                loads[e]++;
            }
        }
    }
}

static double gini_of(const int64_t *loads, int64_t num)
{
    double values[1024];
    for (int64_t i = 0; i < num; i++) {
        values[i] = (double)loads[i];
    }
    return ep_popularity_gini(values, num);
}

static void test_khot_share(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        int64_t num;
        double share;
        int64_t experts;
        int64_t top_k;
    } cases[] = {
        {"khot:1:0.9", 1, 0.9, 16, 1},  {"khot:1:0.9", 1, 0.9, 16, 4},
        {"khot:1:0.9", 1, 0.9, 256, 8}, {"khot:3:0.9", 3, 0.9, 16, 4},
        {"khot:8:1", 8, 1, 64, 8},      {"khot:2:0.05", 2, 0.05, 64, 4},
        {"khot:2:0", 2, 0, 64, 4},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rig rig;
        int64_t loads[256];
        int64_t order[256];
        CHECK_OK(open_rig(cases[c].skew, cases[c].experts, cases[c].top_k, 4, 500, &rig));
        count_loads(&rig, 0, 2000, loads);
        /* the group: its experts are the most loaded ones (the least ones at shares near 0) */
        const bool rare = cases[c].share < 0.1;
        for (int64_t e = 0; e < cases[c].experts; e++) {
            int64_t i = e;
            for (;
                 i > 0 && (rare ? loads[order[i - 1]] > loads[e] : loads[order[i - 1]] < loads[e]);
                 i--) {
                order[i] = order[i - 1];
            }
            order[i] = e;
        }
        int64_t with = 0;
        int64_t copies = 0;
        for (int64_t t = 0; t < 2000; t++) {
            int64_t chosen = 0;
            for (int64_t i = 0; i < cases[c].top_k * cases[c].num; i++) {
                chosen += rig.routing.topk_idx[t * cases[c].top_k + i / cases[c].num] ==
                          order[i % cases[c].num];
            }
            with += chosen > 0;
            copies += chosen;
        }
        /* the variate runs through a Weyl sequence: within a few tokens */
        CHECK_NEAR((double)with, cases[c].share * 2000, 4);
        if (cases[c].top_k == 1) {
            assert_int_equal(with, copies); /* share of tokens and of copies are one */
        }
        close_rig(&rig);
    }
}

static void test_khot_bounds(void **state)
{
    (void)state;
    struct rig rig;
    /* 3 experts are outside the group: a token's 4 cannot all be */
    CHECK_FAILS(open_rig("khot:13:0.5", 16, 4, 4, 8, &rig), EP_EINVAL, "only 3 are not");
    close_rig(&rig);
    CHECK_OK(open_rig("khot:13:1", 16, 4, 4, 8, &rig));
    close_rig(&rig);
    CHECK_FAILS(open_rig("khot:17:0.5", 16, 4, 4, 8, &rig), EP_EINVAL, "only 16 experts");
    close_rig(&rig);
}

/* Draws by hand, weights 3, 2, 1 and two of three:
 * P(1) = 3/6 + 2/6 3/4 + 1/6 3/5 = 0.85; P(2) = 2/6 + 3/6 2/3 + 1/6 2/5 = 0.73333; P(3) = 0.41667
 */
static void test_chances_by_hand(void **state)
{
    (void)state;
    double chances[3];
    CHECK_OK(ep_popularity_chances((const double[]){3, 2, 1}, 3, 2, chances));
    CHECK_NEAR(chances[0], 0.85, 1e-7);
    CHECK_NEAR(chances[1], 11.0 / 15, 1e-7);
    CHECK_NEAR(chances[2], 5.0 / 12, 1e-7);
    CHECK_OK(ep_popularity_chances((const double[]){3, 2, 1}, 3, 1, chances));
    CHECK_NEAR(chances[2], 1.0 / 6, 1e-7);
    CHECK_OK(ep_popularity_chances((const double[]){3e-200, 2, 1e200}, 3, 3, chances));
    CHECK_NEAR(chances[0], 1, 0);
    /* 7/8 of even experts, far from each other in popularity from the eighth on */
    double many[256];
    double all[256];
    double sum = 0;
    for (int e = 0; e < 256; e++) {
        many[e] = e < 224 ? 1 : 1e-30;
    }
    CHECK_OK(ep_popularity_chances(many, 256, 224, all));
    for (int e = 0; e < 256; e++) {
        CHECK_NEAR(all[e], e < 224, 1e-6);
        sum += all[e];
    }
    CHECK_NEAR(sum, 224, 1e-5);
}

/* Successive draws are what the sampler does. 200,000 tokens: deviation of a share < 0.0012. */
static void test_chances_are_drawn(void **state)
{
    (void)state;
    struct rig rig;
    int64_t loads[16];
    double weights[16];
    double chances[16];
    CHECK_OK(open_rig("zipf:1.5", 16, 6, 2, 100000, &rig));
    CHECK_OK(ep_popularity_fill_zipf(rig.router, 1.5, weights));
    CHECK_OK(ep_popularity_chances(weights, 16, 6, chances));
    count_loads(&rig, 0, 200000, loads);
    for (int e = 0; e < 16; e++) {
        CHECK_NEAR((double)loads[e] / 200000, chances[e], 0.005);
    }
    close_rig(&rig);
}

static void test_gini_is_reached(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        double gini;
        int64_t experts;
        int64_t top_k;
    } cases[] = {{"gini:0", 0, 64, 8},
                 {"gini:0.3", 0.3, 64, 8},
                 {"gini:0.6", 0.6, 256, 8},
                 {"gini:0.85", 0.85, 64, 8},
                 {"gini:0.5", 0.5, 32, 1}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rig rig;
        int64_t loads[256];
        CHECK_OK(open_rig(cases[c].skew, cases[c].experts, cases[c].top_k, 2, 40000, &rig));
        count_loads(&rig, 0, 80000, loads);
        CHECK_NEAR(gini_of(loads, cases[c].experts), cases[c].gini, 0.012); /* noise adds to 0 */
        close_rig(&rig);
    }
    struct rig rig;
    /* at most the same 8 of 64 always: 1 - 8/64 */
    CHECK_FAILS(open_rig("gini:0.9", 64, 8, 2, 8, &rig), EP_EINVAL, "at most 0.875");
    close_rig(&rig);
    CHECK_FAILS(open_rig("gini:0.1", 8, 8, 2, 8, &rig), EP_EINVAL, "at most 0");
    close_rig(&rig);
    CHECK_FAILS(open_rig("gini:0.1", 65536, 8, 2, 8, &rig), EP_EINVAL, "at most 131072");
    close_rig(&rig);
}

/* Of lognormal popularities with top-1, logs of loads have the deviation S: 1,000 experts of 400
 * tokens and more in the mean; its standard error is S / sqrt(2000) = 0.022 and noise adds less. */
static void test_lognormal(void **state)
{
    (void)state;
    struct rig rig;
    int64_t *loads = malloc(1000 * sizeof *loads);
    CHECK_OK(open_rig("lognormal:0.5", 1000, 1, 1, 1000000, &rig));
    count_loads(&rig, 0, 1000000, loads);
    double sum = 0;
    double squares = 0;
    for (int e = 0; e < 1000; e++) {
        const double x = log((double)loads[e]);
        sum += x;
        squares += x * x;
    }
    CHECK_NEAR(sqrt(squares / 1000 - sum / 1000 * (sum / 1000)), 0.5, 0.05);
    close_rig(&rig);
    CHECK_OK(open_rig("lognormal:0", 16, 4, 1, 16000, &rig));
    count_loads(&rig, 0, 16000, loads);
    for (int e = 0; e < 16; e++) {
        CHECK_NEAR((double)loads[e], 4000, 250); /* uniform: deviation 55 */
    }
    close_rig(&rig);
    free(loads);
}

/* Shares of a symmetric Dirichlet have the variance (n - 1) / (n^2 (n a + 1)): cv^2 = (n - 1) /
 * (n a + 1). At n = 1000, a = 0.25: 999 / 251 = 3.98; the estimate's spread is some 8 %. */
static void test_dirichlet(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        double squared_cv;
    } cases[] = {{"dirichlet:0.25", 999 / 251.0}, {"dirichlet:4", 999 / 4001.0}};
    int64_t *loads = malloc(1000 * sizeof *loads);
    for (int c = 0; c < 2; c++) {
        struct rig rig;
        CHECK_OK(open_rig(cases[c].skew, 1000, 1, 1, 1000000, &rig));
        count_loads(&rig, 0, 1000000, loads);
        double squares = 0;
        for (int e = 0; e < 1000; e++) {
            squares += ((double)loads[e] / 1000 - 1) * ((double)loads[e] / 1000 - 1);
        }
        CHECK_NEAR(squares / 1000 / cases[c].squared_cv, 1, 0.3);
        close_rig(&rig);
    }
    free(loads);
    struct rig rig;
    /* all but certain: a few experts take nearly everything, yet top-8 finds 8 */
    CHECK_OK(open_rig("dirichlet:0.001", 64, 8, 1, 100, &rig));
    int64_t few[64];
    count_loads(&rig, 0, 100, few);
    close_rig(&rig);
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_masked(void **state)
{
    (void)state;
    struct rig rig;
    struct rig whole;
    CHECK_OK(open_rig("zipf:1+masked:0.25", 16, 4, 2, 10000, &rig));
    CHECK_OK(open_rig("zipf:1", 16, 4, 2, 10000, &whole));
    int64_t masked = 0;
    for (int64_t i = 0; i < 80000; i++) {
        const int32_t e = rig.routing.topk_idx[i];
        masked += e < 0;
        if (e < 0) {
            CHECK_NEAR((double)rig.routing.topk_weight[i], 0, 0);
        } else {
            assert_int_equal(e, whole.routing.topk_idx[i]); /* what is left is unchanged */
        }
    }
    CHECK_NEAR((double)masked, 20000, 700); /* deviation 122 */
    assert_string_not_equal(ep_router_id(rig.router), ep_router_id(whole.router));
    close_rig(&rig);
    close_rig(&whole);
}

/* Each source has a popularity of its own: rank loads differ where a common one makes them equal,
 * and a source's sorted loads stay those of the skew. */
static void test_popularity_by_source(void **state)
{
    (void)state;
    struct rig rig;
    struct rig common;
    CHECK_OK(open_rig("zipf:2+source", 16, 1, 4, 20000, &rig));
    CHECK_OK(open_rig("zipf:2", 16, 1, 4, 20000, &common));
    int64_t favourites[4];
    for (int s = 0; s < 4; s++) {
        int64_t loads[16];
        int64_t others[16];
        count_loads(&rig, (int64_t)s * 20000, 20000, loads);
        count_loads(&common, (int64_t)s * 20000, 20000, others);
        favourites[s] = 0;
        for (int e = 1; e < 16; e++) {
            favourites[s] = loads[e] > loads[favourites[s]] ? e : favourites[s];
        }
        CHECK_NEAR(gini_of(loads, 16), gini_of(others, 16), 1e-12); /* the same draws, renamed */
        /* 1 / (1 + 1/4 + ... + 1/256) = 0.631 of 20,000; deviation 68 */
        CHECK_NEAR((double)loads[favourites[s]], 12620, 300);
    }
    assert_false(favourites[0] == favourites[1] && favourites[1] == favourites[2] &&
                 favourites[2] == favourites[3]);
    close_rig(&rig);
    close_rig(&common);
}

/* Any stretch of tokens alone gives what it gives among all. */
static void test_any_split_is_the_same(void **state)
{
    (void)state;
    write_file("skews_split.txt", "1,5,2,8,1,1,5,3,9,2,2,2,4,4,1,7\n");
    static const char *const skews[] = {"lognormal:1",
                                        "dirichlet:0.3",
                                        "gini:0.4",
                                        "counts:skews_split.txt",
                                        "khot:2:0.7",
                                        "zipf:1+source+masked:0.3",
                                        "gini:0.4+masked:0.1+source",
                                        "uniform+masked:0.5"};
    for (size_t i = 0; i < sizeof skews / sizeof skews[0]; i++) {
        struct rig rig;
        struct ep_routing part;
        CHECK_OK(open_rig(skews[i], 16, 4, 4, 50, &rig));
        CHECK_OK(ep_routing_init(200, 16, 4, true, &part));
        static const int64_t cuts[] = {0, 1, 9, 49, 50, 51, 133, 200};
        for (int c = 0; c < 7; c++) {
            const int64_t num = cuts[c + 1] - cuts[c];
            ep_router_generate(rig.router, cuts[c], num, &part);
            assert_memory_equal(part.topk_idx, rig.routing.topk_idx + cuts[c] * 4,
                                (size_t)num * 4 * sizeof *part.topk_idx);
            assert_memory_equal(part.topk_weight, rig.routing.topk_weight + cuts[c] * 4,
                                (size_t)num * 4 * sizeof *part.topk_weight);
        }
        ep_routing_fini(&part);
        close_rig(&rig);
    }
    remove("skews_split.txt");
}

static void test_bad_texts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"lognormal", "lognormal:S, for example"},
        {"lognormal:-1", "outside 0 to 100"},
        {"lognorml:1", "did you mean 'lognormal'"},
        {"dirichlet:0", "outside 0.001 to"},
        {"dirichlet:x", "concentration A"},
        {"gini:1.5", "outside 0 to 1"},
        {"gini", "for example gini:0.5"},
        {"zipf:1+masked:1", "below 1 expected"},
        {"zipf:1+masked:-0.1", "outside 0 to 1"},
        {"zipf:1+masked", "'+masked', +source or +masked:F expected"},
        {"zipf:1+sauce", "'+sauce', +source"},
        {"hot:2+source", "hot says which they are"},
        {"trace:sample+source", "trace says which they are"},
        {"uniform:+source", "takes no parameter"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ep_skew *skew = NULL;
        CHECK_FAILS(ep_skew_create(bad[i].text, &skew), EP_EINVAL, bad[i].says);
        assert_null(skew);
    }
    struct ep_skew *skew = NULL;
    CHECK_OK(ep_skew_create("zipf:1e+0", &skew)); /* a sign, not a modifier */
    CHECK_NEAR(skew->value, 1, 0);
    ep_skew_destroy(skew);
    char *text = ep_skew_compose("gini:0.5", true, "0.1");
    assert_string_equal(text, "gini:0.5+source+masked:0.1");
    CHECK_OK(ep_skew_create(text, &skew));
    assert_true(skew->by_source);
    CHECK_NEAR(skew->masked, 0.1, 0);
    ep_skew_destroy(skew);
    free(text);
    const char *usage = NULL;
    const char *summary = NULL;
    for (int i = 0; ep_skew_describe(i, &usage, &summary); i++) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(usage, ":"), usage);
        assert_non_null(strstr(ep_skew_usages(), name)); /* no skew is missing in messages */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_khot_share),
        cmocka_unit_test(test_khot_bounds),
        cmocka_unit_test(test_chances_by_hand),
        cmocka_unit_test(test_chances_are_drawn),
        cmocka_unit_test(test_gini_is_reached),
        cmocka_unit_test(test_lognormal),
        cmocka_unit_test(test_dirichlet),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_popularity_by_source),
        cmocka_unit_test(test_any_split_is_the_same),
        cmocka_unit_test(test_bad_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
