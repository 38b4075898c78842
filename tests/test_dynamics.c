/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: clustered tokens, the gradients of the small layer, and what its training shows. */
#include "tests/check.h"

#include "base/random.h"
#include "kernels/dynamics.h"
#include "kernels/gate.h"

#include <math.h>
#include <stdlib.h>

static struct ep_dynamics_config make_config(uint64_t seed, const char *loss)
{
    struct ep_dynamics_config c = {
        .clusters = {.num_clusters = 16,
                     .dim = 32,
                     .num_outputs = 8,
                     .sequence_tokens = 8,
                     .common = 0.4,
                     .centre = 0.25,
                     .seed = seed},
        .num_experts = 16,
        .top_k = 1,
        .num_tokens = 256,
        .expert_rate = 1,
        .router_rate = 2,
    };
    CHECK_OK(ep_loss_find(loss, "--aux", &c.aux));
    return c;
}

static void test_normals(void **state)
{
    (void)state;
    enum { NUM = 100001 }; /* odd: half of the last pair is left */
    float *values = malloc((NUM + 1) * sizeof *values);
    assert_non_null(values);
    values[NUM] = 7;
    struct ep_random random;
    ep_random_init(&random, 1, EP_RANDOM_TEST, 0);
    ep_random_normals(&random, 2, values, NUM);
    double moments[5] = {0};
    int64_t beyond = 0;
    for (int i = 0; i < NUM; i++) {
        const double z = (double)values[i] / 2;
        double power = 1;
        for (int m = 1; m <= 4; m++) {
            power *= z;
            moments[m] += power / NUM;
        }
        beyond += fabs(z) > 1.959964;
    }
    assert_true(values[NUM] == 7);
    free(values);
    /* moments 0 1 0 3, standard errors sqrt(1, 2, 15, 96) / sqrt(n) = 0.003 0.0045 0.012 0.031 */
    CHECK_NEAR(moments[1], 0, 0.013);
    CHECK_NEAR(moments[2], 1, 0.018);
    CHECK_NEAR(moments[3], 0, 0.05);
    CHECK_NEAR(moments[4], 3, 0.13);
    CHECK_NEAR((double)beyond / NUM, 0.05, 0.003);
}

static void test_tokens_depend_on_their_index(void **state)
{
    (void)state;
    const struct ep_clusters_config c = make_config(3, "plain").clusters;
    struct ep_clusters *clusters = NULL;
    float x[64 * 32], part[16 * 32], targets[64 * 8], part_targets[16 * 8];
    int32_t labels[64], part_labels[16];
    CHECK_OK(ep_clusters_create(&c, &clusters));
    ep_clusters_fill(clusters, 0, 64, x, targets, labels);
    ep_clusters_fill(clusters, 20, 16, part, part_targets, part_labels); /* amid a sequence */
    assert_memory_equal(&x[20 * 32], part, sizeof part);
    assert_memory_equal(&targets[20 * 8], part_targets, sizeof part_targets);
    assert_memory_equal(&labels[20], part_labels, sizeof part_labels);
    bool several = false;
    for (int t = 0; t < 64; t++) {
        assert_in_range(labels[t], 0, 15);
        assert_int_equal(labels[t], labels[t / 8 * 8]);
        several = several || labels[t] != labels[0];
    }
    assert_true(several);
    ep_clusters_destroy(clusters);
}

/* Shares and popularity: clusters of Zipf 1 over three are drawn 6/11, 3/11, 2/11 of the time, and
 * the variance within a cluster is the share that is neither common nor of the centre. */
static void test_shares_of_tokens(void **state)
{
    (void)state;
    enum { NUM = 30000, DIM = 4 };
    const struct ep_clusters_config config = {.num_clusters = 3,
                                              .dim = DIM,
                                              .num_outputs = 1,
                                              .sequence_tokens = 1,
                                              .common = 0.5,
                                              .centre = 0.3,
                                              .zipf = 1,
                                              .seed = 5};
    struct ep_clusters *clusters = NULL;
    float *x = malloc(NUM * DIM * sizeof *x);
    float *targets = malloc(NUM * sizeof *targets);
    int32_t *labels = malloc(NUM * sizeof *labels);
    assert_true(x != NULL && targets != NULL && labels != NULL);
    CHECK_OK(ep_clusters_create(&config, &clusters));
    ep_clusters_fill(clusters, 0, NUM, x, targets, labels);
    double num[3] = {0}, sum[3][DIM] = {{0}}, target[3] = {0}, squares = 0;
    for (int t = 0; t < NUM; t++) {
        num[labels[t]]++;
        target[labels[t]] += (double)targets[t] * (double)targets[t];
        for (int i = 0; i < DIM; i++) {
            sum[labels[t]][i] += (double)x[t * DIM + i];
        }
    }
    for (int t = 0; t < NUM; t++) {
        for (int i = 0; i < DIM; i++) {
            const double off = (double)x[t * DIM + i] - sum[labels[t]][i] / num[labels[t]];
            squares += off * off;
        }
    }
    CHECK_NEAR(num[0] / NUM, 6.0 / 11, 0.015); /* standard error 0.003 */
    CHECK_NEAR(num[1] / NUM, 3.0 / 11, 0.015);
    CHECK_NEAR(num[2] / NUM, 2.0 / 11, 0.015);
    CHECK_NEAR(squares / (NUM * DIM), 0.2, 0.005);
    for (int c = 0; c < 3; c++) {
        CHECK_NEAR(target[c] / num[c], 1, 0.1); /* sqrt(2 / n) at most: 0.02 */
    }
    ep_clusters_destroy(clusters);
    free(x);
    free(targets);
    free(labels);
}

