/* SPDX-License-Identifier: Apache-2.0 */
/* The engine behind tables of columns: absent, free, to JSON, from JSON. */
#include "results/columns.h"

#include "base/json.h"
#include "results/lists.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHERE_LENGTH = 512, ABSENT = -1 };
#define MAX_MAGNITUDE 1e30

/* Every list has this shape, with items of its own type. */
struct any_list {
    void *items;
    int64_t num;
};

static void *field(const struct ep_column *c, void *object)
{
    return (char *)object + c->offset;
}

static const void *const_field(const struct ep_column *c, const void *object)
{
    return (const char *)object + c->offset;
}

/* Lists are copied in and out as bytes, since their pointers have different types. */
static struct any_list load_list(const void *from)
{
    struct any_list list;
    memcpy(&list, from, sizeof list);
    return list;
}

static void store_list(void *to, struct any_list list)
{
    memcpy(to, &list, sizeof list);
}

static bool has_kind(const struct ep_column *c, int kind)
{
    return c->kinds == 0 || (c->kinds >> kind & 1u) != 0;
}

static bool is_required(const struct ep_column *c, int kind)
{
    return (c->required >> kind & 1u) != 0;
}

void ep_columns_init(const struct ep_column *columns, void *object)
{
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        void *f = field(c, object);
        switch (c->type) {
        case EP_COLUMN_I64:
        case EP_COLUMN_FLAG: *(int64_t *)f = ABSENT; break;
        case EP_COLUMN_F64:
        case EP_COLUMN_SIGNED: *(double *)f = NAN; break;
        case EP_COLUMN_TEXT: *(char **)f = NULL; break;
        case EP_COLUMN_F64S:
        case EP_COLUMN_I64S:
        case EP_COLUMN_LIST: store_list(f, (struct any_list){NULL, 0}); break;
        case EP_COLUMN_OBJECT: ep_columns_init(c->columns, f); break;
        }
    }
}

void ep_columns_fini(const struct ep_column *columns, void *object)
{
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        void *f = field(c, object);
        if (c->type == EP_COLUMN_TEXT) {
            free(*(char **)f);
        } else if (c->type == EP_COLUMN_OBJECT) {
            ep_columns_fini(c->columns, f);
        } else if (c->type == EP_COLUMN_F64S || c->type == EP_COLUMN_I64S ||
                   c->type == EP_COLUMN_LIST) {
            const struct any_list list = load_list(f);
            for (int64_t i = 0; c->type == EP_COLUMN_LIST && i < list.num; i++) {
                ep_columns_fini(c->columns, (char *)list.items + (size_t)i * c->item_size);
            }
            free(list.items);
        }
    }
    ep_columns_init(columns, object);
}

static bool is_absent(const struct ep_column *c, const void *object)
{
    const void *f = const_field(c, object);
    switch (c->type) {
    case EP_COLUMN_I64:
    case EP_COLUMN_FLAG: return *(const int64_t *)f == ABSENT;
    case EP_COLUMN_F64:
    case EP_COLUMN_SIGNED: return isnan(*(const double *)f);
    case EP_COLUMN_TEXT: return *(char *const *)f == NULL;
    case EP_COLUMN_F64S:
    case EP_COLUMN_I64S:
    case EP_COLUMN_LIST: return load_list(f).num == 0;
    case EP_COLUMN_OBJECT:
        for (const struct ep_column *part = c->columns; part->name != NULL; part++) {
            if (!is_absent(part, f)) {
                return false;
            }
        }
        return true;
    }
    return true;
}

enum ep_status ep_columns_add_item(const struct ep_column *list, void *object, void **item)
{
    struct any_list all = load_list(field(list, object));
    /* The room is the next power of two, so only a full one needs more. */
    if ((all.num & (all.num - 1)) == 0) {
        const size_t room = all.num == 0 ? 1 : (size_t)all.num * 2;
        void *larger = realloc(all.items, room * list->item_size);
        if (larger == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for an item of '%s'", list->name);
        }
        all.items = larger;
    }
    *item = (char *)all.items + (size_t)all.num * list->item_size;
    ep_columns_init(list->columns, *item);
    all.num++;
    store_list(field(list, object), all);
    return EP_OK;
}

/* --- writing --------------------------------------------------------------------------------- */

static enum ep_status check_f64(const struct ep_column *c, double value, const char *where)
{
    /* beyond anything measured: squares and quotients of such numbers stay finite */
    if (!(fabs(value) <= MAX_MAGNITUDE) || (c->type != EP_COLUMN_SIGNED && value < 0)) {
        return ep_error_set(EP_EINVAL, "%s: '%s' is %g, a number%s up to %g was expected", where,
                            c->name, value, c->type != EP_COLUMN_SIGNED ? " >= 0" : "",
                            MAX_MAGNITUDE);
    }
    return EP_OK;
}

