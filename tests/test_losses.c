/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: balancing losses of each framework on cases worked by hand, entropy, mutual
 * information. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/information.h"
#include "kernels/losses.h"
#include "kernels/route_losses.h"

#include <math.h>

/* Four tokens, four experts, top-2.
 *   copies of all choices: 3 3 2 0; of first choices: 3 0 1 0
 *   sum of probs per expert: 1.75 0.75 1 0.5; mean: 0.4375 0.1875 0.25 0.125 */
static int32_t chosen[] = {0, 1, 0, 2, 0, 1, 2, 1};
static const float probs[] = {0.5f, 0.25f, 0.125f, 0.125f, 0.5f,  0.125f, 0.25f, 0.125f,
                              0.5f, 0.25f, 0.125f, 0.125f, 0.25f, 0.125f, 0.5f,  0.125f};
static const struct ep_routing routing = {
    .num_tokens = 4, .num_experts = 4, .top_k = 2, .topk_idx = chosen};
static const struct ep_loss_batch batch = {.routing = &routing, .probs = probs, .num_ranks = 1};

static double evaluate(const char *name, const struct ep_loss_batch *of)
{
    const struct ep_loss *loss = NULL;
    double value = 0;
    CHECK_OK(ep_loss_find(name, "--aux", &loss));
    CHECK_OK(ep_loss_evaluate(loss, of, &value));
    return value;
}

static void test_values_by_hand(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double value;
    } cases[] = {
        /* f = (3 3 2 0)/8, P as above: 0.1640625 + 0.0703125 + 0.0625 = 0.296875 */
        {"plain", 0.296875},
        {"megatron", 4 * 0.296875},
        {"megatron-global", 4 * 0.296875},
        /* E/(T k) sum copies P = 4/8 (1.3125 + 0.5625 + 0.5) */
        {"megablocks", 1.1875},
        /* ce = (3 3 2 0)/4: me ce = 0.328125 + 0.140625 + 0.125 = 0.59375; /4 x 16 / 2 */
        {"deepspeed-topk", 1.1875},
        /* ce = (3 0 1 0)/4: me ce = 0.328125 + 0.0625 = 0.390625; x 4, or /4 x 16 */
        {"deepspeed-top1", 1.5625},
        {"deepspeed-top2", 1.5625},
        {"fairseq", 1.5625},
        {"switch", 1.5625},
        {"fastmoe-gshard", 1.5625},
        {"gshard", 0.09765625}, /* 0.390625 / 4 */
        /* ce = first choices x 4/4 = 3 0 1 0, me = sums: (5.25 + 1) / 4 */
        {"tutel-gshard", 1.5625},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_NEAR(evaluate(cases[i].name, &batch), cases[i].value, 1e-12);
    }
}

static void test_sequences_and_micro_batches(void **state)
{
    (void)state;
    struct ep_loss_batch b = batch;
    /* tokens 0 1: copies 2 1 1 0, sums 1 .375 .375 .25: 2.75 x 4/(2 x 2^2) = 1.375
     * tokens 2 3: copies 1 2 1 0, sums .75 .375 .625 .25: 2.125 x 1/2 = 1.0625; mean 1.21875 */
    b.sequence_tokens = 2;
    CHECK_NEAR(evaluate("megatron-seq", &b), 1.21875, 1e-12);
    CHECK_NEAR(evaluate("deepseek-v3", &b), 1.21875, 1e-12);
    CHECK_NEAR(evaluate("megatron", &b), 1.1875, 1e-12); /* not per sequence */
    b.sequence_tokens = 0;                               /* one sequence */
    CHECK_NEAR(evaluate("megatron-seq", &b), 1.1875, 1e-12);
    const struct ep_loss *loss = NULL;
    double value = 0;
    CHECK_OK(ep_loss_find("megatron-seq", "--aux", &loss));
    b.sequence_tokens = 3;
    CHECK_FAILS(ep_loss_evaluate(loss, &b, &value), EP_EINVAL, "whole sequences of 3");
    /* mean copies of earlier micro-batches 2 3 2 1: 3.5 + 2.25 + 2 + 0.5 = 8.25, x 4/(2 x 16) */
    const double counts[] = {2, 3, 2, 1};
    b = batch;
    b.counts = counts;
    CHECK_NEAR(evaluate("megatron-global", &b), 1.03125, 1e-12);
}

