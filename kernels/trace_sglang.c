/* SPDX-License-Identifier: Apache-2.0 */
/* SGLang's expert distribution: {"logical_count": [[...]]}, tokens per expert by layer, or by step
 * and layer. Source: sgl-project/sglang python/sglang/srt/eplb/expert_location.py, init_by_eplb. */
#include "kernels/trace_format.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One layer's array; `where` names it. */
static enum ep_status add_layer(const json_t *values, const char *where, int64_t layer,
                                struct ep_trace_builder *builder)
{
    bool wanted = false;
    const size_t num = json_array_size(values);
    if (!json_is_array(values) || num == 0) {
        return ep_error_set(EP_EINVAL, "%s: an array of counts, one per expert, was expected",
                            where);
    }
    enum ep_status status = ep_trace_builder_see(builder, layer, &wanted);
    if (status != EP_OK || !wanted) {
        return status;
    }
    double *counts = calloc(num, sizeof *counts);
    if (counts == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", where);
    }
    for (size_t e = 0; e < num && status == EP_OK; e++) {
        const json_t *value = json_array_get(values, e);
        const json_int_t count = json_integer_value(value);
        if (!json_is_integer(value) || count < 0 || count > (json_int_t)1 << 53) {
            status = ep_error_set(EP_EINVAL,
                                  "%s[%zu]: a whole number from 0 to 2^53 was expected", where, e);
        }
        counts[e] = (double)count;
    }
    if (status == EP_OK && builder->trace->counts != NULL &&
        builder->trace->num_experts != (int64_t)num) {
        status = ep_error_set(EP_EINVAL,
                              "%s: counts of %zu experts; %" PRId64 " expected, as in other steps",
                              where, num, builder->trace->num_experts);
    }
    if (status == EP_OK) {
        status = ep_trace_builder_add_counts(builder, 0, counts, (int64_t)num);
    }
    free(counts);
    return status;
}

/* Layers of one step; step < 0 = the file has no steps. */
static enum ep_status add_step(const json_t *layers, const char *name, int64_t step,
                               struct ep_trace_builder *builder)
{
    char where[400];
    for (size_t l = 0; l < json_array_size(layers); l++) {
        if (step < 0) {
            snprintf(where, sizeof where, "%s: logical_count[%zu]", name, l);
        } else {
            snprintf(where, sizeof where, "%s: logical_count[%" PRId64 "][%zu]", name, step, l);
        }
        const enum ep_status status =
            add_layer(json_array_get(layers, l), where, (int64_t)l, builder);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status read(struct ep_trace_source *source, struct ep_trace_builder *builder)
{
    enum ep_status status;
    json_t *root = NULL;
    if ((int64_t)source->length > EP_TRACE_JSON_LIMIT_BYTES) {
        return ep_error_set(EP_EINVAL, "%s: larger than the limit of %" PRId64 " bytes for JSON",
                            source->name, EP_TRACE_JSON_LIMIT_BYTES);
    }
    EP_TRY(ep_json_parse(source->name, 1, source->text, source->length, &root));
    const json_t *counts = json_object_get(root, "logical_count");
    const json_t *first = json_array_get(counts, 0);
    if (!json_is_array(first)) {
        status = ep_error_set(EP_EINVAL,
                              "%s: key 'logical_count' with counts by layer, or by step and layer, "
                              "was expected",
                              source->name);
        goto out;
    }
    if (!json_is_array(json_array_get(first, 0))) {
        EP_TRY(add_step(counts, source->name, -1, builder));
        goto out;
    }
    for (size_t s = 0; s < json_array_size(counts); s++) {
        if (!json_is_array(json_array_get(counts, s))) {
            status = ep_error_set(EP_EINVAL, "%s: logical_count[%zu]: an array of layers was "
                                  "expected", source->name, s);
            goto out;
        }
        EP_TRY(add_step(json_array_get(counts, s), source->name, (int64_t)s, builder));
    }
out:
    json_decref(root);
    return status;
}

static bool recognise(const char *text, size_t length)
{
    static const char key[] = "\"logical_count\"";
    return ep_trace_first_line_has(text, length, "{") &&
           memmem(text, length, key, strlen(key)) != NULL;
}

const struct ep_trace_format ep_trace_sglang = {
    .name = "sglang",
    .summary = "logical_count of SGLang's expert distribution, JSON: counts, no tokens",
    .recognise = recognise,
    .read = read,
};
