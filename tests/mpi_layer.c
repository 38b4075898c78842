/* SPDX-License-Identifier: Apache-2.0 */
/* The layer on odd shapes and all transports against the plain one; a broken layer is caught by the check;
 * who needs whom. */
#include "tests/check.h"

#include "bench/layer_backward.h"
#include "bench/layer_check.h"

#include <stdio.h>
#include <stdlib.h>

static struct ep_session *session;

struct shape {
    const char *skew;
    int64_t experts, top_k, tokens, hidden, ffn, shared_ffn;
    enum ep_dtype dtype, combine_dtype;
    enum ep_ffn_kind kind;
    const char *backend;
    bool ragged; /* rank r has tokens * r / P tokens: rank 0 none */
    bool backward;
};

static const struct shape shapes[] = {
    {"uniform", 8, 2, 16, 64, 32, 0, EP_BF16, EP_BF16, EP_FFN_SWIGLU, "default", false, false},
    {"uniform", 8, 2, 16, 64, 32, 0, EP_FP32, EP_FP32, EP_FFN_SWIGLU, "ref", false, false},
    {"khot:1:0.9", 7, 3, 9, 33, 17, 21, EP_FP32, EP_FP32, EP_FFN_GELU, "default", true, false},
    {"khot:1:1", 5, 1, 7, 48, 24, 8, EP_BF16, EP_FP32, EP_FFN_RELU, "default", false, false},
    {"zipf:1.0", 64, 4, 3, 40, 8, 16, EP_BF16, EP_BF16, EP_FFN_SWIGLU, "default", true, false},
};

/* A layer of one shape and transport. The case and layer shape live as long as it. */
struct setup {
    struct ep_skew *skew;
    int64_t tokens[16];
    struct ep_comm_case point;
    struct ep_layer_shape shape;
    struct ep_layer_bank *bank;
    struct ep_layer *layer;
};

/* On the ranks of `all`, of which tp share an expert, in dp copies. */
static void set_up_groups(const struct shape *shape, const struct ep_transport *transport,
                          struct ep_comm *all, int64_t tp, int64_t dp, struct setup *s)
{
    const int size = ep_comm_size(all) / (int)(tp * dp);
    *s = (struct setup){.shape = {.kind = shape->kind, .ffn = shape->ffn,
                                  .shared_ffn = shape->shared_ffn, .tp = tp, .dp = dp,
                                  .backward = shape->backward}};
    for (int r = 0; r < size; r++) {
        s->tokens[r] = shape->ragged ? shape->tokens * r / size + (size == 1) : shape->tokens;
    }
    CHECK_OK(ep_skew_create(shape->skew, &s->skew));
    CHECK_OK(ep_gemm_find(shape->backend, shape->dtype, &s->shape.backend));
    CHECK_OK(ep_layer_bank_create(7, size, &s->bank));
    s->point = (struct ep_comm_case){
        .transport = transport, .algorithm = "default", .skew = s->skew, .num_ranks = size,
        .experts = shape->experts, .top_k = shape->top_k, .tokens_per_rank = s->tokens,
        .hidden = shape->hidden, .dtype = shape->dtype, .combine_dtype = shape->combine_dtype,
        .ops = {true, true},
    };
    CHECK_OK(ep_layer_create(session, s->bank, all, &s->point, &s->shape, &s->layer));
}

static void set_up(const struct shape *shape, const struct ep_transport *transport, struct setup *s)
{
    set_up_groups(shape, transport, session->world, 1, 1, s);
}

static void tear_down(struct setup *s)
{
    ep_layer_destroy(s->layer);
    ep_layer_bank_destroy(s->bank);
    ep_skew_destroy(s->skew);
}

static void test_against_plain(void **state)
{
    (void)state;
    for (int t = 0; ep_transports[t] != NULL; t++) {
        if (ep_transports[t]->view == NULL || (ep_transports[t]->shares && session->share == NULL)) {
            continue;
        }
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            struct setup s;
            struct ep_check check = {0};
            int64_t expected = 0;
            set_up(&shapes[i], ep_transports[t], &s);
            CHECK_OK(ep_layer_check(s.layer, &check));
            for (int r = 0; r < ep_comm_size(session->world); r++) { /* 8 tokens of a rank at most */
                expected += s.tokens[r] < 8 ? s.tokens[r] : 8;
            }
            assert_int_equal(check.rows, expected);
            if (check.wrong > 0) {
                fail_msg("%s, shape %zu: %lld of %lld tokens are wrong", ep_transports[t]->name, i,
                         (long long)check.wrong, (long long)check.rows);
            }
            tear_down(&s);
        }
    }
}

