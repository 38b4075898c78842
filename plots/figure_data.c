/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing cases for figures and pooling their visits. */
#include "plots/figure_data.h"
#include "base/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int64_t num_groups(const struct ep_figure_input *in)
{
    return in->fit != NULL ? in->fit->num_primary : 0;
}

const char *ep_figure_op(const struct ep_figure_input *in)
{
    for (int64_t i = 0; i < num_groups(in); i++) {
        if (strcmp(in->fit->groups[i].record->op, "dispatch") == 0) {
            return "dispatch";
        }
    }
    return num_groups(in) > 0 ? in->fit->groups[0].record->op : NULL;
}

bool ep_figure_has_op(const struct ep_figure_input *in, const struct ep_fit_group *group)
{
    return strcmp(group->record->op, ep_figure_op(in)) == 0;
}

int64_t ep_figure_ranks(const struct ep_figure_input *in)
{
    int64_t ranks = 0;
    for (int64_t i = 0; i < num_groups(in); i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        for (int64_t j = 0; j < g->num_cases && ep_figure_has_op(in, g); j++) {
            ranks = g->cases[j].record->ranks > ranks ? g->cases[j].record->ranks : ranks;
        }
    }
    return ranks;
}

const char *ep_figure_skew(const struct ep_figure_input *in)
{
    const char *first = NULL;
    for (int64_t i = 0; i < num_groups(in); i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        for (int64_t j = 0; j < g->num_cases && ep_figure_has_op(in, g); j++) {
            if (strcmp(g->cases[j].skew, "uniform") == 0) {
                return "uniform";
            }
            first = first != NULL ? first : g->cases[j].skew;
        }
    }
    return first != NULL ? first : "";
}

static bool is_same_text(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

bool ep_figure_is_alike(const struct ep_record *reference, const struct ep_record *record)
{
    const bool is_trace = record->skew != NULL && strncmp(record->skew, "trace:", 6) == 0;
    return reference->hidden == record->hidden && reference->row_bytes == record->row_bytes &&
           reference->nodes == record->nodes && reference->seed == record->seed &&
           reference->ranks == record->ranks &&
           (is_trace || reference->experts == record->experts) &&
           is_same_text(reference->dtype, record->dtype) &&
           is_same_text(reference->combine_dtype, record->combine_dtype) &&
           is_same_text(reference->placement, record->placement);
}

static bool can_be_reference(const struct ep_figure_input *in, const struct ep_fit_case *c)
{
    return c->record->ranks == ep_figure_ranks(in) && strcmp(c->skew, ep_figure_skew(in)) == 0;
}

static int64_t count_alike(const struct ep_figure_input *in, const struct ep_record *reference)
{
    int64_t num = 0;
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        for (int64_t j = 0; j < g->num_cases && ep_figure_has_op(in, g); j++) {
            num += strcmp(g->cases[j].skew, reference->skew) == 0 &&
                   ep_figure_is_alike(reference, g->cases[j].record);
        }
    }
    return num;
}

const struct ep_record *ep_figure_reference(const struct ep_figure_input *in)
{
    const struct ep_record *best = NULL;
    int64_t most = 0;
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        for (int64_t j = 0; j < g->num_cases && ep_figure_has_op(in, g); j++) {
            const struct ep_record *r = g->cases[j].record;
            if (!can_be_reference(in, &g->cases[j]) ||
                (best != NULL && ep_figure_is_alike(best, r))) {
                continue;
            }
            const int64_t num = count_alike(in, r);
            if (num > most || (num == most && r->hidden > best->hidden)) {
                best = r;
                most = num;
            }
        }
    }
    return best;
}

static void put_label(const struct ep_fit_group *group, char *text, size_t length)
{
    const struct ep_record *r = group->record;
    const bool named = r->algorithm != NULL && strcmp(r->algorithm, "default") != 0;
    snprintf(text, length, "%s%s%s", r->transport, named ? ", " : "", named ? r->algorithm : "");
}

const char *ep_figure_group_label(const struct ep_figure_input *in, const struct ep_fit_group *group,
                                  char *text, size_t length)
{
    char other[256];
    put_label(group, text, length);
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        put_label(g, other, sizeof other);
        if (g != group && strcmp(g->record->op, group->record->op) == 0 &&
            strcmp(other, text) == 0) {
            snprintf(text, length, "%s", group->name);
            break;
        }
    }
    return text;
}

