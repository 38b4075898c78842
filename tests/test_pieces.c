/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of point-to-point time: planted ones found, the search against all cuts, bad input. */
#include "tests/check.h"

#include "base/random.h"
#include "results/pieces.h"

#include <math.h>

static struct ep_pieces_options small_options(void)
{
    struct ep_pieces_options o;
    ep_pieces_options_default(&o);
    o.min_points = 2;
    return o;
}

static struct ep_pieces fit(const double *x, const double *y, int64_t num, int num_pieces)
{
    const struct ep_pieces_options o = small_options();
    const struct ep_pieces_points p = {x, y, num};
    struct ep_pieces pieces;
    CHECK_OK(ep_pieces_fit(&p, &o, num_pieces, &pieces));
    return pieces;
}

/* One piece of two points, by hand, weights 1 / y^2. */
static void test_line_by_hand(void **state)
{
    (void)state;
    /* rising: the line through both, 1 + 2 x */
    struct ep_pieces p = fit((double[]){1, 3}, (double[]){3, 7}, 2, 1);
    CHECK_NEAR(p.pieces[0].latency_s, 1, 1e-12);
    CHECK_NEAR(p.pieces[0].s_per_byte, 2, 1e-12);
    CHECK_NEAR(p.relative_rms, 0, 1e-7);
    /* falling, (1, 4), (2, 2): no cost below 0, so flat at (4/16 + 2/4) / (1/16 + 1/4) = 2.4;
     * squares (1.6/4)^2 + (0.4/2)^2 = 0.2, over two points 0.1 */
    p = fit((double[]){1, 2}, (double[]){4, 2}, 2, 1);
    CHECK_NEAR(p.pieces[0].latency_s, 2.4, 1e-12);
    CHECK_NEAR(p.pieces[0].s_per_byte, 0, 0);
    CHECK_NEAR(p.relative_rms, sqrt(0.1), 1e-12);
    /* (2, 2), (4, 6): -2 + 2 x would fit, but no latency below 0: through the origin with
     * (2 2/4 + 4 6/36) / (4/4 + 16/36) = (5/3) / (13/9) = 15/13 */
    p = fit((double[]){2, 4}, (double[]){2, 6}, 2, 1);
    CHECK_NEAR(p.pieces[0].latency_s, 0, 0);
    CHECK_NEAR(p.pieces[0].s_per_byte, 15.0 / 13, 1e-12);
}

/* Eager, rendezvous and bulk: exact times, so all is recovered. */
static void test_planted_exact(void **state)
{
    (void)state;
    const double latency[] = {1e-6, 3e-6, 2e-6}, cost[] = {1e-9, 2e-10, 4e-10};
    const double last[] = {1000, 10000, INFINITY};
    double x[30], y[30];
    for (int i = 0; i < 30; i++) {
        x[i] = floor(8 * pow(1.5, i)); /* 8, 12, ..., 922 (i = 11.7), ... */
        const int piece = x[i] <= last[0] ? 0 : x[i] <= last[1] ? 1 : 2;
        y[i] = latency[piece] + cost[piece] * x[i];
    }
    const struct ep_pieces p = fit(x, y, 30, 3);
    assert_int_equal(p.num, 3);
    for (int i = 0; i < 3; i++) {
        CHECK_NEAR(p.pieces[i].latency_s / latency[i], 1, 1e-6);
        CHECK_NEAR(p.pieces[i].s_per_byte / cost[i], 1, 1e-6);
        assert_true(p.pieces[i].first_bytes > (i > 0 ? last[i - 1] : 0));
        assert_true(p.pieces[i].last_bytes <= last[i]);
        assert_true(i == 2 || (p.pieces[i].end_bytes > p.pieces[i].last_bytes &&
                               p.pieces[i].end_bytes < p.pieces[i + 1].first_bytes));
    }
    /* each piece rules where it was fitted and half way, by ratio, to the next */
    CHECK_NEAR(ep_pieces_predict(&p, 100), 1e-6 + 1e-7, 1e-12);
    CHECK_NEAR(ep_pieces_predict(&p, 5000), 3e-6 + 1e-6, 1e-12);
    CHECK_NEAR(ep_pieces_predict(&p, 1e9), 2e-6 + 0.4, 1e-6);
}

static double squares_of(const double *x, const double *y, int from, int to)
{
    const struct ep_pieces p = fit(x + from, y + from, to - from, 1);
    return p.relative_rms * p.relative_rms * (to - from);
}

/* Random times: no cut of 14 sizes into 3 pieces is better than the one found. */
static void test_all_cuts(void **state)
{
    (void)state;
    struct ep_random random;
    ep_random_init(&random, 1, EP_RANDOM_TEST, 0);
    for (int trial = 0; trial < 20; trial++) {
        double x[14], y[14];
        for (int i = 0; i < 14; i++) {
            x[i] = 10 * i + 9 * ep_random_f64(&random);
            y[i] = 1 + 5 * ep_random_f64(&random);
        }
        double best = INFINITY;
        for (int a = 2; a <= 10; a++) {
            for (int b = a + 2; b <= 12; b++) {
                best = fmin(best, squares_of(x, y, 0, a) + squares_of(x, y, a, b) +
                                      squares_of(x, y, b, 14));
            }
        }
        const struct ep_pieces p = fit(x, y, 14, 3);
        CHECK_NEAR(p.relative_rms * p.relative_rms * 14, best, 1e-9);
    }
}

