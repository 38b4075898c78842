/* SPDX-License-Identifier: Apache-2.0 */
/* Fewer tokens for a profile's sweeps where links are too slow for its own in its time. */
#ifndef EP_BENCH_SUITE_SCALE_H
#define EP_BENCH_SUITE_SCALE_H

#include "bench/comm_sweep.h"
#include "bench/links_sweep.h"

/** Seconds that each byte takes which every rank sends, spread evenly over all ranks: by the level that takes
 *  longest, all its pairs at once where that was measured. 0 where nothing was. */
double ep_suite_seconds_per_byte(const struct ep_topo *topo, const struct ep_links_summary *links);

/** What all visits of the cases take at least, s: the fewest repetitions of a visit, each of tokens x top-k
 *  rows. visits of each case. */
double ep_suite_least_time(const struct ep_comm_case *cases, int64_t num_cases, int64_t visits,
                           double seconds_per_byte);

/** A list of token counts, each divided by `divisor` >= 1 (at least 1; none twice), as a new text; NULL
 *  without memory. "64,512,2048" by 32 is "2,16,64". */
char *ep_suite_divided_tokens(const char *tokens, int64_t divisor);

/** `skews`, and on nodes of two ranks and more two others: ranks 0 and 1 hot, which share the first node and its
 *  NIC, and as many on two nodes. Alike for the busiest rank, they tell its rate from the NIC's. A new string;
 *  NULL without memory. */
char *ep_suite_skews_of_nodes(const char *skews, int64_t num_nodes, int64_t ranks_per_node);

#endif
