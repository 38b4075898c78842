/* SPDX-License-Identifier: Apache-2.0 */
/* Reading models by a table of their columns, from CSV or JSON, and finding one by name. */
#include "kernels/models.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "base/file.h"
#include "base/json.h"
#include "base/options.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char zoo_path[] = "kernels/data/model_zoo.csv";

enum { FILE_LIMIT_BYTES = 16 << 20, MAX_COLUMNS = 64, MAX_MODELS = 100000 };

#define FIELD(member) ((int)offsetof(struct ep_model, member))

static const struct ep_model_column columns[] = {
    {"name", EP_MODEL_TEXT, true, FIELD(name)},
    {"hidden", EP_MODEL_COUNT, true, FIELD(hidden)},
    {"expert_ffn", EP_MODEL_COUNT_OR_ZERO, true, FIELD(expert_ffn)},
    {"n_routed", EP_MODEL_COUNT_OR_ZERO, true, FIELD(num_experts)},
    {"top_k", EP_MODEL_COUNT_OR_ZERO, true, FIELD(top_k)},
    {"n_shared", EP_MODEL_COUNT_OR_ZERO, false, FIELD(num_shared)},
    {"shared_ffn_total", EP_MODEL_COUNT_OR_ZERO, false, FIELD(shared_ffn_total)},
    {"n_layers", EP_MODEL_COUNT, true, FIELD(num_layers)},
    {"n_moe_layers", EP_MODEL_COUNT_OR_ZERO, true, FIELD(num_moe_layers)},
    {"gated", EP_MODEL_FLAG, true, FIELD(gated)},
    {"weight_dtype", EP_MODEL_TEXT, false, FIELD(weight_dtype)},
    {"router", EP_MODEL_TEXT, false, FIELD(router)},
    {"n_group", EP_MODEL_COUNT_OR_ZERO, false, FIELD(num_groups)},
    {"topk_group", EP_MODEL_COUNT_OR_ZERO, false, FIELD(topk_groups)},
    {"route_scale", EP_MODEL_REAL_OR_NAN, false, FIELD(route_scale)},
    {"published_total_B", EP_MODEL_REAL_OR_NAN, false, FIELD(published_total_b)},
    {"published_active_B", EP_MODEL_REAL_OR_NAN, false, FIELD(published_active_b)},
    {"routed_expert_params_B", EP_MODEL_REAL_OR_NAN, false, FIELD(routed_expert_b)},
    {"active_routed_params_per_token_B", EP_MODEL_REAL_OR_NAN, false, FIELD(active_routed_b)},
    {"source", EP_MODEL_TEXT, false, FIELD(source)},
    {"confidence", EP_MODEL_TEXT, false, FIELD(confidence)},
    {"other_claims", EP_MODEL_TEXT, false, FIELD(other_claims)},
    {"dense_ffn", EP_MODEL_COUNT_OR_ZERO, false, FIELD(dense_ffn)},
    {"n_heads", EP_MODEL_COUNT_OR_ZERO, false, FIELD(num_heads)},
    {"n_kv_heads", EP_MODEL_COUNT_OR_ZERO, false, FIELD(num_kv_heads)},
    {"heads_source", EP_MODEL_TEXT, false, FIELD(heads_source)},
};

enum { NUM_COLUMNS = sizeof columns / sizeof columns[0] };

const struct ep_model_column *ep_model_column_at(int idx)
{
    return idx < NUM_COLUMNS ? &columns[idx] : NULL;
}

static const struct ep_model_column *find_column(const char *name)
{
    for (int i = 0; i < NUM_COLUMNS; i++) {
        if (strcmp(columns[i].name, name) == 0) {
            return &columns[i];
        }
    }
    return NULL;
}

static enum ep_status unknown_column(const char *where, const char *name)
{
    const char *names[NUM_COLUMNS];
    for (int i = 0; i < NUM_COLUMNS; i++) {
        names[i] = columns[i].name;
    }
    const char *nearest = ep_options_nearest(name, names, NUM_COLUMNS);
    return nearest != NULL ? ep_error_set(EP_EINVAL, "%s: unknown column '%s'; did you mean '%s'?",
                                          where, name, nearest)
                           : ep_error_set(EP_EINVAL, "%s: unknown column '%s'", where, name);
}

