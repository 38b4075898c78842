/* SPDX-License-Identifier: Apache-2.0 */
/* Ratios within rounds, pooled over visits; means over points against what is asked. */
#include "bench/limits.h"

#include "base/stats.h"
#include "base/table.h"
#include "base/units.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Ratios of one transport at one point. */
struct ratios {
    double *values; /* [num] */
    int64_t num;
};

enum over { BASE, MPI, BOUND, NUM_OVERS };

struct row {
    char *point, *transport;
    enum ep_op op;
    bool shares, is_base;
    int64_t received_bytes;
    struct ratios time_s;
    struct ratios overs[NUM_OVERS]; /* their time over its own */
};

struct ep_limits_table {
    struct row *rows;
    int64_t num;
};

enum ep_status ep_limits_table_create(struct ep_limits_table **table)
{
    *table = calloc(1, sizeof **table);
    return *table != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a table");
}

void ep_limits_table_destroy(struct ep_limits_table *table)
{
    for (int64_t i = 0; table != NULL && i < table->num; i++) {
        free(table->rows[i].point);
        free(table->rows[i].transport);
        free(table->rows[i].time_s.values);
        for (int o = 0; o < NUM_OVERS; o++) {
            free(table->rows[i].overs[o].values);
        }
    }
    if (table != NULL) {
        free(table->rows);
        free(table);
    }
}

static enum ep_status append(struct ratios *r, double value)
{
    double *larger = realloc(r->values, (size_t)(r->num + 1) * sizeof *larger);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    r->values = larger;
    r->values[r->num++] = value;
    return EP_OK;
}

static enum ep_status find_row(struct ep_limits_table *table, const struct ep_limits_entry *entry,
                               struct row **row)
{
    for (int64_t i = 0; i < table->num; i++) {
        struct row *r = &table->rows[i];
        if (r->op == entry->op && strcmp(r->point, entry->point) == 0 &&
            strcmp(r->transport, entry->transport) == 0) {
            *row = r;
            return EP_OK;
        }
    }
    struct row *rows = realloc(table->rows, (size_t)(table->num + 1) * sizeof *rows);
    if (rows == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    table->rows = rows;
    *row = &rows[table->num++];
    **row = (struct row){
        .point = strdup(entry->point),
        .transport = strdup(entry->transport),
        .op = entry->op,
        .shares = entry->shares,
        .is_base = entry->is_base,
        .received_bytes = entry->received_bytes,
    };
    return (*row)->point != NULL && (*row)->transport != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for a table");
}

enum ep_status ep_limits_table_add(struct ep_limits_table *table, const struct ep_limits_entry *entry)
{
    enum ep_status status = EP_OK;
    struct row *row = NULL;
    EP_TRY(find_row(table, entry, &row));
    const double *const overs[NUM_OVERS] = {entry->base_s, entry->mpi_s, entry->bound_s};
    EP_TRY(append(&row->time_s, entry->median_s));
    for (int o = 0; o < NUM_OVERS; o++) {
        for (int64_t n = 0; n < entry->num_rounds; n++) {
            if (!isnan(overs[o][n]) && entry->own_s[n] > 0) {
                EP_TRY(append(&row->overs[o], overs[o][n] / entry->own_s[n]));
            }
        }
    }
out:
    return status;
}

/* Median with its 95 % interval; NaN where nothing is known. Sorts. */
static double median_of(struct ratios *r, double *low, double *high)
{
    *low = *high = NAN;
    if (r->num == 0) {
        return NAN;
    }
    ep_stats_sort(r->values, r->num);
    (void)ep_stats_median_interval_sorted(r->values, r->num, 0.95, low, high);
    return ep_stats_median_sorted(r->values, r->num);
}

static void add_ratio(struct ep_table *text, struct ratios *r)
{
    double low, high;
    const double median = median_of(r, &low, &high);
    ep_table_add(text, isnan(median) ? "-" : "%.2f", median);
    ep_table_add(text, isnan(low) ? "-" : "%.2f to %.2f", low, high);
}

static void add_row(struct ep_table *text, struct row *row)
{
    double low, high;
    char buffer[32];
    ep_table_add(text, "%s", row->point);
    ep_table_add(text, "%s", row->transport);
    ep_table_add(text, "%s", ep_op_name(row->op));
    ep_table_add(text, "%s", ep_format_bytes((double)row->received_bytes, buffer, sizeof buffer));
    ep_table_add(text, "%s",
                 ep_format_time(median_of(&row->time_s, &low, &high), buffer, sizeof buffer));
    add_ratio(text, &row->overs[BASE]);
    add_ratio(text, &row->overs[MPI]);
    add_ratio(text, &row->overs[BOUND]);
}

static int compare_rows(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->op != y->op) {
        return x->op < y->op ? -1 : 1;
    }
    const int order = strcmp(x->point, y->point);
    return order != 0 ? order : strcmp(x->transport, y->transport);
}

