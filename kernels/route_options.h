/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `epbench route` that all its modes share. */
#ifndef EP_KERNELS_ROUTE_OPTIONS_H
#define EP_KERNELS_ROUTE_OPTIONS_H

#include "base/error.h"
#include "kernels/capacity_options.h"
#include "kernels/dtype.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/** Every option, in the order of the table in route_options.c. */
enum ep_route_option {
    EP_ROUTE_SKEW,
    EP_ROUTE_POPULARITY,
    EP_ROUTE_MASKED,
    EP_ROUTE_MODEL,
    EP_ROUTE_MODEL_FILE,
    EP_ROUTE_EXPERTS,
    EP_ROUTE_TOP_K,
    EP_ROUTE_TOKENS,
    EP_ROUTE_BATCH,
    EP_ROUTE_SEQ_LEN,
    EP_ROUTE_TOKENS_PER_RANK,
    EP_ROUTE_SEED,
    EP_ROUTE_ASSIGNMENTS,
    EP_ROUTE_LAYER,
    EP_ROUTE_TRACE_FORMAT,
    EP_ROUTE_RANKS,
    EP_ROUTE_RANKS_PER_NODE,
    EP_ROUTE_NODES,
    EP_ROUTE_EXPERTS_TO_RANKS,
    EP_ROUTE_EXPERT_RANKS,
    EP_ROUTE_PLACEMENT,
    EP_ROUTE_PLACEMENT_POLICY,
    EP_ROUTE_PLACEMENT_LAYER,
    EP_ROUTE_TOKENS_TO_RANKS,
    EP_ROUTE_HIDDEN,
    EP_ROUTE_DTYPE,
    EP_ROUTE_TOKEN_BYTES,
    EP_ROUTE_BANDWIDTH,
    EP_ROUTE_MIN_TOKENS,
    EP_ROUTE_THREADS,
    EP_ROUTE_JSON,
    EP_ROUTE_CAPACITY, /* any of ep_capacity_argp's */
    EP_ROUTE_NUM_OPTIONS
};

/** Bit of an option in a set of them. */
#define EP_ROUTE_BIT(option) (UINT64_C(1) << (option))

/** Defaults where neither the user nor a model says: ranks, tokens per rank, hidden. */
enum { EP_ROUTE_RANKS_DEFAULT = 8, EP_ROUTE_TOKENS_DEFAULT = 4096, EP_ROUTE_HIDDEN_DEFAULT = 7168 };

enum { EP_ROUTE_MAX_THREADS = 4096 };

/** As given on the command line; 0 or NULL = not given. Texts are borrowed. */
struct ep_route_options {
    uint64_t given;     /* EP_ROUTE_BIT of each option that was given */
    const char *skew;   /* without what the next two add to it */
    bool by_source;     /* --popularity source */
    const char *masked; /* share, as text */
    const char *model;
    const char *model_file;
    const char *assignments;      /* trace file that replaces the generator */
    const char *experts_to_ranks; /* "0,0,1,1"; NULL = contiguous */
    const char *expert_ranks;     /* "0-3,8": the ranks that hold experts */
    const char *placement;        /* file of maps, in place of the list */
    const char *placement_policy; /* of that file */
    int64_t placement_layer;      /* of that file; -1 = not given */
    const char *tokens_to_ranks;  /* "block" or a CSV file `token,rank`; only with assignments */
    const char *json_path;
    int64_t layer; /* of the assignments, or of a skew's trace or counts; -1 = not given */
    const char *trace_format; /* of the same; NULL = by content */
    int64_t num_experts;
    int64_t top_k;
    int64_t num_ranks;
    int64_t ranks_per_node;
    int64_t num_nodes;
    int64_t tokens; /* per rank; --batch x --seq-len where these were given */
    int64_t batch;
    int64_t seq_len;
    const char *tokens_per_rank; /* "10,0,20"; in place of tokens */
    int64_t hidden;
    int64_t token_bytes;
    int64_t seed; /* default 1 */
    enum ep_dtype dtype;
    double bw_bytes_per_s;
    int64_t min_tokens; /* per expert and step; below, a warning */
    int64_t num_threads; /* 0 = all cores */
    struct ep_capacity_options capacity;
};

/** What parsing starts from. */
#define EP_ROUTE_OPTIONS_NONE                                                                      \
    ((struct ep_route_options){.layer = -1, .placement_layer = -1, .seed = 1, .dtype = EP_BF16})

/** All of them as an argp child; its input is a struct ep_route_options. */
extern const struct argp ep_route_argp;

/** "--skew"; "--capacity" stands for all of EP_ROUTE_CAPACITY. */
const char *ep_route_option_name(enum ep_route_option option);

static inline bool ep_route_option_given(const struct ep_route_options *options,
                                         enum ep_route_option option)
{
    return (options->given & EP_ROUTE_BIT(option)) != 0;
}

/** EP_EINVAL where an option outside the set `uses` was given: `mode` ("--steps") cannot use it. */
EP_MUST_CHECK enum ep_status ep_route_options_refuse(const struct ep_route_options *options,
                                                     uint64_t uses, const char *mode);

/** Experts, top-k and hidden of --model or --model-file where the user gave none of his own.
 *  Returns EP_EINVAL for an unknown model (the nearest is named) or a bad file. */
EP_MUST_CHECK enum ep_status ep_route_options_apply_model(struct ep_route_options *options);

/** Nodes of `num_ranks` ranks as --nodes and --ranks-per-node say, 1 where neither is given; blocks
 *  of consecutive ranks. Returns EP_EINVAL where they do not divide or contradict each other. */
EP_MUST_CHECK enum ep_status ep_route_options_nodes(const struct ep_route_options *options,
                                                    int64_t num_ranks, int64_t *num_nodes);

#endif
