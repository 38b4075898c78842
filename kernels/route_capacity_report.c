/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON of a case's capacity and style. */
#include "kernels/route_capacity.h"

#include "base/table.h"
#include "base/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static const struct {
    const char *title;
    const char *key;
} matrices[EP_ROUTE_NUM_MATRICES] = {
    [EP_BASIS_COPIES] = {"copies", "copies"},
    [EP_BASIS_RANK] = {"rank-dedup", "rank_dedup"},
    [EP_BASIS_NODE] = {"node-dedup", "node_dedup"},
    [EP_ROUTE_FAN_OUT] = {"node-dedup, fan-out", "node_dedup_fan_out"},
};

static double share(int64_t part, int64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : NAN;
}

/* --- tables ------------------------------------------------------------------------------- */

static void print_style(const struct ep_style *s, const struct ep_route_case *r, FILE *out)
{
    fprintf(out, "\nstyle    %s: %s\n", s->name, s->system);
    fprintf(out, "  router     %s%s\n", r->top_k == 1 ? s->router : s->router_more,
            r->gate != NULL ? "" : " (not applied: these tokens have no logits)");
    fprintf(out, "  transport  %s%s%s\n", s->transport,
            s->nearest != NULL ? "; comm takes the nearest where it lacks that, " : "",
            s->nearest != NULL ? s->nearest : "");
    if (r->capacity == NULL) {
        fprintf(out, "  capacity   none: dropless%s\n",
                s->rule_by_factor ? " (--capacity-factor sets one)" : "");
    }
    fprintf(out, "  beyond     %s\n  source     %s\n", s->beyond, s->source);
}

static void print_rule(const struct ep_route_capacity *c, FILE *out)
{
    char text[320];
    fprintf(out, "\ncapacity %" PRId64 " rows per %s: %s", c->capacity.rows,
            c->capacity.scope == EP_CAPACITY_PER_SOURCE ? "(source rank, expert)"
                                                        : "expert, of all ranks together",
            ep_capacity_describe(&c->policy, text, sizeof text));
    if (c->policy.rule != NULL) {
        fprintf(out, "\n         T %" PRId64 ", E %" PRId64 ", k %" PRId64 ", P %" PRId64,
                c->shape.tokens, c->shape.num_experts, c->shape.top_k, c->shape.num_ranks);
        if (ep_capacity_uses_factor(&c->policy, c->shape.top_k)) {
            fprintf(out, ", cf %g", ep_capacity_factor(&c->policy));
        } else if (!isnan(c->policy.factor)) {
            fprintf(out, "; cf %g is not used by this rule", c->policy.factor);
        }
        if (ep_capacity_floor(&c->policy) > 0) {
            fprintf(out, ", floor %" PRId64, ep_capacity_floor(&c->policy));
        }
        fprintf(out, "%s; source: %s%s", c->capacity.by_need ? ": the largest count" : "",
                c->policy.rule->source, c->policy.rule->recalled ? " (recalled)" : "");
    }
    fprintf(out, "\n");
}

static void print_counts(const struct ep_route_capacity *c, FILE *out)
{
    const struct ep_capacity_counts *n = &c->counts;
    fprintf(out,
            "copies   %" PRId64 " asked = %" PRId64 " kept + %" PRId64 " rerouted + %" PRId64
            " dropped (%.2f %%)\n",
            n->asked, n->kept, n->rerouted, n->dropped, 100 * share(n->dropped, n->asked));
    fprintf(out,
            "tokens   %" PRId64 " of %" PRId64 " have a dropped copy, %" PRId64
            " have none left (%.2f %%)\n",
            n->tokens_dropped, n->tokens, n->tokens_lost, 100 * share(n->tokens_lost, n->tokens));
    if (c->policy.rule != NULL && c->policy.rule->at_receiver) {
        fprintf(out, "         dropped after the dispatch: all rows cross, none are saved\n");
    }
}

static enum ep_status print_bytes(const struct ep_route_case *r, FILE *out)
{
    static const char *const headers[] = {"basis",       "rows sent",    "remote bytes",
                                          "bytes saved", "max in bytes", "before"};
    enum ep_status status;
    struct ep_table *table = NULL;
    const struct ep_route_capacity *c = r->capacity;
    EP_TRY(ep_table_create(headers, 6, &table));
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        if (m == EP_ROUTE_FAN_OUT && r->num_nodes == 1) {
            continue;
        }
        ep_table_add(table, "%s", matrices[m].title);
        ep_table_add(table, "%" PRId64, c->rows[m].total);
        ep_table_add(table, "%" PRId64, c->rows[m].remote * r->row_bytes);
        ep_table_add(table, "%" PRId64, (r->rows[m].remote - c->rows[m].remote) * r->row_bytes);
        ep_table_add(table, "%" PRId64, c->rows[m].max_in * r->row_bytes);
        ep_table_add(table, "%" PRId64, r->rows[m].max_in * r->row_bytes);
    }
    status = ep_table_print(table, out);
out:
    ep_table_destroy(table);
    return status;
}

