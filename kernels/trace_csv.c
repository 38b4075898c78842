/* SPDX-License-Identifier: Apache-2.0 */
/* CSV traces: token[,layer],e0..ek-1[,w0..wk-1], header required. */
#include "kernels/trace_format.h"

#include "base/csv.h"
#include "kernels/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where things are in a row. */
struct columns {
    int64_t layer; /* -1 = none */
    int64_t first_expert;
    int64_t first_weight; /* -1 = none */
    int64_t top_k;
};

static int64_t count_numbered(const struct ep_csv *csv, int64_t first, char letter)
{
    int64_t num = 0;
    for (char name[32]; first + num < csv->num_columns; num++) {
        snprintf(name, sizeof name, "%c%" PRId64, letter, num);
        if (strcmp(csv->header[first + num], name) != 0) {
            break;
        }
    }
    return num;
}

static enum ep_status find_columns(const struct ep_csv *csv, struct columns *columns)
{
    const bool token = csv->num_columns > 0 && strcmp(csv->header[0], "token") == 0;
    const bool layer = csv->num_columns > 1 && strcmp(csv->header[1], "layer") == 0;
    const int64_t first = 1 + layer;
    const int64_t top_k = token ? count_numbered(csv, first, 'e') : 0;
    const int64_t weights = top_k > 0 ? count_numbered(csv, first + top_k, 'w') : 0;
    if (top_k == 0 || (weights != 0 && weights != top_k) ||
        first + top_k + weights != csv->num_columns) {
        return ep_error_set(EP_EINVAL,
                            "%s:1: header is not token[,layer],e0,e1,...[,w0,w1,...] with as many "
                            "weights as experts",
                            csv->name);
    }
    if (top_k > EP_MAX_EXPERTS) {
        return ep_error_set(EP_EINVAL, "%s:1: has %" PRId64 " expert columns, at most %d expected",
                            csv->name, top_k, EP_MAX_EXPERTS);
    }
    *columns = (struct columns){.layer = layer ? 1 : -1,
                                .first_expert = first,
                                .first_weight = weights > 0 ? first + top_k : -1,
                                .top_k = top_k};
    return EP_OK;
}

/* The row's numbers, each checked where its column can be named. */
static enum ep_status read_row(const struct ep_csv *csv, const struct columns *columns,
                               int64_t expert_limit, struct ep_trace_row *row, int64_t *experts,
                               double *weights)
{
    enum ep_status status;
    *row = (struct ep_trace_row){.line = csv->line, .part = -1, .experts = experts,
                                 .weights = columns->first_weight >= 0 ? weights : NULL,
                                 .top_k = columns->top_k};
    EP_TRY(ep_csv_get_i64(csv, 0, 0, INT64_MAX, &row->token_id));
    for (int64_t i = 0; i < columns->top_k; i++) {
        EP_TRY(ep_csv_get_i64(csv, columns->first_expert + i, -1, expert_limit - 1, &experts[i]));
    }
    for (int64_t i = 0; row->weights != NULL && i < columns->top_k; i++) {
        EP_TRY(ep_csv_get_f64(csv, columns->first_weight + i, 0, 1e30, &weights[i]));
    }
out:
    return status;
}

static enum ep_status read_rows(struct ep_csv *csv, const struct columns *columns,
                                struct ep_trace_builder *builder, int64_t *experts,
                                double *weights)
{
    enum ep_status status;
    int more = 0;
    const int64_t asked = builder->options->num_experts;
    EP_TRY(ep_csv_next(csv, &more));
    while (more) {
        int64_t layer = -1;
        bool wanted = false;
        if (columns->layer >= 0) {
            EP_TRY(ep_csv_get_i64(csv, columns->layer, 0, INT32_MAX, &layer));
        }
        EP_TRY(ep_trace_builder_see(builder, layer, &wanted));
        if (wanted) {
            struct ep_trace_row row;
            EP_TRY(read_row(csv, columns, asked > 0 ? asked : EP_MAX_EXPERTS, &row, experts,
                            weights));
            EP_TRY(ep_trace_builder_add(builder, &row));
        }
        EP_TRY(ep_csv_next(csv, &more));
    }
out:
    return status;
}

static enum ep_status read(struct ep_trace_source *source, struct ep_trace_builder *builder)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    struct columns columns = {.layer = -1};
    int64_t *experts = NULL;
    double *weights = NULL;
    char *text = source->text;
    source->text = NULL;
    EP_TRY(ep_csv_take(source->name, text, source->length, &csv));
    EP_TRY(ep_csv_read_header(&csv));
    EP_TRY(find_columns(&csv, &columns));
    experts = calloc((size_t)columns.top_k, sizeof *experts);
    weights = calloc((size_t)columns.top_k, sizeof *weights);
    if (experts == NULL || weights == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", source->name);
        goto out;
    }
    EP_TRY(read_rows(&csv, &columns, builder, experts, weights));
out:
    free(experts);
    free(weights);
    ep_csv_fini(&csv);
    return status;
}

/* What does not begin as JSON or binary: the header's own check says what is missing. */
static bool recognise(const char *text, size_t length)
{
    return length > 0 && strchr("{[\x93\x1f", text[0]) == NULL;
}

const struct ep_trace_format ep_trace_csv = {
    .name = "csv",
    .summary = "CSV token[,layer],e0,...[,w0,...]",
    .recognise = recognise,
    .read = read,
};
