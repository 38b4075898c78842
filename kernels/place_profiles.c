/* SPDX-License-Identifier: Apache-2.0 */
/* Reading tables of counts into profiles, and drawing tokens from these. */
#include "kernels/place_profiles.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "base/options.h"
#include "base/random.h"
#include "kernels/count_sampler.h"
#include "kernels/placement.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_LIMIT_BYTES ((int64_t)256 << 20)
#define MAX_COUNT         1e15
#define MAX_ENTRIES       ((int64_t)1 << 27)

static const char *const similarity_names[EP_PLACE_NUM_SIMILARITIES] = {
    [EP_PLACE_COACTIVATION] = "coactivation",
    [EP_PLACE_DOMAINS] = "domains",
    [EP_PLACE_LAYERS] = "layers",
};

static const char *const built_in[EP_PLACE_NUM_SIMILARITIES] = {
    [EP_PLACE_DOMAINS] = "kernels/data/routing_counts_olmoe_mixtral.csv",
    [EP_PLACE_LAYERS] = "kernels/data/routing_crosslayer_mixtral.csv",
};

const char *ep_place_similarity_name(enum ep_place_similarity similarity)
{
    return similarity_names[similarity];
}

enum ep_status ep_place_similarity_parse(const char *text, const char *what,
                                         enum ep_place_similarity *similarity)
{
    for (int i = 0; i < EP_PLACE_NUM_SIMILARITIES; i++) {
        if (strcmp(similarity_names[i], text) == 0) {
            *similarity = (enum ep_place_similarity)i;
            return EP_OK;
        }
    }
    const char *nearest = ep_options_nearest(text, similarity_names, EP_PLACE_NUM_SIMILARITIES);
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "%s: unknown '%s'; did you mean '%s'?", what, text,
                              nearest)
               : ep_error_set(EP_EINVAL, "%s: '%s' is none of coactivation, domains, layers", what,
                              text);
}

/* --- reading ------------------------------------------------------------------------------- */

/* Where things are in a row; -1 = no such column in this table. */
struct columns {
    int64_t model;
    int64_t top_k;
    int64_t domain;
    int64_t layer; /* of the experts that are placed */
    int64_t expert;
    int64_t from; /* expert of the other layer */
    int64_t count;
};

struct entry {
    int64_t line;
    int64_t domain;
    int64_t from;
    int64_t expert;
    double count;
};

struct reading {
    struct ep_csv csv;
    const struct ep_place_profiles_choice *choice;
    char *model;   /* of the first row kept */
    int64_t layer; /* the same */
    int64_t top_k;
    char **domains; /* [num_domains] in the order they come */
    int64_t num_domains;
    struct entry *entries; /* [num] */
    int64_t num;
    int64_t capacity;
    int64_t max_from;
    int64_t max_expert;
};

static void release(struct reading *r)
{
    for (int64_t i = 0; i < r->num_domains; i++) {
        free(r->domains[i]);
    }
    free(r->domains);
    free(r->model);
    free(r->entries);
}

static enum ep_status no_memory(const struct reading *r)
{
    return ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " rows", r->csv.name, r->num);
}

static enum ep_status find_column(const struct ep_csv *csv, const char *name, int64_t *column)
{
    *column = ep_csv_find_column(csv, name);
    return *column >= 0 ? EP_OK
                        : ep_error_set(EP_EINVAL, "%s:1: column '%s' is missing", csv->name, name);
}

/* A pair of layers is read from its end (experts of layer_b after those of layer_a) or its
 * beginning. */
static enum ep_status find_columns(const struct ep_csv *csv, enum ep_place_similarity similarity,
                                   bool from_end, struct columns *c)
{
    enum ep_status status;
    const bool pairs = similarity == EP_PLACE_LAYERS;
    *c = (struct columns){.top_k = -1, .from = -1};
    EP_TRY(find_column(csv, "model", &c->model));
    EP_TRY(find_column(csv, "domain", &c->domain));
    if (pairs) {
        EP_TRY(find_column(csv, from_end ? "layer_b" : "layer_a", &c->layer));
        EP_TRY(find_column(csv, from_end ? "expert_b" : "expert_a", &c->expert));
        EP_TRY(find_column(csv, from_end ? "expert_a" : "expert_b", &c->from));
        EP_TRY(find_column(csv, "count", &c->count));
    } else {
        EP_TRY(find_column(csv, "top_k", &c->top_k));
        EP_TRY(find_column(csv, "layer", &c->layer));
        EP_TRY(find_column(csv, "expert", &c->expert));
        EP_TRY(find_column(csv, "count_topk", &c->count));
    }
out:
    return status;
}

