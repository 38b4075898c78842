/* SPDX-License-Identifier: Apache-2.0 */
/* The counts built in, and tokens drawn from counts. */
#include "kernels/counts.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "base/units.h"
#include "kernels/count_sampler.h"
#include "kernels/placement.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char table_path[] = "kernels/data/routing_counts_olmoe_mixtral.csv";

/* Names of the file that the model zoo has shorter. */
static const struct {
    const char *file;
    const char *zoo;
} aliases[] = {{"olmoe-1b-7b-0924", "olmoe-1b-7b"}};

static const char *zoo_name(const char *name)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (strcmp(name, aliases[i].file) == 0) {
            return aliases[i].zoo;
        }
    }
    return name;
}

/* --- reading the table ----------------------------------------------------------------------- */

enum { MODEL, TOP_K, DOMAIN, LAYER, EXPERT, TOKENS, TOP_1, NUM_COLUMNS };
static const char *const columns[NUM_COLUMNS] = {"model",  "top_k",      "domain",    "layer",
                                                 "expert", "count_topk", "count_top1"};

static enum ep_status check_header(const struct ep_csv *csv)
{
    bool right = csv->num_columns == NUM_COLUMNS;
    for (int c = 0; right && c < NUM_COLUMNS; c++) {
        right = strcmp(csv->header[c], columns[c]) == 0;
    }
    return right ? EP_OK
                 : ep_error_set(EP_EINVAL,
                                "%s:1: header is not model,top_k,domain,layer,expert,count_topk,"
                                "count_top1",
                                csv->name);
}

/* realloc for one more of `size` bytes; NULL where there is no memory. */
static void *grow(void *items, int64_t num, size_t size)
{
    return realloc(items, (size_t)(num + 1) * size);
}

static enum ep_status add_model(struct ep_counts *c, const char *name, int64_t top_k,
                                int64_t *index)
{
    for (int64_t m = 0; m < c->num_models; m++) {
        if (strcmp(c->models[m].name, zoo_name(name)) == 0) {
            *index = m;
            return EP_OK;
        }
    }
    struct ep_counts_model *models = grow(c->models, c->num_models, sizeof *models);
    char *copy = strdup(zoo_name(name));
    c->models = models != NULL ? models : c->models;
    if (models == NULL || copy == NULL) {
        free(copy);
        return ep_error_set(EP_ENOMEM, "no memory for counts");
    }
    models[c->num_models] = (struct ep_counts_model){.name = copy, .top_k = top_k};
    *index = c->num_models++;
    return EP_OK;
}

static enum ep_status add_domain(struct ep_counts *c, const char *name, int64_t *index)
{
    for (int64_t d = 0; d < c->num_domains; d++) {
        if (strcmp(c->domains[d], name) == 0) {
            *index = d;
            return EP_OK;
        }
    }
    char **domains = grow(c->domains, c->num_domains, sizeof *domains);
    char *copy = strdup(name);
    c->domains = domains != NULL ? domains : c->domains;
    if (domains == NULL || copy == NULL) {
        free(copy);
        return ep_error_set(EP_ENOMEM, "no memory for counts");
    }
    domains[c->num_domains] = copy;
    *index = c->num_domains++;
    return EP_OK;
}

/* One row of the file. */
struct table_row {
    int64_t model;
    int64_t domain;
    int64_t layer;
    int64_t expert;
    double tokens;
};

static enum ep_status read_row(const struct ep_csv *csv, struct ep_counts *c,
                               struct table_row *row)
{
    enum ep_status status;
    int64_t top_k = 0;
    EP_TRY(ep_csv_get_i64(csv, TOP_K, 1, EP_MAX_EXPERTS, &top_k));
    EP_TRY(ep_csv_get_i64(csv, LAYER, 0, INT32_MAX, &row->layer));
    EP_TRY(ep_csv_get_i64(csv, EXPERT, 0, EP_MAX_EXPERTS - 1, &row->expert));
    EP_TRY(ep_csv_get_f64(csv, TOKENS, 0, 0x1p53, &row->tokens));
    EP_TRY(add_model(c, csv->fields[MODEL], top_k, &row->model));
    EP_TRY(add_domain(c, csv->fields[DOMAIN], &row->domain));
    if (c->models[row->model].top_k != top_k) {
        status = ep_error_set(EP_EINVAL, "%s:%" PRId64 ": top_k %" PRId64 "; %" PRId64
                              " expected, as before", csv->name, csv->line, top_k,
                              c->models[row->model].top_k);
    }
out:
    return status;
}

