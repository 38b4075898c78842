/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that starts MPI, makes communicators and gathers. */
#include "bench/comm.h"

#include "bench/comm_mpi.h"
#include "bench/comm_settings.h"
#include "bench/harness.h"
#include "bench/simulated.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double simulated_gap_s = 1; /* longer than a reduction takes */

enum { MAX_TEXT_BYTES = 1 << 26, TAG_BYTES = 100, CLOCK_ROUND_TRIPS = 32 };

struct ep_comm {
    MPI_Comm handle;
    MPI_Comm node; /* the ranks of this node */
    int rank, size;
    int world_rank;
    int num_nodes;
    int algorithm; /* forced on it; 0 = the library's choice */
    int *node_of;  /* [size] */
};

enum ep_status ep_comm_check(int code, const char *call)
{
    if (code == MPI_SUCCESS) {
        return EP_OK;
    }
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return ep_error_set(EP_EMPI, "%s: %s", call, text);
}

#define MPI(call) ep_comm_check(call, #call)

MPI_Comm ep_comm_handle(const struct ep_comm *comm)
{
    return comm->handle;
}

/* Containers may forbid process_vm_readv, which Open MPI's single copy needs and does not check:
 * let a child try to read this process as another rank would. */
static bool single_copy_works(void)
{
    static volatile int word = 42;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* as the library does */
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == 0) {
        int copy = 0;
        const struct iovec to = {&copy, sizeof copy};
        const struct iovec from = {(void *)&word, sizeof word};
        const ssize_t got = process_vm_readv(parent, &to, 1, &from, 1, 0);
        _exit(got == (ssize_t)sizeof copy && copy == 42 ? 0 : 1);
    }
    int status = 0;
    return child < 0 || waitpid(child, &status, 0) < 0 || status == 0;
}

static void free_parts(struct ep_comm *c)
{
    if (c->node != MPI_COMM_NULL) {
        MPI_Comm_free(&c->node);
    }
    MPI_Comm_free(&c->handle);
    free(c->node_of);
}

/* Takes over `handle`. */
static enum ep_status wrap(MPI_Comm handle, struct ep_comm **comm)
{
    enum ep_status status = EP_OK;
    struct ep_comm c = {.handle = handle, .node = MPI_COMM_NULL};
    struct ep_comm *made = NULL;
    int *leaders = NULL;
    EP_TRY(MPI(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN)));
    EP_TRY(MPI(MPI_Comm_rank(handle, &c.rank)));
    EP_TRY(MPI(MPI_Comm_size(handle, &c.size)));
    EP_TRY(MPI(MPI_Comm_rank(MPI_COMM_WORLD, &c.world_rank)));
    c.node_of = calloc((size_t)c.size, sizeof *c.node_of);
    leaders = calloc((size_t)c.size, sizeof *leaders);
    made = calloc(1, sizeof *made);
    if (c.node_of == NULL || leaders == NULL || made == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for a communicator of %d ranks", c.size);
    }
    EP_TRY(ep_comm_agree(&c, status));
    EP_TRY(MPI(MPI_Comm_split_type(handle, MPI_COMM_TYPE_SHARED, c.rank, MPI_INFO_NULL, &c.node)));
    /* A node is named by its lowest rank; nodes are numbered in the order of those. */
    int leader = c.rank;
    EP_TRY(MPI(MPI_Bcast(&leader, 1, MPI_INT, 0, c.node)));
    EP_TRY(MPI(MPI_Allgather(&leader, 1, MPI_INT, leaders, 1, MPI_INT, handle)));
    for (int r = 0; r < c.size; r++) {
        c.node_of[r] = leaders[r] == r ? c.num_nodes++ : c.node_of[leaders[r]];
    }
    *made = c;
    *comm = made;
out:
    free(leaders);
    if (status != EP_OK) {
        free_parts(&c);
        free(made);
    }
    return status;
}

