/* SPDX-License-Identifier: Apache-2.0 */
/* One stage of a transport that moves rows in steps: rows, and with them the copies they stand for, to
 * the ranks of one communicator; results the same way back. */
#ifndef EP_BENCH_XFER_STAGE_H
#define EP_BENCH_XFER_STAGE_H

#include "bench/comm_mpi.h"
#include "bench/transport.h"

/** A copy on its way. Sent beside the rows; 16 bytes. */
struct ep_stage_entry {
    int32_t row;    /* that it wants, among the rows it travels with */
    int32_t slot;   /* of the placement: its expert's replica */
    int32_t source; /* rank of the token */
    float weight;
};

/** What goes out, or comes in, by peer. Counts and starts [num_peers]. */
struct ep_stage_side {
    int *row_count, *row_start, *entry_count, *entry_start;
    int64_t num_rows, num_entries;
    struct ep_stage_entry *entries; /* in: rows numbered over all peers; out: over one peer */
    int64_t max_entries;            /* there is room for */
    char *buffer;                   /* [num_rows] rows, peer by peer, from the arena */
};

/** Stages are chained: the entries of one's `in` are what the next is asked for. */
struct ep_stage {
    const struct ep_exchange *exchange;
    struct ep_comm *comm;         /* the peers */
    int num_peers;
    bool dedup;                   /* one row per (asked row, peer), else one per entry */
    const int32_t *peer_of_slot;  /* [num_slots], borrowed */
    struct ep_stage_side out, in;
    int *pair_counts;             /* [2][num_peers][2] scratch */
    int64_t *last_row;            /* [num_peers] last asked row that went to a peer */
    int64_t num_asked;            /* rows */
    int64_t *fold_start;          /* [num_asked + 1] */
    int64_t *fold_row;            /* [out.num_rows] rows out, by asked row */
    float *fold_weight;           /* [out.num_rows] of each in the sum of combine */
    int64_t max_fold, max_asked;  /* there is room for */
    MPI_Datatype entry, row[EP_NUM_OPS];
};

/** Node of each rank, and its place among the ranks of its node; both [ranks]. Local. */
void ep_stage_find_nodes(const struct ep_comm *comm, int32_t *rank_node, int32_t *rank_index);

/** This rank's used copies in token order; entries has room for tokens x top-k. Returns how many. */
int64_t ep_stage_ask(const struct ep_exchange *exchange, struct ep_stage_entry *entries);

/** Make a stage among the ranks of exchange->comm with the same `color`, ordered by `key`.
 *  Collective over exchange->comm, status agreed. */
EP_MUST_CHECK enum ep_status ep_stage_init(const struct ep_exchange *exchange, int color, int key,
                                           bool dedup, const int32_t *peer_of_slot,
                                           struct ep_stage *stage);
void ep_stage_fini(struct ep_stage *stage);

/** Find what goes where: rows [0, num_rows) are asked for by `entries`, those of one row adjacent; tell the
 *  peers how much comes, and which copies. Collective; the first time agreed over exchange->comm (later
 *  runs, of the same routing, allocate nothing).
 *  weigh  the entries' weights count in this stage's sums (and travel on as 1) */
EP_MUST_CHECK enum ep_status ep_stage_count(struct ep_stage *stage, bool first, bool weigh,
                                            const struct ep_stage_entry *entries,
                                            int64_t num_entries, int64_t num_rows);

/** Take both buffers from the arena. Not collective. */
EP_MUST_CHECK enum ep_status ep_stage_allocate(struct ep_stage *stage, const char *name);

/** rows [num_asked][row_bytes] to the out buffer. */
void ep_stage_pack(struct ep_stage *stage, const char *rows);

/** The out buffers to the peers' in buffers (dispatch), or back (combine). */
EP_MUST_CHECK enum ep_status ep_stage_move(struct ep_stage *stage, enum ep_op op);

/** Each asked row the sum of what came back for it: rows [num_asked][combine_row_bytes]. */
void ep_stage_fold(const struct ep_stage *stage, char *rows);

/** Bytes that pack and fold read and write, and bytes sent beside rows in one dispatch. */
int64_t ep_stage_pack_bytes(const struct ep_stage *stage);
int64_t ep_stage_fold_bytes(const struct ep_stage *stage);
int64_t ep_stage_metadata_bytes(const struct ep_stage *stage);

#endif
