/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming copies of rows. */
#include "kernels/row_copy.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { LINE = 64 };

__attribute__((target("avx512f"))) static void stream_avx512(char *to, const char *from,
                                                             size_t num_lines)
{
    for (size_t i = 0; i < num_lines; i++) {
        _mm512_stream_si512((void *)(to + i * LINE), _mm512_loadu_si512(from + i * LINE));
    }
}

/* SSE2 is part of every x86-64 CPU; four stores fill a line in its buffer. */
static void stream_sse2(char *to, const char *from, size_t num_lines)
{
    for (size_t i = 0; i < num_lines; i++) {
        for (size_t j = 0; j < LINE; j += 16) {
            _mm_stream_si128((__m128i *)(void *)(to + i * LINE + j),
                             _mm_loadu_si128((const __m128i *)(const void *)(from + i * LINE + j)));
        }
    }
}

void ep_row_stream(void *to, const void *from, size_t size_bytes)
{
    char *out = to;
    const char *in = from;
    const size_t misaligned = (LINE - (uintptr_t)out % LINE) % LINE;
    const size_t head = misaligned < size_bytes ? misaligned : size_bytes;
    const size_t num_lines = (size_bytes - head) / LINE;
    const size_t tail = size_bytes - head - num_lines * LINE;
    memcpy(out, in, head);
    if (__builtin_cpu_supports("avx512f")) {
        stream_avx512(out + head, in + head, num_lines);
    } else {
        stream_sse2(out + head, in + head, num_lines);
    }
    memcpy(out + size_bytes - tail, in + size_bytes - tail, tail);
}

void ep_row_stream_end(void)
{
    _mm_sfence();
}
#else
void ep_row_stream(void *to, const void *from, size_t size_bytes)
{
    memcpy(to, from, size_bytes);
}

void ep_row_stream_end(void)
{
}
#endif
