/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: a case of epbench route from each kind of source; run under AddressSanitizer for leaks.
 */
#include "tests/check.h"

#include "kernels/route_mode.h"

#include <stdlib.h>
#include <string.h>

static struct ep_route_options make_options(const char *skew)
{
    struct ep_route_options o = EP_ROUTE_OPTIONS_NONE;
    o.skew = skew;
    o.num_experts = 8;
    o.top_k = 2;
    o.num_ranks = 4;
    o.ranks_per_node = 2;
    o.tokens = 100;
    return o;
}

/* Skews, a router on logits, a capacity: copies are conserved, and all is freed. */
static void test_sources(void **state)
{
    (void)state;
    static const struct {
        const char *skew;
        const char *router;
        bool with_capacity;
    } cases[] = {{"uniform", NULL, false},
                 {"zipf:1", NULL, true},
                 {"hot:2@1", NULL, false},
                 {"khot:2:0.5", NULL, true},
                 {"zipf:1", "softmax-renorm", false},
                 {"uniform", "sigmoid-bias", true},
                 {"zipf:1", "expert-choice", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ep_route_options o = make_options(cases[i].skew);
        struct ep_route_case route;
        struct ep_capacity_policy policy;
        o.capacity.router = cases[i].router;
        if (cases[i].with_capacity) {
            CHECK_OK(ep_capacity_find_rule("tutel", &o.capacity.rule));
            CHECK_OK(ep_capacity_options_policy(&o.capacity, 2, 1, &policy));
        }
        CHECK_OK(ep_route_case_init(&o, &route));
        assert_int_equal(route.num_tokens, 400);
        assert_int_equal(route.rows[EP_BASIS_COPIES].total, 800);
        assert_int_equal(route.plain.local_tokens + route.plain.remote_tokens, 800);
        assert_true((route.gate != NULL) == (cases[i].router != NULL));
        assert_true((route.capacity != NULL) == cases[i].with_capacity);
        assert_true(route.rows[EP_BASIS_NODE].total <= route.rows[EP_BASIS_RANK].total);
        assert_true(route.rows[EP_BASIS_RANK].total <= route.rows[EP_BASIS_COPIES].total);
        ep_route_case_fini(&route);
    }
}

/* 400 tokens x 2 copies on 8 experts are 100 each at an even load: 200 wanted, 800 tokens. */
static void test_warns_of_few_tokens(void **state)
{
    (void)state;
    struct ep_route_options o = make_options("zipf:1");
    struct ep_route_case route;
    o.min_tokens = 200;
    CHECK_OK(ep_route_case_init(&o, &route));
    assert_int_equal(route.num_warnings, 1);
    assert_non_null(strstr(route.warnings[0], "get fewer than 200 tokens per step"));
    assert_non_null(strstr(route.warnings[0], "800 at an even one"));
    ep_route_case_fini(&route);
    o.min_tokens = 1;
    CHECK_OK(ep_route_case_init(&o, &route));
    assert_int_equal(route.num_warnings, 0);
    ep_route_case_fini(&route);
}

/* What is refused is freed, too. */
static void test_refused(void **state)
{
    (void)state;
    struct ep_route_case route;
    struct ep_route_options o = make_options("hot:2@1");
    o.capacity.router = "softmax";
    CHECK_FAILS(ep_route_case_init(&o, &route), EP_EINVAL, "wants logits");
    o = make_options("uniform");
    o.ranks_per_node = 3;
    CHECK_FAILS(ep_route_case_init(&o, &route), EP_EINVAL, "does not divide 4 ranks");
    o = make_options("uniform");
    o.top_k = 9;
    CHECK_FAILS(ep_route_case_init(&o, &route), EP_EINVAL, "8 experts");
}

/* The table of names says what the parser takes, option by option; no name is there twice. */
static void test_tables(void **state)
{
    (void)state;
    int num = 0;
    for (const struct argp_option *o = ep_route_argp.options; o->name != NULL || o->doc != NULL;
         o++) {
        if (o->name == NULL || (o->flags & OPTION_ALIAS) != 0) {
            continue;
        }
        const char *name = ep_route_option_name((enum ep_route_option)(o->key - 256));
        assert_string_equal(name + 2, o->name);
        num++;
    }
    assert_int_equal(num, EP_ROUTE_CAPACITY); /* all but what stands for the child's */
    for (int i = 0; ep_route_mode_get(i) != NULL; i++) {
        const struct ep_route_mode *mode = ep_route_mode_get(i);
        const struct argp_option *o = mode->argp->options;
        while (o->name == NULL || strcmp(o->name, mode->name + 2) != 0) {
            assert_true(o->name != NULL ||
                        o->doc != NULL); /* a mode has the option it is named for */
            o++;
        }
        char *nothing = calloc(1, mode->options_size);
        assert_false(mode->asked(nothing));
        free(nothing);
    }
    for (int i = 0; ep_route_section_get(i) != NULL; i++) {
        assert_true(ep_route_section_get(i)->options_size > 0);
        assert_non_null(ep_route_section_get(i)->make);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_warns_of_few_tokens),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
