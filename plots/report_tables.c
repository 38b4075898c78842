/* SPDX-License-Identifier: Apache-2.0 */
/* Sections of the report that are tables of measurements: fit, links, kernels. */
#include "plots/report.h"

#include "base/stats.h"
#include "base/units.h"
#include "results/fit_explain.h"
#include "results/parts.h"
#include "results/machine_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- fit ------------------------------------------------------------------------------------- */

static void put_parameters(const struct ep_fit_rung *r, struct ep_html *html)
{
    char text[512];
    ep_html_raw(html, "<td>");
    for (int j = 0; j < r->num_parameters; j++) {
        ep_html_raw(html, "%s", j > 0 ? "<br>" : "");
        ep_html_put(html, "%s %s", r->parameters[j].name,
                    r->parameters[j].withheld != NULL
                        ? "withheld"
                        : ep_report_parameter(&r->parameters[j], text, sizeof text));
    }
    ep_html_raw(html, "</td>");
    html->next_cell++;
}

static void put_rung(const struct ep_fit_rung *r, struct ep_html *html)
{
    const double errors[] = {r->held_out.median_ape, r->held_out.p95_ape, r->held_out.max_ape,
                             r->in_sample.median_ape, r->extrapolation.median_ape, r->coverage};
    char text[32];
    ep_html_row(html);
    ep_html_cell(html, "%s%s", r->rung->name, r->chosen ? " (chosen)" : "");
    ep_html_cell(html, "%s", r->rung->formula);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        ep_html_cell(html, "%s", ep_report_percent(errors[i], text, sizeof text));
    }
    if (r->same_as != NULL) {
        ep_html_cell(html, "predicts the same as %s on these records", r->same_as->name);
    } else {
        put_parameters(r, html);
    }
}

/* Reasons under the table, where they do not stretch its rows. */
static void put_withheld(const struct ep_fit_group *g, struct ep_html *html)
{
    bool any = false;
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        const struct ep_fit_rung *r = &g->rungs[i];
        const char *reason, *advice;
        char names[256];
        for (int from = 0; r->same_as == NULL && ep_fit_next_withheld(r, &from, names, sizeof names,
                                                                      &reason, &advice);) {
            ep_html_raw(html, "%s", any ? "" : "<ul>\n");
            ep_html_element(html, "li", "%s, %s withheld: %s%s%s", r->rung->name, names, reason,
                            advice != NULL ? ". Would tell: " : "", advice != NULL ? advice : "");
            any = true;
        }
    }
    ep_html_raw(html, "%s", any ? "</ul>\n" : "");
}

void ep_report_put_lines(char *text, struct ep_html *html)
{
    char *rest = NULL;
    bool in_list = false;
    for (const char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        const bool is_item = line[0] == ' ';
        if (is_item != in_list) {
            ep_html_raw(html, "%s", is_item ? "<ul>\n" : "</ul>\n");
            in_list = is_item;
        }
        ep_html_element(html, is_item ? "li" : "p", "%s", line);
    }
    ep_html_raw(html, "%s", in_list ? "</ul>\n" : "");
}

static void put_words(const struct ep_fit_group *g, struct ep_html *html)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    const bool told = out != NULL && ep_fit_explain(g, out) == EP_OK;
    if (out == NULL || fclose(out) != 0 || !told) {
        free(text);
        return; /* the table says it too */
    }
    char *end = strchr(text, '\n'); /* the first line is the group's name, as the heading */
    if (end != NULL) {
        ep_report_put_lines(end + 1, html);
    }
    free(text);
}

/* What kernels records say of a rank's GEMMs and copies. */
static enum ep_status put_rooflines(const struct ep_report_input *in, struct ep_html *html)
{
    enum ep_status status = EP_OK;
    struct ep_compute_fit fit = {0};
    struct ep_fit_options options;
    char *text = NULL;
    size_t length = 0;
    ep_fit_options_default(&options);
    EP_TRY(ep_compute_fit_records(in->records, &options, &fit));
    FILE *out = open_memstream(&text, &length);
    if (out != NULL) {
        ep_parts_explain_kernels(&fit, out);
        if (fclose(out) == 0) {
            ep_report_put_lines(text, html);
        }
    }
    free(text);
out:
    ep_compute_fit_fini(&fit);
    return status;
}

