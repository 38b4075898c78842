/* SPDX-License-Identifier: Apache-2.0 */
/* Router kernels for AVX2 with FMA: a block is two registers. */
#include "kernels/gate_block.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

struct block {
    __m256 v, w;
};

#define BLOCK(v, w) ((struct block){v, w})

INLINE struct block block_load(const float *p)
{
    return BLOCK(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}

INLINE void block_store(float *p, struct block a)
{
    _mm256_storeu_ps(p, a.v);
    _mm256_storeu_ps(p + 8, a.w);
}

INLINE struct block block_every(float value)
{
    return BLOCK(_mm256_set1_ps(value), _mm256_set1_ps(value));
}

INLINE struct block block_add(struct block a, struct block b)
{
    return BLOCK(_mm256_add_ps(a.v, b.v), _mm256_add_ps(a.w, b.w));
}

INLINE struct block block_max(struct block a, struct block b)
{
    return BLOCK(_mm256_max_ps(a.v, b.v), _mm256_max_ps(a.w, b.w));
}

INLINE struct block block_min(struct block a, struct block b)
{
    return BLOCK(_mm256_min_ps(a.v, b.v), _mm256_min_ps(a.w, b.w));
}

INLINE unsigned mask_of(__m256 v, __m256 w)
{
    return (unsigned)_mm256_movemask_ps(v) | (unsigned)_mm256_movemask_ps(w) << 8;
}

INLINE unsigned block_at_least(struct block a, struct block b)
{
    return mask_of(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ), _mm256_cmp_ps(a.w, b.w, _CMP_GE_OQ));
}

INLINE unsigned block_above(struct block a, struct block b)
{
    return mask_of(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ), _mm256_cmp_ps(a.w, b.w, _CMP_GT_OQ));
}

INLINE __m256 exp_half(__m256 x)
{
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(EXP_LOG2E)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP_LN2_HIGH), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(EXP_C5);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP_C0));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

INLINE struct block block_exp(struct block x)
{
    return BLOCK(exp_half(x.v), exp_half(x.w));
}

INLINE struct block block_multiply(struct block a, struct block b)
{
    return BLOCK(_mm256_mul_ps(a.v, b.v), _mm256_mul_ps(a.w, b.w));
}

INLINE struct block block_clamp(struct block x, struct block low, struct block high,
                                struct block *changed)
{
    const __m256 v = _mm256_max_ps(_mm256_min_ps(x.v, high.v), low.v); /* min(NaN, b) is b */
    const __m256 w = _mm256_max_ps(_mm256_min_ps(x.w, high.w), low.w);
    changed->v = _mm256_or_ps(changed->v, _mm256_xor_ps(v, x.v));
    changed->w = _mm256_or_ps(changed->w, _mm256_xor_ps(w, x.w));
    return BLOCK(v, w);
}

INLINE bool block_is_clear(struct block changed)
{
    const __m256i bits = _mm256_castps_si256(_mm256_or_ps(changed.v, changed.w));
    return _mm256_testz_si256(bits, bits) != 0;
}

INLINE __m256 sigmoid_half(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 minus = _mm256_sub_ps(_mm256_setzero_ps(), x);
    return _mm256_div_ps(one, _mm256_add_ps(exp_half(minus), one));
}

INLINE struct block block_sigmoid(struct block x)
{
    return BLOCK(sigmoid_half(x.v), sigmoid_half(x.w));
}

