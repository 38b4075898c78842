/* SPDX-License-Identifier: Apache-2.0 */
/* topologies/: hosts, levels of pairs, bindings, restrictions, bad XML. */
#include "tests/check.h"

#include "base/file.h"
#include "topologies/restrictions.h"
#include "topologies/topo.h"

#include <dlfcn.h>
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

/* filled in place: GCC 12 takes a returned pointer for one into this function's frame */
static void read_fixture(char **text, size_t *length)
{
    CHECK_OK(ep_file_read("tests/data/two_packages.xml", 1 << 20, text, length));
}

/* Two packages at SLIT distance 32, a CXL node over all cores, GPUs, a NIC and an NVSwitch. */
static void test_xml_with_devices(void **state)
{
    (void)state;
    struct ep_topo *topo = NULL;
    struct ep_topo_xml input = {.what = "fixture"};
    char *xml = NULL;
    read_fixture(&xml, &input.length);
    input.text = xml;
    CHECK_OK(ep_topo_create_placed(&input, 1, 1, 10, 10, EP_RANK_ORDER_PACKED, &topo));
    const struct ep_machine *m = topo->machines[0];
    assert_string_equal(topo->hosts[0].name, "node7");
    assert_string_equal(m->model, "Example CPU with two caches");
    assert_int_equal(m->num_cores, 8);
    assert_int_equal(m->num_allowed_pus, 16);
    assert_int_equal(m->num_complete_pus, 18);
    assert_int_equal(m->num_numas, 3);
    assert_string_equal(m->numas[2].subtype, "CXL");
    /* the CXL node holds every core, but is nobody's home */
    assert_int_equal(m->cores[0].numa, 0);
    assert_int_equal(m->cores[7].numa, 1);
    /* 10 ranks on 8 cores: cores 0 and 1 hold two each, on different threads.
     * L3: 2 x 2 across the first cache's cores, 1 in each of three others;
     * package: 4 x 2 in the first, 2 x 2 in the second; host: 6 x 4 */
    assert_int_equal(pairs_on(topo, "core"), 2);
    assert_int_equal(pairs_on(topo, "L3"), 7);
    assert_int_equal(pairs_on(topo, "package"), 12);
    assert_int_equal(pairs_on(topo, "host d=32"), 24);
    assert_int_equal(pairs_on(topo, "host"), -1);
    check_counts(topo);

    struct ep_topo_caches caches;
    ep_topo_get_caches(topo, 0, &caches);
    assert_int_equal(caches.l3_bytes, 32000000);
    assert_int_equal(caches.l3_cores, 2);
    assert_int_equal(caches.l2_bytes, 0);

    assert_int_equal(m->num_devices, 4);
    const struct ep_machine_device *nic = &m->devices[1];
    assert_int_equal(nic->kind, EP_DEVICE_NIC);
    assert_string_equal(nic->name, "ib0,mlx5_0");
    assert_string_equal(nic->busid, "0000:02:00.0");
    CHECK_NEAR(nic->net_bytes_per_s, 50e9, 0); /* 400000 Mb/s */
    CHECK_NEAR(nic->pci_bytes_per_s, 63.015385e9, 1e4);
    assert_int_equal(nic->numa, 0);
    assert_int_equal(m->devices[2].kind, EP_DEVICE_GPU);
    assert_int_equal(m->devices[2].numa, 1);
    assert_true(isnan(m->devices[2].net_bytes_per_s));
    assert_int_equal(m->devices[3].kind, EP_DEVICE_SWITCH);
    ep_topo_destroy(topo);
    free(xml);
}

static struct ep_machine *machine_of(const char *xml)
{
    struct ep_machine *machine = NULL;
    CHECK_OK(ep_machine_create("test", xml, strlen(xml), &machine));
    return machine;
}

/* `old` must be there; result to be freed */
static char *replaced(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    assert_non_null(at);
    return ep_format_new("%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
}

static void test_signature(void **state)
{
    (void)state;
    static const struct {
        const char *old;
        const char *new;
        bool same;
    } cases[] = {
        {"value=\"node7\"", "value=\"node8\"", true},
        {"local_memory=\"64000000000\"", "local_memory=\"63000000000\"", true},
        {"value=\"lstopo\"", "value=\"other\"", true},
        {"cache_size=\"32000000\"", "cache_size=\"16000000\"", false},
        {"10de:2330", "10de:2331", false},
        {"10 32 20 32", "10 31 20 31", false},
    };
    size_t length = 0;
    char *xml = NULL;
    read_fixture(&xml, &length);
    struct ep_machine *machine = machine_of(xml);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *changed = replaced(xml, cases[i].old, cases[i].new);
        struct ep_machine *other = machine_of(changed);
        assert_int_equal(other->signature == machine->signature, cases[i].same);
        ep_machine_destroy(other);
        free(changed);
    }
    ep_machine_destroy(machine);
    free(xml);
}

