/* SPDX-License-Identifier: Apache-2.0 */
/* Figures over skew: time and bandwidth, a panel per transport, with M0 and the chosen rung. */
#include "plots/figure_data.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PANELS = 3, MAX_SKEWS = 32, MAX_TOP_KS = 7, LABEL = 128 };

/* One size of all the sweep: what is drawn shares it. */
struct slice {
    const struct ep_record *reference; /* what the header speaks of */
    int64_t tokens;
};

struct skew {
    const char *name;
    double achieved; /* mean over its cases */
    int64_t num;
};

struct selection {
    struct slice slice;
    const struct ep_fit_group *panels[MAX_PANELS];
    int num_panels;
    struct skew skews[MAX_SKEWS]; /* by imbalance */
    int num_skews;
    int64_t top_ks[MAX_TOP_KS]; /* ascending */
    int num_top_ks;
};

static bool is_in(const struct slice *slice, const struct ep_fit_case *c)
{
    const struct ep_record *r = c->record;
    return r->tokens == slice->tokens && ep_figure_is_alike(slice->reference, r) &&
           r->h_rank_bytes > 0;
}

static void add_case(struct selection *s, const struct ep_fit_case *c)
{
    int i = 0;
    while (i < s->num_skews && strcmp(s->skews[i].name, c->skew) != 0) {
        i++;
    }
    if (i < MAX_SKEWS) {
        s->skews[i] = i < s->num_skews ? s->skews[i] : (struct skew){c->skew, 0, 0};
        s->num_skews = i < s->num_skews ? s->num_skews : i + 1;
        s->skews[i].achieved += c->record->skew_achieved;
        s->skews[i].num++;
    }
    int k = 0;
    while (k < s->num_top_ks && s->top_ks[k] < c->record->top_k) {
        k++;
    }
    if ((k == s->num_top_ks || s->top_ks[k] != c->record->top_k) && s->num_top_ks < MAX_TOP_KS) {
        memmove(&s->top_ks[k + 1], &s->top_ks[k],
                (size_t)(s->num_top_ks - k) * sizeof s->top_ks[0]);
        s->top_ks[k] = c->record->top_k;
        s->num_top_ks++;
    }
}

static int by_imbalance(const void *a, const void *b)
{
    const struct skew *x = a, *y = b;
    const int order = (x->achieved > y->achieved) - (x->achieved < y->achieved);
    return order != 0 ? order : strcmp(x->name, y->name);
}

/* What a slice holds. */
static void select_slice(const struct ep_figure_input *in, const struct slice *slice,
                         struct selection *s)
{
    *s = (struct selection){.slice = *slice};
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        int64_t num = 0;
        for (int64_t j = 0; j < g->num_cases && ep_figure_has_op(in, g); j++) {
            if (is_in(slice, &g->cases[j]) && s->num_panels < MAX_PANELS) {
                add_case(s, &g->cases[j]);
                num++;
            }
        }
        if (num > 0) {
            s->panels[s->num_panels++] = g;
        }
    }
    for (int i = 0; i < s->num_skews; i++) {
        s->skews[i].achieved /= (double)s->skews[i].num;
    }
    qsort(s->skews, (size_t)s->num_skews, sizeof s->skews[0], by_imbalance);
}

/* The slice with most skews, of these the one with most bytes per rank. */
static void select_best(const struct ep_figure_input *in, struct selection *best)
{
    *best = (struct selection){.num_skews = 0};
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        for (int64_t j = 0; j < g->num_cases && ep_figure_has_op(in, g); j++) {
            const struct ep_record *r = g->cases[j].record;
            const struct slice slice = {r, r->tokens};
            struct selection s;
            if (r->ranks != ep_figure_ranks(in) || r->h_rank_bytes <= 0) {
                continue;
            }
            select_slice(in, &slice, &s);
            if (s.num_skews > best->num_skews ||
                (s.num_skews == best->num_skews &&
                 (double)r->tokens * (double)r->hidden >
                     (double)best->slice.tokens * (double)best->slice.reference->hidden)) {
                *best = s;
            }
        }
    }
}

