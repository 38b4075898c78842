/* SPDX-License-Identifier: Apache-2.0 */
/* The expert feed-forward network on rows grouped by expert, forward and backward. */
#ifndef EP_KERNELS_FFN_H
#define EP_KERNELS_FFN_H

#include "base/error.h"
#include "kernels/gemm.h"

#include <stdbool.h>
#include <stdint.h>

/** SWIGLU: silu(x Wgate) * (x Wup), then Wdown; silu(z) = z / (1 + exp(-z)).
 *  RELU, GELU: f(x Wup), then Wdown; GELU is the exact one, z/2 (1 + erf(z / sqrt 2)), not the tanh
 *  approximation. Sources: Shazeer, arXiv 2002.05202; Hendrycks and Gimpel, arXiv 1606.08415. */
enum ep_ffn_kind { EP_FFN_SWIGLU, EP_FFN_RELU, EP_FFN_GELU, EP_FFN_NUM_KINDS };

/** "swiglu", "relu", "gelu". */
const char *ep_ffn_kind_name(enum ep_ffn_kind kind);

struct ep_ffn_shape {
    enum ep_ffn_kind kind;
    int64_t num_groups; /* experts here, >= 1 */
    int64_t hidden;     /* columns of the rows in and out, >= 1 */
    int64_t ffn;        /* inner columns of one expert, >= 1 */
    enum ep_dtype dtype;
};

/** Columns of the first matrix: 2 ffn (gate, then up) for SWIGLU, else ffn. */
int64_t ep_ffn_inner_columns(const struct ep_ffn_shape *shape);

struct ep_ffn;

/** Pack the experts' matrices with a back end and make a workspace for `max_rows` rows.
 *  w13  [num_groups] row-major [hidden][inner columns]: gate columns first, then up
 *  w2   [num_groups] row-major [ffn][hidden]; both must outlive `ffn`
 *  Returns EP_EINVAL for a shape that is refused, EP_ENOMEM, EP_EENV. */
EP_MUST_CHECK enum ep_status ep_ffn_create(const struct ep_gemm_backend *backend,
                                           const struct ep_ffn_shape *shape,
                                           const void *const *w13, const void *const *w2,
                                           int64_t max_rows, struct ep_ffn **ffn);

/** Run all experts, one after the other: both GEMMs of an expert follow each other, so that its inner rows
 *  stay in a cache.
 *  num_rows  [num_groups] >= 0, their sum <= max_rows
 *  x         [sum][hidden] of the shape's dtype; read only
 *  y         [sum][hidden] float; overwritten
 *  In bf16 the first GEMM sums in fp32, the activation is taken in fp32 and rounded to bf16 (nearest
 *  even) once, the second GEMM sums in fp32. Returns EP_EINVAL for too many rows. Allocates nothing
 *  of its own; a back end may, at a number of rows that it has not seen. One thread. */
EP_MUST_CHECK enum ep_status ep_ffn_run(struct ep_ffn *ffn, const int64_t *num_rows, const void *x,
                                        float *y);
void ep_ffn_destroy(struct ep_ffn *ffn);

/** Its packed matrices: gate and up (which = 0), or down (1). Borrowed; to call its GEMMs one by one. */
const struct ep_gemm_packed *ep_ffn_gemm(const struct ep_ffn *ffn, int which);

/** Make `ffn` able to run backward: pack the transposed matrices (as much memory as forward) and make
 *  workspaces. Once per `ffn`.
 *  w13, w2    as given to ep_ffn_create; they must outlive `ffn`
 *  recompute  false: ep_ffn_run keeps its rows' z = x W13 (fp32, before the activation) and
 *             ep_ffn_backward takes them from the last run. true: nothing is kept, and ep_ffn_backward
 *             multiplies x by W13 again (a third more flops). The activation itself is always taken again
 *             from z: that saves storing it and costs no GEMM.
 *  Returns EP_ENOMEM, EP_EENV as ep_ffn_create; EP_EINVAL where it was called before. */
EP_MUST_CHECK enum ep_status ep_ffn_prepare_backward(struct ep_ffn *ffn, const void *const *w13,
                                                     const void *const *w2, bool recompute);

/** Gradients of y = FFN(x) for a loss whose gradient by y is dy. For the rows of each expert:
 *    dh = dy W2^T;  dz = dh * f'(z);  dx = dz W13^T;  dW13 = x^T dz;  dW2 = h^T dy,  h = f(z)
 *  with, for SwiGLU of z = (g, u) and s = 1 / (1 + exp(-g)): h = g s u, dg = dh u s (1 + g (1 - s)),
 *  du = dh g s; ReLU: f' = 1 where z > 0, else 0; GELU: f' = Phi(z) + z phi(z), normal distribution and
 *  density. (Chain rule; derivatives of the functions named at enum ep_ffn_kind.)
 *  num_rows  [num_groups] as in ep_ffn_run; where z is kept, those of the last run
 *  x         [sum][hidden] of the shape's dtype, as in ep_ffn_run; read only
 *  dy        [sum][hidden] of the shape's dtype; read only
 *  dx        [sum][hidden] float; overwritten
 *  dw13      [num_groups] pointers to float [hidden][inner columns]; overwritten, zeros where an expert has
 *            no row; may repeat (the last expert's stays); NULL = not wanted
 *  dw2       [num_groups] pointers to float [ffn][hidden]; the same
 *  GEMMs sum in fp32 and f' is taken in fp32; in bf16, h and dz are rounded once (nearest even) before
 *  the GEMMs that read them. Returns EP_EINVAL for too many rows, without ep_ffn_prepare_backward, and
 *  where z is kept of other numbers of rows; what a back end returns. Allocates as ep_ffn_run. */
EP_MUST_CHECK enum ep_status ep_ffn_backward(struct ep_ffn *ffn, const int64_t *num_rows,
                                             const void *x, const void *dy, float *dx,
                                             float *const *dw13, float *const *dw2);

/** f of one inner element: gate is ignored unless SWIGLU. */
float ep_ffn_activate(enum ep_ffn_kind kind, float gate, float up);

/** GEMM flops alone (2 per multiply-add): the activation is not counted, as the field does. */
double ep_ffn_flops(const struct ep_ffn_shape *shape, int64_t num_rows);

/** Flops of both gradients, dx and dW: twice the forward's, and the first GEMM again with recompute. */
double ep_ffn_backward_flops(const struct ep_ffn_shape *shape, int64_t num_rows, bool recompute);

/** Bytes that a backward must move at least: both matrices (with recompute the first one again), x and dy
 *  in, dx out, and the fp32 dW of the experts with rows (written). Inner rows are not counted. */
double ep_ffn_backward_bytes(const struct ep_ffn_shape *shape, int64_t num_active, int64_t num_rows,
                             bool recompute);

/** Bytes that must move at least: both matrices of the experts with rows, rows in and out. The inner
 *  rows are not counted (they could stay in a cache). */
double ep_ffn_bytes(const struct ep_ffn_shape *shape, int64_t num_active, int64_t num_rows);

#endif
