/* SPDX-License-Identifier: Apache-2.0 */
/* Levels: merged classes, their names, their order, and how many pairs of ranks each has. */
#include "topologies/levels.h"

#include "topologies/machine_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names depend on the class alone, never on which other classes there are: runs on parts of a
 * machine must agree. */
static void name_class(const struct ep_machine_class *class, char *name, size_t length)
{
    char numa[40] = "";
    const bool is_host = class->scope == EP_SCOPE_HOST && strcmp(class->type, "host") == 0;
    if (class->same_numa && is_host) {
        snprintf(numa, sizeof numa, " same-numa");
    } else if (!class->same_numa && class->slit > 0) {
        snprintf(numa, sizeof numa, " d=%.0f", class->slit);
    } else if (!class->same_numa && !is_host) {
        snprintf(numa, sizeof numa, " cross-numa");
    }
    snprintf(name, length, "%s%s%s%s", class->type, class->subtype[0] != '\0' ? "/" : "",
             class->subtype, numa);
}

static void level_from_class(const struct ep_machine_class *class, struct ep_topo_level *level)
{
    *level = (struct ep_topo_level){
        .scope = class->scope,
        .same_numa = class->same_numa,
        .slit = class->slit,
        .span_pus = class->span_pus,
        .reported_bytes_per_s = NAN,
        .measured_latency_s = NAN,
        .measured_bytes_per_s = NAN,
    };
    name_class(class, level->name, sizeof level->name);
    memcpy(level->common, class->type, sizeof level->common);
    memcpy(level->subtype, class->subtype, sizeof level->subtype);
}

static uint8_t append_special(struct ep_topo *topo, const char *name, enum ep_scope scope,
                              bool same_numa, bool oversubscribed, bool floating)
{
    struct ep_topo_level *level = &topo->levels[topo->num_levels];
    *level = (struct ep_topo_level){
        .scope = scope,
        .same_numa = same_numa,
        .oversubscribed = oversubscribed,
        .floating = floating,
        .slit = same_numa ? 10 : 0,
        .reported_bytes_per_s = NAN,
        .measured_latency_s = NAN,
        .measured_bytes_per_s = NAN,
    };
    snprintf(level->name, sizeof level->name, "%s", name);
    return (uint8_t)topo->num_levels++;
}

struct merged {
    struct ep_machine_class classes[EP_TOPO_MAX_LEVELS];
    int64_t num;
};

static int64_t find_merged(const struct merged *merged, const struct ep_machine_class *class)
{
    char name[96];
    char other[96];
    name_class(class, name, sizeof name);
    for (int64_t i = 0; i < merged->num; i++) {
        name_class(&merged->classes[i], other, sizeof other);
        if (strcmp(name, other) == 0) {
            return i;
        }
    }
    return -1;
}

enum { NUM_SPECIAL = 5 };

static enum ep_status merge_classes(const struct ep_topo *topo, struct merged *merged)
{
    for (int64_t m = 0; m < topo->num_machines; m++) {
        for (int64_t c = 0; c < topo->machines[m]->num_classes; c++) {
            const struct ep_machine_class *class = &topo->machines[m]->classes[c];
            const int64_t found = find_merged(merged, class);
            if (found >= 0) {
                struct ep_machine_class *known = &merged->classes[found];
                known->span_pus = class->span_pus > known->span_pus ? class->span_pus
                                                                    : known->span_pus;
            } else if (merged->num == EP_TOPO_MAX_LEVELS - NUM_SPECIAL) {
                return ep_error_set(EP_EINVAL,
                                    "more than %d levels over all hosts; their NUMA distances "
                                    "look wrong",
                                    EP_TOPO_MAX_LEVELS);
            } else {
                merged->classes[merged->num++] = *class;
            }
        }
    }
    return EP_OK;
}

static int compare(const void *a, const void *b)
{
    return ep_machine_compare_classes(a, b);
}

static void map_classes(struct ep_topo *topo)
{
    for (int64_t m = 0; m < topo->num_machines; m++) {
        for (int64_t c = 0; c < topo->machines[m]->num_classes; c++) {
            char name[96];
            name_class(&topo->machines[m]->classes[c], name, sizeof name);
            const int64_t level = ep_topo_find_level(topo, name);
            EP_ASSERT(level >= 0);
            topo->class_level[m][c] = (uint8_t)level;
        }
    }
}

/* --- counts ---------------------------------------------------------------------------------- */

static int64_t pairs_of(int64_t num)
{
    return num * (num - 1) / 2;
}

struct occupancy {
    int64_t *on_core; /* ranks bound inside one core */
    int64_t *on_pu;   /* ranks bound to one hardware thread */
    int64_t floating;
    int64_t total;
};

static void count_core_pairs(struct ep_topo *topo, const struct ep_machine *m,
                             const uint8_t *class_level, const struct occupancy *o)
{
    for (int64_t a = 0; a < m->num_cores; a++) {
        const int64_t here = o->on_core[a];
        if (here == 0) {
            continue;
        }
        int64_t bound = 0;
        int64_t same = 0;
        for (int64_t p = 0; p < m->cores[a].num_pus; p++) {
            bound += o->on_pu[m->cores[a].first_pu + p];
            same += pairs_of(o->on_pu[m->cores[a].first_pu + p]);
        }
        /* only ranks on two known, different hardware threads are siblings */
        const int64_t siblings = pairs_of(bound) - same;
        topo->levels[topo->level_core].num_pairs += siblings;
        topo->levels[topo->level_pu].num_pairs += pairs_of(here) - siblings;
        for (int64_t b = a + 1; b < m->num_cores; b++) {
            const uint8_t class = m->core_class[a * m->num_cores + b];
            topo->levels[class_level[class]].num_pairs += here * o->on_core[b];
        }
    }
}

