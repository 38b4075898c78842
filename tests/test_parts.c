/* SPDX-License-Identifier: Apache-2.0 */
/* Rooflines by hand and planted, kernels records to parts, a whole layer from planted phases. */
#include "tests/check.h"

#include "base/random.h"
#include "results/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_time(void **state)
{
    (void)state;
    /* start 1, call 0.5, 0.1 s/flop, 0.01 s/byte. Two calls of 10 flop and 50 bytes: the longer is 1 s of
     * flops, both are 1.5 s; one call of 2 flop and 90 bytes: 0.9 s of bytes, both 1.1 s. */
    const double c[EP_ROOFLINE_NUM] = {1, 0.5, 0.1, 0.01};
    const struct ep_work_piece pieces[] = {{2, 10, 50}, {1, 2, 90}};
    const struct ep_work work = {1, pieces, 2};
    CHECK_NEAR(ep_roofline_time(EP_ROOFLINE_LONGER, c, &work), 1 + 1.5 + 2 * 1 + 0.9, 1e-12);
    CHECK_NEAR(ep_roofline_time(EP_ROOFLINE_BOTH, c, &work), 1 + 1.5 + 2 * 1.5 + 1.1, 1e-12);
}

static void test_compose(void **state)
{
    (void)state;
    /* Ranks work 1 and 3, exchange 2 (all at 5), work 4 and 1 (9 and 6), exchange 1 (all at 10), and
     * 0.5 and 0.25 at last: 10.5. */
    const bool is_exchange[] = {false, true, false, true, false};
    const double part_s[] = {1, 3, 2, 0, 4, 1, 1, 0, 0.5, 0.25};
    CHECK_NEAR(ep_layer_compose(is_exchange, part_s, 5, 2), 10.5, 1e-12);
    const double unknown[] = {1, 3, NAN, 0, 4, 1, 1, 0, 0.5, 0.25};
    assert_true(isnan(ep_layer_compose(is_exchange, unknown, 5, 2)));
}

/* --- planted GEMMs --------------------------------------------------------------------------- */

#define FLOP_S  (1 / 200e9)
#define BYTE_S  (1 / 20e9)
#define START_S 20e-6

enum { NUM_SIZES = 11, NUM_SHAPES = 2, NUM_CASES = NUM_SIZES * NUM_SHAPES };

/* Rows 1 to 1024 of bf16 matrices of 1 Mi and 4 Mi elements: below about 10 rows weights take longer. */
static void plant(enum ep_roofline_form form, double noise, uint64_t seed, struct ep_part *part)
{
    struct ep_random random;
    ep_random_init(&random, seed, EP_RANDOM_TEST, 0);
    *part = (struct ep_part){.num_cases = NUM_CASES, .num_folds = NUM_SIZES, .num_sizes = NUM_SIZES};
    CHECK_OK(ep_record_set_text(&part->name, "planted"));
    part->cases = calloc(NUM_CASES, sizeof *part->cases);
    part->pieces = calloc(NUM_CASES, sizeof *part->pieces);
    assert_true(part->cases != NULL && part->pieces != NULL);
    for (int i = 0; i < NUM_CASES; i++) {
        const double rows = (double)(1 << i / NUM_SHAPES);
        const double elements = i % NUM_SHAPES == 0 ? 0x1p20 : 0x1p22;
        const double flops_s = 2 * rows * elements * FLOP_S, bytes_s = 2 * elements * BYTE_S;
        double gauss = 0; /* sum of 12 uniform numbers less 6: mean 0, deviation 1 */
        for (int k = 0; k < 12; k++) {
            gauss += ep_random_f64(&random);
        }
        const double body_s =
            form == EP_ROOFLINE_BOTH ? flops_s + bytes_s : fmax(flops_s, bytes_s);
        part->pieces[i] = (struct ep_work_piece){1, 2 * rows * elements, 2 * elements};
        part->cases[i] = (struct ep_part_case){
            .name = "case", .work = {1, &part->pieces[i], 1},
            .time_s = (START_S + body_s) * (1 + noise * (gauss - 6)), .fold = i / NUM_SHAPES};
    }
}

