/* SPDX-License-Identifier: Apache-2.0 */
/* What the text and the JSON of nccl-tests have in common. */
#ifndef EP_RESULTS_IMPORT_NCCL_H
#define EP_RESULTS_IMPORT_NCCL_H

#include "base/error.h"
#include "results/import.h"

#include <stdbool.h>
#include <stdint.h>

enum ep_nccl_op { EP_NCCL_NONE, EP_NCCL_ALLTOALL, EP_NCCL_ALLTOALLV, EP_NCCL_SENDRECV };

enum { EP_NCCL_HOST = 128 };

/* One program's output. Begin with {.spread = NAN, .scale = 1}; free hosts. */
struct ep_nccl_run {
    enum ep_nccl_op op;
    char version[24];  /* "" = not told */
    int64_t num_ranks; /* 0 = no device was listed */
    int64_t ranks_per_node;
    bool is_spread;              /* ranks go round the nodes */
    char (*hosts)[EP_NCCL_HOST]; /* [num_hosts], owned */
    int64_t num_hosts;
    int32_t *rank_host; /* [num_ranks], owned */
    bool blocking;      /* -m: each call waits */
    bool slowest;       /* -a 3: the time is of the slowest rank, not the mean over ranks */
    double spread;      /* of alltoallv's generated pattern; NaN = not told */
    double scale;       /* of alltoallv's matrix */
    int64_t matrix;     /* index + 1 into matrices of the file --matrix; 0 = not yet read */
};

/* One line of results. */
struct ep_nccl_row {
    const char *where;
    int64_t size_bytes; /* of a rank's buffer */
    int64_t count;      /* elements: alltoall for each rank, sendrecv of the message */
    const char *type;
    double time_us;
    double algbw;           /* GB/s */
    int64_t wrong;          /* -1 = not checked */
    const double *times_us; /* [num_times] single times, or NULL */
    int64_t num_times;
};

void ep_nccl_run_fini(struct ep_nccl_run *run);

/** The test by its program's name, with or without a path: "alltoall_perf". EP_EINVAL for others.
 */
EP_MUST_CHECK enum ep_status ep_nccl_find_op(const char *where, const char *program,
                                             enum ep_nccl_op *op);

/** Ranks come in order from 0, in one group. */
EP_MUST_CHECK enum ep_status ep_nccl_add_device(struct ep_nccl_run *run, const char *where,
                                                int64_t rank, int64_t group, const char *host);

/** After the last device: how ranks sit on nodes. EP_EINVAL where nodes have unequal numbers. */
EP_MUST_CHECK enum ep_status ep_nccl_place(struct ep_nccl_run *run, const char *where);

/** Add a result. EP_EINVAL where size, count, type, ranks and algbw contradict each other. */
EP_MUST_CHECK enum ep_status ep_nccl_add_row(struct ep_nccl_run *run, const struct ep_nccl_row *row,
                                             const struct ep_import_options *options,
                                             struct ep_import *import);

/** A matrix file of alltoallv_perf: square, numbers >= 0 with blanks between, read as nccl-tests
 *  reads it: times `scale`, each rounded down to 16 bytes. *idx names the matrix, its skew is set.
 */
EP_MUST_CHECK enum ep_status ep_nccl_read_matrix(const char *name, const char *text, size_t length,
                                                 double scale, struct ep_import *import,
                                                 int64_t *idx);

/** The JSON form; `run` begun, its fini is the caller's. */
EP_MUST_CHECK enum ep_status ep_nccl_read_json(const char *name, const char *text, size_t length,
                                               const struct ep_import_options *options,
                                               struct ep_nccl_run *run, struct ep_import *import);

#endif
