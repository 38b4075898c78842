/* SPDX-License-Identifier: Apache-2.0 */
/* Import of Intel MPI Benchmarks' text: a table per benchmark and number of processes. Columns:
 * results/README.md, "Import". */
#include "results/import.h"

#include "base/units.h"
#include "results/import_lines.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_COLUMNS = 12 };

static const char *const columns[] = {
    "#bytes",       "#repetitions", "t[usec]",     "t_min[usec]", "t_max[usec]", "t_avg[usec]",
    "t_ovrl[usec]", "t_pure[usec]", "t_CPU[usec]", "overlap[%]",  "Mbytes/sec",  "defects",
};

static const struct benchmark {
    const char *name;
    const char *how;  /* pattern or transport */
    const char *time; /* column */
    enum ep_import_kind kind;
    bool is_ring; /* all ranks send at once */
} benchmarks[] = {
    {"PingPong", "pingpong", "t[usec]", EP_IMPORT_LINK, false},
    {"PingPing", "pingping", "t[usec]", EP_IMPORT_LINK, false},
    {"Sendrecv", "ring", "t_max[usec]", EP_IMPORT_LINK, true},
    {"Alltoall", "alltoall", "t_max[usec]", EP_IMPORT_EXCHANGE, false},
    {"Alltoallv", "alltoallv", "t_max[usec]", EP_IMPORT_EXCHANGE, false},
    {"Ialltoall", "ialltoall", "t_pure[usec]", EP_IMPORT_EXCHANGE, false},
    {"Ialltoallv", "ialltoallv", "t_pure[usec]", EP_IMPORT_EXCHANGE, false},
    {"Ialltoall_pure", "ialltoall", "t_max[usec]", EP_IMPORT_EXCHANGE, false},
    {"Ialltoallv_pure", "ialltoallv", "t_max[usec]", EP_IMPORT_EXCHANGE, false},
};

/* Where the reader is in a text. */
struct table {
    char version[24];                  /* "" = not told */
    bool has_title;                    /* "# Benchmarking" was seen: rows belong to a table */
    const struct benchmark *benchmark; /* NULL = one that is left out */
    int64_t num_ranks;                 /* 0 = not yet told */
    int num_columns;
    const char *columns[MAX_COLUMNS];
    int64_t num_rows;
    int64_t last_size;
    bool has_end;
    int64_t num_left_out; /* tables */
    int64_t num_failed;   /* lines that say why there is no time */
};

