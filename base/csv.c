/* SPDX-License-Identifier: Apache-2.0 */
/* Strict CSV: rows are split in place in one owned buffer. */
#include "base/csv.h"

#include "base/file.h"
#include "base/text.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_csv_take(const char *name, char *text, size_t length, struct ep_csv *csv)
{
    const enum ep_status status = ep_text_check(name, text, length);
    if (status != EP_OK) {
        free(text);
        return status;
    }
    const size_t mark = length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    *csv = (struct ep_csv){.name = name, .text = text, .next = text + mark, .end = text + length,
                           .line = 0, .next_line = 1};
    return EP_OK;
}

enum ep_status ep_csv_open(const char *path, int64_t limit_bytes, struct ep_csv *csv)
{
    char *text = NULL;
    size_t length = 0;
    const enum ep_status status = ep_file_read(path, limit_bytes, &text, &length);
    if (status != EP_OK) {
        return status;
    }
    return ep_csv_take(path, text, length, csv);
}

enum ep_status ep_csv_init(const char *name, const char *text, size_t length, struct ep_csv *csv)
{
    char *copy = malloc(length + 1);
    if (copy == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", name);
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    return ep_csv_take(name, copy, length, csv);
}

void ep_csv_fini(struct ep_csv *csv)
{
    free(csv->text);
    free(csv->header);
    free(csv->fields);
    *csv = (struct ep_csv){0};
}

static enum ep_status add_field(struct ep_csv *csv, char *field)
{
    if (csv->num_fields == csv->capacity) {
        const int64_t capacity = csv->capacity > 0 ? 2 * csv->capacity : 16;
        char **larger = realloc(csv->fields, (size_t)capacity * sizeof *larger);
        if (larger == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory", csv->name);
        }
        csv->fields = larger;
        csv->capacity = capacity;
    }
    csv->fields[csv->num_fields++] = field;
    return EP_OK;
}

/* Reads one field at csv->next, unquotes it in place, ends it with NUL; returns what ended it:
 * ',' '\n' or 0 for the end of the file, or -1 for a quoting error. */
static int read_field(struct ep_csv *csv, char **field)
{
    char *from = csv->next;
    char *to = from;
    *field = to;
    if (from < csv->end && *from == '"') {
        from++;
        while (from < csv->end && !(from[0] == '"' && from[1] != '"')) {
            from += from[0] == '"';
            csv->next_line += *from == '\n';
            *to++ = *from++;
        }
        if (from == csv->end) {
            return -1;
        }
        from++;
    } else {
        while (from < csv->end && *from != ',' && *from != '\n' && *from != '\r') {
            if (*from == '"') {
                return -1;
            }
            *to++ = *from++;
        }
    }
    from += from < csv->end && *from == '\r' && (from + 1 == csv->end || from[1] == '\n');
    const int ended_by = from < csv->end ? *from : 0;
    if (ended_by != 0 && ended_by != ',' && ended_by != '\n') {
        return -1;
    }
    csv->next = from + (from < csv->end);
    *to = '\0';
    return ended_by;
}

static enum ep_status read_row(struct ep_csv *csv)
{
    csv->num_fields = 0;
    csv->line = csv->next_line;
    for (int ended_by = ','; ended_by == ',';) {
        char *field = NULL;
        ended_by = read_field(csv, &field);
        if (ended_by < 0) {
            return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": a quote or line end is out of place",
                                csv->name, csv->line);
        }
        const enum ep_status status = add_field(csv, field);
        if (status != EP_OK) {
            return status;
        }
        csv->next_line += ended_by == '\n';
    }
    return EP_OK;
}

enum ep_status ep_csv_read_header(struct ep_csv *csv)
{
    if (csv->next >= csv->end) {
        return ep_error_set(EP_EINVAL, "%s: is empty; a header line was expected", csv->name);
    }
    const enum ep_status status = read_row(csv);
    if (status != EP_OK) {
        return status;
    }
    csv->header = csv->fields;
    csv->num_columns = csv->num_fields;
    csv->fields = NULL;
    csv->num_fields = csv->capacity = 0;
    return EP_OK;
}

int64_t ep_csv_find_column(const struct ep_csv *csv, const char *name)
{
    for (int64_t i = 0; i < csv->num_columns; i++) {
        if (strcmp(csv->header[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static bool only_line_ends(const char *from, const char *end)
{
    while (from < end && (*from == '\n' || *from == '\r')) {
        from++;
    }
    return from == end;
}

enum ep_status ep_csv_next(struct ep_csv *csv, int *more)
{
    if (only_line_ends(csv->next, csv->end)) {
        *more = 0;
        return EP_OK;
    }
    const enum ep_status status = read_row(csv);
    if (status != EP_OK) {
        return status;
    }
    if (csv->header != NULL && csv->num_fields != csv->num_columns) {
        return ep_error_set(EP_EINVAL,
                            "%s:%" PRId64 ": has %" PRId64 " fields, the header has %" PRId64,
                            csv->name, csv->line, csv->num_fields, csv->num_columns);
    }
    if (csv->num_fields == 1 && csv->fields[0][0] == '\0') {
        return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": is blank; a row was expected", csv->name,
                            csv->line);
    }
    *more = 1;
    return EP_OK;
}

static void describe(const struct ep_csv *csv, int64_t column, char *text, size_t length)
{
    EP_ASSERT(column >= 0 && column < csv->num_fields);
    if (csv->header != NULL) {
        snprintf(text, length, "%s:%" PRId64 ": column '%s'", csv->name, csv->line,
                 csv->header[column]);
    } else {
        snprintf(text, length, "%s:%" PRId64 ": field %" PRId64, csv->name, csv->line,
                 column + 1);
    }
}

enum ep_status ep_csv_get_i64(const struct ep_csv *csv, int64_t column, int64_t min, int64_t max,
                              int64_t *value)
{
    char what[512];
    describe(csv, column, what, sizeof what);
    return ep_parse_i64(csv->fields[column], what, min, max, value);
}

enum ep_status ep_csv_get_f64(const struct ep_csv *csv, int64_t column, double min, double max,
                              double *value)
{
    char what[512];
    describe(csv, column, what, sizeof what);
    return ep_parse_f64(csv->fields[column], what, min, max, value);
}
