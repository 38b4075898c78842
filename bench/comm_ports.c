/* SPDX-License-Identifier: Apache-2.0 */
/* Each node's NIC, and the uplinks of switches where they were told. */
#include "bench/comm_ports.h"

#include "base/units.h"
#include "kernels/port_schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool ep_comm_ports_known(const struct ep_session *session, const struct ep_comm_setting *setting)
{
    return session->options.link_bytes_per_s > 0 && setting->traffic.num_nodes > 1;
}

static enum ep_status add_ports(const char *kind, const char *name, int64_t idx, int64_t out_bytes,
                                int64_t in_bytes, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    char text[32];
    snprintf(text, sizeof text, "%s%" PRId64, name, idx);
    EP_TRY(ep_record_add_port(record, text, kind, "out", out_bytes));
    EP_TRY(ep_record_add_port(record, text, kind, "in", in_bytes));
out:
    return status;
}

static enum ep_status fill_nics(const struct ep_comm_setting *s, const int64_t *rows, double rate,
                                struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const int64_t num_ranks = s->traffic.num_ranks;
    char text[32];
    for (int64_t n = 0; n < s->traffic.num_nodes; n++) {
        int64_t out = 0, in = 0;
        for (int64_t i = 0; i < num_ranks; i++) {
            for (int64_t j = 0; j < num_ranks; j++) {
                const bool leaves = s->traffic.rank_node[i] == n, comes = s->traffic.rank_node[j] == n;
                out += leaves && !comes ? rows[i * num_ranks + j] : 0;
                in += comes && !leaves ? rows[i * num_ranks + j] : 0;
            }
        }
        EP_TRY(add_ports("nic", "node", n, out * record->row_bytes, in * record->row_bytes, record));
    }
    record->bound_s = (double)record->h_nic_bytes / rate;
    EP_TRY(ep_record_set_text(&record->bound_name, "nic at %s",
                              ep_format_bandwidth(rate, text, sizeof text)));
out:
    return status;
}

/* The busiest uplink binds where it needs longer than the busiest NIC. */
static enum ep_status fill_uplinks(const struct ep_port_network *network, const int64_t *rows,
                                   struct ep_record *record)
{
    enum ep_status status = EP_OK;
    int64_t out[EP_UPLINKS_MAX], in[EP_UPLINKS_MAX];
    char text[32];
    ep_port_uplink_bytes(network, rows, record->row_bytes, out, in);
    for (int64_t i = 0; i < network->num_switches; i++) {
        const double rate = network->uplink_bytes_per_s[i];
        const double time_s = (double)(out[i] > in[i] ? out[i] : in[i]) / rate;
        EP_TRY(add_ports("uplink", "switch", i, out[i], in[i], record));
        if (time_s > record->bound_s) {
            record->bound_s = time_s;
            EP_TRY(ep_record_set_text(&record->bound_name, "uplink at %s",
                                      ep_format_bandwidth(rate, text, sizeof text)));
        }
    }
out:
    return status;
}

/* Of the case's own ranks, by the names of their hosts. nic_switch [num_nodes] */
static void find_switches(const struct ep_session *session, const struct ep_comm_setting *s,
                          int32_t *nic_switch)
{
    for (int64_t r = 0; r < s->traffic.num_ranks; r++) {
        const int64_t host = session->topo->ranks[s->world_rank[r]].host;
        nic_switch[s->traffic.rank_node[r]] =
            ep_uplinks_switch_of(&session->options.uplinks, session->topo->hosts[host].name);
    }
}

enum ep_status ep_comm_ports_fill(const struct ep_session *session,
                                  const struct ep_comm_setting *setting, const int64_t *rows,
                                  struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const struct ep_uplinks *uplinks = &session->options.uplinks;
    const int64_t num_ranks = setting->traffic.num_ranks;
    const double rate = session->options.link_bytes_per_s;
    int32_t *nic_switch = calloc((size_t)setting->traffic.num_nodes, sizeof *nic_switch);
    status = nic_switch != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for ports");
    EP_TRY(status);
    find_switches(session, setting, nic_switch);
    const struct ep_port_network network = {
        .num_ranks = num_ranks,
        .rank_nic = setting->traffic.rank_node,
        .num_nics = setting->traffic.num_nodes,
        .nic_bytes_per_s = rate,
        .nic_switch = nic_switch,
        .num_switches = uplinks->num,
        .uplink_bytes_per_s = uplinks->bytes_per_s,
    };
    EP_TRY(fill_nics(setting, rows, rate, record));
    EP_TRY(fill_uplinks(&network, rows, record));
    if (num_ranks > EP_PORT_SCHEDULE_MAX_RANKS) {
        record->schedule_bytes = num_ranks > network.num_nics || uplinks->num > 0
                                     ? -1
                                     : record->schedule_bytes;
    } else {
        double time_s = 0;
        EP_TRY(ep_port_schedule_time(&network, rows, record->row_bytes, &time_s));
        record->schedule_bytes = llround(time_s * rate);
    }
out:
    free(nic_switch);
    return status;
}
