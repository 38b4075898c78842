/* SPDX-License-Identifier: Apache-2.0 */
/* Routing as it is really sent: every source's choices after capacity, recomputable by anyone. */
#ifndef EP_KERNELS_DROPPING_H
#define EP_KERNELS_DROPPING_H

#include "base/error.h"
#include "kernels/capacity.h"
#include "kernels/routing.h"

#include <stdbool.h>
#include <stdint.h>

/** Where the choices of each source rank come from. Borrowed by what is made of it. */
struct ep_dropping_input {
    const void *context; /* handed to fetch */
    /** Allocate and fill `routing` with the tokens of one source. *first_token: the global index of
     *  the first of them; indices of a source follow each other. */
    enum ep_status (*fetch)(const void *context, int64_t source, bool with_weights,
                            struct ep_routing *routing, int64_t *first_token);
    struct ep_capacity_shape shape; /* tokens = the most of any source */
    int64_t num_sources;            /* >= 1 */
    const char *id;                 /* 16 hex digits that stand for the choices; NULL = none */
};

/** All ranks of a router as sources. */
struct ep_dropping_input ep_dropping_input_of_router(const struct ep_router *router);

/** A capacity applied to a routing: what one rank sends, or a receiver has to expect. */
struct ep_dropping;

/** Find the capacity. Where it depends on counts, or is of all sources together, this goes through
 *  every source once, and every rank gets the same. The policy (NULL = none) is copied; what the
 * input borrows must outlive it. Returns EP_EINVAL as ep_capacity_compute, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_dropping_create(const struct ep_dropping_input *input,
                                                const struct ep_capacity_policy *policy,
                                                struct ep_dropping **dropping);
void ep_dropping_destroy(struct ep_dropping *dropping);

/** The tokens of one source as they are sent: allocates `routing`. Depends on (input, policy,
 *  source) alone. Where the system drops after the dispatch (Megablocks) the routing is whole and
 *  the counts say what is dropped then.
 *  counts  added to; NULL = not wanted */
EP_MUST_CHECK enum ep_status ep_dropping_generate(const struct ep_dropping *dropping,
                                                  int64_t source, bool with_weights,
                                                  struct ep_routing *routing,
                                                  struct ep_capacity_counts *counts);

/** Borrowed. Without a policy that is set: rows 0. */
const struct ep_capacity *ep_dropping_capacity(const struct ep_dropping *dropping);
const struct ep_capacity_policy *ep_dropping_policy(const struct ep_dropping *dropping);

/** 16 hex digits that stand for what is sent: the input's id where nothing can be dropped before
 * the dispatch, else also for capacity, policy and seed. Borrowed; NULL where the input has none.
 */
const char *ep_dropping_id(const struct ep_dropping *dropping);

/** Rows of an expert's slots that carry no token, over all sources, given the rows that do: 0 where
 *  the policy does not pad. */
int64_t ep_dropping_padded_rows(const struct ep_dropping *dropping, int64_t rows);

#endif
