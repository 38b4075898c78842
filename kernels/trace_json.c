/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines and rows of numbers. */
#include "kernels/trace_json.h"

#include "kernels/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHERE_SIZE = 300 };

static bool is_blank(const char *from, const char *end)
{
    while (from < end && strchr(" \t\r\n", *from) != NULL) {
        from++;
    }
    return from == end;
}

enum ep_status ep_trace_json_each_line(
    const struct ep_trace_source *source,
    enum ep_status (*take)(const json_t *object, int64_t line, const char *where, void *context),
    void *context)
{
    enum ep_status status = EP_OK;
    json_t *object = NULL;
    char where[WHERE_SIZE];
    int64_t line = 1;
    const char *end = source->text + source->length;
    for (const char *from = source->text; !is_blank(from, end); line++) {
        const char *line_end = memchr(from, '\n', (size_t)(end - from));
        line_end = line_end != NULL ? line_end : end;
        snprintf(where, sizeof where, "%s:%" PRId64, source->name, line);
        if (is_blank(from, line_end)) {
            status = ep_error_set(EP_EINVAL, "%s: is blank; a JSON object was expected", where);
            goto out;
        }
        EP_TRY(ep_json_parse(source->name, line, from, (size_t)(line_end - from), &object));
        if (!json_is_object(object)) {
            status = ep_error_set(EP_EINVAL, "%s: is no JSON object; one per line expected", where);
            goto out;
        }
        EP_TRY(take(object, line, where, context));
        json_decref(object);
        object = NULL;
        from = line_end < end ? line_end + 1 : end;
    }
out:
    json_decref(object);
    return status;
}

static enum ep_status refuse(const char *place, int64_t part, const char *expected)
{
    return part < 0 ? ep_error_set(EP_EINVAL, "%s: %s expected", place, expected)
                    : ep_error_set(EP_EINVAL, "%s: token %" PRId64 ": %s expected", place, part,
                                   expected);
}

static enum ep_status make_room(struct ep_trace_json_row *row, int64_t num)
{
    if (num <= row->capacity) {
        return EP_OK;
    }
    bool lost = false;
    row->experts = ep_trace_resize(row->experts, (size_t)num * sizeof *row->experts, &lost);
    row->weights = ep_trace_resize(row->weights, (size_t)num * sizeof *row->weights, &lost);
    if (lost) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " experts of a token", num);
    }
    row->capacity = num;
    return EP_OK;
}

enum ep_status ep_trace_json_read_row(const json_t *experts, const json_t *weights,
                                      const char *place, int64_t part,
                                      struct ep_trace_json_row *row, int64_t *num)
{
    const size_t length = json_array_size(experts);
    if (!json_is_array(experts) || length < 1 || length > EP_MAX_EXPERTS) {
        return refuse(place, part, "an array of one and more expert indices");
    }
    if (weights != NULL && (!json_is_array(weights) || json_array_size(weights) != length)) {
        return refuse(place, part, "an array of as many weights as experts");
    }
    const enum ep_status status = make_room(row, (int64_t)length);
    if (status != EP_OK) {
        return status;
    }
    for (size_t i = 0; i < length; i++) {
        const json_t *expert = json_array_get(experts, i);
        const json_t *weight = json_array_get(weights, i);
        if (!json_is_integer(expert)) {
            return refuse(place, part, "whole numbers as expert indices");
        }
        if (weights != NULL && !json_is_number(weight)) {
            return refuse(place, part, "numbers as weights");
        }
        row->experts[i] = json_integer_value(expert);
        row->weights[i] = json_number_value(weight);
    }
    *num = (int64_t)length;
    return EP_OK;
}

void ep_trace_json_fini(struct ep_trace_json_row *row)
{
    free(row->experts);
    free(row->weights);
    *row = (struct ep_trace_json_row){0};
}
