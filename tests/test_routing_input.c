/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/: skews and traces that must be refused, with the place and what was expected. */
#include "tests/check.h"

#include "kernels/skew.h"
#include "kernels/trace.h"

static void test_bad_skews(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"unifrom", "did you mean 'uniform'"},
        {"gauss", "unknown skew 'gauss'; uniform, zipf:S"},
        {"uniform:1", "takes no parameter"},
        {"uniform:", "takes no parameter"},
        {"zipf", "for example zipf:1.0"},
        {"zipf:x", "'x' is not a number"},
        {"zipf:nan", "not a number"},
        {"zipf:-1", "outside 0 to 20"},
        {"zipf:1:2", "not a number"},
        {"hot", "write hot:R"},
        {"hot:-1", "outside"},
        {"hot:2@", "rank"},
        {"hot:2@-1", "rank"},
        {"hot:2@x", "rank"},
        {"khot:4", "khot:N:F expected"},
        {"khot:0:0.5", "experts N"},
        {"khot:4:1.5", "share F"},
        {"trace", "trace:FILE"},
        {"trace:", "trace:FILE"},
        {"trace:/nonexistent.csv", "/nonexistent.csv"},
        {"", "unknown skew ''"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ep_skew *skew = NULL;
        CHECK_FAILS(ep_skew_create(bad[i].text, &skew), EP_EINVAL, bad[i].says);
        assert_null(skew);
    }
}

static void test_bad_traces(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"", "t.csv: is empty"},
        {"token,e0\n", "t.csv: has no token"},
        {"0,1,2\n", "t.csv:1: header is not token"},
        {"token\n0\n", "t.csv:1: header is not token"},
        {"token,e0,e2\n0,1,2\n", "t.csv:1: header is not token"},
        {"token,e0,e1,w0\n0,1,2,0.5\n", "t.csv:1: header is not token"},
        {"token,e0,layer\n0,1,2\n", "t.csv:1: header is not token"},
        {"token,e0,e1\n0,1\n", "t.csv:2: has 2 fields"},
        {"token,e0,e1\n0,1,2\n1,1,2,3\n", "t.csv:3: has 4 fields"},
        {"token,e0,e1\n0,1,-2\n", "t.csv:2: column 'e1': -2 is outside"},
        {"token,e0,e1\n0,1,x\n", "t.csv:2: column 'e1': 'x' is not a whole number"},
        {"token,e0,e1\n0,1,1.5\n", "t.csv:2: column 'e1'"},
        {"token,e0,e1\n0,1,70000\n", "t.csv:2: column 'e1': 70000 is outside"},
        {"token,e0,e1\n0,3,3\n", "t.csv:2: expert 3 comes twice"},
        {"token,e0,w0\n0,1,nan\n", "t.csv:2: column 'w0': 'nan' is not a number"},
        {"token,e0,w0\n0,1,inf\n", "t.csv:2: column 'w0'"},
        {"token,e0,w0\n0,1,-0.5\n", "t.csv:2: column 'w0': -0.5 is outside"},
        {"token,e0,w0\n0,1,\n", "t.csv:2: column 'w0'"},
        {"token,layer,e0\n0,1,1\n0,2,1\n", "t.csv: has layers 1 and 2; choose one"},
        {"token,e0\n-1,1\n", "t.csv:2: column 'token'"},
        {"token,e0\n0,1\n\n1,1\n", "t.csv:3: has 1 fields"},
    };
    struct ep_trace *trace = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(ep_trace_load_text("t.csv", bad[i].text, strlen(bad[i].text), NULL, &trace),
                    EP_EINVAL, bad[i].says);
        assert_null(trace);
    }
    const char text[] = "token,layer,e0,e1\n0,1,2,2\n0,3,4,5\n1,3,-1,0\n";
    const struct ep_trace_options four = {.num_experts = 4, .layer = 3};
    CHECK_FAILS(ep_trace_load_text("t.csv", text, strlen(text), &four, &trace), EP_EINVAL,
                "t.csv:3: column 'e0': 4 is outside -1 to 3");
    const struct ep_trace_options third = {.layer = 3, .allow_duplicates = true};
    CHECK_OK(ep_trace_load_text("t.csv", text, strlen(text), &third, &trace));
    assert_int_equal(trace->num_tokens, 2);
    assert_int_equal(trace->num_experts, 6);
    assert_int_equal(trace->num_duplicates, 0);
    assert_int_equal(trace->line[1], 4);
    ep_trace_destroy(trace);
    const struct ep_trace_options none = {.layer = 7, .allow_duplicates = true};
    CHECK_FAILS(ep_trace_load_text("t.csv", text, strlen(text), &none, &trace), EP_EINVAL,
                "no token of layer 7");
    CHECK_FAILS(ep_trace_load("/nonexistent.csv", NULL, &trace), EP_EINVAL, "/nonexistent.csv");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_skews),
        cmocka_unit_test(test_bad_traces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
