/* SPDX-License-Identifier: Apache-2.0 */
/* The page as a whole, its first screen, and the summary for a terminal. */
#include "plots/report.h"

#include "base/embedded.h"
#include "base/file.h"
#include "base/table.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char generator[] = "<meta name=\"generator\" content=\"epbench report\">";

/* --- texts that page and terminal share ------------------------------------------------------ */

const char *ep_report_percent(double fraction, char *text, size_t length)
{
    if (isnan(fraction)) {
        snprintf(text, length, "-");
    } else {
        snprintf(text, length, "%.1f", 100 * fraction);
    }
    return text;
}

static const char *format_value(const struct ep_fit_parameter *p, double value, char *text,
                                size_t length)
{
    return strcmp(p->unit, "bytes/s") == 0 ? ep_format_bandwidth(value, text, length)
                                           : ep_format_time(value, text, length);
}

/* Cut the unit off `low` where `high` has the same one: "3.00 to 4.93 GB/s". */
static void share_unit(char *low, const char *high)
{
    char *unit = strchr(low, ' ');
    const char *other = strchr(high, ' ');
    if (unit != NULL && other != NULL && strcmp(unit, other) == 0) {
        *unit = '\0';
    }
}

const char *ep_report_parameter(const struct ep_fit_parameter *p, char *text, size_t length)
{
    char value[32], low[32], high[32];
    if (p->withheld != NULL) {
        snprintf(text, length, "withheld: %s", p->withheld);
    } else if (isnan(p->low)) {
        snprintf(text, length, "%s (no interval)", format_value(p, p->value, value, sizeof value));
    } else {
        format_value(p, p->value, value, sizeof value);
        format_value(p, p->low, low, sizeof low);
        format_value(p, p->high, high, sizeof high);
        share_unit(low, high);
        snprintf(text, length, "%s (%s to %s)", value, low, high);
    }
    return text;
}

const char *ep_report_bandwidth(const struct ep_fit_rung *rung, char *text, size_t length)
{
    const struct ep_fit_parameter *last = NULL;
    snprintf(text, length, "-");
    /* Of bandwidths that change with the size, the one of the largest. */
    for (int j = 0; rung != NULL && j < rung->num_parameters; j++) {
        const struct ep_fit_parameter *p = &rung->parameters[j];
        if (strcmp(p->unit, "bytes/s") == 0 &&
            (last == NULL || (p->parameter != NULL && p->parameter == last->parameter))) {
            last = p;
        }
    }
    if (last == NULL) {
        return text;
    }
    ep_report_parameter(last, text, length);
    const char *at = strchr(last->name, '@');
    const size_t used = strlen(text);
    if (at != NULL && used < length) {
        snprintf(text + used, length - used, " at %s", at + 1);
    }
    return text;
}

static const char *machine_text(const struct ep_run *run)
{
    return run->machine != NULL ? run->machine : "machine not recorded";
}

/* "264 of 264 checked records are right" or how many are not. */
static const char *check_text(const struct ep_report_facts *facts, char *text, size_t length)
{
    if (facts->num_checked == 0) {
        snprintf(text, length, "No record was verified.");
    } else if (facts->num_failed > 0) {
        snprintf(text, length, "FAILED CHECKS: in %" PRId64 " of %" PRId64 " verified records rows "
                 "were wrong, missing or doubled; they are left out of the fit.",
                 facts->num_failed, facts->num_checked);
    } else {
        snprintf(text, length, "%" PRId64 " records were verified, element by element: all right.",
                 facts->num_checked);
    }
    return text;
}

static const char *level_text(const struct ep_report_level *level, char *text, size_t length)
{
    char bw[32], size[32], latency[32];
    snprintf(text, length, "%s: %s at best (%s messages), latency %s", level->name,
             ep_format_bandwidth(level->bw_bytes_per_s, bw, sizeof bw),
             ep_format_bytes((double)level->bw_size_bytes, size, sizeof size),
             ep_format_time(level->latency_s, latency, sizeof latency));
    return text;
}

