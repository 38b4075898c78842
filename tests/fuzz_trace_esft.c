/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: ESFT text, a token or several in a line. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_trace(data, size, "esft");
    fuzz_trace(data, size, "esft:2");
    return 0;
}
