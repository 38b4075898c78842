/* SPDX-License-Identifier: Apache-2.0 */
/* Importers of traces and counts: small files whose rows stand beside them, and what is refused. */
#include "tests/check.h"

#include "base/gzip.h"
#include "kernels/count_sampler.h"
#include "kernels/counts.h"
#include "kernels/routing.h"
#include "kernels/trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

/* Megatron: step 0 has two tokens in layer 3 and one in 4, step 1 one more in 3; MTP is no layer. */
#define MEGATRON_HEAD "{\"step\": 0, \"stage\": \"pre_dispatch\", \"block\": \"decoder\", "
static const char megatron[] =
    MEGATRON_HEAD "\"layer\": 3, \"rank\": 0, \"num_tokens\": 2, \"topk\": 2, "
                  "\"top_indices\": [[5, 0], [1, 6]]}\n"
    MEGATRON_HEAD "\"layer\": 4, \"rank\": 0, \"num_tokens\": 1, \"topk\": 2, "
                  "\"top_indices\": [[9, 8]]}\n"
    "{\"step\": 0, \"stage\": \"pre_dispatch\", \"block\": \"mtp\", \"mtp_idx\": 0, \"layer\": 3, "
    "\"rank\": 0, \"num_tokens\": 1, \"topk\": 2, \"top_indices\": [[7, 7]]}\n"
    "{\"step\": 1, \"stage\": \"pre_dispatch\", \"block\": \"decoder\", \"layer\": 3, \"rank\": 0, "
    "\"num_tokens\": 1, \"topk\": 2, \"top_indices\": [[2, 3]], \"hs_offset\": 12}\n";

/* vLLM's loggers: two requests, layers 0 and 1. */
#define ROUTE "{\"type\": \"route\", \"req_id\": "
static const char vllm_log[] =
    "{\"type\": \"meta\", \"model_id\": \"m\", \"layers_logged\": [0, 1], \"top_k\": 2}\n"
    ROUTE "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [3, 1], "
          "\"topk_weights\": [0.75, 0.25]}\n"
    ROUTE "\"a\", \"token_idx\": 0, \"layer\": 1, \"topk_ids\": [7, 0], "
          "\"topk_weights\": [0.5, 0.5]}\n"
    ROUTE "\"b\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [2, -1], "
          "\"topk_weights\": [1, 0.125]}\n";

/* Two steps of two layers of three experts: layer 0 has 1+10, 0+0, 2+20; layer 1 3+5, 4+6, 0+0. */
static const char sglang[] = "{\"rank\": 0, \"logical_count\":\n [[[1, 0, 2], [3, 4, 0]],\n"
                             "  [[10, 0, 20], [5, 6, 0]]]}";

/* ESFT: one token a line; and a text of two tokens in a line. */
static const char esft[] = "3\t38\t50\t\t0.5\t0.25\t0.125\n14\t20\t35\t\t1\t0\t0.0625\n";
static const char esft_texts[] = "3\t38\t38\t50\t\t0.5\t0.25\t0.125\t1\n9\t8\t\t0.5\t0.5\n";

/* A version 1 .npy of whole numbers of 2 bytes. */
static size_t make_npy(const char *shape, const int16_t *values, size_t num, char *bytes)
{
    char header[118 + 1];
    const int length = snprintf(header, sizeof header,
                                "{'descr': '<i2', 'fortran_order': False, 'shape': %s, }", shape);
    memset(header + length, ' ', 118 - (size_t)length);
    header[117] = '\n';
    memcpy(bytes, "\x93NUMPY\x01\x00\x76\x00", 10); /* 0x76 = 118 */
    memcpy(bytes + 10, header, 118);
    memcpy(bytes + 128, values, num * sizeof *values);
    return 128 + num * sizeof *values;
}

static struct ep_trace *load(const char *text, size_t length, int64_t layer, const char *format)
{
    const struct ep_trace_options options = {.layer = layer, .format = format};
    struct ep_trace *trace = NULL;
    CHECK_OK(ep_trace_load_text("t", text, length, &options, &trace));
    return trace;
}

