/* SPDX-License-Identifier: Apache-2.0 */
/* A topology as JSON, and its doubts. */
#include "topologies/topo_show.h"

#include "base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Steals `item`; a NULL is a lack of memory, or text that is not UTF-8. */
static enum ep_status append(json_t *array, json_t *item)
{
    if (item == NULL || json_array_append_new(array, item) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON, or text that is not UTF-8");
    }
    return EP_OK;
}

/* XML may hold any bytes: what is not UTF-8 becomes "?". */
static json_t *text_or_null(const char *text)
{
    if (text[0] == '\0') {
        return json_null();
    }
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

static json_t *index_or_null(int64_t value)
{
    return value >= 0 ? json_integer(value) : json_null();
}

static json_t *slit_to_json(const struct ep_machine *m)
{
    if (m->slit == NULL) {
        return json_null();
    }
    json_t *rows = json_array();
    for (int64_t i = 0; i < m->num_numas && rows != NULL; i++) {
        if (json_array_append_new(
                rows, ep_json_real_array(m->slit + i * m->num_numas, m->num_numas)) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

static enum ep_status numas_to_json(const struct ep_machine *m, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < m->num_numas && status == EP_OK; i++) {
        const struct ep_machine_numa *numa = &m->numas[i];
        status = append(array, json_pack("{s:I, s:o, s:I, s:o}", "os_idx", (json_int_t)numa->os_idx,
                                         "memory_bytes",
                                         numa->memory_bytes > 0 ? json_integer(numa->memory_bytes)
                                                                : json_null(),
                                         "num_pus", (json_int_t)numa->num_pus, "subtype",
                                         text_or_null(numa->subtype)));
    }
    return status;
}

static enum ep_status caches_to_json(const struct ep_machine *m, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < m->num_caches && status == EP_OK; i++) {
        const struct ep_machine_cache *c = &m->caches[i];
        status = append(array,
                        json_pack("{s:s, s:i, s:I, s:I, s:I, s:I}", "name", c->name, "level",
                                  c->level, "num", (json_int_t)c->num, "min_size_bytes",
                                  (json_int_t)c->min_size_bytes, "max_size_bytes",
                                  (json_int_t)c->max_size_bytes, "max_num_cores",
                                  (json_int_t)c->max_num_cores));
    }
    return status;
}

static enum ep_status devices_to_json(const struct ep_machine *m, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t i = 0; i < m->num_devices && status == EP_OK; i++) {
        const struct ep_machine_device *d = &m->devices[i];
        status = append(
            array,
            json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kind",
                      ep_device_kind_name(d->kind), "name", text_or_null(d->name), "model",
                      text_or_null(d->model), "busid", text_or_null(d->busid), "package",
                      index_or_null(d->package), "numa", index_or_null(d->numa),
                      "reported_pci_bytes_per_s", ep_json_real(d->pci_bytes_per_s),
                      "reported_line_bytes_per_s", ep_json_real(d->net_bytes_per_s)));
    }
    return status;
}

static enum ep_status machine_to_json(const struct ep_machine *m, json_t *machine)
{
    enum ep_status status = EP_OK;
    char signature[32];
    json_t *numas = json_array();
    json_t *caches = json_array();
    json_t *devices = json_array();
    snprintf(signature, sizeof signature, "%016" PRIx64, m->signature);
    EP_TRY(numas_to_json(m, numas));
    EP_TRY(caches_to_json(m, caches));
    EP_TRY(devices_to_json(m, devices));
    EP_TRY(ep_json_set(machine, "signature", json_string(signature)));
    EP_TRY(ep_json_set(machine, "model", text_or_null(m->model)));
    EP_TRY(ep_json_set(machine, "source", text_or_null(m->source)));
    EP_TRY(ep_json_set(machine, "num_packages", json_integer(m->num_packages)));
    EP_TRY(ep_json_set(machine, "num_numas", json_integer(m->num_numas)));
    EP_TRY(ep_json_set(machine, "num_cores", json_integer(m->num_cores)));
    EP_TRY(ep_json_set(machine, "num_pus", json_integer(m->num_pus)));
    EP_TRY(ep_json_set(machine, "num_allowed_pus", json_integer(m->num_allowed_pus)));
    EP_TRY(ep_json_set(machine, "num_complete_pus", json_integer(m->num_complete_pus)));
    EP_TRY(ep_json_set(machine, "numas", json_incref(numas)));
    EP_TRY(ep_json_set(machine, "slit", slit_to_json(m)));
    EP_TRY(ep_json_set(machine, "caches", json_incref(caches)));
    EP_TRY(ep_json_set(machine, "devices", json_incref(devices)));
out:
    json_decref(numas);
    json_decref(caches);
    json_decref(devices);
    return status;
}

