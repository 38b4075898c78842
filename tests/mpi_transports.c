/* SPDX-License-Identifier: Apache-2.0 */
/* Every transport on odd shapes: dispatched rows bit by bit, combined rows within the derived bound,
 * rows on the way against the counted traffic, a broken transport caught by the check. */
#include "tests/check.h"

#include "bench/comm_case.h"
#include "bench/comm_mpi.h"
#include "bench/pattern.h"
#include "kernels/combine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static struct ep_comm *world;
static struct ep_arena *arena;
static struct ep_share *share;
static int64_t cache_bytes; /* what transports are told */
static const char *algorithm; /* forced */

struct shape {
    const char *skew;
    int64_t experts, top_k, tokens, hidden;
    enum ep_dtype dtype;
    bool ragged;  /* rank r has tokens * r / P tokens: rank 0 none */
    int threads;  /* 0 = 1 */
    const struct ep_capacity_policy *capacity; /* NULL = none */
};

/* All that a transport needs, built for one shape on all ranks. */
struct setup {
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router;
    struct ep_dropping *dropping;
    struct ep_routing routing;
    struct ep_exchange exchange;
    int64_t *expected, *start;
    int64_t num_expected;
    struct ep_capacity_counts counts;
};

static void set_up(const struct shape *shape, struct setup *s)
{
    const int size = ep_comm_size(world);
    const int rank = ep_comm_rank(world);
    int64_t tokens[16];
    for (int r = 0; r < size; r++) {
        tokens[r] = shape->ragged ? shape->tokens * r / size + (size == 1) : shape->tokens;
    }
    CHECK_OK(ep_skew_create(shape->skew, &s->skew));
    CHECK_OK(ep_placement_init_contiguous(shape->experts, size, &s->placement));
    CHECK_OK(ep_token_map_init_counts(size, tokens, &s->map));
    const struct ep_router_config config = {s->skew, &s->placement, &s->map, shape->top_k, 11};
    CHECK_OK(ep_router_create(&config, &s->router));
    const struct ep_dropping_input input = ep_dropping_input_of_router(s->router);
    CHECK_OK(ep_dropping_create(&input, shape->capacity, &s->dropping));
    CHECK_OK(ep_dropping_generate(s->dropping, rank, true, &s->routing, &s->counts));
    const enum ep_dtype combine = shape->dtype == EP_FP8 ? EP_BF16 : shape->dtype;
    void *rows = NULL;
    void *results = NULL;
    ep_arena_reset(arena);
    const int64_t row_bytes = ep_dtype_row_bytes(shape->dtype, shape->hidden);
    const int64_t combine_bytes = ep_dtype_row_bytes(combine, shape->hidden);
    CHECK_OK(ep_arena_alloc(arena, tokens[rank] * row_bytes, "rows", &rows));
    CHECK_OK(ep_arena_alloc(arena, tokens[rank] * combine_bytes, "results", &results));
    ep_pattern_fill_tokens(s->map.start[rank], tokens[rank], row_bytes, rows);
    s->exchange = (struct ep_exchange){
        .comm = world, .placement = &s->placement, .routing = &s->routing,
        .hidden = shape->hidden, .dtype = shape->dtype, .combine_dtype = combine,
        .row_bytes = row_bytes, .combine_row_bytes = combine_bytes, .threads = shape->threads > 0 ? shape->threads : 1,
        .arena = arena, .share = share, .algorithm = algorithm, .cache_bytes = cache_bytes,
        .tokens = rows, .results = results,
    };
    CHECK_OK(ep_pattern_expect_rows(s->dropping, &s->placement, &s->map, rank,
                                    &s->expected, &s->start, &s->num_expected));
}

static void tear_down(struct setup *s)
{
    free(s->expected);
    free(s->start);
    ep_routing_fini(&s->routing);
    ep_dropping_destroy(s->dropping);
    ep_router_destroy(s->router);
    ep_token_map_fini(&s->map);
    ep_placement_fini(&s->placement);
    ep_skew_destroy(s->skew);
}

