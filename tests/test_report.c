/* SPDX-License-Identifier: Apache-2.0 */
/* The report: escaping, inline SVG, numbers worked out from hand-made records, figures in the page. */
#include "tests/check.h"

#include "base/file.h"
#include "plots/html.h"
#include "plots/report.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* What `put` writes, to be freed. */
static char *page_of(void (*put)(struct ep_html *html))
{
    struct ep_html html;
    char *text = NULL;
    size_t length = 0;
    CHECK_OK(ep_html_init(&html));
    put(&html);
    CHECK_OK(ep_html_finish(&html, &text, &length));
    assert_int_equal(strlen(text), length);
    return text;
}

static void check_page(void (*put)(struct ep_html *html), const char *expected)
{
    char *text = page_of(put);
    assert_string_equal(text, expected);
    free(text);
}

/* --- text ------------------------------------------------------------------------------------ */

static void put_markup(struct ep_html *html)
{
    ep_html_put(html, "<b a=\"1\" c='2'>%s</b>", "x & y");
}

static void put_utf8(struct ep_html *html)
{
    ep_html_put(html, "%s", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\n\tz");
}

/* A lone continuation, an overlong '/', a surrogate, a sequence cut short by the end, control characters. */
static void put_broken(struct ep_html *html)
{
    ep_html_put(html, "a\x80z");
    ep_html_put(html, "%s", "\xc0\xaf");
    ep_html_put(html, "%s", "\xed\xa0\x80");
    ep_html_put(html, "%s", "\xe2\x82");
    ep_html_put(html, "\x01\x7f\r");
}

static void test_escaping(void **state)
{
    (void)state;
    check_page(put_markup, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;x &amp; y&lt;/b&gt;");
    check_page(put_utf8, "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\n\tz");
#define BAD "\xef\xbf\xbd" /* U+FFFD, one for each byte that is no text */
    check_page(put_broken, "a" BAD "z" BAD BAD BAD BAD BAD BAD BAD BAD BAD BAD);
}

/* --- tables ---------------------------------------------------------------------------------- */

static void put_table(struct ep_html *html)
{
    static const struct ep_html_column columns[] = {{"a<b", false}, {"n", true}, {NULL, false}};
    ep_html_table_open(html, "c & d", columns);
    ep_html_row(html);
    ep_html_cell(html, "x");
    ep_html_cell(html, "%d", 7);
    ep_html_table_close(html);
}

static void test_table(void **state)
{
    (void)state;
    char *text = page_of(put_table);
    assert_non_null(strstr(text, "<p class=\"caption\" id=\"table-1\">c &amp; d</p>"));
    assert_non_null(strstr(text, "<th scope=\"col\">a&lt;b</th><th scope=\"col\" class=\"number\">n</th>"));
    assert_non_null(strstr(text, "<tr><th scope=\"row\">x</th><td class=\"number\">7</td></tr>"));
    free(text);
}

/* --- SVG ------------------------------------------------------------------------------------- */

static void put_drawing(struct ep_html *html)
{
    CHECK_OK(ep_html_put_svg(html, "<?xml version=\"1.0\"?>\n<svg viewBox=\"0 0 1 1\"><title>Gnuplot</title>"
                             "<path id='p'/><use xlink:href='#p' id=\"q\"/><g filter=\"url(#f)\">"
                             "<text>id=\"p\"</text></g></svg>\n", "fig", "a \"b\""));
}

static void test_svg_is_inlined(void **state)
{
    (void)state;
    check_page(put_drawing, "<svg role=\"img\" aria-label=\"a &quot;b&quot;\" viewBox=\"0 0 1 1\">"
               "<path id='fig-p'/><use xlink:href='#fig-p' id=\"fig-q\"/><g filter=\"url(#fig-f)\">"
               "<text>id=\"p\"</text></g></svg>\n");
}

static void test_svg_is_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"<svg><script>x</script></svg>", "a script"},
        {"<svg><a href=\"http://x\"/></svg>", "refers to another file"},
        {"<svg><g fill=\"url(http://x#a)\"/></svg>", "refers to another file"},
        {"<svg><image href='#a'/></svg>", "an image"},
        {"<svg onload=\"x\"></svg>", "an event handler"},
        {"<svg><g>", "not a whole one"},
        {"", "not a whole one"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ep_html html;
        char *text = NULL;
        size_t length = 1;
        CHECK_OK(ep_html_init(&html));
        CHECK_FAILS(ep_html_put_svg(&html, bad[i][0], "fig", "x"), EP_EINVAL, bad[i][1]);
        CHECK_OK(ep_html_finish(&html, &text, &length));
        assert_int_equal(length, 0);
        free(text);
    }
}

