/* SPDX-License-Identifier: Apache-2.0 */
/* The pairwise schedule over shared ports, worked by hand; uplinks and their text. */
#include "tests/check.h"

#include "bench/uplinks.h"
#include "kernels/features.h"
#include "kernels/port_schedule.h"

#include <stdlib.h>
#include <string.h>

static const int32_t own_nic[] = {0, 1, 2, 3, 4, 5, 6, 7};

static double time_of(const struct ep_port_network *network, const int64_t *rows)
{
    double time_s = -1;
    CHECK_OK(ep_port_schedule_time(network, rows, 1, &time_s));
    return time_s;
}

/* Five ranks, one per NIC at 2 B/s: 0->1 10 in step 1, 2->4 7 in step 2, which 2 and 4 begin at once. */
static void test_one_rank_per_nic(void **state)
{
    (void)state;
    int64_t rows[25] = {0};
    rows[0 * 5 + 1] = 10;
    rows[2 * 5 + 4] = 7;
    rows[3 * 5 + 3] = 99; /* stays */
    const struct ep_port_network network = {
        .num_ranks = 5, .rank_nic = own_nic, .num_nics = 5, .nic_bytes_per_s = 2};
    CHECK_NEAR(time_of(&network, rows), 5, 1e-12);
}

/* Drawn matrices: one rank per NIC is rung M5's recurrence, which kernels/features.c has. */
static void test_as_the_recurrence(void **state)
{
    (void)state;
    uint32_t x = 1;
    for (int64_t num = 1; num <= 8; num++) {
        for (int round = 0; round < 20; round++) {
            int64_t rows[64];
            for (int64_t i = 0; i < num * num; i++) {
                x = x * 1664525U + 1013904223U;
                rows[i] = x >> 31 ? x >> 20 : 0;
            }
            const struct ep_features_config config = {.num_ranks = num, .row_bytes = 1};
            struct ep_features f;
            CHECK_OK(ep_features_init(rows, &config, &f));
            const struct ep_port_network network = {
                .num_ranks = num, .rank_nic = own_nic, .num_nics = num, .nic_bytes_per_s = 1};
            CHECK_NEAR(time_of(&network, rows), (double)f.schedule_bytes, 1e-6);
            ep_features_fini(&f);
        }
    }
}

/* Ranks 0 2 behind NIC 0, ranks 1 3 behind NIC 1, 1 B/s. Step 1: 0->1 10 and 2->3 30 leave NIC 0 at half the
 * rate, 1->2 10 and 3->0 10 NIC 1: all but 2->3 are through at 20, that at 40. Step 2 stays inside hosts, but 0 and
 * 1 wait for 2 and 3. Step 3: 0->3 10, until 50. Rank by rank it would have been 40. */
static void test_shared_nics(void **state)
{
    (void)state;
    const int64_t rows[16] = {0, 10, 500, 10, 0, 0, 10, 500, 500, 0, 0, 30, 10, 500, 0, 0};
    const int32_t rank_nic[] = {0, 1, 0, 1};
    const struct ep_port_network network = {
        .num_ranks = 4, .rank_nic = rank_nic, .num_nics = 2, .nic_bytes_per_s = 1};
    CHECK_NEAR(time_of(&network, rows), 50, 1e-9);
}

/* Four hosts under two switches. Step 2: 0->2 10 and 1->3 10 share the uplink at 0.5 B/s, 40 s; step 3: 2->1 3 alone
 * gets 0.25 B/s of the second switch's, 12 s; 0->1 5 in step 1 stays under its switch, 5 s. */
