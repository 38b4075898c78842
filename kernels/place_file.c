/* SPDX-License-Identifier: Apache-2.0 */
/* Strict readers of loads and of maps, and the writer of maps. */
#include "kernels/place_file.h"

#include "base/csv.h"
#include "base/file.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT_BYTES ((int64_t)256 << 20)
#define MAX_LOAD         1e15 /* sums of as many as there are slots still are exact to a token */

/* --- loads --------------------------------------------------------------------------------- */

static enum ep_status add_layer(struct ep_csv *csv, int64_t *capacity,
                                struct ep_place_counts *counts)
{
    enum ep_status status = EP_OK;
    if (counts->num_layers == 0) {
        counts->num_experts = csv->num_fields;
        if (csv->num_fields > EP_PLACE_MAX_SLOTS) {
            return ep_error_set(EP_EINVAL,
                                "%s:%" PRId64 ": has %" PRId64 " experts, at most %d expected",
                                csv->name, csv->line, csv->num_fields, EP_PLACE_MAX_SLOTS);
        }
    }
    if (csv->num_fields != counts->num_experts) {
        return ep_error_set(EP_EINVAL,
                            "%s:%" PRId64 ": has %" PRId64 " numbers, the first line has %" PRId64
                            "; one per expert expected",
                            csv->name, csv->line, csv->num_fields, counts->num_experts);
    }
    if (counts->num_layers == *capacity) {
        const int64_t larger = *capacity > 0 ? 2 * *capacity : 16;
        double *grown =
            realloc(counts->load, (size_t)(larger * counts->num_experts) * sizeof *counts->load);
        if (grown == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " layers", csv->name,
                                larger);
        }
        counts->load = grown;
        *capacity = larger;
    }
    for (int64_t e = 0; e < counts->num_experts && status == EP_OK; e++) {
        status = ep_csv_get_f64(csv, e, 0, MAX_LOAD,
                                &counts->load[counts->num_layers * counts->num_experts + e]);
    }
    counts->num_layers++;
    return status;
}

static enum ep_status read_csv(const char *path, const char *text, size_t length,
                               struct ep_place_counts *counts)
{
    enum ep_status status;
    struct ep_csv csv = {0};
    int64_t capacity = 0;
    int more = 0;
    EP_TRY(ep_csv_init(path, text, length, &csv));
    EP_TRY(ep_csv_next(&csv, &more));
    if (!more) {
        status = ep_error_set(
            EP_EINVAL, "%s: is empty; a line per layer with a number per expert expected", path);
        goto out;
    }
    while (more) {
        EP_TRY(add_layer(&csv, &capacity, counts));
        EP_TRY(ep_csv_next(&csv, &more));
    }
out:
    ep_csv_fini(&csv);
    return status;
}

/* Add a list of layers, each a list of numbers; the first of all gives the shape. */
static enum ep_status add_json_layers(const char *path, const json_t *layers,
                                      struct ep_place_counts *counts)
{
    const json_t *first = json_array_get(layers, 0);
    if (counts->load == NULL) {
        counts->num_layers = (int64_t)json_array_size(layers);
        counts->num_experts = (int64_t)json_array_size(first);
        if (counts->num_experts < 1 || counts->num_experts > EP_PLACE_MAX_SLOTS) {
            return ep_error_set(EP_EINVAL,
                                "%s: 'logical_count' must hold 1 to %d experts per layer", path,
                                EP_PLACE_MAX_SLOTS);
        }
        counts->load =
            calloc((size_t)(counts->num_layers * counts->num_experts), sizeof *counts->load);
        if (counts->load == NULL) {
            return ep_error_set(EP_ENOMEM, "%s: no memory", path);
        }
    }
    if ((int64_t)json_array_size(layers) != counts->num_layers) {
        return ep_error_set(EP_EINVAL, "%s: 'logical_count' must have as many layers in every step",
                            path);
    }
    for (int64_t i = 0; i < counts->num_layers * counts->num_experts; i++) {
        const int64_t layer = i / counts->num_experts;
        const int64_t e = i % counts->num_experts;
        const json_t *experts = json_array_get(layers, (size_t)layer);
        const json_t *item = json_array_get(experts, (size_t)e);
        if ((int64_t)json_array_size(experts) != counts->num_experts || !json_is_number(item) ||
            !(json_number_value(item) >= 0 && json_number_value(item) <= MAX_LOAD)) {
            return ep_error_set(EP_EINVAL,
                                "%s: layer %" PRId64 ", expert %" PRId64
                                ": a number >= 0 for each of %" PRId64 " experts expected",
                                path, layer, e, counts->num_experts);
        }
        counts->load[i] += json_number_value(item);
    }
    return EP_OK;
}