/* --- numbers --------------------------------------------------------------------------------- */

static void make_link(struct ep_record *r, const char *level, double bw_bytes_per_s)
{
    ep_record_init(r, EP_RECORD_LINKS);
    CHECK_OK(ep_record_set_text(&r->run_id, "run"));
    CHECK_OK(ep_record_set_text(&r->record_id, "r-%s", level));
    CHECK_OK(ep_record_set_text(&r->case_name, "links/%s", level));
    CHECK_OK(ep_record_set_text(&r->level, "%s", level));
    CHECK_OK(ep_record_set_text(&r->pattern, "window"));
    r->size_bytes = 1000;
    r->concurrent_pairs = 1;
    r->median_s = 1000 / bw_bytes_per_s;
    r->bw_bytes_per_s = bw_bytes_per_s;
    r->launch_idx = 0;
}

static void add_level(struct ep_record *r, const char *name, int64_t size_bytes)
{
    struct ep_record_level *level = NULL;
    CHECK_OK(ep_record_add_level(r, name, &level));
    level->total = size_bytes;
    level->max_in = size_bytes;
    level->max_out = size_bytes / 2;
}

static void add_phase(struct ep_record *r, const char *name, double median_s)
{
    struct ep_record_phase *phase = NULL;
    CHECK_OK(ep_record_add_phase(r, name, &phase));
    phase->median_s = median_s;
}

static void make_comm(struct ep_record *r, const char *name, int64_t near_bytes, int64_t far_bytes)
{
    ep_record_init(r, EP_RECORD_COMM);
    CHECK_OK(ep_record_set_text(&r->run_id, "run"));
    CHECK_OK(ep_record_set_text(&r->record_id, "r-%s", name));
    CHECK_OK(ep_record_set_text(&r->case_name, "%s", name));
    CHECK_OK(ep_record_set_text(&r->op, "dispatch"));
    CHECK_OK(ep_record_set_text(&r->transport, "alltoallv"));
    r->launch_idx = 1;
    r->median_s = 1e-4;
    r->null_s = 1e-6;
    r->verified = 1;
    add_level(r, "near", near_bytes);
    add_level(r, "far", far_bytes);
    add_phase(r, "pack", 1e-5);
    add_phase(r, "exchange", 3e-5);
}

enum { NUM_RECORDS = 5 };

/* near 1 GB/s, far 10 MB/s; three visits of two cases, one of them with a failed check. */
static void make_records(struct ep_records *records)
{
    struct ep_record *items = calloc(NUM_RECORDS, sizeof *items);
    assert_non_null(items);
    make_link(&items[0], "near", 1e9);
    make_link(&items[1], "far", 1e7);
    make_comm(&items[2], "a", 1000, 100); /* 1 us near, 10 us far */
    make_comm(&items[3], "a", 1000, 100);
    make_comm(&items[4], "b", 8000, 10); /* 8 us near, 1 us far */
    items[4].verified = 0;
    items[4].median_s = 5e-5;
    CHECK_OK(ep_record_add_note(&items[2].warnings, "steal", "0.1 s"));
    CHECK_OK(ep_record_add_note(&items[3].warnings, "steal", "0.2 s"));
    CHECK_OK(ep_record_add_note(&items[3].warnings, "wide", "10 %%"));
    *records = (struct ep_records){.items = items, .num = NUM_RECORDS};
}