/* What this project asks of its transports in shared memory. */
struct asked {
    enum ep_op op;
    enum over over;
    const char *text;
    double mean_4k, mean_thp; /* geometric mean over points; 0 = nothing asked */
    double least;             /* at every point; 0 = nothing asked */
    double most_points;       /* ... or at this share of them, above 1 MiB; 0 = at all */
};

static const struct asked asked[] = {
    {EP_OP_DISPATCH, BASE, "over alltoallv", 4, 3.3, 1.3, 0},
    {EP_OP_DISPATCH, MPI, "over the best of the others", 2, 2, 0, 0},
    {EP_OP_DISPATCH, BOUND, "of a copy of the received bytes by all ranks", 1, 1, 0.8, 0.9},
    {EP_OP_COMBINE, BASE, "over alltoallv", 3.3, 3.3, 1.5, 0},
    {EP_OP_COMBINE, BOUND, "of the sums over private rows", 0.8, 0.8, 0, 0},
};

struct verdict {
    double log_sum, least;
    int64_t num, num_large, num_large_good;
};

static void judge(const struct asked *a, const char *transport, struct ep_limits_table *table,
                  struct verdict *v)
{
    enum { LARGE_BYTES = 1 << 20 };
    *v = (struct verdict){.least = INFINITY};
    for (int64_t i = 0; i < table->num; i++) {
        struct row *row = &table->rows[i];
        double low, high;
        if (row->op != a->op || strcmp(row->transport, transport) != 0) {
            continue;
        }
        const double ratio = median_of(&row->overs[a->over], &low, &high);
        if (!isnan(ratio)) {
            v->log_sum += log(ratio);
            v->least = fmin(v->least, ratio);
            v->num++;
            v->num_large += row->received_bytes > LARGE_BYTES;
            v->num_large_good += row->received_bytes > LARGE_BYTES && ratio >= a->least;
        }
    }
}

static void print_verdict(const struct asked *a, const char *transport, bool thp,
                          struct ep_limits_table *table, FILE *out)
{
    struct verdict v;
    const double mean_asked = thp ? a->mean_thp : a->mean_4k;
    judge(a, transport, table, &v);
    if (v.num == 0) {
        return;
    }
    const double mean = exp(v.log_sum / (double)v.num);
    fprintf(out, "%s %s %s: geometric mean %.2f (asked %.1f: %s)", transport, ep_op_name(a->op), a->text,
            mean, mean_asked, mean >= mean_asked ? "ok" : "SHORT");
    if (a->most_points > 0 && v.num_large > 0) {
        const double share = (double)v.num_large_good / (double)v.num_large;
        fprintf(out, "; at least %.1f at %.0f %% of %lld points above 1 MiB (asked %.0f %%: %s)",
                a->least, 100 * share, (long long)v.num_large, 100 * a->most_points,
                share >= a->most_points ? "ok" : "SHORT");
    }
    fprintf(out, "; least %.2f", v.least);
    if (a->most_points == 0 && a->least > 0) {
        fprintf(out, " (asked %.1f: %s)", a->least, v.least >= a->least ? "ok" : "SHORT");
    }
    fprintf(out, "\n");
}

/* Once for each transport in shared memory, in the order of rows. */
static void print_verdicts(struct ep_limits_table *table, bool thp, FILE *out)
{
    bool has_head = false;
    for (int64_t i = 0; i < table->num; i++) {
        bool is_new = table->rows[i].shares;
        for (int64_t j = 0; j < i && is_new; j++) {
            is_new = strcmp(table->rows[j].transport, table->rows[i].transport) != 0;
        }
        if (is_new && !has_head) {
            fprintf(out, "asked: this project's aims for these; SHORT where one is missed here\n");
            has_head = true;
        }
        for (size_t a = 0; is_new && a < sizeof asked / sizeof asked[0]; a++) {
            print_verdict(&asked[a], table->rows[i].transport, thp, table, out);
        }
    }
}

enum ep_status ep_limits_table_print(const struct ep_limits_table *table, bool thp, FILE *out)
{
    static const char *const headers[] = {
        "limits", "transport", "op", "received", "whole", "x alltoallv", "95 %",
        "x best MPI", "95 %", "of bound", "95 %",
    };
    enum ep_status status = EP_OK;
    struct ep_table *text = NULL;
    struct ep_limits_table sorted = *table; /* rows are sorted in place */
    EP_TRY(ep_table_create(headers, sizeof headers / sizeof headers[0], &text));
    qsort(sorted.rows, (size_t)sorted.num, sizeof *sorted.rows, compare_rows);
    for (int64_t i = 0; i < sorted.num; i++) {
        add_row(text, &sorted.rows[i]);
    }
    EP_TRY(ep_table_print(text, out));
    fprintf(out,
            "limits: whole times, pack and unpack included, in turns within a round; ratios are medians of "
            "ratios within rounds. received: by the busiest rank, own rows too.\nx alltoallv, x best MPI: "
            "how often faster. of bound: the bound's time over its own; bounds: a copy of the received "
            "bytes by all ranks at once (the better of\ncached and streaming stores), and combine's sums over "
            "rows of the rank's own.\n");
    print_verdicts(&sorted, thp, out);
out:
    ep_table_destroy(text);
    return status;
}
