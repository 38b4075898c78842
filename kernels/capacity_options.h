/* SPDX-License-Identifier: Apache-2.0 */
/* The options of router, capacity, dropping and style, the same in every command that routes. */
#ifndef EP_KERNELS_CAPACITY_OPTIONS_H
#define EP_KERNELS_CAPACITY_OPTIONS_H

#include "base/error.h"
#include "kernels/capacity.h"
#include "kernels/style.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/** As given on the command line; all 0 = nothing given. */
struct ep_capacity_options {
    const struct ep_capacity_rule *rule; /* NULL = not given */
    int64_t rows;                        /* --capacity; 0 = not given */
    double factor;
    bool has_factor;
    int64_t min_rows;
    bool has_min;
    int64_t align;        /* 0 = not given */
    double eval_fraction; /* 0 = not given */
    const char *drop;     /* borrowed text, checked; NULL = not given */
    const char *overflow; /* likewise */
    bool pad;
    const char *router;           /* borrowed text of --router; NULL = not given */
    const struct ep_style *style; /* has set what was not given; NULL = not given */
};

/** --capacity-rule --capacity-factor --drop --style ... as an argp child; input is a struct
 *  ep_capacity_options. Names and numbers are checked while parsing (a router's parameters when it
 * is made); at its end a style sets what was not given, and ep_capacity_options_check looks at the
 * whole. */
extern const struct argp ep_capacity_argp;

/** EP_EINVAL where options contradict each other or lack what they need: --capacity beside
 *  --capacity-rule, --drop or --overflow without a capacity, and so on. */
EP_MUST_CHECK enum ep_status ep_capacity_options_check(const struct ep_capacity_options *options);

/** The policy that the options ask for at this top_k: the rule's own where nothing was given. */
EP_MUST_CHECK enum ep_status ep_capacity_options_policy(const struct ep_capacity_options *options,
                                                        int64_t top_k, uint64_t seed,
                                                        struct ep_capacity_policy *policy);

/** The router on logits (kernels/gate.h) of tokens that follow `skew`: as given, else the style's
 * where the skew has logits; NULL = the skew chooses by itself. Borrowed. */
const char *ep_capacity_options_router(const struct ep_capacity_options *options,
                                       const struct ep_skew *skew, int64_t top_k);

/** Top-k that the router or the style has of itself where the user gave none; 0 = none. */
int64_t ep_capacity_options_top_k(const struct ep_capacity_options *options);

/** One line for people: rule, formula, factor, floor, drop, overflow, padding. At most `size`. */
const char *ep_capacity_describe(const struct ep_capacity_policy *policy, char *text, size_t size);

#endif
