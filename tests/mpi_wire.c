/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on the wire, counted by standing between the program and MPI, against what is said of them. */
#include "tests/check.h"

#include "bench/pattern.h"
#include "bench/transport.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static struct ep_comm *world;
static struct ep_arena *arena;
static int64_t remote_bytes; /* sent to other ranks through the calls below */

static int64_t bytes_of(int count, MPI_Datatype type)
{
    int size = 0;
    PMPI_Type_size(type, &size);
    return (int64_t)count * size;
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
        remote_bytes += r != rank ? bytes_of(send_count[r], send_type) : 0;
    }
    return PMPI_Alltoallv(send, send_count, send_start, send_type, recv, recv_count, recv_start,
                          recv_type, comm);
}

int MPI_Alltoall(const void *send, int send_count, MPI_Datatype send_type, void *recv,
                 int recv_count, MPI_Datatype recv_type, MPI_Comm comm)
{
    int size = 0;
    PMPI_Comm_size(comm, &size);
    remote_bytes += (size - 1) * bytes_of(send_count, send_type);
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

static void check_transport(const char *name, const char *skew_text, enum ep_dtype dtype)
{
    enum { TOKENS = 37, HIDDEN = 129 };
    const int size = ep_comm_size(world);
    const int rank = ep_comm_rank(world);
    const int64_t experts = 3 * size + 1;
    const int64_t top_k = 3;
    const struct ep_transport *transport = NULL;
    struct ep_skew *skew = NULL;
    struct ep_placement placement;
    struct ep_token_map map;
    struct ep_router *router = NULL;
    struct ep_routing routing;
    struct ep_traffic traffic;
    struct ep_traffic_totals totals;
    int64_t rows[16 * 16];
    void *tokens = NULL;
    void *results = NULL;
    void *state = NULL;
    const enum ep_dtype combine = dtype == EP_FP8 ? EP_BF16 : dtype;
    CHECK_OK(ep_transport_find(name, &transport));
    CHECK_OK(ep_skew_create(skew_text, &skew));
    CHECK_OK(ep_placement_init_contiguous(experts, size, &placement));
    CHECK_OK(ep_token_map_init_equal(size, TOKENS, &map));
    const struct ep_router_config config = {skew, &placement, &map, top_k, 5};
    CHECK_OK(ep_router_create(&config, &router));
    CHECK_OK(ep_router_generate_rank(router, rank, true, &routing));
    ep_arena_reset(arena);
    struct ep_exchange exchange = {
        .comm = world, .placement = &placement, .routing = &routing, .hidden = HIDDEN,
        .dtype = dtype, .combine_dtype = combine, .row_bytes = ep_dtype_row_bytes(dtype, HIDDEN),
        .combine_row_bytes = ep_dtype_row_bytes(combine, HIDDEN), .threads = 1, .arena = arena,
    };
    CHECK_OK(ep_arena_alloc(arena, TOKENS * exchange.row_bytes, "rows", &tokens));
    CHECK_OK(ep_arena_alloc(arena, TOKENS * exchange.combine_row_bytes, "results", &results));
    ep_pattern_fill_tokens(map.start[rank], TOKENS, exchange.row_bytes, tokens);
    exchange.tokens = tokens;
    exchange.results = results;
    CHECK_OK(transport->create(&exchange, &state));

    CHECK_OK(ep_traffic_init(&placement, NULL, 1, top_k, &traffic));
    CHECK_OK(ep_traffic_add_router(&traffic, router));
    ep_traffic_fill_rows(&traffic, transport->basis, rows);
    ep_traffic_sum(rows, size, &totals);
    struct ep_transport_extras extras;
    transport->extras(state, &extras);
    int64_t sums[2] = {extras.metadata_bytes, extras.padding_bytes};
    CHECK_OK(ep_comm_sum_i64(world, sums, 2));

    const int64_t payload = totals.remote * exchange.row_bytes;
    assert_int_equal(count_phase(transport, EP_OP_DISPATCH, "counts", state), sums[0]);
    assert_int_equal(count_phase(transport, EP_OP_DISPATCH, "exchange", state), payload + sums[1]);
    const int64_t padding_rows = sums[1] / exchange.row_bytes;
    const int passes = transport->combine_passes > 0 ? transport->combine_passes : 1;
    assert_int_equal(count_phase(transport, EP_OP_COMBINE, "exchange", state),
                     passes * (totals.remote + padding_rows) * exchange.combine_row_bytes);
    assert_int_equal(count_phase(transport, EP_OP_COMBINE, "pack", state), 0);

    ep_traffic_fini(&traffic);
    transport->destroy(state);
    ep_routing_fini(&routing);
    ep_router_destroy(router);
    ep_token_map_fini(&map);
    ep_placement_fini(&placement);
    ep_skew_destroy(skew);
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

int main(void)
{
    if (ep_comm_init(&world) != EP_OK || ep_arena_create(1 << 26, EP_PAGES_4K, &arena) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bytes_on_the_wire)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ep_arena_destroy(arena);
    ep_comm_finalize(world);
    return failed;
}
