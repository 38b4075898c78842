/* SPDX-License-Identifier: Apache-2.0 */
/* JSON through jansson: checked numbers, strict reads that name the place, whole-file writes. */
#ifndef EP_BASE_JSON_H
#define EP_BASE_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

/** A number, or null for NaN and infinities (jansson's json_real(NaN) is NULL and would drop the
 *  key silently). New reference; NULL only without memory. */
json_t *ep_json_real(double value);

/** A new array of numbers. */
json_t *ep_json_real_array(const double *values, int64_t num);
json_t *ep_json_i64_array(const int64_t *values, int64_t num);

/** Put `value` (reference stolen, NULL refused) under `key`; returns EP_ENOMEM where that fails. */
EP_MUST_CHECK enum ep_status ep_json_set(json_t *object, const char *key, json_t *value);

/** Parse one JSON text of `length` bytes; `name` and 1-based `line` of its first line go into
 *  messages ("name:line: ..."). Duplicate keys and trailing text are refused. New reference. */
EP_MUST_CHECK enum ep_status ep_json_parse(const char *name, int64_t line, const char *text,
                                           size_t length, json_t **value);

/** Read one JSON file of at most `limit_bytes` ("-" = standard input). */
EP_MUST_CHECK enum ep_status ep_json_load(const char *path, int64_t limit_bytes, json_t **value);

/** Write `value` indented and with a final line end to `path` ("-" = standard output). */
EP_MUST_CHECK enum ep_status ep_json_save(const char *path, const json_t *value);

/** Required members of `object`; `where` names the place in messages. Numbers must lie in
 *  [min, max]; ep_json_get_f64 accepts integers. Strings are borrowed from the object. */
EP_MUST_CHECK enum ep_status ep_json_get_i64(const json_t *object, const char *key,
                                             const char *where, int64_t min, int64_t max,
                                             int64_t *value);
EP_MUST_CHECK enum ep_status ep_json_get_f64(const json_t *object, const char *key,
                                             const char *where, double min, double max,
                                             double *value);
EP_MUST_CHECK enum ep_status ep_json_get_string(const json_t *object, const char *key,
                                                const char *where, const char **value);

/** A member that may be null or absent: NaN then. */
EP_MUST_CHECK enum ep_status ep_json_get_f64_or_nan(const json_t *object, const char *key,
                                                    const char *where, double *value);

#endif
