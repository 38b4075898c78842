/* SPDX-License-Identifier: Apache-2.0 */
/* Import of any CSV with a header, by a mapping of its columns: results/README.md, "Import". */
#include "results/import.h"

#include "base/csv.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum key {
    KEY_TIME_S,
    KEY_TIME_MS,
    KEY_TIME_US,
    KEY_SIZE,
    KEY_RANK_SIZE,
    KEY_RANKS,
    KEY_PER_NODE,
    NUM_KEYS
};

static const char *const key_names[NUM_KEYS] = {
    [KEY_TIME_S] = "time_s",           [KEY_TIME_MS] = "time_ms",      [KEY_TIME_US] = "time_us",
    [KEY_SIZE] = "size_bytes",         [KEY_RANK_SIZE] = "rank_bytes", [KEY_RANKS] = "ranks",
    [KEY_PER_NODE] = "ranks_per_node",
};

static const double time_units[] = {[KEY_TIME_S] = 1, [KEY_TIME_MS] = 1e-3, [KEY_TIME_US] = 1e-6};

/* What --op calls, and how it is recorded. */
static const struct {
    const char *name;
    enum ep_import_kind kind;
} ops[] = {
    {"alltoall", EP_IMPORT_EXCHANGE},
    {"alltoallv", EP_IMPORT_EXCHANGE},
    {"pingpong", EP_IMPORT_LINK},
    {"window", EP_IMPORT_LINK},
};

struct mapping {
    int64_t columns[NUM_KEYS]; /* -1 = not mapped */
    int time;                  /* which of the times */
    int op;
};

/* One "KEY=COLUMN". */
static enum ep_status add_key(const struct ep_csv *csv, const char *item, struct mapping *m)
{
    const char *equals = strchr(item, '=');
    for (int k = 0; equals != NULL && k < NUM_KEYS; k++) {
        if (strlen(key_names[k]) == (size_t)(equals - item) &&
            strncmp(key_names[k], item, strlen(key_names[k])) == 0) {
            if (m->columns[k] >= 0) {
                return ep_error_set(EP_EINVAL, "--map: %s is given twice", key_names[k]);
            }
            m->columns[k] = ep_csv_find_column(csv, equals + 1);
            return m->columns[k] >= 0 ? EP_OK
                                      : ep_error_set(EP_EINVAL, "%s:1: no column '%s' (--map %s)",
                                                     csv->name, equals + 1, item);
        }
    }
    return ep_error_set(EP_EINVAL,
                        "--map: '%s'; time_s, time_ms, time_us, size_bytes, rank_bytes, ranks "
                        "or ranks_per_node =COLUMN was expected",
                        item);
}

static enum ep_status find_op(const char *name, int *op)
{
    for (int i = 0; i < (int)(sizeof ops / sizeof ops[0]); i++) {
        if (name != NULL && strcmp(ops[i].name, name) == 0) {
            *op = i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL,
                        "--op: '%s'; a CSV needs alltoall, alltoallv, pingpong or window",
                        name != NULL ? name : "");
}

static enum ep_status read_mapping(const struct ep_csv *csv,
                                   const struct ep_import_options *options, struct mapping *m)
{
    enum ep_status status = EP_OK;
    struct ep_list list = {0};
    *m = (struct mapping){.time = -1};
    for (int k = 0; k < NUM_KEYS; k++) {
        m->columns[k] = -1;
    }
    EP_TRY(find_op(options->op, &m->op));
    if (options->map == NULL) {
        EP_TRY(ep_error_set(EP_EINVAL,
                            "a CSV needs --map time_us=COLUMN,size_bytes=COLUMN[,ranks=COLUMN]"));
    }
    EP_TRY(ep_list_split(options->map, ',', "--map", &list));
    for (int64_t i = 0; i < list.num; i++) {
        EP_TRY(add_key(csv, list.items[i], m));
    }
    int num_times = 0;
    for (int k = KEY_TIME_S; k <= KEY_TIME_US; k++) {
        num_times += m->columns[k] >= 0;
        m->time = m->columns[k] >= 0 ? k : m->time;
    }
    const int num_sizes = (m->columns[KEY_SIZE] >= 0) + (m->columns[KEY_RANK_SIZE] >= 0);
    if (num_times != 1 || num_sizes != 1) {
        EP_TRY(ep_error_set(EP_EINVAL,
                            "--map: one of time_s, time_ms and time_us and one of size_bytes and "
                            "rank_bytes were expected"));
    }
out:
    ep_list_fini(&list);
    return status;
}

/* Lines that follow each other with the same factors are samples of one visit. */
static bool is_next(const struct ep_import *import, int64_t first, const struct ep_import_point *p)
{
    if (import->num_points <= first + 1) {
        return false;
    }
    const struct ep_import_point *before = &import->points[import->num_points - 2];
    return before->size_bytes == p->size_bytes && before->num_ranks == p->num_ranks &&
           before->ranks_per_node == p->ranks_per_node;
}

/* The last point becomes a sample of the one before. */
static enum ep_status join(struct ep_import *import)
{
    struct ep_import_point *last = &import->points[import->num_points - 1];
    struct ep_import_point *before = last - 1;
    const int64_t num = before->samples_s.num;
    if ((num & (num - 1)) == 0) {
        double *larger = realloc(before->samples_s.items, 2 * (size_t)num * sizeof *larger);
        if (larger == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " samples", num);
        }
        before->samples_s.items = larger;
    }
    before->samples_s.items[before->samples_s.num++] = last->samples_s.items[0];
    before->mean = NULL;
    free(last->samples_s.items);
    import->num_points--;
    return EP_OK;
}