/* Every field absent: counts 0, reals NaN, texts empty. */
static void clear_model(struct ep_model *model)
{
    *model = (struct ep_model){0};
    for (int i = 0; i < NUM_COLUMNS; i++) {
        void *to = (char *)model + columns[i].offset;
        if (columns[i].kind == EP_MODEL_TEXT) {
            *(const char **)to = "";
        } else if (columns[i].kind == EP_MODEL_REAL_OR_NAN) {
            *(double *)to = (double)NAN;
        }
    }
}

static int64_t column_min(enum ep_model_column_kind kind)
{
    return kind == EP_MODEL_COUNT ? 1 : 0;
}

/* --- what must hang together -------------------------------------------------------------- */

static enum ep_status check_experts(const struct ep_model *m, const char *where)
{
    const bool dense = ep_model_is_dense(m);
    if ((m->top_k == 0) != dense || (m->expert_ffn == 0) != dense ||
        (m->num_moe_layers == 0) != dense) {
        return ep_error_set(EP_EINVAL,
                            "%s: n_routed, top_k, expert_ffn and n_moe_layers must be all above 0, "
                            "or all 0 for a dense model",
                            where);
    }
    if (m->top_k > m->num_experts) {
        return ep_error_set(EP_EINVAL, "%s: top_k %" PRId64 " is above n_routed %" PRId64, where,
                            m->top_k, m->num_experts);
    }
    if (dense && (m->num_shared != 0 || m->shared_ffn_total != 0 || m->num_groups != 0)) {
        return ep_error_set(EP_EINVAL, "%s: a model without experts has shared experts or groups",
                            where);
    }
    return EP_OK;
}

static enum ep_status check_routed(const struct ep_model *m, const char *where)
{
    const double routed = (double)m->num_moe_layers * (double)m->num_experts * (m->gated ? 3 : 2) *
                          (double)m->hidden * (double)m->expert_ffn / 1e9;
    const double given = m->routed_expert_b;
    if (!isnan(given) && fabs(given - routed) > 0.005 * (1 + routed)) {
        return ep_error_set(EP_EINVAL,
                            "%s: routed_expert_params_B is %g, but layers x experts x matrices x "
                            "hidden x ffn are %g",
                            where, given, routed);
    }
    return EP_OK;
}

enum ep_status ep_model_check(const struct ep_model *m, const char *where)
{
    enum ep_status status;
    EP_TRY(check_experts(m, where));
    EP_TRY(check_routed(m, where));
    if (m->num_moe_layers > m->num_layers) {
        return ep_error_set(EP_EINVAL, "%s: n_moe_layers %" PRId64 " is above n_layers %" PRId64,
                            where, m->num_moe_layers, m->num_layers);
    }
    if ((m->num_shared == 0) != (m->shared_ffn_total == 0)) {
        return ep_error_set(EP_EINVAL, "%s: n_shared and shared_ffn_total go together", where);
    }
    if (m->num_groups > 0 && m->num_experts % m->num_groups != 0) {
        return ep_error_set(EP_EINVAL, "%s: n_group %" PRId64 " does not divide n_routed %" PRId64,
                            where, m->num_groups, m->num_experts);
    }
    if (m->topk_groups > m->num_groups) {
        return ep_error_set(EP_EINVAL, "%s: topk_group is above n_group", where);
    }
    if (m->name[0] == '\0') {
        return ep_error_set(EP_EINVAL, "%s: the name is empty", where);
    }
out:
    return status;
}

/* A row of its own at the end of the list, with every field absent. */
static enum ep_status add_model(struct ep_models *models, int64_t *capacity)
{
    if (models->num == MAX_MODELS) {
        return ep_error_set(EP_EINVAL, "%s: more than %d models", models->path, MAX_MODELS);
    }
    if (models->num == *capacity) {
        const int64_t wanted = *capacity > 0 ? 2 * *capacity : 32;
        struct ep_model *larger = realloc(models->models, (size_t)wanted * sizeof *larger);
        if (larger == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory for models", models->path);
        }
        models->models = larger;
        *capacity = wanted;
    }
    clear_model(&models->models[models->num++]);
    return EP_OK;
}

