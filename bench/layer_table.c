/* SPDX-License-Identifier: Apache-2.0 */
/* Rows by case; a case's visits are kept until the table is printed. */
#include "bench/layer_table.h"

#include "base/stats.h"
#include "base/table.h"
#include "base/units.h"
#include "bench/layer_remedies.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VISITS = 64, MAX_SHOWN_RANKS = 8, MAX_SHOWN_CASES = 8 };

/* What is pooled over visits. */
enum metric {
    WHOLE,
    ROUTE,
    COMPUTE,
    MOVE,
    WAIT,
    STRAGGLER,
    UTILISATION,
    MOVE_SHARE,
    TOKENS,
    EFFICIENCY,
    DENSE,
    NUM_METRICS
};

struct row {
    char *case_name;
    char labels[2][48]; /* transport, skew */
    int remedy;         /* its place in ep_layer_remedies; -1 = none is compared */
    double dropped;     /* share of the copies asked for; NaN without a capacity */
    int64_t tokens, top_k, ranks, bad;
    double skew_achieved;
    double values[NUM_METRICS][MAX_VISITS];
    double pair_s[MAX_SHOWN_RANKS * MAX_SHOWN_RANKS][MAX_VISITS];
    int64_t num_visits, num_warnings;
    int64_t num_left_out; /* visits beyond what the row holds */
};

struct ep_layer_table {
    struct row *rows;
    int64_t num;
};

enum ep_status ep_layer_table_create(struct ep_layer_table **table)
{
    *table = calloc(1, sizeof **table);
    return *table != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a table");
}

void ep_layer_table_destroy(struct ep_layer_table *table)
{
    if (table != NULL) {
        for (int64_t i = 0; i < table->num; i++) {
            free(table->rows[i].case_name);
        }
        free(table->rows);
        free(table);
    }
}

static int place_of(const char *remedy)
{
    int i = remedy != NULL ? 0 : -1;
    while (i >= 0 && strcmp(ep_layer_remedies[i].name, remedy) != 0) {
        i++;
    }
    return i;
}

