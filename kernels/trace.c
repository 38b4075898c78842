/* SPDX-License-Identifier: Apache-2.0 */
/* The table of trace formats, and loading by it. */
#include "kernels/trace.h"

#include "base/embedded.h"
#include "base/file.h"
#include "base/gzip.h"
#include "base/units.h"
#include "kernels/counts.h"
#include "kernels/trace_format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char sample_path[] = "kernels/data/routing_trace_dsv2lite_law_L2.csv";
enum { SAMPLE_EXPERTS = 64 };

/* In the order in which a file is held against them; CSV takes what no other does. */
static const struct ep_trace_format *const formats[] = {
    &ep_trace_vllm_npy, &ep_trace_megatron, &ep_trace_vllm_log, &ep_trace_sglang,
    &ep_trace_esft,     &ep_trace_counts,   &ep_trace_csv,
};

enum { NUM_FORMATS = sizeof formats / sizeof formats[0] };

bool ep_trace_describe_format(int index, const char **name, const char **summary)
{
    if (index >= NUM_FORMATS) {
        return false;
    }
    *name = formats[index]->name;
    *summary = formats[index]->summary;
    return true;
}

bool ep_trace_first_line_has(const char *text, size_t length, const char *word)
{
    while (length > 0 && strchr(" \t\r\n", *text) != NULL) {
        text++;
        length--;
    }
    const char *end = memchr(text, '\n', length);
    const size_t line = end != NULL ? (size_t)(end - text) : length;
    return memmem(text, line, word, strlen(word)) != NULL;
}

/* --- which format ---------------------------------------------------------------------------- */

/* The format that `text` names up to its end or a colon; NULL if none. */
static const struct ep_trace_format *find_format(const char *text)
{
    const size_t length = strcspn(text, ":");
    for (int i = 0; i < NUM_FORMATS; i++) {
        if (strlen(formats[i]->name) == length && strncmp(formats[i]->name, text, length) == 0) {
            return formats[i];
        }
    }
    return NULL;
}

bool ep_trace_names_format(const char *spec)
{
    return find_format(spec) != NULL && strchr(spec, ':') != NULL;
}

