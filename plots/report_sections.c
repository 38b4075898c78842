/* SPDX-License-Identifier: Apache-2.0 */
/* Sections of the report that are mostly text: figures, doubts, harness, machine, runs, words. */
#include "plots/report.h"

#include "base/file.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- figures --------------------------------------------------------------------------------- */

/* The drawing of one figure; *drawn says whether it is in the page, else `reason` says why not. */
static enum ep_status put_drawing(const struct ep_report_input *in, const struct ep_figure *figure,
                                  struct ep_html *html, bool *drawn, char *reason, size_t length)
{
    enum ep_status status = EP_OK;
    char *path = ep_format_new("%s/plots/%s.svg", in->directories[0], figure->name);
    char *svg = NULL;
    size_t svg_length = 0;
    *drawn = false;
    if (path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    EP_TRY(ep_file_read(path, 16 << 20, &svg, &svg_length));
    EP_TRY(ep_html_put_svg(html, svg, figure->name, figure->title));
    *drawn = true;
out:
    if (status != EP_OK && status != EP_ENOMEM) {
        snprintf(reason, length, "%s", ep_error_text());
        ep_error_clear();
        status = EP_OK;
    }
    free(path);
    free(svg);
    return status;
}

static enum ep_status put_figure(const struct ep_report_input *in, int64_t idx,
                                 struct ep_html *html)
{
    enum ep_status status = EP_OK;
    const struct ep_figure *figure = &in->figures[idx];
    bool drawn = false;
    char reason[512];
    snprintf(reason, sizeof reason, "%s", in->results[idx].reason);
    ep_html_element(html, "h3", "%s", figure->title);
    ep_html_raw(html, "<figure id=\"figure-");
    ep_html_put(html, "%s", figure->name);
    ep_html_raw(html, "\">\n");
    if (in->results[idx].drawn) {
        EP_TRY(put_drawing(in, figure, html, &drawn, reason, sizeof reason));
    }
    if (!drawn) {
        ep_html_element(html, "p class=\"none\"", "Not drawn: %s", reason);
    }
    ep_html_raw(html, "<figcaption>");
    ep_html_put(html, "%s", figure->caption);
    if (drawn) {
        ep_html_raw(html, " Data: <code>");
        ep_html_put(html, "plots/%s.tsv", figure->name);
        ep_html_raw(html, "</code>");
    }
    ep_html_raw(html, "</figcaption>\n</figure>\n");
out:
    return status;
}

enum ep_status ep_report_put_figures(const struct ep_report_input *in, struct ep_html *html)
{
    enum ep_status status = EP_OK;
    ep_html_element(html, "h2 id=\"figures\"", "Figures");
    for (int64_t i = 0; in->figures[i].name != NULL; i++) {
        EP_TRY(put_figure(in, i, html));
    }
    if (in->figures[0].name == NULL) {
        ep_html_element(html, "p", "None.");
    }
out:
    return status;
}

/* --- what not to trust ----------------------------------------------------------------------- */

/* What a warning means and what to do, by name. */
static const struct {
    const char *name;
    const char *advice;
} advices[] = {
    {"oversubscribed", "Ranks wait for a turn on a core, and that time is in every number: use fewer "
                       "ranks (-n)."},
    {"unbound-ranks", "Ranks may move between cores: bind them (mpirun --bind-to core)."},
    {"cpu-quota", "Ranks are stopped when the quota is used up: lift it, or use fewer ranks."},
    {"load", "Something else was running: measure on a quiet machine."},
    {"moving-ranks", "The distance between ranks changed during the run, as when virtual CPUs are moved "
                     "between host cores: visits of one case differ; trust medians over many visits."},
    {"coarse-clock", "Do not trust times near the clock's step."},
    {"debug-build", "No number of this run says anything: build with optimisation."},
    {"harness-agreement", "At that size the harness and a bare call could not be shown to agree within "
                          "1.5 %: see Harness. A control as wide means noise, not harness."},
    {"fan-out-sampled", "Tokens were drawn from recorded counts: load is real, fan-out is not."},
    {"trace-wraps", "The trace is shorter than the tokens asked for, so its rows come again."},
    {"truncated-record", "A crash cut a record short; it was removed, the others stand."},
    {"wide-interval", "The median is known to worse than 2 %: give a case more time (--case-time) "
                      "before comparing numbers that lie closer than the interval."},
    {"no-interval", "Too few samples for an interval: give the case more time."},
    {"autocorrelated", "Neighbouring samples resemble each other, so the interval is too narrow: trust "
                       "the spread between visits."},
    {"harness-cost", "The harness costs more than 1 % of this median: the case is too short to be "
                     "timed so."},
    {"page-faults", "Memory was touched for the first time, or moved, inside the timing: warm up more "
                    "(--warmup)."},
    {"context-switches", "Ranks were interrupted: leave a core to the system, or stop other work."},
    {"steal", "The hypervisor took CPU time away: the neighbours' load is in these numbers."},
    {"clock", "The time is near the clock's step: batch more repetitions."},
};

static const char *advice_of(const struct ep_report_doubt *doubt)
{
    for (size_t i = 0; i < sizeof advices / sizeof advices[0]; i++) {
        if (strcmp(advices[i].name, doubt->name) == 0) {
            return advices[i].advice;
        }
    }
    return "See the text beside it.";
}

/* "run 1, comm 134, kernels 181" */
static void format_where(const struct ep_report_doubt *doubt, char *text, size_t length)
{
    size_t used = 0;
    text[0] = '\0';
    if (doubt->num_runs > 0) {
        used += (size_t)snprintf(text, length, "run %" PRId64, doubt->num_runs);
    }
    for (int k = 0; k < EP_RECORD_NUM_KINDS && used < length; k++) {
        if (doubt->num_records[k] > 0) {
            used += (size_t)snprintf(text + used, length - used, "%s%s %" PRId64,
                                     used > 0 ? ", " : "", ep_record_kind_name(k),
                                     doubt->num_records[k]);
        }
    }
}

static void put_failed_checks(const struct ep_report_input *in, struct ep_html *html)
{
    enum { MOST = 20 };
    int64_t shown = 0;
    if (in->facts->num_failed == 0) {
        return;
    }
    ep_html_element(html, "p class=\"failed\"", "Records whose check failed:");
    ep_html_raw(html, "<ul>\n");
    for (int64_t i = 0; i < in->records->num && shown < MOST; i++) {
        const struct ep_record *r = &in->records->items[i];
        if (r->verified == 0) {
            ep_html_element(html, "li", "%s (%s): of %" PRId64 " rows %" PRId64 " wrong, %" PRId64
                            " missing, %" PRId64 " doubled", r->case_name, r->record_id,
                            r->check.rows, r->check.wrong, r->check.missing, r->check.doubled);
            shown++;
        }
    }
    if (shown < in->facts->num_failed) {
        ep_html_element(html, "li", "and %" PRId64 " more", in->facts->num_failed - shown);
    }
    ep_html_raw(html, "</ul>\n");
}

void ep_report_put_doubts(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Warning", false}, {"Where, how often", false}, {"What to do", false},
        {"For example", false}, {NULL, false},
    };
    char where[256];
    ep_html_element(html, "h2 id=\"doubts\"", "What not to trust");
    put_failed_checks(in, html);
    for (int64_t i = 0; i < in->records->warnings.num; i++) {
        ep_html_element(html, "p class=\"none\"", "%s", in->records->warnings.items[i].text);
    }
    if (in->facts->num_doubts == 0) {
        ep_html_element(html, "p", "Neither the run nor any record carries a warning.");
        return;
    }
    ep_html_table_open(html, "Warnings by name; a record may carry several", columns);
    for (int64_t i = 0; i < in->facts->num_doubts; i++) {
        const struct ep_report_doubt *doubt = &in->facts->doubts[i];
        format_where(doubt, where, sizeof where);
        ep_html_row(html);
        ep_html_cell(html, "%s", doubt->name);
        ep_html_cell(html, "%s", where);
        ep_html_cell(html, "%s", advice_of(doubt));
        ep_html_cell(html, "%s", doubt->example);
    }
    ep_html_table_close(html);
}