static void test_losses_with_conditions(void **state)
{
    (void)state;
    const struct ep_loss *loss = NULL;
    struct ep_loss_batch b = batch;
    double value = 0;
    /* two workers: (4/2)^2 x mean(me ce) = 4 x 0.390625/4 */
    b.num_ranks = 2;
    CHECK_NEAR(evaluate("fastmoe-gshard", &b), 0.390625, 1e-12);
    b.num_ranks = 0;
    CHECK_OK(ep_loss_find("fastmoe-gshard", "--aux", &loss));
    CHECK_FAILS(ep_loss_evaluate(loss, &b, &value), EP_EINVAL, "0 workers");
    /* token 1 dropped, U = 3: kept/U = 2/3 0 1/3 0, sums/U = 1.75/3 .. 1/3:
     * 4 (3.5/9 + 1/9) = 2 */
    int32_t kept[] = {0, -1, 0, 2};
    const struct ep_routing top1 = {
        .num_tokens = 4, .num_experts = 4, .top_k = 1, .topk_idx = kept};
    b = (struct ep_loss_batch){.routing = &top1, .probs = probs};
    CHECK_NEAR(evaluate("fastmoe-switch", &b), 2, 1e-12);
    for (int i = 0; i < 4; i++) {
        kept[i] = -1; /* all dropped: no loss, not NaN */
    }
    CHECK_NEAR(evaluate("fastmoe-switch", &b), 0, 0);
    CHECK_OK(ep_loss_find("fastmoe-switch", "--aux", &loss));
    CHECK_FAILS(ep_loss_evaluate(loss, &batch, &value), EP_EINVAL, "top-k is 2");
    CHECK_FAILS(ep_loss_find("megatorn", "--aux", &loss), EP_EINVAL, "did you mean megatron?");
    CHECK_FAILS(ep_loss_find("x", "--aux", &loss), EP_EINVAL, "there are plain, megatron");
}

static void test_load_importance_by_hand(void **state)
{
    (void)state;
    /* Two tokens, both to expert 0, whose logit equals its probability; deviation 1/2.
     *   importance 1.25 0.75: mean 1, unbiased variance 0.125, squared cv 0.125
     *   load: Phi(0) + Phi(0) = 1; Phi((0.25 - 0.75) / 0.5) + Phi(0) = 0.158655254 + 0.5
     *         mean 0.829327627, variance 0.341344746^2 / 2 = 0.0582581178
     *         squared cv 0.0582581178 / 0.687784313 = 0.0847040432 */
    int32_t first[] = {0, 0};
    const float p[] = {0.75f, 0.25f, 0.5f, 0.5f};
    const float logits[] = {0.75f, 0, 0.5f, 0};
    const struct ep_routing r = {.num_tokens = 2, .num_experts = 2, .top_k = 1, .topk_idx = first};
    struct ep_loss_batch b = {.routing = &r, .probs = p, .logits = logits, .gate_noise = 1};
    CHECK_NEAR(evaluate("tutel-load-importance", &b), (0.125 + 0.0847040432) / 2, 1e-8);
    const struct ep_loss *loss = NULL;
    double value = 0;
    float gradient[4] = {0};
    CHECK_OK(ep_loss_find("tutel-load-importance", "--aux", &loss));
    CHECK_FAILS(ep_loss_add_gradient(loss, &b, 1, gradient), EP_EINVAL, "no gradient");
    b.gate_noise = 0;
    CHECK_FAILS(ep_loss_evaluate(loss, &b, &value), EP_EINVAL, "gate noise");
    b.gate_noise = 1;
    b.logits = NULL;
    CHECK_FAILS(ep_loss_evaluate(loss, &b, &value), EP_EINVAL, "needs logits");
}

/* Every expert once and even probabilities: what frameworks scale by E is 1, plain 1/E, GShard
 * 1/E^2. */
static void test_balanced_values(void **state)
{
    (void)state;
    enum { E = 8 };
    int32_t idx[E];
    float even[E * E];
    for (int t = 0; t < E; t++) {
        idx[t] = t;
        for (int e = 0; e < E; e++) {
            even[t * E + e] = 1.0f / E;
        }
    }
    const struct ep_routing r = {.num_tokens = E, .num_experts = E, .top_k = 1, .topk_idx = idx};
    const struct ep_loss_batch b = {.routing = &r, .probs = even, .num_ranks = 1};
    for (const struct ep_loss *loss = ep_losses; loss->name != NULL; loss++) {
        assert_true(loss->formula != NULL && loss->source != NULL);
        if (!loss->needs_logits) {
            const double expected = strcmp(loss->name, "plain") == 0    ? 1.0 / 8
                                    : strcmp(loss->name, "gshard") == 0 ? 1.0 / 64
                                                                        : 1;
            CHECK_NEAR(evaluate(loss->name, &b), expected, 1e-12);
        }
    }
}

