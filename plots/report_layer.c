/* SPDX-License-Identifier: Apache-2.0 */
/* The section of the report on whole layers. */
#include "plots/report.h"

#include "base/stats.h"
#include "base/units.h"
#include "results/parts.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Records on several ranks, those of one case next to each other; one rank alone is in their efficiency. */
struct layers {
    const struct ep_record **items;
    int64_t num;
};

static int compare_layers(const void *a, const void *b)
{
    const struct ep_record *left = *(const struct ep_record *const *)a;
    const struct ep_record *right = *(const struct ep_record *const *)b;
    const int64_t l[] = {left->ranks, left->tokens};
    const int64_t r[] = {right->ranks, right->tokens};
    int order = strcmp(left->transport, right->transport);
    order = order != 0 ? order : strcmp(left->skew, right->skew);
    for (int i = 0; i < 2 && order == 0; i++) {
        order = (l[i] > r[i]) - (l[i] < r[i]);
    }
    return order != 0 ? order : strcmp(left->case_name, right->case_name);
}

static enum ep_status find_layers(const struct ep_report_input *in, struct layers *layers)
{
    *layers = (struct layers){.items = calloc((size_t)in->records->num + 1, sizeof *layers->items)};
    if (layers->items == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for layer records");
    }
    for (int64_t i = 0; i < in->records->num; i++) {
        const struct ep_record *r = &in->records->items[i];
        if (r->kind == EP_RECORD_LAYER && r->ranks > 1 && r->verified != 0) {
            layers->items[layers->num++] = r;
        }
    }
    qsort(layers->items, (size_t)layers->num, sizeof *layers->items, compare_layers);
    return EP_OK;
}

/* Median over the records [num] of one case, of a field at `offset`; NaN where none has it. scratch [num] */
static double pool(const struct ep_record *const *records, int64_t num, size_t offset,
                   double *scratch)
{
    int64_t known = 0;
    for (int64_t i = 0; i < num; i++) {
        double value = NAN;
        memcpy(&value, (const char *)records[i] + offset, sizeof value);
        if (!isnan(value)) {
            scratch[known++] = value;
        }
    }
    if (known == 0) {
        return NAN;
    }
    ep_stats_sort(scratch, known);
    return ep_stats_median_sorted(scratch, known);
}

static void put_case(const struct ep_record *const *records, int64_t num, double *scratch,
                     struct ep_html *html)
{
#define POOL(field) pool(records, num, offsetof(struct ep_record, field), scratch)
    const struct ep_record *r = records[0];
    const double tokens_per_s = POOL(tokens_per_s);
    const double shares[] = {POOL(utilisation), POOL(move_over_compute), POOL(wait_over_compute)};
    char text[32];
    ep_html_row(html);
    ep_html_cell(html, "%s", r->transport);
    ep_html_cell(html, "%s%s%s", r->skew, r->remedy != NULL ? ", " : "",
                 r->remedy != NULL ? r->remedy : "");
    ep_html_cell(html, "%" PRId64, r->ranks);
    ep_html_cell(html, "%" PRId64, r->tokens);
    ep_html_cell(html, "%s", ep_format_time(POOL(median_s), text, sizeof text));
    ep_html_cell(html, isnan(POOL(straggler)) ? "-" : "%.2f", POOL(straggler));
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        ep_html_cell(html, "%s", ep_report_percent(shares[i], text, sizeof text));
    }
    ep_html_cell(html, isnan(tokens_per_s) ? "-" : "%.4g", tokens_per_s);
    ep_html_cell(html, "%s", ep_report_percent(POOL(efficiency), text, sizeof text));
    ep_html_cell(html, "%s", ep_format_time(POOL(dense_s), text, sizeof text));
#undef POOL
}

/* How well the layer is predicted from its parts. */
static enum ep_status put_model(const struct ep_report_input *in, struct ep_html *html)
{
    enum ep_status status = EP_OK;
    struct ep_layer_fit fit = {0};
    struct ep_fit_options options;
    char *text = NULL;
    size_t length = 0;
    ep_fit_options_default(&options);
    options.num_bootstraps = 0;
    status = ep_layer_fit_records(in->records, &options, &fit);
    if (status == EP_EINVAL) { /* hosts are mixed, say */
        ep_html_element(html, "p", "The layer is not modelled: %s", ep_error_text());
        ep_error_clear();
        return EP_OK;
    }
    EP_TRY(status);
    FILE *out = open_memstream(&text, &length);
    if (out != NULL) {
        ep_parts_explain_layers(&fit, out);
        if (fclose(out) == 0) {
            ep_report_put_lines(text, html);
        }
    }
    free(text);
out:
    ep_layer_fit_fini(&fit);
    return status;
}

enum ep_status ep_report_put_layer(const struct ep_report_input *in, struct ep_html *html)
{
    static const struct ep_html_column columns[] = {
        {"Transport", false}, {"Skew", false}, {"Ranks", true}, {"Tokens", true}, {"Layer", true},
        {"Straggler", true}, {"Used %", true}, {"Moving %", true}, {"Waiting %", true},
        {"Tokens/s", true}, {"Efficiency %", true}, {"Dense FFN", true}, {NULL, false},
    };
    enum ep_status status = EP_OK;
    struct layers layers = {0};
    double *scratch = calloc((size_t)in->records->num + 1, sizeof *scratch);
    status = scratch == NULL ? ep_error_set(EP_ENOMEM, "no memory for layer records") : EP_OK;
    EP_TRY(status);
    EP_TRY(find_layers(in, &layers));
    ep_html_element(html, "h2 id=\"layer\"", "The layer");
    if (layers.num == 0) {
        ep_html_element(html, "p class=\"none\"", "No layer was measured on several ranks.");
        goto out;
    }
    ep_html_element(html, "p", "A whole layer: router, dispatch, experts, combine. Straggler: the "
                    "slowest rank's time in experts over the mean; used: the mean over the slowest. "
                    "Moving (exchanges without waits, packing) and waiting are over the time in experts; "
                    "above 30 %% moving is worth hiding. Efficiency: tokens/s over ranks times those of "
                    "one rank with all experts; 70 to 85 %% is usual. Dense FFN: as many active "
                    "parameters on the same tokens, no router, no exchange.");
    ep_html_table_open(html, "Medians over visits; tokens per rank", columns);
    for (int64_t first = 0, next; first < layers.num; first = next) {
        next = first + 1;
        while (next < layers.num &&
               strcmp(layers.items[first]->case_name, layers.items[next]->case_name) == 0) {
            next++;
        }
        put_case(layers.items + first, next - first, scratch, html);
    }
    ep_html_table_close(html);
    EP_TRY(put_model(in, html));
out:
    free(layers.items);
    free(scratch);
    return status;
}