static void check_rows(const struct ep_trace *trace, const int32_t *rows, int64_t num,
                       int64_t top_k, int64_t num_experts)
{
    assert_int_equal(trace->num_tokens, num);
    assert_int_equal(trace->top_k, top_k);
    assert_int_equal(trace->num_experts, num_experts);
    assert_memory_equal(trace->topk_idx, rows, (size_t)(num * top_k) * sizeof *rows);
}

static void test_megatron(void **state)
{
    (void)state;
    struct ep_trace *trace = load(megatron, strlen(megatron), 3, NULL);
    check_rows(trace, (const int32_t[]){5, 0, 1, 6, 2, 3}, 3, 2, 7);
    assert_string_equal(trace->format, "megatron");
    assert_int_equal(trace->layer, 3);
    assert_int_equal(trace->num_left_out, 1);
    assert_int_equal(trace->line[1], 1);
    assert_int_equal(trace->line[2], 4);
    assert_int_equal(trace->token_id[2], 2);
    assert_null(trace->topk_weight);
    ep_trace_destroy(trace);
}

static void test_vllm_log(void **state)
{
    (void)state;
    struct ep_trace *trace = load(vllm_log, strlen(vllm_log), 0, NULL);
    check_rows(trace, (const int32_t[]){3, 1, 2, -1}, 2, 2, 4);
    assert_string_equal(trace->format, "vllm-log");
    const float weights[] = {0.75F, 0.25F, 1, 0}; /* an unused slot's weight counts as 0 */
    assert_memory_equal(trace->topk_weight, weights, sizeof weights);
    ep_trace_destroy(trace);
}

static void test_vllm_npy(void **state)
{
    (void)state;
    char bytes[256];
    /* [2 tokens][3 layers][2]; layer 1 is 4 5 and 8 -1 */
    const int16_t values[] = {0, 1, 4, 5, 2, 3, 6, 7, 8, -1, 0, 2};
    const size_t length = make_npy("(2, 3, 2)", values, 12, bytes);
    struct ep_trace *trace = load(bytes, length, 1, NULL);
    check_rows(trace, (const int32_t[]){4, 5, 8, -1}, 2, 2, 9);
    assert_string_equal(trace->format, "vllm-npy");
    ep_trace_destroy(trace);
    const size_t flat = make_npy("(6, 2)", values, 12, bytes);
    trace = load(bytes, flat, -1, NULL);
    assert_int_equal(trace->num_tokens, 6);
    assert_int_equal(trace->layer, -1);
    ep_trace_destroy(trace);
}

static void test_sglang(void **state)
{
    (void)state;
    struct ep_trace *trace = load(sglang, strlen(sglang), 0, NULL);
    const double counts[] = {11, 0, 22};
    assert_string_equal(trace->format, "sglang");
    assert_int_equal(trace->num_tokens, 0);
    assert_int_equal(trace->top_k, 0);
    assert_int_equal(trace->num_experts, 3);
    assert_memory_equal(trace->counts, counts, sizeof counts);
    assert_true(trace->fan_out_sampled);
    ep_trace_destroy(trace);
    const char flat[] = "{\"logical_count\": [[1, 2]]}";
    trace = load(flat, strlen(flat), -1, NULL);
    assert_int_equal(trace->layer, 0);
    CHECK_NEAR(trace->counts[1], 2, 0);
    ep_trace_destroy(trace);
}

static void test_esft(void **state)
{
    (void)state;
    struct ep_trace *trace = load(esft, strlen(esft), -1, NULL);
    check_rows(trace, (const int32_t[]){3, 38, 50, 14, 20, 35}, 2, 3, 51);
    assert_string_equal(trace->format, "esft");
    const float weights[] = {0.5F, 0.25F, 0.125F, 1, 0, 0.0625F};
    assert_memory_equal(trace->topk_weight, weights, sizeof weights);
    ep_trace_destroy(trace);
    trace = load(esft_texts, strlen(esft_texts), -1, "esft:2");
    check_rows(trace, (const int32_t[]){3, 38, 38, 50, 9, 8}, 3, 2, 51);
    assert_int_equal(trace->line[1], 1);
    assert_int_equal(trace->line[2], 2);
    ep_trace_destroy(trace);
}

