/* SPDX-License-Identifier: Apache-2.0 */
/* Printing predictions, and trying what would change them. */
#include "results/predict_report.h"

#include "base/json.h"
#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 32 };

/* --- changes --------------------------------------------------------------------------------- */

static int compare_changes(const void *a, const void *b)
{
    const struct ep_predict_change *left = a, *right = b;
    return (left->time_s > right->time_s) - (left->time_s < right->time_s);
}

/* Adds the change where it can be predicted. */
static enum ep_status try_change(const struct ep_predict_answer *answer,
                                 const struct ep_predict_question *question, const char *text,
                                 struct ep_predict_change *changes, int *num)
{
    struct ep_prediction p;
    const enum ep_status status = ep_predict(question, &p);
    if (status == EP_EINVAL) {
        ep_error_clear();
        return EP_OK;
    }
    if (status != EP_OK || isnan(p.time_s) || *num == EP_PREDICT_MAX_CHANGES) {
        return status;
    }
    struct ep_predict_change *c = &changes[(*num)++];
    snprintf(c->text, sizeof c->text, "%s", text);
    c->time_s = p.time_s;
    c->speedup = answer->prediction.time_s / p.time_s;
    return EP_OK;
}

static enum ep_status try_rates(const struct ep_predict_answer *answer,
                                struct ep_predict_change *changes, int *num)
{
    enum ep_status status = EP_OK;
    static const struct {
        const char *text;
        size_t offset;
    } rates[] = {
        {"NICs twice as fast", offsetof(struct ep_known_machine, nic)},
        {"scale-up links twice as fast", offsetof(struct ep_known_machine, scale_up)},
        {"memory twice as fast", offsetof(struct ep_known_machine, memory)},
    };
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct ep_known_machine changed = *answer->question.known;
        struct ep_predict_question q = answer->question;
        struct ep_known_rate *rate = (struct ep_known_rate *)((char *)&changed + rates[i].offset);
        rate->value *= 2;
        changed.pair.value *= i == 1 ? 2 : 1;
        q.known = &changed;
        if (isfinite(rate->value)) {
            EP_TRY(try_change(answer, &q, rates[i].text, changes, num));
        }
    }
    struct ep_known_machine changed = *answer->question.known;
    struct ep_predict_question q = answer->question;
    for (int t = 0; t < EP_KNOWN_NUM_TYPES; t++) {
        changed.flops[t].value *= 2;
    }
    q.known = &changed;
    EP_TRY(try_change(answer, &q, "arithmetic twice as fast", changes, num));
out:
    return status;
}

enum ep_status ep_predict_changes(const struct ep_predict_answer *answer,
                                  struct ep_predict_change *changes, int *num)
{
    enum ep_status status = EP_OK;
    struct ep_skew *even = NULL;
    *num = 0;
    if (isnan(answer->prediction.time_s)) {
        return EP_OK;
    }
    if (answer->question.known != NULL) {
        EP_TRY(try_rates(answer, changes, num));
    }
    for (int i = 0; ep_predict_transport_at(i) != NULL; i++) {
        struct ep_predict_question q = answer->question;
        char text[96];
        q.transport = ep_predict_transport_at(i);
        /* Of transports that move the same rows one is enough. */
        const bool other = strcmp(q.transport->basis, answer->question.transport->basis) != 0 &&
                           !q.transport->to_all;
        const bool first = i == 0 || strcmp(q.transport->basis, ep_predict_transport_at(i - 1)->basis) != 0;
        snprintf(text, sizeof text, "transport %s: %s", q.transport->name, q.transport->text);
        if (other && first) {
            EP_TRY(try_change(answer, &q, text, changes, num));
        }
    }
    if (answer->question.ep % 2 == 0 && answer->question.placement == NULL) {
        struct ep_predict_question q = answer->question;
        char text[96];
        q.ep /= 2;
        snprintf(text, sizeof text, "groups of %" PRId64 " ranks: twice the experts on a rank", q.ep);
        EP_TRY(try_change(answer, &q, text, changes, num));
    }
    if (strcmp(answer->question.skew->text, "uniform") != 0) {
        struct ep_predict_question q = answer->question;
        EP_TRY(ep_skew_create("uniform", &even));
        q.skew = even;
        q.placement = NULL;
        EP_TRY(try_change(answer, &q, "an even load (what a perfect placement would give)", changes, num));
    }
    qsort(changes, (size_t)*num, sizeof *changes, compare_changes);
out:
    ep_skew_destroy(even);
    return status;
}

