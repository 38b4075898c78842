/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: what is enumerated, memory and bytes of a toy model by hand, conservation over ranks. */
#include "tests/check.h"

#include "kernels/plan.h"
#include "kernels/routing.h"
#include "kernels/traffic.h"

#include <math.h>
#include <string.h>

/* An expert has 3 x 8 x 16 = 384 parameters, a layer 4 of them: 1536, both layers 3072. Shared: 3 x
 * 8 x 8 = 192 a layer. Routers: 8 x 4 = 32 a layer. Rest: 5000 - 3072 - 384 - 64 = 1480, 740 a
 * layer. */
static const struct ep_model toy = {
    .name = "toy",
    .hidden = 8,
    .expert_ffn = 16,
    .num_experts = 4,
    .top_k = 2,
    .num_shared = 1,
    .shared_ffn_total = 8,
    .num_layers = 2,
    .num_moe_layers = 2,
    .gated = true,
    .weight_dtype = "bf16",
    .router = "",
    .source = "",
    .confidence = "",
    .other_claims = "",
    .heads_source = "",
    .published_total_b = 5000e-9,
};

static struct ep_plan_config toy_config(void)
{
    return (struct ep_plan_config){
        .model = &toy,
        .world = 8,
        .tokens = 16,
        .num_microbatches = 1,
        .gpu_memory_bytes = NAN,
        .weights = EP_WEIGHT_BF16,
        .dispatch_dtype = EP_BF16,
        .combine_dtype = EP_BF16,
        .skew = "uniform",
        .seed = 1,
        .num_samples = 1,
    };
}

static const struct ep_plan *find_plan(const struct ep_plan_set *set,
                                       enum ep_plan_convention convention, int64_t ep, int64_t tp,
                                       int64_t dp, int64_t pp, int64_t expert_tp)
{
    for (int64_t i = 0; i < set->num; i++) {
        const struct ep_plan *p = &set->plans[i];
        if (p->convention == convention && p->ep == ep && p->tp == tp && p->dp == dp &&
            p->pp == pp && p->expert_tp == expert_tp) {
            return p;
        }
    }
    return NULL;
}

/* --- enumeration -------------------------------------------------------------------------- */

/* 4 DP x 8 TP x 4 PP x 4 EP = 512. */
static void test_the_product_of_512(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    const struct ep_model *model = NULL;
    struct ep_plan_set set = {0};
    CHECK_OK(ep_models_create(&models));
    CHECK_OK(ep_models_find(models, "mixtral-8x7b", &model));
    struct ep_plan_config c = toy_config();
    c.model = model;
    c.world = 512;
    c.tokens = 4096;
    CHECK_OK(ep_plan_enumerate(&c, &set));
    const struct ep_plan *p = find_plan(&set, EP_PLAN_PRODUCT, 4, 8, 4, 4, 8);
    assert_non_null(p);
    assert_int_equal(p->expert_dp, 4);
    assert_int_equal(p->data_replicas, 16);
    /* 2^9 in 4 ordered factors: C(12, 3) */
    assert_int_equal(set.considered[EP_PLAN_PRODUCT], 220);
    for (int64_t i = 0; i < set.num; i++) {
        p = &set.plans[i];
        assert_int_equal(p->ep * p->expert_tp * p->expert_dp * p->pp, 512);
        assert_int_equal(p->tp * p->data_replicas * p->pp, 512);
        assert_int_equal(model->num_experts % p->ep, 0);
        if (p->convention == EP_PLAN_PRODUCT) {
            assert_int_equal(p->dp * p->tp * p->pp * p->ep, 512);
        } else {
            assert_int_equal(p->dp * p->tp * p->pp, 512);
            assert_int_equal(p->dp % p->ep, 0);
        }
    }
    ep_plan_set_fini(&set);
    ep_models_destroy(models);
}

/* A world of 2. Product: 4 tuples, EP = 2, TP = 2, PP = 2, DP = 2, all valid. Folding: PP 2: 1; PP
 * 1: (TP 1, DP 2) and (TP 2, DP 1), each with (EP, ETP, EDP) = (1,1,2) (1,2,1) (2,1,1): 7 in all.
 * Rejected: TP 1 with ETP 2; TP 2 with EP 2, which does not divide DP 1. */