static void test_counts_list(void **state)
{
    (void)state;
    const char text[] = "1,2,3\n4,0,0.5\n";
    struct ep_trace *trace = load(text, strlen(text), 1, "counts");
    const double counts[] = {4, 0, 0.5};
    assert_int_equal(trace->num_experts, 3);
    assert_memory_equal(trace->counts, counts, sizeof counts);
    ep_trace_destroy(trace);
    trace = load(sglang, strlen(sglang), 1, "counts"); /* SGLang's are counts as well */
    CHECK_NEAR(trace->counts[1], 10, 0);
    ep_trace_destroy(trace);
}

/* gzip in memory; returns its length. */
static size_t compress_text(const char *text, size_t length, char *bytes, size_t room)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)text;
    stream.avail_in = (uInt)length;
    stream.next_out = (Bytef *)bytes;
    stream.avail_out = (uInt)room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    const size_t made = room - stream.avail_out;
    deflateEnd(&stream);
    return made;
}

static void test_gzip(void **state)
{
    (void)state;
    static char bytes[4096];
    struct ep_trace *trace = NULL;
    const size_t length = compress_text(megatron, strlen(megatron), bytes, sizeof bytes);
    trace = load(bytes, length, 3, NULL);
    assert_int_equal(trace->num_tokens, 3);
    ep_trace_destroy(trace);
    trace = NULL;
    CHECK_FAILS(ep_trace_load_text("t.gz", bytes, length - 9, NULL, &trace), EP_EINVAL,
                "t.gz: ends within its gzip data");
    CHECK_FAILS(ep_trace_load_text("t.gz", bytes, length - 1, NULL, &trace), EP_EINVAL,
                "t.gz: ends within its gzip data");
    memcpy(bytes + length, "more", 4);
    CHECK_FAILS(ep_trace_load_text("t.gz", bytes, length + 4, NULL, &trace), EP_EINVAL,
                "t.gz: 4 bytes after its gzip data");
    bytes[length - 6] ^= 1; /* of the checksum */
    CHECK_FAILS(ep_trace_load_text("t.gz", bytes, length, NULL, &trace), EP_EINVAL,
                "t.gz: gzip data damaged near byte");
    /* two members are one file: "ab" and "c" */
    char *text = NULL;
    size_t expanded = 0;
    size_t both = compress_text("ab", 2, bytes, 100);
    both += compress_text("c", 1, bytes + both, 100);
    CHECK_OK(ep_gzip_expand("two", bytes, both, 3, &text, &expanded));
    assert_string_equal(text, "abc");
    free(text);
    text = NULL;
    CHECK_FAILS(ep_gzip_expand("two", bytes, both, 2, &text, &expanded), EP_EINVAL,
                "two: expands to more than the limit of 2 bytes");
    assert_null(text);
}

/* 64 MiB of zeros in 64 KiB of gzip: refused at the limit, not expanded first. */
static void test_bomb(void **state)
{
    (void)state;
    const size_t room = 1 << 17;
    const size_t size = 1 << 26;
    char *zeros = calloc(1, size);
    char *bytes = malloc(room);
    char *text = NULL;
    size_t expanded = 0;
    assert_non_null(zeros);
    assert_non_null(bytes);
    const size_t length = compress_text(zeros, size, bytes, room);
    CHECK_FAILS(ep_gzip_expand("bomb", bytes, length, 1 << 20, &text, &expanded), EP_EINVAL,
                "bomb: expands to more than the limit of 1048576 bytes");
    free(zeros);
    free(bytes);
}

struct bad {
    const char *text;
    const char *format; /* NULL = by content */
    int64_t layer;
    const char *says;
};

