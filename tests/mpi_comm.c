/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators: nodes, parts, agreement on failures, texts, reductions, forced algorithms. */
#include "tests/check.h"

#include "bench/arena.h"
#include "bench/comm.h"
#include "bench/flush.h"
#include "bench/session_agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static struct ep_comm *world;

static void test_nodes(void **state)
{
    (void)state;
    assert_int_equal(ep_comm_num_nodes(world), 1);
    assert_int_equal(ep_comm_ranks_per_node(world), ep_comm_size(world));
    assert_int_equal(ep_comm_node_of(world, ep_comm_size(world) - 1), 0);
    assert_true(strlen(ep_comm_mpi_version()) > 0);
    assert_true(ep_comm_clock_resolution_s() > 0);
}

static void test_agree(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    CHECK_OK(ep_comm_agree(world, EP_OK));
    /* The last two ranks fail for different reasons: the lower one is heard by all. */
    const int speaker = size >= 2 ? size - 2 : 0;
    enum ep_status local = EP_OK;
    ep_error_clear();
    if (ep_comm_rank(world) >= speaker) {
        local = ep_error_set(EP_EIO, "disk %d is full", ep_comm_rank(world));
    }
    assert_int_equal(ep_comm_agree(world, local), EP_EIO);
    char expected[64];
    snprintf(expected, sizeof expected, speaker == 0 ? "disk 0 is full" : "rank %d: disk %d is full",
             speaker, speaker);
    assert_string_equal(ep_error_text(), expected);
    ep_error_clear();
}

static void test_texts(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    char text[64];
    snprintf(text, sizeof text, "rank %.*s", ep_comm_rank(world), "longer with the rank");
    char **texts = NULL;
    CHECK_OK(ep_comm_allgather_text(world, text, &texts));
    for (int r = 0; r < size; r++) {
        snprintf(text, sizeof text, "rank %.*s", r, "longer with the rank");
        assert_string_equal(texts[r], text);
    }
    ep_comm_free_texts(texts, size);
}

static void check_difference(const char *a, const char *b, const char *in_a, const char *in_b)
{
    char first[32];
    char second[32];
    assert_true(ep_session_find_difference(a, b, first, sizeof first, second, sizeof second));
    assert_string_equal(first, in_a);
    assert_string_equal(second, in_b);
}

static void test_command_lines(void **state)
{
    (void)state;
    char first[32];
    char second[32];
    assert_false(ep_session_find_difference("1\ncomm\n", "1\ncomm\n", first, 32, second, 32));
    check_difference("1\ncomm\n--tokens\n8\n", "1\ncomm\n--tokens\n16\n", "--tokens 8", "--tokens 16");
    check_difference("1\ncomm\n--tokens=8\n", "1\ncomm\n--tokens=9\n", "--tokens=8", "--tokens=9");
    check_difference("1\ncomm\n", "2\ncomm\n", "1", "2");
    check_difference("1\ncomm\n", "1\nlinks\n", "comm", "links");
    check_difference("1\ncomm\n", "1\ncomm\n-o\nd\n", "nothing", "-o");
    check_difference("1\ncomm\n--cold\n--no-check\n", "1\ncomm\n--cold\n", "--no-check", "nothing");

    /* The last rank alone types something else; all learn of it. */
    char *words[] = {"comm", "--seed", "7"};
    CHECK_OK(ep_session_agree_start(world, 3, words));
    const int size = ep_comm_size(world);
    if (size > 1) {
        words[2] = ep_comm_rank(world) == size - 1 ? "8" : "7";
        assert_int_equal(ep_session_agree_start(world, 3, words), EP_EINVAL);
        char expected[64];
        snprintf(expected, sizeof expected, "rank %d was started with '--seed 8'", size - 1);
        assert_non_null(strstr(ep_error_text(), expected));
        assert_non_null(strstr(ep_error_text(), "rank 0 has '--seed 7'"));
    }
}

static void test_reductions(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    double most[2] = {ep_comm_rank(world), -ep_comm_rank(world)};
    CHECK_OK(ep_comm_max_f64(world, most, 2));
    CHECK_NEAR(most[0], size - 1, 0);
    CHECK_NEAR(most[1], 0, 0);
    int64_t sum = 1;
    CHECK_OK(ep_comm_sum_i64(world, &sum, 1));
    assert_int_equal(sum, size);
    int64_t all[16];
    const int64_t mine = 10 + ep_comm_rank(world);
    CHECK_OK(ep_comm_allgather_i64(world, &mine, 1, all));
    assert_int_equal(all[size - 1], 10 + size - 1);
}

static void test_parts(void **state)
{
    (void)state;
    const int size = ep_comm_size(world);
    const int num = (size + 1) / 2;
    struct ep_comm *part = NULL;
    CHECK_OK(ep_comm_create_part(world, num, false, &part));
    assert_int_equal(part != NULL, ep_comm_rank(world) < num);
    if (part != NULL) {
        assert_int_equal(ep_comm_size(part), num);
        assert_int_equal(ep_comm_rank(part), ep_comm_rank(world));
        CHECK_OK(ep_comm_barrier(part));
    }
    ep_comm_destroy(part);
}

static void test_forced(void **state)
{
    (void)state;
    struct ep_comm *forced = NULL;
    CHECK_OK(ep_comm_create_forced(world, "pairwise", &forced));
    assert_int_equal(ep_comm_size(forced), ep_comm_size(world));
    CHECK_OK(ep_comm_barrier(forced));
    ep_comm_destroy(forced);
    CHECK_FAILS(ep_comm_create_forced(world, "fastest", &forced), EP_EINVAL, "'fastest' is not");
}

static void test_arena(void **state)
{
    (void)state;
    struct ep_arena *arena = NULL;
    CHECK_OK(ep_arena_create(1 << 22, EP_PAGES_4K, &arena));
    void *first = NULL;
    void *second = NULL;
    CHECK_OK(ep_arena_alloc(arena, 100, "first", &first));
    CHECK_OK(ep_arena_alloc(arena, 1 << 20, "second", &second));
    assert_int_equal((uintptr_t)first % (1 << 21), 0);
    assert_int_equal((char *)second - (char *)first, 128);
    memset(second, 1, 1 << 20);
    assert_int_equal(ep_arena_huge_bytes(arena), 0);
    CHECK_FAILS(ep_arena_alloc(arena, 1 << 22, "third", &second), EP_ENOMEM, "third");
    ep_arena_reset(arena);
    CHECK_OK(ep_arena_alloc(arena, 8, "again", &second));
    assert_ptr_equal(first, second);
    assert_int_equal(ep_arena_peak_bytes(arena), 128 + (1 << 20));
    ep_arena_destroy(arena);
}

static void test_flush(void **state)
{
    (void)state;
    struct ep_flush *flush = NULL;
    struct rusage before, after;
    CHECK_OK(ep_flush_create((1 << 20) + 1, &flush));
    getrusage(RUSAGE_SELF, &before);
    /* a line every 64 bytes of 1 MiB, and the one that the last byte is on; all there, so no fault */
    assert_int_equal(ep_flush_run(flush), (1 << 20) / 64 + 1);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_minflt - before.ru_minflt < 16);
    ep_flush_destroy(flush);
}

int main(void)
{
    if (ep_comm_init(&world) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes),      cmocka_unit_test(test_agree),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_command_lines),      cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_parts),      cmocka_unit_test(test_forced),
        cmocka_unit_test(test_arena),      cmocka_unit_test(test_flush),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ep_comm_finalize(world);
    return failed;
}
