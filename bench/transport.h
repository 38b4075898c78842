/* SPDX-License-Identifier: Apache-2.0 */
/* Transports: the ways to carry token rows to the ranks of their experts and results back. */
#ifndef EP_BENCH_TRANSPORT_H
#define EP_BENCH_TRANSPORT_H

#include "bench/arena.h"
#include "bench/comm.h"
#include "bench/comm_share.h"
#include "kernels/dtype.h"
#include "kernels/placement.h"
#include "kernels/routing.h"
#include "kernels/traffic.h"

#include <stdbool.h>
#include <stdint.h>

/** One case as a transport sees it. All borrowed; must outlive the transport's state. */
struct ep_exchange {
    struct ep_comm *comm;                 /* with the algorithm forced, where the case names one */
    const struct ep_placement *placement; /* the same on all ranks */
    const struct ep_routing *routing;     /* this rank's tokens, with weights */
    int64_t hidden;                       /* elements per row, >= 1 */
    enum ep_dtype dtype;                  /* of dispatched rows */
    enum ep_dtype combine_dtype;          /* of returned rows: fp32 or bf16 */
    int64_t row_bytes;                    /* of a dispatched row */
    int64_t combine_row_bytes;            /* of a returned row */
    const char *algorithm;                /* forced by name; "default" or NULL: chosen */
    int64_t capacity;                     /* rows per (source rank, expert); 0 = none set */
    int threads;                          /* that pack, unpack and sum on this rank, >= 1 */
    /* The most there can be, by the capacity where one is set, else if all tokens chose this rank's experts: */
    int64_t most_sent;                    /* (token, expert) rows of this rank */
    int64_t most_received;                /* of all ranks to this one */
    int64_t most_slot;                    /* of one rank to one expert */
    int64_t all_tokens;                   /* of all ranks: rows where a token comes once */
    struct ep_arena *arena;               /* all buffers come from here */
    const struct ep_share *share;         /* that the arena lies in, as do the other ranks'; or NULL */
    int64_t cache_bytes;                  /* of the last level that this rank shares; 0 = not known */
    const char *tokens; /* [local tokens][row_bytes] activations in token order; dispatch reads */
    char *results;      /* [local tokens][combine_row_bytes] in token order; combine writes */
};

/** Bytes that the ranks of a node read and write, each about `rank_bytes`, over the bytes of the last-level
 *  cache; 0 where that is not known. What passes a share of it is better copied by streaming stores:
 *  cached ones read most lines from memory only to write them back. Source: bench/README.md, "shm". */
double ep_exchange_cache_fill(const struct ep_exchange *exchange, int64_t rank_bytes);

/** Where dispatch put the rows, and where combine takes the experts' results from. The rows of one
 *  expert are ordered by (source rank, token). Valid until the state is destroyed. */
struct ep_expert_rows {
    int64_t num_experts;    /* local experts, ascending as in the placement; may be 0 */
    const int64_t *start;   /* [num_experts + 1] first row of each expert */
    const char *rows;       /* [start[num_experts]][row_bytes] */
    char *outputs;          /* [start[num_experts]][combine_row_bytes], same order */
};

/** What one rank sends beside payload rows in one dispatch, remote only, bytes. */
struct ep_transport_extras {
    int64_t metadata_bytes; /* counts, ids, weights */
    int64_t padding_bytes;  /* rows that carry no token */
};

/** One phase. Collective; timed as a whole. */
struct ep_transport_phase {
    const char *name;                         /* "counts", "pack", "exchange", "fan-out" (inside nodes) or "unpack" */
    enum ep_status (*run)(void *state);
    int64_t (*copied_bytes)(const void *state); /* bytes read + written here; NULL = none */
};

enum { EP_TRANSPORT_MAX_PHASES = 5, EP_TRANSPORT_MAX_TOP_K = 1024 };
enum { EP_ROUNDINGS_PER_RANK = 0 }; /* one where each rank adds its part */

enum ep_op { EP_OP_DISPATCH, EP_OP_COMBINE, EP_NUM_OPS };

/** An operation is its phases in order; combine needs a dispatch before it. */
struct ep_transport_op {
    struct ep_transport_phase phases[EP_TRANSPORT_MAX_PHASES];
    int num_phases; /* 0: the transport moves nothing (null) */
};

struct ep_transport {
    const char *name;    /* as in --transport and records */
    const char *summary; /* one line for --help */
    enum ep_basis basis; /* which rows cross: the bytes of its bandwidths */
    bool pads;           /* sends rows that carry no token besides */
    bool has_slots;      /* equal ones per (source, expert), padded to the capacity */
    bool by_alltoall;    /* MPI's all-to-all carries its rows: an algorithm can be forced */
    bool shares;         /* needs the arena in shared memory */
    bool sizes_most;     /* its buffers of rows can be for the most there can be (--buffers static) */
    bool sizes_anew;     /* ... and others in each step (dynamic) */
    const char *const *ways; /* algorithms of its own that can be forced, NULL-terminated; or NULL */
    int roundings;       /* of a result, see ep_transport_roundings; or EP_ROUNDINGS_PER_RANK */
    int combine_passes;  /* combine sends the transpose of what dispatch does this often; 0 = once */
    struct ep_transport_op ops[EP_NUM_OPS];
    /* In place of the phase "exchange" of `op`: begin it, and end it when all is through; between the two its
     * buffers are left alone, and exchanges of other states may be begun and ended in any order that is the
     * same on all ranks. Both NULL where an exchange cannot be left. */
    enum ep_status (*start)(void *state, enum ep_op op);
    enum ep_status (*finish)(void *state, enum ep_op op);
    /* Collective: agree on sizes, take all buffers from the arena. Status agreed over ranks. */
    enum ep_status (*create)(const struct ep_exchange *exchange, void **state);
    void (*view)(const void *state, struct ep_expert_rows *rows); /* NULL for null */
    /* Rows this rank really puts on the way to each rank in a dispatch, padding and self included;
     * rows [num_ranks], overwritten. Combine sends the transpose, combine_passes times. */
    void (*sent_rows)(const void *state, int64_t *rows);
    void (*extras)(const void *state, struct ep_transport_extras *extras);
    const char *(*way)(const void *state); /* the one of `ways` that it takes; with `ways` only */
    void (*destroy)(void *state);
};

/** All transports, ended by one without a name. */
extern const struct ep_transport *const ep_transports[];

/** Find by name; EP_EINVAL names the nearest and lists what there is. */
EP_MUST_CHECK enum ep_status ep_transport_find(const char *name,
                                               const struct ep_transport **transport);

/** True if `algorithm` is one of the transport's own ways. */
bool ep_transport_has_way(const struct ep_transport *transport, const char *algorithm);

/** EP_EINVAL for a name that is neither MPI's (ep_comm_find_algorithm) nor a way of some transport. */
EP_MUST_CHECK enum ep_status ep_transport_check_algorithm(const char *algorithm);

/** True if --algorithm `algorithm` makes a difference to the transport; "default" does to all. */
bool ep_transport_takes(const struct ep_transport *transport, const char *algorithm);

/** "dispatch" or "combine". */
const char *ep_op_name(enum ep_op op);

/** Roundings to the row type on a result's way back over `num_ranks` ranks, its sum's included. */
int ep_transport_roundings(const struct ep_transport *transport, int num_ranks);

/** Run all phases of `op` in order. */
EP_MUST_CHECK enum ep_status ep_transport_run(const struct ep_transport *transport, enum ep_op op,
                                              void *state);

#endif