static void test_refused(void **state)
{
    (void)state;
    static const struct bad bad[] = {
        {megatron, NULL, -1, "t: has layers 3 and 4; choose one with --layer"},
        {megatron, NULL, 5, "t: has no token of layer 5; it has layers 3 and 4"},
        {"{\"a\": 1}\n", NULL, -1, "t: is no trace that is known"},
        {"{\"a\": 1}\n", "megatron", -1, "t:1: key 'block' is missing"},
        {"[1]\n", "megatron", -1, "t:1: is no JSON object"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 2, \"topk\": 1, \"top_indices\": [[5]]}", NULL,
         -1, "t:1: 'top_indices' must be an array of 2 tokens"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 1, \"topk\": 2, \"top_indices\": [[5]]}", NULL,
         -1, "t:1: token 0: 1 experts; 'topk' says 2"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 1, \"topk\": 1, \"top_indices\": [[5.5]]}",
         NULL, -1, "t:1: token 0: whole numbers as expert indices"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 1, \"topk\": 1, \"top_indices\": [[-2]]}",
         NULL, -1, "t:1: token 0: expert -2 is outside -1 (unused) to 65535"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 1, \"topk\": 2, \"top_indices\": [[4, 4]]}",
         NULL, -1, "t:1: token 0: expert 4 comes twice"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 1, \"topk\": 1, \"top_indices\": [[5]", NULL,
         -1, "t:1: is not valid JSON"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 0, \"topk\": 1, \"top_indices\": []}\n\n{}",
         NULL, -1, "t:2: is blank; a JSON object was expected"},
        {MEGATRON_HEAD "\"layer\": 3, \"num_tokens\": 0, \"topk\": 1, \"top_indices\": []}", NULL, -1,
         "t: has no token"},
        {ROUTE "\"a\"}", "vllm-log", -1, "t:1: key 'layer' is missing"},
        {"{\"type\": \"rout\"}", "vllm-log", -1, "t:1: type 'rout'; meta or route expected"},
        {"{\"type\": \"meta\", \"top_k\": 3}\n" ROUTE
         "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [1]}", NULL, -1,
         "t:2: 1 experts; the meta line says 3"},
        {ROUTE "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [1], \"topk_weights\": []}",
         NULL, -1, "t:1: an array of as many weights as experts expected"},
        {ROUTE "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [1], \"topk_weights\": [NaN]}",
         NULL, -1, "t:1: is not valid JSON"},
        {ROUTE "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [1], \"topk_weights\": [-1]}",
         NULL, -1, "t:1: weight -1 is outside 0 to 1e+30"},
        {ROUTE "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [1]}\n" ROUTE
         "\"a\", \"token_idx\": 1, \"layer\": 0, \"topk_ids\": [1, 2]}", NULL, -1,
         "t:2: 2 experts; 1 expected, as in the rows before"},
        {ROUTE "\"a\", \"token_idx\": 0, \"layer\": 0, \"topk_ids\": [1]}\n" ROUTE
         "\"a\", \"token_idx\": 1, \"layer\": 0, \"topk_ids\": [1], \"topk_weights\": [1]}", NULL,
         -1, "t:2: has weights, the rows before have none"},
        {sglang, NULL, -1, "t: has layers 0 and 1; choose one"},
        {sglang, NULL, 2, "t: has no token of layer 2; it has layers 0 and 1"},
        {"{\"logical_count\": [[1, -2]]}", NULL, -1,
         "t: logical_count[0][1]: a whole number from 0 to 2^53"},
        {"{\"logical_count\": [[1, 0.5]]}", NULL, -1, "t: logical_count[0][1]: a whole number"},
        {"{\"logical_count\": [[0, 0]]}", NULL, -1, "t: all counts are 0"},
        {"{\"logical_count\": [[[1, 2]], [[1]]]}", NULL, -1,
         "t: logical_count[1][0]: counts of 1 experts; 2 expected, as in other steps"},
        {"{\"logical_count\": [[[1, 2]], 3]}", NULL, -1,
         "t: logical_count[1]: an array of layers was expected"},
        {"{\"logical_count\": []}", NULL, -1, "t: key 'logical_count' with counts"},
        {"{\"logical_count\": 7}", NULL, -1, "t: key 'logical_count' with counts"},
        {"{\"logical_count\": [[1, 2]", NULL, -1, "t:1: is not valid JSON"},
        {esft_texts, NULL, -1, "t:1: holds several tokens or a ragged one (4 ids)"},
        {esft_texts, "esft:3", -1, "t:1: 4 ids are no whole number of tokens of 3"},
        {esft, NULL, 2, "t: layer 2 is asked for, but the file names no layers"},
        {"1\t2\t\t0.5\n", NULL, -1, "t:1: 2 expert ids and fewer weights; as many expected"},
        {"1\t2\t\t0.5\t0.5\t1\n", NULL, -1, "t:1: 2 expert ids and more weights"},
        {"1\t2\t\t0.5\tnan\n", NULL, -1, "t:1: weight: 'nan' is not a number"},
        {"1\t2x\t\t0.5\t1\n", NULL, -1, "t:1: expert id: '2x' is not a whole number"},
        {"1\t2\t\t1\t1\n3\t4\n", NULL, -1, "t:2: expert ids, two tabs and as many weights"},
        {"1\t2\t\t1\t1\n3\t\t1\n", NULL, -1, "t:2: holds several tokens or a ragged one (1 ids)"},
        {"1,2\n3\n", "counts", 0, "t:2: 1 numbers; 2 expected"},
        {"1,nan\n", "counts", -1, "t:1: field 2: 'nan' is not a number"},
        {"1,2\n", "counts", 1, "t: has no token of layer 1; it has layer 0"},
        {"token,e0\n0,1\n", "parquet", -1, "trace format 'parquet': csv, megatron"},
        {"token,e0\n0,1\n", "csv:3", -1, "trace format 'csv:3'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ep_trace *trace = NULL;
        const struct ep_trace_options options = {.layer = bad[i].layer, .format = bad[i].format};
        CHECK_FAILS(
            ep_trace_load_text("t", bad[i].text, strlen(bad[i].text), &options, &trace),
            EP_EINVAL, bad[i].says);
        assert_null(trace);
    }
    struct ep_trace *trace = NULL;
    CHECK_FAILS(ep_trace_load_text("t", "token,e0\n0,\0\n", 13, NULL, &trace), EP_EINVAL,
                "t: has a NUL byte at byte 11");
}

static void test_refused_npy(void **state)
{
    (void)state;
    char bytes[256];
    const int16_t values[] = {0, 1, 4, 5, 4, 4};
    struct ep_trace *trace = NULL;
    size_t length = make_npy("(3, 2)", values, 6, bytes);
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, NULL, &trace), EP_EINVAL,
                "t: token 2: expert 4 comes twice");
    CHECK_FAILS(ep_trace_load_text("t", bytes, length - 1, NULL, &trace), EP_EINVAL,
                "t: 11 bytes of values; its shape and type need 12");
    const struct ep_trace_options four = {.num_experts = 4, .layer = -1};
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, &four, &trace), EP_EINVAL,
                "t: token 1: expert 4 is outside -1 (unused) to 3");
    length = make_npy("(1, 3, 2)", values, 6, bytes);
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, NULL, &trace), EP_EINVAL,
                "t: has layers 0, 1 and 2; choose one");
    length = make_npy("(6,)", values, 6, bytes);
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, NULL, &trace), EP_EINVAL,
                "t: npy array of 1 dimensions; [tokens][layers][top-k]");
    length = make_npy("(6, 1, 1, 1, 1)", values, 6, bytes);
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, NULL, &trace), EP_EINVAL, "5 dimensions");
    length = make_npy("(0, 99999)", values, 0, bytes);
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, NULL, &trace), EP_EINVAL,
                "npy dimension 1 is 99999; 1 to 65536 expected");
    length = make_npy("(4611686018427387904, 4611686018427387904)", values, 6, bytes);
    CHECK_FAILS(ep_trace_load_text("t", bytes, length, NULL, &trace), EP_EINVAL,
                "too many values to be counted");
}