static enum ep_status refuse_again(const struct ep_csv *csv, const struct table_row *row,
                                   const struct ep_counts *c)
{
    for (int64_t i = 0; i < c->num_cells; i++) {
        const struct ep_counts_cell *cell = &c->cells[i];
        if (cell->model == row->model && cell->domain == row->domain &&
            cell->layer == row->layer) {
            return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": layer %" PRId64 " of %s, %s comes again;"
                                " its rows must stand together", csv->name, csv->line, row->layer,
                                c->models[row->model].name, c->domains[row->domain]);
        }
    }
    return EP_OK;
}

/* A cell begins at expert 0 and goes on expert by expert. */
static enum ep_status add_count(const struct ep_csv *csv, const struct table_row *row,
                                struct ep_counts *c, int64_t *num)
{
    const struct ep_counts_cell *last = c->num_cells > 0 ? &c->cells[c->num_cells - 1] : NULL;
    const bool same = last != NULL && last->model == row->model && last->domain == row->domain &&
                      last->layer == row->layer;
    if (row->expert != (same ? *num : 0)) {
        return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": expert %" PRId64 "; %" PRId64 " expected",
                            csv->name, csv->line, row->expert, same ? *num : 0);
    }
    if (!same) {
        const enum ep_status status = refuse_again(csv, row, c);
        if (status != EP_OK) {
            return status;
        }
        struct ep_counts_cell *cells = grow(c->cells, c->num_cells, sizeof *cells);
        if (cells == NULL) {
            return ep_error_set(EP_ENOMEM, "no memory for counts");
        }
        c->cells = cells;
        cells[c->num_cells++] = (struct ep_counts_cell){
            .model = row->model, .domain = row->domain, .layer = row->layer};
        *num = 0;
    }
    struct ep_counts_cell *cell = &c->cells[c->num_cells - 1];
    double *tokens = grow(cell->tokens, *num, sizeof *tokens);
    if (tokens == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for counts");
    }
    cell->tokens = tokens;
    tokens[(*num)++] = row->tokens;
    return EP_OK;
}

/* All cells of a model have the same experts. */
static enum ep_status close_cell(const struct ep_csv *csv, struct ep_counts *c, int64_t num)
{
    if (c->num_cells == 0) {
        return EP_OK;
    }
    struct ep_counts_model *model = &c->models[c->cells[c->num_cells - 1].model];
    if (model->num_experts != 0 && model->num_experts != num) {
        return ep_error_set(EP_EINVAL, "%s:%" PRId64 ": %" PRId64 " experts of %s before this row; "
                            "%" PRId64 " expected", csv->name, csv->line, num, model->name,
                            model->num_experts);
    }
    model->num_experts = num;
    return EP_OK;
}

static enum ep_status read_table(struct ep_csv *csv, struct ep_counts *c)
{
    enum ep_status status;
    int more = 0;
    int64_t num = 0;
    EP_TRY(ep_csv_read_header(csv));
    EP_TRY(check_header(csv));
    EP_TRY(ep_csv_next(csv, &more));
    while (more) {
        struct table_row row = {0};
        EP_TRY(read_row(csv, c, &row));
        if (row.expert == 0) {
            EP_TRY(close_cell(csv, c, num));
        }
        EP_TRY(add_count(csv, &row, c, &num));
        EP_TRY(ep_csv_next(csv, &more));
    }
    EP_TRY(close_cell(csv, c, num));
    if (c->num_cells == 0) {
        status = ep_error_set(EP_EINVAL, "%s: has no rows", csv->name);
    }
out:
    return status;
}

enum ep_status ep_counts_create_from_text(const char *name, const char *text, size_t length,
                                          struct ep_counts **counts)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    struct ep_counts *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for counts");
    }
    EP_TRY(ep_csv_init(name, text, length, &csv));
    EP_TRY(read_table(&csv, made));
    *counts = made;
    made = NULL;
out:
    ep_csv_fini(&csv);
    ep_counts_destroy(made);
    return status;
}

enum ep_status ep_counts_create(struct ep_counts **counts)
{
    const struct ep_embedded *file = ep_embedded_find(table_path);
    return file != NULL ? ep_counts_create_from_text(table_path, (const char *)file->data,
                                                     file->size_bytes, counts)
                        : ep_error_set(EP_EENV, "this build has no %s", table_path);
}

void ep_counts_destroy(struct ep_counts *counts)
{
    if (counts == NULL) {
        return;
    }
    for (int64_t m = 0; m < counts->num_models; m++) {
        free(counts->models[m].name);
    }
    for (int64_t d = 0; d < counts->num_domains; d++) {
        free(counts->domains[d]);
    }
    for (int64_t i = 0; i < counts->num_cells; i++) {
        free(counts->cells[i].tokens);
    }
    free(counts->models);
    free(counts->domains);
    free(counts->cells);
    free(counts);
}

