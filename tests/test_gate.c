/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/gate: each router against numbers worked by hand, the fast kernels against the oracle. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/gate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A gate, a batch and room for its routing. */
struct rig {
    struct ep_gate_config config;
    struct ep_gate *gate;
    struct ep_routing routing;
};

static void open_rig(const char *text, int64_t experts, int64_t top_k, int64_t tokens,
                     struct rig *rig)
{
    *rig = (struct rig){0};
    CHECK_OK(ep_gate_config_parse(text, experts, top_k, &rig->config));
    CHECK_OK(ep_gate_create(&rig->config, &rig->gate));
    CHECK_OK(ep_routing_init(tokens, experts, ep_gate_num_slots(rig->gate), true, &rig->routing));
}

/* Again, with what was changed in the config. */
static void reopen_rig(struct rig *rig)
{
    ep_gate_destroy(rig->gate);
    rig->gate = NULL;
    CHECK_OK(ep_gate_create(&rig->config, &rig->gate));
}

static void close_rig(struct rig *rig)
{
    ep_gate_destroy(rig->gate);
    ep_routing_fini(&rig->routing);
}

static void route(struct rig *rig, const float *logits, int64_t tokens)
{
    const struct ep_gate_batch batch = {.num_tokens = tokens, .logits = logits};
    CHECK_OK(ep_gate_route(rig->gate, &batch, &rig->routing));
}

static void check_row(const struct rig *rig, int64_t token, const int32_t *idx,
                      const double *weight)
{
    const int64_t k = rig->routing.top_k;
    for (int64_t i = 0; i < k; i++) {
        assert_int_equal(rig->routing.topk_idx[token * k + i], idx[i]);
        CHECK_NEAR((double)rig->routing.topk_weight[token * k + i], weight[i], 2e-6);
    }
}

/* Logits whose softmax is .1 .2 .3 .4 and whose sigmoids are 1/2 2/3 3/4 4/5. */
static void fill_log(float *x)
{
    for (int i = 0; i < 4; i++) {
        x[i] = logf((float)(i + 1));
    }
}

static void test_by_hand(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int64_t top_k;
        int32_t idx[4];
        double weight[4];
    } cases[] = {
        {"top1", 1, {3}, {0.4}},
        {"top2", 2, {3, 2}, {4.0 / 7, 3.0 / 7}},
        {"softmax", 3, {3, 2, 1}, {0.4, 0.3, 0.2}},
        {"softmax-renorm", 3, {3, 2, 1}, {4.0 / 9, 3.0 / 9, 2.0 / 9}},
        {"topk-softmax", 3, {3, 2, 1}, {4.0 / 9, 3.0 / 9, 2.0 / 9}},
        {"sigmoid", 2, {3, 2}, {0.8, 0.75}},
        {"sigmoid-bias", 2, {3, 2}, {0.8 / 1.55, 0.75 / 1.55}},
        {"switch:0", 1, {3}, {0.4}},
        {"noisy-topk:0", 2, {3, 2}, {4.0 / 7, 3.0 / 7}},
        {"dropout:0", 4, {3, 2, 1, 0}, {0.4, 0.3, 0.2, 0.1}},
        {"dropout:1", 2, {-1, -1}, {0, 0}},
        {"softmax-group:2:1", 2, {3, 2}, {0.4, 0.3}},
        {"softmax-group:4:2", 2, {3, 2}, {0.4, 0.3}},
    };
    float x[4];
    fill_log(x);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct rig rig;
        open_rig(cases[c].text, 4, cases[c].top_k, 1, &rig);
        for (int i = 0; ep_gate_isa(i) != NULL; i++) {
            rig.config.isa = ep_gate_isa(i);
            reopen_rig(&rig);
            assert_string_equal(ep_gate_isa_name(rig.gate), ep_gate_isa(i));
            route(&rig, x, 1);
            check_row(&rig, 0, cases[c].idx, cases[c].weight);
        }
        close_rig(&rig);
    }
}

static void test_bias_steers_the_choice_only(void **state)
{
    (void)state;
    float x[4];
    const float bias[] = {0.6f, 0, 0, 0};
    struct rig rig;
    fill_log(x);
    open_rig("sigmoid-bias", 4, 2, 1, &rig);
    rig.config.bias = bias;
    rig.config.route_scale = 2.5;
    for (int i = 0; ep_gate_isa(i) != NULL; i++) {
        rig.config.isa = ep_gate_isa(i);
        rig.config.bias = bias;
        reopen_rig(&rig);
        route(&rig, x, 1);
        /* s + b: 1.1 .667 .75 .8; weights from s: .5 and .8 of 1.3, times 2.5 */
        check_row(&rig, 0, (const int32_t[]){0, 3},
                  (const double[]){2.5 * 0.5 / 1.3, 2.5 * 0.8 / 1.3});
    }
    close_rig(&rig);
}

