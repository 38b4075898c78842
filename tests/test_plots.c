/* SPDX-License-Identifier: Apache-2.0 */
/* Figures: texts made harmless, data against numbers worked by hand, reasons for what is not drawn. */
#include "tests/check.h"
#include "tests/planted.h"

#include "base/embedded.h"
#include "plots/figure_data.h"
#include "plots/figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* --- sheets ----------------------------------------------------------------------------------- */

static void test_texts(void **state)
{
    (void)state;
    struct ep_sheet sheet;
    CHECK_OK(ep_sheet_init(&sheet));
    ep_sheet_put_header(&sheet, "name time_s");
    ep_sheet_put_text(&sheet, "a\tb\n\"c\"");
    ep_sheet_put_number(&sheet, 0.25);
    ep_sheet_end_row(&sheet);
    ep_sheet_put_text(&sheet, NULL);
    ep_sheet_put_number(&sheet, NAN);
    ep_sheet_end_row(&sheet);
    ep_sheet_define(&sheet, "x", "it's `date` $(x) \\ %s", "a]]>b\x01\xc3\xa9");
    ep_sheet_define(&sheet, "y", "%.4s|%s", "abc\xc3\xa9", "\xef\xbf\xbf");
    CHECK_OK(ep_sheet_close(&sheet));
    assert_string_equal(sheet.tsv, "name\ttime_s\na b 'c'\t0.25\n\t\n");
    /* a quote doubled; a control, what ends CDATA, half an e-acute and U+FFFF become blanks */
    assert_string_equal(sheet.texts, "x = 'it''s `date` $(x) \\ a]] b \xc3\xa9'\n"
                                     "y = 'abc |   '\n");
    ep_sheet_fini(&sheet);
}

static void test_lines(void **state)
{
    (void)state;
    struct ep_sheet sheet;
    CHECK_OK(ep_sheet_init(&sheet));
    /* 10 characters a line; e-acute is one; a word of 12 is cut; the break that is asked for stays */
    ep_sheet_define_lines(&sheet, "s", 10, "%s", "four \xc3\xa9t\xc3\xa9 six abcdefghijkl\nend");
    CHECK_OK(ep_sheet_close(&sheet));
    assert_string_equal(sheet.texts, "array s[5]\ns[1] = 'four \xc3\xa9t\xc3\xa9'\ns[2] = 'six'\n"
                                     "s[3] = 'abcdefghij'\ns[4] = 'kl'\n"
                                     "s[5] = 'end'\n");
    ep_sheet_fini(&sheet);
}

static void test_ticks(void **state)
{
    (void)state;
    /* 1 KiB to 16 KiB are 4 doublings, 1 KiB to 1 MiB 10 (so every second), 4 B to 4 GiB 30 (every 6th) */
    CHECK_NEAR(ep_figure_tick_step(1024, 16384), 2, 0);
    CHECK_NEAR(ep_figure_tick_step(1024, 1048576), 4, 0);
    CHECK_NEAR(ep_figure_tick_step(4, 4294967296.0), 64, 0);
}

/* --- data ------------------------------------------------------------------------------------- */

struct scene {
    struct ep_run run;
    struct ep_records records;
    struct ep_fit fit;
    struct ep_figure_input input;
};

/* Planted without noise: exchange = 20 us + 3 messages x 1 us + H / 8 GB/s on 4 ranks. */
static void make_scene(bool others, struct scene *scene)
{
    struct ep_planted planted;
    struct ep_fit_options options;
    *scene = (struct scene){.records = {0}};
    ep_planted_default(&planted);
    planted.noise = 0;
    planted.sample_noise = 0;
    planted.others = others;
    ep_run_init(&scene->run);
    CHECK_OK(ep_planted_make(&planted, &scene->records));
    ep_fit_options_default(&options);
    CHECK_OK(ep_fit_records(&scene->records, &options, &scene->fit));
    scene->input = (struct ep_figure_input){&scene->run, &scene->records, &scene->fit};
}

static void free_scene(struct scene *scene)
{
    ep_fit_fini(&scene->fit);
    ep_records_fini(&scene->records);
    ep_run_fini(&scene->run);
}