static enum ep_status check_i64(const struct ep_column *c, int64_t value, const char *where)
{
    const int64_t max = c->type == EP_COLUMN_FLAG ? 1 : INT64_MAX;
    if (value < 0 || value > max) {
        return ep_error_set(EP_EINVAL, "%s: '%s' is %" PRId64 ", outside 0 to %" PRId64, where,
                            c->name, value, max);
    }
    return EP_OK;
}

static enum ep_status list_to_json(const struct ep_column *c, int kind, const void *f,
                                   const char *where, json_t **json)
{
    const struct any_list list = load_list(f);
    json_t *array = json_array();
    enum ep_status status = array != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for JSON");
    for (int64_t i = 0; i < list.num && status == EP_OK; i++) {
        json_t *item = NULL;
        if (c->type == EP_COLUMN_F64S) {
            const double value = ((const double *)list.items)[i];
            status = check_f64(c, value, where);
            item = ep_json_real(value);
        } else if (c->type == EP_COLUMN_I64S) {
            const int64_t value = ((const int64_t *)list.items)[i];
            status = check_i64(c, value, where);
            item = json_integer(value);
        } else {
            char inner[WHERE_LENGTH];
            snprintf(inner, sizeof inner, "%s: %s[%" PRId64 "]", where, c->name, i);
            item = json_object();
            status = item == NULL ? EP_ENOMEM
                                  : ep_columns_to_json(c->columns, kind,
                                                       (const char *)list.items +
                                                           (size_t)i * c->item_size,
                                                       inner, item);
        }
        if (json_array_append_new(array, item) != 0 && status == EP_OK) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
        }
    }
    if (status != EP_OK) {
        json_decref(array);
        return status;
    }
    *json = array;
    return EP_OK;
}

static enum ep_status value_to_json(const struct ep_column *c, int kind, const void *f,
                                    const char *where, json_t **json)
{
    enum ep_status status = EP_OK;
    char inner[WHERE_LENGTH];
    switch (c->type) {
    case EP_COLUMN_I64:
    case EP_COLUMN_FLAG: {
        const int64_t value = *(const int64_t *)f;
        status = check_i64(c, value, where);
        *json = c->type == EP_COLUMN_FLAG ? json_boolean(value == 1) : json_integer(value);
        break;
    }
    case EP_COLUMN_F64:
    case EP_COLUMN_SIGNED:
        status = check_f64(c, *(const double *)f, where);
        *json = ep_json_real(*(const double *)f);
        break;
    case EP_COLUMN_TEXT: *json = json_string(*(char *const *)f); break;
    case EP_COLUMN_F64S:
    case EP_COLUMN_I64S:
    case EP_COLUMN_LIST: return list_to_json(c, kind, f, where, json);
    case EP_COLUMN_OBJECT:
        snprintf(inner, sizeof inner, "%s: %s", where, c->name);
        *json = json_object();
        status = *json != NULL ? ep_columns_to_json(c->columns, kind, f, inner, *json)
                               : EP_ENOMEM;
        break;
    }
    if (status != EP_OK) {
        json_decref(*json);
        *json = NULL;
    }
    return status;
}