static void test_groups_by_hand(void **state)
{
    (void)state;
    /* four groups of two: sums 1.0, 1.2, 0.96, 1.15; maxima .9, .6, .95, .65 */
    const double s[] = {0.9, 0.1, 0.6, 0.6, 0.95, 0.01, 0.5, 0.65};
    float x[8];
    struct rig rig;
    for (int e = 0; e < 8; e++) {
        x[e] = (float)log(s[e] / (1 - s[e]));
    }
    for (int i = 0; ep_gate_isa(i) != NULL; i++) {
        open_rig("sigmoid-group:4:2", 8, 2, 1, &rig);
        rig.config.isa = ep_gate_isa(i);
        reopen_rig(&rig);
        route(&rig, x, 1);
        /* the two best sums are groups 1 and 3; experts 2 and 3 tie: the lower index */
        check_row(&rig, 0, (const int32_t[]){7, 2}, (const double[]){0.65 / 1.25, 0.6 / 1.25});
        close_rig(&rig);
        open_rig("softmax-group:4:2", 8, 3, 1, &rig);
        rig.config.isa = ep_gate_isa(i);
        reopen_rig(&rig);
        route(&rig, x, 1);
        /* the two best maxima are groups 2 and 0; odds s / (1 - s): 19, 9, 1/9 of the sum
         * 9 + 1/9 + 2 (3/2) + 19 + 1/99 + 1 + 13/7 */
        const double sum = 9 + 1.0 / 9 + 3 + 19 + 1.0 / 99 + 1 + 13.0 / 7;
        check_row(&rig, 0, (const int32_t[]){4, 0, 1},
                  (const double[]){19 / sum, 9 / sum, 1.0 / 9 / sum});
        close_rig(&rig);
    }
}

/* --- fast kernels against the oracle ---------------------------------------------------------- */

enum data { NORMAL, BF16, EQUAL, MASKED, WIDE, TINY, NEAR_TIES, NUM_DATA };

static float draw(enum data data, struct ep_random *random)
{
    const double normal =
        sqrt(-2 * log(1 - ep_random_f64(random))) * cos(2 * M_PI * ep_random_f64(random));
    const uint32_t word = ep_random_u32(random);
    switch (data) {
    case BF16: /* 8 bits: many ties */
        return (float)(round(normal * 16) / 16);
    case EQUAL:
        return 0.25f;
    case MASKED:
        return word % 4 == 0 ? -INFINITY : (float)normal;
    case WIDE:
        return (float)(normal * 60);
    case TINY: /* sigmoids and exponentials that round together */
        return (float)(normal * 1e-9);
    case NEAR_TIES: /* neighbours in fp32 */
        return 1 + (float)(word % 64) * 0x1p-23f;
    default:
        return (float)normal;
    }
}

static void check_same(struct rig *rig, const float *logits, int64_t tokens, const char *what)
{
    struct ep_routing plain;
    const int64_t k = rig->routing.top_k;
    const int64_t experts = rig->config.num_experts;
    const struct ep_gate_batch batch = {.num_tokens = tokens, .first_token = 5, .logits = logits};
    CHECK_OK(ep_routing_init(tokens, experts, k, true, &plain));
    CHECK_OK(ep_gate_route(rig->gate, &batch, &rig->routing));
    CHECK_OK(ep_gate_route_plain(rig->gate, &batch, &plain));
    for (int64_t t = 0; t < tokens; t++) {
        double top = -INFINITY;
        for (int64_t e = 0; e < experts; e++) {
            top = fmax(top, (double)logits[t * experts + e]);
        }
        for (int64_t i = t * k; i < (t + 1) * k; i++) {
            const int32_t e = plain.topk_idx[i];
            const double want = (double)plain.topk_weight[i];
            const double got = (double)rig->routing.topk_weight[i];
            if (rig->routing.topk_idx[i] != e) {
                fail_msg("%s: token %d slot %d: expert %d, expected %d", what, (int)t,
                         (int)(i - t * k), rig->routing.topk_idx[i], e);
            }
            const double depth = e >= 0 ? top - (double)logits[t * experts + e] : 0;
            const double bound = 0x1p-24 * (8 + (double)experts / 16 + depth);
            if (!(fabs(got - want) <= bound * want + 1e-38)) {
                fail_msg("%s: token %d slot %d: weight %.9g, expected %.9g", what, (int)t,
                         (int)(i - t * k), got, want);
            }
        }
    }
    ep_routing_fini(&plain);
}