static void check_sent(const struct ep_transport *transport, const struct setup *s,
                       const void *state)
{
    const int size = ep_comm_size(world);
    const int rank = ep_comm_rank(world);
    struct ep_traffic traffic;
    int64_t rows[16 * 16];
    int64_t sent[16];
    int32_t nodes[16];
    for (int r = 0; r < size; r++) {
        nodes[r] = ep_comm_node_of(world, r);
    }
    CHECK_OK(ep_traffic_init(&s->placement, nodes, ep_comm_num_nodes(world), s->routing.top_k,
                             &traffic));
    for (int r = 0; r < size; r++) {
        struct ep_routing routing;
        CHECK_OK(ep_dropping_generate(s->dropping, r, false, &routing, NULL));
        CHECK_OK(ep_traffic_add(&traffic, r, routing.topk_idx, routing.num_tokens));
        ep_routing_fini(&routing);
    }
    ep_traffic_fill_rows(&traffic, transport->basis, rows);
    transport->sent_rows(state, sent);
    int64_t surplus = 0; /* a ring sends the next rank what others need */
    for (int r = 0; r < size; r++) {
        surplus += sent[r] - rows[rank * size + r];
        assert_true(transport->pads || sent[r] == rows[rank * size + r]);
    }
    CHECK_OK(ep_comm_sum_i64(world, &surplus, 1));
    assert_true(surplus >= 0);
    ep_traffic_fini(&traffic);
}

static void check_sums(const struct shape *shape)
{
    struct setup s = {0};
    struct ep_capacity_counts all = {0};
    set_up(shape, &s);
    for (int r = 0; r < ep_comm_size(world); r++) {
        struct ep_routing routing;
        CHECK_OK(ep_dropping_generate(s.dropping, r, false, &routing, &all));
        ep_routing_fini(&routing);
    }
    int64_t sums[3] = {s.counts.asked, s.counts.rerouted, s.counts.dropped};
    CHECK_OK(ep_comm_sum_i64(world, sums, 3));
    assert_int_equal(sums[0], all.asked);
    assert_int_equal(sums[1], all.rerouted);
    assert_int_equal(sums[2], all.dropped);
    assert_int_equal(all.asked, s.map.num_tokens * shape->top_k);
    assert_int_equal(all.kept + all.rerouted + all.dropped, all.asked);
    tear_down(&s);
}

static void check_transport(const struct ep_transport *transport, const struct shape *shape)
{
    struct setup s = {0};
    set_up(shape, &s);
    void *state = NULL;
    CHECK_OK(transport->create(&s.exchange, &state));
    if (algorithm != NULL) {
        assert_string_equal(transport->way(state), algorithm);
    } else if (cache_bytes == 1 && s.num_expected > 0) {
        assert_string_equal(transport->way(state), "push-stream");
    }
    for (int repeat = 0; repeat < 2; repeat++) { /* a second run must not depend on the first */
        struct ep_expert_rows rows;
        struct ep_check check = {0};
        CHECK_OK(ep_transport_run(transport, EP_OP_DISPATCH, state));
        transport->view(state, &rows);
        CHECK_OK(ep_pattern_check_rows(&rows, s.exchange.row_bytes, s.expected, s.start, &check));
        assert_int_equal(check.rows, s.num_expected);
        assert_int_equal(check.wrong + check.missing + check.doubled, 0);

        const int32_t *experts = NULL;
        (void)ep_placement_local_experts(&s.placement, ep_comm_rank(world), &experts);
        ep_pattern_fill_outputs(&rows, s.expected, experts, s.exchange.combine_dtype,
                                shape->hidden);
        memset(s.exchange.results, 0xa5,
               (size_t)(s.routing.num_tokens * s.exchange.combine_row_bytes));
        CHECK_OK(ep_transport_run(transport, EP_OP_COMBINE, state));
        check = (struct ep_check){0};
        ep_pattern_check_results(&s.routing, s.map.start[ep_comm_rank(world)],
                                 s.exchange.combine_dtype, shape->hidden,
                                 ep_transport_roundings(transport, ep_comm_size(world)),
                                 s.exchange.results, &check);
        assert_int_equal(check.rows, s.routing.num_tokens);
        assert_int_equal(check.wrong, 0);
    }
    check_sent(transport, &s, state);
    transport->destroy(state);
    tear_down(&s);
}

