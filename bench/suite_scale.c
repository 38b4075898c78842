/* SPDX-License-Identifier: Apache-2.0 */
/* How long a sweep takes on the links that were measured, its sizes in proportion, its skews by nodes. */
#include "bench/suite_scale.h"

#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a visit with dispatch and combine: the first dispatch, and for each 3 to warm up, 3 samples, 1 + 5 of the
 * phases and one verified. */
enum { LEAST_REPETITIONS = 1 + 2 * 13 };

double ep_suite_seconds_per_byte(const struct ep_topo *topo, const struct ep_links_summary *links)
{
    const double all_pairs = (double)topo->num_ranks * (double)topo->num_ranks;
    double most = 0;
    for (int64_t i = 0; i < links->num_levels; i++) {
        const struct ep_links_level *l = &links->levels[i];
        const double bw = isnan(l->all_large_bw_bytes_per_s) ? l->large_bw_bytes_per_s
                                                             : l->all_large_bw_bytes_per_s;
        /* a level's pairs are unordered: each rank sends this share of its bytes over them */
        const double share = 2 * (double)topo->levels[l->level].num_pairs / all_pairs;
        most = fmax(most, share / bw); /* not the NaN of what was not measured */
    }
    return most;
}

double ep_suite_least_time(const struct ep_comm_case *cases, int64_t num_cases, int64_t visits,
                           double seconds_per_byte)
{
    double bytes = 0;
    for (int64_t i = 0; i < num_cases; i++) {
        bytes += (double)(cases[i].tokens * cases[i].top_k *
                          ep_dtype_row_bytes(cases[i].dtype, cases[i].hidden));
    }
    return bytes * seconds_per_byte * (double)visits * LEAST_REPETITIONS;
}

char *ep_suite_divided_tokens(const char *tokens, int64_t divisor)
{
    char *divided = calloc(1, strlen(tokens) + 1); /* no number gets longer */
    size_t length = 0;
    int64_t last = 0;
    EP_ASSERT(divisor >= 1);
    for (const char *at = tokens; divided != NULL && *at != '\0';) {
        char *end = NULL;
        const int64_t asked = strtoll(at, &end, 10);
        const int64_t number = asked / divisor > 1 ? asked / divisor : 1;
        if (number != last) { /* lists are sorted */
            length += (size_t)sprintf(divided + length, "%s%" PRId64, length > 0 ? "," : "",
                                      number);
        }
        last = number;
        at = *end == ',' ? end + 1 : end;
    }
    return divided;
}

char *ep_suite_skews_of_nodes(const char *skews, int64_t num_nodes, int64_t ranks_per_node)
{
    return num_nodes < 2 || ranks_per_node < 2
               ? strdup(skews)
               : ep_format_new("%s,hot:2@0-1,hot:2@0/%" PRId64, skews, ranks_per_node);
}
