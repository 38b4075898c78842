/* SPDX-License-Identifier: Apache-2.0 */
/* Similarity of experts from counts: which load they have in the same domains, or after the same
 * expert of another layer; and tokens drawn so as to stand for it. */
#ifndef EP_KERNELS_PLACE_PROFILES_H
#define EP_KERNELS_PLACE_PROFILES_H

#include "base/error.h"

#include <stdint.h>

/** What says that experts are alike. */
enum ep_place_similarity {
    EP_PLACE_COACTIVATION, /* tokens themselves: chosen together in a layer */
    EP_PLACE_DOMAINS,      /* load in the same domains of text */
    EP_PLACE_LAYERS,       /* chosen after (or before) the same experts of another layer */
    EP_PLACE_NUM_SIMILARITIES
};

/** "coactivation", "domains", "layers". */
const char *ep_place_similarity_name(enum ep_place_similarity similarity);
EP_MUST_CHECK enum ep_status ep_place_similarity_parse(const char *text, const char *what,
                                                       enum ep_place_similarity *similarity);

/** Which rows of a table are meant; NULL, -1 = not said: the table must have one only. */
struct ep_place_profiles_choice {
    const char *path; /* NULL = the table built into the program */
    const char *model;
    int64_t layer;
};

/** Copies by class and expert: a class is a domain, or an expert of the other layer in a domain. */
struct ep_place_profiles {
    int64_t num_classes;
    int64_t num_experts;
    int64_t top_k;  /* 0 = the table does not say */
    double *weight; /* [num_classes][num_experts] >= 0; classes of a domain are neighbours */
};

/** Read EP_PLACE_DOMAINS (CSV with columns model, top_k, domain, layer, expert, count_topk) or
 *  EP_PLACE_LAYERS (model, domain, layer_a, layer_b, expert_a, expert_b, count; the pair of layers
 * that ends in the layer meant, else the one that begins there). Other columns are not read.
 * Returns EP_EINVAL with file:line for missing columns, odd numbers, an entry that comes twice, a
 * model or layer that is not there or not said; EP_EENV where this build has no table of its own.
 */
EP_MUST_CHECK enum ep_status ep_place_profiles_load(enum ep_place_similarity similarity,
                                                    const struct ep_place_profiles_choice *choice,
                                                    struct ep_place_profiles *profiles);
void ep_place_profiles_fini(struct ep_place_profiles *profiles);

/** Draw tokens that choose as the profiles say: classes in their order, each with as many tokens as
 * its share of all copies. In a class an expert is among a token's top_k with the probability of
 * its share (top_k times it; once, where that is above 1), and which come together is chance
 *  (kernels/count_sampler.h). -1 where a class has fewer experts than top_k.
 *  topk_idx  [num_tokens][top_k] overwritten */
EP_MUST_CHECK enum ep_status ep_place_profiles_draw(const struct ep_place_profiles *profiles,
                                                    int64_t num_tokens, int64_t top_k,
                                                    uint64_t seed, int32_t *topk_idx);

#endif