/* Which level binds, and the runner-up. */
static const char *binding_text(const struct ep_report_facts *facts, char *text, size_t length)
{
    if (facts->binding_level < 0) {
        snprintf(text, length, "Which level binds is not known: %s.",
                 facts->counts[EP_RECORD_LINKS].num_records == 0
                     ? "no links were measured (epbench links)"
                     : "no comm record names the levels that were measured");
        return text;
    }
    const struct ep_report_level *level = &facts->levels[facts->binding_level];
    if (facts->runner_up_level < 0) {
        snprintf(text, length, "Level %s binds: it is the only one that carried bytes, so there is no "
                 "runner-up.", level->name);
    } else {
        const struct ep_report_level *next = &facts->levels[facts->runner_up_level];
        snprintf(text, length, "Level %s binds in %" PRId64 " comm records; runner-up: %s, which "
                 "typically needs %.0f %% of the time that the binding level needs.", level->name,
                 level->num_binding, next->name, 100 * next->load_share);
    }
    return text;
}

/* "exchange 42 %, unpack 31 %, pack 26 %" */
static const char *split_text(const struct ep_report_split *split, char *text, size_t length)
{
    size_t used = 0;
    text[0] = '\0';
    for (int p = 0; p < split->num_phases && used < length; p++) {
        const int put = snprintf(text + used, length - used, "%s%s %.0f %%", p > 0 ? ", " : "",
                                 split->phases[p], 100 * split->shares[p]);
        used += put > 0 ? (size_t)put : 0;
    }
    return text;
}

/* --- first screen ---------------------------------------------------------------------------- */

static void put_groups(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Group", false},         {"Rung", false},        {"Held-out median %", true},
        {"Held-out p95 %", true}, {"Noise floor %", true}, {"Bandwidth B (95 % interval)", false},
        {NULL, false},
    };
    char text[512];
    if (in->fit->num_primary == 0) {
        ep_html_element(html, "p class=\"none\"", "No model: %s",
                        in->fit_failure != NULL ? in->fit_failure : "there are no comm records");
        return;
    }
    ep_html_table_open(html, "How good the model is: errors on data it has not seen, beside what two "
                       "visits of one case differ by", columns);
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        const struct ep_fit_rung *r = ep_fit_chosen(g);
        ep_html_row(html);
        ep_html_cell(html, "%s", g->name);
        ep_html_cell(html, "%s", r != NULL ? r->rung->name : "none chosen");
        ep_html_cell(html, "%s", ep_report_percent(r != NULL ? r->held_out.median_ape : NAN, text,
                                                   sizeof text));
        ep_html_cell(html, "%s", ep_report_percent(r != NULL ? r->held_out.p95_ape : NAN, text,
                                                   sizeof text));
        ep_html_cell(html, "%s", ep_report_percent(g->noise_floor, text, sizeof text));
        ep_html_cell(html, "%s", ep_report_bandwidth(r, text, sizeof text));
    }
    ep_html_table_close(html);
}

static void put_what_not_to_trust(const struct ep_report_input *in, struct ep_html *html)
{
    const struct ep_report_facts *f = in->facts;
    ep_html_raw(html, "<li>");
    if (f->num_doubts == 0) {
        ep_html_put(html, "No warnings. ");
    } else {
        ep_html_put(html, "Warnings: ");
        for (int64_t i = 0; i < f->num_doubts; i++) {
            ep_html_put(html, "%s%s (%" PRId64 ")", i > 0 ? ", " : "", f->doubts[i].name,
                        f->doubts[i].total);
        }
        ep_html_put(html, ", in %" PRId64 " of %" PRId64 " records", f->num_warned, f->num_records);
        ep_html_raw(html, "; <a href=\"#doubts\">what to do about them</a>. ");
    }
    if (f->num_withheld > 0) {
        ep_html_put(html, "%" PRId64 " parameters of chosen rungs are withheld", f->num_withheld);
        ep_html_raw(html, ", with the reason, <a href=\"#fit\">in the fit</a>.");
    }
    ep_html_raw(html, "</li>\n");
}