static enum ep_status find_row(struct ep_layer_table *table, const struct ep_record *record,
                               struct row **row)
{
    for (int64_t i = 0; i < table->num; i++) {
        if (strcmp(table->rows[i].case_name, record->case_name) == 0) {
            *row = &table->rows[i];
            return EP_OK;
        }
    }
    struct row *rows = realloc(table->rows, (size_t)(table->num + 1) * sizeof *rows);
    char *name = strdup(record->case_name);
    if (rows != NULL) {
        table->rows = rows;
    }
    if (rows == NULL || name == NULL) {
        free(name);
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    struct row *added = &rows[table->num++];
    *added = (struct row){
        .case_name = name,
        .tokens = record->tokens,
        .top_k = record->top_k,
        .ranks = record->ranks,
        .skew_achieved = record->skew_achieved,
        .remedy = place_of(record->remedy),
        .dropped = record->asked > 0 ? (double)record->dropped / (double)record->asked : NAN,
    };
    snprintf(added->labels[0], sizeof added->labels[0], "%s", record->transport);
    const char *slash = strrchr(record->skew, '/'); /* of a trace: its file is enough */
    snprintf(added->labels[1], sizeof added->labels[1], "%s%s", slash != NULL ? "trace:" : "",
             slash != NULL ? slash + 1 : record->skew);
    *row = added;
    return EP_OK;
}

static double mean_of(const struct ep_f64s *values)
{
    double sum = 0;
    for (int64_t i = 0; i < values->num; i++) {
        sum += values->items[i];
    }
    return values->num > 0 ? sum / (double)values->num : NAN;
}

enum ep_status ep_layer_table_add(struct ep_layer_table *table, const struct ep_record *record)
{
    struct row *row = NULL;
    const enum ep_status status = find_row(table, record, &row);
    if (status != EP_OK) {
        return status;
    }
    row->num_warnings += record->warnings.num;
    row->bad += record->check.wrong > 0 ? record->check.wrong : 0;
    if (row->num_visits == MAX_VISITS) {
        row->num_left_out++;
        return EP_OK;
    }
    const struct ep_record_phase *route = ep_record_find_phase(record, "route");
    const double compute_s = mean_of(&record->compute_s);
    const double values[NUM_METRICS] = {
        [WHOLE] = record->median_s,
        [ROUTE] = route != NULL ? mean_of(&route->rank_median_s) : NAN,
        [COMPUTE] = compute_s,
        [MOVE] = record->move_over_compute * compute_s,
        [WAIT] = record->wait_over_compute * compute_s,
        [STRAGGLER] = record->straggler,
        [UTILISATION] = record->utilisation,
        [MOVE_SHARE] = record->move_over_compute,
        [TOKENS] = record->tokens_per_s,
        [EFFICIENCY] = record->efficiency,
        [DENSE] = record->dense_s,
    };
    const int64_t v = row->num_visits++;
    for (int m = 0; m < NUM_METRICS; m++) {
        row->values[m][v] = values[m];
    }
    for (int64_t i = 0; row->ranks <= MAX_SHOWN_RANKS && i < record->wait_matrix_s.num; i++) {
        row->pair_s[i][v] = record->wait_matrix_s.items[i];
    }
    return EP_OK;
}

/* Of those that were measured; NaN where none was. */
static double median_of(const double *values, int64_t num)
{
    double sorted[MAX_VISITS];
    int64_t known = 0;
    for (int64_t i = 0; i < num; i++) {
        if (!isnan(values[i])) {
            sorted[known++] = values[i];
        }
    }
    if (known == 0) {
        return NAN;
    }
    ep_stats_sort(sorted, known);
    return ep_stats_median_sorted(sorted, known);
}

static double value_of(const struct row *row, enum metric metric)
{
    return median_of(row->values[metric], row->num_visits);
}

static int compare_rows(const void *a, const void *b)
{
    const struct row *x = *(const struct row *const *)a;
    const struct row *y = *(const struct row *const *)b;
    const bool compares = x->remedy >= 0; /* remedies of one point stand together, whatever their skew */
    for (int i = 0; i < (compares ? 1 : 2); i++) {
        const int order = strcmp(x->labels[i], y->labels[i]);
        if (order != 0) {
            return order;
        }
    }
    if (x->ranks != y->ranks) {
        return x->ranks < y->ranks ? -1 : 1;
    }
    if (x->top_k != y->top_k) {
        return x->top_k < y->top_k ? -1 : 1;
    }
    return x->tokens != y->tokens ? (x->tokens < y->tokens ? -1 : 1) : x->remedy - y->remedy;
}

static void add_row(struct ep_table *text, const struct row *row, bool has_dropped)
{
    static const enum metric times[] = {WHOLE, ROUTE, COMPUTE, MOVE, WAIT};
    char buffer[32];
    const double efficiency = value_of(row, EFFICIENCY);
    if (row->remedy >= 0) {
        ep_table_add(text, "%s", ep_layer_remedies[row->remedy].name);
    }
    ep_table_add(text, "%s", row->labels[0]);
    ep_table_add(text, "%s", row->labels[1]);
    ep_table_add(text, "%.2f", row->skew_achieved);
    ep_table_add(text, "%" PRId64, row->top_k);
    ep_table_add(text, "%" PRId64, row->tokens);
    ep_table_add(text, "%" PRId64, row->ranks);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        ep_table_add(text, "%s", ep_format_time(value_of(row, times[i]), buffer, sizeof buffer));
    }
    ep_table_add(text, "%.2f", value_of(row, STRAGGLER));
    ep_table_add(text, "%.0f %%", 100 * value_of(row, UTILISATION));
    ep_table_add(text, "%.0f %%", 100 * value_of(row, MOVE_SHARE));
    ep_table_add(text, "%.4g", value_of(row, TOKENS));
    ep_table_add(text, isnan(efficiency) ? "-" : "%.0f %%", 100 * efficiency);
    ep_table_add(text, "%s", ep_format_time(value_of(row, DENSE), buffer, sizeof buffer));
    ep_table_add(text, "%" PRId64, row->bad);
    ep_table_add(text, "%" PRId64, row->num_warnings);
    if (has_dropped) {
        ep_table_add(text, isnan(row->dropped) ? "-" : "%.1f %%", 100 * row->dropped);
    }
}

