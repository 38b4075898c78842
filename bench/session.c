/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a measuring session. */
#include "bench/session.h"

#include "base/options.h"
#include "bench/launch.h"
#include "bench/session_agree.h"
#include "bench/session_doubts.h"
#include "bench/simulated.h"
#include "bench/session_visits.h"
#include "bench/version.h"
#include "base/file.h"
#include "topologies/machine.h"
#include "topologies/restrictions.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SIMULATED_CORES = 8 };
static const char simulated_host[] = "core:8 pu:1";

static volatile sig_atomic_t interrupt_seen;

static void on_interrupt(int number)
{
    (void)number;
    interrupt_seen = 1;
}

double ep_session_utc_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The XML of each node's first rank goes to every rank; the others send nothing. A simulated host is but a name. */
static enum ep_status gather_xml(struct ep_comm *world, char ***xmls)
{
    enum ep_status status = EP_OK;
    char **texts = NULL;
    char *own = NULL;
    size_t length = 0;
    const int rank = ep_comm_rank(world);
    const int node = ep_comm_node_of(world, rank);
    bool first = true;
    for (int r = 0; r < rank; r++) {
        first = first && ep_comm_node_of(world, r) != node;
    }
    if (first && !ep_simulated()) {
        status = ep_machine_discover_xml(&own, &length);
    }
    EP_TRY(ep_comm_agree(world, status));
    EP_TRY(ep_comm_allgather_text(world, own != NULL               ? own
                                         : first && ep_simulated() ? ep_simulated_host()
                                                                   : "", &texts));
    *xmls = texts;
out:
    free(own);
    return status;
}

static enum ep_status create_topology(struct ep_session *s, char **xmls, char **cpusets)
{
    enum ep_status status = EP_OK;
    const int size = ep_comm_size(s->world);
    const int num_nodes = ep_comm_num_nodes(s->world);
    struct ep_topo_xml *hosts = calloc((size_t)num_nodes, sizeof *hosts);
    struct ep_topo_binding *bindings = calloc((size_t)size, sizeof *bindings);
    char *simulated = NULL;
    size_t simulated_length = 0;
    if (hosts == NULL || bindings == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for %d ranks", size);
        goto out;
    }
    if (ep_simulated()) {
        EP_TRY(ep_machine_synthesize_xml(simulated_host, &simulated, &simulated_length));
    }
    for (int r = 0; r < size; r++) {
        const int node = ep_comm_node_of(s->world, r);
        if (xmls[r][0] != '\0') {
            hosts[node] = simulated != NULL
                              ? (struct ep_topo_xml){simulated, simulated_length, NULL}
                              : (struct ep_topo_xml){xmls[r], strlen(xmls[r]), NULL};
        }
        bindings[r] = (struct ep_topo_binding){node, cpusets[r]};
    }
    EP_TRY(ep_topo_create(hosts, num_nodes, bindings, size, &s->topo));
    for (int r = 0; simulated != NULL && r < size; r++) { /* what the description has no place for */
        struct ep_topo_host *host = &s->topo->hosts[ep_comm_node_of(s->world, r)];
        if (xmls[r][0] != '\0') {
            snprintf(host->name, sizeof host->name, "%s", xmls[r]);
        }
    }
out:
    free(simulated);
    free(hosts);
    free(bindings);
    return status;
}

/* Each rank of a simulated host has a core. */
static enum ep_status bind_simulated(const struct ep_comm *world, char **cpuset)
{
    int index = 0;
    for (int r = 0; r < ep_comm_rank(world); r++) {
        index += ep_comm_node_of(world, r) == ep_comm_node_of(world, ep_comm_rank(world));
    }
    *cpuset = ep_format_new("%d", index % SIMULATED_CORES);
    return *cpuset != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for a binding");
}

static enum ep_status gather_topology(struct ep_session *s, char ***cpusets)
{
    enum ep_status status = EP_OK;
    char **xmls = NULL;
    char *binding = NULL;
    status = ep_simulated() ? bind_simulated(s->world, &binding) : ep_machine_discover_binding(&binding);
    EP_TRY(ep_comm_agree(s->world, status));
    EP_TRY(ep_comm_allgather_text(s->world, binding, cpusets));
    EP_TRY(gather_xml(s->world, &xmls));
    EP_TRY(ep_comm_agree(s->world, create_topology(s, xmls, *cpusets)));
out:
    free(binding);
    ep_comm_free_texts(xmls, ep_comm_size(s->world));
    return status;
}