static void test_a_world_of_two(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    c.world = 2;
    CHECK_OK(ep_plan_enumerate(&c, &set));
    assert_int_equal(set.considered[EP_PLAN_PRODUCT], 4);
    assert_int_equal(set.considered[EP_PLAN_FOLDING], 7);
    assert_int_equal(set.rejected[EP_PLAN_FOLDING][EP_PLAN_RULE_EP_IN_DP], 1);
    assert_int_equal(set.rejected[EP_PLAN_FOLDING][EP_PLAN_RULE_EXPERT_TP], 1);
    assert_int_equal(set.num, 4 + 5);
    /* experts have their own TP: attention cut in two, each expert whole on both ranks */
    assert_non_null(find_plan(&set, EP_PLAN_FOLDING, 1, 2, 1, 1, 1));
    assert_null(find_plan(&set, EP_PLAN_PRODUCT, 1, 2, 1, 1, 1));
    ep_plan_set_fini(&set);
}

/* Each plan that a rule forbids is counted, and nothing gets lost. */
static void test_rejected_are_counted(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    struct ep_model odd = toy;
    odd.num_heads = 2;
    odd.hidden = 12; /* 8 does not divide it */
    odd.expert_ffn = 4;
    odd.dense_ffn = 3;
    c.model = &odd;
    c.world = 64;
    c.tokens = 4;
    CHECK_OK(ep_plan_enumerate(&c, &set));
    for (int v = 0; v < EP_PLAN_NUM_CONVENTIONS; v++) {
        int64_t sum = 0;
        for (int r = 0; r < EP_PLAN_NUM_RULES; r++) {
            sum += set.rejected[v][r];
        }
        for (int64_t i = 0; i < set.num; i++) {
            sum += set.plans[i].convention == (enum ep_plan_convention)v;
        }
        assert_int_equal(sum, set.considered[v]);
    }
    assert_true(set.rejected[EP_PLAN_PRODUCT][EP_PLAN_RULE_EXPERTS] > 0); /* EP 8 of 4 experts */
    assert_true(set.rejected[EP_PLAN_PRODUCT][EP_PLAN_RULE_LAYERS] > 0);  /* PP 4 of 2 layers */
    assert_true(set.rejected[EP_PLAN_PRODUCT][EP_PLAN_RULE_HIDDEN] > 0);
    assert_true(set.rejected[EP_PLAN_PRODUCT][EP_PLAN_RULE_HEADS] > 0);     /* TP 4 of 2 heads */
    assert_true(set.rejected[EP_PLAN_PRODUCT][EP_PLAN_RULE_DENSE_FFN] > 0); /* TP 2 of 3 */
    for (int64_t i = 0; i < set.num; i++) {
        assert_int_equal(set.plans[i].tp, 1); /* all that 3 leaves */
    }
    ep_plan_set_fini(&set);
}

static void test_only_degrees_asked_for(void **state)
{
    (void)state;
    const int64_t ep[] = {2, 4};
    const int64_t tp[] = {2};
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    c.ep = (struct ep_plan_degrees){ep, 2};
    c.tp = (struct ep_plan_degrees){tp, 1};
    CHECK_OK(ep_plan_enumerate(&c, &set));
    assert_true(set.num > 0);
    for (int64_t i = 0; i < set.num; i++) {
        assert_true(set.plans[i].ep == 2 || set.plans[i].ep == 4);
        assert_int_equal(set.plans[i].tp, 2);
    }
    ep_plan_set_fini(&set);
}

/* --- memory ------------------------------------------------------------------------------- */

/* 2 EP x 2 TP x 1 DP x 2 PP of 8 ranks: one layer a stage, 2 experts a rank, cut in two. */
static struct ep_plan toy_plan(void)
{
    return (struct ep_plan){
        .convention = EP_PLAN_PRODUCT,
        .ep = 2,
        .tp = 2,
        .dp = 1,
        .pp = 2,
        .expert_tp = 2,
        .expert_dp = 1,
        .data_replicas = 2,
        .received = {
            .copies = {32, 40, 48}, .mean = 32, .copies_per_token = 2, .kept_fraction = 1}};
}

