/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped expert GEMMs through a table of back ends: rows of expert g times the matrix of expert g. */
#ifndef EP_KERNELS_GEMM_H
#define EP_KERNELS_GEMM_H

#include "base/error.h"
#include "kernels/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Y[m][n] = X[m][k] * W[g][k][n] for each group g (expert), rows grouped by expert. X and W are of
 *  `dtype`; Y is fp32 whatever it is: what a bf16 layer rounds, and where, is the caller's choice
 *  (kernels/ffn.h rounds between its two GEMMs). */
struct ep_gemm_shape {
    int64_t num_groups; /* expert matrices, >= 1 */
    int64_t k;          /* columns of X, >= 1 */
    int64_t n;          /* columns of Y, >= 1 */
    enum ep_dtype dtype; /* EP_FP32 or EP_BF16; fp8 has no arithmetic here */
};

/** Weights in the form a back end wants them: made once by pack, read by every run. */
struct ep_gemm_packed {
    const struct ep_gemm_backend *backend;
    struct ep_gemm_shape shape;
    int64_t weight_bytes; /* bytes that one run reads for one whole expert matrix, padding included */
    bool transposed;      /* matrices came as [n][k]: a backward multiplies by W^T */
    bool borrows_weights; /* the caller's matrices are read by run, and must stay until release */
    void *state;          /* the back end's own */
};

/** One back end: a row of ep_gemm_backends. All hooks are required. */
struct ep_gemm_backend {
    const char *name;    /* as in --backend and in records */
    const char *summary; /* one line: what multiplies, in which layout */
    /** Can this build on this CPU run `dtype`? Where not, `reason` says why; where it can, how
     *  (instruction set, conversions). NUL-terminated, truncated to `length`. */
    bool (*available)(enum ep_dtype dtype, char *reason, size_t length);
    /** Make packed->state of row-major weights, [k][n] or (packed->transposed) [n][k]; set
     *  weight_bytes, and borrows_weights where the caller's matrices are used in place. */
    enum ep_status (*pack)(const void *const *weights, struct ep_gemm_packed *packed);
    /** One group's rows, at least one: x [num_rows][k], y [num_rows][n]. */
    enum ep_status (*run)(const struct ep_gemm_packed *packed, int64_t group, int64_t num_rows,
                          const void *x, float *y);
    /** x^T dz of one group's rows, at least one: x [num_rows][k], dz [num_rows][n], dw [k][n]. */
    enum ep_status (*gradient)(const struct ep_gemm_packed *packed, int64_t num_rows,
                               const void *x, const void *dz, float *dw);
    void (*release)(struct ep_gemm_packed *packed);
};

/** All back ends, ended by NULL. `ref` comes first: it accumulates in double and is the oracle. */
extern const struct ep_gemm_backend *const ep_gemm_backends[];

/** As the hook, and false with its reason for a dtype that no back end multiplies (fp8). */
bool ep_gemm_is_available(const struct ep_gemm_backend *backend, enum ep_dtype dtype, char *reason,
                          size_t length);

/** The back end of that name; "default" gives ep_gemm_default(dtype).
 *  Returns EP_EINVAL for an unknown name, EP_EENV with the reason where it is not available. */
EP_MUST_CHECK enum ep_status ep_gemm_find(const char *name, enum ep_dtype dtype,
                                          const struct ep_gemm_backend **backend);

/** The back end that the suite uses where none is named. Rule: kernels/README.md, "GEMM". */
const struct ep_gemm_backend *ep_gemm_default(enum ep_dtype dtype);

/** Pack the weights of all groups.
 *  weights  [num_groups] pointers to row-major [k][n] of the shape's dtype; read only; may repeat
 *  packed   to be freed with ep_gemm_release; untouched on failure; where packed->borrows_weights, the
 *           matrices must outlive it
 *  Returns EP_EINVAL for fp8, or k, n or groups < 1 or too large to address; EP_ENOMEM;
 *  EP_EENV where the library refuses. May take seconds: never inside a timed section. */
