/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts and ranks put together, and the level of a pair of ranks. */
#include "topologies/topo.h"

#include "base/file.h"
#include "base/units.h"
#include "topologies/levels.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ep_topo_destroy(struct ep_topo *topo)
{
    if (topo == NULL) {
        return;
    }
    for (int64_t h = 0; h < topo->num_hosts && topo->hosts != NULL; h++) {
        free(topo->hosts[h].xml);
    }
    for (int64_t m = 0; m < topo->num_machines; m++) {
        ep_machine_destroy(topo->machines[m]);
        if (topo->class_level != NULL) {
            free(topo->class_level[m]);
        }
    }
    free(topo->hosts);
    free(topo->ranks);
    free(topo->levels);
    free(topo->machines);
    free(topo->class_level);
    free(topo->host_level);
    free(topo);
}

static enum ep_status allocate(int64_t num_hosts, int64_t num_ranks, struct ep_topo **topo)
{
    if (num_hosts < 1 || num_hosts > EP_TOPO_MAX_HOSTS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " hosts; 1 to %d are supported", num_hosts,
                            EP_TOPO_MAX_HOSTS);
    }
    if (num_ranks < 0 || num_ranks > EP_TOPO_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " ranks; at most %d are supported", num_ranks,
                            EP_TOPO_MAX_RANKS);
    }
    struct ep_topo *t = calloc(1, sizeof *t);
    if (t != NULL) {
        t->num_hosts = num_hosts;
        t->num_ranks = num_ranks;
        t->hosts = calloc((size_t)num_hosts, sizeof *t->hosts);
        t->ranks = calloc((size_t)num_ranks + 1, sizeof *t->ranks);
        t->machines = calloc((size_t)num_hosts, sizeof *t->machines);
    }
    if (t == NULL || t->hosts == NULL || t->ranks == NULL || t->machines == NULL) {
        ep_topo_destroy(t);
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " hosts and %" PRId64 " ranks",
                            num_hosts, num_ranks);
    }
    *topo = t;
    return EP_OK;
}

/* Read one XML; hosts of the same signature share one machine. */
static enum ep_status read_host(struct ep_topo *topo, int64_t host, const struct ep_topo_xml *xml)
{
    char what[64];
    snprintf(what, sizeof what, "host %" PRId64, host);
    struct ep_machine *machine = NULL;
    const enum ep_status status = ep_machine_create(xml->what != NULL ? xml->what : what,
                                                    xml->text, xml->length, &machine);
    if (status != EP_OK) {
        return status;
    }
    struct ep_topo_host *h = &topo->hosts[host];
    if (machine->name[0] != '\0') {
        snprintf(h->name, sizeof h->name, "%s", machine->name);
    } else {
        snprintf(h->name, sizeof h->name, "host%" PRId64, host);
    }
    int64_t known = 0;
    while (known < topo->num_machines &&
           topo->machines[known]->signature != machine->signature) {
        known++;
    }
    if (known == topo->num_machines) {
        topo->machines[topo->num_machines++] = machine;
    } else {
        ep_machine_destroy(machine);
    }
    h->machine_idx = known;
    h->machine = topo->machines[known];
    h->xml = malloc(xml->length + 1);
    if (h->xml == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the XML of host %" PRId64, host);
    }
    memcpy(h->xml, xml->text, xml->length);
    h->xml[xml->length] = '\0';
    h->xml_length = xml->length;
    return EP_OK;
}

static void place_rank(struct ep_topo *topo, int64_t rank, int64_t host, int64_t core, int64_t pu)
{
    const struct ep_machine *m = topo->hosts[host].machine;
    topo->hosts[host].num_ranks++;
    topo->ranks[rank] = (struct ep_topo_rank){
        .host = host,
        .core = core,
        .pu = pu,
        .numa = core >= 0 ? m->cores[core].numa : -1,
        .package = core >= 0 ? m->cores[core].package : -1,
    };
}

