/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: maps of slots, and loads by layer. */
#include "tests/fuzz.h"

#include "kernels/place_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct ep_place_choice choice = {.layer = -1, .num_ranks = 2};
    const char *path = fuzz_write_file("map", data, size, NULL);
    struct ep_placement placement;
    struct ep_place_counts counts;
    enum ep_status status = ep_place_map_load(path, &choice, &placement);
    if (status == EP_OK) {
        EP_ASSERT(placement.num_ranks == 2 && placement.num_experts >= 1);
        ep_placement_fini(&placement);
    } else {
        fuzz_check_refusal(status);
    }
    status = ep_place_counts_load(path, &counts);
    if (status == EP_OK) {
        EP_ASSERT(counts.num_layers >= 1 && counts.num_experts >= 1);
        ep_place_counts_fini(&counts);
    } else {
        fuzz_check_refusal(status);
    }
    return 0;
}
