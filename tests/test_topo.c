/* SPDX-License-Identifier: Apache-2.0 */
/* topologies/: hosts, levels of pairs, bindings, restrictions, bad XML. */
#include "tests/check.h"

#include "base/file.h"
#include "topologies/restrictions.h"
#include "topologies/topo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct ep_topo *place(const char *synthetic, int64_t hosts, int64_t ranks,
                             int64_t ranks_per_host, enum ep_rank_order order)
{
    char *xml = NULL;
    size_t length = 0;
    struct ep_topo *topo = NULL;
    CHECK_OK(ep_machine_synthesize_xml(synthetic, &xml, &length));
    const struct ep_topo_xml input = {.text = xml, .length = length};
    CHECK_OK(ep_topo_create_placed(&input, 1, hosts, ranks, ranks_per_host, order, &topo));
    free(xml);
    return topo;
}

static int64_t pairs_on(const struct ep_topo *topo, const char *name)
{
    const int64_t level = ep_topo_find_level(topo, name);
    return level < 0 ? -1 : topo->levels[level].num_pairs;
}

/* The counts kept per level against asking for every pair; and symmetry. */
static void check_counts(const struct ep_topo *topo)
{
    int64_t counted[EP_TOPO_MAX_LEVELS] = {0};
    for (int64_t i = 0; i < topo->num_ranks; i++) {
        assert_int_equal(ep_topo_level_of(topo, i, i), EP_TOPO_SELF);
        for (int64_t k = i + 1; k < topo->num_ranks; k++) {
            const int64_t level = ep_topo_level_of(topo, i, k);
            assert_in_range(level, 1, topo->num_levels - 1);
            assert_int_equal(ep_topo_level_of(topo, k, i), level);
            counted[level]++;
        }
    }
    for (int64_t l = 0; l < topo->num_levels; l++) {
        assert_int_equal(counted[l], topo->levels[l].num_pairs);
    }
}

static void test_two_packages(void **state)
{
    (void)state;
    struct ep_topo *topo =
        place("pack:2 numa:1 l3:2 core:4 pu:1", 1, 16, 16, EP_RANK_ORDER_PACKED);
    /* 4 caches with 4 cores: 4 * 6; per package two caches: 2 * 4 * 4; two packages: 8 * 8 */
    assert_int_equal(pairs_on(topo, "L3"), 24);
    assert_int_equal(pairs_on(topo, "package"), 32);
    assert_int_equal(pairs_on(topo, "host"), 64);
    assert_int_equal(pairs_on(topo, "fabric"), 0);
    assert_string_equal(topo->levels[ep_topo_level_of(topo, 0, 3)].name, "L3");
    assert_string_equal(topo->levels[ep_topo_level_of(topo, 0, 4)].name, "package");
    assert_string_equal(topo->levels[ep_topo_level_of(topo, 0, 8)].name, "host");
    assert_true(ep_topo_find_level(topo, "L3") < ep_topo_find_level(topo, "package"));
    assert_true(ep_topo_find_level(topo, "package") < ep_topo_find_level(topo, "host"));
    check_counts(topo);
    ep_topo_destroy(topo);
}

static void test_numa_inside_package(void **state)
{
    (void)state;
    struct ep_topo *topo = place("pack:2 numa:2 core:3 pu:1", 1, 12, 12, EP_RANK_ORDER_PACKED);
    /* 4 nodes with 3 cores: 4 * 3; two nodes a package: 2 * 9; two packages: 6 * 6 */
    assert_int_equal(pairs_on(topo, "numa"), 12);
    assert_int_equal(pairs_on(topo, "package cross-numa"), 18);
    assert_int_equal(pairs_on(topo, "host"), 36);
    check_counts(topo);
    ep_topo_destroy(topo);
}

/* Sub-NUMA clusters below a shared L3, as on Cascade Lake: the order of kinds is not fixed. */
static void test_numa_inside_cache(void **state)
{
    (void)state;
    struct ep_topo *topo = place("pack:1 l3:1 numa:2 core:2 pu:1", 1, 4, 4, EP_RANK_ORDER_PACKED);
    assert_int_equal(pairs_on(topo, "numa"), 2);
    assert_true(pairs_on(topo, "L3 cross-numa") == 4 || pairs_on(topo, "package cross-numa") == 4);
    check_counts(topo);
    ep_topo_destroy(topo);
}

