/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: machine.json. */
#include "tests/fuzz.h"

#include "results/fitted_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_fitted_machine *machine = NULL;
    const enum ep_status status =
        ep_fitted_machine_read(fuzz_write_file("machine.json", data, size, NULL), &machine);
    if (status == EP_OK) {
        ep_fitted_machine_destroy(machine);
    } else {
        fuzz_check_refusal(status);
    }
    return 0;
}
