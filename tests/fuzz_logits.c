/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: files of router logits, .npy and CSV. */
#include "tests/fuzz.h"

#include "kernels/logits.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ep_logits *logits = NULL;
    const enum ep_status status =
        ep_logits_load(fuzz_write_file("logits", data, size, NULL), 0, &logits);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
        return 0;
    }
    const int64_t num_experts = ep_logits_num_experts(logits);
    EP_ASSERT(num_experts >= 1 && ep_logits_num_tokens(logits) >= 1);
    float *row = malloc((size_t)num_experts * sizeof *row);
    EP_ASSERT(row != NULL);
    ep_logits_fill(logits, ep_logits_num_tokens(logits) - 1, 1, row);
    for (int64_t e = 0; e < num_experts; e++) {
        EP_ASSERT(!isnan(row[e]) && row[e] < INFINITY);
    }
    free(row);
    ep_logits_destroy(logits);
    return 0;
}
