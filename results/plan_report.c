/* SPDX-License-Identifier: Apache-2.0 */
/* Times, notes and tables of plans. */
#include "results/plan_report.h"

#include "base/table.h"
#include "base/units.h"
#include "kernels/capacity_options.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* --- times -------------------------------------------------------------------------------- */

/* One direction of one layer, evenly loaded: every rank sends and receives the same. */
static struct ep_model_features even_features(const struct ep_plan_report *r,
                                              double bytes_per_token)
{
    const double out = (double)r->config->tokens * bytes_per_token;
    return (struct ep_model_features){.values = {
                                          [EP_FEATURE_RANKS] = (double)r->num_ranks,
                                          [EP_FEATURE_REMOTE_BYTES] = out * (double)r->num_ranks,
                                          [EP_FEATURE_MEAN_OUT_BYTES] = out,
                                          [EP_FEATURE_H_RANK_BYTES] = out,
                                          [EP_FEATURE_MESSAGES] = (double)(r->num_ranks - 1),
                                          [EP_FEATURE_MEMORY_BYTES] = 2 * out * (double)r->num_ranks,
                                          [EP_FEATURE_STEP_PORT_BYTES] = out,
                                      }};
}

/* The fastest of the machine's groups that move copies this way: adds its time to t. */
static enum ep_status time_by_machine(const struct ep_fitted_machine *machine, const char *op,
                                      const struct ep_model_features *features,
                                      struct ep_plan_timed_strategy *t, const char **by)
{
    const struct ep_fitted_group *best = NULL;
    double least = (double)INFINITY;
    for (int64_t i = 0; i < machine->num_groups; i++) {
        const struct ep_fitted_group *g = &machine->groups[i];
        const double time_s = ep_fitted_group_predict(g, features);
        /* Where ranks sit, and what is copied, a plan does not say. */
        if (ep_fitted_group_uses(g, EP_FEATURE_NIC_BYTES) ||
            ep_fitted_group_uses(g, EP_FEATURE_UPLINK_BYTES) ||
            ep_fitted_group_uses(g, EP_FEATURE_COPIED_BYTES)) {
            continue;
        }
        if (strcmp(g->op, op) == 0 && strcmp(g->byte_basis, "copies") == 0 && time_s < least) {
            least = time_s;
            best = g;
        }
    }
    if (best == NULL) {
        return ep_error_set(EP_EINVAL,
                            "--machine: no rung was chosen for %s of copies that knows a time without "
                            "knowing where ranks sit; fit more records", op);
    }
    const char *beyond = ep_fitted_group_extrapolates(best, features);
    t->time_s += least;
    t->beyond = t->beyond != NULL ? t->beyond : beyond;
    *by = best->name;
    return EP_OK;
}

static enum ep_status time_strategy(const struct ep_plan_report *r,
                                    struct ep_plan_timed_strategy *t)
{
    enum ep_status status = EP_OK;
    const struct ep_model_features there = even_features(r, t->strategy.dispatch_bytes_per_token);
    const struct ep_model_features back = even_features(r, t->strategy.combine_bytes_per_token);
    const double sent =
        there.values[EP_FEATURE_H_RANK_BYTES] + back.values[EP_FEATURE_H_RANK_BYTES];
    const bool asked = r->machine != NULL || !isnan(r->bw_bytes_per_s);
    t->time_s = asked && t->strategy.possible ? 0 : (double)NAN;
    if (isnan(t->time_s) || sent == 0) {
        return EP_OK; /* where nothing is sent, nothing has to be predicted */
    }
    if (r->machine == NULL) {
        t->time_s = sent / r->bw_bytes_per_s;
        t->by[0] = "bytes / bandwidth";
        return EP_OK;
    }
    EP_TRY(time_by_machine(r->machine, "dispatch", &there, t, &t->by[0]));
    EP_TRY(time_by_machine(r->machine, "combine", &back, t, &t->by[1]));
out:
    return status;
}

/* --- notes -------------------------------------------------------------------------------- */

static void add_note(struct ep_plan_report *r, bool condition, const char *text)
{
    if (condition) {
        EP_ASSERT(r->num_notes < EP_PLAN_MAX_NOTES);
        r->notes[r->num_notes++] = text;
    }
}

