/* SPDX-License-Identifier: Apache-2.0 */
/* Features of a case, the table of rungs, and their rows. */
#include "results/model.h"

#include "results/rung_schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const feature_names[EP_NUM_FEATURES] = {
    [EP_FEATURE_RANKS] = "ranks",
    [EP_FEATURE_REMOTE_BYTES] = "remote_bytes",
    [EP_FEATURE_MEAN_OUT_BYTES] = "mean_out_bytes",
    [EP_FEATURE_H_RANK_BYTES] = "h_rank_bytes",
    [EP_FEATURE_MESSAGES] = "messages_max",
    [EP_FEATURE_MEMORY_BYTES] = "memory_bytes",
    [EP_FEATURE_NIC_BYTES] = "nic_bytes",
    [EP_FEATURE_UPLINK_BYTES] = "uplink_bytes",
    [EP_FEATURE_STEP_PORT_BYTES] = "step_port_bytes",
    [EP_FEATURE_COPIED_BYTES] = "copied_bytes",
    [EP_FEATURE_UPLINK_MESSAGES] = "messages_uplink_max",
};

const char *ep_model_feature_name(enum ep_model_feature feature)
{
    return feature_names[feature];
}

/* The busiest port of a kind, or -1 where the record names none. */
static double busiest_port(const struct ep_record *record, const char *kind)
{
    double most = -1;
    for (int64_t i = 0; i < record->ports.num; i++) {
        if (strcmp(record->ports.items[i].kind, kind) == 0) {
            most = fmax(most, (double)record->ports.items[i].bytes);
        }
    }
    return most;
}

/* NICs one by one; a node's ranks summed only where nothing says which NICs it has. */
static double nic_bytes(const struct ep_record *record)
{
    const double port = busiest_port(record, "nic");
    const double nic = fmax(port, (double)record->h_nic_bytes);
    if (nic >= 0) {
        return nic;
    }
    return record->nodes > 1 ? fmax(0, (double)record->h_node_bytes) : 0;
}

/* On one node every row is read once and written once, own rows too. */
static double memory_bytes(const struct ep_record *record)
{
    const double port = busiest_port(record, "memory");
    const struct ep_record_bytes *own = ep_record_own_bytes(record);
    if (port >= 0) {
        return port;
    }
    return record->nodes <= 1 && own != NULL && own->total > 0 ? 2 * (double)own->total : 0;
}

static double copied_bytes(const struct ep_record *record)
{
    double sum = 0;
    for (int64_t i = 0; i < record->phases.num; i++) {
        sum += fmax(0, (double)record->phases.items[i].copied_bytes_max);
    }
    return sum;
}

/* Earlier records count messages alone. */
static double step_bytes(const struct ep_record *record)
{
    return (double)(record->step_port_bytes >= 0 ? record->step_port_bytes : record->step_sum_bytes);
}

enum ep_status ep_model_features_of_record(const struct ep_record *record,
                                           struct ep_model_features *features)
{
    const double ranks = (double)record->ranks;
    const double values[EP_NUM_FEATURES] = {
        [EP_FEATURE_RANKS] = ranks,
        [EP_FEATURE_REMOTE_BYTES] = record->mean_out_bytes * ranks,
        [EP_FEATURE_MEAN_OUT_BYTES] = record->mean_out_bytes,
        [EP_FEATURE_H_RANK_BYTES] = (double)record->h_rank_bytes,
        [EP_FEATURE_MESSAGES] = (double)record->messages_max,
        [EP_FEATURE_MEMORY_BYTES] = memory_bytes(record),
        [EP_FEATURE_NIC_BYTES] = nic_bytes(record),
        [EP_FEATURE_UPLINK_BYTES] = fmax(0, busiest_port(record, "uplink")),
        [EP_FEATURE_STEP_PORT_BYTES] = step_bytes(record),
        [EP_FEATURE_COPIED_BYTES] = copied_bytes(record),
        [EP_FEATURE_UPLINK_MESSAGES] = fmax(0, (double)record->messages_uplink_max),
    };
    for (int f = 0; f < EP_NUM_FEATURES; f++) {
        if (!(values[f] >= 0)) {
            return ep_error_set(EP_EINVAL, "case '%s': '%s' is absent", record->case_name,
                                feature_names[f]);
        }
    }
    memcpy(features->values, values, sizeof values);
    return EP_OK;
}

void ep_model_matrix_fini(struct ep_model_matrix *matrix)
{
    free(matrix->bytes);
    free(matrix->rank_node);
    free(matrix->self_bytes);
    free(matrix->first_lane);
    free(matrix->lanes);
    free(matrix->node_position);
    free(matrix->step_list);
    *matrix = (struct ep_model_matrix){0};
}

