/* SPDX-License-Identifier: Apache-2.0 */
/* Which rank has which tokens: consecutive blocks of the global token index, rank by rank. */
#ifndef EP_KERNELS_TOKEN_MAP_H
#define EP_KERNELS_TOKEN_MAP_H

#include "base/error.h"

#include <stdint.h>

/** Init with ep_token_map_init_*; free with ep_token_map_fini. Read only afterwards. */
struct ep_token_map {
    int64_t num_ranks;  /* >= 1 */
    int64_t num_tokens; /* over all ranks, >= 1 */
    int64_t max_tokens; /* most tokens of one rank */
    int64_t *start;     /* [num_ranks + 1]: rank r has tokens start[r] .. start[r + 1] - 1 */
};

/** The same number of tokens on each rank. Returns EP_EINVAL where there would be no token at all.
 */
EP_MUST_CHECK enum ep_status ep_token_map_init_equal(int64_t num_ranks, int64_t tokens_per_rank,
                                                     struct ep_token_map *map);

/** tokens_per_rank [num_ranks] >= 0, read only. Refused where no rank has a token. */
EP_MUST_CHECK enum ep_status ep_token_map_init_counts(int64_t num_ranks,
                                                      const int64_t *tokens_per_rank,
                                                      struct ep_token_map *map);

/** num_tokens in all, cut into near-equal blocks: rank r has [floor(r n/P), floor((r+1) n/P)). */
EP_MUST_CHECK enum ep_status ep_token_map_init_blocks(int64_t num_ranks, int64_t num_tokens,
                                                      struct ep_token_map *map);
void ep_token_map_fini(struct ep_token_map *map);

/** The rank that has a token, 0 <= token < num_tokens. O(log num_ranks). */
int64_t ep_token_map_rank(const struct ep_token_map *map, int64_t token);

/** Tokens of one rank. */
static inline int64_t ep_token_map_count(const struct ep_token_map *map, int64_t rank)
{
    return map->start[rank + 1] - map->start[rank];
}

#endif
