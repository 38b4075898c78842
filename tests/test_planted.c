/* SPDX-License-Identifier: Apache-2.0 */
/* What was planted is found: every rung, few seeds. `epbench validate --planted` takes a thousand. */
#include "tests/check.h"

#include "results/validate_planted.h"

#include <math.h>

static void check_design(const struct ep_planted_design *design, int num_seeds)
{
    struct ep_planted_question question;
    struct ep_planted_answer answer;
    ep_planted_question_default(&question);
    question.num_seeds = num_seeds;
    question.num_threads = 2;
    CHECK_OK(ep_validate_planted(design, &question, &answer));
    assert_true(answer.num_cases >= 120);
    /* P(Binomial(8, 0.95) < 6) = 0.006, of the fixed seeds 1 to 8; M6's simpler rungs are as good */
    if (answer.simpler == NULL || answer.simpler_p95 >= 0.15) {
        assert_true(answer.num_right >= num_seeds * 3 / 4);
    } else {
        assert_string_equal(design->rung, "M6");
    }
    for (int j = 0; j < answer.num_parameters; j++) {
        /* P(Binomial(8, 0.92) < 5) = 0.002; and intervals that cover say something: a_in lies on few
         * chains, l of M6 under the messages' time, the others are known to a quarter */
        assert_true(answer.coverage[j] >= 5.0 / 8);
        const bool is_vague = strcmp(answer.names[j], "a_in") == 0 || strcmp(design->rung, "M6") == 0;
        assert_true(answer.half_width[j] < (is_vague ? 0.9 : 0.25));
    }
}

static void test_found(void **state)
{
    (void)state;
    int num = 0;
    for (; ep_planted_design_at(num) != NULL; num++) {
        /* those that follow messages take a second a seed */
        const bool is_m5 = strcmp(ep_planted_design_at(num)->rung, "M5") == 0;
        const bool is_m6 = strcmp(ep_planted_design_at(num)->rung, "M6") == 0;
        check_design(ep_planted_design_at(num), is_m6 ? 2 : is_m5 ? 4 : 8);
    }
    assert_int_equal(num, EP_NUM_RUNGS - 1); /* all but M0-link */
}

static void test_deterministic(void **state)
{
    (void)state;
    struct ep_records a, b;
    struct ep_model_matrix *am, *bm;
    const struct ep_planted_design *m3 = ep_planted_design_at(3);
    CHECK_OK(ep_planted_make_records(m3, 7, 0.05, 0.1, &a, &am));
    CHECK_OK(ep_planted_make_records(m3, 7, 0.05, 0.1, &b, &bm));
    for (int64_t i = 0; i < a.num; i++) {
        CHECK_NEAR(a.items[i].median_s, b.items[i].median_s, 0);
    }
    ep_planted_fini(&b, bm);
    /* Without noise and outliers M3's law by hand: first case, 8 ranks on 2 nodes, 64 rows, even: 8 rows of
     * 1 KiB to each; H_rank = 7 x 8 KiB = 57344, H_nic = 4 x 4 x 8 KiB = 131072; n = 7:
     * 30 us + 70 us + max(57344 / 8e9, 131072 / 9e9) = 114.5636 us */
    CHECK_OK(ep_planted_make_records(m3, 7, 0, 0, &b, &bm));
    assert_string_equal(b.items[0].case_name, "even/P8/t64");
    assert_int_equal(b.items[0].h_rank_bytes, 57344);
    CHECK_NEAR(b.items[0].median_s, 114.5636e-6, 1e-10);
    ep_planted_fini(&b, bm);
    ep_planted_fini(&a, am);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_deterministic),
                                       cmocka_unit_test(test_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
