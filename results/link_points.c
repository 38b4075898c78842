/* SPDX-License-Identifier: Apache-2.0 */
/* Links records pooled over their visits. */
#include "results/machine_file.h"

#include "base/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *pattern_of(const struct ep_record *r)
{
    return r->pattern != NULL ? r->pattern : "";
}

static int compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_records(const void *a, const void *b)
{
    const struct ep_record *left = *(const struct ep_record *const *)a;
    const struct ep_record *right = *(const struct ep_record *const *)b;
    int order = strcmp(left->level, right->level);
    order = order != 0 ? order : strcmp(pattern_of(left), pattern_of(right));
    order = order != 0 ? order : compare_i64(left->concurrent_pairs, right->concurrent_pairs);
    return order != 0 ? order : compare_i64(left->size_bytes, right->size_bytes);
}

static double median_of(double *values, int64_t num)
{
    ep_stats_sort(values, num);
    return ep_stats_median_sorted(values, num);
}

/* Visits of one point. room [2 * num]. */
static struct ep_link_point pool(const struct ep_record **visits, int64_t num, double *room)
{
    for (int64_t i = 0; i < num; i++) {
        const struct ep_record *r = visits[i];
        room[i] = r->median_s;
        room[num + i] = isnan(r->bw_bytes_per_s) ? (double)r->size_bytes / r->median_s
                                                 : r->bw_bytes_per_s;
    }
    return (struct ep_link_point){
        .level = visits[0]->level,
        .pattern = pattern_of(visits[0]),
        .size_bytes = visits[0]->size_bytes,
        .concurrent_pairs = visits[0]->concurrent_pairs,
        .time_s = median_of(room, num),
        .bw_bytes_per_s = median_of(room + num, num),
    };
}

enum ep_status ep_link_points_pool(const struct ep_records *records, struct ep_link_point **points,
                                   int64_t *num_points)
{
    enum ep_status status = EP_OK;
    const size_t room_size = (size_t)records->num + 1;
    const struct ep_record **links = calloc(room_size, sizeof *links);
    double *room = calloc(2 * room_size, sizeof *room);
    struct ep_link_point *made = calloc(room_size, sizeof *made);
    int64_t num_links = 0, num = 0;
    if (links == NULL || room == NULL || made == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for links records"));
    }
    for (int64_t i = 0; i < records->num; i++) {
        if (records->items[i].kind == EP_RECORD_LINKS) {
            links[num_links++] = &records->items[i];
        }
    }
    qsort(links, (size_t)num_links, sizeof *links, compare_records);
    for (int64_t first = 0, next; first < num_links; first = next) {
        next = first + 1;
        while (next < num_links && compare_records(&links[first], &links[next]) == 0) {
            next++;
        }
        made[num++] = pool(links + first, next - first, room);
    }
    *points = made;
    *num_points = num;
    made = NULL;
out:
    free(links);
    free(room);
    free(made);
    return status;
}