/* Line i: how long rank i waited for each other rank to come. */
static void print_waits(const struct row *row, FILE *out)
{
    char buffer[32];
    fprintf(out, "\n%s%s%s, %s, top-k %" PRId64 ", %" PRId64 " tokens: who (line) waited for whom\n",
            row->remedy >= 0 ? ep_layer_remedies[row->remedy].name : "", row->remedy >= 0 ? ": " : "",
            row->labels[0], row->labels[1], row->top_k, row->tokens);
    for (int64_t i = 0; i < row->ranks; i++) {
        fprintf(out, "  rank %-3" PRId64, i);
        for (int64_t j = 0; j < row->ranks; j++) {
            const double pair_s = median_of(row->pair_s[i * row->ranks + j], row->num_visits);
            fprintf(out, " %10s",
                    i == j ? "-" : ep_format_time(pair_s, buffer, sizeof buffer));
        }
        fprintf(out, "\n");
    }
}

enum ep_status ep_layer_table_print(const struct ep_layer_table *table, FILE *out)
{
    static const char *const headers[] = {
        "remedy", "transport", "skew", "max/mean",  "top-k",   "tokens",    "ranks",    "layer",
        "route",     "experts", "moving", "waiting", "straggler", "used",     "move/exp",
        "tokens/s",  "efficiency", "dense", "#wrong", "warnings", "dropped",
    };
    const int num_headers = sizeof headers / sizeof headers[0];
    const bool compares = table->num > 0 && table->rows[0].remedy >= 0;
    bool has_dropped = false;
    int64_t num_left_out = 0;
    enum ep_status status = EP_OK;
    struct ep_table *text = NULL;
    const struct row **order = calloc((size_t)table->num + 1, sizeof *order);
    if (order == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    for (int64_t i = 0; i < table->num; i++) {
        order[i] = &table->rows[i];
        has_dropped = has_dropped || !isnan(table->rows[i].dropped);
        num_left_out = table->rows[i].num_left_out > num_left_out ? table->rows[i].num_left_out : num_left_out;
    }
    qsort(order, (size_t)table->num, sizeof *order, compare_rows);
    EP_TRY(ep_table_create(headers + !compares, num_headers - !compares - !has_dropped, &text));
    for (int64_t i = 0; i < table->num; i++) {
        add_row(text, order[i], has_dropped);
    }
    EP_TRY(ep_table_print(text, out));
    fprintf(out,
            "layer: median of the visits' medians. route, experts (shared ones too), moving (exchanges, "
            "pack, unpack), waiting: means over ranks, from a pass\nwith clocks. straggler: the "
            "slowest rank's experts over the mean; used: the mean over the slowest.\n"
            "move/exp: above 30 %% it is what limits. efficiency: tokens/s over ranks x those of one "
            "rank with all experts; 70 to 85 %% is usual.\ndense: an FFN of equal active parameters on "
            "the same tokens, no router, no exchange.\n");
    if (num_left_out > 0) {
        fprintf(out, "times: of the first %d visits of a case, %" PRId64 " more are in the records; #wrong and "
                     "warnings: of all.\n", MAX_VISITS, num_left_out);
    }
    for (int i = 0; compares && ep_layer_remedies[i].name != NULL; i++) {
        fprintf(out, "%s%s: %s", i > 0 ? "; " : "", ep_layer_remedies[i].name,
                ep_layer_remedies[i].summary);
    }
    fputs(compares ? ".\n" : "", out);
    for (int64_t i = 0; i < table->num && table->num <= MAX_SHOWN_CASES; i++) {
        if (order[i]->ranks > 1 && order[i]->ranks <= MAX_SHOWN_RANKS) {
            print_waits(order[i], out);
        }
    }
out:
    ep_table_destroy(text);
    free(order);
    return status;
}
