/* SPDX-License-Identifier: Apache-2.0 */
/* A schedule as a list, and its critical path. */
#include "bench/overlap_plan.h"

#include "bench/transport.h"

#include <math.h>

int64_t ep_overlap_list(int num_chunks, bool has_shared, const struct ep_overlap_phases *phases,
                        struct ep_overlap_event *events)
{
    int64_t num = 0;
#define PUT(...) events[num++] = (struct ep_overlap_event){__VA_ARGS__}
#define BEGIN(op, c, pack)                                                                         \
    do {                                                                                           \
        PUT(EP_OVERLAP_COPY, c, op, pack);                                                         \
        PUT(EP_OVERLAP_START, c, op, 0);                                                           \
    } while (0)
#define END(op, c, unpack)                                                                         \
    do {                                                                                           \
        PUT(EP_OVERLAP_FINISH, c, op, 0);                                                          \
        PUT(EP_OVERLAP_COPY, c, op, unpack);                                                       \
    } while (0)
    PUT(EP_OVERLAP_ROUTE, 0, 0, 0);
    for (int c = 0; c < num_chunks; c++) {
        PUT(EP_OVERLAP_COUNTS, c, EP_OP_DISPATCH, phases->counts);
    }
    BEGIN(EP_OP_DISPATCH, 0, phases->pack);
    if (has_shared) {
        PUT(EP_OVERLAP_SHARED, 0, 0, 0);
    }
    for (int c = 0; c < num_chunks; c++) {
        if (c + 1 < num_chunks) {
            BEGIN(EP_OP_DISPATCH, c + 1, phases->pack);
        }
        END(EP_OP_DISPATCH, c, phases->unpack);
        PUT(EP_OVERLAP_EXPERTS, c, 0, 0);
        BEGIN(EP_OP_COMBINE, c, phases->combine_pack);
        if (c > 0) {
            END(EP_OP_COMBINE, c - 1, phases->combine_unpack);
        }
    }
    END(EP_OP_COMBINE, num_chunks - 1, phases->combine_unpack);
    if (has_shared) {
        PUT(EP_OVERLAP_ADD, 0, 0, 0);
    }
#undef PUT
#undef BEGIN
#undef END
    return num;
}

double ep_overlap_bound_s(const struct ep_overlap_event *events, int64_t num, const double *time_s)
{
    double end_s[EP_NUM_OPS][EP_OVERLAP_MAX_CHUNKS] = {{0}};
    double now_s = 0; /* the rank */
    double free_s = 0; /* whatever exchanges */
    for (int64_t i = 0; i < num; i++) {
        const struct ep_overlap_event *e = &events[i];
        if (e->act == EP_OVERLAP_START) {
            free_s = fmax(free_s, now_s) + time_s[i];
            end_s[e->op][e->chunk] = free_s;
        } else if (e->act == EP_OVERLAP_FINISH) {
            now_s = fmax(now_s, end_s[e->op][e->chunk]);
        } else {
            now_s += time_s[i];
        }
    }
    return now_s;
}
