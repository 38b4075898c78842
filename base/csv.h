/* SPDX-License-Identifier: Apache-2.0 */
/* A strict CSV reader (RFC 4180 quotes) whose every complaint names file, line and column. */
#ifndef EP_BASE_CSV_H
#define EP_BASE_CSV_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/** A file being read line by line. Init with ep_csv_open or ep_csv_init; free with ep_csv_fini. */
struct ep_csv {
    const char *name; /* for messages; borrowed */
    char *text;       /* owned */
    char *next;       /* first unread byte */
    char *end;
    int64_t line;       /* 1-based line of the current row */
    int64_t next_line;
    char **header;      /* [num_columns], set by ep_csv_read_header */
    int64_t num_columns;
    char **fields;      /* [num_fields] of the current row, valid until the next row */
    int64_t num_fields;
    int64_t capacity;
};

/** Read a file of at most `limit_bytes` ("-" = standard input); `csv` is overwritten. */
EP_MUST_CHECK enum ep_status ep_csv_open(const char *path, int64_t limit_bytes,
                                         struct ep_csv *csv);

/** The same from a copy of `length` bytes in memory, called `name` in messages. */
EP_MUST_CHECK enum ep_status ep_csv_init(const char *name, const char *text, size_t length,
                                         struct ep_csv *csv);

/** The same from `text` [length + 1], NUL-terminated on the heap: taken over, freed also on failure. */
EP_MUST_CHECK enum ep_status ep_csv_take(const char *name, char *text, size_t length,
                                         struct ep_csv *csv);
void ep_csv_fini(struct ep_csv *csv);

/** Read the first line as column names. Returns EP_EINVAL for an empty file. */
EP_MUST_CHECK enum ep_status ep_csv_read_header(struct ep_csv *csv);

/** Index of a column, or -1. */
int64_t ep_csv_find_column(const struct ep_csv *csv, const char *name);

/** Read the next row into fields; *more = 0 at the end. Blank lines are refused except at the end.
 *  With a header read, a row with another number of fields is refused ("ragged"). */
EP_MUST_CHECK enum ep_status ep_csv_next(struct ep_csv *csv, int *more);

/** Field `column` of the current row as a number; messages give file:line and the column. */
EP_MUST_CHECK enum ep_status ep_csv_get_i64(const struct ep_csv *csv, int64_t column, int64_t min,
                                            int64_t max, int64_t *value);
EP_MUST_CHECK enum ep_status ep_csv_get_f64(const struct ep_csv *csv, int64_t column, double min,
                                            double max, double *value);

#endif
