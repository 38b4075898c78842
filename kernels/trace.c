/* SPDX-License-Identifier: Apache-2.0 */
/* The strict reader of recorded routing. */
#include "kernels/trace.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "kernels/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char sample_path[] = "kernels/data/routing_trace_dsv2lite_law_L2.csv";
enum { SAMPLE_EXPERTS = 64 };

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

/* realloc that keeps the old block where there is no memory, and says so. */
static void *resize(void *block, size_t size, bool *lost)
{
    void *larger = realloc(block, size);
    if (larger == NULL) {
        *lost = true;
        return block;
    }
    return larger;
}

static enum ep_status grow(struct ep_trace *trace, bool weights, int64_t *capacity)
{
    if (trace->num_tokens < *capacity) {
        return EP_OK;
    }
    const int64_t num = *capacity > 0 ? 2 * *capacity : 1024;
    const size_t rows = (size_t)num;
    const size_t slots = (size_t)(num * trace->top_k);
    bool lost = false;
    trace->token_id = resize(trace->token_id, rows * sizeof *trace->token_id, &lost);
    trace->line = resize(trace->line, rows * sizeof *trace->line, &lost);
    trace->topk_idx = resize(trace->topk_idx, slots * sizeof *trace->topk_idx, &lost);
    if (weights) {
        trace->topk_weight = resize(trace->topk_weight, slots * sizeof *trace->topk_weight, &lost);
    }
    if (lost) {
        return ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " tokens", trace->name, num);
    }
    *capacity = num;
    return EP_OK;
}

static enum ep_status read_experts(const struct ep_csv *csv, const struct columns *columns,
                                   const struct ep_trace_options *options, struct ep_trace *trace)
{
    const int64_t limit = options->num_experts > 0 ? options->num_experts : EP_MAX_EXPERTS;
    int32_t *experts = trace->topk_idx + trace->num_tokens * trace->top_k;
    bool again = false;
    for (int64_t i = 0; i < trace->top_k; i++) {
        int64_t value = 0;
        const enum ep_status status =
            ep_csv_get_i64(csv, columns->first_expert + i, -1, limit - 1, &value);
        if (status != EP_OK) {
            return status;
        }
        for (int64_t j = 0; j < i && value >= 0; j++) {
            again = again || experts[j] == value;
        }
        if (again && !options->allow_duplicates) {
            return ep_error_set(EP_EINVAL,
                                "%s:%" PRId64 ": expert %" PRId64
                                " comes twice; a token goes to an expert once",
                                csv->name, csv->line, value);
        }
        experts[i] = (int32_t)value;
        trace->num_experts = value >= trace->num_experts ? value + 1 : trace->num_experts;
    }
    trace->num_duplicates += again;
    return EP_OK;
}

static enum ep_status read_weights(const struct ep_csv *csv, const struct columns *columns,
                                   struct ep_trace *trace)
{
    const int64_t row = trace->num_tokens * trace->top_k;
    for (int64_t i = 0; i < trace->top_k; i++) {
        double value = 0;
        const enum ep_status status =
            ep_csv_get_f64(csv, columns->first_weight + i, 0, 1e30, &value);
        if (status != EP_OK) {
            return status;
        }
        trace->topk_weight[row + i] = trace->topk_idx[row + i] >= 0 ? (float)value : 0;
    }
    return EP_OK;
}

/* Is the row of the layer asked for? The first row's, where none is. */
static enum ep_status choose_layer(const struct ep_csv *csv, const struct columns *columns,
                                   const struct ep_trace_options *options, struct ep_trace *trace,
                                   bool *wanted)
{
    *wanted = true;
    if (columns->layer < 0) {
        return options->layer < 0
                   ? EP_OK
                   : ep_error_set(EP_EINVAL,
                                  "%s: layer %" PRId64 " is asked for, but there is no "
                                  "layer column",
                                  csv->name, options->layer);
    }
    int64_t layer = 0;
    const enum ep_status status = ep_csv_get_i64(csv, columns->layer, 0, INT32_MAX, &layer);
    if (status != EP_OK) {
        return status;
    }
    if (options->layer >= 0) {
        *wanted = layer == options->layer;
    } else if (trace->num_tokens > 0 && layer != trace->layer) {
        return ep_error_set(EP_EINVAL,
                            "%s:%" PRId64 ": layer %" PRId64 " after layer %" PRId64
                            "; rows of one layer expected",
                            csv->name, csv->line, layer, trace->layer);
    }
    trace->layer = *wanted ? layer : trace->layer;
    return EP_OK;
}