/* FORMAT:FILE@LAYER, and a file whose own name ends so. */
static void test_specs(void **state)
{
    (void)state;
    char directory[] = "/tmp/epbench-traces-XXXXXX";
    char path[64];
    char spec[96];
    struct ep_trace *trace = NULL;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/t@4", directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(megatron, file);
    fclose(file);
    CHECK_FAILS(ep_trace_load(path, NULL, &trace), EP_EINVAL, "has layers 3 and 4");
    snprintf(spec, sizeof spec, "megatron:%s@4", path);
    CHECK_OK(ep_trace_load(spec, NULL, &trace));
    assert_int_equal(trace->num_tokens, 1);
    assert_int_equal(trace->topk_idx[0], 9);
    ep_trace_destroy(trace);
    snprintf(spec, sizeof spec, "csv:%s@4", path);
    CHECK_FAILS(ep_trace_load(spec, NULL, &trace), EP_EINVAL, "t@4:1: ");
    unlink(path);
    rmdir(directory);
}

/* --- tokens from counts ---------------------------------------------------------------------- */

/* How often each expert is drawn in `num` tokens; each token's are distinct. */
static void draw_all(const double *counts, int64_t num_experts, int64_t top_k, int64_t num,
                     int64_t *drawn)
{
    struct ep_count_sampler *sampler = NULL;
    CHECK_OK(ep_count_sampler_create(counts, num_experts, top_k, "c", &sampler));
    memset(drawn, 0, (size_t)num_experts * sizeof *drawn);
    for (int64_t t = 0; t < num; t++) {
        int32_t experts[64];
        struct ep_random random;
        ep_random_init(&random, 1, EP_RANDOM_TEST, (uint64_t)t);
        ep_count_sampler_draw(sampler, &random, experts);
        for (int64_t i = 0; i < top_k; i++) {
            assert_in_range(experts[i], 0, num_experts - 1);
            for (int64_t j = 0; j < i; j++) {
                assert_int_not_equal(experts[i], experts[j]);
            }
            drawn[experts[i]]++;
        }
    }
    ep_count_sampler_destroy(sampler);
}

