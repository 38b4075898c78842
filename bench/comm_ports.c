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
    char text[64];
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

/* One lane of a switch's uplink. It binds where it needs longer than whatever bound before. */
static enum ep_status fill_lane(int64_t switch_idx, int32_t num_lanes, int32_t lane, int64_t out_bytes,
                                int64_t in_bytes, double rate, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    char text[32];
    const double time_s = (double)(out_bytes > in_bytes ? out_bytes : in_bytes) / rate;
    if (num_lanes == 1) {
        EP_TRY(add_ports("uplink", "switch", switch_idx, out_bytes, in_bytes, record));
    } else {
        snprintf(text, sizeof text, "switch%" PRId64 ".", switch_idx);
        EP_TRY(add_ports("uplink", text, lane, out_bytes, in_bytes, record));
    }
    if (time_s > record->bound_s) {
        record->bound_s = time_s;
        EP_TRY(ep_record_set_text(&record->bound_name, "uplink at %s",
                                  ep_format_bandwidth(rate, text, sizeof text)));
    }
out:
    return status;
}

static enum ep_status fill_uplinks(const struct ep_port_network *network, const int64_t *rows,
                                   struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const size_t num_lanes = (size_t)ep_port_num_lanes(network);
    int64_t *out = calloc(2 * num_lanes + 1, sizeof *out);
    status = out != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for uplinks");
    EP_TRY(status);
    int64_t *in = out + num_lanes;
    ep_port_uplink_bytes(network, rows, record->row_bytes, out, in);
    int64_t idx = 0; /* over the lanes of all switches */
    for (int64_t i = 0; i < network->num_switches; i++) {
        const int32_t num = network->switch_lanes[i];
        for (int32_t lane = 0; lane < num; lane++, idx++) {
            EP_TRY(fill_lane(i, num, lane, out[idx], in[idx], network->uplink_bytes_per_s[i], record));
        }
    }
out:
    free(out);
    return status;
}

/* Where the fit finds which messages share a lane. */
static enum ep_status fill_switches(const struct ep_port_network *n, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    if (n->num_switches == 0) {
        return EP_OK;
    }
    int64_t *room = calloc((size_t)(n->num_switches + 2 * n->num_nics), sizeof *room);
    status = room != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for switches");
    EP_TRY(status);
    int64_t *lanes = room, *node_switch = lanes + n->num_switches, *position = node_switch + n->num_nics;
    for (int64_t i = 0; i < n->num_switches; i++) {
        lanes[i] = n->switch_lanes[i];
    }
    for (int64_t i = 0; i < n->num_nics; i++) {
        node_switch[i] = n->nic_switch[i] >= 0 ? n->nic_switch[i] : n->num_switches;
        position[i] = n->nic_position[i];
    }
    EP_TRY(ep_record_set_i64s(&record->switch_lanes, lanes, n->num_switches));
    EP_TRY(ep_record_set_i64s(&record->node_switch, node_switch, n->num_nics));
    EP_TRY(ep_record_set_i64s(&record->node_position, position, n->num_nics));
    record->messages_uplink_max = ep_port_uplink_messages(n);
out:
    free(room);
    return status;
}

/* Of the case's own ranks, by the names of their hosts. nic_switch, nic_position [num_nodes] */
static void find_switches(const struct ep_session *session, const struct ep_comm_setting *s,
                          int32_t *nic_switch, int32_t *nic_position)
{
    for (int64_t r = 0; r < s->traffic.num_ranks; r++) {
        const struct ep_uplinks *uplinks = &session->options.uplinks;
        const char *host = session->topo->hosts[session->topo->ranks[s->world_rank[r]].host].name;
        const int32_t position = ep_uplinks_position_of(uplinks, host);
        nic_switch[s->traffic.rank_node[r]] = ep_uplinks_switch_of(uplinks, host);
        nic_position[s->traffic.rank_node[r]] = position >= 0 ? position : 0;
    }
}

enum ep_status ep_comm_ports_fill(const struct ep_session *session,
                                  const struct ep_comm_setting *setting, const int64_t *rows,
                                  enum ep_step_partner steps, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    const struct ep_uplinks *uplinks = &session->options.uplinks;
    const int64_t num_ranks = setting->traffic.num_ranks;
    const double rate = session->options.link_bytes_per_s;
    const size_t num_nodes = (size_t)setting->traffic.num_nodes;
    int32_t *nic_switch = calloc(2 * num_nodes, sizeof *nic_switch);
    status = nic_switch != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for ports");
    EP_TRY(status);
    int32_t *nic_position = nic_switch + num_nodes;
    find_switches(session, setting, nic_switch, nic_position);
    const struct ep_port_network network = {
        .num_ranks = num_ranks,
        .rank_nic = setting->traffic.rank_node,
        .num_nics = setting->traffic.num_nodes,
        .nic_bytes_per_s = rate,
        .nic_switch = nic_switch,
        .num_switches = uplinks->num,
        .uplink_bytes_per_s = uplinks->bytes_per_s,
        .switch_lanes = uplinks->lanes,
        .nic_position = nic_position,
        .steps = steps,
    };
    EP_TRY(fill_nics(setting, rows, rate, record));
    EP_TRY(fill_uplinks(&network, rows, record));
    EP_TRY(fill_switches(&network, record));
    EP_TRY(ep_port_step_bytes(&network, rows, record->row_bytes, &record->step_port_bytes));
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
