/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing and sampling the loops behind the measured peaks. */
#include "bench/kernels_peaks.h"

#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { NUM_TRIALS = 9 };

static const double sample_s = 4e-3;

int64_t ep_kernels_cold_bytes(const struct ep_session *session, int64_t caches)
{
    struct ep_topo_caches sizes;
    ep_topo_get_caches(session->topo, 0, &sizes);
    return caches * (sizes.l3_bytes > 0 ? sizes.l3_bytes : (int64_t)32 << 20);
}

/* Keeps the compiler from dropping a loop whose value nobody reads. */
static volatile float kept_sum;
static volatile uint64_t kept_word;

static double time_loop(const struct ep_peak_loop *loop, int64_t rounds)
{
    const double start = ep_comm_now_s();
    kept_sum = loop->run(rounds);
    return ep_comm_now_s() - start;
}

static double time_read(const struct ep_stream_loop *loop, const char *from, int64_t size_bytes)
{
    const double start = ep_comm_now_s();
    kept_word = loop->run(NULL, from, size_bytes);
    return ep_comm_now_s() - start;
}

/* Median over trials of the slowest rank's time. */
static enum ep_status settle(struct ep_session *session, double *times_s, double *median_s)
{
    const enum ep_status status = ep_comm_max_f64(session->world, times_s, NUM_TRIALS);
    ep_stats_sort(times_s, NUM_TRIALS);
    *median_s = ep_stats_median_sorted(times_s, NUM_TRIALS);
    return status;
}

static enum ep_status choose_loop(struct ep_session *session, enum ep_dtype dtype,
                                  struct ep_kernels_peaks *peaks)
{
    enum ep_status status = EP_OK;
    double best_rate = 0.0;
    for (const struct ep_peak_loop *l = ep_peak_loops; l->name != NULL; l++) {
        double times_s[NUM_TRIALS], median_s = 0.0;
        int64_t rounds = 1 << 16;
        /* all ranks must take the same loops in the same order */
        int64_t counts = !ep_peak_counts_for(l, dtype);
        EP_TRY(ep_comm_max_i64(session->world, &counts, 1));
        if (counts != 0) {
            continue;
        }
        (void)time_loop(l, rounds);
        for (int i = 0; i < NUM_TRIALS; i++) {
            EP_TRY(ep_comm_barrier(session->world));
            times_s[i] = time_loop(l, rounds);
        }
        EP_TRY(settle(session, times_s, &median_s));
        if ((double)rounds * l->flops_per_round / median_s > best_rate) {
            best_rate = (double)rounds * l->flops_per_round / median_s;
            peaks->loops[dtype] = l;
            peaks->rounds[dtype] = (int64_t)((double)rounds * sample_s / median_s) + 1;
            peaks->least_s[dtype] = times_s[0] * (double)peaks->rounds[dtype] / (double)rounds;
        }
    }
out:
    return status;
}

static enum ep_status choose_read(struct ep_session *session, struct ep_kernels_peaks *peaks)
{
    enum ep_status status = EP_OK;
    const struct ep_stream_loop *best = NULL;
    double best_s = 0.0;
    for (const struct ep_stream_loop *l = ep_stream_loops; l->name != NULL; l++) {
        double times_s[NUM_TRIALS], median_s = 0.0;
        int64_t skip = !l->is_read || !l->is_supported();
        EP_TRY(ep_comm_max_i64(session->world, &skip, 1));
        if (skip != 0) {
            continue;
        }
        peaks->read = l;
        for (int i = 0; i < NUM_TRIALS; i++) {
            EP_TRY(ep_comm_barrier(session->world));
            times_s[i] = ep_kernels_read_sample_s(peaks);
        }
        EP_TRY(settle(session, times_s, &median_s));
        /* where the memory is saturated all are alike: then take the last, which is the fastest of
         * an idle memory (wider loads and two streams come later in the table) */
        if (best == NULL || median_s < 1.08 * best_s) {
            best_s = best == NULL || median_s < best_s ? median_s : best_s;
            best = l;
        }
    }
    peaks->read = best;
out:
    return status;
}

enum ep_status ep_kernels_peaks_create(struct ep_session *session, int64_t cold_caches,
                                       struct ep_kernels_peaks **peaks)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_peaks *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->slice_bytes = (int64_t)32 << 20;
        made->buffer_bytes =
            (ep_kernels_cold_bytes(session, cold_caches) / made->slice_bytes + 1) *
            made->slice_bytes;
        made->buffer = ep_gemm_alloc(made->buffer_bytes);
    }
    if (made == NULL || made->buffer == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a buffer to read");
    } else {
        memset(made->buffer, 1, (size_t)made->buffer_bytes); /* real pages, not the zero page */
    }
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(choose_loop(session, EP_FP32, made));
    EP_TRY(choose_loop(session, EP_BF16, made));
    EP_TRY(choose_read(session, made));
    *peaks = made;
    made = NULL;
out:
    ep_kernels_peaks_destroy(made);
    return status;
}

void ep_kernels_peaks_destroy(struct ep_kernels_peaks *peaks)
{
    if (peaks != NULL) {
        free(peaks->buffer);
        free(peaks);
    }
}

double ep_kernels_peak_flops(const struct ep_kernels_peaks *peaks, enum ep_dtype dtype)
{
    return (double)peaks->rounds[dtype] * peaks->loops[dtype]->flops_per_round;
}

double ep_kernels_peak_sample_s(struct ep_kernels_peaks *peaks, enum ep_dtype dtype)
{
    return time_loop(peaks->loops[dtype], peaks->rounds[dtype]);
}

double ep_kernels_read_sample_s(struct ep_kernels_peaks *peaks)
{
    const char *from = peaks->buffer + peaks->next_byte;
    peaks->next_byte = (peaks->next_byte + peaks->slice_bytes) % peaks->buffer_bytes;
    return time_read(peaks->read, from, peaks->slice_bytes);
}
