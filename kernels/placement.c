/* SPDX-License-Identifier: Apache-2.0 */
/* Building placements: every form ends in one list of slots that is sorted and checked. */
#include "kernels/placement.h"

#include "base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum ep_status check_counts(int64_t num_experts, int64_t num_ranks)
{
    if (num_experts < 1 || num_experts > EP_MAX_EXPERTS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " experts are outside 1 to %d", num_experts,
                            EP_MAX_EXPERTS);
    }
    if (num_ranks < 1 || num_ranks > EP_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " ranks are outside 1 to %d", num_ranks,
                            EP_MAX_RANKS);
    }
    return EP_OK;
}

static enum ep_status allocate(int64_t num_slots, struct ep_placement *p)
{
    p->num_slots = num_slots;
    p->slot_start = calloc((size_t)p->num_experts + 1, sizeof *p->slot_start);
    p->slot_rank = calloc((size_t)num_slots, sizeof *p->slot_rank);
    p->slot_local = calloc((size_t)num_slots, sizeof *p->slot_local);
    p->local_start = calloc((size_t)p->num_ranks + 1, sizeof *p->local_start);
    p->local_expert = calloc((size_t)num_slots, sizeof *p->local_expert);
    if (p->slot_start == NULL || p->slot_rank == NULL || p->slot_local == NULL ||
        p->local_start == NULL || p->local_expert == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a placement of %" PRId64 " slots", num_slots);
    }
    return EP_OK;
}

static enum ep_status check_slots(const int32_t *slot_expert, const int32_t *slot_rank,
                                  int64_t num_slots, int64_t num_experts, int64_t num_ranks)
{
    for (int64_t i = 0; i < num_slots; i++) {
        if (slot_expert[i] < 0 || slot_expert[i] >= num_experts) {
            return ep_error_set(EP_EINVAL,
                                "slot %" PRId64 " of the placement holds expert %" PRId32
                                "; 0 to %" PRId64 " expected",
                                i, slot_expert[i], num_experts - 1);
        }
        if (slot_rank[i] < 0 || slot_rank[i] >= num_ranks) {
            return ep_error_set(EP_EINVAL,
                                "expert %" PRId32 " is placed on rank %" PRId32 "; 0 to %" PRId64
                                " expected",
                                slot_expert[i], slot_rank[i], num_ranks - 1);
        }
    }
    return EP_OK;
}

/* Counting sort by expert that keeps the order of replicas. */
static enum ep_status sort_slots(const int32_t *slot_expert, const int32_t *slot_rank,
                                 struct ep_placement *p)
{
    for (int64_t i = 0; i < p->num_slots; i++) {
        p->slot_start[slot_expert[i] + 1]++;
        p->local_start[slot_rank[i] + 1]++;
    }
    for (int64_t e = 0; e < p->num_experts; e++) {
        const int32_t replicas = p->slot_start[e + 1];
        if (replicas == 0) {
            return ep_error_set(EP_EINVAL, "expert %" PRId64 " is placed on no rank", e);
        }
        p->replicated = p->replicated || replicas > 1;
        p->slot_start[e + 1] += p->slot_start[e];
    }
    for (int64_t r = 0; r < p->num_ranks; r++) {
        const int32_t local = p->local_start[r + 1];
        p->max_local = local > p->max_local ? local : p->max_local;
        p->local_start[r + 1] += p->local_start[r];
    }
    /* slot_local holds, until filled below, how many slots of an expert are taken */
    for (int64_t i = 0; i < p->num_slots; i++) {
        const int32_t first = p->slot_start[slot_expert[i]];
        p->slot_rank[first + p->slot_local[first]++] = slot_rank[i];
    }
    return EP_OK;
}

/* Experts come in ascending order, so each rank's list is ascending. */
static enum ep_status fill_local(struct ep_placement *p)
{
    int32_t *taken = calloc((size_t)p->num_ranks, sizeof *taken);
    if (taken == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a placement");
    }
    enum ep_status status = EP_OK;
    for (int32_t e = 0; e < p->num_experts; e++) {
        for (int32_t s = p->slot_start[e]; s < p->slot_start[e + 1]; s++) {
            const int32_t rank = p->slot_rank[s];
            int32_t *local = p->local_expert + p->local_start[rank];
            if (taken[rank] > 0 && local[taken[rank] - 1] == e) {
                status = ep_error_set(
                    EP_EINVAL, "expert %" PRId32 " is placed twice on rank %" PRId32, e, rank);
            }
            p->slot_local[s] = taken[rank];
            local[taken[rank]++] = e;
        }
    }
    free(taken);
    return status;
}

