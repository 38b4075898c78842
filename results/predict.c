/* SPDX-License-Identifier: Apache-2.0 */
/* Loads of ports from expected traffic, and times from loads. */
#include "results/predict.h"

#include "base/options.h"
#include "results/fit_explain.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct ep_predict_transport transports[] = {
    {"alltoallv", "copies", false, "a row per token and expert"},
    {"pairwise", "copies", false, "the same, step by step"},
    {"shm", "copies", false, "the same, through shared memory"},
    {"alltoallv-dedup", "rank-dedup", false, "a row per token and rank"},
    {"hier", "node-dedup", false, "a row per token and node over the network, then inside the node"},
    {"allgather", "rank-dedup", true, "every row to every rank"},
};
enum { NUM_TRANSPORTS = sizeof transports / sizeof transports[0] };

const struct ep_predict_transport *ep_predict_transport_at(int idx)
{
    return idx < NUM_TRANSPORTS ? &transports[idx] : NULL;
}

enum ep_status ep_predict_transport_find(const char *name, const struct ep_predict_transport **found)
{
    const char *names[NUM_TRANSPORTS];
    for (int i = 0; i < NUM_TRANSPORTS; i++) {
        names[i] = transports[i].name;
        if (strcmp(transports[i].name, name) == 0) {
            *found = &transports[i];
            return EP_OK;
        }
    }
    const char *nearest = ep_options_nearest(name, names, NUM_TRANSPORTS);
    return ep_error_set(EP_EINVAL, "--transport: '%s' cannot be predicted: alltoallv, pairwise, shm, "
                        "alltoallv-dedup, hier or allgather was expected%s%s%s", name,
                        nearest != NULL ? "; did you mean '" : "", nearest != NULL ? nearest : "",
                        nearest != NULL ? "'?" : "");
}

/* --- loads ----------------------------------------------------------------------------------- */

/* Rows of one dispatch: of the busiest rank, NIC and node; times row bytes they are loads. */
struct loads {
    double remote;      /* all rows that leave their rank, over ranks */
    double total;       /* own ones too */
    double h_rank;      /* busiest rank, out or in */
    double scale_up;    /* busiest rank inside its domain, out or in */
    double pair;        /* between two ranks of a domain */
    double nic;         /* busiest NIC, out or in */
    double node_total;  /* read and written in the busiest node's memory */
    double step_sum;    /* sum over steps of the largest message */
};

static double largest(const double *values, int64_t begin, int64_t end)
{
    double most = 0;
    for (int64_t i = begin; i < end; i++) {
        most = fmax(most, values[i]);
    }
    return most;
}

static double sum_of(const double *values, int64_t begin, int64_t end)
{
    double sum = 0;
    for (int64_t i = begin; i < end; i++) {
        sum += values[i];
    }
    return sum;
}

/* Every rank sends alike: chance[r] rows per token to rank r. One stage. */
static struct loads flat_loads(const struct ep_expect *e, const double *chance, double tokens,
                               int64_t per_node, int64_t nics)
{
    const int64_t num = e->num_ranks;
    const double sum = sum_of(chance, 0, num);
    struct loads l = {.total = tokens * sum * (double)num};
    for (int64_t n = 0; n < e->num_nodes; n++) {
        const int64_t begin = n * per_node, end = begin + per_node < num ? begin + per_node : num;
        const double inside = sum_of(chance, begin, end);
        const double ranks = (double)(end - begin), others = (double)num - ranks;
        for (int64_t r = begin; r < end; r++) {
            const double out = tokens * (sum - chance[r]);
            const double in = tokens * chance[r] * (double)(num - 1);
            l.remote += out;
            l.h_rank = fmax(l.h_rank, fmax(out, in));
            l.scale_up = fmax(l.scale_up, fmax(tokens * (inside - chance[r]),
                                               tokens * chance[r] * (ranks - 1)));
        }
        /* NICs of a node are taken in turn by its ranks. */
        const double nic_out = tokens * (sum - inside) * ranks / (double)nics;
        const double nic_in = nics >= end - begin ? tokens * largest(chance, begin, end) * others
                                                  : tokens * inside * others / (double)nics;
        l.nic = fmax(l.nic, fmax(nic_out, nic_in));
        l.pair = fmax(l.pair, ranks > 1 ? tokens * largest(chance, begin, end) : 0);
        l.node_total = fmax(l.node_total, tokens * sum * ranks + tokens * inside * (double)num);
    }
    l.step_sum = tokens * largest(chance, 0, num) * (double)(num - 1);
    return l;
}

