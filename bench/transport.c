/* SPDX-License-Identifier: Apache-2.0 */
/* The table of transports. */
#include "bench/transport.h"

#include "base/options.h"

#include <stdio.h>
#include <string.h>

extern const struct ep_transport ep_transport_null;
extern const struct ep_transport ep_transport_alltoall;
extern const struct ep_transport ep_transport_alltoallv;
extern const struct ep_transport ep_transport_alltoallv_dedup;
extern const struct ep_transport ep_transport_pairwise;
extern const struct ep_transport ep_transport_hier;
extern const struct ep_transport ep_transport_hier2d;
extern const struct ep_transport ep_transport_allgather;
extern const struct ep_transport ep_transport_allgather_ring;
extern const struct ep_transport ep_transport_allreduce;
extern const struct ep_transport ep_transport_allreduce_ring;
extern const struct ep_transport ep_transport_rma;
extern const struct ep_transport ep_transport_shm;
extern const struct ep_transport ep_transport_hier_shm;

const struct ep_transport *const ep_transports[] = {
    &ep_transport_null, &ep_transport_alltoall, &ep_transport_alltoallv,
    &ep_transport_alltoallv_dedup, &ep_transport_pairwise,
    &ep_transport_hier, &ep_transport_hier2d,
    &ep_transport_allgather, &ep_transport_allgather_ring, &ep_transport_allreduce,
    &ep_transport_allreduce_ring, &ep_transport_rma, &ep_transport_shm,
    &ep_transport_hier_shm, NULL,
};

enum { NUM_TRANSPORTS = sizeof ep_transports / sizeof ep_transports[0] - 1 };

enum ep_status ep_transport_find(const char *name, const struct ep_transport **transport)
{
    const char *names[NUM_TRANSPORTS];
    char all[512] = "";
    for (int i = 0; i < NUM_TRANSPORTS; i++) {
        names[i] = ep_transports[i]->name;
        if (strcmp(names[i], name) == 0) {
            *transport = ep_transports[i];
            return EP_OK;
        }
        const size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    const char *nearest = ep_options_nearest(name, names, NUM_TRANSPORTS);
    return ep_error_set(EP_EINVAL, "--transport: there is no '%s'%s%s%s; there are %s", name,
                        nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
                        nearest != NULL ? "?" : "", all);
}

double ep_exchange_cache_fill(const struct ep_exchange *exchange, int64_t rank_bytes)
{
    const struct ep_comm *comm = exchange->comm;
    const int own_node = ep_comm_node_of(comm, ep_comm_rank(comm));
    int64_t num_ranks = 0;
    for (int r = 0; r < ep_comm_size(comm); r++) {
        num_ranks += ep_comm_node_of(comm, r) == own_node;
    }
    return exchange->cache_bytes > 0
               ? (double)num_ranks * (double)rank_bytes / (double)exchange->cache_bytes
               : 0;
}

bool ep_transport_has_way(const struct ep_transport *transport, const char *algorithm)
{
    for (const char *const *way = transport->ways; way != NULL && *way != NULL; way++) {
        if (strcmp(*way, algorithm) == 0) {
            return true;
        }
    }
    return false;
}

enum ep_status ep_transport_check_algorithm(const char *algorithm)
{
    int ignored = 0;
    for (int i = 0; i < NUM_TRANSPORTS; i++) {
        if (ep_transport_has_way(ep_transports[i], algorithm)) {
            return EP_OK;
        }
    }
    return ep_comm_find_algorithm(algorithm, &ignored);
}

bool ep_transport_takes(const struct ep_transport *transport, const char *algorithm)
{
    int id = 0;
    if (ep_transport_has_way(transport, algorithm) || strcmp(algorithm, "default") == 0) {
        return true;
    }
    if (transport->by_alltoall && ep_comm_find_algorithm(algorithm, &id) == EP_OK) {
        return true;
    }
    ep_error_clear();
    return false;
}

const char *ep_op_name(enum ep_op op)
{
    return op == EP_OP_DISPATCH ? "dispatch" : "combine";
}

int ep_transport_roundings(const struct ep_transport *transport, int num_ranks)
{
    return transport->roundings == EP_ROUNDINGS_PER_RANK ? num_ranks : transport->roundings;
}

enum ep_status ep_transport_run(const struct ep_transport *transport, enum ep_op op, void *state)
{
    const struct ep_transport_op *operation = &transport->ops[op];
    for (int i = 0; i < operation->num_phases; i++) {
        const enum ep_status status = operation->phases[i].run(state);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}