/* Routed: 1536 / 4 = 384 parameters; shared 192 / 2 = 96; router 32; rest 740 / 2 = 370: 882.
 * A copy: 16 bytes in, 3 x 16 / 2 elements of 2 bytes = 48, 16 out: 80. Buffers: 16 / 2 tokens x
 * top-2 = 16 rows sent, and those received, of 16 + 16 bytes. */
static void test_memory_of_inference(void **state)
{
    (void)state;
    const struct ep_plan_config c = toy_config();
    const struct ep_plan p = toy_plan();
    struct ep_plan_memory m;
    ep_plan_weigh_stage(&c, &p, 0, &m);
    CHECK_NEAR(m.routed, 768, 1e-9);
    CHECK_NEAR(m.shared, 192, 1e-9);
    CHECK_NEAR(m.router, 64, 1e-9);
    CHECK_NEAR(m.rest, 740, 1e-9);
    CHECK_NEAR(m.gradients + m.optimizer + m.other_activations, 0, 0);
    CHECK_NEAR(m.activations[EP_PLAN_MEDIAN], 32 * 80, 1e-9);
    CHECK_NEAR(m.activations[EP_PLAN_WORST], 48 * 80, 1e-9);
    CHECK_NEAR(m.token_buffers[EP_PLAN_P99], (16 + 40) * 32, 1e-9);
    CHECK_NEAR(m.total[EP_PLAN_P99], 768 + 192 + 64 + 740 + 3200 + 1792, 1e-9);
}

/* Gradients 4 x 882; Adam 12 x 882, sharded 12 x (384 / 1 + 498 / 2) = 7596. Stage 0 keeps two of
 * its two micro-batches, stage 1 one. Besides experts a layer keeps 16 tokens x (15 x 8 / 2 + 2 x 3
 * x 8 / 2) = 16 x 84. */
static void test_memory_of_training(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    const struct ep_plan p = toy_plan();
    struct ep_plan_memory m;
    c.training = true;
    c.optimizer = EP_PLAN_ADAM;
    c.num_microbatches = 2;
    ep_plan_weigh_stage(&c, &p, 0, &m);
    CHECK_NEAR(m.gradients, 3528, 1e-9);
    CHECK_NEAR(m.optimizer, 10584, 1e-9);
    CHECK_NEAR(m.activations[EP_PLAN_MEDIAN], 2 * 2560, 1e-9);
    CHECK_NEAR(m.other_activations, 2 * 1344, 1e-9);
    ep_plan_weigh_stage(&c, &p, 1, &m);
    CHECK_NEAR(m.activations[EP_PLAN_MEDIAN], 2560, 1e-9);
    CHECK_NEAR(m.token_buffers[EP_PLAN_MEDIAN], (16 + 32) * 32, 1e-9);
    c.shard_optimizer = true;
    ep_plan_weigh_stage(&c, &p, 0, &m);
    CHECK_NEAR(m.optimizer, 7596, 1e-9);
    /* with recomputation: one layer at work, and 2 inputs of 8 tokens x 16 bytes */
    c.recompute = true;
    ep_plan_weigh_stage(&c, &p, 0, &m);
    CHECK_NEAR(m.activations[EP_PLAN_MEDIAN], 2560, 1e-9);
    CHECK_NEAR(m.other_activations, 1344 + 256, 1e-9);
    /* fp32 weights need no copy in fp32 */
    c.weights = EP_WEIGHT_FP32;
    CHECK_NEAR(ep_plan_optimizer_bytes(&c), 8, 0);
}

static struct ep_capacity_policy megatron(double factor)
{
    const struct ep_capacity_rule *rule = NULL;
    CHECK_OK(ep_capacity_find_rule("megatron", &rule));
    struct ep_capacity_policy policy = ep_capacity_policy_default(rule, 2);
    policy.factor = factor;
    return policy;
}

/* Factor 1.25: ceil(1.25 x 8 x 2 / 4) = 5 rows an expert and source; 4 x 5 sent, 2 experts x 2 x 2
 * sources x 5 received, whatever the routing. */
