/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing and sampling the loops behind the measured peaks. */
#include "bench/kernels_peaks.h"

#include "kernels/gemm_backends.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { NUM_ROUNDS = 11, MAX_CANDIDATES = 16, TRIAL_ROUNDS = 1 << 16 };

static const double sample_s = 4e-3;
/* Where memory is saturated all loops are alike: then the last one is taken, which is the fastest of an
 * idle memory (wider loads and two streams come later in the table). */
static const double tie = 0.01;

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

/* The slowest rank's time of each candidate in each round; which is the fastest.
 * times_s [num][NUM_ROUNDS], this rank's; overwritten. *least_s: its least time. */
static enum ep_status choose(struct ep_session *session, double *times_s, int64_t num,
                             int64_t *fastest, double *median_s, double *least_s)
{
    enum ep_status status = EP_OK;
    double chosen[NUM_ROUNDS];
    double slowest[MAX_CANDIDATES * NUM_ROUNDS];
    EP_TRY(ep_comm_max_f64(session->world, times_s, num * NUM_ROUNDS));
    memcpy(slowest, times_s, (size_t)num * sizeof chosen);
    *fastest = ep_stats_fastest(slowest, num, NUM_ROUNDS, tie);
    memcpy(chosen, times_s + *fastest * NUM_ROUNDS, sizeof chosen);
    ep_stats_sort(chosen, NUM_ROUNDS);
    *median_s = ep_stats_median_sorted(chosen, NUM_ROUNDS);
    *least_s = chosen[0];
out:
    return status;
}

static enum ep_status choose_loop(struct ep_session *session, enum ep_dtype dtype,
                                  struct ep_kernels_peaks *peaks)
{
    enum ep_status status = EP_OK;
    const struct ep_peak_loop *loops[MAX_CANDIDATES];
    double times_s[MAX_CANDIDATES * NUM_ROUNDS];
    int64_t num = 0, fastest = 0;
    double median_s = 0, least_s = 0;
    for (const struct ep_peak_loop *l = ep_peak_loops; l->name != NULL; l++) {
        /* all ranks must take the same loops in the same order */
        int64_t skip = !ep_peak_counts_for(l, dtype);
        EP_TRY(ep_comm_max_i64(session->world, &skip, 1));
        if (skip == 0) {
            EP_ASSERT(num < MAX_CANDIDATES);
            loops[num++] = l;
        }
    }
    for (int round = -1; round < NUM_ROUNDS; round++) { /* round -1 warms up */
        for (int64_t i = 0; i < num; i++) {
            EP_TRY(ep_comm_barrier(session->world));
            /* per flop, since loops differ in what a round of theirs does */
            const double time_s = time_loop(loops[i], TRIAL_ROUNDS) / loops[i]->flops_per_round;
            times_s[i * NUM_ROUNDS + (round < 0 ? 0 : round)] = time_s;
        }
    }
    EP_TRY(choose(session, times_s, num, &fastest, &median_s, &least_s));
    const double per_round_s = loops[fastest]->flops_per_round / (double)TRIAL_ROUNDS;
    peaks->loops[dtype] = loops[fastest];
    peaks->rounds[dtype] = (int64_t)(sample_s / (median_s * per_round_s)) + 1;
    peaks->least_s[dtype] = least_s * per_round_s * (double)peaks->rounds[dtype];
out:
    return status;
}

static enum ep_status choose_read(struct ep_session *session, struct ep_kernels_peaks *peaks)
{
    enum ep_status status = EP_OK;
    const struct ep_stream_loop *loops[MAX_CANDIDATES];
    double times_s[MAX_CANDIDATES * NUM_ROUNDS];
    int64_t num = 0, fastest = 0;
    double median_s = 0, least_s = 0;
    for (const struct ep_stream_loop *l = ep_stream_loops; l->name != NULL; l++) {
        int64_t skip = !l->is_read || !l->is_supported();
        EP_TRY(ep_comm_max_i64(session->world, &skip, 1));
        if (skip == 0) {
            EP_ASSERT(num < MAX_CANDIDATES);
            loops[num++] = l;
        }
    }
    for (int round = 0; round < NUM_ROUNDS; round++) {
        for (int64_t i = 0; i < num; i++) {
            peaks->read = loops[i];
            EP_TRY(ep_comm_barrier(session->world));
            times_s[i * NUM_ROUNDS + round] = ep_kernels_read_sample_s(peaks);
        }
    }
    EP_TRY(choose(session, times_s, num, &fastest, &median_s, &least_s));
    peaks->read = loops[fastest];
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