static void test_oversubscribed(void **state)
{
    (void)state;
    /* 2 cores with 2 hardware threads; 5 ranks: cores 0 1 0 1 0, threads a a b b a */
    struct ep_topo *topo = place("pack:1 core:2 pu:2", 1, 5, 5, EP_RANK_ORDER_PACKED);
    /* core 0: ranks 0 2 4, of which 0 and 4 on one thread; core 1: ranks 1 3 */
    assert_int_equal(pairs_on(topo, "pu"), 1);
    assert_int_equal(pairs_on(topo, "core"), 3);
    assert_int_equal(pairs_on(topo, "package"), 6);
    assert_int_equal(topo->num_oversubscribed, 1);
    assert_int_equal(ep_topo_level_of(topo, 0, 4), topo->level_pu);
    check_counts(topo);
    ep_topo_destroy(topo);
}

static void test_many_hosts(void **state)
{
    (void)state;
    struct ep_topo *topo = place("pack:2 numa:1 core:2 pu:1", 3, 12, 4, EP_RANK_ORDER_PACKED);
    assert_int_equal(topo->num_machines, 1);
    /* per host: 2 pairs in a package, 4 across; 3 host pairs of 4 x 4 ranks */
    assert_int_equal(pairs_on(topo, "package"), 6);
    assert_int_equal(pairs_on(topo, "host"), 12);
    assert_int_equal(pairs_on(topo, "fabric"), 48);
    assert_int_equal(topo->ranks[5].host, 1);
    check_counts(topo);
    ep_topo_destroy(topo);

    /* spread: rank r on host r mod 3, and the second rank of a host on its second package */
    topo = place("pack:2 numa:1 core:2 pu:1", 3, 12, 4, EP_RANK_ORDER_SPREAD);
    assert_int_equal(topo->ranks[5].host, 2);
    assert_int_equal(topo->ranks[3].package, 1);
    assert_int_equal(pairs_on(topo, "fabric"), 48);
    check_counts(topo);
    ep_topo_destroy(topo);
}

static void test_bindings(void **state)
{
    (void)state;
    char *xml = NULL;
    size_t length = 0;
    struct ep_topo *topo = NULL;
    CHECK_OK(ep_machine_synthesize_xml("pack:2 numa:1 core:2 pu:2", &xml, &length));
    const struct ep_topo_xml input = {.text = xml, .length = length};
    /* hardware threads: core 0 = 0,1; core 1 = 2,3; core 2 = 4,5; core 3 = 6,7 */
    const struct ep_topo_binding bindings[] = {
        {0, "0-1"}, {0, "1"}, {0, "0"}, {0, "4-5"}, {0, "0-7"}, {0, NULL}, {0, "1-2"}};
    CHECK_OK(ep_topo_create(&input, 1, bindings, 7, &topo));
    assert_int_equal(topo->ranks[0].core, 0);
    assert_int_equal(topo->ranks[0].pu, -1);
    assert_int_equal(topo->ranks[1].pu, 1);
    assert_int_equal(topo->ranks[3].package, 1);
    for (int i = 4; i < 7; i++) {
        assert_int_equal(topo->ranks[i].core, -1);
        assert_int_equal(ep_topo_level_of(topo, 0, i), topo->level_floating);
    }
    assert_int_equal(ep_topo_level_of(topo, 1, 2), topo->level_core);
    assert_int_equal(ep_topo_level_of(topo, 0, 1), topo->level_pu);
    assert_string_equal(topo->levels[ep_topo_level_of(topo, 1, 3)].name, "host");
    assert_int_equal(topo->num_floating, 3);
    /* 3 floating among themselves, and with 4 bound */
    assert_int_equal(pairs_on(topo, "floating"), 3 + 12);
    check_counts(topo);
    ep_topo_destroy(topo);

    static const char *const bad[] = {"", "x", "3-1", "1,,2", "0x3", "1,", "-1", "99999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct ep_topo_binding one = {0, bad[i]};
        CHECK_FAILS(ep_topo_create(&input, 1, &one, 1, &topo), EP_EINVAL, "is not a binding");
    }
    const struct ep_topo_binding beyond = {0, "8-9"};
    CHECK_FAILS(ep_topo_create(&input, 1, &beyond, 1, &topo), EP_EINVAL, "no hardware thread");
    const struct ep_topo_binding no_host = {1, "0"};
    CHECK_FAILS(ep_topo_create(&input, 1, &no_host, 1, &topo), EP_EINVAL, "outside 0 to 0");
    free(xml);
}

