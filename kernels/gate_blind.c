/* SPDX-License-Identifier: Apache-2.0 */
/* Routers that look at no logits: a hash of the token's vocabulary id, and chance. */
#include "kernels/gate_policy.h"
#include "kernels/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Distinct experts, a function of (seed, id) alone: the use keeps them apart from drawn ids. */
static void choose_by_hash(const struct ep_gate *gate, int64_t id, int32_t *idx)
{
    struct ep_random random;
    ep_random_init(&random, gate->config.seed, EP_RANDOM_GATE, (uint64_t)id);
    ep_sample_subset(&random, gate->config.num_experts, gate->config.top_k, idx);
}

/* Without ids, words of frequency 1 / rank (Zipf) are drawn: the cumulative shares. */
static enum ep_status prepare_words(struct ep_gate *gate)
{
    const int64_t num = (int64_t)gate->config.value;
    double *cumulative = malloc((size_t)num * sizeof *cumulative);
    double sum = 0;
    if (cumulative == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " words", num);
    }
    for (int64_t i = 0; i < num; i++) {
        sum += 1 / (double)(i + 1);
        cumulative[i] = sum;
    }
    for (int64_t i = 0; i < num; i++) {
        cumulative[i] /= sum;
    }
    gate->state = cumulative;
    return EP_OK;
}

static void release_words(struct ep_gate *gate)
{
    free(gate->state);
}

static int64_t draw_word(const struct ep_gate *gate, int64_t token)
{
    const double *cumulative = gate->state;
    struct ep_random random;
    int64_t low = 0;
    int64_t high = (int64_t)gate->config.value - 1;
    ep_random_init(&random, gate->config.seed, EP_RANDOM_TOKEN_ID, (uint64_t)token);
    const double drawn = ep_random_f64(&random);
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (cumulative[middle] > drawn) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void choose_hash(const struct ep_gate *gate, int64_t token, int64_t id, int32_t *idx)
{
    choose_by_hash(gate, id >= 0 ? id : draw_word(gate, token), idx);
}

static void choose_random(const struct ep_gate *gate, int64_t token, int64_t id, int32_t *idx)
{
    (void)id;
    choose_by_hash(gate, token, idx);
}

const struct ep_gate_policy ep_gate_hash = {
    .name = "hash",
    .usage = "hash[:WORDS]",
    .summary =
        "experts by the token's vocabulary id; without ids, of WORDS words whose frequency is "
        "1 / rank (default 32000)",
    .source = "Roller et al., Hash Layers, arXiv 2106.04426 (recalled)",
    .value_name = "WORDS",
    .value = 32000,
    .min_value = 1,
    .max_value = 1 << 24,
    .prepare = prepare_words,
    .release = release_words,
    .choose_blind = choose_hash,
};

const struct ep_gate_policy ep_gate_random = {
    .name = "random",
    .usage = "random",
    .summary = "every set of top-k experts with the same chance, weights 1/k",
    .source = "vLLM VLLM_MOE_ROUTING_STRATEGY=uniform_random, but without replacement",
    .choose_blind = choose_random,
};
