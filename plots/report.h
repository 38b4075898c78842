/* SPDX-License-Identifier: Apache-2.0 */
/* report.html: one self-contained page that says what was measured, what fits, and what to doubt. */
#ifndef EP_PLOTS_REPORT_H
#define EP_PLOTS_REPORT_H

#include "base/error.h"
#include "plots/figures.h"
#include "plots/html.h"
#include "plots/report_facts.h"

#include <stdio.h>

/** What a report is made of. All borrowed and read only. */
struct ep_report_input {
    const char *const *directories; /* [num_runs]; figures lie in the first, in plots/ */
    const struct ep_run *runs;      /* [num_runs] their run.json */
    int num_runs;                   /* >= 1 */
    const struct ep_records *records; /* of all directories */
    const struct ep_fit *fit;       /* of those records; no groups where they could not be fitted */
    const char *fit_failure;        /* why not; NULL where they could */
    const struct ep_figure *figures; /* ended by one without a name */
    const struct ep_figure_result *results; /* of each figure */
    const struct ep_report_facts *facts;
};

/** Make the page. It refers to nothing outside: styles and figures are inside it, and there is no script.
 *  A figure whose SVG cannot be read or must not be put inline is replaced by the reason.
 *  text  to be freed. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_report_make(const struct ep_report_input *input, char **text,
                                            size_t *length);

/** Make the page and write it to `path` by temporary name and rename. Only a report that this made
 *  is replaced: EP_EINVAL where `path` holds anything else; EP_EIO where it cannot be written. */
EP_MUST_CHECK enum ep_status ep_report_write(const struct ep_report_input *input,
                                             const char *path);

/** The short summary for a terminal: machine, a row per group, slowest level, doubts. */
EP_MUST_CHECK enum ep_status ep_report_print(const struct ep_report_input *input, FILE *out);

/* --- sections, in the order of the page ------------------------------------------------------- */

void ep_report_put_summary(const struct ep_report_input *input, struct ep_html *html);
void ep_report_put_doubts(const struct ep_report_input *input, struct ep_html *html);
EP_MUST_CHECK enum ep_status ep_report_put_figures(const struct ep_report_input *input,
                                                   struct ep_html *html);
void ep_report_put_machine(const struct ep_report_input *input, struct ep_html *html);
EP_MUST_CHECK enum ep_status ep_report_put_links(const struct ep_report_input *input,
                                                 struct ep_html *html);
void ep_report_put_fit(const struct ep_report_input *input, struct ep_html *html);
EP_MUST_CHECK enum ep_status ep_report_put_layer(const struct ep_report_input *input,
                                                 struct ep_html *html);
EP_MUST_CHECK enum ep_status ep_report_put_kernels(const struct ep_report_input *input,
                                                   struct ep_html *html);
void ep_report_put_harness(const struct ep_report_input *input, struct ep_html *html);
void ep_report_put_runs(const struct ep_report_input *input, struct ep_html *html);
void ep_report_put_words(struct ep_html *html);

/** Lines of `text` as paragraphs, those that begin with a blank as a list; `text` is cut. */
void ep_report_put_lines(char *text, struct ep_html *html);

/** "8.01 GB/s (7.90 to 8.12 GB/s)" of the bandwidth of a rung, or "withheld: why", or "-" where the rung
 *  has none. Returns `text` [length]. */
const char *ep_report_bandwidth(const struct ep_fit_rung *rung, char *text, size_t length);

/** A parameter's value with its interval and unit. Returns `text` [length]. */
const char *ep_report_parameter(const struct ep_fit_parameter *parameter, char *text,
                                size_t length);

/** A fraction as per cent, one decimal; "-" where NaN. Returns `text` [length]. */
const char *ep_report_percent(double fraction, char *text, size_t length);

#endif
