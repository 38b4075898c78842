/* SPDX-License-Identifier: Apache-2.0 */
/* Router kernels for AVX-512: a block is one register. */
#include "kernels/gate_block.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f")))
#define INLINE TARGET static inline __attribute__((always_inline))

struct block {
    __m512 v;
};

#define BLOCK(value) ((struct block){value})

INLINE struct block block_load(const float *p)
{
    return BLOCK(_mm512_loadu_ps(p));
}

INLINE void block_store(float *p, struct block a)
{
    _mm512_storeu_ps(p, a.v);
}

INLINE struct block block_every(float value)
{
    return BLOCK(_mm512_set1_ps(value));
}

INLINE struct block block_add(struct block a, struct block b)
{
    return BLOCK(_mm512_add_ps(a.v, b.v));
}

INLINE struct block block_max(struct block a, struct block b)
{
    return BLOCK(_mm512_max_ps(a.v, b.v));
}

INLINE struct block block_min(struct block a, struct block b)
{
    return BLOCK(_mm512_min_ps(a.v, b.v));
}

INLINE unsigned block_at_least(struct block a, struct block b)
{
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ);
}

INLINE unsigned block_above(struct block a, struct block b)
{
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ);
}

INLINE struct block block_exp(struct block x)
{
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x.v, _mm512_set1_ps(EXP_LOG2E)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_HIGH), x.v);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_LOW), r);
    __m512 p = _mm512_set1_ps(EXP_C5);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP_C0));
    const __m512 one = _mm512_set1_ps(1.0f);
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), one);
    return BLOCK(_mm512_scalef_ps(p, n));
}

/* The reciprocal's 14 bits and one step of Newton: 28. */
INLINE struct block block_sigmoid(struct block x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 lowest = _mm512_set1_ps(-87.0f);
    const __m512 minus = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), x.v), lowest);
    const __m512 d = _mm512_add_ps(block_exp(BLOCK(minus)).v, one);
    const __m512 guess = _mm512_rcp14_ps(d);
    return BLOCK(_mm512_fmadd_ps(guess, _mm512_fnmadd_ps(d, guess, one), guess));
}

INLINE float block_sum(struct block a)
{
    return _mm512_reduce_add_ps(a.v);
}

INLINE float block_most(struct block a)
{
    return _mm512_reduce_max_ps(a.v);
}

INLINE int64_t block_append(struct block keys, unsigned mask, int32_t first, float *to_key,
                            int32_t *to_idx)
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i idx = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
    _mm512_storeu_ps(to_key, _mm512_maskz_compress_ps((__mmask16)mask, keys.v));
    _mm512_storeu_si512(to_idx, _mm512_maskz_compress_epi32((__mmask16)mask, idx));
    return __builtin_popcount(mask);
}

INLINE void block_rank(const float *keys, int64_t num, int32_t *places)
{
    const __m512 all = _mm512_load_ps(keys);
    const __m512i one = _mm512_set1_epi32(1);
    __m512i place = _mm512_setzero_si512();
    for (int64_t j = 0; j < num; j++) {
        const __m512 key = _mm512_set1_ps(keys[j]);
        const unsigned after = 0xfffeu << j; /* lanes that come after j: ties go to j */
        const unsigned above = _mm512_cmp_ps_mask(key, all, _CMP_GT_OQ);
        const unsigned equal = _mm512_cmp_ps_mask(key, all, _CMP_EQ_OQ);
        place = _mm512_mask_add_epi32(place, (__mmask16)(above | (equal & after)), place, one);
    }
    _mm512_store_si512(places, place);
}

INLINE float block_kth(const float *keys, int k)
{
    const __m512 all = _mm512_load_ps(keys);
    const __m512i one = _mm512_set1_epi32(1);
    __m512i above = _mm512_setzero_si512(), above2 = above;
#pragma GCC unroll 8
    for (int j = 0; j < EP_GATE_BLOCK; j += 2) {
        const __mmask16 a = _mm512_cmp_ps_mask(_mm512_set1_ps(keys[j]), all, _CMP_GT_OQ);
        const __mmask16 b = _mm512_cmp_ps_mask(_mm512_set1_ps(keys[j + 1]), all, _CMP_GT_OQ);
        above = _mm512_mask_add_epi32(above, a, above, one);
        above2 = _mm512_mask_add_epi32(above2, b, above2, one);
    }
    above = _mm512_add_epi32(above, above2);
    const __mmask16 reach = _mm512_cmplt_epi32_mask(above, _mm512_set1_epi32(k));
    return _mm512_mask_reduce_min_ps(reach, all);
}

/* Two sets of pairs (highest, second) become the pairs of their union, lane by lane. */
#define MERGE(high, low, a_high, a_low, b_high, b_low)                                             \
    do {                                                                                           \
        const __m512 smaller = _mm512_min_ps(a_high, b_high);                                      \
        (high) = _mm512_max_ps(a_high, b_high);                                                    \
        (low) = _mm512_max_ps(smaller, _mm512_max_ps(a_low, b_low));                               \
    } while (0)

/* Halving by transposition: eight groups of 16 lanes, four of 8 + 8, two of 4 x 4, one of 8 x 2. */
INLINE void block_sum_top2(const struct block *first, const struct block *second, float *scores)
{
    __m512 high[8], low[8];
    for (int g = 0; g < 4; g++) {
        const __m512 a = first[g].v, b = first[g + 4].v, c = second[g].v, d = second[g + 4].v;
        MERGE(high[g], low[g], _mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(c, d, 0x44),
              _mm512_shuffle_f32x4(a, b, 0xee), _mm512_shuffle_f32x4(c, d, 0xee));
    }
    for (int g = 0; g < 2; g++) {
        const __m512 a = high[g], b = high[g + 2], c = low[g], d = low[g + 2];
        MERGE(high[g], low[g], _mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(c, d, 0x88),
              _mm512_shuffle_f32x4(a, b, 0xdd), _mm512_shuffle_f32x4(c, d, 0xdd));
    }
    MERGE(high[2], low[2], _mm512_shuffle_ps(high[0], high[1], 0x44),
          _mm512_shuffle_ps(low[0], low[1], 0x44), _mm512_shuffle_ps(high[0], high[1], 0xee),
          _mm512_shuffle_ps(low[0], low[1], 0xee));
    MERGE(high[3], low[3], high[2], low[2], _mm512_permute_ps(high[2], 0xb1),
          _mm512_permute_ps(low[2], 0xb1));
    /* lanes now: groups 0 0 1 1, 4 4 5 5, 2 2 3 3, 6 6 7 7 */
    const __m512i order = _mm512_setr_epi32(0, 2, 8, 10, 4, 6, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m512 sums = _mm512_permutexvar_ps(order, _mm512_add_ps(high[3], low[3]));
    _mm256_storeu_ps(scores, _mm512_castps512_ps256(sums));
}

#include "kernels/gate_tile.inc"

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

const struct ep_gate_isa ep_gate_avx512 = {"avx512f", has_avx512, route_rows};
#else
static bool is_never_supported(void)
{
    return false;
}

const struct ep_gate_isa ep_gate_avx512 = {"avx512f", is_never_supported, NULL};
#endif
