/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of a topology: machines, levels, ranks, pairs. */
#include "topologies/topo_show.h"

#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_ROWS = 64 };

static void add_index(struct ep_table *table, int64_t value)
{
    if (value >= 0) {
        ep_table_add(table, "%" PRId64, value);
    } else {
        ep_table_add(table, "-");
    }
}

static void print_caches(const struct ep_machine *m, FILE *out)
{
    for (int64_t c = 0; c < m->num_caches; c++) {
        const struct ep_machine_cache *cache = &m->caches[c];
        char low[32];
        char high[32];
        fprintf(out, "  %-9s %" PRId64 " of %s", cache->name, cache->num,
                cache->max_size_bytes > 0
                    ? ep_format_bytes((double)cache->min_size_bytes, low, sizeof low)
                    : "unknown size");
        if (cache->min_size_bytes != cache->max_size_bytes) {
            fprintf(out, " to %s",
                    ep_format_bytes((double)cache->max_size_bytes, high, sizeof high));
        }
        fprintf(out, ", %s%" PRId64 " core%s each\n", cache->num > 1 ? "up to " : "",
                cache->max_num_cores, cache->max_num_cores == 1 ? "" : "s");
    }
}

static void print_numas(const struct ep_machine *m, FILE *out)
{
    for (int64_t n = 0; n < m->num_numas; n++) {
        const struct ep_machine_numa *numa = &m->numas[n];
        char size[32];
        fprintf(out, "  numa %-4" PRId64 " %s%s%s, local to %" PRId64 " hardware threads", n,
                numa->memory_bytes > 0
                    ? ep_format_bytes((double)numa->memory_bytes, size, sizeof size)
                    : "unknown size",
                numa->subtype[0] != '\0' ? " " : "", numa->subtype, numa->num_pus);
        for (int64_t k = 0; k < m->num_numas && m->slit != NULL; k++) {
            fprintf(out, "%s%.0f", k == 0 ? ", distances " : " ", m->slit[n * m->num_numas + k]);
        }
        fprintf(out, "\n");
    }
}