enum ep_status ep_columns_to_json(const struct ep_column *columns, int kind, const void *object,
                                  const char *where, json_t *json)
{
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        if (!has_kind(c, kind)) {
            continue;
        }
        json_t *value = NULL;
        enum ep_status status = EP_OK;
        if (is_absent(c, object)) {
            if (is_required(c, kind)) {
                return ep_error_set(EP_EINVAL, "%s: key '%s' has no value and must have one",
                                    where, c->name);
            }
            value = c->type == EP_COLUMN_LIST ? json_array() : json_null();
        } else {
            status = value_to_json(c, kind, const_field(c, object), where, &value);
        }
        if (status == EP_OK) {
            status = ep_json_set(json, c->name, value);
        }
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

/* --- reading --------------------------------------------------------------------------------- */

static enum ep_status wrong_type(const struct ep_column *c, const char *where,
                                 const char *expected)
{
    return ep_error_set(EP_EINVAL, "%s: '%s' must be %s", where, c->name, expected);
}

static enum ep_status i64_from_json(const struct ep_column *c, const json_t *json,
                                    const char *where, int64_t *value)
{
    if (c->type == EP_COLUMN_FLAG) {
        if (!json_is_boolean(json)) {
            return wrong_type(c, where, "true or false");
        }
        *value = json_is_true(json);
        return EP_OK;
    }
    if (!json_is_integer(json)) {
        return wrong_type(c, where, "a whole number");
    }
    const enum ep_status status = check_i64(c, json_integer_value(json), where);
    if (status == EP_OK) {
        *value = json_integer_value(json);
    }
    return status;
}

static enum ep_status f64_from_json(const struct ep_column *c, const json_t *json,
                                    const char *where, double *value)
{
    if (!json_is_number(json)) {
        return wrong_type(c, where, "a number");
    }
    const enum ep_status status = check_f64(c, json_number_value(json), where);
    if (status == EP_OK) {
        *value = json_number_value(json);
    }
    return status;
}

static enum ep_status text_from_json(const struct ep_column *c, const json_t *json,
                                     const char *where, char **text)
{
    if (!json_is_string(json)) {
        return wrong_type(c, where, "a text");
    }
    *text = strdup(json_string_value(json));
    return *text != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a text");
}

static enum ep_status numbers_from_json(const struct ep_column *c, const json_t *json,
                                        const char *where, void *f)
{
    const size_t num = json_array_size(json);
    const bool is_f64 = c->type == EP_COLUMN_F64S;
    struct any_list list = {.items = calloc(num + 1, sizeof(double)), .num = (int64_t)num};
    if (list.items == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for '%s'", c->name);
    }
    enum ep_status status = EP_OK;
    for (size_t i = 0; i < num && status == EP_OK; i++) {
        const json_t *item = json_array_get(json, i);
        status = is_f64 ? f64_from_json(c, item, where, (double *)list.items + i)
                        : i64_from_json(c, item, where, (int64_t *)list.items + i);
    }
    if (status != EP_OK) {
        free(list.items);
        return status;
    }
    store_list(f, list);
    return EP_OK;
}

static enum ep_status items_from_json(const struct ep_column *c, int kind, const json_t *json,
                                      const char *where, void *object)
{
    for (size_t i = 0; i < json_array_size(json); i++) {
        char inner[WHERE_LENGTH];
        snprintf(inner, sizeof inner, "%s: %s[%zu]", where, c->name, i);
        void *item = NULL;
        enum ep_status status = ep_columns_add_item(c, object, &item);
        if (status == EP_OK) {
            status = ep_columns_from_json(c->columns, kind, json_array_get(json, i), inner, NULL,
                                          0, item);
        }
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status value_from_json(const struct ep_column *c, int kind, const json_t *json,
                                      const char *where, void *object)
{
    void *f = field(c, object);
    char inner[WHERE_LENGTH];
    switch (c->type) {
    case EP_COLUMN_I64:
    case EP_COLUMN_FLAG: return i64_from_json(c, json, where, f);
    case EP_COLUMN_F64:
    case EP_COLUMN_SIGNED: return f64_from_json(c, json, where, f);
    case EP_COLUMN_TEXT: return text_from_json(c, json, where, f);
    case EP_COLUMN_F64S:
    case EP_COLUMN_I64S:
        return json_is_array(json) ? numbers_from_json(c, json, where, f)
                                   : wrong_type(c, where, "a list of numbers");
    case EP_COLUMN_LIST:
        return json_is_array(json) ? items_from_json(c, kind, json, where, object)
                                   : wrong_type(c, where, "a list of objects");
    case EP_COLUMN_OBJECT:
        snprintf(inner, sizeof inner, "%s: %s", where, c->name);
        return ep_columns_from_json(c->columns, kind, json, inner, NULL, 0, f);
    }
    return EP_OK;
}

/* The keys of `json` that no column and no other reader knows; called only when some are left. */
static enum ep_status unknown_key(const struct ep_column *columns, int kind, const json_t *json,
                                  const char *where, const char *const *others, int num_others)
{
    void *iterator = json_object_iter((json_t *)json);
    for (; iterator != NULL; iterator = json_object_iter_next((json_t *)json, iterator)) {
        const char *key = json_object_iter_key(iterator);
        bool known = false;
        for (const struct ep_column *c = columns; c->name != NULL && !known; c++) {
            known = has_kind(c, kind) && strcmp(c->name, key) == 0;
        }
        for (int i = 0; i < num_others && !known; i++) {
            known = strcmp(others[i], key) == 0;
        }
        if (!known) {
            return ep_error_set(EP_EINVAL, "%s: unknown key '%s'", where, key);
        }
    }
    return EP_OK;
}

enum ep_status ep_columns_from_json(const struct ep_column *columns, int kind, const json_t *json,
                                    const char *where, const char *const *others, int num_others,
                                    void *object)
{
    if (!json_is_object(json)) {
        return ep_error_set(EP_EINVAL, "%s: a JSON object was expected", where);
    }
    size_t num_known = 0;
    for (int i = 0; i < num_others; i++) {
        num_known += json_object_get(json, others[i]) != NULL;
    }
    for (const struct ep_column *c = columns; c->name != NULL; c++) {
        if (!has_kind(c, kind)) {
            continue;
        }
        const json_t *value = json_object_get(json, c->name);
        num_known += value != NULL;
        enum ep_status status = EP_OK;
        if (value != NULL && !json_is_null(value)) {
            status = value_from_json(c, kind, value, where, object);
        }
        if (status == EP_OK && is_required(c, kind) && is_absent(c, object)) {
            status = ep_error_set(EP_EINVAL, "%s: key '%s' is missing", where, c->name);
        }
        if (status != EP_OK) {
            return status;
        }
    }
    return num_known == json_object_size(json)
               ? EP_OK
               : unknown_key(columns, kind, json, where, others, num_others);
}
