/* SPDX-License-Identifier: Apache-2.0 */
/* Capacity over several sources: whose rows it counts, what is sent, and by what name. */
#include "tests/check.h"

#include "kernels/dropping.h"

#include <stdlib.h>

enum { RANKS = 3, TOKENS = 4, EXPERTS = 3 };

/* Three sources of four tokens, top-1, the same each: 0 0 0 1. */
static enum ep_status fetch(const void *context, int64_t source, bool with_weights,
                            struct ep_routing *routing, int64_t *first_token)
{
    (void)context;
    CHECK_OK(ep_routing_init(TOKENS, EXPERTS, 1, with_weights, routing));
    for (int t = 0; t < TOKENS; t++) {
        routing->topk_idx[t] = t == 3;
    }
    *first_token = source * TOKENS;
    return EP_OK;
}

static const struct ep_dropping_input input = {
    .fetch = fetch,
    .shape = {.tokens = TOKENS, .num_experts = EXPERTS, .top_k = 1, .num_ranks = RANKS},
    .num_sources = RANKS,
    .id = "0123456789abcdef",
};

static struct ep_capacity_policy policy_of(const char *name, double factor)
{
    const struct ep_capacity_rule *rule = NULL;
    CHECK_OK(ep_capacity_find_rule(name, &rule));
    struct ep_capacity_policy policy = ep_capacity_policy_default(rule, 1);
    policy.factor = factor;
    return policy;
}

/* What each source sends to each expert, and the counts over all. */
static void send_all(const struct ep_capacity_policy *policy, int64_t sent[RANKS][EXPERTS],
                     struct ep_capacity_counts *counts, struct ep_capacity *capacity, char id[17])
{
    struct ep_dropping *dropping = NULL;
    CHECK_OK(ep_dropping_create(&input, policy, &dropping));
    memset(sent, 0, RANKS * sizeof *sent);
    *counts = (struct ep_capacity_counts){0};
    for (int s = RANKS - 1; s >= 0; s--) { /* any order gives the same */
        struct ep_routing routing;
        CHECK_OK(ep_dropping_generate(dropping, s, false, &routing, counts));
        for (int t = 0; t < TOKENS; t++) {
            if (routing.topk_idx[t] >= 0) {
                sent[s][routing.topk_idx[t]]++;
            }
        }
        ep_routing_fini(&routing);
    }
    *capacity = *ep_dropping_capacity(dropping);
    memcpy(id, ep_dropping_id(dropping), 17);
    ep_dropping_destroy(dropping);
}

static void check_sent(const struct ep_capacity_policy *policy, int64_t rows,
                       const int64_t expected[RANKS][EXPERTS], bool same_id)
{
    int64_t sent[RANKS][EXPERTS];
    struct ep_capacity_counts counts;
    struct ep_capacity capacity;
    char id[17];
    send_all(policy, sent, &counts, &capacity, id);
    assert_int_equal(capacity.rows, rows);
    assert_memory_equal(sent, expected, sizeof sent);
    assert_int_equal(strcmp(id, input.id) == 0, same_id);
    assert_int_equal(counts.tokens, RANKS * TOKENS);
    assert_int_equal(counts.asked, RANKS * TOKENS);
    assert_int_equal(counts.kept + counts.rerouted + counts.dropped, counts.asked);
}

/* Megatron: ceil(4 / 3 x 1) = 2 rows of each source. */
static void test_per_source(void **state)
{
    (void)state;
    const struct ep_capacity_policy policy = policy_of("megatron", 1);
    const int64_t expected[RANKS][EXPERTS] = {{2, 1, 0}, {2, 1, 0}, {2, 1, 0}};
    struct ep_capacity_policy by_order = policy;
    by_order.drop = EP_DROP_ORDER;
    check_sent(&by_order, 2, expected, false);
}

/* FastMoE's Switch gate: ceil(1 x 4 / (3 / 3)) = 4 rows of all sources, in order of ranks: expert 0
 * gets 3 and 1 and 0, expert 1 its three. With `next`, source 1's other two go to expert 1 and fill
 * it: 1 of source 0, 1 + 2 of source 1. Source 2 finds room with expert 2 alone. */
