/* SPDX-License-Identifier: Apache-2.0 */
/* The fit: tiny ones by hand, GSL's robust fit beside ours, planted parameters, gates, folds. */
#include "tests/check.h"
#include "tests/planted.h"

#include "base/random.h"
#include "results/fit.h"
#include "results/fit_rung.h"
#include "results/robust.h"

#include <gsl/gsl_multifit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { M0, M0_LINK, M1, M2, M3, M4, M5S, M5, M6 };

/* --- the solver ------------------------------------------------------------------------------ */

static void fit_rows(double *design, const double *target, int64_t num_rows, int num_columns,
                     double *coefficients)
{
    struct ep_robust_work *work = NULL;
    CHECK_OK(ep_robust_work_create(num_rows, &work));
    const struct ep_robust_problem problem = {
        .design = design, .target = target, .num_rows = num_rows, .num_columns = num_columns};
    ep_robust_fit(&problem, NULL, 1e-10, work, coefficients);
    ep_robust_work_destroy(work);
}

static void test_nonnegative(void **state)
{
    (void)state;
    double c[2];
    /* y = 3, 2, 1 at x = 1, 2, 3: the line is 4 - x, but a slope >= 0 leaves the mean, 2.
     * X'X = [3 6; 6 14], X'y = [6; 10] */
    ep_robust_solve_nonnegative((double[]){3, 6, 6, 14}, (double[]){6, 10}, 2, c);
    CHECK_NEAR(c[0], 2, 1e-12);
    CHECK_NEAR(c[1], 0, 0);
    /* y = 1, 2, 3: intercept 0, slope 1; X'y = [6; 14] */
    ep_robust_solve_nonnegative((double[]){3, 6, 6, 14}, (double[]){6, 14}, 2, c);
    CHECK_NEAR(c[0], 0, 1e-12);
    CHECK_NEAR(c[1], 1, 1e-12);
    /* everything points the wrong way, or a column is zero, or two are the same */
    ep_robust_solve_nonnegative((double[]){3, 6, 6, 14}, (double[]){-6, -14}, 2, c);
    CHECK_NEAR(c[0] + c[1], 0, 0);
    ep_robust_solve_nonnegative((double[]){0, 0, 0, 2}, (double[]){0, 4}, 2, c);
    CHECK_NEAR(c[0], 0, 0);
    CHECK_NEAR(c[1], 2, 1e-12);
    ep_robust_solve_nonnegative((double[]){2, 2, 2, 2}, (double[]){4, 4}, 2, c);
    CHECK_NEAR(c[0] + c[1], 2, 1e-9);
}

static void test_relative_start(void **state)
{
    (void)state;
    /* Two rows are too few for a robust scale. Least squares of (c x - y)/y with x/y = 1, 0.5:
     * c = (1 + 0.5) / (1 + 0.25) = 1.2 */
    double c;
    fit_rows((double[]){2, 4}, (double[]){2, 8}, 2, 1, &c);
    CHECK_NEAR(c, 1.2, 1e-12);
}

static void test_outlier(void **state)
{
    (void)state;
    /* 2 + 0.5 x exactly, but one point is 5 times too high: bisquare gives it no weight at all */
    double design[20], target[10], c[2];
    for (int i = 0; i < 10; i++) {
        design[2 * i] = 1;
        design[2 * i + 1] = 1 << i;
        target[i] = 2 + 0.5 * (1 << i);
    }
    target[6] *= 5;
    fit_rows(design, target, 10, 2, c);
    CHECK_NEAR(c[0], 2, 1e-6);
    CHECK_NEAR(c[1], 0.5, 1e-7);
}

static void test_beside_gsl(void **state)
{
    (void)state;
    /* Targets near 1000 have all the same scale, so relative and absolute errors weigh alike, and
     * GSL's bisquare must agree to what the scale's 1 % variation (squared) can do. */
    enum { NUM = 60 };
    double design[2 * NUM], target[NUM], c[2];
    struct ep_random random;
    ep_random_init(&random, 3, EP_RANDOM_TEST, 0);
    gsl_matrix *x = gsl_matrix_alloc(NUM, 2);
    gsl_vector *y = gsl_vector_alloc(NUM);
    for (int i = 0; i < NUM; i++) {
        const double at = (double)i / NUM;
        design[2 * i] = 1;
        design[2 * i + 1] = at;
        target[i] = 1000 + 10 * at + 4 * (ep_random_f64(&random) + ep_random_f64(&random) - 1) +
                    (i % 7 == 0 ? 100 : 0);
        gsl_matrix_set(x, (size_t)i, 0, 1);
        gsl_matrix_set(x, (size_t)i, 1, at);
        gsl_vector_set(y, (size_t)i, target[i]);
    }
    gsl_vector *gsl_c = gsl_vector_alloc(2);
    gsl_matrix *cov = gsl_matrix_alloc(2, 2);
    gsl_multifit_robust_workspace *room =
        gsl_multifit_robust_alloc(gsl_multifit_robust_bisquare, NUM, 2);
    gsl_multifit_robust_maxiter(500, room);
    assert_int_equal(gsl_multifit_robust(x, y, gsl_c, cov, room), 0);
    fit_rows(design, target, NUM, 2, c);
    /* standard error of the slope is about 1.7 / (sqrt(60) 0.29) = 0.8; agreement to a tenth */
    CHECK_NEAR(c[0], gsl_vector_get(gsl_c, 0), 0.05);
    CHECK_NEAR(c[1], gsl_vector_get(gsl_c, 1), 0.08);
    gsl_multifit_robust_free(room);
    gsl_matrix_free(cov);
    gsl_vector_free(gsl_c);
    gsl_vector_free(y);
    gsl_matrix_free(x);
}

