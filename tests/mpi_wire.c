/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on the wire, counted by standing between the program and MPI, against what is said of them. */
#include "tests/check.h"

#include "bench/comm_mpi.h"
#include "bench/pattern.h"
#include "bench/transport.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static struct ep_comm *world;
static struct ep_arena *arena;
/* Sent to other ranks through the calls below. */
static int64_t remote_bytes;
static int64_t network_bytes; /* of them to ranks of other nodes of `world`; the all-to-alls only */
static int64_t num_messages;  /* posted, empty ones too; the all-to-alls only */

static int64_t bytes_of(int count, MPI_Datatype type)
{
    int size = 0;
    PMPI_Type_size(type, &size);
    return (int64_t)count * size;
}

/* A part of an all-to-all for rank `to` of comm, which is not the sender. */
static void post(MPI_Comm comm, int to, int64_t bytes)
{
    MPI_Group group = MPI_GROUP_NULL;
    MPI_Group whole = MPI_GROUP_NULL;
    int rank = 0;
    PMPI_Comm_group(comm, &group);
    PMPI_Comm_group(ep_comm_handle(world), &whole);
    PMPI_Group_translate_ranks(group, 1, &to, whole, &rank);
    PMPI_Group_free(&group);
    PMPI_Group_free(&whole);
    remote_bytes += bytes;
    num_messages++;
    if (ep_comm_node_of(world, rank) != ep_comm_node_of(world, ep_comm_rank(world))) {
        network_bytes += bytes;
    }
}

int MPI_Alltoallv(const void *send, const int *send_count, const int *send_start,
                  MPI_Datatype send_type, void *recv, const int *recv_count, const int *recv_start,
                  MPI_Datatype recv_type, MPI_Comm comm)
{
    int rank = 0;
    int size = 0;
    PMPI_Comm_rank(comm, &rank);
    PMPI_Comm_size(comm, &size);
    for (int r = 0; r < size; r++) {
        if (r != rank) {
            post(comm, r, bytes_of(send_count[r], send_type));
        }
    }
    return PMPI_Alltoallv(send, send_count, send_start, send_type, recv, recv_count, recv_start,
                          recv_type, comm);
}

int MPI_Alltoall(const void *send, int send_count, MPI_Datatype send_type, void *recv,
                 int recv_count, MPI_Datatype recv_type, MPI_Comm comm)
{
    int rank = 0;
    int size = 0;
    PMPI_Comm_rank(comm, &rank);
    PMPI_Comm_size(comm, &size);
    for (int r = 0; r < size; r++) {
        if (r != rank) {
            post(comm, r, bytes_of(send_count, send_type));
        }
    }
    return PMPI_Alltoall(send, send_count, send_type, recv, recv_count, recv_type, comm);
}

int MPI_Allgatherv(const void *send, int send_count, MPI_Datatype send_type, void *recv,
                   const int *recv_count, const int *recv_start, MPI_Datatype recv_type,
                   MPI_Comm comm)
{
    int size = 0;
    PMPI_Comm_size(comm, &size);
    remote_bytes += (size - 1) * bytes_of(send_count, send_type);
    return PMPI_Allgatherv(send, send_count, send_type, recv, recv_count, recv_start, recv_type,
                           comm);
}

/* Every rank sends each other one its part, as the transpose of an all-gather. */
int MPI_Reduce_scatter(const void *send, void *recv, const int *recv_count, MPI_Datatype type,
                       MPI_Op op, MPI_Comm comm)
{
    int rank = 0;
    int size = 0;
    PMPI_Comm_rank(comm, &rank);
    PMPI_Comm_size(comm, &size);
    for (int r = 0; r < size; r++) {
        remote_bytes += r != rank ? bytes_of(recv_count[r], type) : 0;
    }
    return PMPI_Reduce_scatter(send, recv, recv_count, type, op, comm);
}

int MPI_Put(const void *from, int count, MPI_Datatype type, int rank, MPI_Aint to, int to_count,
            MPI_Datatype to_type, MPI_Win window)
{
    remote_bytes += bytes_of(count, type); /* to other ranks only: `rma` copies its own rows */
    return PMPI_Put(from, count, type, rank, to, to_count, to_type, window);
}

/* What each rank puts in: how often a library sends it on is its own affair. */
int MPI_Allreduce(const void *send, void *recv, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)
{
    int size = 0;
    PMPI_Comm_size(comm, &size);
    remote_bytes += size > 1 ? bytes_of(count, type) : 0;
    return PMPI_Allreduce(send, recv, count, type, op, comm);
}

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request *request)
{
    int rank = 0;
    PMPI_Comm_rank(comm, &rank);
    remote_bytes += to != rank ? bytes_of(count, type) : 0;
    return PMPI_Isend(buffer, count, type, to, tag, comm, request);
}