static void test_memory_by_capacity(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    const struct ep_plan p = toy_plan();
    struct ep_plan_memory m;
    struct ep_capacity_policy policy = megatron(1.25);
    c.capacity = &policy;
    assert_int_equal(ep_plan_capacity(&c, &p), 5);
    ep_plan_weigh_stage(&c, &p, 0, &m);
    CHECK_NEAR(m.token_buffers[EP_PLAN_MEDIAN], (20 + 40) * 32, 1e-9);
    CHECK_NEAR(m.token_buffers[EP_PLAN_WORST], (20 + 40) * 32, 1e-9);
    /* padded, 4 x 5 rows leave a rank in place of 16, half of them to the other */
    double bytes[EP_PLAN_NUM_COLLECTIVES];
    policy.pad = true;
    ep_plan_count_stage_bytes(&c, &p, 0, bytes);
    CHECK_NEAR(bytes[EP_PLAN_DISPATCH], 20 * 16 / 2, 1e-9);
    /* more rows in a step than an int64 holds: 10^15 x 4 experts x 4 10^7 rows */
    policy.factor = 1e7;
    c.num_microbatches = 1000000000000000;
    ep_plan_count_stage_bytes(&c, &p, 0, bytes);
    CHECK_NEAR(bytes[EP_PLAN_DISPATCH], 1e15 * 4 * 4e7 * 16 / 2, 1e11);
}

/* DeepEP's low-latency buffers at T = 128, E = 288, H = 7168: a dispatched message has 16 + 14336
 * bytes, a combined one 4 x 56 + 14336 = 14560; sent and received at most 36,864 of the latter,
 * 536,739,840 bytes; counters 1152, a multiple of 128; everything twice. */
static void test_deepep_buffers(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan p = toy_plan();
    struct ep_plan_memory m;
    struct ep_model wide = toy;
    wide.num_experts = 288;
    wide.hidden = 7168;
    c.model = &wide;
    c.tokens = 256;
    c.buffers = EP_PLAN_BUFFERS_DEEPEP_LL;
    ep_plan_weigh_stage(&c, &p, 0, &m);
    CHECK_NEAR(m.token_buffers[EP_PLAN_WORST], 2 * (2 * 536739840.0 + 1152), 0);
}

/* Over all ranks of all stages every weight is there as often as it is replicated: experts over
 * expert DP, all else over the ranks with other tokens, routers over TP besides. */
static void test_weights_are_conserved(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    CHECK_OK(ep_models_create(&models));
    static const char *const names[] = {"deepseek-v3", "llama4-maverick", "mixtral-8x7b"};
    for (int n = 0; n < 3; n++) {
        const struct ep_model *model = NULL;
        struct ep_plan_set set = {0};
        struct ep_model_params all;
        CHECK_OK(ep_models_find(models, names[n], &model));
        ep_model_count_params(model, &all);
        struct ep_plan_config c = toy_config();
        c.model = model;
        c.world = 96;
        c.tokens = 4096;
        CHECK_OK(ep_plan_enumerate(&c, &set));
        assert_true(set.num > 10);
        for (int64_t i = 0; i < set.num; i++) {
            const struct ep_plan *p = &set.plans[i];
            double routed = 0;
            double shared = 0;
            double router = 0;
            double rest = 0;
            for (int64_t s = 0; s < p->pp; s++) {
                struct ep_plan_memory m;
                ep_plan_weigh_stage(&c, p, s, &m);
                routed += m.routed * (double)(c.world / p->pp) / 2;
                shared += m.shared * (double)(c.world / p->pp) / 2;
                router += m.router * (double)(c.world / p->pp) / 2;
                rest += m.rest * (double)(c.world / p->pp) / 2;
            }
            const double replicas = (double)p->data_replicas;
            CHECK_NEAR(routed / (all.routed * (double)p->expert_dp), 1, 1e-12);
            CHECK_NEAR(shared, all.shared * replicas, 1e-6 * all.shared);
            CHECK_NEAR(router / (all.router * replicas * (double)p->tp), 1, 1e-12);
            CHECK_NEAR(rest / (all.rest * replicas), 1, 1e-12);
        }
        ep_plan_set_fini(&set);
    }
    ep_models_destroy(models);
}

/* --- bytes -------------------------------------------------------------------------------- */

/* A rank has 8 tokens of a layer and sends 16 copies. Dispatch: half of them leave, 8 x 16 bytes.
 * Expert TP: each copy to the one peer, in and out: 16 x 32. TP: attention and the shared expert
 * gather and scatter, 4 x 8 x 16 x 1. PP: the first stage sends 8 x 16, the last nothing. */