static int find_column(const struct table *t, const char *name)
{
    for (int i = 0; i < t->num_columns; i++) {
        if (strcmp(t->columns[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* "#    Intel(R) MPI Benchmarks 2021.2, MPI-1 part" */
static void read_version(const char *text, struct table *t)
{
    const char *number = strstr(text, "Benchmarks ");
    number = number != NULL ? number + strlen("Benchmarks ") : "";
    const size_t length = strspn(number, "0123456789.");
    if (length > 0 && length < sizeof t->version) {
        memcpy(t->version, number, length);
        t->version[length] = '\0';
    }
}

static enum ep_status end_table(const struct ep_import_lines *l, const struct table *t)
{
    if (t->benchmark != NULL && t->num_rows == 0) {
        return ep_import_lines_fail(l, "the table of %s has no line with a size; is the text cut?",
                                    t->benchmark->name);
    }
    return EP_OK;
}

static enum ep_status read_title(struct ep_import_lines *l, struct table *t)
{
    const enum ep_status status = end_table(l, t);
    if (status != EP_OK) {
        return status;
    }
    const char *name = l->text + strlen("# Benchmarking ");
    t->has_title = true;
    t->benchmark = NULL;
    t->num_ranks = 0;
    t->num_columns = 0;
    t->num_rows = 0;
    for (size_t i = 0; i < sizeof benchmarks / sizeof benchmarks[0]; i++) {
        if (strcmp(name, benchmarks[i].name) == 0) {
            t->benchmark = &benchmarks[i];
        }
    }
    t->num_left_out += t->benchmark == NULL;
    return EP_OK;
}

/* "# #processes = 4" and, with -map, "; rank order (rowwise): " behind it. */
static enum ep_status read_ranks(struct ep_import_lines *l, struct table *t)
{
    enum ep_status status = EP_OK;
    char *number = strchr(l->text, '=') + 1;
    number += strspn(number, " ");
    number[strcspn(number, "; )")] = '\0';
    l->words[0] = number;
    l->num_words = 1;
    EP_TRY(ep_import_lines_get_i64(l, 0, "#processes", 1, INT32_MAX, &t->num_ranks));
out:
    return status;
}

static enum ep_status read_columns(struct ep_import_lines *l, struct table *t)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_import_lines_split(l));
    t->num_columns = 0;
    for (int i = 0; i < l->num_words && t->benchmark != NULL; i++) {
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++) {
            if (strcmp(l->words[i], columns[c]) == 0 && t->num_columns < MAX_COLUMNS) {
                t->columns[t->num_columns++] = columns[c];
            }
        }
        if (t->num_columns != i + 1) {
            EP_TRY(ep_import_lines_fail(l, "'%.40s' is no column of %s that is known", l->words[i],
                                        t->benchmark->name));
        }
    }
    if (t->benchmark != NULL &&
        (find_column(t, "#bytes") != 0 || find_column(t, "#repetitions") != 1 ||
         (find_column(t, t->benchmark->time) < 0 && find_column(t, "t_max[usec]") < 0))) {
        EP_TRY(ep_import_lines_fail(l, "columns #bytes #repetitions and %s were expected",
                                    t->benchmark->time));
    }
out:
    return status;
}

/* A line may say instead why it was not measured: out-of-mem., int-overflow, time-out. */
static bool is_failure(const struct ep_import_lines *l)
{
    return l->num_words > 1 && (ep_import_begins(l->words[1], "out-of-mem") ||
                                ep_import_begins(l->words[1], "int-overflow") ||
                                ep_import_begins(l->words[1], "time-out"));
}

static void fill_point(const struct table *t, int64_t size_bytes, double time_s, double defects,
                       struct ep_import_point *p)
{
    const struct benchmark *b = t->benchmark;
    p->kind = b->kind;
    snprintf(p->tool, sizeof p->tool, "IMB %s%s%s", b->name, t->version[0] != '\0' ? " " : "",
             t->version);
    p->how = b->how;
    p->cadence = b->kind == EP_IMPORT_EXCHANGE ? "barrier" : "stream";
    p->num_ranks = t->num_ranks;
    p->mean = "repetitions";
    p->bw_bytes_per_s = (double)size_bytes / time_s;
    p->concurrent_pairs = b->is_ring ? t->num_ranks : 1;
    p->verified = isnan(defects) ? -1 : defects == 0;
}

static enum ep_status read_row(struct ep_import_lines *l, struct table *t, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    int64_t size_bytes = 0, repetitions = 0;
    double time_us = 0, unused = 0, defects = NAN;
    struct ep_import_point *p = NULL;
    EP_TRY(ep_import_lines_split(l));
    if (t->num_columns == 0 || t->num_ranks == 0) {
        EP_TRY(
            ep_import_lines_fail(l,
                                 "'%.40s': '# Benchmarking ...', '# #processes = N' and a line of "
                                 "columns were expected before it",
                                 l->words[0]));
    }
    EP_TRY(ep_import_lines_get_i64(l, 0, "#bytes", 0, INT64_C(1) << 50, &size_bytes));
    t->num_rows++;
    if (is_failure(l)) {
        t->num_failed++;
        goto out;
    }
    if (l->num_words != t->num_columns) {
        EP_TRY(ep_import_lines_fail(l, "%d numbers; the table of %s has %d columns", l->num_words,
                                    t->benchmark->name, t->num_columns));
    }
    if (t->num_rows > 1 && size_bytes <= t->last_size) {
        EP_TRY(ep_import_lines_fail(l,
                                    "size %" PRId64 " after %" PRId64 "; ascending sizes were "
                                    "expected",
                                    size_bytes, t->last_size));
    }
    t->last_size = size_bytes;
    EP_TRY(ep_import_lines_get_i64(l, 1, "#repetitions", 1, INT64_MAX, &repetitions));
    for (int i = 2; i < t->num_columns; i++) {
        EP_TRY(ep_import_lines_get_f64(l, i, t->columns[i], 0, 1e15, &unused));
    }
    const int at = find_column(t, t->benchmark->time);
    EP_TRY(ep_import_lines_get_f64(l, at >= 0 ? at : find_column(t, "t_max[usec]"),
                                   t->benchmark->time, 0, 1e12, &time_us));
    if (find_column(t, "defects") >= 0) {
        EP_TRY(
            ep_import_lines_get_f64(l, find_column(t, "defects"), "defects", 0, 1e300, &defects));
    }
    if (t->benchmark->kind == EP_IMPORT_EXCHANGE && t->num_ranks == 1) {
        import->num_empty++; /* nothing leaves the rank */
        goto out;
    }
    EP_TRY(ep_import_add_point(import, l->where, size_bytes, time_us * 1e-6, &p));
    if (p != NULL) {
        fill_point(t, size_bytes, time_us * 1e-6, defects, p);
    }
out:
    return status;
}

static enum ep_status read_line(struct ep_import_lines *l, struct table *t,
                                struct ep_import *import)
{
    if (ep_import_begins(l->text, "# Benchmarking ")) {
        return read_title(l, t);
    }
    if (ep_import_begins(l->text, "# #processes = ") ||
        ep_import_begins(l->text, "# ( #processes = ")) {
        return read_ranks(l, t);
    }
    if (ep_import_begins(l->text, "#bytes ")) {
        return read_columns(l, t);
    }
    if (strstr(l->text, "MPI Benchmark") != NULL && l->text[0] == '#') {
        read_version(l->text, t);
    } else if (ep_import_begins(l->text, "# All processes entering MPI_Finalize")) {
        t->has_end = true;
    } else if (l->text[0] != '\0' && l->text[0] != '#' && !t->has_title) {
        return ep_import_lines_fail(l, "'%.40s': '# Benchmarking ...' was expected before it",
                                    l->text);
    } else if (l->text[0] != '\0' && l->text[0] != '#' && t->benchmark != NULL) {
        return read_row(l, t, import);
    }
    return EP_OK;
}

static enum ep_status add_notes(const struct ep_import_lines *l, const struct table *t,
                                struct ep_import *import)
{
    enum ep_status status = EP_OK;
    if (t->num_left_out > 0) {
        EP_TRY(ep_record_add_note(&import->notes, "left-out",
                                  "%s: %" PRId64 " tables of other benchmarks are left out",
                                  l->name, t->num_left_out));
    }
    if (t->num_failed > 0) {
        EP_TRY(ep_record_add_note(&import->notes, "not-measured",
                                  "%s: %" PRId64
                                  " sizes were not measured (out-of-mem, int-overflow "
                                  "or time-out)",
                                  l->name, t->num_failed));
    }
out:
    return status;
}

enum ep_status ep_import_read_imb(const char *name, const char *text, size_t length,
                                  const struct ep_import_options *options, struct ep_import *import)
{
    (void)options;
    enum ep_status status = EP_OK;
    struct ep_import_lines l = {0};
    struct table t = {.num_columns = 0};
    EP_TRY(ep_import_lines_init(name, text, length, &l));
    while (ep_import_lines_next(&l)) {
        EP_TRY(read_line(&l, &t, import));
    }
    EP_TRY(end_table(&l, &t));
    if (!t.has_end) {
        EP_TRY(ep_import_lines_fail(&l, "the text ends before '# All processes entering "
                                        "MPI_Finalize'; is it cut?"));
    }
    EP_TRY(add_notes(&l, &t, import));
out:
    ep_import_lines_fini(&l);
    return status;
}
