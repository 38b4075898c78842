/* SPDX-License-Identifier: Apache-2.0 */
/* The model zoo: its numbers hang together, users' files are read strictly, sizes by hand. */
#include "tests/check.h"

#include "base/file.h"
#include "kernels/model_options.h"
#include "kernels/model_report.h"
#include "kernels/model_sizes.h"
#include "kernels/models.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct ep_model *find(const struct ep_models *models, const char *name)
{
    const struct ep_model *model = NULL;
    CHECK_OK(ep_models_find_any(models, name, &model));
    return model;
}

/* Half a unit of the last digit that the table prints: two decimals in 1e9. */
static void test_routed_parameters_are_the_tables(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    CHECK_OK(ep_models_create(&models));
    assert_int_equal(models->num, 32);
    for (int64_t i = 0; i < models->num; i++) {
        const struct ep_model *m = &models->models[i];
        struct ep_model_params p;
        ep_model_count_params(m, &p);
        CHECK_NEAR(p.routed / 1e9, m->routed_expert_b, 0.005 + 1e-9);
        CHECK_NEAR(p.routed_active / 1e9, m->active_routed_b, 0.0005 + 1e-9);
    }
    ep_models_destroy(models);
}

/* deepseek-v3: an expert is 3 x 7168 x 2048 = 44,040,192; 58 layers x 256 of them =
 * 653,908,770,816; 8 of 256 = 20,434,649,088; one shared expert per layer 2,554,331,136; routers 58
 * x 7168 x 256 = 106,430,464; what is left of 671e9 is 14,430,467,584. */
static void test_parameters_by_hand(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    struct ep_model_params p;
    CHECK_OK(ep_models_create(&models));
    ep_model_count_params(find(models, "deepseek-v3"), &p);
    CHECK_NEAR(p.expert, 44040192, 0);
    CHECK_NEAR(p.routed, 653908770816, 0);
    CHECK_NEAR(p.routed_active, 20434649088, 0);
    CHECK_NEAR(p.shared, 2554331136, 0);
    CHECK_NEAR(p.router, 106430464, 0);
    CHECK_NEAR(p.rest, 14430467584, 0.01);
    /* two matrices, not three, and a total that is rounded below its own experts */
    ep_model_count_params(find(models, "switch-base-128"), &p);
    CHECK_NEAR(p.expert, 2 * 768 * 3072, 0);
    assert_true(isnan(p.rest));
    assert_non_null(strstr(p.rest_unknown, "below"));
    ep_model_count_params(find(models, "glm-5"), &p);
    assert_true(isnan(p.rest));
    assert_non_null(strstr(p.rest_unknown, "no total"));
    ep_model_count_params(find(models, "llama-2-70b"), &p);
    CHECK_NEAR(p.routed, 0, 0);
    CHECK_NEAR(p.rest, 68.98e9, 1);
    ep_models_destroy(models);
}

static void test_dense_and_rumoured(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    const struct ep_model *model = NULL;
    CHECK_OK(ep_models_create(&models));
    CHECK_FAILS(ep_models_find(models, "llama-2-70b", &model), EP_EINVAL, "dense");
    assert_true(ep_model_is_dense(find(models, "llama-2-70b")));
    assert_true(ep_model_is_rumour(find(models, "gpt4-rumored")));
    assert_false(ep_model_is_rumour(find(models, "deepseek-v3")));
    CHECK_FAILS(ep_models_find_any(models, "llama-2-7b", &model), EP_EINVAL, "'llama-2-70b'");
    ep_models_destroy(models);
}

/* deepseek-v3: 3 dense layers, then 58. llama4-maverick: every second of 48. */
static void test_where_moe_layers_are(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    CHECK_OK(ep_models_create(&models));
    const struct ep_model *v3 = find(models, "deepseek-v3");
    assert_int_equal(ep_model_count_moe_layers(v3, 0, 3), 0);
    assert_int_equal(ep_model_count_moe_layers(v3, 2, 5), 2);
    assert_int_equal(ep_model_count_moe_layers(v3, 0, 61), 58);
    const struct ep_model *maverick = find(models, "llama4-maverick");
    assert_int_equal(ep_model_count_moe_layers(maverick, 0, 1), 0);
    assert_int_equal(ep_model_count_moe_layers(maverick, 1, 4), 2);
    assert_int_equal(ep_model_count_moe_layers(find(models, "llama-2-70b"), 0, 80), 0);
    for (int64_t i = 0; i < models->num; i++) { /* every layer once */
        const struct ep_model *m = &models->models[i];
        int64_t sum = 0;
        for (int64_t l = 0; l < m->num_layers; l++) {
            sum += ep_model_count_moe_layers(m, l, l + 1);
        }
        assert_int_equal(sum, m->num_moe_layers);
    }
    ep_models_destroy(models);
}

