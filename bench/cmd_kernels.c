/* SPDX-License-Identifier: Apache-2.0 */
/* epbench kernels: expert GEMMs, FFNs, permute, copies, measured peaks, through Google Benchmark. */
#include "base/json.h"
#include "base/options.h"
#include "base/units.h"
#include "bench/gbench_shim.h"
#include "bench/kernels_cases.h"
#include "bench/kernels_ffn.h"
#include "bench/kernels_gate.h"
#include "bench/kernels_suite.h"
#include "bench/kernels_table.h"
#include "bench/session.h"
#include "bench/version.h"
#include "kernels/gemm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_cmd_kernels(int argc, char **argv);

enum {
    KEY_MODEL = 2000,
    KEY_MODEL_FILE,
    KEY_TOKENS,
    KEY_HIDDEN,
    KEY_FFN,
    KEY_PLAIN,
    KEY_DTYPE,
    KEY_BACKENDS,
    KEY_TABLE,
    KEY_GATE_TABLE,
    KEY_FFN_TABLE,
    KEY_ROW_TIME,
    KEY_MIN_SAMPLES,
    KEY_JSON,
    KEY_SUITE
};

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "NAME,...", 0,
     "expert shapes from the model zoo (default deepseek-v3; with --gemm-table also mixtral-8x7b, "
     "with --ffn-table also deepseek-v2-lite and qwen3-30b-a3b)",
     1},
    {"models", 0, NULL, OPTION_ALIAS, NULL, 1},
    {"model-file", KEY_MODEL_FILE, "FILE", 0, "models of your own, in place of the zoo", 1},
    {"hidden", KEY_HIDDEN, "N", 0, "with --ffn: one custom expert in place of models", 1},
    {"ffn", KEY_FFN, "N", 0, "inner width of the custom expert (SwiGLU)", 1},
    {"plain", KEY_PLAIN, NULL, 0, "the custom expert has no gate (ReLU)", 1},
    {"tokens", KEY_TOKENS, "N,...", 0, "tokens per expert", 1},
    {"dtype", KEY_DTYPE, "TYPE,...", 0, "fp32, bf16 (default both)", 1},
    {"backends", KEY_BACKENDS, "NAME,...", 0,
     "GEMM back ends: default, native, native2, native3, onednn, cblas, ref", 1},
    {"gemm-table", KEY_TABLE, NULL, 0,
     "compare back ends under measured peaks, interleaved, on all ranks at once", 2},
    {"gate-table", KEY_GATE_TABLE, NULL, 0,
     "time routers on cold logits against one read of them, interleaved, on all ranks at once", 2},
    {"ffn-table", KEY_FFN_TABLE, NULL, 0,
     "time grouped expert FFNs against their GEMMs one by one and against reading their weights, "
     "interleaved, on all ranks at once", 2},
    {"suite", KEY_SUITE, "quick|standard", 0,
     "what `epbench run` measures: peaks, streams and the comparison", 2},
    {"row-time", KEY_ROW_TIME, "TIME", 0, "time for a row of the table (default 800ms)", 2},
    {"min-samples", KEY_MIN_SAMPLES, "N", 0, "samples of a row at least (default 5)", 2},
    {"json", KEY_JSON, "FILE", 0, "write the table's rows as JSON (- = standard output)", 2},
    {0},
};

struct input {
    struct ep_session_options session;
    struct ep_kernels_grid grid;
    struct ep_list models, tokens, dtypes, backends;
    struct ep_kernels_shape shapes[EP_KERNELS_MAX_LIST];
    int64_t token_values[EP_KERNELS_MAX_LIST];
    enum ep_dtype dtype_values[EP_KERNELS_MAX_LIST];
    int64_t hidden, ffn;
    bool plain, table, gate_table, ffn_table;
    const char *model_file; /* NULL = the zoo */
    const char *json;
    const char *suite; /* NULL, "quick", "standard" */
};