static void test_condition(void **state)
{
    (void)state;
    double condition = 0;
    /* columns (1,1)/sqrt2 and (0,1): cosine 1/sqrt2, singular values sqrt(1 +- 0.70711), whose
     * ratio is 1 + sqrt(2) */
    CHECK_OK(ep_robust_condition((double[]){1, 0, 1, 1}, (double[]){1, 1}, 2, 2, &condition));
    CHECK_NEAR(condition, 2.414213562, 1e-6);
    CHECK_OK(ep_robust_condition((double[]){2, 0, 0, 5}, (double[]){1, 3}, 2, 2, &condition));
    CHECK_NEAR(condition, 1, 1e-9);
    CHECK_OK(ep_robust_condition((double[]){1, 2, 2, 4}, (double[]){1, 1}, 2, 2, &condition));
    assert_true(condition > 1e5);
}

static void test_expanded_tail(void **state)
{
    (void)state;
    /* t(0.975; 17) = 2.10982, times sqrt(18/17) = 2.17098; Phi(-2.17098) = 0.014967 (tables) */
    CHECK_NEAR(ep_fit_expanded_tail(0.95, 18), 0.014967, 2e-5);
    CHECK_NEAR(ep_fit_expanded_tail(0.95, 1000000), 0.025, 1e-5);
}

/* --- rungs ----------------------------------------------------------------------------------- */

static void test_rungs_by_hand(void **state)
{
    (void)state;
    /* P = 4, 8 MB remote: 2 MB mean; busiest rank 5 MB; 3 messages; memory 24 MB, NIC 6 MB, uplink
     * 7 MB; steps 9 MB; 10 MB copied */
    const struct ep_model_case c = {
        .features = {{4, 8e6, 2e6, 5e6, 3, 24e6, 6e6, 7e6, 9e6, 10e6, 2}}};
    static const struct {
        int rung;
        double coefficients[EP_RUNG_MAX_COLUMNS];
        double time_s;
    } expected[] = {
        {M0, {1e-9}, 2e-3},
        {M0_LINK, {1e-9}, 8e-3},
        {M1, {1e-4, 1e-9}, 2.3e-3},
        {M2, {1e-3, 1e-4, 1e-9}, 6.3e-3},
        /* 1.3 ms + max(5, 6) ms; and with the NIC three times as fast max(5, 2) */
        {M3, {1e-3, 1e-4, 1e-9, 1e-9, 0}, 7.3e-3},
        {M3, {1e-3, 1e-4, 1e-9, 1e-9 / 3, 0}, 6.3e-3},
        {M3, {1e-3, 1e-4, 1e-9, 1e-9, 2e-10}, 9.3e-3},
        /* rank 5, memory 4.8, NIC 3, uplink 7 ms */
        {M4, {0, 0, 1e-9, 2e-10, 5e-10, 1e-9, 0}, 7e-3},
        {M4, {0, 0, 1e-9, 4e-10, 5e-10, 1e-9, 0}, 9.6e-3},
        {M5S, {1e-3, 1e-4, 1e-9, 1e-9, 0}, 15.1e-3},
        /* the uplink 7 ms before the rank's 5, and two of three messages over it */
        {M5S, {1e-3, 1e-4, 1e-9, 1e-9, 0, 1e-9, 5e-4}, 18.1e-3},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct ep_rung_form form;
        ep_rung_form_init(ep_rung_at(expected[i].rung), NULL, 0, &form);
        CHECK_NEAR(ep_rung_predict(&form, &c, expected[i].coefficients), expected[i].time_s, 1e-15);
    }
    int idx = -1;
    CHECK_OK(ep_rung_find("M1", &idx));
    assert_int_equal(idx, M1);
    CHECK_FAILS(ep_rung_find("M9", &idx), EP_EINVAL, "M9");
}

static void test_anchors_by_hand(void **state)
{
    (void)state;
    /* 1 ns per byte up to 1 MiB, 3 ns from 16 MiB on; 4 MiB is half way in the logarithm: 2 ns */
    const double anchors[] = {1 << 20, 16 << 20};
    const double c[] = {0, 0, 1e-9, 3e-9};
    struct ep_rung_form form;
    ep_rung_form_init(ep_rung_at(M2), anchors, 2, &form);
    assert_int_equal(form.num_columns, 4);
    const struct {
        double bytes, per_byte_s;
    } expected[] = {{1 << 10, 1e-9}, {1 << 20, 1e-9}, {4 << 20, 2e-9}, {16 << 20, 3e-9},
                    {64 << 20, 3e-9}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct ep_model_case one = {0};
        one.features.values[EP_FEATURE_H_RANK_BYTES] = expected[i].bytes;
        CHECK_NEAR(ep_rung_predict(&form, &one, c) / (expected[i].bytes * expected[i].per_byte_s), 1,
                   1e-12);
    }
    /* M0 has no anchors */
    ep_rung_form_init(ep_rung_at(M0), anchors, 2, &form);
    assert_int_equal(form.num_columns, 1);
}