static void test_weight_types(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    const char *note = NULL;
    enum ep_weight_type type;
    CHECK_OK(ep_models_create(&models));
    assert_int_equal(ep_weight_type_of_model(find(models, "gpt-oss-20b"), &note), EP_WEIGHT_MXFP4);
    assert_null(note);
    assert_int_equal(ep_weight_type_of_model(find(models, "minimax-m2"), &note), EP_WEIGHT_FP8);
    assert_non_null(strstr(note, "the first"));
    assert_int_equal(ep_weight_type_of_model(find(models, "glm-5"), &note), EP_WEIGHT_BF16);
    assert_non_null(strstr(note, "not known"));
    CHECK_NEAR(ep_weight_type_expert_bytes(EP_WEIGHT_MXFP4), 17.0 / 32, 0); /* 16 + 1 bytes of 32 */
    CHECK_NEAR(ep_weight_type_expert_bytes(EP_WEIGHT_FP8), 16388.0 / 16384, 1e-15);
    CHECK_NEAR(ep_weight_type_rest_bytes(EP_WEIGHT_FP8), 2, 0);
    CHECK_FAILS(ep_weight_type_parse("fp9", "--weight-dtype", &type), EP_EINVAL, "did you mean fp");
    CHECK_FAILS(ep_weight_type_parse("quarter", "--weight-dtype", &type), EP_EINVAL, "mxfp4");
    ep_models_destroy(models);
}

/* 64 experts on 8 ranks: 8 each, an eighth of the weights; on 10 ranks floor(7 x 64/10) = 44,
 * floor(8 x 64/10) = 51: 7 on the fullest. */
static void test_weights_per_rank(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    int64_t local = 0;
    CHECK_OK(ep_models_create(&models));
    const struct ep_model *olmoe = find(models, "olmoe-1b-7b");
    CHECK_OK(ep_model_max_local_experts(olmoe, 8, &local));
    assert_int_equal(local, 8);
    CHECK_OK(ep_model_max_local_experts(olmoe, 10, &local));
    assert_int_equal(local, 7);
    CHECK_OK(ep_model_max_local_experts(olmoe, 128, &local));
    assert_int_equal(local, 1);
    CHECK_FAILS(ep_model_max_local_experts(olmoe, 100, &local), EP_EINVAL, "100");

    json_t *json = NULL;
    CHECK_OK(ep_model_report_json(olmoe, 8, &json));
    const json_t *derived = json_object_get(json, "derived");
    CHECK_NEAR(json_number_value(json_object_get(derived, "weights_fraction_per_rank")), 0.125, 0);
    /* 8 experts x 16 layers x 3 x 2048 x 1024 parameters x 2 bytes = 1.5 GiB */
    CHECK_NEAR(json_number_value(json_object_get(derived, "expert_weight_bytes_per_rank")),
               1610612736, 0);
    CHECK_NEAR(json_number_value(json_object_get(derived, "compute_fraction")), 0.125, 0);
    json_decref(json);
    ep_models_destroy(models);
}

/* --- files -------------------------------------------------------------------------------- */

static char path[512];

static const char *write_file(const char *text)
{
    CHECK_OK(ep_file_write(path, text, strlen(text)));
    return path;
}

#define HEADER "name,hidden,expert_ffn,n_routed,top_k,n_layers,n_moe_layers,gated"