void ep_report_put_summary(const struct ep_report_input *in, struct ep_html *html)
{
    const struct ep_run *run = &in->runs[0];
    const struct ep_report_facts *f = in->facts;
    char text[512];
    ep_html_element(html, "h2 id=\"summary\"", "Summary");
    ep_html_raw(html, "<ul>\n");
    ep_html_element(html, "li", "%s. %" PRId64 " rank%s on %" PRId64 " node%s.", machine_text(run),
                    run->num_ranks, run->num_ranks == 1 ? "" : "s", run->num_nodes,
                    run->num_nodes == 1 ? "" : "s");
    ep_html_element(html, "li", "%s", binding_text(f, text, sizeof text));
    if (f->slowest_level >= 0) {
        ep_html_element(html, "li", "Slowest level measured: %s.",
                        level_text(&f->levels[f->slowest_level], text, sizeof text));
    }
    ep_html_element(html, f->num_failed > 0 ? "li class=\"failed\"" : "li", "%s",
                    check_text(f, text, sizeof text));
    put_what_not_to_trust(in, html);
    ep_html_raw(html, "</ul>\n");
    put_groups(in, html);
    if (f->num_splits > 0) {
        static const struct ep_html_column columns[] = {
            {"Operation", false}, {"Records", true}, {"Share of the phases, median", false},
            {NULL, false},
        };
        ep_html_table_open(html, "Where the time goes, largest phase first", columns);
        for (int64_t i = 0; i < f->num_splits; i++) {
            ep_html_row(html);
            ep_html_cell(html, "%s %s", f->splits[i].op, f->splits[i].transport);
            ep_html_cell(html, "%" PRId64, f->splits[i].num_cases);
            ep_html_cell(html, "%s", split_text(&f->splits[i], text, sizeof text));
        }
        ep_html_table_close(html);
    }
}

/* --- the page -------------------------------------------------------------------------------- */

static const struct {
    const char *id;
    const char *name;
} sections[] = {
    {"summary", "Summary"}, {"figures", "Figures"},   {"doubts", "What not to trust"},
    {"fit", "Fit"},         {"layer", "The layer"},   {"links", "Links"},       {"kernels", "Kernels"},
    {"harness", "Harness"}, {"machine", "Machine"},   {"runs", "What was run"},
    {"words", "Words"},
};

static void put_head(const struct ep_report_input *in, struct ep_html *html)
{
    const struct ep_embedded *css = ep_embedded_find("plots/report.css");
    const struct ep_run *run = &in->runs[0];
    EP_ASSERT(css != NULL);
    ep_html_raw(html, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "%s\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
                generator);
    ep_html_element(html, "title", "epbench: %s", run->run_id != NULL ? run->run_id : "report");
    ep_html_raw(html, "<style>\n%.*s</style>\n</head>\n<body>\n<header>\n", (int)css->size_bytes,
                (const char *)css->data);
    ep_html_element(html, "h1", "Expert parallelism on %s", run->host != NULL ? run->host : "a host");
    ep_html_raw(html, "<nav aria-label=\"Sections\">\n");
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        ep_html_raw(html, "<a href=\"#%s\">%s</a>\n", sections[i].id, sections[i].name);
    }
    ep_html_raw(html, "</nav>\n</header>\n<main>\n");
}

enum ep_status ep_report_make(const struct ep_report_input *in, char **text, size_t *length)
{
    struct ep_html html;
    enum ep_status status = ep_html_init(&html);
    if (status != EP_OK) {
        return status;
    }
    put_head(in, &html);
    ep_report_put_summary(in, &html);
    EP_TRY(ep_report_put_figures(in, &html));
    ep_report_put_doubts(in, &html);
    ep_report_put_fit(in, &html);
    EP_TRY(ep_report_put_layer(in, &html));
    EP_TRY(ep_report_put_links(in, &html));
    EP_TRY(ep_report_put_kernels(in, &html));
    ep_report_put_harness(in, &html);
    ep_report_put_machine(in, &html);
    ep_report_put_runs(in, &html);
    ep_report_put_words(&html);
    ep_html_raw(&html, "</main>\n<footer>");
    ep_html_put(&html, "Made by epbench report from run.json and records.jsonl; this page refers to "
                "nothing outside itself.");
    ep_html_raw(&html, "</footer>\n</body>\n</html>\n");
    EP_TRY(ep_html_finish(&html, text, length));
out:
    ep_html_fini(&html);
    return status;
}