static bool has_rows(const struct ep_layer *l)
{
    return l->experts != NULL;
}

/* Gradients by rows and by weights, through every transport and in slices; the same tokens again, and an
 * inner element of each rank that has rows. Gradients that nobody weighted are caught. */
static void test_backward(void **state)
{
    (void)state;
    for (int t = 0; ep_transports[t] != NULL; t++) {
        if (ep_transports[t]->view == NULL || (ep_transports[t]->shares && session->share == NULL)) {
            continue;
        }
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            for (int sliced = 0; sliced < 2; sliced++) {
                struct setup s;
                struct ep_check check = {0};
                struct shape shape = shapes[i];
                const int tp = sliced ? ep_comm_size(session->world) : 1;
                int64_t expected = 0;
                shape.backward = true;
                set_up_groups(&shape, ep_transports[t], session->world, tp, 1, &s);
                CHECK_OK(ep_layer_check(s.layer, &check));
                for (int r = 0; r < ep_comm_size(session->world) / tp; r++) {
                    expected += 2 * tp * (s.tokens[r] < 8 ? s.tokens[r] : 8);
                }
                int64_t with_rows = has_rows(s.layer);
                CHECK_OK(ep_comm_sum_i64(session->world, &with_rows, 1));
                assert_int_equal(check.rows, expected + with_rows);
                if (check.wrong > 0) {
                    fail_msg("%s, shape %zu, tp %d: %lld of %lld are wrong", ep_transports[t]->name, i,
                             tp, (long long)check.wrong, (long long)check.rows);
                }
                const int64_t num = has_rows(s.layer) ? s.layer->rows.start[s.layer->rows.num_experts] : 0;
                for (int64_t row = 0; row < num; row++) {
                    s.layer->backward->row_weights[row] = 1;
                }
                CHECK_OK(ep_layer_check(s.layer, &check));
                assert_true(check.wrong > 0 || shape.top_k == 1); /* top-1: all weights are 1 */
                tear_down(&s);
            }
        }
    }
}

/* Slices and copies, 1 to 5 ranks at a time: results are whole, every rank's sample is right, and ranks need
 * those of their own exchange and of their own slices alone. */
static void test_groups(void **state)
{
    (void)state;
    static const struct {
        int tp, ep, dp;
    } plans[] = {{1, 1, 2}, {2, 1, 1}, {3, 1, 1}, {1, 3, 1}, {2, 2, 1}, {1, 2, 2}, {2, 1, 2}, {5, 1, 1}};
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        const int num = plans[i].tp * plans[i].ep * plans[i].dp;
        struct ep_comm *part = NULL;
        if (num > ep_comm_size(session->world)) {
            continue;
        }
        CHECK_OK(ep_comm_create_part(session->world, num, false, &part));
        for (size_t k = 0; part != NULL && k < sizeof shapes / sizeof shapes[0]; k++) {
            struct setup s;
            struct ep_check check = {0};
            const struct ep_transport *transport = NULL;
            int64_t expected = 0;
            CHECK_OK(ep_transport_find("alltoallv", &transport));
            set_up_groups(&shapes[k], transport, part, plans[i].tp, plans[i].dp, &s);
            CHECK_OK(ep_layer_check(s.layer, &check));
            for (int r = 0; r < plans[i].ep; r++) {
                expected += (s.tokens[r] < 8 ? s.tokens[r] : 8) * plans[i].tp * plans[i].dp;
            }
            assert_int_equal(check.rows, expected);
            assert_int_equal(check.wrong, 0);
            /* 2 slices of 2 ranks: rank 1 is slice 1 of expert rank 0 */
            if (plans[i].tp == 2 && plans[i].ep == 2 && ep_comm_rank(part) == 1) {
                int64_t needs[EP_LAYER_MAX_PHASES][4];
                ep_layer_fill_needs(s.layer, &needs[0][0]);
                for (int p = 0; p < s.layer->num_phases; p++) {
                    const struct ep_layer_phase *phase = &s.layer->phases[p];
                    const bool counts = phase->name != NULL && strcmp(phase->name, "counts") == 0;
                    assert_int_equal(needs[p][0], strcmp(phase->step, "sum") == 0);
                    assert_int_equal(needs[p][1], 0);
                    assert_int_equal(needs[p][2], 0);
                    assert_true(needs[p][3] == 1 || !counts);
                }
            }
            tear_down(&s);
        }
        ep_comm_destroy(part);
    }
}