static void test_user_files(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    CHECK_OK(ep_models_load(write_file(HEADER ",published_total_B\nmine,8,16,4,2,3,2,1,0.5\n"
                                              "other,8,16,4,2,3,3,0,\n"),
                            &models));
    assert_int_equal(models->num, 2);
    struct ep_model_params p;
    ep_model_count_params(find(models, "mine"), &p);
    CHECK_NEAR(p.routed, 2 * 4 * 3 * 8 * 16, 0);
    CHECK_NEAR(p.total, 5e8, 0);
    assert_true(isnan(find(models, "other")->published_total_b));
    assert_string_equal(find(models, "other")->source, "");
    ep_models_destroy(models);

    CHECK_OK(
        ep_models_load(write_file("{\"name\":\"j\",\"hidden\":8,\"expert_ffn\":16,\"n_routed\":4,"
                                  "\"top_k\":2,\"n_layers\":3,\"n_moe_layers\":2,\"gated\":true,"
                                  "\"route_scale\":null}"),
                       &models));
    ep_model_count_params(find(models, "j"), &p);
    CHECK_NEAR(p.routed, 2 * 4 * 3 * 8 * 16, 0);
    assert_true(isnan(find(models, "j")->route_scale));
    ep_models_destroy(models);
}

/* What `epbench models --json` writes can be read again, and says the same. */
static void test_json_round_trip(void **state)
{
    (void)state;
    struct ep_models *zoo = NULL;
    struct ep_models *again = NULL;
    CHECK_OK(ep_models_create(&zoo));
    json_t *list = json_array();
    for (int64_t i = 0; i < zoo->num; i++) {
        json_t *one = NULL;
        CHECK_OK(ep_model_report_json(&zoo->models[i], 0, &one));
        json_array_append_new(list, one);
    }
    char *text = json_dumps(list, JSON_REAL_PRECISION(17));
    CHECK_OK(ep_models_load(write_file(text), &again));
    assert_int_equal(again->num, zoo->num);
    for (int64_t i = 0; i < zoo->num; i++) {
        json_t *one = NULL;
        CHECK_OK(ep_model_report_json(&again->models[i], 0, &one));
        assert_true(json_equal(one, json_array_get(list, (size_t)i)));
        json_decref(one);
    }
    free(text);
    json_decref(list);
    ep_models_destroy(again);
    ep_models_destroy(zoo);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "is empty"},
        {HEADER "\n", "has no model"},
        {"name,hidden\na,1\n", ":1: column 'expert_ffn' is missing"},
        {HEADER ",topk\nmine,8,16,4,2,3,2,1,2\n", ":1: unknown column 'topk'; did you mean"},
        {HEADER ",top_k\nmine,8,16,4,2,3,2,1,2\n", "comes twice"},
        {HEADER "\nmine,0,16,4,2,3,2,1\n", ":2: column 'hidden'"},
        {HEADER "\nmine,8,16,4,5,3,2,1\n", ":2: top_k 5 is above n_routed 4"},
        {HEADER "\nmine,8,16,4,2,3,4,1\n", ":2: n_moe_layers 4 is above n_layers 3"},
        {HEADER "\nmine,8,16,0,2,3,2,1\n", ":2: n_routed, top_k"},
        {HEADER "\nmine,8,16,4,2,3,2,2\n", ":2: column 'gated'"},
        {HEADER "\nmine,8,16,4,2,3,2,1\nmine,8,16,4,2,3,2,1\n", ":3: model 'mine' comes twice"},
        {HEADER "\nmine,8,16,4,2,3,2\n", ":2: has 7 fields"},
        {HEADER "\n,8,16,4,2,3,2,1\n", ":2: the name is empty"},
        {HEADER ",n_shared\nmine,8,16,4,2,3,2,1,1\n", ":2: n_shared and shared_ffn_total"},
        {HEADER ",n_group\nmine,8,16,4,2,3,2,1,3\n", ":2: n_group 3 does not divide n_routed 4"},
        {HEADER ",topk_group\nmine,8,16,4,2,3,2,1,3\n", ":2: topk_group"},
        {HEADER ",routed_expert_params_B\nmine,8,16,4,2,3,2,1,7\n",
         ":2: routed_expert_params_B is 7"},
        {"{", ":1: is not valid JSON"},
        {"[]", "has no model"},
        {"[3]", "model 1: an object was expected"},
        {"{\"name\":\"x\"}", "model 1: key 'hidden' is missing"},
        {"{\"name\":\"x\",\"hiden\":3}", "model 1: unknown column 'hiden'; did you mean 'hidden'"},
        {"{\"name\":\"x\",\"hidden\":\"8\"}", "model 1: 'hidden' must be a whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ep_models *models = NULL;
        CHECK_FAILS(ep_models_load(write_file(cases[i].text), &models), EP_EINVAL,
                    cases[i].message);
        assert_null(models);
    }
}

