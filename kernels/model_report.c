/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON of models. */
#include "kernels/model_report.h"

#include "base/json.h"
#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* What every view of a model is computed from. */
struct view {
    const struct ep_model *model;
    struct ep_model_params params;
    enum ep_weight_type type;
    const char *type_note; /* NULL where there is nothing to say */
    double expert_bytes;   /* of one expert's weights */
    int64_t num_ranks;     /* 0 = not asked */
    int64_t max_local;     /* experts of a layer on the fullest rank; 0 = they cannot be dealt */
};

static struct view make_view(const struct ep_model *model, int64_t num_ranks)
{
    struct view v = {.model = model, .num_ranks = num_ranks};
    ep_model_count_params(model, &v.params);
    v.type = ep_weight_type_of_model(model, &v.type_note);
    v.expert_bytes = v.params.expert * ep_weight_type_expert_bytes(v.type);
    return v;
}

static enum ep_status deal_experts(struct view *v)
{
    return v->num_ranks == 0 || ep_model_is_dense(v->model)
               ? EP_OK
               : ep_model_max_local_experts(v->model, v->num_ranks, &v->max_local);
}

/* Weights of routed experts on the fullest rank, over all layers. */
static double rank_bytes(const struct view *v)
{
    return v->max_local == 0
               ? (double)NAN
               : (double)v->max_local * (double)v->model->num_moe_layers * v->expert_bytes;
}

/* --- the list ----------------------------------------------------------------------------- */

static void add_number(struct ep_table *table, double value, const char *format)
{
    if (isnan(value)) {
        ep_table_add(table, "-");
    } else {
        char text[32];
        snprintf(text, sizeof text, format, value);
        ep_table_add(table, "%s", text);
    }
}

/* Columns of the list: as many as a terminal of 80 columns takes, with ranks and without. */
static const char *const list_headers[] = {"model", "E",     "k",      "hidden", "ffn",
                                           "MoE",   "total", "routed", "k/E"};

static void add_row(struct ep_table *table, const struct view *v)
{
    const struct ep_model *m = v->model;
    const double experts = (double)m->num_experts;
    ep_table_add(table, "%s%s", m->name, ep_model_is_rumour(m) ? " *" : "");
    ep_table_add(table, "%" PRId64, m->num_experts);
    ep_table_add(table, "%" PRId64, m->top_k);
    ep_table_add(table, "%" PRId64, m->hidden);
    ep_table_add(table, "%" PRId64, ep_model_is_dense(m) ? m->dense_ffn : m->expert_ffn);
    ep_table_add(table, "%" PRId64, m->num_moe_layers);
    add_number(table, m->published_total_b, "%g");
    add_number(table, v->params.routed / 1e9, "%.2f");
    const double share = 100 * (double)m->top_k / experts; /* 1 of 2,048 is not 0.0 */
    add_number(table, share, share < 0.1 ? "%.2f%%" : "%.1f%%");
    if (v->num_ranks > 0) {
        add_number(table, rank_bytes(v) / 0x1p30, "%.2f");
    } else {
        add_number(table, 100 * v->params.routed / v->params.total, "%.1f%%");
    }
}

static void print_legend(int64_t num_ranks, bool rumours, FILE *out)
{
    fprintf(out, "\nE, k: experts and top-k; MoE: layers with experts; total: 1e9 parameters, "
                 "as\npublished; routed: those of the routed experts; k/E: the part of them that "
                 "a\ntoken uses\n");
    if (num_ranks > 0) {
        fprintf(out,
                "GiB: routed experts' weights on the fullest of %" PRId64
                " ranks; -: no way to deal\n",
                num_ranks);
    } else {
        fprintf(out, "share: routed of total; above 100 %% where the published total is rounded down\n");
    }
    if (rumours) {
        fprintf(out, "*: rumoured, never published by its makers\n");
    }
    fprintf(out, "epbench models NAME: one model with its router, source and claims\n");
}

enum ep_status ep_model_report_print_list(const struct ep_model *const *models, int64_t num,
                                          int64_t num_ranks, FILE *out)
{
    enum { NUM_FIXED = sizeof list_headers / sizeof list_headers[0] };
    const char *headers[NUM_FIXED + 1];
    struct ep_table *table = NULL;
    bool rumours = false;
    memcpy(headers, list_headers, sizeof list_headers);
    headers[NUM_FIXED] = num_ranks > 0 ? "GiB" : "share";
    enum ep_status status = ep_table_create(headers, NUM_FIXED + 1, &table);
    for (int64_t i = 0; i < num && status == EP_OK; i++) {
        struct view v = make_view(models[i], num_ranks);
        rumours = rumours || ep_model_is_rumour(models[i]);
        if (deal_experts(&v) != EP_OK) {
            ep_error_clear(); /* a model that does not divide is a dash, and the others go on */
        }
        add_row(table, &v);
    }
    if (status == EP_OK) {
        status = ep_table_print(table, out);
    }
    ep_table_destroy(table);
    print_legend(num_ranks, rumours, out);
    return status;
}

