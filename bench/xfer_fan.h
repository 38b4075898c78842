/* SPDX-License-Identifier: Apache-2.0 */
/* Moving rows between the ranks of one node through shared memory: from where a rank has them straight to
 * their expert-major places, and weighted sums of results from where the experts left them. */
#ifndef EP_BENCH_XFER_FAN_H
#define EP_BENCH_XFER_FAN_H

#include "bench/transport.h"
#include "bench/xfer_stage.h"

/** Who copies, and with which stores. */
enum ep_fan_way {
    EP_FAN_PULL,        /* the owner of the expert reads, cached stores */
    EP_FAN_PULL_STREAM, /* streaming stores */
    EP_FAN_PUSH,        /* the holder of a row writes it to all its places */
    EP_FAN_PUSH_STREAM,
    EP_NUM_FAN_WAYS
};

/** "pull", "pull-stream", "push", "push-stream", NULL. */
extern const char *const ep_fan_ways[];

/** Where a copy goes. */
struct ep_fan_place {
    int32_t member; /* of the node */
    int32_t row;    /* there, expert-major */
};

/** What a member of the node shows to the others: all in its segment of the share. */
struct ep_fan_shown {
    const char *input;    /* [num_rows][row_bytes] rows to be fanned out */
    const int32_t *count; /* [num_nodes][num_keys] copies by the source's node and key */
    const int32_t *list;  /* input rows of all copies, by key, then the source's node */
    char *rows, *outputs; /* expert-major */
};

/** A member is a rank of this node; its rows are tokens of the ranks that have its index on all nodes. A
 *  key is a (member, local expert) pair, numbered member by member. Entries come ordered by row, rows
 *  by (source, token). */
struct ep_fan {
    const struct ep_exchange *exchange;
    struct ep_comm *comm; /* the members */
    struct ep_share_barrier *barrier;
    int member, num_members, num_nodes;
    const int32_t *rank_node, *rank_index; /* [all ranks] borrowed */
    enum ep_fan_way way;
    bool forced; /* by exchange->algorithm */
    bool hints_sums; /* combine fetches rows ahead, and writes past the caches */
    int64_t num_keys, num_local;
    int32_t *key_start;         /* [num_members + 1] */
    int32_t *slot_key;          /* [num_slots] -1 on other nodes */
    struct ep_fan_shown *shown; /* [num_members] */
    int64_t *offset;            /* [num_members][5] of those within each one's segment */
    int64_t *world_rank;        /* [num_members] */
    int32_t *count, *list;      /* own, writable */
    int64_t *next;              /* [num_nodes][num_keys] fill marks */
    int32_t *member_at;         /* [num_nodes][num_keys] whose key it is */
    int32_t *entry_at;          /* [num_entries] (node of the source, key) */
    int64_t *expert_start;      /* [num_local + 1] */
    int64_t *pull_start;        /* [num_members][num_local] in the member's list */
    const struct ep_stage_entry *entries; /* borrowed, from ep_fan_count on */
    int64_t num_entries, num_rows;
    int64_t max_entries, max_rows; /* there is room for */
    int64_t *row_entry;            /* [num_rows + 1] first entry of each row */
    struct ep_fan_place *place;    /* [num_entries] */
    char *rows, *outputs;
};

/** Tables and shared counters. Collective over exchange->comm, status agreed; EP_EENV where ranks of one
 *  node have no shared memory.
 *  rank_node, rank_index  [ranks] node of each rank, and its place in it; borrowed
 *  max_entries, max_rows  that ep_fan_count will be given */
EP_MUST_CHECK enum ep_status ep_fan_init(const struct ep_exchange *exchange,
                                         const int32_t *rank_node, const int32_t *rank_index,
                                         int64_t max_entries, int64_t max_rows, struct ep_fan *fan);
void ep_fan_fini(struct ep_fan *fan);

/** Take the expert-major rows from the arena, choose a way, and tell the others where all is. Collective,
 *  status agreed, after a first ep_fan_count. input: see ep_fan_shown, in the arena. */
EP_MUST_CHECK enum ep_status ep_fan_allocate(struct ep_fan *fan, const char *name,
                                             const char *input);

/** Tell the others how many copies come, and find all places. Collective over the members. */
EP_MUST_CHECK enum ep_status ep_fan_count(struct ep_fan *fan, const struct ep_stage_entry *entries,
                                          int64_t num_entries, int64_t num_rows);

/** Wait for the others of the node; what they wrote before is seen after. */
EP_MUST_CHECK enum ep_status ep_fan_sync(struct ep_fan *fan);

/** All rows of all members to their places. Begins when the members' rows are there, which the caller
 *  sees to; ends when all copies are made. Collective over the members. */
EP_MUST_CHECK enum ep_status ep_fan_out(struct ep_fan *fan);

/** Each row the weighted sum of its copies' results, in one pass: sums [num_rows][combine_row_bytes].
 *  Begins when all results are there, ends when nobody reads them any more. Collective. */
EP_MUST_CHECK enum ep_status ep_fan_sum(struct ep_fan *fan, char *sums);

/** Bytes that ep_fan_out and ep_fan_sum read and write on this rank, and what the others read of its
 *  counts and lists. */
int64_t ep_fan_out_bytes(const struct ep_fan *fan);
int64_t ep_fan_sum_bytes(const struct ep_fan *fan);
int64_t ep_fan_metadata_bytes(const struct ep_fan *fan);

void ep_fan_view(const struct ep_fan *fan, struct ep_expert_rows *rows);

#endif