static void test_fast_is_plain(void **state)
{
    (void)state;
    enum { TOKENS = 70 };
    static const struct {
        const char *text;
        int64_t experts, top_k;
    } shapes[] = {
        {"sigmoid-group", 256, 8},
        {"sigmoid-group", 64, 6},
        {"sigmoid-group:4:2", 64, 8},
        {"sigmoid-group:16:3", 256, 16},
        {"sigmoid-group:3:2", 99, 5},
        {"sigmoid-group:1:1", 17, 3},
        {"sigmoid-group:8:8", 128, 8},
        {"sigmoid-group:5:2", 5, 2},
        {"softmax-group", 160, 6},
        {"softmax-group:8:4", 256, 8},
        {"softmax-group:2:1", 32, 9},
        {"sigmoid-bias", 384, 8},
        {"sigmoid-bias", 7, 7},
        {"sigmoid-bias", 1, 1},
        {"sigmoid", 16, 1},
        {"sigmoid", 128, 16},
        {"softmax", 64, 6},
        {"softmax", 1, 1},
        {"softmax", 33, 16},
        {"softmax-renorm", 512, 10},
        {"softmax-renorm", 15, 15},
        {"topk-softmax", 8, 2},
        {"topk-softmax", 128, 4},
        {"top1", 2048, 1},
        {"top2", 2048, 2},
        {"gshard", 60, 2},
        {"switch:0.3", 128, 1},
        {"noisy-topk", 40, 4},
        {"dropout:0.5", 24, 4},
        {"sigmoid-bias", 40, 17},
        {"sigmoid-group:32:3", 64, 4},
    };
    float bias[2048];
    float *logits = malloc(sizeof *logits * TOKENS * 2048);
    struct ep_random random;
    ep_random_init(&random, 3, EP_RANDOM_TEST, 0);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int d = 0; d < NUM_DATA; d++) {
            const int64_t num = TOKENS * shapes[s].experts;
            struct rig rig;
            for (int64_t i = 0; i < num; i++) {
                logits[i] = draw(d, &random);
            }
            open_rig(shapes[s].text, shapes[s].experts, shapes[s].top_k, TOKENS, &rig);
            for (int i = 0; ep_gate_isa(i) != NULL; i++) {
                char what[96];
                rig.config.isa = ep_gate_isa(i);
                for (int with_bias = 0; with_bias < 2; with_bias++) {
                    for (int64_t e = 0; e < shapes[s].experts; e++) {
                        bias[e] = (float)(ep_random_f64(&random) - 0.5) * 0.2f;
                    }
                    const bool has_bias = strncmp(shapes[s].text, "sigmoid-", 8) == 0;
                    rig.config.bias = has_bias && with_bias != 0 ? bias : NULL;
                    reopen_rig(&rig);
                    snprintf(what, sizeof what, "%s E=%d k=%d data %d, %s", shapes[s].text,
                             (int)shapes[s].experts, (int)shapes[s].top_k, d,
                             ep_gate_isa_name(rig.gate));
                    check_same(&rig, logits, TOKENS, what);
                }
            }
            close_rig(&rig);
        }
    }
    free(logits);
}

/* sigmoid, one expert: the weight is the function itself. */
static void test_sigmoid_error(void **state)
{
    (void)state;
    enum { NUM = 1 << 14 };
    float *x = malloc(sizeof *x * NUM);
    struct rig rig;
    open_rig("sigmoid", 1, 1, NUM, &rig);
    for (int i = 0; ep_gate_isa(i) != NULL; i++) {
        rig.config.isa = ep_gate_isa(i);
        reopen_rig(&rig);
        for (int half = 0; half < 2; half++) {
            for (int j = 0; j < NUM; j++) {
                x[j] = half == 0 ? -80 + 160.0f * (float)j / NUM : -8 + 16.0f * (float)j / NUM;
            }
            route(&rig, x, NUM);
            for (int j = 0; j < NUM; j++) {
                const double exact = 1 / (1 + exp(-(double)x[j]));
                const double got = (double)rig.routing.topk_weight[j];
                if (!(fabs(got - exact) <= 0x1p-24 * (6 + fabs((double)x[j]) / 20) * exact)) {
                    fail_msg("%s: sigmoid(%.9g) is %.9g, expected %.9g: %.2f units", ep_gate_isa(i),
                             (double)x[j], got, exact, (got - exact) / exact * 0x1p24);
                }
            }
        }
    }
    close_rig(&rig);
    free(x);
}

