/* SPDX-License-Identifier: Apache-2.0 */
/* What routing makes ranks send: rows in three bases, and the byte features the cost model needs.
 */
#ifndef EP_KERNELS_TRAFFIC_H
#define EP_KERNELS_TRAFFIC_H

#include "base/error.h"
#include "kernels/placement.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stdint.h>

/** What one row on the wire stands for. Source: kernels/README.md, "Bytes". */
enum ep_basis {
    EP_BASIS_COPIES, /* one row per (token, expert) */
    EP_BASIS_RANK,   /* one row per (token, destination rank) */
    EP_BASIS_NODE,   /* one row per (token, destination node) on the network */
    EP_NUM_BASES
};

/** "copies", "rank-dedup", "node-dedup". */
const char *ep_basis_name(enum ep_basis basis);

/** Counts over all tokens added so far. Init with ep_traffic_init, free with ep_traffic_fini.
 *  Rows that stay on their rank or node are counted too, on the diagonal. */
struct ep_traffic {
    const struct ep_placement *placement; /* borrowed */
    int64_t num_ranks;
    int64_t num_nodes;
    int64_t top_k;
    bool one_row;           /* the matrices are one row, for one source at a time */
    int32_t *rank_node;     /* [num_ranks] the node of each rank */
    int64_t *tokens;        /* [num_ranks] tokens of each rank */
    int64_t *copies;        /* [num_ranks][num_ranks] rows from, to: token-expert */
    int64_t *ranks;         /* [num_ranks][num_ranks] rows from, to: token-rank */
    int64_t *nodes;         /* [num_ranks][num_nodes] rows from rank, to node: token-node */
    int64_t *expert_copies; /* [num_experts] copies that each expert receives */
    int64_t *rank_fan_out;  /* [top_k + 1] tokens by distinct destination ranks, own included */
    int64_t *node_fan_out;  /* [top_k + 1] tokens by distinct destination nodes, own included */
    struct ep_traffic_scratch *scratch;
};

/** rank_node [num_ranks], each in [0, num_nodes), copied; NULL = all on one node (num_nodes 1).
 *  16 bytes per pair of ranks. The placement must outlive it. */
EP_MUST_CHECK enum ep_status ep_traffic_init(const struct ep_placement *placement,
                                             const int32_t *rank_node, int64_t num_nodes,
                                             int64_t top_k, struct ep_traffic *traffic);

/** The same with one row for each matrix, to which every source adds: for those who take each
 *  source's row away before the next (kernels/traffic_sums.h). The matrices below are not for it.
 */
EP_MUST_CHECK enum ep_status ep_traffic_init_row(const struct ep_placement *placement,
                                                 const int32_t *rank_node, int64_t num_nodes,
                                                 int64_t top_k, struct ep_traffic *traffic);
void ep_traffic_fini(struct ep_traffic *traffic);

/** Add tokens of rank `source`: topk_idx [num_tokens][top_k], -1 = unused; an expert that comes
 *  twice in a row counts as two copies and one destination.
 *  Returns EP_EINVAL, nothing added, if an index is < -1 or >= the experts. Not thread-safe. */
EP_MUST_CHECK enum ep_status ep_traffic_add(struct ep_traffic *traffic, int64_t source,
                                            const int32_t *topk_idx, int64_t num_tokens);

/** Add all tokens of a router, rank by rank, in bounded memory. */
EP_MUST_CHECK enum ep_status ep_traffic_add_router(struct ep_traffic *traffic,
                                                   const struct ep_router *router);

/** [num_experts] the rank that `source` sends each expert's copies to; borrowed, until another
 * source is asked for or added. */
const int32_t *ep_traffic_targets(struct ep_traffic *traffic, int64_t source);

/** The rank of `node` that receives what `source` sends there over the network under node-dedup; on
 *  its own node, itself. O(1). */
int64_t ep_traffic_landing_rank(const struct ep_traffic *traffic, int64_t source, int64_t node);

/** Rows between ranks in a basis, [num_ranks][num_ranks], overwritten. node-dedup gives its network
 *  stage: source i sends to the rank of the other node that has i's index within its own node (its
 *  own rows stay on the diagonal); the fan-out stage is ep_traffic_fill_fan_out. */
void ep_traffic_fill_rows(const struct ep_traffic *traffic, enum ep_basis basis, int64_t *rows);

/** node-dedup's second stage, [num_ranks][num_ranks], overwritten: rows from the rank where a row
 *  came in (or its source, on its own node) to each rank of that node that needs it. */
void ep_traffic_fill_fan_out(const struct ep_traffic *traffic, int64_t *rows);

/** Copies that each rank receives, its own included: loads [num_ranks], overwritten. */
void ep_traffic_fill_loads(const struct ep_traffic *traffic, int64_t *loads);

/** Transposed copy: combine's rows are dispatch's, transposed. */
void ep_traffic_transpose(const int64_t *rows, int64_t num_ranks, int64_t *transposed);

/** Rows over all ranks; remote leaves out what stays (on its rank; for node-dedup, on its node). */
struct ep_traffic_totals {
    int64_t total;
    int64_t remote;
    int64_t max_out; /* remote rows of the rank that sends most */
    int64_t max_in;  /* remote rows of the rank that receives most */
};

/** Totals of a matrix of rows (or bytes) [num_ranks][num_ranks]; the diagonal is what stays. */
void ep_traffic_sum(const int64_t *rows, int64_t num_ranks, struct ep_traffic_totals *totals);

#endif