static enum ep_status split(const char *text, const char *what, struct ep_list *list)
{
    ep_list_fini(list);
    *list = (struct ep_list){0};
    const enum ep_status status = ep_list_split(text, ',', what, list);
    if (status == EP_OK && list->num > EP_KERNELS_MAX_LIST) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " items, at most %d", what, list->num,
                            (int)EP_KERNELS_MAX_LIST);
    }
    return status;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *input = state->input;
    enum ep_status status = EP_OK;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &input->session;
        break;
    case KEY_MODEL:
        status = split(arg, "--model", &input->models);
        break;
    case KEY_MODEL_FILE:
        input->model_file = arg;
        break;
    case KEY_TOKENS:
        status = split(arg, "--tokens", &input->tokens);
        break;
    case KEY_HIDDEN:
        status = ep_parse_i64(arg, "--hidden", 1, 1 << 20, &input->hidden);
        break;
    case KEY_FFN:
        status = ep_parse_i64(arg, "--ffn", 1, 1 << 20, &input->ffn);
        break;
    case KEY_PLAIN:
        input->plain = true;
        break;
    case KEY_DTYPE:
        status = split(arg, "--dtype", &input->dtypes);
        break;
    case KEY_BACKENDS:
        status = split(arg, "--backends", &input->backends);
        break;
    case KEY_TABLE:
        input->table = true;
        break;
    case KEY_GATE_TABLE:
        input->gate_table = true;
        break;
    case KEY_FFN_TABLE:
        input->ffn_table = true;
        break;
    case KEY_ROW_TIME:
        status = ep_parse_time(arg, "--row-time", &input->grid.row_budget_s);
        break;
    case KEY_MIN_SAMPLES:
        status = ep_parse_i64(arg, "--min-samples", 3, EP_KERNELS_MAX_SAMPLES, &input->grid.min_samples);
        break;
    case KEY_SUITE:
        input->suite = arg;
        if (strcmp(arg, "quick") != 0 && strcmp(arg, "standard") != 0) {
            status = ep_error_set(EP_EINVAL, "--suite: '%s' is not quick or standard", arg);
        }
        break;
    case KEY_JSON:
        input->json = arg;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return status == EP_OK ? 0 : EINVAL;
}

static enum ep_status choose_shapes(struct input *input)
{
    enum ep_status status = EP_OK;
    static const char *const defaults[] = {"deepseek-v3", "mixtral-8x7b", "deepseek-v2-lite",
                                           "qwen3-30b-a3b"};
    const int64_t num_defaults = input->ffn_table ? 4 : input->table ? 2 : 1;
    const int64_t num = input->models.num > 0 ? input->models.num : num_defaults;
    input->grid.shapes = input->shapes;
    if ((input->hidden > 0) != (input->ffn > 0) || (input->plain && input->ffn == 0)) {
        return ep_error_set(EP_EINVAL, "a custom expert needs both --hidden and --ffn");
    }
    if (input->model_file != NULL && input->models.num == 0) {
        return ep_error_set(EP_EINVAL, "--model-file needs --model: whose experts");
    }
    if (input->hidden > 0) {
        if (input->models.num > 0) {
            return ep_error_set(EP_EINVAL, "--model and --hidden: give one of them");
        }
        input->shapes[0] = (struct ep_kernels_shape){.model = "custom",
                                                     .hidden = input->hidden,
                                                     .ffn = input->ffn,
                                                     .gated = !input->plain,
                                                     .num_experts = 8,
                                                     .top_k = 2};
        input->grid.num_shapes = 1;
        return EP_OK;
    }
    for (int64_t i = 0; i < num; i++) {
        const char *name = input->models.num > 0 ? input->models.items[i] : defaults[i];
        EP_TRY(ep_kernels_shape_of_model(input->model_file, name, &input->shapes[i]));
    }
    input->grid.num_shapes = num;
out:
    return status;
}