static int64_t count_oversubscribed(const struct ep_machine *m, const struct occupancy *o)
{
    int64_t over = 0;
    int64_t taken = 0;
    for (int64_t c = 0; c < m->num_cores; c++) {
        const int64_t fits = o->on_core[c] < m->cores[c].num_pus ? o->on_core[c]
                                                                 : m->cores[c].num_pus;
        taken += fits;
        over += o->on_core[c] - fits;
    }
    const int64_t free_pus = m->num_pus - taken;
    return over + (o->floating > free_pus ? o->floating - free_pus : 0);
}

/* first_rank, next: the ranks of each host as linked lists of indices, ended by -1 */
static enum ep_status count_host(struct ep_topo *topo, int64_t host, int64_t first_rank,
                                 const int64_t *next)
{
    const struct ep_machine *m = topo->hosts[host].machine;
    struct occupancy o = {.on_core = calloc((size_t)m->num_cores, sizeof *o.on_core),
                          .on_pu = calloc((size_t)m->num_pus, sizeof *o.on_pu)};
    if (o.on_core == NULL || o.on_pu == NULL) {
        free(o.on_core);
        free(o.on_pu);
        return ep_error_set(EP_ENOMEM, "no memory to count pairs");
    }
    for (int64_t r = first_rank; r >= 0; r = next[r]) {
        const struct ep_topo_rank *rank = &topo->ranks[r];
        o.total++;
        if (rank->core < 0) {
            o.floating++;
        } else {
            o.on_core[rank->core]++;
            if (rank->pu >= 0) {
                o.on_pu[rank->pu]++;
            }
        }
    }
    count_core_pairs(topo, m, topo->class_level[topo->hosts[host].machine_idx], &o);
    topo->levels[topo->level_floating].num_pairs +=
        pairs_of(o.floating) + o.floating * (o.total - o.floating);
    topo->levels[topo->level_fabric].num_pairs -= pairs_of(o.total);
    topo->num_floating += o.floating;
    topo->num_oversubscribed += count_oversubscribed(m, &o);
    free(o.on_core);
    free(o.on_pu);
    return EP_OK;
}

/* O(hosts + ranks + occupied cores squared), not ranks squared. */
static enum ep_status count_pairs(struct ep_topo *topo)
{
    int64_t *first = malloc((size_t)topo->num_hosts * sizeof *first);
    int64_t *next = malloc(((size_t)topo->num_ranks + 1) * sizeof *next);
    enum ep_status status = EP_OK;
    if (first == NULL || next == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to count pairs");
        goto out;
    }
    for (int64_t h = 0; h < topo->num_hosts; h++) {
        first[h] = -1;
    }
    for (int64_t r = 0; r < topo->num_ranks; r++) {
        next[r] = first[topo->ranks[r].host];
        first[topo->ranks[r].host] = r;
    }
    /* the level of different hosts gets all pairs, and each host takes its own away */
    topo->levels[topo->level_fabric].num_pairs = pairs_of(topo->num_ranks);
    for (int64_t h = 0; h < topo->num_hosts; h++) {
        EP_TRY(count_host(topo, h, first[h], next));
    }
out:
    free(first);
    free(next);
    return status;
}

enum ep_status ep_topo_build_levels(struct ep_topo *topo)
{
    struct merged *merged = calloc(1, sizeof *merged);
    enum ep_status status = EP_OK;
    topo->levels = calloc(EP_TOPO_MAX_LEVELS, sizeof *topo->levels);
    topo->class_level = calloc((size_t)topo->num_hosts, sizeof *topo->class_level);
    bool good = merged != NULL && topo->levels != NULL && topo->class_level != NULL;
    for (int64_t m = 0; m < topo->num_machines && good; m++) {
        topo->class_level[m] = calloc((size_t)topo->machines[m]->num_classes + 1, 1);
        good = topo->class_level[m] != NULL;
    }
    if (!good) {
        status = ep_error_set(EP_ENOMEM, "no memory for levels");
        goto out;
    }
    EP_TRY(merge_classes(topo, merged));
    qsort(merged->classes, (size_t)merged->num, sizeof merged->classes[0], compare);
    (void)append_special(topo, "self", EP_SCOPE_SELF, true, false, false);
    topo->level_pu = append_special(topo, "pu", EP_SCOPE_CORE, true, true, false);
    topo->level_core = append_special(topo, "core", EP_SCOPE_CORE, true, false, false);
    for (int64_t c = 0; c < merged->num; c++) {
        level_from_class(&merged->classes[c], &topo->levels[topo->num_levels++]);
    }
    topo->level_floating = append_special(topo, "floating", EP_SCOPE_HOST, false, false, true);
    topo->level_fabric = append_special(topo, "fabric", EP_SCOPE_FABRIC, false, false, false);
    map_classes(topo);
    EP_TRY(count_pairs(topo));
out:
    free(merged);
    return status;
}