static void test_bytes_of_inference(void **state)
{
    (void)state;
    const struct ep_plan_config c = toy_config();
    const struct ep_plan p = toy_plan();
    double bytes[EP_PLAN_NUM_COLLECTIVES];
    ep_plan_count_stage_bytes(&c, &p, 0, bytes);
    CHECK_NEAR(bytes[EP_PLAN_DISPATCH], 128, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_COMBINE], 128, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_EP_BACKWARD], 0, 0);
    CHECK_NEAR(bytes[EP_PLAN_EXPERT_TP], 512, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_TP], 512, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_PP], 128, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_GRAD_EXPERTS] + bytes[EP_PLAN_GRAD_REST], 0, 0);
    ep_plan_count_stage_bytes(&c, &p, 1, bytes);
    CHECK_NEAR(bytes[EP_PLAN_PP], 0, 0);
}

/* Backward: EP and expert TP once more in each direction, with gradients in the combine type; TP
 * twice; PP both ways. Experts are on one replica: no all-reduce. The others, 498 parameters on 2
 * replicas: 2 x 1/2 x 498 x 4; sharded: 1/2 x 498 x (4 + 2). */
static void test_bytes_of_training(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    const struct ep_plan p = toy_plan();
    double bytes[EP_PLAN_NUM_COLLECTIVES];
    c.training = true;
    ep_plan_count_stage_bytes(&c, &p, 1, bytes);
    CHECK_NEAR(bytes[EP_PLAN_DISPATCH], 128, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_EP_BACKWARD], 256, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_EXPERT_TP], 1024, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_TP], 1024, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_PP], 128, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_GRAD_EXPERTS], 0, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_GRAD_REST], 1992, 1e-9);
    c.optimizer = EP_PLAN_ADAM;
    c.shard_optimizer = true;
    ep_plan_count_stage_bytes(&c, &p, 1, bytes);
    CHECK_NEAR(bytes[EP_PLAN_GRAD_REST], 1494, 1e-9);
    /* recomputation goes forward twice */
    c.recompute = true;
    ep_plan_count_stage_bytes(&c, &p, 1, bytes);
    CHECK_NEAR(bytes[EP_PLAN_DISPATCH], 256, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_EP_BACKWARD], 256, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_EXPERT_TP], 1536, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_TP], 1536, 1e-9);
    c.recompute = false;
    /* fp8 rows of 8: 8 + 4 bytes out, bf16 back; 4 micro-batches */
    c.dispatch_dtype = EP_FP8;
    c.num_microbatches = 4;
    ep_plan_count_stage_bytes(&c, &p, 1, bytes);
    CHECK_NEAR(bytes[EP_PLAN_DISPATCH], 4 * 8 * 12, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_COMBINE], 4 * 8 * 16, 1e-9);
    CHECK_NEAR(bytes[EP_PLAN_GRAD_REST], 1494, 1e-9);
}

/* --- received copies ---------------------------------------------------------------------- */

