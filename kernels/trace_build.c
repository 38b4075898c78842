/* SPDX-License-Identifier: Apache-2.0 */
/* Checking and keeping the rows of a trace, whatever file they come from. */
#include "kernels/trace_format.h"

#include "kernels/placement.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 4096, LISTED_LAYERS = 12, PLACE_SIZE = 400 };

static const double max_weight = 1e30;

/* --- layers ---------------------------------------------------------------------------------- */

/* Where `layer` is, or would be put. */
static int64_t find_layer(const struct ep_trace_builder *b, int64_t layer)
{
    int64_t low = 0;
    for (int64_t high = b->num_layers; low < high;) {
        const int64_t middle = low + (high - low) / 2;
        if (b->layers[middle] < layer) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static enum ep_status remember_layer(struct ep_trace_builder *b, int64_t layer)
{
    const int64_t at = find_layer(b, layer);
    if (at < b->num_layers && b->layers[at] == layer) {
        return EP_OK;
    }
    if (b->num_layers == MAX_LAYERS) {
        return ep_error_set(EP_EINVAL, "%s: has more than %d layers", b->trace->name, MAX_LAYERS);
    }
    int64_t *larger = realloc(b->layers, (size_t)(b->num_layers + 1) * sizeof *larger);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", b->trace->name);
    }
    b->layers = larger;
    memmove(larger + at + 1, larger + at, (size_t)(b->num_layers - at) * sizeof *larger);
    larger[at] = layer;
    b->num_layers++;
    return EP_OK;
}

enum ep_status ep_trace_builder_see(struct ep_trace_builder *builder, int64_t layer, bool *wanted)
{
    const int64_t asked = builder->options->layer;
    if (layer < 0) {
        *wanted = true;
        return asked < 0 ? EP_OK
                         : ep_error_set(EP_EINVAL,
                                        "%s: layer %" PRId64
                                        " is asked for, but the file names no layers",
                                        builder->trace->name, asked);
    }
    const bool first = builder->num_layers == 0;
    const enum ep_status status = remember_layer(builder, layer);
    if (status == EP_OK) {
        if (asked < 0 && first) {
            builder->trace->layer = layer;
        }
        *wanted = layer == (asked >= 0 ? asked : builder->trace->layer);
        builder->trace->layer = asked >= 0 ? asked : builder->trace->layer;
    }
    return status;
}

/* "0, 7 and 15", the first few. */
static void list_layers(const struct ep_trace_builder *b, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < b->num_layers && used < size; i++) {
        if (i == LISTED_LAYERS && i + 1 < b->num_layers) {
            snprintf(text + used, size - used, ", ... %" PRId64, b->layers[b->num_layers - 1]);
            return;
        }
        const char *join = i == 0 ? "" : i + 1 == b->num_layers ? " and " : ", ";
        const int put = snprintf(text + used, size - used, "%s%" PRId64, join, b->layers[i]);
        used += put > 0 ? (size_t)put : 0;
    }
}

/* --- rows ------------------------------------------------------------------------------------ */

/* "file:12", "file:12: token 3", or "file: token 3" where there are no lines. */
static const char *describe(const struct ep_trace_builder *b, const struct ep_trace_row *row,
                            char *place)
{
    const char *name = b->trace->name;
    if (row->line > 0 && row->part < 0) {
        snprintf(place, PLACE_SIZE, "%s:%" PRId64, name, row->line);
    } else if (row->line > 0) {
        snprintf(place, PLACE_SIZE, "%s:%" PRId64 ": token %" PRId64, name, row->line, row->part);
    } else {
        snprintf(place, PLACE_SIZE, "%s: token %" PRId64, name, row->part);
    }
    return place;
}

void *ep_trace_resize(void *block, size_t size, bool *lost)
{
    void *larger = realloc(block, size);
    if (larger == NULL) {
        *lost = true;
        return block;
    }
    return larger;
}

