/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of dispatch: bandwidth against bytes, predictions against measurements, phases. */
#include "base/stats.h"
#include "plots/figure_data.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SERIES = 7, LABEL = 128 };

/* --- bandwidth against bytes per rank --------------------------------------------------------- */

static int by_bytes(const void *a, const void *b)
{
    const struct ep_record *x = (*(const struct ep_fit_case *const *)a)->record;
    const struct ep_record *y = (*(const struct ep_fit_case *const *)b)->record;
    return (x->h_rank_bytes > y->h_rank_bytes) - (x->h_rank_bytes < y->h_rank_bytes);
}

/* Rows of one group; *num_rows of them, and the range of their bytes grows. */
static enum ep_status put_sizes(const struct ep_figure_input *in, const struct ep_fit_group *g,
                                const struct ep_record *reference, int series,
                                struct ep_sheet *sheet, int64_t *num_rows, double range[2])
{
    const struct ep_fit_case **cases = malloc((size_t)(g->num_cases + 1) * sizeof *cases);
    if (cases == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for cases");
    }
    *num_rows = 0;
    for (int64_t i = 0; i < g->num_cases; i++) {
        const struct ep_fit_case *c = &g->cases[i];
        if (strcmp(c->skew, reference->skew) == 0 && ep_figure_is_alike(reference, c->record) &&
            c->record->h_rank_bytes > 0) {
            cases[(*num_rows)++] = c;
        }
    }
    qsort(cases, (size_t)*num_rows, sizeof *cases, by_bytes);
    for (int64_t i = 0; i < *num_rows; i++) {
        const struct ep_record *r = cases[i]->record;
        const double bytes = (double)r->h_rank_bytes;
        double low_s, high_s;
        ep_figure_interval(in, g, cases[i], &low_s, &high_s);
        ep_sheet_put_number(sheet, series);
        ep_sheet_put_text(sheet, r->transport);
        ep_sheet_put_text(sheet, r->byte_basis);
        ep_sheet_put_text(sheet, r->skew);
        ep_sheet_put_number(sheet, (double)r->tokens);
        ep_sheet_put_number(sheet, (double)r->top_k);
        ep_sheet_put_number(sheet, bytes);
        ep_sheet_put_number(sheet, cases[i]->time_s);
        ep_sheet_put_number(sheet, bytes / cases[i]->time_s);
        ep_sheet_put_number(sheet, bytes / high_s);
        ep_sheet_put_number(sheet, bytes / low_s);
        ep_sheet_end_row(sheet);
        range[0] = fmin(range[0], bytes);
        range[1] = fmax(range[1], bytes);
    }
    free(cases);
    return EP_OK;
}

enum ep_status ep_figure_bandwidth_size(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    char labels[MAX_SERIES][LABEL], title[80], conditions[160];
    const char *series[MAX_SERIES];
    const struct ep_fit_group *first = NULL;
    double range[2] = {INFINITY, 0};
    int num = 0;
    const struct ep_record *reference = ep_figure_op(in) != NULL ? ep_figure_reference(in) : NULL;
    if (reference == NULL) {
        return ep_figure_refuse_comm(in, sheet);
    }
    ep_sheet_put_header(sheet, "series transport byte_basis skew tokens top_k h_rank_bytes time_s "
                               "bw_bytes_per_s bw_low_bytes_per_s bw_high_bytes_per_s");
    for (int64_t i = 0; i < in->fit->num_primary && num < MAX_SERIES; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        int64_t num_rows = 0;
        if (!ep_figure_has_op(in, g)) {
            continue;
        }
        const enum ep_status status = put_sizes(in, g, reference, num + 1, sheet, &num_rows, range);
        if (status != EP_OK) {
            return status;
        }
        if (num_rows > 0) {
            char label[80];
            snprintf(labels[num], LABEL, "%s (bytes: %s)",
                     ep_figure_group_label(in, g, label, sizeof label), g->record->byte_basis);
            series[num] = labels[num];
            num++;
            first = first != NULL ? first : g;
        }
    }
    if (first == NULL) {
        return ep_sheet_refuse(sheet, "no case moves bytes between ranks");
    }
    snprintf(title, sizeof title, "%c%s bandwidth against bytes per rank",
             ep_figure_op(in)[0] == 'd' ? 'D' : 'C', ep_figure_op(in) + 1);
    ep_figure_define_header(in, sheet, title, reference->ranks, reference->nodes,
                            "Measured; physical GB/s of the busiest rank over the %s time; %s "
                            "routing, %s.",
                            first->target, reference->skew,
                            ep_figure_conditions(reference, conditions, sizeof conditions));
    ep_sheet_define_list(sheet, "ep_series", series, num);
    ep_sheet_define(sheet, "ep_x_label", "bytes in or out of the busiest rank");
    ep_sheet_define(sheet, "ep_y_label", "GB/s (physical)");
    ep_sheet_define_number(sheet, "ep_x_step", ep_figure_tick_step(range[0], range[1]));
    return EP_OK;
}

