/* SPDX-License-Identifier: Apache-2.0 */
/* Event by event: who is in which step, what its messages get of the ports, who is through next. */
#include "kernels/port_schedule.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PORTS_OF_FLOW = 4 };

/* A rank: the step it is in, and the message of that step. */
struct rank {
    int64_t step;       /* 1 to P - 1; P = through */
    double left_bytes;  /* of its own message */
    double rate;        /* bytes/s, while it is under way */
    bool sent, received;
    bool under_way;
    bool frozen; /* its rate is final */
    int num_ports;
    int64_t ports[MAX_PORTS_OF_FLOW];
};

struct simulation {
    const struct ep_port_network *network;
    const int64_t *rows;
    int64_t row_bytes;
    struct rank *ranks; /* [P] */
    double *capacity;   /* [num_ports] NIC out, NIC in, lanes of uplinks out, in */
    double *room;       /* [num_ports] scratch */
    int64_t *users;     /* [num_ports] scratch */
    int64_t num_ports;
    int64_t num_lanes;
};

static int64_t lanes_of(const struct ep_port_network *n, int64_t switch_idx)
{
    return n->switch_lanes != NULL ? n->switch_lanes[switch_idx] : 1;
}

/* The lane, among those of all switches, on which a switch's messages to a NIC pass. */
static int64_t find_lane(const struct ep_port_network *n, int32_t switch_idx, int32_t to_nic)
{
    int64_t first = 0;
    for (int32_t i = 0; i < switch_idx; i++) {
        first += lanes_of(n, i);
    }
    return first + (n->nic_position != NULL ? n->nic_position[to_nic] % lanes_of(n, switch_idx) : 0);
}

int64_t ep_port_num_lanes(const struct ep_port_network *n)
{
    int64_t num = 0;
    for (int64_t i = 0; i < n->num_switches; i++) {
        num += lanes_of(n, i);
    }
    return num;
}

static int32_t switch_of(const struct ep_port_network *n, int32_t nic)
{
    return n->nic_switch != NULL ? n->nic_switch[nic] : -1;
}

/* Of a message between two NICs: NIC out and in, lanes of uplinks out and in. */
static int list_ports(const struct ep_port_network *n, int64_t num_lanes, int32_t from_nic, int32_t to_nic,
                      int64_t *ports)
{
    const int32_t from = switch_of(n, from_nic), to = switch_of(n, to_nic);
    int num = 0;
    ports[num++] = from_nic;
    ports[num++] = n->num_nics + to_nic;
    if (from != to && from >= 0) {
        ports[num++] = 2 * n->num_nics + find_lane(n, from, to_nic);
    }
    if (from != to && to >= 0) {
        ports[num++] = 2 * n->num_nics + num_lanes + find_lane(n, to, to_nic);
    }
    return num;
}

static void begin_step(struct simulation *s, int64_t i)
{
    const struct ep_port_network *n = s->network;
    struct rank *r = &s->ranks[i];
    r->sent = r->received = false;
    r->num_ports = 0;
    r->left_bytes = 0;
    if (r->step == n->num_ranks) {
        return;
    }
    const int64_t to = ep_step_to(n->steps, n->num_ranks, i, r->step);
    const int32_t from_nic = n->rank_nic[i];
    const int32_t to_nic = n->rank_nic[to];
    if (from_nic == to_nic) {
        return;
    }
    r->left_bytes = (double)(s->row_bytes * s->rows[i * n->num_ranks + to]);
    r->num_ports = list_ports(n, s->num_lanes, from_nic, to_nic, r->ports);
}

static bool is_met(const struct simulation *s, int64_t i)
{
    const struct rank *r = &s->ranks[i];
    const struct ep_port_network *n = s->network;
    return r->step < n->num_ranks && !r->sent &&
           s->ranks[ep_step_to(n->steps, n->num_ranks, i, r->step)].step == r->step;
}

/* Everything that happens at this moment: empty messages arrive, ranks go on. */
static void settle(struct simulation *s)
{
    const int64_t num = s->network->num_ranks;
    for (bool changed = true; changed;) {
        changed = false;
        for (int64_t i = 0; i < num; i++) {
            struct rank *r = &s->ranks[i];
            if (is_met(s, i) && r->left_bytes <= 0) {
                r->sent = true;
                s->ranks[ep_step_to(s->network->steps, num, i, r->step)].received = true;
                changed = true;
            }
        }
        for (int64_t i = 0; i < num; i++) {
            struct rank *r = &s->ranks[i];
            if (r->step < num && r->sent && r->received) {
                r->step++;
                begin_step(s, i);
                changed = true;
            }
        }
    }
}

