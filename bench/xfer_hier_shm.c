/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `hier-shm`: `hier` with shared memory inside the nodes. Each token goes once per node over the
 * network, to the rank of that node with the source's own index, into memory that the whole node sees;
 * from there straight to the expert-major places of all its copies. Results are summed across the node
 * in one pass where the experts left them, then at the source. */
#include "bench/comm_mpi.h"
#include "bench/transport.h"
#include "bench/xfer_fan.h"
#include "bench/xfer_stage.h"

#include <stdlib.h>
#include <string.h>

struct state {
    const struct ep_exchange *exchange;
    int rank, num_ranks;
    int32_t *rank_node, *rank_index; /* [num_ranks] node, and place in it */
    int32_t *slot_node;              /* [num_slots] of the slot's rank */
    struct ep_stage_entry *asked;    /* [local tokens * top_k] used copies in token order */
    struct ep_stage network;         /* the ranks of one index on all nodes */
    struct ep_fan fan;               /* the ranks of one node */
};

/* One row per (token, node); weights travel with the copies, to be used in the node's sums. */
static enum ep_status count_network(struct state *s, bool first)
{
    const int64_t num = ep_stage_ask(s->exchange, s->asked);
    return ep_stage_count(&s->network, first, false, s->asked, num,
                          s->exchange->routing->num_tokens);
}

static enum ep_status count_fan(struct state *s)
{
    const struct ep_stage_side *in = &s->network.in;
    return ep_fan_count(&s->fan, in->entries, in->num_entries, in->num_rows);
}

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    const enum ep_status status = count_network(s, false);
    return status == EP_OK ? count_fan(s) : status;
}

static enum ep_status run_pack(void *state)
{
    struct state *s = state;
    ep_stage_pack(&s->network, s->exchange->tokens);
    return EP_OK;
}

static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    return ep_stage_move(&s->network, EP_OP_DISPATCH);
}

/* Owners may pull from any member: all must have their rows from the network. */
static enum ep_status run_fan_out(void *state)
{
    struct state *s = state;
    const enum ep_status status = ep_fan_sync(&s->fan);
    return status == EP_OK ? ep_fan_out(&s->fan) : status;
}

static enum ep_status run_combine_fan_out(void *state)
{
    struct state *s = state;
    return ep_fan_sum(&s->fan, s->network.in.buffer);
}

static enum ep_status run_combine_exchange(void *state)
{
    struct state *s = state;
    return ep_stage_move(&s->network, EP_OP_COMBINE);
}

static enum ep_status run_combine_unpack(void *state)
{
    struct state *s = state;
    ep_stage_fold(&s->network, s->exchange->results);
    return EP_OK;
}

static int64_t pack_bytes(const void *state)
{
    const struct state *s = state;
    return ep_stage_pack_bytes(&s->network);
}

static int64_t fan_out_bytes(const void *state)
{
    const struct state *s = state;
    return ep_fan_out_bytes(&s->fan);
}

static int64_t combine_fan_out_bytes(const void *state)
{
    const struct state *s = state;
    return ep_fan_sum_bytes(&s->fan);
}

static int64_t combine_unpack_bytes(const void *state)
{
    const struct state *s = state;
    return ep_stage_fold_bytes(&s->network);
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    ep_fan_fini(&s->fan);
    ep_stage_fini(&s->network);
    free(s->rank_node);
    free(s->rank_index);
    free(s->slot_node);
    free(s->asked);
    free(s);
}

static enum ep_status allocate(const struct ep_exchange *x, struct state **state)
{
    struct state *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "hier-shm: no memory");
    }
    s->exchange = x;
    s->rank = ep_comm_rank(x->comm);
    s->num_ranks = ep_comm_size(x->comm);
    const size_t copies = (size_t)(x->routing->num_tokens * x->routing->top_k);
    s->rank_node = calloc((size_t)s->num_ranks, sizeof *s->rank_node);
    s->rank_index = calloc((size_t)s->num_ranks, sizeof *s->rank_index);
    s->slot_node = calloc((size_t)x->placement->num_slots, sizeof *s->slot_node);
    s->asked = calloc(copies + 1, sizeof *s->asked);
    if (s->rank_node == NULL || s->rank_index == NULL || s->slot_node == NULL || s->asked == NULL) {
        return ep_error_set(EP_ENOMEM, "hier-shm: no memory for tables of %zu copies", copies);
    }
    ep_stage_find_nodes(x->comm, s->rank_node, s->rank_index);
    for (int64_t slot = 0; slot < x->placement->num_slots; slot++) {
        s->slot_node[slot] = s->rank_node[x->placement->slot_rank[slot]];
    }
    return EP_OK;
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = NULL;
    if (ep_comm_ranks_per_node(exchange->comm) == 0) {
        return ep_error_set(EP_EENV, "hier-shm needs equally many ranks on each node");
    }
    EP_TRY(ep_comm_agree(exchange->comm, allocate(exchange, &s)));
    const struct ep_stage_side *in = &s->network.in;
    EP_TRY(ep_stage_init(exchange, s->rank_index[s->rank], s->rank_node[s->rank], true,
                         s->slot_node, &s->network));
    EP_TRY(ep_comm_agree(exchange->comm, count_network(s, true)));
    EP_TRY(ep_comm_agree(exchange->comm, ep_stage_allocate(&s->network, "hier-shm")));
    EP_TRY(ep_fan_init(exchange, s->rank_node, s->rank_index, in->num_entries, in->num_rows,
                       &s->fan));
    EP_TRY(ep_comm_agree(exchange->comm, count_fan(s)));
    EP_TRY(ep_fan_allocate(&s->fan, "hier-shm", in->buffer));
    *state = s;
    s = NULL;
out:
    destroy(s);
    return status;
}

static void view(const void *state, struct ep_expert_rows *rows)
{
    const struct state *s = state;
    ep_fan_view(&s->fan, rows);
}

/* The network stage: one row per (token, node), to the rank of that node with this one's index. */
static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    for (int r = 0; r < s->num_ranks; r++) {
        const bool in_column = s->rank_index[r] == s->rank_index[s->rank];
        rows[r] = in_column ? s->network.out.row_count[s->rank_node[r]] : 0;
    }
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    *e = (struct ep_transport_extras){
        .metadata_bytes = ep_stage_metadata_bytes(&s->network) + ep_fan_metadata_bytes(&s->fan),
    };
}

static const char *way(const void *state)
{
    const struct state *s = state;
    return ep_fan_ways[s->fan.way];
}

const struct ep_transport ep_transport_hier_shm = {
    .name = "hier-shm",
    .summary = "one row per (token, node) over the network, then in place through shared memory",
    .basis = EP_BASIS_NODE,
    .by_alltoall = true,
    .shares = true,
    .ways = ep_fan_ways,
    .roundings = 2,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"pack", run_pack, pack_bytes},
                                       {"exchange", run_exchange, NULL},
                                       {"fan-out", run_fan_out, fan_out_bytes}},
                            .num_phases = 4},
        [EP_OP_COMBINE] = {.phases = {{"fan-out", run_combine_fan_out, combine_fan_out_bytes},
                                      {"exchange", run_combine_exchange, NULL},
                                      {"unpack", run_combine_unpack, combine_unpack_bytes}},
                           .num_phases = 3},
    },
    .create = create,
    .view = view,
    .sent_rows = sent_rows,
    .extras = extras,
    .way = way,
    .destroy = destroy,
};