/* The load is the counts': expert e in n top_k counts[e] / sum tokens, within 5 sigma of a
 * binomial. Successive draws in proportion to counts would give expert 0 of the first row
 * P = 0.4 + 0.3 x 0.4/0.7 + 0.2 x 0.4/0.8 + 0.1 x 0.4/0.9 = 0.716 instead of 2 x 0.4 = 0.8. */
static void test_sampled_load(void **state)
{
    (void)state;
    static const struct {
        double counts[8];
        int64_t num_experts, top_k;
    } cases[] = {
        {{4, 3, 2, 1}, 4, 2},
        {{50, 20, 20, 10}, 4, 2},           /* expert 0 in every token */
        {{1, 1, 1, 1, 1, 1, 1, 1}, 8, 8},   /* all in every token */
        {{1, 1, 0, 0}, 4, 1},               /* none of experts 2 and 3 */
        {{0.977, 0.5, 0.5, 0.5, 0.3, 0.2, 0.02, 0.003}, 8, 3},
    };
    const int64_t num = 40000;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int64_t drawn[8];
        double sum = 0;
        for (int64_t e = 0; e < cases[c].num_experts; e++) {
            sum += cases[c].counts[e];
        }
        draw_all(cases[c].counts, cases[c].num_experts, cases[c].top_k, num, drawn);
        for (int64_t e = 0; e < cases[c].num_experts; e++) {
            const double p = (double)cases[c].top_k * cases[c].counts[e] / sum;
            const double sigma = sqrt((double)num * p * fmax(0, 1 - p));
            CHECK_NEAR((double)drawn[e], (double)num * p, 5 * sigma + 0.01);
        }
    }
}

static void test_sampler_refuses(void **state)
{
    (void)state;
    struct ep_count_sampler *sampler = NULL;
    CHECK_FAILS(ep_count_sampler_create((const double[]){6, 2, 2}, 3, 2, "c", &sampler), EP_EINVAL,
                "c: expert 0 has 60 % of the counts; top-2 routing gives an expert 50 % at most");
    CHECK_FAILS(ep_count_sampler_create((const double[]){1, 0, 0}, 3, 2, "c", &sampler), EP_EINVAL,
                "c: expert 0 has 100 % of the counts");
    assert_null(sampler);
}

