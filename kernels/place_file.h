/* SPDX-License-Identifier: Apache-2.0 */
/* Files of placement: loads of experts by layer, and maps of slots as SGLang and epbench write
 * them. */
#ifndef EP_KERNELS_PLACE_FILE_H
#define EP_KERNELS_PLACE_FILE_H

#include "base/error.h"
#include "kernels/place.h"

#include <stdint.h>

/** Loads of the experts of one layer or more. Free with ep_place_counts_fini. */
struct ep_place_counts {
    int64_t num_layers;  /* >= 1 */
    int64_t num_experts; /* >= 1 */
    double *load;        /* [num_layers][num_experts] finite, >= 0 */
};

/** Read loads ("-" = standard input): CSV without a header, one line per layer, one number >= 0 per
 *  expert; or SGLang's {"logical_count": [layer][expert]}, or [step][layer][expert], the steps
 * added. Returns EP_EINVAL with file and line (JSON: layer and expert) for what is no such number,
 * ragged layers, none at all, more than EP_PLACE_MAX_SLOTS experts. */
EP_MUST_CHECK enum ep_status ep_place_counts_load(const char *path, struct ep_place_counts *counts);
void ep_place_counts_fini(struct ep_place_counts *counts);

/** Write maps [num_layers][num_slots] as {"physical_to_logical_map": [[...], ...]}, which SGLang's
 *  --init-expert-location takes. */
EP_MUST_CHECK enum ep_status ep_place_maps_save(const char *path, const int32_t *maps,
                                                int64_t num_layers, int64_t num_slots);

/** Which map of a file is meant; 0, -1 and NULL = not said. */
struct ep_place_choice {
    int64_t layer;       /* -1: the file must have one only */
    const char *policy;  /* of `epbench place --json`; NULL: the file must have one only */
    int64_t num_ranks;   /* 0: the file must say (`epbench place --json` does) */
    int64_t num_experts; /* 0: the highest in the map + 1 */
};

/** Read a map and place by it: {"physical_to_logical_map": [[...], ...]} (SGLang; a single list is
 * one layer), or what `epbench place --json` writes. Slots are dealt to ranks in equal blocks;
 * replicas that share a rank become one. Returns EP_EINVAL, naming the file, for anything else:
 * experts out of range or in no slot, slots no multiple of ranks, a layer or policy that is not
 * there. */
EP_MUST_CHECK enum ep_status ep_place_map_load(const char *path,
                                               const struct ep_place_choice *choice,
                                               struct ep_placement *placement);

#endif