static int find_phase(const struct ep_layer *l, const char *step)
{
    int p = 0;
    while (strcmp(l->phases[p].step, step) != 0) {
        p++;
    }
    return p;
}

static enum ep_status do_nothing(void *state)
{
    (void)state;
    return EP_OK;
}

/* All rows of the rank go through its first expert. */
static enum ep_status run_first(void *state)
{
    struct ep_layer *l = state;
    const int64_t num = l->rows.num_experts;
    memset(l->num_rows, 0, (size_t)num * sizeof *l->num_rows);
    l->num_rows[0] = l->rows.start[num];
    return ep_layer_run_experts(l, l->num_rows, &l->rows);
}

/* Each fault on rank 0 alone. */
static void test_broken(void **state)
{
    (void)state;
    static const struct shape uneven = {"khot:1:0.9", 10, 2, 16, 64, 32, 24, EP_FP32, EP_FP32,
                                        EP_FFN_SWIGLU, "default", false, false};
    static const struct {
        const char *step;
        enum ep_status (*run)(void *state);
    } faults[] = {{"experts", run_first}, {"shared", do_nothing}, {"add", do_nothing}};
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
        struct setup s;
        struct ep_check check = {0};
        const struct ep_transport *transport = NULL;
        CHECK_OK(ep_transport_find("alltoallv", &transport));
        set_up(&uneven, transport, &s);
        CHECK_OK(ep_layer_check(s.layer, &check));
        assert_int_equal(check.wrong, 0);
        if (ep_comm_is_root(session->world)) {
            s.layer->phases[find_phase(s.layer, faults[f].step)].run = faults[f].run;
            memset(s.layer->shared_outputs, 0, 16 * 64 * sizeof(float));
        }
        CHECK_OK(ep_layer_check(s.layer, &check));
        assert_true(check.wrong > 0);
        tear_down(&s);
    }
}

/* Counts wait for all; rows for those that send some: all tokens choose the one expert on rank 0, so that
 * rank 0 needs everybody in dispatch, and everybody needs rank 0 in combine. */
static void test_needs(void **state)
{
    (void)state;
    static const struct shape one = {"uniform", 1, 1, 4, 16, 8, 0, EP_FP32, EP_FP32,
                                     EP_FFN_SWIGLU, "default", false, false};
    const int size = ep_comm_size(session->world);
    struct setup s;
    const struct ep_transport *transport = NULL;
    int64_t *needs = NULL;
    if (size == 1) {
        return;
    }
    struct shape shape = one;
    shape.experts = size; /* contiguous: expert r on rank r; khot:1:1 sends all to one of them */
    shape.skew = "khot:1:1";
    CHECK_OK(ep_transport_find("alltoallv", &transport));
    set_up(&shape, transport, &s);
    const struct ep_layer *l = s.layer;
    const int hot = l->routing.topk_idx[0];
    needs = calloc((size_t)(l->num_phases * size), sizeof *needs);
    assert_non_null(needs);
    ep_layer_fill_needs(l, needs);
    for (int p = 0; p < l->num_phases; p++) {
        char name[EP_LAYER_NAME_LENGTH];
        ep_layer_phase_name(&l->phases[p], name);
        const int i = ep_comm_rank(session->world);
        for (int j = 0; j < size; j++) {
            const bool expected = i != j && (strcmp(name, "dispatch-counts") == 0 ||
                                             (strcmp(name, "dispatch-exchange") == 0 && i == hot) ||
                                             (strcmp(name, "combine-exchange") == 0 && j == hot));
            assert_int_equal(needs[p * size + j], expected);
        }
    }
    free(needs);
    tear_down(&s);
}

int main(int argc, char **argv)
{
    struct ep_session_options options = ep_session_options_default();
    options.memory_bytes = 64 << 20;
    options.shares = true;
    if (ep_session_open(argc, argv, &options, &session) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_plain),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_needs),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    const enum ep_status closed = ep_session_close(session);
    ep_comm_finalize(NULL);
    return failed != 0 || closed != EP_OK;
}