static enum ep_status describe_machine(struct ep_session *s)
{
    enum ep_status status = EP_OK;
    if (ep_simulated()) {
        char text[192];
        ep_simulated_describe(text, sizeof text);
        return ep_record_set_text(&s->run.machine, "%s", text);
    }
    const struct ep_machine *machine = s->topo->hosts[0].machine;
    const double memory_bytes =
        (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    EP_TRY(ep_record_set_text(&s->run.machine, "%s, %lld package%s, %lld core%s, %.1f GiB memory",
                              machine->model[0] != '\0' ? machine->model : "unknown CPU",
                              (long long)machine->num_packages, machine->num_packages == 1 ? "" : "s",
                              (long long)machine->num_cores, machine->num_cores == 1 ? "" : "s",
                              memory_bytes / 0x1p30));
    for (int64_t i = 0; i < machine->num_caches; i++) {
        const struct ep_machine_cache *cache = &machine->caches[i];
        EP_TRY(ep_record_add_note(&s->run.machine_facts, cache->name,
                                  "%lld KiB, %lld of them, shared by up to %lld cores",
                                  (long long)cache->max_size_bytes / 1024, (long long)cache->num,
                                  (long long)cache->max_num_cores));
    }
    for (int64_t i = 0; i < machine->num_devices; i++) {
        const struct ep_machine_device *device = &machine->devices[i];
        EP_TRY(ep_record_add_note(&s->run.machine_facts, ep_device_kind_name(device->kind),
                                  "%s %s %s", device->name, device->model, device->busid));
    }
    EP_TRY(ep_session_add_facts(&s->run));
out:
    return status;
}

static enum ep_status fill_run(struct ep_session *s, int argc, char **argv, char **cpusets)
{
    enum ep_status status = EP_OK;
    struct ep_run *run = &s->run;
    run->start_utc_s = ep_session_utc_s();
    run->num_ranks = ep_comm_size(s->world);
    run->num_nodes = ep_comm_num_nodes(s->world);
    run->ranks_per_node = ep_comm_ranks_per_node(s->world);
    run->seed = (int64_t)s->options.seed;
    EP_TRY(ep_record_set_text(&run->version, "%s", ep_version()));
    EP_TRY(ep_record_set_text(&run->compiler, "%s", ep_version_compiler()));
    EP_TRY(ep_record_set_text(&run->flags, "%s", ep_version_flags()));
    EP_TRY(ep_record_set_text(&run->mpi_version, "%s", ep_comm_mpi_version()));
    EP_TRY(ep_record_set_text(&run->host, "%s", s->host));
    if (s->options.profile != NULL) {
        EP_TRY(ep_record_set_text(&run->profile, "%s", s->options.profile));
    }
    if (s->options.comm_ranks != NULL) {
        EP_TRY(ep_record_set_text(&run->comm_ranks, "%s", s->options.comm_ranks));
    }
    if (s->options.comm_rank_order != NULL) {
        EP_TRY(ep_record_set_text(&run->comm_rank_order, "%s", s->options.comm_rank_order));
    }
    for (const char *const *setting = ep_comm_mpi_settings(); *setting != NULL; setting++) {
        const char *equals = strchr(*setting, '=');
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(equals - *setting), *setting);
        EP_TRY(ep_record_add_note(&run->mpi_settings, name, "%s", equals + 1));
    }
    for (int r = 0; r < ep_comm_size(s->world); r++) {
        const int node = ep_comm_node_of(s->world, r);
        EP_TRY(ep_run_add_rank(run, r, s->topo->hosts[node].name, node, cpusets[r]));
    }
    EP_TRY(ep_run_add_command(run, argc, argv, run->start_utc_s));
    EP_TRY(describe_machine(s));
out:
    return status;
}

