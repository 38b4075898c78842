/* SPDX-License-Identifier: Apache-2.0 */
/* Text tables: cells are kept in one growing array, row by row. */
#include "base/table.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct ep_table {
    const char *const *headers;
    char **cells;
    int num_columns;
    size_t num_cells;
    size_t capacity;
    bool lost;
};

enum ep_status ep_table_create(const char *const *headers, int num_columns,
                               struct ep_table **table)
{
    struct ep_table *created = calloc(1, sizeof *created);
    if (created == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a table");
    }
    created->headers = headers;
    created->num_columns = num_columns;
    *table = created;
    return EP_OK;
}

void ep_table_add(struct ep_table *table, const char *format, ...)
{
    if (table->num_cells == table->capacity) {
        const size_t capacity = table->capacity > 0 ? 2 * table->capacity : 64;
        char **larger = realloc(table->cells, capacity * sizeof *larger);
        if (larger == NULL) {
            table->lost = true;
            return;
        }
        table->cells = larger;
        table->capacity = capacity;
    }
    char *cell = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&cell, format, args) < 0) {
        cell = NULL;
        table->lost = true;
    }
    va_end(args);
    table->cells[table->num_cells++] = cell;
}

/* Displayed width: bytes that do not continue a UTF-8 sequence. */
static int width(const char *text)
{
    int columns = 0;
    for (; *text != '\0'; text++) {
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return columns;
}

static bool is_number(const char *text)
{
    if (*text == '-' || *text == '+') {
        text++;
    }
    return *text == '\0' || isdigit((unsigned char)*text) || strcmp(text, "inf") == 0;
}

static void print_row(FILE *out, const struct ep_table *table, char *const *cells,
                      const int *widths, const bool *right)
{
    for (int c = 0; c < table->num_columns; c++) {
        const int pad = widths[c] - width(cells[c]);
        const bool last = c + 1 == table->num_columns;
        fprintf(out, "%*s%s%*s%s", right[c] ? pad : 0, "", cells[c], right[c] || last ? 0 : pad,
                "", last ? "\n" : "  ");
    }
}

enum ep_status ep_table_print(const struct ep_table *table, FILE *out)
{
    const size_t columns = (size_t)table->num_columns;
    const size_t rows = table->num_cells / columns;
    int *widths = calloc(columns, sizeof *widths);
    bool *right = calloc(columns, sizeof *right);
    if (widths == NULL || right == NULL || table->lost) {
        free(widths);
        free(right);
        return ep_error_set(EP_ENOMEM, "no memory to print a table");
    }
    for (size_t c = 0; c < columns; c++) {
        widths[c] = width(table->headers[c]);
        right[c] = rows > 0;
        for (size_t r = 0; r < rows; r++) {
            const char *cell = table->cells[r * columns + c];
            widths[c] = width(cell) > widths[c] ? width(cell) : widths[c];
            right[c] = right[c] && is_number(cell);
        }
    }
    print_row(out, table, (char *const *)table->headers, widths, right);
    for (size_t r = 0; r < rows; r++) {
        print_row(out, table, table->cells + r * columns, widths, right);
    }
    free(widths);
    free(right);
    return EP_OK;
}

void ep_table_destroy(struct ep_table *table)
{
    if (table == NULL) {
        return;
    }
    for (size_t i = 0; i < table->num_cells; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}