static void test_schedule_by_hand(void **state)
{
    (void)state;
    /* Three ranks, B = 1 byte/s, a = 0. D: 0>1 4, 0>2 1, 1>0 2, 1>2 1, 2>0 3, 2>1 1.
     * Step 1 (i to i+1): 0>1 4, 1>2 1, 2>0 3; each also receives: f = (max(4,3), max(1,4), max(3,1))
     * = (4, 4, 3). Step 2 (i to i+2): 0>2 from max(4,3) to 5; 1>0 from max(4,4) to 6; 2>1 from
     * max(3,4) to 5; f_0 = max(5, 6), f_1 = max(6, 5), f_2 = max(5, 5): 6 s, along 0>1 and 1>0. */
    double bytes[] = {0, 4, 1, 2, 0, 1, 3, 1, 0};
    int32_t nodes[] = {0, 0, 0};
    const struct ep_model_matrix matrix = {.num_ranks = 3, .num_nodes = 1, .bytes = bytes,
                                           .rank_node = nodes};
    struct ep_model_case c = {.matrix = &matrix};
    struct ep_rung_form form;
    double row[EP_RUNG_MAX_COLUMNS];
    ep_rung_form_init(ep_rung_at(M5), NULL, 0, &form);
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[7]){0, 1, 0, 0}), 6, 1e-12);
    assert_true(ep_rung_row(&form, &c, (double[7]){0, 1, 0, 0}, row));
    CHECK_NEAR(row[0], 2, 0); /* two messages on the chain */
    CHECK_NEAR(row[1], 6, 0);
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[7]){10, 1, 0, 0}), 26, 1e-12);
    /* Rank 2 on a node of its own, over a network ten times as slow: 0>2, 1>2, 2>0, 2>1 take tenfold.
     * Step 1: 0>1 4, 1>2 10, 2>0 30: f = (30, 10, 30). Step 2: 0>2 30+10, 1>0 30+2, 2>1 30+10:
     * f_0 = max(40, 32), f_1 = max(32, 40), f_2 = 40. */
    nodes[2] = 1;
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[7]){0, 1, 0, 10}), 40, 1e-12);
    /* nothing to follow */
    c.matrix = NULL;
    assert_true(isnan(ep_rung_predict(&form, &c, (double[7]){0, 1, 0, 0})));
}

static void test_fluid_by_hand(void **state)
{
    (void)state;
    /* Three ranks, c_rank = 1 byte/s: 0>1 4, 0>2 1, 2>1 3 bytes. Out of 0: two flows, into 1: two.
     * All three at 1/2 first. 0>2 is through after 2 s; left 3 of 0>1 and 2 of 2>1, which share rank
     * 1's way in: 1/2 each until 2>1 is through after 4 s more; the last byte of 0>1 takes 1 s: 7 s.
     * All of it is rank 1's way in, 7 bytes. */
    double bytes[] = {0, 4, 1, 0, 0, 0, 0, 3, 0};
    int32_t nodes[] = {0, 0, 0};
    const struct ep_model_matrix one = {.num_ranks = 3, .num_nodes = 1, .bytes = bytes,
                                        .rank_node = nodes};
    struct ep_model_case c = {.features = {{[EP_FEATURE_MESSAGES] = 2}}, .matrix = &one};
    struct ep_rung_form form;
    double row[EP_RUNG_MAX_COLUMNS];
    ep_rung_form_init(ep_rung_at(M6), NULL, 0, &form);
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){0, 0, 1, 0}), 7, 1e-9);
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){5, 0.5, 1, 0}), 13, 1e-9);
    /* A case in which the largest port is not all: 0>1 4, 0>2 4, 1>2 4, 2>1 ... into 2: 8, out of 0: 8.
     * 0>1, 0>2 and 1>2 at 1/2 for 8 s: through together. 8 = both ports' load. */
    double even[] = {0, 4, 4, 0, 0, 4, 0, 0, 0};
    const struct ep_model_matrix second = {.num_ranks = 3, .num_nodes = 1, .bytes = even,
                                           .rank_node = nodes};
    c.matrix = &second;
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){0, 0, 1, 0}), 8, 1e-9);
    /* Max-min is not the busiest port: 0>2 2, 1>2 2, 1>0 6. Into 2: 1/2 each; 1>0 gets what is left of
     * 1's way out, 1/2. After 4 s both into 2 are through and 1>0 has 4 left at rate 1: 8 s = the load
     * of 1's way out. With 1>0 = 2 and 0>2 = 6: into 2 8 bytes; 1/2, 1/2, 1/2 until 1>2 and 1>0 are
     * through after 4 s; 0>2 has 4 left at 1: 8 s. */
    double uneven[] = {0, 0, 2, 6, 0, 2, 0, 0, 0};
    const struct ep_model_matrix third = {.num_ranks = 3, .num_nodes = 1, .bytes = uneven,
                                          .rank_node = nodes};
    c.matrix = &third;
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){0, 0, 1, 0}), 8, 1e-9);
    /* Two nodes {0, 1} and {2}, NICs of 1/2 byte/s, ranks of 1: 0>2 4 and 1>2 4 share one NIC: 1/4
     * each, 16 s; 0>1 6 has 3/4 of 0's way out: 8 s. The end is the NIC's: 8 bytes / c_nic. */
    double split[] = {0, 6, 4, 0, 0, 4, 0, 0, 0};
    int32_t two[] = {0, 0, 1};
    const struct ep_model_matrix fourth = {.num_ranks = 3, .num_nodes = 2, .bytes = split,
                                           .rank_node = two};
    c.matrix = &fourth;
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){0, 0, 1, 2}), 16, 1e-9);
    assert_true(ep_rung_row(&form, &c, (double[6]){0, 0, 1, 2}, row));
    CHECK_NEAR(row[2], 0, 1e-9);
    CHECK_NEAR(row[3], 8, 1e-9);
    /* Both matter: 0>1 10 instead. 3/4 until 16 s leaves 0 of 12 > 10, so 13.33 s; and with 20: at 16 s
     * 8 are left, at rate 1: 24 s. The flow into the NIC had 1/4 c_nic-wise: 0>1 sends
     * 16 (c_rank - c_nic / 2) + (T - 16) c_rank with 16 = 8 / c_nic: T c_rank = 20 + 4, and that is
     * T = 24 / c_rank: all rank, none NIC. */
    split[1] = 20;
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){0, 0, 1, 2}), 24, 1e-9);
    assert_true(ep_rung_row(&form, &c, (double[6]){0, 0, 1, 2}, row));
    CHECK_NEAR(row[2], 24, 1e-9);
    CHECK_NEAR(row[3], 0, 1e-9);
    /* A rank port of no account, 1e25 times as fast: the NIC's 16 s, not what rounding of 1e25 leaves */
    CHECK_NEAR(ep_rung_predict(&form, &c, (double[6]){0, 0, 1e-25, 2}), 16, 1e-9);
}

