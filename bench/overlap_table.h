/* SPDX-License-Identifier: Apache-2.0 */
/* The table of `epbench layer --overlap`: one row per case and number of chunks, visits pooled. */
#ifndef EP_BENCH_OVERLAP_TABLE_H
#define EP_BENCH_OVERLAP_TABLE_H

#include "results/record.h"

#include <stdio.h>

struct ep_overlap_table;

EP_MUST_CHECK enum ep_status ep_overlap_table_create(struct ep_overlap_table **table);
void ep_overlap_table_destroy(struct ep_overlap_table *table);

/** Add what one visit's record has of it (copied); a record without any adds nothing. */
EP_MUST_CHECK enum ep_status ep_overlap_table_add(struct ep_overlap_table *table,
                                                  const struct ep_record *record);

/** Print medians over visits, and of each case the number of chunks that is fastest; nothing where nothing
 *  was added. */
EP_MUST_CHECK enum ep_status ep_overlap_table_print(const struct ep_overlap_table *table, FILE *out);

#endif