static enum ep_status get_or(const struct ep_csv *csv, int64_t column, int64_t max, int64_t *value)
{
    return column >= 0 ? ep_csv_get_i64(csv, column, 1, max, value) : EP_OK;
}

static enum ep_status read_row(const struct ep_csv *csv, const struct mapping *m,
                               const struct ep_import_options *options, int64_t first,
                               struct ep_import *import)
{
    enum ep_status status = EP_OK;
    double time = 0;
    int64_t size_bytes = 0, ranks = -1, per_node = -1;
    char place[24], where[EP_IMPORT_TEXT];
    struct ep_import_point *p = NULL;
    const bool of_rank = m->columns[KEY_RANK_SIZE] >= 0;
    const bool is_link = ops[m->op].kind == EP_IMPORT_LINK;
    snprintf(place, sizeof place, ":%" PRId64, csv->line);
    ep_import_set_where(csv->name, place, where);
    EP_TRY(ep_csv_get_f64(csv, m->columns[m->time], 0, 1e12, &time));
    EP_TRY(ep_csv_get_i64(csv, m->columns[of_rank ? KEY_RANK_SIZE : KEY_SIZE], 0, INT64_C(1) << 50,
                          &size_bytes));
    EP_TRY(get_or(csv, m->columns[KEY_RANKS], EP_IMPORT_MAX_RANKS, &ranks));
    EP_TRY(get_or(csv, m->columns[KEY_PER_NODE], EP_IMPORT_MAX_RANKS, &per_node));
    ranks = ranks > 0 ? ranks : is_link ? 2 : options->num_ranks;
    if (ranks < 1) {
        EP_TRY(ep_error_set(EP_EINVAL,
                            "%s: how many ranks is not told: --ranks N, or ranks=COLUMN in "
                            "--map",
                            where));
    }
    if (of_rank && !is_link) {
        if (size_bytes % ranks != 0) {
            EP_TRY(ep_error_set(EP_EINVAL,
                                "%s: %" PRId64 " bytes are no whole number of messages to %" PRId64
                                " ranks",
                                where, size_bytes, ranks));
        }
        size_bytes /= ranks;
    }
    EP_TRY(ep_import_add_point(import, where, size_bytes, time * time_units[m->time], &p));
    if (p == NULL) {
        goto out;
    }
    p->kind = ops[m->op].kind;
    snprintf(p->tool, sizeof p->tool, "csv");
    p->how = ops[m->op].name;
    p->cadence = is_link ? NULL : "unknown";
    p->num_ranks = ranks;
    p->ranks_per_node = per_node;
    p->mean = "whatever its line is the mean of";
    p->bw_bytes_per_s = (double)size_bytes / (time * time_units[m->time]);
    if (is_next(import, first, p)) {
        EP_TRY(join(import));
    }
out:
    return status;
}

enum ep_status ep_import_read_csv(const char *name, const char *text, size_t length,
                                  const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    struct ep_csv csv = {0};
    struct mapping mapping;
    const int64_t first = import->num_points;
    int more = 0;
    if (length > 0 && text[length - 1] != '\n') {
        return ep_error_set(EP_EINVAL,
                            "%s: the text ends within its last line; a line end was expected, so "
                            "it may be cut",
                            name);
    }
    EP_TRY(ep_csv_init(name, text, length, &csv));
    EP_TRY(ep_csv_read_header(&csv));
    EP_TRY(read_mapping(&csv, options, &mapping));
    EP_TRY(ep_csv_next(&csv, &more));
    while (more) {
        EP_TRY(read_row(&csv, &mapping, options, first, import));
        EP_TRY(ep_csv_next(&csv, &more));
    }
out:
    ep_csv_fini(&csv);
    return status;
}