static void test_gradients_by_hand(void **state)
{
    (void)state;
    const struct ep_loss *loss = NULL;
    float gradient[16] = {0};
    gradient[0] = 1; /* added to, not overwritten */
    CHECK_OK(ep_loss_find("megatron", "--aux", &loss));
    CHECK_OK(ep_loss_add_gradient(loss, &batch, 0.5, gradient));
    /* 0.5 x copies x E/(k T^2) = 0.5 x (3 3 2 0) / 8 for every token */
    CHECK_NEAR(gradient[0], 1.1875, 1e-6);
    CHECK_NEAR(gradient[1], 0.1875, 1e-6);
    CHECK_NEAR(gradient[14], 0.125, 1e-6);
    CHECK_NEAR(gradient[15], 0, 0);
    /* per sequence of two: copies x 4/(2 x 4) / 2 sequences: tokens 0 1: 2 1 1 0; tokens 2 3: 1 2 1
     * 0 */
    struct ep_loss_batch b = batch;
    float by_sequence[16] = {0};
    b.sequence_tokens = 2;
    CHECK_OK(ep_loss_find("megatron-seq", "--aux", &loss));
    CHECK_OK(ep_loss_add_gradient(loss, &b, 1, by_sequence));
    CHECK_NEAR(by_sequence[0], 0.5, 1e-6);
    CHECK_NEAR(by_sequence[5], 0.25, 1e-6);
    CHECK_NEAR(by_sequence[8], 0.25, 1e-6);
    CHECK_NEAR(by_sequence[13], 0.5, 1e-6);
}

static void test_z_loss_and_bias(void **state)
{
    (void)state;
    /* logsumexp(0, 0) = ln 2; logsumexp(ln 3, 0) = ln 4; mean of squares (1 + 4) ln^2 2 / 2 */
    const double ln2 = 0.69314718055994531;
    const float logits[] = {0, 0, 1.0986122886681098f, 0};
    CHECK_NEAR(ep_loss_z(logits, 2, 2), 2.5 * ln2 * ln2, 1e-6);
    float gradient[4] = {0};
    ep_loss_z_add_gradient(logits, 2, 2, 1, gradient); /* 2 z softmax / T */
    CHECK_NEAR(gradient[0], ln2 / 2, 1e-6);
    CHECK_NEAR(gradient[1], ln2 / 2, 1e-6);
    CHECK_NEAR(gradient[2], 2 * ln2 * 0.75, 1e-6);
    CHECK_NEAR(gradient[3], 2 * ln2 * 0.25, 1e-6);
    const float huge[] = {1000, -1000}; /* no overflow */
    CHECK_NEAR(ep_loss_z(huge, 1, 2), 1e6, 1e-3);

    const int64_t loads[] = {4, 2, 2, 0}; /* mean 2 */
    float bias[] = {0, 1, 0, 0.5f};
    ep_loss_update_bias(loads, 4, 0.25, bias);
    const float expected[] = {-0.25f, 1, 0, 0.75f};
    assert_memory_equal(bias, expected, sizeof bias);
}

/* The four tokens as two ranks of two, from logits ln p. */
static enum ep_status fetch_two(const void *context, int64_t source, bool with_weights,
                                struct ep_routing *made, int64_t *first_token)
{
    (void)context;
    const enum ep_status status = ep_routing_init(2, 4, 2, with_weights, made);
    for (int i = 0; status == EP_OK && i < 4; i++) {
        made->topk_idx[i] = chosen[source * 4 + i];
    }
    *first_token = source * 2;
    return status;
}

static double value_of(const struct ep_route_losses *losses, const char *name)
{
    int i = 0;
    while (strcmp(ep_losses[i].name, name) != 0) {
        i++;
    }
    return losses->values[i];
}