/* All ways of transports that have their own, forced and by the size of the caches. */
static void check_all(const struct shape *shape)
{
    for (int t = 0; ep_transports[t] != NULL; t++) {
        const struct ep_transport *transport = ep_transports[t];
        if (transport->view == NULL || (transport->shares && share == NULL)) {
            continue;
        }
        check_transport(transport, shape);
        for (const char *const *way = transport->ways; way != NULL && *way != NULL; way++) {
            algorithm = *way;
            check_transport(transport, shape);
        }
        algorithm = NULL;
        if (transport->ways != NULL) {
            cache_bytes = 1;
            check_transport(transport, shape);
            cache_bytes = 0;
        }
    }
}

static void test_shapes(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    const struct shape shapes[] = {
        {"uniform", 8, 2, 33, 64, EP_FP32, false, 0, NULL},
        {"uniform", 11, 3, 20, 5, EP_BF16, false, 0, NULL},   /* E not divisible by P */
        {"uniform", 8, 8, 17, 1, EP_BF16, false, 0, NULL},   /* k = E, hidden of 1 */
        {"uniform", 9, 9, 9, 1, EP_FP8, false, 0, NULL},
        {"zipf:1.5", 16, 4, 40, 129, EP_FP8, false, 0, NULL}, /* odd hidden */
        {"khot:1:0.9", 16, 1, 64, 31, EP_BF16, false, 0, NULL}, /* empty experts */
        {"uniform", 64, 2, 3, 16, EP_FP32, false, 0, NULL},  /* more experts than tokens */
        {"uniform", 8, 2, 30, 33, EP_BF16, true, 0, NULL},   /* a rank without tokens */
        {"trace:sample", 64, 6, 50, 7, EP_FP32, false, 0, NULL},
        {"uniform", size, 1, 25, 64, EP_BF16, false, 0, NULL}, /* one expert per rank */
        {"zipf:1.0", 12, 5, 43, 77, EP_BF16, true, 3, NULL}, /* three threads a rank */
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_all(&shapes[i]);
    }
}

/* Each transport again with pairs, and with single ranks, as nodes. */
static void test_nodes(void **state)
{
    (void)state;
    struct ep_comm *whole = world;
    for (int per_node = 1; per_node < ep_comm_size(whole); per_node *= 2) {
        if (ep_comm_size(whole) % per_node == 0) {
            CHECK_OK(ep_comm_create_grouped(whole, per_node, &world));
            assert_int_equal(ep_comm_ranks_per_node(world), per_node);
            test_shapes(state);
            ep_comm_destroy(world);
        }
    }
    world = whole;
}

/* Nodes of different sizes are named as the reason, on all ranks alike. */
static void test_uneven_nodes(void **state)
{
    (void)state;
    struct ep_comm *whole = world;
    const struct shape shape = {"uniform", 8, 2, 10, 8, EP_BF16, false, 0, 0};
    const struct ep_transport *transport = NULL;
    void *transport_state = NULL;
    struct setup s = {0};
    if (ep_comm_size(whole) % 2 == 0 || ep_comm_size(whole) == 1) {
        skip();
    }
    CHECK_OK(ep_transport_find("hier", &transport));
    CHECK_OK(ep_comm_create_grouped(whole, 2, &world));
    set_up(&shape, &s);
    CHECK_FAILS(transport->create(&s.exchange, &transport_state), EP_EENV, "equally many ranks");
    tear_down(&s);
    ep_comm_destroy(world);
    world = whole;
}

