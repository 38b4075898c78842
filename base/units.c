/* SPDX-License-Identifier: Apache-2.0 */
/* Strict parsing and printing of numbers with units. */
#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    double factor;
};

static const struct unit size_units[] = {
    {"", 1},         {"B", 1},         {"K", 0x1p10},   {"M", 0x1p20},   {"G", 0x1p30},
    {"T", 0x1p40},   {"KiB", 0x1p10},  {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
    {"KB", 1e3},     {"kB", 1e3},      {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
};

static const struct unit bandwidth_units[] = {
    {"b/s", 0.125},       {"Kb/s", 125.0},      {"kb/s", 125.0},      {"Mb/s", 125e3},
    {"Gb/s", 125e6},      {"Tb/s", 125e9},      {"bit/s", 0.125},     {"kbit/s", 125.0},
    {"Mbit/s", 125e3},    {"Gbit/s", 125e6},    {"kbit", 125.0},      {"mbit", 125e3},
    {"gbit", 125e6},      {"B/s", 1},           {"KB/s", 1e3},        {"kB/s", 1e3},
    {"MB/s", 1e6},        {"GB/s", 1e9},        {"TB/s", 1e12},       {"KiB/s", 0x1p10},
    {"MiB/s", 0x1p20},    {"GiB/s", 0x1p30},    {"TiB/s", 0x1p40},
};

static const struct unit time_units[] = {
    {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"min", 60}, {"h", 3600},
};

static const struct unit *find_unit(const struct unit *units, size_t num, const char *name)
{
    for (size_t i = 0; i < num; i++) {
        if (strcmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

enum ep_status ep_parse_i64(const char *text, const char *what, int64_t min, int64_t max,
                            int64_t *value)
{
    char *end = NULL;
    errno = 0;
    const long long parsed = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0])) {
        return ep_error_set(EP_EINVAL, "%s: '%s' is not a whole number", what, text);
    }
    if (errno == ERANGE || parsed < min || parsed > max) {
        return ep_error_set(EP_EINVAL, "%s: %s is outside %" PRId64 " to %" PRId64, what, text,
                            min, max);
    }
    *value = parsed;
    return EP_OK;
}

/* A plain decimal prefix of `text`; hexadecimal, "nan" and "inf" are not what a user means. */
static enum ep_status parse_number(const char *text, const char *what, double *value, char **end)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    const int plain = isdigit((unsigned char)digits[0]) || digits[0] == '.';
    errno = 0;
    const double parsed = strtod(text, end);
    if (!plain || *end == text || strpbrk(text, "xX") != NULL) {
        return ep_error_set(EP_EINVAL, "%s: '%s' is not a number", what, text);
    }
    if (!isfinite(parsed)) {
        return ep_error_set(EP_EINVAL, "%s: %s is too large", what, text);
    }
    *value = parsed;
    return EP_OK;
}

enum ep_status ep_parse_f64(const char *text, const char *what, double min, double max,
                            double *value)
{
    char *end = NULL;
    double parsed = 0;
    const enum ep_status status = parse_number(text, what, &parsed, &end);
    if (status != EP_OK) {
        return status;
    }
    if (*end != '\0') {
        return ep_error_set(EP_EINVAL, "%s: '%s' is not a number", what, text);
    }
    if (parsed < min || parsed > max) {
        return ep_error_set(EP_EINVAL, "%s: %s is outside %g to %g", what, text, min, max);
    }
    *value = parsed;
    return EP_OK;
}

static enum ep_status parse_with_unit(const char *text, const char *what,
                                      const struct unit *units, size_t num_units,
                                      const char *examples, double *value)
{
    char *end = NULL;
    double parsed = 0;
    const enum ep_status status = parse_number(text, what, &parsed, &end);
    if (status != EP_OK) {
        return status;
    }
    const struct unit *unit = find_unit(units, num_units, end);
    if (unit == NULL && *end == '\0') {
        return ep_error_set(EP_EINVAL, "%s: %s has no unit; write for example %s", what, text,
                            examples);
    }
    if (unit == NULL) {
        return ep_error_set(EP_EINVAL, "%s: unknown unit '%s' in '%s'; write for example %s",
                            what, end, text, examples);
    }
    if (parsed < 0) {
        return ep_error_set(EP_EINVAL, "%s: %s is negative", what, text);
    }
    *value = parsed * unit->factor;
    return EP_OK;
}

enum ep_status ep_parse_size(const char *text, const char *what, int64_t *size_bytes)
{
    double parsed = 0;
    const enum ep_status status =
        parse_with_unit(text, what, size_units, sizeof size_units / sizeof size_units[0],
                        "64K, 64KiB (1024) or 64KB (1000)", &parsed);
    if (status != EP_OK) {
        return status;
    }
    if (parsed > 0x1p62 || parsed != floor(parsed)) {
        return ep_error_set(EP_EINVAL, "%s: %s is not a whole number of bytes up to 2^62", what,
                            text);
    }
    *size_bytes = (int64_t)parsed;
    return EP_OK;
}

enum ep_status ep_parse_bandwidth(const char *text, const char *what, double *bw_bytes_per_s)
{
    double parsed = 0;
    const enum ep_status status = parse_with_unit(
        text, what, bandwidth_units, sizeof bandwidth_units / sizeof bandwidth_units[0],
        "400Gb/s (bits) or 50GB/s (bytes)", &parsed);
    if (status != EP_OK) {
        return status;
    }
    if (parsed <= 0 || parsed > 1e18) {
        return ep_error_set(EP_EINVAL, "%s: %s is not a bandwidth above 0", what, text);
    }
    *bw_bytes_per_s = parsed;
    return EP_OK;
}

enum ep_status ep_parse_time(const char *text, const char *what, double *time_s)
{
    double parsed = 0;
    const enum ep_status status =
        parse_with_unit(text, what, time_units, sizeof time_units / sizeof time_units[0],
                        "10s, 250ms or 2min", &parsed);
    if (status != EP_OK) {
        return status;
    }
    if (parsed > 1e9) { /* 30 years; loops count with such times */
        return ep_error_set(EP_EINVAL, "%s: %s is more than 1e9 s", what, text);
    }
    *time_s = parsed;
    return EP_OK;
}

enum ep_status ep_list_split(const char *text, char separator, const char *what,
                             struct ep_list *list)
{
    EP_ASSERT(list->items == NULL && list->num == 0);
    int64_t num = 1;
    for (const char *p = text; *p != '\0'; p++) {
        num += *p == separator;
    }
    char **items = calloc((size_t)num, sizeof *items);
    if (items == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " items", what, num);
    }
    *list = (struct ep_list){items, num};
    for (int64_t i = 0; i < num; i++) {
        const char *end = strchr(text, separator);
        const size_t length = end != NULL ? (size_t)(end - text) : strlen(text);
        if (length == 0) {
            ep_list_fini(list);
            return ep_error_set(EP_EINVAL, "%s: item %" PRId64 " of the list is empty", what,
                                i + 1);
        }
        items[i] = strndup(text, length);
        if (items[i] == NULL) {
            ep_list_fini(list);
            return ep_error_set(EP_ENOMEM, "%s: no memory", what);
        }
        text += length + 1;
    }
    return EP_OK;
}