/* --- one model ---------------------------------------------------------------------------- */

static void print_text(FILE *out, const char *what, const char *text)
{
    if (text[0] != '\0') {
        fprintf(out, "%-14s%s\n", what, text);
    }
}

static void print_params(FILE *out, const char *what, double params, const char *more)
{
    fprintf(out, "%-14s%.4g e9%s\n", what, params / 1e9, more);
}

static void print_shape(const struct ep_model *m, FILE *out)
{
    fprintf(out, "%s%s\n", m->name,
            ep_model_is_rumour(m) ? "  (RUMOURED: never published by its makers)" : "");
    fprintf(out, "%-14shidden %" PRId64 ", %" PRId64 " layers, %" PRId64 " of them MoE\n", "shape",
            m->hidden, m->num_layers, m->num_moe_layers);
    if (ep_model_is_dense(m)) {
        fprintf(out, "%-14snone: a dense model, FFN of %" PRId64 "\n", "experts", m->dense_ffn);
    } else {
        fprintf(out,
                "%-14s%" PRId64 " routed of %s ffn %" PRId64 ", top-%" PRId64 "; %" PRId64
                " shared (ffn %" PRId64 " in all)\n",
                "experts", m->num_experts, m->gated ? "gated" : "plain", m->expert_ffn, m->top_k,
                m->num_shared, m->shared_ffn_total);
    }
    if (m->num_groups > 1) {
        fprintf(out, "%-14s%" PRId64 ", of which %" PRId64 " are kept\n", "groups", m->num_groups,
                m->topk_groups);
    }
    if (m->num_heads > 0) {
        fprintf(out, "%-14s%" PRId64 " heads", "attention", m->num_heads);
        fprintf(out, m->num_kv_heads > 0 ? ", %" PRId64 " of keys and values\n" : "\n",
                m->num_kv_heads);
    } else {
        fprintf(out, "%-14sheads not known\n", "attention");
    }
    print_text(out, "router", m->router);
    fprintf(out, "%-14s%s\n", "weights",
            m->weight_dtype[0] != '\0' ? m->weight_dtype : "type not known");
}

static void print_parameters(const struct view *v, FILE *out)
{
    const struct ep_model_params *p = &v->params;
    char more[96] = "";
    if (!isnan(p->total)) {
        snprintf(more, sizeof more, " (%.1f %% of the published total)",
                 100 * p->routed / p->total);
    }
    if (!ep_model_is_dense(v->model)) {
        print_params(out, "routed", p->routed, more);
        print_params(out, "of a token", p->routed_active, " routed parameters are used");
        print_params(out, "shared", p->shared, " (all shared experts)");
    }
    if (isnan(p->rest)) {
        fprintf(out, "%-14snot known: %s\n", "rest", p->rest_unknown);
    } else {
        print_params(
            out, "rest", p->rest,
            ep_model_is_dense(v->model)
                ? " (everything)"
                : " (total less routed, shared and routers: attention, embeddings, dense FFNs)");
    }
    if (!isnan(p->total)) {
        print_params(out, "published", p->total, " in all");
    }
    if (!isnan(v->model->published_active_b)) {
        print_params(out, "active", v->model->published_active_b * 1e9, " as published");
    }
}

static void print_experts(const struct view *v, FILE *out)
{
    char one[32];
    char all[32];
    const struct ep_model *m = v->model;
    ep_format_bytes(v->expert_bytes, one, sizeof one);
    fprintf(out, "%-14sk/E = %.2f %% of the routed parameters work on a token\n", "compute",
            100.0 * (double)m->top_k / (double)m->num_experts);
    fprintf(out, "%-14s%s each in %s%s%s\n", "expert size", one, ep_weight_type_name(v->type),
            v->type_note != NULL ? "; " : "", v->type_note != NULL ? v->type_note : "");
    fprintf(out, "%-14sE x size = %" PRId64 " x %s = %s per layer\n", "memory", m->num_experts, one,
            ep_format_bytes((double)m->num_experts * v->expert_bytes, all, sizeof all));
    fprintf(out, "%-14sk x size = %" PRId64 " x %s = %s per token and layer\n", "compute", m->top_k,
            one, ep_format_bytes((double)m->top_k * v->expert_bytes, all, sizeof all));
    if (v->num_ranks > 0) {
        fprintf(out,
                "%-14s%" PRId64 " ranks: %" PRId64 " of %" PRId64
                " experts on the fullest (%.4g of the weights), %s over all layers\n",
                "ranks", v->num_ranks, v->max_local, m->num_experts,
                (double)v->max_local / (double)m->num_experts,
                ep_format_bytes(rank_bytes(v), all, sizeof all));
    }
}

