/* SPDX-License-Identifier: Apache-2.0 */
/* The figures: a table of what is drawn from records and their fit, each as SVG from a TSV. */
#ifndef EP_PLOTS_FIGURES_H
#define EP_PLOTS_FIGURES_H

#include "base/error.h"
#include "plots/sheet.h"
#include "results/fit.h"
#include "results/run_dir.h"

#include <stdbool.h>
#include <stdio.h>

/** What figures are drawn from. All borrowed and read only. */
struct ep_figure_input {
    const struct ep_run *run;         /* run.json of the first directory */
    const struct ep_records *records; /* of all directories */
    const struct ep_fit *fit;         /* of those records; NULL where they could not be fitted */
};

/** One figure: a row of ep_figures. */
struct ep_figure {
    const char *name;    /* file name without ending, and key in the report */
    const char *title;   /* heading in the report */
    const char *caption; /* how to read it: axes with units, basis, what is measured or predicted */
    const char *script;  /* embedded gnuplot script, "plots/NAME.gp" */
    /** Fill the sheet: the data with a header row of names and units, and the texts of the drawing.
     *  Where there is nothing to draw, puts no data and says why with ep_sheet_refuse(). */
    enum ep_status (*fill)(const struct ep_figure_input *input, struct ep_sheet *sheet);
};

/** All figures in the order of the report, ended by one without a name. */
extern const struct ep_figure ep_figures[];

enum { EP_MAX_FIGURES = 32 };

/** What became of each figure. */
struct ep_figure_result {
    bool drawn;
    char reason[256]; /* why it was not; "" if drawn */
};

/** Draw every figure into DIRECTORY/plots: NAME.tsv, NAME.gp (the whole gnuplot script) and NAME.svg,
 *  replacing only what this made before. A figure that cannot be drawn (nothing to draw, no gnuplot,
 *  a gnuplot error) says why in its result, has no SVG, and the rest goes on.
 *  results [EP_MAX_FIGURES], in the order of ep_figures.
 *  Returns EP_EIO where the directory cannot be written; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_figures_draw(const struct ep_figure_input *input,
                                             const char *directory,
                                             struct ep_figure_result *results);

/* --- what fills their sheets, for tests ------------------------------------------------------- */

enum ep_status ep_figure_bandwidth_size(const struct ep_figure_input *in, struct ep_sheet *sheet);
enum ep_status ep_figure_time_skew(const struct ep_figure_input *in, struct ep_sheet *sheet);
enum ep_status ep_figure_bandwidth_skew(const struct ep_figure_input *in, struct ep_sheet *sheet);
enum ep_status ep_figure_predicted_measured(const struct ep_figure_input *in,
                                            struct ep_sheet *sheet);
enum ep_status ep_figure_against(const struct ep_figure_input *in, struct ep_sheet *sheet);
enum ep_status ep_figure_phases(const struct ep_figure_input *in, struct ep_sheet *sheet);
enum ep_status ep_figure_gemm_rate(const struct ep_figure_input *in, struct ep_sheet *sheet);
enum ep_status ep_figure_links(const struct ep_figure_input *in, struct ep_sheet *sheet);

#endif
