/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: run.json. */
#include "tests/fuzz.h"

#include "results/run_dir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *directory = NULL;
    struct ep_run run;
    fuzz_write_file("run.json", data, size, &directory);
    const enum ep_status status = ep_run_read(directory, &run);
    if (status == EP_OK) {
        ep_run_fini(&run);
    } else {
        fuzz_check_refusal(status);
    }
    return 0;
}
