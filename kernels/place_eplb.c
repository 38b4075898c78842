/* SPDX-License-Identifier: Apache-2.0 */
/* EPLB's algorithm, in fp32 as the original, so that ties fall the same way. */
#include "kernels/place_eplb.h"

#include <stdlib.h>

struct item {
    float weight;
    int64_t idx;
};

static int heaviest_first(const void *a, const void *b)
{
    const struct item *x = a;
    const struct item *y = b;
    if (x->weight != y->weight) {
        return x->weight > y->weight ? -1 : 1;
    }
    return (x->idx > y->idx) - (x->idx < y->idx);
}

static void pack_items(const struct item *items, int64_t num_items, int64_t num_packs,
                       float *pack_load, int64_t *pack_num, int64_t *pack, int64_t *place)
{
    for (int64_t i = 0; i < num_items; i++) {
        int64_t best = -1;
        for (int64_t p = 0; p < num_packs; p++) {
            if (pack_num[p] < num_items / num_packs &&
                (best < 0 || pack_load[p] < pack_load[best])) {
                best = p;
            }
        }
        pack[items[i].idx] = best;
        place[items[i].idx] = pack_num[best]++;
        pack_load[best] += items[i].weight;
    }
}

enum ep_status ep_eplb_pack(const float *weight, int64_t num_items, int64_t num_packs,
                            int64_t *pack, int64_t *place)
{
    EP_ASSERT(num_items % num_packs == 0);
    if (num_items == num_packs) {
        for (int64_t i = 0; i < num_items; i++) {
            pack[i] = i;
            place[i] = 0;
        }
        return EP_OK;
    }
    struct item *items = malloc((size_t)num_items * sizeof *items);
    float *pack_load = calloc((size_t)num_packs, sizeof *pack_load);
    int64_t *pack_num = calloc((size_t)num_packs, sizeof *pack_num);
    enum ep_status status = EP_OK;
    if (items == NULL || pack_load == NULL || pack_num == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for packing");
    } else {
        for (int64_t i = 0; i < num_items; i++) {
            items[i] = (struct item){weight[i], i};
        }
        qsort(items, (size_t)num_items, sizeof *items, heaviest_first);
        pack_items(items, num_items, num_packs, pack_load, pack_num, pack, place);
    }
    free(items);
    free(pack_load);
    free(pack_num);
    return status;
}

/* The first num_experts replicas are the experts themselves; each one more is of the expert with
 * the most load per replica, the first of equals. */
static void replicate(const float *load, int64_t num_experts, int64_t num_replicas,
                      int64_t *replica_expert, int64_t *count)
{
    for (int64_t i = 0; i < num_replicas; i++) {
        int64_t best = i;
        if (i >= num_experts) {
            best = 0;
            for (int64_t e = 1; e < num_experts; e++) {
                if (load[e] / (float)count[e] > load[best] / (float)count[best]) {
                    best = e;
                }
            }
            count[best]++;
        } else {
            count[i] = 1;
        }
        replica_expert[i] = best;
    }
}

enum ep_status ep_eplb_pack_groups(const struct ep_place_task *task, int64_t *node_order)
{
    enum ep_status status;
    const struct ep_place_shape *s = &task->shape;
    const int64_t size = s->num_experts / s->num_groups;
    const int64_t per_node = s->num_groups / s->num_nodes;
    float *weight = calloc((size_t)s->num_groups, sizeof *weight);
    int64_t *node = calloc((size_t)s->num_groups, sizeof *node);
    int64_t *place = calloc((size_t)s->num_groups, sizeof *place);
    if (weight == NULL || node == NULL || place == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %lld groups", (long long)s->num_groups);
        goto out;
    }
    for (int64_t g = 0; g < s->num_groups; g++) {
        for (int64_t i = 0; i < size; i++) {
            weight[g] += (float)task->load[g * size + i];
        }
    }
    EP_TRY(ep_eplb_pack(weight, s->num_groups, s->num_nodes, node, place));
    for (int64_t g = 0; g < s->num_groups; g++) {
        node_order[node[g] * per_node + place[g]] = g;
    }
out:
    free(weight);
    free(node);
    free(place);
    return status;
}

