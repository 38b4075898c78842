/* SPDX-License-Identifier: Apache-2.0 */
/* Checked wrappers around jansson. */
#include "base/json.h"

#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *ep_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *ep_json_real_array(const double *values, int64_t num)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < num && array != NULL; i++) {
        if (json_array_append_new(array, ep_json_real(values[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

json_t *ep_json_i64_array(const int64_t *values, int64_t num)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < num && array != NULL; i++) {
        if (json_array_append_new(array, json_integer(values[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

enum ep_status ep_json_set(json_t *object, const char *key, json_t *value)
{
    if (value == NULL || json_object_set_new(object, key, value) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON key '%s', or text that is not UTF-8",
                            key);
    }
    return EP_OK;
}

enum ep_status ep_json_parse(const char *name, int64_t line, const char *text, size_t length,
                             json_t **value)
{
    json_error_t error;
    json_t *parsed = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (parsed == NULL) {
        return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": is not valid JSON: %s (column %d)", name,
                            line + (error.line > 0 ? error.line - 1 : 0), error.text,
                            error.column);
    }
    *value = parsed;
    return EP_OK;
}

enum ep_status ep_json_load(const char *path, int64_t limit_bytes, json_t **value)
{
    char *text = NULL;
    size_t length = 0;
    enum ep_status status = ep_file_read(path, limit_bytes, &text, &length);
    if (status == EP_OK) {
        status = ep_json_parse(path, 1, text, length, value);
    }
    free(text);
    return status;
}

enum ep_status ep_json_save(const char *path, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(10) | JSON_ENCODE_ANY);
    char *lined = text != NULL ? ep_format_new("%s\n", text) : NULL;
    free(text);
    if (lined == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory to write JSON", path);
    }
    const enum ep_status status = ep_file_write(path, lined, strlen(lined));
    free(lined);
    return status;
}

static enum ep_status get(const json_t *object, const char *key, const char *where,
                          json_t **member)
{
    if (!json_is_object(object)) {
        return ep_error_set(EP_EINVAL, "%s: a JSON object was expected", where);
    }
    json_t *found = json_object_get(object, key);
    if (found == NULL) {
        return ep_error_set(EP_EINVAL, "%s: key '%s' is missing", where, key);
    }
    *member = found;
    return EP_OK;
}

enum ep_status ep_json_get_i64(const json_t *object, const char *key, const char *where,
                               int64_t min, int64_t max, int64_t *value)
{
    json_t *member = NULL;
    const enum ep_status status = get(object, key, where, &member);
    if (status != EP_OK) {
        return status;
    }
    if (!json_is_integer(member)) {
        return ep_error_set(EP_EINVAL, "%s: '%s' must be a whole number", where, key);
    }
    const int64_t found = json_integer_value(member);
    if (found < min || found > max) {
        return ep_error_set(EP_EINVAL,
                            "%s: '%s' is %" PRId64 ", outside %" PRId64 " to %" PRId64, where,
                            key, found, min, max);
    }
    *value = found;
    return EP_OK;
}

enum ep_status ep_json_get_f64(const json_t *object, const char *key, const char *where,
                               double min, double max, double *value)
{
    json_t *member = NULL;
    const enum ep_status status = get(object, key, where, &member);
    if (status != EP_OK) {
        return status;
    }
    if (!json_is_number(member)) {
        return ep_error_set(EP_EINVAL, "%s: '%s' must be a number", where, key);
    }
    const double found = json_number_value(member);
    if (!(found >= min && found <= max)) {
        return ep_error_set(EP_EINVAL, "%s: '%s' is %g, outside %g to %g", where, key, found, min,
                            max);
    }
    *value = found;
    return EP_OK;
}

enum ep_status ep_json_get_string(const json_t *object, const char *key, const char *where,
                                  const char **value)
{
    json_t *member = NULL;
    const enum ep_status status = get(object, key, where, &member);
    if (status != EP_OK) {
        return status;
    }
    if (!json_is_string(member)) {
        return ep_error_set(EP_EINVAL, "%s: '%s' must be a text", where, key);
    }
    *value = json_string_value(member);
    return EP_OK;
}

enum ep_status ep_json_get_f64_or_nan(const json_t *object, const char *key, const char *where,
                                      double *value)
{
    const json_t *member = json_object_get(object, key);
    if (member == NULL || json_is_null(member)) {
        *value = NAN;
        return EP_OK;
    }
    return ep_json_get_f64(object, key, where, -HUGE_VAL, HUGE_VAL, value);
}