static void test_exact(void **state)
{
    (void)state;
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    for (int form = 0; form < EP_ROOFLINE_NUM_FORMS; form++) {
        struct ep_part part;
        plant((enum ep_roofline_form)form, 0, 1, &part);
        CHECK_OK(ep_part_fit(&part, &options));
        assert_int_equal(part.form, form);
        CHECK_NEAR(part.coefficients[EP_ROOFLINE_START], START_S, 1e-4 * START_S);
        CHECK_NEAR(part.coefficients[EP_ROOFLINE_FLOP], FLOP_S, 1e-4 * FLOP_S);
        CHECK_NEAR(part.coefficients[EP_ROOFLINE_BYTE], BYTE_S, 1e-4 * BYTE_S);
        /* calls are as many as starts everywhere: one of the two is enough */
        CHECK_NEAR(part.coefficients[EP_ROOFLINE_CALL], 0, 0);
        assert_true(part.held_out.median_ape < 1e-3);
        assert_null(part.parameters[EP_ROOFLINE_FLOP].withheld);
        CHECK_NEAR(part.parameters[EP_ROOFLINE_FLOP].value, 1 / FLOP_S, 1e-4 / FLOP_S);
        ep_part_fini(&part);
    }
}

static void test_intervals(void **state)
{
    (void)state;
    /* 95 % intervals at 3 % noise: of 60 machines 57 are expected inside, and below 50 with a chance of
     * 1 in 10^4 */
    enum { NUM_SEEDS = 60 };
    const double truth[] = {START_S, 0, 1 / FLOP_S, 1 / BYTE_S};
    int inside[EP_ROOFLINE_NUM] = {0}, right_form = 0;
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    options.num_bootstraps = 200;
    for (uint64_t seed = 1; seed <= NUM_SEEDS; seed++) {
        struct ep_part part;
        plant(EP_ROOFLINE_LONGER, 0.03, seed, &part);
        CHECK_OK(ep_part_fit(&part, &options));
        right_form += part.form == EP_ROOFLINE_LONGER;
        for (int j = 0; j < EP_ROOFLINE_NUM; j++) {
            inside[j] += part.parameters[j].low <= truth[j] && truth[j] <= part.parameters[j].high;
        }
        ep_part_fini(&part);
    }
    assert_true(right_form >= 58);
    assert_true(inside[EP_ROOFLINE_START] >= 50 && inside[EP_ROOFLINE_FLOP] >= 50 &&
                inside[EP_ROOFLINE_BYTE] >= 50);
    assert_true(inside[EP_ROOFLINE_FLOP] < NUM_SEEDS || inside[EP_ROOFLINE_BYTE] < NUM_SEEDS);
}

/* What a reader is told of parts, or of layers. */
static void check_told(const struct ep_compute_fit *compute, const struct ep_layer_fit *layers,
                       const char *expected)
{
    char text[2048] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    if (compute != NULL) {
        ep_parts_explain_kernels(compute, out);
    } else {
        ep_parts_explain_layers(layers, out);
    }
    assert_int_equal(fclose(out), 0);
    if (strstr(text, expected) == NULL) {
        fail_msg("no '%s' in: %s", expected, text);
    }
}

/* --- kernels records ------------------------------------------------------------------------- */

static void fill_gemm(struct ep_record *r, const char *backend, int64_t ranks, int64_t m, int visit)
{
    ep_record_init(r, EP_RECORD_KERNELS);
    CHECK_OK(ep_record_set_text(&r->kernel, "gemm"));
    CHECK_OK(ep_record_set_text(&r->case_name, "gemm/%s/%d/%d", backend, (int)ranks, (int)m));
    CHECK_OK(ep_record_set_text(&r->gemm.backend, "%s", backend));
    CHECK_OK(ep_record_set_text(&r->gemm.dtype, "bf16"));
    r->ranks_active = ranks;
    r->gemm.m = m;
    r->gemm.groups = 8;
    r->gemm.flops = 8 * 2e6 * (double)m;
    r->gemm.bytes = 8 * 2e6;
    /* 100 GF/s and 10 GB/s of each rank; the second of three visits was slow */
    r->median_s = fmax(r->gemm.flops / 100e9, r->gemm.bytes / 10e9) * (visit == 1 ? 3 : 1);
}

