/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench models`: the zoo, one model in detail, or a model of your own. No MPI. */
#include "base/command.h"
#include "base/json.h"
#include "base/options.h"
#include "base/units.h"
#include "kernels/model_options.h"
#include "kernels/model_report.h"
#include "kernels/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_cmd_models(int argc, char **argv);

enum option_key { KEY_RANKS = 256, KEY_DETAILS, KEY_JSON };
enum { MAX_NAMES = 256 };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Output:", 2},
    {"ranks", KEY_RANKS, "P", 0, "weights of routed experts per rank, contiguous placement", 2},
    {"ep", KEY_RANKS, NULL, OPTION_ALIAS, NULL, 2},
    {"details", KEY_DETAILS, NULL, 0, "every model as if it were named: router, source, claims", 2},
    {"json", KEY_JSON, "FILE", 0, "write JSON; - = standard output, in place of the table", 2},
    {0}};

struct given {
    struct ep_model_options model;
    const char *names[MAX_NAMES];
    int num_names;
    int64_t num_ranks;
    bool details;
    const char *json_path;
};

/* What is shown: borrowed from the zoo or file, or the one model that options make. */
struct shown {
    struct ep_models *models;
    struct ep_model own;
    const struct ep_model **list; /* [num] */
    int64_t num;
    bool in_detail;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct given *g = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &g->model;
        return 0;
    case KEY_RANKS:
        return ep_parse_i64(arg, "--ranks", 1, EP_MAX_RANKS, &g->num_ranks) == EP_OK ? 0 : EINVAL;
    case KEY_DETAILS:
        g->details = true;
        return 0;
    case KEY_JSON:
        g->json_path = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (g->num_names == MAX_NAMES) {
            ep_error_set(EP_EINVAL, "more than %d names", MAX_NAMES);
            return EINVAL;
        }
        g->names[g->num_names++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum ep_status show_own(const struct given *g, struct shown *s)
{
    enum ep_status status;
    if (g->num_names > 0) {
        return ep_error_set(
            EP_EINVAL, "'%s': names go with no shape; use --model to change a model", g->names[0]);
    }
    EP_TRY(ep_model_options_resolve(&g->model, &s->models, &s->own));
    s->list[0] = &s->own;
    s->num = 1;
    s->in_detail = true;
out:
    return status;
}

static enum ep_status show_named(const struct given *g, struct shown *s)
{
    enum ep_status status = EP_OK;
    for (int i = 0; i < g->num_names; i++) {
        EP_TRY(ep_models_find_any(s->models, g->names[i], &s->list[i]));
    }
    s->num = g->num_names;
    s->in_detail = true;
out:
    return status;
}

static enum ep_status choose(const struct given *g, struct shown *s)
{
    enum ep_status status;
    const bool own = g->model.name != NULL || ep_model_options_have_shape(&g->model);
    int64_t capacity = MAX_NAMES;
    if (!own) {
        EP_TRY(g->model.file != NULL ? ep_models_load(g->model.file, &s->models)
                                     : ep_models_create(&s->models));
        capacity = s->models->num > capacity ? s->models->num : capacity;
    }
    s->list = calloc((size_t)capacity, sizeof *s->list);
    if (s->list == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a list of models");
    }
    if (own) {
        return show_own(g, s);
    }
    if (g->num_names > 0) {
        return show_named(g, s);
    }
    s->in_detail = g->details;
    for (s->num = 0; s->num < s->models->num; s->num++) {
        s->list[s->num] = &s->models->models[s->num];
    }
out:
    return status;
}

/* A model that was named must be dealt to the ranks; one of all may say that it cannot. */
static enum ep_status print_one(const struct given *g, const struct ep_model *model)
{
    const enum ep_status status = ep_model_report_print(model, g->num_ranks, stdout);
    if (status != EP_EINVAL || !g->details) {
        return status;
    }
    ep_error_clear();
    const enum ep_status printed = ep_model_report_print(model, 0, stdout);
    printf("%-14s%" PRId64 ": its experts cannot be dealt to them\n", "ranks", g->num_ranks);
    return printed;
}

static enum ep_status print(const struct given *g, const struct shown *s)
{
    enum ep_status status = EP_OK;
    if (!s->in_detail) {
        return ep_model_report_print_list(s->list, s->num, g->num_ranks, stdout);
    }
    for (int64_t i = 0; i < s->num; i++) {
        if (i > 0) {
            printf("\n");
        }
        EP_TRY(print_one(g, s->list[i]));
    }
out:
    return status;
}

static enum ep_status save(const struct given *g, const struct shown *s)
{
    enum ep_status status;
    json_t *root = json_object();
    json_t *list = json_array();
    EP_TRY(ep_json_set(root, "schema", json_string("epbench-models-1")));
    EP_TRY(ep_json_set(root, "ranks", g->num_ranks > 0 ? json_integer(g->num_ranks) : json_null()));
    for (int64_t i = 0; i < s->num; i++) {
        json_t *one = NULL;
        EP_TRY(ep_model_report_json(s->list[i], g->num_ranks, &one));
        if (json_array_append_new(list, one) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
            goto out;
        }
    }
    EP_TRY(ep_json_set(root, "models", json_incref(list)));
    EP_TRY(ep_json_save(g->json_path, root));
out:
    json_decref(list);
    json_decref(root);
    return status;
}

enum ep_status ep_cmd_models(int argc, char **argv)
{
    static const struct argp_child children[] = {{.argp = &ep_model_argp, .group = 1}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "[NAME...]",
        .doc = "Shapes, parameters and weights of known Mixture-of-Experts models, or of one of "
               "your own by --model-file or by its shape.",
        .children = children,
    };
    enum ep_status status;
    struct given given = {.model = EP_MODEL_OPTIONS_NONE};
    struct shown shown = {0};
    EP_TRY(ep_options_parse(&argp, argc, argv, &given));
    EP_TRY(choose(&given, &shown));
    if (given.json_path != NULL) {
        EP_TRY(save(&given, &shown));
    }
    if (given.json_path == NULL || strcmp(given.json_path, "-") != 0) {
        EP_TRY(print(&given, &shown));
    }
out:
    free(shown.list);
    ep_models_destroy(shown.models);
    return status;
}
