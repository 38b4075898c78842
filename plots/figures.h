/* SPDX-License-Identifier: Apache-2.0 */
/* The figures: a table of what is drawn from records and their fit, each as SVG from a TSV. */
#ifndef EP_PLOTS_FIGURES_H
#define EP_PLOTS_FIGURES_H

#include "base/error.h"
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
    /** Write the data with a header row of names and units. Where there is nothing to draw, writes
     *  nothing and says why in `reason` (never empty then). */
    enum ep_status (*write_tsv)(const struct ep_figure_input *input, FILE *out, char *reason,
                                size_t length);
};

/** All figures in the order of the report, ended by one without a name. */
extern const struct ep_figure ep_figures[];

enum { EP_MAX_FIGURES = 32 };

/** What became of each figure. */
struct ep_figure_result {
    bool drawn;
    char reason[256]; /* why it was not; "" if drawn */
};

/** Draw every figure into DIRECTORY/plots: NAME.tsv and NAME.svg, replacing only what this made before.
 *  A figure that cannot be drawn (nothing to draw, no gnuplot, a gnuplot error) says why in its
 *  result, and the rest goes on. results [EP_MAX_FIGURES], in the order of ep_figures.
 *  Returns EP_EIO where the directory cannot be written; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_figures_draw(const struct ep_figure_input *input,
                                             const char *directory,
                                             struct ep_figure_result *results);

#endif
