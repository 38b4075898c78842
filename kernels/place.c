/* SPDX-License-Identifier: Apache-2.0 */
/* The table of placement policies, and what is computed from a map of slots. */
#include "kernels/place.h"

#include "base/options.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ep_place_policy *const policies[] = {
    &ep_place_contiguous,   &ep_place_round_robin, &ep_place_random,      &ep_place_coactivation,
    &ep_place_hierarchical, &ep_place_eplb,        &ep_place_eplb_global, &ep_place_dynamic_eplb,
};
enum { NUM_POLICIES = sizeof policies / sizeof policies[0] };

const struct ep_place_policy *ep_place_policy_at(int index)
{
    return index >= 0 && index < NUM_POLICIES ? policies[index] : NULL;
}

enum ep_status ep_place_policy_find(const char *name, const struct ep_place_policy **policy)
{
    const char *names[NUM_POLICIES];
    char all[256] = "";
    for (int i = 0; i < NUM_POLICIES; i++) {
        if (strcmp(policies[i]->name, name) == 0) {
            *policy = policies[i];
            return EP_OK;
        }
        names[i] = policies[i]->name;
        const size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    const char *nearest = ep_options_nearest(name, names, NUM_POLICIES);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "unknown policy '%s'; did you mean '%s'?", name, nearest)
               : ep_error_set(EP_EINVAL, "unknown policy '%s'; there are %s", name, all);
}

enum ep_status ep_place_check_shape(const struct ep_place_shape *s)
{
    if (s->num_experts < 1 || s->num_experts > EP_PLACE_MAX_SLOTS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " experts are outside 1 to %d", s->num_experts,
                            EP_PLACE_MAX_SLOTS);
    }
    if (s->num_ranks < 1 || s->num_ranks > EP_PLACE_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "--ranks: %" PRId64 " is outside 1 to %d", s->num_ranks,
                            EP_PLACE_MAX_RANKS);
    }
    if (s->num_nodes < 1 || s->num_ranks % s->num_nodes != 0) {
        return ep_error_set(EP_EINVAL, "--nodes %" PRId64 " does not divide %" PRId64 " ranks",
                            s->num_nodes, s->num_ranks);
    }
    if (s->num_groups < 1 || s->num_experts % s->num_groups != 0) {
        return ep_error_set(EP_EINVAL, "--groups %" PRId64 " does not divide %" PRId64 " experts",
                            s->num_groups, s->num_experts);
    }
    if (s->num_slots < s->num_experts) {
        return ep_error_set(EP_EINVAL,
                            "--replicas %" PRId64 " is less than the %" PRId64
                            " experts; it counts all slots, the first of each expert included",
                            s->num_slots, s->num_experts);
    }
    if (s->num_slots % s->num_ranks != 0) {
        return ep_error_set(EP_EINVAL, "--replicas %" PRId64 " is no multiple of %" PRId64 " ranks",
                            s->num_slots, s->num_ranks);
    }
    if (s->num_slots > EP_PLACE_MAX_SLOTS) {
        return ep_error_set(EP_EINVAL, "--replicas: %" PRId64 " slots are more than %d",
                            s->num_slots, EP_PLACE_MAX_SLOTS);
    }
    return EP_OK;
}

enum ep_status ep_place_run(const struct ep_place_policy *policy, const struct ep_place_task *task,
                            int32_t *map)
{
    enum ep_status status;
    const size_t num_slots = (size_t)task->shape.num_slots;
    int64_t *replicas = NULL;
    int32_t *made = NULL;
    EP_TRY(ep_place_check_shape(&task->shape));
    if (policy->needs_tokens && task->tokens == NULL) {
        status = ep_error_set(EP_EINVAL,
                              "policy %s needs to know which experts are chosen together; counts "
                              "do not say",
                              policy->name);
        goto out;
    }
    replicas = calloc((size_t)task->shape.num_experts, sizeof *replicas);
    made = calloc(num_slots, sizeof *made);
    if (replicas == NULL || made == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %zu slots", num_slots);
        goto out;
    }
    EP_TRY(policy->place(task, made));
    EP_ASSERT(ep_place_count_replicas(&task->shape, made, replicas) == EP_OK);
    memcpy(map, made, num_slots * sizeof *map);
out:
    free(replicas);
    free(made);
    return status;
}

