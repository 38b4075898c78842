/* SPDX-License-Identifier: Apache-2.0 */
/* Fluid flows over ports: rates by progressive filling, event by event, and what the end depends on. */
#include "results/rung_schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Kinds of ports in the order of rung M6's columns. */
enum { RANK, NIC, UPLINK, MEMORY, NUM_KINDS, NUM_TIMES = 2, MAX_PORTS_OF_FLOW = 6 };

/* A number with its derivatives by the 1/c of all kinds but the first that counts, each times that 1/c: of the
 * size of the number itself, however fast a port is. That of the first follows, since the end is proportional
 * to all 1/c together. */
enum { NUM_PARTS = NUM_KINDS };
struct dual {
    double part[NUM_PARTS]; /* value, derivatives */
};

static struct dual add(struct dual a, double factor, const struct dual *b)
{
    for (int k = 0; k < NUM_PARTS; k++) {
        a.part[k] += factor * b->part[k];
    }
    return a;
}

static struct dual multiply(const struct dual *a, const struct dual *b)
{
    struct dual c;
    for (int k = 0; k < NUM_PARTS; k++) {
        c.part[k] = a->part[k] * b->part[0] + a->part[0] * b->part[k];
    }
    c.part[0] = a->part[0] * b->part[0];
    return c;
}

static struct dual divide(const struct dual *a, const struct dual *b)
{
    const double inverse = 1 / b->part[0];
    const double value = a->part[0] * inverse;
    struct dual c;
    for (int k = 0; k < NUM_PARTS; k++) {
        c.part[k] = (a->part[k] - value * b->part[k]) * inverse;
    }
    c.part[0] = value;
    return c;
}

struct flow {
    struct dual left;  /* bytes at `since` */
    struct dual since; /* s */
    int64_t round;     /* in which it got its rate; NONE = it has none now */
    int num_ports;
    int32_t ports[MAX_PORTS_OF_FLOW]; /* one that counts twice is there twice */
};
enum { NONE = INT32_MAX, MAX_EXACT_FLOWS = 512 };

/* Every end of a flow shares all ports anew. While more flows than that are under way, those that would end within
 * this part of the time share them once, in its middle: some bytes are sent late and as many are left out. */
static const double window = 0.02;

/* The port whose fair share was least gave its flows this rate. */
struct round {
    struct dual rate;
    int64_t port;
    double next_s; /* when the first of its flows is through */
    int32_t next;  /* that flow */
};

struct port {
    struct dual room; /* bytes/s not given away */
    int64_t users;    /* of flows without a rate */
    int32_t *flows;   /* [num_flows] under way; borrowed of the list */
    int64_t num_flows;
};

struct fluid {
    struct flow *flows;
    int64_t num_flows; /* not through */
    struct port *ports;
    int64_t num_ports;
    struct round *rounds;
    int64_t num_rounds;
    struct dual end;   /* of the latest flow that is through */
    int32_t *list; /* of all ports' flows, one after the other */
};

/* --- who uses which ports -------------------------------------------------------------------- */

/* Ports in a row: ranks out and in, NICs out and in, lanes of uplinks out and in, memory of nodes. */
struct layout {
    const struct ep_model_matrix *m;
    int64_t first[NUM_KINDS + 1];
    bool counts[NUM_KINDS];
};

static struct layout lay_out(const struct ep_model_matrix *m, const double *coefficients)
{
    const int64_t num[NUM_KINDS] = {2 * m->num_ranks, 2 * m->num_nodes, 2 * m->num_lanes, m->num_nodes};
    struct layout l = {.m = m};
    for (int k = 0; k < NUM_KINDS; k++) {
        l.counts[k] = coefficients[k] > 0;
        l.first[k + 1] = l.first[k] + num[k];
    }
    return l;
}

/* Memory is read once and written once; it counts on one node, as in M4. */
static int list_ports(const struct layout *l, int64_t i, int64_t j, int32_t *ports)
{
    const struct ep_model_matrix *m = l->m;
    const int32_t a = m->rank_node[i], b = m->rank_node[j];
    struct ep_model_lanes lanes;
    int num = 0;
    if (l->counts[RANK] && i != j) {
        ports[num++] = (int32_t)i;
        ports[num++] = (int32_t)(m->num_ranks + j);
    }
    if (l->counts[NIC] && a != b) {
        ports[num++] = (int32_t)(l->first[NIC] + a);
        ports[num++] = (int32_t)(l->first[NIC] + m->num_nodes + b);
    }
    if (l->counts[UPLINK] && a != b && ep_model_matrix_lanes(m, i, j, &lanes)) {
        if (lanes.out >= 0) {
            ports[num++] = (int32_t)(l->first[UPLINK] + lanes.out);
        }
        if (lanes.in >= 0) {
            ports[num++] = (int32_t)(l->first[UPLINK] + m->num_lanes + lanes.in);
        }
    }
    if (l->counts[MEMORY] && m->num_nodes == 1) {
        ports[num++] = (int32_t)l->first[MEMORY];
        ports[num++] = (int32_t)l->first[MEMORY];
    }
    return num;
}