static void test_per_expert(void **state)
{
    (void)state;
    struct ep_capacity_policy policy = policy_of("fastmoe", 1);
    check_sent(&policy, 4, (const int64_t[RANKS][EXPERTS]){{3, 1, 0}, {1, 1, 0}, {0, 1, 0}}, false);
    policy.overflow = EP_OVERFLOW_NEXT;
    check_sent(&policy, 4, (const int64_t[RANKS][EXPERTS]){{3, 1, 0}, {1, 3, 0}, {0, 0, 4}}, false);
}

/* The largest count: of a source 3, of all together 9. Nothing is dropped, so the name is the same
 * where that is the policy's word, not where a rule came to it. */
static void test_largest(void **state)
{
    (void)state;
    const int64_t whole[RANKS][EXPERTS] = {{3, 1, 0}, {3, 1, 0}, {3, 1, 0}};
    struct ep_capacity_policy policy = policy_of("tutel", 0);
    check_sent(&policy, 3, whole, false);
    policy = policy_of("deepspeed", 1);
    policy.drop = EP_DROP_NONE;
    check_sent(&policy, 3, whole, true);
    policy = policy_of("fastmoe", 1);
    policy.drop = EP_DROP_NONE;
    check_sent(&policy, 9, whole, true);
    policy = ep_capacity_policy_default(NULL, 1);
    check_sent(&policy, 0, whole, true);
    policy.pad = true;
    check_sent(&policy, 3, whole, true);
}

/* Megablocks drops after the dispatch: int(0.5 x 4 x 3 / 3) = 2 rows of expert 0's 9 stay, of
 * expert 1's 3 too; the routing is whole. */
static void test_at_receiver(void **state)
{
    (void)state;
    const struct ep_capacity_policy policy = policy_of("megablocks", 0.5);
    const int64_t whole[RANKS][EXPERTS] = {{3, 1, 0}, {3, 1, 0}, {3, 1, 0}};
    check_sent(&policy, 2, whole, true);
    int64_t sent[RANKS][EXPERTS];
    struct ep_capacity_counts counts;
    struct ep_capacity capacity;
    char id[17];
    send_all(&policy, sent, &counts, &capacity, id);
    assert_int_equal(counts.kept, 4);
    assert_int_equal(counts.dropped, 8);
}

/* One name per thing that changes what is sent; a seed only where it is drawn from. */
static void test_names(void **state)
{
    (void)state;
    struct ep_capacity_policy policies[6];
    for (int i = 0; i < 6; i++) {
        policies[i] = policy_of("megatron", 1);
        policies[i].drop = EP_DROP_ORDER;
    }
    policies[1].factor = 0.5;
    policies[2].drop = EP_DROP_RANDOM;
    policies[3] = policies[2];
    policies[3].seed = 9;
    policies[4].overflow = EP_OVERFLOW_EXPERT;
    policies[5].overflow = EP_OVERFLOW_EXPERT;
    policies[5].overflow_expert = 1;
    char ids[7][17];
    int64_t sent[RANKS][EXPERTS];
    struct ep_capacity_counts counts;
    struct ep_capacity capacity;
    for (int i = 0; i < 6; i++) {
        send_all(&policies[i], sent, &counts, &capacity, ids[i]);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(ids[i], ids[j]);
        }
    }
    policies[0].seed = 9;
    send_all(&policies[0], sent, &counts, &capacity, ids[6]);
    assert_string_equal(ids[6], ids[0]);
}

/* Slots: 3 experts x 2 rows x 3 sources, 9 with a token; of all together 3 x 4, 8 with one. */
static void test_padding(void **state)
{
    (void)state;
    struct ep_dropping *dropping = NULL;
    struct ep_capacity_policy policy = policy_of("megatron", 1);
    CHECK_OK(ep_dropping_create(&input, &policy, &dropping));
    assert_int_equal(ep_dropping_padded_rows(dropping, 9), 0);
    ep_dropping_destroy(dropping);
    policy.pad = true;
    CHECK_OK(ep_dropping_create(&input, &policy, &dropping));
    assert_int_equal(ep_dropping_padded_rows(dropping, 9), 9);
    ep_dropping_destroy(dropping);
    policy = policy_of("fastmoe", 1);
    policy.pad = true;
    CHECK_OK(ep_dropping_create(&input, &policy, &dropping));
    assert_int_equal(ep_dropping_padded_rows(dropping, 8), 4);
    ep_dropping_destroy(dropping);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_per_source), cmocka_unit_test(test_per_expert),
        cmocka_unit_test(test_largest),    cmocka_unit_test(test_at_receiver),
        cmocka_unit_test(test_names),      cmocka_unit_test(test_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
