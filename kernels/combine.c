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

EP_BEST_ISA static void sum_bf16(int64_t hidden, int64_t num_terms, const void *const *rows,
                              const float *weights, uint16_t *out)
{
    for (int64_t first = 0; first < hidden; first += CHUNK) {
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

void ep_combine_row(enum ep_dtype dtype, int64_t hidden, int64_t num_terms,
                    const void *const *rows, const float *weights, void *out)
{
    EP_ASSERT(dtype == EP_FP32 || dtype == EP_BF16);
    if (dtype == EP_FP32) {
        sum_fp32(hidden, num_terms, rows, weights, out);
    } else {
        sum_bf16(hidden, num_terms, rows, weights, out);
    }
}