static enum ep_status grow(struct ep_trace_builder *b)
{
    struct ep_trace *trace = b->trace;
    if (trace->num_tokens < b->capacity) {
        return EP_OK;
    }
    const int64_t num = b->capacity > 0 ? 2 * b->capacity : 1024;
    const size_t rows = (size_t)num;
    const size_t slots = (size_t)(num * trace->top_k);
    bool lost = false;
    trace->token_id = ep_trace_resize(trace->token_id, rows * sizeof *trace->token_id, &lost);
    trace->line = ep_trace_resize(trace->line, rows * sizeof *trace->line, &lost);
    trace->topk_idx = ep_trace_resize(trace->topk_idx, slots * sizeof *trace->topk_idx, &lost);
    if (b->weights) {
        trace->topk_weight =
            ep_trace_resize(trace->topk_weight, slots * sizeof *trace->topk_weight, &lost);
    }
    if (lost) {
        return ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " tokens", trace->name, num);
    }
    b->capacity = num;
    return EP_OK;
}

static enum ep_status check_shape(struct ep_trace_builder *b, const struct ep_trace_row *row)
{
    char place[PLACE_SIZE];
    struct ep_trace *trace = b->trace;
    if (row->top_k < 1 || row->top_k > EP_MAX_EXPERTS) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " experts; 1 to %d expected",
                            describe(b, row, place), row->top_k, EP_MAX_EXPERTS);
    }
    if (trace->num_tokens == 0) {
        trace->top_k = row->top_k;
        b->weights = row->weights != NULL;
    }
    if (row->top_k != trace->top_k) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " experts; %" PRId64 " expected, as in the rows before",
                            describe(b, row, place), row->top_k, trace->top_k);
    }
    if ((row->weights != NULL) != b->weights) {
        return ep_error_set(EP_EINVAL, "%s: has %s, the rows before have %s",
                            describe(b, row, place), b->weights ? "no weights" : "weights",
                            b->weights ? "some" : "none");
    }
    return EP_OK;
}

static enum ep_status keep_experts(struct ep_trace_builder *b, const struct ep_trace_row *row)
{
    char place[PLACE_SIZE];
    struct ep_trace *trace = b->trace;
    const int64_t asked = b->options->num_experts;
    const int64_t limit = asked > 0 ? asked : EP_MAX_EXPERTS;
    int32_t *kept = trace->topk_idx + trace->num_tokens * trace->top_k;
    bool again = false;
    for (int64_t i = 0; i < row->top_k; i++) {
        const int64_t expert = row->experts[i];
        if (expert < -1 || expert >= limit) {
            return ep_error_set(EP_EINVAL,
                                "%s: expert %" PRId64 " is outside -1 (unused) to %" PRId64,
                                describe(b, row, place), expert, limit - 1);
        }
        bool twice = false;
        for (int64_t j = 0; j < i && expert >= 0; j++) {
            twice = twice || kept[j] == expert;
        }
        if (twice && !b->options->allow_duplicates) {
            return ep_error_set(
                EP_EINVAL, "%s: expert %" PRId64 " comes twice; a token goes to an expert once",
                describe(b, row, place), expert);
        }
        again = again || twice;
        kept[i] = (int32_t)expert;
        trace->num_experts = expert >= trace->num_experts ? expert + 1 : trace->num_experts;
    }
    trace->num_duplicates += again;
    return EP_OK;
}

static enum ep_status keep_weights(struct ep_trace_builder *b, const struct ep_trace_row *row)
{
    char place[PLACE_SIZE];
    struct ep_trace *trace = b->trace;
    const int64_t first = trace->num_tokens * trace->top_k;
    for (int64_t i = 0; i < row->top_k; i++) {
        const double weight = row->weights[i];
        if (!(weight >= 0 && weight <= max_weight)) {
            return ep_error_set(EP_EINVAL, "%s: weight %g is outside 0 to %g",
                                describe(b, row, place), weight, max_weight);
        }
        trace->topk_weight[first + i] = trace->topk_idx[first + i] >= 0 ? (float)weight : 0;
    }
    return EP_OK;
}

