/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `shm`: ranks of one node read and write each other's buffers in shared memory. A row goes once,
 * from the source's activations to its expert-major place; nothing is packed or unpacked. The copies
 * basis. Combine reads a token's k results where the experts left them, and sums them in one pass.
 * bench/xfer_fan.c moves the rows. */
#include "bench/comm_share.h"
#include "bench/transport.h"
#include "bench/xfer_fan.h"

#include <stdlib.h>
#include <string.h>

struct state {
    const struct ep_exchange *exchange;
    int num_ranks;
    int32_t *rank_node, *rank_index; /* [num_ranks] all on one node */
    struct ep_stage_entry *entries;  /* [local tokens * top_k] used copies in token order */
    struct ep_fan fan;
};

static enum ep_status run_counts(void *state)
{
    struct state *s = state;
    const int64_t num = ep_stage_ask(s->exchange, s->entries);
    return ep_fan_count(&s->fan, s->entries, num, s->exchange->routing->num_tokens);
}

/* Ends when all rows are there, and nobody reads the activations any more. */
static enum ep_status run_exchange(void *state)
{
    struct state *s = state;
    return ep_fan_out(&s->fan);
}

static enum ep_status run_combine(void *state)
{
    struct state *s = state;
    return ep_fan_sum(&s->fan, s->exchange->results);
}

static int64_t exchange_bytes(const void *state)
{
    const struct state *s = state;
    return ep_fan_out_bytes(&s->fan);
}

static int64_t combine_bytes(const void *state)
{
    const struct state *s = state;
    return ep_fan_sum_bytes(&s->fan);
}

static void destroy(void *state)
{
    struct state *s = state;
    if (s == NULL) {
        return;
    }
    ep_fan_fini(&s->fan);
    free(s->rank_node);
    free(s->rank_index);
    free(s->entries);
    free(s);
}

static enum ep_status allocate(const struct ep_exchange *x, struct state **state)
{
    struct state *s = calloc(1, sizeof *s);
    *state = s;
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "shm: no memory");
    }
    s->exchange = x;
    s->num_ranks = ep_comm_size(x->comm);
    const size_t copies = (size_t)(x->routing->num_tokens * x->routing->top_k);
    s->rank_node = calloc((size_t)s->num_ranks, sizeof *s->rank_node);
    s->rank_index = calloc((size_t)s->num_ranks, sizeof *s->rank_index);
    s->entries = calloc(copies + 1, sizeof *s->entries);
    if (s->rank_node == NULL || s->rank_index == NULL || s->entries == NULL) {
        return ep_error_set(EP_ENOMEM, "shm: no memory for tables of %zu copies", copies);
    }
    for (int r = 0; r < s->num_ranks; r++) {
        s->rank_index[r] = r;
    }
    return EP_OK;
}

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    enum ep_status status = EP_OK;
    struct state *s = NULL;
    const struct ep_routing *routing = exchange->routing;
    EP_TRY(ep_comm_agree(exchange->comm, allocate(exchange, &s)));
    EP_TRY(ep_fan_init(exchange, s->rank_node, s->rank_index, routing->num_tokens * routing->top_k,
                       routing->num_tokens, &s->fan));
    EP_TRY(ep_comm_agree(exchange->comm, run_counts(s)));
    EP_TRY(ep_fan_allocate(&s->fan, "shm", exchange->tokens));
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

static void sent_rows(const void *state, int64_t *rows)
{
    const struct state *s = state;
    memset(rows, 0, (size_t)s->num_ranks * sizeof *rows);
    for (int64_t i = 0; i < s->fan.num_entries; i++) {
        rows[s->fan.place[i].member]++;
    }
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    const struct state *s = state;
    *e = (struct ep_transport_extras){.metadata_bytes = ep_fan_metadata_bytes(&s->fan)};
}

static const char *way(const void *state)
{
    const struct state *s = state;
    return ep_fan_ways[s->fan.way];
}

const struct ep_transport ep_transport_shm = {
    .name = "shm",
    .summary = "one row per (token, expert), read and written in place through shared memory",
    .basis = EP_BASIS_COPIES,
    .shares = true,
    .sizes_most = true,
    .ways = ep_fan_ways,
    .roundings = 1,
    .ops = {
        [EP_OP_DISPATCH] = {.phases = {{"counts", run_counts, NULL},
                                       {"exchange", run_exchange, exchange_bytes}},
                            .num_phases = 2},
        [EP_OP_COMBINE] = {.phases = {{"exchange", run_combine, combine_bytes}}, .num_phases = 1},
    },
    .create = create,
    .view = view,
    .sent_rows = sent_rows,
    .extras = extras,
    .way = way,
    .destroy = destroy,
};
