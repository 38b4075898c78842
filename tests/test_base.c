/* SPDX-License-Identifier: Apache-2.0 */
/* base/: units, statistics, random numbers, CSV, JSON, options, files. */
#include "tests/check.h"

#include "base/csv.h"
#include "base/file.h"
#include "base/json.h"
#include "base/options.h"
#include "base/random.h"
#include "base/stats.h"
#include "base/units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_numbers(void **state)
{
    (void)state;
    int64_t i = 0;
    double d = 0;
    CHECK_OK(ep_parse_i64("-12", "--x", -20, 20, &i));
    assert_int_equal(i, -12);
    CHECK_FAILS(ep_parse_i64("12x", "--x", 0, 20, &i), EP_EINVAL, "--x: '12x'");
    CHECK_FAILS(ep_parse_i64("", "--x", 0, 20, &i), EP_EINVAL, "not a whole number");
    CHECK_FAILS(ep_parse_i64("99999999999999999999", "--x", 0, INT64_MAX, &i), EP_EINVAL,
                "outside");
    CHECK_FAILS(ep_parse_i64("21", "--x", 0, 20, &i), EP_EINVAL, "0 to 20");
    assert_int_equal(i, -12);
    CHECK_OK(ep_parse_f64("1.5e2", "--x", 0, 1e3, &d));
    CHECK_NEAR(d, 150, 0);
    CHECK_FAILS(ep_parse_f64("nan", "--x", 0, 1, &d), EP_EINVAL, "not a number");
    CHECK_FAILS(ep_parse_f64("inf", "--x", 0, 1, &d), EP_EINVAL, "not a number");
    CHECK_FAILS(ep_parse_f64("1e999", "--x", 0, 1, &d), EP_EINVAL, "too large");
    CHECK_FAILS(ep_parse_f64("0x10", "--x", 0, 100, &d), EP_EINVAL, "not a number");
}

static void test_units(void **state)
{
    (void)state;
    int64_t bytes = 0;
    double bw = 0;
    double time_s = 0;
    CHECK_OK(ep_parse_size("64K", "-b", &bytes));
    assert_int_equal(bytes, 65536);
    CHECK_OK(ep_parse_size("64KB", "-b", &bytes));
    assert_int_equal(bytes, 64000);
    CHECK_OK(ep_parse_size("1.5MiB", "-b", &bytes));
    assert_int_equal(bytes, 1572864);
    CHECK_FAILS(ep_parse_size("64Q", "-b", &bytes), EP_EINVAL, "unknown unit 'Q'");
    CHECK_FAILS(ep_parse_size("0.3", "-b", &bytes), EP_EINVAL, "whole number of bytes");
    CHECK_FAILS(ep_parse_size("-1K", "-b", &bytes), EP_EINVAL, "negative");
    /* 400 Gb/s = 400e9 / 8 bytes a second */
    CHECK_OK(ep_parse_bandwidth("400Gb/s", "--bandwidth", &bw));
    CHECK_NEAR(bw, 50e9, 0);
    CHECK_OK(ep_parse_bandwidth("50GB/s", "--bandwidth", &bw));
    CHECK_NEAR(bw, 50e9, 0);
    CHECK_FAILS(ep_parse_bandwidth("400", "--bandwidth", &bw), EP_EINVAL, "has no unit");
    CHECK_FAILS(ep_parse_bandwidth("0GB/s", "--bandwidth", &bw), EP_EINVAL, "above 0");
    CHECK_OK(ep_parse_time("250ms", "--time", &time_s));
    CHECK_NEAR(time_s, 0.25, 1e-15);
    CHECK_FAILS(ep_parse_time("3", "--time", &time_s), EP_EINVAL, "has no unit");
    CHECK_FAILS(ep_parse_time("1e308h", "--time", &time_s), EP_EINVAL, "more than 1e9 s");

    char text[32];
    assert_string_equal(ep_format_bytes(1536, text, sizeof text), "1.50 KiB");
    assert_string_equal(ep_format_time(2.5e-6, text, sizeof text), "2.500 us");
    assert_string_equal(ep_format_bandwidth(12.34e9, text, sizeof text), "12.34 GB/s");
    assert_string_equal(ep_format_bandwidth(NAN, text, sizeof text), "-");
}