static enum ep_status machines_to_json(const struct ep_topo *topo, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t m = 0; m < topo->num_machines && status == EP_OK; m++) {
        json_t *machine = json_object();
        status = append(array, machine);
        if (status == EP_OK) {
            status = machine_to_json(topo->machines[m], machine);
        }
    }
    return status;
}

static enum ep_status hosts_to_json(const struct ep_topo *topo, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t h = 0; h < topo->num_hosts && status == EP_OK; h++) {
        const struct ep_topo_host *host = &topo->hosts[h];
        status = append(array, json_pack("{s:o, s:I, s:I}", "name", text_or_null(host->name),
                                         "machine", (json_int_t)host->machine_idx, "num_ranks",
                                         (json_int_t)host->num_ranks));
    }
    return status;
}

static enum ep_status levels_to_json(const struct ep_topo *topo, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t l = 1; l < topo->num_levels && status == EP_OK; l++) {
        const struct ep_topo_level *level = &topo->levels[l];
        if (!ep_topo_level_is_shown(level)) {
            continue;
        }
        status = append(
            array, json_pack("{s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:o, s:o, s:o}",
                             "name", text_or_null(level->name), "scope",
                             ep_scope_name(level->scope), "num_pairs",
                             (json_int_t)level->num_pairs, "common", text_or_null(level->common),
                             "subtype", text_or_null(level->subtype), "same_numa",
                             level->span_pus > 0 ? json_boolean(level->same_numa) : json_null(),
                             "slit", level->slit > 0 ? ep_json_real(level->slit) : json_null(),
                             "span_pus",
                             level->span_pus > 0 ? json_integer(level->span_pus) : json_null(),
                             "floating", level->floating, "oversubscribed",
                             level->oversubscribed, "reported_bytes_per_s",
                             ep_json_real(level->reported_bytes_per_s), "measured_latency_s",
                             ep_json_real(level->measured_latency_s), "measured_bytes_per_s",
                             ep_json_real(level->measured_bytes_per_s)));
    }
    return status;
}

static enum ep_status ranks_to_json(const struct ep_topo *topo, json_t *array)
{
    enum ep_status status = EP_OK;
    for (int64_t r = 0; r < topo->num_ranks && status == EP_OK; r++) {
        const struct ep_topo_rank *rank = &topo->ranks[r];
        status = append(array, json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:b}", "rank",
                                         (json_int_t)r, "host", (json_int_t)rank->host, "package",
                                         index_or_null(rank->package), "numa",
                                         index_or_null(rank->numa), "core",
                                         index_or_null(rank->core), "pu",
                                         index_or_null(rank->pu), "floating", rank->core < 0));
    }
    return status;
}

static enum ep_status pairs_to_json(const struct ep_topo *topo, json_t *array)
{
    enum ep_status status = EP_OK;
    if (topo->num_ranks > EP_TOPO_MAX_PAIR_RANKS) {
        return ep_error_set(EP_EINVAL, "--pairs lists at most the pairs of %d ranks, not %" PRId64,
                            EP_TOPO_MAX_PAIR_RANKS, topo->num_ranks);
    }
    for (int64_t i = 0; i < topo->num_ranks; i++) {
        for (int64_t k = i + 1; k < topo->num_ranks && status == EP_OK; k++) {
            status = append(array, json_pack("{s:[I, I], s:s}", "ranks", (json_int_t)i,
                                             (json_int_t)k, "level",
                                             topo->levels[ep_topo_level_of(topo, i, k)].name));
        }
    }
    return status;
}

/* A network device of the hardware: bridges, tunnels and the like have no place on PCI. */
static bool is_nic(const struct ep_machine_device *device)
{
    return device->kind == EP_DEVICE_NIC && device->busid[0] != '\0';
}