static void test_facts(void **state)
{
    (void)state;
    struct ep_run run;
    struct ep_records records;
    struct ep_report_facts facts;
    const struct ep_fit fit = {0};
    ep_run_init(&run);
    CHECK_OK(ep_record_add_note(&run.warnings, "load", "2.0"));
    make_records(&records);
    CHECK_OK(ep_report_facts_init(&run, 1, &records, &fit, &facts));
    assert_int_equal(facts.counts[EP_RECORD_COMM].num_records, 3);
    assert_int_equal(facts.counts[EP_RECORD_COMM].num_cases, 2);
    assert_int_equal(facts.counts[EP_RECORD_COMM].min_visits, 1);
    assert_int_equal(facts.counts[EP_RECORD_COMM].max_visits, 2);
    assert_int_equal(facts.counts[EP_RECORD_COMM].num_launches, 2);
    assert_int_equal(facts.num_checked, 3);
    assert_int_equal(facts.num_failed, 1);
    assert_int_equal(facts.num_warned, 2);
    assert_int_equal(facts.num_doubts, 3); /* the run's first, then the most frequent */
    assert_string_equal(facts.doubts[0].name, "load");
    assert_string_equal(facts.doubts[1].name, "steal");
    assert_int_equal(facts.doubts[1].num_records[EP_RECORD_COMM], 2);
    assert_string_equal(facts.doubts[1].example, "0.1 s");
    /* 1 us of 50 us */
    CHECK_NEAR(facts.null_share, 0.02, 1e-12);
    assert_string_equal(facts.null_record->case_name, "b");
    assert_int_equal(facts.num_levels, 2);
    assert_string_equal(facts.levels[facts.slowest_level].name, "far");
    /* far binds two records of three; near's share of the largest load is 0.1, 0.1 and 1 */
    assert_string_equal(facts.levels[facts.binding_level].name, "far");
    assert_int_equal(facts.levels[facts.binding_level].num_binding, 2);
    assert_string_equal(facts.levels[facts.runner_up_level].name, "near");
    CHECK_NEAR(facts.levels[facts.runner_up_level].load_share, 0.1, 1e-12);
    assert_int_equal(facts.num_splits, 1);
    assert_string_equal(facts.splits[0].phases[0], "exchange");
    CHECK_NEAR(facts.splits[0].shares[0], 0.75, 1e-12);
    CHECK_NEAR(facts.splits[0].shares[1], 0.25, 1e-12);
    ep_report_facts_fini(&facts);
    ep_records_fini(&records);
    ep_run_fini(&run);
}

/* --- the page -------------------------------------------------------------------------------- */

/* A page of hand-made records and three figures: drawn, not drawn, and one that must not go in. */
static char *make_page(void)
{
    static const struct ep_figure figures[] = {
        {.name = "good", .title = "Good & well", .caption = "bytes against s"},
        {.name = "absent", .title = "Absent", .caption = "nothing"},
        {.name = "evil", .title = "Evil", .caption = "script"},
        {.name = NULL},
    };
    struct ep_figure_result results[3] = {{true, ""}, {false, "no <kernels> records"}, {true, ""}};
    static const char good[] = "<svg><path id='p'/></svg>";
    static const char evil[] = "<svg><script>alert(1)</script></svg>";
    char directory[] = "/tmp/test_report.XXXXXX";
    assert_non_null(mkdtemp(directory));
    const char *const directories[] = {directory};
    struct ep_run run;
    struct ep_records records;
    struct ep_report_facts facts;
    const struct ep_fit fit = {0};
    char *text = NULL;
    size_t length = 0;
    char *plots = ep_path_join(directory, "plots");
    char *good_path = ep_path_join(plots, "good.svg");
    char *evil_path = ep_path_join(plots, "evil.svg");
    CHECK_OK(ep_dir_ensure(plots));
    CHECK_OK(ep_file_write(good_path, good, strlen(good)));
    CHECK_OK(ep_file_write(evil_path, evil, strlen(evil)));
    ep_run_init(&run);
    CHECK_OK(ep_record_set_text(&run.host, "h<1>"));
    make_records(&records);
    CHECK_OK(ep_report_facts_init(&run, 1, &records, &fit, &facts));
    const struct ep_report_input input = {directories, &run, 1, &records, &fit, "too <few>",
                                          figures, results, &facts};
    CHECK_OK(ep_report_make(&input, &text, &length));
    unlink(good_path);
    unlink(evil_path);
    rmdir(plots);
    rmdir(directory);
    free(plots);
    free(good_path);
    free(evil_path);
    ep_report_facts_fini(&facts);
    ep_records_fini(&records);
    ep_run_fini(&run);
    return text;
}