enum ep_status ep_comm_init(struct ep_comm **world)
{
    enum ep_status status = EP_OK;
    /* Only with this may an algorithm be forced later, per communicator. */
    setenv("OMPI_MCA_coll_tuned_use_dynamic_rules", "1", 0);
    if (!ep_simulated() && !single_copy_works()) {
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0); /* Open MPI 4 */
        setenv("OMPI_MCA_smsc", "^cma", 0);                            /* Open MPI 5 */
    }
    int provided = 0;
    EP_TRY(MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided)));
    EP_TRY(ep_comm_settings_start());
    MPI_Comm handle = MPI_COMM_NULL;
    EP_TRY(MPI(MPI_Comm_dup(MPI_COMM_WORLD, &handle)));
    EP_TRY(wrap(handle, world));
out:
    return status;
}

bool ep_comm_is_started(void)
{
    int is_initialized = 0;
    return MPI_Initialized(&is_initialized) == MPI_SUCCESS && is_initialized;
}

void ep_comm_finalize(struct ep_comm *world)
{
    int is_finalized = 0;
    ep_comm_destroy(world);
    if (ep_comm_is_started() && MPI_Finalized(&is_finalized) == MPI_SUCCESS && !is_finalized) {
        ep_comm_settings_stop();
        MPI_Finalize();
    }
}

void ep_comm_destroy(struct ep_comm *comm)
{
    if (comm != NULL) {
        free_parts(comm);
        free(comm);
    }
}

int ep_comm_rank(const struct ep_comm *comm)
{
    return comm->rank;
}

int ep_comm_size(const struct ep_comm *comm)
{
    return comm->size;
}

int ep_comm_world_rank(const struct ep_comm *comm)
{
    return comm->world_rank;
}

int ep_comm_num_nodes(const struct ep_comm *comm)
{
    return comm->num_nodes;
}

int ep_comm_node_of(const struct ep_comm *comm, int rank)
{
    EP_ASSERT(rank >= 0 && rank < comm->size);
    return comm->node_of[rank];
}

bool ep_comm_is_root(const struct ep_comm *comm)
{
    return comm->rank == 0;
}

int ep_comm_ranks_per_node(const struct ep_comm *comm)
{
    if (comm->size % comm->num_nodes != 0) {
        return 0;
    }
    const int each = comm->size / comm->num_nodes;
    for (int node = 0; node < comm->num_nodes; node++) {
        int num = 0;
        for (int r = 0; r < comm->size; r++) {
            num += comm->node_of[r] == node;
        }
        if (num != each) {
            return 0;
        }
    }
    return each;
}

enum ep_status ep_comm_create_part(struct ep_comm *comm, int num_ranks, bool spread,
                                   struct ep_comm **part)
{
    EP_ASSERT(num_ranks >= 1 && num_ranks <= comm->size);
    enum ep_status status = EP_OK;
    /* Packed order is (node, index on the node); spread order (index on the node, node). */
    int position = 0;
    for (int r = 0; r < comm->size; r++) {
        int index_r = 0;
        int index_own = 0;
        for (int q = 0; q < comm->size; q++) {
            index_r += q < r && comm->node_of[q] == comm->node_of[r];
            index_own += q < comm->rank && comm->node_of[q] == comm->node_of[comm->rank];
        }
        const int node_r = comm->node_of[r];
        const int node_own = comm->node_of[comm->rank];
        const bool before = spread ? index_r < index_own || (index_r == index_own && node_r < node_own)
                                   : node_r < node_own || (node_r == node_own && index_r < index_own);
        position += before;
    }
    MPI_Comm handle = MPI_COMM_NULL;
    EP_TRY(MPI(MPI_Comm_split(comm->handle, position < num_ranks ? 0 : MPI_UNDEFINED, position,
                              &handle)));
    *part = NULL;
    if (handle != MPI_COMM_NULL) {
        EP_TRY(wrap(handle, part));
    }
out:
    return status;
}

