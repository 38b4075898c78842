/* SPDX-License-Identifier: Apache-2.0 */
/* Import of nccl-tests' text. Columns and sizes: results/README.md, "Import". */
#include "results/import_nccl.h"

#include "results/import_lines.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const plain_columns[] = {"#",    "size",  "count", "type",   "redop",
                                            "root", "time",  "algbw", "busbw",  "#wrong",
                                            "time", "algbw", "busbw", "#wrong", NULL};
static const char *const iteration_columns[] = {
    "#",     "size",   "count", "type",  "redop", "root",  "time", "algbw",
    "busbw", "#wrong", "i_min", "i_max", "i_p99", "i_cv%", "time", "algbw",
    "busbw", "#wrong", "i_min", "i_max", "i_p99", "i_cv%", NULL};

/* Words of a line of results. */
enum { AT_SIZE, AT_COUNT, AT_TYPE, AT_REDOP, AT_ROOT, AT_TIME, AT_ALGBW, AT_BUSBW, AT_WRONG };

struct table {
    struct ep_nccl_run run;
    int num_words;  /* of a line of results; 0 before the line of columns */
    bool has_units; /* the line of units was seen */
    bool has_end;   /* the line that closes the table */
    bool is_placed;
};

/* Whether the words are these columns; older versions call #wrong error. */
static bool are_columns(const struct ep_import_lines *l, const char *const *names, int num)
{
    for (int i = 0; i < num; i++) {
        const bool same = strcmp(l->words[i], names[i]) == 0 ||
                          (strcmp(names[i], "#wrong") == 0 && strcmp(l->words[i], "error") == 0);
        if (!same) {
            return false;
        }
    }
    return true;
}

static enum ep_status read_columns(struct ep_import_lines *l, struct table *t)
{
    const char *const *forms[] = {plain_columns, iteration_columns};
    const bool has_cputime = strstr(l->text, "cputime") != NULL;
    const enum ep_status status = ep_import_lines_split(l);
    if (status != EP_OK) {
        return status;
    }
    const bool stamped = strcmp(l->words[l->num_words - 1], "timestamp") == 0;
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        int num = 0;
        while (forms[f][num] != NULL) {
            num++;
        }
        if (l->num_words - stamped == num && are_columns(l, forms[f], num)) {
            t->num_words = num - 1 + 2 * stamped; /* date and time */
            return EP_OK;
        }
    }
    return ep_import_lines_fail(
        l, has_cputime ? "times of the processor (-C 1); those of the transfer were "
                         "expected"
                       : "columns size count type redop root, then time algbw busbw "
                         "#wrong twice, were expected");
}

static enum ep_status read_wrong(const struct ep_import_lines *l, int64_t *wrong)
{
    double value = 0;
    *wrong = -1;
    if (strcmp(l->words[AT_WRONG], "N/A") == 0) {
        return EP_OK;
    }
    const enum ep_status status = ep_import_lines_get_f64(l, AT_WRONG, "#wrong", 0, 9e18, &value);
    *wrong = (int64_t)ceil(value);
    return status;
}

static enum ep_status read_row(struct ep_import_lines *l, struct table *t,
                               const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    struct ep_nccl_row row = {.where = l->where};
    EP_TRY(ep_import_lines_split(l));
    if (t->num_words == 0 || !t->has_units || t->has_end) {
        EP_TRY(ep_import_lines_fail(l,
                                    "'%.40s': lines of columns and of units '(B) ... (us)' were "
                                    "expected before it",
                                    l->words[0]));
    }
    if (l->num_words != t->num_words) {
        EP_TRY(ep_import_lines_fail(l, "%d words; %d columns were expected", l->num_words,
                                    t->num_words));
    }
    EP_TRY(ep_import_lines_get_i64(l, AT_SIZE, "size", 0, INT64_C(1) << 50, &row.size_bytes));
    EP_TRY(ep_import_lines_get_i64(l, AT_COUNT, "count", 0, INT64_C(1) << 50, &row.count));
    row.type = l->words[AT_TYPE];
    EP_TRY(ep_import_lines_get_f64(l, AT_TIME, "time", 0, 1e12, &row.time_us));
    EP_TRY(ep_import_lines_get_f64(l, AT_ALGBW, "algbw", 0, 1e9, &row.algbw));
    EP_TRY(read_wrong(l, &row.wrong));
    if (!t->is_placed) {
        EP_TRY(ep_nccl_place(&t->run, l->where));
        t->is_placed = true;
    }
    EP_TRY(ep_nccl_add_row(&t->run, &row, options, import));
out:
    return status;
}