/* A group of three cases of 1, 2 and 4 bytes that took 1, 2 and 8 s, each its own fold. */
static void test_tiny_fit(void **state)
{
    (void)state;
    struct ep_record record;
    ep_record_init(&record, EP_RECORD_COMM);
    record.ranks = 2;
    const double bytes[] = {1, 2, 4}, times[] = {1, 2, 8};
    struct ep_fit_case cases[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        cases[i] = (struct ep_fit_case){.model = {.features = {{2, 2 * bytes[i], bytes[i], bytes[i], 1}}},
                                        .time_s = times[i],
                                        .size_class = i,
                                        .fold = i,
                                        .cluster = i};
    }
    struct ep_fit_group g = {.record = &record, .cases = cases, .num_cases = 3, .num_folds = 3,
                             .num_clusters = 3, .num_sizes = 3, .chosen = -1,
                             .peak_bytes_per_s = NAN};
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    CHECK_OK(ep_fit_group_rungs(&g, &options));
    const struct ep_fit_rung *r = &g.rungs[M0];
    /* all three: x/y = 1, 1, 0.5: 1/B = 2.5 / 2.25 = 10/9; errors 1/9, 1/9 and 4/9 */
    CHECK_NEAR(r->coefficients[0], 10.0 / 9, 1e-12);
    CHECK_NEAR(r->in_sample.median_ape, 1.0 / 9, 1e-12);
    CHECK_NEAR(r->in_sample.max_ape, 4.0 / 9, 1e-12);
    /* without the first, or the second: 1.5 / 1.25 = 1.2, predicting 1.2 and 2.4, 20 % off;
     * without the third: 1, predicting 4 of 8, 50 % off; its p95 is 0.2 + 0.9 * 0.3 */
    CHECK_NEAR(r->held_out_s[0], 1.2, 1e-12);
    CHECK_NEAR(r->held_out_s[1], 2.4, 1e-12);
    CHECK_NEAR(r->held_out_s[2], 4, 1e-12);
    CHECK_NEAR(r->held_out.median_ape, 0.2, 1e-12);
    CHECK_NEAR(r->held_out.p95_ape, 0.47, 1e-12);
    CHECK_NEAR(r->held_out.max_ape, 0.5, 1e-12);
    /* the largest size from the others is the third fold */
    assert_int_equal(r->extrapolation.num, 1);
    CHECK_NEAR(r->extrapolation.median_ape, 0.5, 1e-12);
    CHECK_NEAR(r->fold_score, 0.3, 1e-12);
    /* fold medians 0.2, 0.2, 0.5: variance 0.03, over 3 folds */
    CHECK_NEAR(r->fold_score_se, 0.1, 1e-9);
    /* relative to the prediction the errors are 1/6, 1/6 and 1: the two small ones lie inside the
     * largest of the other folds', the third does not */
    CHECK_NEAR(r->coverage, 2.0 / 3, 1e-12);
    /* one number of ranks: the two forms of M0 are one, and so are M1 and M2 without skew */
    assert_ptr_equal(g.rungs[M0_LINK].same_as, ep_rung_at(M0));
    assert_ptr_equal(g.rungs[M2].same_as, ep_rung_at(M1));
    /* 3 clusters: a value, but no interval and no choice */
    CHECK_NEAR(r->parameters[0].value, 0.9, 1e-12);
    assert_true(isnan(r->parameters[0].low));
    assert_int_equal(g.chosen, -1);
    assert_string_equal(g.notes.items[0].name, "too-few-groups");
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        for (int j = 0; j < g.rungs[i].num_parameters; j++) {
            free(g.rungs[i].parameters[j].withheld);
        }
        free(g.rungs[i].fitted_s);
        free(g.rungs[i].held_out_s);
    }
    free(g.notes.items[0].name);
    free(g.notes.items[0].text);
    free(g.notes.items);
}

