/* SPDX-License-Identifier: Apache-2.0 */
/* The thread's record of its first failure. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local char error_text[1024];

enum ep_status ep_error_set(enum ep_status status, const char *format, ...)
{
    if (error_text[0] == '\0') {
        va_list args;
        va_start(args, format);
        vsnprintf(error_text, sizeof error_text, format, args);
        va_end(args);
    }
    return status;
}

const char *ep_error_text(void)
{
    return error_text;
}

void ep_error_clear(void)
{
    error_text[0] = '\0';
}

int ep_status_exit_code(enum ep_status status)
{
    static const int codes[] = {
        [EP_OK] = 0,  [EP_EINVAL] = 2, [EP_ENOMEM] = 3, [EP_EIO] = 3,
        [EP_EENV] = 3, [EP_EMPI] = 3,   [EP_ECHECK] = 1,
    };
    EP_ASSERT((unsigned)status < sizeof codes / sizeof codes[0]);
    return codes[status];
}

void ep_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "epbench: internal error: %s:%d: %s\n", file, line, condition);
    abort();
}
