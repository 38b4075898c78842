/* SPDX-License-Identifier: Apache-2.0 */
/* What a skew policy is made of: a row of functions. To add one is one file and one row. */
#ifndef EP_KERNELS_SKEW_POLICY_H
#define EP_KERNELS_SKEW_POLICY_H

#include "base/error.h"
#include "kernels/placement.h"
#include "kernels/skew.h"
#include "kernels/token_map.h"

#include <stdbool.h>
#include <stdint.h>

/** A router as its policy sees it. Users of routing take it as opaque (kernels/routing.h). */
struct ep_router {
    const struct ep_skew *skew;
    const struct ep_placement *placement;
    const struct ep_token_map *tokens;
    int64_t num_experts;
    int64_t top_k;
    uint64_t seed;
    void *state; /* the policy's tables */
    int32_t
        *by_source; /* [ranks][num_experts] what each source makes of an expert; NULL = itself */
    char id[17];
};

struct ep_skew_policy {
    const char *name;    /* before the first colon */
    const char *usage;   /* "zipf:S" */
    const char *summary; /* one line */
    const char *example; /* "zipf:1.0"; NULL = it may stand without a parameter */
    bool fixed;          /* says itself which experts: they cannot be permuted by source */
    /** params: the text after the colon, "" if none, without modifiers; errors name skew->text.
     * Required. */
    enum ep_status (*parse)(const char *params, struct ep_skew *skew);
    /** Make router->state; may refuse. Optional. */
    enum ep_status (*prepare)(struct ep_router *router);
    /** topk_idx [num_tokens][top_k] of tokens first_token ... Required. */
    void (*generate)(const struct ep_router *router, int64_t first_token, int64_t num_tokens,
                     int32_t *topk_idx);
    /** Shares of the experts, sum 1, of which successive draws without replacement have this skew's
     *  loads: shares [num_experts] overwritten. For skews that draw otherwise, or by shares that
     *  depend on top_k; optional. Returns EP_ENOMEM. */
    enum ep_status (*fill_shares)(const struct ep_router *router, double *shares);
    /** Free router->state (never NULL there). Required if prepare is there. */
    void (*release)(struct ep_router *router);
};

/** The rows of the table in skew.c. */
extern const struct ep_skew_policy ep_skew_uniform;
extern const struct ep_skew_policy ep_skew_zipf;
extern const struct ep_skew_policy ep_skew_lognormal;
extern const struct ep_skew_policy ep_skew_dirichlet;
extern const struct ep_skew_policy ep_skew_gini;
extern const struct ep_skew_policy ep_skew_hot;
extern const struct ep_skew_policy ep_skew_khot;
extern const struct ep_skew_policy ep_skew_trace;
extern const struct ep_skew_policy ep_skew_counts;

#endif