/* Bytes that all ranks together send to others while one phase runs. */
static int64_t count_phase(const struct ep_transport *transport, enum ep_op op, const char *name,
                           void *state)
{
    const struct ep_transport_op *operation = &transport->ops[op];
    int64_t counted = 0;
    for (int i = 0; i < operation->num_phases; i++) {
        remote_bytes = 0;
        CHECK_OK(operation->phases[i].run(state));
        if (strcmp(operation->phases[i].name, name) == 0) {
            counted += remote_bytes;
        }
    }
    CHECK_OK(ep_comm_sum_i64(world, &counted, 1));
    return counted;
}

/* A transport on one routing. */
struct setup {
    const struct ep_transport *transport;
    struct ep_skew *skew;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router;
    struct ep_routing routing;
    struct ep_exchange exchange;
    int64_t top_k;
    void *state;
    int64_t metadata_bytes, padding_bytes; /* over all ranks */
};

static void set_up(const char *name, const char *skew_text, enum ep_dtype dtype, struct setup *s)
{
    enum { TOKENS = 37, HIDDEN = 129 };
    const int size = ep_comm_size(world);
    const int rank = ep_comm_rank(world);
    void *tokens = NULL;
    void *results = NULL;
    const enum ep_dtype combine = dtype == EP_FP8 ? EP_BF16 : dtype;
    s->top_k = 3;
    CHECK_OK(ep_transport_find(name, &s->transport));
    CHECK_OK(ep_skew_create(skew_text, &s->skew));
    CHECK_OK(ep_placement_init_contiguous(3 * size + 1, size, &s->placement));
    CHECK_OK(ep_token_map_init_equal(size, TOKENS, &s->map));
    const struct ep_router_config config = {s->skew, &s->placement, &s->map, s->top_k, 5};
    CHECK_OK(ep_router_create(&config, &s->router));
    CHECK_OK(ep_router_generate_rank(s->router, rank, true, &s->routing));
    ep_arena_reset(arena);
    s->exchange = (struct ep_exchange){
        .comm = world, .placement = &s->placement, .routing = &s->routing, .hidden = HIDDEN,
        .dtype = dtype, .combine_dtype = combine, .row_bytes = ep_dtype_row_bytes(dtype, HIDDEN),
        .combine_row_bytes = ep_dtype_row_bytes(combine, HIDDEN), .threads = 1, .arena = arena,
    };
    CHECK_OK(ep_arena_alloc(arena, TOKENS * s->exchange.row_bytes, "rows", &tokens));
    CHECK_OK(ep_arena_alloc(arena, TOKENS * s->exchange.combine_row_bytes, "results", &results));
    ep_pattern_fill_tokens(s->map.start[rank], TOKENS, s->exchange.row_bytes, tokens);
    s->exchange.tokens = tokens;
    s->exchange.results = results;
    CHECK_OK(s->transport->create(&s->exchange, &s->state));
    struct ep_transport_extras extras;
    s->transport->extras(s->state, &extras);
    int64_t sums[2] = {extras.metadata_bytes, extras.padding_bytes};
    CHECK_OK(ep_comm_sum_i64(world, sums, 2));
    s->metadata_bytes = sums[0];
    s->padding_bytes = sums[1];
}

static void tear_down(struct setup *s)
{
    s->transport->destroy(s->state);
    ep_routing_fini(&s->routing);
    ep_router_destroy(s->router);
    ep_token_map_fini(&s->map);
    ep_placement_fini(&s->placement);
    ep_skew_destroy(s->skew);
}

static void check_transport(const char *name, const char *skew_text, enum ep_dtype dtype)
{
    struct setup s;
    struct ep_traffic traffic;
    struct ep_traffic_totals totals;
    int64_t rows[16 * 16];
    set_up(name, skew_text, dtype, &s);
    CHECK_OK(ep_traffic_init(&s.placement, NULL, 1, s.top_k, &traffic));
    CHECK_OK(ep_traffic_add_router(&traffic, s.router));
    ep_traffic_fill_rows(&traffic, s.transport->basis, rows);
    ep_traffic_sum(rows, ep_comm_size(world), &totals);
    const int64_t payload = totals.remote * s.exchange.row_bytes;
    assert_int_equal(count_phase(s.transport, EP_OP_DISPATCH, "counts", s.state), s.metadata_bytes);
    assert_int_equal(count_phase(s.transport, EP_OP_DISPATCH, "exchange", s.state),
                     payload + s.padding_bytes);
    const int64_t padding_rows = s.padding_bytes / s.exchange.row_bytes;
    const int passes = s.transport->combine_passes > 0 ? s.transport->combine_passes : 1;
    assert_int_equal(count_phase(s.transport, EP_OP_COMBINE, "exchange", s.state),
                     passes * (totals.remote + padding_rows) * s.exchange.combine_row_bytes);
    assert_int_equal(count_phase(s.transport, EP_OP_COMBINE, "pack", s.state), 0);
    ep_traffic_fini(&traffic);
    tear_down(&s);
}

