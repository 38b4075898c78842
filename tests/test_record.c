/* SPDX-License-Identifier: Apache-2.0 */
/* Records and run directories: round trips by walking the table of columns, strict reading,
 * crashes in the middle of a line. */
#include "tests/check.h"

#include "base/file.h"
#include "base/random.h"
#include "results/columns.h"
#include "results/record.h"
#include "results/run_dir.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Give every field of the kind another value than absent and than its neighbours. */
static void fill(const struct ep_column *columns, int kind, void *object, int64_t *counter)
{
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        if (c->kinds != 0 && (c->kinds >> kind & 1u) == 0) {
            continue;
        }
        void *f = (char *)object + c->offset;
        const int64_t value = ++*counter;
        const double real = (double)value + 0.125;
        void *item = NULL;
        switch (c->type) {
        case EP_COLUMN_I64: *(int64_t *)f = value; break;
        case EP_COLUMN_FLAG: *(int64_t *)f = 1; break;
        case EP_COLUMN_F64: *(double *)f = real; break;
        case EP_COLUMN_SIGNED: *(double *)f = -real; break;
        case EP_COLUMN_TEXT: CHECK_OK(ep_record_set_text(f, "%s %" PRId64, c->name, value)); break;
        case EP_COLUMN_F64S: CHECK_OK(ep_record_set_f64s(f, (double[]){real, real + 0.5}, 2)); break;
        case EP_COLUMN_I64S: CHECK_OK(ep_record_set_i64s(f, (int64_t[]){value, 0}, 2)); break;
        case EP_COLUMN_OBJECT: fill(c->columns, kind, f, counter); break;
        case EP_COLUMN_LIST:
            for (int i = 0; i < 3; i++) {
                CHECK_OK(ep_columns_add_item(c, object, &item));
                fill(c->columns, kind, item, counter);
            }
            break;
        }
    }
}

/* A list seen without its type. */
struct list {
    char *items;
    int64_t num;
};

/* Field by field, by the type in the table; returns how many fields were compared. */
static int compare(const struct ep_column *columns, const void *left, const void *right)
{
    int num = 0;
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        const void *a = (const char *)left + c->offset;
        const void *b = (const char *)right + c->offset;
        struct list list_a, list_b;
        memcpy(&list_a, a, c->type >= EP_COLUMN_F64S ? sizeof list_a : 0);
        memcpy(&list_b, b, c->type >= EP_COLUMN_F64S ? sizeof list_b : 0);
        num++;
        switch (c->type) {
        case EP_COLUMN_I64:
        case EP_COLUMN_FLAG:
            if (*(const int64_t *)a != *(const int64_t *)b) {
                fail_msg("%s differs", c->name);
            }
            break;
        case EP_COLUMN_F64:
        case EP_COLUMN_SIGNED:
            if (memcmp(a, b, sizeof(double)) != 0) {
                fail_msg("%s: %g, %g", c->name, *(const double *)a, *(const double *)b);
            }
            break;
        case EP_COLUMN_TEXT:
            if (*(char *const *)a == NULL || *(char *const *)b == NULL) {
                assert_ptr_equal(*(char *const *)a, *(char *const *)b);
            } else {
                assert_string_equal(*(char *const *)a, *(char *const *)b);
            }
            break;
        case EP_COLUMN_F64S:
        case EP_COLUMN_I64S:
            assert_int_equal(list_a.num, list_b.num);
            if (list_a.num > 0) {
                assert_memory_equal(list_a.items, list_b.items, (size_t)list_a.num * 8);
            }
            break;
        case EP_COLUMN_OBJECT: num += compare(c->columns, a, b); break;
        case EP_COLUMN_LIST:
            assert_int_equal(list_a.num, list_b.num);
            for (int64_t i = 0; i < list_a.num; i++) {
                const size_t at = (size_t)i * c->item_size;
                num += compare(c->columns, list_a.items + at, list_b.items + at);
            }
            break;
        }
    }
    return num;
}

static void make_full(struct ep_record *record, enum ep_record_kind kind)
{
    int64_t counter = 0;
    ep_record_init(record, kind);
    fill(ep_record_columns(), (int)kind, record, &counter);
    record->n = 2;    /* fill() makes lists of two */
    record->lag1 = -0.5;
}