/* --- text ------------------------------------------------------------------------------------ */

static const char *port_text(const struct ep_predict_port *p, char *text, size_t length)
{
    char load[TEXT], rate[TEXT], time[TEXT];
    ep_format_time(p->time_s, time, sizeof time);
    if (isnan(p->rate)) {
        snprintf(text, length, "%s %s", p->level, time);
    } else if (strcmp(p->level, "flops") == 0) {
        snprintf(text, length, "%s %s (%.3g Gflop at %.3g Tflop/s)", p->level, time, p->load / 1e9,
                 p->rate / 1e12);
    } else {
        snprintf(text, length, "%s %s (%s at %s)", p->level, time,
                 ep_format_bytes(p->load, load, sizeof load),
                 ep_format_bandwidth(p->rate, rate, sizeof rate));
    }
    return text;
}

static enum ep_status print_phases(const struct ep_prediction *p, FILE *out)
{
    static const char *const headers[] = {"phase", "time", "95 % from", "to", "binds", "next", "each"};
    struct ep_table *table = NULL;
    enum ep_status status;
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int i = 0; i < p->num_phases; i++) {
        const struct ep_predict_phase *phase = &p->phases[i];
        char text[TEXT], ports[512] = "";
        ep_table_add(table, "%s", phase->name);
        ep_table_add(table, "%s", ep_format_time(phase->time_s, text, sizeof text));
        ep_table_add(table, "%s", ep_format_time(phase->low_s, text, sizeof text));
        ep_table_add(table, "%s", ep_format_time(phase->high_s, text, sizeof text));
        ep_table_add(table, "%s", phase->level != NULL ? phase->level : "-");
        ep_table_add(table, "%s", phase->runner_up != NULL ? phase->runner_up : "-");
        for (int k = 0; k < phase->num_ports; k++) {
            char port[128];
            const size_t used = strlen(ports);
            snprintf(ports + used, sizeof ports - used, "%s%s", k > 0 ? "; " : "",
                     port_text(&phase->ports[k], port, sizeof port));
        }
        ep_table_add(table, "%s", phase->withheld != NULL ? phase->withheld : ports);
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

enum ep_status ep_predict_print(const struct ep_predict_answer *a,
                                const struct ep_predict_change *changes, int num_changes, FILE *out)
{
    enum ep_status status;
    const struct ep_prediction *p = &a->prediction;
    const struct ep_predict_question *q = &a->question;
    char time[TEXT], weights[TEXT], buffers[TEXT], memory[TEXT];
    fprintf(out, "machine   %s: %s\n", a->machine, a->title);
    fprintf(out, "layer     %s, EP %" PRId64 " of %" PRId64 " ranks, %" PRId64 " nodes a group, %" PRId64
            " tokens per rank, %s, %s, dispatch %s, combine %s\n", q->model->name, q->ep, q->world,
            p->num_nodes, q->tokens, q->skew->text, q->transport->name, ep_dtype_name(q->dtype),
            ep_dtype_name(q->combine_dtype));
    fprintf(out, "routing   %s%s: a token reaches %.3f ranks and %.3f nodes (%s); busiest rank's experts "
            "get %.3f x the mean\n\n", q->router != NULL ? "router " : "by the skew alone",
            q->router != NULL ? q->router : "", p->ranks_per_token, p->nodes_per_token,
            p->num_drawn > 0 ? "of drawn tokens" : "exact expectation", p->imbalance);
    EP_TRY(print_phases(p, out));
    if (isnan(p->time_s)) {
        fprintf(out, "\nin all    not known: a phase is withheld");
    } else {
        fprintf(out, "\nin all    %s, nothing overlapped", ep_format_time(p->time_s, time, sizeof time));
    }
    if (isfinite(p->low_s)) {
        fprintf(out, " (%s", ep_format_time(p->low_s, time, sizeof time));
        fprintf(out, " to %s)", ep_format_time(p->high_s, time, sizeof time));
    }
    fprintf(out, "; binds: %s, then %s", p->level != NULL ? p->level : "-",
            p->runner_up != NULL ? p->runner_up : "-");
    if (isfinite(p->move_over_compute)) {
        fprintf(out, "; moving over computing %.2f", p->move_over_compute);
    }
    fprintf(out, "\nmemory    %s of weights (experts of all layers, the rest once), %s of a layer's rows",
            ep_format_bytes(p->weight_bytes, weights, sizeof weights),
            ep_format_bytes(p->buffer_bytes, buffers, sizeof buffers));
    if (isfinite(p->memory_bytes)) {
        fprintf(out, ", of %s: %s", ep_format_bytes(p->memory_bytes, memory, sizeof memory),
                p->weight_bytes + p->buffer_bytes <= p->memory_bytes ? "fits" : "DOES NOT FIT");
    }
    fprintf(out, "\n");
    for (int i = 0; i < p->num_phases; i++) {
        if (p->phases[i].extrapolates != NULL) {
            fprintf(out, "beyond    %s: %s lies outside of what %s was fitted to\n", p->phases[i].name,
                    p->phases[i].extrapolates, p->phases[i].by);
        }
    }
    if (q->known == NULL && isfinite(p->time_s) && isnan(p->low_s)) {
        fprintf(out, "no interval of the whole: GEMMs were not held out; dispatch and combine have theirs\n");
    }
    if (q->known != NULL) {
        fprintf(out, "no interval: rates are published ones, nobody measured this layer here\n");
    }
    for (int i = 0; i < num_changes; i++) {
        fprintf(out, "%s%6.2f x  %s\n", i == 0 ? "\nfaster by\n" : "", changes[i].speedup,
                changes[i].text);
    }
out:
    return status;
}

static int compare_answers(const void *a, const void *b)
{
    const struct ep_predict_answer *left = a, *right = b;
    return (left->prediction.time_s > right->prediction.time_s) -
           (left->prediction.time_s < right->prediction.time_s);
}

enum ep_status ep_predict_print_ranking(struct ep_predict_answer *answers, int num, FILE *out)
{
    static const char *const headers[] = {"machine", "time",    "binds",   "next",
                                          "dispatch", "experts", "combine", "moving/computing"};
    struct ep_table *table = NULL;
    enum ep_status status;
    qsort(answers, (size_t)num, sizeof *answers, compare_answers);
    EP_TRY(ep_table_create(headers, (int)(sizeof headers / sizeof headers[0]), &table));
    for (int i = 0; i < num; i++) {
        const struct ep_prediction *p = &answers[i].prediction;
        static const char *const names[] = {"dispatch", "experts", "combine"};
        char text[TEXT];
        ep_table_add(table, "%s", answers[i].machine);
        ep_table_add(table, "%s", ep_format_time(p->time_s, text, sizeof text));
        ep_table_add(table, "%s", p->level != NULL ? p->level : "-");
        ep_table_add(table, "%s", p->runner_up != NULL ? p->runner_up : "-");
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            double time_s = NAN;
            for (int k = 0; k < p->num_phases; k++) {
                time_s = strcmp(p->phases[k].name, names[n]) == 0 ? p->phases[k].time_s : time_s;
            }
            ep_table_add(table, "%s", ep_format_time(time_s, text, sizeof text));
        }
        if (isfinite(p->move_over_compute)) {
            ep_table_add(table, "%.2f", p->move_over_compute);
        } else {
            ep_table_add(table, "-");
        }
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

/* --- JSON ------------------------------------------------------------------------------------ */

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static enum ep_status append(json_t *array, json_t *item)
{
    return json_array_append_new(array, item) == 0 ? EP_OK
                                                   : ep_error_set(EP_ENOMEM, "no memory for JSON");
}

static enum ep_status phase_to_json(const struct ep_predict_phase *phase, json_t *phases)
{
    enum ep_status status = EP_OK;
    json_t *ports = json_array();
    for (int k = 0; k < phase->num_ports; k++) {
        const struct ep_predict_port *p = &phase->ports[k];
        EP_TRY(append(ports, json_pack("{s:s,s:o,s:o,s:o}", "level", p->level, "load",
                                       ep_json_real(p->load), "rate_per_s", ep_json_real(p->rate),
                                       "time_s", ep_json_real(p->time_s))));
    }
    EP_TRY(append(phases, json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:O,s:o,s:o,s:o}", "name", phase->name,
                                    "time_s", ep_json_real(phase->time_s), "low_s",
                                    ep_json_real(phase->low_s), "high_s", ep_json_real(phase->high_s),
                                    "binding_level", text_or_null(phase->level), "runner_up",
                                    text_or_null(phase->runner_up), "ports", ports, "group",
                                    text_or_null(phase->by), "extrapolates",
                                    text_or_null(phase->extrapolates), "withheld",
                                    text_or_null(phase->withheld))));
out:
    json_decref(ports);
    return status;
}