/* Is the row one of those meant? The first row's model and layer, where none is said. */
static enum ep_status choose_row(struct reading *r, const struct columns *c, bool *wanted)
{
    enum ep_status status;
    const char *model = r->csv.fields[c->model];
    int64_t layer = 0;
    EP_TRY(ep_csv_get_i64(&r->csv, c->layer, 0, INT32_MAX, &layer));
    *wanted = (r->choice->model == NULL || strcmp(r->choice->model, model) == 0) &&
              (r->choice->layer < 0 || r->choice->layer == layer);
    if (*wanted && r->model == NULL) {
        r->model = strdup(model);
        r->layer = layer;
        status = r->model != NULL ? EP_OK : no_memory(r);
    } else if (*wanted && strcmp(r->model, model) != 0) {
        status = ep_error_set(EP_EINVAL,
                              "%s:%" PRId64 ": model %s after %s; say which with --profiles-model",
                              r->csv.name, r->csv.line, model, r->model);
    } else if (*wanted && r->layer != layer) {
        status = ep_error_set(EP_EINVAL,
                              "%s:%" PRId64 ": layer %" PRId64 " after %" PRId64
                              "; say which with --profiles-layer",
                              r->csv.name, r->csv.line, layer, r->layer);
    }
out:
    return status;
}

static enum ep_status find_domain(struct reading *r, const char *name, int64_t *domain)
{
    for (*domain = 0; *domain < r->num_domains; (*domain)++) {
        if (strcmp(r->domains[*domain], name) == 0) {
            return EP_OK;
        }
    }
    char **grown = realloc(r->domains, (size_t)(r->num_domains + 1) * sizeof *r->domains);
    if (grown == NULL) {
        return no_memory(r);
    }
    r->domains = grown;
    r->domains[r->num_domains] = strdup(name);
    return r->domains[r->num_domains] != NULL ? (r->num_domains++, EP_OK) : no_memory(r);
}

static enum ep_status add_row(struct reading *r, const struct columns *c)
{
    enum ep_status status;
    struct entry entry = {.line = r->csv.line};
    int64_t top_k = 0;
    EP_TRY(find_domain(r, r->csv.fields[c->domain], &entry.domain));
    EP_TRY(ep_csv_get_i64(&r->csv, c->expert, 0, EP_MAX_EXPERTS - 1, &entry.expert));
    EP_TRY(ep_csv_get_f64(&r->csv, c->count, 0, MAX_COUNT, &entry.count));
    if (c->from >= 0) {
        EP_TRY(ep_csv_get_i64(&r->csv, c->from, 0, EP_MAX_EXPERTS - 1, &entry.from));
    }
    if (c->top_k >= 0) {
        EP_TRY(ep_csv_get_i64(&r->csv, c->top_k, 1, EP_MAX_EXPERTS, &top_k));
        if (r->num > 0 && top_k != r->top_k) {
            status = ep_error_set(EP_EINVAL, "%s:%" PRId64 ": top_k %" PRId64 " after %" PRId64,
                                  r->csv.name, r->csv.line, top_k, r->top_k);
            goto out;
        }
        r->top_k = top_k;
    }
    if (r->num == r->capacity) {
        const int64_t larger = r->capacity > 0 ? 2 * r->capacity : 1024;
        struct entry *grown = realloc(r->entries, (size_t)larger * sizeof *grown);
        if (grown == NULL) {
            status = no_memory(r);
            goto out;
        }
        r->entries = grown;
        r->capacity = larger;
    }
    r->entries[r->num++] = entry;
    r->max_from = entry.from > r->max_from ? entry.from : r->max_from;
    r->max_expert = entry.expert > r->max_expert ? entry.expert : r->max_expert;
out:
    return status;
}

