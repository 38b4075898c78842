/* SPDX-License-Identifier: Apache-2.0 */
/* Inside back end `native`: what its driver asks of a register kernel. */
#ifndef EP_KERNELS_GEMM_NATIVE_H
#define EP_KERNELS_GEMM_NATIVE_H

#include "kernels/gemm.h"

#include <stdbool.h>
#include <stdint.h>

/* Of any kernel: 14 x 2 sums, 2 weights and 1 row fill 31 of 32 registers; 32 columns a panel. */
enum { EP_NATIVE_MAX_ROWS = 14, EP_NATIVE_MAX_COLUMNS = 32 };

/** What one kernel call works on: c[m][columns] (+)= x * w over `steps` of k, for one or two panels.
 *  A step is one k (fp32) or two (bf16, whose pairs lie side by side in x and in w): one word. */
struct ep_native_tile {
    int64_t steps;        /* >= 1 */
    const uint32_t *x;    /* [steps][m] words: one fp32, or two bf16, the lower k in the low half */
    const char *w[2];     /* panels, [steps][columns] words, aligned to a vector */
    const char *prefetch; /* where to fetch from alongside; one panel only */
    int64_t prefetch_bytes; /* by how much that moves each step; a step's bytes of w or less */
    float *c[2];          /* first element of each panel's block of Y */
    int64_t c_stride;     /* elements from row to row of Y */
    bool accumulate;      /* add to Y; else overwrite it */
    bool stream;          /* past the caches: overwrites, c on a line of 64 bytes, c_stride of 16 floats */
};

typedef void ep_native_fn(const struct ep_native_tile *tile);

/** The kernels of one instruction set for one dtype. */
struct ep_native_isa {
    const char *name;         /* what the kernels use, as reported */
    int columns;              /* of a panel */
    int max_rows;             /* one[1..max_rows] are kernels on one panel */
    int max_rows_two;         /* two[1..max_rows_two] are kernels on two panels at once */
    ep_native_fn *const *one; /* [max_rows + 1], [0] NULL */
    ep_native_fn *const *two; /* [max_rows_two + 1], [0] NULL */
    bool (*is_supported)(void); /* by this CPU and its operating system */
};

/** All kernels for `dtype`, best first, ended by NULL; none where the compiler's target has none. */
const struct ep_native_isa *const *ep_native_avx512(enum ep_dtype dtype);
const struct ep_native_isa *const *ep_native_avx2(enum ep_dtype dtype);

#endif