/* --- planted parameters ---------------------------------------------------------------------- */

static const char *const one_transport[] = {"alltoallv", NULL};

static void fit_planted(const struct ep_planted *planted, int num_bootstraps,
                        struct ep_records *records, struct ep_fit *fit)
{
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    options.num_bootstraps = num_bootstraps;
    CHECK_OK(ep_planted_make(planted, records));
    CHECK_OK(ep_fit_records(records, &options, fit));
}

static void fini(struct ep_records *records, struct ep_fit *fit)
{
    ep_fit_fini(fit);
    ep_records_fini(records);
}

static const struct ep_fit_parameter *find_parameter(const struct ep_fit_rung *rung,
                                                     const char *name)
{
    for (int j = 0; j < rung->num_parameters; j++) {
        if (strcmp(rung->parameters[j].name, name) == 0) {
            return &rung->parameters[j];
        }
    }
    fail_msg("%s has no parameter %s", rung->rung->name, name);
    return NULL;
}

static const int rung_of_law[] = {[EP_PLANTED_M0] = M0, [EP_PLANTED_M1] = M1, [EP_PLANTED_M2] = M2};

static void planted_law(enum ep_planted_law law, uint64_t seed, struct ep_planted *planted)
{
    ep_planted_default(planted);
    planted->law = law;
    planted->seed = seed;
    planted->transports = one_transport;
    planted->message_s = law == EP_PLANTED_M1 ? 20e-6 : 1e-6;
}

static void test_planted_recovered(void **state)
{
    (void)state;
    for (int law = EP_PLANTED_M0; law <= EP_PLANTED_M2; law++) {
        for (uint64_t seed = 1; seed <= 5; seed++) {
            struct ep_planted planted;
            struct ep_records records;
            struct ep_fit fit;
            planted_law((enum ep_planted_law)law, seed, &planted);
            planted.outliers = 0.1;
            fit_planted(&planted, 0, &records, &fit);
            assert_int_equal(fit.num_groups, 4); /* two of the exchange, two of the whole */
            for (int64_t g = 0; g < 2; g++) {
                const struct ep_fit_rung *rung = &fit.groups[g].rungs[rung_of_law[law]];
                assert_int_equal(fit.groups[g].num_cases, 36);
                assert_string_equal(fit.groups[g].target, "exchange");
                /* 36 cases, 24 of them ruled by bytes, 5 % / sqrt(2) noise, robust efficiency
                 * 0.8: standard error 0.8 %; 4 of them, and 1 % that outliers may bias */
                CHECK_NEAR(find_parameter(rung, "B")->value / 8e9, 1, 0.042);
                if (law == EP_PLANTED_M1) {
                    /* 12 cases ruled by latency share their time with bytes: 4 x 2.5 % */
                    CHECK_NEAR(find_parameter(rung, "a")->value / 20e-6, 1, 0.10);
                }
                if (law == EP_PLANTED_M2) {
                    CHECK_NEAR(find_parameter(rung, "l+a*n")->value / 23e-6, 1, 0.3);
                    assert_non_null(find_parameter(rung, "l")->withheld);
                    assert_true(isnan(find_parameter(rung, "a")->value));
                }
            }
            fini(&records, &fit);
        }
    }
}

static void test_intervals_and_choice(void **state)
{
    (void)state;
    int num = 0, covered = 0, right = 0;
    double widths = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct ep_planted planted;
        struct ep_records records;
        struct ep_fit fit;
        const enum ep_planted_law law = (enum ep_planted_law)(seed % 3);
        planted_law(law, seed, &planted);
        planted.outliers = 0.1;
        fit_planted(&planted, 200, &records, &fit);
        for (int64_t g = 0; g < fit.num_groups / 2; g++) {
            const struct ep_fit_rung *rung = &fit.groups[g].rungs[rung_of_law[law]];
            const struct ep_fit_parameter *b = find_parameter(rung, "B");
            num++;
            covered += b->low <= 8e9 && 8e9 <= b->high;
            widths += (b->high - b->low) / 8e9;
            right += fit.groups[g].chosen == rung_of_law[law];
        }
        fini(&records, &fit);
    }
    assert_int_equal(num, 100);
    /* P(Binomial(100, 0.92) < 84) = 0.003; and the intervals are no wider than 10 % on average, so
     * that they cannot cover by saying nothing */
    assert_true(covered >= 84);
    assert_true(widths / num < 0.10);
    /* P(Binomial(100, 0.95) < 88) = 0.002 */
    assert_true(right >= 88);
}

/* Three numbers of ranks tell l from a. */
static void append_ranks(struct ep_records *all, struct ep_planted *planted, int64_t ranks)
{
    struct ep_records more;
    planted->ranks = ranks;
    CHECK_OK(ep_planted_make(planted, &more));
    for (int64_t i = 0; i < more.num; i++) {
        struct ep_record *r = &more.items[i];
        CHECK_OK(ep_record_set_text(&r->record_id, "%s-%d", r->record_id, (int)ranks));
    }
    all->items = realloc(all->items, (size_t)(all->num + more.num) * sizeof *all->items);
    memcpy(all->items + all->num, more.items, (size_t)more.num * sizeof *more.items);
    all->num += more.num;
    free(more.items);
}