static void test_round_trip(void **state)
{
    (void)state;
    for (int kind = 0; kind < EP_RECORD_NUM_KINDS; kind++) {
        struct ep_record written, read;
        make_full(&written, (enum ep_record_kind)kind);
        char *line = NULL;
        CHECK_OK(ep_record_to_line(&written, &line));
        assert_null(strchr(line, '\n'));
        CHECK_OK(ep_record_from_line("t", 1, line, strlen(line), &read));
        assert_int_equal(read.kind, kind);
        /* every kind has at least the 38 common fields of results/README.md */
        assert_true(compare(ep_record_columns(), &written, &read) > 38);
        free(line);
        ep_record_fini(&written);
        ep_record_fini(&read);
    }
}

/* The fields of the struct that no column covers would be lost: every byte must be touched. */
static void test_table_covers_struct(void **state)
{
    (void)state;
    unsigned char covered[sizeof(struct ep_record)] = {0};
    for (const struct ep_column *c = ep_record_columns(); c->name != NULL; c++) {
        size_t size = 8;
        if (c->type == EP_COLUMN_F64S || c->type == EP_COLUMN_I64S || c->type == EP_COLUMN_LIST) {
            size = 16;
        } else if (strcmp(c->name, "check") == 0) {
            size = sizeof(struct ep_record_check);
        } else if (strcmp(c->name, "bytes") == 0) {
            size = sizeof(struct ep_record_bytes) * EP_RECORD_NUM_BASES;
        } else if (strcmp(c->name, "gemm") == 0) {
            size = sizeof(struct ep_record_gemm);
        }
        for (size_t i = 0; i < size; i++) {
            if (covered[c->offset + i]++ != 0) {
                fail_msg("column %s overlaps another", c->name);
            }
        }
    }
    /* `kind` and its padding come first */
    for (size_t i = 8; i < sizeof covered; i++) {
        if (covered[i] == 0) {
            fail_msg("byte %zu of struct ep_record has no column", i);
        }
    }
}

/* The least that a links record needs. */
static void make_links(struct ep_record *record, int64_t order)
{
    ep_record_init(record, EP_RECORD_LINKS);
    CHECK_OK(ep_record_set_text(&record->run_id, "run"));
    CHECK_OK(ep_record_set_text(&record->case_name, "links/%" PRId64, order));
    CHECK_OK(ep_record_set_text(&record->host, "h"));
    CHECK_OK(ep_record_set_text(&record->level, "node"));
    record->launch_idx = 0;
    record->order_idx = order;
    record->visit_idx = 0;
    record->start_utc_s = 1700000000.25;
    record->ranks = 2;
    record->nodes = 1;
    record->size_bytes = 64;
    record->concurrent_pairs = 1;
    CHECK_OK(ep_record_set_f64s(&record->samples_s, (double[]){0.75, 0.25, 0.5}, 3));
    CHECK_OK(ep_record_summarize(record));
}

static void test_absent(void **state)
{
    (void)state;
    struct ep_record record, read;
    make_links(&record, 0);
    CHECK_OK(ep_record_make_id(&record));
    char *line = NULL;
    CHECK_OK(ep_record_to_line(&record, &line));
    /* too few samples for an interval: NaN is written as null, never as 0 or left out */
    assert_non_null(strstr(line, "\"low_s\":null"));
    assert_non_null(strstr(line, "\"page_faults\":null"));
    assert_non_null(strstr(line, "\"median_s\":0.5"));
    assert_null(strstr(line, "transport"));
    CHECK_OK(ep_record_from_line("t", 1, line, strlen(line), &read));
    assert_true(isnan(read.low_s));
    assert_int_equal(read.page_faults, EP_RECORD_ABSENT);
    assert_null(read.cadence);
    compare(ep_record_columns(), &record, &read);
    free(line);
    ep_record_fini(&read);
    /* a required key without a value is refused when writing */
    free(record.level);
    record.level = NULL;
    CHECK_FAILS(ep_record_to_line(&record, &line), EP_EINVAL, "'level'");
    CHECK_OK(ep_record_set_text(&record.level, "node"));
    record.min_s = -1;
    CHECK_FAILS(ep_record_to_line(&record, &line), EP_EINVAL, "'min_s'");
    record.min_s = INFINITY;
    CHECK_FAILS(ep_record_to_line(&record, &line), EP_EINVAL, "'min_s'");
    ep_record_fini(&record);
}