/* --- harness --------------------------------------------------------------------------------- */

static const char bare_prefix[] = "harness against bare MPI_Alltoallv, ";

static bool is_bare_fact(const struct ep_record_note *fact)
{
    return strncmp(fact->name, bare_prefix, sizeof bare_prefix - 1) == 0;
}

static void put_bare(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Bytes", false}, {"Exchange phase / bare call (95 % interval)", false}, {NULL, false},
    };
    bool any = false;
    for (int i = 0; i < in->num_runs; i++) {
        const struct ep_record_notes *facts = &in->runs[i].machine_facts;
        for (int64_t f = 0; f < facts->num; f++) {
            if (!is_bare_fact(&facts->items[f])) {
                continue;
            }
            if (!any) {
                ep_html_table_open(html, "The exchange phase against a bare MPI_Alltoallv on the same "
                                   "counts and buffers, in random order; the control is the bare call "
                                   "against itself", columns);
            }
            any = true;
            ep_html_row(html);
            ep_html_cell(html, "%s", facts->items[f].name + sizeof bare_prefix - 1);
            ep_html_cell(html, "%s", facts->items[f].text);
        }
    }
    if (any) {
        ep_html_table_close(html);
    } else {
        ep_html_element(html, "p", "The harness was not compared with a bare MPI_Alltoallv in this "
                        "run (epbench run does so on two and more ranks).");
    }
}

