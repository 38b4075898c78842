/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the catalogue: rows of hardware, and the machines made of them. */
#include "topologies/catalogue.h"

#include "base/csv.h"
#include "base/embedded.h"
#include "base/options.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[EP_KNOWN_NUM_TYPES] = {
    [EP_KNOWN_FP32] = "fp32", [EP_KNOWN_BF16] = "bf16", [EP_KNOWN_FP8] = "fp8"};

const char *ep_known_type_name(enum ep_known_type type)
{
    return type_names[type];
}

/* Best first. */
static const char *const kinds[] = {"measured", "effective", "reported",
                                    "model-constant", "derived", "theoretical"};

static int rank_of_kind(const char *kind)
{
    int i = 0;
    while (i < (int)(sizeof kinds / sizeof kinds[0]) && strcmp(kinds[i], kind) != 0) {
        i++;
    }
    return i;
}

/* Units of the table, in SI. */
static const struct {
    const char *unit;
    double factor;
} units[] = {
    {"GB/s/dir", 1e9}, {"GB/s", 1e9},   {"GB", 1e9},  {"TFLOP/s", 1e12}, {"GFLOP/s", 1e9},
    {"us", 1e-6},      {"GHz", 1e9},    {"1", 1},     {"ratio", 1},      {"flop", 1},
};

/* --- hardware -------------------------------------------------------------------------------- */

struct row {
    const char *kind, *id, *metric, *value, *unit, *class_name, *source, *read, *note;
};

struct reader {
    struct ep_catalogue *catalogue;
    struct row *rows;
    int64_t num_rows;
};

/* A text that outlives the row it was read from. */
static enum ep_status keep(struct ep_catalogue *c, const char *text, const char **kept)
{
    char **larger = realloc(c->texts, (size_t)(c->num_texts + 1) * sizeof *larger);
    char *copy = strdup(text);
    if (larger == NULL || copy == NULL) {
        c->texts = larger != NULL ? larger : c->texts;
        free(copy);
        return ep_error_set(EP_ENOMEM, "no memory for the catalogue");
    }
    c->texts = larger;
    c->texts[c->num_texts++] = copy;
    *kept = copy;
    return EP_OK;
}

static enum ep_status open_table(const char *path, struct ep_csv **csv)
{
    const struct ep_embedded *file = ep_embedded_find(path);
    struct ep_csv *made = calloc(1, sizeof *made);
    if (file == NULL || made == NULL) {
        free(made);
        return file == NULL ? ep_error_set(EP_EENV, "%s was not built in", path)
                            : ep_error_set(EP_ENOMEM, "no memory for the catalogue");
    }
    enum ep_status status = ep_csv_init(path, (const char *)file->data, file->size_bytes, made);
    if (status == EP_OK) {
        *csv = made;
        status = ep_csv_read_header(made);
    } else {
        free(made);
    }
    return status;
}

/* Fields of the current row by name; each column must be there. */
static enum ep_status field(struct ep_catalogue *c, const struct ep_csv *csv, const char *column,
                            const char **text)
{
    const int64_t at = ep_csv_find_column(csv, column);
    if (at < 0) {
        return ep_error_set(EP_EINVAL, "%s:1: column '%s' is missing", csv->name, column);
    }
    return keep(c, csv->fields[at], text);
}

static enum ep_status read_hardware(struct reader *r)
{
    enum ep_status status;
    struct ep_catalogue *c = r->catalogue;
    EP_TRY(open_table("topologies/catalogue/hardware.csv", &c->hardware));
    for (int more = 1;;) {
        EP_TRY(ep_csv_next(c->hardware, &more));
        if (!more) {
            break;
        }
        struct row *larger = realloc(r->rows, (size_t)(r->num_rows + 1) * sizeof *larger);
        if (larger == NULL) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for the catalogue"));
        }
        r->rows = larger;
        struct row *row = &r->rows[r->num_rows];
        const struct {
            const char *column;
            const char **text;
        } fields[] = {{"kind", &row->kind},         {"id", &row->id},
                      {"metric", &row->metric},     {"value", &row->value},
                      {"unit", &row->unit},         {"class", &row->class_name},
                      {"source", &row->source},     {"source_read", &row->read},
                      {"note", &row->note}};
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
            EP_TRY(field(c, c->hardware, fields[i].column, fields[i].text));
        }
        r->num_rows++;
    }