enum ep_status ep_comm_find_algorithm(const char *name, int *id)
{
    static const struct {
        const char *name;
        int id; /* Open MPI 4.1: the same numbers for alltoall and alltoallv */
    } algorithms[] = {{"default", 0}, {"linear", 1}, {"pairwise", 2}};
    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
        if (strcmp(name, algorithms[i].name) == 0) {
            *id = algorithms[i].id;
            return EP_OK;
        }
    }
    return ep_error_set(EP_EINVAL, "--algorithm: '%s' is not default, linear or pairwise (of MPI), "
                        "nor pull, pull-stream, push or push-stream (of shm)", name);
}

/* A communicator made by `color` and `key`, to which the library's all-to-all settings apply from now on:
 * it reads them as it makes one. */
static enum ep_status split(struct ep_comm *comm, int color, int key, int algorithm,
                            struct ep_comm **part)
{
    enum ep_status status = EP_OK;
    if (algorithm > 0) {
        const char *dynamic = getenv("OMPI_MCA_coll_tuned_use_dynamic_rules");
        const bool listens = dynamic != NULL && strcmp(dynamic, "0") != 0;
        if (!listens || !ep_comm_settings_write("coll_tuned_alltoallv_algorithm", algorithm) ||
            !ep_comm_settings_write("coll_tuned_alltoall_algorithm", algorithm)) {
            status = ep_simulated()
                         ? ep_error_set(EP_EENV, "--algorithm: the simulator was not started with it "
                                        "(scripts/simulate does; see smpi/alltoallv)")
                         : ep_error_set(EP_EENV, "--algorithm: this MPI library cannot be told which "
                                        "all-to-all to use (Open MPI with coll/tuned can)");
        }
        EP_TRY(ep_comm_agree(comm, status));
    }
    MPI_Comm handle = MPI_COMM_NULL;
    EP_TRY(MPI(MPI_Comm_split(comm->handle, color, key, &handle)));
    EP_TRY(wrap(handle, part));
    (*part)->algorithm = algorithm;
out:
    if (algorithm > 0) {
        (void)ep_comm_settings_write("coll_tuned_alltoallv_algorithm", 0);
        (void)ep_comm_settings_write("coll_tuned_alltoall_algorithm", 0);
    }
    return status;
}

enum ep_status ep_comm_create_forced(struct ep_comm *comm, const char *algorithm,
                                     struct ep_comm **forced)
{
    int id = 0;
    const enum ep_status status = ep_comm_find_algorithm(algorithm, &id);
    return status != EP_OK ? status : split(comm, 0, comm->rank, id, forced);
}

enum ep_status ep_comm_create_split(struct ep_comm *comm, int color, int key,
                                    struct ep_comm **part)
{
    return split(comm, color, key, comm->algorithm, part);
}

enum ep_status ep_comm_create_grouped(struct ep_comm *comm, int ranks_per_node,
                                      struct ep_comm **grouped)
{
    EP_ASSERT(ranks_per_node >= 1);
    enum ep_status status = EP_OK;
    struct ep_comm *c = NULL;
    EP_TRY(split(comm, 0, comm->rank, comm->algorithm, &c));
    MPI_Comm_free(&c->node);
    EP_TRY(MPI(MPI_Comm_split(c->handle, c->rank / ranks_per_node, c->rank, &c->node)));
    c->num_nodes = (c->size + ranks_per_node - 1) / ranks_per_node;
    for (int r = 0; r < c->size; r++) {
        c->node_of[r] = r / ranks_per_node;
    }
    *grouped = c;
    c = NULL;
out:
    ep_comm_destroy(c);
    return status;
}