/* top-4 of 4 experts: every rank receives every token once per expert it has, whatever is drawn. */
static void test_received_without_choice(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_model all = toy;
    struct ep_plan_set set = {0};
    all.top_k = 4;
    c.model = &all;
    c.num_samples = 3;
    CHECK_OK(ep_plan_set_make(&c, &set));
    const struct ep_plan *p = find_plan(&set, EP_PLAN_PRODUCT, 2, 2, 1, 2, 2);
    assert_non_null(p); /* 2 x 16 tokens, 2 experts a rank */
    CHECK_NEAR(p->received.copies[EP_PLAN_MEDIAN], 64, 0);
    CHECK_NEAR(p->received.copies[EP_PLAN_WORST], 64, 0);
    CHECK_NEAR(p->received.mean, 64, 0);
    assert_true(isnan(p->received.copies[EP_PLAN_P99])); /* 3 samples have none */
    CHECK_NEAR(p->received.kept_fraction, 1, 0);
    p = find_plan(&set, EP_PLAN_FOLDING, 2, 2, 2, 2, 1);
    assert_non_null(p); /* 2 ranks with 8 tokens each */
    CHECK_NEAR(p->received.copies[EP_PLAN_MEDIAN], 32, 0);
    ep_plan_set_fini(&set);
    /* half of what each source has for an expert: ceil(0.5 x 8 x 4 / 4) = 4 of 8 */
    struct ep_capacity_policy policy = megatron(0.5);
    c.capacity = &policy;
    CHECK_OK(ep_plan_set_make(&c, &set));
    p = find_plan(&set, EP_PLAN_PRODUCT, 2, 2, 1, 2, 2);
    CHECK_NEAR(p->received.copies[EP_PLAN_WORST], 32, 0);
    CHECK_NEAR(p->received.kept_fraction, 0.5, 0);
    ep_plan_set_fini(&set);
    /* padded to twice what comes: rooms of 16 of each of 4 sources for 2 experts */
    policy = megatron(2);
    policy.pad = true;
    CHECK_OK(ep_plan_set_make(&c, &set));
    p = find_plan(&set, EP_PLAN_PRODUCT, 2, 2, 1, 2, 2);
    CHECK_NEAR(p->received.copies[EP_PLAN_WORST], 128, 0);
    CHECK_NEAR(p->received.kept_fraction, 1, 0);
    ep_plan_set_fini(&set);
}

/* The busiest rank of each group, counted anew over the same tokens by the traffic counter. Samples
 * lie one behind the other, as long as the largest group, and each has a seed of its own. */
static void test_received_agrees_with_traffic(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_model wide = toy;
    struct ep_plan_set set = {0};
    wide.num_experts = 16;
    wide.top_k = 3;
    c.model = &wide;
    c.tokens = 64;
    c.skew = "zipf:1.0";
    c.seed = 7;
    c.num_samples = 5;
    CHECK_OK(ep_plan_set_make(&c, &set));
    int64_t most_tokens = 0;
    for (int64_t i = 0; i < set.num; i++) {
        const struct ep_plan *p = &set.plans[i];
        const int64_t tokens = p->ep * p->expert_tp * c.tokens / p->tp;
        most_tokens = tokens > most_tokens ? tokens : most_tokens;
    }
    const struct ep_plan *p = find_plan(&set, EP_PLAN_PRODUCT, 4, 2, 1, 1, 2);
    assert_non_null(p); /* 4 x 64 tokens on 4 ranks of 4 experts, each cut in two */
    double worst = 0;
    for (int64_t s = 0; s < c.num_samples; s++) {
        struct ep_skew *skew = NULL;
        struct ep_placement placement = {0};
        struct ep_token_map map = {0};
        struct ep_router *router = NULL;
        struct ep_traffic traffic = {0};
        struct ep_routing rows = {0};
        int64_t loads[4];
        CHECK_OK(ep_skew_create("zipf:1.0", &skew));
        CHECK_OK(ep_placement_init_contiguous(16, 4, &placement));
        CHECK_OK(ep_token_map_init_equal(4, 2 * most_tokens, &map));
        const struct ep_router_config config = {skew, &placement, &map, 3, 7 + (uint64_t)s};
        CHECK_OK(ep_router_create(&config, &router));
        CHECK_OK(ep_routing_init(256, 16, 3, false, &rows));
        ep_router_generate(router, s * most_tokens, 256, &rows);
        CHECK_OK(ep_traffic_init(&placement, NULL, 1, 3, &traffic));
        CHECK_OK(ep_traffic_add(&traffic, 0, rows.topk_idx, 256));
        ep_traffic_fill_loads(&traffic, loads);
        for (int r = 0; r < 4; r++) {
            worst = (double)loads[r] > worst ? (double)loads[r] : worst;
        }
        ep_traffic_fini(&traffic);
        ep_routing_fini(&rows);
        ep_router_destroy(router);
        ep_token_map_fini(&map);
        ep_placement_fini(&placement);
        ep_skew_destroy(skew);
    }
    CHECK_NEAR(p->received.copies[EP_PLAN_WORST], worst, 0);
    CHECK_NEAR(p->received.mean, 256 * 3 / 4.0, 0);
    ep_plan_set_fini(&set);
}

/* Uniform routing: top-2 of 4 experts goes to 2 - 2 x 1/6 = 5/3 of 2 ranks (both experts are on one
 * in 1 of 3 cases), to 2 of 4. The mean over 50 x 32 tokens of 1 or 2 is within 0.06 (5 sigma). */