/* --- predicted against measured --------------------------------------------------------------- */

struct prediction_counts {
    int64_t num; /* points */
    int64_t num_held_out;
    double min_s, max_s;
};

static bool is_drawn(const struct ep_fit_rung *rung)
{
    return rung->rung != NULL && rung->rung->can_be_chosen && rung->same_as == NULL &&
           rung->fitted_s != NULL; /* fewer cases than parameters: not fitted */
}

/* Of case `i`: held out where it was, else as fitted. */
static double prediction(const struct ep_fit_rung *rung, int64_t i, bool *held_out)
{
    *held_out = rung->held_out_s != NULL && isfinite(rung->held_out_s[i]);
    return *held_out ? rung->held_out_s[i] : rung->fitted_s[i];
}

static void put_predictions(const struct ep_fit_group *g, const struct ep_fit_rung *rung, int series,
                            struct ep_sheet *sheet, struct prediction_counts *counts)
{
    for (int64_t i = 0; i < g->num_cases; i++) {
        bool held_out;
        const double predicted_s = prediction(rung, i, &held_out);
        const double measured_s = g->cases[i].time_s;
        if (!(predicted_s > 0)) {
            continue; /* a logarithm has no place for it */
        }
        ep_sheet_put_number(sheet, series);
        ep_sheet_put_text(sheet, rung->rung->name);
        ep_sheet_put_number(sheet, rung->chosen);
        ep_sheet_put_text(sheet, g->name);
        ep_sheet_put_text(sheet, g->cases[i].case_name);
        ep_sheet_put_number(sheet, measured_s);
        ep_sheet_put_number(sheet, predicted_s);
        ep_sheet_put_number(sheet, held_out);
        ep_sheet_end_row(sheet);
        counts->num++;
        counts->num_held_out += held_out;
        if (series == 1 || rung->chosen) { /* the others are in the data only */
            counts->min_s = fmin(counts->min_s, fmin(predicted_s, measured_s));
            counts->max_s = fmax(counts->max_s, fmax(predicted_s, measured_s));
        }
    }
}

/* Median error in % over all fits of M0, or of the rung that each chose; NaN without any.
 * errors is room for one per case. */
static double median_error(const struct ep_fit *fit, bool of_chosen, double *errors)
{
    int64_t num = 0;
    for (int64_t i = 0; i < fit->num_primary; i++) {
        const struct ep_fit_group *g = &fit->groups[i];
        const struct ep_fit_rung *rung = of_chosen ? ep_fit_chosen(g) : &g->rungs[0];
        for (int64_t j = 0; rung != NULL && is_drawn(rung) && j < g->num_cases; j++) {
            bool held_out;
            const double predicted_s = prediction(rung, j, &held_out);
            if (predicted_s > 0) {
                errors[num++] = fabs(predicted_s - g->cases[j].time_s) / g->cases[j].time_s;
            }
        }
    }
    ep_stats_sort(errors, num);
    return num > 0 ? 100 * ep_stats_median_sorted(errors, num) : NAN;
}

/* "chosen rung: median error 4.2 % (3 M0, 1 M2)": how many fits chose which. */
static void name_chosen(const struct ep_fit *fit, double error, char *label, size_t length)
{
    int nums[EP_NUM_RUNGS] = {0};
    char names[LABEL] = "";
    for (int64_t i = 0; i < fit->num_primary; i++) {
        const int chosen = fit->groups[i].chosen;
        if (chosen >= 0) {
            nums[chosen]++;
        }
    }
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        const size_t used = strlen(names);
        if (nums[i] > 0) {
            snprintf(names + used, sizeof names - used, "%s%d %s", used > 0 ? ", " : "", nums[i],
                     ep_rung_at(i)->name);
        }
    }
    if (names[0] == '\0') {
        snprintf(label, length, "no fit could choose a rung");
    } else {
        snprintf(label, length, "chosen rung: median error %.1f %% (%.60s)", error, names);
    }
}

/* What was held out: skews, or sizes where there were too few skews; by the first fit that says. */
static const char *fold_kind(const struct ep_fit *fit)
{
    for (int64_t i = 0; i < fit->num_primary; i++) {
        if (strcmp(fit->groups[i].fold_kind, "none") != 0) {
            return fit->groups[i].fold_kind;
        }
    }
    return "skew";
}

