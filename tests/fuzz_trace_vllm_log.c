/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: JSONL of vLLM'\''s MoE loggers. */
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_trace(data, size, "vllm-log");
    return 0;
}