/* 300 sizes, a jump at 3 KiB and a bend at 64 KiB, noise of 2 % (uniform +-3.5 %, so that the mean
 * absolute error is at best 1.75 %). */
static void make_noisy(double *x, double *y)
{
    struct ep_random random;
    ep_random_init(&random, 2, EP_RANDOM_TEST, 0);
    for (int i = 0; i < 300; i++) {
        x[i] = floor(20 * pow(1.04, i) + i);
        const double t = x[i] <= 3072    ? 1e-6 + 1e-9 * x[i]
                         : x[i] <= 65536 ? 6e-6 + 3e-10 * x[i]
                                         : 1.5e-6 + 3.7e-10 * x[i];
        y[i] = t * (1 + 0.07 * (ep_random_f64(&random) - 0.5));
    }
}

static void test_choice_of_number(void **state)
{
    (void)state;
    double x[300], y[300];
    struct ep_pieces_options o;
    struct ep_pieces_choice c, again;
    make_noisy(x, y);
    ep_pieces_options_default(&o);
    const struct ep_pieces_points p = {x, y, 300};
    CHECK_OK(ep_pieces_choose(&p, &o, &c));
    /* the bend changes time by 0.1 us of 26: two pieces are as good as three */
    assert_true(c.pieces.num == 2 || c.pieces.num == 3);
    CHECK_NEAR(c.pieces.pieces[0].end_bytes, 3072, 3072 * 0.05);
    assert_true(c.error[0] > 0.1);
    /* 1.75 % (+-0.06 % of 300 sizes), and one size beside the jump may be taken for the other side,
     * |1 - 4.1 / 6.9| / 300 = 0.14 % or |1 - 6.9 / 4.1| / 300 = 0.23 % */
    assert_true(c.held_out_error > 0.016 && c.held_out_error < 0.0225);
    CHECK_OK(ep_pieces_choose(&p, &o, &again));
    assert_int_equal(again.pieces.num, c.pieces.num);
    CHECK_NEAR(again.held_out_error, c.held_out_error, 0);
    /* one line with noise stays one piece */
    for (int i = 0; i < 300; i++) {
        y[i] = (1e-6 + 1e-9 * x[i]) * (1 + (i % 7 - 3) * 0.01);
    }
    CHECK_OK(ep_pieces_choose(&p, &o, &c));
    assert_int_equal(c.pieces.num, 1);
}

/* Given limits, pieces end at them and nowhere else. */
static void test_limits(void **state)
{
    (void)state;
    double x[300], y[300];
    const double limits[] = {1024, 3072, 4096, 65536};
    struct ep_pieces_options o;
    struct ep_pieces pieces;
    make_noisy(x, y);
    ep_pieces_options_default(&o);
    o.limits = limits;
    o.num_limits = 4;
    const struct ep_pieces_points p = {x, y, 300};
    CHECK_OK(ep_pieces_fit(&p, &o, 2, &pieces));
    assert_int_equal(pieces.num, 2);
    CHECK_NEAR(pieces.pieces[0].end_bytes, 3072, 0);
    CHECK_OK(ep_pieces_fit(&p, &o, 8, &pieces));
    assert_int_equal(pieces.num, 5); /* four limits allow no more */
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(pieces.pieces[i].end_bytes, limits[i], 0);
    }
}

static void test_bad_input(void **state)
{
    (void)state;
    struct ep_pieces_options o = small_options();
    struct ep_pieces pieces;
    struct ep_pieces_choice choice;
    double x[] = {1, 2, 2, 4}, y[] = {1, 1, 1, 1};
    const struct ep_pieces_points p = {x, y, 4}, none = {x, y, 0};
    CHECK_FAILS(ep_pieces_fit(&p, &o, 1, &pieces), EP_EINVAL, "sizes that rise");
    x[2] = 3;
    y[3] = -1;
    CHECK_FAILS(ep_pieces_fit(&p, &o, 1, &pieces), EP_EINVAL, "time -1 s of 4 bytes");
    y[3] = NAN;
    CHECK_FAILS(ep_pieces_fit(&p, &o, 1, &pieces), EP_EINVAL, "time nan");
    y[3] = 1;
    CHECK_FAILS(ep_pieces_fit(&p, &o, 0, &pieces), EP_EINVAL, "0 pieces");
    CHECK_FAILS(ep_pieces_fit(&p, &o, EP_PIECES_MAX + 1, &pieces), EP_EINVAL, "13 pieces");
    CHECK_FAILS(ep_pieces_fit(&none, &o, 1, &pieces), EP_EINVAL, "0 sizes");
    CHECK_FAILS(ep_pieces_choose(&p, &o, &choice), EP_EINVAL, "too few");
    const double limits[] = {8, 4};
    o.limits = limits;
    o.num_limits = 2;
    CHECK_FAILS(ep_pieces_fit(&p, &o, 1, &pieces), EP_EINVAL, "limits that rise");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_by_hand),     cmocka_unit_test(test_planted_exact),
        cmocka_unit_test(test_all_cuts),         cmocka_unit_test(test_choice_of_number),
        cmocka_unit_test(test_limits),           cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
