/* SPDX-License-Identifier: Apache-2.0 */
/* gnuplot as a child process: a script and its data in a directory of their own, an SVG back. */
#ifndef EP_PLOTS_GNUPLOT_H
#define EP_PLOTS_GNUPLOT_H

#include "base/error.h"

#include <stddef.h>

/** Run `script` [script_length] with NAME.tsv beside it and take the NAME.svg that it writes.
 *  name  a figure's name: letters, digits and '_'
 *  svg   to be freed; NUL-terminated
 *  Files lie in a new directory under $TMPDIR (or /tmp), removed afterwards; no shell is used, and no
 *  start-up files of the user. Returns EP_EENV where there is no gnuplot (the message names the
 *  package), or it fails (its first line); EP_EIO where files cannot be written. */
EP_MUST_CHECK enum ep_status ep_gnuplot_draw(const char *name, const char *script,
                                             size_t script_length, const char *tsv,
                                             size_t tsv_length, char **svg, size_t *svg_length);

#endif
