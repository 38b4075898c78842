/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: lines of records.jsonl; one that is accepted must be written and read back. */
#include "tests/fuzz.h"

#include "results/record.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_record record;
    enum ep_status status = ep_record_from_line("input", 1, (const char *)data, size, &record);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
        return 0;
    }
    char *line = NULL;
    status = ep_record_to_line(&record, &line);
    ep_record_fini(&record);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
        return 0;
    }
    EP_ASSERT(ep_record_from_line("again", 1, line, strlen(line), &record) == EP_OK);
    ep_record_fini(&record);
    free(line);
    return 0;
}
