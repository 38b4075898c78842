/* SPDX-License-Identifier: Apache-2.0 */
/* Which cases are compared with each other. */
#include "bench/limits.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Cases are zeroed before they are filled, so that bytes can be compared. */
static bool is_same(const struct ep_comm_case *a, const struct ep_comm_case *b)
{
    struct ep_comm_case x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    x.transport = y.transport = NULL;
    x.algorithm = y.algorithm = NULL;
    x.capacity.pad = y.capacity.pad = false;
    return memcmp(&x, &y, sizeof x) == 0;
}

enum ep_status ep_limits_points_init(const struct ep_comm_case *cases, int64_t num_cases,
                                     struct ep_limits_points *p)
{
    const size_t num = (size_t)num_cases + 1;
    int64_t num_members = 0;
    p->points = calloc(num, sizeof *p->points);
    p->members = calloc(num, sizeof *p->members);
    p->first = calloc(num, sizeof *p->first);
    if (p->points == NULL || p->members == NULL || p->first == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " cases", num_cases);
    }
    for (int64_t i = 0; i < num_cases; i++) {
        bool is_new = true;
        for (int64_t k = 0; k < p->num && is_new; k++) {
            is_new = !is_same(&p->points[k], &cases[i]);
        }
        for (int64_t j = i; is_new && j < num_cases; j++) {
            if (is_same(&cases[i], &cases[j])) {
                p->members[num_members++] = j;
            }
        }
        if (is_new) {
            memcpy(&p->points[p->num++], &cases[i], sizeof cases[i]);
            p->first[p->num] = num_members;
        }
    }
    return EP_OK;
}

void ep_limits_points_fini(struct ep_limits_points *p)
{
    free(p->points);
    free(p->members);
    free(p->first);
    *p = (struct ep_limits_points){0};
}
