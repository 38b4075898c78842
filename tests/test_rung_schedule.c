/* SPDX-License-Identifier: Apache-2.0 */
/* Rungs M5 and M6 over NICs, uplinks and memory, against brute force on drawn trees. */
#include "tests/check.h"

#include "results/model.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { M5 = 7, M6 = 8, MAX_RANKS = 40, MAX_NODES = 40 };

/* A tree, said plainly: rank -> node, node -> switch (-1 = none), links up per switch. */
struct tree {
    int num_ranks, num_nodes, num_switches;
    int32_t node[MAX_RANKS];
    int node_switch[MAX_NODES];
    int place[MAX_NODES];
    int links[MAX_NODES];
    double bytes[MAX_RANKS * MAX_RANKS];
    double self[MAX_RANKS];
    int32_t first_lane[MAX_NODES], lanes[MAX_NODES], position[MAX_NODES];
    bool by_xor;
};

static uint32_t state_of_draws;

static uint32_t draw(uint32_t below)
{
    state_of_draws = state_of_draws * 1664525U + 1013904223U;
    return (state_of_draws >> 8) % below;
}

/* Sizes without ties: where two messages end at once, the time has no gradient. */
static struct tree draw_tree(uint32_t seed, int num_ranks, int ranks_per_node, int nodes_per_switch)
{
    struct tree t = {.num_ranks = num_ranks};
    state_of_draws = seed;
    t.num_nodes = (num_ranks + ranks_per_node - 1) / ranks_per_node;
    t.num_switches = nodes_per_switch > 0 ? (t.num_nodes + nodes_per_switch - 1) / nodes_per_switch : 0;
    for (int s = 0; s < t.num_switches; s++) {
        t.links[s] = 1 + (int)draw(2);
    }
    for (int n = 0; n < t.num_nodes; n++) {
        /* of the first trees one host hangs on no switch */
        t.node_switch[n] = t.num_switches == 0 || (n == 0 && seed % 3 == 0) ? -1 : n / nodes_per_switch;
        t.place[n] = n + (int)(seed % 2);
    }
    for (int i = 0; i < num_ranks; i++) {
        t.node[i] = i / ranks_per_node;
        t.self[i] = 100 * (double)draw(9000) / 1009;
        for (int j = 0; j < num_ranks; j++) {
            t.bytes[i * num_ranks + j] = i == j || draw(4) == 0 ? 0 : 100 * (1 + (double)draw(50000) / 1009);
        }
    }
    return t;
}

static struct ep_model_matrix matrix_of(struct tree *t)
{
    struct ep_model_matrix m = {.num_ranks = t->num_ranks, .num_nodes = t->num_nodes, .bytes = t->bytes,
                                .rank_node = t->node, .self_bytes = t->self,
                                .steps = t->by_xor ? EP_STEP_XOR : EP_STEP_SHIFT};
    int first = 0;
    for (int n = 0; n < t->num_nodes; n++) {
        t->first_lane[n] = -1;
        t->position[n] = t->place[n];
    }
    for (int s = 0; s < t->num_switches; s++) {
        for (int n = 0; n < t->num_nodes; n++) {
            if (t->node_switch[n] == s) {
                t->first_lane[n] = first;
                t->lanes[n] = t->links[s];
            }
        }
        first += t->links[s];
    }
    if (t->num_switches > 0) {
        m.num_lanes = first;
        m.first_lane = t->first_lane;
        m.lanes = t->lanes;
        m.node_position = t->position;
    }
    return m;
}

/* Whether message a -> b and message c -> d meet on a link out of (or into) a switch. */
static bool meet_on_link(const struct tree *t, int a, int b, int c, int d, bool out)
{
    const int from = t->node_switch[t->node[a]], to = t->node_switch[t->node[b]];
    const int other_from = t->node_switch[t->node[c]], other_to = t->node_switch[t->node[d]];
    if (from == to || other_from == other_to) {
        return false;
    }
    const int here = out ? from : to, other = out ? other_from : other_to;
    return here >= 0 && here == other &&
           t->place[t->node[b]] % t->links[here] == t->place[t->node[d]] % t->links[here];
}

