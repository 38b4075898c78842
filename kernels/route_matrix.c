/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench route --matrix`: who sends how much to whom, as files. */
#include "base/file.h"
#include "kernels/route_mode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_MATRIX = 256, MAX_FILES = 8 };

enum format { CSV, NCCL_TESTS, NUM_FORMATS };

static const char *const format_names[NUM_FORMATS] = {[CSV] = "csv", [NCCL_TESTS] = "nccl-tests"};

struct file {
    enum ep_basis basis;
    enum format format;
    const char *path; /* borrowed */
};

struct matrix_options {
    struct file files[MAX_FILES];
    int num_files;
};

/* What was written. */
struct written {
    struct file files[MAX_FILES];
    int64_t most_bytes[MAX_FILES]; /* that a rank sends or receives, its own included */
    int num_files;
};

/* --- options ------------------------------------------------------------------------------ */

static const struct argp_option options[] = {
    {"matrix", KEY_MATRIX, "BASIS:FORMAT:FILE", 0,
     "write rows between ranks; BASIS: copies, rank-dedup or node-dedup; FORMAT: csv (rows) or "
     "nccl-tests (bytes, for alltoallv_perf); can be given again",
     4},
    {0}};

/* The row of `names` that `text` begins with, up to a colon; *rest is behind it. */
static bool find_word(const char *text, const char *const *names, int num, int *found,
                      const char **rest)
{
    const size_t length = strcspn(text, ":");
    for (int i = 0; i < num && text[length] == ':'; i++) {
        if (strlen(names[i]) == length && strncmp(names[i], text, length) == 0) {
            *found = i;
            *rest = text + length + 1;
            return true;
        }
    }
    return false;
}

static enum ep_status parse_file(const char *text, struct matrix_options *o)
{
    const char *bases[EP_NUM_BASES];
    const char *rest = NULL;
    int basis = 0;
    int format = 0;
    for (int i = 0; i < EP_NUM_BASES; i++) {
        bases[i] = ep_basis_name((enum ep_basis)i);
    }
    if (!find_word(text, bases, EP_NUM_BASES, &basis, &rest) ||
        !find_word(rest, format_names, NUM_FORMATS, &format, &rest) || rest[0] == '\0' ||
        strcmp(rest, "-") == 0) {
        return ep_error_set(EP_EINVAL,
                            "--matrix: '%s'; copies, rank-dedup or node-dedup, then csv or "
                            "nccl-tests, then a file expected: rank-dedup:csv:S.csv",
                            text);
    }
    if (access(rest, F_OK) == 0) {
        return ep_error_set(EP_EINVAL, "--matrix: %s exists; nothing is written over", rest);
    }
    if (o->num_files == MAX_FILES) {
        return ep_error_set(EP_EINVAL, "--matrix: more than %d files", MAX_FILES);
    }
    for (int i = 0; i < o->num_files; i++) {
        if (strcmp(o->files[i].path, rest) == 0) {
            return ep_error_set(EP_EINVAL, "--matrix: %s is given twice", rest);
        }
    }
    o->files[o->num_files++] =
        (struct file){.basis = (enum ep_basis)basis, .format = (enum format)format, .path = rest};
    return EP_OK;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    if (key != KEY_MATRIX) {
        return ARGP_ERR_UNKNOWN;
    }
    return parse_file(arg, state->input) == EP_OK ? 0 : EINVAL;
}

static const struct argp matrix_argp = {.options = options, .parser = parse};

/* --- files -------------------------------------------------------------------------------- */

static void print_head(FILE *out, int64_t num_ranks)
{
    fprintf(out, "from");
    for (int64_t j = 0; j < num_ranks; j++) {
        fprintf(out, ",%" PRId64, j);
    }
    fprintf(out, "\n");
}

/* nccl-tests wants numbers alone, with blanks between them. */
static void print_rows(FILE *out, enum format format, const int64_t *rows, int64_t num_ranks,
                       int64_t row_bytes)
{
    for (int64_t i = 0; i < num_ranks; i++) {
        if (format == CSV) {
            fprintf(out, "%" PRId64, i);
        }
        for (int64_t j = 0; j < num_ranks; j++) {
            const int64_t num = rows[i * num_ranks + j];
            if (format == CSV) {
                fprintf(out, ",%" PRId64, num);
            } else {
                fprintf(out, j > 0 ? " %" PRId64 : "%" PRId64, num * row_bytes);
            }
        }
        fprintf(out, "\n");
    }
}

static enum ep_status write_matrix(const struct file *file, const int64_t *rows,
                                   const struct ep_route_case *route)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %s", file->path);
    }
    if (file->format == CSV) {
        print_head(out, route->num_ranks);
    }
    print_rows(out, file->format, rows, route->num_ranks, route->row_bytes);
    const bool lost = ferror(out) != 0;
    enum ep_status status = EP_OK;
    if (fclose(out) != 0 || lost) {
        status = ep_error_set(EP_ENOMEM, "no memory for %s", file->path);
    } else {
        status = ep_file_write(file->path, text, length);
    }
    free(text);
    return status;
}

static int64_t find_most(const int64_t *rows, int64_t num_ranks)
{
    int64_t most = 0;
    for (int64_t i = 0; i < num_ranks; i++) {
        int64_t out = 0;
        int64_t in = 0;
        for (int64_t j = 0; j < num_ranks; j++) {
            out += rows[i * num_ranks + j];
            in += rows[j * num_ranks + i];
        }
        most = out > most ? out : most;
        most = in > most ? in : most;
    }
    return most;
}

/* --- the section -------------------------------------------------------------------------- */

static enum ep_status make(const void *given, const struct ep_route_case *route, void **made)
{
    enum ep_status status;
    const struct matrix_options *o = given;
    const int64_t num_ranks = route->num_ranks;
    struct ep_traffic traffic = {0};
    int64_t *rows = NULL;
    struct written *w = NULL;
    if (o->num_files == 0) {
        return EP_OK;
    }
    if (num_ranks > EP_ROUTE_MATRIX_RANKS) {
        return ep_error_set(EP_EINVAL, "%" PRId64 " ranks; --matrix is for %d at most", num_ranks,
                            EP_ROUTE_MATRIX_RANKS);
    }
    EP_TRY(ep_traffic_init(&route->placement, route->rank_node, route->num_nodes,
                           route->input.top_k, &traffic));
    EP_TRY(ep_traffic_add_input(&traffic, &route->input));
    rows = malloc((size_t)(num_ranks * num_ranks) * sizeof *rows);
    w = calloc(1, sizeof *w);
    if (rows == NULL || w == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a matrix of %" PRId64 " ranks", num_ranks);
        goto out;
    }
    for (; w->num_files < o->num_files; w->num_files++) {
        const struct file *file = &o->files[w->num_files];
        ep_traffic_fill_rows(&traffic, file->basis, rows);
        EP_TRY(write_matrix(file, rows, route));
        w->files[w->num_files] = *file;
        w->most_bytes[w->num_files] = find_most(rows, num_ranks) * route->row_bytes;
    }
    *made = w;
    w = NULL;
out:
    free(w);
    free(rows);
    ep_traffic_fini(&traffic);
    return status;
}

static enum ep_status print(const void *made, const struct ep_route_case *route, FILE *out)
{
    const struct written *w = made;
    (void)route;
    fprintf(out, "\n");
    for (int i = 0; i < w->num_files; i++) {
        const struct file *f = &w->files[i];
        fprintf(out, "matrix   %s, %s: %s\n", ep_basis_name(f->basis),
                f->format == CSV ? "rows, own ones on the diagonal" : "bytes for nccl-tests",
                f->path);
        if (f->format == NCCL_TESTS) {
            fprintf(out,
                    "         NCCL_TESTS_ALLTOALLV_MATRIX_FILE=%s alltoallv_perf -b %" PRId64
                    " -e %" PRId64 " -a 3\n",
                    f->path, w->most_bytes[i], w->most_bytes[i]);
        }
    }
    return EP_OK;
}

static enum ep_status set(const void *made, const struct ep_route_case *route, json_t *root)
{
    enum ep_status status;
    const struct written *w = made;
    json_t *all = json_array();
    (void)route;
    EP_TRY(ep_json_set(root, "matrices", all));
    for (int i = 0; i < w->num_files; i++) {
        json_t *one = json_object();
        if (one == NULL || json_array_append_new(all, one) != 0) {
            status = ep_error_set(EP_ENOMEM, "no memory for JSON");
            goto out;
        }
        EP_TRY(ep_json_set(one, "basis", json_string(ep_basis_name(w->files[i].basis))));
        EP_TRY(ep_json_set(one, "format", json_string(format_names[w->files[i].format])));
        EP_TRY(ep_json_set(one, "path", json_string(w->files[i].path)));
        EP_TRY(ep_json_set(one, "most_bytes", json_integer(w->most_bytes[i])));
    }
out:
    return status;
}

const struct ep_route_section ep_route_section_matrix = {
    .name = "--matrix",
    .argp = &matrix_argp,
    .options_size = sizeof(struct matrix_options),
    .make = make,
    .print = print,
    .set = set,
    .destroy = free,
};