static void test_edges(void **state)
{
    (void)state;
    struct rig rig;
    const float masked[] = {-INFINITY, 2, -INFINITY, 1};
    const float none[] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    open_rig("softmax-renorm", 4, 3, 2, &rig);
    route(&rig, NULL, 0); /* no token: nothing is read or written */
    for (int i = 0; ep_gate_isa(i) != NULL; i++) {
        rig.config.isa = ep_gate_isa(i);
        reopen_rig(&rig);
        route(&rig, masked, 1);
        const double p = 1 / (1 + exp(-1));
        check_row(&rig, 0, (const int32_t[]){1, 3, -1}, (const double[]){p, 1 - p, 0});
        route(&rig, none, 1);
        check_row(&rig, 0, (const int32_t[]){-1, -1, -1}, (const double[]){0, 0, 0});
    }
    close_rig(&rig);
}

static void test_bad_logits_are_refused(void **state)
{
    (void)state;
    static const char *const routers[] = {"softmax",      "sigmoid-group:2:1", "sigmoid-bias",
                                          "topk-softmax", "noisy-topk",        "dropout:0.9",
                                          "expert-choice"};
    static const float bad[] = {NAN, INFINITY};
    for (size_t r = 0; r < sizeof routers / sizeof *routers; r++) {
        for (int b = 0; b < 2; b++) {
            for (int i = 0; ep_gate_isa(i) != NULL; i++) {
                struct rig rig;
                float x[3 * 40] = {0};
                open_rig(routers[r], 40, 2, 3, &rig);
                rig.config.isa = ep_gate_isa(i);
                reopen_rig(&rig);
                const struct ep_gate_batch batch = {
                    .num_tokens = 3, .first_token = 100, .logits = x};
                x[2 * 40 + 37] = bad[b];
                CHECK_FAILS(ep_gate_route(rig.gate, &batch, &rig.routing), EP_EINVAL,
                            "token 102, expert 37: logit ");
                close_rig(&rig);
            }
        }
    }
}

static void test_any_split_is_the_same(void **state)
{
    (void)state;
    enum { TOKENS = 200, EXPERTS = 24 };
    static const char *const routers[] = {"switch", "gshard", "noisy-topk", "dropout",
                                          "hash",   "random", "softmax"};
    float x[TOKENS * EXPERTS];
    struct ep_random random;
    ep_random_init(&random, 9, EP_RANDOM_TEST, 0);
    for (int i = 0; i < TOKENS * EXPERTS; i++) {
        x[i] = draw(NORMAL, &random);
    }
    for (size_t r = 0; r < sizeof routers / sizeof *routers; r++) {
        struct rig rig;
        const int64_t top_k = r == 0 ? 1 : 2;
        open_rig(routers[r], EXPERTS, top_k, TOKENS, &rig);
        route(&rig, x, TOKENS);
        for (int64_t first = 0, num = 0; first < TOKENS; first += num) {
            num = first % 7 + 1;
            num = first + num > TOKENS ? TOKENS - first : num;
            struct ep_routing part;
            const struct ep_gate_batch batch = {
                .num_tokens = num, .first_token = first, .logits = x + first * EXPERTS};
            CHECK_OK(ep_routing_init(num, EXPERTS, top_k, true, &part));
            CHECK_OK(ep_gate_route(rig.gate, &batch, &part));
            assert_memory_equal(part.topk_idx, rig.routing.topk_idx + first * top_k,
                                (size_t)(num * top_k) * sizeof *part.topk_idx);
            assert_memory_equal(part.topk_weight, rig.routing.topk_weight + first * top_k,
                                (size_t)(num * top_k) * sizeof *part.topk_weight);
            ep_routing_fini(&part);
        }
        close_rig(&rig);
    }
}

/* --- chance ---------------------------------------------------------------------------------- */

