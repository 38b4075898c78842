/* SPDX-License-Identifier: Apache-2.0 */
/* Expert GEMMs compared: every back end, type and number of tokens, under measured peaks. */
#ifndef EP_BENCH_KERNELS_TABLE_H
#define EP_BENCH_KERNELS_TABLE_H

#include "base/error.h"
#include "bench/session.h"
#include "kernels/dtype.h"

#include <jansson.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { EP_KERNELS_MAX_LIST = 32, EP_KERNELS_MAX_SAMPLES = 64 };

/** One expert's matrices: hidden x inner columns (w13) and ffn x hidden (w2). */
struct ep_kernels_shape {
    const char *model; /* name in the zoo, or "custom"; borrowed */
    int64_t hidden;
    int64_t ffn;
    bool gated;
    int64_t num_experts; /* that tokens are permuted for */
    int64_t top_k;
};

/** What to compare; all lists are borrowed. */
struct ep_kernels_grid {
    const struct ep_kernels_shape *shapes;
    int64_t num_shapes;
    const enum ep_dtype *dtypes;
    int64_t num_dtypes;
    const int64_t *tokens; /* per expert, >= 1 */
    int64_t num_tokens;
    const char *const *backends; /* names; those not available here are left out with a warning */
    int64_t num_backends;
    double row_budget_s; /* per row. A row whose 95 % interval still holds a share that is asked goes on,
                            up to 3 times that; one with fewer than min_samples up to 4 times */
    int64_t min_samples; /* 3 .. EP_KERNELS_MAX_SAMPLES; fewer than 3 are never taken */
    double budget_s;     /* of the whole; rows that would begin later are skipped. 0 = no end */
    int64_t cold_caches; /* last-level caches that go by before a matrix is used again, >= 1 */
};

/** The grid of `run --profile standard`: mixtral-8x7b and deepseek-v3, fp32 and bf16, 1 to 1024 tokens,
 *  native, onednn and cblas. shapes stays empty: see ep_kernels_shape_of_model. */
struct ep_kernels_grid ep_kernels_grid_default(void);

/** A model's expert, from a file of models or (file NULL) the built-in zoo. Returns EP_EINVAL for an unknown name, a dense
 *  model, a bad file. */
EP_MUST_CHECK enum ep_status ep_kernels_shape_of_model(const char *file, const char *name,
                                                       struct ep_kernels_shape *shape);

/** Measure the grid on all ranks of the session at once and print it, row by row, on rank 0 to `out`.
 *  In each repetition every rank measures, one after the other and starting together: the peak of the
 *  dtype, the read bandwidth, and each back end in turn, so that a drift of the machine meets all of
 *  them alike. A sample is the slowest rank's. Weights are cold: matrices are used by turns, see
 *  cold_caches. Results are checked. One record per back end and row.
 *  json: array that one object per row is appended to; NULL = none. Collective.
 *  Returns EP_ECHECK where a result is wrong. Shortfalls against the figures of kernels/README.md,
 *  "GEMM", are printed, not returned: *num_short counts them. */
EP_MUST_CHECK enum ep_status ep_kernels_table_run(struct ep_session *session,
                                                  const struct ep_kernels_grid *grid, FILE *out,
                                                  json_t *json, int64_t *num_short);

#endif
