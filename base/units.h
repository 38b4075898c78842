/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers with units: strict parsing of option texts, and printing. The only place that scales. */
#ifndef EP_BASE_UNITS_H
#define EP_BASE_UNITS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/** Parse a whole decimal number; `what` names the option or column in the message.
 *  Returns EP_EINVAL unless the whole text is a number in [min, max]. */
EP_MUST_CHECK enum ep_status ep_parse_i64(const char *text, const char *what, int64_t min,
                                          int64_t max, int64_t *value);

/** Parse a finite decimal number in [min, max]; NaN, infinities and trailing text are refused. */
EP_MUST_CHECK enum ep_status ep_parse_f64(const char *text, const char *what, double min,
                                          double max, double *value);

/** Parse a size in bytes: 4096, 64K or 64KiB (1024), 64KB (1000); up to 2^62. */
EP_MUST_CHECK enum ep_status ep_parse_size(const char *text, const char *what,
                                           int64_t *size_bytes);

/** Parse a bandwidth, unit required: 400Gb/s (bits), 50GB/s (bytes), GiB/s; K, M, G, T.
 *  A bare number is refused. Result in bytes per second, > 0. */
EP_MUST_CHECK enum ep_status ep_parse_bandwidth(const char *text, const char *what,
                                                double *bw_bytes_per_s);

/** Parse a time, unit required: 10s, 250ms, 5us, 2min. Result in seconds, >= 0. */
EP_MUST_CHECK enum ep_status ep_parse_time(const char *text, const char *what, double *time_s);

/** A list of texts, split from one option value. Init with {0}; free with ep_list_fini. */
struct ep_list {
    char **items; /* [num] NUL-terminated, never empty texts */
    int64_t num;  /* >= 1 after a successful split */
};

/** Split `text` at `separator`; empty items ("a,,b", "") are refused. `list` must be empty ({0}). */
EP_MUST_CHECK enum ep_status ep_list_split(const char *text, char separator, const char *what,
                                           struct ep_list *list);
void ep_list_fini(struct ep_list *list);

/** Print into `buffer` (at least 32 bytes is always enough) and return it.
 *  Bytes in powers of 1024 ("1.50 MiB"), times in s/ms/us/ns, bandwidths in powers of 1000
 *  ("12.3 GB/s"). NaN prints "-". */
const char *ep_format_bytes(double size_bytes, char *buffer, size_t length);
const char *ep_format_time(double time_s, char *buffer, size_t length);
const char *ep_format_bandwidth(double bw_bytes_per_s, char *buffer, size_t length);

#endif