static enum ep_status read_rows(struct ep_csv *csv, const struct columns *columns,
                                const struct ep_trace_options *options, struct ep_trace *trace)
{
    enum ep_status status;
    int64_t capacity = 0;
    int more = 0;
    EP_TRY(ep_csv_next(csv, &more));
    while (more) {
        bool wanted = false;
        EP_TRY(choose_layer(csv, columns, options, trace, &wanted));
        if (wanted) {
            EP_TRY(grow(trace, columns->first_weight >= 0, &capacity));
            EP_TRY(ep_csv_get_i64(csv, 0, 0, INT64_MAX, &trace->token_id[trace->num_tokens]));
            trace->line[trace->num_tokens] = csv->line;
            EP_TRY(read_experts(csv, columns, options, trace));
            if (columns->first_weight >= 0) {
                EP_TRY(read_weights(csv, columns, trace));
            }
            trace->num_tokens++;
        }
        EP_TRY(ep_csv_next(csv, &more));
    }
out:
    return status;
}

static enum ep_status finish(const struct ep_csv *csv, const struct ep_trace_options *options,
                             struct ep_trace *trace)
{
    if (trace->num_tokens == 0 && options->layer >= 0) {
        return ep_error_set(EP_EINVAL, "%s: has no token of layer %" PRId64, csv->name,
                            options->layer);
    }
    if (trace->num_tokens == 0) {
        return ep_error_set(EP_EINVAL, "%s: has no token; at least one row expected", csv->name);
    }
    if (options->num_experts > 0) {
        trace->num_experts = options->num_experts;
    } else if (trace->num_experts < trace->top_k) {
        trace->num_experts = trace->top_k;
    }
    return EP_OK;
}

/* Takes over the opened csv. */
static enum ep_status load(struct ep_csv *csv, const struct ep_trace_options *options,
                           struct ep_trace **trace)
{
    static const struct ep_trace_options defaults = {.layer = -1};
    enum ep_status status;
    const struct ep_trace_options *used = options != NULL ? options : &defaults;
    struct columns columns = {.layer = -1};
    struct ep_trace *made = calloc(1, sizeof *made);
    if (made == NULL || (made->name = strdup(csv->name)) == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", csv->name);
        goto out;
    }
    made->layer = -1;
    EP_TRY(ep_csv_read_header(csv));
    EP_TRY(find_columns(csv, &columns));
    made->top_k = columns.top_k;
    EP_TRY(read_rows(csv, &columns, used, made));
    EP_TRY(finish(csv, used, made));
    *trace = made;
    made = NULL;
out:
    ep_trace_destroy(made);
    ep_csv_fini(csv);
    return status;
}

enum ep_status ep_trace_load(const char *path, const struct ep_trace_options *options,
                             struct ep_trace **trace)
{
    struct ep_csv csv;
    const enum ep_status status = ep_csv_open(path, EP_TRACE_LIMIT_BYTES, &csv);
    return status == EP_OK ? load(&csv, options, trace) : status;
}

enum ep_status ep_trace_load_text(const char *name, const char *text, size_t length,
                                  const struct ep_trace_options *options, struct ep_trace **trace)
{
    struct ep_csv csv;
    const enum ep_status status = ep_csv_init(name, text, length, &csv);
    return status == EP_OK ? load(&csv, options, trace) : status;
}

enum ep_status ep_trace_load_sample(struct ep_trace **trace)
{
    const struct ep_embedded *file = ep_embedded_find(sample_path);
    if (file == NULL) {
        return ep_error_set(EP_EENV, "this build has no trace:sample (%s)", sample_path);
    }
    const struct ep_trace_options options = {.num_experts = SAMPLE_EXPERTS, .layer = -1};
    return ep_trace_load_text("trace:sample", (const char *)file->data, file->size_bytes, &options,
                              trace);
}

void ep_trace_destroy(struct ep_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    free(trace->name);
    free(trace->token_id);
    free(trace->line);
    free(trace->topk_idx);
    free(trace->topk_weight);
    free(trace);
}
