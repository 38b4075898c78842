/* SPDX-License-Identifier: Apache-2.0 */
/* Expert matrices of one back end for timing: cold weights by turns, contents known everywhere. */
#ifndef EP_BENCH_KERNELS_GEMM_H
#define EP_BENCH_KERNELS_GEMM_H

#include "base/error.h"
#include "kernels/ffn.h"
#include "kernels/gemm.h"

#include <stdbool.h>
#include <stdint.h>

/** What is multiplied. */
struct ep_kernels_gemm_key {
    const struct ep_gemm_backend *backend;
    enum ep_dtype dtype;
    int64_t k;
    int64_t n;
};

/** Packed matrices of `num_experts` experts and rows to multiply. Every element of W and X follows from
 *  (seed, expert, index) alone, so that results can be checked without a second copy. */
struct ep_kernels_gemm {
    struct ep_kernels_gemm_key key;
    struct ep_gemm_packed packed;
    uint64_t seed;
    int64_t num_experts;
    int64_t max_rows;
    int64_t next_expert;  /* the one that the next run uses */
    int64_t *num_rows;    /* [num_experts] */
    void **matrices;      /* [num_experts] where the back end borrows them, else NULL */
    void *x;              /* [max_rows][k] of the dtype */
    float *y;             /* [max_rows][n] */
};

/** Pack as many matrices as it takes to pass `cold_bytes` (at least one, at most 4096), so that by the
 *  time one is used again it has left the caches. Returns EP_ENOMEM, EP_EINVAL, EP_EENV. */
EP_MUST_CHECK enum ep_status ep_kernels_gemm_create(const struct ep_kernels_gemm_key *key,
                                                    int64_t cold_bytes, int64_t max_rows,
                                                    uint64_t seed, struct ep_kernels_gemm **gemm);
void ep_kernels_gemm_destroy(struct ep_kernels_gemm *gemm);

/** Multiply `rows` rows by the next expert's matrix: what is timed. */
EP_MUST_CHECK enum ep_status ep_kernels_gemm_run(struct ep_kernels_gemm *gemm, int64_t rows);

/** Check up to 64 elements of the last result against sums in double. rows: as it was run.
 *  Returns EP_ECHECK naming the first element that is off. */
EP_MUST_CHECK enum ep_status ep_kernels_gemm_check(const struct ep_kernels_gemm *gemm,
                                                   int64_t rows);

/** Element i of the matrix of an expert (expert = -1: of X), exact in the dtype, in [-1, 1). */
float ep_kernels_value(enum ep_dtype dtype, uint64_t seed, int64_t expert, int64_t i);

/** Fill `values` [num] of the dtype with them. */
void ep_kernels_fill(enum ep_dtype dtype, uint64_t seed, int64_t expert, int64_t num, void *values);

/** Compare 16 elements of one row of an FFN with double sums of the patterns: x is the pattern of expert
 *  -1, w13 of expert e that of 2 e, w2 that of 2 e + 1 (ep_kernels_fill). Bounds as in ep_gemm_tolerance,
 *  carried through the activation.
 *  row  of x and y [..][hidden], one of `expert`
 *  Returns EP_ECHECK with the place. O(hidden ffn). */
EP_MUST_CHECK enum ep_status ep_kernels_ffn_check(const struct ep_ffn_shape *shape, uint64_t seed,
                                                  int64_t expert, int64_t row, const float *y);

#endif
