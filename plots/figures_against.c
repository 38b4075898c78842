/* SPDX-License-Identifier: Apache-2.0 */
/* What expert parallelism is weighed against: its two all-to-alls, and collectives that move all tokens. */
#include "plots/figure_data.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_LINES = 7, MAX_TOP_KS = 16, LABEL = 128 };

/* Transports that stand for one side. An all-reduce's layer has its tokens on all ranks already: its
 * combine alone is a layer's traffic. */
static const struct side {
    const char *transport;
    bool is_collective;
    bool dispatches;
} sides[] = {
    {"alltoallv", false, true},    {"pairwise", false, true},     {"allreduce", true, false},
    {"allreduce-ring", true, false}, {"allgather", true, true},   {"allgather-ring", true, true},
};
enum { NUM_SIDES = sizeof sides / sizeof sides[0] };

struct line {
    const struct side *side;
    const char *skew;
};

/* One top-k of one line: sums over the operations that a layer needs. */
struct point {
    double time_s, low_s, high_s;
    double bytes; /* of the busiest rank, or node where there are several */
};

/* The case of an op of a transport, alike the reference; its group in *group. NULL where there is none. */
static const struct ep_fit_case *find_case(const struct ep_figure_input *in,
                                           const struct ep_record *reference,
                                           const struct line *line, const char *op, int64_t top_k,
                                           const struct ep_fit_group **group)
{
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        const struct ep_fit_group *g = &in->fit->groups[i];
        for (int64_t j = 0; j < g->num_cases; j++) {
            const struct ep_record *r = g->cases[j].record;
            if (strcmp(r->transport, line->side->transport) == 0 && strcmp(r->op, op) == 0 &&
                strcmp(r->skew, line->skew) == 0 && r->top_k == top_k &&
                r->tokens == reference->tokens && ep_figure_is_alike(reference, r)) {
                *group = g;
                return &g->cases[j];
            }
        }
    }
    return NULL;
}

/* False where an operation was not measured. */
static bool find_point(const struct ep_figure_input *in, const struct ep_record *reference,
                       const struct line *line, int64_t top_k, struct point *point)
{
    static const char *const ops[] = {"dispatch", "combine"};
    *point = (struct point){0};
    for (int i = line->side->dispatches ? 0 : 1; i < 2; i++) {
        const struct ep_fit_group *g = NULL;
        const struct ep_fit_case *c = find_case(in, reference, line, ops[i], top_k, &g);
        double low_s, high_s;
        if (c == NULL) {
            return false;
        }
        ep_figure_interval(in, g, c, &low_s, &high_s);
        point->time_s += c->time_s;
        point->low_s += low_s;
        point->high_s += high_s;
        point->bytes += (double)(c->record->nodes > 1 ? c->record->h_node_bytes
                                                      : c->record->h_rank_bytes);
    }
    return true;
}

/* Ascending, of the reference's size. */
static int find_top_ks(const struct ep_figure_input *in, const struct ep_record *reference,
                       int64_t *top_ks)
{
    int num = 0;
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        for (int64_t j = 0; j < in->fit->groups[i].num_cases; j++) {
            const struct ep_record *r = in->fit->groups[i].cases[j].record;
            int k = 0;
            while (k < num && top_ks[k] < r->top_k) {
                k++;
            }
            if (r->tokens == reference->tokens && ep_figure_is_alike(reference, r) &&
                num < MAX_TOP_KS && (k == num || top_ks[k] != r->top_k)) {
                memmove(&top_ks[k + 1], &top_ks[k], (size_t)(num - k) * sizeof *top_ks);
                top_ks[k] = r->top_k;
                num++;
            }
        }
    }
    return num;
}

static void add_line(struct line *lines, int *num, const struct side *side, const char *skew)
{
    for (int i = 0; i < *num; i++) {
        if (lines[i].side == side && strcmp(lines[i].skew, skew) == 0) {
            return;
        }
    }
    if (*num < MAX_LINES) {
        lines[(*num)++] = (struct line){side, skew};
    }
}

/* The all-to-all of most skews that was measured, a line each; then each collective, whose bytes do not
 * depend on the skew, under the reference's. */
static int find_lines(const struct ep_figure_input *in, const struct ep_record *reference,
                      struct line *lines, bool *has_collective)
{
    int num = 0;
    bool has_ep = false;
    *has_collective = false;
    for (int s = 0; s < NUM_SIDES; s++) {
        const int before = num;
        const struct line first = {&sides[s], reference->skew};
        struct point any;
        if (!sides[s].is_collective && !has_ep &&
            find_point(in, reference, &first, reference->top_k, &any)) {
            add_line(lines, &num, first.side, first.skew);
        }
        for (int64_t i = 0; i < in->fit->num_primary; i++) {
            const struct ep_fit_group *g = &in->fit->groups[i];
            for (int64_t j = 0; j < g->num_cases; j++) {
                const struct ep_record *r = g->cases[j].record;
                const struct line line = {&sides[s],
                                          sides[s].is_collective ? reference->skew : r->skew};
                struct point point;
                if (strcmp(r->transport, sides[s].transport) == 0 &&
                    !(has_ep && !sides[s].is_collective) &&
                    find_point(in, reference, &line, r->top_k, &point)) {
                    add_line(lines, &num, line.side, line.skew);
                }
            }
        }
        has_ep = has_ep || (!sides[s].is_collective && num > before);
        *has_collective = *has_collective || (sides[s].is_collective && num > before);
    }
    return has_ep ? num : 0;
}