static void test_lists(void **state)
{
    (void)state;
    struct ep_list list = {0};
    CHECK_OK(ep_list_split("a,bc,d", ',', "--x", &list));
    assert_int_equal(list.num, 3);
    assert_string_equal(list.items[1], "bc");
    ep_list_fini(&list);
    CHECK_FAILS(ep_list_split("a,,d", ',', "--x", &list), EP_EINVAL, "item 2");
    CHECK_FAILS(ep_list_split("", ',', "--x", &list), EP_EINVAL, "item 1");
}

static void test_summary(void **state)
{
    (void)state;
    struct ep_summary s;
    /* 1..10: median 5.5; P(Bin(10,1/2) <= 1) = 11/1024, so x(2), x(9) cover 1 - 22/1024 = 0.979
     * and x(3), x(8) only 1 - 2 * 56/1024 = 0.891. Deviations .5 .5 1.5 1.5 ... -> MAD 2.5. */
    const double ten[] = {3, 1, 2, 10, 9, 8, 7, 4, 5, 6};
    CHECK_OK(ep_stats_summarize(ten, 10, &s));
    CHECK_NEAR(s.median, 5.5, 0);
    CHECK_NEAR(s.low, 2, 0);
    CHECK_NEAR(s.high, 9, 0);
    CHECK_NEAR(s.mad, 2.5, 0);
    CHECK_NEAR(s.min, 1, 0);
    CHECK_NEAR(s.max, 10, 0);
    assert_true(isnan(s.p99));
    /* five values cannot reach 95 %: x(1), x(5) cover 1 - 2/32 = 0.9375 */
    CHECK_OK(ep_stats_summarize(ten, 5, &s));
    assert_true(isnan(s.low) && isnan(s.high));
    /* six can: 1 - 2/64 = 0.969 */
    CHECK_OK(ep_stats_summarize(ten, 6, &s));
    CHECK_NEAR(s.low, 1, 0);
    CHECK_NEAR(s.high, 10, 0);
    const double constant[] = {4, 4, 4, 4};
    CHECK_OK(ep_stats_summarize(constant, 4, &s));
    assert_true(isnan(s.lag1));
    /* alternating values are as anticorrelated as can be */
    const double alternating[] = {1, 2, 1, 2, 1, 2, 1, 2, 1, 2};
    CHECK_OK(ep_stats_summarize(alternating, 10, &s));
    assert_true(s.lag1 < -0.8);
}

static void test_fastest(void **state)
{
    (void)state;
    /* Three loops in five rounds. The machine is three times as slow from the third on, and a round hits
     * the last loop alone. */
    double times[3][5] = {
        {1.05, 1.04, 3.15, 3.03, 3.12}, /* 1.05 1.04 1.05 1.01 1.04 of the second */
        {1.00, 1.00, 3.00, 3.00, 3.00},
        {1.06, 1.06, 3.18, 9.00, 3.18},
    };
    assert_int_equal(ep_stats_fastest(times[0], 3, 5, 0.01), 1);
    /* 0.5 % apart is a tie, and the last is taken; 5 % apart is none */
    double close[3][3] = {{1.000, 1.000, 1.000}, {1.005, 1.005, 1.005}, {1.050, 1.050, 1.050}};
    assert_int_equal(ep_stats_fastest(close[0], 3, 3, 0.01), 1);
    double one[1][1] = {{2}};
    assert_int_equal(ep_stats_fastest(one[0], 1, 1, 0.01), 0);
}

static void test_philox_golden(void **state)
{
    (void)state;
    /* Random123's kat_vectors, philox4x32 10 rounds: all zero, and all ones. */
    uint32_t words[4];
    ep_random_philox((const uint32_t[]){0, 0, 0, 0}, (const uint32_t[]){0, 0}, words);
    assert_int_equal(words[0], 0x6627e8d5);
    assert_int_equal(words[1], 0xe169c58d);
    assert_int_equal(words[2], 0xbc57ac4c);
    assert_int_equal(words[3], 0x9b00dbd8);
    const uint32_t f = 0xffffffff;
    ep_random_philox((const uint32_t[]){f, f, f, f}, (const uint32_t[]){f, f}, words);
    assert_int_equal(words[0], 0x408f276d);
    assert_int_equal(words[1], 0x41c83b0e);
    assert_int_equal(words[2], 0xa20bc7c6);
    assert_int_equal(words[3], 0x6d5451fd);
}