/* Median over the fits: how far two visits of one case lie apart, in %. */
static double noise_floor(const struct ep_fit *fit, double *room)
{
    int64_t num = 0;
    for (int64_t i = 0; i < fit->num_primary; i++) {
        if (isfinite(fit->groups[i].noise_floor)) {
            room[num++] = 100 * fit->groups[i].noise_floor;
        }
    }
    ep_stats_sort(room, num);
    return num > 0 ? ep_stats_median_sorted(room, num) : NAN;
}

static void define_predictions(const struct ep_figure_input *in, int64_t num_cases,
                               const struct prediction_counts *counts, double *room,
                               struct ep_sheet *sheet)
{
    char m0[LABEL], chosen[LABEL], noise[LABEL] = "";
    const struct ep_fit *fit = in->fit;
    const char *const series[] = {m0, chosen};
    const double noise_percent = noise_floor(fit, room);
    snprintf(m0, sizeof m0, "M0, plain bytes/bandwidth: median error %.1f %%",
             median_error(fit, false, room));
    name_chosen(fit, median_error(fit, true, room), chosen, sizeof chosen);
    if (isfinite(noise_percent)) {
        snprintf(noise, sizeof noise, " Two visits of one case differ by %.1f %%.", noise_percent);
    }
    ep_figure_define_header(
        in, sheet, "Predicted against measured time", ep_figure_ranks(in),
        fit->groups[0].record->nodes,
        "%" PRId64 " cases of dispatch and combine, measured %s time (median of visits); %" PRId64
        " of %" PRId64 " predictions held out (by fits that did not see the case's %s)%s.%s",
        num_cases, fit->groups[0].target, counts->num_held_out, counts->num, fold_kind(fit),
        counts->num_held_out < counts->num ? ", the others in sample" : "", noise);
    ep_sheet_define_list(sheet, "ep_series", series, 2);
    ep_sheet_define(sheet, "ep_x_label", "measured, ms");
    ep_sheet_define(sheet, "ep_y_label", "predicted, ms");
    ep_sheet_define_number(sheet, "ep_min", counts->min_s * 1e3 * 0.7);
    ep_sheet_define_number(sheet, "ep_max", counts->max_s * 1e3 * 1.4);
}

enum ep_status ep_figure_predicted_measured(const struct ep_figure_input *in,
                                            struct ep_sheet *sheet)
{
    int64_t num_cases = 0;
    struct prediction_counts counts = {.min_s = INFINITY};
    if (ep_figure_op(in) == NULL) {
        return ep_figure_refuse_comm(in, sheet);
    }
    ep_sheet_put_header(sheet, "series rung chosen fit case measured_s predicted_s held_out");
    for (int idx = 0, series = 1; idx < EP_NUM_RUNGS; idx++) {
        const int64_t before = counts.num;
        for (int64_t i = 0; i < in->fit->num_primary; i++) {
            const struct ep_fit_group *g = &in->fit->groups[i];
            if (is_drawn(&g->rungs[idx])) {
                put_predictions(g, &g->rungs[idx], series, sheet, &counts);
            }
        }
        series += counts.num > before;
    }
    if (counts.num == 0) {
        return ep_sheet_refuse(sheet, "no rung could be fitted");
    }
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        num_cases += in->fit->groups[i].num_cases;
    }
    double *room = malloc((size_t)(num_cases + in->fit->num_primary + 1) * sizeof *room);
    if (room == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for errors");
    }
    define_predictions(in, num_cases, &counts, room, sheet);
    free(room);
    return EP_OK;
}

/* --- phases ----------------------------------------------------------------------------------- */

/* The last one belongs to transports in two stages, and to the figure only where one is in it. */
static const char *const phase_names[] = {"pack", "counts", "exchange", "unpack", "fan-out"};
enum { NUM_PHASES = sizeof phase_names / sizeof phase_names[0], MAX_BARS = 14 };

struct bar {
    const struct ep_fit_group *group;
    const struct ep_fit_case *item;
};

static bool can_be_bar(const struct ep_figure_input *in, const struct ep_fit_group *g,
                       const struct ep_record *reference, const struct ep_fit_case *c)
{
    return ep_figure_has_op(in, g) && strcmp(c->skew, reference->skew) == 0 &&
           ep_figure_is_alike(reference, c->record) && c->record->phases.num > 0;
}

/* Cases with phases: per group the largest top-k, in the order of groups and tokens;
 * where there are many sizes, every n-th, the largest always among them. */
