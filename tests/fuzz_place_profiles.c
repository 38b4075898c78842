/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: tables of load by domain and of joint counts across layers. */
#include "tests/fuzz.h"

#include "kernels/place_profiles.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_write_file("profiles", data, size, NULL);
    for (int s = EP_PLACE_DOMAINS; s <= EP_PLACE_LAYERS; s++) {
        const struct ep_place_profiles_choice choice = {.path = path, .layer = -1};
        struct ep_place_profiles profiles;
        const enum ep_status status =
            ep_place_profiles_load((enum ep_place_similarity)s, &choice, &profiles);
        if (status == EP_OK) {
            for (int64_t i = 0; i < profiles.num_classes * profiles.num_experts; i++) {
                EP_ASSERT(isfinite(profiles.weight[i]) && profiles.weight[i] >= 0);
            }
            ep_place_profiles_fini(&profiles);
        } else {
            fuzz_check_refusal(status);
        }
    }
    return 0;
}
