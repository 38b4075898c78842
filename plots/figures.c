/* SPDX-License-Identifier: Apache-2.0 */
/* The table of figures, and drawing them: data, script and SVG side by side. */
#include "plots/figures.h"
#include "base/embedded.h"
#include "base/file.h"
#include "plots/gnuplot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct ep_figure ep_figures[] = {
    {.name = "bandwidth_size",
     .title = "Bandwidth against bytes per rank",
     .caption = "Across: bytes in or out of the busiest rank (each transport in its own byte basis, "
                "named in the legend). Up: these bytes over the exchange time, physical GB/s: rows that "
                "stay on their rank are not counted. Measured medians of one case; a bar goes from the "
                "lowest to the highest end of its visits' 95 % intervals.",
     .script = "plots/bandwidth_size.gp",
     .fill = ep_figure_bandwidth_size},
    {.name = "time_skew",
     .title = "Time against skew: measured, plain bytes/bandwidth, and the chosen rung",
     .caption = "Across: skews, ordered by the imbalance that they reached (received copies, maximum "
                "over mean of ranks, in brackets). Up: time. Points are measured, with intervals; "
                "dashes are the plain bytes/bandwidth model (M0), which knows no skew, full lines the "
                "rung that was chosen, both as fitted.",
     .script = "plots/skew.gp",
     .fill = ep_figure_time_skew},
    {.name = "bandwidth_skew",
     .title = "Bandwidth against skew",
     .caption = "As above, with bytes in or out of the busiest rank over the time: physical GB/s. Flat "
                "points mean that the busiest rank keeps its rate and rules the time.",
     .script = "plots/skew.gp",
     .fill = ep_figure_bandwidth_skew},
    {.name = "predicted_measured",
     .title = "Predicted against measured",
     .caption = "Each point is a case, predicted by fits that did not see its skew (held out; the "
                "header says where that was not possible). On the line the model is right; inside the "
                "grey band within 10 %. Both axes are logarithmic.",
     .script = "plots/predicted_measured.gp",
     .fill = ep_figure_predicted_measured},
    {.name = "phases",
     .title = "Where the time of a dispatch goes",
     .caption = "Shares of pack, counts, exchange and unpack, from a pass of their own, since their "
                "clocks cost time. Under each bar: transport, tokens per rank, and the whole measured "
                "without these clocks.",
     .script = "plots/phases.gp",
     .fill = ep_figure_phases},
    {.name = "against",
     .title = "Expert parallelism against all-reduce",
     .caption = "Across: top-k. Up, first panel: exchange time of a layer. All-to-alls (dispatch and combine) "
                "send one row per token and expert, so they grow with top-k and with the busiest rank's "
                "share; collectives move every token to every rank whatever the routing: an all-reduce of "
                "the layer's results, or all-gather and reduce-scatter. Uniform all-to-alls send as many "
                "bytes as an all-reduce where top-k is the number of ranks (dashed). Second panel: that "
                "time over the time of the busiest port's bytes at the best rate that any point reached.",
     .script = "plots/against.gp",
     .fill = ep_figure_against},
    {.name = "gemm_rate",
     .title = "Expert GEMM rate against tokens per expert",
     .caption = "Rate of one rank. The roofline is the least of the measured peak of the dtype and what "
                "measured read bandwidth can feed; both axes are logarithmic.",
     .script = "plots/gemm_rate.gp",
     .fill = ep_figure_gemm_rate},
    {.name = "links",
     .title = "Links: bandwidth and time of a message against its size",
     .caption = "Per level of the topology. Ping-pong: one message at a time, one way; window: many in "
                "flight. Measured medians; GB/s of one pair.",
     .script = "plots/links.gp",
     .fill = ep_figure_links},
    {.name = NULL},
};
_Static_assert(sizeof ep_figures / sizeof ep_figures[0] <= EP_MAX_FIGURES, "too many figures");

