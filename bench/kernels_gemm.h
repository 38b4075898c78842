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

/** The pattern that dy is of, in place of an expert. */
enum { EP_KERNELS_DY = -2 };

/** Compare elements of an FFN's gradients with double sums of the patterns: 16 of dx of the expert's last
 *  row, 16 each of dW13 and dW2. Patterns as in ep_kernels_ffn_check, dy that of EP_KERNELS_DY; bounds as
 *  there, carried through the derivatives.
 *  first_row, num_rows  the expert's rows in x, dy and dx
 *  dx                   [..][hidden], of all rows
 *  Returns EP_ECHECK with the place. O(hidden (ffn + num_rows)). */
EP_MUST_CHECK enum ep_status ep_kernels_ffn_check_backward(const struct ep_ffn_shape *shape,
                                                           uint64_t seed, int64_t expert,
                                                           int64_t first_row, int64_t num_rows,
                                                           const float *dx, const float *dw13,
                                                           const float *dw2);

#endif
