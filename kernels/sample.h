/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing distinct numbers from a counter-based stream; inline, since routing draws billions. */
#ifndef EP_KERNELS_SAMPLE_H
#define EP_KERNELS_SAMPLE_H

#include "base/random.h"

#include <stdbool.h>
#include <stdint.h>

/** Streams of up to EP_RANDOM_LANES tokens from `first_token`, with words for `num_draws` draws
 * made at once (more are made as they are drawn). Returns the tokens, at most `num_tokens`. */
static inline int64_t ep_sample_tokens(struct ep_random *random, uint64_t seed,
                                       enum ep_random_use use, int64_t first_token,
                                       int64_t num_tokens, int64_t num_draws)
{
    ep_random_init_lanes(random, seed, use, (uint64_t)first_token,
                         num_draws < EP_RANDOM_WORDS ? num_draws : EP_RANDOM_WORDS);
    return num_tokens < EP_RANDOM_LANES ? num_tokens : EP_RANDOM_LANES;
}

/** Next 32 bits: as ep_random_u32, without a call for words that are made already. */
static inline uint32_t ep_sample_word(struct ep_random *random)
{
    return random->num_left > 0 ? random->words[EP_RANDOM_WORDS - random->num_left--]
                                : ep_random_u32(random);
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

/** Whether ep_sample_subset draws by Floyd's algorithm. */
static inline bool ep_sample_is_few(int64_t limit, int64_t num)
{
    return num * num <= 16 * limit;
}

/** `num` distinct numbers of [0, limit), every set equally likely; 0 <= num <= limit.
 *  Few of many: Floyd's algorithm (CACM 30(9), 1987, "A sample of brilliance"), num draws and
 *  num^2 / 2 comparisons; many of few: selection sampling (Knuth 3.4.2, algorithm S), limit draws.
 */
static inline void ep_sample_subset(struct ep_random *random, int64_t limit, int64_t num,
                                    int32_t *values)
{
    if (ep_sample_is_few(limit, num)) {
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

/** The subsets of `num_tokens` streams from `first_stream`, each as ep_sample_subset would draw it from its own
 *  stream, several streams at once.
 *  values  [num_tokens][num] overwritten */
void ep_sample_subsets(uint64_t seed, enum ep_random_use use, uint64_t first_stream,
                       int64_t num_tokens, int64_t limit, int64_t num, int32_t *values);

#endif
