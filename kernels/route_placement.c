/* SPDX-License-Identifier: Apache-2.0 */
/* Experts on ranks as asked for: a list, a file of maps, some of the ranks, or all of them. */
#include "kernels/route_placement.h"

#include "kernels/place_file.h"

#include <inttypes.h>
#include <stdlib.h>

bool ep_route_names_placement(const struct ep_route_options *o)
{
    return o->experts_to_ranks != NULL || o->placement != NULL;
}

/* From the list or the file; num_experts, num_ranks: 0 = as many as are named there. */
static enum ep_status read_placement(const struct ep_route_options *o, int64_t num_experts,
                                     int64_t num_ranks, struct ep_placement *placement)
{
    if (o->placement != NULL) {
        const struct ep_place_choice choice = {.layer = o->placement_layer,
                                               .policy = o->placement_policy,
                                               .num_ranks = num_ranks,
                                               .num_experts = num_experts};
        return ep_place_map_load(o->placement, &choice, placement);
    }
    struct ep_placement read;
    const enum ep_status status =
        ep_placement_parse(o->experts_to_ranks, "--experts-to-ranks", num_ranks, &read);
    if (status == EP_OK && num_experts != 0 && read.num_experts != num_experts) {
        const int64_t named = read.num_experts;
        ep_placement_fini(&read);
        return ep_error_set(EP_EINVAL,
                            "--experts-to-ranks names %" PRId64 " experts; %" PRId64 " expected",
                            named, num_experts);
    }
    *placement = status == EP_OK ? read : *placement;
    return status;
}

static enum ep_status place_on_some(const char *text, int64_t num_experts, int64_t num_ranks,
                                    struct ep_placement *placement)
{
    int32_t *holders = NULL;
    int64_t num_holders = 0;
    enum ep_status status =
        ep_placement_parse_ranks(text, "--expert-ranks", num_ranks, &holders, &num_holders);
    if (status == EP_OK) {
        status = ep_placement_init_subset(num_experts, num_ranks, holders, num_holders, placement);
    }
    free(holders);
    return status;
}

enum ep_status ep_route_place_experts(const struct ep_route_options *o, int64_t num_experts,
                                      int64_t num_ranks, struct ep_placement *placement)
{
    const int ways =
        (o->experts_to_ranks != NULL) + (o->placement != NULL) + (o->expert_ranks != NULL);
    if (ways > 1) {
        return ep_error_set(EP_EINVAL, "%s and %s exclude each other",
                            o->placement != NULL ? "--placement" : "--experts-to-ranks",
                            o->expert_ranks != NULL ? "--expert-ranks" : "--experts-to-ranks");
    }
    if (ep_route_names_placement(o)) {
        return read_placement(o, num_experts, num_ranks, placement);
    }
    return o->expert_ranks != NULL
               ? place_on_some(o->expert_ranks, num_experts, num_ranks, placement)
               : ep_placement_init_contiguous(num_experts, num_ranks, placement);
}