static void test_ids(void **state)
{
    (void)state;
    struct ep_record a, b;
    make_links(&a, 0);
    make_links(&b, 0);
    CHECK_OK(ep_record_make_id(&a));
    CHECK_OK(ep_record_make_id(&b));
    assert_string_equal(a.record_id, b.record_id);
    assert_int_equal(strlen(a.record_id), 13);
    b.visit_idx = 1;
    CHECK_OK(ep_record_make_id(&b));
    assert_string_not_equal(a.record_id, b.record_id);
    b.visit_idx = 0;
    b.start_utc_s += 1e-3;
    CHECK_OK(ep_record_make_id(&b));
    assert_string_not_equal(a.record_id, b.record_id);
    ep_record_fini(&a);
    ep_record_fini(&b);
}

/* Replace the first `from` in a good line by `to`, and expect a message with `part`. */
static void refused(const char *good, const char *from, const char *to, const char *part)
{
    const char *at = strstr(good, from);
    if (at == NULL) {
        fail_msg("'%s' is not in the line", from);
        return;
    }
    char *bad = ep_format_new("%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    struct ep_record record;
    CHECK_FAILS(ep_record_from_line("f.jsonl", 7, bad, strlen(bad), &record), EP_EINVAL, part);
    assert_non_null(strstr(ep_error_text(), "f.jsonl:7"));
    free(bad);
}

static void test_refused(void **state)
{
    (void)state;
    struct ep_record record;
    make_links(&record, 0);
    CHECK_OK(ep_record_make_id(&record));
    char *line = NULL;
    CHECK_OK(ep_record_to_line(&record, &line));
    refused(line, "\"schema\":1", "\"schema\":2", "schema 2; this program reads schema 1");
    refused(line, "\"schema\":1,", "", "'schema' is missing");
    refused(line, "\"links\"", "\"link\"", "'kind' is 'link'");
    refused(line, "\"ranks\":2", "\"ranks\":2,\"ranks\":2", "duplicate");
    refused(line, "\"ranks\":2", "\"ranks\":\"2\"", "'ranks' must be a whole number");
    refused(line, "\"ranks\":2", "\"ranks\":2.5", "'ranks' must be a whole number");
    refused(line, "\"ranks\":2", "\"ranks\":null", "'ranks' is missing");
    refused(line, "\"ranks\":2,", "", "'ranks' is missing");
    refused(line, "\"ranks\":2", "\"ranks\":2,\"rancs\":2", "unknown key 'rancs'");
    refused(line, "\"ranks\":2", "\"ranks\":2,\"transport\":\"x\"", "unknown key 'transport'");
    refused(line, "\"ranks\":2", "\"ranks\":-1", "'ranks' is -1");
    refused(line, "\"median_s\":0.5", "\"median_s\":-0.5", "'median_s' is -0.5");
    refused(line, "\"median_s\":0.5", "\"median_s\":1e300", "'median_s' is 1e+300");
    refused(line, "0.75", "-0.75", "'samples_s' is -0.75");
    refused(line, "0.75,", "", "'samples_s' has 2 numbers");
    refused(line, "0.75", "\"x\"", "'samples_s' must be a number");
    refused(line, "\"warnings\":[]", "\"warnings\":[{\"name\":\"x\"}]", "warnings[0]: key 'text'");
    refused(line, "\"warnings\":[]", "\"warnings\":[3]", "warnings[0]");
    refused(line, "\"level\":\"node\"", "\"level\":3", "'level' must be a text");
    refused(line, "}", "", "JSON");
    refused(line, "}", "} x", "JSON");
    free(line);
    ep_record_fini(&record);
}

/* Damaged lines are refused or read, never worse (run under the sanitizers too). */
static void test_damaged(void **state)
{
    (void)state;
    struct ep_record record, read;
    make_full(&record, EP_RECORD_COMM);
    char *line = NULL;
    CHECK_OK(ep_record_to_line(&record, &line));
    ep_record_fini(&record);
    const size_t length = strlen(line);
    for (size_t i = 0; i < length; i++) {
        assert_int_equal(ep_record_from_line("t", 1, line, i, &read), EP_EINVAL);
        ep_error_clear();
    }
    struct ep_random random;
    ep_random_init(&random, 1, EP_RANDOM_TEST, 0);
    for (int i = 0; i < 3000; i++) {
        const uint32_t at = ep_random_below(&random, (uint32_t)length);
        const char kept = line[at];
        line[at] = (char)ep_random_u32(&random);
        if (ep_record_from_line("t", 1, line, length, &read) == EP_OK) {
            ep_record_fini(&read);
        }
        ep_error_clear();
        line[at] = kept;
    }
    free(line);
}

/* Every key is documented. Runs from the root of the tree, as tests/run does. */
static void check_documented(const struct ep_column *columns, const char *text)
{
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        char *key = ep_format_new("`%s`", c->name);
        if (strstr(text, key) == NULL) {
            fail_msg("results/README.md does not document %s", key);
        }
        free(key);
        if (c->columns != NULL) {
            check_documented(c->columns, text);
        }
    }
}