/* The figure's sheet, closed, of the row of ep_figures with that name. */
static void fill(const struct ep_figure_input *input, const char *name, struct ep_sheet *sheet)
{
    for (const struct ep_figure *f = ep_figures; f->name != NULL; f++) {
        if (strcmp(f->name, name) == 0) {
            CHECK_OK(ep_sheet_init(sheet));
            CHECK_OK(f->fill(input, sheet));
            CHECK_OK(ep_sheet_close(sheet));
            return;
        }
    }
    fail_msg("no figure %s", name);
}

/* Column of `name` in the header; cells from 0. */
static int find_column(const struct ep_sheet *sheet, const char *name)
{
    int column = 0;
    for (const char *p = sheet->tsv; *p != '\n'; column++) {
        const size_t length = strcspn(p, "\t\n");
        if (strlen(name) == length && strncmp(p, name, length) == 0) {
            return column;
        }
        p += length + (p[length] == '\t');
    }
    fail_msg("no column %s", name);
    return -1;
}

/* The number in a row (1 = first below the header); NaN where the cell is empty. */
static double number_at(const struct ep_sheet *sheet, int row, const char *name)
{
    const char *p = sheet->tsv;
    for (int i = 0; i < row; i++) {
        p = strchr(p, '\n') + 1;
        assert_true(*p != '\0');
    }
    for (int i = find_column(sheet, name); i > 0; i--) {
        p = strchr(p, '\t') + 1;
    }
    return *p == '\t' || *p == '\n' ? NAN : atof(p);
}

static int num_rows(const struct ep_sheet *sheet)
{
    int num = -1;
    for (const char *p = sheet->tsv; *p != '\0'; p++) {
        num += *p == '\n';
    }
    return num;
}

