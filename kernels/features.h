/* SPDX-License-Identifier: Apache-2.0 */
/* The byte features of one matrix of messages, as records keep them and cost models read them. */
#ifndef EP_KERNELS_FEATURES_H
#define EP_KERNELS_FEATURES_H

#include "base/error.h"
#include "kernels/step_partner.h"

#include <stdint.h>

enum { EP_MESSAGE_BINS = 48 };

/** Messages of 2^i to 2^(i+1) - 1 bytes are in bin i; the last bin takes all above. */
struct ep_message_bin {
    int64_t count;
    int64_t bytes;
};

/** The part of the traffic between pairs of one level. */
struct ep_level_features {
    int64_t total_bytes;
    int64_t max_out_bytes; /* of the rank that sends most at this level */
    int64_t max_in_bytes;
    int64_t messages_max; /* most non-empty messages that a rank sends at this level */
    struct ep_message_bin hist[EP_MESSAGE_BINS]; /* sent at this level by the busiest rank */
};

/** Bytes of D[i][j] = row_bytes R[i][j], D[i][i] = 0. Source: kernels/README.md, "Features". */
struct ep_features {
    int64_t total_bytes;          /* all rows, own included */
    int64_t remote_bytes;         /* sum of D */
    int64_t max_out_bytes;        /* largest row sum of D */
    int64_t max_in_bytes;         /* largest column sum of D */
    double mean_out_bytes;        /* remote_bytes / ranks */
    int64_t h_rank_bytes;         /* max over ranks of max(out, in) */
    int64_t h_nic_bytes;          /* max over NICs of max(out, in), off-node only; -1 = not known */
    int64_t h_node_bytes;         /* max over nodes of max(out, in), off-node only; 0 on one node */
    int64_t self_bytes_max;       /* largest row_bytes R[i][i] */
    int64_t step_sum_bytes;       /* sum over steps s = 1 .. P-1 of the largest message of the step */
    int64_t step_port_bytes;      /* on several nodes: sum over steps of the most bytes out of or into a node;
                                   * on one step_sum_bytes */
    int64_t schedule_bytes;       /* longest chain of the pairwise schedule: rung M5 at no latency */
    int64_t messages_max;         /* P - 1: a blocking alltoallv posts empty ones too */
    int64_t messages_nonzero_max; /* most non-empty messages that a rank sends */
    int64_t busiest_rank;         /* the first with max(out, in) = h_rank_bytes */
    struct ep_message_bin hist[EP_MESSAGE_BINS]; /* sent by the busiest rank, all levels */
    int64_t num_levels;
    struct ep_level_features *levels; /* [num_levels] */
};

/** What the features are taken over. */
struct ep_features_config {
    int64_t num_ranks;
    int64_t row_bytes;        /* >= 0 */
    const int32_t *rank_node; /* [num_ranks] >= 0; NULL = one node */
    const int32_t *rank_nic;  /* [num_ranks] >= 0, a number over all nodes; NULL = not known */
    enum ep_step_partner steps; /* of step_*_bytes and schedule_bytes; XOR: num_ranks is a power of two */
    int64_t num_levels;       /* 0 = none asked for */
    int64_t (*level)(void *context, int64_t i, int64_t j); /* of a pair i != j, symmetric */
    void *context;
};

/** Features of rows [num_ranks][num_ranks] from, to. Free with ep_features_fini.
 *  Returns EP_EINVAL where bytes would exceed 2^62; EP_ENOMEM. O(num_ranks^2). */
EP_MUST_CHECK enum ep_status ep_features_init(const int64_t *rows,
                                              const struct ep_features_config *config,
                                              struct ep_features *features);
void ep_features_fini(struct ep_features *features);

#endif
