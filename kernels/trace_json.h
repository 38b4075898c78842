/* SPDX-License-Identifier: Apache-2.0 */
/* What the importers of JSON share: one object per line, and rows of expert indices. */
#ifndef EP_KERNELS_TRACE_JSON_H
#define EP_KERNELS_TRACE_JSON_H

#include "base/json.h"
#include "kernels/trace_format.h"

/** Numbers of one token, grown as needed. Start with {0}, free with ep_trace_json_fini. */
struct ep_trace_json_row {
    int64_t *experts; /* [capacity] */
    double *weights;  /* [capacity] */
    int64_t capacity;
};

/** Call `take` with each line's object, in order; lines that are blank or no JSON object are refused
 *  with file:line. `where` ("file:12") is for messages. */
EP_MUST_CHECK enum ep_status ep_trace_json_each_line(
    const struct ep_trace_source *source,
    enum ep_status (*take)(const json_t *object, int64_t line, const char *where, void *context),
    void *context);

/** The array `experts` (and `weights`, NULL = none) as numbers of `row`.
 *  place, part  for messages: "file:12", token `part` of it (-1 = the line is the token)
 *  Returns EP_EINVAL where one is no array of numbers, or their lengths differ. */
EP_MUST_CHECK enum ep_status ep_trace_json_read_row(const json_t *experts, const json_t *weights,
                                                    const char *place, int64_t part,
                                                    struct ep_trace_json_row *row, int64_t *num);
void ep_trace_json_fini(struct ep_trace_json_row *row);

#endif
