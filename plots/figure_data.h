/* SPDX-License-Identifier: Apache-2.0 */
/* What several figures need: which cases are drawn, pooled visits, headers. */
#ifndef EP_PLOTS_FIGURE_DATA_H
#define EP_PLOTS_FIGURE_DATA_H

#include "plots/figures.h"

/** The op that is drawn: dispatch where any group has it, else the first group's. NULL where nothing
 *  was fitted. */
const char *ep_figure_op(const struct ep_figure_input *in);

/** Whether a group is of the op that is drawn. */
bool ep_figure_has_op(const struct ep_figure_input *in, const struct ep_fit_group *group);

/** The largest number of ranks among cases of that op: other sub-communicators are not drawn. */
int64_t ep_figure_ranks(const struct ep_figure_input *in);

/** The skew of figures that show one: uniform where there is a case of it, else the first one's. */
const char *ep_figure_skew(const struct ep_figure_input *in);

/** Whether a record may stand in a figure whose header speaks of `reference`: all is equal but transport, op,
 *  skew, top-k and tokens. A trace brings its own number of experts. */
bool ep_figure_is_alike(const struct ep_record *reference, const struct ep_record *record);

/** The case of that op, skew and number of ranks with most others like it; of these with the largest
 *  hidden size and, then, the first. NULL where there is none. */
const struct ep_record *ep_figure_reference(const struct ep_figure_input *in);

/** "alltoallv", with the algorithm where one was named: what tells groups of one op apart in a legend.
 *  Returns `text` [length]; the whole name of the group where another one would have the same. */
const char *ep_figure_group_label(const struct ep_figure_input *in, const struct ep_fit_group *group,
                                  char *text, size_t length);

/** Why there is no comm case to draw. */
enum ep_status ep_figure_refuse_comm(const struct ep_figure_input *in, struct ep_sheet *sheet);

/** Ends of the interval of a case's time: from the lowest to the highest end of its visits' 95 %
 *  intervals (their medians where they have none), which covers the drift between visits too. NaN for
 *  a single visit without interval. */
void ep_figure_interval(const struct ep_figure_input *in, const struct ep_fit_group *group,
                        const struct ep_fit_case *item, double *low_s, double *high_s);

/** Median over the visits of a case of one phase's median, or of the whole where `phase` is NULL.
 *  *value = NaN where there is none. Returns EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_figure_case_median(const struct ep_figure_input *in,
                                                   const char *case_name, const char *phase,
                                                   double *value);

/** The heading, with `what` and, on a line of its own, the machine and its ranks under it. */
void ep_figure_define_header(const struct ep_figure_input *in, struct ep_sheet *sheet,
                             const char *title, int64_t ranks, int64_t nodes, const char *format,
                             ...) EP_PRINTF(6, 7);

/** "bf16, hidden 2048, 64 experts, barrier, warm buffers, 4k pages" of a comm record. Returns `text` [length]. */
const char *ep_figure_conditions(const struct ep_record *record, char *text, size_t length);

/** The factor between ticks (a power of 2) that gives at most 6 from low to high, both > 0. */
double ep_figure_tick_step(double low, double high);

#endif