static void put_group(const struct ep_fit_group *g, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Rung", false}, {"Time", false}, {"Median %", true}, {"p95 %", true}, {"Max %", true},
        {"In-sample %", true}, {"Largest size %", true}, {"Coverage %", true},
        {"Parameters (95 % interval)", false}, {NULL, false},
    };
    char caption[512], floor[32], launch[32];
    ep_html_element(html, "h3", "%s", g->name);
    put_words(g, html);
    snprintf(caption, sizeof caption, "%s time of %" PRId64 " cases: %" PRId64 " skews, %" PRId64
             " sizes, bytes in the basis of %s. Errors on held-out %ss; noise floor %s %%%s%s%s",
             g->target, g->num_cases, g->num_skews, g->num_sizes,
             g->record->byte_basis != NULL ? g->record->byte_basis : "the transport",
             g->num_folds > 1 ? g->fold_kind : "case",
             ep_report_percent(g->noise_floor, floor, sizeof floor),
             isnan(g->launch_noise_floor) ? "" : ", between launches ",
             isnan(g->launch_noise_floor)
                 ? "" : ep_report_percent(g->launch_noise_floor, launch, sizeof launch),
             isnan(g->launch_noise_floor) ? "" : " %");
    ep_html_table_open(html, caption, columns);
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        if (g->rungs[i].is_fitted) {
            put_rung(&g->rungs[i], html);
        }
    }
    ep_html_table_close(html);
    put_withheld(g, html);
    for (int64_t i = 0; i < g->notes.num; i++) {
        ep_html_element(html, "p", "Note: %s", g->notes.items[i].text);
    }
}

void ep_report_put_fit(const struct ep_report_input *in, struct ep_html *html)
{
    ep_html_element(html, "h2 id=\"fit\"", "Fit of the cost model");
    if (in->fit->num_groups == 0) {
        ep_html_element(html, "p class=\"none\"", "Nothing was fitted: %s",
                        in->fit_failure != NULL ? in->fit_failure : "there are no comm records");
        return;
    }
    ep_html_element(html, "p", "Each rung is fitted to the same cases and scored on cases held out of "
                    "the fit. Chosen is the simplest within one standard error of the best. No model "
                    "can be much better than the noise floor, by which two visits of one case differ. "
                    "Largest size: predicted from the smaller ones. Coverage: cases inside their 95 %% "
                    "prediction interval. Remote bytes leave their rank; P ranks, n messages posted by "
                    "the busiest rank, H_rank the most bytes in or out of any rank.");
    for (int64_t i = 0; i < in->fit->num_groups; i++) {
        put_group(&in->fit->groups[i], html);
    }
    for (int64_t i = 0; i < in->fit->notes.num; i++) {
        ep_html_element(html, "p", "Note: %s", in->fit->notes.items[i].text);
    }
}

/* --- links ----------------------------------------------------------------------------------- */

static void put_levels(const struct ep_report_facts *facts, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Level", false}, {"Latency", true}, {"of bytes", true}, {"Bandwidth of one pair", true},
        {"at message size", true}, {"Pairs at once", true}, {"Bandwidth of each then", true},
        {"Binds, comm records", true}, {NULL, false},
    };
    char text[32];
    ep_html_table_open(html, "Each level: the smallest message one way, and the best bandwidth; "
                       "physical, one direction", columns);
    for (int64_t i = 0; i < facts->num_levels; i++) {
        const struct ep_report_level *l = &facts->levels[i];
        const bool together = l->concurrent_pairs >= 0;
        ep_html_row(html);
        ep_html_cell(html, "%s", l->name);
        ep_html_cell(html, "%s", ep_format_time(l->latency_s, text, sizeof text));
        ep_html_cell(html, "%s", l->latency_size_bytes < 0
                                     ? "-" : ep_format_bytes((double)l->latency_size_bytes, text,
                                                             sizeof text));
        ep_html_cell(html, "%s", ep_format_bandwidth(l->bw_bytes_per_s, text, sizeof text));
        ep_html_cell(html, "%s", l->bw_size_bytes < 0
                                     ? "-" : ep_format_bytes((double)l->bw_size_bytes, text,
                                                             sizeof text));
        if (together) {
            ep_html_cell(html, "%" PRId64, l->concurrent_pairs);
        } else {
            ep_html_cell(html, "-");
        }
        ep_html_cell(html, "%s", ep_format_bandwidth(l->concurrent_bw_bytes_per_s, text,
                                                     sizeof text));
        ep_html_cell(html, "%" PRId64, l->num_binding);
    }
    ep_html_table_close(html);
}

