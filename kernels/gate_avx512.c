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

INLINE struct block block_multiply(struct block a, struct block b)
{
    return BLOCK(_mm512_mul_ps(a.v, b.v));
}

INLINE struct block block_clamp(struct block x, struct block low, struct block high,
                                struct block *changed)
{
    const __m512 held = _mm512_max_ps(_mm512_min_ps(x.v, high.v), low.v); /* min(NaN, b) is b */
    changed->v = _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(_mm512_castps_si512(changed->v), _mm512_castps_si512(held),
                                  _mm512_castps_si512(x.v), 0xf6)); /* a | (b ^ c) */
    return BLOCK(held);
}

INLINE bool block_is_clear(struct block changed)
{
    const __m512i bits = _mm512_castps_si512(changed.v);
    return _mm512_test_epi32_mask(bits, bits) == 0;
}

/* 2^(j/32) as bits, less j 2^18: with the bits of j and of a whole exponent added to them, see
 * below. */
static const uint32_t powers[32] __attribute__((aligned(64))) = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
    0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
    0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3,
};

/* Adding 1.5 x 2^18 rounds to 32nds. */
#define ROUNDER 0x1.8p18f

/* 2^n for n = index - ROUNDER, a multiple of 1/32 within [-126, 126]. The low bits of index are 32
 * n: the lowest five choose the power, and 18 places up the others are its exponent. */
INLINE __m512 power_of(__m512 index)
{
    const __m512i bits = _mm512_castps_si512(index);
    const __m512i power =
        _mm512_permutex2var_epi32(_mm512_load_si512(powers), bits, _mm512_load_si512(powers + 16));
    return _mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_slli_epi32(bits, 18)));
}

/* exp(r), |r| <= ln 2 / 64: 1 + r + r^2/2, whose error r^3/6 is spread by the linear term to a
 * quarter of it, r^3/24 = 5.3e-8 (Chebyshev): 0.9 of 2^-24. */
INLINE __m512 exp_small(__m512 r)
{
    const __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.5f), _mm512_set1_ps(1.0000147f));
    return _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
}

/* exp(x) = 2^n exp(r), n = x / ln 2 rounded to 32nds. */
INLINE struct block block_exp(struct block x)
{
    const __m512 rounder = _mm512_set1_ps(ROUNDER);
    const __m512 index = _mm512_fmadd_ps(x.v, _mm512_set1_ps(EXP_LOG2E), rounder);
    const __m512 n = _mm512_sub_ps(index, rounder);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_HIGH), x.v);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP_LN2_LOW), r);
    return BLOCK(_mm512_mul_ps(exp_small(r), power_of(index)));
}

/* 1 / (1 + exp(-x)) by the same steps, ln 2 in one part: it is off by 1.9e-9, which |x| / ln 2
 * times is 0.05 |x| of 2^-24. The reciprocal's 14 bits and one step of Newton make 28. */
INLINE struct block block_sigmoid(struct block x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 rounder = _mm512_set1_ps(ROUNDER);
    const __m512 index = _mm512_fnmadd_ps(x.v, _mm512_set1_ps(EXP_LOG2E), rounder);
    const __m512 n = _mm512_sub_ps(index, rounder);
    const __m512 r = _mm512_fnmsub_ps(n, _mm512_set1_ps(EXP_LN2), x.v);
    const __m512 d = _mm512_fmadd_ps(exp_small(r), power_of(index), one);
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
    const __m512 key = _mm512_maskz_compress_ps((__mmask16)mask, keys.v);
    const __m512i from = _mm512_maskz_compress_epi32((__mmask16)mask, idx);
    const int num = __builtin_popcount(mask);
    if (__builtin_expect(num <= 8, 1)) { /* whole registers would cross cache lines */
        _mm256_storeu_ps(to_key, _mm512_castps512_ps256(key));
        _mm256_storeu_si256((__m256i *)(void *)to_idx, _mm512_castsi512_si256(from));
    } else {
        _mm512_storeu_ps(to_key, key);
        _mm512_storeu_si512(to_idx, from);
    }
    return num;
}

/* Loads and inserts: one load of what scalar stores have just filled would wait for them. */
INLINE __m256 pick_8(const float *x, const int32_t *idx)
{
    return _mm256_setr_ps(x[idx[0]], x[idx[1]], x[idx[2]], x[idx[3]], x[idx[4]], x[idx[5]],
                          x[idx[6]], x[idx[7]]);
}

INLINE struct block block_pick(const float *x, const int32_t *idx, int64_t n)
{
    const __m256 low = pick_8(x, idx);
    const __m256 high = n <= 8 ? low : pick_8(x, idx + 8);
    return BLOCK(_mm512_castpd_ps(_mm512_insertf64x4(
        _mm512_castps_pd(_mm512_castps256_ps512(low)), _mm256_castps_pd(high), 1)));
}

INLINE struct block block_first(struct block a, int64_t n)
{
    return BLOCK(_mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), a.v));
}

INLINE void block_store_first(float *p, struct block a, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a.v);
}

/* Batcher's bitonic network, highest first: at each step lane i meets lane i ^ distance, and the
 * lanes of `higher` keep the higher. STEP(higher, met lanes). */
