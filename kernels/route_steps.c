/* SPDX-License-Identifier: Apache-2.0 */
/* Tables, TSV and JSON of `epbench route --steps`. */
#include "base/file.h"
#include "base/json.h"
#include "base/table.h"
#include "kernels/route_mode.h"
#include "kernels/steps.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- tables ---------------------------------------------------------------------------------- */

static void print_head(const struct ep_steps *s, FILE *out)
{
    const struct ep_dynamics_config *c = &s->config;
    const struct ep_clusters_config *k = &c->clusters;
    fprintf(out,
            "training %" PRId64 " linear experts, top-%" PRId64 ", %s, %" PRId64
            " steps, seed %" PRIu64 "\ntokens   %" PRId64 " per step in sequences of %" PRId64
            ", %" PRId64 " clusters in %" PRId64 " dimensions",
            c->num_experts, c->top_k, ep_dynamics_score_names[c->score], s->num_steps, k->seed,
            c->num_tokens, k->sequence_tokens, k->num_clusters, k->dim);
    if (k->zipf > 0) {
        fprintf(out, ", zipf %g", k->zipf);
    }
    fprintf(out, "\nloss     %s: %s (%s%s)\nrates    experts %g, router %g", c->aux->name,
            c->aux->formula, c->aux->recalled ? "recalled: " : "", c->aux->source, c->expert_rate,
            c->router_rate);
    if (c->z_weight > 0) {
        fprintf(out, "; z-loss %g", c->z_weight);
    }
    fprintf(out, "\n\n");
}

/* Columns of sweeps with one value say nothing. */
static bool varies(const struct ep_steps *s, size_t offset)
{
    bool differs = false;
    for (int64_t i = 0; i < s->num_cases; i++) {
        double first, value;
        memcpy(&first, (const char *)&s->cases[0] + offset, sizeof first);
        memcpy(&value, (const char *)&s->cases[i] + offset, sizeof value);
        differs = differs || value != first || value != 0;
    }
    return differs;
}

static enum ep_status print_cases(const struct ep_steps *s, FILE *out)
{
    const char *headers[EP_STEPS_NUM_VALUES + 5];
    const bool with_jitter = varies(s, offsetof(struct ep_steps_case, jitter));
    const bool with_bias = varies(s, offsetof(struct ep_steps_case, bias_rate));
    struct ep_table *table = NULL;
    enum ep_status status;
    int num = 0;
    headers[num++] = "aux weight";
    if (with_jitter) {
        headers[num++] = "jitter";
    }
    if (with_bias) {
        headers[num++] = "bias rate";
    }
    for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
        headers[num++] = ep_steps_columns[v].title;
    }
    headers[num++] = "batch wanted";
    EP_TRY(ep_table_create(headers, num, &table));
    for (int64_t i = 0; i < s->num_cases; i++) {
        const struct ep_steps_case *c = &s->cases[i];
        ep_table_add(table, "%g%s", c->aux_weight, ep_steps_is_usual(c->aux_weight) ? " *" : "");
        if (with_jitter) {
            ep_table_add(table, "%g", c->jitter);
        }
        if (with_bias) {
            ep_table_add(table, "%g", c->bias_rate);
        }
        for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
            ep_table_add(table, ep_steps_columns[v].format, c->finals[v]);
        }
        if (c->batch.tokens < 0) {
            ep_table_add(table, "none would do");
        } else {
            ep_table_add(table, "%" PRId64, c->batch.tokens);
        }
    }
    EP_TRY(ep_table_print(table, out));
out:
    ep_table_destroy(table);
    return status;
}

/* The plug-in estimate without its bias, so that spread-out loads do not win by counting alone. */
static double mutual_bits(const struct ep_steps_case *c)
{
    return c->finals[EP_STEPS_MUTUAL_BITS] - c->finals[EP_STEPS_MUTUAL_BIAS_BITS];
}

