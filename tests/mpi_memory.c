/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that one rank is refused: every allocation of ours fails once, and all ranks must hear of it
 * and go on together. A rank that waits for another for ever is ended by the alarm. */
#include "tests/check.h"

#include "bench/comm_sweep.h"
#include "bench/links_sweep.h"

#include <features.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)

/* malloc and its kin stand before the C library's. Only calls from this program itself count: what a
 * library allocates inside is its own affair. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t num, size_t size);
void *__libc_realloc(void *memory, size_t size);
extern const char __executable_start, etext;

static int64_t countdown; /* the call that brings it to 0 fails; 0 = none does */
static int64_t planned;   /* what countdown begins with, once all is set up */
static bool has_failed;

static bool fails_now(const void *caller)
{
    if (countdown == 0 || (const char *)caller < &__executable_start || (const char *)caller > &etext) {
        return false;
    }
    has_failed = has_failed || countdown == 1;
    return --countdown == 0;
}

void *malloc(size_t size)
{
    return fails_now(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t num, size_t size)
{
    return fails_now(__builtin_return_address(0)) ? NULL : __libc_calloc(num, size);
}

void *realloc(void *memory, size_t size)
{
    return fails_now(__builtin_return_address(0)) ? NULL : __libc_realloc(memory, size);
}

char *strdup(const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = fails_now(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
    return copy != NULL ? memcpy(copy, text, size) : NULL;
}

static struct ep_session *session;

/* Everything up to the end of one attempt, on all ranks, within this time. */
enum { LIMIT_S = 30 };

/* Run `stage` again and again: at each attempt one allocation later fails on one rank. Returns the number
 * of attempts, the last of which had nothing to fail any more. */
static int64_t fail_one_by_one(enum ep_status (*stage)(void *ctx), void *ctx, int rank, int64_t step)
{
    for (int64_t at = 1;; at += step) {
        alarm(LIMIT_S);
        has_failed = false;
        planned = ep_comm_rank(session->world) == rank ? at : 0;
        enum ep_status status = stage(ctx);
        /* told alike on all ranks, and nothing but what was planted */
        int64_t told[3] = {status, -(int64_t)status, has_failed};
        const bool expected = status == EP_OK || status == EP_ENOMEM;
        ep_error_clear();
        CHECK_OK(ep_comm_max_i64(session->world, told, 3));
        assert_true(expected);
        assert_int_equal(told[0], -told[1]);
        if (told[2] == 0) {
            assert_int_equal(status, EP_OK);
            alarm(0);
            return at;
        }
    }
}

static enum ep_status run_sweep(void *ctx)
{
    struct ep_comm_sweep *sweep = NULL;
    CHECK_OK(ep_comm_sweep_create(ctx, &sweep));
    countdown = planned;
    const enum ep_status status = ep_comm_sweep_run(sweep, session);
    countdown = 0;
    ep_comm_sweep_destroy(sweep);
    return status;
}

static void test_comm(void **state)
{
    (void)state;
    static const char *const transports[] = {"alltoall", "alltoallv", "alltoallv-dedup", "shm",
                                             "hier-shm"};
    const int size = ep_comm_size(session->world);
    for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++) {
        struct ep_comm_options options = ep_comm_options_default();
        options.tokens = "4";
        options.hidden = "8";
        options.experts = "7";
        options.transport = transports[i];
        options.num_visits = 1;
        options.warmup = 1;
        options.max_samples = 2;
        options.quiet = true;
        for (int rank = 0; rank < size; rank += size > 1 ? size - 1 : 1) {
            /* close by close on two ranks, where it is quick: transports share most */
            const int64_t step = size != 2 ? 41 : i == 2 && rank == 1 ? 2 : 13;
            const int64_t num = fail_one_by_one(run_sweep, &options, rank, step);
            assert_true(num > 20);
        }
    }
}

static enum ep_status run_links(void *ctx)
{
    struct ep_links_summary summary = {0};
    countdown = planned;
    const enum ep_status status = ep_links_sweep(session, ctx, &summary);
    countdown = 0;
    ep_links_summary_fini(&summary);
    return status;
}

static void test_links(void **state)
{
    (void)state;
    struct ep_links_options options = ep_links_options_quick();
    const int size = ep_comm_size(session->world);
    options.end_bytes = options.begin_bytes = 64;
    options.visits = 1;
    options.case_time_s = 1e-4;
    for (int rank = 0; rank < size && size > 1; rank += size - 1) {
        const int64_t num = fail_one_by_one(run_links, &options, rank, size == 2 && rank == 1 ? 1 : 9);
        assert_true(num > 20);
    }
}

int main(int argc, char **argv)
{
    struct ep_session_options options = ep_session_options_default();
    options.memory_bytes = 1 << 24;
    options.shares = true;
    if (ep_session_open(argc, argv, &options, &session) != EP_OK ||
        ep_session_measure_null(session) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_comm), cmocka_unit_test(test_links)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    const enum ep_status closed = ep_session_close(session);
    ep_comm_finalize(NULL);
    return failed != 0 || (closed != EP_OK && closed != EP_ENOMEM);
}

#else

int main(void)
{
    puts("memory is refused through glibc's malloc, without AddressSanitizer");
    return 77;
}

#endif