/* --- gradients against finite differences ----------------------------------------------------- */

static double weighted_loss(struct ep_dynamics *d)
{
    const struct ep_dynamics_config *c = &d->config;
    const double task = ep_dynamics_forward(d, false);
    const struct ep_loss_batch batch = {.routing = &d->routing,
                                        .probs = d->probs,
                                        .sequence_tokens = c->clusters.sequence_tokens,
                                        .num_ranks = 1};
    double aux = 0;
    CHECK_OK(ep_loss_evaluate(c->aux, &batch, &aux));
    return task + c->aux_weight * aux +
           c->z_weight * ep_loss_z(d->logits, c->num_tokens, c->num_experts);
}

/* Central differences, h = 1/64: exact in the experts' matrices, where the loss is quadratic; error
 * of about h^2 = 2e-4 relative in the router, besides rounding of 1e-7 / h. */
static void check_gradient(struct ep_dynamics *d, float *weights, const float *gradient,
                           int64_t num)
{
    const float h = 1.0f / 64;
    double largest = 0;
    for (int64_t i = 0; i < num; i++) {
        largest = fmax(largest, fabs((double)gradient[i]));
    }
    assert_true(largest > 1e-3);
    for (int64_t i = 0; i < num; i++) {
        const float kept = weights[i];
        weights[i] = kept + h;
        const double above = weighted_loss(d);
        weights[i] = kept - h;
        const double below = weighted_loss(d);
        weights[i] = kept;
        CHECK_NEAR((double)gradient[i], (above - below) / (2 * (double)h), 2e-3 * largest);
    }
}

static void check_gradients(enum ep_dynamics_score score, int64_t top_k, const char *loss,
                            double aux_weight, double z_weight)
{
    struct ep_dynamics_config c = make_config(7, loss);
    struct ep_dynamics *d = NULL;
    c.clusters.num_clusters = 3;
    c.clusters.dim = 6;
    c.clusters.num_outputs = 3;
    c.clusters.sequence_tokens = 4;
    c.num_experts = 5;
    c.top_k = top_k;
    c.num_tokens = 24;
    c.score = score;
    c.aux_weight = aux_weight;
    c.z_weight = z_weight;
    c.jitter = 0.2;
    CHECK_OK(ep_dynamics_create(&c, &d));
    for (int64_t i = 0; i < 5 * 6 * 3; i++) {
        d->experts[i] *= 5; /* as after some training: outputs that matter */
    }
    ep_dynamics_load(d, 0);
    ep_dynamics_forward(d, true);
    CHECK_OK(ep_dynamics_backward(d));
    check_gradient(d, d->router, d->router_gradient, 6 * 5);
    check_gradient(d, d->experts, d->expert_gradient, 5 * 6 * 3);
    ep_dynamics_destroy(d);
}

static void test_gradients(void **state)
{
    (void)state;
    for (int score = 0; score < EP_DYNAMICS_NUM_SCORES; score++) {
        for (int64_t top_k = 1; top_k <= 5; top_k += 2) {
            check_gradients((enum ep_dynamics_score)score, top_k, "megatron", 0, 0);
            check_gradients((enum ep_dynamics_score)score, top_k, "megatron-seq", 0.5, 0.1);
            check_gradients((enum ep_dynamics_score)score, top_k, "fairseq", 1, 0);
        }
    }
}

