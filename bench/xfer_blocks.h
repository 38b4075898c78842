/* SPDX-License-Identifier: Apache-2.0 */
/* Copies basis with exact counts: what transports share that send each rank's rows as one block. */
#ifndef EP_BENCH_XFER_BLOCKS_H
#define EP_BENCH_XFER_BLOCKS_H

#include "bench/comm_mpi.h"
#include "bench/xfer_copies.h"

/** MPI's arguments for one row type: all counts and starts are in units of `type`. Blocks follow each
 *  other rank by rank. For a combine, send and recv change places. */
struct ep_blocks_call {
    MPI_Datatype type; /* MPI_BYTE; one whole row where bytes would not fit MPI's int */
    MPI_Datatype row;  /* committed; MPI_DATATYPE_NULL if not needed */
    int64_t unit_bytes; /* of `type` */
    int *send_count, *send_start, *recv_count, *recv_start; /* [num_ranks] each */
};

/** State of such a transport. */
struct ep_blocks {
    struct ep_copies copies; /* first: its phases take the state for it */
    struct ep_blocks_call calls[EP_NUM_OPS];
    MPI_Comm handle;
    const char *name;
    MPI_Request requests[EP_NUM_OPS]; /* of exchanges that were started; else MPI_REQUEST_NULL */
    int64_t *rows; /* [2][num_ranks] sent to, received from each rank in a dispatch */
};

/** The create hook, but for the transport's name, which goes into messages. */
EP_MUST_CHECK enum ep_status ep_blocks_create(const char *name, const struct ep_exchange *exchange,
                                              void **state);

/** The other hooks, and the phase that counts. */
void ep_blocks_destroy(void *state);
enum ep_status ep_blocks_run_counts(void *state);
void ep_blocks_sent_rows(const void *state, int64_t *rows);
void ep_blocks_extras(const void *state, struct ep_transport_extras *extras);

/** All phases around the exchange; exchange and combine_exchange are the transport's own. */
#define EP_BLOCKS_OPS(exchange, combine_exchange)                                                  \
    {                                                                                              \
        [EP_OP_DISPATCH] = {.phases = {{"counts", ep_blocks_run_counts, NULL},                     \
                                       {"pack", ep_copies_run_pack, ep_copies_pack_bytes},         \
                                       {"exchange", exchange, NULL},                               \
                                       {"unpack", ep_copies_run_unpack, ep_copies_unpack_bytes}},  \
                            .num_phases = 4},                                                      \
        [EP_OP_COMBINE] = {.phases = {{"pack", ep_copies_run_combine_pack,                         \
                                       ep_copies_combine_pack_bytes},                              \
                                      {"exchange", combine_exchange, NULL},                        \
                                      {"unpack", ep_copies_run_combine_unpack,                     \
                                       ep_copies_combine_unpack_bytes}},                           \
                           .num_phases = 3},                                                       \
    }

#endif
