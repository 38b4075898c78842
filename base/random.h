/* SPDX-License-Identifier: Apache-2.0 */
/* Counter-based random numbers (Philox4x32-10): the same everywhere, in any order of asking. */
#ifndef EP_BASE_RANDOM_H
#define EP_BASE_RANDOM_H

#include <stdint.h>

/** What a stream of numbers is for: two uses never share a stream. */
enum ep_random_use {
    EP_RANDOM_ROUTING = 1, /* stream = global token index */
    EP_RANDOM_PERMUTATION, /* which expert has which popularity */
    EP_RANDOM_ORDER,       /* the order of cases in a run */
    EP_RANDOM_PATTERN,     /* payload and matrix contents */
    EP_RANDOM_BOOTSTRAP,   /* stream = replicate */
    EP_RANDOM_WEIGHTS,     /* router weights of tokens */
    EP_RANDOM_TEST,
    EP_RANDOM_CLUSTERS = 24, /* synthetic tokens; stream = kernels/clusters.c */
    EP_RANDOM_DYNAMICS,      /* initial weights and jitter; stream = kernels/dynamics.c */
    EP_RANDOM_DROPPING = 32, /* stream = global token index: which copies a full expert keeps */
    EP_RANDOM_POPULARITY = 36, /* stream = expert */
    EP_RANDOM_MASK,            /* stream = global token index: which slots are unused */
    EP_RANDOM_GATE = 40,     /* chance within routers; stream = global token index */
    EP_RANDOM_TOKEN_ID = 41, /* vocabulary ids; stream = global token index */
    EP_RANDOM_LOGITS = 42,   /* stream = global token index */
    EP_RANDOM_PLANTED = 44   /* noise of synthetic records */
};

enum { EP_RANDOM_WORDS = 16, EP_RANDOM_LANES = 8 };

/** A stream: the numbers depend on (seed, use, stream) alone. Copy freely; owns nothing. */
struct ep_random {
    uint32_t key[2];
    uint32_t counter[4]; /* of the next block */
    uint32_t words[EP_RANDOM_WORDS]; /* the last num_left are unread */
    int num_left;
};

void ep_random_init(struct ep_random *random, uint64_t seed, enum ep_random_use use,
                    uint64_t stream);

/** As ep_random_init for streams first_stream .. first_stream + EP_RANDOM_LANES - 1, their first words
 *  made together: faster, and the same numbers.
 *  random     [EP_RANDOM_LANES] overwritten
 *  num_words  to make at once: rounded up to a multiple of 4, at most EP_RANDOM_WORDS */
void ep_random_init_lanes(struct ep_random *random, uint64_t seed, enum ep_random_use use,
                          uint64_t first_stream, int64_t num_words);

/** The first words of those streams alone, for generators that work on all lanes at once.
 *  num_words  rounded up to a multiple of 4
 *  words      [num_words so rounded][EP_RANDOM_LANES] overwritten: word w of stream l in words[w][l], below 2^32 */
void ep_random_fill_lanes(uint64_t seed, enum ep_random_use use, uint64_t first_stream,
                          int64_t num_words, uint64_t words[][EP_RANDOM_LANES]);

uint32_t ep_random_u32(struct ep_random *random);
uint64_t ep_random_u64(struct ep_random *random);

/** Uniform in [0, 1), 53 bits. */
double ep_random_f64(struct ep_random *random);

/** Uniform in [0, limit), limit >= 1, without bias. Source: Lemire, arXiv 1805.10941. */
uint32_t ep_random_below(struct ep_random *random, uint32_t limit);

/** Normal variates of mean 0, by pairs (Box and Muller, 1958): the same for a seed with one C library, whose
 *  logf, sinf and cosf they go through. values [num] overwritten. */
void ep_random_normals(struct ep_random *random, float deviation, float *values, int64_t num);

/** One Philox4x32-10 block, for bulk generators and the golden test. */
void ep_random_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/** Fisher-Yates shuffle of `values` [num] in place. */
void ep_random_shuffle_i64(struct ep_random *random, int64_t *values, int64_t num);

#endif