static int skew_idx(const struct selection *s, const char *name)
{
    for (int i = 0; i < s->num_skews; i++) {
        if (strcmp(s->skews[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The largest numbers of all panels, whose axis is one. */
struct extent {
    double measured_s;        /* median */
    double drawn_s;           /* with intervals and models */
    double drawn_bytes_per_s;
};

static void put_row(const struct ep_figure_input *in, const struct selection *s, int panel,
                    int series, int64_t idx, struct ep_sheet *sheet, struct extent *most)
{
    const struct ep_fit_group *g = s->panels[panel];
    const struct ep_fit_case *c = &g->cases[idx];
    const struct ep_fit_rung *chosen = ep_fit_chosen(g);
    const double bytes = (double)c->record->h_rank_bytes;
    const double m0_s = g->rungs[0].fitted_s != NULL ? g->rungs[0].fitted_s[idx] : NAN;
    const double chosen_s = chosen != NULL ? chosen->fitted_s[idx] : NAN;
    double low_s, high_s;
    ep_figure_interval(in, g, c, &low_s, &high_s);
    const double times_s[] = {c->time_s, low_s, high_s, m0_s, chosen_s};
    ep_sheet_put_number(sheet, panel + 1);
    ep_sheet_put_text(sheet, g->record->transport);
    ep_sheet_put_text(sheet, g->record->byte_basis);
    ep_sheet_put_number(sheet, series + 1);
    ep_sheet_put_number(sheet, (double)c->record->top_k);
    ep_sheet_put_number(sheet, skew_idx(s, c->skew) + 1);
    ep_sheet_put_text(sheet, c->skew);
    ep_sheet_put_number(sheet, c->record->skew_achieved);
    ep_sheet_put_number(sheet, bytes);
    ep_sheet_put_text(sheet, chosen != NULL ? chosen->rung->name : "none");
    for (size_t i = 0; i < sizeof times_s / sizeof times_s[0]; i++) {
        ep_sheet_put_number(sheet, times_s[i]);
        most->drawn_s = fmax(most->drawn_s, times_s[i]); /* passes over NaN */
    }
    /* the ends change places: a long time is a low bandwidth */
    const double rates_s[] = {c->time_s, high_s, low_s, m0_s, chosen_s};
    for (size_t i = 0; i < sizeof rates_s / sizeof rates_s[0]; i++) {
        ep_sheet_put_number(sheet, bytes / rates_s[i]);
        most->drawn_bytes_per_s = fmax(most->drawn_bytes_per_s, bytes / rates_s[i]);
    }
    most->measured_s = fmax(most->measured_s, c->time_s);
    ep_sheet_end_row(sheet);
}

/* By panel, top-k and skew, as lines are drawn. */
static struct extent put_rows(const struct ep_figure_input *in, const struct selection *s,
                              struct ep_sheet *sheet)
{
    struct extent most = {0};
    ep_sheet_put_header(sheet, "panel transport byte_basis series top_k skew_idx skew skew_achieved "
                               "h_rank_bytes chosen_rung time_s low_s high_s m0_s chosen_s "
                               "bw_bytes_per_s bw_low_bytes_per_s bw_high_bytes_per_s "
                               "m0_bw_bytes_per_s chosen_bw_bytes_per_s");
    for (int p = 0; p < s->num_panels; p++) {
        const struct ep_fit_group *g = s->panels[p];
        for (int k = 0; k < s->num_top_ks; k++) {
            for (int i = 0; i < s->num_skews; i++) {
                for (int64_t j = 0; j < g->num_cases; j++) {
                    const struct ep_fit_case *c = &g->cases[j];
                    if (is_in(&s->slice, c) && c->record->top_k == s->top_ks[k] &&
                        strcmp(c->skew, s->skews[i].name) == 0) {
                        put_row(in, s, p, k, j, sheet, &most);
                    }
                }
            }
        }
    }
    return most;
}

static void define_lists(const struct ep_figure_input *in, const struct selection *s,
                         struct ep_sheet *sheet)
{
    char skews[MAX_SKEWS][LABEL], top_ks[MAX_TOP_KS][LABEL], panels[MAX_PANELS][LABEL];
    const char *items[MAX_SKEWS];
    for (int i = 0; i < s->num_skews; i++) {
        snprintf(skews[i], LABEL, "%.24s (%.2f)", s->skews[i].name, s->skews[i].achieved);
        items[i] = skews[i];
    }
    ep_sheet_define_list(sheet, "ep_skew", items, s->num_skews);
    for (int i = 0; i < s->num_top_ks; i++) {
        snprintf(top_ks[i], LABEL, "top-k %" PRId64 ", measured", s->top_ks[i]);
        items[i] = top_ks[i];
    }
    ep_sheet_define_list(sheet, "ep_series", items, s->num_top_ks);
    for (int i = 0; i < s->num_panels; i++) {
        const struct ep_fit_rung *chosen = ep_fit_chosen(s->panels[i]);
        char label[80];
        snprintf(panels[i], LABEL, "%s (bytes: %s); %s chosen",
                 ep_figure_group_label(in, s->panels[i], label, sizeof label),
                 s->panels[i]->record->byte_basis,
                 chosen != NULL ? chosen->rung->name : "no rung");
        items[i] = panels[i];
    }
    ep_sheet_define_list(sheet, "ep_panel", items, s->num_panels);
    static const char *const models[] = {"model: the rung chosen, named with each panel",
                                         "model: M0, plain bytes/bandwidth (knows no skew)"};
    ep_sheet_define_list(sheet, "ep_models", models, 2);
}

static void define_axes(bool bandwidth, const char *target, const struct extent *most,
                        struct ep_sheet *sheet)
{
    static const char *const times[] = {"chosen_s", "m0_s"};
    static const char *const rates[] = {"chosen_bw_bytes_per_s", "m0_bw_bytes_per_s"};
    const bool micro = most->measured_s < 1e-3;
    const double scale = bandwidth ? 1e-9 : micro ? 1e6 : 1e3;
    ep_sheet_define_list(sheet, "ep_model_column", bandwidth ? rates : times, 2);
    ep_sheet_define(sheet, "ep_y_column", "%s", bandwidth ? "bw_bytes_per_s" : "time_s");
    ep_sheet_define(sheet, "ep_low_column", "%s", bandwidth ? "bw_low_bytes_per_s" : "low_s");
    ep_sheet_define(sheet, "ep_high_column", "%s", bandwidth ? "bw_high_bytes_per_s" : "high_s");
    ep_sheet_define_number(sheet, "ep_y_scale", scale);
    ep_sheet_define_number(sheet, "ep_y_most",
                           scale * (bandwidth ? most->drawn_bytes_per_s : most->drawn_s));
    if (bandwidth) {
        ep_sheet_define(sheet, "ep_y_label", "GB/s (physical)");
    } else {
        ep_sheet_define(sheet, "ep_y_label", "%s time, %s", target, micro ? "us" : "ms");
    }
    ep_sheet_define(sheet, "ep_x_label", "skew (imbalance reached: maximum over mean)");
}

static enum ep_status fill(const struct ep_figure_input *in, bool bandwidth, struct ep_sheet *sheet)
{
    struct selection s;
    char title[80], conditions[160];
    if (ep_figure_op(in) == NULL) {
        return ep_figure_refuse_comm(in, sheet);
    }
    select_best(in, &s);
    if (s.num_skews < 2) {
        return ep_sheet_refuse(sheet, "it takes 2 skews at one size; these records have %d",
                               s.num_skews);
    }
    const struct extent most = put_rows(in, &s, sheet);
    const struct ep_fit_group *g = s.panels[0];
    snprintf(title, sizeof title, "%c%s %s against skew", ep_figure_op(in)[0] == 'd' ? 'D' : 'C',
             ep_figure_op(in) + 1, bandwidth ? "bandwidth" : "time");
    ep_figure_define_header(in, sheet, title, s.slice.reference->ranks, s.slice.reference->nodes,
                            "Measured medians of the %s time%s with intervals (points), and models "
                            "as fitted (lines). %" PRId64 " tokens per rank, %s.",
                            g->target,
                            bandwidth ? ", as physical GB/s of the busiest rank," : "",
                            s.slice.tokens,
                            ep_figure_conditions(s.slice.reference, conditions, sizeof conditions));
    define_lists(in, &s, sheet);
    define_axes(bandwidth, g->target, &most, sheet);
    return EP_OK;
}

enum ep_status ep_figure_time_skew(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    return fill(in, false, sheet);
}

enum ep_status ep_figure_bandwidth_skew(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    return fill(in, true, sheet);
}