static enum ep_status open_table(enum ep_place_similarity similarity, const char *path,
                                 struct ep_csv *csv)
{
    if (path != NULL) {
        return ep_csv_open(path, TABLE_LIMIT_BYTES, csv);
    }
    const struct ep_embedded *file = ep_embedded_find(built_in[similarity]);
    if (file == NULL) {
        return ep_error_set(EP_EENV,
                            "this build has no table of %s (%s); --profiles FILE is needed",
                            similarity_names[similarity], built_in[similarity]);
    }
    return ep_csv_init(file->path, (const char *)file->data, file->size_bytes, csv);
}

static enum ep_status read_table(enum ep_place_similarity similarity, bool from_end,
                                 struct reading *r)
{
    enum ep_status status;
    struct columns columns;
    int more = 0;
    EP_TRY(open_table(similarity, r->choice->path, &r->csv));
    EP_TRY(ep_csv_read_header(&r->csv));
    EP_TRY(find_columns(&r->csv, similarity, from_end, &columns));
    EP_TRY(ep_csv_next(&r->csv, &more));
    while (more) {
        bool wanted = false;
        EP_TRY(choose_row(r, &columns, &wanted));
        if (wanted) {
            EP_TRY(add_row(r, &columns));
        }
        EP_TRY(ep_csv_next(&r->csv, &more));
    }
out:
    ep_csv_fini(&r->csv);
    return status;
}

/* --- profiles ------------------------------------------------------------------------------ */

static enum ep_status fill_profiles(const struct reading *r, const char *name,
                                    struct ep_place_profiles *p)
{
    const int64_t per_domain = r->max_from + 1;
    p->top_k = r->top_k;
    p->num_experts = r->max_expert + 1;
    p->num_classes = r->num_domains * per_domain;
    if (p->num_classes > MAX_ENTRIES / p->num_experts) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " classes of %" PRId64 " experts are too many", name,
                            p->num_classes, p->num_experts);
    }
    const size_t num = (size_t)(p->num_classes * p->num_experts);
    bool *seen = calloc(num, sizeof *seen);
    p->weight = calloc(num, sizeof *p->weight);
    enum ep_status status = p->weight != NULL && seen != NULL
                                ? EP_OK
                                : ep_error_set(EP_ENOMEM, "%s: no memory for profiles", name);
    double sum = 0;
    for (int64_t i = 0; i < r->num && status == EP_OK; i++) {
        const struct entry *e = &r->entries[i];
        const int64_t place = (e->domain * per_domain + e->from) * p->num_experts + e->expert;
        if (seen[place]) {
            status =
                ep_error_set(EP_EINVAL, "%s:%" PRId64 ": this entry came before", name, e->line);
        }
        seen[place] = true;
        p->weight[place] = e->count;
        sum += e->count;
    }
    free(seen);
    if (status == EP_OK && !(sum > 0)) {
        status = ep_error_set(EP_EINVAL, "%s: all its counts are 0", name);
    }
    return status;
}

enum ep_status ep_place_profiles_load(enum ep_place_similarity similarity,
                                      const struct ep_place_profiles_choice *choice,
                                      struct ep_place_profiles *profiles)
{
    enum ep_status status;
    const char *name = choice->path != NULL ? choice->path : built_in[similarity];
    struct reading r = {.choice = choice};
    struct ep_place_profiles made = {0};
    EP_ASSERT(similarity == EP_PLACE_DOMAINS || similarity == EP_PLACE_LAYERS);
    EP_TRY(read_table(similarity, true, &r));
    if (r.num == 0 && similarity == EP_PLACE_LAYERS) {
        EP_TRY(read_table(similarity, false, &r));
    }
    if (r.num == 0) {
        status = ep_error_set(EP_EINVAL, "%s: has no row of the model and layer asked for", name);
        goto out;
    }
    EP_TRY(fill_profiles(&r, name, &made));
    *profiles = made;
    made = (struct ep_place_profiles){0};
out:
    release(&r);
    ep_place_profiles_fini(&made);
    return status;
}

void ep_place_profiles_fini(struct ep_place_profiles *profiles)
{
    free(profiles->weight);
    *profiles = (struct ep_place_profiles){0};
}

/* --- drawing ------------------------------------------------------------------------------- */