void ep_list_fini(struct ep_list *list)
{
    for (int64_t i = 0; i < list->num; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct ep_list){0};
}

const char *ep_format_bytes(double size_bytes, char *buffer, size_t length)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t i = 0;
    while (fabs(size_bytes) >= 1024 && i + 1 < sizeof names / sizeof names[0]) {
        size_bytes /= 1024;
        i++;
    }
    if (isnan(size_bytes)) {
        snprintf(buffer, length, "-");
    } else {
        snprintf(buffer, length, i == 0 ? "%.0f %s" : "%.2f %s", size_bytes, names[i]);
    }
    return buffer;
}

const char *ep_format_time(double time_s, char *buffer, size_t length)
{
    if (isnan(time_s)) {
        snprintf(buffer, length, "-");
    } else if (time_s >= 1) {
        snprintf(buffer, length, "%.3f s", time_s);
    } else if (time_s >= 1e-3) {
        snprintf(buffer, length, "%.3f ms", time_s * 1e3);
    } else if (time_s >= 1e-6) {
        snprintf(buffer, length, "%.3f us", time_s * 1e6);
    } else {
        snprintf(buffer, length, "%.1f ns", time_s * 1e9);
    }
    return buffer;
}

const char *ep_format_bandwidth(double bw_bytes_per_s, char *buffer, size_t length)
{
    if (isnan(bw_bytes_per_s)) {
        snprintf(buffer, length, "-");
    } else if (bw_bytes_per_s >= 1e8) {
        snprintf(buffer, length, "%.2f GB/s", bw_bytes_per_s / 1e9);
    } else {
        snprintf(buffer, length, "%.3g MB/s", bw_bytes_per_s / 1e6);
    }
    return buffer;
}
