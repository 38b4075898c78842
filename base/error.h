/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes, the thread's record of its first failure, and the assert that stays on. */
#ifndef EP_BASE_ERROR_H
#define EP_BASE_ERROR_H

/** What a fallible function returns. The exit status of each is ep_status_exit_code(). */
enum ep_status {
    EP_OK = 0,
    EP_EINVAL, /* usage or bad input: a text, file or combination that is refused */
    EP_ENOMEM, /* memory that the system did not give */
    EP_EIO,    /* a file or directory that could not be read or written */
    EP_EENV,   /* a program, permission or device that this machine lacks */
    EP_EMPI,   /* the MPI library reported an error */
    EP_ECHECK  /* measured, but a check or an asked-for bound failed, or a signal left some out */
};

#define EP_MUST_CHECK __attribute__((warn_unused_result))
#define EP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/** Run a fallible call; on failure keep its status in `status` and go to `out`.
 *  The one macro of the project that hides control flow. */
#define EP_TRY(call)              \
    do {                          \
        status = (call);          \
        if (status != EP_OK) {    \
            goto out;             \
        }                         \
    } while (0)

/** A broken invariant of the program itself: prints the place and aborts, in every build. */
#define EP_ASSERT(cond) ((cond) ? (void)0 : ep_assert_failed(#cond, __FILE__, __LINE__))

/** Record a failure: the text names the value and the limit. The first of a thread is kept until
 *  ep_error_clear(); later ones are ignored, so that the cause is what gets printed.
 *  Returns `status`, so that `return ep_error_set(EP_EINVAL, ...)` reads well. */
enum ep_status ep_error_set(enum ep_status status, const char *format, ...) EP_PRINTF(2, 3);

/** The text of the first failure since the last clear; "" if none. Owned by the thread. */
const char *ep_error_text(void);

/** Forget the recorded failure (after it was printed, or where a failure is an expected answer). */
void ep_error_clear(void);

/** Process exit status: 0 good; 1 EP_ECHECK; 2 usage or bad input; 3 environment. */
int ep_status_exit_code(enum ep_status status);

/** Prints the place of a broken invariant on stderr and aborts. Called by EP_ASSERT only. */
__attribute__((noreturn)) void ep_assert_failed(const char *condition, const char *file, int line);

#endif