static void test_gshard_second(void **state)
{
    (void)state;
    enum { TOKENS = 20000 };
    float *x = malloc(sizeof *x * TOKENS * 4);
    struct rig rig;
    int64_t kept = 0;
    for (int t = 0; t < TOKENS; t++) { /* odds 4 : 1, so g2 = 0.2, kept with chance 0.4 */
        const float row[] = {-9, logf(4), -9, 0};
        memcpy(x + 4 * (size_t)t, row, sizeof row);
    }
    open_rig("gshard", 4, 2, TOKENS, &rig);
    route(&rig, x, TOKENS);
    for (int t = 0; t < TOKENS; t++) {
        const bool has = rig.routing.topk_idx[2 * t + 1] >= 0;
        check_row(&rig, t, (const int32_t[]){1, has ? 3 : -1},
                  (const double[]){0.8, has ? 0.2 : 0});
        kept += has;
    }
    /* binomial: standard deviation sqrt(.4 .6 / 20000) = 0.0035; five of them */
    CHECK_NEAR((double)kept / TOKENS, 0.4, 0.0175);
    close_rig(&rig);
    free(x);
}

/* One expert against logits of 0: how often it wins tells the distribution of the noise. */
static double share_of_first(const char *text, float first, float second, const float *noise)
{
    enum { TOKENS = 20000 };
    struct rig rig;
    float *x = malloc(sizeof *x * TOKENS * 2);
    float *noises = noise != NULL ? malloc(sizeof *noises * TOKENS * 2) : NULL;
    int64_t wins = 0;
    for (int t = 0; t < TOKENS; t++) {
        x[2 * t] = first;
        x[2 * t + 1] = second;
        if (noises != NULL) {
            memcpy(noises + 2 * (size_t)t, noise, 2 * sizeof *noise);
        }
    }
    open_rig(text, 2, 1, TOKENS, &rig);
    const struct ep_gate_batch batch = {.num_tokens = TOKENS, .logits = x, .noise_logits = noises};
    CHECK_OK(ep_gate_route(rig.gate, &batch, &rig.routing));
    for (int t = 0; t < TOKENS; t++) {
        wins += rig.routing.topk_idx[t] == 0;
    }
    close_rig(&rig);
    free(x);
    free(noises);
    return (double)wins / TOKENS;
}

static void test_noise(void **state)
{
    (void)state;
    const double five = 5 * 0.5 / sqrt(20000); /* standard deviations of a share, at most */
    /* the difference of two normals of deviation s is below 1.4142 s with chance Phi(1) = 0.8413 */
    CHECK_NEAR(share_of_first("noisy-topk:2", 2.8284271f, 0, NULL), 0.8413, five);
    CHECK_NEAR(share_of_first("noisy-topk", 0.98025814f, 0, NULL), 0.8413, five); /* sqrt 2 ln 2 */
    /* softplus(ln(e^3 - 1)) = 3 and softplus(ln(e^4 - 1)) = 4: deviation of the difference 5 */
    const float noise[] = {logf(expf(3) - 1), logf(expf(4) - 1)};
    CHECK_NEAR(share_of_first("noisy-topk", 5, 0, noise), 0.8413, five);
    /* .75 u > v, u and v in (.5, 1.5): a triangle from u = 2/3 on, 5/6 wide and 5/8 high: 25/96 */
    CHECK_NEAR(share_of_first("switch:0.5", 0.75f, 1, NULL), 25.0 / 96, five);
    CHECK_NEAR(share_of_first("switch:0.5", 1, 1, NULL), 0.5, five);
    /* left out with chance 1/4: the better one stays with 3/4 */
    CHECK_NEAR(share_of_first("dropout:0.25", 1, 0, NULL), 0.75, five);
    CHECK_NEAR(share_of_first("dropout:0.25", 0, 1, NULL), 0.25 * 0.75, five);
}

