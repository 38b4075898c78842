/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule of a layer in chunks, and its shortest time, worked by hand. */
#include "tests/check.h"

#include "bench/overlap_plan.h"
#include "bench/transport.h"

static const struct ep_overlap_phases phases = {
    .counts = 0, .pack = 1, .unpack = 3, .combine_pack = 0, .combine_unpack = 2};

/* Every exchange begins once, after its pack, and ends once, before its unpack; a chunk's experts stand
 * between the two. */
static void test_order(void **state)
{
    (void)state;
    for (int chunks = 1; chunks <= EP_OVERLAP_MAX_CHUNKS; chunks++) {
        struct ep_overlap_event events[EP_OVERLAP_MAX_CHUNKS * EP_OVERLAP_EVENTS_PER_CHUNK +
                                       EP_OVERLAP_EXTRA_EVENTS];
        const int64_t num = ep_overlap_list(chunks, true, &phases, events);
        assert_true(num <= chunks * EP_OVERLAP_EVENTS_PER_CHUNK + EP_OVERLAP_EXTRA_EVENTS);
        /* route, shared, add; counts, 4 copies, 2 starts, 2 ends and the experts of each chunk */
        assert_int_equal(num, 3 + 10 * chunks);
        assert_int_equal(events[0].act, EP_OVERLAP_ROUTE);
        assert_int_equal(events[num - 1].act, EP_OVERLAP_ADD);
        int stage[EP_OVERLAP_MAX_CHUNKS] = {0}; /* how far each chunk is */
        for (int64_t i = 0; i < num; i++) {
            const struct ep_overlap_event *e = &events[i];
            static const struct {
                enum ep_overlap_act act;
                int op, phase;
            } order[] = {
                {EP_OVERLAP_COUNTS, EP_OP_DISPATCH, 0}, {EP_OVERLAP_COPY, EP_OP_DISPATCH, 1},
                {EP_OVERLAP_START, EP_OP_DISPATCH, 0},  {EP_OVERLAP_FINISH, EP_OP_DISPATCH, 0},
                {EP_OVERLAP_COPY, EP_OP_DISPATCH, 3},   {EP_OVERLAP_EXPERTS, 0, 0},
                {EP_OVERLAP_COPY, EP_OP_COMBINE, 0},    {EP_OVERLAP_START, EP_OP_COMBINE, 0},
                {EP_OVERLAP_FINISH, EP_OP_COMBINE, 0},  {EP_OVERLAP_COPY, EP_OP_COMBINE, 2},
            };
            if (e->act == EP_OVERLAP_ROUTE || e->act == EP_OVERLAP_SHARED ||
                e->act == EP_OVERLAP_ADD) {
                continue;
            }
            const int at = stage[e->chunk]++;
            assert_true(at < 10);
            assert_int_equal(e->act, order[at].act);
            assert_int_equal(e->op, order[at].op);
            assert_int_equal(e->phase, order[at].phase);
        }
        for (int c = 0; c < chunks; c++) {
            assert_int_equal(stage[c], 10);
        }
    }
}

/* Exchanges of `exchange_s`, experts of `experts_s`, shared experts of `shared_s`, all else at no time. */
static double bound(int chunks, double exchange_s, double experts_s, double shared_s)
{
    struct ep_overlap_event events[EP_OVERLAP_MAX_CHUNKS * EP_OVERLAP_EVENTS_PER_CHUNK +
                                   EP_OVERLAP_EXTRA_EVENTS];
    double time_s[EP_OVERLAP_MAX_CHUNKS * EP_OVERLAP_EVENTS_PER_CHUNK + EP_OVERLAP_EXTRA_EVENTS];
    const int64_t num = ep_overlap_list(chunks, shared_s > 0, &phases, events);
    for (int64_t i = 0; i < num; i++) {
        time_s[i] = events[i].act == EP_OVERLAP_START     ? exchange_s
                    : events[i].act == EP_OVERLAP_EXPERTS ? experts_s
                    : events[i].act == EP_OVERLAP_SHARED  ? shared_s
                                                          : 0;
    }
    return ep_overlap_bound_s(events, num, time_s);
}

static void test_bound(void **state)
{
    (void)state;
    /* One chunk hides nothing: 2 + 5 + 2; the shared experts of 1 hide half a dispatch, of 3 all of it. */
    CHECK_NEAR(bound(1, 2, 5, 0), 9, 1e-12);
    CHECK_NEAR(bound(1, 2, 5, 1), 9, 1e-12);
    CHECK_NEAR(bound(1, 2, 5, 3), 10, 1e-12);
    /* Two chunks, experts longer: first dispatch, both experts, last combine: 1 + 5 + 1. */
    CHECK_NEAR(bound(2, 1, 2.5, 0), 7, 1e-12);
    /* Exchanges longer: four of 3 one after the other. Dispatches until 6; the first experts end at 4, so
     * its combine follows at 6 and ends at 9; the second experts end at 7, its combine at 12. */
    CHECK_NEAR(bound(2, 3, 1, 0), 12, 1e-12);
    /* Many chunks of work 8 in all, exchanges 4 in all each way: experts bind, but for the first dispatch
     * and the last combine: 4/8 + 8 + 4/8. */
    CHECK_NEAR(bound(8, 0.5, 1, 0), 9, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