/* How tokens of a class choose: experts with so large a share that every token has them, then a
 * draw from the others. */
struct chooser {
    int32_t *certain; /* [num_certain] */
    int64_t num_certain;
    int64_t num_drawn;
    struct ep_count_sampler *sampler; /* NULL where num_drawn is 0 */
};

static void release_chooser(struct chooser *c)
{
    free(c->certain);
    ep_count_sampler_destroy(c->sampler);
    *c = (struct chooser){0};
}

static int64_t find_heaviest(const double *rest, int64_t num_experts)
{
    int64_t heaviest = 0;
    for (int64_t e = 1; e < num_experts; e++) {
        heaviest = rest[e] > rest[heaviest] ? e : heaviest;
    }
    return heaviest;
}

/* An expert of one token in `left` or more comes to every token; then the next one is asked, for
 * what is left. rest [num_experts]: the class's weights, 0 where certain on return. */
static enum ep_status make_chooser(double *rest, int64_t num_experts, int64_t top_k,
                                   struct chooser *c)
{
    int64_t left = top_k;
    double sum = 0;
    for (int64_t e = 0; e < num_experts; e++) {
        sum += rest[e];
    }
    *c = (struct chooser){.certain = malloc((size_t)top_k * sizeof *c->certain)};
    if (c->certain == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to draw tokens");
    }
    while (left > 0 && sum > 0) {
        const int64_t e = find_heaviest(rest, num_experts);
        if (rest[e] * (double)left < sum) {
            break;
        }
        c->certain[c->num_certain++] = (int32_t)e;
        rest[e] = 0;
        left--;
        sum = 0;
        for (int64_t i = 0; i < num_experts; i++) {
            sum += rest[i];
        }
    }
    c->num_drawn = sum > 0 ? left : 0;
    return c->num_drawn > 0 ? ep_count_sampler_create(rest, num_experts, c->num_drawn,
                                                      "a class of the profiles", &c->sampler)
                            : EP_OK;
}

static void choose(const struct chooser *c, int64_t top_k, uint64_t seed, int64_t token,
                   int32_t *experts)
{
    memcpy(experts, c->certain, (size_t)c->num_certain * sizeof *experts);
    if (c->num_drawn > 0) {
        struct ep_random random;
        ep_random_init(&random, seed, EP_RANDOM_ROUTING, (uint64_t)token);
        ep_count_sampler_draw(c->sampler, &random, experts + c->num_certain);
    }
    for (int64_t i = c->num_certain + c->num_drawn; i < top_k; i++) {
        experts[i] = -1;
    }
}

static double sum_class(const struct ep_place_profiles *p, int64_t class_idx)
{
    double sum = 0;
    for (int64_t e = 0; e < p->num_experts; e++) {
        sum += p->weight[class_idx * p->num_experts + e];
    }
    return sum;
}

enum ep_status ep_place_profiles_draw(const struct ep_place_profiles *profiles, int64_t num_tokens,
                                      int64_t top_k, uint64_t seed, int32_t *topk_idx)
{
    enum ep_status status = EP_OK;
    const size_t row = (size_t)profiles->num_experts * sizeof(double);
    struct chooser chooser = {0};
    double *rest = malloc(row);
    double all = 0;
    double end = 0; /* copies of all classes up to this one */
    int64_t t = 0;
    if (rest == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to draw tokens");
    }
    for (int64_t c = 0; c < profiles->num_classes; c++) {
        all += sum_class(profiles, c);
    }
    for (int64_t c = 0; c < profiles->num_classes; c++) {
        end += sum_class(profiles, c);
        const bool last = c == profiles->num_classes - 1;
        const int64_t until = last ? num_tokens : (int64_t)((double)num_tokens * (end / all) + 0.5);
        memcpy(rest, profiles->weight + c * profiles->num_experts, row);
        if (t < until) {
            EP_TRY(make_chooser(rest, profiles->num_experts, top_k, &chooser));
        }
        for (; t < until; t++) {
            choose(&chooser, top_k, seed, t, topk_idx + t * top_k);
        }
        release_chooser(&chooser);
    }
out:
    release_chooser(&chooser);
    free(rest);
    return status;
}