static void test_blind(void **state)
{
    (void)state;
    enum { TOKENS = 8000, EXPERTS = 16 };
    struct rig rig;
    int64_t counts[EXPERTS] = {0}, ids[TOKENS];
    open_rig("random", EXPERTS, 2, TOKENS, &rig);
    const struct ep_gate_batch batch = {.num_tokens = TOKENS};
    CHECK_OK(ep_gate_route(rig.gate, &batch, &rig.routing));
    for (int i = 0; i < 2 * TOKENS; i++) {
        counts[rig.routing.topk_idx[i]]++;
        assert_true(rig.routing.topk_weight[i] == 0.5f);
    }
    for (int e = 0; e < EXPERTS; e++) { /* mean 1000, deviation sqrt(8000 / 8 x 7/8) = 29.6 */
        CHECK_NEAR((double)counts[e], 1000, 150);
    }
    close_rig(&rig);
    /* hash: a function of the id alone */
    open_rig("hash", EXPERTS, 3, TOKENS, &rig);
    for (int t = 0; t < TOKENS; t++) {
        ids[t] = t * 7 % 100;
    }
    const struct ep_gate_batch known = {.num_tokens = TOKENS, .first_token = 50, .token_ids = ids};
    CHECK_OK(ep_gate_route(rig.gate, &known, &rig.routing));
    for (int t = 100; t < TOKENS; t++) {
        assert_memory_equal(rig.routing.topk_idx + 3 * t, rig.routing.topk_idx + 3 * (t - 100),
                            3 * sizeof *rig.routing.topk_idx);
    }
    close_rig(&rig);
    /* drawn ids: word r with chance 1/(r H), H = 1 + 1/2 + 1/3 + 1/4 = 25/12 of four words: with
     * two experts a word's whole share goes to one of them, so shares are sums of 12 6 4 3 over 25
     */
    open_rig("hash:4", 2, 1, TOKENS, &rig);
    CHECK_OK(ep_gate_route(rig.gate, &batch, &rig.routing));
    int64_t first = 0;
    for (int t = 0; t < TOKENS; t++) {
        first += rig.routing.topk_idx[t] == 0;
    }
    double nearest = 1;
    for (int set = 0; set < 16; set++) {
        const int sum = (set & 1) * 12 + (set >> 1 & 1) * 6 + (set >> 2 & 1) * 4 + (set >> 3) * 3;
        nearest = fmin(nearest, fabs((double)first / TOKENS - sum / 25.0));
    }
    CHECK_NEAR(nearest, 0, 0.019); /* sets are 0.04 apart; deviation 0.0056 */
    close_rig(&rig);
}

/* --- expert choice --------------------------------------------------------------------------- */

static void test_expert_choice_by_hand(void **state)
{
    (void)state;
    /* 4 tokens, 2 experts, factor 1: 2 tokens each. Probabilities of expert 0: .9 .8 .7 .6, so it
     * takes tokens 0 and 1, and expert 1 tokens 3 (.4) and 2 (.3). */
    float x[8];
    struct rig rig;
    const double p[] = {0.9, 0.8, 0.7, 0.6};
    for (int t = 0; t < 4; t++) {
        x[2 * t] = (float)log(p[t]) + 5;
        x[2 * t + 1] = (float)log(1 - p[t]) + 5;
    }
    open_rig("expert-choice:1", 2, 0, 4, &rig);
    assert_int_equal(ep_gate_num_slots(rig.gate), 2);
    route(&rig, x, 4);
    check_row(&rig, 0, (const int32_t[]){0, -1}, (const double[]){0.9, 0});
    check_row(&rig, 1, (const int32_t[]){0, -1}, (const double[]){0.8, 0});
    check_row(&rig, 2, (const int32_t[]){1, -1}, (const double[]){0.3, 0});
    check_row(&rig, 3, (const int32_t[]){1, -1}, (const double[]){0.4, 0});
    close_rig(&rig);
    /* factor 1/2: one token each, and tokens 1 and 2 have none */
    open_rig("expert-choice:0.5", 2, 0, 4, &rig);
    route(&rig, x, 4);
    check_row(&rig, 0, (const int32_t[]){0, -1}, (const double[]){0.9, 0});
    check_row(&rig, 1, (const int32_t[]){-1, -1}, (const double[]){0, 0});
    check_row(&rig, 2, (const int32_t[]){-1, -1}, (const double[]){0, 0});
    check_row(&rig, 3, (const int32_t[]){1, -1}, (const double[]){0.4, 0});
    close_rig(&rig);
    open_rig("expert-choice", 2, 0, 4, &rig);
    route(&rig, NULL, 0);
    close_rig(&rig);
}

