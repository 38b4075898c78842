/* SPDX-License-Identifier: Apache-2.0 */
/* Loops of multiply-adds on registers: SSE-width C, AVX2, AVX-512, AVX512-BF16 and AMX. */
#include "kernels/peak.h"

#include <stddef.h>
#include <string.h>

/* Sums stay finite: factors of 1 - 2^-23 on sums that start at most at 1, and nothing is added that
 * would make them subnormal. */

typedef float float4 __attribute__((vector_size(16)));

static bool is_always_supported(void)
{
    return true;
}

/* Plain C on 16-byte vectors: a multiply and an add where the target has no fused one. */
static float run_vector16(int64_t num_rounds)
{
    float4 sums[12];
    float4 factor = {0.9999999f, 0.9999999f, 0.9999999f, 0.9999999f};
    float4 term = {1e-9f, 1e-9f, 1e-9f, 1e-9f};
    for (int i = 0; i < 12; i++) {
        sums[i] = term * (float)(i + 1);
    }
    for (int64_t round = 0; round < num_rounds; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) {
            sums[i] = sums[i] * factor + term;
        }
    }
    for (int i = 1; i < 12; i++) {
        sums[0] += sums[i];
    }
    return sums[0][0] + sums[0][1] + sums[0][2] + sums[0][3];
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

__attribute__((target("avx2,fma"))) static float run_avx2(int64_t num_rounds)
{
    __m256 sums[12];
    const __m256 factor = _mm256_set1_ps(0.9999999f), term = _mm256_set1_ps(1e-9f);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) {
        sums[i] = _mm256_set1_ps((float)i);
    }
    for (int64_t round = 0; round < num_rounds; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) {
            sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
        }
    }
#pragma GCC unroll 12
    for (int i = 1; i < 12; i++) {
        sums[0] = _mm256_add_ps(sums[0], sums[i]);
    }
    return _mm256_cvtss_f32(sums[0]);
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

__attribute__((target("avx512f"))) static float run_avx512(int64_t num_rounds)
{
    __m512 sums[16];
    const __m512 factor = _mm512_set1_ps(0.9999999f), term = _mm512_set1_ps(1e-9f);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    for (int64_t round = 0; round < num_rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            sums[i] = _mm512_fmadd_ps(sums[i], factor, term);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < 16; i++) {
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    }
    return _mm512_cvtss_f32(sums[0]);
}

static bool has_avx512_bf16(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
}

__attribute__((target("avx512f,avx512bf16"))) static float run_avx512_bf16(int64_t num_rounds)
{
    __m512 sums[16];
    const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3c003c00); /* pairs of 2^-7 */
    const __m512bh b = (__m512bh)_mm512_set1_epi32(0x3c013c01);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    for (int64_t round = 0; round < num_rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < 16; i++) {
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    }
    return _mm512_cvtss_f32(sums[0]);
}

/* CPUID leaf 7, EDX: bit 22 AMX-BF16, bit 24 AMX-TILE. Linux grants tile data on request
 * (arch_prctl ARCH_REQ_XCOMP_PERM, feature 18). Not tried on such a CPU yet. */
static bool has_amx_bf16(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx >> 22 & 1) == 0 ||
        (edx >> 24 & 1) == 0) {
        return false;
    }
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* Palette 1: eight tiles of 16 rows of 64 bytes. Four sums, as many products in flight. */
__attribute__((target("amx-tile,amx-bf16"))) static float run_amx_bf16(int64_t num_rounds)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config;
    float out[16 * 16];
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t round = 0; round < num_rounds; round++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, 64);
    _tile_release();
    return out[0];
}
#endif

const struct ep_peak_loop ep_peak_loops[] = {
    {"fma-vector16", EP_FP32, 12 * 4 * 2, is_always_supported, run_vector16},
#if defined(__x86_64__)
    {"fma-avx2", EP_FP32, 12 * 8 * 2, has_avx2, run_avx2},
    {"fma-avx512", EP_FP32, 16 * 16 * 2, has_avx512, run_avx512},
    {"dot-avx512_bf16", EP_BF16, 16 * 32 * 2, has_avx512_bf16, run_avx512_bf16},
    {"dot-amx_bf16", EP_BF16, 4 * 16 * 16 * 32 * 2, has_amx_bf16, run_amx_bf16},
#endif
    {.name = NULL},
};

bool ep_peak_counts_for(const struct ep_peak_loop *loop, enum ep_dtype dtype)
{
    if (!loop->is_supported() || (dtype != EP_FP32 && dtype != EP_BF16)) {
        return false;
    }
    if (loop->dtype == dtype) {
        return true;
    }
    if (dtype == EP_FP32) {
        return false;
    }
    for (const struct ep_peak_loop *l = ep_peak_loops; l->name != NULL; l++) {
        if (l->dtype == EP_BF16 && l->is_supported()) {
            return false;
        }
    }
    return true;
}