static void test_page(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "<h1>Expert parallelism on h&lt;1&gt;</h1>",
        "<h3>Good &amp; well</h3>",
        "<svg role=\"img\" aria-label=\"Good &amp; well\"><path id='good-p'/></svg>",
        "<figcaption>bytes against s Data: <code>plots/good.tsv</code></figcaption>",
        "Not drawn: no &lt;kernels&gt; records",
        "Not drawn: the SVG of evil holds a script",
        "Nothing was fitted: too &lt;few&gt;",
        "FAILED CHECKS: in 1 of 3 verified records",
        "Level far binds in 2 comm records; runner-up: near, which typically needs 10 % of the time",
        "exchange 75 %, pack 25 %",
        "Its largest share of any reported median is 2 %, in <code>b</code>",
        "No kernels were measured",
    };
    char *text = make_page();
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(text, parts[i]) == NULL) {
            fail_msg("the page does not hold: %s", parts[i]);
        }
    }
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "http"));
    free(text);
}

/* --- the layer ------------------------------------------------------------------------------- */

static void make_layer(struct ep_record *r, int64_t ranks, double straggler, double efficiency)
{
    ep_record_init(r, EP_RECORD_LAYER);
    CHECK_OK(ep_record_set_text(&r->case_name, "layer/P%d", (int)ranks));
    CHECK_OK(ep_record_set_text(&r->transport, "shm"));
    CHECK_OK(ep_record_set_text(&r->skew, "khot:1:0.9"));
    r->ranks = ranks;
    r->tokens = 64;
    r->median_s = 2e-3;
    r->straggler = straggler;
    r->efficiency = efficiency;
    r->verified = 1;
}

/* Two visits of one case, medians 2.00 and 75 % (the second knows none); one rank alone is no row, nor is
 * a wrong layer. */
static void test_layer(void **state)
{
    (void)state;
    struct ep_record items[4];
    make_layer(&items[0], 2, 1.5, 0.75);
    make_layer(&items[1], 1, 1, NAN);
    make_layer(&items[2], 2, 2.5, NAN);
    make_layer(&items[3], 3, 9, 0.1);
    items[3].verified = 0;
    const struct ep_records records = {.items = items, .num = 4};
    const struct ep_report_input input = {.records = &records};
    struct ep_html html;
    char *text = NULL;
    size_t length = 0;
    CHECK_OK(ep_html_init(&html));
    CHECK_OK(ep_report_put_layer(&input, &html));
    CHECK_OK(ep_html_finish(&html, &text, &length));
    assert_non_null(strstr(text, "khot:1:0.9"));
    assert_non_null(strstr(text, ">2.00<"));
    assert_non_null(strstr(text, ">75.0<"));
    assert_null(strstr(text, ">9.00<"));
    int rows = 0;
    for (const char *at = text; (at = strstr(at, "<tr")) != NULL; at++) {
        rows++;
    }
    assert_int_equal(rows, 2); /* the head and the case */
    free(text);
    const struct ep_report_input none = {.records = &(const struct ep_records){.num = 0}};
    CHECK_OK(ep_html_init(&html));
    CHECK_OK(ep_report_put_layer(&none, &html));
    CHECK_OK(ep_html_finish(&html, &text, &length));
    assert_non_null(strstr(text, "No layer was measured"));
    free(text);
    for (int i = 0; i < 4; i++) {
        ep_record_fini(&items[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escaping),       cmocka_unit_test(test_table),
        cmocka_unit_test(test_svg_is_inlined), cmocka_unit_test(test_svg_is_refused),
        cmocka_unit_test(test_facts),          cmocka_unit_test(test_page),
        cmocka_unit_test(test_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