static void test_expert_choice_takes_the_best(void **state)
{
    (void)state;
    enum { TOKENS = 300, EXPERTS = 20, TAKEN = 300 * 2 / 20 };
    static float x[TOKENS * EXPERTS];
    static double p[TOKENS][EXPERTS];
    static bool has[TOKENS][EXPERTS];
    struct ep_random random;
    struct rig rig;
    ep_random_init(&random, 4, EP_RANDOM_TEST, 0);
    for (int d = 0; d < 2; d++) { /* plain, and with ties: two thirds of the tokens are alike */
        memset(has, 0, sizeof has);
        for (int i = 0; i < TOKENS * EXPERTS; i++) {
            x[i] = d == 1 && i / EXPERTS % 3 != 0 ? (float)(i % EXPERTS) : draw(NORMAL, &random);
        }
        for (int t = 0; t < TOKENS; t++) {
            double sum = 0;
            for (int e = 0; e < EXPERTS; e++) {
                sum += p[t][e] = exp((double)x[t * EXPERTS + e]);
            }
            for (int e = 0; e < EXPERTS; e++) {
                p[t][e] /= sum;
            }
        }
        open_rig("expert-choice", EXPERTS, 2, TOKENS, &rig);
        route(&rig, x, TOKENS);
        for (int i = 0; i < TOKENS * EXPERTS; i++) {
            const int32_t e = rig.routing.topk_idx[i];
            assert_true(e == -1 || (i % EXPERTS == 0 || e > rig.routing.topk_idx[i - 1]));
            if (e >= 0) {
                has[i / EXPERTS][e] = true;
                CHECK_NEAR((double)rig.routing.topk_weight[i], p[i / EXPERTS][e], 1e-6);
            }
        }
        for (int e = 0; e < EXPERTS; e++) {
            int taken = 0;
            double worst_in = 1, best_out = 0;
            for (int t = 0; t < TOKENS; t++) {
                taken += has[t][e];
                worst_in = has[t][e] ? fmin(worst_in, p[t][e]) : worst_in;
                best_out = has[t][e] ? best_out : fmax(best_out, p[t][e]);
            }
            assert_int_equal(taken, TAKEN);
            assert_true(worst_in >= best_out * (1 - 1e-12));
        }
        close_rig(&rig);
    }
}

/* --- configs --------------------------------------------------------------------------------- */

static void test_models(void **state)
{
    (void)state;
    static const struct {
        const char *model, *router;
        int64_t top_k, groups, kept;
        double scale;
    } expected[] = {
        {"switch-base-128", "switch", 1, 1, 1, 1},
        {"switch-c-2048", "softmax", 1, 1, 1, 1},
        {"gshard-600b", "gshard", 2, 1, 1, 1},
        {"mixtral-8x7b", "topk-softmax", 2, 1, 1, 1},
        {"deepseek-v2-lite", "softmax", 6, 1, 1, 1},
        {"deepseek-v2", "softmax-group", 6, 8, 3, 16},
        {"deepseek-v3", "sigmoid-group", 8, 8, 4, 2.5},
        {"qwen1.5-moe-a2.7b", "softmax", 4, 1, 1, 1},
        {"qwen3-30b-a3b", "softmax-renorm", 8, 1, 1, 1},
        {"llama4-scout", "sigmoid", 1, 1, 1, 1},
        {"gpt-oss-120b", "topk-softmax", 4, 1, 1, 1},
        {"kimi-k2", "sigmoid-bias", 8, 1, 1, 2.827},
        {"glm-4.5-air", "sigmoid-bias", 8, 1, 1, 1},
        {"olmoe-1b-7b", "softmax", 8, 1, 1, 1},
        {"dbrx", "softmax-renorm", 4, 1, 1, 1},
        {"minimax-m2", "sigmoid-bias", 8, 1, 1, 1},
    };
    struct ep_models *models = NULL;
    struct ep_gate_config config;
    bool assumed = true;
    CHECK_OK(ep_models_create(&models));
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct ep_model *model = NULL;
        CHECK_OK(ep_models_find(models, expected[i].model, &model));
        CHECK_OK(ep_gate_config_from_model(model, &config, &assumed));
        assert_string_equal(ep_gate_name(&config), expected[i].router);
        assert_int_equal(config.top_k, expected[i].top_k);
        assert_int_equal(config.num_groups, expected[i].groups);
        assert_int_equal(config.topk_groups, expected[i].kept);
        CHECK_NEAR(config.route_scale, expected[i].scale, 0);
        assert_false(assumed);
    }
    /* every row with experts names a router that can be made of its shape */
    for (int64_t i = 0; i < models->num; i++) {
        const struct ep_model *model = &models->models[i];
        if (model->num_experts <= 1) {
            continue;
        }
        struct ep_gate *gate = NULL;
        CHECK_OK(ep_gate_config_from_model(model, &config, &assumed));
        assert_int_equal(config.num_experts, model->num_experts);
        assert_int_equal(config.top_k, model->top_k);
        const bool is_vague =
            strstr(model->router, "unknown") != NULL || strstr(model->router, "see source") != NULL;
        assert_int_equal(assumed, is_vague);
        CHECK_OK(ep_gate_create(&config, &gate));
        ep_gate_destroy(gate);
    }
    const struct ep_model odd = {.name = "odd", .router = "by magic", .num_experts = 4, .top_k = 1};
    CHECK_FAILS(ep_gate_config_from_model(&odd, &config, NULL), EP_EINVAL,
                "model odd: no router is known for 'by magic'");
    ep_models_destroy(models);
}