/* 11 + 22 counts at top-1 are 33 tokens; the same tokens for the same seed, as a skew draws them. */
static void test_drawn_trace(void **state)
{
    (void)state;
    struct ep_trace *counts = load(sglang, strlen(sglang), 0, NULL);
    struct ep_trace *drawn = NULL;
    CHECK_OK(ep_counts_draw_trace(counts, 1, 3, &drawn));
    assert_int_equal(drawn->num_tokens, 33);
    assert_int_equal(drawn->top_k, 1);
    assert_int_equal(drawn->num_experts, 3);
    assert_true(drawn->fan_out_sampled);
    assert_null(drawn->counts);
    for (int64_t t = 0; t < 33; t++) {
        assert_true(drawn->topk_idx[t] == 0 || drawn->topk_idx[t] == 2);
    }
    ep_trace_destroy(drawn);
    ep_trace_destroy(counts);
}

/* The counts built in: every (model, domain, layer) sums to top-k x the tokens of its domain. */
static void test_built_in(void **state)
{
    (void)state;
    struct ep_counts *counts = NULL;
    CHECK_OK(ep_counts_create(&counts));
    assert_int_equal(counts->num_models, 2);
    assert_int_equal(counts->num_domains, 6);
    assert_int_equal(counts->num_cells, 33); /* 3 layers x (5 domains of Mixtral, 6 of OLMoE) */
    for (int64_t i = 0; i < counts->num_cells; i++) {
        const struct ep_counts_cell *cell = &counts->cells[i];
        const struct ep_counts_model *model = &counts->models[cell->model];
        const bool tulu = strcmp(counts->domains[cell->domain], "tulu") == 0;
        double sum = 0;
        for (int64_t e = 0; e < model->num_experts; e++) {
            sum += cell->tokens[e];
        }
        CHECK_NEAR(sum, (tulu ? 205243.0 : 208896.0) * (double)model->top_k, 0);
    }
    ep_counts_destroy(counts);
    struct ep_trace *trace = NULL;
    CHECK_OK(ep_trace_load("counts:mixtral-8x7b/arxiv/0", NULL, &trace));
    assert_int_equal(trace->num_experts, 8);
    assert_int_equal(trace->top_k, 2);
    CHECK_NEAR(trace->counts[0], 55713, 0); /* the file's first row */
    ep_trace_destroy(trace);
    CHECK_OK(ep_trace_load("counts:olmoe-1b-7b/all@15", NULL, &trace));
    assert_int_equal(trace->num_experts, 64);
    assert_int_equal(trace->layer, 15);
    ep_trace_destroy(trace);
    trace = NULL;
    CHECK_FAILS(ep_trace_load("counts:olmoe-1b-7b/arxiv", NULL, &trace), EP_EINVAL,
                "has layers 0, 7, 15; choose one");
    CHECK_FAILS(ep_trace_load("counts:olmoe-1b-7b/arxiv/3", NULL, &trace), EP_EINVAL,
                "no layer 3; layers 0, 7, 15 are there");
    CHECK_FAILS(ep_trace_load("counts:mixtral-8x7b/tulu/0", NULL, &trace), EP_EINVAL,
                "no such domain; arxiv, book, c4, github, wikipedia or all expected");
    assert_null(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_megatron),      cmocka_unit_test(test_vllm_log),
        cmocka_unit_test(test_vllm_npy),      cmocka_unit_test(test_sglang),
        cmocka_unit_test(test_esft),          cmocka_unit_test(test_counts_list),
        cmocka_unit_test(test_gzip),          cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_refused_npy),
        cmocka_unit_test(test_specs),         cmocka_unit_test(test_sampled_load),
        cmocka_unit_test(test_sampler_refuses), cmocka_unit_test(test_drawn_trace),
        cmocka_unit_test(test_built_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