enum ep_status ep_topo_create(const struct ep_topo_xml *xmls, int64_t num_hosts,
                              const struct ep_topo_binding *bindings, int64_t num_ranks,
                              struct ep_topo **topo)
{
    struct ep_topo *t = NULL;
    enum ep_status status = EP_OK;
    EP_TRY(allocate(num_hosts, num_ranks, &t));
    for (int64_t h = 0; h < num_hosts; h++) {
        EP_TRY(read_host(t, h, &xmls[h]));
    }
    for (int64_t r = 0; r < num_ranks; r++) {
        int64_t core = -1;
        int64_t pu = -1;
        if (bindings[r].host < 0 || bindings[r].host >= num_hosts) {
            status = ep_error_set(EP_EINVAL, "rank %" PRId64 " is on host %" PRId64
                                             ", outside 0 to %" PRId64,
                                  r, bindings[r].host, num_hosts - 1);
            goto out;
        }
        if (bindings[r].cpuset != NULL) {
            EP_TRY(ep_machine_locate(t->hosts[bindings[r].host].machine, bindings[r].cpuset,
                                     &core, &pu));
        }
        place_rank(t, r, bindings[r].host, core, pu);
    }
    EP_TRY(ep_topo_build_levels(t));
    *topo = t;
    t = NULL;
out:
    ep_topo_destroy(t);
    return status;
}

static const char *const order_names[] = {[EP_RANK_ORDER_PACKED] = "packed",
                                          [EP_RANK_ORDER_SPREAD] = "spread"};