/* A row per node over the network, by NICs of one place in their nodes; then a row per rank inside. */
static struct loads hier_loads(const struct ep_expect *e, double tokens, int64_t per_node, int64_t nics)
{
    const int64_t num = e->num_ranks;
    const double sum = sum_of(e->nodes, 0, e->num_nodes);
    struct loads l = flat_loads(e, e->ranks, tokens, per_node, nics);
    l.nic = 0;
    l.h_rank = 0;
    for (int64_t n = 0; n < e->num_nodes; n++) {
        const int64_t begin = n * per_node, end = begin + per_node < num ? begin + per_node : num;
        const double ranks = (double)(end - begin), share = ranks / (double)nics;
        const double out = tokens * (sum - e->nodes[n]);
        const double in = tokens * e->nodes[n] * (double)(e->num_nodes - 1);
        const double here = largest(e->ranks, begin, end);
        l.nic = fmax(l.nic, fmax(out, in) * share);
        l.h_rank = fmax(l.h_rank, fmax(out, in));
        /* What reaches a rank has come in at any rank of its node alike. */
        l.scale_up = fmax(l.scale_up, tokens * here * (double)num * (ranks - 1) / ranks);
        l.pair = fmax(l.pair, ranks > 1 ? tokens * here * (double)num / ranks : 0);
    }
    return l;
}

static struct loads loads_of(const struct ep_predict_question *q, const struct ep_expect *e,
                             int64_t per_node, int64_t nics)
{
    if (q->transport->to_all) {
        double *all = malloc((size_t)e->num_ranks * sizeof *all);
        struct loads l = {0};
        for (int64_t r = 0; all != NULL && r < e->num_ranks; r++) {
            all[r] = 1;
        }
        if (all != NULL) {
            l = flat_loads(e, all, (double)q->tokens, per_node, nics);
        }
        free(all);
        return l;
    }
    if (strcmp(q->transport->basis, "node-dedup") == 0) {
        return hier_loads(e, (double)q->tokens, per_node, nics);
    }
    return flat_loads(e, strcmp(q->transport->basis, "copies") == 0 ? e->copies : e->ranks,
                      (double)q->tokens, per_node, nics);
}

/* --- phases ---------------------------------------------------------------------------------- */

static struct ep_predict_phase *add_phase(struct ep_prediction *p, const char *name)
{
    struct ep_predict_phase *phase = &p->phases[p->num_phases++];
    *phase = (struct ep_predict_phase){.name = name, .time_s = NAN, .low_s = NAN, .high_s = NAN};
    return phase;
}

static void add_port(struct ep_predict_phase *phase, const char *level, double load, double rate)
{
    if (load > 0 && rate > 0 && phase->num_ports < EP_PREDICT_MAX_PORTS) {
        phase->ports[phase->num_ports++] =
            (struct ep_predict_port){level, load, rate, load / rate};
    }
}

/* The slowest and the next. */
static void find_slowest(struct ep_predict_phase *phase)
{
    int first = -1, second = -1;
    for (int i = 0; i < phase->num_ports; i++) {
        if (first < 0 || phase->ports[i].time_s > phase->ports[first].time_s) {
            second = first;
            first = i;
        } else if (second < 0 || phase->ports[i].time_s > phase->ports[second].time_s) {
            second = i;
        }
    }
    phase->level = first >= 0 ? phase->ports[first].level : NULL;
    phase->runner_up = second >= 0 ? phase->ports[second].level : NULL;
    phase->time_s = first >= 0 ? phase->ports[first].time_s : 0;
}

