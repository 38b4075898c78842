/* SPDX-License-Identifier: Apache-2.0 */
/* The tables at the end of `epbench layer`: one row per case, visits pooled, and who waited for whom. */
#ifndef EP_BENCH_LAYER_TABLE_H
#define EP_BENCH_LAYER_TABLE_H

#include "results/record.h"

#include <stdio.h>

struct ep_layer_table;

EP_MUST_CHECK enum ep_status ep_layer_table_create(struct ep_layer_table **table);
void ep_layer_table_destroy(struct ep_layer_table *table);

/** Add one visit (what is needed is copied). */
EP_MUST_CHECK enum ep_status ep_layer_table_add(struct ep_layer_table *table,
                                                const struct ep_record *record);

/** Print the medians of visits: times by kind of work, balance, speed; then the wait matrices of up to
 *  8 cases of up to 8 ranks. */
EP_MUST_CHECK enum ep_status ep_layer_table_print(const struct ep_layer_table *table, FILE *out);

#endif