bool ep_model_matrix_lanes(const struct ep_model_matrix *m, int64_t from, int64_t to,
                           struct ep_model_lanes *lanes)
{
    if (m->num_lanes == 0) {
        return false;
    }
    const int32_t a = m->rank_node[from], b = m->rank_node[to];
    if (m->first_lane[a] == m->first_lane[b]) {
        return false;
    }
    lanes->out = m->first_lane[a] >= 0 ? m->first_lane[a] + m->node_position[b] % m->lanes[a] : -1;
    lanes->in = m->first_lane[b] >= 0 ? m->first_lane[b] + m->node_position[b] % m->lanes[b] : -1;
    return true;
}

/* --- the table ------------------------------------------------------------------------------- */

/* Formulas and sources: results/README.md, "The ladder". */
#define LATENCY {"l", "s", EP_PARAMETER_TIME, EP_ROLE_SUM, EP_TERM_ONE, false, NULL}
#define MESSAGE(term) {"a", "s/message", EP_PARAMETER_TIME, EP_ROLE_SUM, term, false, NULL}
#define RATE(name, role, term, by_size, level)                                                     \
    {name, "bytes/s", EP_PARAMETER_BANDWIDTH, role, term, by_size, level}
#define COPY RATE("C", EP_ROLE_SUM, EP_FEATURE_COPIED_BYTES, true, "copy")

static const struct ep_rung rungs[] = {
    {
        .name = "M0",
        .formula = "remote / (P B)",
        .text = "every rank moves the mean; no latency, no skew",
        .num_parameters = 1,
        .parameters = {RATE("B", EP_ROLE_SUM, EP_FEATURE_MEAN_OUT_BYTES, false, "mean")},
        .can_be_chosen = true,
    },
    {
        .name = "M0-link",
        .formula = "remote / B",
        .text = "all bytes over one link",
        .num_parameters = 1,
        .parameters = {RATE("B", EP_ROLE_SUM, EP_FEATURE_REMOTE_BYTES, false, "link")},
        .bandwidth_is_total = true,
    },
    {
        .name = "M1",
        .formula = "(P-1) a + remote / (P B)",
        .text = "a latency per message and a bandwidth, on the mean rank",
        .num_parameters = 2,
        .parameters = {MESSAGE(EP_TERM_PEERS),
                       RATE("B", EP_ROLE_SUM, EP_FEATURE_MEAN_OUT_BYTES, false, "mean")},
        .can_be_chosen = true,
    },
    {
        .name = "M2",
        .formula = "l + a n + H_rank / B",
        .text = "the busiest rank rules",
        .num_parameters = 3,
        .parameters = {LATENCY, MESSAGE(EP_FEATURE_MESSAGES),
                       RATE("B", EP_ROLE_SUM, EP_FEATURE_H_RANK_BYTES, true, "rank")},
        .can_be_chosen = true,
    },
    {
        .name = "M3",
        .formula = "l + a n + max(H_rank / R_core, H_nic / R_nic) + copied / C",
        .text = "the busiest rank or the busiest NIC rules",
        .num_parameters = 5,
        .parameters = {LATENCY, MESSAGE(EP_FEATURE_MESSAGES),
                       RATE("R_core", EP_ROLE_PORT, EP_FEATURE_H_RANK_BYTES, true, "rank"),
                       RATE("R_nic", EP_ROLE_PORT, EP_FEATURE_NIC_BYTES, false, "nic"), COPY},
        .can_be_chosen = true,
    },
    {
        .name = "M4",
        .formula = "l + a n + max over ports of load / c + copied / C",
        .text = "the port with the most to do for its rate rules: rank, memory, NIC or uplink",
        .num_parameters = 7,
        .parameters = {LATENCY, MESSAGE(EP_FEATURE_MESSAGES),
                       RATE("c_rank", EP_ROLE_PORT, EP_FEATURE_H_RANK_BYTES, true, "rank"),
                       RATE("c_memory", EP_ROLE_PORT, EP_FEATURE_MEMORY_BYTES, false, "memory"),
                       RATE("c_nic", EP_ROLE_PORT, EP_FEATURE_NIC_BYTES, false, "nic"),
                       RATE("c_uplink", EP_ROLE_PORT, EP_FEATURE_UPLINK_BYTES, false, "uplink"),
                       COPY},
        .can_be_chosen = true,
    },
    {
        .name = "M5s",
        .formula = "l + a n_near + a_uplink n_uplink + max(H_rank / b, H_uplink / b_uplink) + (sum over steps of the "
                   "busiest port) / c + copied / C",
        .text = "ranks wait for each other in every step: a linear stand-in for M5",
        .num_parameters = 7,
        .parameters = {LATENCY, MESSAGE(EP_TERM_NEAR_MESSAGES),
                       RATE("b", EP_ROLE_PORT, EP_FEATURE_H_RANK_BYTES, true, "rank"),
                       RATE("c", EP_ROLE_SUM, EP_FEATURE_STEP_PORT_BYTES, false, "steps"), COPY,
                       RATE("b_uplink", EP_ROLE_PORT, EP_FEATURE_UPLINK_BYTES, false, "uplink"),
                       {"a_uplink", "s/message", EP_PARAMETER_TIME, EP_ROLE_SUM,
                        EP_FEATURE_UPLINK_MESSAGES, false, NULL}},
        .can_be_chosen = true,
    },
    {
        .name = "M5",
        .formula = "longest chain of a pairwise exchange: a + max over ports of the step's bytes / B per message",
        .text = "in each step a rank sends to another one, and waits propagate",
        .num_parameters = 7,
        .parameters = {{"a_in", "s/message", EP_PARAMETER_TIME, EP_ROLE_SCHEDULE, EP_TERM_ONE, false,
                        NULL},
                       RATE("B_in", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "node"),
                       {"a_out", "s/message", EP_PARAMETER_TIME, EP_ROLE_SCHEDULE, EP_TERM_ONE,
                        false, NULL},
                       RATE("B_out", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "network"),
                       {"a_uplink", "s/message", EP_PARAMETER_TIME, EP_ROLE_SCHEDULE, EP_TERM_ONE,
                        false, NULL},
                       RATE("B_uplink", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "uplink"),
                       RATE("B_nic", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "nic")},
        .can_be_chosen = true,
        .on_request = true,
        .follow = ep_rung_follow_steps,
    },
    {
        .name = "M6",
        .formula = "l + a n + all flows at once, max-min fair over ports of ranks, NICs, uplinks and memory",
        .text = "what binds changes while messages finish",
        .num_parameters = 6,
        .parameters = {{"l", "s", EP_PARAMETER_TIME, EP_ROLE_SCHEDULE, EP_TERM_ONE, false, NULL},
                       {"a", "s/message", EP_PARAMETER_TIME, EP_ROLE_SCHEDULE, EP_TERM_ONE, false,
                        NULL},
                       RATE("c_rank", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "rank"),
                       RATE("c_nic", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "nic"),
                       RATE("c_uplink", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "uplink"),
                       RATE("c_memory", EP_ROLE_SCHEDULE, EP_TERM_ONE, false, "memory")},
        .can_be_chosen = true,
        .one_start = true,
        .on_request = true,
        .follow = ep_rung_follow_flows,
    },
};
_Static_assert(sizeof rungs / sizeof rungs[0] == EP_NUM_RUNGS, "EP_NUM_RUNGS counts the table");