static void test_configs(void **state)
{
    (void)state;
    struct ep_gate_config c;
    struct ep_gate *gate = NULL;
    const char *usage = NULL, *summary = NULL, *source = NULL;
    for (int i = 0; ep_gate_describe(i, &usage, &summary, &source); i++) {
        char name[64];
        assert_true(strlen(summary) > 0 && strlen(source) > 0);
        snprintf(name, sizeof name, "%.*s", (int)strcspn(usage, "["), usage);
        const int64_t top_k = strcmp(name, "top1") == 0 || strcmp(name, "switch") == 0 ? 1 : 2;
        CHECK_OK(ep_gate_config_parse(name, 16, top_k, &c));
        assert_string_equal(ep_gate_name(&c), name);
        CHECK_OK(ep_gate_create(&c, &gate));
        ep_gate_destroy(gate);
    }
    CHECK_FAILS(ep_gate_config_parse("sigmoid-gruop", 8, 2, &c), EP_EINVAL,
                "did you mean 'sigmoid-group'");
    CHECK_FAILS(ep_gate_config_parse("quite something else", 8, 2, &c), EP_EINVAL,
                "unknown router");
    CHECK_FAILS(ep_gate_config_parse("softmax", 8, 0, &c), EP_EINVAL, "--top-k is needed");
    CHECK_OK(ep_gate_config_parse("top1", 8, 2, &c));
    assert_int_equal(c.top_k, 1);
    c.top_k = 2;
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "chooses 1 experts, not 2");
    CHECK_FAILS(ep_gate_config_parse("top1:3", 8, 1, &c), EP_EINVAL, "has no parameter");
    CHECK_FAILS(ep_gate_config_parse("switch:2", 8, 1, &c), EP_EINVAL, "JITTER: 2 is outside");
    CHECK_FAILS(ep_gate_config_parse("switch:x", 8, 1, &c), EP_EINVAL, "JITTER: 'x' is not");
    CHECK_FAILS(ep_gate_config_parse("sigmoid-group:8", 8, 1, &c), EP_EINVAL, "GROUPS:KEPT");
    CHECK_FAILS(ep_gate_config_parse("sigmoid-group:2:3", 8, 1, &c), EP_EINVAL,
                "3 is outside 1 to 2");
    CHECK_OK(ep_gate_config_parse("softmax", 8, 9, &c));
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "top-9 of 8 experts");
    CHECK_OK(ep_gate_config_parse("sigmoid-group:3:2", 8, 2, &c));
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "8 experts do not make 3 equal groups");
    CHECK_OK(ep_gate_config_parse("sigmoid-group:4:1", 8, 3, &c));
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "top-3 of the 2 experts in 1 of 4 groups");
    const float bias[] = {0, INFINITY};
    CHECK_OK(ep_gate_config_parse("sigmoid-bias", 2, 1, &c));
    c.bias = bias;
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "bias inf of expert 1");
    CHECK_OK(ep_gate_config_parse("softmax", 2, 1, &c));
    c.bias = bias;
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "router softmax has no bias");
    c.bias = NULL;
    c.route_scale = 0;
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "route scale 0");
    c.route_scale = 1;
    c.isa = "mmx";
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "no router kernels for 'mmx'");
    c.isa = NULL;
    c.num_groups = 2;
    CHECK_FAILS(ep_gate_create(&c, &gate), EP_EINVAL, "router softmax has no groups");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_bias_steers_the_choice_only),
        cmocka_unit_test(test_groups_by_hand),
        cmocka_unit_test(test_fast_is_plain),
        cmocka_unit_test(test_sigmoid_error),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_bad_logits_are_refused),
        cmocka_unit_test(test_any_split_is_the_same),
        cmocka_unit_test(test_gshard_second),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_blind),
        cmocka_unit_test(test_expert_choice_by_hand),
        cmocka_unit_test(test_expert_choice_takes_the_best),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