static enum ep_status choose_format(const struct ep_trace_options *options,
                                    struct ep_trace_source *source,
                                    const struct ep_trace_format **format)
{
    source->params = "";
    if (options->format != NULL) {
        const char *colon = strchr(options->format, ':');
        *format = find_format(options->format);
        source->params = colon != NULL ? colon + 1 : "";
        return *format != NULL && (colon == NULL || (*format)->has_params)
                   ? EP_OK
                   : ep_error_set(EP_EINVAL,
                                  "trace format '%s': csv, megatron, vllm-log, vllm-npy, sglang, "
                                  "esft[:TOP_K] or counts expected",
                                  options->format);
    }
    for (int i = 0; i < NUM_FORMATS; i++) {
        if (formats[i]->recognise != NULL &&
            formats[i]->recognise(source->text, source->length)) {
            *format = formats[i];
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL,
                        "%s: is no trace that is known: CSV with a header, Megatron or vLLM JSONL, "
                        "vLLM .npy, SGLang JSON or ESFT text expected",
                        source->name);
}

/* --- loading --------------------------------------------------------------------------------- */

static const struct ep_trace_options defaults = {.layer = -1};

static enum ep_status check_text(const struct ep_trace_source *source,
                                 const struct ep_trace_format *format)
{
    const char *nul = format->is_binary ? NULL : memchr(source->text, '\0', source->length);
    return nul == NULL ? EP_OK
                       : ep_error_set(EP_EINVAL,
                                      "%s: has a NUL byte at byte %td; a text file was expected",
                                      source->name, nul - source->text);
}

/* Takes over `text`. */
static enum ep_status load(const char *name, char *text, size_t length,
                           const struct ep_trace_options *options, struct ep_trace **trace)
{
    enum ep_status status;
    const struct ep_trace_format *format = NULL;
    struct ep_trace_source source = {.name = name, .text = text, .length = length};
    struct ep_trace_builder builder = {.options = options != NULL ? options : &defaults};
    builder.trace = calloc(1, sizeof *builder.trace);
    if (builder.trace == NULL || (builder.trace->name = strdup(name)) == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", name);
        goto out;
    }
    builder.trace->layer = -1;
    if (length == 0) {
        status = ep_error_set(EP_EINVAL, "%s: is empty; a trace or counts were expected", name);
        goto out;
    }
    EP_TRY(choose_format(builder.options, &source, &format));
    EP_TRY(check_text(&source, format));
    builder.trace->format = format->name;
    EP_TRY(format->read(&source, &builder));
    EP_TRY(ep_trace_builder_finish(&builder));
    *trace = builder.trace;
    builder.trace = NULL;
out:
    ep_trace_builder_fini(&builder);
    free(source.text);
    return status;
}

enum ep_status ep_trace_load_text(const char *name, const char *text, size_t length,
                                  const struct ep_trace_options *options, struct ep_trace **trace)
{
    char *copy = NULL;
    size_t copied = length;
    if (ep_gzip_recognise(text, length)) {
        const enum ep_status status =
            ep_gzip_expand(name, text, length, EP_TRACE_LIMIT_BYTES, &copy, &copied);
        if (status != EP_OK) {
            return status;
        }
    } else {
        copy = malloc(length + 1);
        if (copy == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory", name);
        }
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return load(name, copy, copied, options, trace);
}

/* Cut "@12" off the end of `file` into options->layer, unless a file has that whole name. */
static enum ep_status split_layer(char *file, struct ep_trace_options *options)
{
    char *at = strrchr(file, '@');
    const bool digits = at != NULL && at[1] != '\0' && at[1 + strspn(at + 1, "0123456789")] == '\0';
    if (!digits || access(file, F_OK) == 0) {
        return EP_OK;
    }
    *at = '\0';
    return ep_parse_i64(at + 1, file, 0, INT32_MAX, &options->layer);
}

/* Split "[FORMAT[:PARAMS]:]FILE[@LAYER]" in place. */
static enum ep_status split_spec(char *spec, struct ep_trace_options *options, char **file)
{
    const struct ep_trace_format *format = find_format(spec);
    char *end = format != NULL ? strchr(spec, ':') : NULL;
    *file = spec;
    if (end != NULL) {
        const size_t digits = strspn(end + 1, "0123456789");
        if (format->has_params && digits > 0 && end[1 + digits] == ':') {
            end += 1 + digits;
        }
        *end = '\0';
        options->format = spec;
        *file = end + 1;
    }
    return split_layer(*file, options);
}

enum ep_status ep_trace_load(const char *spec, const struct ep_trace_options *options,
                             struct ep_trace **trace)
{
    enum ep_status status;
    struct ep_trace_options used = options != NULL ? *options : defaults;
    char *text = NULL;
    char *file = NULL;
    size_t length = 0;
    char *copy = strdup(spec);
    if (copy == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", spec);
    }
    EP_TRY(split_spec(copy, &used, &file));
    if (used.format != NULL && strcmp(used.format, ep_trace_counts.name) == 0 &&
        ep_counts_is_built_in(file)) {
        EP_TRY(ep_counts_load_built_in(file, &used, trace));
        goto out;
    }
    if (used.format != NULL && strcmp(used.format, ep_trace_counts.name) == 0 &&
        access(file, F_OK) != 0) {
        status = ep_error_set(EP_EINVAL,
                              "%s: no such file; counts that are built in are written as "
                              "counts:mixtral-8x7b/c4/0 (MODEL/DOMAIN/LAYER)",
                              file);
        goto out;
    }
    EP_TRY(ep_gzip_read(file, EP_TRACE_LIMIT_BYTES, &text, &length));
    EP_TRY(load(file, text, length, &used, trace));
out:
    free(copy);
    return status;
}

enum ep_status ep_trace_load_sample(struct ep_trace **trace)
{
    const struct ep_embedded *file = ep_embedded_find(sample_path);
    if (file == NULL) {
        return ep_error_set(EP_EENV, "this build has no trace:sample (%s)", sample_path);
    }
    const struct ep_trace_options options = {
        .num_experts = SAMPLE_EXPERTS, .layer = -1, .format = ep_trace_csv.name};
    return ep_trace_load_text("trace:sample", (const char *)file->data, file->size_bytes, &options,
                              trace);
}

void ep_trace_destroy(struct ep_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    free(trace->name);
    free(trace->token_id);
    free(trace->line);
    free(trace->topk_idx);
    free(trace->topk_weight);
    free(trace->counts);
    free(trace);
}