/* The last model, read to its end. */
static enum ep_status check_last(const struct ep_models *models, const char *where)
{
    const struct ep_model *last = &models->models[models->num - 1];
    for (const struct ep_model *m = models->models; m < last; m++) {
        if (strcmp(m->name, last->name) == 0) {
            return ep_error_set(EP_EINVAL, "%s: model '%s' comes twice", where, m->name);
        }
    }
    return ep_model_check(last, where);
}

/* --- CSV ---------------------------------------------------------------------------------- */

static enum ep_status read_field(const struct ep_csv *csv, int64_t i,
                                 const struct ep_model_column *column, struct ep_model *model)
{
    void *to = (char *)model + column->offset;
    const bool empty = csv->fields[i][0] == '\0';
    int64_t flag = 0;
    enum ep_status status = EP_OK;
    switch (column->kind) {
    case EP_MODEL_TEXT:
        *(const char **)to = csv->fields[i];
        break;
    case EP_MODEL_COUNT:
    case EP_MODEL_COUNT_OR_ZERO:
        status = empty && !column->required
                     ? EP_OK
                     : ep_csv_get_i64(csv, i, column_min(column->kind), INT32_MAX, to);
        break;
    case EP_MODEL_REAL_OR_NAN:
        status = empty ? EP_OK : ep_csv_get_f64(csv, i, 0, 1e9, to);
        break;
    case EP_MODEL_FLAG:
        status = ep_csv_get_i64(csv, i, 0, 1, &flag);
        *(bool *)to = flag != 0;
        break;
    }
    return status;
}

static enum ep_status check_header(const struct ep_csv *csv,
                                   const struct ep_model_column *of_file[MAX_COLUMNS])
{
    char where[512];
    snprintf(where, sizeof where, "%s:1", csv->name);
    if (csv->num_columns > MAX_COLUMNS) {
        return ep_error_set(EP_EINVAL, "%s: more than %d columns", where, MAX_COLUMNS);
    }
    for (int64_t i = 0; i < csv->num_columns; i++) {
        of_file[i] = find_column(csv->header[i]);
        if (of_file[i] == NULL) {
            return unknown_column(where, csv->header[i]);
        }
        if (ep_csv_find_column(csv, csv->header[i]) != i) {
            return ep_error_set(EP_EINVAL, "%s: column '%s' comes twice", where, csv->header[i]);
        }
    }
    for (int c = 0; c < NUM_COLUMNS; c++) {
        if (columns[c].required && ep_csv_find_column(csv, columns[c].name) < 0) {
            return ep_error_set(EP_EINVAL, "%s: column '%s' is missing", where, columns[c].name);
        }
    }
    return EP_OK;
}

static enum ep_status read_csv(struct ep_models *models)
{
    enum ep_status status;
    struct ep_csv *csv = models->csv;
    const struct ep_model_column *of_file[MAX_COLUMNS];
    int64_t capacity = 0;
    int more = 0;
    EP_TRY(ep_csv_read_header(csv));
    EP_TRY(check_header(csv, of_file));
    EP_TRY(ep_csv_next(csv, &more));
    while (more) {
        char where[512];
        snprintf(where, sizeof where, "%s:%" PRId64, csv->name, csv->line);
        EP_TRY(add_model(models, &capacity));
        for (int64_t i = 0; i < csv->num_columns; i++) {
            EP_TRY(read_field(csv, i, of_file[i], &models->models[models->num - 1]));
        }
        EP_TRY(check_last(models, where));
        EP_TRY(ep_csv_next(csv, &more));
    }
out:
    return status;
}

/* --- JSON --------------------------------------------------------------------------------- */

