/* SPDX-License-Identifier: Apache-2.0 */
/* A sweep of whole layers: the cases of a comm sweep, each visited as a layer. */
#ifndef EP_BENCH_LAYER_SWEEP_H
#define EP_BENCH_LAYER_SWEEP_H

#include "bench/comm_sweep.h"

#include <argp.h>
#include <stdint.h>

/** The options of `epbench layer`. */
struct ep_layer_options {
    struct ep_comm_options comm;
    int64_t ffn;          /* --ffn; 0 = not given: the model's, else 1408 */
    int64_t shared_ffn;   /* --shared-ffn; -1 = not given: the model's, else 0 */
    int64_t tp, dp;       /* --tp, --dp */
    bool backward;        /* --backward */
    const char *backend;  /* --backend; NULL = the default one of the dtype */
    const char *activation; /* --activation; NULL = the model's, else swiglu */
    const char *timeline; /* --timeline FILE; NULL = none */
    const char *overlap;  /* --overlap; NULL = not asked for */
    bool compares;        /* --remedies: each case with several remedies */
    const char *remedies; /* its list; NULL = all */
};

/** --ffn --backend --timeline ... and those of comm, as an argp child; input is a struct
 *  ep_layer_options. */
extern const struct argp ep_layer_argp;

struct ep_layer_options ep_layer_options_default(void);

struct ep_layer_sweep;

/** Parse the lists, load traces, choose the back end. No MPI. Returns EP_EINVAL naming the option; for
 *  what only dispatch and combine apart have (--op, --bare, the null transport, fp8 rows) too. */
EP_MUST_CHECK enum ep_status ep_layer_sweep_create(const struct ep_layer_options *options,
                                                   struct ep_layer_sweep **sweep);
void ep_layer_sweep_destroy(struct ep_layer_sweep *sweep);

/** As for a comm sweep: the most ranks that it asks for, and whether buffers are to be shared. */
int64_t ep_layer_sweep_most_ranks(const struct ep_layer_sweep *sweep);
bool ep_layer_sweep_shares(const struct ep_layer_sweep *sweep);

/** Make the cases for the session's ranks and see whether each can be. Collective; EP_EINVAL. */
EP_MUST_CHECK enum ep_status ep_layer_sweep_prepare(struct ep_layer_sweep *sweep,
                                                    struct ep_session *session);

/** Visit all cases, as ep_comm_sweep_run does; print a table on stdout (rank 0) unless quiet, and write the
 *  timeline. Collective over the session's world. */
EP_MUST_CHECK enum ep_status ep_layer_sweep_run(struct ep_layer_sweep *sweep,
                                                struct ep_session *session);

#endif