static int find_bars(const struct ep_figure_input *in, struct bar bars[MAX_BARS])
{
    const struct ep_record *reference = ep_figure_reference(in);
    int64_t top_k = 0, step = 1;
    int num = 0, num_groups = 0;
    if (reference == NULL) {
        return 0;
    }
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        bool any = false;
        for (int64_t j = 0; j < g->num_cases; j++) {
            if (can_be_bar(in, g, reference, &g->cases[j])) {
                top_k = g->cases[j].record->top_k > top_k ? g->cases[j].record->top_k : top_k;
                any = true;
            }
        }
        num_groups += any;
    }
    const int per_group = num_groups > 0 && num_groups < MAX_BARS ? MAX_BARS / num_groups : 1;
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        struct bar found[256];
        int num_found = 0;
        for (int64_t tokens = -1;;) {
            const struct ep_fit_case *next = NULL;
            for (int64_t j = 0; j < g->num_cases; j++) {
                const struct ep_fit_case *c = &g->cases[j];
                if (can_be_bar(in, g, reference, c) && c->record->top_k == top_k &&
                    c->record->tokens > tokens &&
                    (next == NULL || c->record->tokens < next->record->tokens)) {
                    next = c;
                }
            }
            if (next == NULL || num_found == 256) {
                break;
            }
            tokens = next->record->tokens;
            found[num_found++] = (struct bar){g, next};
        }
        step = (num_found + per_group - 1) / per_group;
        for (int j = num_found > 0 ? (int)((num_found - 1) % step) : 0;
             j < num_found && num < MAX_BARS; j += (int)step) {
            bars[num++] = found[j];
        }
    }
    return num;
}

static enum ep_status put_bar(const struct ep_figure_input *in, const struct bar *bar, int idx,
                              int num_phases, struct ep_sheet *sheet, double *whole_s)
{
    enum ep_status status = EP_OK;
    double phase_s[NUM_PHASES], sum_s = 0, upto_s = 0;
    for (int i = 0; i < num_phases; i++) {
        EP_TRY(ep_figure_case_median(in, bar->item->case_name, phase_names[i], &phase_s[i]));
        phase_s[i] = isfinite(phase_s[i]) ? phase_s[i] : 0;
        sum_s += phase_s[i];
    }
    EP_TRY(ep_figure_case_median(in, bar->item->case_name, NULL, whole_s));
    for (int i = 0; i < num_phases && sum_s > 0; i++) {
        upto_s += phase_s[i];
        ep_sheet_put_number(sheet, idx);
        ep_sheet_put_text(sheet, bar->item->record->transport);
        ep_sheet_put_number(sheet, (double)bar->item->record->tokens);
        ep_sheet_put_number(sheet, i + 1);
        ep_sheet_put_text(sheet, phase_names[i]);
        ep_sheet_put_number(sheet, phase_s[i]);
        ep_sheet_put_number(sheet, phase_s[i] / sum_s);
        ep_sheet_put_number(sheet, upto_s / sum_s);
        ep_sheet_put_number(sheet, *whole_s);
        ep_sheet_end_row(sheet);
    }
out:
    return status;
}

enum ep_status ep_figure_phases(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    enum ep_status status = EP_OK;
    struct bar bars[MAX_BARS];
    char labels[MAX_BARS][LABEL], conditions[160], title[80];
    const char *items[MAX_BARS];
    if (ep_figure_op(in) == NULL) {
        return ep_figure_refuse_comm(in, sheet);
    }
    const int num = find_bars(in, bars);
    if (num == 0) {
        return ep_sheet_refuse(sheet, "no record holds phases (pack, counts, exchange, unpack)");
    }
    ep_sheet_put_header(sheet, "bar transport tokens series phase median_s share share_upto whole_s");
    int num_phases = NUM_PHASES - 1;
    for (int i = 0; i < num; i++) {
        if (ep_record_find_phase(bars[i].item->record, "fan-out") != NULL) {
            num_phases = NUM_PHASES;
        }
    }
    for (int i = 0; i < num; i++) {
        double whole_s;
        EP_TRY(put_bar(in, &bars[i], i + 1, num_phases, sheet, &whole_s));
        snprintf(labels[i], LABEL, "%s %" PRId64 ": %.3g %s", bars[i].item->record->transport,
                 bars[i].item->record->tokens, whole_s * (whole_s < 1e-3 ? 1e6 : 1e3),
                 whole_s < 1e-3 ? "us" : "ms");
        items[i] = labels[i];
    }
    const struct ep_record *r = bars[0].item->record;
    snprintf(title, sizeof title, "Where the time of a %s goes", ep_figure_op(in));
    ep_figure_define_header(in, sheet, title, r->ranks, r->nodes,
                            "Measured; shares of the phases' medians, from a pass of their own. "
                            "Below: transport, tokens per rank, the whole without phase clocks. "
                            "Top-k %" PRId64 ", %s routing, %s.",
                            r->top_k, ep_figure_skew(in),
                            ep_figure_conditions(r, conditions, sizeof conditions));
    ep_sheet_define_list(sheet, "ep_series", phase_names, num_phases);
    ep_sheet_define_list(sheet, "ep_bar", items, num);
    ep_sheet_define(sheet, "ep_y_label", "share of the phases, %%");
out:
    return status;
}