static void test_bytes_on_the_wire(void **state)
{
    (void)state;
    static const char *const names[] = {"alltoall", "alltoallv", "alltoallv-dedup", "pairwise",
                                        "allgather", "allgather-ring", "allreduce-ring", "rma"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        check_transport(names[i], "uniform", EP_BF16);
        check_transport(names[i], "zipf:1.2", EP_FP8);
        check_transport(names[i], "khot:1:0.3", EP_FP32);
    }
}

/* Run one phase: what all ranks sent together over the network and inside nodes, and this rank's messages. */
static void run_phase(const struct setup *s, const struct ep_transport_phase *phase,
                      int64_t *network, int64_t *inside)
{
    remote_bytes = network_bytes = num_messages = 0;
    CHECK_OK(phase->run(s->state));
    int64_t sums[2] = {network_bytes, remote_bytes - network_bytes};
    CHECK_OK(ep_comm_sum_i64(world, sums, 2));
    *network = sums[0];
    *inside = sums[1];
}

/* Rows that cross nodes in a dispatch, over all ranks: once per token and node, or once per copy. */
static int64_t crossing_rows(const struct setup *s, bool dedup)
{
    const int size = ep_comm_size(world);
    int64_t num = 0;
    for (int r = 0; r < size; r++) {
        struct ep_routing routing;
        CHECK_OK(ep_router_generate_rank(s->router, r, false, &routing));
        for (int64_t t = 0; t < routing.num_tokens; t++) {
            bool seen[16] = {false};
            for (int64_t k = 0; k < s->top_k; k++) {
                const int32_t expert = routing.topk_idx[t * s->top_k + k];
                /* contiguous: rank o has experts floor(o E / P) to floor((o + 1) E / P) - 1 */
                int owner = 0;
                while ((owner + 1) * (3 * size + 1) / size <= expert) {
                    owner++;
                }
                const int node = ep_comm_node_of(world, owner);
                num += node != ep_comm_node_of(world, r) && !(dedup && seen[node]);
                seen[node] = true;
            }
        }
        ep_routing_fini(&routing);
    }
    return num;
}

/* In two stages: rows cross in `exchange` and nowhere else, once each, nothing in `exchange` stays inside, and
 * P - 1 messages are (q - 1) + (N - 1). What tells of the rows is metadata, in `counts`. */
static void check_stages(const char *name, bool dedup, int per_node)
{
    struct setup s;
    const int size = ep_comm_size(world);
    set_up(name, "zipf:1.2", EP_BF16, &s);
    const int64_t rows = crossing_rows(&s, dedup);
    for (int op = 0; op < EP_NUM_OPS; op++) {
        int64_t messages = 0;
        const int64_t row_bytes = op == EP_OP_DISPATCH ? s.exchange.row_bytes
                                                       : s.exchange.combine_row_bytes;
        for (int i = 0; i < s.transport->ops[op].num_phases; i++) {
            const struct ep_transport_phase *phase = &s.transport->ops[op].phases[i];
            int64_t network = 0, inside = 0;
            run_phase(&s, phase, &network, &inside);
            if (strcmp(phase->name, "exchange") == 0) {
                assert_int_equal(network, rows * row_bytes);
                assert_int_equal(inside, 0);
                messages += num_messages;
            } else if (strcmp(phase->name, "fan-out") == 0) {
                assert_int_equal(network, 0);
                messages += num_messages;
            } else if (strcmp(phase->name, "counts") == 0) {
                assert_int_equal(network + inside, s.metadata_bytes);
            } else {
                assert_int_equal(network + inside, 0);
            }
        }
        assert_int_equal(messages, per_node - 1 + size / per_node - 1);
    }
    tear_down(&s);
}

static void test_stages(void **state)
{
    (void)state;
    struct ep_comm *whole = world;
    struct setup s;
    set_up("alltoallv", "uniform", EP_BF16, &s);
    int64_t network = 0, inside = 0;
    run_phase(&s, &s.transport->ops[EP_OP_DISPATCH].phases[2], &network, &inside);
    assert_string_equal(s.transport->ops[EP_OP_DISPATCH].phases[2].name, "exchange");
    assert_int_equal(num_messages, ep_comm_size(world) - 1);
    assert_int_equal(network, 0); /* one host */
    tear_down(&s);
    for (int per_node = 1; per_node <= ep_comm_size(whole); per_node++) {
        if (ep_comm_size(whole) % per_node == 0) {
            CHECK_OK(ep_comm_create_grouped(whole, per_node, &world));
            check_stages("hier", true, per_node);
            check_stages("hier2d", false, per_node);
            ep_comm_destroy(world);
            world = whole;
        }
    }
}

int main(void)
{
    if (ep_comm_init(&world) != EP_OK || ep_arena_create(1 << 26, EP_PAGES_4K, &arena) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bytes_on_the_wire),
                                       cmocka_unit_test(test_stages)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ep_arena_destroy(arena);
    ep_comm_finalize(world);
    return failed;
}