/* --- maps ---------------------------------------------------------------------------------- */

enum ep_status ep_place_count_replicas(const struct ep_place_shape *shape, const int32_t *map,
                                       int64_t *replicas)
{
    memset(replicas, 0, (size_t)shape->num_experts * sizeof *replicas);
    for (int64_t i = 0; i < shape->num_slots; i++) {
        if (map[i] < 0 || map[i] >= shape->num_experts) {
            return ep_error_set(
                EP_EINVAL, "slot %" PRId64 " holds expert %" PRId32 "; 0 to %" PRId64 " expected",
                i, map[i], shape->num_experts - 1);
        }
        replicas[map[i]]++;
    }
    for (int64_t e = 0; e < shape->num_experts; e++) {
        if (replicas[e] == 0) {
            return ep_error_set(EP_EINVAL, "expert %" PRId64 " is in no slot", e);
        }
    }
    return EP_OK;
}

static int compare_f64(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Ascending, so that the order of slots does not reach the last bit. */
static double sum_sorted(double *values, int64_t num)
{
    double sum = 0;
    qsort(values, (size_t)num, sizeof *values, compare_f64);
    for (int64_t i = 0; i < num; i++) {
        sum += values[i];
    }
    return sum;
}

enum ep_status ep_place_fill_loads(const struct ep_place_shape *shape, const double *load,
                                   const int32_t *map, double *rank_load, double *node_load)
{
    enum ep_status status;
    const int64_t per_rank = shape->num_slots / shape->num_ranks;
    const int64_t per_node = shape->num_slots / shape->num_nodes;
    int64_t *replicas = calloc((size_t)shape->num_experts, sizeof *replicas);
    double *slots = calloc((size_t)shape->num_slots, sizeof *slots);
    if (replicas == NULL || slots == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for loads");
        goto out;
    }
    EP_TRY(ep_place_count_replicas(shape, map, replicas));
    for (int64_t i = 0; i < shape->num_slots; i++) {
        slots[i] = load[map[i]] / (double)replicas[map[i]];
    }
    for (int64_t r = 0; r < shape->num_ranks; r++) {
        rank_load[r] = sum_sorted(slots + r * per_rank, per_rank);
    }
    for (int64_t n = 0; node_load != NULL && n < shape->num_nodes; n++) {
        node_load[n] = sum_sorted(slots + n * per_node, per_node);
    }
out:
    free(replicas);
    free(slots);
    return status;
}

double ep_place_max(const double *values, int64_t num)
{
    double max = values[0];
    for (int64_t i = 1; i < num; i++) {
        max = fmax(max, values[i]);
    }
    return max;
}

double ep_place_max_over_mean(const double *values, int64_t num)
{
    double sum = 0;
    for (int64_t i = 0; i < num; i++) {
        sum += values[i];
    }
    return sum > 0 ? ep_place_max(values, num) * (double)num / sum : (double)NAN;
}

enum ep_status ep_place_init_placement(const struct ep_place_shape *shape, const int32_t *map,
                                       struct ep_placement *placement)
{
    const int64_t per_rank = shape->num_slots / shape->num_ranks;
    int32_t *experts = malloc((size_t)shape->num_slots * sizeof *experts);
    int32_t *ranks = malloc((size_t)shape->num_slots * sizeof *ranks);
    enum ep_status status = EP_OK;
    if (experts == NULL || ranks == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    int64_t num = 0;
    for (int64_t i = 0; i < shape->num_slots; i++) {
        bool again = false;
        for (int64_t j = i - i % per_rank; j < i; j++) {
            again = again || map[j] == map[i];
        }
        if (!again) {
            experts[num] = map[i];
            ranks[num++] = (int32_t)(i / per_rank);
        }
    }
    status = ep_placement_init_slots(experts, ranks, num, shape->num_experts, shape->num_ranks,
                                     placement);
out:
    free(experts);
    free(ranks);
    return status;
}
