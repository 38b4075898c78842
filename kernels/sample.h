/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing distinct numbers from a counter-based stream; inline, since routing draws billions. */
#ifndef EP_KERNELS_SAMPLE_H
#define EP_KERNELS_SAMPLE_H

#include "base/random.h"

#include <stdbool.h>
#include <stdint.h>

/** Next 32 bits: as ep_random_u32, without a call for three words of four. */
static inline uint32_t ep_sample_word(struct ep_random *random)
{
    return random->num_left > 0 ? random->words[4 - random->num_left--] : ep_random_u32(random);
}

/** Uniform in [0, limit), limit >= 1, without bias. Source: Lemire, arXiv 1805.10941. */
static inline uint32_t ep_sample_below(struct ep_random *random, uint32_t limit)
{
    uint64_t product = (uint64_t)ep_sample_word(random) * limit;
    if ((uint32_t)product < limit) {
        const uint32_t threshold = -limit % limit;
        while ((uint32_t)product < threshold) {
            product = (uint64_t)ep_sample_word(random) * limit;
        }
    }
    return (uint32_t)(product >> 32);
}

static inline bool ep_sample_has(const int32_t *values, int64_t num, int32_t value)
{
    bool found = false;
    for (int64_t i = 0; i < num; i++) {
        found = found || values[i] == value;
    }
    return found;
}

/** `num` distinct numbers of [0, limit), every set equally likely; 0 <= num <= limit.
 *  Few of many: Floyd's algorithm (CACM 30(9), 1987, "A sample of brilliance"), num draws and
 *  num^2 / 2 comparisons; many of few: selection sampling (Knuth 3.4.2, algorithm S), limit draws.
 */
static inline void ep_sample_subset(struct ep_random *random, int64_t limit, int64_t num,
                                    int32_t *values)
{
    if (num * num <= 16 * limit) {
        for (int64_t i = 0; i < num; i++) {
            const int32_t last = (int32_t)(limit - num + i);
            const int32_t drawn = (int32_t)ep_sample_below(random, (uint32_t)last + 1);
            values[i] = ep_sample_has(values, i, drawn) ? last : drawn;
        }
        return;
    }
    int64_t chosen = 0;
    for (int64_t i = 0; chosen < num; i++) {
        if (ep_sample_below(random, (uint32_t)(limit - i)) < (uint32_t)(num - chosen)) {
            values[chosen++] = (int32_t)i;
        }
    }
}

#endif
