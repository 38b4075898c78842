/* SPDX-License-Identifier: Apache-2.0 */
/* Files: whole reads with a size limit, whole writes that never leave half a file. */
#ifndef EP_BASE_FILE_H
#define EP_BASE_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/** Read a whole file ("-" = standard input) of at most `limit_bytes`.
 *  text  NUL-terminated, to be freed by the caller; length without the NUL
 *  Returns EP_EINVAL where the file does not exist, is a directory or is larger than the limit;
 *  EP_EIO where it cannot be read. Messages name the file. */
EP_MUST_CHECK enum ep_status ep_file_read(const char *path, int64_t limit_bytes, char **text,
                                          size_t *length);

/** Write a whole file: to a temporary name beside it, synced, then renamed over it. What is no plain
 *  file (a device, a pipe, a link) is written in place. "-" writes standard output. Returns EP_EIO with the cause (no directory, no space, ...). */
EP_MUST_CHECK enum ep_status ep_file_write(const char *path, const char *text, size_t length);

/** Create a directory and its missing parents. Returns EP_EINVAL if `path` is empty or already exists
 *  (nothing is ever written over), EP_EIO where it cannot be created. */
EP_MUST_CHECK enum ep_status ep_dir_create_new(const char *path);

/** Create a directory (and parents) unless it is there already. */
EP_MUST_CHECK enum ep_status ep_dir_ensure(const char *path);

/** `directory`/`name` as a new string to be freed; NULL where there is no memory. */
char *ep_path_join(const char *directory, const char *name);

/** printf into a new string to be freed; NULL where there is no memory. */
char *ep_format_new(const char *format, ...) EP_PRINTF(1, 2);

#endif
