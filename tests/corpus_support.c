/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the fuzz targets. */
#include "tests/fuzz.h"

#include "results/import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fuzz_check_refusal(enum ep_status status)
{
    EP_ASSERT(status == EP_EINVAL || status == EP_ENOMEM);
    EP_ASSERT(ep_error_text()[0] != '\0');
    ep_error_clear();
}

static void check_tokens(const struct ep_trace *trace, bool duplicates)
{
    EP_ASSERT(trace->num_tokens >= 1 && trace->top_k >= 1 && trace->num_experts >= 1);
    for (int64_t t = 0; t < trace->num_tokens; t++) {
        const int32_t *experts = trace->topk_idx + t * trace->top_k;
        EP_ASSERT(trace->token_id[t] >= 0 && trace->line[t] >= 1);
        for (int64_t i = 0; i < trace->top_k; i++) {
            EP_ASSERT(experts[i] >= -1 && experts[i] < trace->num_experts);
            for (int64_t j = 0; j < i && !duplicates && trace->top_k < 64; j++) {
                EP_ASSERT(experts[i] < 0 || experts[i] != experts[j]);
            }
            const float *weight = trace->topk_weight;
            EP_ASSERT(weight == NULL || (isfinite(weight[t * trace->top_k + i]) &&
                                         weight[t * trace->top_k + i] >= 0));
        }
    }
}

static void check_trace(const struct ep_trace *trace, bool duplicates)
{
    if (trace->counts == NULL) {
        check_tokens(trace, duplicates);
        return;
    }
    double sum = 0;
    EP_ASSERT(trace->num_tokens == 0 && trace->topk_idx == NULL && trace->fan_out_sampled);
    for (int64_t e = 0; e < trace->num_experts; e++) {
        EP_ASSERT(isfinite(trace->counts[e]) && trace->counts[e] >= 0);
        sum += trace->counts[e];
    }
    EP_ASSERT(sum > 0);
}

void fuzz_trace(const uint8_t *data, size_t size, const char *format)
{
    const struct ep_trace_options options[] = {
        {.layer = -1, .format = format},
        {.layer = 0, .format = format, .allow_duplicates = true, .num_experts = 64},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct ep_trace *trace = NULL;
        const enum ep_status status =
            ep_trace_load_text("input", (const char *)data, size, &options[i], &trace);
        if (status == EP_OK) {
            check_trace(trace, options[i].allow_duplicates);
            ep_trace_destroy(trace);
        } else {
            EP_ASSERT(trace == NULL);
            fuzz_check_refusal(status);
        }
    }
}

static char scratch[64];
static char path[128];

static void remove_scratch(void)
{
    unlink(path);
    rmdir(scratch);
}

const char *fuzz_write_file(const char *name, const uint8_t *data, size_t size,
                            const char **directory)
{
    if (scratch[0] == '\0') {
        const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(scratch, sizeof scratch, "%s/epbench-fuzz-XXXXXX", base);
        EP_ASSERT(mkdtemp(scratch) != NULL);
        snprintf(path, sizeof path, "%s/%s", scratch, name);
        atexit(remove_scratch);
    }
    FILE *file = fopen(path, "wb");
    EP_ASSERT(file != NULL);
    EP_ASSERT(fwrite(data, 1, size, file) == size);
    EP_ASSERT(fclose(file) == 0);
    if (directory != NULL) {
        *directory = scratch;
    }
    return path;
}

static void check_written(struct ep_record *record)
{
    char *line = NULL;
    struct ep_record again;
    EP_ASSERT(ep_record_set_text(&record->run_id, "run") == EP_OK);
    EP_ASSERT(ep_record_make_id(record) == EP_OK);
    EP_ASSERT(ep_record_to_line(record, &line) == EP_OK);
    EP_ASSERT(ep_record_from_line("again", 1, line, strlen(line), &again) == EP_OK);
    EP_ASSERT(again.median_s > 0 && again.ranks > 0);
    ep_record_fini(&again);
    free(line);
}

static void check_import(struct ep_import *import, const struct ep_import_options *options)
{
    const size_t num = (size_t)import->num_points;
    struct ep_record *records = calloc(num, sizeof *records);
    int64_t **rows = calloc(num, sizeof *rows);
    struct ep_run run;
    ep_run_init(&run);
    EP_ASSERT(records != NULL && rows != NULL);
    for (size_t i = 0; i < num; i++) {
        ep_record_init(&records[i], EP_RECORD_COMM);
    }
    const enum ep_status status =
        ep_import_make_records(import, options, 1, &run, records, rows);
    if (status != EP_OK) {
        fuzz_check_refusal(status);
    }
    for (size_t i = 0; i < num; i++) {
        if (status == EP_OK) {
            check_written(&records[i]);
        }
        ep_record_fini(&records[i]);
        free(rows[i]);
    }
    free(records);
    free(rows);
    ep_run_fini(&run);
}

void fuzz_import(const uint8_t *data, size_t size, const char *format)
{
    const struct ep_importer *importer = NULL;
    struct ep_import import = {0};
    struct ep_import_options options;
    ep_import_options_init(&options);
    options.num_ranks = 4;
    options.spread = 0.5;
    if (strcmp(format, "csv") == 0) {
        options.op = "alltoall";
        options.map = "time_us=a,size_bytes=b,ranks=c";
    }
    char *text = malloc(size + 1);
    EP_ASSERT(text != NULL && ep_importer_find(format, &importer) == EP_OK);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    const enum ep_status status = ep_import_text(importer, "input", text, size, &options, &import);
    if (status == EP_OK) {
        check_import(&import, &options);
    } else {
        fuzz_check_refusal(status);
    }
    ep_import_fini(&import);
    free(text);
}
