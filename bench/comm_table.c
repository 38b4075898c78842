/* SPDX-License-Identifier: Apache-2.0 */
/* Rows by case; a case's visits are kept until the table is printed. */
#include "bench/comm_table.h"

#include "base/stats.h"
#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VISITS = 64, MAX_COLUMNS = 20 };

struct row {
    char *case_name;
    char labels[5][48]; /* transport, op, skew, dtype, basis */
    int64_t tokens, top_k, hidden, ranks, h_rank_bytes, bad;
    double skew_achieved;
    char policy[16]; /* of buffers of rows; "" = not known */
    int64_t peak_bytes, waste_bytes;
    double alloc_s;
    double dropped; /* share of the copies asked for; NaN without a capacity */
    double whole_s[MAX_VISITS], exchange_s[MAX_VISITS], logical[MAX_VISITS], physical[MAX_VISITS],
        of_bound[MAX_VISITS];
    bool has_bound;
    int64_t num_visits;
    int64_t num_left_out; /* visits beyond what the row holds */
    int64_t num_warnings;
};

struct ep_comm_table {
    struct row *rows;
    int64_t num;
};

enum ep_status ep_comm_table_create(struct ep_comm_table **table)
{
    struct ep_comm_table *created = calloc(1, sizeof *created);
    if (created == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    *table = created;
    return EP_OK;
}

void ep_comm_table_destroy(struct ep_comm_table *table)
{
    if (table == NULL) {
        return;
    }
    for (int64_t i = 0; i < table->num; i++) {
        free(table->rows[i].case_name);
    }
    free(table->rows);
    free(table);
}

static enum ep_status find_row(struct ep_comm_table *table, const struct ep_record *record,
                               struct row **row)
{
    for (int64_t i = 0; i < table->num; i++) {
        if (strcmp(table->rows[i].case_name, record->case_name) == 0) {
            *row = &table->rows[i];
            return EP_OK;
        }
    }
    struct row *rows = realloc(table->rows, (size_t)(table->num + 1) * sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    table->rows = rows;
    struct row *added = &rows[table->num];
    *added = (struct row){
        .case_name = strdup(record->case_name),
        .tokens = record->tokens,
        .top_k = record->top_k,
        .hidden = record->hidden,
        .ranks = record->ranks,
        .h_rank_bytes = record->h_rank_bytes,
        .skew_achieved = record->skew_achieved,
        .peak_bytes = record->buffer_peak_bytes,
        .waste_bytes = record->buffer_waste_bytes,
        .alloc_s = record->buffer_alloc_s,
        .dropped = record->asked > 0 ? (double)record->dropped / (double)record->asked : NAN,
    };
    if (added->case_name == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    const char *labels[5] = {record->transport, record->op, record->skew, record->dtype,
                             record->byte_basis};
    for (int i = 0; i < 5; i++) {
        snprintf(added->labels[i], sizeof added->labels[i], "%s", labels[i]);
    }
    snprintf(added->policy, sizeof added->policy, "%s",
             record->buffer_policy != NULL ? record->buffer_policy : "");
    if (strcmp(record->algorithm, "default") != 0) {
        snprintf(added->labels[0], sizeof added->labels[0], "%s/%s", record->transport,
                 record->algorithm);
    }
    table->num++;
    *row = added;
    return EP_OK;
}

enum ep_status ep_comm_table_add(struct ep_comm_table *table, const struct ep_record *record)
{
    struct row *row = NULL;
    const enum ep_status status = find_row(table, record, &row);
    if (status != EP_OK) {
        return status;
    }
    row->num_warnings += record->warnings.num;
    if (record->check.rows >= 0) {
        row->bad += record->check.wrong + record->check.missing + record->check.doubled;
    }
    if (row->num_visits == MAX_VISITS) {
        row->num_left_out++;
        return EP_OK;
    }
    const struct ep_record_phase *exchange = ep_record_find_phase(record, "exchange");
    const int64_t v = row->num_visits++;
    row->whole_s[v] = record->median_s;
    row->exchange_s[v] = exchange != NULL ? exchange->median_s : NAN;
    row->physical[v] = record->bw_bytes_per_s;
    row->logical[v] = record->bw_logical_bytes_per_s;
    row->of_bound[v] = record->bound_s / record->median_s;
    row->has_bound = !isnan(record->bound_s);
    return EP_OK;
}

static double median_of(const double *values, int64_t num)
{
    double sorted[MAX_VISITS];
    memcpy(sorted, values, (size_t)num * sizeof *sorted);
    ep_stats_sort(sorted, num);
    return ep_stats_median_sorted(sorted, num);
}

static double spread_of(const double *values, int64_t num)
{
    double low = values[0];
    double high = values[0];
    for (int64_t i = 1; i < num; i++) {
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
    }
    return high / low;
}

static int compare_rows(const void *a, const void *b)
{
    const struct row *x = a;
    const struct row *y = b;
    static const int by_label[] = {1, 0, 3, 2}; /* op, transport, dtype, skew */
    for (size_t i = 0; i < sizeof by_label / sizeof by_label[0]; i++) {
        const int order = strcmp(x->labels[by_label[i]], y->labels[by_label[i]]);
        if (order != 0) {
            return by_label[i] == 1 ? -order : order; /* dispatch before combine */
        }
    }
    if (x->ranks != y->ranks) {
        return x->ranks < y->ranks ? -1 : 1;
    }
    if (x->hidden != y->hidden) {
        return x->hidden < y->hidden ? -1 : 1;
    }
    if (x->top_k != y->top_k) {
        return x->top_k < y->top_k ? -1 : 1;
    }
    return x->tokens != y->tokens ? (x->tokens < y->tokens ? -1 : 1) : strcmp(y->policy, x->policy);
}

/* Which columns there are beside the usual ones: those that tell rows apart. */
struct columns {
    bool ranks, hidden, dropped;
    int64_t num_left_out; /* most visits beyond what a row holds */
    const char *headers[MAX_COLUMNS]; /* that the table borrows */
};

static struct columns find_columns(const struct ep_comm_table *table)
{
    struct columns found = {0};
    for (int64_t i = 0; i < table->num; i++) {
        const struct row *row = &table->rows[i];
        found.ranks = found.ranks || row->ranks != table->rows[0].ranks;
        found.hidden = found.hidden || row->hidden != table->rows[0].hidden;
        found.dropped = found.dropped || !isnan(row->dropped);
        found.num_left_out = row->num_left_out > found.num_left_out ? row->num_left_out : found.num_left_out;
    }
    return found;
}

static bool has_policy(const struct row *row)
{
    return row->policy[0] != '\0' && strcmp(row->policy, "exact") != 0;
}

static bool find_policy(const struct ep_comm_table *table)
{
    bool found = false;
    for (int64_t i = 0; i < table->num; i++) {
        found = found || has_policy(&table->rows[i]);
    }
    return found;
}

/* What buffers of rows cost, where a policy was asked for. */
static enum ep_status print_buffers(const struct ep_comm_table *table, FILE *out)
{
    static const char *const headers[] = {"transport", "skew",  "top-k", "tokens",     "buffers",
                                          "peak",      "waste", "of it", "allocation", "dispatch"};
    enum ep_status status = EP_OK;
    struct ep_table *text = NULL;
    char buffer[32];
    EP_TRY(ep_table_create(headers, sizeof headers / sizeof headers[0], &text));
    for (int64_t i = 0; i < table->num; i++) {
        const struct row *row = &table->rows[i];
        if (strcmp(row->labels[1], "dispatch") != 0 || row->peak_bytes < 0) {
            continue;
        }
        const double waste = row->peak_bytes > 0 ? (double)row->waste_bytes / (double)row->peak_bytes : 0;
        ep_table_add(text, "%s", row->labels[0]);
        ep_table_add(text, "%s", row->labels[2]);
        ep_table_add(text, "%" PRId64, row->top_k);
        ep_table_add(text, "%" PRId64, row->tokens);
        ep_table_add(text, "%s", row->policy);
        ep_table_add(text, "%s", ep_format_bytes((double)row->peak_bytes, buffer, sizeof buffer));
        ep_table_add(text, "%s", ep_format_bytes((double)row->waste_bytes, buffer, sizeof buffer));
        ep_table_add(text, "%.0f %%", 100 * waste);
        ep_table_add(text, "%s",
                     isnan(row->alloc_s) ? "-" : ep_format_time(row->alloc_s, buffer, sizeof buffer));
        ep_table_add(text, "%s",
                     ep_format_time(median_of(row->whole_s, row->num_visits), buffer, sizeof buffer));
    }
    fprintf(out, "\n");
    EP_TRY(ep_table_print(text, out));
    fprintf(out, "buffers: of rows on the way and at the experts, on the rank that has most. allocation: once for "
                 "static, in every dispatch for dynamic (part of its time).\n");
out:
    ep_table_destroy(text);
    return status;
}

static void add_row(struct ep_table *text, const struct row *row, const struct columns *columns)
{
    char buffer[32];
    const int64_t n = row->num_visits;
    ep_table_add(text, "%s%s%s", row->labels[0], has_policy(row) ? " " : "",
                 has_policy(row) ? row->policy : "");
    ep_table_add(text, "%s", row->labels[1]);
    ep_table_add(text, "%s", row->labels[2]);
    if (columns->ranks) {
        ep_table_add(text, "%" PRId64, row->ranks);
    }
    if (columns->hidden) {
        ep_table_add(text, "%" PRId64, row->hidden);
    }
    ep_table_add(text, "%.2f", row->skew_achieved);
    ep_table_add(text, "%" PRId64, row->top_k);
    ep_table_add(text, "%" PRId64, row->tokens);
    ep_table_add(text, "%s", row->labels[3]);
    ep_table_add(text, "%s", ep_format_bytes((double)row->h_rank_bytes, buffer, sizeof buffer));
    ep_table_add(text, "%s", ep_format_time(median_of(row->whole_s, n), buffer, sizeof buffer));
    ep_table_add(text, "%.2fx", spread_of(row->whole_s, n));
    ep_table_add(text, "%s", ep_format_time(median_of(row->exchange_s, n), buffer, sizeof buffer));
    ep_table_add(text, "%s", ep_format_bandwidth(median_of(row->physical, n), buffer, sizeof buffer));
    ep_table_add(text, "%s", ep_format_bandwidth(median_of(row->logical, n), buffer, sizeof buffer));
    ep_table_add(text, row->has_bound ? "%.2f" : "-", median_of(row->of_bound, n));
    ep_table_add(text, "%s", row->labels[4]);
    ep_table_add(text, "%" PRId64, row->bad);
    ep_table_add(text, "%" PRId64, row->num_warnings);
    if (columns->dropped) {
        ep_table_add(text, isnan(row->dropped) ? "-" : "%.2f %%", 100 * row->dropped);
    }
}

static enum ep_status create_text(struct columns *columns, struct ep_table **text)
{
    const struct {
        const char *header;
        bool is_there;
    } all[MAX_COLUMNS] = {
        {"transport", true}, {"op", true},        {"skew", true},     {"ranks", columns->ranks},
        {"hidden", columns->hidden},              {"max/mean", true}, {"top-k", true},
        {"tokens", true},    {"dtype", true},     {"busiest", true},  {"whole", true},
        {"spread", true},    {"exchange", true},  {"physical", true}, {"logical", true},
        {"of bound", true},  {"basis", true},     {"#wrong", true},   {"warnings", true},
        {"dropped", columns->dropped},
    };
    int num = 0;
    for (int i = 0; i < MAX_COLUMNS; i++) {
        if (all[i].is_there) {
            columns->headers[num++] = all[i].header;
        }
    }
    return ep_table_create(columns->headers, num, text);
}

enum ep_status ep_comm_table_print(struct ep_comm_table *table, double null_s, FILE *out)
{
    struct columns columns = find_columns(table);
    enum ep_status status = EP_OK;
    struct ep_table *text = NULL;
    char buffer[32];
    EP_TRY(create_text(&columns, &text));
    qsort(table->rows, (size_t)table->num, sizeof *table->rows, compare_rows);
    for (int64_t i = 0; i < table->num; i++) {
        add_row(text, &table->rows[i], &columns);
    }
    EP_TRY(ep_table_print(text, out));
    fprintf(out, "busiest: remote bytes of the busiest rank, in or out. whole: median of the visits' "
                 "medians; spread: slowest visit over fastest.\nphysical: busiest rank's remote "
                 "bytes over the exchange; logical: its rows, own ones included, over the same "
                 "time.\nof bound: the least time that a given rate allows (--link-rate) over the whole.\n");
    if (columns.num_left_out > 0) {
        fprintf(out, "times: of the first %d visits of a case, %" PRId64 " more are in the records; #wrong and "
                     "warnings: of all.\n", MAX_VISITS, columns.num_left_out);
    }
    if (columns.dropped) {
        fprintf(out, "dropped: of the (token, expert) copies that were asked for.\n");
    }
    if (find_policy(table)) {
        EP_TRY(print_buffers(table, out));
    }
    fprintf(out, "harness: a null operation costs %s per repetition\n",
            ep_format_time(null_s, buffer, sizeof buffer));
out:
    ep_table_destroy(text);
    return status;
}
