/* SPDX-License-Identifier: Apache-2.0 */
/* What a core can do at most: arithmetic on registers alone, and streams through memory. */
#ifndef EP_KERNELS_PEAK_H
#define EP_KERNELS_PEAK_H

#include "kernels/dtype.h"

#include <stdbool.h>
#include <stdint.h>

/** A loop of independent multiply-adds on registers: no load, no store, enough sums in flight to hide
 *  the latency of any core known (>= 10). The highest rate of a dtype's loops is its peak. */
struct ep_peak_loop {
    const char *name;       /* "fma-avx512", as in benchmark names */
    enum ep_dtype dtype;    /* of the factors; sums are fp32 */
    double flops_per_round; /* a multiply-add counts 2 */
    bool (*is_supported)(void);
    float (*run)(int64_t num_rounds); /* the value only keeps the compiler honest */
};

/** All loops of this build, ended by a NULL name; those of dtype bf16 multiply bf16 in hardware. */
extern const struct ep_peak_loop ep_peak_loops[];

/** Does loop `loop` count for the peak of `dtype` on this CPU? fp32: the fp32 loops. bf16: the bf16
 *  loops; where this CPU has none, the fp32 loops, since bf16 is then widened and multiplied as fp32. */
bool ep_peak_counts_for(const struct ep_peak_loop *loop, enum ep_dtype dtype);

/** A pass over memory. `to` and `from`: 64-byte aligned, size_bytes a multiple of 4096. */
struct ep_stream_loop {
    const char *name;       /* "read", "write", "write-nt", "copy", "copy-nt", ... */
    const char *what;       /* one line, with what is not counted */
    double bytes_per_byte;  /* bytes moved per byte of size: 1, for copies 2 (read and written) */
    bool is_read;           /* a candidate for the read bandwidth: the best of these is it */
    bool is_copy;           /* uses both buffers */
    bool (*is_supported)(void);
    uint64_t (*run)(void *to, const void *from, int64_t size_bytes);
};

/** All stream loops, ended by a NULL name. Stores that go through the caches first read the line
 *  (write-allocate); that traffic is not counted. "-nt": streaming stores, which do not. */
extern const struct ep_stream_loop ep_stream_loops[];

#endif
