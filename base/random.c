/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to Random123. */
#include "base/random.h"

#include "base/error.h"

#include <Random123/philox.h>

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

uint32_t ep_random_u32(struct ep_random *random)
{
    if (random->num_left == 0) {
        ep_random_philox(random->counter, random->key, random->words);
        random->counter[0]++;
        EP_ASSERT(random->counter[0] != 0); /* 2^34 words of one stream are used up */
        random->num_left = 4;
    }
    return random->words[4 - random->num_left--];
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