enum ep_status ep_comm_agree(struct ep_comm *comm, enum ep_status local)
{
    enum ep_status status = EP_OK;
    /* The lowest failing rank speaks for all. */
    const int mine = local != EP_OK ? comm->rank : comm->size;
    int lowest = 0;
    EP_TRY(MPI(MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, comm->handle)));
    if (lowest == comm->size) {
        return EP_OK;
    }
    char text[1100] = "";
    int code = (int)local;
    if (comm->rank == lowest) {
        const char *spoken = ep_error_text();
        if (lowest == 0 || strncmp(spoken, "rank ", 5) == 0) {
            snprintf(text, sizeof text, "%.1000s", spoken);
        } else {
            snprintf(text, sizeof text, "rank %d: %.1000s", lowest, spoken);
        }
    }
    EP_TRY(MPI(MPI_Bcast(text, sizeof text, MPI_CHAR, lowest, comm->handle)));
    EP_TRY(MPI(MPI_Bcast(&code, 1, MPI_INT, lowest, comm->handle)));
    ep_error_clear();
    return ep_error_set((enum ep_status)code, "%s", text);
out:
    return status;
}

void ep_comm_abort(const struct ep_comm *comm, enum ep_status status, const char *text)
{
    fprintf(stderr, "epbench: rank %d: %s\n", comm->rank, text);
    fflush(NULL);
    MPI_Abort(MPI_COMM_WORLD, ep_status_exit_code(status));
    _exit(ep_status_exit_code(status));
}

enum ep_status ep_comm_barrier(struct ep_comm *comm)
{
    return MPI(MPI_Barrier(comm->handle));
}

enum ep_status ep_comm_wait_idle(struct ep_comm *comm)
{
    enum ep_status status = EP_OK;
    const struct timespec nap = {.tv_nsec = 200000};
    MPI_Request request = MPI_REQUEST_NULL;
    int is_done = 0;
    EP_TRY(MPI(MPI_Ibarrier(comm->handle, &request)));
    EP_TRY(MPI(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE)));
    while (!is_done) {
        nanosleep(&nap, NULL);
        EP_TRY(MPI(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE)));
    }
out:
    return status;
}

/* One rank against rank 0: `theirs` answers each message with its clock. */
static enum ep_status compare_with(struct ep_comm *comm, int theirs, double *offset_s,
                                   double *error_s)
{
    enum ep_status status = EP_OK;
    double told[2] = {0, HUGE_VAL}; /* offset, half a round trip */
    for (int i = 0; i < CLOCK_ROUND_TRIPS; i++) {
        double clock_s = 0;
        if (comm->rank == theirs) {
            EP_TRY(ep_comm_recv(comm, 0, &clock_s, sizeof clock_s));
            clock_s = ep_comm_now_s();
            EP_TRY(ep_comm_send(comm, 0, &clock_s, sizeof clock_s));
            continue;
        }
        const double start_s = ep_comm_now_s();
        EP_TRY(ep_comm_send(comm, theirs, &clock_s, sizeof clock_s));
        EP_TRY(ep_comm_recv(comm, theirs, &clock_s, sizeof clock_s));
        const double half_s = (ep_comm_now_s() - start_s) / 2;
        if (half_s < told[1]) {
            told[0] = start_s + half_s - clock_s;
            told[1] = half_s;
        }
    }
    EP_TRY(comm->rank == 0 ? ep_comm_send(comm, theirs, told, sizeof told)
                           : ep_comm_recv(comm, 0, told, sizeof told));
    if (comm->rank == theirs) {
        *offset_s = told[0];
        *error_s = told[1];
    }
out:
    return status;
}

enum ep_status ep_comm_compare_clocks(struct ep_comm *comm, double *offset_s, double *error_s)
{
    enum ep_status status = EP_OK;
    *offset_s = 0;
    *error_s = 0;
    for (int r = 1; r < comm->size; r++) {
        const bool is_far = comm->node_of[r] != comm->node_of[0];
        if (is_far && (comm->rank == 0 || comm->rank == r)) {
            EP_TRY(compare_with(comm, r, offset_s, error_s));
        }
    }
out:
    return status;
}