static void move_on_known(const struct ep_predict_question *q, const struct loads *l, double row_bytes,
                          int64_t per_node, struct ep_predict_phase *phase)
{
    const struct ep_known_machine *m = q->known;
    const double groups = q->ep < per_node ? (double)per_node / (double)q->ep : 1;
    const bool leaves = q->ep > per_node;
    add_port(phase, "scale-up", l->scale_up * row_bytes, m->scale_up.value);
    add_port(phase, "pair", l->pair * row_bytes, m->pair.value);
    add_port(phase, "nic", leaves ? l->nic * row_bytes : 0, m->nic.value);
    if (!m->is_gpu) {
        add_port(phase, "memory", l->node_total * row_bytes * groups, m->memory.value);
    }
    find_slowest(phase);
    double latency_s = leaves && m->step_scale_out.value > 0 ? m->step_scale_out.value : 0;
    latency_s += per_node > 1 && m->step_scale_up.value > 0 ? m->step_scale_up.value : 0;
    if (q->ep == 1) {
        latency_s = 0;
    }
    if (latency_s > phase->time_s) {
        phase->runner_up = phase->level;
        phase->level = "latency";
    }
    phase->time_s += latency_s;
}

static const struct ep_fitted_group *find_group(const struct ep_fitted_machine *machine, const char *op,
                                                const char *transport)
{
    for (int64_t i = 0; i < machine->num_groups; i++) {
        const struct ep_fitted_group *g = &machine->groups[i];
        if (strcmp(g->op, op) == 0 && strcmp(g->transport, transport) == 0 &&
            strcmp(g->target, "exchange") == 0) {
            return g;
        }
    }
    for (int64_t i = 0; i < machine->num_groups; i++) {
        const struct ep_fitted_group *g = &machine->groups[i];
        if (strcmp(g->op, op) == 0 && strcmp(g->transport, transport) == 0) {
            return g;
        }
    }
    return NULL;
}

static void move_on_fitted(const struct ep_predict_question *q, const struct ep_expect *e,
                           const struct loads *l, double row_bytes, struct ep_predict_phase *phase)
{
    const struct ep_fitted_group *g = find_group(q->fitted, phase->name, q->transport->name);
    const double ranks = (double)e->num_ranks;
    if (g == NULL) {
        phase->withheld = "the machine file has no group with a chosen rung of this transport and op";
        return;
    }
    struct ep_model_case c = {{{
        [EP_FEATURE_RANKS] = ranks,
        [EP_FEATURE_REMOTE_BYTES] = l->remote * row_bytes,
        [EP_FEATURE_MEAN_OUT_BYTES] = l->remote * row_bytes / ranks,
        [EP_FEATURE_H_RANK_BYTES] = l->h_rank * row_bytes,
        [EP_FEATURE_MESSAGES] = ranks - 1,
        [EP_FEATURE_MEMORY_BYTES] = e->num_nodes == 1 ? 2 * l->total * row_bytes : 0,
        [EP_FEATURE_NIC_BYTES] = e->num_nodes > 1 ? l->nic * row_bytes : 0,
        /* Of several nodes the busiest NIC is the same in every step. */
        [EP_FEATURE_STEP_PORT_BYTES] = (e->num_nodes > 1 ? l->nic : l->step_sum) * row_bytes,
    }}, NULL};
    phase->by = g->name;
    if (ep_fitted_group_uses(g, EP_FEATURE_COPIED_BYTES)) {
        phase->withheld = "its rung counts bytes copied, which only the transport knows";
        return;
    }
    if (ep_fitted_group_uses(g, EP_FEATURE_UPLINK_BYTES) ||
        ep_fitted_group_uses(g, EP_FEATURE_UPLINK_MESSAGES)) {
        phase->withheld = "its rung counts uplinks, and which switch a node hangs on is not told";
        return;
    }
    phase->time_s = ep_fitted_group_predict(g, &c.features);
    if (isnan(phase->time_s)) {
        phase->withheld = "its rung follows single messages";
        return;
    }
    struct ep_fit_binding binding;
    ep_fit_find_binding(&g->form, g->coefficients, &c, &binding);
    phase->level = binding.level;
    phase->runner_up = binding.runner_up;
    phase->ports[phase->num_ports++] =
        (struct ep_predict_port){binding.level, NAN, NAN, phase->time_s};
    phase->extrapolates = ep_fitted_group_extrapolates(g, &c.features);
    if (isfinite(g->half_width)) {
        phase->low_s = phase->time_s * fmax(0, 1 - g->half_width);
        phase->high_s = phase->time_s * (1 + g->half_width);
    }
}

