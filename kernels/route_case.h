/* SPDX-License-Identifier: Apache-2.0 */
/* One case of `epbench route`: what was asked for, and all that is counted about it. */
#ifndef EP_KERNELS_ROUTE_CASE_H
#define EP_KERNELS_ROUTE_CASE_H

#include "base/error.h"
#include "base/json.h"
#include "kernels/imbalance.h"
#include "kernels/plain.h"
#include "kernels/route_options.h"
#include "kernels/routing.h"
#include "kernels/traffic_sums.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** Most ranks of a case, and of one of which matrices are kept: 16 bytes per pair, 1 GiB. */
enum { EP_ROUTE_MAX_RANKS = EP_MAX_RANKS, EP_ROUTE_MATRIX_RANKS = 8192 };

enum { EP_ROUTE_MAX_WARNINGS = 8, EP_ROUTE_WARNING_SIZE = 256 };

struct ep_gate_source;    /* kernels/gate_source.h */
struct ep_route_capacity; /* kernels/route_capacity.h */

/** The matrices that are reported: three bases, and node-dedup's second stage. */
enum { EP_ROUTE_FAN_OUT = EP_TRAFFIC_FAN_OUT, EP_ROUTE_NUM_MATRICES = EP_TRAFFIC_NUM_STAGES };

enum ep_route_load { EP_ROUTE_EXPERT, EP_ROUTE_RANK, EP_ROUTE_NODE, EP_ROUTE_NUM_LOADS };

/** Made by ep_route_case_init, freed with ep_route_case_fini. */
struct ep_route_case {
    const char *source;   /* skew or file name; borrowed from the options, or a literal */
    bool from_file;       /* assignments: no skew, seed or routing_id */
    bool fan_out_sampled; /* tokens were drawn from counts: only their load is recorded */
    struct ep_skew *skew;
    struct ep_trace *assignments;
    struct ep_placement placement;
    struct ep_token_map tokens;
    int64_t *order;              /* [num_tokens] assignments only: rows of the file by rank */
    struct ep_router *router;    /* generator only */
    struct ep_gate_source *gate; /* --router or a style's; NULL = the skew chooses by itself */
    int64_t num_experts;
    int64_t top_k;
    int64_t num_tokens;      /* over all ranks */
    int64_t tokens_per_rank; /* 0 = unequal */
    int64_t num_ranks;
    int64_t num_nodes;
    int32_t *rank_node; /* [num_ranks] */
    int64_t hidden;     /* 0 = only the row's bytes are known */
    enum ep_dtype dtype;
    int64_t row_bytes;
    uint64_t seed;
    double bw_bytes_per_s;         /* NaN = not given */
    struct ep_traffic_input input; /* all choices again, for those who count something else */
    struct ep_traffic_sums sums;
    struct ep_traffic_totals rows[EP_ROUTE_NUM_MATRICES];
    struct ep_imbalance imbalance[EP_ROUTE_NUM_LOADS]; /* of copies received */
    double mean_fan_out[2];                            /* destinations per token: ranks, nodes */
    double expected_fan_out[2]; /* for uniform routing over equal groups; NaN elsewhere */
    struct ep_plain_cost plain; /* comm_time_ms is NaN without a bandwidth */
    double hot_ratio;           /* skew hot: copies of the rank over the mean of others; else NaN */
    int64_t textbook_fraction_bytes;    /* tokens x row bytes x fraction of pairs that are remote */
    int64_t textbook_twice_bytes;       /* tokens x row bytes x 2 */
    const struct ep_style *style;       /* NULL = not asked for */
    struct ep_route_capacity *capacity; /* NULL = not asked for */
    char warnings[EP_ROUTE_MAX_WARNINGS][EP_ROUTE_WARNING_SIZE];
    int num_warnings;
};

/** Load, generate and count. `route` keeps pointers into itself and must not move. Returns
 * EP_EINVAL for options that contradict each other or bad files, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_route_case_init(const struct ep_route_options *options,
                                                struct ep_route_case *route);
void ep_route_case_fini(struct ep_route_case *route);

/** The share of ranks that are counted, on a terminal at stderr; for struct ep_traffic_effort. */
void ep_route_show_progress(int64_t num_done, int64_t num_ranks);

/** Tables on `out`. */
EP_MUST_CHECK enum ep_status ep_route_case_print(const struct ep_route_case *route, FILE *out);

/** The same as a new JSON object. Keys: kernels/README.md, "route". */
EP_MUST_CHECK enum ep_status ep_route_case_to_json(const struct ep_route_case *route,
                                                   json_t **json);

#endif