static enum ep_status read_flag(const json_t *object, const char *key, const char *where, bool *to)
{
    const json_t *value = json_object_get(object, key);
    int64_t number = 0;
    if (json_is_boolean(value)) {
        *to = json_is_true(value);
        return EP_OK;
    }
    const enum ep_status status = ep_json_get_i64(object, key, where, 0, 1, &number);
    *to = number != 0;
    return status;
}

static enum ep_status read_member(const json_t *object, const struct ep_model_column *column,
                                  const char *where, struct ep_model *model)
{
    void *to = (char *)model + column->offset;
    const json_t *value = json_object_get(object, column->name);
    if (!column->required && (value == NULL || json_is_null(value))) {
        return EP_OK;
    }
    switch (column->kind) {
    case EP_MODEL_TEXT:
        return ep_json_get_string(object, column->name, where, to);
    case EP_MODEL_COUNT:
    case EP_MODEL_COUNT_OR_ZERO:
        return ep_json_get_i64(object, column->name, where, column_min(column->kind), INT32_MAX,
                               to);
    case EP_MODEL_REAL_OR_NAN:
        return ep_json_get_f64(object, column->name, where, 0, 1e9, to);
    case EP_MODEL_FLAG:
        return read_flag(object, column->name, where, to);
    }
    return ep_error_set(EP_EINVAL, "%s: unknown kind of column", where);
}

/* Keys that `epbench models --json` adds to the columns, so that its output can be read again. */
static bool is_derived(const char *key)
{
    return strcmp(key, "derived") == 0 || strcmp(key, "rumoured") == 0;
}

static enum ep_status read_object(json_t *object, const char *where, struct ep_model *model)
{
    enum ep_status status = EP_OK;
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(object)) {
        return ep_error_set(EP_EINVAL, "%s: an object was expected", where);
    }
    json_object_foreach(object, key, value)
    {
        if (!is_derived(key) && find_column(key) == NULL) {
            return unknown_column(where, key);
        }
    }
    for (int c = 0; c < NUM_COLUMNS && status == EP_OK; c++) {
        status = read_member(object, &columns[c], where, model);
    }
    return status;
}

static enum ep_status read_json(struct ep_models *models)
{
    enum ep_status status = EP_OK;
    json_t *root = (json_t *)models->json;
    json_t *list = json_is_object(root) && json_object_get(root, "models") != NULL
                       ? json_object_get(root, "models")
                       : root;
    const size_t num = json_is_array(list) ? json_array_size(list) : 1;
    int64_t capacity = 0;
    for (size_t i = 0; i < num; i++) {
        char where[512];
        snprintf(where, sizeof where, "%s: model %zu", models->path, i + 1);
        EP_TRY(add_model(models, &capacity));
        EP_TRY(read_object(json_is_array(list) ? json_array_get(list, i) : list, where,
                           &models->models[models->num - 1]));
        EP_TRY(check_last(models, where));
    }
out:
    return status;
}

/* --- zoo and files ------------------------------------------------------------------------ */

static bool looks_like_json(const char *text)
{
    const char *first = text + strspn(text, " \t\r\n");
    return *first == '{' || *first == '[';
}

static enum ep_status read_text(const char *text, size_t length, struct ep_models *models)
{
    enum ep_status status;
    if (looks_like_json(text)) {
        json_t *root = NULL;
        EP_TRY(ep_json_parse(models->path, 1, text, length, &root));
        models->json = root;
        EP_TRY(read_json(models));
    } else {
        models->csv = calloc(1, sizeof *models->csv);
        if (models->csv == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory", models->path);
        }
        EP_TRY(ep_csv_init(models->path, text, length, models->csv));
        EP_TRY(read_csv(models));
    }
    if (models->num == 0) {
        status = ep_error_set(EP_EINVAL, "%s: has no model", models->path);
    }
out:
    return status;
}

static enum ep_status create(const char *path, const char *text, size_t length,
                             struct ep_models **models)
{
    struct ep_models *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    made->path = path;
    const enum ep_status status = read_text(text, length, made);
    if (status != EP_OK) {
        ep_models_destroy(made);
        return status;
    }
    *models = made;
    return EP_OK;
}