/* One node: its experts in `experts` [num_experts], its slots in `map` [num_slots]. */
static enum ep_status place_node(const double *load, const int32_t *experts, int64_t num_experts,
                                 int64_t num_ranks, int64_t num_slots, int32_t *map)
{
    enum ep_status status;
    const size_t slots = (size_t)num_slots;
    float *expert_load = calloc((size_t)num_experts, sizeof *expert_load);
    int64_t *count = calloc((size_t)num_experts, sizeof *count);
    int64_t *replica_expert = calloc(slots, sizeof *replica_expert);
    float *weight = calloc(slots, sizeof *weight);
    int64_t *rank = calloc(slots, sizeof *rank);
    int64_t *place = calloc(slots, sizeof *place);
    if (expert_load == NULL || count == NULL || replica_expert == NULL || weight == NULL ||
        rank == NULL || place == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %zu slots", slots);
        goto out;
    }
    for (int64_t e = 0; e < num_experts; e++) {
        expert_load[e] = (float)load[experts[e]];
    }
    replicate(expert_load, num_experts, num_slots, replica_expert, count);
    for (int64_t i = 0; i < num_slots; i++) {
        weight[i] = expert_load[replica_expert[i]] / (float)count[replica_expert[i]];
    }
    EP_TRY(ep_eplb_pack(weight, num_slots, num_ranks, rank, place));
    for (int64_t i = 0; i < num_slots; i++) {
        map[rank[i] * (num_slots / num_ranks) + place[i]] = experts[replica_expert[i]];
    }
out:
    free(expert_load);
    free(count);
    free(replica_expert);
    free(weight);
    free(rank);
    free(place);
    return status;
}

enum ep_status ep_eplb_place_groups(const struct ep_place_task *task, const int64_t *node_order,
                                    int32_t *map)
{
    const struct ep_place_shape *s = &task->shape;
    const int64_t size = s->num_experts / s->num_groups;
    const int64_t per_node = s->num_groups / s->num_nodes;
    const int64_t slots = s->num_slots / s->num_nodes;
    enum ep_status status = EP_OK;
    int32_t *experts = malloc((size_t)(per_node * size) * sizeof *experts);
    if (experts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a placement");
    }
    for (int64_t n = 0; n < s->num_nodes && status == EP_OK; n++) {
        for (int64_t i = 0; i < per_node * size; i++) {
            experts[i] = (int32_t)(node_order[n * per_node + i / size] * size + i % size);
        }
        status = place_node(task->load, experts, per_node * size, s->num_ranks / s->num_nodes,
                            slots, map + n * slots);
    }
    free(experts);
    return status;
}

static enum ep_status place_global(const struct ep_place_task *task, int32_t *map)
{
    static const int64_t only_group[] = {0};
    struct ep_place_task flat = *task;
    flat.shape.num_groups = 1;
    flat.shape.num_nodes = 1;
    return ep_eplb_place_groups(&flat, only_group, map);
}

static enum ep_status place_hierarchical(const struct ep_place_task *task, int32_t *map)
{
    if (task->shape.num_groups % task->shape.num_nodes != 0) {
        return place_global(task, map);
    }
    int64_t *node_order = malloc((size_t)task->shape.num_groups * sizeof *node_order);
    if (node_order == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a placement");
    }
    enum ep_status status = ep_eplb_pack_groups(task, node_order);
    if (status == EP_OK) {
        status = ep_eplb_place_groups(task, node_order, map);
    }
    free(node_order);
    return status;
}

const struct ep_place_policy ep_place_eplb = {
    .name = "eplb",
    .summary = "EPLB: groups to nodes, replicas inside nodes, replicas to ranks; eplb-global where "
               "nodes do not divide groups",
    .place = place_hierarchical,
};

const struct ep_place_policy ep_place_eplb_global = {
    .name = "eplb-global",
    .summary = "EPLB without nodes and groups: replicate, then pack to ranks",
    .place = place_global,
};

const struct ep_place_policy ep_place_dynamic_eplb = {
    .name = "dynamic",
    .summary =
        "placed anew every few windows, by eplb or another policy, where that is worth the move",
    .over_time = true,
    .place = place_hierarchical,
};