static void test_kernels(void **state)
{
    (void)state;
    enum { SIZES = 8, VISITS = 3, NUM = 2 * SIZES * VISITS + 2 };
    struct ep_record items[NUM];
    struct ep_compute_fit fit;
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    int num = 0;
    for (int ranks = 1; ranks <= 2; ranks++) {
        for (int i = 0; i < SIZES * VISITS; i++) {
            fill_gemm(&items[num++], "native", ranks, 1 << i / VISITS, i % VISITS);
        }
    }
    fill_gemm(&items[num++], "ref", 1, 4, 0);
    fill_gemm(&items[num++], "ref", 1, 64, 0);
    const struct ep_records records = {.items = items, .num = num};
    CHECK_OK(ep_compute_fit_records(&records, &options, &fit));
    assert_int_equal(fit.num_parts, 3);
    assert_string_equal(fit.parts[0].name, "gemm native bf16, 1 rank");
    assert_string_equal(fit.parts[1].name, "gemm native bf16, 2 ranks");
    assert_int_equal(fit.parts[0].num_cases, SIZES);
    CHECK_NEAR(fit.parts[0].parameters[EP_ROOFLINE_FLOP].value, 100e9, 1e6);
    CHECK_NEAR(fit.parts[0].parameters[EP_ROOFLINE_BYTE].value, 10e9, 1e5);
    assert_true(fit.parts[0].held_out.median_ape < 1e-3);
    /* two sizes tell nothing that may be used */
    assert_string_equal(fit.parts[2].name, "gemm ref bf16, 1 rank");
    assert_true(isnan(fit.parts[2].parameters[EP_ROOFLINE_FLOP].value));
    assert_non_null(strstr(fit.parts[2].parameters[EP_ROOFLINE_FLOP].withheld, "3 sizes"));
    /* a bf16 weight is 2 bytes and 2 flop a row: 0.2 ns against 0.02 ns, so from 10 rows on flops take longer */
    check_told(&fit, NULL, "gemm native bf16, 2 ranks: 100 GF/s, and 10.00 GB/s of weights and rows: experts "
                           "with fewer than about 10 rows wait");
    assert_ptr_equal(ep_compute_fit_find(&fit, EP_COMPUTE_EXPERTS, "bf16"), &fit.parts[1]);
    assert_null(ep_compute_fit_find(&fit, EP_COMPUTE_EXPERTS, "fp32"));
    assert_null(ep_compute_fit_find(&fit, EP_COMPUTE_PERMUTE, "bf16"));
    ep_compute_fit_fini(&fit);
    for (int i = 0; i < num; i++) {
        ep_record_fini(&items[i]);
    }
}

/* --- a layer --------------------------------------------------------------------------------- */

enum { HIDDEN = 512, FFN = 256, EXPERTS = 8, NUM_SKEWS = 6, NUM_TOKENS = 4, RANKS = 2 };

static struct ep_record_phase *add_phase(struct ep_record *r, const char *name, const double time_s[2],
                                         const double wait_s[2])
{
    struct ep_record_phase *item = NULL;
    const double all_s[] = {time_s[0] + (wait_s != NULL ? wait_s[0] : 0),
                            time_s[1] + (wait_s != NULL ? wait_s[1] : 0)};
    CHECK_OK(ep_record_add_phase(r, name, &item));
    CHECK_OK(ep_record_set_f64s(&item->rank_median_s, all_s, RANKS));
    item->median_s = fmax(all_s[0], all_s[1]);
    if (wait_s != NULL) {
        CHECK_OK(ep_record_set_f64s(&item->rank_wait_s, wait_s, RANKS));
    }
    return item;
}

