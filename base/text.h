/* SPDX-License-Identifier: Apache-2.0 */
/* Is it text? What comes in ends up in JSON, which holds UTF-8 (RFC 3629) and nothing else. */
#ifndef EP_BASE_TEXT_H
#define EP_BASE_TEXT_H

#include "base/error.h"

#include <stddef.h>

/** Where `text` [length] stops being UTF-8, or has a NUL byte; NULL = nowhere. */
const char *ep_text_find_bad_byte(const char *text, size_t length);

/** EP_EINVAL names the NUL byte, or the line and the byte that is not UTF-8.
 *  text  [length], needs no NUL at its end */
EP_MUST_CHECK enum ep_status ep_text_check(const char *name, const char *text, size_t length);

#endif