static void test_unlike_hosts(void **state)
{
    (void)state;
    size_t length = 0;
    size_t small_length = 0;
    char *xml = NULL;
    read_fixture(&xml, &length);
    char *small = NULL;
    struct ep_topo *topo = NULL;
    CHECK_OK(ep_machine_synthesize_xml("pack:1 numa:1 l3:1 core:2 pu:1", &small, &small_length));
    const struct ep_topo_xml inputs[] = {
        {xml, length, NULL}, {small, small_length, NULL}, {xml, length, NULL}};
    const struct ep_topo_binding bindings[] = {{0, "0"}, {0, "2"}, {1, "0"},
                                               {1, "1"}, {2, "0"}, {2, "8"}};
    CHECK_OK(ep_topo_create(inputs, 3, bindings, 6, &topo));
    assert_int_equal(topo->num_machines, 2);
    assert_ptr_equal(topo->hosts[0].machine, topo->hosts[2].machine);
    assert_string_equal(topo->hosts[1].name, "host1");
    /* both kinds of host have an L3 level, and it is one level */
    assert_int_equal(ep_topo_level_of(topo, 0, 1), ep_topo_level_of(topo, 2, 3));
    assert_int_equal(pairs_on(topo, "L3"), 2);
    assert_int_equal(pairs_on(topo, "host d=32"), 1);
    assert_int_equal(pairs_on(topo, "fabric"), 12);
    check_counts(topo);
    ep_topo_destroy(topo);
    free(small);
    free(xml);
}

static void test_bad_xml(void **state)
{
    (void)state;
    size_t length = 0;
    char *xml = NULL;
    read_fixture(&xml, &length);
    struct ep_machine *machine = NULL;
    CHECK_FAILS(ep_machine_create("f.xml", "", 0, &machine), EP_EINVAL, "f.xml: is empty");
    CHECK_FAILS(ep_machine_create("f.xml", "hello", 5, &machine), EP_EINVAL, "no <topology>");
    CHECK_FAILS(ep_machine_create("f.xml", xml, length - 20, &machine), EP_EINVAL,
                "f.xml: is truncated");
    CHECK_FAILS(ep_machine_create("f.xml", "<topology version=\"2.0\"></topology>", 35, &machine),
                EP_EINVAL, "f.xml: hwloc cannot read it");
    char *three = replaced(xml, "version=\"2.0\"", "version=\"3.0\"");
    CHECK_FAILS(ep_machine_create("f.xml", three, length, &machine), EP_EINVAL,
                "f.xml: hwloc 3 XML");
    free(three);
    assert_null(machine);
    /* cut in the middle, with the end put back */
    for (size_t cut = 200; cut + 200 < length; cut += 331) {
        char *text = ep_format_new("%.*s</topology>", (int)cut, xml);
        CHECK_FAILS(ep_machine_create("f.xml", text, strlen(text), &machine), EP_EINVAL, "f.xml:");
        free(text);
    }
    free(xml);
}

/* Damaged bytes are refused or give a host, and never crash this process (hwloc 2.9.0 does crash on
 * some of them). */
static void test_damaged_xml(void **state)
{
    (void)state;
    size_t length = 0;
    char *xml = NULL;
    read_fixture(&xml, &length);
    int64_t refused = 0;
    for (size_t at = 100; at < length; at += 211) {
        static const char damage[] = {'9', '"', '<', 'x'};
        char *text = strdup(xml);
        text[at] = damage[at % sizeof damage];
        struct ep_machine *machine = NULL;
        ep_error_clear();
        enum ep_status status = ep_machine_try_xml("f.xml", text, length);
#ifndef __SANITIZE_ADDRESS__ /* hwloc leaks what it had read of a file that it then refuses */
        if (status == EP_OK) {
            status = ep_machine_create("f.xml", text, length, &machine);
        }
#endif
        if (status != EP_OK) {
            assert_true(strncmp(ep_error_text(), "f.xml:", 6) == 0);
            refused++;
        }
        ep_machine_destroy(machine);
        free(text);
    }
    assert_true(refused > 0);
    free(xml);
}

static void test_annotated(void **state)
{
    (void)state;
    struct ep_topo *topo = NULL;
    struct ep_topo_xml input = {.what = "fixture"};
    char *xml = NULL;
    read_fixture(&xml, &input.length);
    char *annotated = NULL;
    size_t length = 0;
    input.text = xml;
    CHECK_OK(ep_topo_create_placed(&input, 1, 1, 8, 8, EP_RANK_ORDER_PACKED, &topo));
    const int64_t level = ep_topo_find_level(topo, "host d=32");
    ep_topo_set_measured(topo, level, 0.5e-6, 12.5e9);
    CHECK_OK(ep_topo_annotated_xml(topo, &annotated, &length));
    assert_non_null(strstr(annotated, "epbench level host d=32"));
    assert_non_null(strstr(annotated, "bandwidth 12.50 GB/s"));
    assert_null(strstr(annotated, "epbench level L3"));
    struct ep_machine *before = machine_of(xml);
    struct ep_machine *after = machine_of(annotated);
    assert_int_equal(before->signature, after->signature);
    assert_int_equal(after->num_devices, 4);
    ep_machine_destroy(before);
    ep_machine_destroy(after);
    ep_topo_destroy(topo);
    free(annotated);
    free(xml);
}