static enum ep_status reduce(struct ep_comm *comm, void *values, int64_t num, MPI_Datatype type,
                             MPI_Op op)
{
    EP_ASSERT(num >= 0 && num <= INT_MAX);
    return ep_comm_check(MPI_Allreduce(MPI_IN_PLACE, values, (int)num, type, op, comm->handle),
                         "MPI_Allreduce");
}

enum ep_status ep_comm_max_f64(struct ep_comm *comm, double *values, int64_t num)
{
    return reduce(comm, values, num, MPI_DOUBLE, MPI_MAX);
}

enum ep_status ep_comm_sum_f64(struct ep_comm *comm, double *values, int64_t num)
{
    return reduce(comm, values, num, MPI_DOUBLE, MPI_SUM);
}

enum ep_status ep_comm_sum_f32(struct ep_comm *comm, float *values, int64_t num)
{
    return reduce(comm, values, num, MPI_FLOAT, MPI_SUM);
}

enum ep_status ep_comm_max_i64(struct ep_comm *comm, int64_t *values, int64_t num)
{
    return reduce(comm, values, num, MPI_INT64_T, MPI_MAX);
}

enum ep_status ep_comm_sum_i64(struct ep_comm *comm, int64_t *values, int64_t num)
{
    return reduce(comm, values, num, MPI_INT64_T, MPI_SUM);
}

enum ep_status ep_comm_allgather_f64(struct ep_comm *comm, const double *values, int64_t num,
                                     double *all)
{
    EP_ASSERT(num >= 0 && num <= INT_MAX / comm->size);
    return MPI(MPI_Allgather(values, (int)num, MPI_DOUBLE, all, (int)num, MPI_DOUBLE,
                             comm->handle));
}

enum ep_status ep_comm_allgather_i64(struct ep_comm *comm, const int64_t *values, int64_t num,
                                     int64_t *all)
{
    EP_ASSERT(num >= 0 && num <= INT_MAX / comm->size);
    return MPI(MPI_Allgather(values, (int)num, MPI_INT64_T, all, (int)num, MPI_INT64_T,
                             comm->handle));
}

enum ep_status ep_comm_bcast_text(struct ep_comm *comm, int root, char **text)
{
    enum ep_status status = EP_OK;
    char *copy = comm->rank == root ? *text : NULL;
    int64_t length = comm->rank == root ? (int64_t)strlen(*text) : 0;
    EP_TRY(MPI(MPI_Bcast(&length, 1, MPI_INT64_T, root, comm->handle)));
    if (length >= MAX_TEXT_BYTES) {
        return ep_error_set(EP_EINVAL, "a text of %lld bytes is too long to send",
                            (long long)length);
    }
    if (comm->rank != root) {
        copy = malloc((size_t)length + 1);
        status = copy == NULL ? ep_error_set(EP_ENOMEM, "no memory for a text") : EP_OK;
    }
    EP_TRY(ep_comm_agree(comm, status));
    EP_TRY(MPI(MPI_Bcast(copy, (int)length + 1, MPI_CHAR, root, comm->handle)));
    if (comm->rank != root) {
        free(*text);
        *text = copy;
    }
    return EP_OK;
out:
    if (comm->rank != root) {
        free(copy);
    }
    return status;
}

enum ep_status ep_comm_allgather_text(struct ep_comm *comm, const char *text, char ***texts)
{
    enum ep_status status = EP_OK;
    char **all = calloc((size_t)comm->size, sizeof *all);
    if (all != NULL) {
        all[comm->rank] = strdup(text);
    }
    if (all == NULL || all[comm->rank] == NULL) {
        status = ep_error_set(EP_ENOMEM, "no memory for texts of %d ranks", comm->size);
    }
    EP_TRY(ep_comm_agree(comm, status));
    for (int r = 0; r < comm->size; r++) {
        EP_TRY(ep_comm_bcast_text(comm, r, &all[r]));
    }
    *texts = all;
    all = NULL;
out:
    if (all != NULL) {
        ep_comm_free_texts(all, comm->size);
    }
    return status;
}