static void collect_notes(struct ep_plan_report *r)
{
    const struct ep_plan_config *c = r->config;
    const struct ep_model *m = c->model;
    struct ep_model_params params;
    ep_model_count_params(m, &params);
    r->num_notes = 0;
    add_note(r, ep_model_is_rumour(m),
             "the model's shape is a rumour, never published by its makers");
    add_note(r, r->weight_note != NULL, r->weight_note);
    add_note(r, isnan(params.rest),
             "weights besides experts are not known and not counted: memory is a lower bound");
    add_note(
        r, !isnan(params.rest),
        "weights besides experts: the published total less experts, spread evenly over layers");
    add_note(r, m->num_heads == 0, "attention heads are not known: TP is not checked against them");
    add_note(r, m->dense_ffn == 0 && m->num_moe_layers < m->num_layers,
             "the dense layers' FFN width is not known: its activations are not counted");
    add_note(r, !c->training, "inference: KV cache and attention's activations are not counted");
    add_note(r, c->training,
             "attention's activations are an estimate for multi-head attention in 16 bits");
    add_note(r, c->num_samples < 100, "below 100 samples there is no p99: the worst decides");
    add_note(r, r->set->wraps, "the trace has fewer tokens than are sampled: its rows come again");
}

/* Without a closed form: the ranks per token that were sampled, if some plan has as many. */
static void take_sampled_dedup(const struct ep_plan_report *r, struct ep_plan_strategy *s)
{
    const double copies = s->dispatch_bytes_per_token + s->combine_bytes_per_token;
    for (int64_t i = 0; i < r->set->num && isnan(s->dedup_bytes_per_token); i++) {
        const struct ep_plan *p = &r->set->plans[i];
        if (p->ep == r->num_ranks) {
            s->dedup_bytes_per_token =
                copies * p->received.ranks_per_token / (double)r->config->model->top_k;
        }
    }
}

enum ep_status ep_plan_report_finish(struct ep_plan_report *report)
{
    enum ep_status status = EP_OK;
    struct ep_plan_strategy strategies[EP_PLAN_NUM_STRATEGIES];
    ep_plan_compare_strategies(report->config, report->num_ranks, strategies);
    take_sampled_dedup(report, &strategies[EP_PLAN_EXPERTS_SPREAD]);
    for (int i = 0; i < EP_PLAN_NUM_STRATEGIES; i++) {
        report->strategies[i] = (struct ep_plan_timed_strategy){.strategy = strategies[i]};
        EP_TRY(time_strategy(report, &report->strategies[i]));
    }
    collect_notes(report);
out:
    return status;
}

/* --- tables ------------------------------------------------------------------------------- */

static void print_head(const struct ep_plan_report *r, FILE *out)
{
    const struct ep_plan_config *c = r->config;
    char memory[32];
    fprintf(out,
            "model    %s: %" PRId64 " layers, %" PRId64 " with %" PRId64 " experts, top-%" PRId64
            ", weights in %s\n",
            c->model->name, c->model->num_layers, c->model->num_moe_layers, c->model->num_experts,
            c->model->top_k, ep_weight_type_name(c->weights));
    fprintf(out, "world    %" PRId64 " ranks", c->world);
    if (!isnan(c->gpu_memory_bytes)) {
        fprintf(out, " of %s", ep_format_bytes(c->gpu_memory_bytes, memory, sizeof memory));
    }
    fprintf(out,
            "\nstep     %s, %" PRId64 " x %" PRId64 " tokens per DP rank, %s dispatch, %s "
            "combine",
            c->training ? "training" : "inference", c->num_microbatches, c->tokens,
            ep_dtype_name(c->dispatch_dtype), ep_dtype_name(c->combine_dtype));
    if (c->capacity == NULL) {
        fprintf(out, ", dropless\n");
    } else {
        char text[256];
        fprintf(out, "\ncapacity %s", ep_capacity_describe(c->capacity, text, sizeof text));
        if (c->capacity->rule != NULL) {
            fprintf(out, ", factor %g", ep_capacity_factor(c->capacity));
        }
        fprintf(out, "\n");
    }
    if (c->training) {
        fprintf(out, "state    gradients %g bytes per parameter, optimizer %g%s%s\n",
                ep_plan_gradient_bytes(), ep_plan_optimizer_bytes(c),
                c->shard_optimizer ? " sharded" : "", c->recompute ? ", recomputation" : "");
    }
    fprintf(out, "routing  %s, %" PRId64 " samples from seed %" PRIu64 "\n\n", c->skew,
            c->num_samples, c->seed);
}