/* --- M5: the recurrence, called by its name ---------------------------------------------------- */

static int partner(const struct tree *t, int i, int s)
{
    return t->by_xor ? i ^ s : (i + s) % t->num_ranks;
}

static int source(const struct tree *t, int i, int s)
{
    return t->by_xor ? i ^ s : (i - s + t->num_ranks) % t->num_ranks;
}

/* c: a_in, 1/B_in, a_out, 1/B_out, a_uplink, 1/B_uplink, 1/B_nic */
static double message_s(const struct tree *t, int i, int s, const double *c)
{
    const int j = partner(t, i, s);
    const double bytes = t->bytes[i * t->num_ranks + j];
    if (t->node[i] == t->node[j]) {
        return c[0] + c[1] * bytes;
    }
    double out = 0, in = 0, nic_out = 0, nic_in = 0;
    for (int k = 0; k < t->num_ranks; k++) {
        const int to = partner(t, k, s);
        const double other = t->bytes[k * t->num_ranks + to];
        const bool leaves = t->node[k] != t->node[to];
        out += meet_on_link(t, i, j, k, to, true) ? other : 0;
        in += meet_on_link(t, i, j, k, to, false) ? other : 0;
        nic_out += leaves && t->node[k] == t->node[i] ? other : 0;
        nic_in += leaves && t->node[to] == t->node[j] ? other : 0;
    }
    const double nic = t->num_nodes < t->num_ranks ? fmax(nic_out, nic_in) : 0;
    const bool crosses = t->node_switch[t->node[i]] != t->node_switch[t->node[j]];
    return c[2] + (crosses ? c[4] : 0) + fmax(fmax(c[3] * bytes, c[5] * fmax(out, in)), c[6] * nic);
}

static double through_s(const struct tree *t, int i, int s, const double *c);

static double sent_s(const struct tree *t, int i, int s, const double *c)
{
    return fmax(through_s(t, i, s - 1, c), through_s(t, partner(t, i, s), s - 1, c)) + message_s(t, i, s, c);
}

static double through_s(const struct tree *t, int i, int s, const double *c)
{
    return s == 0 ? 0 : fmax(sent_s(t, i, s, c), sent_s(t, source(t, i, s), s, c));
}

static double row_times(const double *row, const double *c, int num)
{
    double sum = 0;
    for (int j = 0; j < num; j++) {
        sum += row[j] * c[j];
    }
    return sum;
}

static void test_steps(void **state)
{
    (void)state;
    static const double laws[][7] = {{0, 1, 0, 1, 0, 1, 1},
                                     {20, 0.2, 50, 1, 70, 0.7, 0.4},
                                     {20, 0.2, 50, 0.5, 0, 2, 0.1},
                                     {20, 0.2, 50, 0.5, 10, 0.1, 2}};
    int crossed = 0, shared = 0;
    for (uint32_t seed = 1; seed <= 60; seed++) {
        struct tree t = draw_tree(seed, seed % 5 == 0 ? 8 : 3 + (int)seed % 4, 1 + (int)seed % 3,
                                  seed % 4 == 0 ? 0 : 1 + (int)seed % 3);
        t.by_xor = t.num_ranks == 4 || (t.num_ranks == 8 && seed % 2 == 0);
        struct ep_model_matrix m = matrix_of(&t);
        const struct ep_model_case c = {.matrix = &m};
        struct ep_rung_form form;
        double row[EP_RUNG_MAX_COLUMNS], again[EP_RUNG_MAX_COLUMNS];
        ep_rung_form_init(ep_rung_at(M5), NULL, 0, &form);
        for (size_t l = 0; l < sizeof laws / sizeof laws[0]; l++) {
            double last_s = 0;
            for (int i = 0; i < t.num_ranks; i++) {
                last_s = fmax(last_s, through_s(&t, i, t.num_ranks - 1, laws[l]));
            }
            assert_true(ep_rung_row(&form, &c, laws[l], row));
            CHECK_NEAR(row_times(row, laws[l], 7) / last_s, 1, 1e-12);
            crossed += row[5] > 0;
            shared += row[6] > 0;
            CHECK_OK(ep_model_matrix_list_steps(&m, &m.step_list));
            assert_true(ep_rung_row(&form, &c, laws[l], again));
            assert_memory_equal(row, again, sizeof *row * (size_t)form.num_columns);
            free(m.step_list);
            m.step_list = NULL;
        }
    }
    assert_true(crossed > 20 && shared > 20);
}

