/* SPDX-License-Identifier: Apache-2.0 */
/* Register kernels of back end `native` for AVX2 with FMA; bf16 is widened in registers. */
#include "kernels/gemm_native.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define TILE_REGISTERS 16
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR __m256
#define LANES 8
#define ZERO _mm256_setzero_ps
#define ADD _mm256_add_ps
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define STREAM _mm256_stream_ps
#define WORDS(p) _mm256_load_si256((const __m256i *)(const void *)(p))
#define EVERY(word) _mm256_set1_epi32((int)(word))
#define MULTIPLY_ADD(row, weight, sum) _mm256_fmadd_ps(row, weight, sum)

#define TILE fp32
#define PARTS 1
#define WEIGHT(part, p) _mm256_castsi256_ps(WORDS(p))
#define ROW(part, word) _mm256_castsi256_ps(EVERY(word))
#include "kernels/gemm_native_tile.inc"
#undef TILE
#undef PARTS
#undef WEIGHT
#undef ROW

#define TILE widened
#define PARTS 2
#define HALF(part, words)                                                                          \
    _mm256_castsi256_ps((part) == 0 ? _mm256_slli_epi32(words, 16)                                 \
                                    : _mm256_and_si256(words, EVERY(0xffff0000u)))
#define WEIGHT(part, p) HALF(part, WORDS(p))
#define ROW(part, word) HALF(part, EVERY(word))
#include "kernels/gemm_native_tile.inc"

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* Most rows without a spill: widening takes more registers. */
enum { COLUMNS = 2 * LANES, ROWS = 6, ROWS_TWO = 2, WIDENED_ROWS = 4 };

static const struct ep_native_isa isa_fp32 = {
    "avx2 and fma", COLUMNS, ROWS, ROWS_TWO, fp32_one, fp32_two, has_avx2};
static const struct ep_native_isa isa_widened = {
    "avx2 and fma, bf16 widened", COLUMNS, WIDENED_ROWS, ROWS_TWO, widened_one, widened_two,
    has_avx2};

static const struct ep_native_isa *const for_fp32[] = {&isa_fp32, NULL};
static const struct ep_native_isa *const for_bf16[] = {&isa_widened, NULL};

const struct ep_native_isa *const *ep_native_avx2(enum ep_dtype dtype)
{
    return dtype == EP_FP32 ? for_fp32 : for_bf16;
}
#else
const struct ep_native_isa *const *ep_native_avx2(enum ep_dtype dtype)
{
    static const struct ep_native_isa *const none[] = {NULL};
    (void)dtype;
    return none;
}
#endif