/* The type's rate, or that of the next wider one. */
static double flops_of(const struct ep_predict_question *q)
{
    double rates[EP_NUM_DTYPES];
    for (int t = 0; t < EP_NUM_DTYPES; t++) {
        static const enum ep_known_type types[] = {
            [EP_FP32] = EP_KNOWN_FP32, [EP_BF16] = EP_KNOWN_BF16, [EP_FP8] = EP_KNOWN_FP8};
        rates[t] = q->known != NULL ? q->known->flops[types[t]].value : q->fitted->flops_per_s[t];
    }
    int t = q->dtype;
    while (t > EP_FP32 && !(rates[t] > 0)) {
        t--;
    }
    return rates[t];
}

/* A part of the machine file, of the type or of the next wider one; NULL = it has none. */
static const struct ep_fitted_part *part_of(const struct ep_predict_question *q,
                                            enum ep_compute_use use, enum ep_dtype dtype)
{
    for (int t = dtype; q->fitted != NULL && t >= EP_FP32; t--) {
        if (q->fitted->parts[use][t].name != NULL) {
            return &q->fitted->parts[use][t];
        }
    }
    return NULL;
}

/* `num` alike pieces of a phase by a fitted part. */
static void work_on_fitted(const struct ep_fitted_part *part, const struct ep_work *work,
                           struct ep_predict_phase *phase)
{
    for (int64_t i = 0; i < work->num_pieces; i++) {
        const struct ep_work_piece *w = &work->pieces[i];
        add_port(phase, "flops", w->count * w->flops, 1 / part->coefficients[EP_ROOFLINE_FLOP]);
        add_port(phase, "memory", w->count * w->bytes, 1 / part->coefficients[EP_ROOFLINE_BYTE]);
    }
    find_slowest(phase);
    const double ports_s = phase->time_s;
    phase->time_s = ep_roofline_time(part->form, part->coefficients, work);
    phase->by = part->name;
    if (phase->time_s > 2 * ports_s && part->form == EP_ROOFLINE_LONGER) {
        phase->runner_up = phase->level;
        phase->level = "latency";
    }
    if (isfinite(part->half_width)) {
        phase->low_s = phase->time_s * fmax(0, 1 - part->half_width);
        phase->high_s = phase->time_s * (1 + part->half_width);
    }
}

/* Rows read and written around an exchange, where its group does not hold them. */
static void copy_on_fitted(const struct ep_predict_question *q, enum ep_compute_use use,
                           enum ep_dtype dtype, const char *op, double rows_out, double rows_in,
                           struct ep_prediction *p)
{
    const struct ep_fitted_part *part = part_of(q, use, dtype);
    const struct ep_fitted_group *g =
        q->fitted != NULL ? find_group(q->fitted, op, q->transport->name) : NULL;
    if (part == NULL || g == NULL || strcmp(g->target, "exchange") != 0) {
        return;
    }
    const double row_bytes = (double)ep_dtype_row_bytes(dtype, q->model->hidden);
    const struct ep_work_piece pieces[] = {{1, 0, 2 * rows_out * row_bytes},
                                           {1, 0, 2 * rows_in * row_bytes}};
    const struct ep_work work = {2, pieces, 2};
    work_on_fitted(part, &work, add_phase(p, ep_compute_use_name(use)));
}

