/* SPDX-License-Identifier: Apache-2.0 */
/* Expanding gzip through zlib, bounded. */
#include "base/gzip.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { GZIP_ONLY = 15 + 16, FIRST_CAPACITY = 1 << 16, MOST_AT_ONCE = 1 << 30 };

/* What has been expanded so far. */
struct expansion {
    const char *name;
    int64_t limit_bytes;
    char *text;
    size_t used;
    size_t capacity; /* without the NUL */
};

bool ep_gzip_recognise(const char *bytes, size_t length)
{
    return length >= 3 && memcmp(bytes, "\x1f\x8b\x08", 3) == 0;
}

/* Room for at least one more byte, one beyond the limit at most. */
static enum ep_status make_room(struct expansion *x)
{
    if (x->used < x->capacity) {
        return EP_OK;
    }
    if ((int64_t)x->used > x->limit_bytes) {
        return ep_error_set(EP_EINVAL, "%s: expands to more than the limit of %" PRId64 " bytes",
                            x->name, x->limit_bytes);
    }
    const size_t most = (size_t)x->limit_bytes + 1;
    const size_t wanted = x->capacity > 0 ? 2 * x->capacity : FIRST_CAPACITY;
    const size_t capacity = wanted < most ? wanted : most;
    char *larger = realloc(x->text, capacity + 1);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory to expand it", x->name);
    }
    x->text = larger;
    x->capacity = capacity;
    return EP_OK;
}

static enum ep_status refuse(const struct expansion *x, const z_stream *stream, size_t left,
                             int code)
{
    const uint64_t at = stream->total_in;
    if (code == Z_BUF_ERROR && left == 0) {
        return ep_error_set(EP_EINVAL, "%s: ends within its gzip data; the file is cut off",
                            x->name);
    }
    return ep_error_set(code == Z_MEM_ERROR ? EP_ENOMEM : EP_EINVAL,
                        "%s: gzip data damaged near byte %" PRIu64 " of a member: %s", x->name, at,
                        stream->msg != NULL ? stream->msg : "not what was expected");
}

/* One member from *bytes on; both are moved behind it. */
static enum ep_status expand_member(struct expansion *x, z_stream *stream, const char **bytes,
                                    size_t *left)
{
    for (int code = Z_OK; code != Z_STREAM_END;) {
        const enum ep_status status = make_room(x);
        if (status != EP_OK) {
            return status;
        }
        const size_t room = x->capacity - x->used;
        const uInt in = (uInt)(*left < MOST_AT_ONCE ? *left : MOST_AT_ONCE);
        const uInt out = (uInt)(room < MOST_AT_ONCE ? room : MOST_AT_ONCE);
        stream->next_in = (Bytef *)(uintptr_t)*bytes;
        stream->avail_in = in;
        stream->next_out = (Bytef *)x->text + x->used;
        stream->avail_out = out;
        code = inflate(stream, Z_NO_FLUSH);
        *bytes += in - stream->avail_in;
        *left -= in - stream->avail_in;
        x->used += out - stream->avail_out;
        const bool full = code == Z_BUF_ERROR && stream->avail_out == 0;
        if (code != Z_OK && code != Z_STREAM_END && !full) {
            return refuse(x, stream, *left, code);
        }
        if (code == Z_OK && *left == 0 && stream->avail_out > 0) {
            return refuse(x, stream, 0, Z_BUF_ERROR);
        }
    }
    return EP_OK;
}

enum ep_status ep_gzip_expand(const char *name, const char *bytes, size_t length,
                              int64_t limit_bytes, char **text, size_t *text_length)
{
    enum ep_status status;
    struct expansion x = {.name = name, .limit_bytes = limit_bytes};
    z_stream stream = {0};
    if (inflateInit2(&stream, GZIP_ONLY) != Z_OK) {
        return ep_error_set(EP_ENOMEM, "%s: no memory to expand it", name);
    }
    EP_TRY(make_room(&x));
    while (length > 0) {
        if (!ep_gzip_recognise(bytes, length)) {
            status = ep_error_set(EP_EINVAL, "%s: %zu bytes after its gzip data", name, length);
            goto out;
        }
        EP_TRY(expand_member(&x, &stream, &bytes, &length));
        (void)inflateReset(&stream);
    }
    if ((int64_t)x.used > limit_bytes) {
        status = ep_error_set(EP_EINVAL,
                              "%s: expands to more than the limit of %" PRId64 " bytes", name,
                              limit_bytes);
        goto out;
    }
    x.text[x.used] = '\0';
    *text = x.text;
    *text_length = x.used;
    x.text = NULL;
out:
    inflateEnd(&stream);
    free(x.text);
    return status;
}

enum ep_status ep_gzip_read(const char *path, int64_t limit_bytes, char **text, size_t *length)
{
    char *bytes = NULL;
    size_t num = 0;
    enum ep_status status = ep_file_read(path, limit_bytes, &bytes, &num);
    if (status != EP_OK) {
        return status;
    }
    if (!ep_gzip_recognise(bytes, num)) {
        *text = bytes;
        *length = num;
        return EP_OK;
    }
    status = ep_gzip_expand(path, bytes, num, limit_bytes, text, length);
    free(bytes);
    return status;
}
