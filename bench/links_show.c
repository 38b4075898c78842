/* SPDX-License-Identifier: Apache-2.0 */
/* What `links` prints: sizes, then levels; and the same as JSON. */
#include "bench/links_sweep.h"

#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>

static const char *level_name(const struct ep_session *session, int64_t level)
{
    return session->topo->levels[level].name;
}

enum ep_status ep_links_print_points(const struct ep_session *session,
                                     const struct ep_links_summary *summary, FILE *out)
{
    static const char *const headers[] = {"level", "pairs", "pattern", "size", "time",
                                          "bandwidth", "slowest pair", "fastest pair"};
    enum ep_status status = EP_OK;
    struct ep_table *table = NULL;
    EP_TRY(ep_table_create(headers, 8, &table));
    for (int64_t i = 0; i < summary->num_points; i++) {
        const struct ep_links_point *p = &summary->points[i];
        char text[32];
        ep_table_add(table, "%s", level_name(session, p->level));
        ep_table_add(table, p->all_at_once ? "%" PRId64 " at once" : "%" PRId64 " by one",
                     p->num_pairs);
        ep_table_add(table, "%s", ep_links_pattern_name(p->pattern));
        ep_table_add(table, "%s", ep_format_bytes((double)p->size_bytes, text, sizeof text));
        ep_table_add(table, "%s", ep_format_time(p->time_s, text, sizeof text));
        ep_table_add(table, "%s", ep_format_bandwidth(p->bw_bytes_per_s, text, sizeof text));
        ep_table_add(table, "%s",
                     ep_format_bandwidth(p->low_pair_bytes_per_s, text, sizeof text));
        ep_table_add(table, "%s",
                     ep_format_bandwidth(p->high_pair_bytes_per_s, text, sizeof text));
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

enum ep_status ep_links_print_levels(const struct ep_session *session,
                                     const struct ep_links_summary *summary, FILE *out)
{
    static const char *const headers[] = {"level", "pairs", "latency", "best", "at size",
                                          "largest", "at once", "latency", "best each",
                                          "largest each"};
    enum ep_status status = EP_OK;
    struct ep_table *table = NULL;
    EP_TRY(ep_table_create(headers, 10, &table));
    for (int64_t i = 0; i < summary->num_levels; i++) {
        const struct ep_links_level *l = &summary->levels[i];
        char text[32];
        ep_table_add(table, "%s", level_name(session, l->level));
        ep_table_add(table, "%" PRId64, session->topo->levels[l->level].num_pairs);
        ep_table_add(table, "%s", ep_format_time(l->latency_s, text, sizeof text));
        ep_table_add(table, "%s", ep_format_bandwidth(l->bw_bytes_per_s, text, sizeof text));
        ep_table_add(table, "%s", ep_format_bytes((double)l->bw_size_bytes, text, sizeof text));
        ep_table_add(table, "%s", ep_format_bandwidth(l->large_bw_bytes_per_s, text, sizeof text));
        if (l->concurrent_pairs > 0) {
            ep_table_add(table, "%" PRId64 " pairs", l->concurrent_pairs);
        } else {
            ep_table_add(table, "-");
        }
        ep_table_add(table, "%s", ep_format_time(l->all_latency_s, text, sizeof text));
        ep_table_add(table, "%s",
                     ep_format_bandwidth(l->all_bw_bytes_per_s, text, sizeof text));
        ep_table_add(table, "%s",
                     ep_format_bandwidth(l->all_large_bw_bytes_per_s, text, sizeof text));
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

static enum ep_status append(json_t *array, json_t *item)
{
    if (item == NULL || json_array_append_new(array, item) != 0) {
        return ep_error_set(EP_ENOMEM, "no memory for JSON");
    }
    return EP_OK;
}

static enum ep_status append_level(const struct ep_session *session,
                                   const struct ep_links_level *l, json_t *array)
{
    const struct ep_topo_level *level = &session->topo->levels[l->level];
    return append(
        array, json_pack("{s:s, s:s, s:I, s:b, s:o, s:o, s:I, s:o, s:I, s:o, s:o, s:o}", "name", level->name,
                         "scope", ep_scope_name(level->scope), "num_pairs",
                         (json_int_t)level->num_pairs, "floating", level->floating, "latency_s",
                         ep_json_real(l->latency_s), "bw_bytes_per_s",
                         ep_json_real(l->bw_bytes_per_s), "bw_size_bytes",
                         (json_int_t)l->bw_size_bytes, "large_bw_bytes_per_s",
                         ep_json_real(l->large_bw_bytes_per_s), "concurrent_pairs",
                         (json_int_t)l->concurrent_pairs, "all_latency_s",
                         ep_json_real(l->all_latency_s), "all_bw_bytes_per_s",
                         ep_json_real(l->all_bw_bytes_per_s), "all_large_bw_bytes_per_s",
                         ep_json_real(l->all_large_bw_bytes_per_s)));
}

static enum ep_status append_point(const struct ep_session *session,
                                   const struct ep_links_point *p, json_t *array)
{
    return append(
        array,
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "level",
                  level_name(session, p->level), "pattern", ep_links_pattern_name(p->pattern),
                  "size_bytes", (json_int_t)p->size_bytes, "concurrent_pairs",
                  (json_int_t)p->concurrent_pairs, "num_pairs", (json_int_t)p->num_pairs, "time_s",
                  ep_json_real(p->time_s), "bw_bytes_per_s", ep_json_real(p->bw_bytes_per_s),
                  "low_pair_bytes_per_s", ep_json_real(p->low_pair_bytes_per_s),
                  "high_pair_bytes_per_s", ep_json_real(p->high_pair_bytes_per_s)));
}

enum ep_status ep_links_to_json(const struct ep_session *session,
                                const struct ep_links_summary *summary, json_t **json)
{
    enum ep_status status = EP_OK;
    json_t *levels = json_array();
    json_t *points = json_array();
    json_t *object = json_object();
    for (int64_t i = 0; i < summary->num_levels; i++) {
        EP_TRY(append_level(session, &summary->levels[i], levels));
    }
    for (int64_t i = 0; i < summary->num_points; i++) {
        EP_TRY(append_point(session, &summary->points[i], points));
    }
    EP_TRY(ep_json_set(object, "schema", json_integer(1)));
    EP_TRY(ep_json_set(object, "ranks", json_integer(session->topo->num_ranks)));
    EP_TRY(ep_json_set(object, "hosts", json_integer(session->topo->num_hosts)));
    EP_TRY(ep_json_set(object, "levels", json_incref(levels)));
    EP_TRY(ep_json_set(object, "points", json_incref(points)));
    *json = object;
    object = NULL;
out:
    json_decref(levels);
    json_decref(points);
    json_decref(object);
    return status;
}
