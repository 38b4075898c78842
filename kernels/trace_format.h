/* SPDX-License-Identifier: Apache-2.0 */
/* What an importer is made of, and the builder that all of them hand their rows to. To add a
 * format is one file trace_NAME.c and one row in trace.c. */
#ifndef EP_KERNELS_TRACE_FORMAT_H
#define EP_KERNELS_TRACE_FORMAT_H

#include "base/error.h"
#include "kernels/trace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A file in memory. */
struct ep_trace_source {
    const char *name;   /* for messages */
    char *text;         /* [length + 1] ends with NUL; owned by the loader unless taken (set NULL) */
    size_t length;      /* > 0 */
    const char *params; /* after the format's name: "6" of "esft:6"; "" if none */
};

/** One token of a file. */
struct ep_trace_row {
    int64_t line;     /* in the file, from 1; 0 = the file has no lines */
    int64_t part;     /* which token of the line or array, from 0; -1 = the line is the token */
    int64_t token_id; /* -1 = number it */
    const int64_t *experts; /* [top_k] */
    const double *weights;  /* [top_k] or NULL */
    int64_t top_k;          /* >= 1 */
};

/** Takes rows one by one, checks them and keeps those of the layer asked for. */
struct ep_trace_builder {
    const struct ep_trace_options *options;
    struct ep_trace *trace;
    int64_t capacity; /* rows there is room for */
    bool weights;     /* the first row had weights */
    int64_t *layers;  /* [num_layers] all that were seen, ascending */
    int64_t num_layers;
};

/** Are rows of this layer (>= 0; -1 = the file names none) kept? Remembers it for the list of what
 *  there is. Where the user names none, the first seen is kept, and a second is an error at the
 *  end (ep_trace_builder_finish). Returns EP_EINVAL for more than 4,096 layers. */
EP_MUST_CHECK enum ep_status ep_trace_builder_see(struct ep_trace_builder *builder, int64_t layer,
                                                  bool *wanted);

/** Check and keep a row. Returns EP_EINVAL with its place for another top_k than the rows before,
 *  experts out of range or twice, weights that are NaN, infinite, negative or only in some rows. */
EP_MUST_CHECK enum ep_status ep_trace_builder_add(struct ep_trace_builder *builder,
                                                  const struct ep_trace_row *row);

/** Keep counts instead: adds `counts` [num_experts] to what there is; place as in a row. */
EP_MUST_CHECK enum ep_status ep_trace_builder_add_counts(struct ep_trace_builder *builder,
                                                         int64_t line, const double *counts,
                                                         int64_t num_experts);

/** After the last row: what is missing, several layers, the number of experts. */
EP_MUST_CHECK enum ep_status ep_trace_builder_finish(struct ep_trace_builder *builder);
void ep_trace_builder_fini(struct ep_trace_builder *builder);

struct ep_trace_format {
    const char *name;    /* as users force it */
    const char *summary; /* one line */
    /** Does a file that begins so look like this format? NULL = only if forced. */
    bool (*recognise)(const char *text, size_t length);
    /** Hand all rows to the builder. Required. */
    enum ep_status (*read)(struct ep_trace_source *source, struct ep_trace_builder *builder);
    bool has_params; /* FORMAT:PARAMS may be given */
    bool is_binary;  /* NUL bytes are data */
};

/** The rows of the table in trace.c. */
extern const struct ep_trace_format ep_trace_csv;
extern const struct ep_trace_format ep_trace_megatron;
extern const struct ep_trace_format ep_trace_vllm_log;
extern const struct ep_trace_format ep_trace_vllm_npy;
extern const struct ep_trace_format ep_trace_sglang;
extern const struct ep_trace_format ep_trace_esft;
extern const struct ep_trace_format ep_trace_counts;

/** realloc that keeps the old block where there is no memory, and then sets *lost. */
void *ep_trace_resize(void *block, size_t size, bool *lost);

/** Does the first line that is not blank hold `word`? For recognise. */
bool ep_trace_first_line_has(const char *text, size_t length, const char *word);

#endif
