/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: lists of counts, what is drawn from them, and the table of counts by domain. */
#include "tests/fuzz.h"

#include "kernels/count_sampler.h"
#include "kernels/counts.h"

enum { MOST_EXPERTS = 256, TOP_K = 2 };

/* Draw a few tokens where a routing has such a load. */
static void draw(const struct ep_trace *trace)
{
    struct ep_count_sampler *sampler = NULL;
    const enum ep_status status =
        ep_count_sampler_create(trace->counts, trace->num_experts, TOP_K, "input", &sampler);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
        return;
    }
    for (uint64_t t = 0; t < 8; t++) {
        int32_t experts[TOP_K];
        struct ep_random random;
        ep_random_init(&random, 1, EP_RANDOM_TEST, t);
        ep_count_sampler_draw(sampler, &random, experts);
        EP_ASSERT(experts[0] != experts[1]);
        for (int i = 0; i < TOP_K; i++) {
            EP_ASSERT(experts[i] >= 0 && experts[i] < trace->num_experts);
            EP_ASSERT(trace->counts[experts[i]] > 0);
        }
    }
    ep_count_sampler_destroy(sampler);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct ep_trace_options options = {.layer = 0, .format = "counts"};
    struct ep_trace *trace = NULL;
    struct ep_counts *table = NULL;
    enum ep_status status =
        ep_trace_load_text("input", (const char *)data, size, &options, &trace);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
    } else if (trace->num_experts <= MOST_EXPERTS) {
        draw(trace);
    }
    ep_trace_destroy(trace);
    status = ep_counts_create_from_text("input", (const char *)data, size, &table);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
    } else {
        EP_ASSERT(table->num_cells > 0 && table->models[0].num_experts > 0);
        ep_counts_destroy(table);
    }
    fuzz_trace(data, size, "counts");
    return 0;
}