static void test_live(void **state)
{
    (void)state;
    char *xml = NULL;
    char *cpuset = NULL;
    size_t length = 0;
    struct ep_topo *topo = NULL;
    struct ep_restrictions r;
    CHECK_OK(ep_machine_discover_xml(&xml, &length));
    CHECK_OK(ep_machine_discover_binding(&cpuset));
    const struct ep_topo_xml input = {.text = xml, .length = length};
    const struct ep_topo_binding me = {0, cpuset};
    CHECK_OK(ep_topo_create(&input, 1, &me, 1, &topo));
    assert_true(topo->hosts[0].machine->num_cores >= 1);
    CHECK_OK(ep_restrictions_discover(&r));
    assert_in_range(r.allowed_pus, 1, r.complete_pus);
    assert_in_range(r.affinity_pus, 1, r.allowed_pus);
    assert_in_range(r.usable_cores, 1, r.affinity_pus);
    assert_int_equal(ep_topo_count_usable_cores(), r.usable_cores);
    ep_topo_destroy(topo);
    free(cpuset);
    free(xml);
}

static void test_bad_synthetic(void **state)
{
    (void)state;
    char *xml = NULL;
    size_t length = 0;
    static const char *const bad[] = {"", "pack:foo", "pack:2 core:4", "hello", "pu:0", "pack:-1 pu:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(ep_machine_synthesize_xml(bad[i], &xml, &length), EP_EINVAL, "synthetic");
    }
    CHECK_FAILS(ep_machine_synthesize_xml("pack:1000 core:1000 pu:2", &xml, &length), EP_EINVAL,
                "more than 32768 hardware threads");
    assert_null(xml);
}

static void test_pairs(void **state)
{
    (void)state;
    struct ep_topo *topo =
        place("pack:2 numa:1 l3:2 core:4 pu:1", 1, 16, 16, EP_RANK_ORDER_PACKED);
    int64_t pairs[64][2];
    int64_t num = 0;
    const int64_t host = ep_topo_find_level(topo, "host");
    ep_topo_sample_pairs(topo, host, 4, pairs, &num);
    /* 64 pairs (0,8) (0,9) ... : the middles of four parts are numbers 8, 24, 40, 56 */
    assert_int_equal(num, 4);
    assert_int_equal(pairs[0][0], 1);
    assert_int_equal(pairs[0][1], 8);
    assert_int_equal(pairs[3][0], 7);
    ep_topo_sample_pairs(topo, host, 1000, pairs, &num);
    assert_int_equal(num, 64);
    ep_topo_sample_pairs(topo, ep_topo_find_level(topo, "pu"), 4, pairs, &num);
    assert_int_equal(num, 0);
    CHECK_OK(ep_topo_match_pairs(topo, ep_topo_find_level(topo, "L3"), pairs, &num));
    assert_int_equal(num, 8);
    bool seen[16] = {false};
    for (int64_t i = 0; i < num; i++) {
        for (int e = 0; e < 2; e++) {
            assert_false(seen[pairs[i][e]]);
            seen[pairs[i][e]] = true;
        }
    }
    ep_topo_destroy(topo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_packages),   cmocka_unit_test(test_numa_inside_package),
        cmocka_unit_test(test_numa_inside_cache), cmocka_unit_test(test_oversubscribed),
        cmocka_unit_test(test_many_hosts),     cmocka_unit_test(test_bindings),
        cmocka_unit_test(test_live),           cmocka_unit_test(test_bad_synthetic),
        cmocka_unit_test(test_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