/* The choice and the weights are those of the routers in use. */
static void test_routes_as_the_gates_do(void **state)
{
    (void)state;
    static const struct {
        const char *gate;
        enum ep_dynamics_score score;
        int64_t top_k;
        bool biased;
    } cases[] = {{"softmax", EP_DYNAMICS_SOFTMAX, 1, false},
                 {"softmax-renorm", EP_DYNAMICS_SOFTMAX, 3, false},
                 {"sigmoid", EP_DYNAMICS_SIGMOID, 1, false},
                 {"sigmoid-bias", EP_DYNAMICS_SIGMOID, 3, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ep_dynamics_config c = make_config(2, "megatron");
        struct ep_dynamics *d = NULL;
        struct ep_gate_config config;
        struct ep_gate *gate = NULL;
        struct ep_routing routing;
        c.score = cases[i].score;
        c.top_k = cases[i].top_k;
        CHECK_OK(ep_dynamics_create(&c, &d));
        for (int e = 0; e < 16 && cases[i].biased; e++) {
            d->bias[e] = 0.02f * (float)(e % 5);
        }
        ep_dynamics_load(d, 0);
        ep_dynamics_forward(d, true);
        CHECK_OK(ep_gate_config_parse(cases[i].gate, 16, c.top_k, &config));
        config.bias = cases[i].biased ? d->bias : NULL;
        CHECK_OK(ep_gate_create(&config, &gate));
        CHECK_OK(ep_routing_init(c.num_tokens, 16, c.top_k, true, &routing));
        const struct ep_gate_batch batch = {.num_tokens = c.num_tokens, .logits = d->logits};
        CHECK_OK(ep_gate_route_plain(gate, &batch, &routing));
        for (int64_t slot = 0; slot < c.num_tokens * c.top_k; slot++) {
            assert_int_equal(routing.topk_idx[slot], d->routing.topk_idx[slot]);
            CHECK_NEAR((double)routing.topk_weight[slot], (double)d->routing.topk_weight[slot],
                       1e-5);
        }
        ep_routing_fini(&routing);
        ep_gate_destroy(gate);
        ep_dynamics_destroy(d);
    }
}

/* --- training --------------------------------------------------------------------------------- */

/* Means over the last tenth of the steps. */
struct outcome {
    double task_loss;
    double max_over_mean;
    double mutual_bits; /* bias taken off */
    double idle_experts;
};

static struct outcome train(const struct ep_dynamics_config *config, int64_t num_steps)
{
    struct outcome o = {0};
    struct ep_dynamics *d = NULL;
    struct ep_dynamics_step m;
    const double num = (double)(num_steps / 10);
    CHECK_OK(ep_dynamics_create(config, &d));
    for (int64_t step = 0; step < num_steps; step++) {
        CHECK_OK(ep_dynamics_advance(d, &m));
        assert_int_equal(m.step, step);
        if (step >= num_steps - num_steps / 10) {
            o.task_loss += m.task_loss / num;
            o.max_over_mean += m.max_over_mean / num;
            o.mutual_bits += (m.mutual.bits - m.mutual.bias_bits) / num;
            o.idle_experts += (double)m.idle_experts / num;
        }
    }
    ep_dynamics_destroy(d);
    return o;
}

/* One cluster and one expert is linear regression, and learnt. */
static void test_learns_a_linear_map(void **state)
{
    (void)state;
    struct ep_dynamics_config c = make_config(1, "megatron");
    struct ep_dynamics *d = NULL;
    struct ep_dynamics_step m;
    c.clusters.num_clusters = 1;
    c.num_experts = 1;
    c.num_tokens = 64;
    CHECK_OK(ep_dynamics_create(&c, &d));
    CHECK_OK(ep_dynamics_advance(d, &m));
    CHECK_NEAR(m.task_loss, 1, 0.3); /* outputs of 0.1 against targets of mean square 1 */
    CHECK_NEAR(m.aux_loss, 1, 1e-6);
    CHECK_NEAR(m.max_over_mean, 1, 0);
    CHECK_NEAR(m.entropy_bits, 0, 0);
    CHECK_NEAR(m.mutual.bits, 0, 0);
    assert_int_equal(m.idle_experts, 0);
    assert_int_equal(m.min_tokens, 64);
    assert_int_equal(m.loads[0], 64);
    for (int i = 0; i < 400; i++) {
        CHECK_OK(ep_dynamics_advance(d, &m));
    }
    assert_true(m.task_loss < 1e-3);
    ep_dynamics_destroy(d);
}

/* The same seed gives the same training, another seed another one; loads add up. */
static void test_same_seed_same_training(void **state)
{
    (void)state;
    struct ep_dynamics *runs[3] = {NULL};
    struct ep_dynamics_step m[3];
    for (int i = 0; i < 3; i++) {
        struct ep_dynamics_config c = make_config(i < 2 ? 1 : 2, "megatron-seq");
        c.aux_weight = 0.1;
        c.jitter = 0.01;
        c.num_tokens = 64;
        c.top_k = 3;
        CHECK_OK(ep_dynamics_create(&c, &runs[i]));
    }
    for (int step = 0; step < 20; step++) {
        for (int i = 0; i < 3; i++) {
            CHECK_OK(ep_dynamics_advance(runs[i], &m[i]));
        }
        int64_t sum = 0;
        for (int e = 0; e < 16; e++) {
            sum += m[0].loads[e];
        }
        assert_int_equal(sum, 64 * 3);
        assert_true(m[0].task_loss == m[1].task_loss && m[0].aux_loss == m[1].aux_loss);
        assert_true(m[0].task_loss != m[2].task_loss);
    }
    assert_memory_equal(runs[0]->router, runs[1]->router, 32 * 16 * sizeof(float));
    for (int i = 0; i < 3; i++) {
        ep_dynamics_destroy(runs[i]);
    }
}

/* Too low a weight collapses: few experts, which know little of clusters. Too high a weight forces
 * every sequence to be even: balanced, but again without knowledge of clusters, and a worse task.
 */
static void test_weight_between_collapse_and_uniform(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        static const double weights[] = {0, 0.01, 0.1, 1};
        struct outcome o[4];
        for (int i = 0; i < 4; i++) {
            struct ep_dynamics_config c = make_config(seed, "megatron-seq");
            c.aux_weight = weights[i];
            o[i] = train(&c, 250);
        }
        assert_true(o[0].max_over_mean > 8 && o[0].idle_experts > 4);
        assert_true(o[0].max_over_mean > o[1].max_over_mean);
        assert_true(o[1].max_over_mean > o[2].max_over_mean);
        assert_true(o[2].max_over_mean > o[3].max_over_mean);
        assert_true(o[3].max_over_mean < 1.7 && o[3].idle_experts < 0.5);
        assert_true(o[0].mutual_bits < o[1].mutual_bits && o[1].mutual_bits < o[2].mutual_bits);
        assert_true(o[2].mutual_bits > 1.8 * o[3].mutual_bits);
        assert_true(o[3].task_loss > o[2].task_loss && o[3].task_loss > o[0].task_loss);
    }
}