static void print_setting(const char *what, const struct ep_steps_case *c, FILE *out)
{
    fprintf(out, "%s: aux weight %g, jitter %g, bias rate %g\n", what, c->aux_weight, c->jitter,
            c->bias_rate);
}

static void print_foot(const struct ep_steps *s, FILE *out)
{
    const double experts_bits = log2((double)s->config.num_experts);
    fprintf(
        out,
        "\n* 0.01 to 0.1, the usual range. Means over the last %" PRId64
        " steps; losses without their weights; predicting 0 has a task loss of 1.\n"
        "Entropy: of the experts' loads, at most %.2f bits. Mutual: what an expert says of a "
        "token's cluster, and how much of that counting alone gives.\n"
        "Batch wanted: tokens per step that give the expert at the 10 %% quantile of loads %" PRId64
        " tokens; %" PRId64 " at an even load.\n",
        s->num_final, experts_bits, s->min_tokens, s->cases[0].batch.even_tokens);
    const struct ep_steps_case *least_loss = s->cases;
    const struct ep_steps_case *most_mutual = s->cases;
    for (const struct ep_steps_case *c = s->cases; c < s->cases + s->num_cases; c++) {
        if (c->finals[EP_STEPS_TASK_LOSS] < least_loss->finals[EP_STEPS_TASK_LOSS]) {
            least_loss = c;
        }
        most_mutual = mutual_bits(c) > mutual_bits(most_mutual) ? c : most_mutual;
    }
    if (s->num_cases > 1) {
        print_setting("Least task loss", least_loss, out);
        print_setting("Most mutual information, bias taken off", most_mutual, out);
    }
}

/* --- warnings -------------------------------------------------------------------------------- */

enum { WARNING_SIZE = 400 };

/* Text of the warning of a case, or false where there is nothing to warn of. */
static bool warn_of(const struct ep_steps_case *c, char text[WARNING_SIZE])
{
    char batch[256];
    if (!ep_min_tokens_warn(&c->batch, batch, sizeof batch)) {
        return false;
    }
    snprintf(text, WARNING_SIZE, "aux weight %g, jitter %g, bias rate %g: %s", c->aux_weight,
             c->jitter, c->bias_rate, batch);
    return true;
}

/* --- files ----------------------------------------------------------------------------------- */

static enum ep_status save_tsv(const struct ep_steps *s, const char *path)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %s", path);
    }
    fprintf(out, "aux_weight\tjitter\tbias_rate\tstep");
    for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
        fprintf(out, "\t%s", ep_steps_columns[v].key);
    }
    for (int64_t e = 0; e < s->config.num_experts; e++) {
        fprintf(out, "\ttokens_%" PRId64, e);
    }
    for (int64_t i = 0; i < s->num_cases * s->num_steps; i++) {
        const struct ep_steps_case *c = &s->cases[i / s->num_steps];
        const int64_t step = i % s->num_steps;
        fprintf(out, "\n%g\t%g\t%g\t%" PRId64, c->aux_weight, c->jitter, c->bias_rate, step);
        for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
            fprintf(out, "\t%.9g", c->values[step * EP_STEPS_NUM_VALUES + v]);
        }
        for (int64_t e = 0; e < s->config.num_experts; e++) {
            fprintf(out, "\t%" PRId64, c->loads[step * s->config.num_experts + e]);
        }
    }
    fprintf(out, "\n");
    const bool failed = ferror(out) != 0;
    enum ep_status status = fclose(out) != 0 || failed
                                ? ep_error_set(EP_ENOMEM, "no memory for %s", path)
                                : ep_file_write(path, text, length);
    free(text);
    return status;
}