/* What is over MPI's int in bytes goes as rows of a type, or in pieces; what is over it in rows is refused.
 * All tokens of P ranks go to expert 0: 30 P rows of 4 bytes, 120 bytes of each rank. */
static void test_large_counts(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    const struct shape shape = {"khot:1:1", size, 1, 30, 1, EP_FP32, false, 0, NULL};
    ep_comm_set_count_limit(30 * size + 1);
    check_all(&shape);
    ep_comm_set_count_limit(29);
    static const char *const refusing[] = {"alltoall", "alltoallv", "pairwise", "alltoallv-dedup",
                                           "hier", "hier2d", "allgather", "hier-shm"};
    for (size_t i = 0; i < sizeof refusing / sizeof refusing[0]; i++) {
        const struct ep_transport *transport = NULL;
        void *transport_state = NULL;
        struct setup s;
        CHECK_OK(ep_transport_find(refusing[i], &transport));
        if (transport->shares && share == NULL) {
            continue;
        }
        set_up(&shape, &s);
        assert_int_equal(transport->create(&s.exchange, &transport_state), EP_EINVAL);
        assert_non_null(strstr(ep_error_text(), "over what MPI's int counts (29)"));
        ep_error_clear();
        tear_down(&s);
    }
    ep_comm_set_count_limit(INT_MAX);
}

static void test_more_ranks_than_experts(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    const struct shape shape = {"uniform", 1, 1, 21, 48, EP_BF16, false, 0, NULL};
    if (size < 2) {
        skip();
    }
    check_all(&shape);
}

/* The check itself: spoil what arrived, and see each fault named. */
static void test_check_finds_faults(void **state)
{
    (void)state;
    const struct shape shape = {"uniform", 4 * ep_comm_size(world), 4, 10, 64, EP_BF16, false, 0, NULL};
    const struct ep_transport *transport = NULL;
    struct setup s = {0};
    void *transport_state = NULL;
    struct ep_expert_rows rows;
    CHECK_OK(ep_transport_find("alltoallv", &transport));
    set_up(&shape, &s);
    CHECK_OK(transport->create(&s.exchange, &transport_state));
    CHECK_OK(ep_transport_run(transport, EP_OP_DISPATCH, transport_state));
    transport->view(transport_state, &rows);
    if (rows.num_experts > 0) {
        const size_t row_bytes = (size_t)s.exchange.row_bytes;
        char *first = (char *)rows.rows;
        char saved[128];
        struct ep_check check = {0};
        memcpy(saved, first, row_bytes);

        first[3] ^= 1; /* one bit */
        CHECK_OK(ep_pattern_check_rows(&rows, s.exchange.row_bytes, s.expected, s.start, &check));
        assert_int_equal(check.wrong, 1);
        assert_int_equal(check.missing, 1);

        memcpy(first, first + row_bytes, row_bytes); /* the second row twice */
        check = (struct ep_check){0};
        CHECK_OK(ep_pattern_check_rows(&rows, s.exchange.row_bytes, s.expected, s.start, &check));
        assert_int_equal(check.doubled, 1);
        assert_int_equal(check.missing, 1);
        assert_int_equal(check.wrong, 0);

        memcpy(first + row_bytes, saved, row_bytes); /* the first two swapped */
        check = (struct ep_check){0};
        CHECK_OK(ep_pattern_check_rows(&rows, s.exchange.row_bytes, s.expected, s.start, &check));
        assert_int_equal(check.wrong, 2);
    }
    transport->destroy(transport_state);
    tear_down(&s);
}

static void test_combine_row(void **state)
{
    (void)state;
    /* 0.5 * {1, 2, 3} + 0.25 * {4, 8, 12} = {1.5, 3, 4.5}: exact in both types */
    const float a[] = {1, 2, 3};
    const float b[] = {4, 8, 12};
    float out[3] = {-1, -1, -1};
    const float weights[] = {0.5F, 0.25F};
    ep_combine_row(EP_FP32, 3, 2, (const void *const[]){a, b}, weights, out);
    CHECK_NEAR(out[0], 1.5, 0);
    CHECK_NEAR(out[2], 4.5, 0);
    ep_combine_row(EP_FP32, 3, 0, NULL, NULL, out);
    CHECK_NEAR(out[1], 0, 0);
}

