/* SPDX-License-Identifier: Apache-2.0 */
/* The longest chain of a pairwise exchange. */
#include "results/rung_schedule.h"

#include <stdlib.h>
#include <string.h>

/* Columns of rung M5. */
enum { A_IN, B_IN, A_OUT, B_OUT, A_UPLINK, B_UPLINK, B_NIC, NUM_TERMS };

struct loads {
    double *nic;  /* [2 num_nodes] out, in */
    double *lane; /* [2 num_lanes] */
};

static bool shares_nics(const struct ep_model_matrix *m)
{
    return m->num_ranks > m->num_nodes && m->num_nodes > 1;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Add a message to the loads of its step, or read off the largest of those that it meets. */
static void load_ports(const struct ep_model_matrix *m, const struct loads *l, int64_t i,
                       struct ep_model_step *step, bool read)
{
    const int32_t from = m->rank_node[i], to = m->rank_node[step->to];
    struct ep_model_lanes lanes;
    step->crosses = from != to && ep_model_matrix_lanes(m, i, step->to, &lanes);
    if (from == to) {
        return;
    }
    if (shares_nics(m)) {
        double *out = &l->nic[from], *in = &l->nic[m->num_nodes + to];
        *out += read ? 0 : step->bytes;
        *in += read ? 0 : step->bytes;
        step->nic_bytes = larger(*out, *in);
    }
    if (step->crosses) {
        double *out = lanes.out >= 0 ? &l->lane[lanes.out] : NULL;
        double *in = lanes.in >= 0 ? &l->lane[m->num_lanes + lanes.in] : NULL;
        const double bytes = read ? 0 : step->bytes;
        const double most_out = out != NULL ? *out += bytes : 0;
        const double most_in = in != NULL ? *in += bytes : 0;
        step->uplink_bytes = larger(most_out, most_in);
    }
}

enum ep_status ep_model_matrix_list_steps(const struct ep_model_matrix *m, struct ep_model_step **steps)
{
    const int64_t num = m->num_ranks;
    const size_t num_loads = 2 * (size_t)(m->num_nodes + m->num_lanes);
    struct ep_model_step *made = calloc((size_t)(num * num), sizeof *made);
    double *room = calloc(num_loads + 1, sizeof *room);
    if (made == NULL || room == NULL) {
        free(made);
        free(room);
        return ep_error_set(EP_ENOMEM, "no memory for the steps of %lld ranks", (long long)num);
    }
    const struct loads loads = {room, room + 2 * m->num_nodes};
    for (int64_t s = 1; s < num; s++) {
        struct ep_model_step *of_step = made + (s - 1) * num;
        memset(room, 0, num_loads * sizeof *room);
        for (int read = 0; read < 2; read++) {
            for (int64_t i = 0; i < num; i++) {
                of_step[i].to = (int32_t)ep_step_to(m->steps, num, i, s);
                of_step[i].bytes = m->bytes[i * num + of_step[i].to];
                of_step[i].inside = m->rank_node[i] == m->rank_node[of_step[i].to];
                load_ports(m, &loads, i, &of_step[i], read > 0);
            }
        }
    }
    free(room);
    *steps = made;
    return EP_OK;
}

/* The column whose bytes say how long a message takes, beside its latency. */
static int slowest(const struct ep_model_step *step, const double *c, double *time_s, double *bytes)
{
    const struct {
        int column;
        double bytes;
    } ports[] = {{step->inside ? B_IN : B_OUT, step->bytes},
                 {B_UPLINK, step->uplink_bytes},
                 {B_NIC, step->nic_bytes}};
    int best = 0;
    for (int p = 1; p < 3; p++) {
        best = c[ports[p].column] * ports[p].bytes > c[ports[best].column] * ports[best].bytes ? p : best;
    }
    *bytes = ports[best].bytes;
    *time_s = c[ports[best].column] * ports[best].bytes;
    return ports[best].column;
}

static double latency(const struct ep_model_step *step, const double *c)
{
    return step->inside ? c[A_IN] : c[A_OUT] + (step->crosses ? c[A_UPLINK] : 0);
}

/* Times alone; of each rank and step, after which message it was through and whom that one waited for. */
static void go_forward(const struct ep_model_matrix *m, const struct ep_model_step *steps, const double *c,
                       double *through, double *sent, int32_t *after)
{
    const int64_t num = m->num_ranks;
    for (int64_t s = 1; s < num; s++) {
        const struct ep_model_step *of_step = steps + (s - 1) * num;
        int32_t *waited = after + 2 * (s - 1) * num, *last = waited + num;
        for (int64_t i = 0; i < num; i++) {
            const struct ep_model_step *step = &of_step[i];
            double time_s = 0, bytes = 0;
            slowest(step, c, &time_s, &bytes);
            waited[i] = through[step->to] > through[i] ? step->to : (int32_t)i;
            sent[i] = through[waited[i]] + latency(step, c) + time_s;
        }
        for (int64_t i = 0; i < num; i++) {
            const int64_t from = ep_step_from(m->steps, num, i, s);
            last[i] = sent[from] > sent[i] ? (int32_t)from : (int32_t)i;
            through[i] = sent[last[i]];
        }
    }
}

/* What lies on the chain that ends last. */
static void go_back(const struct ep_model_matrix *m, const struct ep_model_step *steps, const double *c,
                    const double *through, const int32_t *after, double *row)
{
    const int64_t num = m->num_ranks;
    int64_t i = 0;
    for (int64_t k = 1; k < num; k++) {
        i = through[k] > through[i] ? k : i;
    }
    for (int64_t s = num - 1; s >= 1; s--) {
        const int32_t *waited = after + 2 * (s - 1) * num, *last = waited + num;
        const int64_t sender = last[i];
        const struct ep_model_step *step = &steps[(s - 1) * num + sender];
        double time_s = 0, bytes = 0;
        const int column = slowest(step, c, &time_s, &bytes);
        row[column] += bytes;
        row[step->inside ? A_IN : A_OUT] += 1;
        row[A_UPLINK] += step->crosses;
        i = waited[sender];
    }
}

bool ep_rung_follow_steps(const struct ep_model_case *c, const double *coefficients, double *row)
{
    const struct ep_model_matrix *m = c->matrix;
    struct ep_model_step *own = NULL;
    if (m == NULL) {
        return false;
    }
    if (m->step_list == NULL && ep_model_matrix_list_steps(m, &own) != EP_OK) {
        ep_error_clear();
        return false;
    }
    const struct ep_model_step *steps = m->step_list != NULL ? m->step_list : own;
    const size_t num = (size_t)m->num_ranks;
    double *through = calloc(2 * num, sizeof *through);
    int32_t *after = malloc(2 * num * num * sizeof *after);
    const bool made = through != NULL && after != NULL;
    memset(row, 0, NUM_TERMS * sizeof *row);
    if (made) {
        go_forward(m, steps, coefficients, through, through + num, after);
        go_back(m, steps, coefficients, through, after, row);
    }
    free(own);
    free(through);
    free(after);
    return made;
}
