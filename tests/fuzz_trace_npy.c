/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: NumPy arrays, and the traces in them. */
#include "tests/fuzz.h"

#include "base/npy.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_npy npy;
    const enum ep_status status = ep_npy_init("input", data, size, &npy);
    if (status == EP_OK) {
        for (int64_t i = 0; i < npy.num_values; i++) {
            const double value = ep_npy_get_f64(&npy, i);
            EP_ASSERT(npy.type == EP_NPY_F32 || npy.type == EP_NPY_F64 || isfinite(value));
        }
        ep_npy_fini(&npy);
    } else {
        fuzz_check_refusal(status);
    }
    fuzz_trace(data, size, "vllm-npy");
    return 0;
}