static enum ep_status set_config(const struct ep_steps *s, json_t *root)
{
    const struct ep_dynamics_config *c = &s->config;
    enum ep_status status;
    EP_TRY(ep_json_set(root, "steps", json_integer(s->num_steps)));
    EP_TRY(ep_json_set(root, "final_steps", json_integer(s->num_final)));
    EP_TRY(ep_json_set(root, "seed", json_integer((json_int_t)c->clusters.seed)));
    EP_TRY(ep_json_set(root, "experts", json_integer(c->num_experts)));
    EP_TRY(ep_json_set(root, "top_k", json_integer(c->top_k)));
    EP_TRY(ep_json_set(root, "tokens", json_integer(c->num_tokens)));
    EP_TRY(ep_json_set(root, "sequence", json_integer(c->clusters.sequence_tokens)));
    EP_TRY(ep_json_set(root, "clusters", json_integer(c->clusters.num_clusters)));
    EP_TRY(ep_json_set(root, "cluster_zipf", ep_json_real(c->clusters.zipf)));
    EP_TRY(ep_json_set(root, "dim", json_integer(c->clusters.dim)));
    EP_TRY(ep_json_set(root, "score", json_string(ep_dynamics_score_names[c->score])));
    EP_TRY(ep_json_set(root, "aux_formula", json_string(c->aux->name)));
    EP_TRY(ep_json_set(root, "z_weight", ep_json_real(c->z_weight)));
    EP_TRY(ep_json_set(root, "lr", ep_json_real(c->expert_rate)));
    EP_TRY(ep_json_set(root, "router_lr", ep_json_real(c->router_rate)));
    EP_TRY(ep_json_set(root, "min_tokens_per_expert", json_integer(s->min_tokens)));
out:
    return status;
}

/* Every value of every step, a list per value. */
static enum ep_status set_steps(const struct ep_steps *s, const struct ep_steps_case *c,
                                json_t *object)
{
    enum ep_status status = EP_OK;
    json_t *loads = NULL;
    double *series = malloc((size_t)s->num_steps * sizeof *series);
    if (series == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " steps", s->num_steps);
    }
    for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
        for (int64_t step = 0; step < s->num_steps; step++) {
            series[step] = c->values[step * EP_STEPS_NUM_VALUES + v];
        }
        EP_TRY(
            ep_json_set(object, ep_steps_columns[v].key, ep_json_real_array(series, s->num_steps)));
    }
    loads = json_array();
    for (int64_t step = 0; step < s->num_steps; step++) {
        const int64_t num = s->config.num_experts;
        if (json_array_append_new(loads, ep_json_i64_array(&c->loads[step * num], num)) != 0) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for %" PRId64 " steps", s->num_steps));
        }
    }
    EP_TRY(ep_json_set(object, "expert_copies", json_incref(loads)));
out:
    json_decref(loads);
    free(series);
    return status;
}

static enum ep_status set_case(const struct ep_steps *s, const struct ep_steps_case *c,
                               json_t *object)
{
    enum ep_status status;
    json_t *finals = json_object();
    json_t *steps = json_object();
    EP_TRY(ep_json_set(object, "aux_weight", ep_json_real(c->aux_weight)));
    EP_TRY(ep_json_set(object, "usual_range", json_boolean(ep_steps_is_usual(c->aux_weight))));
    EP_TRY(ep_json_set(object, "jitter", ep_json_real(c->jitter)));
    EP_TRY(ep_json_set(object, "bias_rate", ep_json_real(c->bias_rate)));
    for (int v = 0; v < EP_STEPS_NUM_VALUES; v++) {
        EP_TRY(ep_json_set(finals, ep_steps_columns[v].key, ep_json_real(c->finals[v])));
    }
    EP_TRY(ep_json_set(finals, "expert_copies",
                       ep_json_real_array(c->final_loads, s->config.num_experts)));
    EP_TRY(ep_json_set(object, "final", json_incref(finals)));
    EP_TRY(ep_json_set(object, "low_tokens", ep_json_real(c->batch.low_tokens)));
    EP_TRY(ep_json_set(object, "starved_experts", json_integer(c->batch.num_starved)));
    EP_TRY(ep_json_set(object, "batch_tokens",
                       c->batch.tokens < 0 ? json_null() : json_integer(c->batch.tokens)));
    EP_TRY(ep_json_set(object, "even_batch_tokens", json_integer(c->batch.even_tokens)));
    EP_TRY(set_steps(s, c, steps));
    EP_TRY(ep_json_set(object, "per_step", json_incref(steps)));
out:
    json_decref(finals);
    json_decref(steps);
    return status;
}