/* SGLang: {"logical_count": [layer][expert]}, or [step][layer][expert], whose steps are added. */
static enum ep_status read_json(const char *path, const char *text, size_t length,
                                struct ep_place_counts *counts)
{
    json_t *root = NULL;
    enum ep_status status = ep_json_parse(path, 1, text, length, &root);
    if (status != EP_OK) {
        return status;
    }
    const json_t *outer = json_object_get(root, "logical_count");
    const json_t *inner = json_array_get(json_array_get(outer, 0), 0);
    if (inner == NULL) {
        status = ep_error_set(EP_EINVAL,
                              "%s: 'logical_count' must be a list of layers, each a list "
                              "of numbers",
                              path);
    } else if (!json_is_array(inner)) {
        status = add_json_layers(path, outer, counts);
    } else {
        for (size_t i = 0; i < json_array_size(outer) && status == EP_OK; i++) {
            status = add_json_layers(path, json_array_get(outer, i), counts);
        }
    }
    json_decref(root);
    return status;
}

enum ep_status ep_place_counts_load(const char *path, struct ep_place_counts *counts)
{
    enum ep_status status;
    struct ep_place_counts made = {0};
    char *text = NULL;
    size_t length = 0;
    EP_TRY(ep_file_read(path, FILE_LIMIT_BYTES, &text, &length));
    EP_TRY(text[strspn(text, " \t\r\n")] == '{' ? read_json(path, text, length, &made)
                                                : read_csv(path, text, length, &made));
    *counts = made;
    made = (struct ep_place_counts){0};
out:
    free(text);
    ep_place_counts_fini(&made);
    return status;
}

void ep_place_counts_fini(struct ep_place_counts *counts)
{
    free(counts->load);
    *counts = (struct ep_place_counts){0};
}

/* --- maps ---------------------------------------------------------------------------------- */

enum ep_status ep_place_maps_save(const char *path, const int32_t *maps, int64_t num_layers,
                                  int64_t num_slots)
{
    enum ep_status status;
    json_t *root = json_object();
    json_t *layers = json_array();
    EP_TRY(ep_json_set(root, "physical_to_logical_map", json_incref(layers)));
    for (int64_t l = 0; l < num_layers; l++) {
        json_t *slots = json_array();
        if (json_array_append_new(layers, slots) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
            goto out;
        }
        for (int64_t i = 0; i < num_slots; i++) {
            if (json_array_append_new(slots, json_integer(maps[l * num_slots + i])) != 0) {
                status = ep_error_set(EP_ENOMEM, "no memory for JSON");
                goto out;
            }
        }
    }
    status = ep_json_save(path, root);
out:
    json_decref(layers);
    json_decref(root);
    return status;
}

/* The layer of SGLang's array; the array itself where it is of numbers. Borrowed. */
static enum ep_status find_sglang_layer(const char *path, const json_t *layers,
                                        const struct ep_place_choice *choice, const json_t **slots)
{
    const int64_t num = (int64_t)json_array_size(layers);
    if (num == 0) {
        return ep_error_set(EP_EINVAL,
                            "%s: 'physical_to_logical_map' must be a list with a list of "
                            "experts per layer",
                            path);
    }
    if (json_is_integer(json_array_get(layers, 0))) {
        *slots = layers;
        return choice->layer <= 0 ? EP_OK
                                  : ep_error_set(EP_EINVAL, "%s: has one layer, no layer %" PRId64,
                                                 path, choice->layer);
    }
    if (choice->layer < 0 && num > 1) {
        return ep_error_set(EP_EINVAL,
                            "%s: has %" PRId64 " layers; say which one with --placement-layer",
                            path, num);
    }
    if (choice->layer >= num) {
        return ep_error_set(EP_EINVAL, "%s: has %" PRId64 " layers, no layer %" PRId64, path, num,
                            choice->layer);
    }
    *slots = json_array_get(layers, (size_t)(choice->layer > 0 ? choice->layer : 0));
    return EP_OK;
}

static bool is_meant(const json_t *entry, const struct ep_place_choice *choice)
{
    const char *policy = json_string_value(json_object_get(entry, "policy"));
    const json_t *layer = json_object_get(entry, "layer");
    return policy != NULL && json_is_integer(layer) &&
           (choice->policy == NULL || strcmp(choice->policy, policy) == 0) &&
           (choice->layer < 0 || choice->layer == json_integer_value(layer));
}

/* The one entry of `epbench place --json` that is meant. */
static enum ep_status find_own_entry(const char *path, const json_t *entries,
                                     const struct ep_place_choice *choice, const json_t **slots)
{
    int64_t num = 0;
    for (size_t i = 0; i < json_array_size(entries); i++) {
        if (is_meant(json_array_get(entries, i), choice)) {
            *slots = json_object_get(json_array_get(entries, i), "physical_to_logical");
            num++;
        }
    }
    if (num == 1) {
        return EP_OK;
    }
    return ep_error_set(EP_EINVAL,
                        "%s: %" PRId64 " of its placements fit; --placement-policy and "
                        "--placement-layer must leave one",
                        path, num);
}

