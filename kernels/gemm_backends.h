/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the back-end table, one per gemm_*.c file, and what these files share. */
#ifndef EP_KERNELS_GEMM_BACKENDS_H
#define EP_KERNELS_GEMM_BACKENDS_H

#include "kernels/gemm.h"

extern const struct ep_gemm_backend ep_gemm_ref;
extern const struct ep_gemm_backend ep_gemm_cblas;
extern const struct ep_gemm_backend ep_gemm_onednn;
extern const struct ep_gemm_backend ep_gemm_native;
extern const struct ep_gemm_backend ep_gemm_native2;
extern const struct ep_gemm_backend ep_gemm_native3;

/** Elements of one matrix. */
static inline int64_t ep_gemm_num_weights(const struct ep_gemm_shape *shape)
{
    return shape->k * shape->n;
}

/** Zeroed memory aligned to 2 MiB (64 bytes where smaller) that asks for huge pages: a weight matrix
 *  in 4 KiB pages streams a fifth slower. Free with free(); NULL without memory. */
void *ep_gemm_alloc(int64_t size_bytes);

#endif
