/* SPDX-License-Identifier: Apache-2.0 */
/* Whole-file reads and writes, directories and paths. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *ep_format_new(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    const int length = vasprintf(&text, format, args);
    va_end(args);
    return length < 0 ? NULL : text;
}

char *ep_path_join(const char *directory, const char *name)
{
    const size_t length = strlen(directory);
    const bool slash = length > 0 && directory[length - 1] == '/';
    return ep_format_new("%s%s%s", directory, slash ? "" : "/", name);
}

static enum ep_status read_descriptor(int fd, const char *path, int64_t limit_bytes, char **text,
                                      size_t *length)
{
    size_t capacity = 1 << 16;
    size_t used = 0;
    char *buffer = malloc(capacity + 1);
    while (buffer != NULL) {
        const ssize_t got = read(fd, buffer + used, capacity - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            free(buffer);
            return ep_error_set(EP_EIO, "%s: cannot be read: %s", path, strerror(errno));
        }
        used += (size_t)got;
        if ((int64_t)used > limit_bytes) {
            free(buffer);
            return ep_error_set(EP_EINVAL, "%s: larger than the limit of %" PRId64 " bytes", path,
                                limit_bytes);
        }
        if (got == 0) {
            buffer[used] = '\0';
            *text = buffer;
            *length = used;
            return EP_OK;
        }
        if (used == capacity) {
            capacity *= 2;
            char *larger = realloc(buffer, capacity + 1);
            if (larger == NULL) {
                free(buffer);
            }
            buffer = larger;
        }
    }
    return ep_error_set(EP_ENOMEM, "%s: no memory to read it", path);
}

enum ep_status ep_file_read(const char *path, int64_t limit_bytes, char **text, size_t *length)
{
    if (strcmp(path, "-") == 0) {
        return read_descriptor(STDIN_FILENO, "standard input", limit_bytes, text, length);
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        const enum ep_status status = errno == ENOENT || errno == ENOTDIR ? EP_EINVAL : EP_EIO;
        return ep_error_set(status, "%s: cannot be opened: %s", path, strerror(errno));
    }
    struct stat info;
    enum ep_status status = EP_OK;
    if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
        status = ep_error_set(EP_EINVAL, "%s: is a directory, a file was expected", path);
    } else {
        status = read_descriptor(fd, path, limit_bytes, text, length);
    }
    close(fd);
    return status;
}

static enum ep_status write_descriptor(int fd, const char *path, const char *text, size_t length)
{
    while (length > 0) {
        const ssize_t put = write(fd, text, length);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return ep_error_set(EP_EIO, "%s: cannot be written: %s", path, strerror(errno));
        }
        text += put;
        length -= (size_t)put;
    }
    return EP_OK;
}

/* Devices, pipes and links (/dev/null, /dev/stdout) are written, never replaced by a file. */
static enum ep_status write_through(const char *path, const char *text, size_t length)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return ep_error_set(EP_EIO, "%s: cannot be written: %s", path, strerror(errno));
    }
    enum ep_status status = write_descriptor(fd, path, text, length);
    if (close(fd) != 0 && status == EP_OK) {
        status = ep_error_set(EP_EIO, "%s: cannot be written: %s", path, strerror(errno));
    }
    return status;
}

enum ep_status ep_file_write(const char *path, const char *text, size_t length)
{
    if (strcmp(path, "-") == 0) {
        if (fflush(stdout) != 0) {
            return ep_error_set(EP_EIO, "standard output: cannot be written: %s",
                                strerror(errno));
        }
        return write_descriptor(STDOUT_FILENO, "standard output", text, length);
    }
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
        return write_through(path, text, length);
    }
    char *temporary = ep_format_new("%s.XXXXXX", path);
    if (temporary == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    const int fd = mkstemp(temporary);
    if (fd < 0) {
        const enum ep_status status = ep_error_set(
            EP_EIO, "%s: cannot be written: %s", path, strerror(errno));
        free(temporary);
        return status;
    }
    const mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
    enum ep_status status = write_descriptor(fd, path, text, length);
    if (status == EP_OK && fsync(fd) != 0) {
        status = ep_error_set(EP_EIO, "%s: cannot be written: %s", path, strerror(errno));
    }
    if (close(fd) != 0 && status == EP_OK) {
        status = ep_error_set(EP_EIO, "%s: cannot be written: %s", path, strerror(errno));
    }
    if (status == EP_OK && rename(temporary, path) != 0) {
        status = ep_error_set(EP_EIO, "%s: cannot be renamed to: %s", path, strerror(errno));
    }
    if (status != EP_OK) {
        unlink(temporary);
    }
    free(temporary);
    return status;
}

static enum ep_status create_directory(const char *path, bool must_be_new)
{
    if (path[0] == '\0') {
        return ep_error_set(EP_EINVAL, "the name of a directory is empty");
    }
    char *partial = strdup(path);
    if (partial == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    size_t length = strlen(partial);
    while (length > 1 && partial[length - 1] == '/') {
        partial[--length] = '\0';
    }
    int failed = 0;
    for (char *slash = strchr(partial + 1, '/'); slash != NULL && !failed;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        failed = mkdir(partial, 0777) != 0 && errno != EEXIST;
        *slash = '/';
    }
    enum ep_status status = EP_OK;
    if (!failed && mkdir(partial, 0777) != 0) {
        struct stat info;
        const int cause = errno;
        const bool is_directory = stat(partial, &info) == 0 && S_ISDIR(info.st_mode);
        if (cause == EEXIST && must_be_new) {
            status = ep_error_set(EP_EINVAL,
                                  "%s: exists already; name a new directory (nothing is written "
                                  "over)", path);
        } else if (cause != EEXIST || !is_directory) {
            errno = cause;
            failed = 1;
        }
    }
    if (failed) {
        status = ep_error_set(EP_EIO, "%s: cannot be created: %s", path, strerror(errno));
    }
    free(partial);
    return status;
}

enum ep_status ep_dir_create_new(const char *path)
{
    return create_directory(path, true);
}

enum ep_status ep_dir_ensure(const char *path)
{
    return create_directory(path, false);
}