enum ep_status ep_figure_refuse_comm(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    for (int64_t i = 0; i < in->records->num; i++) {
        if (in->records->items[i].kind == EP_RECORD_COMM) {
            return ep_sheet_refuse(sheet, "the dispatch and combine records could not be fitted; "
                                          "epbench fit says why");
        }
    }
    return ep_sheet_refuse(sheet, "no dispatch or combine was measured (epbench comm)");
}

static double lesser(double a, double b)
{
    return isnan(a) || b < a ? b : a;
}

static double greater(double a, double b)
{
    return isnan(a) || b > a ? b : a;
}

void ep_figure_interval(const struct ep_figure_input *in, const struct ep_fit_group *group,
                        const struct ep_fit_case *item, double *low_s, double *high_s)
{
    const bool split = strcmp(group->target, "exchange") == 0;
    int64_t num_visits = 0, num_intervals = 0;
    *low_s = NAN;
    *high_s = NAN;
    for (int64_t i = 0; i < in->records->num; i++) {
        const struct ep_record *r = &in->records->items[i];
        if (r->kind != EP_RECORD_COMM || strcmp(r->case_name, item->case_name) != 0 ||
            r->verified == 0) {
            continue;
        }
        const struct ep_record_phase *phase = split ? ep_record_find_phase(r, "exchange") : NULL;
        const double median_s = phase != NULL ? phase->median_s : r->median_s;
        const double visit_low_s = phase != NULL ? phase->low_s : r->low_s;
        const double visit_high_s = phase != NULL ? phase->high_s : r->high_s;
        *low_s = lesser(*low_s, isnan(visit_low_s) ? median_s : visit_low_s);
        *high_s = greater(*high_s, isnan(visit_high_s) ? median_s : visit_high_s);
        num_visits++;
        num_intervals += !isnan(visit_low_s);
    }
    if (num_visits == 1 && num_intervals == 0) {
        *low_s = *high_s = NAN;
    }
}

enum ep_status ep_figure_case_median(const struct ep_figure_input *in, const char *case_name,
                                     const char *phase, double *value)
{
    double *medians = malloc((size_t)(in->records->num + 1) * sizeof *medians);
    int64_t num = 0;
    if (medians == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the visits of a case");
    }
    for (int64_t i = 0; i < in->records->num; i++) {
        const struct ep_record *r = &in->records->items[i];
        if (strcmp(r->case_name, case_name) != 0 || r->verified == 0) {
            continue;
        }
        const struct ep_record_phase *p = phase != NULL ? ep_record_find_phase(r, phase) : NULL;
        const double median = phase == NULL ? r->median_s : p != NULL ? p->median_s : NAN;
        if (isfinite(median)) {
            medians[num++] = median;
        }
    }
    ep_stats_sort(medians, num);
    *value = num > 0 ? ep_stats_median_sorted(medians, num) : NAN;
    free(medians);
    return EP_OK;
}

void ep_figure_define_header(const struct ep_figure_input *in, struct ep_sheet *sheet,
                             const char *title, int64_t ranks, int64_t nodes, const char *format,
                             ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const char *machine = in->run->machine != NULL ? in->run->machine : "machine not named";
    ep_sheet_define_lines(sheet, "ep_title", 42, "%s", title);
    ep_sheet_define_lines(sheet, "ep_sub", 60,
                          "%s\nOn %s: %s; %" PRId64 " rank%s on %" PRId64 " node%s.", what,
                          in->run->host != NULL ? in->run->host : "a host without name", machine,
                          ranks, ranks == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s");
}

const char *ep_figure_conditions(const struct ep_record *record, char *text, size_t length)
{
    snprintf(text, length, "%s, hidden %" PRId64 ", %" PRId64 " experts, %s, %s buffers, %s pages",
             record->dtype != NULL ? record->dtype : "dtype not named", record->hidden, record->experts,
             record->cadence != NULL ? record->cadence : "cadence not named",
             record->buffers != NULL ? record->buffers : "unnamed",
             record->pages != NULL ? record->pages : "unnamed");
    return text;
}

double ep_figure_tick_step(double low, double high)
{
    double step = 2;
    while (log2(high / low) / log2(step) > 5) {
        step *= 2;
    }
    return step;
}