/* "#  Rank  0 Group  0 Pid 6521 on  node1 device  0 [0000:07:00] NVIDIA H100"; older ones without
 * group. */
static enum ep_status read_device(struct ep_import_lines *l, struct table *t)
{
    enum ep_status status = EP_OK;
    int64_t rank = 0, group = 0;
    EP_TRY(ep_import_lines_split(l));
    const int more = l->num_words > 3 && strcmp(l->words[3], "Group") == 0 ? 2 : 0;
    if (l->num_words < 8 + more || strcmp(l->words[3 + more], "Pid") != 0 ||
        strcmp(l->words[5 + more], "on") != 0 || strcmp(l->words[7 + more], "device") != 0) {
        EP_TRY(ep_import_lines_fail(l, "'# Rank N Group N Pid N on HOST device ...' was expected"));
    }
    EP_TRY(ep_import_lines_get_i64(l, 2, "Rank", 0, EP_IMPORT_MAX_RANKS - 1, &rank));
    if (more > 0) {
        EP_TRY(ep_import_lines_get_i64(l, 4, "Group", 0, INT32_MAX, &group));
    }
    EP_TRY(ep_nccl_add_device(&t->run, l->where, rank, group, l->words[6 + more]));
out:
    return status;
}

static enum ep_status read_version(struct ep_import_lines *l, struct table *t)
{
    const char *version = l->text + strlen("# nccl-tests version ");
    const size_t length = strcspn(version, " ");
    if (length == 0 || length >= sizeof t->run.version ||
        strspn(version, "0123456789.") != length) {
        return ep_import_lines_fail(l, "a version of nccl-tests as 2.17.1 was expected");
    }
    memcpy(t->run.version, version, length);
    t->run.version[length] = '\0';
    return EP_OK;
}

static enum ep_status read_comment(struct ep_import_lines *l, struct table *t)
{
    static const char starting[] = "# Collective test starting: ";
    const char *rest = l->text + 1 + strspn(l->text + 1, " ");
    if (ep_import_begins(l->text, "# nccl-tests version ")) {
        return read_version(l, t);
    }
    if (ep_import_begins(l->text, starting)) {
        return ep_nccl_find_op(l->where, l->text + strlen(starting), &t->run.op);
    }
    if (ep_import_begins(rest, "Rank ")) {
        return read_device(l, t);
    }
    if (ep_import_begins(rest, "Blocking Enabled")) {
        t->run.blocking = true;
    } else if (ep_import_begins(rest, "size ")) {
        return read_columns(l, t);
    } else if (ep_import_begins(rest, "(B) ")) {
        t->has_units = strstr(rest, "(us)") != NULL && strstr(rest, "(GB/s)") != NULL;
    } else if (ep_import_begins(rest, "Out of bounds values")) {
        t->has_end = true;
    }
    return EP_OK;
}

static enum ep_status read_text(struct ep_import_lines *l, struct table *t,
                                const struct ep_import_options *options, struct ep_import *import)
{
    enum ep_status status = EP_OK;
    while (ep_import_lines_next(l)) {
        if (l->text[0] == '#') {
            EP_TRY(read_comment(l, t));
        } else if (isdigit((unsigned char)l->text[0]) || l->text[0] == '-') {
            EP_TRY(read_row(l, t, options, import));
        } else if (l->text[0] != '\0' && !ep_import_begins(l->text, "NCCL version ") &&
                   !ep_import_begins(l->text, "rccl-tests: ")) {
            EP_TRY(ep_import_lines_fail(l,
                                        "'%.40s': a line of nccl-tests was expected, '#' or a size "
                                        "first",
                                        l->text));
        }
    }
    if (!t->has_end) {
        EP_TRY(
            ep_import_lines_fail(l, "the text ends before '# Out of bounds values'; is it cut?"));
    }
out:
    return status;
}

enum ep_status ep_import_read_nccl(const char *name, const char *text, size_t length,
                                   const struct ep_import_options *options,
                                   struct ep_import *import)
{
    enum ep_status status = EP_OK;
    struct ep_import_lines l = {0};
    struct table t = {.run = {.spread = options->spread, .scale = options->scale}};
    if (options->op != NULL) {
        EP_TRY(ep_nccl_find_op("--op", options->op, &t.run.op));
    }
    if (text[strspn(text, " \t\r\n")] == '{') {
        EP_TRY(ep_nccl_read_json(name, text, length, options, &t.run, import));
    } else {
        EP_TRY(ep_import_lines_init(name, text, length, &l));
        EP_TRY(read_text(&l, &t, options, import));
    }
out:
    ep_nccl_run_fini(&t.run);
    ep_import_lines_fini(&l);
    return status;
}
