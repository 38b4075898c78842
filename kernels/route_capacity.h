/* SPDX-License-Identifier: Apache-2.0 */
/* What a capacity leaves of a case of `epbench route`, and what it costs and saves. */
#ifndef EP_KERNELS_ROUTE_CAPACITY_H
#define EP_KERNELS_ROUTE_CAPACITY_H

#include "base/error.h"
#include "base/json.h"
#include "kernels/capacity_options.h"
#include "kernels/route_case.h"

#include <stdint.h>
#include <stdio.h>

/** Rows of the token buffers of one rank, the fullest: what is laid out to be sent, and what is
 *  received. Padded ones hold every slot. */
struct ep_route_buffers {
    int64_t send_rows;
    int64_t receive_rows;
};

/** Made by ep_route_capacity_create, freed with _destroy. Rows are over all ranks. */
struct ep_route_capacity {
    struct ep_capacity_policy policy;
    struct ep_capacity_shape shape;
    struct ep_capacity capacity;
    struct ep_capacity_counts counts;
    char id[17];                                          /* of what is sent; "" = from a file */
    struct ep_traffic_totals rows[EP_ROUTE_NUM_MATRICES]; /* that are sent, without padding */
    struct ep_imbalance imbalance[2]; /* copies per expert, per rank, of these */
    int64_t padded_rows;              /* slots without a token */
    int64_t padded_remote_rows;       /* of them, slots on other ranks */
    struct ep_route_buffers whole;    /* without capacity, unpadded */
    struct ep_route_buffers bounded;
};

/** Apply the options' policy to all ranks of a case that has been counted; the case keeps the whole
 *  routing.
 *  token_ranks  [num_tokens] the rank of each token of an assignments file; NULL = generated
 *  num_threads  that count; 0 = all cores
 *  *made stays NULL where no capacity was asked for.
 *  Returns EP_EINVAL as ep_capacity_compute and for --capacity without --drop, EP_ENOMEM. */
EP_MUST_CHECK enum ep_status ep_route_capacity_create(const struct ep_capacity_options *options,
                                                      const struct ep_route_case *route,
                                                      const int32_t *token_ranks, int num_threads,
                                                      struct ep_route_capacity **made);
void ep_route_capacity_destroy(struct ep_route_capacity *capacity);

/** Tables on `out`, and the same as key `capacity` of `root`; a style as key `style`. Where nothing
 * was asked for nothing is printed, and the keys are null. */
EP_MUST_CHECK enum ep_status ep_route_capacity_print(const struct ep_route_case *route, FILE *out);
EP_MUST_CHECK enum ep_status ep_route_capacity_set(const struct ep_route_case *route, json_t *root);

#endif
