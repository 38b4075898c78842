/* SPDX-License-Identifier: Apache-2.0 */
/* Passes over memory: reads in one and two streams, cached and streaming writes and copies. */
#include "kernels/peak.h"

#include <stddef.h>
#include <string.h>

static bool is_always_supported(void)
{
    return true;
}

/* Plain C: two words at a time, so that every target has a reading loop. */
static uint64_t read_words(void *to, const void *from, int64_t size_bytes)
{
    const uint64_t *words = from;
    uint64_t a = 0, b = 0;
    (void)to;
    for (int64_t i = 0; i < size_bytes / 8; i += 2) {
        a ^= words[i];
        b ^= words[i + 1];
    }
    return a ^ b;
}

static uint64_t write_libc(void *to, const void *from, int64_t size_bytes)
{
    (void)from;
    memset(to, 1, (size_t)size_bytes);
    return *(const uint64_t *)to;
}

static uint64_t copy_libc(void *to, const void *from, int64_t size_bytes)
{
    memcpy(to, from, (size_t)size_bytes);
    return *(const uint64_t *)to;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET_AVX2 __attribute__((target("avx2")))
#define TARGET_AVX512 __attribute__((target("avx512f")))

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

TARGET_AVX2 static uint64_t read_avx2(void *to, const void *from, int64_t size_bytes)
{
    const __m256i *p = from;
    __m256i a = _mm256_setzero_si256(), b = a;
    (void)to;
    for (int64_t i = 0; i < size_bytes / 32; i += 4) {
        a = _mm256_xor_si256(a, _mm256_load_si256(p + i));
        b = _mm256_xor_si256(b, _mm256_load_si256(p + i + 1));
        a = _mm256_xor_si256(a, _mm256_load_si256(p + i + 2));
        b = _mm256_xor_si256(b, _mm256_load_si256(p + i + 3));
    }
    return (uint64_t)_mm256_extract_epi64(_mm256_xor_si256(a, b), 0);
}

TARGET_AVX512 static uint64_t read_avx512(void *to, const void *from, int64_t size_bytes)
{
    const char *p = from;
    __m512i a = _mm512_setzero_si512(), b = a;
    (void)to;
    for (int64_t i = 0; i < size_bytes; i += 256) {
        a = _mm512_xor_si512(a, _mm512_load_si512(p + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(p + i + 64));
        a = _mm512_xor_si512(a, _mm512_load_si512(p + i + 128));
        b = _mm512_xor_si512(b, _mm512_load_si512(p + i + 192));
    }
    return (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(_mm512_xor_si512(a, b)));
}

/* Both halves at once: two prefetched streams keep more lines in flight than one. */
TARGET_AVX512 static uint64_t read2_avx512(void *to, const void *from, int64_t size_bytes)
{
    const char *p = from, *q = p + size_bytes / 2;
    __m512i a = _mm512_setzero_si512(), b = a;
    (void)to;
    for (int64_t i = 0; i < size_bytes / 2; i += 128) {
        a = _mm512_xor_si512(a, _mm512_load_si512(p + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(p + i + 64));
        a = _mm512_xor_si512(a, _mm512_load_si512(q + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(q + i + 64));
    }
    return (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(_mm512_xor_si512(a, b)));
}

TARGET_AVX512 static uint64_t read2_fetched_avx512(void *to, const void *from, int64_t size_bytes)
{
    const char *p = from, *q = p + size_bytes / 2;
    __m512i a = _mm512_setzero_si512(), b = a;
    (void)to;
    for (int64_t i = 0; i < size_bytes / 2; i += 128) {
        _mm_prefetch(p + i + 1024, _MM_HINT_T0);
        _mm_prefetch(p + i + 1088, _MM_HINT_T0);
        _mm_prefetch(q + i + 1024, _MM_HINT_T0);
        _mm_prefetch(q + i + 1088, _MM_HINT_T0);
        a = _mm512_xor_si512(a, _mm512_load_si512(p + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(p + i + 64));
        a = _mm512_xor_si512(a, _mm512_load_si512(q + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(q + i + 64));
    }
    return (uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(_mm512_xor_si512(a, b)));
}

TARGET_AVX2 static uint64_t write_avx2(void *to, const void *from, int64_t size_bytes)
{
    __m256i *p = to;
    const __m256i value = _mm256_set1_epi64x(size_bytes);
    (void)from;
    for (int64_t i = 0; i < size_bytes / 32; i += 2) {
        _mm256_store_si256(p + i, value);
        _mm256_store_si256(p + i + 1, value);
    }
    return *(const uint64_t *)to;
}

TARGET_AVX2 static uint64_t write_nt_avx2(void *to, const void *from, int64_t size_bytes)
{
    __m256i *p = to;
    const __m256i value = _mm256_set1_epi64x(size_bytes);
    (void)from;
    for (int64_t i = 0; i < size_bytes / 32; i += 2) {
        _mm256_stream_si256(p + i, value);
        _mm256_stream_si256(p + i + 1, value);
    }
    _mm_sfence();
    return (uint64_t)size_bytes;
}

TARGET_AVX2 static uint64_t copy_avx2(void *to, const void *from, int64_t size_bytes)
{
    __m256i *p = to;
    const __m256i *q = from;
    for (int64_t i = 0; i < size_bytes / 32; i += 2) {
        _mm256_store_si256(p + i, _mm256_load_si256(q + i));
        _mm256_store_si256(p + i + 1, _mm256_load_si256(q + i + 1));
    }
    return *(const uint64_t *)to;
}

TARGET_AVX2 static uint64_t copy_nt_avx2(void *to, const void *from, int64_t size_bytes)
{
    __m256i *p = to;
    const __m256i *q = from;
    for (int64_t i = 0; i < size_bytes / 32; i += 2) {
        _mm256_stream_si256(p + i, _mm256_load_si256(q + i));
        _mm256_stream_si256(p + i + 1, _mm256_load_si256(q + i + 1));
    }
    _mm_sfence();
    return (uint64_t)size_bytes;
}
#endif

const struct ep_stream_loop ep_stream_loops[] = {
    {"read-words", "8-byte loads", 1, true, false, is_always_supported, read_words},
    {"write-libc", "memset", 1, false, false, is_always_supported, write_libc},
    {"copy-libc", "memcpy", 2, false, true, is_always_supported, copy_libc},
#if defined(__x86_64__)
    {"read-avx2", "32-byte loads", 1, true, false, has_avx2, read_avx2},
    {"read", "64-byte loads", 1, true, false, has_avx512, read_avx512},
    {"read2-fetched", "as read2, fetched 1 KiB early", 1, true, false, has_avx512,
     read2_fetched_avx512},
    {"read2", "64-byte loads in two streams", 1, true, false, has_avx512, read2_avx512},
    {"write", "32-byte stores; their line reads are not counted", 1, false, false, has_avx2,
     write_avx2},
    {"write-nt", "32-byte streaming stores", 1, false, false, has_avx2, write_nt_avx2},
    {"copy", "32-byte loads and stores; the stores' line reads are not counted", 2, false, true,
     has_avx2, copy_avx2},
    {"copy-nt", "32-byte loads, streaming stores", 2, false, true, has_avx2, copy_nt_avx2},
#endif
    {.name = NULL},
};