/* Rank 0: create the run, or read the one to append to. */
static enum ep_status open_directory(struct ep_session *s, int argc, char **argv, char **cpusets)
{
    enum ep_status status = EP_OK;
    ep_run_init(&s->run);
    if (s->options.append != NULL) {
        EP_TRY(ep_run_read(s->options.append, &s->run));
        EP_TRY(ep_run_add_command(&s->run, argc, argv, ep_session_utc_s()));
        EP_TRY(ep_run_dir_append(s->options.append, &s->dir));
        s->writes = true;
        EP_TRY(ep_session_read_visits(s));
        if (s->dir.dropped_bytes > 0) {
            ep_session_warn(s, "truncated-record", "%s: a record cut short by a crash "
                            "(%lld bytes) was removed", s->options.append,
                            (long long)s->dir.dropped_bytes);
        }
        return EP_OK;
    }
    EP_TRY(fill_run(s, argc, argv, cpusets));
    if (s->options.output != NULL || s->options.keep) {
        EP_TRY(ep_run_dir_create(s->options.output, &s->run, &s->dir));
        s->writes = true;
        char *path = ep_path_join(s->dir.path, "topology.xml");
        if (path == NULL) {
            status = ep_error_set(EP_ENOMEM, "no memory");
            goto out;
        }
        status = ep_file_write(path, s->topo->hosts[0].xml, s->topo->hosts[0].xml_length);
        free(path);
    }
out:
    return status;
}

static void destroy(struct ep_session *s)
{
    ep_session_forget_visits(s);
    ep_run_dir_fini(&s->dir);
    ep_run_fini(&s->run);
    ep_arena_destroy(s->arena);
    ep_share_destroy(s->share);
    ep_topo_destroy(s->topo);
    ep_comm_destroy(s->world); /* main leaves MPI, once everything is said */
    free(s);
}

/* The arena, in shared memory where a transport of this session wants that and the system can. */
static enum ep_status reserve(struct ep_session *s)
{
    const struct ep_session_options *o = &s->options;
    enum ep_status status = EP_OK;
    if (o->shares) {
        status = ep_share_create(s->world, o->memory_bytes, &s->share);
        if (status == EP_EENV) {
            ep_session_warn(s, "private-buffers", "buffers cannot be in shared memory: %s; transports "
                            "that need it are left out", ep_error_text());
            ep_error_clear();
            status = EP_OK;
        }
        EP_TRY(status);
    }
    status = s->share != NULL
                 ? ep_arena_create_in(ep_share_segment(s->share, ep_comm_world_rank(s->world)),
                                      o->memory_bytes, o->pages, &s->arena)
             : ep_simulated() && o->unchecked
                 ? ep_arena_create_folded(o->memory_bytes, &s->arena)
                 : ep_arena_create(o->memory_bytes, o->pages, &s->arena);
    EP_TRY(ep_comm_agree(s->world, status));
out:
    return status;
}

enum ep_status ep_session_open(int argc, char **argv, const struct ep_session_options *options,
                               struct ep_session **session)
{
    enum ep_status status = EP_OK;
    char **cpusets = NULL;
    if (ep_options_launcher_rank() < 0) {
        if (options->output != NULL && access(options->output, F_OK) == 0) { /* before ranks are started */
            return ep_error_set(EP_EINVAL, "%s: exists already; name a new directory, or add to this one by "
                                "--append (nothing is written over)", options->output);
        }
        const struct ep_launch_plan plan = {
            .num_ranks = options->num_ranks,
            .launcher = options->launcher,
            .threads = options->threads,
            .num_launches = options->num_launches,
            .output = options->output,
            .append = options->append,
        };
        return ep_launch(&plan, argc, argv);
    }
    if (options->num_launches > 1 && options->launch_idx < 0) {
        return ep_error_set(EP_EINVAL, "--launches: start epbench without mpirun, so that it can start "
                            "mpirun again and again");
    }
    struct ep_session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a session");
    }
    s->options = *options;
    s->options.launch_idx = options->launch_idx < 0 ? 0 : options->launch_idx;
    s->null_s = NAN;
    s->null_cadence_s = NAN;
    ep_run_init(&s->run);
    EP_TRY(ep_comm_init(&s->world));
    EP_TRY(ep_session_agree_start(s->world, argc, argv));
    if (options->needed_ranks > ep_comm_size(s->world)) {
        status = ep_error_set(EP_EINVAL, "--ranks %" PRId64 ": only %d were started (-n)",
                              options->needed_ranks, ep_comm_size(s->world));
        goto out;
    }
    s->clock_step_s = ep_comm_clock_resolution_s();
    EP_TRY(gather_topology(s, &cpusets));
    snprintf(s->host, sizeof s->host, "%s", s->topo->hosts[0].name);
    if (s->host[0] == '\0' && gethostname(s->host, sizeof s->host - 1) != 0) {
        snprintf(s->host, sizeof s->host, "unknown");
    }
    if (ep_comm_is_root(s->world)) {
        status = open_directory(s, argc, argv, cpusets);
    }
    EP_TRY(ep_comm_agree(s->world, status));
    int64_t writes = s->writes;
    EP_TRY(ep_comm_max_i64(s->world, &writes, 1));
    s->writes = writes != 0;
    int64_t shared[2] = {s->done_kinds, s->options.resume ? s->run.seed : 0};
    EP_TRY(ep_comm_max_i64(s->world, shared, 2));
    s->done_kinds = (unsigned)shared[0];
    s->options.seed = s->options.resume ? (uint64_t)shared[1] : s->options.seed;
    EP_TRY(reserve(s));
    EP_TRY(ep_session_find_doubts(s));
    const struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    ep_comm_free_texts(cpusets, ep_comm_size(s->world));
    *session = s;
    return EP_OK;