static enum ep_status save_json(const struct ep_steps *s, const char *path)
{
    enum ep_status status;
    char text[WARNING_SIZE];
    json_t *root = json_object();
    json_t *cases = json_array();
    json_t *warnings = json_array();
    EP_TRY(set_config(s, root));
    for (int64_t i = 0; i < s->num_cases; i++) {
        json_t *object = json_object();
        if (json_array_append_new(cases, object) != 0 ||
            (warn_of(&s->cases[i], text) &&
             json_array_append_new(warnings, json_string(text)) != 0)) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for JSON"));
        }
        EP_TRY(set_case(s, &s->cases[i], object));
    }
    EP_TRY(ep_json_set(root, "cases", json_incref(cases)));
    EP_TRY(ep_json_set(root, "warnings", json_incref(warnings)));
    EP_TRY(ep_json_save(path, root));
out:
    json_decref(cases);
    json_decref(warnings);
    json_decref(root);
    return status;
}

/* --- the mode -------------------------------------------------------------------------------- */

static enum ep_status check_file(const char *path)
{
    return path != NULL && access(path, F_OK) == 0
               ? ep_error_set(EP_EINVAL, "-o: %s exists; nothing is written over", path)
               : EP_OK;
}

static bool asked(const void *options)
{
    return ((const struct ep_steps_options *)options)->num_steps > 0;
}

static void show_progress(int64_t index, int64_t num_cases)
{
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, index < num_cases ? "\rtraining %" PRId64 " of %" PRId64 : "\r\033[K",
                index + 1, num_cases);
    }
}

static enum ep_status run(const struct ep_route_options *o, const void *options)
{
    const struct ep_steps_options *given = options;
    enum ep_status status;
    struct ep_steps *steps = NULL;
    char text[WARNING_SIZE];
    const bool in_place = o->json_path != NULL && strcmp(o->json_path, "-") == 0;
    const struct ep_dynamics_config shape = {.num_experts = o->num_experts,
                                             .top_k = o->top_k,
                                             .num_tokens = o->tokens,
                                             .clusters.seed = (uint64_t)o->seed};
    EP_TRY(check_file(given->path));
    EP_TRY(ep_steps_create(given, &shape, o->min_tokens,
                           o->json_path != NULL || given->path != NULL, show_progress, &steps));
    for (int64_t i = 0; i < steps->num_cases; i++) {
        if (warn_of(&steps->cases[i], text)) {
            fprintf(stderr, "epbench route: warning: %s\n", text);
        }
    }
    if (given->path != NULL) {
        EP_TRY(save_tsv(steps, given->path));
    }
    if (o->json_path != NULL) {
        EP_TRY(save_json(steps, o->json_path));
    }
    if (!in_place) {
        print_head(steps, stdout);
        EP_TRY(print_cases(steps, stdout));
        print_foot(steps, stdout);
    }
out:
    ep_steps_destroy(steps);
    return status;
}

const struct ep_route_mode ep_route_mode_steps = {
    .name = "--steps",
    .uses = EP_ROUTE_BIT(EP_ROUTE_EXPERTS) | EP_ROUTE_BIT(EP_ROUTE_TOP_K) |
            EP_ROUTE_BIT(EP_ROUTE_TOKENS) | EP_ROUTE_BIT(EP_ROUTE_SEED) |
            EP_ROUTE_BIT(EP_ROUTE_MIN_TOKENS) | EP_ROUTE_BIT(EP_ROUTE_JSON),
    .argp = &ep_steps_argp,
    .options_size = sizeof(struct ep_steps_options),
    .asked = asked,
    .run = run,
};
