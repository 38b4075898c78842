/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: the ranks of tokens, CSV token,rank. */
#include "tests/fuzz.h"

#include "kernels/route_tokens.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "token,e0\n7,0\n3,1\n5,0\n";
    struct ep_trace *trace = NULL;
    int32_t *ranks = NULL;
    EP_ASSERT(ep_trace_load_text("trace", text, strlen(text), NULL, &trace) == EP_OK);
    const enum ep_status status =
        ep_route_tokens_load(fuzz_write_file("tokens", data, size, NULL), trace, 4, &ranks);
    if (status == EP_OK) {
        for (int t = 0; t < 3; t++) {
            EP_ASSERT(ranks[t] >= 0 && ranks[t] < 4);
        }
        free(ranks);
    } else {
        fuzz_check_refusal(status);
    }
    ep_trace_destroy(trace);
    return 0;
}
