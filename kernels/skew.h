/* SPDX-License-Identifier: Apache-2.0 */
/* Skews: how popular experts are, as users name them. */
#ifndef EP_KERNELS_SKEW_H
#define EP_KERNELS_SKEW_H

#include "base/error.h"
#include "kernels/trace.h"

#include <stdbool.h>
#include <stdint.h>

struct ep_skew_policy;

/** A skew as asked for: "uniform", "zipf:1.0", "hot:4@2", "khot:8:0.5", "trace:FILE",
 * "gini:0.5+source", "zipf:1+masked:0.1". Created by ep_skew_create. What it means:
 * kernels/README.md, "Skews". */
struct ep_skew {
    const struct ep_skew_policy *policy;
    char *text;             /* as given, for records and messages */
    bool by_source;         /* +source: each source rank permutes the experts for itself */
    double masked;          /* +masked:F: share of slots that are left unused, 0 to 1 */
    double value;           /* the policy's parameter: S, R, F, A or G */
    int64_t count;          /* khot: N */
    char *hot_ranks;        /* hot: as asked, "3", "0-3", "0/4", "last"; NULL = rank 0 */
    struct ep_trace *trace; /* owned; NULL but for trace and counts */
    const struct ep_trace_options *trace_options; /* while it is parsed; NULL = none */
    int64_t num_experts;                          /* fixed by the skew; 0 = any */
    int64_t top_k;                                /* fixed by the skew; 0 = any */
    bool more_experts; /* num_experts is only a lower bound (a trace file's highest + 1) */
};

/** Parse one skew and load its trace, if it has one. Returns EP_EINVAL for an unknown name (the
 *  nearest is named) or a bad parameter. */
EP_MUST_CHECK enum ep_status ep_skew_create(const char *text, struct ep_skew **skew);

/** The same with what --layer and --trace-format say of traces and counts; NULL = nothing. What
 *  they choose becomes part of the skew's text ("trace:esft:6:FILE@3"), so that records say it all.
 *  Other skews take no notice. */
EP_MUST_CHECK enum ep_status ep_skew_create_with(const char *text,
                                                 const struct ep_trace_options *trace_options,
                                                 struct ep_skew **skew);
void ep_skew_destroy(struct ep_skew *skew);

/** The text of `skew` with what is asked for besides: "zipf:1" with source and 0.1 masked is
 *  "zipf:1+source+masked:0.1". masked NULL = not asked for. A new string; NULL without memory. */
char *ep_skew_compose(const char *skew, bool by_source, const char *masked);

/** Every skew's usage, for --help and messages: "uniform, zipf:S, ...". Never fails. */
const char *ep_skew_usages(void);

/** Experts and top-k of a case.
 *  num_experts, top_k  as given by the user; 0 = not given
 *  in_sweep  true where other cases share these options: a trace then uses its own shape; else one
 *            that contradicts the trace is refused
 *  Returns EP_EINVAL also where neither the user nor the skew gives a value, or top_k > experts. */
EP_MUST_CHECK enum ep_status ep_skew_resolve_shape(const struct ep_skew *skew, int64_t num_experts,
                                                   int64_t top_k, bool in_sweep,
                                                   int64_t *case_experts, int64_t *case_top_k);

/** The hot ranks of a skew of policy hot: ascending, at least one, with another one left beside them.
 *  *ranks [*num] is the caller's to free. Returns EP_EINVAL where `num_ranks` ranks do not have them; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_skew_find_hot_ranks(const struct ep_skew *skew, int64_t num_ranks,
                                                    int32_t **ranks, int64_t *num);

/** Usage ("zipf:S") and one line of what it is, of policy `index` >= 0; false past the last. */
bool ep_skew_describe(int index, const char **usage, const char **summary);

#endif
