/* SPDX-License-Identifier: Apache-2.0 */
/* Text tables for the terminal: columns as wide as their widest cell, numbers to the right. */
#ifndef EP_BASE_TABLE_H
#define EP_BASE_TABLE_H

#include "base/error.h"

#include <stdio.h>

struct ep_table;

/** Create a table with `num_columns` headers (borrowed until destroy). */
EP_MUST_CHECK enum ep_status ep_table_create(const char *const *headers, int num_columns,
                                             struct ep_table **table);

/** Append one cell, row by row, left to right. A lack of memory shows when printing. */
void ep_table_add(struct ep_table *table, const char *format, ...) EP_PRINTF(2, 3);

/** Print headers, and the rows that are complete. Returns EP_ENOMEM if a cell was lost. */
EP_MUST_CHECK enum ep_status ep_table_print(const struct ep_table *table, FILE *out);
void ep_table_destroy(struct ep_table *table);

#endif
