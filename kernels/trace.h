/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded routing, in the formats of the systems that record it, read strictly. */
#ifndef EP_KERNELS_TRACE_H
#define EP_KERNELS_TRACE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Largest trace, expanded: beyond 1 GiB the text alone would not be a benchmark's input. JSON that
 *  is one object (SGLang) takes ten times its size in memory, so it may have a quarter of that. */
#define EP_TRACE_LIMIT_BYTES ((int64_t)1 << 30)
#define EP_TRACE_JSON_LIMIT_BYTES ((int64_t)1 << 28)

struct ep_trace_options {
    int64_t num_experts;   /* experts there are; 0 = the highest in the file + 1, at least top_k */
    int64_t layer;         /* take rows of this layer; -1 = the file must hold one layer only */
    bool allow_duplicates; /* an expert twice in a row: kept and flagged, else refused */
    const char *format;    /* "csv", "esft:6", ... (ep_trace_describe_format); NULL = by content */
};

/** Tokens in the order of the file, or counts. Made by ep_trace_load_*, freed with ep_trace_destroy.
 *  A file of counts (tokens per expert) has no tokens: num_tokens is 0 and the arrays of tokens
 *  are NULL; kernels/count_sampler.h draws tokens from it. */
struct ep_trace {
    char *name;             /* file name, or "trace:sample" */
    const char *format;     /* name of the row of the table; static */
    int64_t num_tokens;     /* >= 1; 0 = counts only */
    int64_t num_experts;    /* every index is below it */
    int64_t top_k;          /* >= 1; 0 = counts that do not say */
    int64_t layer;          /* of the rows kept; -1 = the file names no layers */
    int64_t num_duplicates; /* rows in which an expert comes twice (only if allowed) */
    int64_t num_left_out;   /* records of no such layer that were passed over (Megatron: MTP) */
    int64_t *token_id;      /* [num_tokens] the token column of CSV; else 0, 1, ... */
    int64_t *line;          /* [num_tokens] line in the file (npy: row from 1), for messages */
    int32_t *topk_idx;      /* [num_tokens][top_k] -1 = unused slot */
    float *topk_weight; /* the same shape, >= 0, 0 where unused; NULL if the file has no weights */
    double *counts; /* [num_experts] >= 0, one at least > 0; NULL unless the file holds counts */
    bool fan_out_sampled; /* tokens were drawn from counts: load is real, fan-out is not */
};

/** Read a trace. What each format holds: kernels/README.md, "Traces".
 *  spec     [FORMAT:]FILE[@LAYER], or counts:MODEL/DOMAIN[/LAYER] of the counts built in. gzip is
 *           expanded; "-" = standard input. A file of exactly that name goes before FILE@LAYER.
 *  options  NULL = all default; FORMAT and LAYER of spec go before them
 *  Returns EP_EINVAL, naming file, line (npy: index) and what was expected, for what is no such
 *  file: ragged rows, experts below -1 or >= num_experts, weights that are NaN, infinite or
 *  negative, no rows, several layers and none chosen, more than the limits; EP_EIO, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_trace_load(const char *spec, const struct ep_trace_options *options,
                                           struct ep_trace **trace);

/** Does `spec` open with FORMAT: ? */
bool ep_trace_names_format(const char *spec);

/** The same from `length` bytes in memory (gzip or not), called `name` in messages. */
EP_MUST_CHECK enum ep_status ep_trace_load_text(const char *name, const char *text, size_t length,
                                                const struct ep_trace_options *options,
                                                struct ep_trace **trace);

/** The trace built into the program: 8,327 tokens, 64 experts, top-6 (kernels/data/README.md). */
EP_MUST_CHECK enum ep_status ep_trace_load_sample(struct ep_trace **trace);
void ep_trace_destroy(struct ep_trace *trace);

/** Name and one line of what it is, of format `index` >= 0; false past the last. */
bool ep_trace_describe_format(int index, const char **name, const char **summary);

#endif
