/* SPDX-License-Identifier: Apache-2.0 */
/* The loops behind measured peaks do what they claim: all bytes are visited, sums stay finite. */
#include "tests/check.h"

#include "kernels/peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void every_supported_loop_gives_a_finite_sum(void **state)
{
    (void)state;
    int num_fp32 = 0;
    for (const struct ep_peak_loop *l = ep_peak_loops; l->name != NULL; l++) {
        printf("%s: %s\n", l->name, l->is_supported() ? "checked" : "not on this CPU");
        if (l->is_supported()) {
            const float sum = l->run(1000);
            assert_true(isfinite(sum));
            num_fp32 += l->dtype == EP_FP32;
        }
    }
    assert_true(num_fp32 >= 1);
}

/* A CPU with a bf16 loop has its peak from there alone; one without multiplies bf16 as fp32. */
static void each_dtype_has_its_loops(void **state)
{
    (void)state;
    int of_bf16 = 0, counted = 0, counted_fp32 = 0;
    for (const struct ep_peak_loop *l = ep_peak_loops; l->name != NULL; l++) {
        of_bf16 += l->dtype == EP_BF16 && l->is_supported();
        counted += ep_peak_counts_for(l, EP_BF16);
        counted_fp32 += l->dtype == EP_FP32 && l->is_supported();
        assert_false(ep_peak_counts_for(l, EP_FP8));
        assert_false(l->dtype == EP_BF16 && ep_peak_counts_for(l, EP_FP32));
    }
    assert_int_equal(counted, of_bf16 > 0 ? of_bf16 : counted_fp32);
}

enum { SIZE = 3 * 4096 };

static const struct ep_stream_loop *find(const char *name)
{
    for (const struct ep_stream_loop *l = ep_stream_loops; l->name != NULL; l++) {
        if (strcmp(l->name, name) == 0) {
            return l;
        }
    }
    return NULL;
}

/* Reads return an xor: one changed word in any line must change it. */
static void reads_visit_every_line(void **state)
{
    (void)state;
    unsigned char *memory = aligned_alloc(64, SIZE);
    assert_non_null(memory);
    assert_non_null(find("read-words"));
    for (const struct ep_stream_loop *l = ep_stream_loops; l->name != NULL; l++) {
        if (!l->is_read || !l->is_supported()) {
            continue;
        }
        memset(memory, 0, SIZE);
        const uint64_t before = l->run(NULL, memory, SIZE);
        for (int line = 0; line < SIZE; line += 64) {
            memory[line] = 1;
            if (l->run(NULL, memory, SIZE) == before) {
                fail_msg("%s does not read line %d", l->name, line / 64);
            }
            memory[line] = 0;
        }
    }
    free(memory);
}

static void writes_and_copies_reach_every_byte_and_no_more(void **state)
{
    (void)state;
    unsigned char *from = aligned_alloc(64, SIZE), *to = aligned_alloc(64, SIZE + 64);
    assert_true(from != NULL && to != NULL);
    for (int i = 0; i < SIZE; i++) {
        from[i] = (unsigned char)(i % 251 + 1);
    }
    for (const struct ep_stream_loop *l = ep_stream_loops; l->name != NULL; l++) {
        if (l->is_read || !l->is_supported()) {
            continue;
        }
        memset(to, 0xee, SIZE + 64);
        (void)l->run(to, from, SIZE);
        for (int i = 0; i < SIZE + 64; i++) {
            const bool written = to[i] != 0xee;
            if (l->is_copy && i < SIZE ? to[i] != from[i] : written != (i < SIZE)) {
                fail_msg("%s is wrong at byte %d", l->name, i);
            }
        }
        CHECK_NEAR(l->bytes_per_byte, l->is_copy ? 2.0 : 1.0, 0.0);
    }
    free(from);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_supported_loop_gives_a_finite_sum),
        cmocka_unit_test(each_dtype_has_its_loops),
        cmocka_unit_test(reads_visit_every_line),
        cmocka_unit_test(writes_and_copies_reach_every_byte_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