static void test_documented(void **state)
{
    (void)state;
    char *text = NULL;
    size_t length = 0;
    if (access("results/README.md", R_OK) != 0) {
        skip();
    }
    CHECK_OK(ep_file_read("results/README.md", 1 << 20, &text, &length));
    check_documented(ep_record_columns(), text);
    free(text);
}

/* --- run directories ------------------------------------------------------------------------- */

static char *scratch_path(const char *name)
{
    const char *base = getenv("EPBENCH_TEST_DIR");
    char *path = ep_format_new("%s/%s.%d", base != NULL ? base : "/tmp", name, (int)getpid());
    char *command = ep_format_new("rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
    free(command);
    return path;
}

static void create_run(const char *path, struct ep_run_dir *dir)
{
    struct ep_run run;
    ep_run_init(&run);
    CHECK_OK(ep_record_set_text(&run.host, "h"));
    run.start_utc_s = 1700000000;
    char *argv[] = {"epbench comm", "--skew", "a b", "it's"};
    CHECK_OK(ep_run_add_command(&run, 4, argv, 1700000000));
    CHECK_OK(ep_run_add_rank(&run, 0, "h", 0, "0-1"));
    CHECK_OK(ep_record_add_note(&run.warnings, "unbound", "rank %d is not bound", 0));
    CHECK_OK(ep_run_dir_create(path, &run, dir));
    ep_run_fini(&run);
}

static void test_run_dir(void **state)
{
    (void)state;
    char *path = scratch_path("run");
    struct ep_run_dir dir, again;
    create_run(path, &dir);
    struct ep_run run;
    CHECK_OK(ep_run_read(path, &run));
    /* 1700000000 is 2023-11-14 22:13:20 UTC */
    assert_non_null(strstr(run.run_id, "h-20231114T221320Z-"));
    assert_string_equal(run.run_id, dir.run_id);
    assert_string_equal(run.commands.items[0].command_line,
                        "epbench comm --skew 'a b' 'it'\\''s'");
    assert_string_equal(run.ranks.items[0].cpus, "0-1");
    assert_string_equal(run.warnings.items[0].text, "rank 0 is not bound");
    CHECK_FAILS(ep_run_dir_create(path, &run, &again), EP_EINVAL, "exists already");
    ep_run_fini(&run);

    for (int64_t i = 0; i < 3; i++) {
        struct ep_record record;
        make_links(&record, i);
        free(record.run_id);
        record.run_id = NULL;
        CHECK_OK(ep_run_dir_add_record(&dir, &record));
        assert_string_equal(record.run_id, dir.run_id);
        ep_record_fini(&record);
    }
    ep_run_dir_fini(&dir);
    struct ep_records records;
    CHECK_OK(ep_records_read((const char *const[]){path}, 1, &records));
    assert_int_equal(records.num, 3);
    assert_string_equal(records.items[2].case_name, "links/2");
    assert_int_equal(records.warnings.num, 0);
    ep_records_fini(&records);
    CHECK_FAILS(ep_records_read((const char *const[]){path, path}, 2, &records), EP_EINVAL,
                "occurs twice");
    free(path);
}

/* Write `text` over the end of the records, from `keep_bytes` on. */
static void tamper(const char *path, off_t keep_bytes, const char *text)
{
    char *file = ep_path_join(path, "records.jsonl");
    const int fd = open(file, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, keep_bytes), 0);
    assert_int_equal(pwrite(fd, text, strlen(text), keep_bytes), (ssize_t)strlen(text));
    close(fd);
    free(file);
}