static void test_uplinks(void **state)
{
    (void)state;
    const int64_t rows[16] = {0, 5, 10, 0, 0, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 0};
    const int32_t nic_switch[] = {0, 0, 1, 1};
    const double rates[] = {0.5, 0.5};
    const double unequal[] = {0.5, 0.25};
    struct ep_port_network network = {.num_ranks = 4,
                                      .rank_nic = own_nic,
                                      .num_nics = 4,
                                      .nic_bytes_per_s = 1,
                                      .nic_switch = nic_switch,
                                      .num_switches = 2,
                                      .uplink_bytes_per_s = rates};
    CHECK_NEAR(time_of(&network, rows), 5 + 40 + 6, 1e-9);
    network.uplink_bytes_per_s = unequal; /* 20 bytes into switch 1 at 0.25 B/s, then 3 out of it */
    CHECK_NEAR(time_of(&network, rows), 5 + 80 + 12, 1e-9);
    int64_t out[2], in[2];
    ep_port_uplink_bytes(&network, rows, 7, out, in);
    assert_int_equal(out[0], 140);
    assert_int_equal(in[0], 21);
    assert_int_equal(out[1], 21);
    assert_int_equal(in[1], 140);
    const struct ep_port_network large = {.num_ranks = EP_PORT_SCHEDULE_MAX_RANKS + 1,
                                          .rank_nic = own_nic, .num_nics = 1, .nic_bytes_per_s = 1};
    double time_s = 0;
    CHECK_FAILS(ep_port_schedule_time(&large, rows, 1, &time_s), EP_EINVAL, "at most 128 ranks");
}

/* Four hosts under two switches, uplinks of half a NIC's rate, so that their bytes count twice. By shift: step 1 has
 * 0->1 5 and, over the uplink, 1->2 7: 14; step 2 0->2 10 and 1->3 10 on one uplink: 40; step 3 2->1 3: 6. By XOR
 * 1 and 2 meet in step 3, both ways at a time: 5 + 40 + 14. Every rank has two others beyond its switch. */
static void test_steps(void **state)
{
    (void)state;
    const int64_t rows[16] = {0, 5, 10, 0, 0, 0, 7, 10, 0, 3, 0, 0, 0, 0, 0, 0};
    const int32_t nic_switch[] = {0, 0, 1, 1};
    const double rates[] = {0.5, 0.5};
    struct ep_port_network network = {.num_ranks = 4,
                                      .rank_nic = own_nic,
                                      .num_nics = 4,
                                      .nic_bytes_per_s = 1,
                                      .nic_switch = nic_switch,
                                      .num_switches = 2,
                                      .uplink_bytes_per_s = rates};
    struct ep_features_config config = {.num_ranks = 4, .row_bytes = 1, .rank_node = own_nic};
    struct ep_features f;
    int64_t bytes = -1;
    CHECK_OK(ep_port_step_bytes(&network, rows, 1, &bytes));
    assert_int_equal(bytes, 14 + 40 + 6);
    assert_int_equal(ep_port_uplink_messages(&network), 2);
    network.steps = config.steps = EP_STEP_XOR;
    CHECK_OK(ep_port_step_bytes(&network, rows, 3, &bytes));
    assert_int_equal(bytes, 3 * (5 + 40 + 14));
    CHECK_NEAR(time_of(&network, rows), 5 + 40 + 14, 1e-9);
    CHECK_OK(ep_features_init(rows, &config, &f));
    assert_int_equal(f.step_sum_bytes, 5 + 10 + 7);
    assert_int_equal(f.step_port_bytes, 5 + 10 + 7);
    assert_int_equal(f.schedule_bytes, 5 + 10 + 7); /* 0->1, 1->3, 1->2 */
    ep_features_fini(&f);
    network.num_switches = 0;
    network.nic_switch = NULL;
    assert_int_equal(ep_port_uplink_messages(&network), 0);
}