static void test_many_rank_counts(void **state)
{
    (void)state;
    struct ep_planted planted;
    struct ep_records all = {0};
    struct ep_fit fit;
    struct ep_fit_options options;
    ep_fit_options_default(&options);
    options.num_bootstraps = 100;
    planted_law(EP_PLANTED_M2, 1, &planted);
    planted.message_s = 5e-6;
    planted.noise = 0.01;
    append_ranks(&all, &planted, 2);
    append_ranks(&all, &planted, 8);
    append_ranks(&all, &planted, 32);
    CHECK_OK(ep_fit_records(&all, &options, &fit));
    const struct ep_fit_group *g = &fit.groups[0];
    assert_int_equal(g->num_rank_counts, 3);
    assert_int_equal(g->chosen, M2);
    assert_null(g->rungs[M0_LINK].same_as);
    assert_int_equal(g->rungs[M2].num_parameters, 3);
    /* 1 % noise, 108 cases: l is 20 of at least 25 us in a third of them */
    CHECK_NEAR(find_parameter(&g->rungs[M2], "l")->value / 20e-6, 1, 0.1);
    CHECK_NEAR(find_parameter(&g->rungs[M2], "a")->value / 5e-6, 1, 0.05);
    ep_fit_fini(&fit);
    ep_records_fini(&all);

    /* 31, 32 and 33 ranks hardly change n: the condition number says so */
    all = (struct ep_records){0};
    append_ranks(&all, &planted, 31);
    append_ranks(&all, &planted, 32);
    append_ranks(&all, &planted, 33);
    CHECK_OK(ep_fit_records(&all, &options, &fit));
    const struct ep_fit_rung *m2 = &fit.groups[0].rungs[M2];
    assert_true(m2->condition > 30);
    assert_non_null(strstr(find_parameter(m2, "l")->withheld, "condition number"));
    assert_true(isnan(find_parameter(m2, "B")->value));
    ep_fit_fini(&fit);
    ep_records_fini(&all);
}

/* --- gates and folds ------------------------------------------------------------------------- */

static void test_gates(void **state)
{
    (void)state;
    static const int64_t one_size[] = {1024, 0};
    static const char *const one_skew[] = {"uniform", NULL};
    struct ep_planted planted;
    struct ep_records records;
    struct ep_fit fit;
    struct ep_fit_options options;

    /* one size */
    planted_law(EP_PLANTED_M2, 1, &planted);
    planted.tokens = one_size;
    fit_planted(&planted, 50, &records, &fit);
    assert_non_null(strstr(find_parameter(&fit.groups[0].rungs[M0], "B")->withheld, "1 size"));
    assert_true(isnan(find_parameter(&fit.groups[0].rungs[M0], "B")->value));
    assert_int_equal(fit.groups[0].rungs[M0].extrapolation.num, 0);
    fini(&records, &fit);

    /* no skew: M1 and M2 are one, sizes are held out, 3 clusters are too few for a choice */
    planted_law(EP_PLANTED_M2, 1, &planted);
    planted.skews = one_skew;
    fit_planted(&planted, 50, &records, &fit);
    assert_ptr_equal(fit.groups[0].rungs[M2].same_as, ep_rung_at(M1));
    assert_string_equal(fit.groups[0].fold_kind, "size");
    assert_int_equal(fit.groups[0].num_folds, 3);
    assert_int_equal(fit.groups[0].chosen, -1);
    assert_true(isnan(find_parameter(&fit.groups[0].rungs[M0], "B")->low));
    fini(&records, &fit);

    /* one skew and one size: nothing to hold out */
    planted.tokens = one_size;
    fit_planted(&planted, 50, &records, &fit);
    assert_string_equal(fit.groups[0].fold_kind, "none");
    assert_int_equal(fit.groups[0].rungs[M0].held_out.num, 0);
    assert_int_equal(fit.groups[0].chosen, -1);
    fini(&records, &fit);

    /* a latency far below the noise: its interval says so, and B stands */
    planted_law(EP_PLANTED_M2, 1, &planted);
    planted.latency_s = 4e-6;
    planted.message_s = 1e-9;
    fit_planted(&planted, 200, &records, &fit);
    assert_non_null(strstr(find_parameter(&fit.groups[0].rungs[M2], "l+a*n")->withheld, "+-50 %"));
    assert_null(find_parameter(&fit.groups[0].rungs[M2], "B")->withheld);
    fini(&records, &fit);

    /* no latency at all, and large messages dearer per byte, as caches make them: a stays at 0 */
    planted_law(EP_PLANTED_M2, 1, &planted);
    planted.latency_s = 0;
    planted.message_s = 0;
    CHECK_OK(ep_planted_make(&planted, &records));
    for (int64_t i = 0; i < records.num; i++) {
        struct ep_record *r = &records.items[i];
        r->phases.items[2].median_s *= r->tokens > 1024 ? 2 : 1;
    }
    ep_fit_options_default(&options);
    CHECK_OK(ep_fit_records(&records, &options, &fit));
    assert_non_null(strstr(find_parameter(&fit.groups[0].rungs[M2], "l+a*n")->withheld,
                           "lower limit"));
    fini(&records, &fit);

    /* more than the memory can copy */
    planted_law(EP_PLANTED_M2, 1, &planted);
    planted.others = true;
    CHECK_OK(ep_planted_make(&planted, &records));
    ep_fit_options_default(&options);
    options.peak_bytes_per_s = 7e9;
    CHECK_OK(ep_fit_records(&records, &options, &fit));
    assert_non_null(strstr(find_parameter(&fit.groups[0].rungs[M2], "B")->withheld, "physical"));
    assert_true(isnan(find_parameter(&fit.groups[0].rungs[M2], "B")->value));
    ep_fit_fini(&fit);
    options.peak_bytes_per_s = 9e9;
    CHECK_OK(ep_fit_records(&records, &options, &fit));
    assert_null(find_parameter(&fit.groups[0].rungs[M2], "B")->withheld);
    ep_fit_fini(&fit);

    /* Copies recorded: payload at 30 GB/s below 1 MiB, at 12 GB/s beyond. The largest case is beyond, so
     * 12 GB/s it is; and at 7 GB/s the planted 8 GB/s is too much, whatever the caches do. */
    ep_fit_options_default(&options);
    CHECK_OK(ep_fit_records(&records, &options, &fit));
    CHECK_NEAR(fit.groups[0].peak_bytes_per_s, 12e9, 1.5e9); /* the fastest sample of a few */
    assert_null(find_parameter(&fit.groups[0].rungs[M2], "B")->withheld);
    ep_fit_fini(&fit);
    for (int64_t i = 0; i < records.num; i++) {
        struct ep_record *r = &records.items[i];
        if (r->kind == EP_RECORD_KERNELS && strcmp(r->kernel, "copy") == 0 &&
            r->working_set_bytes >= 1 << 20) {
            r->min_s *= 12.0 / 7;
        }
    }
    CHECK_OK(ep_fit_records(&records, &options, &fit));
    assert_non_null(strstr(find_parameter(&fit.groups[0].rungs[M2], "B")->withheld, "physical"));
    fini(&records, &fit);
}