static void test_losses_of_ranks(void **state)
{
    (void)state;
    float logits[16];
    struct ep_route_losses losses;
    for (int i = 0; i < 16; i++) {
        logits[i] = logf(probs[i]);
    }
    const struct ep_dropping_input input = {
        .fetch = fetch_two,
        .shape = {.tokens = 2, .num_experts = 4, .top_k = 2, .num_ranks = 2},
        .num_sources = 2};
    CHECK_OK(ep_route_losses_measure(&input, logits, false, &losses));
    /* as per sequence of two, above: (1.375 + 1.0625) / 2 */
    CHECK_NEAR(value_of(&losses, "megatron"), 1.21875, 1e-6);
    CHECK_NEAR(value_of(&losses, "megatron-seq"), 1.21875, 1e-6);
    /* copies 1.5 1.5 1 0 for both: 4/(2 x 4) of 1.5 + 0.5625 + 0.375 and of 1.125 + 0.5625 + 0.625:
     * (1.21875 + 1.15625) / 2, which is what one batch of all four has */
    CHECK_NEAR(value_of(&losses, "megatron-global"), 1.1875, 1e-6);
    /* first choices 2 0 0 0 and 1 0 1 0: E/T^2 = 1 of 2 x 1 and of 0.75 + 0.625 */
    CHECK_NEAR(value_of(&losses, "switch"), 1.6875, 1e-6);
    CHECK_NEAR(value_of(&losses, "fastmoe-gshard"), 1.6875 / 4, 1e-6); /* two workers */
    assert_true(isnan(value_of(&losses, "fastmoe-switch")));
    assert_true(isnan(value_of(&losses, "tutel-load-importance")));
    CHECK_NEAR(losses.z_loss, 0, 1e-12); /* ln of a sum of 1 */
    /* sigmoids of ln(p / (1 - p)) are p: the same shares */
    for (int i = 0; i < 16; i++) {
        logits[i] = logf(probs[i] / (1 - probs[i]));
    }
    CHECK_OK(ep_route_losses_measure(&input, logits, true, &losses));
    CHECK_NEAR(value_of(&losses, "megatron"), 1.21875, 1e-6);
}

static void test_information(void **state)
{
    (void)state;
    const int64_t even[] = {5, 5, 5, 5};
    const int64_t one[] = {0, 7, 0, 0};
    const int64_t uneven[] = {2, 1, 1, 0}; /* 1/2 x 1 + 2 x 1/4 x 2 */
    const int64_t none[] = {0, 0};
    CHECK_NEAR(ep_information_entropy(even, 4), 2, 1e-12);
    CHECK_NEAR(ep_information_entropy(one, 4), 0, 0);
    CHECK_NEAR(ep_information_entropy(uneven, 4), 1.5, 1e-12);
    assert_true(isnan(ep_information_entropy(none, 2)));
    /* One to one: H = 1 bit. (2 - 2 - 2 + 1) / (2 x 8 ln 2) < 0: with noise the estimate is too low
     */
    const int64_t same[] = {4, 0, 0, 4};
    CHECK_NEAR(ep_information_mutual(same, 2, 2).bits, 1, 1e-12);
    CHECK_NEAR(ep_information_mutual(same, 2, 2).bias_bits, -0.0901684400555602, 1e-12);
    /* Independent: rows 1/4 3/4, columns 1/2 1/2; (4 - 2 - 2 + 1) / (2 x 8 ln 2) */
    const int64_t apart[] = {1, 1, 3, 3};
    CHECK_NEAR(ep_information_mutual(apart, 2, 2).bits, 0, 1e-12);
    CHECK_NEAR(ep_information_mutual(apart, 2, 2).bias_bits, 0.0901684400555602, 1e-12);
    assert_true(isnan(ep_information_mutual(none, 1, 2).bits));
}

/* Independent draws have no mutual information: the mean estimate is the stated bias. */
static void test_bias_of_mutual_information(void **state)
{
    (void)state;
    enum { CELLS = 16, DRAWS = 4096, TRIALS = 200 };
    double bits = 0;
    double bias = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        int64_t joint[CELLS * CELLS] = {0};
        struct ep_random random;
        ep_random_init(&random, 1, EP_RANDOM_TEST, (uint64_t)trial);
        for (int i = 0; i < DRAWS; i++) {
            joint[ep_random_below(&random, CELLS * CELLS)]++;
        }
        const struct ep_mutual_information mutual = ep_information_mutual(joint, CELLS, CELLS);
        bits += mutual.bits / TRIALS;
        bias += mutual.bias_bits / TRIALS;
    }
    /* (15 x 15) / (8192 ln 2) = 0.03962 bits where all cells are occupied */
    CHECK_NEAR(bias, 0.03962, 1e-5);
    CHECK_NEAR(bits, bias, 0.05 * bias);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_by_hand),
        cmocka_unit_test(test_sequences_and_micro_batches),
        cmocka_unit_test(test_losses_with_conditions),
        cmocka_unit_test(test_load_importance_by_hand),
        cmocka_unit_test(test_balanced_values),
        cmocka_unit_test(test_gradients_by_hand),
        cmocka_unit_test(test_z_loss_and_bias),
        cmocka_unit_test(test_losses_of_ranks),
        cmocka_unit_test(test_information),
        cmocka_unit_test(test_bias_of_mutual_information),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
