/* SPDX-License-Identifier: Apache-2.0 */
/* Megatron-LM's router trace: JSONL, one object per (step, block, layer).
 * Source: NVIDIA/Megatron-LM megatron/core/transformer/moe/router_trace.py. */
#include "kernels/trace_json.h"

#include <inttypes.h>
#include <string.h>

struct reading {
    struct ep_trace_builder *builder;
    struct ep_trace_json_row row;
};

static enum ep_status add_tokens(struct reading *r, const json_t *indices, int64_t top_k,
                                 int64_t line, const char *where)
{
    enum ep_status status = EP_OK;
    for (size_t t = 0; t < json_array_size(indices); t++) {
        int64_t num = 0;
        EP_TRY(ep_trace_json_read_row(json_array_get(indices, t), NULL, where, (int64_t)t, &r->row,
                                      &num));
        if (num != top_k) {
            status = ep_error_set(EP_EINVAL,
                                  "%s: token %zu: %" PRId64 " experts; 'topk' says %" PRId64, where,
                                  t, num, top_k);
            goto out;
        }
        const struct ep_trace_row row = {.line = line, .part = (int64_t)t, .token_id = -1,
                                         .experts = r->row.experts, .top_k = num};
        EP_TRY(ep_trace_builder_add(r->builder, &row));
    }
out:
    return status;
}

static enum ep_status take(const json_t *object, int64_t line, const char *where, void *context)
{
    enum ep_status status;
    struct reading *r = context;
    const char *block = NULL;
    int64_t layer = 0;
    int64_t num_tokens = 0;
    int64_t top_k = 0;
    bool wanted = false;
    const json_t *indices = json_object_get(object, "top_indices");
    EP_TRY(ep_json_get_string(object, "block", where, &block));
    EP_TRY(ep_json_get_i64(object, "layer", where, 0, INT32_MAX, &layer));
    EP_TRY(ep_json_get_i64(object, "num_tokens", where, 0, INT32_MAX, &num_tokens));
    EP_TRY(ep_json_get_i64(object, "topk", where, 1, INT32_MAX, &top_k));
    if (!json_is_array(indices) || (int64_t)json_array_size(indices) != num_tokens) {
        status = ep_error_set(EP_EINVAL,
                              "%s: 'top_indices' must be an array of %" PRId64
                              " tokens, as 'num_tokens' says",
                              where, num_tokens);
        goto out;
    }
    /* Layers of multi-token prediction count from 0 again and are no layers of the decoder. */
    if (strcmp(block, "decoder") != 0) {
        r->builder->trace->num_left_out++;
        goto out;
    }
    EP_TRY(ep_trace_builder_see(r->builder, layer, &wanted));
    if (wanted) {
        EP_TRY(add_tokens(r, indices, top_k, line, where));
    }
out:
    return status;
}

static enum ep_status read(struct ep_trace_source *source, struct ep_trace_builder *builder)
{
    struct reading r = {.builder = builder};
    const enum ep_status status = ep_trace_json_each_line(source, take, &r);
    ep_trace_json_fini(&r.row);
    return status;
}

static bool recognise(const char *text, size_t length)
{
    return ep_trace_first_line_has(text, length, "{") &&
           ep_trace_first_line_has(text, length, "\"top_indices\"");
}

const struct ep_trace_format ep_trace_megatron = {
    .name = "megatron",
    .summary = "router trace of Megatron-LM, JSONL",
    .recognise = recognise,
    .read = read,
};