/* Every rule and policy: what is sent is what a receiver expects, on any number of ranks, and the sums
 * over ranks are those of one process that walks through all sources. */
static void test_dropping(void **state)
{
    (void)state;
    static const enum ep_drop drops[] = {EP_DROP_NONE, EP_DROP_ORDER, EP_DROP_CHOICE, EP_DROP_PROB,
                                         EP_DROP_RANDOM};
    for (const struct ep_capacity_rule *rule = ep_capacity_rules; rule->name != NULL; rule++) {
        for (size_t d = 0; d < sizeof drops / sizeof drops[0]; d++) {
            const bool top1 = strcmp(rule->name, "switch") == 0 || d == 0;
            const int64_t top_k = top1 && strcmp(rule->name, "gshard") != 0 ? 1 : 2;
            struct ep_capacity_policy policy = ep_capacity_policy_default(rule, top_k);
            policy.factor = 0.75;
            policy.drop = drops[d];
            policy.overflow = d > 0 ? (enum ep_overflow)(d % 3) : EP_OVERFLOW_DROP;
            policy.overflow_expert = 4;
            policy.seed = 5;
            struct shape shape = {"zipf:1.2", 10, top_k, 50, 9, EP_BF16, d == 2, 0, &policy};
            const struct ep_transport *transport = NULL;
            CHECK_OK(ep_transport_find(d % 2 == 0 ? "alltoallv" : "alltoallv-dedup", &transport));
            check_transport(transport, &shape);
            CHECK_OK(ep_transport_find("alltoall", &transport));
            check_transport(transport, &shape);
            check_sums(&shape);
        }
    }
}

/* A capacity pads alltoall to it; a count above it is refused on all ranks alike. */
static void test_capacity(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    const struct shape shape = {"uniform", size, size, 10, 8, EP_BF16, false, 0, NULL};
    const struct ep_transport *transport = NULL;
    struct setup s = {0};
    void *transport_state = NULL;
    CHECK_OK(ep_transport_find("alltoall", &transport));
    set_up(&shape, &s);
    s.exchange.capacity = 12; /* k = E: each expert gets all 10 tokens of each rank */
    CHECK_OK(transport->create(&s.exchange, &transport_state));
    struct ep_transport_extras extras;
    transport->extras(transport_state, &extras);
    assert_int_equal(extras.padding_bytes, (size - 1) * (12 - 10) * 8 * 2);
    transport->destroy(transport_state);
    s.exchange.capacity = 9;
    CHECK_FAILS(transport->create(&s.exchange, &transport_state), EP_EINVAL, "capacity of 9");
    tear_down(&s);
}

int main(void)
{
    enum { ARENA_BYTES = 1 << 26 };
    enum ep_status status = ep_comm_init(&world);
    if (status == EP_OK && ep_share_create(world, ARENA_BYTES, &share) == EP_OK) {
        status = ep_arena_create_in(ep_share_segment(share, ep_comm_world_rank(world)), ARENA_BYTES,
                                    EP_PAGES_4K, &arena);
    } else if (status == EP_OK) { /* a container without room in /dev/shm: the others are tested */
        fprintf(stderr, "no shared memory: %s\n", ep_error_text());
        ep_error_clear();
        status = ep_arena_create(ARENA_BYTES, EP_PAGES_4K, &arena);
    }
    if (status != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_uneven_nodes),
        cmocka_unit_test(test_large_counts),
        cmocka_unit_test(test_more_ranks_than_experts),
        cmocka_unit_test(test_check_finds_faults),
        cmocka_unit_test(test_combine_row),
        cmocka_unit_test(test_dropping),
        cmocka_unit_test(test_capacity),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ep_arena_destroy(arena);
    ep_share_destroy(share);
    ep_comm_finalize(world);
    return failed;
}
