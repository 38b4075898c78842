/* SPDX-License-Identifier: Apache-2.0 */
/* The table at the end of `epbench comm`: one row per case, visits pooled. */
#ifndef EP_BENCH_COMM_TABLE_H
#define EP_BENCH_COMM_TABLE_H

#include "results/record.h"

#include <stdio.h>

struct ep_comm_table;

EP_MUST_CHECK enum ep_status ep_comm_table_create(struct ep_comm_table **table);
void ep_comm_table_destroy(struct ep_comm_table *table);

/** Add one visit (what is needed is copied). */
EP_MUST_CHECK enum ep_status ep_comm_table_add(struct ep_comm_table *table,
                                               const struct ep_record *record);

/** Sort and print: the median of visit medians, the spread of visits (largest over smallest), the exchange's,
 *  bandwidths with their basis, wrong rows. null_s is what the harness itself costs. */
EP_MUST_CHECK enum ep_status ep_comm_table_print(struct ep_comm_table *table, double null_s,
                                                 FILE *out);

#endif