#define SORT_DESCENDING(STEP, v)                                                                   \
    do {                                                                                           \
        STEP(0x9999, SWAP_1(v));                                                                   \
        STEP(0xc3c3, SWAP_2(v));                                                                   \
        STEP(0xa5a5, SWAP_1(v));                                                                   \
        STEP(0xf00f, SWAP_4(v));                                                                   \
        STEP(0xcc33, SWAP_2(v));                                                                   \
        STEP(0xaa55, SWAP_1(v));                                                                   \
        STEP(0x00ff, SWAP_8(v));                                                                   \
        STEP(0x0f0f, SWAP_4(v));                                                                   \
        STEP(0x3333, SWAP_2(v));                                                                   \
        STEP(0x5555, SWAP_1(v));                                                                   \
    } while (0)

#define SWAP_1(v) _mm512_permute_ps(v, 0xb1)
#define SWAP_2(v) _mm512_permute_ps(v, 0x4e)
#define SWAP_4(v) _mm512_shuffle_f32x4(v, v, 0xb1)
#define SWAP_8(v) _mm512_shuffle_f32x4(v, v, 0x4e)

INLINE struct block block_kth(struct block a, int k)
{
    __m512 v = a.v;
#define STEP(higher, met)                                                                          \
    do {                                                                                           \
        const __m512 other = met;                                                                  \
        v = _mm512_mask_max_ps(_mm512_min_ps(v, other), higher, v, other);                         \
    } while (0)
    SORT_DESCENDING(STEP, v);
#undef STEP
    return BLOCK(_mm512_permutexvar_ps(_mm512_set1_epi32(k - 1), v));
}
#undef SWAP_1
#undef SWAP_2
#undef SWAP_4
#undef SWAP_8

/* The network of the lower eight lanes; the others are -inf, and k is at most 8. */
INLINE struct block block_kth_of_8(struct block a, int k)
{
    __m256 v = _mm512_castps512_ps256(a.v);
#define STEP(higher, met)                                                                          \
    do {                                                                                           \
        const __m256 other = met;                                                                  \
        v = _mm256_blend_ps(_mm256_min_ps(v, other), _mm256_max_ps(v, other), higher);             \
    } while (0)
    STEP(0x99, _mm256_permute_ps(v, 0xb1));
    STEP(0xc3, _mm256_permute_ps(v, 0x4e));
    STEP(0xa5, _mm256_permute_ps(v, 0xb1));
    STEP(0x0f, _mm256_permute2f128_ps(v, v, 1));
    STEP(0x33, _mm256_permute_ps(v, 0x4e));
    STEP(0x55, _mm256_permute_ps(v, 0xb1));
#undef STEP
    return BLOCK(_mm512_permutexvar_ps(_mm512_set1_epi32(k - 1), _mm512_castps256_ps512(v)));
}

#define SWAP_1(v) _mm512_shuffle_epi32(v, 0xb1)
#define SWAP_2(v) _mm512_shuffle_epi32(v, 0x4e)
#define SWAP_4(v) _mm512_shuffle_i32x4(v, v, 0xb1)
#define SWAP_8(v) _mm512_shuffle_i32x4(v, v, 0x4e)

/* One by one, for keys whose upper 28 bits tie. */
static void sort_ties(const float *keys, const int32_t *idx, int64_t num, float *to_key,
                      int32_t *to_idx)
{
    for (int64_t i = 0; i < num; i++) {
        int64_t place = 0;
        for (int64_t j = 0; j < num; j++) {
            place += keys[j] > keys[i] || (keys[j] == keys[i] && j < i);
        }
        to_key[place] = keys[i];
        to_idx[place] = idx[i];
    }
}

/* Keys become whole numbers in the same order, whose low four bits give way to the lane, so that
 * one word is sorted and tells where it came from. */
INLINE void block_sort(const float *keys, const int32_t *idx, int64_t num, float *to_key,
                       int32_t *to_idx)
{
    const __m512i lanes = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i low = _mm512_set1_epi32(15);
    const __m512 all = _mm512_load_ps(keys);
    const __m512i bits = _mm512_castps_si512(_mm512_add_ps(all, _mm512_setzero_ps())); /* no -0 */
    const __m512i sign = _mm512_srai_epi32(bits, 31);
    __m512i v = _mm512_ternarylogic_epi32(bits, sign, _mm512_set1_epi32(0x7fffffff),
                                          0x78);        /* a ^ (b & c) */
    v = _mm512_ternarylogic_epi32(v, low, lanes, 0xb8); /* b ? c : a */
#define STEP(higher, met)                                                                          \
    do {                                                                                           \
        const __m512i other = met;                                                                 \
        v = _mm512_mask_max_epi32(_mm512_min_epi32(v, other), higher, v, other);                   \
    } while (0)
    SORT_DESCENDING(STEP, v);
#undef STEP
    const __m512i upper = _mm512_srai_epi32(v, 4);
    const __m512i next = _mm512_alignr_epi32(upper, upper, 1);
    const unsigned ties = _mm512_cmpeq_epi32_mask(upper, next);
    if ((ties & ((1u << num) - 1) >> 1) != 0) {
        sort_ties(keys, idx, num, to_key, to_idx);
        return;
    }
    const __m512i from = _mm512_xor_si512(v, low);
    _mm512_store_ps(to_key, _mm512_permutexvar_ps(from, all));
    _mm512_store_si512(to_idx, _mm512_permutexvar_epi32(from, _mm512_loadu_si512(idx)));
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
