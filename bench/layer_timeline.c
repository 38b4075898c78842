/* SPDX-License-Identifier: Apache-2.0 */
/* Slices of cases, kept as JSON until they are written. */
#include "bench/layer_timeline.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct ep_layer_timeline {
    json_t *cases; /* title -> array of events */
};

enum ep_status ep_layer_timeline_create(struct ep_layer_timeline **timeline)
{
    struct ep_layer_timeline *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->cases = json_object();
    }
    if (made == NULL || made->cases == NULL) {
        ep_layer_timeline_destroy(made);
        return ep_error_set(EP_ENOMEM, "no memory for a timeline");
    }
    *timeline = made;
    return EP_OK;
}

void ep_layer_timeline_destroy(struct ep_layer_timeline *timeline)
{
    if (timeline != NULL) {
        json_decref(timeline->cases);
        free(timeline);
    }
}

static enum ep_status append(json_t *events, json_t *event)
{
    return event != NULL && json_array_append_new(events, event) == 0
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "no memory for a timeline");
}

static double reading(const struct ep_layer_clocks *c, int64_t rank, int64_t repetition, int64_t p)
{
    return c->times_s[(rank * c->num_repetitions + repetition) * (c->num_phases + 1) + p];
}

static json_t *name_row(const char *what, int64_t rank, const char *text)
{
    return json_pack("{s:s, s:s, s:I, s:{s:s}}", "ph", "M", "name", what, "tid", (json_int_t)rank,
                     "args", "name", text);
}

enum ep_status ep_layer_timeline_set(struct ep_layer_timeline *timeline, const char *title,
                                     const char *const *names, const struct ep_layer_clocks *c,
                                     int64_t repetition)
{
    enum ep_status status = EP_OK;
    char rank_name[32];
    double begin_s = HUGE_VAL;
    json_t *events = json_array();
    for (int64_t rank = 0; rank < c->num_ranks; rank++) {
        begin_s = fmin(begin_s, reading(c, rank, repetition, 0));
    }
    EP_TRY(append(events, name_row("process_name", 0, title)));
    for (int64_t rank = 0; rank < c->num_ranks; rank++) {
        snprintf(rank_name, sizeof rank_name, "rank %lld", (long long)rank);
        EP_TRY(append(events, name_row("thread_name", rank, rank_name)));
        for (int64_t p = 0; p < c->num_phases; p++) {
            /* whole ns, which viewers count in: the end of a slice is the start of the next */
            const long long start_ns = llround((reading(c, rank, repetition, p) - begin_s) * 1e9);
            const long long end_ns = llround((reading(c, rank, repetition, p + 1) - begin_s) * 1e9);
            const double wait_s = ep_layer_wait_s(c, p, repetition, rank);
            EP_TRY(append(events,
                          json_pack("{s:s, s:s, s:I, s:f, s:f, s:{s:f}}", "ph", "X", "name", names[p],
                                    "tid", (json_int_t)rank, "ts", (double)start_ns / 1e3, "dur",
                                    (double)(end_ns - start_ns) / 1e3,
                                    "args", "wait_us", wait_s * 1e6)));
        }
    }
    status = ep_json_set(timeline->cases, title, json_incref(events));
out:
    json_decref(events);
    return status;
}

enum ep_status ep_layer_timeline_write(const struct ep_layer_timeline *timeline, const char *path)
{
    enum ep_status status = EP_OK;
    const char *title = NULL;
    json_t *one = NULL;
    json_int_t pid = 0;
    json_t *all = json_array();
    json_t *file = json_pack("{s:o, s:s}", "traceEvents", all, "displayTimeUnit", "ns");
    if (file == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a timeline");
    }
    json_object_foreach(timeline->cases, title, one)
    {
        size_t i = 0;
        json_t *event = NULL;
        json_array_foreach(one, i, event)
        {
            EP_TRY(ep_json_set(event, "pid", json_integer(pid)));
        }
        if (json_array_extend(all, one) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for a timeline");
            goto out;
        }
        pid++;
    }
    status = ep_json_save(path, file);
out:
    json_decref(file);
    return status;
}
