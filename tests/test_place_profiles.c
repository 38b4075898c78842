/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles of experts from tables of counts: what is read, what is refused, what is drawn. */
#include "tests/check.h"

#include "base/file.h"
#include "kernels/place_profiles.h"

#include <stdlib.h>

/* A table in a file of its own; the path is to be freed. */
static char *write_table(const char *text)
{
    const char *directory = getenv("EPBENCH_TEST_DIR");
    char *path = ep_path_join(directory != NULL ? directory : "/tmp", "profiles.csv");
    assert_non_null(path);
    CHECK_OK(ep_file_write(path, text, strlen(text)));
    return path;
}

static const char domains[] = "model,top_k,domain,layer,expert,count_topk,count_top1\n"
                              "m,2,law,3,0,30,1\n"
                              "m,2,law,3,1,10,1\n"
                              "m,2,code,3,2,20,1\n"
                              "m,2,law,4,0,7,1\n"
                              "n,2,law,3,0,9,1\n";

static void test_domains(void **state)
{
    char *path = write_table(domains);
    const struct ep_place_profiles_choice choice = {path, "m", 3};
    struct ep_place_profiles p;
    (void)state;
    CHECK_OK(ep_place_profiles_load(EP_PLACE_DOMAINS, &choice, &p));
    assert_int_equal(p.num_classes, 2);
    assert_int_equal(p.num_experts, 3);
    assert_int_equal(p.top_k, 2);
    const double expected[6] = {30, 10, 0, 0, 0, 20};
    assert_memory_equal(p.weight, expected, sizeof expected);
    ep_place_profiles_fini(&p);
    free(path);
}

/* Layer 7 ends one pair: experts of layer 7 after those of layer 0. Layer 0 only begins one: its
 * experts before those of layer 7. */
static void test_layers(void **state)
{
    char *path = write_table("model,domain,layer_a,layer_b,expert_a,expert_b,count\n"
                             "m,law,0,7,0,0,1\n"
                             "m,law,0,7,0,1,2\n"
                             "m,law,0,7,1,0,3\n");
    const struct ep_place_profiles_choice later = {path, NULL, 7};
    const struct ep_place_profiles_choice earlier = {path, NULL, 0};
    const struct ep_place_profiles_choice none = {path, NULL, 5};
    const double after[4] = {1, 2, 3, 0};
    const double before[4] = {1, 3, 2, 0};
    struct ep_place_profiles p;
    (void)state;
    CHECK_OK(ep_place_profiles_load(EP_PLACE_LAYERS, &later, &p));
    assert_int_equal(p.num_classes, 2);
    assert_int_equal(p.top_k, 0);
    assert_memory_equal(p.weight, after, sizeof after);
    ep_place_profiles_fini(&p);
    CHECK_OK(ep_place_profiles_load(EP_PLACE_LAYERS, &earlier, &p));
    assert_memory_equal(p.weight, before, sizeof before);
    ep_place_profiles_fini(&p);
    CHECK_FAILS(ep_place_profiles_load(EP_PLACE_LAYERS, &none, &p), EP_EINVAL, "has no row");
    free(path);
}

static void check_refused(const char *text, const char *model, int64_t layer, const char *part)
{
    char *path = write_table(text);
    const struct ep_place_profiles_choice choice = {path, model, layer};
    struct ep_place_profiles p;
    CHECK_FAILS(ep_place_profiles_load(EP_PLACE_DOMAINS, &choice, &p), EP_EINVAL, part);
    free(path);
}

static void test_refused(void **state)
{
    enum ep_place_similarity similarity;
    (void)state;
    check_refused(domains, NULL, 3, ":6: model n after m; say which with --profiles-model");
    check_refused(domains, "m", -1, ":5: layer 4 after 3; say which with --profiles-layer");
    check_refused(domains, "x", 3, "has no row of the model and layer");
    check_refused("model,top_k,domain,layer,expert\nm,2,law,3,0\n", NULL, -1,
                  ":1: column 'count_topk' is missing");
    check_refused("model,top_k,domain,layer,expert,count_topk\nm,2,law,3,0,1\nm,2,law,3,0,1\n",
                  NULL, -1, ":3: this entry came before");
    check_refused("model,top_k,domain,layer,expert,count_topk\nm,2,law,3,0,-1\n", NULL, -1, ":2");
    check_refused("model,top_k,domain,layer,expert,count_topk\nm,2,law,3,0,nan\n", NULL, -1, ":2");
    check_refused("model,top_k,domain,layer,expert,count_topk\nm,2,law,3,0,0\n", NULL, -1,
                  "all its counts are 0");
    check_refused("model,top_k,domain,layer,expert,count_topk\nm,2,law,3,0,1\nm,3,law,3,1,1\n",
                  NULL, -1, ":3: top_k 3 after 2");
    check_refused("", NULL, -1, "empty");
    CHECK_FAILS(ep_place_similarity_parse("domain", "--similarity", &similarity), EP_EINVAL,
                "did you mean 'domains'?");
}

/* Two classes of 3/4 and 1/4 of all copies. In the first, top-1 is expert 0 with the chance 9/12
 * and 1 with 3/12; with top-2 both come. In the second there is expert 2 alone, and no second one.
 */
static void test_draw(void **state)
{
    static double weight[6] = {9, 3, 0, 0, 0, 4};
    static const struct ep_place_profiles p = {2, 3, 0, weight};
    enum { TOKENS = 8000, FIRST = 6000 };
    int32_t *one = malloc(TOKENS * sizeof *one);
    int32_t *both = malloc(2 * TOKENS * sizeof *both);
    int32_t *again = malloc(TOKENS * sizeof *again);
    int64_t zeros = 0;
    (void)state;
    assert_true(one != NULL && both != NULL && again != NULL);
    CHECK_OK(ep_place_profiles_draw(&p, TOKENS, 1, 5, one));
    CHECK_OK(ep_place_profiles_draw(&p, TOKENS, 2, 5, both));
    for (int t = 0; t < TOKENS; t++) {
        if (t < FIRST) {
            assert_in_range(one[t], 0, 1);
            zeros += one[t] == 0;
            assert_int_equal(both[2 * t] + both[2 * t + 1], 1);
        } else {
            assert_int_equal(one[t], 2);
            assert_int_equal(both[2 * t], 2);
            assert_int_equal(both[2 * t + 1], -1);
        }
    }
    /* binomial(6000, 3/4): mean 4500, standard deviation sqrt(1125) = 33.5; 5 of them */
    CHECK_NEAR((double)zeros, 4500, 168);
    CHECK_OK(ep_place_profiles_draw(&p, TOKENS, 1, 5, again));
    assert_memory_equal(one, again, TOKENS * sizeof *one);
    CHECK_OK(ep_place_profiles_draw(&p, TOKENS, 1, 6, again));
    assert_memory_not_equal(one, again, TOKENS * sizeof *one);
    /* top-2 of shares 9/12, 2/12, 1/12: the first comes to every token, the second to 2/3 of them: mean
     * 4000, standard deviation sqrt(6000 2/9) = 36.5; 5 of them */
    weight[1] = 2;
    weight[2] = 1;
    int64_t second = 0;
    CHECK_OK(ep_place_profiles_draw(&p, TOKENS, 2, 5, both));
    for (int t = 0; t < FIRST; t++) {
        assert_int_equal(both[2 * t], 0);
        second += both[2 * t + 1] == 1;
    }
    CHECK_NEAR((double)second, 4000, 183);
    free(one);
    free(both);
    free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domains),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
