/* SPDX-License-Identifier: Apache-2.0 */
/* Routers as sources of routing: the popularity asked for, any order of ranks, names, refusals. */
#include "tests/check.h"

#include "kernels/gate_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { RANKS = 3, TOKENS = 3000, EXPERTS = 32 };

struct rig {
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router;
    struct ep_gate_source *source;
};

static void set_up(const char *skew, const char *router, int64_t top_k, uint64_t seed,
                   struct rig *rig)
{
    CHECK_OK(ep_skew_create(skew, &rig->skew));
    CHECK_OK(ep_placement_init_contiguous(EXPERTS, RANKS, &rig->placement));
    CHECK_OK(ep_token_map_init_equal(RANKS, TOKENS, &rig->map));
    const struct ep_router_config config = {rig->skew, &rig->placement, &rig->map, top_k, seed};
    CHECK_OK(ep_router_create(&config, &rig->router));
    rig->source = NULL;
    if (router != NULL) {
        CHECK_OK(ep_gate_source_create(router, rig->router, &rig->source));
    }
}

static void tear_down(struct rig *rig)
{
    ep_gate_source_destroy(rig->source);
    ep_router_destroy(rig->router);
    ep_token_map_fini(&rig->map);
    ep_placement_fini(&rig->placement);
    ep_skew_destroy(rig->skew);
}

static void count(const struct ep_routing *r, int64_t *counts)
{
    for (int64_t i = 0; i < r->num_tokens * r->top_k; i++) {
        if (r->topk_idx[i] >= 0) {
            counts[r->topk_idx[i]]++;
        }
    }
}

/* Of 32 experts the first has a quarter of all copies, 155 of 620, and the last has none: 30 + 29 +
 * ... + 0 = 465. */
static void write_counts(const char *name)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fprintf(file, "155");
    for (int e = 1; e < EXPERTS; e++) {
        fprintf(file, ",%d", EXPERTS - 1 - e);
    }
    fprintf(file, "\n");
    assert_int_equal(fclose(file), 0);
}

/* Experts of ranks 0 to 2 together, by the router on logits and by the skew itself: both draw in
 * proportion to rank^-1 without replacement, or one expert for 0.6 of the tokens, or to loads of Gini
 * 0.5 at this top-k, or to those of a file (an expert with all of 1 / k, one with none), so counts n and
 * m of 9,000 tokens differ by no more than 5 standard deviations, sqrt(n + m) at most. */
static void test_popularity(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        int64_t top_k;
    } cases[] = {{"zipf:1", 1},     {"zipf:1", 4},
                 {"khot:1:0.6", 1}, {"khot:1:0.6", 4},
                 {"gini:0.5", 1},   {"gini:0.5", 4},
                 {"gini:0.8", 4},   {"counts:gate_source_counts.csv", 1},
                 {"counts:gate_source_counts.csv", 4}};
    write_counts("gate_source_counts.csv");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig rig;
        int64_t by_gate[EXPERTS] = {0}, by_skew[EXPERTS] = {0};
        set_up(cases[i].skew, "softmax", cases[i].top_k, 5, &rig);
        for (int rank = 0; rank < RANKS; rank++) {
            struct ep_routing r;
            CHECK_OK(ep_gate_source_generate(rig.source, rank, false, &r));
            assert_int_equal(r.num_tokens, TOKENS);
            count(&r, by_gate);
            ep_routing_fini(&r);
            CHECK_OK(ep_router_generate_rank(rig.router, rank, false, &r));
            count(&r, by_skew);
            ep_routing_fini(&r);
        }
        int64_t most = 0, total = 0;
        for (int e = 0; e < EXPERTS; e++) {
            const double sum = (double)(by_gate[e] + by_skew[e]);
            CHECK_NEAR((double)by_gate[e], (double)by_skew[e], 5 * sqrt(sum));
            most = by_gate[e] > most ? by_gate[e] : most;
            total += by_gate[e];
        }
        assert_int_equal(total, RANKS * TOKENS * cases[i].top_k);
        assert_true(most > 3 * total / EXPERTS); /* it is skewed at all */
        tear_down(&rig);
    }
    remove("gate_source_counts.csv");
}