enum ep_status ep_predict_to_json(const struct ep_predict_answer *a,
                                  const struct ep_predict_change *changes, int num_changes,
                                  json_t **json)
{
    enum ep_status status = EP_OK;
    const struct ep_prediction *p = &a->prediction;
    const struct ep_predict_question *q = &a->question;
    json_t *phases = json_array(), *list = json_array();
    json_t *object = json_pack(
        "{s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:s,s:s,s:s,s:o}", "schema", 1, "machine", a->machine, "title",
        a->title, "model", q->model->name, "ep", (json_int_t)q->ep, "world", (json_int_t)q->world, "nodes",
        (json_int_t)p->num_nodes, "tokens", (json_int_t)q->tokens, "skew", q->skew->text, "transport",
        q->transport->name, "dtype", ep_dtype_name(q->dtype), "combine_dtype",
        ep_dtype_name(q->combine_dtype), "router", text_or_null(q->router));
    if (object == NULL) {
        EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
    }
    for (int i = 0; i < p->num_phases; i++) {
        EP_TRY(phase_to_json(&p->phases[i], phases));
    }
    for (int i = 0; i < num_changes; i++) {
        EP_TRY(append(list, json_pack("{s:s,s:o,s:o}", "change", changes[i].text, "time_s",
                                      ep_json_real(changes[i].time_s), "speedup",
                                      ep_json_real(changes[i].speedup))));
    }
    EP_TRY(ep_json_set(object, "ranks_per_token", ep_json_real(p->ranks_per_token)));
    EP_TRY(ep_json_set(object, "nodes_per_token", ep_json_real(p->nodes_per_token)));
    EP_TRY(ep_json_set(object, "tokens_drawn", json_integer(p->num_drawn)));
    EP_TRY(ep_json_set(object, "imbalance", ep_json_real(p->imbalance)));
    EP_TRY(ep_json_set(object, "time_s", ep_json_real(p->time_s)));
    EP_TRY(ep_json_set(object, "low_s", ep_json_real(p->low_s)));
    EP_TRY(ep_json_set(object, "high_s", ep_json_real(p->high_s)));
    EP_TRY(ep_json_set(object, "binding_level", text_or_null(p->level)));
    EP_TRY(ep_json_set(object, "runner_up", text_or_null(p->runner_up)));
    EP_TRY(ep_json_set(object, "move_over_compute", ep_json_real(p->move_over_compute)));
    EP_TRY(ep_json_set(object, "weight_bytes", ep_json_real(p->weight_bytes)));
    EP_TRY(ep_json_set(object, "buffer_bytes", ep_json_real(p->buffer_bytes)));
    EP_TRY(ep_json_set(object, "memory_bytes", ep_json_real(p->memory_bytes)));
    EP_TRY(ep_json_set(object, "phases", json_incref(phases)));
    EP_TRY(ep_json_set(object, "changes", json_incref(list)));
    *json = json_incref(object);
out:
    json_decref(object);
    json_decref(phases);
    json_decref(list);
    return status;
}

