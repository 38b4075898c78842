/* SPDX-License-Identifier: Apache-2.0 */
/* What route says of all bases without a matrix of ranks: sums over rows and columns alone. */
#ifndef EP_KERNELS_TRAFFIC_SUMS_H
#define EP_KERNELS_TRAFFIC_SUMS_H

#include "base/error.h"
#include "kernels/placement.h"
#include "kernels/routing.h"
#include "kernels/token_map.h"
#include "kernels/traffic.h"

#include <stdint.h>

/** The three bases, and node-dedup's second stage. */
enum { EP_TRAFFIC_FAN_OUT = EP_NUM_BASES, EP_TRAFFIC_NUM_STAGES };

/** The choices of all ranks' tokens, numbered rank by rank, wherever they come from. Borrowed. */
struct ep_traffic_input {
    const struct ep_token_map *tokens;
    int64_t num_experts;
    int64_t top_k; /* slots of a token */
    const void *context;
    /** Fill rows 0 .. num_tokens - 1 of `routing`, which has no weights. Thread-safe. */
    void (*fill)(const void *context, int64_t first_token, int64_t num_tokens,
                 struct ep_routing *routing);
    /** In place of fill, where a rank's tokens are chosen for together: allocate and fill `routing`
     *  with all of one rank. NULL = fill is used. Thread-safe. */
    enum ep_status (*fetch)(const void *context, int64_t rank, struct ep_routing *routing);
};

/** All tokens of a router. */
struct ep_traffic_input ep_traffic_input_of_router(const struct ep_router *router);

/** Made by ep_traffic_sums_init, freed with ep_traffic_sums_fini. 80 bytes per rank. */
struct ep_traffic_sums {
    int64_t num_ranks;
    int64_t num_experts;
    int64_t top_k;
    int64_t total[EP_TRAFFIC_NUM_STAGES]; /* rows, own ones included */
    int64_t *out[EP_TRAFFIC_NUM_STAGES];  /* [num_ranks] remote rows that a rank sends */
    int64_t *in[EP_TRAFFIC_NUM_STAGES];   /* [num_ranks] and receives */
    int64_t *sent;                        /* [num_ranks] copies, own ones included */
    int64_t *received;                    /* [num_ranks] likewise */
    int64_t *expert_copies;               /* [num_experts] */
    int64_t *rank_fan_out;                /* [top_k + 1] as in struct ep_traffic */
    int64_t *node_fan_out;                /* [top_k + 1] */
};

/** Who counts, and who is told. */
struct ep_traffic_effort {
    int num_threads; /* 0 = all cores, where there is enough to do */
    /** As in struct ep_parallel: ranks done so far, all of them at the end; NULL = nobody. */
    void (*progress)(int64_t num_done, int64_t num_ranks);
};

/** Count all tokens of `input`: the same sums as from ep_traffic's matrices, whatever the threads.
 *  rank_node  [ranks of the placement], each in [0, num_nodes); NULL = one node
 *  Returns EP_EINVAL for an expert out of range, EP_ENOMEM. O(pairs + ranks x experts) time; memory
 *  is per thread O(ranks + experts). */
EP_MUST_CHECK enum ep_status ep_traffic_sums_init(const struct ep_placement *placement,
                                                  const int32_t *rank_node, int64_t num_nodes,
                                                  const struct ep_traffic_input *input,
                                                  const struct ep_traffic_effort *effort,
                                                  struct ep_traffic_sums *sums);
void ep_traffic_sums_fini(struct ep_traffic_sums *sums);

/** Totals of a basis, or of stage EP_TRAFFIC_FAN_OUT. */
struct ep_traffic_totals ep_traffic_sums_totals(const struct ep_traffic_sums *sums, int stage);

/** Add all tokens of `input` to matrices that are initialised for its placement. */
EP_MUST_CHECK enum ep_status ep_traffic_add_input(struct ep_traffic *traffic,
                                                  const struct ep_traffic_input *input);

#endif