/* Rank by rank in any order, and through dropping's input: the same. More tokens than one piece of
 * logits holds (2,048 at 32 experts). */
static void test_any_order(void **state)
{
    (void)state;
    struct rig rig;
    struct ep_routing first, again, whole;
    int64_t first_token = 0;
    set_up("zipf:0.5", "sigmoid-group:8:4", 4, 5, &rig);
    const struct ep_dropping_input input = ep_gate_source_input(rig.source);
    CHECK_OK(ep_gate_source_generate(rig.source, 2, true, &first));
    CHECK_OK(ep_gate_source_generate(rig.source, 0, true, &whole));
    CHECK_OK(input.fetch(input.context, 2, true, &again, &first_token));
    assert_int_equal(first_token, 2 * TOKENS);
    assert_int_equal(input.shape.top_k, 4);
    assert_int_equal(input.shape.tokens, TOKENS);
    const size_t num = TOKENS * 4;
    assert_memory_equal(first.topk_idx, again.topk_idx, num * sizeof *first.topk_idx);
    assert_memory_equal(first.topk_weight, again.topk_weight, num * sizeof *first.topk_weight);
    assert_memory_not_equal(first.topk_idx, whole.topk_idx, num * sizeof *first.topk_idx);
    ep_routing_fini(&first);
    ep_routing_fini(&again);
    ep_routing_fini(&whole);
    tear_down(&rig);
}

/* Expert choice: of each rank's 3,000 tokens every expert takes 3000 x 2 / 32 = 187.5, up. */
static void test_expert_choice(void **state)
{
    (void)state;
    struct rig rig;
    struct ep_routing r;
    int64_t counts[EXPERTS] = {0};
    set_up("zipf:1", "expert-choice", 2, 5, &rig);
    assert_int_equal(ep_gate_source_num_slots(rig.source), EXPERTS);
    CHECK_OK(ep_gate_source_generate(rig.source, 1, false, &r));
    count(&r, counts);
    for (int e = 0; e < EXPERTS; e++) {
        assert_int_equal(counts[e], counts[0]);
        assert_true(counts[e] == 187 || counts[e] == 188);
    }
    ep_routing_fini(&r);
    tear_down(&rig);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *skew, *router;
        uint64_t seed;
    } all[] = {{"zipf:1", "softmax", 1},
               {"zipf:1", "topk-softmax", 1},
               {"zipf:2", "softmax", 1},
               {"zipf:1", "softmax", 2}};
    char ids[4][17];
    for (int i = 0; i < 4; i++) {
        struct rig rig;
        set_up(all[i].skew, all[i].router, 2, all[i].seed, &rig);
        assert_string_equal(ep_gate_source_name(rig.source), all[i].router);
        assert_string_not_equal(ep_gate_source_id(rig.source), ep_router_id(rig.router));
        memcpy(ids[i], ep_gate_source_id(rig.source), sizeof ids[i]);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(ids[i], ids[j]);
        }
        tear_down(&rig);
    }
    assert_int_equal(ep_gate_source_top_k("switch"), 1);
    assert_int_equal(ep_gate_source_top_k("gshard"), 2);
    assert_int_equal(ep_gate_source_top_k("softmax"), 0);
    assert_int_equal(ep_gate_source_top_k("nonsense"), 0);
    assert_string_equal(ep_error_text(), "");
}

static void test_refused(void **state)
{
    (void)state;
    struct rig rig;
    set_up("hot:2", NULL, 2, 1, &rig);
    CHECK_FAILS(ep_gate_source_create("softmax", rig.router, &rig.source), EP_EINVAL,
                "hot:2 cannot");
    tear_down(&rig);
    set_up("uniform", NULL, 2, 1, &rig);
    CHECK_FAILS(ep_gate_source_create("sofmax", rig.router, &rig.source), EP_EINVAL,
                "did you mean");
    CHECK_FAILS(ep_gate_source_create("switch", rig.router, &rig.source), EP_EINVAL,
                "--router switch is top-1, not top-2");
    CHECK_FAILS(ep_gate_source_create("sigmoid-group:5:2", rig.router, &rig.source), EP_EINVAL,
                "equal groups");
    tear_down(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_popularity),    cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_expert_choice), cmocka_unit_test(test_names),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