enum ep_status ep_model_report_print(const struct ep_model *model, int64_t num_ranks, FILE *out)
{
    struct view v = make_view(model, num_ranks);
    const enum ep_status status = deal_experts(&v);
    if (status != EP_OK) {
        return status;
    }
    print_shape(model, out);
    print_parameters(&v, out);
    if (!ep_model_is_dense(model)) {
        print_experts(&v, out);
    }
    print_text(out, "source", model->source);
    print_text(out, "confidence", model->confidence);
    print_text(out, "heads from", model->heads_source);
    print_text(out, "also claimed", model->other_claims);
    return EP_OK;
}

/* --- JSON --------------------------------------------------------------------------------- */

static json_t *field_to_json(const struct ep_model *model, const struct ep_model_column *column)
{
    const void *from = (const char *)model + column->offset;
    switch (column->kind) {
    case EP_MODEL_TEXT:
        return json_string(*(const char *const *)from);
    case EP_MODEL_COUNT:
    case EP_MODEL_COUNT_OR_ZERO:
        return json_integer(*(const int64_t *)from);
    case EP_MODEL_REAL_OR_NAN:
        return ep_json_real(*(const double *)from);
    case EP_MODEL_FLAG:
        return json_boolean(*(const bool *)from);
    }
    return NULL;
}

static json_t *whole(double value)
{
    return isnan(value) ? json_null() : json_integer((json_int_t)llround(value));
}

static enum ep_status add_params(const struct view *v, json_t *to)
{
    const struct ep_model_params *p = &v->params;
    enum ep_status status;
    EP_TRY(ep_json_set(to, "dense", json_boolean(ep_model_is_dense(v->model))));
    EP_TRY(ep_json_set(to, "params_per_expert", whole(p->expert)));
    EP_TRY(ep_json_set(to, "routed_params", whole(p->routed)));
    EP_TRY(ep_json_set(to, "routed_share_of_published", ep_json_real(p->routed / p->total)));
    EP_TRY(ep_json_set(to, "active_routed_params", whole(p->routed_active)));
    EP_TRY(ep_json_set(to, "shared_params", whole(p->shared)));
    EP_TRY(ep_json_set(to, "router_params", whole(p->router)));
    EP_TRY(ep_json_set(to, "rest_params", whole(p->rest)));
    EP_TRY(ep_json_set(to, "rest_unknown",
                       p->rest_unknown != NULL ? json_string(p->rest_unknown) : json_null()));
out:
    return status;
}

/* To the byte: a real would be written with 10 digits. */
static json_t *whole_bytes(double bytes)
{
    return isfinite(bytes) ? json_integer((json_int_t)llround(bytes)) : json_null();
}

static enum ep_status add_bytes(const struct view *v, json_t *to)
{
    const struct ep_model *m = v->model;
    const double experts = (double)m->num_experts;
    enum ep_status status;
    EP_TRY(ep_json_set(to, "weight_type", json_string(ep_weight_type_name(v->type))));
    EP_TRY(ep_json_set(to, "weight_type_note",
                       v->type_note != NULL ? json_string(v->type_note) : json_null()));
    EP_TRY(ep_json_set(to, "expert_bytes", whole_bytes(v->expert_bytes)));
    EP_TRY(ep_json_set(to, "compute_fraction", ep_json_real((double)m->top_k / experts)));
    EP_TRY(ep_json_set(to, "layer_memory_bytes", whole_bytes(experts * v->expert_bytes)));
    EP_TRY(
        ep_json_set(to, "layer_compute_bytes", whole_bytes((double)m->top_k * v->expert_bytes)));
    if (v->num_ranks > 0) {
        EP_TRY(ep_json_set(to, "ranks", json_integer(v->num_ranks)));
        EP_TRY(ep_json_set(to, "max_experts_per_rank",
                           v->max_local > 0 ? json_integer(v->max_local) : json_null()));
        EP_TRY(ep_json_set(
            to, "weights_fraction_per_rank",
            ep_json_real(v->max_local > 0 ? (double)v->max_local / experts : (double)NAN)));
        EP_TRY(ep_json_set(to, "expert_weight_bytes_per_rank", whole_bytes(rank_bytes(v))));
    }
out:
    return status;
}

enum ep_status ep_model_report_json(const struct ep_model *model, int64_t num_ranks, json_t **json)
{
    enum ep_status status;
    struct view v = make_view(model, num_ranks);
    json_t *object = json_object();
    json_t *derived = json_object();
    if (deal_experts(&v) != EP_OK) {
        ep_error_clear(); /* null says that they cannot be dealt */
    }
    for (int c = 0; ep_model_column_at(c) != NULL; c++) {
        const struct ep_model_column *column = ep_model_column_at(c);
        EP_TRY(ep_json_set(object, column->name, field_to_json(model, column)));
    }
    EP_TRY(ep_json_set(object, "rumoured", json_boolean(ep_model_is_rumour(model))));
    EP_TRY(add_params(&v, derived));
    EP_TRY(add_bytes(&v, derived));
    EP_TRY(ep_json_set(object, "derived", json_incref(derived)));
    *json = json_incref(object);
out:
    json_decref(derived);
    json_decref(object);
    return status;
}
