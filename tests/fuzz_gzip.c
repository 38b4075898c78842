/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: gzip, and traces of any format in it. */
#include "tests/fuzz.h"

#include "base/gzip.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { LIMIT_BYTES = 1 << 16 };
    char *text = NULL;
    size_t length = 0;
    const enum ep_status status =
        ep_gzip_expand("input", (const char *)data, size, LIMIT_BYTES, &text, &length);
    if (status == EP_OK) {
        EP_ASSERT(length <= LIMIT_BYTES && text[length] == 0);
        fuzz_trace((const uint8_t *)text, length, NULL);
        free(text);
    } else {
        fuzz_check_refusal(status);
    }
    return 0;
}
