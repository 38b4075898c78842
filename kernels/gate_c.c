/* SPDX-License-Identifier: Apache-2.0 */
/* Router kernels in plain C, for any CPU: a block is an array whose loops compilers vectorise. */
#include "kernels/gate_block.h"

#define TARGET
#define INLINE static inline

struct block {
    float v[EP_GATE_BLOCK];
};

#define LANES for (int i = 0; i < EP_GATE_BLOCK; i++)

INLINE struct block block_load(const float *p)
{
    struct block a;
    memcpy(a.v, p, sizeof a.v);
    return a;
}

INLINE void block_store(float *p, struct block a)
{
    memcpy(p, a.v, sizeof a.v);
}

INLINE struct block block_every(float value)
{
    struct block a;
    LANES a.v[i] = value;
    return a;
}

INLINE struct block block_add(struct block a, struct block b)
{
    LANES a.v[i] += b.v[i];
    return a;
}

INLINE struct block block_multiply(struct block a, struct block b)
{
    LANES a.v[i] *= b.v[i];
    return a;
}

INLINE struct block block_max(struct block a, struct block b)
{
    LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}

INLINE struct block block_min(struct block a, struct block b)
{
    LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}

INLINE unsigned block_at_least(struct block a, struct block b)
{
    unsigned mask = 0;
    LANES mask |= (unsigned)(a.v[i] >= b.v[i]) << i;
    return mask;
}

INLINE unsigned block_above(struct block a, struct block b)
{
    unsigned mask = 0;
    LANES mask |= (unsigned)(a.v[i] > b.v[i]) << i;
    return mask;
}

INLINE struct block block_clamp(struct block x, struct block low, struct block high,
                                struct block *changed)
{
    LANES
    {
        const float upper = x.v[i] < high.v[i] ? x.v[i] : high.v[i];
        const float held = upper > low.v[i] ? upper : low.v[i];
        changed->v[i] = held == x.v[i] ? changed->v[i] : 1.0f;
        x.v[i] = held;
    }
    return x;
}

INLINE bool block_is_clear(struct block changed)
{
    bool is_clear = true;
    LANES is_clear &= changed.v[i] == 0.0f;
    return is_clear;
}

/* Adding and taking away 1.5 x 2^23 rounds to a whole number. */
INLINE struct block block_exp(struct block x)
{
    const float rounder = 0x1.8p23f;
    LANES
    {
        const float n = x.v[i] * EXP_LOG2E + rounder - rounder;
        const float r = x.v[i] - n * EXP_LN2_HIGH - n * EXP_LN2_LOW;
        float p = EXP_C5;
        p = p * r + EXP_C4;
        p = p * r + EXP_C3;
        p = p * r + EXP_C2;
        p = p * r + EXP_C1;
        p = p * r + EXP_C0;
        p = p * (r * r) + r + 1.0f;
        const int32_t exponent = ((int32_t)n + 127) * (1 << 23);
        float power;
        memcpy(&power, &exponent, sizeof power);
        x.v[i] = p * power;
    }
    return x;
}

INLINE struct block block_sigmoid(struct block x)
{
    LANES x.v[i] = -x.v[i];
    x = block_exp(x);
    LANES x.v[i] = 1.0f / (1.0f + x.v[i]);
    return x;
}

INLINE float block_sum(struct block a)
{
    for (int half = EP_GATE_BLOCK / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            a.v[i] += a.v[i + half];
        }
    }
    return a.v[0];
}

INLINE float block_most(struct block a)
{
    float most = a.v[0];
    LANES most = a.v[i] > most ? a.v[i] : most;
    return most;
}

INLINE int64_t block_append(struct block keys, unsigned mask, int32_t first, float *to_key,
                            int32_t *to_idx)
{
    int64_t num = 0;
    LANES
    {
        to_key[num] = keys.v[i];
        to_idx[num] = first + i;
        num += mask >> i & 1;
    }
    return num;
}

INLINE struct block block_pick(const float *x, const int32_t *idx, int64_t n)
{
    struct block a;
    for (int i = 0; i < EP_GATE_BLOCK; i++) {
        a.v[i] = x[idx[n <= 8 ? i % 8 : i]];
    }
    return a;
}

INLINE struct block block_first(struct block a, int64_t n)
{
    LANES a.v[i] = i < n ? a.v[i] : 0.0f;
    return a;
}

INLINE void block_store_first(float *p, struct block a, int64_t n)
{
    memcpy(p, a.v, (size_t)n * sizeof *p);
}

INLINE struct block block_kth(struct block a, int k)
{
    int32_t above[EP_GATE_BLOCK] = {0};
    float kth = INFINITY;
    for (int j = 0; j < EP_GATE_BLOCK; j++) {
        LANES above[i] += a.v[j] > a.v[i];
    }
    LANES kth = above[i] < k && a.v[i] < kth ? a.v[i] : kth;
    return block_every(kth);
}

INLINE struct block block_kth_of_8(struct block a, int k)
{
    return block_kth(a, k);
}

INLINE void block_sort(const float *keys, const int32_t *idx, int64_t num, float *to_key,
                       int32_t *to_idx)
{
    int32_t places[EP_GATE_BLOCK] = {0};
    for (int j = 0; j < num; j++) {
        LANES places[i] += (keys[j] > keys[i]) | ((keys[j] == keys[i]) & (j < i));
    }
    for (int64_t i = 0; i < num; i++) {
        to_key[places[i]] = keys[i];
        to_idx[places[i]] = idx[i];
    }
}

INLINE void block_sum_top2(const struct block *first, const struct block *second, float *scores)
{
    for (int g = 0; g < 8; g++) {
        struct block high = first[g], low = second[g];
        for (int half = EP_GATE_BLOCK / 2; half > 0; half /= 2) {
            for (int i = 0; i < half; i++) {
                const float a = high.v[i], b = high.v[i + half];
                const float smaller = a < b ? a : b;
                const float second_best = low.v[i] > low.v[i + half] ? low.v[i] : low.v[i + half];
                high.v[i] = a < b ? b : a;
                low.v[i] = smaller > second_best ? smaller : second_best;
            }
        }
        scores[g] = high.v[0] + low.v[0];
    }
}

#include "kernels/gate_tile.inc"

static bool is_always_supported(void)
{
    return true;
}

const struct ep_gate_isa ep_gate_c = {"c", is_always_supported, route_rows};
