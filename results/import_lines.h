/* SPDX-License-Identifier: Apache-2.0 */
/* A text read line by line, for importers: words and numbers, each complaint with file and line. */
#ifndef EP_RESULTS_IMPORT_LINES_H
#define EP_RESULTS_IMPORT_LINES_H

#include "base/error.h"
#include "results/import.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EP_IMPORT_MAX_WORDS = 48 };

struct ep_import_lines {
    const char *name; /* for messages; borrowed */
    char *copy;       /* owned: lines are ended and words cut in it */
    char *next;
    char *end;
    int64_t line;                     /* 1-based, of `text` */
    char *text;                       /* the line, blanks at both ends cut off */
    char *words[EP_IMPORT_MAX_WORDS]; /* after ep_import_lines_split() */
    int num_words;
    char where[EP_IMPORT_TEXT]; /* NAME:LINE, the last part of a long name */
};

/** Refuses what is not UTF-8 text, and a last line without line end: it may be cut. */
EP_MUST_CHECK enum ep_status ep_import_lines_init(const char *name, const char *text, size_t length,
                                                  struct ep_import_lines *lines);
void ep_import_lines_fini(struct ep_import_lines *lines);

/** The next line, empty ones too; false at the end (line is then the last one). */
bool ep_import_lines_next(struct ep_import_lines *lines);

/** Cut the line into words; EP_EINVAL above EP_IMPORT_MAX_WORDS. `text` is the first word after. */
EP_MUST_CHECK enum ep_status ep_import_lines_split(struct ep_import_lines *lines);

/** EP_EINVAL "NAME:LINE: ...". */
enum ep_status ep_import_lines_fail(const struct ep_import_lines *lines, const char *format, ...)
    EP_PRINTF(2, 3);

/** Word `idx` as a number in [min, max]; `what` names the column. A comma is called another locale.
 */
EP_MUST_CHECK enum ep_status ep_import_lines_get_f64(const struct ep_import_lines *lines, int idx,
                                                     const char *what, double min, double max,
                                                     double *value);
EP_MUST_CHECK enum ep_status ep_import_lines_get_i64(const struct ep_import_lines *lines, int idx,
                                                     const char *what, int64_t min, int64_t max,
                                                     int64_t *value);

/** `text` begins with `prefix`. */
bool ep_import_begins(const char *text, const char *prefix);

#endif