INLINE float block_sum(struct block a)
{
    const __m256 h = _mm256_add_ps(a.v, a.w);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

INLINE float block_most(struct block a)
{
    const __m256 h = _mm256_max_ps(a.v, a.w);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

/* There is no compress: few lanes are taken, one by one. */
INLINE int64_t block_append(struct block keys, unsigned mask, int32_t first, float *to_key,
                            int32_t *to_idx)
{
    float lanes[EP_GATE_BLOCK] __attribute__((aligned(32)));
    int64_t num = 0;
    if (mask == 0) {
        return 0;
    }
    block_store(lanes, keys);
    for (; mask != 0; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        to_key[num] = lanes[lane];
        to_idx[num++] = first + lane;
    }
    return num;
}

/* -1 in the first n of 16 lanes: load 8 of them from here - n. */
static const int32_t first_lanes[3 * EP_GATE_BLOCK] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                       -1, -1, -1, -1, -1, -1, -1, -1};

INLINE __m256i first_half(int64_t n, int64_t half)
{
    return _mm256_loadu_si256(
        (const __m256i *)(const void *)(first_lanes + EP_GATE_BLOCK - n + 8 * half));
}

INLINE __m256 pick_8(const float *x, const int32_t *idx)
{
    return _mm256_setr_ps(x[idx[0]], x[idx[1]], x[idx[2]], x[idx[3]], x[idx[4]], x[idx[5]],
                          x[idx[6]], x[idx[7]]);
}

INLINE struct block block_pick(const float *x, const int32_t *idx, int64_t n)
{
    const __m256 low = pick_8(x, idx);
    return BLOCK(low, n <= 8 ? low : pick_8(x, idx + 8));
}

INLINE struct block block_first(struct block a, int64_t n)
{
    return BLOCK(_mm256_and_ps(a.v, _mm256_castsi256_ps(first_half(n, 0))),
                 _mm256_and_ps(a.w, _mm256_castsi256_ps(first_half(n, 1))));
}

INLINE void block_store_first(float *p, struct block a, int64_t n)
{
    _mm256_maskstore_ps(p, first_half(n, 0), a.v);
    if (n > 8) {
        _mm256_maskstore_ps(p + 8, first_half(n, 1), a.w);
    }
}

/* Lanes of `half` that fewer than k are above, +inf in the others. */
INLINE __m256 reach_half(const float *lanes, int k, __m256 half)
{
    __m256i above = _mm256_setzero_si256();
#pragma GCC unroll 16
    for (int j = 0; j < EP_GATE_BLOCK; j++) {
        const __m256 is_above = _mm256_cmp_ps(_mm256_broadcast_ss(lanes + j), half, _CMP_GT_OQ);
        above = _mm256_sub_epi32(above, _mm256_castps_si256(is_above));
    }
    const __m256i reach = _mm256_cmpgt_epi32(_mm256_set1_epi32(k), above);
    return _mm256_blendv_ps(_mm256_set1_ps(INFINITY), half, _mm256_castsi256_ps(reach));
}

INLINE struct block block_kth(struct block a, int k)
{
    float lanes[EP_GATE_BLOCK] __attribute__((aligned(32)));
    block_store(lanes, a);
    const __m256 h = _mm256_min_ps(reach_half(lanes, k, a.v), reach_half(lanes, k, a.w));
    __m128 q = _mm_min_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_min_ps(q, _mm_movehl_ps(q, q));
    return block_every(_mm_cvtss_f32(_mm_min_ss(q, _mm_shuffle_ps(q, q, 1))));
}

INLINE struct block block_kth_of_8(struct block a, int k)
{
    float lanes[EP_GATE_BLOCK] __attribute__((aligned(32)));
    block_store(lanes, a);
    const __m256 h = reach_half(lanes, k, a.v);
    __m128 q = _mm_min_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_min_ps(q, _mm_movehl_ps(q, q));
    return block_every(_mm_cvtss_f32(_mm_min_ss(q, _mm_shuffle_ps(q, q, 1))));
}

/* Keys above each lane of `half`, which begins at lane `first`, and those equal to it before it. */
INLINE __m256i rank_half(const float *keys, int64_t num, int64_t half)
{
    const __m256 all = _mm256_load_ps(keys + 8 * half);
    const __m256i lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                           _mm256_set1_epi32((int)(8 * half)));
    __m256i place = _mm256_setzero_si256();
    for (int64_t j = 0; j < num; j++) {
        const __m256 key = _mm256_broadcast_ss(keys + j);
        const __m256 after =
            _mm256_castsi256_ps(_mm256_cmpgt_epi32(lanes, _mm256_set1_epi32((int)j)));
        const __m256 equal = _mm256_and_ps(_mm256_cmp_ps(key, all, _CMP_EQ_OQ), after);
        const __m256 above = _mm256_or_ps(_mm256_cmp_ps(key, all, _CMP_GT_OQ), equal);
        place = _mm256_sub_epi32(place, _mm256_castps_si256(above));
    }
    return place;
}

INLINE void block_sort(const float *keys, const int32_t *idx, int64_t num, float *to_key,
                       int32_t *to_idx)
{
    int32_t places[EP_GATE_BLOCK] __attribute__((aligned(32)));
    _mm256_store_si256((__m256i *)(void *)places, rank_half(keys, num, 0));
    _mm256_store_si256((__m256i *)(void *)(places + 8), rank_half(keys, num, 1));
    for (int64_t i = 0; i < num; i++) {
        to_key[places[i]] = keys[i];
        to_idx[places[i]] = idx[i];
    }
}

/* Two sets of pairs (highest, second) become the pairs of their union, lane by lane. */
#define MERGE(high, low, a_high, a_low, b_high, b_low)                                             \
    do {                                                                                           \
        const __m256 smaller = _mm256_min_ps(a_high, b_high);                                      \
        (high) = _mm256_max_ps(a_high, b_high);                                                    \
        (low) = _mm256_max_ps(smaller, _mm256_max_ps(a_low, b_low));                               \
    } while (0)

/* Halving by transposition: eight groups of 8 lanes, four of 4 + 4, two of 4 x 2, one of 8 x 1. */
INLINE void block_sum_top2(const struct block *first, const struct block *second, float *scores)
{
    __m256 high[8], low[8];
    for (int g = 0; g < 8; g++) {
        MERGE(high[g], low[g], first[g].v, second[g].v, first[g].w, second[g].w);
    }
    for (int g = 0; g < 4; g++) {
        const __m256 a = high[g], b = high[g + 4], c = low[g], d = low[g + 4];
        MERGE(high[g], low[g], _mm256_permute2f128_ps(a, b, 0x20),
              _mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(a, b, 0x31),
              _mm256_permute2f128_ps(c, d, 0x31));
    }
    for (int g = 0; g < 2; g++) {
        const __m256 a = high[g], b = high[g + 2], c = low[g], d = low[g + 2];
        MERGE(high[g], low[g], _mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(c, d, 0x44),
              _mm256_shuffle_ps(a, b, 0xee), _mm256_shuffle_ps(c, d, 0xee));
    }
    const __m256 a = high[0], b = high[1], c = low[0], d = low[1];
    MERGE(high[0], low[0], _mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(c, d, 0x88),
          _mm256_shuffle_ps(a, b, 0xdd), _mm256_shuffle_ps(c, d, 0xdd));
    /* lanes now: groups 0 2 1 3, 4 6 5 7 */
    _mm256_storeu_ps(scores, _mm256_permute_ps(_mm256_add_ps(high[0], low[0]), 0xd8));
}

#include "kernels/gate_tile.inc"

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct ep_gate_isa ep_gate_avx2 = {"avx2 and fma", has_avx2, route_rows};
#else
static bool is_never_supported(void)
{
    return false;
}

const struct ep_gate_isa ep_gate_avx2 = {"avx2 and fma", is_never_supported, NULL};
#endif
