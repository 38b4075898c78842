/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of columns that drive how structs are written to JSON, read back, emptied and freed. */
#ifndef EP_RESULTS_COLUMNS_H
#define EP_RESULTS_COLUMNS_H

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

enum ep_column_type {
    EP_COLUMN_I64 = 1, /* int64_t >= 0; -1 = absent */
    EP_COLUMN_FLAG,    /* int64_t 0 or 1, true or false in JSON; -1 = absent */
    EP_COLUMN_F64,     /* double >= 0; NaN = absent */
    EP_COLUMN_SIGNED,  /* double of any sign; NaN = absent */
    EP_COLUMN_TEXT,    /* char *, owned; NULL = absent */
    EP_COLUMN_F64S,    /* struct ep_f64s, each >= 0; empty = absent */
    EP_COLUMN_I64S,    /* struct ep_i64s, each >= 0; empty = absent */
    EP_COLUMN_OBJECT,  /* struct with columns of its own; all absent = null */
    EP_COLUMN_LIST     /* {items, num} of such structs; empty = [] */
};

/** One key of a JSON object and one field of a struct. Tables end with a row whose name is NULL. */
struct ep_column {
    const char *name;
    enum ep_column_type type;
    unsigned kinds;    /* bit k: the key exists in records of kind k; 0 = in all */
    unsigned required; /* bit k: must be present in records of kind k */
    size_t offset;     /* of the field in its struct */
    const struct ep_column *columns; /* OBJECT, LIST: those of the struct or item */
    size_t item_size;                /* LIST: sizeof one item */
};

enum { EP_COLUMN_ALL = ~0 };

/** Make every field absent (nothing is freed), or free and make absent. */
void ep_columns_init(const struct ep_column *columns, void *object);
void ep_columns_fini(const struct ep_column *columns, void *object);

/** Write the columns of `kind` into a JSON object, absent ones as null. `where` names the object
 *  in messages. Returns EP_EINVAL for a required key that is absent or a number out of range. */
EP_MUST_CHECK enum ep_status ep_columns_to_json(const struct ep_column *columns, int kind,
                                                const void *object, const char *where,
                                                json_t *json);

/** Read the columns of `kind` into an initialised object. Keys that are not in the table are
 *  refused, but for `num_other` keys that the caller has read itself.
 *  Returns EP_EINVAL with `where` and the key; the object may then be partly filled (fini it). */
EP_MUST_CHECK enum ep_status ep_columns_from_json(const struct ep_column *columns, int kind,
                                                  const json_t *json, const char *where,
                                                  const char *const *others, int num_others,
                                                  void *object);

/** Append an absent item to a LIST field, doubling its room; *item until the next append. */
EP_MUST_CHECK enum ep_status ep_columns_add_item(const struct ep_column *list, void *object,
                                                 void **item);

/** The columns of struct ep_record; kinds and required are bits 1 << enum ep_record_kind. */
const struct ep_column *ep_record_columns(void);

#endif
