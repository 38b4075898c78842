/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: logical_count of SGLang. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_trace(data, size, "sglang");
    return 0;
}
