/* SPDX-License-Identifier: Apache-2.0 */
/* A figure's data as TSV and its texts as gnuplot definitions; any text of a run is harmless in both. */
#ifndef EP_PLOTS_SHEET_H
#define EP_PLOTS_SHEET_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/** Both texts grow in memory. Init with ep_sheet_init(), end with ep_sheet_fini(). A lack of memory
 *  shows in ep_sheet_close(). */
struct ep_sheet {
    char *tsv; /* owned; valid after ep_sheet_close() */
    size_t tsv_length;
    char *texts; /* gnuplot definitions; likewise */
    size_t texts_length;
    char reason[256]; /* why there is nothing to draw; "" where there is something */
    FILE *tsv_stream;
    FILE *texts_stream;
    bool in_row;
};

EP_MUST_CHECK enum ep_status ep_sheet_init(struct ep_sheet *sheet);

/** End writing: tsv and texts can be read now. Returns EP_ENOMEM where anything was lost. */
EP_MUST_CHECK enum ep_status ep_sheet_close(struct ep_sheet *sheet);
void ep_sheet_fini(struct ep_sheet *sheet);

/** Say why there is nothing to draw; returns EP_OK, so that `return ep_sheet_refuse(...)` reads well. */
enum ep_status ep_sheet_refuse(struct ep_sheet *sheet, const char *format, ...) EP_PRINTF(2, 3);

/* --- data: cells from left to right; controls and double quotes are taken out of texts -------- */

/** The header row: names with units, separated by blanks. */
void ep_sheet_put_header(struct ep_sheet *sheet, const char *names);
void ep_sheet_put_text(struct ep_sheet *sheet, const char *text);
/** Nine digits; NaN and infinities are an empty cell. */
void ep_sheet_put_number(struct ep_sheet *sheet, double value);
void ep_sheet_end_row(struct ep_sheet *sheet);

/* --- texts: gnuplot variables, single-quoted ------------------------------------------------- */

void ep_sheet_define(struct ep_sheet *sheet, const char *name, const char *format, ...)
    EP_PRINTF(3, 4);
void ep_sheet_define_number(struct ep_sheet *sheet, const char *name, double value);

/** An array of `num` >= 1 texts, e.g. the legend. */
void ep_sheet_define_list(struct ep_sheet *sheet, const char *name, const char *const *items,
                          int num);

/** An array of lines, broken at blanks so that each has at most `width` characters (a longer word is
 *  cut). At most 8 lines; the last then ends in "...". */
void ep_sheet_define_lines(struct ep_sheet *sheet, const char *name, int width, const char *format,
                           ...) EP_PRINTF(4, 5);

#endif
