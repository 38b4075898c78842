/* SPDX-License-Identifier: Apache-2.0 */
/* Loads by domain against numbers worked by hand, and what the table of counts refuses. */
#include "tests/check.h"

#include "kernels/domains.h"

#include <math.h>
#include <stdlib.h>

#define HEADER "model,top_k,domain,layer,expert,count_topk,count_top1\n"

/* Four experts, top-2: in domain a 4, 3, 2 and 1 tokens, in b the other way round. */
static const char table[] =
    HEADER "m,2,a,3,0,4,1\nm,2,a,3,1,3,\nm,2,a,3,2,2,\nm,2,a,3,3,1,\n"
           "m,2,b,3,0,1,\nm,2,b,3,1,2,\nm,2,b,3,2,3,\nm,2,b,3,3,4,\n";

static void measure(int64_t num_ranks, int64_t num_nodes, struct ep_counts **counts,
                    struct ep_domains *domains)
{
    struct ep_placement placement;
    CHECK_OK(ep_counts_create_from_text("t", table, strlen(table), counts));
    CHECK_OK(ep_placement_init_contiguous(4, num_ranks, &placement));
    CHECK_OK(ep_domains_measure(*counts, 0, 3, &placement, num_nodes, domains));
    ep_placement_fini(&placement);
}

static void test_by_hand(void **state)
{
    (void)state;
    struct ep_counts *counts = NULL;
    struct ep_domains d;
    measure(2, 1, &counts, &d);
    assert_int_equal(d.num_domains, 2);
    assert_string_equal(d.loads[0].name, "a");
    assert_string_equal(d.loads[2].name, "mean");
    CHECK_NEAR(d.loads[0].tokens, 5, 0); /* 10 copies of top-2 */
    CHECK_NEAR(d.loads[0].share[0], 0.4, 1e-15);
    /* shares 0.4 0.3 0.2 0.1: max/mean 0.4 / 0.25; variance (2 0.15^2 + 2 0.05^2) / 4 = 0.0125, CV
     * its root / 0.25; Gini (3 0.4 + 0.3 - 0.2 - 3 0.1) / 4 = 0.25 */
    CHECK_NEAR(d.loads[0].expert.max_over_mean, 1.6, 1e-9);
    CHECK_NEAR(d.loads[0].expert.cv, 0.4472136, 1e-7);
    CHECK_NEAR(d.loads[0].expert.gini, 0.25, 1e-9);
    /* ranks 0.7 and 0.3; one node */
    CHECK_NEAR(d.loads[0].rank.max_over_mean, 1.4, 1e-9);
    CHECK_NEAR(d.loads[0].node.max_over_mean, 1, 1e-9);
    assert_int_equal(d.loads[1].hottest[0], 3);
    assert_int_equal(d.loads[1].hottest[2], 1);
    /* a against b: (0.3 + 0.1 + 0.1 + 0.3) / 2; cosine 1 - 0.2 / 0.3; the mean is even */
    CHECK_NEAR(d.total_variation[1], 0.4, 1e-12);
    CHECK_NEAR(d.total_variation[2], 0.4, 1e-12);
    CHECK_NEAR(d.total_variation[0], 0, 0);
    CHECK_NEAR(d.cosine[1], 1.0 / 3, 1e-12);
    CHECK_NEAR(d.loads[0].distance_to_mean, 0.2, 1e-12);
    CHECK_NEAR(d.loads[2].expert.max_over_mean, 1, 1e-9);
    CHECK_NEAR(d.loads[2].share[3], 0.25, 1e-12);
    /* 4 sqrt(1/4 3/4) / 2 x sqrt(2/10) x sqrt(2/pi) = 0.866025 x 0.447214 x 0.797885 */
    CHECK_NEAR(d.by_chance, 0.309019, 1e-5);
    ep_domains_fini(&d);
    ep_counts_destroy(counts);
}

/* Two replicas of each expert halve its load: ranks 0.2 0.2 0.15 0.15 ..., mean 1/8. */
static void test_replicas(void **state)
{
    (void)state;
    struct ep_counts *counts = NULL;
    struct ep_domains d;
    measure(8, 4, &counts, &d);
    CHECK_NEAR(d.loads[0].rank.max_over_mean, 1.6, 1e-9);
    CHECK_NEAR(d.loads[0].node.max_over_mean, 1.6, 1e-9);
    ep_domains_fini(&d);
    ep_counts_destroy(counts);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"", "t: is empty"},
        {HEADER, "t: has no rows"},
        {"model,top_k,layer,domain,expert,count_topk,count_top1\n", "t:1: header is not model,"},
        {HEADER "m,2,a,0,1,5,1\n", "t:2: expert 1; 0 expected"},
        {HEADER "m,2,a,0,0,5,1\nm,2,a,0,2,5,1\n", "t:3: expert 2; 1 expected"},
        {HEADER "m,2,a,0,0,5,1\nm,2,a,0,1,5,1\nm,2,b,0,0,5,1\n", "1 experts of m"},
        {HEADER "m,2,a,0,0,5,1\nm,3,a,0,1,5,1\n", "t:3: top_k 3; 2 expected"},
        {HEADER "m,2,a,0,0,5,1\nm,2,b,0,0,5,1\nm,2,a,0,0,5,1\n",
         "t:4: layer 0 of m, a comes again"},
        {HEADER "m,2,a,0,0,-5,1\n", "t:2: column 'count_topk'"},
        {HEADER "m,2,a,0,0,nan,1\n", "t:2: column 'count_topk'"},
        {HEADER "m,2,a,0,0\n", "t:2: has 5 fields"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ep_counts *counts = NULL;
        CHECK_FAILS(ep_counts_create_from_text("t", bad[i].text, strlen(bad[i].text), &counts),
                    EP_EINVAL, bad[i].says);
        assert_null(counts);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_replicas),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