enum ep_status ep_rank_order_parse(const char *text, const char *what, enum ep_rank_order *order)
{
    for (int i = 0; i <= EP_RANK_ORDER_SPREAD; i++) {
        if (strcmp(text, order_names[i]) == 0) {
            *order = (enum ep_rank_order)i;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "%s: '%s'; expected packed or spread", what, text);
}

const char *ep_rank_order_name(enum ep_rank_order order)
{
    EP_ASSERT((unsigned)order <= EP_RANK_ORDER_SPREAD);
    return order_names[order];
}

/* Cores of a host in the order in which they are given to ranks. order [num_cores] */
static void order_cores(const struct ep_machine *machine, enum ep_rank_order rank_order,
                        int64_t *order)
{
    int64_t num = 0;
    if (rank_order == EP_RANK_ORDER_PACKED) {
        for (int64_t c = 0; c < machine->num_cores; c++) {
            order[c] = c;
        }
        return;
    }
    /* Round r takes the r-th core of each package; cores outside packages count as package -1. */
    for (int64_t round = 0; num < machine->num_cores; round++) {
        for (int64_t package = -1; package < machine->num_packages; package++) {
            int64_t seen = 0;
            for (int64_t c = 0; c < machine->num_cores; c++) {
                if (machine->cores[c].package == package && seen++ == round) {
                    order[num++] = c;
                    break;
                }
            }
        }
    }
}

/* Slot s of a host: its s-th core in order; later laps take the core's next hardware thread. */
static void place_slot(struct ep_topo *topo, int64_t rank, int64_t host, int64_t slot,
                       const int64_t *order)
{
    const struct ep_machine *m = topo->hosts[host].machine;
    const int64_t core = order[slot % m->num_cores];
    const int64_t lap = slot / m->num_cores;
    const int64_t pu = m->cores[core].first_pu + lap % m->cores[core].num_pus;
    place_rank(topo, rank, host, core, pu);
}

static enum ep_status place_all(struct ep_topo *topo, int64_t ranks_per_host,
                                enum ep_rank_order rank_order)
{
    int64_t **orders = calloc((size_t)topo->num_machines, sizeof *orders);
    bool good = orders != NULL;
    for (int64_t m = 0; m < topo->num_machines && good; m++) {
        orders[m] = calloc((size_t)topo->machines[m]->num_cores, sizeof *orders[m]);
        good = orders[m] != NULL;
        if (good) {
            order_cores(topo->machines[m], rank_order, orders[m]);
        }
    }
    for (int64_t r = 0; r < topo->num_ranks && good; r++) {
        const bool packed = rank_order == EP_RANK_ORDER_PACKED;
        const int64_t host = packed ? r / ranks_per_host : r % topo->num_hosts;
        const int64_t slot = packed ? r % ranks_per_host : r / topo->num_hosts;
        place_slot(topo, r, host, slot, orders[topo->hosts[host].machine_idx]);
    }
    for (int64_t m = 0; m < topo->num_machines && orders != NULL; m++) {
        free(orders[m]);
    }
    free(orders);
    return good ? EP_OK : ep_error_set(EP_ENOMEM, "no memory to place ranks");
}

enum ep_status ep_topo_create_placed(const struct ep_topo_xml *xmls, int64_t num_xmls,
                                     int64_t num_hosts, int64_t num_ranks, int64_t ranks_per_host,
                                     enum ep_rank_order order, struct ep_topo **topo)
{
    EP_ASSERT(num_xmls >= 1 && ranks_per_host >= 1);
    struct ep_topo *t = NULL;
    enum ep_status status = EP_OK;
    if (num_ranks > num_hosts * ranks_per_host) {
        return ep_error_set(EP_EINVAL,
                            "%" PRId64 " ranks do not fit on %" PRId64 " hosts with %" PRId64
                            " ranks each",
                            num_ranks, num_hosts, ranks_per_host);
    }
    EP_TRY(allocate(num_hosts, num_ranks, &t));
    for (int64_t h = 0; h < num_hosts; h++) {
        if (h < num_xmls) {
            EP_TRY(read_host(t, h, &xmls[h]));
        } else {
            t->hosts[h].machine_idx = t->hosts[h % num_xmls].machine_idx;
            t->hosts[h].machine = t->hosts[h % num_xmls].machine;
            snprintf(t->hosts[h].name, sizeof t->hosts[h].name, "host%" PRId64, h);
        }
    }
    EP_TRY(place_all(t, ranks_per_host, order));
    EP_TRY(ep_topo_build_levels(t));
    *topo = t;
    t = NULL;
out:
    ep_topo_destroy(t);
    return status;
}

int64_t ep_topo_level_of(const struct ep_topo *topo, int64_t i, int64_t k)
{
    if (i == k) {
        return EP_TOPO_SELF;
    }
    const struct ep_topo_rank *a = &topo->ranks[i];
    const struct ep_topo_rank *b = &topo->ranks[k];
    if (a->host != b->host) {
        return topo->host_level != NULL ? topo->host_level[a->host * topo->num_hosts + b->host]
                                        : topo->level_fabric;
    }
    if (a->core < 0 || b->core < 0) {
        return topo->level_floating;
    }
    if (a->core == b->core) {
        return a->pu >= 0 && b->pu >= 0 && a->pu != b->pu ? topo->level_core : topo->level_pu;
    }
    const struct ep_topo_host *host = &topo->hosts[a->host];
    const struct ep_machine *m = host->machine;
    return topo->class_level[host->machine_idx][m->core_class[a->core * m->num_cores + b->core]];
}

bool ep_topo_level_is_shown(const struct ep_topo_level *level)
{
    return level->num_pairs > 0 || level->span_pus > 0;
}

int64_t ep_topo_find_level(const struct ep_topo *topo, const char *name)
{
    for (int64_t l = 0; l < topo->num_levels; l++) {
        if (strcmp(topo->levels[l].name, name) == 0) {
            return l;
        }
    }
    return -1;
}

void ep_topo_sample_pairs(const struct ep_topo *topo, int64_t level, int64_t max_pairs,
                          int64_t (*pairs)[2], int64_t *num_found)
{
    const int64_t all = topo->levels[level].num_pairs;
    const int64_t wanted = max_pairs < all ? max_pairs : all;
    int64_t found = 0;
    int64_t seen = 0;
    for (int64_t i = 0; i < topo->num_ranks && found < wanted; i++) {
        for (int64_t k = i + 1; k < topo->num_ranks && found < wanted; k++) {
            if (ep_topo_level_of(topo, i, k) != level) {
                continue;
            }
            /* the middle of the found-th of `wanted` equal parts of 0..all-1 */
            if (seen == (2 * found + 1) * all / (2 * wanted)) {
                pairs[found][0] = i;
                pairs[found][1] = k;
                found++;
            }
            seen++;
        }
    }
    *num_found = found;
}

enum ep_status ep_topo_match_pairs(const struct ep_topo *topo, int64_t level,
                                   int64_t (*pairs)[2], int64_t *num_found)
{
    bool *taken = calloc((size_t)topo->num_ranks + 1, sizeof *taken);
    if (taken == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory to match pairs");
    }
    int64_t found = 0;
    for (int64_t i = 0; i < topo->num_ranks; i++) {
        for (int64_t k = i + 1; k < topo->num_ranks && !taken[i]; k++) {
            if (!taken[k] && ep_topo_level_of(topo, i, k) == level) {
                taken[i] = taken[k] = true;
                pairs[found][0] = i;
                pairs[found][1] = k;
                found++;
            }
        }
    }
    free(taken);
    *num_found = found;
    return EP_OK;
}

void ep_topo_set_measured(struct ep_topo *topo, int64_t level, double latency_s,
                          double bw_bytes_per_s)
{
    topo->levels[level].measured_latency_s = latency_s;
    topo->levels[level].measured_bytes_per_s = bw_bytes_per_s;
}

enum ep_status ep_topo_annotated_xml(const struct ep_topo *topo, char **xml, size_t *length)
{
    struct {
        char name[128];
        char value[128];
    } *texts = calloc((size_t)topo->num_levels, sizeof *texts);
    struct ep_machine_note *notes = calloc((size_t)topo->num_levels, sizeof *notes);
    enum ep_status status = EP_OK;
    int64_t num = 0;
    if (texts == NULL || notes == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory to annotate a topology");
        goto out;
    }
    for (int64_t l = 0; l < topo->num_levels; l++) {
        const struct ep_topo_level *level = &topo->levels[l];
        char latency[32];
        char bandwidth[32];
        if (isnan(level->measured_latency_s) && isnan(level->measured_bytes_per_s)) {
            continue;
        }
        snprintf(texts[num].name, sizeof texts[num].name, "epbench level %s", level->name);
        snprintf(texts[num].value, sizeof texts[num].value, "latency %s, bandwidth %s",
                 ep_format_time(level->measured_latency_s, latency, sizeof latency),
                 ep_format_bandwidth(level->measured_bytes_per_s, bandwidth, sizeof bandwidth));
        notes[num] = (struct ep_machine_note){texts[num].name, texts[num].value};
        num++;
    }
    EP_TRY(ep_machine_annotate_xml(topo->hosts[0].xml, topo->hosts[0].xml_length, notes, num, xml,
                                   length));
out:
    free(texts);
    free(notes);
    return status;
}

void ep_topo_get_caches(const struct ep_topo *topo, int64_t host, struct ep_topo_caches *caches)
{
    const struct ep_machine *m = topo->hosts[host].machine;
    *caches = (struct ep_topo_caches){.l1d_bytes = 0};
    for (int64_t c = 0; c < m->num_caches; c++) {
        const struct ep_machine_cache *cache = &m->caches[c];
        if (cache->level == 1) {
            caches->l1d_bytes = cache->min_size_bytes;
        } else if (cache->level == 2) {
            caches->l2_bytes = cache->min_size_bytes;
        } else if (cache->level == 3) {
            caches->l3_bytes = cache->min_size_bytes;
            caches->l3_cores = cache->max_num_cores;
        }
    }
}
