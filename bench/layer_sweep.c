/* SPDX-License-Identifier: Apache-2.0 */
/* From options to layers, and what a visit of one is. */
#include "bench/layer_sweep.h"

#include "base/units.h"
#include "bench/comm_style.h"
#include "bench/comm_visits.h"
#include "bench/layer_case.h"
#include "bench/layer_remedies.h"
#include "bench/layer_table.h"
#include "bench/overlap_plan.h"
#include "bench/overlap_table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_FFN = 1408 };

enum { MAX_REMEDIES = 8, MAX_CHUNK_COUNTS = 8 };

/* The cases of one remedy; without --remedies there is one part, which has none. */
struct part {
    const struct ep_layer_remedy *remedy; /* NULL = not asked for */
    struct ep_comm_sweep *comm;
    int64_t first_case;
};

struct ep_layer_sweep {
    struct ep_layer_options options;
    struct part parts[MAX_REMEDIES];
    int num_parts;
    struct ep_comm_case *cases; /* of all parts, made when they are prepared */
    int64_t num_cases;
    struct ep_layer_shape shape;
    int64_t chunks[MAX_CHUNK_COUNTS]; /* of --overlap */
    int64_t num_chunks;
};

static enum ep_status find_activation(const char *name, const struct ep_model *model,
                                      enum ep_ffn_kind *kind)
{
    *kind = model != NULL && !model->gated ? EP_FFN_GELU : EP_FFN_SWIGLU;
    if (name == NULL) {
        return EP_OK;
    }
    for (int k = 0; k < EP_FFN_NUM_KINDS; k++) {
        if (strcmp(name, ep_ffn_kind_name((enum ep_ffn_kind)k)) == 0) {
            *kind = (enum ep_ffn_kind)k;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--activation: '%s' is not swiglu, relu or gelu", name);
}

/* The one type that all cases have: back ends differ by it. */
static enum ep_status find_dtype(const char *text, enum ep_dtype *dtype)
{
    if (text != NULL && strchr(text, ',') != NULL) {
        return ep_error_set(EP_EINVAL, "--dtype %s: a sweep of layers has one type", text);
    }
    const enum ep_status status = ep_dtype_parse(text != NULL ? text : "bf16", "--dtype", dtype);
    return status == EP_OK && *dtype == EP_FP8
               ? ep_error_set(EP_EINVAL, "--dtype fp8: no back end multiplies fp8 rows; a layer is of "
                              "bf16 or fp32")
               : status;
}

/* A bad place for the timeline is told before anything is measured. */
static enum ep_status check_timeline(const char *path)
{
    enum ep_status status = EP_OK;
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    if (path == NULL || strcmp(path, "-") == 0) {
        return EP_OK;
    }
    char *directory = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    if (directory == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory");
    }
    if (path[0] == '\0' || access(directory, W_OK) != 0) {
        status = ep_error_set(EP_EINVAL, "--timeline '%s': no file can be written there", path);
    }
    free(directory);
    return status;
}

static enum ep_status check_options(const struct ep_layer_options *o)
{
    const struct {
        const char *name;
        bool given;
        const char *why;
    } refused[] = {
        {"--op", o->comm.ops != NULL, "a layer dispatches and combines"},
        {"--bare", o->comm.bare_s > 0, "it is for epbench comm"},
        {"--limits", o->comm.limits, "it is for epbench comm"},
        {"--buffers", o->comm.buffers != NULL, "it is for epbench comm"},
        {"--overlap with --backward", o->overlap != NULL && o->backward,
         "only the forward pass is cut into chunks"},
        {"--overlap with --tp", o->overlap != NULL && o->tp > 1,
         "the sums of slices are not cut into chunks"},
        {"--transport null", o->comm.transport != NULL && strstr(o->comm.transport, "null") != NULL,
         "it moves nothing that experts could compute with"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (refused[i].given) {
            return ep_error_set(EP_EINVAL, "%s: %s", refused[i].name, refused[i].why);
        }
    }
    const enum ep_status status = o->compares ? ep_layer_remedies_check(&o->comm) : EP_OK;
    return status != EP_OK ? status : check_timeline(o->timeline);
}

/* "chunks:N" or "chunks:N,N,...". */
static enum ep_status parse_overlap(struct ep_layer_sweep *s)
{
    static const char prefix[] = "chunks:";
    enum ep_status status = EP_OK;
    const char *text = s->options.overlap;
    struct ep_list list = {0};
    if (text == NULL) {
        return EP_OK;
    }
    if (strncmp(text, prefix, sizeof prefix - 1) != 0) {
        return ep_error_set(EP_EINVAL, "--overlap '%s': chunks:N was expected, such as chunks:4 or "
                            "chunks:2,4,8", text);
    }
    EP_TRY(ep_list_split(text + sizeof prefix - 1, ',', "--overlap", &list));
    if (list.num > MAX_CHUNK_COUNTS) {
        status = ep_error_set(EP_EINVAL, "--overlap: at most %d numbers of chunks", MAX_CHUNK_COUNTS);
        goto out;
    }
    for (int64_t i = 0; i < list.num; i++) {
        EP_TRY(ep_parse_i64(list.items[i], "--overlap chunks", 1, EP_OVERLAP_MAX_CHUNKS,
                            &s->chunks[s->num_chunks++]));
    }
out:
    ep_list_fini(&list);
    return status;
}

/* An exchange must be one that can be left running. */
static enum ep_status check_overlap(const struct ep_layer_sweep *s)
{
    const struct ep_transport *const *t = ep_comm_sweep_transports(s->parts[0].comm);
    while (*t != NULL && (*t)->start != NULL) {
        t++;
    }
    return *t == NULL || s->num_chunks == 0
               ? EP_OK
               : ep_error_set(EP_EINVAL, "--overlap: transport %s has no exchange that can be left "
                              "running (alltoallv has)", (*t)->name);
}

static enum ep_status add_part(struct ep_layer_sweep *s, const struct ep_layer_remedy *remedy)
{
    enum ep_status status = EP_OK;
    struct ep_comm_options options = s->options.comm;
    options.groups = s->options.tp * s->options.dp;
    if (s->num_parts == MAX_REMEDIES) {
        return ep_error_set(EP_EINVAL, "--remedies: at most %d", MAX_REMEDIES);
    }
    if (remedy != NULL) {
        options.skew = options.skew != NULL ? options.skew : "khot:1:0.9";
        EP_TRY(remedy->apply(&options));
    }
    EP_TRY(ep_comm_sweep_create(&options, &s->parts[s->num_parts].comm));
    s->parts[s->num_parts++].remedy = remedy;
out:
    return status;
}

static enum ep_status add_parts(struct ep_layer_sweep *s)
{
    enum ep_status status = EP_OK;
    struct ep_list list = {0};
    if (!s->options.compares) {
        return add_part(s, NULL);
    }
    for (int i = 0; s->options.remedies == NULL && ep_layer_remedies[i].name != NULL; i++) {
        EP_TRY(add_part(s, &ep_layer_remedies[i]));
    }
    if (s->options.remedies != NULL) {
        EP_TRY(ep_list_split(s->options.remedies, ',', "--remedies", &list));
    }
    for (int64_t i = 0; i < list.num; i++) {
        const struct ep_layer_remedy *remedy = NULL;
        EP_TRY(ep_layer_remedy_find(list.items[i], &remedy));
        EP_TRY(add_part(s, remedy));
    }
out:
    ep_list_fini(&list);
    return status;
}

enum ep_status ep_layer_sweep_create(const struct ep_layer_options *options,
                                     struct ep_layer_sweep **sweep)
{
    enum ep_status status = EP_OK;
    enum ep_dtype dtype = EP_BF16;
    struct ep_layer_sweep *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a sweep");
    }
    s->options = *options;
    EP_TRY(check_options(options));
    EP_TRY(parse_overlap(s));
    EP_TRY(find_dtype(options->comm.dtype, &dtype));
    EP_TRY(add_parts(s));
    EP_TRY(check_overlap(s));
    const struct ep_model *model = ep_comm_sweep_model(s->parts[0].comm);
    const char *backend = options->backend != NULL ? options->backend : "default";
    s->shape.model = model;
    s->shape.ffn = options->ffn > 0 ? options->ffn : model != NULL ? model->expert_ffn : DEFAULT_FFN;
    s->shape.shared_ffn = options->shared_ffn >= 0 ? options->shared_ffn
                          : model != NULL          ? model->shared_ffn_total
                                                   : 0;
    s->shape.tp = options->tp;
    s->shape.backward = options->backward;
    s->shape.dp = options->dp;
    const int64_t least = s->shape.shared_ffn > 0 && s->shape.shared_ffn < s->shape.ffn
                              ? s->shape.shared_ffn
                              : s->shape.ffn;
    if (options->tp > least) {
        status = ep_error_set(EP_EINVAL, "--tp %lld: %lld inner columns cannot be sliced so often",
                              (long long)options->tp, (long long)least);
        goto out;
    }
    EP_TRY(find_activation(options->activation, model, &s->shape.kind));
    EP_TRY(ep_gemm_find(backend, dtype, &s->shape.backend));
    *sweep = s;
    s = NULL;
out:
    ep_layer_sweep_destroy(s);
    return status;
}

void ep_layer_sweep_destroy(struct ep_layer_sweep *s)
{
    if (s != NULL) {
        for (int i = 0; i < s->num_parts; i++) {
            ep_comm_sweep_destroy(s->parts[i].comm);
        }
        free(s->cases);
        free(s);
    }
}

int64_t ep_layer_sweep_most_ranks(const struct ep_layer_sweep *s)
{
    return ep_comm_sweep_most_ranks(s->parts[0].comm);
}

bool ep_layer_sweep_shares(const struct ep_layer_sweep *s)
{
    return ep_comm_sweep_shares(s->parts[0].comm);
}

static enum ep_status append_cases(struct ep_layer_sweep *s, struct part *part)
{
    int64_t num = 0;
    const struct ep_comm_case *cases = ep_comm_sweep_cases(part->comm, &num);
    struct ep_comm_case *larger =
        realloc(s->cases, (size_t)(s->num_cases + num) * sizeof *larger);
    if (larger == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %lld cases", (long long)(s->num_cases + num));
    }
    memcpy(larger + s->num_cases, cases, (size_t)num * sizeof *cases);
    part->first_case = s->num_cases;
    s->cases = larger;
    s->num_cases += num;
    return EP_OK;
}

/* Told before anything is timed. One rank exchanges nothing, and is not cut. */
static enum ep_status check_chunks(const struct ep_layer_sweep *s)
{
    for (int64_t i = 0; i < s->num_cases; i++) {
        const struct ep_comm_case *point = &s->cases[i];
        int64_t most = point->tokens;
        for (int64_t r = 0; point->tokens_per_rank != NULL && r < point->num_ranks; r++) {
            most = point->tokens_per_rank[r] > most ? point->tokens_per_rank[r] : most;
        }
        for (int64_t c = 0; c < s->num_chunks && point->num_ranks * s->shape.dp > 1; c++) {
            if (s->chunks[c] > most) {
                return ep_error_set(EP_EINVAL, "--overlap chunks:%lld: no rank has so many tokens in the case of "
                                    "%lld", (long long)s->chunks[c], (long long)most);
            }
        }
    }
    return EP_OK;
}

enum ep_status ep_layer_sweep_prepare(struct ep_layer_sweep *s, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    if (s->num_cases > 0) {
        return EP_OK;
    }
    for (int i = 0; i < s->num_parts; i++) {
        EP_TRY(ep_comm_sweep_prepare(s->parts[i].comm, session));
        EP_TRY(ep_comm_agree(session->world, append_cases(s, &s->parts[i])));
    }
    EP_TRY(ep_comm_agree(session->world, check_chunks(s)));
out:
    return status;
}

/* The part that a case is of. */
static const struct part *part_of(const struct ep_layer_sweep *s, int64_t case_idx)
{
    int i = s->num_parts - 1;
    while (s->parts[i].first_case > case_idx) {
        i--;
    }
    return &s->parts[i];
}

/* --- visits ----------------------------------------------------------------------------------- */

struct sweep_run {
    const struct ep_layer_sweep *sweep;
    struct ep_layer_visits visits;
    struct ep_layer_table *table; /* rank 0 */
    struct ep_overlap_table *overlaps;
};

static enum ep_status is_done(void *ctx, struct ep_session *session, int64_t idx, int64_t visit,
                              bool *done)
{
    enum ep_status status = EP_OK;
    const struct ep_layer_sweep *s = ((const struct sweep_run *)ctx)->sweep;
    const struct part *part = part_of(s, idx);
    char *name =
        ep_layer_case_name(session, &s->cases[idx], &s->shape,
                           ep_comm_sweep_routing_id(part->comm, idx - part->first_case));
    status = name == NULL ? ep_error_set(EP_ENOMEM, "no memory to resume") : EP_OK;
    EP_TRY(ep_comm_agree(session->world, status));
    EP_TRY(ep_session_is_done(session, name, visit, done, NULL));
out:
    free(name);
    return status;
}

static enum ep_status visit_one(void *ctx, struct ep_session *session, struct ep_comm *part,
                                int64_t idx, const struct ep_comm_effort *effort, int64_t visit)
{
    enum ep_status status = EP_OK;
    struct sweep_run *run = ctx;
    struct ep_record records[EP_LAYER_NUM_RECORDS];
    for (int i = 0; i < EP_LAYER_NUM_RECORDS; i++) {
        ep_record_init(&records[i], EP_RECORD_LAYER);
    }
    const struct ep_layer_remedy *remedy = part_of(run->sweep, idx)->remedy;
    run->visits.remedy = remedy != NULL ? remedy->name : NULL;
    EP_TRY(ep_layer_case_visit(&run->visits, part, &run->sweep->cases[idx], effort, visit, records));
    if (ep_comm_is_root(session->world)) {
        status = ep_layer_table_add(run->table, &records[EP_LAYER_ALL_RANKS]);
        status = status == EP_OK
                     ? ep_overlap_table_add(run->overlaps, &records[EP_LAYER_ALL_RANKS])
                     : status;
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    for (int i = 0; i < EP_LAYER_NUM_RECORDS; i++) {
        ep_record_fini(&records[i]);
    }
    return status;
}

static enum ep_status run_init(struct ep_layer_sweep *s, struct ep_session *session,
                               struct sweep_run *run)
{
    enum ep_status status = EP_OK;
    run->visits.session = session;
    run->visits.shape = &s->shape;
    run->visits.chunks = s->chunks;
    run->visits.num_chunks = s->num_chunks;
    EP_TRY(ep_layer_bank_create(session->options.seed, ep_comm_ranks_per_node(session->world),
                                &run->visits.bank));
    EP_TRY(ep_layer_table_create(&run->table));
    EP_TRY(ep_overlap_table_create(&run->overlaps));
    if (s->options.timeline != NULL && ep_comm_is_root(session->world)) {
        EP_TRY(ep_layer_timeline_create(&run->visits.timeline));
    }
out:
    return status;
}

static void run_fini(struct sweep_run *run)
{
    ep_comm_destroy(run->visits.single);
    ep_layer_bank_destroy(run->visits.bank);
    ep_layer_timeline_destroy(run->visits.timeline);
    ep_layer_table_destroy(run->table);
    ep_overlap_table_destroy(run->overlaps);
}

/* The table and the timeline; rank 0. */
static enum ep_status tell(const struct ep_layer_sweep *s, const struct sweep_run *run)
{
    enum ep_status status = EP_OK;
    if (!s->options.comm.quiet) {
        EP_TRY(ep_layer_table_print(run->table, stdout));
        EP_TRY(ep_overlap_table_print(run->overlaps, stdout));
    }
    if (run->visits.timeline != NULL) {
        EP_TRY(ep_layer_timeline_write(run->visits.timeline, s->options.timeline));
    }
out:
    return status;
}

enum ep_status ep_layer_sweep_run(struct ep_layer_sweep *s, struct ep_session *session)
{
    enum ep_status status = EP_OK;
    const struct ep_comm_options *o = &s->options.comm;
    struct sweep_run run = {.sweep = s};
    struct ep_comm_visits visits = {
        .name = "layer",
        .groups = s->options.tp * s->options.dp,
        .num_visits = o->num_visits,
        .case_s = o->case_s,
        .budget_s = o->budget_s,
        .effort = {.max_samples = o->max_samples, .warmup = o->warmup, .check = !o->no_check},
        .is_done = is_done,
        .visit = visit_one,
        .ctx = &run,
    };
    EP_TRY(ep_layer_sweep_prepare(s, session));
    EP_TRY(ep_comm_agree(session->world, run_init(s, session, &run)));
    EP_TRY(ep_comm_create_part(session->world, 1, false, &run.visits.single));
    visits.cases = s->cases;
    visits.num_cases = s->num_cases;
    ep_comm_style_tell(session, o, s->cases, s->num_cases);
    EP_TRY(ep_session_measure_null(session));
    EP_TRY(ep_comm_visits_run(&visits, session));
    EP_TRY(ep_comm_agree(session->world, ep_comm_is_root(session->world) ? tell(s, &run) : EP_OK));
out:
    run_fini(&run);
    return status;
}