/* --- M6: water rises in all flows alike until a port is full ------------------------------------ */

enum { MAX_PORTS = 2 * MAX_RANKS + 2 * MAX_NODES + 4 * MAX_NODES + 1, MAX_FLOWS = MAX_RANKS * MAX_RANKS };

struct water {
    int num_flows, num_ports;
    double left[MAX_FLOWS], rate[MAX_FLOWS];
    bool open[MAX_FLOWS];
    double uses[MAX_FLOWS][8]; /* how often */
    int port[MAX_FLOWS][8];
    int num_uses[MAX_FLOWS];
    double capacity[MAX_PORTS];
};

static void use(struct water *w, int flow, int port, double capacity, double times)
{
    if (!isfinite(capacity)) {
        return;
    }
    w->capacity[port] = capacity;
    w->port[flow][w->num_uses[flow]] = port;
    w->uses[flow][w->num_uses[flow]++] = times;
}

/* c: l, a, 1/c_rank, 1/c_nic, 1/c_uplink, 1/c_memory */
static void pour(struct water *w, const struct tree *t, const double *c)
{
    const int p = t->num_ranks, n = t->num_nodes;
    memset(w, 0, sizeof *w);
    w->num_ports = MAX_PORTS;
    for (int i = 0; i < p; i++) {
        for (int j = 0; j < p; j++) {
            const int f = w->num_flows, a = t->node[i], b = t->node[j];
            w->num_uses[f] = 0;
            w->left[f] = i == j ? t->self[i] : t->bytes[i * p + j];
            if (i != j) {
                use(w, f, i, 1 / c[2], 1);
                use(w, f, p + j, 1 / c[2], 1);
            }
            if (a != b) {
                use(w, f, 2 * p + a, 1 / c[3], 1);
                use(w, f, 2 * p + n + b, 1 / c[3], 1);
                const int from = t->node_switch[a], to = t->node_switch[b];
                if (from != to && from >= 0) {
                    use(w, f, 2 * p + 2 * n + 2 * from + t->place[b] % t->links[from], 1 / c[4], 1);
                }
                if (from != to && to >= 0) {
                    use(w, f, 2 * p + 4 * n + 2 * to + t->place[b] % t->links[to], 1 / c[4], 1);
                }
            }
            if (n == 1) {
                use(w, f, MAX_PORTS - 1, 1 / c[5], 2);
            }
            w->num_flows += w->left[f] > 0 && w->num_uses[f] > 0;
        }
    }
}

static void raise_water(struct water *w)
{
    double full[MAX_PORTS] = {0};
    int num_open = 0;
    for (int f = 0; f < w->num_flows; f++) {
        w->rate[f] = 0;
        w->open[f] = w->left[f] > 0;
        num_open += w->open[f];
    }
    while (num_open > 0) {
        double slope[MAX_PORTS] = {0}, least = HUGE_VAL;
        for (int f = 0; f < w->num_flows; f++) {
            for (int u = 0; u < w->num_uses[f] && w->open[f]; u++) {
                slope[w->port[f][u]] += w->uses[f][u];
            }
        }
        for (int p = 0; p < w->num_ports; p++) {
            least = slope[p] > 0 ? fmin(least, (w->capacity[p] - full[p]) / slope[p]) : least;
        }
        for (int p = 0; p < w->num_ports; p++) {
            full[p] += slope[p] * least;
        }
        for (int f = 0; f < w->num_flows; f++) {
            if (!w->open[f]) {
                continue;
            }
            w->rate[f] += least;
            for (int u = 0; u < w->num_uses[f]; u++) {
                if (full[w->port[f][u]] >= w->capacity[w->port[f][u]] * (1 - 1e-12) && w->open[f]) {
                    w->open[f] = false;
                    num_open--;
                }
            }
        }
    }
}

