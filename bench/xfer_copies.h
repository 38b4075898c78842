/* SPDX-License-Identifier: Apache-2.0 */
/* What transports of the copies basis share: one row per (token, expert), ordered by expert. */
#ifndef EP_BENCH_XFER_COPIES_H
#define EP_BENCH_XFER_COPIES_H

#include "bench/transport.h"

/** A key is a (rank, local expert) pair, numbered rank by rank: placement->local_start[rank] + local.
 *  Rows for one key are adjacent in the send buffer, in token order. */
struct ep_copies {
    const struct ep_exchange *exchange;
    int rank, num_ranks;
    int64_t num_keys;      /* of all ranks */
    int64_t num_local;     /* experts on this rank */
    int32_t *expert_key;   /* [num_experts] key this rank sends an expert's rows to */
    int32_t *send_count;   /* [num_keys] rows of this rank per key */
    int64_t *send_start;   /* [num_keys] first row of the key in the send buffer */
    int64_t *position;     /* [local tokens][top_k] row of each copy in the send buffer, -1 unused */
    int32_t *recv_count;   /* [num_ranks][num_local] rows per source and local expert */
    int64_t *recv_start;   /* [num_ranks][num_local] first row of the block in the receive buffer */
    int64_t *expert_start; /* [num_local + 1] first row of each expert in `rows` */
    int *ints;             /* [4][num_ranks] scratch for MPI's arguments */
    bool streams[EP_NUM_OPS]; /* copies pass the caches */
    bool hints_sums;          /* combine fetches rows ahead, and writes past the caches */
    char *send;            /* rows in key order */
    char *recv;            /* rows in (source, expert) order */
    char *rows;            /* rows in (expert, source) order */
    char *outputs;         /* the experts' results in the same order */
};

/** Allocate tables, count once, and set expert_start. send/recv/rows are left to the caller. */
EP_MUST_CHECK enum ep_status ep_copies_init(const struct ep_exchange *exchange,
                                            struct ep_copies *copies);
void ep_copies_fini(struct ep_copies *copies);

/** Count rows per key, tell every rank how many it gets for each of its experts, and find
 *  expert_start. The part of a dispatch that no payload crosses in. */
EP_MUST_CHECK enum ep_status ep_copies_count(struct ep_copies *copies);

/** Rows of the buffers that go on the way, and the most there can be. */
struct ep_copies_sizes {
    int64_t send, most_send;
    int64_t recv, most_recv;
};

/** Take the buffers from the arena: send and recv for that many rows of the wider of the two row
 *  types, rows and outputs for what is received. `name` goes into messages. Not collective. */
EP_MUST_CHECK enum ep_status ep_copies_allocate(struct ep_copies *copies, const char *name,
                                                const struct ep_copies_sizes *sizes);

/** Phases, for transports whose state begins with a struct ep_copies. send_start and recv_start must
 *  be set. pack: token rows to send order. unpack: (source, expert) blocks to expert-major rows.
 *  Combine pack: the reverse of unpack. Combine unpack: each token the weighted sum of its copies'
 *  results, in fp32. The *_bytes say what each reads and writes. */
enum ep_status ep_copies_run_pack(void *state);
enum ep_status ep_copies_run_unpack(void *state);
enum ep_status ep_copies_run_combine_pack(void *state);
enum ep_status ep_copies_run_combine_unpack(void *state);
int64_t ep_copies_pack_bytes(const void *state);
int64_t ep_copies_unpack_bytes(const void *state);
int64_t ep_copies_combine_pack_bytes(const void *state);
int64_t ep_copies_combine_unpack_bytes(const void *state);

/** The view hook of such a transport. */
void ep_copies_view(const void *state, struct ep_expert_rows *rows);

/** Rows this rank sends to, and receives from, each rank: sums over keys. rows [num_ranks]. */
void ep_copies_send_rows(const struct ep_copies *copies, int64_t *rows);
void ep_copies_recv_rows(const struct ep_copies *copies, int64_t *rows);

int64_t ep_copies_num_sent(const struct ep_copies *copies);     /* copies of this rank, self too */
int64_t ep_copies_num_received(const struct ep_copies *copies); /* rows held after dispatch */

/** Counts sent to other ranks, bytes. */
int64_t ep_copies_metadata_bytes(const struct ep_copies *copies);

#endif