EP_MUST_CHECK enum ep_status ep_gemm_pack(const struct ep_gemm_backend *backend,
                                          const struct ep_gemm_shape *shape,
                                          const void *const *weights,
                                          struct ep_gemm_packed *packed);

/** The same from matrices that are row-major [n][k]: Y = X W^T. */
EP_MUST_CHECK enum ep_status ep_gemm_pack_transposed(const struct ep_gemm_backend *backend,
                                                     const struct ep_gemm_shape *shape,
                                                     const void *const *weights,
                                                     struct ep_gemm_packed *packed);

/** Does a back end read the caller's matrices at each run (packed->borrows_weights)? Found by packing a small
 *  one. Returns what ep_gemm_pack does. */
EP_MUST_CHECK enum ep_status ep_gemm_find_borrowing(const struct ep_gemm_backend *backend,
                                                    enum ep_dtype dtype, bool *borrows);

/** Multiply. Rows of group 0 come first in X and Y, then those of group 1, and so on.
 *  num_rows  [num_groups] >= 0 (0: the expert got no token, its weights are not read)
 *  x         [sum num_rows][k] of the shape's dtype, row-major; read only
 *  y         [sum num_rows][n] float, row-major; overwritten
 *  Returns EP_OK; EP_ENOMEM or EP_EENV from a library. One thread; not re-entrant for one `packed`
 *  (it may own a workspace). Sums in another order than `ref`: |y - ref| <= ep_gemm_tolerance. */
EP_MUST_CHECK enum ep_status ep_gemm_run(const struct ep_gemm_packed *packed,
                                         const int64_t *num_rows, const void *x, float *y);

/** Multiply the rows of one group: x [num_rows][k], y [num_rows][n], else as ep_gemm_run. */
EP_MUST_CHECK enum ep_status ep_gemm_run_group(const struct ep_gemm_packed *packed, int64_t group,
                                               int64_t num_rows, const void *x, float *y);

/** The gradient of one group's matrix, dw = x^T dz: dw[i][j] = sum over rows r of x[r][i] dz[r][j].
 *  num_rows  >= 0; without rows dw is set to zero
 *  x         [num_rows][k] of the shape's dtype, row-major; read only
 *  dz        [num_rows][n] of the shape's dtype, row-major; read only
 *  dw        [k][n] float, row-major; overwritten
 *  Nothing of the weights is read. Returns as ep_gemm_run; may allocate at a number of rows that it has
 *  not seen. Sums in another order than `ref`: off by ep_gemm_tolerance(dtype, num_rows, ..) at most. */
EP_MUST_CHECK enum ep_status ep_gemm_gradient(const struct ep_gemm_packed *packed, int64_t num_rows,
                                              const void *x, const void *dz, float *dw);

/** Free what pack made; packed may be zeroed memory. */
void ep_gemm_release(struct ep_gemm_packed *packed);

/** 2 m n k summed over groups, rows = sum of num_rows. */
double ep_gemm_flops(const struct ep_gemm_shape *shape, int64_t num_rows);

/** Bytes that a run must move at least: the matrices of the groups that have rows once, X once, Y
 *  once (written). `num_active` = groups with at least one row. */
double ep_gemm_bytes(const struct ep_gemm_shape *shape, int64_t num_active, int64_t num_rows);

/** Largest |y - ref| that rounding explains, where `abs_sum` = sum over k of |x| |w| for that element:
 *  (k + 2) u abs_sum, u = 2^-24 (fp32 sums of exact products of bf16, or of rounded products of fp32,
 *  in any order), and twice that for bf16 hardware that flushes subnormals and rounds odd.
 *  Source: Higham, Accuracy and Stability of Numerical Algorithms, (3.5). */
double ep_gemm_tolerance(enum ep_dtype dtype, int64_t k, double abs_sum);

#endif