/* Caches that only half of the machine has: the pairs without one meet further out. */
static void test_asymmetric(void **state)
{
    (void)state;
    size_t length = 0;
    char *xml = NULL;
    read_fixture(&xml, &length);
    char *small = replaced(xml, "cache_size=\"32000000\"", "cache_size=\"8000000\"");
    const struct ep_topo_xml input = {.text = small, .length = strlen(small)};
    struct ep_topo *topo = NULL;
    struct ep_topo_caches caches;
    CHECK_OK(ep_topo_create_placed(&input, 1, 1, 8, 8, EP_RANK_ORDER_PACKED, &topo));
    ep_topo_get_caches(topo, 0, &caches);
    assert_int_equal(caches.l3_bytes, 8000000);
    assert_int_equal(topo->machines[0]->caches[0].max_size_bytes, 32000000);
    check_counts(topo);
    ep_topo_destroy(topo);
    free(small);
    free(xml);
}

static void write_file(const char *root, const char *path, const char *text)
{
    char *full = ep_format_new("%s/%s", root, path);
    char *directory = strdup(full);
    *strrchr(directory, '/') = '\0';
    CHECK_OK(ep_dir_ensure(directory));
    CHECK_OK(ep_file_write(full, text, strlen(text)));
    free(directory);
    free(full);
}

static void test_quota(void **state)
{
    (void)state;
    const char *scratch = getenv("EPBENCH_TEST_DIR");
    char *root = ep_format_new("%s/quota.%d", scratch != NULL ? scratch : "/tmp", (int)getpid());
    double quota = 0;
    char source[256];
    /* version 2: the job has none, its slice 2.5 CPUs, the root none */
    write_file(root, "proc/self/cgroup", "0::/slice/job\n");
    write_file(root, "proc/self/mountinfo",
               "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
    write_file(root, "sys/fs/cgroup/slice/job/cpu.max", "max 100000\n");
    ep_restrictions_read_quota(root, &quota, source, sizeof source);
    assert_true(isnan(quota));
    assert_string_equal(source, "");
    write_file(root, "sys/fs/cgroup/slice/cpu.max", "250000 100000\n");
    ep_restrictions_read_quota(root, &quota, source, sizeof source);
    CHECK_NEAR(quota, 2.5, 1e-12);
    assert_non_null(strstr(source, "slice/cpu.max"));
    /* version 1 beside it is tighter: 50 ms of 100 ms; the container's own cgroup is mounted */
    write_file(root, "proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n0::/slice/job\n");
    write_file(root, "proc/self/mountinfo",
               "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
               "31 20 0:27 /docker/abc /cg/cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n");
    write_file(root, "cg/cpu/cpu.cfs_quota_us", "50000\n");
    write_file(root, "cg/cpu/cpu.cfs_period_us", "100000\n");
    ep_restrictions_read_quota(root, &quota, source, sizeof source);
    CHECK_NEAR(quota, 0.5, 1e-12);
    assert_non_null(strstr(source, "cpu.cfs_quota_us"));
    write_file(root, "cg/cpu/cpu.cfs_quota_us", "-1\n");
    ep_restrictions_read_quota(root, &quota, source, sizeof source);
    CHECK_NEAR(quota, 2.5, 1e-12);
    free(root);
}

int main(void)
{
    /* hwloc unloads it, and a leak of its would then have no name for tests/lsan.supp */
    (void)dlopen("libpciaccess.so.0", RTLD_NOW | RTLD_NODELETE);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_packages),   cmocka_unit_test(test_numa_inside_package),
        cmocka_unit_test(test_numa_inside_cache), cmocka_unit_test(test_oversubscribed),
        cmocka_unit_test(test_many_hosts),     cmocka_unit_test(test_bindings),
        cmocka_unit_test(test_live),           cmocka_unit_test(test_bad_synthetic),
        cmocka_unit_test(test_pairs),          cmocka_unit_test(test_xml_with_devices),
        cmocka_unit_test(test_signature),      cmocka_unit_test(test_unlike_hosts),
        cmocka_unit_test(test_bad_xml),        cmocka_unit_test(test_damaged_xml),
        cmocka_unit_test(test_annotated),      cmocka_unit_test(test_asymmetric),
        cmocka_unit_test(test_quota),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