/* --- one of them by name --------------------------------------------------------------------- */

/* "MODEL/DOMAIN[/LAYER]" in parts. */
struct wanted {
    char *model;
    char *domain;
    char *layer; /* NULL = none */
};

/* In place; a part that is missing is NULL. */
static struct wanted split(char *text)
{
    struct wanted wanted = {.model = text};
    wanted.domain = strchr(text, '/');
    if (wanted.domain != NULL) {
        *wanted.domain++ = '\0';
        wanted.layer = strchr(wanted.domain, '/');
    }
    if (wanted.layer != NULL) {
        *wanted.layer++ = '\0';
    }
    return wanted;
}

static int64_t find_model(const struct ep_counts *c, const char *name, size_t length)
{
    for (int64_t m = 0; m < c->num_models; m++) {
        if (strlen(c->models[m].name) == length &&
            strncmp(c->models[m].name, name, length) == 0) {
            return m;
        }
    }
    return -1;
}

bool ep_counts_is_built_in(const char *text)
{
    struct ep_counts *counts = NULL;
    const size_t length = strcspn(text, "/");
    const bool known = text[length] == '/' && ep_counts_create(&counts) == EP_OK &&
                       find_model(counts, text, length) >= 0;
    ep_counts_destroy(counts);
    return known;
}

/* The names or layers that `model` has counts of, once each, as a list. */
static void list_what_there_is(const struct ep_counts *c, int64_t model, int64_t domain,
                               char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < c->num_cells && used < size; i++) {
        const struct ep_counts_cell *cell = &c->cells[i];
        bool first = cell->model == model && (domain < 0 || cell->domain == domain);
        for (int64_t j = 0; j < i && first; j++) {
            const struct ep_counts_cell *before = &c->cells[j];
            first = before->model != model ||
                    (domain < 0 ? before->domain != cell->domain
                                : before->domain != domain || before->layer != cell->layer);
        }
        if (first) {
            const char *join = used > 0 ? ", " : "";
            const int put = domain < 0 ? snprintf(text + used, size - used, "%s%s", join,
                                                  c->domains[cell->domain])
                                       : snprintf(text + used, size - used, "%s%" PRId64, join,
                                                  cell->layer);
            used += put > 0 ? (size_t)put : 0;
        }
    }
}

/* Index of the domain that `model` has; num_domains = all of them; -1 = none of that name. */
static int64_t find_domain(const struct ep_counts *c, int64_t model, const char *name)
{
    if (name != NULL && strcmp(name, "all") == 0) {
        return c->num_domains;
    }
    for (int64_t i = 0; name != NULL && i < c->num_cells; i++) {
        if (c->cells[i].model == model && strcmp(c->domains[c->cells[i].domain], name) == 0) {
            return c->cells[i].domain;
        }
    }
    return -1;
}

/* Add up what is wanted; EP_EINVAL where no cell is. */
static enum ep_status sum_cells(const struct ep_counts *c, int64_t model, int64_t domain,
                                const char *text, struct ep_trace *trace)
{
    bool found = false;
    char list[300];
    const int64_t listed = domain < c->num_domains ? domain : c->cells[0].domain;
    for (int64_t i = 0; i < c->num_cells; i++) {
        const struct ep_counts_cell *cell = &c->cells[i];
        const bool wanted = cell->model == model && cell->layer == trace->layer &&
                            (domain == c->num_domains || cell->domain == domain);
        for (int64_t e = 0; wanted && e < trace->num_experts; e++) {
            trace->counts[e] += cell->tokens[e];
        }
        found = found || wanted;
    }
    list_what_there_is(c, model, listed, list, sizeof list);
    return found                ? EP_OK
           : trace->layer < 0
               ? ep_error_set(EP_EINVAL, "counts:%s: has layers %s; choose one: MODEL/DOMAIN/LAYER "
                              "or --layer", text, list)
               : ep_error_set(EP_EINVAL, "counts:%s: no layer %" PRId64 "; layers %s are there",
                              text, trace->layer, list);
}

