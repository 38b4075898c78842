/* SPDX-License-Identifier: Apache-2.0 */
/* What every test needs: cmocka with the headers it wants first, and checks of statuses. */
#ifndef EP_TESTS_CHECK_H
#define EP_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka comes after these */
#include <cmocka.h>

#include "base/error.h"

#include <string.h>

/** The call must succeed; its error text is shown otherwise. */
#define CHECK_OK(call)                                             \
    do {                                                           \
        ep_error_clear();                                          \
        const enum ep_status check_status = (call);                \
        if (check_status != EP_OK) {                               \
            fail_msg("%s: %s", #call, ep_error_text());            \
        }                                                          \
    } while (0)

/** The call must fail with `expected`, and its message must contain `part`. */
#define CHECK_FAILS(call, expected, part)                                          \
    do {                                                                           \
        ep_error_clear();                                                          \
        const enum ep_status check_status = (call);                                \
        assert_int_equal(check_status, (expected));                                \
        if (strstr(ep_error_text(), (part)) == NULL) {                             \
            fail_msg("message '%s' does not say '%s'", ep_error_text(), (part));   \
        }                                                                          \
    } while (0)

/** |a - b| <= tolerance. */
#define CHECK_NEAR(a, b, tolerance)                                                \
    do {                                                                           \
        const double check_a = (a), check_b = (b), check_t = (tolerance);          \
        if (!(check_a - check_b <= check_t && check_b - check_a <= check_t)) {     \
            fail_msg("%s = %.17g, expected %.17g within %g", #a, check_a, check_b, \
                     check_t);                                                     \
        }                                                                          \
    } while (0)

#endif