static void test_random_streams(void **state)
{
    (void)state;
    struct ep_random a;
    struct ep_random b;
    ep_random_init(&a, 7, EP_RANDOM_TEST, 3);
    ep_random_init(&b, 7, EP_RANDOM_TEST, 4);
    assert_int_not_equal(ep_random_u64(&a), ep_random_u64(&b));
    int64_t counts[3] = {0};
    for (int i = 0; i < 30000; i++) {
        counts[ep_random_below(&a, 3)]++;
    }
    for (int i = 0; i < 3; i++) { /* 10000 expected, sd 82 */
        assert_in_range(counts[i], 9600, 10400);
    }
    int64_t values[100];
    for (int i = 0; i < 100; i++) {
        values[i] = i;
    }
    ep_random_shuffle_i64(&a, values, 100);
    int64_t sum = 0;
    int64_t fixed = 0;
    for (int i = 0; i < 100; i++) {
        sum += values[i];
        fixed += values[i] == i;
    }
    assert_int_equal(sum, 4950);
    assert_true(fixed < 20);
}

/* Streams made together give the numbers of each stream alone, before and after what was made. */
static void test_random_lanes(void **state)
{
    (void)state;
    static const uint64_t firsts[] = {0, 5, 0xfffffffc, UINT64_C(0x1234567890)};
    for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
        for (int num_words = 0; num_words <= EP_RANDOM_WORDS; num_words += 3) {
            struct ep_random together[EP_RANDOM_LANES];
            ep_random_init_lanes(together, UINT64_C(0xfedcba9876543210), EP_RANDOM_TEST, firsts[f],
                                 num_words);
            for (int l = 0; l < EP_RANDOM_LANES; l++) {
                struct ep_random alone;
                ep_random_init(&alone, UINT64_C(0xfedcba9876543210), EP_RANDOM_TEST,
                               firsts[f] + (uint64_t)l);
                for (int w = 0; w < EP_RANDOM_WORDS + 6; w++) {
                    assert_int_equal(ep_random_u32(&together[l]), ep_random_u32(&alone));
                }
            }
        }
    }
}

static void test_csv(void **state)
{
    (void)state;
    struct ep_csv csv;
    int more = 0;
    int64_t value = 0;
    const char text[] = "token,\"e,0\"\r\n3,4\n5,\"6\"\n\n";
    CHECK_OK(ep_csv_init("t.csv", text, strlen(text), &csv));
    CHECK_OK(ep_csv_read_header(&csv));
    assert_int_equal(ep_csv_find_column(&csv, "e,0"), 1);
    CHECK_OK(ep_csv_next(&csv, &more));
    CHECK_OK(ep_csv_get_i64(&csv, 1, 0, 10, &value));
    assert_int_equal(value, 4);
    CHECK_FAILS(ep_csv_get_i64(&csv, 1, 0, 3, &value), EP_EINVAL, "t.csv:2: column 'e,0'");
    CHECK_OK(ep_csv_next(&csv, &more));
    CHECK_OK(ep_csv_get_i64(&csv, 1, 0, 10, &value));
    assert_int_equal(value, 6);
    CHECK_OK(ep_csv_next(&csv, &more));
    assert_int_equal(more, 0);
    ep_csv_fini(&csv);

    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"a,b\n1\n", "t.csv:2: has 1 fields, the header has 2"},
        {"a,b\n1,2,3\n", "has 3 fields"},
        {"a\n\n1\n", "t.csv:2: is blank"},
        {"a\n\"1\n", "t.csv:2: a quote"},
        {"a\n1\"2\n", "t.csv:2: a quote"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(ep_csv_init("t.csv", bad[i].text, strlen(bad[i].text), &csv));
        CHECK_OK(ep_csv_read_header(&csv));
        CHECK_FAILS(ep_csv_next(&csv, &more), EP_EINVAL, bad[i].says);
        ep_csv_fini(&csv);
    }
    CHECK_OK(ep_csv_init("t.csv", "", 0, &csv));
    CHECK_FAILS(ep_csv_read_header(&csv), EP_EINVAL, "is empty");
    ep_csv_fini(&csv);
    CHECK_FAILS(ep_csv_init("t.csv", "a\0b", 3, &csv), EP_EINVAL, "NUL");
    CHECK_FAILS(ep_csv_init("t.csv", "a\n\xc3\xa9\n\xe9\n", 7, &csv), EP_EINVAL,
                "t.csv:3: byte 0xe9 is not UTF-8 text");
    CHECK_FAILS(ep_csv_open("/nonexistent/t.csv", 100, &csv), EP_EINVAL, "/nonexistent/t.csv");
}

