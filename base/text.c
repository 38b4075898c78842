/* SPDX-License-Identifier: Apache-2.0 */
/* Well-formed UTF-8 after the table of the Unicode standard (3-7). */
#include "base/text.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the well-formed sequence at `p`, of which `left` >= 1 are there; 0 = there is none. */
static size_t sequence_length(const unsigned char *p, size_t left)
{
    /* the first byte's range, and the second's; the others are 80..BF */
    static const struct {
        unsigned char low, high, second_low, second_high;
        size_t length;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (p[0] < forms[i].low || p[0] > forms[i].high) {
            continue;
        }
        bool good = left >= forms[i].length &&
                    (forms[i].length == 1 ||
                     (p[1] >= forms[i].second_low && p[1] <= forms[i].second_high));
        for (size_t k = 2; good && k < forms[i].length; k++) {
            good = p[k] >= 0x80 && p[k] <= 0xbf;
        }
        return good ? forms[i].length : 0;
    }
    return 0;
}

const char *ep_text_find_bad_byte(const char *text, size_t length)
{
    const char *end = text + length;
    while (text < end) {
        const size_t taken = sequence_length((const unsigned char *)text, (size_t)(end - text));
        if (taken == 0) {
            return text;
        }
        text += taken;
        while (text < end && *text >= ' ' && *text < '\x7f') { /* most of it */
            text++;
        }
    }
    return NULL;
}

enum ep_status ep_text_check(const char *name, const char *text, size_t length)
{
    if (memchr(text, '\0', length) != NULL) {
        return ep_error_set(EP_EINVAL, "%s: has a NUL byte; a text file was expected", name);
    }
    const char *bad = ep_text_find_bad_byte(text, length);
    if (bad == NULL) {
        return EP_OK;
    }
    int64_t line = 1;
    for (const char *p = text; p < bad; p++) {
        line += *p == '\n';
    }
    return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": byte 0x%02x is not UTF-8 text", name, line,
                        (unsigned char)*bad);
}
