/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: text of ucc_perftest; what is accepted must make records that can be read back. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_import(data, size, "ucc");
    return 0;
}