static void list_flows(struct fluid *f, const struct layout *l)
{
    const struct ep_model_matrix *m = l->m;
    for (int64_t i = 0; i < m->num_ranks; i++) {
        for (int64_t j = 0; j < m->num_ranks; j++) {
            struct flow *flow = &f->flows[f->num_flows];
            const double stays = m->self_bytes != NULL ? m->self_bytes[i] : 0;
            const double bytes = i == j ? stays : m->bytes[i * m->num_ranks + j];
            *flow = (struct flow){.left = {{bytes}}, .round = NONE};
            flow->num_ports = list_ports(l, i, j, flow->ports);
            if (bytes > 0 && flow->num_ports > 0) {
                f->num_flows++;
            }
        }
    }
}

/* A flow stands once in the list of a port, even where it counts twice there: in a row. */
static bool is_repeated(const struct flow *flow, int p)
{
    const int before = p > 0 ? p - 1 : 0;
    return before < p && flow->ports[p] == flow->ports[before];
}

static void list_users(struct fluid *f)
{
    int32_t *at = f->list;
    for (int64_t i = 0; i < f->num_flows; i++) {
        for (int p = 0; p < f->flows[i].num_ports; p++) {
            f->ports[f->flows[i].ports[p]].num_flows += !is_repeated(&f->flows[i], p);
            f->ports[f->flows[i].ports[p]].users++;
        }
    }
    for (int64_t p = 0; p < f->num_ports; p++) {
        f->ports[p].flows = at;
        at += f->ports[p].num_flows;
        f->ports[p].num_flows = 0;
    }
    for (int64_t i = 0; i < f->num_flows; i++) {
        for (int p = 0; p < f->flows[i].num_ports; p++) {
            struct port *port = &f->ports[f->flows[i].ports[p]];
            if (!is_repeated(&f->flows[i], p)) {
                port->flows[port->num_flows++] = (int32_t)i;
            }
        }
    }
}

/* c = 1 / coefficient, whose derivative by it, times it, is -c. */
static void set_rooms(struct fluid *f, const struct layout *l, const double *coefficients)
{
    int part = 0;
    for (int k = 0; k < NUM_KINDS; k++) {
        if (!l->counts[k]) {
            continue;
        }
        struct dual c = {{1 / coefficients[k]}};
        if (part > 0) {
            c.part[part] = -c.part[0];
        }
        part++;
        for (int64_t p = l->first[k]; p < l->first[k + 1]; p++) {
            f->ports[p].room = c;
        }
    }
}

static void fini(struct fluid *f)
{
    free(f->flows);
    free(f->ports);
    free(f->rounds);
    free(f->list);
}

static bool init(struct fluid *f, const struct ep_model_matrix *m, const double *coefficients)
{
    const struct layout l = lay_out(m, coefficients);
    const size_t pairs = (size_t)(m->num_ranks * m->num_ranks);
    *f = (struct fluid){.num_ports = l.first[NUM_KINDS]};
    f->flows = malloc((pairs + 1) * sizeof *f->flows);
    f->ports = calloc((size_t)f->num_ports, sizeof *f->ports);
    f->rounds = malloc((size_t)f->num_ports * sizeof *f->rounds);
    f->list = malloc((pairs + 1) * MAX_PORTS_OF_FLOW * sizeof *f->list);
    if (f->flows == NULL || f->ports == NULL || f->rounds == NULL || f->list == NULL) {
        return false;
    }
    list_flows(f, &l);
    list_users(f);
    set_rooms(f, &l, coefficients);
    return true;
}

/* --- rates ----------------------------------------------------------------------------------- */

static void give_rate(struct fluid *f, struct round *round, int64_t round_idx, int32_t flow_idx)
{
    struct flow *flow = &f->flows[flow_idx];
    const double end_s = flow->since.part[0] + flow->left.part[0] / round->rate.part[0];
    flow->round = round_idx;
    for (int p = 0; p < flow->num_ports; p++) {
        struct port *port = &f->ports[flow->ports[p]];
        port->room = add(port->room, -1, &round->rate);
        port->users--;
    }
    if (end_s < round->next_s) {
        round->next_s = end_s;
        round->next = flow_idx;
    }
}

/* Round by round: the port whose fair share is least gives it to its flows; until all have a rate. */
static void share_ports(struct fluid *f)
{
    for (;;) {
        int64_t tightest = -1;
        double least = HUGE_VAL;
        for (int64_t p = 0; p < f->num_ports; p++) {
            const struct port *port = &f->ports[p];
            if (port->users > 0 && port->room.part[0] < least * (double)port->users) {
                least = port->room.part[0] / (double)port->users;
                tightest = p;
            }
        }
        if (tightest < 0) {
            return;
        }
        const struct dual none = {{0}};
        const struct port *port = &f->ports[tightest];
        struct round *round = &f->rounds[f->num_rounds];
        *round = (struct round){.rate = add(none, 1 / (double)port->users, &port->room),
                                .port = tightest,
                                .next_s = HUGE_VAL};
        for (int64_t i = 0; i < port->num_flows; i++) {
            if (f->flows[port->flows[i]].round == NONE) {
                give_rate(f, round, f->num_rounds, port->flows[i]);
            }
        }
        f->num_rounds++;
    }
}

