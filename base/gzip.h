/* SPDX-License-Identifier: Apache-2.0 */
/* Reading files that may be compressed by gzip: the door to zlib. */
#ifndef EP_BASE_GZIP_H
#define EP_BASE_GZIP_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** True where the bytes open a gzip member (RFC 1952: 1f 8b 08). */
bool ep_gzip_recognise(const char *bytes, size_t length);

/** Expand all gzip members of `bytes` into new memory of at most `limit_bytes`.
 *  name         for messages
 *  text         NUL-terminated, to be freed by the caller; text_length without the NUL
 *  Returns EP_EINVAL, naming the byte, where the data are damaged, end within a member, go on after
 *  the last one, or expand to more than the limit; EP_ENOMEM. Memory stays below twice the limit. */
EP_MUST_CHECK enum ep_status ep_gzip_expand(const char *name, const char *bytes, size_t length,
                                            int64_t limit_bytes, char **text,
                                            size_t *text_length);

/** As ep_file_read; a file that opens with a gzip member is expanded, to the same limit. */
EP_MUST_CHECK enum ep_status ep_gzip_read(const char *path, int64_t limit_bytes, char **text,
                                          size_t *length);

#endif