static void test_ranks_per_token(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    c.num_samples = 50;
    c.byte_basis = EP_BASIS_RANK;
    CHECK_OK(ep_plan_set_make(&c, &set));
    const struct ep_plan *p = find_plan(&set, EP_PLAN_PRODUCT, 2, 2, 1, 2, 2);
    CHECK_NEAR(p->received.ranks_per_token, 5 / 3.0, 0.06);
    /* 8 tokens, half of their rows leave, of 16 bytes */
    CHECK_NEAR(p->bytes[EP_PLAN_DISPATCH], 8 * p->received.ranks_per_token / 2 * 16, 1e-9);
    p = find_plan(&set, EP_PLAN_PRODUCT, 4, 1, 2, 1, 1);
    CHECK_NEAR(p->received.ranks_per_token, 2, 0);
    p = find_plan(&set, EP_PLAN_PRODUCT, 1, 2, 2, 2, 2);
    CHECK_NEAR(p->received.ranks_per_token, 1, 0);
    ep_plan_set_fini(&set);
    struct ep_capacity_policy policy = megatron(1);
    c.capacity = &policy;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "rank-dedup");
    c.byte_basis = EP_BASIS_NODE;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "no nodes");
}

/* Slots that a skew leaves unused are no copies: not received, not sent. Half of 3,200 slots, 5
 * sigma. */
static void test_unused_slots(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    c.num_samples = 50;
    c.skew = "uniform+masked:0.5";
    CHECK_OK(ep_plan_set_make(&c, &set));
    const struct ep_plan *p = find_plan(&set, EP_PLAN_PRODUCT, 2, 2, 1, 2, 2);
    CHECK_NEAR(p->received.copies_per_token, 1, 0.09);
    CHECK_NEAR(p->received.mean, 16 * p->received.copies_per_token, 1e-9);
    CHECK_NEAR(p->received.kept_fraction, 1, 0);
    CHECK_NEAR(p->bytes[EP_PLAN_DISPATCH], 8 * p->received.copies_per_token / 2 * 16, 1e-9);
    ep_plan_set_fini(&set);
}

/* --- verdicts ----------------------------------------------------------------------------- */

static void test_what_fits(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    CHECK_OK(ep_plan_set_make(&c, &set));
    assert_int_equal(set.plans[0].fits, -1);
    const double first = set.plans[0].memory.total[EP_PLAN_WORST];
    ep_plan_set_fini(&set);

    c.gpu_memory_bytes = first; /* exactly what the first needs */
    CHECK_OK(ep_plan_set_make(&c, &set));
    for (int64_t i = 0; i < set.num; i++) {
        const struct ep_plan *p = &set.plans[i];
        assert_int_equal(p->fits, p->memory.total[EP_PLAN_WORST] <= first);
        if (i > 0 && p->fits == set.plans[i - 1].fits) {
            assert_true(p->bytes_per_token >= set.plans[i - 1].bytes_per_token);
        }
        assert_true(i == 0 || p->fits <= set.plans[i - 1].fits);
        assert_non_null(strstr(p->reason, p->fits ? "at the worst sample" : "over --gpu-memory"));
    }
    ep_plan_set_fini(&set);

    /* without a published total memory is a lower bound: too much is known, enough is not */
    struct ep_model unknown = toy;
    unknown.published_total_b = NAN;
    c.model = &unknown;
    c.gpu_memory_bytes = 1e9;
    CHECK_OK(ep_plan_set_make(&c, &set));
    assert_int_equal(set.plans[0].fits, -1);
    assert_true(set.plans[0].lower_bound);
    assert_true(isnan(set.plans[0].memory.rest));
    ep_plan_set_fini(&set);
    c.gpu_memory_bytes = 1;
    CHECK_OK(ep_plan_set_make(&c, &set));
    assert_int_equal(set.plans[0].fits, 0);
    ep_plan_set_fini(&set);
}