const struct ep_rung *ep_rung_at(int idx)
{
    EP_ASSERT(idx >= 0 && idx < EP_NUM_RUNGS);
    return &rungs[idx];
}

enum ep_status ep_rung_find(const char *name, int *idx)
{
    char names[128] = "";
    for (int i = 0; i < EP_NUM_RUNGS; i++) {
        if (strcmp(rungs[i].name, name) == 0) {
            *idx = i;
            return EP_OK;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s",
                 i == 0 ? "" : i + 1 < EP_NUM_RUNGS ? ", " : " or ", rungs[i].name);
    }
    return ep_error_set(EP_EINVAL, "'%s' is no rung: %s was expected", name, names);
}

/* --- forms ----------------------------------------------------------------------------------- */

void ep_rung_form_init(const struct ep_rung *rung, const double *anchors, int num_anchors,
                       struct ep_rung_form *form)
{
    EP_ASSERT(num_anchors <= EP_RUNG_MAX_ANCHORS);
    *form = (struct ep_rung_form){.rung = rung, .num_anchors = num_anchors > 1 ? num_anchors : 1};
    for (int k = 0; k < num_anchors; k++) {
        form->anchors[k] = anchors[k];
    }
    for (int j = 0; j < rung->num_parameters; j++) {
        form->first_column[j] = form->num_columns;
        form->width[j] = rung->parameters[j].by_size ? form->num_anchors : 1;
        form->num_columns += form->width[j];
    }
    EP_ASSERT(form->num_columns <= EP_RUNG_MAX_COLUMNS);
}

bool ep_rung_is_linear(const struct ep_rung *rung)
{
    for (int j = 0; j < rung->num_parameters; j++) {
        if (rung->parameters[j].role != EP_ROLE_SUM) {
            return false;
        }
    }
    return true;
}