enum ep_status ep_placement_init_slots(const int32_t *slot_expert, const int32_t *slot_rank,
                                       int64_t num_slots, int64_t num_experts, int64_t num_ranks,
                                       struct ep_placement *placement)
{
    enum ep_status status;
    struct ep_placement p = {.num_experts = num_experts, .num_ranks = num_ranks};
    EP_TRY(check_counts(num_experts, num_ranks));
    if (num_slots < num_experts || num_slots > INT32_MAX) {
        status = ep_error_set(EP_EINVAL, "%" PRId64 " slots cannot hold %" PRId64 " experts",
                              num_slots, num_experts);
        goto out;
    }
    EP_TRY(check_slots(slot_expert, slot_rank, num_slots, num_experts, num_ranks));
    EP_TRY(allocate(num_slots, &p));
    EP_TRY(sort_slots(slot_expert, slot_rank, &p));
    EP_TRY(fill_local(&p));
    *placement = p;
    return EP_OK;
out:
    ep_placement_fini(&p);
    return status;
}

enum ep_status ep_placement_init_list(const int32_t *expert_rank, int64_t num_experts,
                                      int64_t num_ranks, struct ep_placement *placement)
{
    enum ep_status status = check_counts(num_experts, num_ranks);
    if (status != EP_OK) {
        return status;
    }
    int32_t *experts = malloc((size_t)num_experts * sizeof *experts);
    if (experts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a placement");
    }
    for (int32_t e = 0; e < num_experts; e++) {
        experts[e] = e;
    }
    status = ep_placement_init_slots(experts, expert_rank, num_experts, num_experts, num_ranks,
                                     placement);
    free(experts);
    return status;
}

enum ep_status ep_placement_init_contiguous(int64_t num_experts, int64_t num_ranks,
                                            struct ep_placement *placement)
{
    enum ep_status status = check_counts(num_experts, num_ranks);
    if (status != EP_OK) {
        return status;
    }
    if (num_ranks > num_experts && num_ranks % num_experts != 0) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " ranks for %" PRId64
                            " experts: more ranks than experts must be a multiple of them",
                            num_ranks, num_experts);
    }
    const int64_t num_slots = num_ranks > num_experts ? num_ranks : num_experts;
    int32_t *experts = malloc((size_t)num_slots * sizeof *experts);
    int32_t *ranks = malloc((size_t)num_slots * sizeof *ranks);
    if (experts == NULL || ranks == NULL) {
        free(experts);
        free(ranks);
        return ep_error_set(EP_ENOMEM, "no memory for a placement");
    }
    int64_t slot = 0;
    for (int64_t r = 0; r < num_ranks; r++) {
        const int64_t first = r * num_experts / num_ranks;
        const int64_t end = (r + 1) * num_experts / num_ranks;
        for (int64_t e = first; e < end || (num_ranks > num_experts && e == first); e++) {
            experts[slot] = (int32_t)e;
            ranks[slot++] = (int32_t)r;
        }
    }
    EP_ASSERT(slot == num_slots);
    status = ep_placement_init_slots(experts, ranks, num_slots, num_experts, num_ranks, placement);
    free(experts);
    free(ranks);
    return status;
}