static void leave_ports(struct fluid *f, int32_t flow_idx)
{
    struct flow *flow = &f->flows[flow_idx];
    for (int p = 0; p < flow->num_ports; p++) {
        struct port *port = &f->ports[flow->ports[p]];
        port->users--;
        for (int64_t i = 0; i < port->num_flows && !is_repeated(flow, p); i++) {
            if (port->flows[i] == flow_idx) {
                port->flows[i] = port->flows[--port->num_flows];
            }
        }
    }
    f->num_flows--;
}

/* A flow of a round is taken back: what it has sent until now, and its share of the ports. */
static void pause_flow(struct fluid *f, const struct round *round, const struct dual *now, struct flow *flow)
{
    const struct dual passed = add(*now, -1, &flow->since);
    const struct dual sent = multiply(&round->rate, &passed);
    flow->left = add(flow->left, -1, &sent);
    flow->since = *now;
    flow->round = NONE;
    for (int p = 0; p < flow->num_ports; p++) {
        struct port *used = &f->ports[flow->ports[p]];
        used->room = add(used->room, 1, &round->rate);
        used->users++;
    }
}

/* Rounds from `first` on are taken back, and their flows that end until `limit_s` leave. Earlier rounds stay: a
 * flow less leaves more to all ports that it uses, and these had more to give than the earlier rounds gave. */
static void take_back(struct fluid *f, int64_t first, const struct dual *now, double limit_s)
{
    for (int64_t r = first; r < f->num_rounds; r++) {
        const struct round *round = &f->rounds[r];
        const struct port *port = &f->ports[round->port];
        for (int64_t i = port->num_flows - 1; i >= 0; i--) {
            const int32_t idx = port->flows[i];
            struct flow *flow = &f->flows[idx];
            if (flow->round != r) {
                continue;
            }
            const struct dual lasts = divide(&flow->left, &round->rate);
            const struct dual end = add(flow->since, 1, &lasts);
            pause_flow(f, round, now, flow);
            if (end.part[0] <= limit_s) {
                f->end = end.part[0] > f->end.part[0] ? end : f->end;
                leave_ports(f, idx);
            }
        }
    }
    f->num_rounds = first;
}

/* To the moment when the next flow is through, and with it those that end within the window. */
static void advance(struct fluid *f)
{
    double next_s = HUGE_VAL;
    const struct round *next = NULL;
    for (int64_t r = 0; r < f->num_rounds; r++) {
        if (f->rounds[r].next_s < next_s) {
            next = &f->rounds[r];
            next_s = next->next_s;
        }
    }
    /* Rounding alone must not keep one that ends at the same moment. */
    const double part = f->num_flows > MAX_EXACT_FLOWS ? window : 0;
    const double limit_s = next_s + (part + 1e-12) * fabs(next_s);
    EP_ASSERT(next != NULL);
    int64_t first = 0;
    while (f->rounds[first].next_s > limit_s) {
        first++;
    }
    const struct flow *flow = &f->flows[next->next];
    const struct dual lasts = divide(&flow->left, &next->rate);
    const struct dual until = add(flow->since, 1, &lasts), none = {{0}};
    const struct dual now = add(none, 1 + part / 2, &until);
    take_back(f, first, &now, limit_s);
}

/* bytes [NUM_KINDS]: derivatives of the end by each 1/c */
static void fill_bytes(const struct dual *end, const double *coefficients, double *bytes)
{
    double rest = end->part[0];
    int first = -1, part = 0;
    for (int k = 0; k < NUM_KINDS; k++) {
        bytes[k] = 0;
        if (coefficients[k] > 0 && first < 0) {
            first = k;
        } else if (coefficients[k] > 0) {
            const double share = end->part[++part];
            rest -= share;
            /* What rounding leaves of a port that does not bind would be fitted with a rate of its own. Below 0 it is
             * where a slower port, by chance, has the others share better. */
            bytes[k] = fabs(share) > 1e-9 * end->part[0] ? share / coefficients[k] : 0;
        }
    }
    if (first >= 0 && fabs(rest) > 1e-9 * end->part[0]) {
        bytes[first] = rest / coefficients[first];
    }
}

bool ep_rung_follow_flows(const struct ep_model_case *c, const double *coefficients, double *row)
{
    struct fluid f;
    if (c->matrix == NULL) {
        return false;
    }
    const bool made = init(&f, c->matrix, coefficients + NUM_TIMES);
    while (made && f.num_flows > 0) {
        share_ports(&f);
        advance(&f);
    }
    row[0] = 1;
    row[1] = c->features.values[EP_FEATURE_MESSAGES];
    fill_bytes(&f.end, coefficients + NUM_TIMES, row + NUM_TIMES);
    fini(&f);
    return made;
}