/* Max-min fair rates: the port that gives its users least sets them, then the rest of the room is shared. */
static void share_ports(struct simulation *s)
{
    const int64_t num = s->network->num_ranks;
    int64_t open = 0;
    memcpy(s->room, s->capacity, (size_t)s->num_ports * sizeof *s->room);
    memset(s->users, 0, (size_t)s->num_ports * sizeof *s->users);
    for (int64_t i = 0; i < num; i++) {
        struct rank *r = &s->ranks[i];
        r->under_way = is_met(s, i);
        r->frozen = !r->under_way;
        for (int p = 0; r->under_way && p < r->num_ports; p++) {
            s->users[r->ports[p]]++;
        }
        open += r->under_way;
    }
    while (open > 0) {
        int64_t tightest = -1;
        for (int64_t p = 0; p < s->num_ports; p++) {
            if (s->users[p] > 0 && (tightest < 0 || s->room[p] / (double)s->users[p] <
                                                        s->room[tightest] / (double)s->users[tightest])) {
                tightest = p;
            }
        }
        const double rate = s->room[tightest] / (double)s->users[tightest];
        for (int64_t i = 0; i < num; i++) {
            struct rank *r = &s->ranks[i];
            bool uses = false;
            for (int p = 0; !r->frozen && p < r->num_ports; p++) {
                uses = uses || r->ports[p] == tightest;
            }
            for (int p = 0; uses && p < r->num_ports; p++) {
                s->room[r->ports[p]] = fmax(s->room[r->ports[p]] - rate, 0);
                s->users[r->ports[p]]--;
            }
            if (uses) {
                r->rate = rate;
                r->frozen = true;
                open--;
            }
        }
    }
}

/* To the next moment at which a message is through; its seconds. */
static double advance(struct simulation *s)
{
    const int64_t num = s->network->num_ranks;
    double next_s = HUGE_VAL;
    for (int64_t i = 0; i < num; i++) {
        const struct rank *r = &s->ranks[i];
        next_s = r->under_way ? fmin(next_s, r->left_bytes / r->rate) : next_s;
    }
    EP_ASSERT(isfinite(next_s)); /* the ranks in the earliest step have met */
    for (int64_t i = 0; i < num; i++) {
        struct rank *r = &s->ranks[i];
        if (r->under_way) {
            r->left_bytes -= r->rate * next_s;
            /* what rounding leaves of one that ends now is no message: less than a byte */
            r->left_bytes = r->left_bytes < 0.5 ? 0 : r->left_bytes;
        }
    }
    return next_s;
}

static bool is_over(const struct simulation *s)
{
    for (int64_t i = 0; i < s->network->num_ranks; i++) {
        if (s->ranks[i].step < s->network->num_ranks) {
            return false;
        }
    }
    return true;
}

/* capacity [2 (NICs + lanes)] */
static void set_capacities(const struct ep_port_network *n, int64_t num_lanes, double *capacity)
{
    for (int64_t p = 0; p < 2 * n->num_nics; p++) {
        capacity[p] = n->nic_bytes_per_s;
    }
    int64_t port = 2 * n->num_nics;
    for (int64_t i = 0; i < n->num_switches; i++) {
        for (int64_t lane = 0; lane < lanes_of(n, i); lane++, port++) {
            capacity[port] = capacity[port + num_lanes] = n->uplink_bytes_per_s[i];
        }
    }
}

