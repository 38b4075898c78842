/* SPDX-License-Identifier: Apache-2.0 */
/* The measured peaks that GEMMs are held against, taken on all ranks at once. */
#ifndef EP_BENCH_KERNELS_PEAKS_H
#define EP_BENCH_KERNELS_PEAKS_H

#include "base/error.h"
#include "bench/session.h"
#include "kernels/peak.h"

#include <stdint.h>

/** The best loops of this machine, and a buffer to read. */
struct ep_kernels_peaks {
    const struct ep_peak_loop *loops[EP_NUM_DTYPES]; /* NULL for fp8 */
    int64_t rounds[EP_NUM_DTYPES];                   /* that take about 4 ms */
    double least_s[EP_NUM_DTYPES];                   /* best sample so far, slowest rank's; s */
    const struct ep_stream_loop *read;
    char *buffer;
    int64_t buffer_bytes;
    int64_t slice_bytes; /* read by one sample */
    int64_t next_byte;   /* where the next slice begins */
};

/** Bytes that must go by before a matrix is cold: `caches` times the last-level cache of the first host
 *  (32 MiB where that is unknown). */
int64_t ep_kernels_cold_bytes(const struct ep_session *session, int64_t caches);

/** Run all candidate loops by turns, in several rounds, on all ranks together and keep the fastest of each
 *  kind (see ep_stats_fastest). Collective. */
EP_MUST_CHECK enum ep_status ep_kernels_peaks_create(struct ep_session *session,
                                                     int64_t cold_caches,
                                                     struct ep_kernels_peaks **peaks);
void ep_kernels_peaks_destroy(struct ep_kernels_peaks *peaks);

/** One sample, this rank's own: the rate that it stands for is ep_kernels_peak_flops(..) / time, and
 *  slice_bytes / time. Not collective: synchronise before. */
double ep_kernels_peak_sample_s(struct ep_kernels_peaks *peaks, enum ep_dtype dtype);
double ep_kernels_read_sample_s(struct ep_kernels_peaks *peaks);

/** Flops of one peak sample. */
double ep_kernels_peak_flops(const struct ep_kernels_peaks *peaks, enum ep_dtype dtype);

#endif