static void test_bandwidth_size(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(false, &scene);
    fill(&scene.input, "bandwidth_size", &sheet);
    /* uniform: 3 sizes x 2 top-k x 2 transports */
    assert_int_equal(num_rows(&sheet), 12);
    /* Smallest: 128 tokens, top-k 2, copies: 128 * 2 / 4 = 64 rows of 2048 B to each of 3 ranks
     * = 393216 B in 23 us + 49.152 us = 72.152 us: 5.44983 GB/s */
    CHECK_NEAR(number_at(&sheet, 1, "h_rank_bytes"), 393216, 0);
    CHECK_NEAR(number_at(&sheet, 1, "time_s"), 72.152e-6, 1e-12);
    CHECK_NEAR(number_at(&sheet, 1, "bw_bytes_per_s"), 5.44983e9, 1e4);
    CHECK_NEAR(number_at(&sheet, 1, "series"), 1, 0);
    CHECK_NEAR(number_at(&sheet, 12, "series"), 2, 0);
    assert_non_null(strstr(sheet.texts, "ep_series[1] = 'alltoallv, pairwise (bytes: copies)'"));
    assert_non_null(strstr(sheet.texts, "(bytes: rank-dedup)"));
    for (int i = 2; i <= 6; i++) { /* along a line bytes grow */
        assert_true(number_at(&sheet, i, "h_rank_bytes") >= number_at(&sheet, i - 1, "h_rank_bytes"));
    }
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

static void test_skew(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(false, &scene);
    fill(&scene.input, "time_skew", &sheet);
    /* 6 skews x 2 top-k x 2 transports, at the largest size */
    assert_int_equal(num_rows(&sheet), 24);
    /* First: copies, top-k 2, uniform: 8192 * 2 / 4 = 4096 rows to each of 3 ranks = 25165824 B:
     * 23 us + 3145.728 us. M2 was planted, so it is chosen and exact. */
    CHECK_NEAR(number_at(&sheet, 1, "time_s"), 3168.728e-6, 1e-11);
    CHECK_NEAR(number_at(&sheet, 1, "chosen_s"), 3168.728e-6, 1e-9);
    CHECK_NEAR(number_at(&sheet, 1, "bw_bytes_per_s"), 25165824 / 3168.728e-6, 1e3);
    CHECK_NEAR(number_at(&sheet, 1, "skew_achieved"), 1, 1e-12);
    double first_m0_s = number_at(&sheet, 1, "m0_s");
    for (int i = 1; i <= 6; i++) {
        /* skews in the order of imbalance, time with it; M0 does not see it: a rank keeps its own
         * share p of what it sends, and remote = sum of 1 - p = P - 1 whatever the shares */
        CHECK_NEAR(number_at(&sheet, i, "skew_idx"), i, 0);
        CHECK_NEAR(number_at(&sheet, i, "m0_s"), first_m0_s, 1e-3 * first_m0_s);
        assert_true(i == 1 || number_at(&sheet, i, "time_s") > number_at(&sheet, i - 1, "time_s"));
        CHECK_NEAR(number_at(&sheet, i, "chosen_s"), number_at(&sheet, i, "time_s"), 1e-8);
    }
    assert_non_null(strstr(sheet.texts, "ep_skew[1] = 'uniform (1.00)'"));
    /* one axis for all panels: the largest of what any of them draws */
    double most_s = 0;
    static const char *const drawn[] = {"time_s", "low_s", "high_s", "m0_s", "chosen_s"};
    for (int64_t row = 1; row <= 24; row++) {
        for (size_t i = 0; i < sizeof drawn / sizeof drawn[0]; i++) {
            most_s = fmax(most_s, number_at(&sheet, row, drawn[i]));
        }
    }
    double y_most = 0, y_scale = 0;
    assert_int_equal(sscanf(strstr(sheet.texts, "ep_y_most = "), "ep_y_most = %lf", &y_most), 1);
    assert_int_equal(sscanf(strstr(sheet.texts, "ep_y_scale = "), "ep_y_scale = %lf", &y_scale), 1);
    CHECK_NEAR(y_most, most_s * y_scale, 1e-6 * y_most);
    assert_non_null(strstr(sheet.texts, "M2 chosen'"));
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

/* alltoallv's two operations under each skew against the combine of an all-reduce, which is what the
 * dedup cases become here. */
static void test_against(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(true, &scene);
    fill(&scene.input, "against", &sheet);
    assert_non_null(strstr(sheet.reason, "allreduce"));
    ep_sheet_fini(&sheet);

    struct ep_fit_options options;
    ep_fit_options_default(&options);
    for (int64_t i = 0; i < scene.records.num; i++) {
        struct ep_record *r = &scene.records.items[i];
        if (r->transport != NULL && strcmp(r->transport, "alltoallv-dedup") == 0) {
            CHECK_OK(ep_record_set_text(&r->transport, "allreduce"));
        }
    }
    ep_fit_fini(&scene.fit);
    CHECK_OK(ep_fit_records(&scene.records, &options, &scene.fit));
    fill(&scene.input, "against", &sheet);
    assert_string_equal(sheet.reason, "");
    /* 6 skews and the all-reduce, at 2 top-k */
    assert_int_equal(num_rows(&sheet), 14);
    /* uniform, top-k 2 (as in time_skew): 23 us + 3145.728 us each way, 2 x 25165824 B */
    CHECK_NEAR(number_at(&sheet, 1, "time_s"), 2 * 3168.728e-6, 1e-11);
    CHECK_NEAR(number_at(&sheet, 1, "port_bytes"), 2 * 25165824.0, 0);
    /* the fastest point is its own bound */
    double least = INFINITY;
    for (int i = 1; i <= 14; i++) {
        least = fmin(least, number_at(&sheet, i, "congestion"));
    }
    CHECK_NEAR(least, 1, 1e-9);
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

/* A sweep of two dtypes: what a header says of one must not hold for half of the points. */
static void test_alike(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(false, &scene);
    for (int64_t i = 0; i < scene.records.num; i++) {
        if (scene.records.items[i].top_k == 4) {
            CHECK_OK(ep_record_set_text(&scene.records.items[i].dtype, "fp16"));
        }
    }
    /* One top-k of two is left: half the rows above, but for phases, which show one anyway;
     * as many of each, so the first stays. */
    static const struct {
        const char *name;
        int num_rows;
    } figures[] = {{"bandwidth_size", 6}, {"time_skew", 12}, {"phases", 24}};
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        fill(&scene.input, figures[i].name, &sheet);
        assert_int_equal(num_rows(&sheet), figures[i].num_rows);
        CHECK_NEAR(i == 2 ? 2 : number_at(&sheet, figures[i].num_rows, "top_k"), 2, 0);
        assert_non_null(strstr(sheet.texts, "bf16"));
        assert_null(strstr(sheet.texts, "fp16"));
        ep_sheet_fini(&sheet);
    }
    const struct ep_record *reference = ep_figure_reference(&scene.input);
    struct ep_record other = *reference;
    assert_int_equal(reference->top_k, 2);
    assert_true(ep_figure_is_alike(reference, &other));
    other.experts += 1;
    assert_false(ep_figure_is_alike(reference, &other));
    other.skew = (char *)"trace:sample"; /* brings its own */
    assert_true(ep_figure_is_alike(reference, &other));
    other.hidden += 1;
    assert_false(ep_figure_is_alike(reference, &other));
    free_scene(&scene);
}

static void test_predictions(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(false, &scene);
    fill(&scene.input, "predicted_measured", &sheet);
    /* M0, M1 and M2 over 6 skews x 2 top-k x 3 sizes x 2 transports x 2 ops = 144 cases each */
    assert_int_equal(num_rows(&sheet), 3 * 144);
    assert_non_null(strstr(sheet.texts, "chosen rung: median error 0.0 % (4 M2)"));
    CHECK_NEAR(number_at(&sheet, 1, "chosen"), 0, 0);
    for (int i = 2 * 144 + 1; i <= 3 * 144; i++) {
        CHECK_NEAR(number_at(&sheet, i, "held_out"), 1, 0);
        CHECK_NEAR(number_at(&sheet, i, "chosen"), 1, 0);
        CHECK_NEAR(number_at(&sheet, i, "predicted_s"), number_at(&sheet, i, "measured_s"), 1e-8);
    }
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

static void test_phases(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(false, &scene);
    fill(&scene.input, "phases", &sheet);
    /* 3 sizes x 2 transports, 4 phases each */
    assert_int_equal(num_rows(&sheet), 24);
    /* First bar: 128 tokens, the larger top-k 4, copies: exchange 23 us + 786432 B / 8 GB/s = 121.304 us;
     * pack and unpack read and write 128 * 4 rows, 2 x 1 MiB at 12 GB/s = 174.763 us each; counts 5 us.
     * 121.304 / 475.829 = 0.254932 */
    CHECK_NEAR(number_at(&sheet, 3, "share"), 0.254932, 2e-6);
    for (int i = 1; i <= 6; i++) {
        CHECK_NEAR(number_at(&sheet, 4 * i, "share_upto"), 1, 1e-12);
    }
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

/* Rows 13 to 19. It bends where m * 4194304 flops at 250 Gflop/s take as long as 4194304 + 6144 m bytes at
 * 25 GB/s: m (25e9 * 4194304 - 250e9 * 6144) = 250e9 * 4194304, m = 10.14866; between 4 and 16. */
static void check_roof(const struct ep_sheet *sheet)
{
    CHECK_NEAR(number_at(sheet, 13, "roofline_flops_per_s"), 24.9634e9, 1e5);
    CHECK_NEAR(number_at(sheet, 14, "tokens_per_expert"), 4, 0);
    CHECK_NEAR(number_at(sheet, 15, "tokens_per_expert"), 10.14866, 1e-4);
    CHECK_NEAR(number_at(sheet, 15, "roofline_flops_per_s"), 250e9, 1e3);
    CHECK_NEAR(number_at(sheet, 16, "tokens_per_expert"), 16, 0);
    CHECK_NEAR(number_at(sheet, 19, "roofline_flops_per_s"), 250e9, 1e3);
}

/* Records of `epbench kernels` state no bound: the roofline is then of the peaks measured apart. */
static void test_roof_apart(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(true, &scene);
    for (int64_t i = 0; i < scene.records.num; i++) {
        scene.records.items[i].bound_s = NAN;
    }
    fill(&scene.input, "gemm_rate", &sheet);
    assert_int_equal(num_rows(&sheet), 19);
    check_roof(&sheet); /* read at the largest working set, 25 GB/s, not the 90 GB/s of caches */
    ep_sheet_fini(&sheet);
    for (int64_t i = 0; i < scene.records.num; i++) { /* a peak of other ranks is none of theirs */
        struct ep_record *r = &scene.records.items[i];
        r->ranks_active = r->kernel != NULL && strcmp(r->kernel, "fma") == 0 ? 2 : r->ranks_active;
    }
    fill(&scene.input, "gemm_rate", &sheet);
    assert_int_equal(num_rows(&sheet), 12);
    assert_non_null(strstr(sheet.texts, "ep_num_roofs = 0"));
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

static void test_gemm(void **state)
{
    (void)state;
    struct scene scene;
    struct ep_sheet sheet;
    make_scene(true, &scene);
    fill(&scene.input, "gemm_rate", &sheet);
    /* 2 back ends and one roofline over m = 1, 4, 16, 64, 256, 1024, and where it bends */
    assert_int_equal(num_rows(&sheet), 19);
    /* m = 1: 2 * 2048 * 1024 = 4194304 flops; 2 (1024 + 2097152 + 2048) = 4200448 B at 25 GB/s
     * = 168.01792 us, and 1.1 times that was planted: 22.6940 Gflop/s under 24.9634 */
    CHECK_NEAR(number_at(&sheet, 1, "flops_per_s"), 22.6940e9, 1e5);
    CHECK_NEAR(number_at(&sheet, 13, "roofline_flops_per_s"), 24.9634e9, 1e5);
    assert_true(isnan(number_at(&sheet, 1, "roofline_flops_per_s")));
    assert_true(isnan(number_at(&sheet, 13, "flops_per_s")));
    check_roof(&sheet);
    /* m = 1024: the planted peak, 250 Gflop/s */
    CHECK_NEAR(number_at(&sheet, 19, "roofline_flops_per_s"), 250e9, 1e3);
    ep_sheet_fini(&sheet);
    fill(&scene.input, "links", &sheet);
    assert_int_equal(num_rows(&sheet), 22);
    ep_sheet_fini(&sheet);
    free_scene(&scene);
}

/* --- what cannot be drawn --------------------------------------------------------------------- */

static void test_reasons(void **state)
{
    (void)state;
    struct ep_run run;
    struct ep_records none = {0};
    const struct ep_fit no_fit = {0};
    ep_run_init(&run);
    const struct ep_figure_input inputs[] = {{&run, &none, NULL}, {&run, &none, &no_fit}};
    for (size_t i = 0; i < 2; i++) {
        for (const struct ep_figure *f = ep_figures; f->name != NULL; f++) {
            struct ep_sheet sheet;
            CHECK_OK(ep_sheet_init(&sheet));
            CHECK_OK(f->fill(&inputs[i], &sheet));
            CHECK_OK(ep_sheet_close(&sheet));
            if (sheet.reason[0] == '\0') {
                fail_msg("%s says nothing about records that hold nothing", f->name);
            }
            ep_sheet_fini(&sheet);
        }
    }
    ep_run_fini(&run);
}

static void test_table(void **state)
{
    (void)state;
    for (const struct ep_figure *f = ep_figures; f->name != NULL; f++) {
        assert_true(strspn(f->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(f->name));
        assert_true(f->title[0] != '\0' && f->caption[0] != '\0' && f->fill != NULL);
        assert_non_null(ep_embedded_find(f->script));
        for (const struct ep_figure *g = ep_figures; g < f; g++) {
            assert_string_not_equal(f->name, g->name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),       cmocka_unit_test(test_lines),
        cmocka_unit_test(test_ticks),       cmocka_unit_test(test_bandwidth_size),
        cmocka_unit_test(test_skew),
        cmocka_unit_test(test_against),
        cmocka_unit_test(test_alike),        cmocka_unit_test(test_predictions),
        cmocka_unit_test(test_phases),      cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_roof_apart),
        cmocka_unit_test(test_reasons),     cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
