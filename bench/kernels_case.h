/* SPDX-License-Identifier: Apache-2.0 */
/* One benchmark of `epbench kernels` and the table of its kinds; inside kernels_*.c. */
#ifndef EP_BENCH_KERNELS_CASE_H
#define EP_BENCH_KERNELS_CASE_H

#include "bench/kernels_table.h"
#include "bench/session.h"
#include "kernels/gemm.h"
#include "kernels/peak.h"

#include <stdbool.h>
#include <stdint.h>

/** What is made once and used by cases in a row (weights, buffers): one object at a time. */
struct ep_kernels_slot {
    char key[192];
    void *object;
    void (*destroy)(void *object);
};

struct ep_kernels_case;

/** A benchmark of routing; the shape is in kernels_route.c. */
struct ep_kernels_route {
    const char *what; /* "generate" or "count" */
    const char *skew;
    bool counts;
    int64_t num_tokens; /* of one run */
    double guess_s;     /* of one run, about */
};

/** All of them, ended by one without a name. */
extern const struct ep_kernels_route ep_kernels_routes[];

/** (token, expert) pairs of one run. */
double ep_kernels_route_pairs(const struct ep_kernels_route *route);

/** A kind of case. Hooks run on the active ranks only. */
struct ep_kernels_kind {
    /* Make bench->slot.object what the case needs, run once to warm up, and check the result. */
    enum ep_status (*prepare)(struct ep_kernels_case *one);
    enum ep_status (*run)(struct ep_kernels_case *one);
    /* Keys of the record that only this kind has; samples and times are in. Rank 0. */
    enum ep_status (*fill)(const struct ep_kernels_case *one, struct ep_record *record);
};

/** One case: what to do, by how many ranks. Fields that a kind does not use are zero. */
struct ep_kernels_case {
    const struct ep_kernels_kind *kind;
    struct ep_session *session;
    const struct ep_kernels_grid *grid;
    struct ep_kernels_slot *slot; /* shared by all cases */
    bool *stopped;                /* by a signal; shared by all cases */
    char name[192];
    char slot_key[192];
    int64_t ranks_active;
    int64_t iterations; /* of run per sample */
    double flops;       /* of one run on one rank; 0 = does not count */
    double bytes;
    const struct ep_kernels_shape *shape;
    const struct ep_gemm_backend *backend;
    enum ep_dtype dtype;
    int64_t tokens;
    int64_t num_experts;
    bool is_w2;
    bool is_unpermute;
    const struct ep_kernels_route *route;
    double items; /* of one run on one rank: (token, expert) pairs; 0 = does not count */
    const struct ep_peak_loop *loop;
    const struct ep_stream_loop *stream;
    int64_t size_bytes;
    struct ep_os_counters counters; /* at begin */
    double median_s;                /* slowest rank's; NaN until the case has ended */
};

extern const struct ep_kernels_kind ep_kernels_gemm_kind;
extern const struct ep_kernels_kind ep_kernels_ffn_kind;
extern const struct ep_kernels_kind ep_kernels_ffn_backward_kind;
extern const struct ep_kernels_kind ep_kernels_permute_kind;
extern const struct ep_kernels_kind ep_kernels_route_kind;
extern const struct ep_kernels_kind ep_kernels_peak_kind;
extern const struct ep_kernels_kind ep_kernels_stream_kind;

/** Columns of X and of Y of a GEMM case. */
int64_t ep_kernels_case_k(const struct ep_kernels_case *one);
int64_t ep_kernels_case_n(const struct ep_kernels_case *one);

/** Rounds of a peak loop that one call takes: 4e8 flops, the same on every machine. */
int64_t ep_kernels_peak_rounds(const struct ep_peak_loop *loop);

/** Put a new object into the slot under the case's key; the old one is destroyed first, before
 *  `create` is called. Nothing happens where the key is there already. */
EP_MUST_CHECK enum ep_status ep_kernels_slot_fill(struct ep_kernels_case *one,
                                                  enum ep_status (*create)(struct ep_kernels_case *,
                                                                           void **object),
                                                  void (*destroy)(void *object));

#endif