out:
    if (cpusets != NULL) {
        ep_comm_free_texts(cpusets, ep_comm_size(s->world));
    }
    destroy(s);
    return status;
}

enum ep_status ep_session_close(struct ep_session *s)
{
    if (s == NULL) {
        return EP_OK;
    }
    enum ep_status status = EP_OK;
    if (s->dir.path != NULL) {
        status = ep_run_dir_write_run(&s->dir, &s->run);
    }
    if (status == EP_OK && s->num_failed_checks > 0) {
        status = ep_error_set(EP_ECHECK, "%lld records failed their check: rows were wrong, "
                              "missing or doubled", (long long)s->num_failed_checks);
    }
    if (status == EP_OK && s->num_lost_notes > 0) {
        status = ep_error_set(EP_ENOMEM, "no memory for %d warnings: run.json lacks them",
                              s->num_lost_notes);
    }
    if (status == EP_OK && s->interrupted) {
        char later[64] = "";
        if (s->stages_left > 0) {
            snprintf(later, sizeof later, "; %" PRId64 " later stages were not begun",
                     s->stages_left);
        }
        status = ep_error_set(EP_ECHECK, "stopped by a signal: %" PRId64 " of %" PRId64 " visits were "
                              "measured and are kept%s", s->visits_done, s->visits_asked, later);
    }
    destroy(s);
    return status;
}