/* Of `tokens` per rank and 2 copies each, a share goes to rank 0's experts, all four of a rank alike. */
static void fill_layer(struct ep_record *r, int skew, int64_t tokens)
{
    const int64_t rows0 = tokens * (10 + skew) / 5 / 4 * 4, rows1 = 4 * tokens - rows0;
    const int64_t arrived[] = {rows0, rows1};
    const int64_t held[] = {4, 4};
    int64_t rows[EXPERTS];
    double route_s[2], experts_s[2], exchange_s[2], wait_s[2];
    ep_record_init(r, EP_RECORD_LAYER);
    CHECK_OK(ep_record_set_text(&r->case_name, "layer/%d/%d", skew, (int)tokens));
    CHECK_OK(ep_record_set_text(&r->record_id, "r%d-%d", skew, (int)tokens));
    CHECK_OK(ep_record_set_text(&r->run_id, "run"));
    CHECK_OK(ep_record_set_text(&r->host, "h"));
    CHECK_OK(ep_record_set_text(&r->op, "forward"));
    CHECK_OK(ep_record_set_text(&r->transport, "alltoallv"));
    CHECK_OK(ep_record_set_text(&r->algorithm, "default"));
    CHECK_OK(ep_record_set_text(&r->skew, "share:%d", skew));
    CHECK_OK(ep_record_set_text(&r->backend, "native"));
    CHECK_OK(ep_record_set_text(&r->activation, "relu"));
    CHECK_OK(ep_record_set_text(&r->dtype, "bf16"));
    CHECK_OK(ep_record_set_text(&r->combine_dtype, "bf16"));
    r->ranks = RANKS;
    r->nodes = r->tp = r->dp = 1;
    r->tokens = tokens;
    r->hidden = HIDDEN;
    r->ffn = FFN;
    r->shared_ffn = 0;
    r->experts = EXPERTS;
    r->top_k = 2;
    r->row_bytes = 2 * HIDDEN;
    r->h_rank_bytes = (rows0 > rows1 ? rows0 : rows1) / 2 * r->row_bytes;
    r->mean_out_bytes = (double)(tokens * r->row_bytes);
    r->messages_max = 1;
    r->step_sum_bytes = r->h_rank_bytes;
    r->self_bytes_max = r->h_rank_bytes;
    for (int e = 0; e < EXPERTS; e++) {
        rows[e] = arrived[e / 4] / 4;
    }
    CHECK_OK(ep_record_set_i64s(&r->rank_experts, held, RANKS));
    CHECK_OK(ep_record_set_i64s(&r->expert_rows, rows, EXPERTS));
    for (int i = 0; i < RANKS; i++) {
        /* a router of 50 GF/s; experts of 100 GF/s and 10 GB/s: relu has two matrices of HIDDEN x FFN */
        route_s[i] = 5e-6 + 2.0 * (double)tokens * HIDDEN * EXPERTS / 50e9;
        const double m = (double)(arrived[i] / 4);
        experts_s[i] = 4 * fmax(4 * m * HIDDEN * FFN / 100e9,
                                (2 * 2.0 * HIDDEN * FFN + m * HIDDEN * 6) / 10e9);
        exchange_s[i] = 3e-6 + (double)r->h_rank_bytes / 4e9;
    }
    /* rank with less work waits for the other before the second exchange */
    const double most_s = fmax(experts_s[0], experts_s[1]);
    wait_s[0] = most_s - experts_s[0];
    wait_s[1] = most_s - experts_s[1];
    const double none_s[] = {0, 0};
    add_phase(r, "route", route_s, NULL);
    add_phase(r, "dispatch-exchange", exchange_s, none_s);
    add_phase(r, "experts", experts_s, NULL);
    add_phase(r, "combine-exchange", exchange_s, wait_s);
    r->median_s = route_s[0] + most_s + 2 * exchange_s[0];
}