void ep_comm_free_texts(char **texts, int num)
{
    for (int i = 0; texts != NULL && i < num; i++) {
        free(texts[i]);
    }
    free(texts);
}

enum ep_status ep_comm_send(struct ep_comm *comm, int to, const void *data, int64_t size_bytes)
{
    EP_ASSERT(size_bytes >= 0 && size_bytes <= INT_MAX);
    return MPI(MPI_Send(data, (int)size_bytes, MPI_BYTE, to, TAG_BYTES, comm->handle));
}

enum ep_status ep_comm_recv(struct ep_comm *comm, int from, void *data, int64_t size_bytes)
{
    EP_ASSERT(size_bytes >= 0 && size_bytes <= INT_MAX);
    return MPI(MPI_Recv(data, (int)size_bytes, MPI_BYTE, from, TAG_BYTES, comm->handle,
                        MPI_STATUS_IGNORE));
}

static int64_t count_limit = INT_MAX;

int64_t ep_comm_count_limit(void)
{
    return count_limit;
}

void ep_comm_set_count_limit(int64_t limit)
{
    EP_ASSERT(limit >= 1 && limit <= INT_MAX);
    count_limit = limit;
}

enum ep_status ep_comm_to_int(const int64_t *values, int64_t num, const char *what, int *out)
{
    for (int64_t i = 0; i < num; i++) {
        if (values[i] < 0 || values[i] > count_limit) {
            return ep_error_set(EP_EINVAL, "%s: %lld is over what MPI's int counts (%lld)", what,
                                (long long)values[i], (long long)count_limit);
        }
        out[i] = (int)values[i];
    }
    return EP_OK;
}

enum ep_status ep_comm_type_of_row(int64_t row_bytes, MPI_Datatype *type)
{
    enum ep_status status = EP_OK;
    if (row_bytes < 1 || row_bytes > INT_MAX) {
        return ep_error_set(EP_EINVAL, "a row of %lld bytes: 1 to %d are possible",
                            (long long)row_bytes, INT_MAX);
    }
    EP_TRY(MPI(MPI_Type_contiguous((int)row_bytes, MPI_BYTE, type)));
    EP_TRY(MPI(MPI_Type_commit(type)));
out:
    return status;
}

const char *ep_comm_mpi_version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

double ep_comm_now_s(void)
{
    struct timespec now;
    if (ep_simulated()) {
        return ep_simulated_now_s();
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double ep_comm_clock_resolution_s(void)
{
    double smallest = HUGE_VAL;
    if (ep_simulated()) {
        return ep_simulated_step_s();
    }
    double last = ep_comm_now_s();
    for (int steps = 0; steps < 1000;) {
        const double now = ep_comm_now_s();
        if (now > last) {
            smallest = fmin(smallest, now - last);
            last = now;
            steps++;
        }
    }
    return smallest;
}

static double hook_now_s(void *ctx)
{
    (void)ctx;
    return ep_comm_now_s();
}

/* Ranks leave a barrier one after the other; simulated ones can be made to begin at one moment. */
static enum ep_status hook_sync(void *ctx)
{
    enum ep_status status = EP_OK;
    EP_TRY(ep_comm_barrier(ctx));
    if (ep_simulated()) {
        double begin_s = ep_simulated_now_s() + simulated_gap_s;
        EP_TRY(ep_comm_max_f64(ctx, &begin_s, 1));
        ep_simulated_wait_until(begin_s);
    }
out:
    return status;
}

static enum ep_status hook_max(void *ctx, double *values, int64_t num)
{
    return ep_comm_max_f64(ctx, values, num);
}

static enum ep_status hook_agree(void *ctx, enum ep_status local)
{
    return ep_comm_agree(ctx, local);
}

struct ep_harness_env ep_comm_harness_env(struct ep_comm *comm)
{
    return (struct ep_harness_env){hook_now_s, hook_sync, hook_max, hook_agree, comm};
}
