/* SPDX-License-Identifier: Apache-2.0 */
/* Rows in the order in which cases came. */
#include "bench/overlap_table.h"

#include "base/stats.h"
#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VISITS = 64 };

enum metric { WHOLE, STEPS, OVERLAPPED, BOUND, SPEEDUP, HIDDEN, HIDDEN_BOUND, COMPUTE, EXCHANGE, NUM_METRICS };

struct row {
    char *case_name;
    char label[96]; /* transport, skew, top-k, tokens */
    int64_t chunks;
    double values[NUM_METRICS][MAX_VISITS];
    int64_t num_visits;
    int64_t num_left_out; /* visits beyond what the row holds */
};

struct ep_overlap_table {
    struct row *rows;
    int64_t num;
};

enum ep_status ep_overlap_table_create(struct ep_overlap_table **table)
{
    *table = calloc(1, sizeof **table);
    return *table != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a table");
}

void ep_overlap_table_destroy(struct ep_overlap_table *table)
{
    for (int64_t i = 0; table != NULL && i < table->num; i++) {
        free(table->rows[i].case_name);
    }
    if (table != NULL) {
        free(table->rows);
        free(table);
    }
}

static enum ep_status find_row(struct ep_overlap_table *table, const struct ep_record *record,
                               int64_t chunks, struct row **row)
{
    for (int64_t i = 0; i < table->num; i++) {
        if (table->rows[i].chunks == chunks &&
            strcmp(table->rows[i].case_name, record->case_name) == 0) {
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
    *added = (struct row){.case_name = strdup(record->case_name), .chunks = chunks};
    if (added->case_name == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    snprintf(added->label, sizeof added->label, "%s, %.40s, top-k %" PRId64 ", %" PRId64 " tokens",
             record->transport, record->skew, record->top_k, record->tokens);
    table->num++;
    *row = added;
    return EP_OK;
}

enum ep_status ep_overlap_table_add(struct ep_overlap_table *table, const struct ep_record *record)
{
    for (int64_t i = 0; i < record->overlap.num; i++) {
        const struct ep_record_overlap *o = &record->overlap.items[i];
        struct row *row = NULL;
        const enum ep_status status = find_row(table, record, o->chunks, &row);
        if (status != EP_OK) {
            return status;
        }
        const double values[NUM_METRICS] = {
            [WHOLE] = o->whole_s,          [STEPS] = o->steps_s,
            [OVERLAPPED] = o->median_s,    [BOUND] = o->bound_s,
            [SPEEDUP] = o->speedup,        [HIDDEN] = o->hidden,
            [HIDDEN_BOUND] = o->hidden_bound,
            [COMPUTE] = o->compute_slowdown, [EXCHANGE] = o->exchange_slowdown,
        };
        for (int m = 0; m < NUM_METRICS && row->num_visits < MAX_VISITS; m++) {
            row->values[m][row->num_visits] = values[m];
        }
        row->num_left_out += row->num_visits == MAX_VISITS;
        row->num_visits += row->num_visits < MAX_VISITS;
    }
    return EP_OK;
}

static double value_of(const struct row *row, enum metric metric)
{
    double sorted[MAX_VISITS];
    memcpy(sorted, row->values[metric], (size_t)row->num_visits * sizeof *sorted);
    ep_stats_sort(sorted, row->num_visits);
    return ep_stats_median_sorted(sorted, row->num_visits);
}

/* The fastest of a row's case. */
static bool is_best(const struct ep_overlap_table *table, const struct row *row)
{
    for (int64_t i = 0; i < table->num; i++) {
        if (strcmp(table->rows[i].case_name, row->case_name) == 0 &&
            value_of(&table->rows[i], SPEEDUP) > value_of(row, SPEEDUP)) {
            return false;
        }
    }
    return true;
}

static void add_row(struct ep_table *text, const struct ep_overlap_table *table,
                    const struct row *row)
{
    static const enum metric times[] = {WHOLE, STEPS, OVERLAPPED, BOUND};
    char buffer[32];
    ep_table_add(text, "%s", row->label);
    ep_table_add(text, "%" PRId64 "%s", row->chunks, is_best(table, row) ? "*" : "");
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        ep_table_add(text, "%s", ep_format_time(value_of(row, times[i]), buffer, sizeof buffer));
    }
    ep_table_add(text, "%.3f", value_of(row, SPEEDUP));
    ep_table_add(text, "%.0f %%", 100 * value_of(row, HIDDEN));
    ep_table_add(text, "%.0f %%", 100 * value_of(row, HIDDEN_BOUND));
    ep_table_add(text, "%.2f", value_of(row, COMPUTE));
    ep_table_add(text, "%.2f", value_of(row, EXCHANGE));
}

enum ep_status ep_overlap_table_print(const struct ep_overlap_table *table, FILE *out)
{
    static const char *const headers[] = {
        "overlap", "chunks", "layer", "in turn", "overlapped", "at best",
        "speedup", "hidden", "can be", "experts x", "exchange x",
    };
    enum ep_status status = EP_OK;
    struct ep_table *text = NULL;
    int64_t num_left_out = 0;
    if (table->num == 0) {
        return EP_OK;
    }
    EP_TRY(ep_table_create(headers, sizeof headers / sizeof headers[0], &text));
    for (int64_t i = 0; i < table->num; i++) {
        add_row(text, table, &table->rows[i]);
        num_left_out = table->rows[i].num_left_out > num_left_out ? table->rows[i].num_left_out : num_left_out;
    }
    fputc('\n', out);
    EP_TRY(ep_table_print(text, out));
    fprintf(out,
            "layer: in one piece. in turn: in chunks, one thing after the other. overlapped: exchanges run "
            "while experts compute. speedup: layer over overlapped; *: the best.\nhidden: share of the "
            "exchanges' time; below 0 overlapping costs more than it hides. can be, at best: if exchanges "
            "went on by themselves at no cost.\nexperts x, exchange x: how much longer each takes "
            "overlapped than alone; an exchange until it is seen to be through.\n");
    if (num_left_out > 0) {
        fprintf(out, "times: of the first %d visits of a case, %" PRId64 " more are in the records.\n", MAX_VISITS,
                num_left_out);
    }
out:
    ep_table_destroy(text);
    return status;
}
