/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: CSV traces. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_trace(data, size, "csv");
    return 0;
}