void ep_report_put_harness(const struct ep_report_input *in, struct ep_html *html)
{
    const struct ep_report_facts *f = in->facts;
    char cost[32];
    ep_html_element(html, "h2 id=\"harness\"", "What the harness itself costs");
    if (f->null_record == NULL) {
        ep_html_element(html, "p", "No record says what the harness costs.");
    } else {
        ep_html_raw(html, "<p>");
        ep_html_put(html, "The null transport, which moves nothing, takes at most %s per repetition. "
                    "Its largest share of any reported median is %.3g %%, in ",
                    ep_format_time(f->null_s, cost, sizeof cost), 100 * f->null_share);
        ep_html_raw(html, "<code>");
        ep_html_put(html, "%s", f->null_record->case_name);
        ep_html_raw(html, "</code>.</p>\n");
    }
    put_bare(in, html);
}

/* --- machine --------------------------------------------------------------------------------- */

static void put_fact(struct ep_html *html, const char *name, const char *text)
{
    if (text != NULL && text[0] != '\0') {
        ep_html_row(html);
        ep_html_cell(html, "%s", name);
        ep_html_cell(html, "%s", text);
    }
}

static void put_ranks(const struct ep_run *run, struct ep_html *html)
{
    enum { MOST = 64 };
    static const struct ep_html_column columns[] = {
        {"Rank", true}, {"Host", false}, {"Node", true}, {"Bound to CPUs", false}, {NULL, false},
    };
    if (run->ranks.num == 0) {
        return;
    }
    ep_html_table_open(html, run->ranks.num > MOST ? "Ranks: the first 64" : "Ranks", columns);
    for (int64_t i = 0; i < run->ranks.num && i < MOST; i++) {
        const struct ep_run_rank *rank = &run->ranks.items[i];
        ep_html_row(html);
        ep_html_cell(html, "%" PRId64, rank->rank);
        ep_html_cell(html, "%s", rank->host != NULL ? rank->host : "-");
        ep_html_cell(html, "%" PRId64, rank->node);
        ep_html_cell(html, "%s", rank->cpus != NULL && rank->cpus[0] != '\0' ? rank->cpus
                                                                             : "not bound");
    }
    ep_html_table_close(html);
}

void ep_report_put_machine(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {{"Fact", false}, {"Value", false}, {NULL, false}};
    const struct ep_run *run = &in->runs[0];
    ep_html_element(html, "h2 id=\"machine\"", "Machine");
    ep_html_table_open(html, "Of rank 0's host, as found when the run began", columns);
    put_fact(html, "host", run->host);
    put_fact(html, "machine", run->machine);
    for (int64_t i = 0; i < run->machine_facts.num; i++) {
        if (!is_bare_fact(&run->machine_facts.items[i])) {
            put_fact(html, run->machine_facts.items[i].name, run->machine_facts.items[i].text);
        }
    }
    put_fact(html, "MPI", run->mpi_version);
    for (int64_t i = 0; i < run->mpi_settings.num; i++) {
        put_fact(html, run->mpi_settings.items[i].name, run->mpi_settings.items[i].text);
    }
    put_fact(html, "epbench", run->version);
    put_fact(html, "compiler", run->compiler);
    put_fact(html, "flags", run->flags);
    ep_html_table_close(html);
    put_ranks(run, html);
}

/* --- what was run ---------------------------------------------------------------------------- */