/* --- against another model ------------------------------------------------------------------- */

/* Parameters that one token uses: as published, else routed, shared, router and rest. NaN = unknown. */
static double active_parameters(const struct ep_model *m)
{
    struct ep_model_params params;
    ep_model_count_params(m, &params);
    if (isfinite(m->published_active_b)) {
        return m->published_active_b * 1e9;
    }
    return params.routed_active + params.shared + params.router + params.rest;
}

enum ep_status ep_predict_against(const struct ep_model *model, const struct ep_model *other, FILE *out,
                                  json_t **json)
{
    const double own = active_parameters(model), theirs = active_parameters(other);
    const char *claim = model->other_claims != NULL && model->other_claims[0] != '\0'
                            ? model->other_claims
                            : NULL;
    if (out != NULL) {
        if (isfinite(own) && isfinite(theirs)) {
            fprintf(out, "\nagainst   %s: %.3g against %.3g 1e9 parameters work on a token: %.2f x less "
                    "arithmetic\n", other->name, own / 1e9, theirs / 1e9, theirs / own);
        } else {
            fprintf(out, "\nagainst   %s: parameters that work on a token are not known of %s\n", other->name,
                    isfinite(own) ? other->name : model->name);
        }
        fprintf(out, "claimed   %s\n", claim != NULL ? claim : "nothing that the zoo holds");
    }
    *json = json_pack("{s:s,s:o,s:o,s:o,s:o}", "model", other->name, "active_parameters", ep_json_real(own),
                      "other_active_parameters", ep_json_real(theirs), "compute_ratio",
                      ep_json_real(theirs / own), "claimed", text_or_null(claim));
    return *json != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for JSON");
}