static void test_refused(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_set set = {0};
    struct ep_model dense = toy;
    dense.num_experts = dense.top_k = dense.num_moe_layers = dense.expert_ffn = 0;
    c.model = &dense;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "dense");
    c = toy_config();
    c.world = 0;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "0 ranks");
    c = toy_config();
    c.skew = "hot:2";
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "depends on the ranks");
    c.skew = "zipf:1+source";
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "depends on the ranks");
    c.skew = "trace:sample"; /* 64 experts */
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "64");
    c = toy_config();
    c.optimizer = EP_PLAN_ADAM;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "training");
    c = toy_config();
    struct ep_capacity_policy policy = megatron(1);
    c.capacity = &policy;
    policy.overflow = EP_OVERFLOW_NEXT;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "no --overflow");
    policy.overflow = EP_OVERFLOW_DROP;
    policy.drop = EP_DROP_NONE;
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "dropless");
    policy = megatron(1);
    CHECK_OK(ep_capacity_find_rule("megablocks", &policy.rule));
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "all ranks together");
    c = toy_config();
    c.tokens = INT32_MAX;
    c.num_samples = EP_PLAN_MAX_SAMPLES;
    c.tp = (struct ep_plan_degrees){(const int64_t[]){1}, 1};
    CHECK_FAILS(ep_plan_set_make(&c, &set), EP_EINVAL, "too many");
}

/* --- spread, copied or cut ---------------------------------------------------------------- */

/* 4 ranks: one expert of 4 each, of 3072 x 2 bytes over both layers; all else (384 + 64 + 1480) x 2
 * = 3856. A token sends 2 x 3/4 rows of 16 bytes each way; deduplicated U(4) = 2 with top-2 of 4 on
 * 4 ranks: the same. Cut: 3 peers. */
static void test_strategies(void **state)
{
    (void)state;
    struct ep_plan_config c = toy_config();
    struct ep_plan_strategy s[EP_PLAN_NUM_STRATEGIES];
    ep_plan_compare_strategies(&c, 4, s);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].expert_bytes, 1536, 1e-9);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].weight_bytes, 1536 + 3856, 1e-9);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].dispatch_bytes_per_token, 24, 1e-9);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].dedup_bytes_per_token, 48, 1e-9);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_COPIED].expert_bytes, 6144, 1e-9);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_COPIED].dispatch_bytes_per_token, 0, 0);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_CUT].expert_bytes, 1536, 1e-9);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_CUT].combine_bytes_per_token, 48, 1e-9);
    /* without deduplication both cost the same at k = P */
    ep_plan_compare_strategies(&c, 2, s);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].dispatch_bytes_per_token,
               s[EP_PLAN_EXPERTS_CUT].dispatch_bytes_per_token, 1e-9);
    /* 3 ranks: 2 experts on the fullest; 16 is not cut in 3, and groups are unequal */
    ep_plan_compare_strategies(&c, 3, s);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].expert_bytes, 3072, 1e-9);
    assert_true(isnan(s[EP_PLAN_EXPERTS_SPREAD].dedup_bytes_per_token));
    assert_false(s[EP_PLAN_EXPERTS_CUT].possible);
    /* 8 ranks: two replicas, and one in 4 is at home; 6 cannot be dealt */
    ep_plan_compare_strategies(&c, 8, s);
    CHECK_NEAR(s[EP_PLAN_EXPERTS_SPREAD].dispatch_bytes_per_token, 24, 1e-9);
    ep_plan_compare_strategies(&c, 6, s);
    assert_false(s[EP_PLAN_EXPERTS_SPREAD].possible);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_product_of_512),
        cmocka_unit_test(test_a_world_of_two),
        cmocka_unit_test(test_rejected_are_counted),
        cmocka_unit_test(test_only_degrees_asked_for),
        cmocka_unit_test(test_memory_of_inference),
        cmocka_unit_test(test_memory_of_training),
        cmocka_unit_test(test_memory_by_capacity),
        cmocka_unit_test(test_deepep_buffers),
        cmocka_unit_test(test_weights_are_conserved),
        cmocka_unit_test(test_bytes_of_inference),
        cmocka_unit_test(test_bytes_of_training),
        cmocka_unit_test(test_received_without_choice),
        cmocka_unit_test(test_received_agrees_with_traffic),
        cmocka_unit_test(test_ranks_per_token),
        cmocka_unit_test(test_unused_slots),
        cmocka_unit_test(test_what_fits),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_strategies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
