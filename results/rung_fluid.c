/* SPDX-License-Identifier: Apache-2.0 */
/* Fluid flows over ports: rates by progressive filling, and what the end depends on. */
#include "results/rung_schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Kinds of ports, and a number with its derivatives by the two 1/c, each times that 1/c: of the size of
 * the number itself, however fast a port is. */
enum { RANK, NIC, NUM_KINDS, PORTS_OF_FLOW = 4 };

struct dual {
    double value;
    double by[NUM_KINDS];
};

static struct dual add(struct dual a, double factor, struct dual b)
{
    a.value += factor * b.value;
    for (int k = 0; k < NUM_KINDS; k++) {
        a.by[k] += factor * b.by[k];
    }
    return a;
}

static struct dual multiply(struct dual a, struct dual b)
{
    struct dual c = {.value = a.value * b.value};
    for (int k = 0; k < NUM_KINDS; k++) {
        c.by[k] = a.by[k] * b.value + a.value * b.by[k];
    }
    return c;
}

static struct dual divide(struct dual a, struct dual b)
{
    struct dual c = {.value = a.value / b.value};
    for (int k = 0; k < NUM_KINDS; k++) {
        c.by[k] = (a.by[k] - c.value * b.by[k]) / b.value;
    }
    return c;
}

struct flow {
    struct dual left; /* bytes */
    struct dual rate;
    bool has_rate;
    int num_ports;
    int64_t ports[PORTS_OF_FLOW];
};

struct fluid {
    struct flow *flows;
    int64_t num_flows;
    struct dual *capacity; /* [num_ports] */
    struct dual *room;     /* [num_ports] not yet given away */
    int64_t *users;        /* [num_ports] flows without a rate */
    int64_t num_ports;
};

/* c = 1 / coefficient, whose derivative by it, times it, is -c. */
static struct dual capacity_of(double coefficient, int kind)
{
    struct dual c = {.value = 1 / coefficient};
    c.by[kind] = -c.value;
    return c;
}

static void add_flow(struct fluid *f, const struct ep_model_matrix *m, int64_t i, int64_t j,
                     const double *coefficients)
{
    struct flow flow = {.left = {.value = m->bytes[i * m->num_ranks + j]}};
    const int64_t nics = 2 * m->num_ranks;
    if (coefficients[RANK] > 0) {
        flow.ports[flow.num_ports++] = i;
        flow.ports[flow.num_ports++] = m->num_ranks + j;
    }
    if (coefficients[NIC] > 0 && m->rank_node[i] != m->rank_node[j]) {
        flow.ports[flow.num_ports++] = nics + m->rank_node[i];
        flow.ports[flow.num_ports++] = nics + m->num_nodes + m->rank_node[j];
    }
    if (flow.left.value > 0 && flow.num_ports > 0) {
        f->flows[f->num_flows++] = flow;
    }
}

static bool init(struct fluid *f, const struct ep_model_matrix *m, const double *coefficients)
{
    *f = (struct fluid){.num_ports = 2 * (m->num_ranks + m->num_nodes)};
    f->flows = calloc((size_t)(m->num_ranks * m->num_ranks) + 1, sizeof *f->flows);
    f->capacity = calloc(2 * (size_t)f->num_ports, sizeof *f->capacity);
    f->users = calloc((size_t)f->num_ports, sizeof *f->users);
    if (f->flows == NULL || f->capacity == NULL || f->users == NULL) {
        return false;
    }
    f->room = f->capacity + f->num_ports;
    for (int64_t p = 0; p < f->num_ports; p++) {
        const int kind = p < 2 * m->num_ranks ? RANK : NIC;
        f->capacity[p] = capacity_of(fmax(coefficients[kind], 1e-300), kind);
    }
    for (int64_t i = 0; i < m->num_ranks; i++) {
        for (int64_t j = 0; j < m->num_ranks; j++) {
            add_flow(f, m, i, j, coefficients);
        }
    }
    return true;
}

/* The port whose fair share is least gives it to its flows; until all have a rate. */
static void share_ports(struct fluid *f)
{
    int64_t without = f->num_flows;
    memcpy(f->room, f->capacity, (size_t)f->num_ports * sizeof *f->room);
    memset(f->users, 0, (size_t)f->num_ports * sizeof *f->users);
    for (int64_t i = 0; i < f->num_flows; i++) {
        f->flows[i].has_rate = false;
        for (int p = 0; p < f->flows[i].num_ports; p++) {
            f->users[f->flows[i].ports[p]]++;
        }
    }
    while (without > 0) {
        int64_t tightest = -1;
        double least = HUGE_VAL;
        for (int64_t p = 0; p < f->num_ports; p++) {
            const double fair = f->users[p] > 0 ? f->room[p].value / (double)f->users[p] : HUGE_VAL;
            if (fair < least) {
                least = fair;
                tightest = p;
            }
        }
        EP_ASSERT(tightest >= 0);
        const struct dual none = {0};
        const struct dual rate = add(none, 1 / (double)f->users[tightest], f->room[tightest]);
        for (int64_t i = 0; i < f->num_flows; i++) {
            struct flow *flow = &f->flows[i];
            bool uses = false;
            for (int p = 0; p < flow->num_ports && !uses; p++) {
                uses = flow->ports[p] == tightest;
            }
            if (flow->has_rate || !uses) {
                continue;
            }
            flow->has_rate = true;
            flow->rate = rate;
            without--;
            for (int p = 0; p < flow->num_ports; p++) {
                f->room[flow->ports[p]] = add(f->room[flow->ports[p]], -1, rate);
                f->users[flow->ports[p]]--;
            }
        }
    }
}

/* Until the next flow is through; those that end with it leave too. */
static struct dual advance(struct fluid *f)
{
    struct dual step = {.value = HUGE_VAL};
    for (int64_t i = 0; i < f->num_flows; i++) {
        const struct dual until = divide(f->flows[i].left, f->flows[i].rate);
        step = until.value < step.value ? until : step;
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < f->num_flows; i++) {
        struct flow flow = f->flows[i];
        const double sent = flow.rate.value * step.value;
        const bool is_through = flow.left.value - sent <= 1e-9 * sent;
        flow.left = add(flow.left, -1, multiply(flow.rate, step));
        if (!is_through) {
            f->flows[kept++] = flow;
        }
    }
    f->num_flows = kept;
    return step;
}

bool ep_rung_follow_flows(const struct ep_model_case *c, const double *coefficients, double *row)
{
    struct fluid f;
    struct dual end = {0};
    const bool made = c->matrix != NULL && init(&f, c->matrix, coefficients + 2);
    if (c->matrix == NULL) {
        return false;
    }
    while (made && f.num_flows > 0) {
        share_ports(&f);
        end = add(end, 1, advance(&f));
    }
    row[0] = 1;
    row[1] = c->features.values[EP_FEATURE_MESSAGES];
    for (int k = 0; k < NUM_KINDS; k++) {
        const double coefficient = coefficients[2 + k];
        /* What rounding leaves of a port that does not bind would be fitted with a rate of its own. */
        row[2 + k] = end.by[k] > 1e-9 * end.value ? end.by[k] / coefficient : 0;
    }
    free(f.flows);
    free(f.capacity);
    free(f.users);
    return made;
}