enum ep_status ep_report_put_links(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Level", false}, {"Pattern", false}, {"Pairs at once", true}, {"Message", true},
        {"Time one way", true}, {"Bandwidth of a pair", true}, {NULL, false},
    };
    enum ep_status status = EP_OK;
    struct ep_link_point *points = NULL;
    int64_t num = 0;
    char text[32];
    ep_html_element(html, "h2 id=\"links\"", "Links");
    EP_TRY(ep_link_points_pool(in->records, &points, &num));
    if (num == 0) {
        ep_html_element(html, "p", "No links were measured (epbench links).");
        goto out;
    }
    put_levels(in->facts, html);
    ep_html_table_open(html, "Every point, pooled over visits: pingpong gives latency, window the "
                       "bandwidth that a link keeps up", columns);
    for (int64_t i = 0; i < num; i++) {
        ep_html_row(html);
        ep_html_cell(html, "%s", points[i].level);
        ep_html_cell(html, "%s", points[i].pattern);
        ep_html_cell(html, "%" PRId64, points[i].concurrent_pairs);
        ep_html_cell(html, "%s", ep_format_bytes((double)points[i].size_bytes, text, sizeof text));
        ep_html_cell(html, "%s", ep_format_time(points[i].time_s, text, sizeof text));
        ep_html_cell(html, "%s", ep_format_bandwidth(points[i].bw_bytes_per_s, text, sizeof text));
    }
    ep_html_table_close(html);
out:
    free(points);
    return status;
}

/* --- kernels --------------------------------------------------------------------------------- */

enum { MAX_BACKENDS = 8 };

/* GEMM records by what is multiplied, so that back ends of one shape stand in one row. */
struct gemms {
    const struct ep_record **items; /* [num] sorted */
    int64_t num;
    const char *backends[MAX_BACKENDS];
    int num_backends;
    double *room; /* [num] */
};

static const char *text_of(const char *text)
{
    return text != NULL ? text : "";
}

static int compare_shapes(const struct ep_record *a, const struct ep_record *b)
{
    const int64_t left[] = {a->gemm.n, a->gemm.k, a->ranks_active, a->gemm.m, a->gemm.groups,
                            a->gemm.weights_cold};
    const int64_t right[] = {b->gemm.n, b->gemm.k, b->ranks_active, b->gemm.m, b->gemm.groups,
                             b->gemm.weights_cold};
    int order = strcmp(text_of(a->gemm.dtype), text_of(b->gemm.dtype));
    order = order != 0 ? order : strcmp(text_of(a->model), text_of(b->model));
    for (size_t i = 0; i < sizeof left / sizeof left[0] && order == 0; i++) {
        order = (left[i] > right[i]) - (left[i] < right[i]);
    }
    return order;
}

static int compare_gemms(const void *a, const void *b)
{
    return compare_shapes(*(const struct ep_record *const *)a, *(const struct ep_record *const *)b);
}

static bool is_gemm(const struct ep_record *r)
{
    return r->kind == EP_RECORD_KERNELS && r->gemm.backend != NULL && !isnan(r->flops_per_s);
}

