/* SPDX-License-Identifier: Apache-2.0 */
/* A read-only mapping, read line by line. */
#include "bench/flush.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE_BYTES = 64 };

struct ep_flush {
    char *mapping;
    int64_t size_bytes;
};

enum ep_status ep_flush_create(int64_t size_bytes, struct ep_flush **flush)
{
    struct ep_flush *f = calloc(1, sizeof *f);
    if (f == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to empty caches with");
    }
    f->size_bytes = size_bytes;
    f->mapping = mmap(NULL, (size_t)size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->mapping == MAP_FAILED) {
        free(f);
        return ep_error_set(EP_ENOMEM, "no %" PRId64 " bytes of memory to empty caches with",
                            size_bytes);
    }
    memset(f->mapping, 1, (size_t)size_bytes); /* untouched pages are all one page of zeros */
    (void)mprotect(f->mapping, (size_t)size_bytes, PROT_READ);
    *flush = f;
    return EP_OK;
}

void ep_flush_destroy(struct ep_flush *flush)
{
    if (flush != NULL) {
        munmap(flush->mapping, (size_t)flush->size_bytes);
        free(flush);
    }
}

int64_t ep_flush_run(const struct ep_flush *flush)
{
    const volatile char *lines = flush->mapping;
    int64_t sum = 0;
    for (int64_t i = 0; i < flush->size_bytes; i += LINE_BYTES) {
        sum += lines[i];
    }
    return sum;
}