/* Whether a file may be written at `path`: there is none, or one that ep_report_write() made. */
static enum ep_status check_replaceable(const char *path)
{
    char start[512];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return errno == ENOENT ? EP_OK
                               : ep_error_set(EP_EIO, "%s: cannot be opened: %s", path,
                                              strerror(errno));
    }
    const size_t length = fread(start, 1, sizeof start - 1, file);
    fclose(file);
    start[length] = '\0';
    return strstr(start, generator) != NULL
               ? EP_OK
               : ep_error_set(EP_EINVAL, "%s exists and is not a report of epbench; move it away",
                              path);
}

enum ep_status ep_report_write(const struct ep_report_input *in, const char *path)
{
    enum ep_status status = EP_OK;
    char *text = NULL;
    size_t length = 0;
    EP_TRY(check_replaceable(path));
    EP_TRY(ep_report_make(in, &text, &length));
    EP_TRY(ep_file_write(path, text, length));
out:
    free(text);
    return status;
}

/* --- terminal -------------------------------------------------------------------------------- */

static enum ep_status print_groups(const struct ep_report_input *in, FILE *out)
{
    static const char *const headers[] = {"group", "rung", "held-out %", "noise floor %",
                                          "bandwidth"};
    struct ep_table *table = NULL;
    char text[512];
    enum ep_status status = ep_table_create(headers, 5, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        const struct ep_fit_rung *r = ep_fit_chosen(g);
        ep_table_add(table, "%s", g->name);
        ep_table_add(table, "%s", r != NULL ? r->rung->name : "-");
        ep_table_add(table, "%s", ep_report_percent(r != NULL ? r->held_out.median_ape : NAN, text,
                                                    sizeof text));
        ep_table_add(table, "%s", ep_report_percent(g->noise_floor, text, sizeof text));
        ep_table_add(table, "%s", ep_report_bandwidth(r, text, sizeof text));
    }
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    return status;
}

enum ep_status ep_report_print(const struct ep_report_input *in, FILE *out)
{
    enum ep_status status = EP_OK;
    const struct ep_report_facts *f = in->facts;
    char text[512];
    int64_t num_warnings = 0, num_drawn = 0, num_figures = 0;
    for (int64_t i = 0; i < f->num_doubts; i++) {
        num_warnings += f->doubts[i].total;
    }
    for (int64_t i = 0; in->figures[i].name != NULL; i++) {
        num_drawn += in->results[i].drawn;
        num_figures++;
    }
    fprintf(out, "machine: %s; %" PRId64 " rank%s on %" PRId64 " node%s\n", machine_text(&in->runs[0]),
            in->runs[0].num_ranks, in->runs[0].num_ranks == 1 ? "" : "s", in->runs[0].num_nodes,
            in->runs[0].num_nodes == 1 ? "" : "s");
    if (in->fit->num_primary > 0) {
        EP_TRY(print_groups(in, out));
    } else {
        fprintf(out, "no model: %s\n",
                in->fit_failure != NULL ? in->fit_failure : "there are no comm records");
    }
    if (f->slowest_level >= 0) {
        fprintf(out, "slowest level: %s\n",
                level_text(&f->levels[f->slowest_level], text, sizeof text));
    } else {
        fprintf(out, "slowest level: not known, no links were measured\n");
    }
    fprintf(out, "warnings: %" PRId64 " of %" PRId64 " kinds; failed checks: %" PRId64 " of %" PRId64
            "; figures: %" PRId64 " of %" PRId64 " drawn\n", num_warnings, f->num_doubts,
            f->num_failed, f->num_checked, num_drawn, num_figures);
out:
    return status;
}