/* The columns of back ends, in order of appearance; more than fit are left out of the table. */
static void add_backend(struct gemms *gemms, const char *name)
{
    for (int b = 0; b < gemms->num_backends; b++) {
        if (strcmp(gemms->backends[b], name) == 0) {
            return;
        }
    }
    if (gemms->num_backends < MAX_BACKENDS) {
        gemms->backends[gemms->num_backends++] = name;
    }
}

/* Median over visits of the rate of one back end among records [first, next). NaN = not measured. */
static double rate_of(const struct gemms *gemms, int64_t first, int64_t next, const char *backend)
{
    int64_t num = 0;
    for (int64_t i = first; i < next; i++) {
        if (strcmp(gemms->items[i]->gemm.backend, backend) == 0) {
            gemms->room[num++] = gemms->items[i]->flops_per_s;
        }
    }
    if (num == 0) {
        return NAN;
    }
    ep_stats_sort(gemms->room, num);
    return ep_stats_median_sorted(gemms->room, num);
}

/* The best measured peak of a dtype with as many ranks at work. */
static double peak_of(const struct ep_records *records, const struct ep_record *like)
{
    double peak = NAN;
    for (int64_t i = 0; i < records->num; i++) {
        const struct ep_record *r = &records->items[i];
        if (r->kind == EP_RECORD_KERNELS && r->kernel != NULL && strcmp(r->kernel, "peak") == 0 &&
            strcmp(text_of(r->dtype), text_of(like->gemm.dtype)) == 0 &&
            r->ranks_active == like->ranks_active) {
            peak = fmax(peak, r->flops_per_s);
        }
    }
    return peak;
}

static void put_rate(double flops_per_s, struct ep_html *html)
{
    if (isnan(flops_per_s)) {
        ep_html_cell(html, "-");
    } else {
        ep_html_cell(html, "%.1f", flops_per_s / 1e9);
    }
}

static void put_shape(const struct ep_report_input *in, const struct gemms *gemms, int64_t first,
                      int64_t next, struct ep_html *html)
{
    const struct ep_record *r = gemms->items[first];
    const double peak = peak_of(in->records, r);
    const double roof = r->flops_per_s * r->median_s / r->bound_s; /* NaN without a bound */
    double best = NAN;
    char text[32];
    ep_html_row(html);
    ep_html_cell(html, "%s %s", r->model != NULL ? r->model : "shape", text_of(r->gemm.dtype));
    ep_html_cell(html, "%" PRId64 " x %" PRId64, r->gemm.k, r->gemm.n);
    ep_html_cell(html, "%" PRId64, r->gemm.m);
    ep_html_cell(html, "%" PRId64, r->ranks_active);
    for (int b = 0; b < gemms->num_backends; b++) {
        const double rate = rate_of(gemms, first, next, gemms->backends[b]);
        best = fmax(best, rate);
        put_rate(rate, html);
    }
    put_rate(peak, html);
    ep_html_cell(html, "%s", ep_report_percent(best / peak, text, sizeof text));
    put_rate(roof, html);
    ep_html_cell(html, "%s", ep_report_percent(best / roof, text, sizeof text));
}

static void put_gemms(const struct ep_report_input *in, const struct gemms *gemms,
                      struct ep_html *html)
{
    struct ep_html_column columns[MAX_BACKENDS + 9] = {
        {"Expert", false}, {"k x n", true}, {"Tokens", true}, {"Ranks at once", true}};
    int num = 4;
    for (int b = 0; b < gemms->num_backends; b++) {
        columns[num++] = (struct ep_html_column){gemms->backends[b], true};
    }
    columns[num++] = (struct ep_html_column){"Measured peak", true};
    columns[num++] = (struct ep_html_column){"Best, % of it", true};
    columns[num++] = (struct ep_html_column){"Roofline", true};
    columns[num] = (struct ep_html_column){"Best, % of it", true};
    ep_html_table_open(html, "Expert GEMMs: GFLOP/s of all ranks at work together, by back end. "
                       "Roofline: the lower of measured peak and what reading the weights from "
                       "memory allows", columns);
    for (int64_t first = 0, next; first < gemms->num; first = next) {
        next = first + 1;
        while (next < gemms->num && compare_shapes(gemms->items[first], gemms->items[next]) == 0) {
            next++;
        }
        put_shape(in, gemms, first, next, html);
    }
    ep_html_table_close(html);
}