static enum ep_status print_rejected(const struct ep_plan_report *r, FILE *out)
{
    static const char *const headers[] = {"plans", "product", "folding"};
    struct ep_table *table = NULL;
    const enum ep_status status = ep_table_create(headers, 3, &table);
    if (status != EP_OK) {
        return status;
    }
    int64_t valid[EP_PLAN_NUM_CONVENTIONS] = {0};
    for (int64_t i = 0; i < r->set->num; i++) {
        valid[r->set->plans[i].convention]++;
    }
    ep_table_add(table, "multiply to the world");
    ep_table_add(table, "%" PRId64, r->set->considered[EP_PLAN_PRODUCT]);
    ep_table_add(table, "%" PRId64, r->set->considered[EP_PLAN_FOLDING]);
    for (int i = 0; i < EP_PLAN_NUM_RULES; i++) {
        const int64_t product = r->set->rejected[EP_PLAN_PRODUCT][i];
        const int64_t folding = r->set->rejected[EP_PLAN_FOLDING][i];
        if (product + folding > 0) {
            ep_table_add(table, "- %s", ep_plan_rule_text((enum ep_plan_rule)i));
            ep_table_add(table, "%" PRId64, product);
            ep_table_add(table, "%" PRId64, folding);
        }
    }
    ep_table_add(table, "valid");
    ep_table_add(table, "%" PRId64, valid[EP_PLAN_PRODUCT]);
    ep_table_add(table, "%" PRId64, valid[EP_PLAN_FOLDING]);
    const enum ep_status printed = ep_table_print(table, out);
    ep_table_destroy(table);
    return printed;
}

static void add_gib(struct ep_table *table, double size_bytes)
{
    if (isnan(size_bytes)) {
        ep_table_add(table, "-");
    } else {
        ep_table_add(table, "%.2f", size_bytes / 0x1p30);
    }
}

static void add_plan(const struct ep_plan_report *r, const struct ep_plan *p,
                     struct ep_table *table)
{
    const enum ep_plan_statistic by = ep_plan_deciding(r->config);
    const struct ep_plan_memory *m = &p->memory;
    ep_table_add(table, "%s", ep_plan_convention_name(p->convention));
    ep_table_add(table, "%" PRId64, p->ep);
    ep_table_add(table, "%" PRId64, p->tp);
    ep_table_add(table, "%" PRId64, p->dp);
    ep_table_add(table, "%" PRId64, p->pp);
    ep_table_add(table, "%" PRId64, p->expert_tp);
    ep_table_add(table, "%" PRId64, p->expert_dp);
    add_gib(table, m->routed + m->shared + m->router + (p->lower_bound ? 0 : m->rest));
    if (r->config->training) {
        add_gib(table, m->gradients + m->optimizer);
    }
    add_gib(table, m->other_activations + m->activations[by] + m->token_buffers[by]);
    add_gib(table, m->total[by]);
    add_gib(table, p->total_bytes);
    ep_table_add(table, "%.1f", p->bytes_per_token / 1024);
    ep_table_add(table, "%.0f", 100 * ep_plan_idle_fraction(r->config, p));
    ep_table_add(table, "%s", p->fits == 1 ? "yes" : p->fits == 0 ? "NO" : "?");
}

