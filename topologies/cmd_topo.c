/* SPDX-License-Identifier: Apache-2.0 */
/* epbench topo: discover or import hosts; show machines, levels and ranks. */
#include "base/command.h"
#include "base/file.h"
#include "base/json.h"
#include "base/options.h"
#include "base/units.h"
#include "topologies/topo_show.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_cmd_topo(int argc, char **argv);

enum { MAX_FILES = 1024, KEY_XML = 1000, KEY_SYNTHETIC, KEY_RANKS, KEY_RANKS_PER_NODE, KEY_NODES,
       KEY_RANK_ORDER, KEY_PAIRS, KEY_JSON };

struct arguments {
    const char *files[MAX_FILES];
    int64_t num_files;
    const char *synthetic;
    const char *json;
    int64_t ranks;          /* 0: not given */
    int64_t ranks_per_node; /* 0: not given */
    int64_t nodes;          /* 0: not given */
    enum ep_rank_order order;
    bool pairs;
};

static const struct argp_option options[] = {
    {"xml", KEY_XML, "FILE", 0, "hwloc XML of a host (\"-\": standard input); again for more hosts",
     0},
    {"synthetic", KEY_SYNTHETIC, "TEXT", 0,
     "a host that does not exist: \"pack:2 numa:1 l3:2 core:4 pu:1\"", 0},
    {"ranks", KEY_RANKS, "N", 0, "ranks in all (default: one per core)", 0},
    {"ep", 0, NULL, OPTION_ALIAS, NULL, 0},
    {"ranks-per-node", KEY_RANKS_PER_NODE, "N", 0, "ranks on each host", 0},
    {"nodes", KEY_NODES, "N", 0, "hosts; beyond the files given, their copies", 0},
    {"rank-order", KEY_RANK_ORDER, "packed|spread", 0,
     "fill host by host and core by core, or go round hosts and packages (default: packed)", 0},
    {"pairs", KEY_PAIRS, NULL, 0, "also list the level of each pair of ranks", 0},
    {"json", KEY_JSON, "FILE", 0, "write JSON (\"-\": on standard output, in place of the table)",
     0},
    {0},
};

static enum ep_status parse_value(int key, const char *value, struct arguments *a)
{
    switch (key) {
    case KEY_XML:
        if (a->num_files == MAX_FILES) {
            return ep_error_set(EP_EINVAL, "--xml: at most %d files", MAX_FILES);
        }
        a->files[a->num_files++] = value;
        return EP_OK;
    case KEY_SYNTHETIC:
        a->synthetic = value;
        return EP_OK;
    case KEY_RANKS:
        return ep_parse_i64(value, "--ranks", 1, EP_TOPO_MAX_RANKS, &a->ranks);
    case KEY_RANKS_PER_NODE:
        return ep_parse_i64(value, "--ranks-per-node", 1, EP_TOPO_MAX_RANKS, &a->ranks_per_node);
    case KEY_NODES:
        return ep_parse_i64(value, "--nodes", 1, EP_TOPO_MAX_HOSTS, &a->nodes);
    case KEY_RANK_ORDER:
        return ep_rank_order_parse(value, "--rank-order", &a->order);
    case KEY_PAIRS:
        a->pairs = true;
        return EP_OK;
    default:
        a->json = value;
        return EP_OK;
    }
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    if (key < KEY_XML || key > KEY_JSON) {
        return ARGP_ERR_UNKNOWN;
    }
    return parse_value(key, value, state->input) == EP_OK ? 0 : EINVAL;
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .doc = "Show where ranks sit and what joins them: this host, hosts from hwloc XML, or a "
           "synthetic host. A level is a class of rank pairs: what they share, whether their NUMA "
           "node is the same, and its distance.",
};

struct input {
    struct ep_topo_xml *xmls;
    char **texts;
    int64_t num;
};

static void free_input(struct input *input)
{
    for (int64_t i = 0; i < input->num && input->texts != NULL; i++) {
        free(input->texts[i]);
    }
    free(input->texts);
    free(input->xmls);
}

static enum ep_status read_input(const struct arguments *a, struct input *input)
{
    enum ep_status status = EP_OK;
    input->num = a->num_files > 0 ? a->num_files : 1;
    input->xmls = calloc((size_t)input->num, sizeof *input->xmls);
    input->texts = calloc((size_t)input->num, sizeof *input->texts);
    if (input->xmls == NULL || input->texts == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " hosts", input->num);
    }
    if (a->num_files == 0 && a->synthetic != NULL) {
        EP_TRY(ep_machine_synthesize_xml(a->synthetic, &input->texts[0], &input->xmls[0].length));
        input->xmls[0].what = "--synthetic";
    } else if (a->num_files == 0) {
        EP_TRY(ep_machine_discover_xml(&input->texts[0], &input->xmls[0].length));
        input->xmls[0].what = "this host";
    }
    for (int64_t i = 0; i < a->num_files; i++) {
        EP_TRY(ep_file_read(a->files[i], EP_MACHINE_MAX_XML_BYTES, &input->texts[i],
                            &input->xmls[i].length));
        input->xmls[i].what = strcmp(a->files[i], "-") == 0 ? "standard input" : a->files[i];
        EP_TRY(ep_machine_try_xml(input->xmls[i].what, input->texts[i], input->xmls[i].length));
    }
    for (int64_t i = 0; i < input->num; i++) {
        input->xmls[i].text = input->texts[i];
    }