/* --- options ------------------------------------------------------------------------------ */

static void test_own_model_by_options(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    struct ep_model model;
    struct ep_model_options o = EP_MODEL_OPTIONS_NONE;
    CHECK_FAILS(ep_model_options_resolve(&o, &models, &model), EP_EINVAL, "--experts is missing");
    o.num_experts = 4;
    o.top_k = 2;
    o.hidden = 8;
    o.expert_ffn = 16;
    CHECK_FAILS(ep_model_options_resolve(&o, &models, &model), EP_EINVAL, "--layers is missing");
    o.num_layers = 3;
    CHECK_OK(ep_model_options_resolve(&o, &models, &model));
    assert_int_equal(model.num_moe_layers, 3);
    assert_true(model.gated);
    assert_int_equal(model.num_shared, 0);
    o.gated = 0;
    o.num_shared = 2;
    CHECK_OK(ep_model_options_resolve(&o, &models, &model));
    assert_false(model.gated);
    assert_int_equal(model.shared_ffn_total, 32);
    o.top_k = 5;
    CHECK_FAILS(ep_model_options_resolve(&o, &models, &model), EP_EINVAL, "top_k 5");
}

static void test_changed_model(void **state)
{
    (void)state;
    struct ep_models *models = NULL;
    struct ep_model model;
    struct ep_model_options o = EP_MODEL_OPTIONS_NONE;
    o.name = "deepseek-v3";
    CHECK_OK(ep_model_options_resolve(&o, &models, &model));
    CHECK_NEAR(model.published_total_b, 671, 0);
    ep_models_destroy(models);
    o.num_heads = 64; /* no shape of experts: the published totals stay */
    CHECK_OK(ep_model_options_resolve(&o, &models, &model));
    CHECK_NEAR(model.published_total_b, 671, 0);
    assert_int_equal(model.num_heads, 64);
    ep_models_destroy(models);
    o.num_experts = 128;
    CHECK_OK(ep_model_options_resolve(&o, &models, &model));
    assert_int_equal(model.num_moe_layers, 58);
    assert_true(isnan(model.published_total_b));
    assert_int_equal(model.num_groups, 0);
    ep_models_destroy(models);
    o.total_params = 345e9;
    CHECK_OK(ep_model_options_resolve(&o, &models, &model));
    CHECK_NEAR(model.published_total_b, 345, 1e-9);
    ep_models_destroy(models);
    o.name = "llama-2-70b";
    CHECK_FAILS(ep_model_options_resolve(&o, &models, &model), EP_EINVAL, "dense");
    o.name = "deepseek-v33";
    CHECK_FAILS(ep_model_options_resolve(&o, &models, &model), EP_EINVAL, "'deepseek-v3'");
    o = EP_MODEL_OPTIONS_NONE;
    o.file = write_file(HEADER "\na,8,16,4,2,3,2,1\nb,8,16,4,2,3,2,1\n");
    CHECK_FAILS(ep_model_options_resolve(&o, &models, &model), EP_EINVAL, "has 2 models; --model");
}

int main(void)
{
    const char *directory = getenv("EPBENCH_TEST_DIR");
    snprintf(path, sizeof path, "%s/models_%d", directory != NULL ? directory : "/tmp",
             (int)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routed_parameters_are_the_tables),
        cmocka_unit_test(test_parameters_by_hand),
        cmocka_unit_test(test_dense_and_rumoured),
        cmocka_unit_test(test_where_moe_layers_are),
        cmocka_unit_test(test_weight_types),
        cmocka_unit_test(test_weights_per_rank),
        cmocka_unit_test(test_user_files),
        cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_own_model_by_options),
        cmocka_unit_test(test_changed_model),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove(path);
    return failed;
}