static void test_layer(void **state)
{
    (void)state;
    struct ep_record items[NUM_SKEWS * NUM_TOKENS];
    const struct ep_records records = {.items = items, .num = NUM_SKEWS * NUM_TOKENS};
    struct ep_parts parts;
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    for (int i = 0; i < records.num; i++) {
        fill_layer(&items[i], i / NUM_TOKENS, 20 << 2 * (i % NUM_TOKENS));
    }
    CHECK_OK(ep_parts_fit(&records, &options, &parts));
    assert_int_equal(parts.layers.num_groups, 1);
    const struct ep_layer_group *g = &parts.layers.groups[0];
    assert_int_equal(g->whole->num_cases, NUM_SKEWS * NUM_TOKENS);
    assert_string_equal(g->whole->fold_kind, "skew");
    assert_int_equal(g->num_parts, 4);
    assert_true(g->in_sample.max_ape < 1e-3);
    assert_true(g->held_out.num == records.num && g->held_out.max_ape < 1e-2);
    CHECK_NEAR(g->parts[2].part.coefficients[EP_ROOFLINE_FLOP], 1 / 100e9, 1e-3 / 100e9);
    CHECK_NEAR(g->parts[2].part.coefficients[EP_ROOFLINE_BYTE], 1 / 10e9, 1e-3 / 10e9);
    double shares = 0;
    for (int p = 0; p < 4; p++) {
        shares += g->parts[p].share;
    }
    CHECK_NEAR(shares, 1, 1e-9); /* ranks route alike, and no part is hidden behind another */
    check_told(NULL, &parts.layers, "are predicted within 0.0 % (median)");
    json_t *machine = json_object(), *compute = json_object();
    CHECK_OK(ep_parts_to_json(&parts, compute, machine));
    const json_t *layer = json_array_get(json_object_get(machine, "layers"), 0);
    assert_true(json_number_value(json_object_get(layer, "median_ape")) < 1e-3);
    assert_int_equal(json_array_size(json_object_get(layer, "parts")), 4);
    json_decref(machine);
    json_decref(compute);

    /* another run, of twice the tokens, by the parts of this one */
    struct ep_record others[NUM_SKEWS * NUM_TOKENS];
    const struct ep_records other = {.items = others, .num = NUM_SKEWS * NUM_TOKENS};
    struct ep_layer_fit fresh;
    double predicted_s[NUM_SKEWS * NUM_TOKENS];
    for (int i = 0; i < other.num; i++) {
        fill_layer(&others[i], i / NUM_TOKENS, 40 << 2 * (i % NUM_TOKENS));
    }
    CHECK_OK(ep_layer_fit_records(&other, &options, &fresh));
    CHECK_OK(ep_layer_fit_predict(g, &fresh.groups[0], predicted_s));
    for (int i = 0; i < other.num; i++) {
        const double time_s = fresh.groups[0].whole->cases[i].time_s;
        CHECK_NEAR(predicted_s[i], time_s, 1e-2 * time_s);
    }
    strcpy(fresh.groups[0].parts[0].name, "other");
    CHECK_FAILS(ep_layer_fit_predict(g, &fresh.groups[0], predicted_s), EP_EINVAL, "other phases");
    ep_layer_fit_fini(&fresh);
    for (int i = 0; i < other.num; i++) {
        ep_record_fini(&others[i]);
    }
    ep_parts_fini(&parts);

    /* records of an older program name no rows of experts: said, not guessed */
    for (int i = 0; i < records.num; i++) {
        items[i].rank_experts.num = 0;
    }
    CHECK_OK(ep_parts_fit(&records, &options, &parts));
    assert_int_equal(parts.layers.num_groups, 0);
    assert_int_equal(parts.layers.notes.num, 1);
    check_told(NULL, &parts.layers, "24 layer records do not name the rows of each expert");
    ep_parts_fini(&parts);
    for (int i = 0; i < records.num; i++) {
        ep_record_fini(&items[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time),      cmocka_unit_test(test_compose),
        cmocka_unit_test(test_exact),     cmocka_unit_test(test_intervals),
        cmocka_unit_test(test_kernels),   cmocka_unit_test(test_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