static void print_buffers(const struct ep_route_case *r, FILE *out)
{
    const struct ep_route_capacity *c = r->capacity;
    char send[32], receive[32], whole_send[32], whole_receive[32], plain[32];
    const double row = (double)r->row_bytes;
    if (c->policy.pad) {
        fprintf(out,
                "padding  %" PRId64 " rows without a token, %" PRId64
                " of them for other ranks: %" PRId64 " bytes added to copies\n",
                c->padded_rows, c->padded_remote_rows, c->padded_remote_rows * r->row_bytes);
    }
    fprintf(
        out, "buffers  fullest rank: %s to send, %s received; without capacity %s and %s\n",
        ep_format_bytes((double)c->bounded.send_rows * row, send, sizeof send),
        ep_format_bytes((double)c->bounded.receive_rows * row, receive, sizeof receive),
        ep_format_bytes((double)c->whole.send_rows * row, whole_send, sizeof whole_send),
        ep_format_bytes((double)c->whole.receive_rows * row, whole_receive, sizeof whole_receive));
    if (ep_capacity_factor(&c->policy) > 0) {
        fprintf(out, "textbook buffer of an expert, cf T/E rows: %s\n",
                ep_format_bytes(ep_capacity_plain_bytes(&c->shape, ep_capacity_factor(&c->policy),
                                                        r->row_bytes),
                                plain, sizeof plain));
    }
    if (isnan(c->imbalance[0].max_over_mean)) {
        fprintf(out, "no copy is left\n");
        return;
    }
    fprintf(out, "max/mean of copies: experts %.3f (was %.3f), ranks %.3f (was %.3f)\n",
            c->imbalance[0].max_over_mean, r->imbalance[EP_ROUTE_EXPERT].max_over_mean,
            c->imbalance[1].max_over_mean, r->imbalance[EP_ROUTE_RANK].max_over_mean);
}

enum ep_status ep_route_capacity_print(const struct ep_route_case *route, FILE *out)
{
    enum ep_status status = EP_OK;
    if (route->style != NULL) {
        print_style(route->style, route, out);
    }
    if (route->capacity == NULL) {
        return EP_OK;
    }
    print_rule(route->capacity, out);
    print_counts(route->capacity, out);
    EP_TRY(print_bytes(route, out));
    print_buffers(route, out);
out:
    return status;
}

/* --- JSON --------------------------------------------------------------------------------- */

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static enum ep_status set_style(const struct ep_style *s, const struct ep_route_case *r,
                                json_t *root)
{
    enum ep_status status;
    json_t *one = json_object();
    EP_TRY(ep_json_set(root, "style", one));
    EP_TRY(ep_json_set(one, "name", json_string(s->name)));
    EP_TRY(ep_json_set(one, "system", json_string(s->system)));
    EP_TRY(ep_json_set(one, "router", json_string(r->top_k == 1 ? s->router : s->router_more)));
    EP_TRY(ep_json_set(one, "capacity_rule",
                       r->capacity != NULL ? text_or_null(s->rule) : json_null()));
    EP_TRY(ep_json_set(one, "transport", json_string(s->transport)));
    EP_TRY(ep_json_set(one, "nearest_transport", text_or_null(s->nearest)));
    EP_TRY(ep_json_set(one, "beyond", json_string(s->beyond)));
    EP_TRY(ep_json_set(one, "source", json_string(s->source)));
out:
    return status;
}

static enum ep_status set_rule(const struct ep_route_capacity *c, json_t *one)
{
    enum ep_status status;
    char overflow[32];
    const struct ep_capacity_policy *p = &c->policy;
    const bool per_source = c->capacity.scope == EP_CAPACITY_PER_SOURCE;
    const bool ruled = p->rule != NULL;
    EP_TRY(ep_json_set(one, "rule", text_or_null(ruled ? p->rule->name : NULL)));
    EP_TRY(ep_json_set(one, "formula", text_or_null(ruled ? p->rule->formula : NULL)));
    EP_TRY(ep_json_set(one, "source", text_or_null(ruled ? p->rule->source : NULL)));
    EP_TRY(ep_json_set(one, "recalled", ruled ? json_boolean(p->rule->recalled) : json_null()));
    const bool uses_factor = ep_capacity_uses_factor(p, c->shape.top_k);
    EP_TRY(ep_json_set(one, "factor",
                       ep_json_real(uses_factor ? ep_capacity_factor(p) : (double)NAN)));
    EP_TRY(ep_json_set(one, "min_capacity", json_integer(ep_capacity_floor(p))));
    EP_TRY(ep_json_set(one, "capacity", json_integer(c->capacity.rows)));
    EP_TRY(ep_json_set(one, "capacity_per", json_string(per_source ? "source" : "expert")));
    EP_TRY(ep_json_set(one, "largest_count", json_boolean(c->capacity.by_need)));
    EP_TRY(ep_json_set(one, "drop", json_string(ep_drop_name(p->drop))));
    EP_TRY(
        ep_json_set(one, "overflow", json_string(ep_overflow_text(p, overflow, sizeof overflow))));
    EP_TRY(ep_json_set(one, "pad", json_boolean(p->pad)));
    EP_TRY(ep_json_set(one, "dropped_after_dispatch", json_boolean(ruled && p->rule->at_receiver)));
out:
    return status;
}

