/* SPDX-License-Identifier: Apache-2.0 */
/* ESFT's expert scores: lines of ids, two tabs, as many weights, all separated by tabs. A line is a
 * token, or a text whose tokens follow one another. Source: deepseek-ai/ESFT,
 * results/expert_scores. */
#include "kernels/trace_format.h"

#include "base/units.h"
#include "kernels/placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of one line. */
struct line {
    int64_t *experts;
    double *weights;
    int64_t num;
    int64_t capacity;
};

struct reading {
    struct ep_trace_builder *builder;
    const char *name;
    int64_t top_k; /* 0 = a line is a token */
    struct line line;
};

static enum ep_status make_room(struct line *line)
{
    if (line->num < line->capacity) {
        return EP_OK;
    }
    const int64_t capacity = line->capacity > 0 ? 2 * line->capacity : 64;
    bool lost = false;
    line->experts = ep_trace_resize(line->experts, (size_t)capacity * sizeof *line->experts, &lost);
    line->weights = ep_trace_resize(line->weights, (size_t)capacity * sizeof *line->weights, &lost);
    if (lost) {
        return ep_error_set(EP_ENOMEM, "no memory for a line of %" PRId64 " experts", capacity);
    }
    line->capacity = capacity;
    return EP_OK;
}

/* Cut the next field off *text, which becomes NULL behind the last. */
static char *next_field(char **text)
{
    char *field = *text;
    char *tab = strchr(field, '\t');
    if (tab != NULL) {
        *tab = '\0';
    }
    *text = tab != NULL ? tab + 1 : NULL;
    return field;
}

/* `text`: one line, in place. */
static enum ep_status read_line(struct reading *r, char *text, int64_t number)
{
    enum ep_status status = EP_OK;
    char what[300];
    struct line *line = &r->line;
    char *weights = strstr(text, "\t\t");
    line->num = 0;
    if (weights == NULL) {
        return ep_error_set(EP_EINVAL,
                            "%s:%" PRId64 ": expert ids, two tabs and as many weights expected",
                            r->name, number);
    }
    *weights = '\0';
    weights += 2;
    snprintf(what, sizeof what, "%s:%" PRId64 ": expert id", r->name, number);
    for (char *left = text; left != NULL; line->num++) {
        EP_TRY(make_room(line));
        EP_TRY(ep_parse_i64(next_field(&left), what, -1, EP_MAX_EXPERTS - 1,
                            &line->experts[line->num]));
    }
    snprintf(what, sizeof what, "%s:%" PRId64 ": weight", r->name, number);
    int64_t num = 0;
    for (char *left = weights; left != NULL && num < line->num; num++) {
        EP_TRY(ep_parse_f64(next_field(&left), what, 0, 1e30, &line->weights[num]));
        weights = left;
    }
    if (num != line->num || weights != NULL) {
        status = ep_error_set(EP_EINVAL,
                              "%s:%" PRId64 ": %" PRId64 " expert ids and %s weights; as many "
                              "expected", r->name, number, line->num,
                              num < line->num ? "fewer" : "more");
    }
out:
    return status;
}

static bool has_twice(const int64_t *experts, int64_t num)
{
    for (int64_t i = 0; i < num; i++) {
        for (int64_t j = 0; j < i && experts[i] >= 0; j++) {
            if (experts[i] == experts[j]) {
                return true;
            }
        }
    }
    return false;
}

static enum ep_status add_line(struct reading *r, int64_t number)
{
    const struct line *line = &r->line;
    const struct ep_trace *trace = r->builder->trace;
    const int64_t top_k = r->top_k > 0 ? r->top_k : line->num;
    /* Without top-k a line can only be a token: lines as long as each other, experts once each. */
    const bool other = trace->num_tokens > 0 && line->num != trace->top_k;
    const bool unclear = line->num > 256 || other || has_twice(line->experts, line->num);
    if (r->top_k == 0 && unclear) {
        return ep_error_set(EP_EINVAL,
                            "%s:%" PRId64 ": holds several tokens or a ragged one (%" PRId64
                            " ids); say how many ids a token has: esft:TOP_K:FILE or "
                            "--trace-format esft:TOP_K",
                            r->name, number, line->num);
    }
    if (line->num % top_k != 0) {
        return ep_error_set(EP_EINVAL,
                            "%s:%" PRId64 ": %" PRId64 " ids are no whole number of tokens of "
                            "%" PRId64, r->name, number, line->num, top_k);
    }
    for (int64_t t = 0; t < line->num / top_k; t++) {
        const struct ep_trace_row row = {.line = number,
                                         .part = line->num > top_k ? t : -1,
                                         .token_id = -1,
                                         .experts = line->experts + t * top_k,
                                         .weights = line->weights + t * top_k,
                                         .top_k = top_k};
        const enum ep_status status = ep_trace_builder_add(r->builder, &row);
        if (status != EP_OK) {
            return status;
        }
    }
    return EP_OK;
}

static enum ep_status read(struct ep_trace_source *source, struct ep_trace_builder *builder)
{
    enum ep_status status;
    bool wanted = false;
    struct reading r = {.builder = builder, .name = source->name};
    if (source->params[0] != '\0') {
        EP_TRY(ep_parse_i64(source->params, "trace format esft:TOP_K", 1, EP_MAX_EXPERTS,
                            &r.top_k));
    }
    EP_TRY(ep_trace_builder_see(builder, -1, &wanted));
    char *end = source->text + source->length;
    int64_t number = 1;
    for (char *from = source->text; from < end; number++) {
        char *line_end = memchr(from, '\n', (size_t)(end - from));
        char *next = line_end != NULL ? line_end + 1 : end;
        line_end = line_end != NULL ? line_end : end;
        line_end -= line_end > from && line_end[-1] == '\r';
        *line_end = '\0';
        EP_TRY(read_line(&r, from, number));
        EP_TRY(add_line(&r, number));
        from = next;
    }
out:
    free(r.line.experts);
    free(r.line.weights);
    return status;
}

static bool recognise(const char *text, size_t length)
{
    return length > 0 && strchr("-0123456789", text[0]) != NULL &&
           ep_trace_first_line_has(text, length, "\t\t");
}

const struct ep_trace_format ep_trace_esft = {
    .name = "esft",
    .summary = "ESFT text: ids, two tabs, weights; esft:TOP_K where a line holds several tokens",
    .recognise = recognise,
    .read = read,
    .has_params = true,
};