/* In and out of every NIC, and the memory of every NUMA node, host by host. */
static enum ep_status ports_to_json(const struct ep_topo *topo, json_t *array)
{
    static const char *const directions[] = {"in", "out"};
    enum ep_status status = EP_OK;
    for (int64_t h = 0; h < topo->num_hosts; h++) {
        const struct ep_machine *m = topo->hosts[h].machine;
        for (int64_t d = 0; d < 2 * m->num_devices; d++) {
            const struct ep_machine_device *nic = &m->devices[d / 2];
            if (!is_nic(nic)) {
                continue;
            }
            EP_TRY(append(array, json_pack("{s:s, s:s, s:I, s:I, s:o, s:s, s:o, s:o, s:o}", "kind",
                                           "nic", "direction", directions[d % 2], "host",
                                           (json_int_t)h, "device", (json_int_t)(d / 2), "name",
                                           text_or_null(nic->name), "busid", nic->busid, "package",
                                           index_or_null(nic->package), "numa",
                                           index_or_null(nic->numa), "reported_bytes_per_s",
                                           ep_json_real(nic->net_bytes_per_s))));
        }
        for (int64_t n = 0; n < m->num_numas; n++) {
            EP_TRY(append(array, json_pack("{s:s, s:s, s:I, s:I, s:o}", "kind", "memory",
                                           "direction", "shared", "host", (json_int_t)h, "numa",
                                           (json_int_t)n, "reported_bytes_per_s", json_null())));
        }
    }
out:
    return status;
}

/* 0 = on the rank's NUMA node, 1 = on its package, 2 = elsewhere on its host, or not told. */
static int distance_to_nic(const struct ep_topo_rank *rank, const struct ep_machine_device *nic)
{
    if (rank->numa >= 0 && rank->numa == nic->numa) {
        return 0;
    }
    return rank->package >= 0 && rank->package == nic->package ? 1 : 2;
}

/* The nearest NIC of each rank; ranks with the same nearest ones take them by turns, in rank order. */
static enum ep_status rank_nics_to_json(const struct ep_topo *topo, json_t *array)
{
    static const char *const distances[] = {"numa", "package", "host"};
    enum ep_status status = EP_OK;
    enum { DEVICES = 64 }; /* told apart by their turns; more share one */
    int64_t *turns = calloc((size_t)topo->num_hosts * DEVICES + 1, sizeof *turns);
    if (turns == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the NICs of %" PRId64 " ranks",
                            topo->num_ranks);
    }
    for (int64_t r = 0; r < topo->num_ranks; r++) {
        const struct ep_topo_rank *rank = &topo->ranks[r];
        const struct ep_machine *m = topo->hosts[rank->host].machine;
        int64_t first = -1, num = 0;
        int nearest = 3;
        for (int64_t d = 0; d < m->num_devices; d++) {
            const int distance =
                is_nic(&m->devices[d]) ? distance_to_nic(rank, &m->devices[d]) : 3;
            if (distance < nearest) {
                nearest = distance;
                first = d;
                num = 0;
            }
            num += distance == nearest && distance < 3;
        }
        if (num == 0) {
            continue;
        }
        /* turns are counted by the first of the equal ones */
        int64_t skip = turns[rank->host * DEVICES + first % DEVICES]++ % num;
        int64_t chosen = first;
        for (int64_t d = first; d < m->num_devices; d++) {
            if (is_nic(&m->devices[d]) && distance_to_nic(rank, &m->devices[d]) == nearest &&
                skip-- == 0) {
                chosen = d;
            }
        }
        EP_TRY(append(array, json_pack("{s:I, s:I, s:I, s:o, s:s, s:I}", "rank", (json_int_t)r,
                                       "host", (json_int_t)rank->host, "device",
                                       (json_int_t)chosen, "name",
                                       text_or_null(m->devices[chosen].name), "shares",
                                       distances[nearest], "equally_near", (json_int_t)num)));
    }
out:
    free(turns);
    return status;
}

static bool has_nic(const struct ep_topo *topo)
{
    for (int64_t h = 0; h < topo->num_hosts; h++) {
        const struct ep_machine *m = topo->hosts[h].machine;
        for (int64_t d = 0; d < m->num_devices; d++) {
            if (is_nic(&m->devices[d])) {
                return true;
            }
        }
    }
    return false;
}

static json_t *restrictions_to_json(const struct ep_restrictions *r)
{
    if (r == NULL) {
        return json_null();
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o}", "complete_pus",
                     (json_int_t)r->complete_pus, "allowed_pus", (json_int_t)r->allowed_pus,
                     "affinity_pus", (json_int_t)r->affinity_pus, "usable_cores",
                     (json_int_t)r->usable_cores, "quota_cpus", ep_json_real(r->quota_cpus),
                     "quota_source", text_or_null(r->quota_source));
}