enum ep_status ep_port_schedule_time(const struct ep_port_network *network, const int64_t *rows,
                                     int64_t row_bytes, double *time_s)
{
    enum ep_status status = EP_OK;
    struct simulation s = {.network = network, .rows = rows, .row_bytes = row_bytes,
                           .num_lanes = ep_port_num_lanes(network)};
    s.num_ports = 2 * (network->num_nics + s.num_lanes);
    double now_s = 0;
    EP_ASSERT(network->num_ranks >= 1 && network->num_nics >= 1 && network->nic_bytes_per_s > 0);
    if (network->num_ranks > EP_PORT_SCHEDULE_MAX_RANKS) {
        return ep_error_set(EP_EINVAL, "a schedule over ports is made for at most %d ranks",
                            EP_PORT_SCHEDULE_MAX_RANKS);
    }
    s.ranks = calloc((size_t)network->num_ranks, sizeof *s.ranks);
    s.capacity = calloc((size_t)s.num_ports, sizeof *s.capacity);
    s.room = calloc((size_t)s.num_ports, sizeof *s.room);
    s.users = calloc((size_t)s.num_ports, sizeof *s.users);
    if (s.ranks == NULL || s.capacity == NULL || s.room == NULL || s.users == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a schedule");
        goto out;
    }
    set_capacities(network, s.num_lanes, s.capacity);
    for (int64_t i = 0; i < network->num_ranks; i++) {
        s.ranks[i].step = 1;
        begin_step(&s, i);
    }
    for (settle(&s); !is_over(&s); settle(&s)) {
        share_ports(&s);
        now_s += advance(&s);
    }
    *time_s = now_s;
out:
    free(s.ranks);
    free(s.capacity);
    free(s.room);
    free(s.users);
    return status;
}

enum ep_status ep_port_step_bytes(const struct ep_port_network *n, const int64_t *rows, int64_t row_bytes,
                                  int64_t *step_bytes)
{
    const int64_t num_lanes = ep_port_num_lanes(n);
    const int64_t num_ports = 2 * (n->num_nics + num_lanes);
    double sum_s = 0;
    double *capacity = calloc(2 * (size_t)num_ports, sizeof *capacity);
    if (capacity == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for ports");
    }
    double *load = capacity + num_ports;
    set_capacities(n, num_lanes, capacity);
    for (int64_t s = 1; s < n->num_ranks; s++) {
        double longest_s = 0;
        memset(load, 0, (size_t)num_ports * sizeof *load);
        for (int64_t i = 0; i < n->num_ranks; i++) {
            const int64_t to = ep_step_to(n->steps, n->num_ranks, i, s);
            int64_t ports[MAX_PORTS_OF_FLOW];
            const bool passes = n->rank_nic[i] != n->rank_nic[to];
            const int num =
                passes ? list_ports(n, num_lanes, n->rank_nic[i], n->rank_nic[to], ports) : 0;
            for (int p = 0; p < num; p++) {
                load[ports[p]] += (double)(row_bytes * rows[i * n->num_ranks + to]);
                longest_s = fmax(longest_s, load[ports[p]] / capacity[ports[p]]);
            }
        }
        sum_s += longest_s;
    }
    free(capacity);
    *step_bytes = llround(sum_s * n->nic_bytes_per_s);
    return EP_OK;
}

int64_t ep_port_uplink_messages(const struct ep_port_network *n)
{
    int64_t most = 0;
    for (int64_t i = 0; i < n->num_ranks && n->num_switches > 0; i++) {
        int64_t num = 0;
        for (int64_t j = 0; j < n->num_ranks; j++) {
            num += switch_of(n, n->rank_nic[i]) != switch_of(n, n->rank_nic[j]);
        }
        most = num > most ? num : most;
    }
    return most;
}

void ep_port_uplink_bytes(const struct ep_port_network *n, const int64_t *rows, int64_t row_bytes,
                          int64_t *out_bytes, int64_t *in_bytes)
{
    const size_t num_lanes = (size_t)ep_port_num_lanes(n);
    memset(out_bytes, 0, num_lanes * sizeof *out_bytes);
    memset(in_bytes, 0, num_lanes * sizeof *in_bytes);
    for (int64_t i = 0; i < n->num_ranks; i++) {
        for (int64_t j = 0; j < n->num_ranks; j++) {
            const int32_t to_nic = n->rank_nic[j];
            const int32_t from = switch_of(n, n->rank_nic[i]);
            const int32_t to = switch_of(n, to_nic);
            const int64_t bytes = from != to ? row_bytes * rows[i * n->num_ranks + j] : 0;
            if (from >= 0) {
                out_bytes[find_lane(n, from, to_nic)] += bytes;
            }
            if (to >= 0) {
                in_bytes[find_lane(n, to, to_nic)] += bytes;
            }
        }
    }
}