out:
    return status;
}

static enum ep_status to_si(const struct row *row, double *value)
{
    char *end;
    const double number = strtod(row->value, &end);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(units[i].unit, row->unit) == 0 && *end == '\0' && end != row->value) {
            *value = number * units[i].factor;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "topologies/catalogue/hardware.csv: %s %s: '%s %s' is no number with a "
                        "known unit", row->id, row->metric, row->value, row->unit);
}

/* The figure of an id, of the best kind; NaN where there is none. */
static enum ep_status find_rate(const struct reader *r, const char *id, const char *metric,
                                struct ep_known_rate *rate)
{
    const struct row *best = NULL;
    *rate = (struct ep_known_rate){.value = NAN};
    for (int64_t i = 0; i < r->num_rows; i++) {
        const struct row *row = &r->rows[i];
        if (strcmp(row->id, id) == 0 && strcmp(row->metric, metric) == 0 &&
            (best == NULL || rank_of_kind(row->class_name) < rank_of_kind(best->class_name))) {
            best = row;
        }
    }
    if (best == NULL) {
        return EP_OK;
    }
    *rate = (struct ep_known_rate){.kind = best->class_name,
                                   .source = best->source,
                                   .note = best->note,
                                   .is_checked = strcmp(best->read, "y") == 0};
    const enum ep_status status = to_si(best, &rate->value);
    if (status == EP_OK && !(rate->value > 0 && rate->value < 1e18)) {
        return ep_error_set(EP_EINVAL, "topologies/catalogue/hardware.csv: %s %s is %g", id, metric,
                            rate->value);
    }
    return status;
}

static enum ep_status find_first(const struct reader *r, const char *id, const char *a, const char *b,
                                 struct ep_known_rate *rate)
{
    enum ep_status status = find_rate(r, id, a, rate);
    if (status == EP_OK && isnan(rate->value)) {
        status = find_rate(r, id, b, rate);
    }
    return status;
}

/* --- machines -------------------------------------------------------------------------------- */

/* A host's figures are of all cores. */
static void share(struct ep_known_rate *rate, int64_t num)
{
    rate->value /= (double)num;
}

