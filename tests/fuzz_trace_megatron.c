/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: router traces of Megatron-LM. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_trace(data, size, "megatron");
    return 0;
}