/* The whole script: texts of the run, the common look, the figure itself. */
static enum ep_status make_script(const struct ep_figure *figure, const struct ep_sheet *sheet,
                                  char **script, size_t *length)
{
    const struct ep_embedded *parts[] = {ep_embedded_find("plots/style.gp"),
                                         ep_embedded_find(figure->script)};
    FILE *out = open_memstream(script, length);
    if (out == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a script");
    }
    fprintf(out, "# gnuplot %s.gp draws %s.svg from %s.tsv\n", figure->name, figure->name,
            figure->name);
    fprintf(out, "ep_name = '%s'\n", figure->name);
    fwrite(sheet->texts, 1, sheet->texts_length, out);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        EP_ASSERT(parts[i] != NULL);
        fwrite(parts[i]->data, 1, parts[i]->size_bytes, out);
    }
    const int failed = ferror(out);
    return fclose(out) != 0 || failed ? ep_error_set(EP_ENOMEM, "no memory for a script") : EP_OK;
}

static enum ep_status write_file(const char *directory, const char *name, const char *ending,
                                 const char *text, size_t length)
{
    char *path = ep_format_new("%s/%s.%s", directory, name, ending);
    if (path == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a path");
    }
    const enum ep_status status = ep_file_write(path, text, length);
    free(path);
    return status;
}

/* A figure of an earlier call must not stand for one that cannot be drawn now. */
static enum ep_status remove_old(const char *directory, const char *name)
{
    static const char *const endings[] = {"svg", "tsv", "gp"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char *path = ep_format_new("%s/%s.%s", directory, name, endings[i]);
        if (path == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for a path");
        }
        const int failed = unlink(path) != 0 && errno != ENOENT ? errno : 0;
        if (failed) {
            (void)ep_error_set(EP_EIO, "%s: cannot be replaced: %s", path, strerror(failed));
        }
        free(path);
        if (failed) {
            return EP_EIO;
        }
    }
    return EP_OK;
}

static enum ep_status draw(const struct ep_figure *figure, const struct ep_figure_input *input,
                           const char *directory, struct ep_figure_result *result)
{
    enum ep_status status = EP_OK;
    struct ep_sheet sheet = {0};
    char *script = NULL, *svg = NULL;
    size_t script_length = 0, svg_length = 0;
    *result = (struct ep_figure_result){false, ""};
    EP_TRY(ep_sheet_init(&sheet));
    EP_TRY(remove_old(directory, figure->name));
    EP_TRY(figure->fill(input, &sheet));
    EP_TRY(ep_sheet_close(&sheet));
    if (sheet.reason[0] != '\0') {
        snprintf(result->reason, sizeof result->reason, "%s", sheet.reason);
        goto out;
    }
    EP_TRY(make_script(figure, &sheet, &script, &script_length));
    EP_TRY(write_file(directory, figure->name, "tsv", sheet.tsv, sheet.tsv_length));
    EP_TRY(write_file(directory, figure->name, "gp", script, script_length));
    status = ep_gnuplot_draw(figure->name, script, script_length, sheet.tsv, sheet.tsv_length, &svg,
                             &svg_length);
    if (status == EP_OK) {
        EP_TRY(write_file(directory, figure->name, "svg", svg, svg_length));
        result->drawn = true;
    } else if (status != EP_ENOMEM) {
        snprintf(result->reason, sizeof result->reason, "%s", ep_error_text());
        ep_error_clear();
        status = EP_OK;
    }
out:
    ep_sheet_fini(&sheet);
    free(script);
    free(svg);
    return status;
}

enum ep_status ep_figures_draw(const struct ep_figure_input *input, const char *directory,
                               struct ep_figure_result *results)
{
    enum ep_status status = EP_OK;
    char *plots = ep_path_join(directory, "plots");
    status = plots != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a path");
    EP_TRY(status);
    EP_TRY(ep_dir_ensure(plots));
    for (int i = 0; ep_figures[i].name != NULL; i++) {
        EP_TRY(draw(&ep_figures[i], input, plots, &results[i]));
    }
out:
    free(plots);
    return status;
}