static enum ep_status set_counts(const struct ep_route_capacity *c, json_t *one)
{
    enum ep_status status;
    const struct ep_capacity_counts *n = &c->counts;
    EP_TRY(ep_json_set(one, "asked", json_integer(n->asked)));
    EP_TRY(ep_json_set(one, "kept", json_integer(n->kept)));
    EP_TRY(ep_json_set(one, "rerouted", json_integer(n->rerouted)));
    EP_TRY(ep_json_set(one, "dropped", json_integer(n->dropped)));
    EP_TRY(ep_json_set(one, "dropped_fraction", ep_json_real(share(n->dropped, n->asked))));
    EP_TRY(ep_json_set(one, "tokens_dropped", json_integer(n->tokens_dropped)));
    EP_TRY(ep_json_set(one, "tokens_lost", json_integer(n->tokens_lost)));
    EP_TRY(ep_json_set(one, "padded", json_integer(c->padded_rows)));
    EP_TRY(ep_json_set(one, "padded_remote", json_integer(c->padded_remote_rows)));
out:
    return status;
}

static enum ep_status set_bytes(const struct ep_route_case *r, json_t *one)
{
    enum ep_status status;
    const struct ep_route_capacity *c = r->capacity;
    json_t *bytes = json_object();
    json_t *saved = json_object();
    EP_TRY(ep_json_set(one, "bytes", bytes));
    EP_TRY(ep_json_set(one, "saved_bytes", saved));
    for (int m = 0; m < EP_ROUTE_NUM_MATRICES; m++) {
        const struct ep_traffic_totals *t = &c->rows[m];
        json_t *basis = json_object();
        EP_TRY(ep_json_set(bytes, matrices[m].key, basis));
        EP_TRY(ep_json_set(basis, "total", json_integer(t->total * r->row_bytes)));
        EP_TRY(ep_json_set(basis, "remote", json_integer(t->remote * r->row_bytes)));
        EP_TRY(ep_json_set(basis, "max_out", json_integer(t->max_out * r->row_bytes)));
        EP_TRY(ep_json_set(basis, "max_in", json_integer(t->max_in * r->row_bytes)));
        EP_TRY(ep_json_set(saved, matrices[m].key,
                           json_integer((r->rows[m].remote - t->remote) * r->row_bytes)));
    }
    EP_TRY(ep_json_set(one, "added_bytes", json_integer(c->padded_remote_rows * r->row_bytes)));
out:
    return status;
}

static enum ep_status set_buffers(const struct ep_route_case *r, json_t *one)
{
    enum ep_status status;
    const struct ep_route_capacity *c = r->capacity;
    const double factor = ep_capacity_factor(&c->policy);
    const double plain =
        factor > 0 ? ep_capacity_plain_bytes(&c->shape, factor, r->row_bytes) : (double)NAN;
    json_t *buffers = json_object();
    EP_TRY(ep_json_set(one, "buffers", buffers));
    EP_TRY(ep_json_set(buffers, "send_bytes", json_integer(c->bounded.send_rows * r->row_bytes)));
    EP_TRY(ep_json_set(buffers, "receive_bytes",
                       json_integer(c->bounded.receive_rows * r->row_bytes)));
    EP_TRY(
        ep_json_set(buffers, "whole_send_bytes", json_integer(c->whole.send_rows * r->row_bytes)));
    EP_TRY(ep_json_set(buffers, "whole_receive_bytes",
                       json_integer(c->whole.receive_rows * r->row_bytes)));
    EP_TRY(ep_json_set(buffers, "plain_expert_bytes", ep_json_real(plain)));
    EP_TRY(ep_json_set(one, "expert_max_over_mean", ep_json_real(c->imbalance[0].max_over_mean)));
    EP_TRY(ep_json_set(one, "rank_max_over_mean", ep_json_real(c->imbalance[1].max_over_mean)));
    EP_TRY(ep_json_set(one, "routing_id", c->id[0] != '\0' ? json_string(c->id) : json_null()));
out:
    return status;
}

enum ep_status ep_route_capacity_set(const struct ep_route_case *route, json_t *root)
{
    enum ep_status status = EP_OK;
    if (route->style != NULL) {
        EP_TRY(set_style(route->style, route, root));
    } else {
        EP_TRY(ep_json_set(root, "style", json_null()));
    }
    if (route->capacity == NULL) {
        return ep_json_set(root, "capacity", json_null());
    }
    json_t *one = json_object();
    EP_TRY(ep_json_set(root, "capacity", one));
    EP_TRY(set_rule(route->capacity, one));
    EP_TRY(set_counts(route->capacity, one));
    EP_TRY(set_bytes(route, one));
    EP_TRY(set_buffers(route, one));
out:
    return status;
}