static enum ep_status find_slots(const char *path, const json_t *root,
                                 const struct ep_place_choice *choice, const json_t **slots,
                                 int64_t *num_ranks)
{
    const json_t *layers = json_object_get(root, "physical_to_logical_map");
    const json_t *entries = json_object_get(root, "placements");
    *num_ranks = choice->num_ranks;
    if (json_is_array(layers)) {
        if (choice->policy != NULL) {
            return ep_error_set(EP_EINVAL,
                                "%s: names no policies; --placement-policy is for what "
                                "epbench place --json writes",
                                path);
        }
        return find_sglang_layer(path, layers, choice, slots);
    }
    if (!json_is_array(entries)) {
        return ep_error_set(EP_EINVAL,
                            "%s: neither 'physical_to_logical_map' nor 'placements' is a "
                            "list in it",
                            path);
    }
    int64_t ranks = 0;
    enum ep_status status = ep_json_get_i64(root, "ranks", path, 1, EP_PLACE_MAX_RANKS, &ranks);
    if (status == EP_OK && choice->num_ranks != 0 && choice->num_ranks != ranks) {
        status = ep_error_set(EP_EINVAL, "%s: is for %" PRId64 " ranks, not %" PRId64, path, ranks,
                              choice->num_ranks);
    }
    *num_ranks = ranks;
    return status == EP_OK ? find_own_entry(path, entries, choice, slots) : status;
}

/* map [*num_slots], to be freed; *highest = highest expert in it. */
static enum ep_status read_slots(const char *path, const json_t *slots, int32_t **map,
                                 int64_t *num_slots, int64_t *highest)
{
    const size_t num = json_array_size(slots);
    if (num == 0 || num > EP_PLACE_MAX_SLOTS) {
        return ep_error_set(EP_EINVAL, "%s: a layer must be a list of 1 to %d experts", path,
                            EP_PLACE_MAX_SLOTS);
    }
    int32_t *made = malloc(num * sizeof *made);
    if (made == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory for %zu slots", path, num);
    }
    *highest = 0;
    for (size_t i = 0; i < num; i++) {
        const json_t *item = json_array_get(slots, i);
        const int64_t e = json_is_integer(item) ? json_integer_value(item) : -1;
        if (e < 0 || e >= EP_PLACE_MAX_SLOTS) {
            free(made);
            return ep_error_set(EP_EINVAL, "%s: slot %zu must hold an expert from 0 to %d", path, i,
                                EP_PLACE_MAX_SLOTS - 1);
        }
        made[i] = (int32_t)e;
        *highest = e > *highest ? e : *highest;
    }
    *map = made;
    *num_slots = (int64_t)num;
    return EP_OK;
}

/* As ep_place_count_replicas, naming the file. */
static enum ep_status check_slots(const char *path, const int32_t *map,
                                  const struct ep_place_shape *shape, bool *seen)
{
    if (shape->num_slots % shape->num_ranks != 0) {
        return ep_error_set(EP_EINVAL,
                            "%s: %" PRId64 " slots cannot be dealt to %" PRId64 " ranks evenly",
                            path, shape->num_slots, shape->num_ranks);
    }
    for (int64_t i = 0; i < shape->num_slots; i++) {
        if (map[i] >= shape->num_experts) {
            return ep_error_set(EP_EINVAL,
                                "%s: slot %" PRId64 " holds expert %" PRId32 "; 0 to %" PRId64
                                " expected",
                                path, i, map[i], shape->num_experts - 1);
        }
        seen[map[i]] = true;
    }
    for (int64_t e = 0; e < shape->num_experts; e++) {
        if (!seen[e]) {
            return ep_error_set(EP_EINVAL, "%s: expert %" PRId64 " is in no slot", path, e);
        }
    }
    return EP_OK;
}

static enum ep_status place_slots(const char *path, const int32_t *map,
                                  const struct ep_place_shape *shape,
                                  struct ep_placement *placement)
{
    bool *seen = calloc((size_t)shape->num_experts, sizeof *seen);
    if (seen == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory", path);
    }
    enum ep_status status = check_slots(path, map, shape, seen);
    if (status == EP_OK) {
        status = ep_place_init_placement(shape, map, placement);
    }
    free(seen);
    return status;
}

enum ep_status ep_place_map_load(const char *path, const struct ep_place_choice *choice,
                                 struct ep_placement *placement)
{
    enum ep_status status;
    json_t *root = NULL;
    const json_t *slots = NULL;
    int32_t *map = NULL;
    int64_t highest = 0;
    struct ep_place_shape shape = {.num_nodes = 1, .num_groups = 1};
    EP_TRY(ep_json_load(path, FILE_LIMIT_BYTES, &root));
    EP_TRY(find_slots(path, root, choice, &slots, &shape.num_ranks));
    EP_TRY(read_slots(path, slots, &map, &shape.num_slots, &highest));
    shape.num_experts = choice->num_experts > 0 ? choice->num_experts : highest + 1;
    if (shape.num_ranks == 0) {
        status = ep_error_set(EP_EINVAL,
                              "%s: does not say for how many ranks it is; --ranks is needed", path);
        goto out;
    }
    EP_TRY(place_slots(path, map, &shape, placement));
out:
    free(map);
    json_decref(root);
    return status;
}