static int compare_streams(const void *a, const void *b)
{
    const struct ep_record *left = *(const struct ep_record *const *)a;
    const struct ep_record *right = *(const struct ep_record *const *)b;
    const int64_t l[] = {left->working_set_bytes, left->ranks_active};
    const int64_t r[] = {right->working_set_bytes, right->ranks_active};
    int order = strcmp(left->kernel, right->kernel);
    for (int i = 0; i < 2 && order == 0; i++) {
        order = (l[i] > r[i]) - (l[i] < r[i]);
    }
    return order;
}

/* Reads, writes and copies: the fastest loop of each kind, working set and number of ranks. */
static enum ep_status put_streams(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Kernel", false}, {"Working set of a rank", true}, {"Ranks at once", true},
        {"Read plus written, all ranks", true}, {NULL, false},
    };
    const struct ep_record **items = calloc((size_t)in->records->num + 1, sizeof *items);
    int64_t num = 0;
    char text[32];
    if (items == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for kernels records");
    }
    for (int64_t i = 0; i < in->records->num; i++) {
        const struct ep_record *r = &in->records->items[i];
        if (r->kind == EP_RECORD_KERNELS && r->kernel != NULL && r->gemm.backend == NULL &&
            !isnan(r->bw_bytes_per_s)) {
            items[num++] = r;
        }
    }
    qsort(items, (size_t)num, sizeof *items, compare_streams);
    if (num > 0) {
        ep_html_table_open(html, "Memory: the fastest loop of each kind", columns);
    }
    for (int64_t first = 0, next; first < num; first = next) {
        double best = items[first]->bw_bytes_per_s;
        for (next = first + 1; next < num && compare_streams(&items[first], &items[next]) == 0;
             next++) {
            best = fmax(best, items[next]->bw_bytes_per_s);
        }
        const struct ep_record *r = items[first];
        ep_html_row(html);
        ep_html_cell(html, "%s", r->kernel);
        ep_html_cell(html, "%s", r->working_set_bytes < 0
                                     ? "-" : ep_format_bytes((double)r->working_set_bytes, text,
                                                             sizeof text));
        if (r->ranks_active < 0) {
            ep_html_cell(html, "-");
        } else {
            ep_html_cell(html, "%" PRId64, r->ranks_active);
        }
        ep_html_cell(html, "%s", ep_format_bandwidth(best, text, sizeof text));
    }
    if (num > 0) {
        ep_html_table_close(html);
    }
    free(items);
    return EP_OK;
}

enum ep_status ep_report_put_kernels(const struct ep_report_input *in, struct ep_html *html)
{
    enum ep_status status = EP_OK;
    struct gemms gemms = {0};
    ep_html_element(html, "h2 id=\"kernels\"", "Kernels");
    if (in->facts->counts[EP_RECORD_KERNELS].num_records == 0) {
        ep_html_element(html, "p", "No kernels were measured (epbench kernels).");
        return EP_OK;
    }
    gemms.items = calloc((size_t)in->records->num + 1, sizeof *gemms.items);
    gemms.room = calloc((size_t)in->records->num + 1, sizeof *gemms.room);
    if (gemms.items == NULL || gemms.room == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for kernels records"));
    }
    for (int64_t i = 0; i < in->records->num; i++) {
        if (is_gemm(&in->records->items[i])) {
            gemms.items[gemms.num++] = &in->records->items[i];
            add_backend(&gemms, in->records->items[i].gemm.backend);
        }
    }
    qsort(gemms.items, (size_t)gemms.num, sizeof *gemms.items, compare_gemms);
    if (gemms.num > 0) {
        put_gemms(in, &gemms, html);
    }
    EP_TRY(put_rooflines(in, html));
    EP_TRY(put_streams(in, html));
out:
    free(gemms.items);
    free(gemms.room);
    return status;
}