static enum ep_status add_layout_warnings(const struct ep_topo *topo, json_t *warnings)
{
    enum ep_status status = EP_OK;
    if (topo->num_floating > 0) {
        EP_TRY(append(warnings,
                      json_sprintf("unbound: %" PRId64 " of %" PRId64
                                   " ranks float over several cores, so that levels below the "
                                   "host cannot be told apart; bind one rank per core (mpirun "
                                   "--bind-to core)",
                                   topo->num_floating, topo->num_ranks)));
    }
    if (topo->num_oversubscribed > 0) {
        EP_TRY(append(warnings,
                      json_sprintf("oversubscribed: %" PRId64 " of %" PRId64
                                   " ranks share a hardware thread with another; times are of "
                                   "ranks that wait for each other: use fewer ranks",
                                   topo->num_oversubscribed, topo->num_ranks)));
    }
    if (topo->num_machines > 1) {
        EP_TRY(append(warnings, json_sprintf("unlike hosts: %" PRId64
                                             " hosts are of %" PRId64
                                             " kinds; the slowest kind sets the time",
                                             topo->num_hosts, topo->num_machines)));
    }
out:
    return status;
}

static enum ep_status add_restriction_warnings(const struct ep_restrictions *r, json_t *warnings)
{
    enum ep_status status = EP_OK;
    if (r->allowed_pus < r->complete_pus) {
        EP_TRY(append(warnings, json_sprintf("cgroup: %" PRId64 " of %" PRId64
                                             " hardware threads are allowed; the rest may be at "
                                             "work for others",
                                             r->allowed_pus, r->complete_pus)));
    }
    if (r->affinity_pus < r->allowed_pus) {
        EP_TRY(append(warnings, json_sprintf("affinity: this process is bound to %" PRId64
                                             " of %" PRId64 " hardware threads",
                                             r->affinity_pus, r->allowed_pus)));
    }
    if (r->quota_cpus < (double)r->affinity_pus) {
        EP_TRY(append(warnings, json_sprintf("cpu quota: %.2f CPUs' worth of time for %" PRId64
                                             " hardware threads (%s): ranks beyond it are "
                                             "stopped by the kernel",
                                             r->quota_cpus, r->affinity_pus, r->quota_source)));
    }
out:
    return status;
}

enum ep_status ep_topo_warnings(const struct ep_topo *topo,
                                const struct ep_restrictions *restrictions, json_t **warnings)
{
    enum ep_status status = EP_OK;
    json_t *array = json_array();
    EP_TRY(add_layout_warnings(topo, array));
    if (restrictions != NULL) {
        EP_TRY(add_restriction_warnings(restrictions, array));
    }
    *warnings = array;
    array = NULL;
out:
    json_decref(array);
    return status;
}

enum ep_status ep_topo_to_json(const struct ep_topo *topo,
                               const struct ep_restrictions *restrictions, bool with_pairs,
                               json_t **json)
{
    static const struct {
        const char *key;
        enum ep_status (*fill)(const struct ep_topo *topo, json_t *array);
    } parts[] = {
        {"hosts", hosts_to_json},   {"machines", machines_to_json}, {"levels", levels_to_json},
        {"ranks", ranks_to_json},   {"ports", ports_to_json},
        {"rank_to_nic", rank_nics_to_json},
        {"pairs", pairs_to_json},
    };
    enum ep_status status = EP_OK;
    json_t *warnings = NULL;
    json_t *object = json_object();
    EP_TRY(ep_json_set(object, "schema", json_integer(1)));
    const size_t num_parts = sizeof parts / sizeof parts[0] - (with_pairs ? 0 : 1);
    for (size_t p = 0; p < num_parts; p++) {
        json_t *array = json_array();
        EP_TRY(ep_json_set(object, parts[p].key, array));
        EP_TRY(parts[p].fill(topo, array));
    }
    EP_TRY(ep_json_set(object, "ports_note",
                       has_nic(topo) ? json_null()
                                     : json_string("no network device on PCI was seen: rank_to_nic "
                                                   "is empty, and no port is a NIC's")));
    EP_TRY(ep_json_set(object, "restrictions", restrictions_to_json(restrictions)));
    EP_TRY(ep_topo_warnings(topo, restrictions, &warnings));
    EP_TRY(ep_json_set(object, "warnings", warnings));
    *json = object;
    object = NULL;
out:
    json_decref(object);
    return status;
}
