/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: text of Intel MPI Benchmarks; what is accepted must make records that can be read
 * back. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_import(data, size, "imb");
    return 0;
}
