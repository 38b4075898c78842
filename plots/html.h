/* SPDX-License-Identifier: Apache-2.0 */
/* HTML being written: every text escaped, tables that say what their columns are, SVG taken inline. */
#ifndef EP_PLOTS_HTML_H
#define EP_PLOTS_HTML_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A column of a table. */
struct ep_html_column {
    const char *name; /* ends a list where NULL */
    bool is_number;   /* set to the right */
};

/** A page being written into memory. Lack of memory shows in ep_html_finish(). */
struct ep_html {
    FILE *stream;
    char *text;
    size_t length;
    bool failed;
    const struct ep_html_column *columns; /* of the open table */
    int num_tables; /* so far */
    int num_columns;
    int next_cell; /* in the open row; -1 = no row is open */
};

/** Begin an empty page. Returns EP_ENOMEM. End with ep_html_finish() or ep_html_fini(). */
EP_MUST_CHECK enum ep_status ep_html_init(struct ep_html *html);

/** Take the text (to be freed) and its length. Returns EP_ENOMEM where anything was lost. */
EP_MUST_CHECK enum ep_status ep_html_finish(struct ep_html *html, char **text, size_t *length);
void ep_html_fini(struct ep_html *html);

/** Markup as it stands: for texts of ours and numbers only. */
void ep_html_raw(struct ep_html *html, const char *format, ...) EP_PRINTF(2, 3);

/** Text: < > & and both quotes become entities, so it is also safe in a quoted attribute; control
 *  characters but tab and line end, and bytes that are not UTF-8, become U+FFFD. */
void ep_html_put(struct ep_html *html, const char *format, ...) EP_PRINTF(2, 3);

/** <tag>text</tag>, the text as by ep_html_put(). */
void ep_html_element(struct ep_html *html, const char *tag, const char *format, ...)
    EP_PRINTF(3, 4);

/** A table that scrolls inside its own box, under a caption that does not. columns is borrowed until the table is closed. */
void ep_html_table_open(struct ep_html *html, const char *caption,
                        const struct ep_html_column *columns);
void ep_html_row(struct ep_html *html);
/** The next cell of the row; the first one is the row's heading. */
void ep_html_cell(struct ep_html *html, const char *format, ...) EP_PRINTF(2, 3);
void ep_html_table_close(struct ep_html *html);

/** Put an SVG file inline: ids and what refers to them get `prefix` in front (gnuplot gives all its
 *  files the same ids), the root gets role and aria-label, the plotter's own title is left out.
 *  Returns EP_EINVAL, having written nothing, where it is no whole SVG, or holds scripts, event
 *  handlers or references to anything outside. */
EP_MUST_CHECK enum ep_status ep_html_put_svg(struct ep_html *html, const char *svg,
                                             const char *prefix, const char *label);

#endif