static enum ep_status load_built_in(const struct ep_counts *c, const char *text,
                                    const struct wanted *wanted,
                                    const struct ep_trace_options *options, struct ep_trace *trace)
{
    enum ep_status status = EP_OK;
    char list[300];
    const int64_t model = find_model(c, wanted->model, strlen(wanted->model));
    const int64_t domain = find_domain(c, model, wanted->domain);
    if (domain < 0) {
        list_what_there_is(c, model, -1, list, sizeof list);
        return ep_error_set(EP_EINVAL, "counts:%s: no such domain; %s or all expected", text,
                            list);
    }
    trace->layer = options->layer;
    if (wanted->layer != NULL) {
        EP_TRY(ep_parse_i64(wanted->layer, "layer of counts:MODEL/DOMAIN/LAYER", 0, INT32_MAX,
                            &trace->layer));
    }
    trace->format = "counts";
    trace->num_experts = c->models[model].num_experts;
    trace->top_k = c->models[model].top_k;
    trace->fan_out_sampled = true;
    if (options->num_experts > 0 && options->num_experts != trace->num_experts) {
        return ep_error_set(EP_EINVAL, "counts:%s: has %" PRId64 " experts; %" PRId64 " expected",
                            text, trace->num_experts, options->num_experts);
    }
    trace->name = strdup(text);
    trace->counts = calloc((size_t)trace->num_experts, sizeof *trace->counts);
    if (trace->name == NULL || trace->counts == NULL) {
        return ep_error_set(EP_ENOMEM, "counts:%s: no memory", text);
    }
    status = sum_cells(c, model, domain, text, trace);
out:
    return status;
}

enum ep_status ep_counts_load_built_in(const char *text, const struct ep_trace_options *options,
                                       struct ep_trace **trace)
{
    enum ep_status status;
    struct ep_counts *counts = NULL;
    struct ep_trace *made = calloc(1, sizeof *made);
    char *copy = strdup(text);
    if (made == NULL || copy == NULL) {
        status = ep_error_set(EP_ENOMEM, "counts:%s: no memory", text);
        goto out;
    }
    EP_TRY(ep_counts_create(&counts));
    const struct wanted wanted = split(copy);
    EP_TRY(load_built_in(counts, text, &wanted, options, made));
    *trace = made;
    made = NULL;
out:
    ep_trace_destroy(made);
    ep_counts_destroy(counts);
    free(copy);
    return status;
}

/* --- tokens from counts ---------------------------------------------------------------------- */

static enum ep_status allocate_tokens(const struct ep_trace *counts, int64_t num, int64_t top_k,
                                      struct ep_trace *made)
{
    made->name = strdup(counts->name);
    made->format = counts->format;
    made->num_tokens = num;
    made->num_experts = counts->num_experts;
    made->top_k = top_k;
    made->layer = counts->layer;
    made->fan_out_sampled = true;
    made->token_id = malloc((size_t)num * sizeof *made->token_id);
    made->line = malloc((size_t)num * sizeof *made->line);
    made->topk_idx = malloc((size_t)(num * top_k) * sizeof *made->topk_idx);
    return made->name != NULL && made->token_id != NULL && made->line != NULL &&
                   made->topk_idx != NULL
               ? EP_OK
               : ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " tokens", counts->name, num);
}

enum ep_status ep_counts_draw_trace(const struct ep_trace *counts, int64_t top_k, uint64_t seed,
                                    struct ep_trace **trace)
{
    EP_ASSERT(counts->counts != NULL && top_k >= 1);
    enum ep_status status;
    struct ep_count_sampler *sampler = NULL;
    struct ep_trace *made = calloc(1, sizeof *made);
    double sum = 0;
    for (int64_t e = 0; e < counts->num_experts; e++) {
        sum += counts->counts[e];
    }
    const double num = fmax(1, nearbyint(sum / (double)top_k));
    if (num * (double)top_k * sizeof(int32_t) > (double)EP_TRACE_LIMIT_BYTES) {
        status = ep_error_set(EP_EINVAL,
                              "%s: counts of %.0f tokens; more than 1 GiB of them are not drawn: "
                              "use --skew trace:FILE with --tokens",
                              counts->name, num);
        goto out;
    }
    if (made == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", counts->name);
        goto out;
    }
    EP_TRY(ep_count_sampler_create(counts->counts, counts->num_experts, top_k, counts->name,
                                   &sampler));
    EP_TRY(allocate_tokens(counts, (int64_t)num, top_k, made));
    for (int64_t t = 0; t < made->num_tokens; t++) {
        struct ep_random random;
        ep_random_init(&random, seed, EP_RANDOM_ROUTING, (uint64_t)t);
        ep_count_sampler_draw(sampler, &random, made->topk_idx + t * top_k);
        made->token_id[t] = t;
        made->line[t] = t + 1;
    }
    *trace = made;
    made = NULL;
out:
    ep_count_sampler_destroy(sampler);
    ep_trace_destroy(made);
    return status;
}