enum ep_status ep_placement_parse(const char *text, const char *what, int64_t num_ranks,
                                  struct ep_placement *placement)
{
    enum ep_status status;
    struct ep_list list = {0};
    int32_t *ranks = NULL;
    EP_TRY(ep_list_split(text, ',', what, &list));
    ranks = malloc((size_t)list.num * sizeof *ranks);
    if (ranks == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    int64_t highest = -1;
    for (int64_t e = 0; e < list.num; e++) {
        char item[128];
        int64_t rank = 0;
        snprintf(item, sizeof item, "%s: expert %" PRId64, what, e);
        EP_TRY(ep_parse_i64(list.items[e], item, 0,
                            (num_ranks > 0 ? num_ranks : (int64_t)EP_MAX_RANKS) - 1, &rank));
        ranks[e] = (int32_t)rank;
        highest = rank > highest ? rank : highest;
    }
    status =
        ep_placement_init_list(ranks, list.num, num_ranks > 0 ? num_ranks : highest + 1, placement);
out:
    free(ranks);
    ep_list_fini(&list);
    return status;
}

enum ep_status ep_placement_init_subset(int64_t num_experts, int64_t num_ranks,
                                        const int32_t *holders, int64_t num_holders,
                                        struct ep_placement *placement)
{
    enum ep_status status;
    struct ep_placement all = {0};
    int32_t *slot_expert = NULL;
    int32_t *slot_rank = NULL;
    EP_TRY(ep_placement_init_contiguous(num_experts, num_holders, &all));
    slot_expert = malloc((size_t)all.num_slots * sizeof *slot_expert);
    slot_rank = malloc((size_t)all.num_slots * sizeof *slot_rank);
    if (slot_expert == NULL || slot_rank == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a placement");
        goto out;
    }
    for (int32_t e = 0; e < num_experts; e++) {
        for (int32_t s = all.slot_start[e]; s < all.slot_start[e + 1]; s++) {
            slot_expert[s] = e;
            slot_rank[s] = holders[all.slot_rank[s]];
        }
    }
    EP_TRY(ep_placement_init_slots(slot_expert, slot_rank, all.num_slots, num_experts, num_ranks,
                                   placement));
out:
    free(slot_expert);
    free(slot_rank);
    ep_placement_fini(&all);
    return status;
}

/* "8" or "0-3"; `item` is cut at the dash. */
static enum ep_status parse_range(char *item, const char *what, int64_t num_ranks, int64_t *first,
                                  int64_t *last)
{
    enum ep_status status;
    char *dash = strchr(item, '-');
    if (dash != NULL) {
        *dash = '\0';
    }
    EP_TRY(ep_parse_i64(item, what, 0, num_ranks - 1, first));
    *last = *first;
    if (dash != NULL) {
        EP_TRY(ep_parse_i64(dash + 1, what, 0, num_ranks - 1, last));
    }
    if (*last < *first) {
        status = ep_error_set(EP_EINVAL, "%s: %" PRId64 "-%" PRId64 " runs backwards", what, *first,
                              *last);
    }
out:
    return status;
}

enum ep_status ep_placement_parse_ranks(const char *text, const char *what, int64_t num_ranks,
                                        int32_t **ranks, int64_t *num)
{
    enum ep_status status;
    struct ep_list list = {0};
    int64_t num_named = 0;
    int64_t next = 0;
    int32_t *named = malloc((size_t)num_ranks * sizeof *named);
    if (named == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " ranks", num_ranks);
    }
    EP_TRY(ep_list_split(text, ',', what, &list));
    for (int64_t i = 0; i < list.num; i++) {
        int64_t first = 0;
        int64_t last = 0;
        EP_TRY(parse_range(list.items[i], what, num_ranks, &first, &last));
        if (first < next) {
            status = ep_error_set(EP_EINVAL,
                                  "%s: rank %" PRId64 " after %" PRId64
                                  "; ascending ranks expected, each once",
                                  what, first, next - 1);
            goto out;
        }
        for (next = first; next <= last; next++) {
            named[num_named++] = (int32_t)next;
        }
    }
    *ranks = named;
    *num = num_named;
    named = NULL;
out:
    free(named);
    ep_list_fini(&list);
    return status;
}

void ep_placement_fini(struct ep_placement *placement)
{
    free(placement->slot_start);
    free(placement->slot_rank);
    free(placement->slot_local);
    free(placement->local_start);
    free(placement->local_expert);
    *placement = (struct ep_placement){0};
}

int64_t ep_placement_find_local(const struct ep_placement *placement, int64_t expert, int64_t rank)
{
    const int32_t *experts = NULL;
    int64_t low = 0;
    int64_t high = ep_placement_local_experts(placement, rank, &experts);
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (experts[middle] == expert) {
            return middle;
        }
        if (experts[middle] < expert) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}