/* An FFN of `rows` rows whose weights are read once: a roofline. */
static void compute(const struct ep_predict_question *q, double rows, double width, double num_experts,
                    int64_t per_node, struct ep_predict_phase *phase)
{
    const double matrices = q->model->gated ? 3 : 2;
    const double parameters = matrices * (double)q->model->hidden * width;
    const double weight_bytes = parameters * ep_weight_type_expert_bytes(q->weights);
    const double flops = flops_of(q);
    const struct ep_fitted_part *part = part_of(q, EP_COMPUTE_EXPERTS, q->dtype);
    if (part != NULL) {
        const struct ep_work_piece piece = {num_experts, 2 * rows * parameters / num_experts,
                                            weight_bytes};
        work_on_fitted(part, &(struct ep_work){1, &piece, 1}, phase);
        return;
    }
    if (!(flops > 0)) {
        phase->withheld = "no rate of expert GEMMs is known (epbench kernels adds them to a run)";
        return;
    }
    /* Cores of the catalogue share their node's memory. */
    const double memory = q->known == NULL       ? q->fitted->read_bytes_per_s
                          : q->known->is_gpu ? q->known->memory.value
                                             : q->known->memory.value / (double)per_node;
    add_port(phase, "flops", 2 * rows * parameters, flops);
    add_port(phase, "memory", num_experts * weight_bytes, memory);
    phase->by = q->known == NULL ? "GEMM and read rates of the machine file" : NULL;
    find_slowest(phase);
}

/* --- all ------------------------------------------------------------------------------------- */

/* Which level is the slowest for longest, over all phases; and the next, or what comes next in one. */
static void find_binding(struct ep_prediction *p)
{
    double longest = 0, next = 0;
    for (int i = 0; i < p->num_phases; i++) {
        const char *level = p->phases[i].level;
        double time_s = 0;
        bool is_first = level != NULL;
        for (int k = 0; k < p->num_phases && level != NULL; k++) {
            if (p->phases[k].level != NULL && strcmp(p->phases[k].level, level) == 0) {
                is_first = is_first && k >= i;
                time_s += p->phases[k].time_s > 0 ? p->phases[k].time_s : 0;
            }
        }
        if (is_first && time_s > longest) {
            next = longest;
            p->runner_up = p->level;
            longest = time_s;
            p->level = level;
        } else if (is_first && time_s > next) {
            next = time_s;
            p->runner_up = level;
        }
    }
    for (int i = 0; i < p->num_phases && p->runner_up == NULL; i++) {
        p->runner_up = p->phases[i].runner_up;
    }
}

static void sum_up(struct ep_prediction *p)
{
    double move_s = 0, compute_s = 0;
    p->time_s = p->low_s = p->high_s = 0;
    for (int i = 0; i < p->num_phases; i++) {
        const struct ep_predict_phase *phase = &p->phases[i];
        const bool moves = strcmp(phase->name, "experts") != 0 && strcmp(phase->name, "shared") != 0;
        p->time_s += phase->time_s;
        p->low_s += phase->low_s;
        p->high_s += phase->high_s;
        move_s += moves ? phase->time_s : 0;
        compute_s += moves ? 0 : phase->time_s;
    }
    p->move_over_compute = compute_s > 0 ? move_s / compute_s : NAN;
    find_binding(p);
}

/* Experts, or replicas, of the rank that has most. */
static enum ep_status count_local(const struct ep_predict_question *q, int64_t *local)
{
    if (q->placement != NULL) {
        *local = q->placement->max_local;
        return EP_OK;
    }
    return ep_model_max_local_experts(q->model, q->ep, local);
}

