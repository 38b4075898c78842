/* SPDX-License-Identifier: Apache-2.0 */
/* Weighted sums of rows, one chunk at a time so that the sums stay in registers or L1. */
#include "kernels/combine.h"

#include "base/isa.h"

enum { CHUNK = 256 };

EP_BEST_ISA static void sum_fp32(int64_t hidden, int64_t num_terms, const void *const *rows,
                              const float *weights, float *out)
{
    for (int64_t first = 0; first < hidden; first += CHUNK) {
        const int64_t num = hidden - first < CHUNK ? hidden - first : CHUNK;
        float sum[CHUNK] = {0};
        for (int64_t t = 0; t < num_terms; t++) {
            const float *row = (const float *)rows[t] + first;
            const float weight = weights[t];
            for (int64_t h = 0; h < num; h++) {
                sum[h] += weight * row[h];
            }
        }
        memcpy(out + first, sum, (size_t)num * sizeof *out);
    }
}

/* Elements from `begin` on. */
EP_BEST_ISA static void sum_bf16(int64_t begin, int64_t hidden, int64_t num_terms,
                                 const void *const *rows, const float *weights, uint16_t *out)
{
    for (int64_t first = begin; first < hidden; first += CHUNK) {
        const int64_t num = hidden - first < CHUNK ? hidden - first : CHUNK;
        float sum[CHUNK] = {0};
        for (int64_t t = 0; t < num_terms; t++) {
            const uint16_t *row = (const uint16_t *)rows[t] + first;
            const float weight = weights[t];
            for (int64_t h = 0; h < num; h++) {
                sum[h] += weight * ep_bf16_to_f32(row[h]);
            }
        }
        for (int64_t h = 0; h < num; h++) {
            out[first + h] = ep_bf16_from_f32(sum[h]);
        }
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET_AVX512 __attribute__((target("avx512f")))
enum { REGISTERS = 4, BLOCK_512 = 16 * REGISTERS, LINE = 64 };

/* As ep_bf16_from_f32, 16 at a time. */
TARGET_AVX512 static __m256i round_bf16(__m512 values)
{
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_blend_epi32(is_nan, up, quiet), 16));
}

/* The compiler's loop keeps the sums in memory, at 32 bytes a time: 16-bit elements in 64-byte vectors
 * are beyond avx512f for it. Here they stay in registers. The next rows are fetched into L2 at the pace
 * of these: a hardware prefetcher begins anew at every row and page. Returns how many elements it did. */
TARGET_AVX512 static int64_t sum_bf16_avx512(int64_t hidden, int64_t num_terms,
                                             const void *const *rows, const float *weights,
                                             const struct ep_combine_hints *hints, uint16_t *out)
{
    int64_t first = 0;
    for (; first + BLOCK_512 <= hidden; first += BLOCK_512) {
        __m512 sum[REGISTERS];
        for (int r = 0; r < REGISTERS; r++) {
            sum[r] = _mm512_setzero_ps();
        }
        for (int64_t t = 0; t < num_terms; t++) {
            const uint16_t *row = (const uint16_t *)rows[t] + first;
            const __m512 weight = _mm512_set1_ps(weights[t]);
            for (int r = 0; r < REGISTERS; r++) {
                const __m256i half = _mm256_loadu_si256((const __m256i *)(row + 16 * r));
                const __m512 values = _mm512_castsi512_ps(
                    _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
                sum[r] = _mm512_add_ps(sum[r], _mm512_mul_ps(weight, values));
            }
        }
        for (int64_t t = 0; t < hints->num_next; t++) {
            const char *next = (const char *)hints->next[t] + 2 * first;
            _mm_prefetch(next, _MM_HINT_T1);
            _mm_prefetch(next + LINE, _MM_HINT_T1);
        }
        for (int r = 0; r < REGISTERS; r += 2) {
            const __m512i both = _mm512_inserti64x4(
                _mm512_castsi256_si512(round_bf16(sum[r])), round_bf16(sum[r + 1]), 1);
            if (hints->stream) {
                _mm512_stream_si512((void *)(out + first + 16 * r), both);
            } else {
                _mm512_storeu_si512(out + first + 16 * r, both);
            }
        }
    }
    return first;
}
#endif

void ep_combine_row_hinted(enum ep_dtype dtype, int64_t hidden, int64_t num_terms,
                           const void *const *rows, const float *weights,
                           const struct ep_combine_hints *hints, void *out)
{
    EP_ASSERT(dtype == EP_FP32 || dtype == EP_BF16);
    if (dtype == EP_FP32) {
        sum_fp32(hidden, num_terms, rows, weights, out);
        return;
    }
    int64_t begin = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        struct ep_combine_hints possible = *hints;
        possible.stream = hints->stream && (uintptr_t)out % LINE == 0;
        begin = sum_bf16_avx512(hidden, num_terms, rows, weights, &possible, out);
    }
#endif
    sum_bf16(begin, hidden, num_terms, rows, weights, out);
}

void ep_combine_row(enum ep_dtype dtype, int64_t hidden, int64_t num_terms,
                    const void *const *rows, const float *weights, void *out)
{
    const struct ep_combine_hints none = {0};
    ep_combine_row_hinted(dtype, hidden, num_terms, rows, weights, &none, out);
}