static enum ep_status choose_grid(struct input *input)
{
    enum ep_status status = EP_OK;
    static const int64_t few_tokens[] = {1, 8, 64};
    static const int64_t ffn_tokens[] = {1, 2, 4, 8, 32, 128};
    static const char *const ffn_backends[] = {"default"};
    struct ep_kernels_grid *grid = &input->grid;
    EP_TRY(choose_shapes(input));
    if (input->ffn_table) {
        grid->tokens = ffn_tokens;
        grid->num_tokens = sizeof ffn_tokens / sizeof *ffn_tokens;
        grid->backends = ffn_backends;
        grid->num_backends = 1;
    } else if (!input->table) {
        grid->tokens = few_tokens;
        grid->num_tokens = sizeof few_tokens / sizeof *few_tokens;
    }
    for (int64_t i = 0; i < input->tokens.num; i++) {
        EP_TRY(ep_parse_i64(input->tokens.items[i], "--tokens", 1, 1 << 20,
                            &input->token_values[i]));
        grid->tokens = input->token_values;
        grid->num_tokens = input->tokens.num;
    }
    for (int64_t i = 0; i < input->dtypes.num; i++) {
        EP_TRY(ep_dtype_parse(input->dtypes.items[i], "--dtype", &input->dtype_values[i]));
        if (input->dtype_values[i] == EP_FP8) {
            status = ep_error_set(EP_EINVAL, "--dtype fp8: rows of fp8 are moved, not multiplied; "
                                             "fp32 and bf16 are");
            goto out;
        }
        grid->dtypes = input->dtype_values;
        grid->num_dtypes = input->dtypes.num;
    }
    for (int64_t i = 0; i < input->backends.num; i++) {
        const struct ep_gemm_backend *backend = NULL;
        status = ep_gemm_find(input->backends.items[i], EP_FP32, &backend);
        if (status == EP_EENV) { /* it may do the other dtype; else a warning follows */
            ep_error_clear();
        } else {
            EP_TRY(status);
        }
        status = EP_OK;
        grid->backends = (const char *const *)input->backends.items;
        grid->num_backends = input->backends.num;
    }
    if (input->session.threads != 1) {
        status = ep_error_set(EP_EINVAL, "--threads %" PRId64 ": GEMMs run one thread per rank; "
                                         "start more ranks instead", input->session.threads);
    }
    const int num_tables = input->table + input->gate_table + input->ffn_table;
    if (input->json != NULL && num_tables == 0) {
        status = ep_error_set(EP_EINVAL,
                              "--json belongs to --gemm-table, --ffn-table and --gate-table; for "
                              "single benchmarks use --benchmark_format=json");
    }
    if (num_tables > 1) {
        status = ep_error_set(EP_EINVAL,
                              "--gemm-table, --ffn-table and --gate-table exclude each other");
    }
out:
    return status;
}

