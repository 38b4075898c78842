/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: model files, CSV and JSON. */
#include "tests/fuzz.h"

#include "kernels/models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_models *models = NULL;
    const enum ep_status status =
        ep_models_load(fuzz_write_file("models", data, size, NULL), &models);
    if (status == EP_OK) {
        EP_ASSERT(models->num >= 1);
        ep_models_destroy(models);
    } else {
        fuzz_check_refusal(status);
    }
    return 0;
}