/* The most bytes a second of any point: what its port can do at best. range: of times drawn. */
static double best_rate(const struct ep_figure_input *in, const struct ep_record *reference,
                        const struct line *lines, int num_lines, const int64_t *top_ks,
                        int num_top_ks, double range_s[2])
{
    double best = 0;
    range_s[0] = INFINITY;
    range_s[1] = 0;
    for (int i = 0; i < num_lines; i++) {
        for (int k = 0; k < num_top_ks; k++) {
            struct point point;
            if (find_point(in, reference, &lines[i], top_ks[k], &point) && point.time_s > 0) {
                best = fmax(best, point.bytes / point.time_s);
                range_s[0] = fmin(range_s[0], fmin(point.low_s, point.time_s));
                range_s[1] = fmax(range_s[1], fmax(point.high_s, point.time_s));
            }
        }
    }
    return best;
}

static void put_rows(const struct ep_figure_input *in, const struct ep_record *reference,
                     const struct line *lines, int num_lines, const int64_t *top_ks, int num_top_ks,
                     double rate, struct ep_sheet *sheet)
{
    ep_sheet_put_header(sheet, "series transport skew top_k time_s low_s high_s port_bytes "
                               "bound_s congestion");
    for (int i = 0; i < num_lines; i++) {
        for (int k = 0; k < num_top_ks; k++) {
            struct point point;
            if (!find_point(in, reference, &lines[i], top_ks[k], &point)) {
                continue;
            }
            const double bound_s = point.bytes / rate;
            ep_sheet_put_number(sheet, i + 1);
            ep_sheet_put_text(sheet, lines[i].side->transport);
            ep_sheet_put_text(sheet, lines[i].skew);
            ep_sheet_put_number(sheet, (double)top_ks[k]);
            ep_sheet_put_number(sheet, point.time_s);
            ep_sheet_put_number(sheet, point.low_s);
            ep_sheet_put_number(sheet, point.high_s);
            ep_sheet_put_number(sheet, point.bytes);
            ep_sheet_put_number(sheet, bound_s);
            ep_sheet_put_number(sheet, bound_s > 0 ? point.time_s / bound_s : NAN);
            ep_sheet_end_row(sheet);
        }
    }
}

/* The reference's like with most tokens: exchanges of some size are compared, not latencies. */
static const struct ep_record *find_largest(const struct ep_figure_input *in,
                                            const struct ep_record *reference)
{
    const struct ep_record *largest = reference;
    for (int64_t i = 0; i < in->fit->num_primary; i++) {
        for (int64_t j = 0; j < in->fit->groups[i].num_cases; j++) {
            const struct ep_record *r = in->fit->groups[i].cases[j].record;
            if (r->tokens > largest->tokens && r->top_k == reference->top_k &&
                strcmp(r->skew, reference->skew) == 0 && ep_figure_is_alike(reference, r)) {
                largest = r;
            }
        }
    }
    return largest;
}

enum ep_status ep_figure_against(const struct ep_figure_input *in, struct ep_sheet *sheet)
{
    struct line lines[MAX_LINES];
    int64_t top_ks[MAX_TOP_KS];
    char labels[MAX_LINES][LABEL], conditions[160];
    const char *series[MAX_LINES];
    bool has_collective = false;
    const struct ep_record *reference = ep_figure_op(in) != NULL ? ep_figure_reference(in) : NULL;
    if (reference == NULL) {
        return ep_figure_refuse_comm(in, sheet);
    }
    reference = find_largest(in, reference);
    const int num_lines = find_lines(in, reference, lines, &has_collective);
    const int num_top_ks = find_top_ks(in, reference, top_ks);
    if (num_lines == 0 || !has_collective) {
        return ep_sheet_refuse(sheet, "it takes dispatch and combine of alltoallv and of allreduce or "
                               "allgather: comm --transport alltoallv,allreduce,allreduce-ring");
    }
    double range_s[2];
    const double rate =
        best_rate(in, reference, lines, num_lines, top_ks, num_top_ks, range_s);
    put_rows(in, reference, lines, num_lines, top_ks, num_top_ks, rate, sheet);
    for (int i = 0; i < num_lines; i++) {
        const struct side *side = lines[i].side;
        snprintf(labels[i], LABEL, "%s, %s%s", side->transport,
                 side->is_collective ? "all tokens" : lines[i].skew,
                 side->dispatches ? ": dispatch + combine" : "");
        series[i] = labels[i];
    }
    ep_figure_define_header(in, sheet, "Expert parallelism against all-reduce", reference->ranks,
                            reference->nodes,
                            "Measured exchange times a layer, %" PRId64 " tokens per rank, %s. Uniform "
                            "all-to-alls send as much as an all-reduce where top-k is the number of "
                            "ranks (dashed).",
                            reference->tokens,
                            ep_figure_conditions(reference, conditions, sizeof conditions));
    ep_sheet_define_list(sheet, "ep_series", series, num_lines);
    ep_sheet_define(sheet, "ep_x_label", "top-k");
    ep_sheet_define(sheet, "ep_y_label", "time, ms");
    ep_sheet_define(sheet, "ep_congestion_label", "time / bound");
    ep_sheet_define(sheet, "ep_panel_1", "Time of the exchanges of a layer");
    ep_sheet_define(sheet, "ep_panel_2", "Congestion: over the busiest %s's bytes at %.3g GB/s",
                    reference->nodes > 1 ? "node" : "rank", rate / 1e9);
    ep_sheet_define_number(sheet, "ep_ranks", (double)reference->ranks);
    ep_sheet_define_number(sheet, "ep_y_low", range_s[0]);
    ep_sheet_define_number(sheet, "ep_y_high", range_s[1]);
    ep_sheet_define_number(sheet, "ep_x_low", (double)top_ks[0]);
    ep_sheet_define_number(sheet, "ep_x_high", (double)top_ks[num_top_ks - 1]);
    return EP_OK;
}
