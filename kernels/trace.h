/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded routing: CSV `token[,layer],e0..ek-1[,w0..wk-1]`, header required, read strictly. */
#ifndef EP_KERNELS_TRACE_H
#define EP_KERNELS_TRACE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Largest trace file, 1 GiB: beyond that the text alone would not be a benchmark's input. */
#define EP_TRACE_LIMIT_BYTES ((int64_t)1 << 30)

struct ep_trace_options {
    int64_t num_experts;   /* experts there are; 0 = the highest in the file + 1, at least top_k */
    int64_t layer;         /* take rows of this layer; -1 = the file must hold one layer only */
    bool allow_duplicates; /* an expert twice in a row: kept and flagged, else refused */
};

/** Tokens in the order of the file. Created by ep_trace_load_*, freed with ep_trace_destroy. */
struct ep_trace {
    char *name;             /* file name, or "sample" */
    int64_t num_tokens;     /* >= 1 */
    int64_t num_experts;    /* every index is below it */
    int64_t top_k;          /* >= 1 */
    int64_t layer;          /* of the rows kept; -1 = no such column */
    int64_t num_duplicates; /* rows in which an expert comes twice (only if allowed) */
    int64_t *token_id;      /* [num_tokens] the token column */
    int64_t *line;          /* [num_tokens] line in the file, for messages */
    int32_t *topk_idx;      /* [num_tokens][top_k] -1 = unused slot */
    float *topk_weight; /* the same shape, >= 0, 0 where unused; NULL if the file has no weights */
};

/** Read a trace ("-" = standard input); options NULL = all default.
 *  Returns EP_EINVAL with file:line for a missing or odd header, a ragged row, an expert below -1
 *  or >= num_experts, a weight that is NaN, infinite or negative, no rows, or more than
 *  EP_TRACE_LIMIT_BYTES. */
EP_MUST_CHECK enum ep_status ep_trace_load(const char *path, const struct ep_trace_options *options,
                                           struct ep_trace **trace);

/** The same from `length` bytes in memory, called `name` in messages. */
EP_MUST_CHECK enum ep_status ep_trace_load_text(const char *name, const char *text, size_t length,
                                                const struct ep_trace_options *options,
                                                struct ep_trace **trace);

/** The trace built into the program: 8,327 tokens, 64 experts, top-6 (kernels/data/README.md). */
EP_MUST_CHECK enum ep_status ep_trace_load_sample(struct ep_trace **trace);
void ep_trace_destroy(struct ep_trace *trace);

#endif