static void test_folds(void **state)
{
    (void)state;
    struct ep_planted planted;
    struct ep_records records;
    struct ep_fit fit;
    ep_planted_default(&planted);
    planted.num_visits = 3;
    CHECK_OK(ep_planted_make(&planted, &records));
    CHECK_OK(ep_fit_group_records(&records, &fit));
    int64_t num_records = 0;
    assert_int_equal(fit.num_groups, 8);
    assert_string_equal(fit.groups[4].target, "whole");
    for (int64_t i = 0; i < 4; i++) {
        const struct ep_fit_group *g = &fit.groups[i];
        assert_string_equal(g->fold_kind, "skew");
        assert_int_equal(g->num_folds, 6);
        assert_int_equal(g->num_clusters, 18);
        for (int64_t a = 0; a < g->num_cases; a++) {
            num_records += g->cases[a].num_visits;
            for (int64_t b = 0; b < a; b++) {
                /* no case twice, so its visits share a fold; and a fold is a skew */
                assert_string_not_equal(g->cases[a].case_name, g->cases[b].case_name);
                assert_int_equal(g->cases[a].fold == g->cases[b].fold,
                                 strcmp(g->cases[a].skew, g->cases[b].skew) == 0);
                assert_int_equal(g->cases[a].cluster == g->cases[b].cluster,
                                 strcmp(g->cases[a].skew, g->cases[b].skew) == 0 &&
                                     g->cases[a].size_class == g->cases[b].size_class);
            }
        }
    }
    assert_int_equal(num_records, records.num);
    assert_string_equal(ep_fit_find_group(&fit, &records.items[0])->name,
                        "dispatch alltoallv pairwise");
    fini(&records, &fit);
}

static void set_exchange(struct ep_record *r, double time_s)
{
    for (int64_t i = 0; i < r->phases.num; i++) {
        if (strcmp(r->phases.items[i].name, "exchange") == 0) {
            r->phases.items[i].median_s = time_s;
        }
    }
}