static enum ep_status print_devices(const struct ep_machine *m, FILE *out)
{
    static const char *const headers[] = {"  device", "pci", "name", "model", "numa",
                                          "pci link", "line rate"};
    struct ep_table *table = NULL;
    enum ep_status status = EP_OK;
    if (m->num_devices == 0) {
        return EP_OK;
    }
    EP_TRY(ep_table_create(headers, 7, &table));
    for (int64_t d = 0; d < m->num_devices; d++) {
        const struct ep_machine_device *device = &m->devices[d];
        char speed[32];
        ep_table_add(table, "  %s", ep_device_kind_name(device->kind));
        ep_table_add(table, "%s", device->busid[0] != '\0' ? device->busid : "-");
        ep_table_add(table, "%s", device->name[0] != '\0' ? device->name : "-");
        ep_table_add(table, "%s", device->model[0] != '\0' ? device->model : "-");
        add_index(table, device->numa);
        ep_table_add(table, "%s",
                     ep_format_bandwidth(device->pci_bytes_per_s, speed, sizeof speed));
        ep_table_add(table, "%s",
                     ep_format_bandwidth(device->net_bytes_per_s, speed, sizeof speed));
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

static enum ep_status print_machine(const struct ep_topo *topo, int64_t machine_idx, FILE *out)
{
    const struct ep_machine *m = topo->machines[machine_idx];
    const char *first = "";
    int64_t hosts = 0;
    for (int64_t h = 0; h < topo->num_hosts; h++) {
        if (topo->hosts[h].machine_idx == machine_idx) {
            first = hosts == 0 ? topo->hosts[h].name : first;
            hosts++;
        }
    }
    fprintf(out, "%s%s%s", first, m->model[0] != '\0' ? ": " : "", m->model);
    if (hosts > 1) {
        fprintf(out, " (and %" PRId64 " hosts like it)", hosts - 1);
    }
    fprintf(out,
            "\n  %" PRId64 " package%s, %" PRId64 " NUMA node%s, %" PRId64 " core%s, %" PRId64
            " hardware thread%s",
            m->num_packages, m->num_packages == 1 ? "" : "s", m->num_numas,
            m->num_numas == 1 ? "" : "s", m->num_cores, m->num_cores == 1 ? "" : "s", m->num_pus,
            m->num_pus == 1 ? "" : "s");
    if (m->num_allowed_pus != m->num_complete_pus) {
        fprintf(out, " allowed of %" PRId64, m->num_complete_pus);
    }
    fprintf(out, "\n");
    print_numas(m, out);
    print_caches(m, out);
    if (strcmp(m->source, "Synthetic") == 0) {
        fprintf(out, "  (a synthetic host: sizes that its text does not give are hwloc's own)\n");
    }
    return print_devices(m, out);
}

static void print_restrictions(const struct ep_restrictions *r, FILE *out)
{
    fprintf(out,
            "\nthis process: bound to %" PRId64 " of %" PRId64 " allowed hardware threads (of "
            "%" PRId64 "), ",
            r->affinity_pus, r->allowed_pus, r->complete_pus);
    if (isnan(r->quota_cpus)) {
        fprintf(out, "no CPU quota");
    } else {
        fprintf(out, "quota of %.2f CPUs (%s)", r->quota_cpus, r->quota_source);
    }
    fprintf(out, "; %" PRId64 " usable core%s\n", r->usable_cores,
            r->usable_cores == 1 ? "" : "s");
}

static bool any_measured(const struct ep_topo *topo)
{
    for (int64_t l = 1; l < topo->num_levels; l++) {
        if (!isnan(topo->levels[l].measured_bytes_per_s)) {
            return true;
        }
    }
    return false;
}

static enum ep_status print_levels(const struct ep_topo *topo, FILE *out)
{
    static const char *const headers[] = {"level", "scope", "pairs", "numa", "slit",
                                          "shared by", "latency", "bandwidth"};
    const bool measured = any_measured(topo);
    struct ep_table *table = NULL;
    enum ep_status status = EP_OK;
    EP_TRY(ep_table_create(headers, measured ? 8 : 6, &table));
    for (int64_t l = 1; l < topo->num_levels; l++) {
        const struct ep_topo_level *level = &topo->levels[l];
        char text[32];
        if (!ep_topo_level_is_shown(level)) {
            continue;
        }
        ep_table_add(table, "%s", level->name);
        ep_table_add(table, "%s", ep_scope_name(level->scope));
        ep_table_add(table, "%" PRId64, level->num_pairs);
        ep_table_add(table, "%s", level->span_pus == 0 ? "-" : level->same_numa ? "same" : "other");
        add_index(table, level->slit > 0 ? (int64_t)level->slit : -1);
        if (level->span_pus > 0) {
            ep_table_add(table, "%" PRId64 " threads", level->span_pus);
        } else {
            ep_table_add(table, "-");
        }
        if (measured) {
            ep_table_add(table, "%s",
                         ep_format_time(level->measured_latency_s, text, sizeof text));
            ep_table_add(table, "%s",
                         ep_format_bandwidth(level->measured_bytes_per_s, text, sizeof text));
        }
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

static enum ep_status print_ranks(const struct ep_topo *topo, FILE *out)
{
    static const char *const headers[] = {"rank", "host", "package", "numa", "core", "thread"};
    struct ep_table *table = NULL;
    enum ep_status status = EP_OK;
    const int64_t rows = topo->num_ranks < MAX_ROWS ? topo->num_ranks : MAX_ROWS;
    EP_TRY(ep_table_create(headers, 6, &table));
    for (int64_t r = 0; r < rows; r++) {
        const struct ep_topo_rank *rank = &topo->ranks[r];
        ep_table_add(table, "%" PRId64, r);
        ep_table_add(table, "%s", topo->hosts[rank->host].name);
        add_index(table, rank->package);
        add_index(table, rank->numa);
        if (rank->core >= 0) {
            add_index(table, rank->core);
        } else {
            ep_table_add(table, "floating");
        }
        add_index(table, rank->pu);
    }
    EP_TRY(ep_table_print(table, out));
    if (rows < topo->num_ranks) {
        fprintf(out, "... and %" PRId64 " more (--json lists all)\n", topo->num_ranks - rows);
    }
out:
    ep_table_destroy(table);
    return status;
}

enum ep_status ep_topo_print(const struct ep_topo *topo,
                             const struct ep_restrictions *restrictions, FILE *out)
{
    enum ep_status status = EP_OK;
    json_t *warnings = NULL;
    for (int64_t m = 0; m < topo->num_machines; m++) {
        EP_TRY(print_machine(topo, m, out));
    }
    if (restrictions != NULL) {
        print_restrictions(restrictions, out);
    }
    fprintf(out, "\n");
    EP_TRY(print_levels(topo, out));
    fprintf(out, "\n");
    EP_TRY(print_ranks(topo, out));
    EP_TRY(ep_topo_warnings(topo, restrictions, &warnings));
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        fprintf(out, "%swarning: %s\n", i == 0 ? "\n" : "",
                json_string_value(json_array_get(warnings, i)));
    }
out:
    json_decref(warnings);
    return status;
}

enum ep_status ep_topo_print_pairs(const struct ep_topo *topo, FILE *out)
{
    if (topo->num_ranks > EP_TOPO_MAX_PAIR_RANKS) {
        return ep_error_set(EP_EINVAL, "--pairs lists at most the pairs of %d ranks, not %" PRId64,
                            EP_TOPO_MAX_PAIR_RANKS, topo->num_ranks);
    }
    fprintf(out, "\n");
    for (int64_t i = 0; i < topo->num_ranks; i++) {
        for (int64_t k = i + 1; k < topo->num_ranks; k++) {
            fprintf(out, "%" PRId64 " %" PRId64 " %s\n", i, k,
                    topo->levels[ep_topo_level_of(topo, i, k)].name);
        }
    }
    return EP_OK;
}