static void test_json(void **state)
{
    (void)state;
    json_t *value = NULL;
    assert_true(json_is_null(ep_json_real(NAN)));
    CHECK_FAILS(ep_json_parse("r.jsonl", 9, "{\"a\":1,\"a\":2}", 13, &value), EP_EINVAL,
                "r.jsonl:9: is not valid JSON");
    CHECK_OK(ep_json_parse("r.jsonl", 1, "{\"a\":1,\"b\":null}", 16, &value));
    double number = 0;
    int64_t whole = 0;
    CHECK_OK(ep_json_get_f64(value, "a", "r", 0, 2, &number));
    CHECK_OK(ep_json_get_f64_or_nan(value, "b", "r", &number));
    assert_true(isnan(number));
    CHECK_FAILS(ep_json_get_i64(value, "c", "r.jsonl:1", 0, 2, &whole), EP_EINVAL,
                "r.jsonl:1: key 'c' is missing");
    CHECK_FAILS(ep_json_get_i64(value, "a", "r", 2, 3, &whole), EP_EINVAL, "outside 2 to 3");
    json_decref(value);
}

static void test_files(void **state)
{
    (void)state;
    char directory[] = "/tmp/epbench-test.XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *path = ep_path_join(directory, "f.txt");
    char *text = NULL;
    size_t length = 0;
    CHECK_OK(ep_file_write(path, "hello", 5));
    CHECK_OK(ep_file_read(path, 100, &text, &length));
    assert_string_equal(text, "hello");
    free(text);
    CHECK_FAILS(ep_file_read(path, 4, &text, &length), EP_EINVAL, "limit of 4 bytes");
    CHECK_FAILS(ep_file_read(directory, 4, &text, &length), EP_EINVAL, "is a directory");
    CHECK_FAILS(ep_file_write("/nonexistent/f", "x", 1), EP_EIO, "/nonexistent/f");
    CHECK_FAILS(ep_dir_create_new(directory), EP_EINVAL, "exists already");
    CHECK_FAILS(ep_dir_create_new(""), EP_EINVAL, "is empty");
    /* a link, as /dev/stdout is one, and a device keep being what they are */
    char *linked = ep_path_join(directory, "link");
    struct stat info;
    assert_int_equal(symlink("f.txt", linked), 0);
    CHECK_OK(ep_file_write(linked, "by", 2));
    assert_int_equal(lstat(linked, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    CHECK_OK(ep_file_read(path, 100, &text, &length));
    assert_string_equal(text, "by");
    free(text);
    assert_int_equal(unlink(linked), 0);
    assert_int_equal(symlink("/dev/null", linked), 0);
    CHECK_OK(ep_file_write(linked, "gone", 4));
    assert_int_equal(stat(linked, &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    free(linked);
    char *nested = ep_path_join(directory, "a/b/");
    CHECK_OK(ep_dir_create_new(nested));
    CHECK_FAILS(ep_dir_create_new(nested), EP_EINVAL, "exists already");
    CHECK_OK(ep_dir_ensure(nested));
    CHECK_FAILS(ep_dir_ensure(path), EP_EIO, "cannot be created");
    char *command = ep_format_new("rm -r %s", directory);
    assert_int_equal(system(command), 0);
    free(command);
    free(nested);
    free(path);
}

static error_t accept_all(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    (void)state;
    return key == 't' || key == 'c' ? 0 : ARGP_ERR_UNKNOWN;
}

static void test_options(void **state)
{
    (void)state;
    static const struct argp_option options[] = {
        {"tokens", 't', "LIST", 0, "x", 0}, {"check", 'c', NULL, 0, "x", 0}, {0}};
    static const struct argp argp = {options, accept_all, NULL, NULL, NULL, NULL, NULL};
    CHECK_OK(ep_options_parse(&argp, 4, (char *[]){"p", "--tokens", "--x", "-c", NULL}, NULL));
    CHECK_OK(ep_options_parse(&argp, 2, (char *[]){"p", "--tokens=5", NULL}, NULL));
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "--tokns=5", NULL}, NULL), EP_EINVAL,
                "did you mean --tokens?");
    CHECK_FAILS(ep_options_parse(&argp, 3, (char *[]){"p", "--tok", "5", NULL}, NULL), EP_EINVAL,
                "did you mean --tokens?");
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "--tokens", NULL}, NULL), EP_EINVAL,
                "needs a value");
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "--check=1", NULL}, NULL), EP_EINVAL,
                "takes no value");
    CHECK_FAILS(ep_options_parse(&argp, 4, (char *[]){"p", "extra", "-c", "-c", NULL}, NULL),
                EP_EINVAL, "'extra' is not understood");
    CHECK_FAILS(ep_options_parse(&argp, 3, (char *[]){"p", "-c", "-", NULL}, NULL), EP_EINVAL,
                "'-' is not understood");
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "-cx", NULL}, NULL), EP_EINVAL,
                "unknown option -x");
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "-ct", NULL}, NULL), EP_EINVAL,
                "option -t needs a value");
    CHECK_OK(ep_options_parse(&argp, 3, (char *[]){"p", "-ct5", "-tx", NULL}, NULL));
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "--help=1", NULL}, NULL), EP_EINVAL,
                "takes no value");
    CHECK_FAILS(ep_options_parse(&argp, 2, (char *[]){"p", "--zzzzzzz", NULL}, NULL), EP_EINVAL,
                "unknown option --zzzzzzz");
}