static void test_pooling(void **state)
{
    (void)state;
    static const int64_t one_size[] = {1024, 0}, one_k[] = {2, 0};
    static const char *const one_skew[] = {"uniform", NULL};
    struct ep_planted planted;
    struct ep_records records;
    struct ep_fit fit;
    ep_planted_default(&planted);
    planted.transports = one_transport;
    planted.skews = one_skew;
    planted.tokens = one_size;
    planted.top_ks = one_k;
    planted.num_visits = 4;
    CHECK_OK(ep_planted_make(&planted, &records));
    /* dispatch, one case: two visits in each of two launches */
    const double times[] = {1.0, 1.1, 1.3, 1.2};
    for (int i = 0; i < 4; i++) {
        set_exchange(&records.items[i], times[i]);
        records.items[i].launch_idx = i / 2;
    }
    CHECK_OK(ep_fit_group_records(&records, &fit));
    const struct ep_fit_group *g = &fit.groups[1];
    assert_string_equal(g->name, "dispatch alltoallv pairwise");
    assert_int_equal(g->num_cases, 1);
    assert_int_equal(g->cases[0].num_visits, 4);
    CHECK_NEAR(g->cases[0].time_s, 1.15, 1e-12); /* the median of the four */
    /* ln(1.1/1.0) = 0.095310, ln(1.3/1.2) = 0.080043; mean 0.087677 */
    CHECK_NEAR(g->noise_floor, 0.0876765, 1e-6);
    /* launches' medians 1.05 and 1.25: ln(1.25/1.05) = 0.174353 */
    CHECK_NEAR(g->launch_noise_floor, 0.174353, 1e-6);
    ep_fit_fini(&fit);

    /* one record without phases: the whole is fitted, for all of the group */
    records.items[0].phases.items[2].name[0] = 'x';
    CHECK_OK(ep_fit_group_records(&records, &fit));
    assert_string_equal(fit.groups[1].target, "whole");
    assert_string_equal(fit.groups[0].target, "exchange");
    ep_fit_fini(&fit);
    records.items[0].phases.items[2].name[0] = 'e';

    /* other pages are another group, and the names say so */
    CHECK_OK(ep_record_set_text(&records.items[3].pages, "4k"));
    CHECK_OK(ep_record_set_text(&records.items[3].case_name, "other"));
    CHECK_OK(ep_fit_group_records(&records, &fit));
    assert_int_equal(fit.num_groups, 6);
    assert_non_null(strstr(fit.groups[1].name, "pages=4k"));
    assert_non_null(strstr(fit.groups[4].name, "pages=4k"));
    assert_non_null(strstr(fit.groups[4].name, ", whole"));
    assert_non_null(strstr(fit.groups[2].name, "pages=thp"));
    fini(&records, &fit);
}

static void test_refused(void **state)
{
    (void)state;
    struct ep_planted planted;
    struct ep_records records;
    struct ep_fit fit;
    ep_planted_default(&planted);
    CHECK_OK(ep_planted_make(&planted, &records));
    struct ep_record *r = &records.items[1];

    CHECK_OK(ep_record_set_text(&r->host, "elsewhere"));
    CHECK_FAILS(ep_fit_group_records(&records, &fit), EP_EINVAL, "'elsewhere'");
    CHECK_OK(ep_record_set_text(&r->host, "planted"));

    r->h_rank_bytes++;
    CHECK_FAILS(ep_fit_group_records(&records, &fit), EP_EINVAL, "h_rank_bytes");
    r->h_rank_bytes = EP_RECORD_ABSENT;
    CHECK_FAILS(ep_fit_group_records(&records, &fit), EP_EINVAL, "'h_rank_bytes' is absent");
    r->h_rank_bytes = records.items[0].h_rank_bytes;

    r->tokens++;
    CHECK_FAILS(ep_fit_group_records(&records, &fit), EP_EINVAL, "tokens");
    r->tokens--;

    r->verified = 0;
    CHECK_OK(ep_fit_group_records(&records, &fit));
    assert_non_null(strstr(fit.notes.items[0].text, "1 records whose check failed"));
    ep_fit_fini(&fit);

    for (int64_t i = 0; i < records.num; i++) {
        records.items[i].verified = 0;
    }
    CHECK_FAILS(ep_fit_group_records(&records, &fit), EP_EINVAL, "no comm records");
    /* links alone are enough for the levels of machine.json */
    records.items[0].kind = EP_RECORD_LINKS;
    CHECK_OK(ep_fit_group_records(&records, &fit));
    assert_int_equal(fit.num_groups, 0);
    assert_string_equal(fit.notes.items[1].name, "no-comm");
    ep_fit_fini(&fit);
    records.items[0].kind = EP_RECORD_COMM;
    ep_records_fini(&records);
}

static void test_score(void **state)
{
    (void)state;
    const struct ep_fit_case cases[4] = {
        {.time_s = 1}, {.time_s = 2}, {.time_s = 4}, {.time_s = 1}};
    struct ep_fit_scores scores;
    /* errors 0.1, 0.2, 0; the fourth has no prediction. p95 = 0.1 + 0.9 * 0.1 */
    CHECK_OK(ep_fit_score(cases, 4, (double[]){1.1, 1.6, 4, NAN}, &scores));
    assert_int_equal(scores.num, 3);
    CHECK_NEAR(scores.median_ape, 0.1, 1e-12);
    CHECK_NEAR(scores.p95_ape, 0.19, 1e-12);
    CHECK_NEAR(scores.max_ape, 0.2, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonnegative),       cmocka_unit_test(test_relative_start),
        cmocka_unit_test(test_outlier),           cmocka_unit_test(test_beside_gsl),
        cmocka_unit_test(test_condition),         cmocka_unit_test(test_expanded_tail),
        cmocka_unit_test(test_rungs_by_hand),     cmocka_unit_test(test_anchors_by_hand),
        cmocka_unit_test(test_schedule_by_hand),  cmocka_unit_test(test_fluid_by_hand),
        cmocka_unit_test(test_tiny_fit),
        cmocka_unit_test(test_planted_recovered), cmocka_unit_test(test_intervals_and_choice),
        cmocka_unit_test(test_many_rank_counts),  cmocka_unit_test(test_gates),
        cmocka_unit_test(test_folds),             cmocka_unit_test(test_pooling),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_score),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
