/* SPDX-License-Identifier: Apache-2.0 */
/* Token blocks as a prefix array over ranks. */
#include "kernels/token_map.h"

#include "kernels/placement.h"

#include <inttypes.h>
#include <stdlib.h>

#define MAX_TOKENS ((int64_t)1 << 48)

static enum ep_status allocate(int64_t num_ranks, struct ep_token_map *map)
{
    if (num_ranks < 1 || num_ranks > EP_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " ranks are outside 1 to %d", num_ranks,
                            EP_MAX_RANKS);
    }
    *map = (struct ep_token_map){.num_ranks = num_ranks};
    map->start = calloc((size_t)num_ranks + 1, sizeof *map->start);
    return map->start != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a token map");
}

/* start[r + 1] holds the count of rank r; makes the prefix sums. */
static enum ep_status finish(struct ep_token_map *built, struct ep_token_map *map)
{
    for (int64_t r = 0; r < built->num_ranks; r++) {
        const int64_t count = built->start[r + 1];
        if (count < 0 || count > MAX_TOKENS - built->start[r]) {
            ep_token_map_fini(built);
            return ep_error_set(EP_EINVAL,
                                "rank %" PRId64 " has %" PRId64
                                " tokens; 0 and more expected, 2^48 over all ranks at most",
                                r, count);
        }
        built->max_tokens = count > built->max_tokens ? count : built->max_tokens;
        built->start[r + 1] = built->start[r] + count;
    }
    built->num_tokens = built->start[built->num_ranks];
    if (built->num_tokens == 0) {
        ep_token_map_fini(built);
        return ep_error_set(EP_EINVAL, "no rank has a token; at least one token is expected");
    }
    *map = *built;
    return EP_OK;
}

enum ep_status ep_token_map_init_counts(int64_t num_ranks, const int64_t *tokens_per_rank,
                                        struct ep_token_map *map)
{
    struct ep_token_map built = {0};
    const enum ep_status status = allocate(num_ranks, &built);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        built.start[r + 1] = tokens_per_rank[r];
    }
    return finish(&built, map);
}

enum ep_status ep_token_map_init_equal(int64_t num_ranks, int64_t tokens_per_rank,
                                       struct ep_token_map *map)
{
    struct ep_token_map built = {0};
    const enum ep_status status = allocate(num_ranks, &built);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        built.start[r + 1] = tokens_per_rank;
    }
    return finish(&built, map);
}

enum ep_status ep_token_map_init_blocks(int64_t num_ranks, int64_t num_tokens,
                                        struct ep_token_map *map)
{
    if (num_tokens < 0 || num_tokens > MAX_TOKENS / EP_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " tokens are outside 0 to %" PRId64, num_tokens,
                            MAX_TOKENS / EP_MAX_RANKS);
    }
    struct ep_token_map built = {0};
    const enum ep_status status = allocate(num_ranks, &built);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        built.start[r + 1] = (r + 1) * num_tokens / num_ranks - r * num_tokens / num_ranks;
    }
    return finish(&built, map);
}

void ep_token_map_fini(struct ep_token_map *map)
{
    free(map->start);
    *map = (struct ep_token_map){0};
}

int64_t ep_token_map_rank(const struct ep_token_map *map, int64_t token)
{
    EP_ASSERT(token >= 0 && token < map->num_tokens);
    int64_t low = 0;
    int64_t high = map->num_ranks; /* start[low] <= token < start[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (map->start[middle] <= token) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