static void test_crash(void **state)
{
    (void)state;
    char *path = scratch_path("crash");
    struct ep_run_dir dir;
    create_run(path, &dir);
    off_t ends[2];
    for (int64_t i = 0; i < 2; i++) {
        struct ep_record record;
        make_links(&record, i);
        CHECK_OK(ep_run_dir_add_record(&dir, &record));
        ends[i] = lseek(dir.records_fd, 0, SEEK_END);
        ep_record_fini(&record);
    }
    ep_run_dir_fini(&dir);
    const char *const paths[] = {path};
    struct ep_records records;

    /* a crash in the middle of the second line */
    tamper(path, ends[1] - 40, "");
    CHECK_OK(ep_records_read(paths, 1, &records));
    assert_int_equal(records.num, 1);
    assert_int_equal(records.warnings.num, 1);
    assert_non_null(strstr(records.warnings.items[0].text, "records.jsonl:2"));
    ep_records_fini(&records);

    /* appending cuts it off and goes on after the first line */
    CHECK_OK(ep_run_dir_append(path, &dir));
    assert_int_equal(dir.dropped_bytes, ends[1] - 40 - ends[0]);
    struct ep_record record;
    make_links(&record, 5);
    CHECK_OK(ep_run_dir_add_record(&dir, &record));
    ep_record_fini(&record);
    ep_run_dir_fini(&dir);
    CHECK_OK(ep_records_read(paths, 1, &records));
    assert_int_equal(records.num, 2);
    assert_int_equal(records.warnings.num, 0);
    assert_string_equal(records.items[1].case_name, "links/5");
    ep_records_fini(&records);

    /* a whole last line that only lacks its line end is kept */
    tamper(path, ends[1] - 1, "");
    CHECK_OK(ep_run_dir_append(path, &dir));
    assert_int_equal(dir.dropped_bytes, 0);
    ep_run_dir_fini(&dir);
    CHECK_OK(ep_records_read(paths, 1, &records));
    assert_int_equal(records.num, 2);
    ep_records_fini(&records);

    /* a bad line with its line end is an error, wherever it stands */
    tamper(path, ends[0], "{\"schema\":1\n");
    CHECK_FAILS(ep_records_read(paths, 1, &records), EP_EINVAL, "records.jsonl:2");
    tamper(path, 0, "\n");
    CHECK_FAILS(ep_records_read(paths, 1, &records), EP_EINVAL, "records.jsonl:1");
    free(path);
}

static void test_not_a_run(void **state)
{
    (void)state;
    struct ep_run_dir dir;
    struct ep_records records;
    CHECK_FAILS(ep_run_dir_append("/nonexistent/run", &dir), EP_EINVAL, "/nonexistent/run/run.json");
    CHECK_FAILS(ep_records_read((const char *const[]){"/nonexistent/run"}, 1, &records), EP_EINVAL,
                "/nonexistent/run/records.jsonl");
}

static void test_traffic(void **state)
{
    (void)state;
    char *path = scratch_path("traffic");
    struct ep_run_dir dir;
    create_run(path, &dir);
    ep_run_dir_fini(&dir);
    const int64_t copies[] = {1, 2, 3, 4};
    const int64_t *const rows[EP_RECORD_NUM_BASES] = {[EP_RECORD_COPIES] = copies};
    CHECK_OK(ep_run_dir_write_traffic(path, "r1", 2, rows));
    CHECK_OK(ep_run_dir_write_traffic(path, "r1", 2, rows));
    struct ep_run_traffic traffic;
    CHECK_OK(ep_run_dir_read_traffic(path, "r1", &traffic));
    assert_int_equal(traffic.num_ranks, 2);
    assert_memory_equal(traffic.rows[EP_RECORD_COPIES], copies, sizeof copies);
    assert_null(traffic.rows[EP_RECORD_NODE_DEDUP]);
    ep_run_traffic_fini(&traffic);
    CHECK_FAILS(ep_run_dir_write_traffic(path, "../x", 2, rows), EP_EINVAL, "file name");
    CHECK_FAILS(ep_run_dir_write_traffic(path, "r2", 65, rows), EP_EINVAL, "65 ranks");
    CHECK_FAILS(ep_run_dir_read_traffic(path, "r3", &traffic), EP_EINVAL, "r3.json");
    free(path);
}

static void test_default_path(void **state)
{
    (void)state;
    char *path = ep_run_default_path("h", 1700000000);
    const char *expected = access("bench/epbench.c", F_OK) == 0
                               ? "results/runs/h-20231114T221320Z"
                               : "./epbench-h-20231114T221320Z";
    assert_string_equal(path, expected);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_table_covers_struct),
        cmocka_unit_test(test_absent),       cmocka_unit_test(test_ids),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_run_dir),
        cmocka_unit_test(test_crash),        cmocka_unit_test(test_not_a_run),
        cmocka_unit_test(test_damaged),      cmocka_unit_test(test_documented),
        cmocka_unit_test(test_traffic),      cmocka_unit_test(test_default_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