static enum ep_status read_machine(const struct reader *r, struct ep_known_machine *m)
{
    enum ep_status status;
    struct ep_catalogue *c = r->catalogue;
    const struct ep_csv *csv = c->list;
    const char *rank, *accel, *scale_up, *nic;
    EP_TRY(field(c, csv, "name", &m->name));
    EP_TRY(field(c, csv, "title", &m->title));
    EP_TRY(field(c, csv, "rank", &rank));
    EP_TRY(field(c, csv, "accel", &accel));
    EP_TRY(field(c, csv, "scale_up", &scale_up));
    EP_TRY(field(c, csv, "nic", &nic));
    EP_TRY(ep_csv_get_i64(csv, ep_csv_find_column(csv, "ranks_per_node"), 1, 4096,
                          &m->ranks_per_node));
    EP_TRY(ep_csv_get_i64(csv, ep_csv_find_column(csv, "nics_per_node"), 1, 4096,
                          &m->nics_per_node));
    m->is_gpu = strcmp(rank, "gpu") == 0;
    EP_TRY(find_rate(r, scale_up, "scaleup_bw", &m->scale_up));
    EP_TRY(find_rate(r, scale_up, "pair_bw", &m->pair));
    EP_TRY(find_rate(r, nic, "bw", &m->nic));
    EP_TRY(find_first(r, accel, "hbm_bw", "mem_bw", &m->memory));
    EP_TRY(find_rate(r, accel, "hbm_capacity", &m->memory_size));
    EP_TRY(find_first(r, accel, "bf16_achieved_max", "bf16_dense", &m->flops[EP_KNOWN_BF16]));
    EP_TRY(find_first(r, accel, "fp8_achieved_max", "fp8_dense", &m->flops[EP_KNOWN_FP8]));
    EP_TRY(find_rate(r, accel, "fp32_vector", &m->flops[EP_KNOWN_FP32]));
    m->step_scale_up.value = NAN;
    if (m->is_gpu) {
        EP_TRY(find_rate(r, "nvlink", "ring_step_simple", &m->step_scale_up));
    } else {
        EP_TRY(find_rate(r, accel, "bf16_matrix", &m->flops[EP_KNOWN_BF16]));
        share(&m->flops[EP_KNOWN_FP32], m->ranks_per_node);
        share(&m->flops[EP_KNOWN_BF16], m->ranks_per_node);
    }
    EP_TRY(find_rate(r, "net", "ring_step_simple", &m->step_scale_out));
    if (isnan(m->nic.value) || isnan(m->memory.value) || (m->is_gpu && isnan(m->scale_up.value))) {
        EP_TRY(ep_error_set(EP_EINVAL, "%s:%" PRId64 ": %s: no rate of its NIC, memory or scale-up link in "
                            "hardware.csv", csv->name, csv->line, m->name));
    }
out:
    return status;
}

enum ep_status ep_catalogue_create(struct ep_catalogue **catalogue)
{
    enum ep_status status;
    struct ep_catalogue *c = calloc(1, sizeof *c);
    struct reader r = {.catalogue = c};
    if (c == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for the catalogue");
    }
    EP_TRY(read_hardware(&r));
    EP_TRY(open_table("topologies/catalogue/machines.csv", &c->list));
    for (int more = 1;;) {
        EP_TRY(ep_csv_next(c->list, &more));
        if (!more) {
            break;
        }
        struct ep_known_machine *larger =
            realloc(c->machines, (size_t)(c->num + 1) * sizeof *larger);
        if (larger == NULL) {
            EP_TRY(ep_error_set(EP_ENOMEM, "no memory for the catalogue"));
        }
        c->machines = larger;
        c->machines[c->num] = (struct ep_known_machine){0};
        EP_TRY(read_machine(&r, &c->machines[c->num]));
        c->num++;
    }
    *catalogue = c;
    c = NULL;
out:
    free(r.rows);
    ep_catalogue_destroy(c);
    return status;
}

void ep_catalogue_destroy(struct ep_catalogue *c)
{
    if (c == NULL) {
        return;
    }
    struct ep_csv *tables[] = {c->hardware, c->list};
    for (int i = 0; i < 2; i++) {
        if (tables[i] != NULL) {
            ep_csv_fini(tables[i]);
            free(tables[i]);
        }
    }
    for (int64_t i = 0; i < c->num_texts; i++) {
        free(c->texts[i]);
    }
    free(c->texts);
    free(c->machines);
    free(c);
}

enum ep_status ep_catalogue_find(const struct ep_catalogue *catalogue, const char *name,
                                 const struct ep_known_machine **machine)
{
    const char *names[64];
    int num = 0;
    for (int64_t i = 0; i < catalogue->num; i++) {
        if (strcmp(catalogue->machines[i].name, name) == 0) {
            *machine = &catalogue->machines[i];
            return EP_OK;
        }
        if (num < (int)(sizeof names / sizeof names[0])) {
            names[num++] = catalogue->machines[i].name;
        }
    }
    const char *nearest = ep_options_nearest(name, names, num);
    return ep_error_set(EP_EINVAL, "--machine: '%s' is neither a file nor in the catalogue (epbench predict "
                        "--list-machines)%s%s%s", name, nearest != NULL ? "; did you mean '" : "",
                        nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
}