static enum ep_status print_plans(const struct ep_plan_report *r, int64_t most, FILE *out)
{
    static const char *const inference[] = {"form", "EP",        "TP",      "DP",  "PP",
                                            "ETP",  "EDP",       "weights", "act", "total",
                                            "sent", "KiB/token", "idle %", "fits"};
    static const char *const training[] = {"form",  "EP",   "TP",        "DP",    "PP",
                                           "ETP",   "EDP",  "weights",   "state", "act",
                                           "total", "sent", "KiB/token", "idle %", "fits"};
    const int64_t num = most > 0 && most < r->set->num ? most : r->set->num;
    struct ep_table *table = NULL;
    enum ep_status status = r->config->training ? ep_table_create(training, 15, &table)
                                                : ep_table_create(inference, 14, &table);
    if (status != EP_OK) {
        return status;
    }
    for (int64_t i = 0; i < num; i++) {
        add_plan(r, &r->set->plans[i], table);
    }
    fprintf(
        out,
        "\nThose that fit first, then by bytes sent per token. GiB on the fullest rank, %s;\n%sact "
        "= activations and token buffers; sent: GiB that a rank sends in a step; idle: of a step's time, "
        "while stages fill\nand drain, (PP - 1) / (micro-batches + PP - 1).\n",
        ep_plan_deciding(r->config) == EP_PLAN_P99 ? "at p99" : "worst sample",
        r->config->training ? "state = gradients and optimizer; " : "");
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    fprintf(out, "first: %s\n", r->set->plans[0].reason);
    if (r->set->plans[0].pp > 1) {
        fprintf(out, "The order does not count idle time: --microbatches N for more of them, --pp 1 for plans "
                     "without stages\n");
    }
    if (num < r->set->num) {
        fprintf(out, "%" PRId64 " more: --all\n", r->set->num - num);
    }
    return status;
}

static void add_part(struct ep_table *table, const char *part, double median, double p99,
                     double worst)
{
    ep_table_add(table, "%s", part);
    add_gib(table, median);
    add_gib(table, p99);
    add_gib(table, worst);
}

static enum ep_status print_memory(const struct ep_plan_memory *m, FILE *out)
{
    static const char *const headers[] = {"GiB of", "median", "p99", "worst"};
    const struct {
        const char *name;
        double size_bytes;
    } fixed[] = {{"routed experts", m->routed},
                 {"shared experts", m->shared},
                 {"routers", m->router},
                 {"all other weights", m->rest},
                 {"gradients", m->gradients},
                 {"optimizer", m->optimizer},
                 {"other activations", m->other_activations}};
    const struct {
        const char *name;
        const double *sizes_bytes;
    } sampled[] = {{"token buffers", m->token_buffers},
                   {"routed activations", m->activations},
                   {"total", m->total}};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 4, &table);
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0] && status == EP_OK; i++) {
        if (fixed[i].size_bytes != 0) {
            add_part(table, fixed[i].name, fixed[i].size_bytes, fixed[i].size_bytes,
                     fixed[i].size_bytes);
        }
    }
    for (size_t i = 0; i < sizeof sampled / sizeof sampled[0] && status == EP_OK; i++) {
        const double *sizes = sampled[i].sizes_bytes;
        add_part(table, sampled[i].name, sizes[EP_PLAN_MEDIAN], sizes[EP_PLAN_P99],
                 sizes[EP_PLAN_WORST]);
    }
    if (status == EP_OK) {
        status = ep_table_print(table, out);
    }
    ep_table_destroy(table);
    return status;
}

static enum ep_status print_sent(const struct ep_plan *p, FILE *out)
{
    static const char *const headers[] = {"sent by a rank in a step", "GiB"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 2, &table);
    for (int i = 0; i < EP_PLAN_NUM_COLLECTIVES && status == EP_OK; i++) {
        if (p->bytes[i] > 0) {
            ep_table_add(table, "%s", ep_plan_collective_title((enum ep_plan_collective)i));
            add_gib(table, p->bytes[i]);
        }
    }
    if (status == EP_OK) {
        ep_table_add(table, "total");
        add_gib(table, p->total_bytes);
        status = ep_table_print(table, out);
    }
    ep_table_destroy(table);
    return status;
}

