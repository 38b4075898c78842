/* SPDX-License-Identifier: Apache-2.0 */
/* Subsets of many streams at once: lane l of a vector belongs to stream first + l. */
#include "kernels/sample.h"

#include "base/isa.h"

#include <string.h>

/* 32-bit values in 64 bits each, so that products need no shuffling. */
typedef uint64_t lanes __attribute__((vector_size(8 * EP_RANDOM_LANES)));

/* Floyd's algorithm for EP_RANDOM_LANES streams. `again` is not 0 for lanes in which a word may have to be
 * drawn again (Lemire's first test): their numbers do not hold. */
static inline __attribute__((always_inline)) void draw_lanes(uint64_t words[][EP_RANDOM_LANES],
                                                             int64_t limit, int64_t num,
                                                             lanes *drawn, lanes *again)
{
    const lanes zero = {0};
    const lanes low = zero + UINT32_MAX;
    *again = zero;
    for (int64_t i = 0; i < num; i++) {
        const uint64_t last = (uint64_t)(limit - num + i);
        lanes word;
        memcpy(&word, words[i], sizeof word);
        const lanes product = word * (last + 1);
        const lanes number = product >> 32;
        lanes found = zero;
        for (int64_t j = 0; j < i; j++) {
            found |= (lanes)(drawn[j] == number);
        }
        *again |= (lanes)((product & low) < zero + (last + 1));
        drawn[i] = (found & last) | (~found & number);
    }
}

static void draw_alone(uint64_t seed, enum ep_random_use use, uint64_t stream, int64_t limit,
                       int64_t num, int32_t *values)
{
    struct ep_random random;
    ep_random_init(&random, seed, use, stream);
    ep_sample_subset(&random, limit, num, values);
}

static EP_BEST_ISA void draw_together(uint64_t seed, enum ep_random_use use, uint64_t first_stream,
                                      int64_t num_groups, int64_t limit, int64_t num,
                                      int32_t *values)
{
    uint64_t words[EP_RANDOM_WORDS][EP_RANDOM_LANES];
    lanes drawn[EP_RANDOM_WORDS];
    for (int64_t g = 0; g < num_groups; g++) {
        const uint64_t first = first_stream + (uint64_t)(g * EP_RANDOM_LANES);
        int32_t *group = values + g * EP_RANDOM_LANES * num;
        ep_random_fill_lanes(seed, use, first, num, words);
        lanes again;
        draw_lanes(words, limit, num, drawn, &again);
        for (int l = 0; l < EP_RANDOM_LANES; l++) {
            for (int64_t i = 0; i < num; i++) {
                group[l * num + i] = (int32_t)drawn[i][l];
            }
            if (again[l] != 0) {
                draw_alone(seed, use, first + (uint64_t)l, limit, num, group + l * num);
            }
        }
    }
}

void ep_sample_subsets(uint64_t seed, enum ep_random_use use, uint64_t first_stream,
                       int64_t num_tokens, int64_t limit, int64_t num, int32_t *values)
{
    int64_t done = 0;
    if (num <= EP_RANDOM_WORDS && ep_sample_is_few(limit, num)) {
        const int64_t num_groups = num_tokens / EP_RANDOM_LANES;
        draw_together(seed, use, first_stream, num_groups, limit, num, values);
        done = num_groups * EP_RANDOM_LANES;
    }
    for (int64_t t = done; t < num_tokens; t++) {
        draw_alone(seed, use, first_stream + (uint64_t)t, limit, num, values + t * num);
    }
}