static enum ep_status find_memory(const struct ep_predict_question *q, const struct ep_expect *e,
                                  struct ep_prediction *p)
{
    struct ep_model_params params;
    int64_t local = 0;
    const enum ep_status status = count_local(q, &local);
    if (status != EP_OK) {
        return status;
    }
    ep_model_count_params(q->model, &params);
    const double rest = isnan(params.rest) ? 0 : params.rest;
    const double expert_bytes = ep_weight_type_expert_bytes(q->weights);
    p->weight_bytes = (double)local * params.expert * (double)q->model->num_moe_layers * expert_bytes +
                      params.shared * expert_bytes +
                      (params.router + rest) * ep_weight_type_rest_bytes(q->weights);
    const double rows = q->tokens * (double)e->num_ranks;
    p->buffer_bytes = rows * largest(e->copies, 0, e->num_ranks) *
                      (double)(ep_dtype_row_bytes(q->dtype, q->model->hidden) +
                               ep_dtype_row_bytes(q->combine_dtype, q->model->hidden));
    p->memory_bytes = q->known != NULL ? q->known->memory_size.value : NAN;
    return EP_OK;
}

static void predict_move(const struct ep_predict_question *q, const struct ep_expect *e,
                         const struct loads *l, const char *name, enum ep_dtype dtype, int64_t per_node,
                         struct ep_prediction *p)
{
    struct ep_predict_phase *phase = add_phase(p, name);
    const double row_bytes = (double)ep_dtype_row_bytes(dtype, q->model->hidden);
    if (q->known != NULL) {
        move_on_known(q, l, row_bytes, per_node, phase);
    } else {
        move_on_fitted(q, e, l, row_bytes, phase);
    }
}

enum ep_status ep_predict(const struct ep_predict_question *q, struct ep_prediction *prediction)
{
    enum ep_status status;
    struct ep_expect e = {0};
    struct ep_prediction p = {0};
    const int64_t per_node = q->ranks_per_node > 0 ? q->ranks_per_node
                             : q->known != NULL    ? q->known->ranks_per_node
                                                   : q->ep;
    /* A node with fewer ranks than the machine's has as many fewer NICs. */
    const int64_t nics = q->known == NULL ? 1
                         : q->known->nics_per_node >= q->known->ranks_per_node
                             ? per_node
                             : q->known->nics_per_node;
    const struct ep_expect_config config = {.skew = q->skew,
                                            .num_experts = q->model->num_experts,
                                            .top_k = q->model->top_k,
                                            .router = q->router,
                                            .placement = q->placement,
                                            .num_ranks = q->ep,
                                            .ranks_per_node = per_node,
                                            .seed = q->seed};
    if (q->world % q->ep != 0) {
        EP_TRY(ep_error_set(EP_EINVAL, "--world %" PRId64 " is no multiple of --ep %" PRId64, q->world,
                            q->ep));
    }
    EP_TRY(ep_expect_init(&config, &e));
    const struct loads l = loads_of(q, &e, per_node, nics);
    p.num_nodes = e.num_nodes;
    p.ranks_per_token = e.ranks_per_token;
    p.nodes_per_token = e.nodes_per_token;
    p.num_drawn = e.num_drawn;
    p.copies_max = (double)q->tokens * (double)q->ep * largest(e.copies, 0, e.num_ranks);
    p.imbalance = p.copies_max / ((double)q->tokens * (double)q->model->top_k);
    int64_t local = 0;
    EP_TRY(count_local(q, &local));
    const double rows_out = (double)q->tokens * (double)q->model->top_k;
    predict_move(q, &e, &l, "dispatch", q->dtype, per_node, &p);
    copy_on_fitted(q, EP_COMPUTE_PERMUTE, q->dtype, "dispatch", rows_out, p.copies_max, &p);
    compute(q, p.copies_max, (double)q->model->expert_ffn, (double)local, per_node,
            add_phase(&p, "experts"));
    if (q->model->shared_ffn_total > 0) {
        compute(q, (double)q->tokens, (double)q->model->shared_ffn_total, 1, per_node,
                add_phase(&p, "shared"));
    }
    copy_on_fitted(q, EP_COMPUTE_UNPERMUTE, q->combine_dtype, "combine", p.copies_max, rows_out, &p);
    predict_move(q, &e, &l, "combine", q->combine_dtype, per_node, &p);
    EP_TRY(find_memory(q, &e, &p));
    sum_up(&p);
    *prediction = p;
out:
    ep_expect_fini(&e);
    return status;
}
