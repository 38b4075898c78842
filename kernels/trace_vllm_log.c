/* SPDX-License-Identifier: Apache-2.0 */
/* The JSONL of vLLM's MoE loggers (VLLM_LOG_MOE): a "meta" object, then one "route" object per
 * (request, token, layer). Source: KennethWang1221/vllm-expert-profiler README.md, "Artifacts". */
#include "kernels/trace_json.h"

#include <inttypes.h>
#include <string.h>

struct reading {
    struct ep_trace_builder *builder;
    struct ep_trace_json_row row;
    int64_t top_k; /* of the last "meta"; 0 = none said */
};

static enum ep_status take_meta(const json_t *object, const char *where, struct reading *r)
{
    return json_object_get(object, "top_k") != NULL
               ? ep_json_get_i64(object, "top_k", where, 1, INT32_MAX, &r->top_k)
               : EP_OK;
}

static enum ep_status take_route(const json_t *object, int64_t line, const char *where,
                                 struct reading *r)
{
    enum ep_status status;
    int64_t layer = 0;
    int64_t token = 0;
    int64_t num = 0;
    bool wanted = false;
    const json_t *weights = json_object_get(object, "topk_weights");
    EP_TRY(ep_json_get_i64(object, "layer", where, 0, INT32_MAX, &layer));
    EP_TRY(ep_json_get_i64(object, "token_idx", where, 0, INT64_MAX, &token));
    EP_TRY(ep_trace_json_read_row(json_object_get(object, "topk_ids"), weights, where, -1, &r->row,
                                  &num));
    if (r->top_k > 0 && num != r->top_k) {
        status = ep_error_set(EP_EINVAL, "%s: %" PRId64 " experts; the meta line says %" PRId64,
                              where, num, r->top_k);
        goto out;
    }
    EP_TRY(ep_trace_builder_see(r->builder, layer, &wanted));
    if (wanted) {
        /* token_idx starts again with every request, so rows are numbered */
        const struct ep_trace_row row = {.line = line, .part = -1, .token_id = -1,
                                         .experts = r->row.experts,
                                         .weights = weights != NULL ? r->row.weights : NULL,
                                         .top_k = num};
        EP_TRY(ep_trace_builder_add(r->builder, &row));
    }
out:
    return status;
}

static enum ep_status take(const json_t *object, int64_t line, const char *where, void *context)
{
    const char *type = NULL;
    const enum ep_status status = ep_json_get_string(object, "type", where, &type);
    if (status != EP_OK) {
        return status;
    }
    if (strcmp(type, "meta") == 0) {
        return take_meta(object, where, context);
    }
    return strcmp(type, "route") == 0
               ? take_route(object, line, where, context)
               : ep_error_set(EP_EINVAL, "%s: type '%.40s'; meta or route expected", where, type);
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
           (ep_trace_first_line_has(text, length, "\"meta\"") ||
            ep_trace_first_line_has(text, length, "\"topk_ids\""));
}

const struct ep_trace_format ep_trace_vllm_log = {
    .name = "vllm-log",
    .summary = "meta and route lines of vLLM's MoE loggers, JSONL",
    .recognise = recognise,
    .read = read,
};