/* Balance over the whole batch, or by bias, leaves experts their clusters where the same weight per
 * sequence does not. */
static void test_batch_and_bias_keep_specialists(void **state)
{
    (void)state;
    struct ep_dynamics_config c = make_config(1, "megatron-seq");
    const struct outcome neither = train(&c, 250);
    c.bias_rate = 0.01;
    const struct outcome by_bias = train(&c, 250);
    c.bias_rate = 0;
    c.aux_weight = 1;
    const struct outcome by_sequence = train(&c, 250);
    CHECK_OK(ep_loss_find("megatron", "--aux", &c.aux));
    const struct outcome by_batch = train(&c, 250);
    assert_true(by_bias.max_over_mean < neither.max_over_mean / 3);
    assert_true(by_bias.mutual_bits > neither.mutual_bits + 0.5);
    assert_true(by_batch.max_over_mean < 2);
    assert_true(by_batch.mutual_bits > by_sequence.mutual_bits + 0.5);
    assert_true(by_batch.task_loss < by_sequence.task_loss);
}

static void test_refused(void **state)
{
    (void)state;
    struct ep_dynamics *d = NULL;
    struct ep_dynamics_step m;
    struct ep_dynamics_config c = make_config(1, "tutel-load-importance");
    CHECK_FAILS(ep_dynamics_create(&c, &d), EP_EINVAL, "no gradient");
    c = make_config(1, "megatron");
    c.num_tokens = 100;
    CHECK_FAILS(ep_dynamics_create(&c, &d), EP_EINVAL, "whole sequences of 8");
    c.num_tokens = 64;
    c.expert_rate = 100;
    CHECK_OK(ep_dynamics_create(&c, &d));
    enum ep_status status = EP_OK;
    for (int i = 0; i < 100 && status == EP_OK; i++) {
        status = ep_dynamics_advance(d, &m);
    }
    assert_int_equal(status, EP_EINVAL);
    assert_non_null(strstr(ep_error_text(), "diverged at step"));
    ep_dynamics_destroy(d);
    ep_dynamics_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normals),
        cmocka_unit_test(test_tokens_depend_on_their_index),
        cmocka_unit_test(test_shares_of_tokens),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_routes_as_the_gates_do),
        cmocka_unit_test(test_learns_a_linear_map),
        cmocka_unit_test(test_same_seed_same_training),
        cmocka_unit_test(test_weight_between_collapse_and_uniform),
        cmocka_unit_test(test_batch_and_bias_keep_specialists),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
