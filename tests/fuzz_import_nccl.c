/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: text and JSON of nccl-tests, and its matrices; what is accepted must make records.
 */
#include "tests/fuzz.h"

#include "results/import_nccl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_import import = {0};
    int64_t idx = -1;
    const enum ep_status status =
        ep_nccl_read_matrix("input", (const char *)data, size, 1.5, &import, &idx);
    if (status == EP_OK) {
        EP_ASSERT(idx == 0 && import.matrices[0].num_ranks > 0);
    } else {
        fuzz_check_refusal(status);
    }
    ep_import_fini(&import);
    fuzz_import(data, size, "nccl");
    return 0;
}
