/* SPDX-License-Identifier: Apache-2.0 */
/* Plain lists of counts: CSV without header, one line per layer, one number per expert. */
#include "kernels/trace_format.h"

#include "base/csv.h"

#include <inttypes.h>
#include <stdlib.h>

static enum ep_status add_layer(const struct ep_csv *csv, int64_t layer,
                                struct ep_trace_builder *builder)
{
    bool wanted = false;
    enum ep_status status = ep_trace_builder_see(builder, layer, &wanted);
    if (status != EP_OK || !wanted) {
        return status;
    }
    double *counts = calloc((size_t)csv->num_fields, sizeof *counts);
    if (counts == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", csv->name);
    }
    for (int64_t e = 0; e < csv->num_fields && status == EP_OK; e++) {
        status = ep_csv_get_f64(csv, e, 0, 0x1p53, &counts[e]);
    }
    if (status == EP_OK) {
        status = ep_trace_builder_add_counts(builder, csv->line, counts, csv->num_fields);
    }
    free(counts);
    return status;
}

static enum ep_status read(struct ep_trace_source *source, struct ep_trace_builder *builder)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    int64_t layer = 0;
    int64_t num_experts = 0;
    int more = 0;
    if (ep_trace_sglang.recognise(source->text, source->length)) {
        return ep_trace_sglang.read(source, builder);
    }
    char *text = source->text;
    source->text = NULL;
    EP_TRY(ep_csv_take(source->name, text, source->length, &csv));
    EP_TRY(ep_csv_next(&csv, &more));
    for (; more; layer++) {
        num_experts = layer == 0 ? csv.num_fields : num_experts;
        if (csv.num_fields != num_experts) {
            status = ep_error_set(EP_EINVAL, "%s:%" PRId64 ": %" PRId64 " numbers; %" PRId64
                                  " expected, as on the first line", csv.name, csv.line,
                                  csv.num_fields, num_experts);
            goto out;
        }
        EP_TRY(add_layer(&csv, layer, builder));
        EP_TRY(ep_csv_next(&csv, &more));
    }
out:
    ep_csv_fini(&csv);
    return status;
}

const struct ep_trace_format ep_trace_counts = {
    .name = "counts",
    .summary = "counts alone: one line per layer, one number per expert; only where it is named",
    .read = read,
};
