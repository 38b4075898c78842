/* SPDX-License-Identifier: Apache-2.0 */
/* Register kernels of back end `native` for AVX-512, with and without AVX512-BF16. */
#include "kernels/gemm_native.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define TILE_REGISTERS 32
#define VECTOR __m512
#define LANES 16
#define ZERO _mm512_setzero_ps
#define ADD _mm512_add_ps
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define STREAM _mm512_stream_ps
#define WORDS(p) _mm512_load_si512((const void *)(p))
#define EVERY(word) _mm512_set1_epi32((int)(word))

#define TILE fp32
#define TARGET __attribute__((target("avx512f")))
#define PARTS 1
#define WEIGHT(part, p) _mm512_castsi512_ps(WORDS(p))
#define ROW(part, word) _mm512_castsi512_ps(EVERY(word))
#define MULTIPLY_ADD(row, weight, sum) _mm512_fmadd_ps(row, weight, sum)
#include "kernels/gemm_native_tile.inc"
#undef TILE
#undef PARTS
#undef WEIGHT
#undef ROW

/* Without a dot product: the lower, then the upper bf16 of each word, widened in registers. */
#define TILE widened
#define PARTS 2
#define HALF(part, words)                                                                          \
    _mm512_castsi512_ps((part) == 0 ? _mm512_slli_epi32(words, 16)                                 \
                                    : _mm512_and_si512(words, EVERY(0xffff0000u)))
#define WEIGHT(part, p) HALF(part, WORDS(p))
#define ROW(part, word) HALF(part, EVERY(word))
#include "kernels/gemm_native_tile.inc"
#undef TILE
#undef TARGET
#undef PARTS
#undef WEIGHT
#undef ROW
#undef MULTIPLY_ADD

#define TILE bf16
#define TARGET __attribute__((target("avx512f,avx512bf16")))
#define PARTS 1
#define WEIGHT(part, p) _mm512_castsi512_ps(WORDS(p))
#define ROW(part, word) _mm512_castsi512_ps(EVERY(word))
#define MULTIPLY_ADD(row, weight, sum)                                                             \
    _mm512_dpbf16_ps(sum, (__m512bh)(row), (__m512bh)(weight))
#include "kernels/gemm_native_tile.inc"

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx512_bf16(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
}

/* Most rows without a spill: widening takes more registers. */
enum { COLUMNS = 2 * LANES, ROWS = 14, ROWS_TWO = 6, WIDENED_ROWS = 10, WIDENED_ROWS_TWO = 5 };

static const struct ep_native_isa isa_fp32 = {
    "avx512f", COLUMNS, ROWS, ROWS_TWO, fp32_one, fp32_two, has_avx512};
static const struct ep_native_isa isa_widened = {
    "avx512f, bf16 widened", COLUMNS,     WIDENED_ROWS, WIDENED_ROWS_TWO,
    widened_one,             widened_two, has_avx512};
static const struct ep_native_isa isa_bf16 = {
    "avx512_bf16", COLUMNS, ROWS, ROWS_TWO, bf16_one, bf16_two, has_avx512_bf16};

static const struct ep_native_isa *const for_fp32[] = {&isa_fp32, NULL};
static const struct ep_native_isa *const for_bf16[] = {&isa_bf16, &isa_widened, NULL};

const struct ep_native_isa *const *ep_native_avx512(enum ep_dtype dtype)
{
    return dtype == EP_FP32 ? for_fp32 : for_bf16;
}
#else
const struct ep_native_isa *const *ep_native_avx512(enum ep_dtype dtype)
{
    static const struct ep_native_isa *const none[] = {NULL};
    (void)dtype;
    return none;
}
#endif
