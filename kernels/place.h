/* SPDX-License-Identifier: Apache-2.0 */
/* Deciding where experts live: policies that fill the slots of ranks from loads and from what is
 * chosen together. */
#ifndef EP_KERNELS_PLACE_H
#define EP_KERNELS_PLACE_H

#include "base/error.h"
#include "kernels/placement.h"

#include <stdbool.h>
#include <stdint.h>

/** Most ranks and slots that policies place for. */
enum { EP_PLACE_MAX_RANKS = 1024, EP_PLACE_MAX_SLOTS = 1 << 14 };

/** Slots are numbered rank by rank: rank r has slots r S/P .. (r + 1) S/P - 1, node n has ranks
 *  n P/N .. (n + 1) P/N - 1. A *map* [num_slots] gives the expert of each slot
 *  (physical_to_logical of EPLB and SGLang). */
struct ep_place_shape {
    int64_t num_experts; /* E >= 1 */
    int64_t num_ranks;   /* P, 1 to EP_PLACE_MAX_RANKS */
    int64_t num_nodes;   /* N, divides P */
    int64_t num_groups;  /* G, divides E: groups of consecutive experts */
    int64_t num_slots;   /* S >= E, a multiple of P, at most EP_PLACE_MAX_SLOTS */
};

/** Returns EP_EINVAL, naming the count and the option it comes from, for a shape that is none. */
EP_MUST_CHECK enum ep_status ep_place_check_shape(const struct ep_place_shape *shape);

/** Tokens that tell which experts are chosen together. Borrowed. */
struct ep_place_tokens {
    int64_t num_tokens;
    int64_t top_k;
    const int32_t *topk_idx; /* [num_tokens][top_k] expert, -1 = unused */
};

/** What a policy is given. */
struct ep_place_task {
    struct ep_place_shape shape; /* checked */
    const double *load;          /* [num_experts] finite, >= 0: copies that each expert receives */
    const struct ep_place_tokens *tokens; /* NULL = not known */
    double slack;  /* how much more than EPLB's busiest rank is allowed: 0 = nothing, 0.05 = 5 % */
    uint64_t seed; /* of random, and of the local search */
};

struct ep_place_policy {
    const char *name;
    const char *summary; /* one line */
    bool needs_tokens;   /* refuses a task without them */
    bool knows_tokens;   /* uses them where they are there */
    bool over_time;      /* its map is where it starts; see ep_place_follow */
    /** map [num_slots], overwritten. Returns EP_ENOMEM, or EP_EINVAL where it needs what is not
     *  there. The result depends on the task alone. Required. */
    enum ep_status (*place)(const struct ep_place_task *task, int32_t *map);
};

/** Policy `index` >= 0 of the table; NULL past the last. */
const struct ep_place_policy *ep_place_policy_at(int index);

/** The policy of that name; EP_EINVAL names the nearest one, or all. */
EP_MUST_CHECK enum ep_status ep_place_policy_find(const char *name,
                                                  const struct ep_place_policy **policy);

/** Run a policy and check that it lost no expert. map [num_slots], untouched on failure. */
EP_MUST_CHECK enum ep_status ep_place_run(const struct ep_place_policy *policy,
                                          const struct ep_place_task *task, int32_t *map);

/** The rows of the table in place.c. */
extern const struct ep_place_policy ep_place_contiguous;
extern const struct ep_place_policy ep_place_round_robin;
extern const struct ep_place_policy ep_place_random;
extern const struct ep_place_policy ep_place_coactivation;
extern const struct ep_place_policy ep_place_hierarchical;
extern const struct ep_place_policy ep_place_eplb;
extern const struct ep_place_policy ep_place_eplb_global;
extern const struct ep_place_policy ep_place_dynamic_eplb;

/* --- maps ---------------------------------------------------------------------------------- */

static inline int64_t ep_place_rank_of_slot(const struct ep_place_shape *shape, int64_t slot)
{
    return slot / (shape->num_slots / shape->num_ranks);
}

static inline int64_t ep_place_node_of_rank(const struct ep_place_shape *shape, int64_t rank)
{
    return rank / (shape->num_ranks / shape->num_nodes);
}

/** True where groups of experts stay on one node: G is a multiple of N > 1. EPLB's rule. */
static inline bool ep_place_keeps_groups(const struct ep_place_shape *shape)
{
    return shape->num_nodes > 1 && shape->num_groups % shape->num_nodes == 0;
}

/** Replicas of each expert, [num_experts], overwritten. Returns EP_EINVAL where a slot holds no
 *  expert of the shape or an expert has no slot. */
EP_MUST_CHECK enum ep_status ep_place_count_replicas(const struct ep_place_shape *shape,
                                                     const int32_t *map, int64_t *replicas);

/** Loads of ranks (and of nodes, where node_load is not NULL), overwritten: an expert's load is
 *  split evenly over its replicas, as EPLB does. Slots are added in an order of their own, so that
 *  equal sets of slots have equal loads to the last bit.
 *  load [num_experts]; rank_load [num_ranks]; node_load [num_nodes]. Returns EP_EINVAL as
 *  ep_place_count_replicas, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_place_fill_loads(const struct ep_place_shape *shape,
                                                 const double *load, const int32_t *map,
                                                 double *rank_load, double *node_load);

/** Largest of values [num], num >= 1. */
double ep_place_max(const double *values, int64_t num);

/** Largest over mean; NaN where the mean is 0. */
double ep_place_max_over_mean(const double *values, int64_t num);

/** A placement that traffic can be counted with: replicas of an expert that share a rank become
 * one, the others keep the order of their slots. */
EP_MUST_CHECK enum ep_status ep_place_init_placement(const struct ep_place_shape *shape,
                                                     const int32_t *map,
                                                     struct ep_placement *placement);

#endif
