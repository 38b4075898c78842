/* SPDX-License-Identifier: Apache-2.0 */
/* Placements that look at no load: contiguous, round-robin, random. */
#include "kernels/place.h"

#include "base/random.h"

#include <stdlib.h>

/* One slot per rank is the suite's own rule for more ranks than experts; else as SGLang and vLLM
 * start out: the experts in order, and again from the first for the slots that are left. */
static enum ep_status place_contiguous(const struct ep_place_task *task, int32_t *map)
{
    const struct ep_place_shape *s = &task->shape;
    const bool one_each = s->num_slots == s->num_ranks && s->num_slots % s->num_experts == 0;
    for (int64_t i = 0; i < s->num_slots; i++) {
        map[i] = (int32_t)(one_each ? i * s->num_experts / s->num_slots : i % s->num_experts);
    }
    return EP_OK;
}

static enum ep_status place_round_robin(const struct ep_place_task *task, int32_t *map)
{
    const struct ep_place_shape *s = &task->shape;
    const int64_t per_rank = s->num_slots / s->num_ranks;
    for (int64_t i = 0; i < s->num_slots; i++) {
        map[i % s->num_ranks * per_rank + i / s->num_ranks] = (int32_t)(i % s->num_experts);
    }
    return EP_OK;
}

/* Whole rounds of all experts, the last one of some drawn at random, then shuffled over slots. */
static enum ep_status place_random(const struct ep_place_task *task, int32_t *map)
{
    const struct ep_place_shape *s = &task->shape;
    struct ep_random random;
    int64_t *experts = malloc((size_t)s->num_experts * sizeof *experts);
    int64_t *slots = malloc((size_t)s->num_slots * sizeof *slots);
    enum ep_status status = EP_OK;
    if (experts == NULL || slots == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    ep_random_init(&random, task->seed, EP_RANDOM_PERMUTATION, 0);
    for (int64_t e = 0; e < s->num_experts; e++) {
        experts[e] = e;
    }
    ep_random_shuffle_i64(&random, experts, s->num_experts);
    for (int64_t i = 0; i < s->num_slots; i++) {
        slots[i] = experts[i % s->num_experts];
    }
    ep_random_shuffle_i64(&random, slots, s->num_slots);
    for (int64_t i = 0; i < s->num_slots; i++) {
        map[i] = (int32_t)slots[i];
    }
out:
    free(experts);
    free(slots);
    return status;
}

const struct ep_place_policy ep_place_contiguous = {
    .name = "contiguous",
    .summary = "experts in order over ranks, and again from the first for extra slots",
    .place = place_contiguous,
};

const struct ep_place_policy ep_place_round_robin = {
    .name = "round-robin",
    .summary = "expert e on rank e mod P, and again from the first for extra slots",
    .place = place_round_robin,
};

const struct ep_place_policy ep_place_random = {
    .name = "random",
    .summary = "slots shuffled by the seed",
    .place = place_random,
};