static void test_option_text(void **state)
{
    (void)state;
    /* 2, 3 and 4 bytes at the ends of their ranges: U+0080, U+07FF, U+0800, U+D7FF, U+E000, U+10FFFF */
    CHECK_OK(ep_options_check_text(3, (char *[]){"p", "--skew", "a\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f"
                                                 "\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", NULL}));
    CHECK_OK(ep_options_check_text(1, (char *[]){"p\xff", NULL}));
    const struct {
        const char *words[2];
        const char *text;
    } bad[] = {
        {{"--skew", "a\xff"}, "--skew: byte 2 of its value (0xff) is not UTF-8 text"},
        {{"--skew=zipf\xe9", ""}, "--skew: byte 5 of its value (0xe9) is not UTF-8 text"},
        {{"-o", "\xc0\xaf"}, "-o: byte 1 of its value (0xc0)"},      /* overlong '/' */
        {{"-od\xed\xa0\x80", ""}, "-o: byte 2 of its value (0xed)"}, /* a surrogate */
        {{"--label", "\xf4\x90\x80\x80"}, "--label: byte 1"},        /* above U+10FFFF */
        {{"--label", "\xe2\x82"}, "--label: byte 1"},                /* cut off */
        {{"comm\xff", ""}, "argument 1: byte 5 (0xff)"},
        {{"--sk\xff" "ew=1", ""}, "argument 1: byte 5 (0xff)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *argv[] = {"p", (char *)bad[i].words[0], (char *)bad[i].words[1], NULL};
        CHECK_FAILS(ep_options_check_text(3, argv), EP_EINVAL, bad[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_units),
        cmocka_unit_test(test_lists),         cmocka_unit_test(test_summary),
        cmocka_unit_test(test_fastest),
        cmocka_unit_test(test_philox_golden), cmocka_unit_test(test_random_streams),
        cmocka_unit_test(test_random_lanes),
        cmocka_unit_test(test_csv),           cmocka_unit_test(test_json),
        cmocka_unit_test(test_files),         cmocka_unit_test(test_options),
        cmocka_unit_test(test_option_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