static double drain(struct water *w)
{
    double now_s = 0;
    for (;;) {
        double next_s = HUGE_VAL;
        raise_water(w);
        for (int f = 0; f < w->num_flows; f++) {
            next_s = w->left[f] > 0 ? fmin(next_s, w->left[f] / w->rate[f]) : next_s;
        }
        if (!isfinite(next_s)) {
            return now_s;
        }
        now_s += next_s;
        for (int f = 0; f < w->num_flows; f++) {
            w->left[f] -= w->left[f] > 0 ? w->rate[f] * next_s : 0;
            w->left[f] = w->left[f] < 1e-7 ? 0 : w->left[f]; /* rounding */
        }
    }
}

static void test_flows(void **state)
{
    (void)state;
    static struct water w;
    static const double laws[][6] = {{0, 0, 1, 0, 0, 0},         {5, 2, 1, 0.5, 0.9, 0.3},
                                     {0, 0, 0.4, 0.7, 0.3, 0.05}, {0, 1, 0.5, 0.2, 1.5, 0.6}};
    int crossed = 0, remembered = 0, shared = 0;
    for (uint32_t seed = 1; seed <= 60; seed++) {
        struct tree t = draw_tree(seed, 3 + (int)seed % 5, seed % 6 == 0 ? 8 : 1 + (int)seed % 3,
                                  seed % 4 == 0 ? 0 : 1 + (int)seed % 3);
        struct ep_model_matrix m = matrix_of(&t);
        const struct ep_model_case c = {.features = {{[EP_FEATURE_MESSAGES] = t.num_ranks - 1}}, .matrix = &m};
        struct ep_rung_form form;
        double row[EP_RUNG_MAX_COLUMNS];
        ep_rung_form_init(ep_rung_at(M6), NULL, 0, &form);
        for (size_t l = 0; l < sizeof laws / sizeof laws[0]; l++) {
            pour(&w, &t, laws[l]);
            const double latency_s = laws[l][0] + laws[l][1] * (t.num_ranks - 1);
            const double time_s = drain(&w) + latency_s;
            assert_true(ep_rung_row(&form, &c, laws[l], row));
            CHECK_NEAR(row_times(row, laws[l], 6) / time_s, 1, 1e-9);
            crossed += row[4] > 0;
            shared += row[3] > 0;
            remembered += row[5] > 0;
            /* rows are gradients: a slightly slower port, from both sides */
            for (int k = 2; k < 6; k++) {
                double more[6], less[6];
                memcpy(more, laws[l], sizeof more);
                memcpy(less, laws[l], sizeof less);
                more[k] *= 1 + 1e-6;
                less[k] *= 1 - 1e-6;
                pour(&w, &t, more);
                const double slower_s = drain(&w) + latency_s;
                pour(&w, &t, less);
                const double faster_s = drain(&w) + latency_s;
                /* what binds may change just here: then the row is one of both sides' */
                const double low = fmin(time_s - faster_s, slower_s - time_s) / 1e-6;
                const double high = fmax(time_s - faster_s, slower_s - time_s) / 1e-6;
                assert_true(row[k] * laws[l][k] > low - 1e-3 * time_s);
                assert_true(row[k] * laws[l][k] < high + 1e-3 * time_s);
            }
        }
    }
    assert_true(crossed > 20 && shared > 20 && remembered > 10);
}

/* 40 ranks, more messages than are followed one by one: within a thousandth. */
static void test_many_flows(void **state)
{
    (void)state;
    static struct water w;
    static const double law[] = {0, 0, 1, 0.8, 0.5, 0};
    for (uint32_t seed = 1; seed <= 2; seed++) {
        struct tree t = draw_tree(seed, 40, seed == 1 ? 1 : 4, seed == 1 ? 8 : 2);
        struct ep_model_matrix m = matrix_of(&t);
        const struct ep_model_case c = {.matrix = &m};
        struct ep_rung_form form;
        ep_rung_form_init(ep_rung_at(M6), NULL, 0, &form);
        pour(&w, &t, law);
        assert_true(w.num_flows > 1000);
        CHECK_NEAR(ep_rung_predict(&form, &c, law) / drain(&w), 1, 1e-3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_steps), cmocka_unit_test(test_flows),
                                       cmocka_unit_test(test_many_flows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
