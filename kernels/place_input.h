/* SPDX-License-Identifier: Apache-2.0 */
/* What placements are fitted to and judged on: loads by layer, or the two parts of some tokens. */
#ifndef EP_KERNELS_PLACE_INPUT_H
#define EP_KERNELS_PLACE_INPUT_H

#include "base/error.h"
#include "kernels/place.h"
#include "kernels/place_file.h"
#include "kernels/place_profiles.h"

#include <stdbool.h>
#include <stdint.h>

/** How tokens are parted: the first share of them, or blocks in turn. */
enum ep_place_split { EP_PLACE_BY_FIRST, EP_PLACE_BY_BLOCKS };

/** Tokens of a block, where tokens are parted by blocks and where intervals are drawn. */
enum { EP_PLACE_BLOCK_TOKENS = 64 };

/** As given on the command line; 0, -1 or NULL = not given. Texts are borrowed. Exactly one of
 * counts, skew and assignments must be given. */
struct ep_place_source {
    const char *counts;       /* CSV file of loads */
    const char *skew;         /* generator or trace */
    const char *assignments;  /* trace file */
    const char *trace_format; /* of trace, counts and assignments; NULL = by content */
    int64_t layer;            /* the same */
    int64_t num_experts;
    int64_t top_k;
    int64_t tokens;    /* per rank, of a skew; 0 = 4096, a trace's own number */
    int64_t num_ranks; /* > 0 */
    uint64_t seed;
    double fit_share; /* (0, 1]: 1 = all is fitted to, none is left to judge on; 0 = 0.5 */
    enum ep_place_split split;
    enum ep_place_similarity similarity;
    struct ep_place_profiles_choice profiles; /* not for EP_PLACE_COACTIVATION */
};

/** Made by ep_place_input_load, freed with ep_place_input_fini. */
struct ep_place_input {
    const char *name; /* borrowed from the source */
    bool has_tokens;
    int64_t num_experts;
    int64_t top_k;              /* 0 without tokens */
    int64_t first_layer;        /* number of the first one: the trace's, else 0 */
    struct ep_place_counts fit; /* loads; one layer where they come from tokens */
    int32_t *topk_idx;          /* owned: fitted, then held out */
    struct ep_place_tokens fitted;
    struct ep_place_tokens held_out; /* no token where fit_share is 1 */
    bool drawn;           /* these tokens are drawn from counts: load is real, fan-out is not */
    int32_t *similar_idx; /* owned */
    struct ep_place_tokens similar; /* drawn from profiles, for searches; none: the fitted ones */
};

/** Load, generate, part and count. Returns EP_EINVAL for options that contradict each other, bad
 * files, a part without a token. */
EP_MUST_CHECK enum ep_status ep_place_input_load(const struct ep_place_source *source,
                                                 struct ep_place_input *input);
/** Tokens that say which experts are alike; NULL = nothing does. */
const struct ep_place_tokens *ep_place_input_similar(const struct ep_place_input *input);

void ep_place_input_fini(struct ep_place_input *input);

#endif