enum ep_status ep_models_create(struct ep_models **models)
{
    const struct ep_embedded *file = ep_embedded_find(zoo_path);
    if (file == NULL) {
        return ep_error_set(EP_EENV, "this build has no model zoo (%s)", zoo_path);
    }
    return create(zoo_path, (const char *)file->data, file->size_bytes, models);
}

enum ep_status ep_models_load(const char *path, struct ep_models **models)
{
    char *text = NULL;
    size_t length = 0;
    enum ep_status status = ep_file_read(path, FILE_LIMIT_BYTES, &text, &length);
    if (status == EP_OK) {
        status = create(path, text, length, models);
    }
    free(text);
    return status;
}

void ep_models_destroy(struct ep_models *models)
{
    if (models == NULL) {
        return;
    }
    if (models->csv != NULL) {
        ep_csv_fini(models->csv);
    }
    free(models->csv);
    json_decref((json_t *)models->json);
    free(models->models);
    free(models);
}

/* The models whose names begin with `name`, as far as they go into text [size]. False if not several do. */
static bool list_kin(const struct ep_models *models, const char *name, char *text, size_t size)
{
    size_t used = 0;
    int num = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < models->num && name[0] != '\0'; i++) {
        const char *candidate = models->models[i].name;
        if (strncmp(candidate, name, strlen(name)) == 0 && used + strlen(candidate) + 3 < size) {
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", candidate);
            num++;
        }
    }
    return num > 1;
}

enum ep_status ep_models_find_any(const struct ep_models *models, const char *name,
                                  const struct ep_model **model)
{
    const char **names = calloc((size_t)models->num + 1, sizeof *names);
    if (names == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to look up a model");
    }
    const struct ep_model *found = NULL;
    for (int64_t i = 0; i < models->num; i++) {
        names[i] = models->models[i].name;
        found = strcmp(names[i], name) == 0 ? &models->models[i] : found;
    }
    char alike[160];
    const bool has_kin = list_kin(models, name, alike, sizeof alike);
    const char *nearest = ep_options_nearest(name, names, (int)models->num);
    free(names);
    if (found != NULL) {
        *model = found;
        return EP_OK;
    }
    if (has_kin) {
        return ep_error_set(EP_EINVAL, "unknown model '%s'; there are %s", name, alike);
    }
    return nearest != NULL
               ? ep_error_set(EP_EINVAL, "unknown model '%s'; did you mean '%s'?", name, nearest)
               : ep_error_set(EP_EINVAL,
                              "unknown model '%s'; the models are in %s, and `epbench "
                              "models` lists them",
                              name, models->path);
}

enum ep_status ep_models_find(const struct ep_models *models, const char *name,
                              const struct ep_model **model)
{
    enum ep_status status;
    const struct ep_model *found = NULL;
    EP_TRY(ep_models_find_any(models, name, &found));
    EP_TRY(ep_model_need_experts(found));
    *model = found;
out:
    return status;
}

enum ep_status ep_models_open(const char *file, const char *name, struct ep_models **models,
                              const struct ep_model **model)
{
    enum ep_status status;
    struct ep_models *made = NULL;
    const struct ep_model *found = NULL;
    EP_TRY(file != NULL ? ep_models_load(file, &made) : ep_models_create(&made));
    if (name != NULL) {
        EP_TRY(ep_models_find_any(made, name, &found));
    } else if (made->num == 1) {
        found = made->models;
    } else {
        status = ep_error_set(EP_EINVAL, "%s has %" PRId64 " models; --model says which",
                              made->path, made->num);
        goto out;
    }
    *model = found;
    *models = made;
    made = NULL;
out:
    ep_models_destroy(made);
    return status;
}

enum ep_status ep_model_need_experts(const struct ep_model *model)
{
    return ep_model_is_dense(model)
               ? ep_error_set(EP_EINVAL,
                              "model '%s' is dense: it has no experts; take one with experts",
                              model->name)
               : EP_OK;
}

bool ep_model_is_rumour(const struct ep_model *model)
{
    return strncmp(model->confidence, "rumour", 6) == 0;
}