static double term_of(int term, const struct ep_model_features *f)
{
    switch (term) {
    case EP_TERM_ONE: return 1;
    case EP_TERM_PEERS: return f->values[EP_FEATURE_RANKS] - 1;
    case EP_TERM_NEAR_MESSAGES:
        return f->values[EP_FEATURE_MESSAGES] - f->values[EP_FEATURE_UPLINK_MESSAGES];
    default: return f->values[term];
    }
}

/* How much each anchor counts at a size: a hat function in the logarithm. weights [num_anchors] */
static void weigh_anchors(const struct ep_rung_form *form, double size_bytes, double *weights)
{
    const int last = form->num_anchors - 1;
    memset(weights, 0, (size_t)form->num_anchors * sizeof *weights);
    int k = 0;
    while (k < last && size_bytes >= form->anchors[k + 1]) {
        k++;
    }
    if (k == last || size_bytes <= form->anchors[0]) {
        weights[size_bytes <= form->anchors[0] ? 0 : last] = 1;
        return;
    }
    const double at =
        log(size_bytes / form->anchors[k]) / log(form->anchors[k + 1] / form->anchors[k]);
    weights[k] = 1 - at;
    weights[k + 1] = at;
}

/* Columns of one parameter at full weight. */
static void fill_parameter(const struct ep_rung_form *form, int j,
                           const struct ep_model_features *f, const double *weights, double *row)
{
    const double term = term_of(form->rung->parameters[j].term, f);
    double *columns = row + form->first_column[j];
    for (int k = 0; k < form->width[j]; k++) {
        columns[k] = form->width[j] > 1 ? term * weights[k] : term;
    }
}

static double dot(const double *a, const double *b, int num)
{
    double sum = 0;
    for (int j = 0; j < num; j++) {
        sum += a[j] * b[j];
    }
    return sum;
}

/* All but the slowest port are taken out of a row. */
static void keep_slowest_port(const struct ep_rung_form *form, const double *coefficients,
                              double *row)
{
    int slowest = -1;
    double longest = -1;
    for (int j = 0; j < form->rung->num_parameters; j++) {
        if (form->rung->parameters[j].role == EP_ROLE_PORT) {
            const int at = form->first_column[j];
            const double time_s = dot(coefficients + at, row + at, form->width[j]);
            if (time_s > longest) {
                longest = time_s;
                slowest = j;
            }
        }
    }
    for (int j = 0; j < form->rung->num_parameters; j++) {
        if (form->rung->parameters[j].role == EP_ROLE_PORT && j != slowest) {
            memset(row + form->first_column[j], 0, (size_t)form->width[j] * sizeof *row);
        }
    }
}

/* Without choosing among ports. */
static void fill_columns(const struct ep_rung_form *form, const struct ep_model_case *c,
                         double *row)
{
    double weights[EP_RUNG_MAX_ANCHORS] = {1};
    if (form->num_anchors > 1) {
        weigh_anchors(form, c->features.values[EP_FEATURE_H_RANK_BYTES], weights);
    }
    for (int j = 0; j < form->rung->num_parameters; j++) {
        fill_parameter(form, j, &c->features, weights, row);
    }
}

bool ep_rung_row(const struct ep_rung_form *form, const struct ep_model_case *c,
                 const double *coefficients, double *row)
{
    const struct ep_rung *rung = form->rung;
    if (rung->follow != NULL) {
        memset(row, 0, (size_t)form->num_columns * sizeof *row);
        return rung->follow(c, coefficients, row);
    }
    fill_columns(form, c, row);
    if (!ep_rung_is_linear(rung)) {
        keep_slowest_port(form, coefficients, row);
    }
    return true;
}

double ep_rung_predict(const struct ep_rung_form *form, const struct ep_model_case *c,
                       const double *coefficients)
{
    double row[EP_RUNG_MAX_COLUMNS];
    return ep_rung_row(form, c, coefficients, row) ? dot(row, coefficients, form->num_columns)
                                                   : NAN;
}

void ep_rung_terms(const struct ep_rung_form *form, const struct ep_model_case *c,
                   const double *coefficients, double *terms)
{
    double row[EP_RUNG_MAX_COLUMNS] = {0};
    if (form->rung->follow != NULL) {
        form->rung->follow(c, coefficients, row);
    } else {
        fill_columns(form, c, row);
    }
    for (int j = 0; j < form->rung->num_parameters; j++) {
        const int at = form->first_column[j];
        terms[j] = dot(coefficients + at, row + at, form->width[j]);
    }
}

double ep_rung_parameter_value(const struct ep_rung_parameter *parameter, double coefficient)
{
    return parameter->form == EP_PARAMETER_TIME ? coefficient : 1 / coefficient;
}