enum ep_status ep_trace_builder_add(struct ep_trace_builder *builder,
                                    const struct ep_trace_row *row)
{
    enum ep_status status;
    struct ep_trace *trace = builder->trace;
    EP_TRY(check_shape(builder, row));
    EP_TRY(grow(builder));
    EP_TRY(keep_experts(builder, row));
    if (builder->weights) {
        EP_TRY(keep_weights(builder, row));
    }
    const int64_t num = trace->num_tokens++;
    trace->token_id[num] = row->token_id >= 0 ? row->token_id : num;
    trace->line[num] = row->line > 0 ? row->line : num + 1;
out:
    return status;
}

/* --- counts ---------------------------------------------------------------------------------- */

enum ep_status ep_trace_builder_add_counts(struct ep_trace_builder *builder, int64_t line,
                                           const double *counts, int64_t num_experts)
{
    struct ep_trace *trace = builder->trace;
    const int64_t asked = builder->options->num_experts;
    const int64_t expected = trace->counts != NULL ? trace->num_experts : asked;
    char place[PLACE_SIZE];
    const struct ep_trace_row row = {.line = line, .part = line > 0 ? -1 : 0};
    if (num_experts < 1 || num_experts > EP_MAX_EXPERTS ||
        (expected > 0 && num_experts != expected)) {
        return ep_error_set(EP_EINVAL, "%s: counts of %" PRId64 " experts; %" PRId64 " expected",
                            describe(builder, &row, place), num_experts,
                            expected > 0 ? expected : (int64_t)EP_MAX_EXPERTS);
    }
    if (trace->counts == NULL) {
        trace->counts = calloc((size_t)num_experts, sizeof *trace->counts);
        if (trace->counts == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory for counts", trace->name);
        }
        trace->num_experts = num_experts;
    }
    for (int64_t e = 0; e < num_experts; e++) {
        if (!(counts[e] >= 0 && counts[e] <= 0x1p53)) {
            return ep_error_set(EP_EINVAL, "%s: count %g of expert %" PRId64
                                " is outside 0 to 2^53",
                                describe(builder, &row, place), counts[e], e);
        }
        trace->counts[e] += counts[e];
    }
    return EP_OK;
}

/* --- the end --------------------------------------------------------------------------------- */

static enum ep_status finish_counts(struct ep_trace *trace)
{
    double sum = 0;
    for (int64_t e = 0; e < trace->num_experts; e++) {
        sum += trace->counts[e];
    }
    trace->fan_out_sampled = true;
    return sum > 0 ? EP_OK
                   : ep_error_set(EP_EINVAL, "%s: all counts are 0; tokens per expert expected",
                                  trace->name);
}

enum ep_status ep_trace_builder_finish(struct ep_trace_builder *builder)
{
    char list[256];
    struct ep_trace *trace = builder->trace;
    const int64_t asked = builder->options->layer;
    const bool found = trace->num_tokens > 0 || trace->counts != NULL;
    list_layers(builder, list, sizeof list);
    if (asked < 0 && builder->num_layers > 1) {
        return ep_error_set(EP_EINVAL, "%s: has layers %s; choose one with --layer or FILE@LAYER",
                            trace->name, list);
    }
    if (!found && builder->num_layers > 0) {
        return ep_error_set(EP_EINVAL, "%s: has no token of layer %" PRId64 "; it has layer%s %s",
                            trace->name, asked, builder->num_layers > 1 ? "s" : "", list);
    }
    if (!found) {
        return ep_error_set(EP_EINVAL, "%s: has no token; at least one row expected", trace->name);
    }
    if (trace->counts != NULL) {
        return finish_counts(trace);
    }
    if (builder->options->num_experts > 0) {
        trace->num_experts = builder->options->num_experts;
    } else if (trace->num_experts < trace->top_k) {
        trace->num_experts = trace->top_k;
    }
    return EP_OK;
}

void ep_trace_builder_fini(struct ep_trace_builder *builder)
{
    ep_trace_destroy(builder->trace);
    free(builder->layers);
    *builder = (struct ep_trace_builder){0};
}