/* Two leaf switches of four hosts, two links up each: D-mod-k, host d over link d mod 2. */
static void test_lanes(void **state)
{
    (void)state;
    int64_t rows[64] = {0};
    const int32_t nic_switch[] = {0, 0, 0, 0, 1, 1, 1, 1};
    const int32_t lanes[] = {2, 2};
    const double rates[] = {0.5, 0.5};
    const struct ep_port_network network = {.num_ranks = 8,
                                            .rank_nic = own_nic,
                                            .num_nics = 8,
                                            .nic_bytes_per_s = 1,
                                            .nic_switch = nic_switch,
                                            .num_switches = 2,
                                            .uplink_bytes_per_s = rates,
                                            .switch_lanes = lanes,
                                            .nic_position = own_nic};
    rows[0 * 8 + 5] = rows[1 * 8 + 6] = 10; /* step 5: one lane each, 10 B at 0.5 B/s */
    CHECK_NEAR(time_of(&network, rows), 20, 1e-9);
    rows[2 * 8 + 7] = 10; /* step 5, on the lane of 0->5 */
    CHECK_NEAR(time_of(&network, rows), 40, 1e-9);
    rows[1 * 8 + 2] = 4; /* step 1, below the switch: 4 s in which 0 cannot pass step 2 */
    CHECK_NEAR(time_of(&network, rows), 44, 1e-9);
    /* All from the first switch to the second are 3, but 0->6 is 10: link 0 carries those to 4 and 6, 8 x 3 + 7, link
     * 1 those to 5 and 7, 8 x 3. */
    memset(rows, 0, sizeof rows);
    for (int64_t i = 0; i < 4; i++) {
        for (int64_t j = 4; j < 8; j++) {
            rows[i * 8 + j] = 3;
        }
    }
    rows[0 * 8 + 6] = 10;
    rows[1 * 8 + 2] = 4;
    int64_t out[4], in[4];
    assert_int_equal(ep_port_num_lanes(&network), 4);
    ep_port_uplink_bytes(&network, rows, 2, out, in);
    const int64_t expect_out[] = {62, 48, 0, 0}, expect_in[] = {0, 0, 62, 48};
    assert_memory_equal(out, expect_out, sizeof out);
    assert_memory_equal(in, expect_in, sizeof in);
}

static void test_text(void **state)
{
    (void)state;
    struct ep_uplinks u;
    CHECK_OK(ep_uplinks_parse("100Mb/s:a,bb;2GB/s:c", "--uplinks", &u));
    assert_int_equal(u.num, 2);
    CHECK_NEAR(u.bytes_per_s[0], 12.5e6, 0);
    CHECK_NEAR(u.bytes_per_s[1], 2e9, 0);
    assert_int_equal(ep_uplinks_switch_of(&u, "a"), 0);
    assert_int_equal(ep_uplinks_switch_of(&u, "bb"), 0);
    assert_int_equal(ep_uplinks_switch_of(&u, "c"), 1);
    assert_int_equal(ep_uplinks_switch_of(&u, "b"), -1);
    assert_int_equal(u.lanes[0], 1);
    assert_int_equal(ep_uplinks_position_of(&u, "a"), 0);
    assert_int_equal(ep_uplinks_position_of(&u, "bb"), 1);
    assert_int_equal(ep_uplinks_position_of(&u, "c"), 2);
    assert_int_equal(ep_uplinks_position_of(&u, "b"), -1);
    CHECK_OK(ep_uplinks_parse("4x100Mb/s:a;64x2GB/s:c", "--uplinks", &u));
    CHECK_NEAR(u.bytes_per_s[0], 12.5e6, 0);
    assert_int_equal(u.lanes[0], 4);
    assert_int_equal(u.lanes[1], 64);
    static const char *const wrong[][2] = {
        {"", "is not RATE:HOST,HOST"},      {"100Mb/s", "is not RATE:HOST,HOST"},
        {":a", "is not RATE:HOST,HOST"},    {"100Mb/s:", "is not RATE:HOST,HOST"},
        {"1GB/s:a;", "is not RATE:HOST"},   {"100:a", "--uplinks"},
        {"1GB/s:a,", "has an empty host"},  {"1GB/s:a,,b", "has an empty host"},
        {"0x1GB/s:a", "1 to 64 links"},     {"65x1GB/s:a", "1 to 64 links"},
        {"99999999999x1GB/s:a", "1 to 64"}, {"4x:a", "--uplinks"},
        {"1GB/s:a,b,a", "host a is there twice"}, {"1GB/s:a;1GB/s:b,a", "host a is there twice"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_FAILS(ep_uplinks_parse(wrong[i][0], "--uplinks", &u), EP_EINVAL, wrong[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rank_per_nic), cmocka_unit_test(test_as_the_recurrence),
        cmocka_unit_test(test_shared_nics), cmocka_unit_test(test_uplinks), cmocka_unit_test(test_lanes), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