/* The first plan, part by part. */
static enum ep_status print_first(const struct ep_plan_report *r, FILE *out)
{
    const struct ep_plan *p = &r->set->plans[0];
    enum ep_status status;
    fprintf(out, "\nThe first plan, fullest rank (of stage %" PRId64 "):\n", p->memory.stage);
    EP_TRY(print_memory(&p->memory, out));
    fprintf(out, "\n");
    EP_TRY(print_sent(p, out));
    fprintf(out,
            "\ncopies received by the busiest rank in a layer: %.0f (median), %.0f (worst); even: "
            "%.0f\n",
            p->received.copies[EP_PLAN_MEDIAN], p->received.copies[EP_PLAN_WORST],
            p->received.mean);
    fprintf(out, "ranks of the EP group that a token goes to: %.3f; sent in %s\n",
            p->received.ranks_per_token, ep_basis_name(r->config->byte_basis));
    if (r->config->capacity != NULL) {
        fprintf(out, "kept of all copies: %.2f %%\n", 100 * p->received.kept_fraction);
    }
out:
    return status;
}

static enum ep_status print_strategies(const struct ep_plan_report *r, FILE *out)
{
    static const char *const headers[] = {"experts",     "GiB/rank", "all weights",
                                          "bytes/token", "dedup",    "time of a layer"};
    struct ep_table *table = NULL;
    enum ep_status status = ep_table_create(headers, 6, &table);
    const struct ep_plan_timed_strategy *first = &r->strategies[EP_PLAN_EXPERTS_SPREAD];
    const char *beyond = NULL;
    if (status != EP_OK) {
        return status;
    }
    for (int i = 0; i < EP_PLAN_NUM_STRATEGIES; i++) {
        const struct ep_plan_timed_strategy *t = &r->strategies[i];
        const struct ep_plan_strategy *s = &t->strategy;
        char text[32];
        ep_table_add(table, "%s", s->name);
        add_gib(table, s->possible ? s->expert_bytes : (double)NAN);
        add_gib(table, s->possible ? s->weight_bytes : (double)NAN);
        if (s->possible) {
            ep_table_add(table, "%.0f", s->dispatch_bytes_per_token + s->combine_bytes_per_token);
        } else {
            ep_table_add(table, "-");
        }
        if (isnan(s->dedup_bytes_per_token)) {
            ep_table_add(table, "-");
        } else {
            ep_table_add(table, "%.0f", s->dedup_bytes_per_token);
        }
        ep_table_add(table, "%s",
                     t->time_s == 0 ? "none" : ep_format_time(t->time_s, text, sizeof text));
        beyond = t->beyond != NULL ? t->beyond : beyond;
    }
    fprintf(out,
            "\nExperts spread, copied or cut over %" PRId64 " ranks with %" PRId64
            " tokens each, all else on\nevery rank: GiB of experts, of all weights; bytes "
            "that a token sends in a layer, out and back\n",
            r->num_ranks, r->config->tokens);
    status = ep_table_print(table, out);
    ep_table_destroy(table);
    for (int i = 0; i < EP_PLAN_NUM_STRATEGIES; i++) {
        if (!r->strategies[i].strategy.possible) {
            fprintf(out, "%s: %s\n", r->strategies[i].strategy.name,
                    r->strategies[i].strategy.impossible);
        }
    }
    if (r->machine != NULL) {
        fprintf(out,
                "times: as fitted on %s (%s, %s), load spread evenly;\nTP's collectives as if they "
                "were these%s%s\n",
                r->machine->host, first->by[0] != NULL ? first->by[0] : "nothing to send",
                first->by[1] != NULL ? first->by[1] : "nothing to send",
                beyond != NULL ? "; beyond what was measured: " : "", beyond != NULL ? beyond : "");
    } else if (!isnan(r->bw_bytes_per_s)) {
        fprintf(out, "times: bytes that a rank sends / bandwidth; no latency, no skew\n");
    }
    return status;
}

enum ep_status ep_plan_report_print(const struct ep_plan_report *report, int64_t most, FILE *out)
{
    enum ep_status status;
    print_head(report, out);
    EP_TRY(print_rejected(report, out));
    if (report->set->num == 0) {
        fprintf(out, "\nno valid plan\n");
    } else {
        EP_TRY(print_plans(report, most, out));
        EP_TRY(print_first(report, out));
    }
    EP_TRY(print_strategies(report, out));
    for (int i = 0; i < report->num_notes; i++) {
        fprintf(out, "%snote: %s\n", i == 0 ? "\n" : "", report->notes[i]);
    }
out:
    return status;
}