static void format_utc(double utc_s, char *text, size_t length)
{
    const time_t seconds = (time_t)utc_s;
    struct tm parts;
    if (isnan(utc_s) || gmtime_r(&seconds, &parts) == NULL ||
        strftime(text, length, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
        snprintf(text, length, "time not recorded");
    }
}

static void put_notes(struct ep_html *html, const char *title, const struct ep_record_notes *notes)
{
    if (notes->num == 0) {
        return;
    }
    ep_html_element(html, "p", "%s", title);
    ep_html_raw(html, "<ul>\n");
    for (int64_t i = 0; i < notes->num; i++) {
        ep_html_element(html, "li", "%s: %s", notes->items[i].name, notes->items[i].text);
    }
    ep_html_raw(html, "</ul>\n");
}

static void put_run(const struct ep_report_input *in, int idx, struct ep_html *html)
{
    const struct ep_run *run = &in->runs[idx];
    char when[64];
    format_utc(run->start_utc_s, when, sizeof when);
    ep_html_element(html, "h3", "%s", run->run_id != NULL ? run->run_id : in->directories[idx]);
    ep_html_element(html, "p", "Begun %s, %s%s, seed %" PRId64 ".", when,
                    run->profile != NULL ? "profile " : "no profile",
                    run->profile != NULL ? run->profile : "", run->seed);
    if (run->commands.num > 0) {
        ep_html_raw(html, "<ul>\n");
        for (int64_t i = 0; i < run->commands.num; i++) {
            format_utc(run->commands.items[i].start_utc_s, when, sizeof when);
            ep_html_raw(html, "<li><code>");
            ep_html_put(html, "%s", run->commands.items[i].command_line);
            ep_html_raw(html, "</code> ");
            ep_html_put(html, "at %s", when);
            ep_html_raw(html, "</li>\n");
        }
        ep_html_raw(html, "</ul>\n");
    }
    put_notes(html, "Skipped, and why:", &run->skipped);
}

void ep_report_put_runs(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Kind", false}, {"Cases", true}, {"Records (visits)", true}, {"Visits of a case", true},
        {"Launches", true}, {NULL, false},
    };
    bool skipped = false;
    ep_html_element(html, "h2 id=\"runs\"", "What was run");
    ep_html_table_open(html, "A case is one point of the sweep; a record is one visit of it", columns);
    for (int k = 0; k < EP_RECORD_NUM_KINDS; k++) {
        const struct ep_report_count *count = &in->facts->counts[k];
        if (count->num_records == 0) {
            continue;
        }
        ep_html_row(html);
        ep_html_cell(html, "%s", ep_record_kind_name(k));
        ep_html_cell(html, "%" PRId64, count->num_cases);
        ep_html_cell(html, "%" PRId64, count->num_records);
        if (count->min_visits == count->max_visits) {
            ep_html_cell(html, "%" PRId64, count->min_visits);
        } else {
            ep_html_cell(html, "%" PRId64 " to %" PRId64, count->min_visits, count->max_visits);
        }
        ep_html_cell(html, "%" PRId64, count->num_launches);
    }
    ep_html_table_close(html);
    for (int i = 0; i < in->num_runs; i++) {
        put_run(in, i, html);
        skipped = skipped || in->runs[i].skipped.num > 0;
    }
    if (!skipped) {
        ep_html_element(html, "p", "Nothing was skipped.");
    }
}

/* --- words ----------------------------------------------------------------------------------- */

void ep_report_put_words(struct ep_html *html)
{
    static const char *const words[][2] = {
        {"copies", "bytes with one row per (token, expert): what the plain formula counts and alltoallv "
                   "moves."},
        {"rank-dedup", "one row per (token, rank), however many of its experts live there."},
        {"node-dedup", "one row per (token, node) on the network, fanned out inside the node."},
        {"physical", "bandwidth of the busiest rank's remote rows in its larger direction, padding "
                     "included, over the exchange."},
        {"logical", "all rows of the busiest rank, its own included, over the same time: what most "
                    "papers print. The two are never mixed."},
    };
    ep_html_element(html, "h2 id=\"words\"", "Words");
    ep_html_raw(html, "<ul>\n");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        ep_html_raw(html, "<li><strong>");
        ep_html_put(html, "%s", words[i][0]);
        ep_html_raw(html, "</strong>: ");
        ep_html_put(html, "%s", words[i][1]);
        ep_html_raw(html, "</li>\n");
    }
    ep_html_raw(html, "</ul>\n");
}
