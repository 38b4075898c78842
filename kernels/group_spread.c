/* SPDX-License-Identifier: Apache-2.0 */
/* The expectation over all orders in which experts can be drawn. */
#include "kernels/group_spread.h"

#include "kernels/imbalance.h"

#include <inttypes.h>

/* One token on its way: experts drawn so far by kept group, falling, so that equal cases are one. */
struct walk {
    int64_t group_size, num_groups, topk_groups, parts_per_group;
    int drawn, top_k;
    int seen; /* groups */
    int counts[EP_GROUP_SPREAD_MAX_TOP_K + 1]; /* [seen] > 0 */
};

static void end_walk(const struct walk *w, double chance, struct ep_group_spread *spread)
{
    spread->groups += chance * w->seen;
    for (int g = 0; g < w->seen; g++) {
        /* inside a group every set of its experts is equally likely */
        spread->parts += chance * ep_traffic_expected_groups(w->group_size, w->counts[g],
                                                             w->parts_per_group);
    }
}

static void go_on(const struct walk *w, double chance, struct ep_group_spread *spread)
{
    if (w->drawn == w->top_k) {
        end_walk(w, chance, spread);
        return;
    }
    const int64_t allowed = w->seen < w->topk_groups ? w->num_groups : w->topk_groups;
    const double left = (double)(allowed * w->group_size - w->drawn);
    for (int g = 0; g < w->seen;) {
        int equal = 1; /* groups with as many drawn: one case; the first of them grows */
        while (g + equal < w->seen && w->counts[g + equal] == w->counts[g]) {
            equal++;
        }
        const double experts = (double)(equal * (w->group_size - w->counts[g]));
        if (experts > 0) {
            struct walk next = *w;
            next.counts[g]++;
            next.drawn++;
            go_on(&next, chance * experts / left, spread);
        }
        g += equal;
    }
    if (w->seen < allowed) {
        struct walk next = *w;
        next.counts[next.seen++] = 1;
        next.drawn++;
        go_on(&next, chance * (double)((allowed - w->seen) * w->group_size) / left, spread);
    }
}

enum ep_status ep_group_spread_expect(int64_t num_experts, int64_t top_k, int64_t num_groups,
                                      int64_t topk_groups, int64_t num_parts,
                                      struct ep_group_spread *spread)
{
    if (num_experts < 1 || num_groups < 1 || num_parts < num_groups ||
        num_parts % num_groups != 0 || num_experts % num_parts != 0) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " experts in %" PRId64 " groups and %" PRId64
                            " parts: expected each to divide the one before", num_experts,
                            num_groups, num_parts);
    }
    const int64_t kept = topk_groups < num_groups ? topk_groups : num_groups;
    if (kept < 1 || top_k < 1 || top_k > EP_GROUP_SPREAD_MAX_TOP_K ||
        top_k > kept * (num_experts / num_groups)) {
        return ep_error_set(EP_EINVAL, "top-%" PRId64 " of %" PRId64 " groups of %" PRId64
                            " experts: expected 1 to %d, and no more than there are", top_k, kept,
                            num_experts / num_groups, (int)EP_GROUP_SPREAD_MAX_TOP_K);
    }
    const struct walk start = {.group_size = num_experts / num_groups,
                               .num_groups = num_groups,
                               .topk_groups = kept,
                               .parts_per_group = num_parts / num_groups,
                               .top_k = (int)top_k};
    *spread = (struct ep_group_spread){0};
    go_on(&start, 1, spread);
    return EP_OK;
}
