/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench route --compare`: routers side by side on the same logits. */
#ifndef EP_KERNELS_ROUTE_COMPARE_H
#define EP_KERNELS_ROUTE_COMPARE_H

#include "base/error.h"
#include "kernels/capacity.h"
#include "kernels/gate.h"
#include "kernels/imbalance.h"
#include "kernels/route_case.h"
#include "kernels/route_losses.h"
#include "kernels/traffic.h"

#include <stdbool.h>
#include <stdint.h>

/** As given; texts are borrowed, NULL = not given. */
struct ep_compare_options {
    const char *routers; /* "top1,top2,expert-choice"; "model" = that of --model */
    const char *logits;  /* file; NULL = drawn with the popularity of --skew */
    bool losses;         /* evaluate the balancing losses of each */
};

/** One router. Copies are (token, expert) pairs over all ranks; rows and loads are what is sent,
 *  after dropping. */
struct ep_compare_row {
    char *text; /* as given */
    struct ep_gate_config config;
    const char *isa;
    bool is_assumed;                  /* the model's row does not say which router it has */
    struct ep_capacity_counts counts; /* asked, kept, dropped */
    struct ep_capacity capacity;      /* rows 0 = none was asked for */
    int64_t needed_rows;              /* most copies of one expert from one source rank */
    struct ep_traffic_totals rows[EP_ROUTE_NUM_MATRICES];
    struct ep_imbalance expert, rank; /* of copies received */
    bool has_losses;                  /* asked for, and this router scores tokens one by one */
    struct ep_route_losses losses;
    int64_t num_choices; /* entries of choices */
    int64_t *choices;    /* [num_choices] tokens by number of experts, before dropping */
};

/** Made by ep_compare_create, freed with ep_compare_destroy. */
struct ep_compare {
    const char *source; /* skew or file; borrowed */
    bool from_file;
    uint64_t seed;
    int64_t num_experts, num_ranks, num_nodes;
    int64_t num_tokens;      /* over all ranks */
    int64_t tokens_per_rank; /* most of one rank */
    int64_t row_bytes;
    struct ep_capacity_policy policy;
    bool with_losses; /* asked for */
    int64_t num_rows;
    struct ep_compare_row *rows; /* [num_rows] in the order asked for */
};

/** Route the same logits by every router and count. Returns EP_EINVAL for unknown routers, shapes
 *  that do not fit, bad files, more than 2^29 logits; EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_compare_create(const struct ep_route_options *shared,
                                               const struct ep_compare_options *options,
                                               struct ep_compare **compare);
void ep_compare_destroy(struct ep_compare *compare);

/** Tokens without any expert, before dropping; mean experts of a token. */
int64_t ep_compare_tokens_without(const struct ep_compare_row *row);
double ep_compare_mean_choices(const struct ep_compare_row *row);

#endif