/* stdout of the table is the table, unless the rows go there as JSON. */
static enum ep_status run_table(struct input *input, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    json_t *rows = NULL;
    int64_t num_short = 0;
    const bool root = ep_comm_is_root(session->world);
    FILE *out = input->json != NULL && strcmp(input->json, "-") == 0 ? stderr : stdout;
    if (input->json != NULL && root) {
        rows = json_array();
        status = rows == NULL ? ep_error_set(EP_ENOMEM, "no memory for rows") : EP_OK;
    }
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(input->gate_table
               ? ep_kernels_gate_run(session, input->grid.cold_caches, out, rows, &num_short)
           : input->ffn_table ? ep_kernels_ffn_run(session, &input->grid, out, rows, &num_short)
                              : ep_kernels_table_run(session, &input->grid, out, rows, &num_short));
    if (root) {
        fprintf(out, "\n%" PRId64 " rows short of what is asked\n", num_short);
        status = rows != NULL ? ep_json_save(input->json, rows) : EP_OK;
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    json_decref(rows);
    return status;
}

static void describe_build(void)
{
    ep_gbench_add_context("epbench_version", ep_version());
    ep_gbench_add_context("epbench_compiler", ep_version_compiler());
    ep_gbench_add_context("epbench_flags", ep_version_flags());
}

static enum ep_status run_cases(struct input *input, struct ep_session *session,
                                struct ep_gbench *bench)
{
    enum ep_status status = EP_OK;
    struct ep_kernels_cases *cases = NULL;
    int64_t num_run = 0;
    int64_t num_kept = 0;
    enum { REPETITIONS = 7 };
    const bool list_only = ep_gbench_has_flag(bench, "--benchmark_list_tests");
    if (ep_comm_size(session->world) > 1 &&
        ep_gbench_has_flag(bench, "--benchmark_enable_random_interleaving")) {
        return ep_error_set(EP_EINVAL, "--benchmark_enable_random_interleaving draws another order "
                                       "on every rank: use -n 1 with it");
    }
    describe_build();
    EP_TRY(ep_kernels_cases_create(session, &input->grid, bench, &cases));
    status = ep_gbench_run(bench, REPETITIONS, &num_run, &num_kept);
    ep_session_count_visits(session, num_run, num_kept);
    if (ep_kernels_cases_are_stopped(cases)) {
        ep_error_clear(); /* said when the session is closed */
        status = EP_OK;
    }
    EP_TRY(status);
    if (num_kept == 0 && !list_only) {
        status = ep_error_set(EP_EINVAL, "no benchmark matches --benchmark_filter; "
                                         "--benchmark_list_tests=true lists them");
    }
out:
    ep_kernels_cases_destroy(cases);
    return status;
}

enum ep_status ep_cmd_kernels(int argc, char **argv)
{
    static const struct argp_child children[] = {{&ep_session_argp, 0, "Runs and ranks:", 10}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .children = children,
        .doc = "Measure what one rank does: expert GEMMs and FFNs, permute, copies, arithmetic and "
               "memory peaks, on one rank and on all at once. All --benchmark_* flags of Google "
               "Benchmark work.\vExample: epbench kernels --benchmark_filter=gemm "
               "--benchmark_format=json"};
    enum ep_status status = EP_OK;
    struct ep_session *session = NULL;
    struct ep_gbench *bench = NULL;
    struct input input = {.session = ep_session_options_default(),
                          .grid = ep_kernels_grid_default()};
    char **typed = calloc((size_t)argc + 1, sizeof *typed); /* with the flags that are taken out */
    const int num_typed = argc;
    if (typed == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the command line");
    }
    memcpy(typed, argv, (size_t)argc * sizeof *typed);
    EP_TRY(ep_gbench_create(&argc, argv, ep_options_launcher_rank() > 0, &bench));
    EP_TRY(ep_options_parse(&argp, argc, argv, &input));
    EP_TRY(choose_grid(&input));
    EP_TRY(ep_session_open(num_typed, typed, &input.session, &session));
    if (input.suite != NULL) {
        const bool is_quick = strcmp(input.suite, "quick") == 0;
        int64_t num_short = 0;
        EP_TRY(ep_kernels_suite_run(session, is_quick, is_quick ? 30 : 600, stdout, &num_short));
    } else {
        const bool has_table = input.table || input.gate_table || input.ffn_table;
        EP_TRY(has_table ? run_table(&input, session) : run_cases(&input, session, bench));
    }
    if (session->writes && ep_comm_is_root(session->world)) {
        fprintf(stderr, "records: %s\n", session->dir.path);
    }
out:
    ep_gbench_destroy(bench);
    const enum ep_status closed = ep_session_close(session);
    ep_list_fini(&input.models);
    ep_list_fini(&input.tokens);
    ep_list_fini(&input.dtypes);
    ep_list_fini(&input.backends);
    free(typed);
    return status != EP_OK ? status : closed;
}