static bool has_note(const struct ep_record_notes *notes, const char *name)
{
    for (int64_t i = 0; i < notes->num; i++) {
        if (strcmp(notes->items[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Text of a note; where it cannot be kept, the session's end says so: it was printed, and no other rank
 * should wait for a rank 0 that stumbled over a remark. */
static void keep_note(struct ep_session *s, struct ep_record_notes *notes, const char *label,
                      const char *name, const char *format, va_list args)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "%s: %s: %s\n", label, name, text);
    if (ep_record_add_note(notes, name, "%s", text) != EP_OK) {
        ep_error_clear();
        s->num_lost_notes++;
    }
}

void ep_session_warn(struct ep_session *s, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (ep_comm_is_root(s->world) && !has_note(&s->run.warnings, name)) {
        keep_note(s, &s->run.warnings, "warning", name, format, args);
    }
    va_end(args);
}

void ep_session_skip(struct ep_session *s, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (ep_comm_is_root(s->world)) {
        keep_note(s, &s->run.skipped, "skipped", name, format, args);
    }
    va_end(args);
}

static enum ep_status null_run(void *ctx)
{
    (void)ctx;
    return EP_OK;
}

static enum ep_status measure_null(struct ep_session *s, enum ep_cadence cadence, double *null_s)
{
    enum ep_status status = EP_OK;
    struct ep_harness_result result = {0};
    const struct ep_harness_env env = ep_comm_harness_env(s->world);
    const struct ep_harness_work work = {.run = null_run};
    struct ep_harness_plan plan = ep_harness_plan_default(0.2);
    plan.min_samples = 1000;
    plan.max_samples = ep_simulated() ? 1 : 10000;
    plan.cadence = cadence;
    plan.stream_repetitions = EP_SESSION_STREAM_REPETITIONS;
    EP_TRY(ep_harness_measure(&env, &work, &plan, &result));
    *null_s = result.summary.median;
out:
    ep_harness_result_fini(&result);
    return status;
}

/* A block of a stream shares one pair of clock reads, so its repetitions cost less. */
enum ep_status ep_session_measure_null(struct ep_session *s)
{
    if (!isnan(s->null_s)) {
        return EP_OK;
    }
    double own_s = NAN;
    enum ep_status status = measure_null(s, s->options.cadence, &own_s);
    EP_TRY(status);
    EP_TRY(measure_null(s, EP_CADENCE_BARRIER, &s->null_s));
    s->null_cadence_s = own_s;
out:
    return status;
}

static enum ep_status barrier_run(void *ctx)
{
    return ep_comm_barrier(ctx);
}

enum ep_status ep_session_probe_distance(struct ep_session *s)
{
    enum ep_status status = EP_OK;
    struct ep_harness_result result = {0};
    const struct ep_harness_env env = ep_comm_harness_env(s->world);
    const struct ep_harness_work work = {.run = barrier_run, .ctx = s->world};
    struct ep_harness_plan plan = ep_harness_plan_default(1);
    plan.min_samples = plan.max_samples = 200;
    if (ep_comm_size(s->world) == 1 || ep_simulated()) {
        return EP_OK;
    }
    EP_TRY(ep_harness_measure(&env, &work, &plan, &result));
    const double median_s = result.summary.median;
    s->barrier_low_s = s->barrier_low_s > 0 ? fmin(s->barrier_low_s, median_s) : median_s;
    s->barrier_high_s = fmax(s->barrier_high_s, median_s);
    if (s->barrier_high_s > 1.5 * s->barrier_low_s) {
        ep_session_warn(s, "moving-ranks", "a barrier took %.2f us at one time and %.2f us at "
                        "another: the distance between ranks changes during the run (virtual "
                        "CPUs that are moved between host cores?), so visits of one case "
                        "differ; trust medians over many visits", s->barrier_low_s * 1e6,
                        s->barrier_high_s * 1e6);
    }
out:
    ep_harness_result_fini(&result);
    return status;
}

enum ep_status ep_session_begin_record(struct ep_session *s, const struct ep_comm *comm,
                                       struct ep_record *record)
{
    enum ep_status status = EP_OK;
    record->launch_idx = s->options.launch_idx;
    record->start_utc_s = ep_session_utc_s();
    record->ranks = ep_comm_size(comm);
    record->nodes = ep_comm_num_nodes(comm);
    record->ranks_per_node = ep_comm_ranks_per_node(comm);
    record->seed = (int64_t)s->options.seed;
    record->threads = s->options.threads;
    record->null_s = s->null_s;
    EP_TRY(ep_record_set_text(&record->host, "%s", s->host));
    EP_TRY(ep_record_set_text(&record->rank_order, "packed"));
    EP_TRY(ep_record_set_text(&record->cadence, "%s",
                              s->options.cadence == EP_CADENCE_STREAM ? "stream" : "barrier"));
    EP_TRY(ep_record_set_text(&record->pages, "%s", ep_pages_name(s->options.pages)));
out:
    return status;
}

enum ep_status ep_session_add_record(struct ep_session *s, struct ep_record *record)
{
    enum ep_status status = EP_OK;
    if (ep_comm_is_root(s->world) && record != NULL) {
        if (record->check.wrong > 0 || record->check.missing > 0 || record->check.doubled > 0) {
            s->num_failed_checks++;
        }
        record->order_idx = s->order_idx++;
        status = ep_session_number_visit(s, record);
        if (status == EP_OK && s->writes) {
            status = ep_run_dir_add_record(&s->dir, record);
        }
    }
    return ep_comm_agree(s->world, status);
}

enum ep_status ep_session_interrupted(struct ep_session *s, bool *interrupted)
{
    int64_t seen = interrupt_seen;
    const enum ep_status status = ep_comm_max_i64(s->world, &seen, 1);
    *interrupted = seen != 0;
    s->interrupted = s->interrupted || *interrupted;
    return status;
}