out:
    return status;
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* One rank per core of the smallest host, which only its XML tells. */
static enum ep_status count_cores(const struct input *input, int64_t *cores)
{
    struct ep_topo *topo = NULL;
    const enum ep_status status = ep_topo_create_placed(input->xmls, input->num, input->num, 0, 1,
                                                        EP_RANK_ORDER_PACKED, &topo);
    if (status != EP_OK) {
        return status;
    }
    int64_t smallest = topo->machines[0]->num_cores;
    for (int64_t m = 1; m < topo->num_machines; m++) {
        const int64_t num = topo->machines[m]->num_cores;
        smallest = num < smallest ? num : smallest;
    }
    ep_topo_destroy(topo);
    *cores = smallest;
    return EP_OK;
}

/* Fill in what was not given of ranks, ranks per node and nodes; refuse what does not agree. */
static enum ep_status settle_layout(const struct input *input, const struct ep_restrictions *limits,
                                    struct arguments *a)
{
    if (a->nodes > 0 && a->nodes < input->num) {
        return ep_error_set(EP_EINVAL, "--nodes %" PRId64 ", but %" PRId64 " XML files were given",
                            a->nodes, input->num);
    }
    if (a->ranks > 0 && a->ranks_per_node > 0 && a->nodes > 0 &&
        a->ranks != a->ranks_per_node * a->nodes) {
        return ep_error_set(EP_EINVAL,
                            "--ranks %" PRId64 " is not --ranks-per-node %" PRId64
                            " times --nodes %" PRId64,
                            a->ranks, a->ranks_per_node, a->nodes);
    }
    if (a->nodes == 0) {
        const bool divides = a->ranks > 0 && a->ranks_per_node > 0;
        a->nodes = divides ? divide_up(a->ranks, a->ranks_per_node) : input->num;
        a->nodes = a->nodes < input->num ? input->num : a->nodes;
    }
    if (a->ranks_per_node == 0 && a->ranks > 0) {
        a->ranks_per_node = divide_up(a->ranks, a->nodes);
    }
    if (a->ranks_per_node == 0) {
        const enum ep_status status = count_cores(input, &a->ranks_per_node);
        if (status != EP_OK) {
            return status;
        }
        if (limits != NULL && limits->usable_cores < a->ranks_per_node) {
            a->ranks_per_node = limits->usable_cores;
        }
    }
    if (a->ranks == 0) {
        a->ranks = a->ranks_per_node * a->nodes;
    }
    return EP_OK;
}

static enum ep_status show(const struct ep_topo *topo, const struct ep_restrictions *limits,
                           const struct arguments *a)
{
    enum ep_status status = EP_OK;
    json_t *json = NULL;
    if (a->json != NULL) {
        EP_TRY(ep_topo_to_json(topo, limits, a->pairs, &json));
        EP_TRY(ep_json_save(a->json, json));
    }
    if (a->json == NULL || strcmp(a->json, "-") != 0) {
        EP_TRY(ep_topo_print(topo, limits, stdout));
        if (a->pairs) {
            EP_TRY(ep_topo_print_pairs(topo, stdout));
        }
    }
out:
    json_decref(json);
    return status;
}

enum ep_status ep_cmd_topo(int argc, char **argv)
{
    struct arguments a = {.num_files = 0};
    struct input input = {.num = 0};
    struct ep_restrictions restrictions;
    const struct ep_restrictions *limits = NULL;
    struct ep_topo *topo = NULL;
    enum ep_status status = EP_OK;
    EP_TRY(ep_options_parse(&parser, argc, argv, &a));
    if (ep_options_launcher_rank() > 0) {
        return EP_OK; /* no communication here: the first rank shows its host */
    }
    if (a.num_files > 0 && a.synthetic != NULL) {
        status = ep_error_set(EP_EINVAL, "--xml and --synthetic exclude each other");
        goto out;
    }
    EP_TRY(read_input(&a, &input));
    if (a.num_files == 0 && a.synthetic == NULL) {
        EP_TRY(ep_restrictions_discover(&restrictions));
        limits = &restrictions;
    }
    EP_TRY(settle_layout(&input, limits, &a));
    EP_TRY(ep_topo_create_placed(input.xmls, input.num, a.nodes, a.ranks, a.ranks_per_node,
                                 a.order, &topo));
    EP_TRY(show(topo, limits, &a));
out:
    ep_topo_destroy(topo);
    free_input(&input);
    return status;
}
