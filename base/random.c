/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to Random123. */
#include "base/random.h"

#include "base/error.h"
#include "base/isa.h"

#include <Random123/philox.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 4 }; /* words of a Philox block */

/* 32-bit values of eight streams, in 64 bits each so that products need no shuffling. */
typedef uint64_t lanes __attribute__((vector_size(8 * EP_RANDOM_LANES)));

void ep_random_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4])
{
    const philox4x32_ctr_t c = {{counter[0], counter[1], counter[2], counter[3]}};
    const philox4x32_key_t k = {{key[0], key[1]}};
    const philox4x32_ctr_t out = philox4x32_R(10, c, k);
    for (int i = 0; i < 4; i++) {
        words[i] = out.v[i];
    }
}

void ep_random_init(struct ep_random *random, uint64_t seed, enum ep_random_use use,
                    uint64_t stream)
{
    *random = (struct ep_random){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, (uint32_t)use, (uint32_t)stream, (uint32_t)(stream >> 32)},
    };
}

/* Philox4x32-10 on lanes. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011;
 * Random123 has no vector form. The test holds it to ep_random_philox, word by word. */
static inline __attribute__((always_inline)) void
philox_lanes(uint64_t block, uint64_t use, uint64_t first_stream, uint64_t seed,
             uint64_t words[BLOCK][EP_RANDOM_LANES])
{
    const lanes zero = {0};
    const lanes low = zero + UINT32_MAX;
    const lanes stream = (lanes){0, 1, 2, 3, 4, 5, 6, 7} + first_stream;
    lanes c0 = zero + block;
    lanes c1 = zero + use;
    lanes c2 = stream & low;
    lanes c3 = stream >> 32;
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const lanes a = c0 * UINT64_C(0xd2511f53);
        const lanes b = c2 * UINT64_C(0xcd9e8d57);
        c0 = (b >> 32) ^ c1 ^ (uint64_t)k0;
        c1 = b & low;
        c2 = (a >> 32) ^ c3 ^ (uint64_t)k1;
        c3 = a & low;
        k0 += UINT32_C(0x9e3779b9);
        k1 += UINT32_C(0xbb67ae85);
    }
    memcpy(words[0], &c0, sizeof c0);
    memcpy(words[1], &c1, sizeof c1);
    memcpy(words[2], &c2, sizeof c2);
    memcpy(words[3], &c3, sizeof c3);
}

EP_BEST_ISA void ep_random_fill_lanes(uint64_t seed, enum ep_random_use use, uint64_t first_stream,
                                   int64_t num_words, uint64_t words[][EP_RANDOM_LANES])
{
    for (int64_t w = 0; w < num_words; w += BLOCK) {
        philox_lanes((uint64_t)(w / BLOCK), (uint64_t)use, first_stream, seed, words + w);
    }
}

void ep_random_init_lanes(struct ep_random *random, uint64_t seed, enum ep_random_use use,
                          uint64_t first_stream, int64_t num_words)
{
    const int num_blocks = (int)(num_words + BLOCK - 1) / BLOCK;
    const int num_left = num_blocks * BLOCK;
    uint64_t words[EP_RANDOM_WORDS][EP_RANDOM_LANES];
    EP_ASSERT(num_left <= EP_RANDOM_WORDS);
    ep_random_fill_lanes(seed, use, first_stream, num_words, words);
    for (int l = 0; l < EP_RANDOM_LANES; l++) {
        const uint64_t s = first_stream + (uint64_t)l;
        random[l].key[0] = (uint32_t)seed;
        random[l].key[1] = (uint32_t)(seed >> 32);
        random[l].counter[0] = (uint32_t)num_blocks;
        random[l].counter[1] = (uint32_t)use;
        random[l].counter[2] = (uint32_t)s;
        random[l].counter[3] = (uint32_t)(s >> 32);
        random[l].num_left = num_left;
        for (int w = 0; w < num_left; w++) {
            random[l].words[EP_RANDOM_WORDS - num_left + w] = (uint32_t)words[w][l];
        }
    }
}

uint32_t ep_random_u32(struct ep_random *random)
{
    if (random->num_left == 0) {
        ep_random_philox(random->counter, random->key, random->words + EP_RANDOM_WORDS - BLOCK);
        random->counter[0]++;
        EP_ASSERT(random->counter[0] != 0); /* 2^34 words of one stream are used up */
        random->num_left = BLOCK;
    }
    return random->words[EP_RANDOM_WORDS - random->num_left--];
}

uint64_t ep_random_u64(struct ep_random *random)
{
    const uint64_t high = ep_random_u32(random);
    return high << 32 | ep_random_u32(random);
}

double ep_random_f64(struct ep_random *random)
{
    return (double)(ep_random_u64(random) >> 11) * 0x1p-53;
}

uint32_t ep_random_below(struct ep_random *random, uint32_t limit)
{
    EP_ASSERT(limit >= 1);
    uint64_t product = (uint64_t)ep_random_u32(random) * limit;
    if ((uint32_t)product < limit) {
        const uint32_t threshold = -limit % limit;
        while ((uint32_t)product < threshold) {
            product = (uint64_t)ep_random_u32(random) * limit;
        }
    }
    return (uint32_t)(product >> 32);
}

void ep_random_normals(struct ep_random *random, float deviation, float *values, int64_t num)
{
    for (int64_t i = 0; i < num; i += 2) {
        /* (0, 1]: its logarithm is finite */
        const float u = ((float)(ep_random_u32(random) >> 8) + 1) * 0x1p-24f;
        const float angle = (float)(ep_random_u32(random) >> 8) * (6.28318530717958648f * 0x1p-24f);
        const float radius = deviation * sqrtf(-2 * logf(u));
        values[i] = radius * cosf(angle);
        if (i + 1 < num) {
            values[i + 1] = radius * sinf(angle);
        }
    }
}

void ep_random_shuffle_i64(struct ep_random *random, int64_t *values, int64_t num)
{
    EP_ASSERT(num <= UINT32_MAX);
    for (int64_t i = num - 1; i > 0; i--) {
        const int64_t j = ep_random_below(random, (uint32_t)(i + 1));
        const int64_t kept = values[i];
        values[i] = values[j];
        values[j] = kept;
    }
}
