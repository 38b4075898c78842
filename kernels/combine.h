/* SPDX-License-Identifier: Apache-2.0 */
/* The weighted sum of expert results that combine ends with: fp32 sums, vectorised. */
#ifndef EP_KERNELS_COMBINE_H
#define EP_KERNELS_COMBINE_H

#include "kernels/dtype.h"

#include <stdbool.h>
#include <stdint.h>

/** What helps where rows come from memory, not from caches; none of it changes a sum. */
struct ep_combine_hints {
    bool stream;             /* write past the caches; end with ep_row_stream_end of kernels/row_copy.h */
    int64_t num_next;        /* rows of the next call, of as many elements, fetched meanwhile */
    const void *const *next; /* [num_next] */
};

/** out[h] = sum over t of weights[t] * rows[t][h], summed in fp32 in the order of t, rounded once.
 *  dtype      EP_FP32 or EP_BF16, of rows and out
 *  rows       [num_terms] pointers to rows of `hidden` elements, read only, any alignment
 *  weights    [num_terms]
 *  num_terms  >= 0; 0 writes zeros
 *  out        [hidden]; must not overlap a row
 *  Reads num_terms rows and writes one. The instruction set is chosen at run time. */
void ep_combine_row(enum ep_dtype dtype, int64_t hidden, int64_t num_terms,
                    const void *const *rows, const float *weights, void *out);

/** The same, with hints. */
void ep_combine_row_hinted(enum ep_dtype dtype, int64_t hidden, int64_t num_terms,
                           const void *const *rows, const float *weights,
                           const struct ep_combine_hints *hints, void *out);

#endif
