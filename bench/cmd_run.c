/* SPDX-License-Identifier: Apache-2.0 */
/* epbench run: the whole suite on this allocation, one stage after the other, on one directory. */
#include "base/options.h"
#include "base/units.h"
#include "bench/bare.h"
#include "bench/comm_sweep.h"
#include "bench/kernels_suite.h"
#include "bench/layer_sweep.h"
#include "bench/links_sweep.h"
#include "bench/profiles.h"
#include "bench/repeat.h"
#include "bench/suite_scale.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table of commands in epbench.c declares them likewise. */
enum ep_status ep_cmd_run(int argc, char **argv);
enum ep_status ep_cmd_fit(int argc, char **argv);
enum ep_status ep_cmd_report(int argc, char **argv);

enum { KEY_PROFILE = 3000, KEY_RESUME, KEY_REPEAT, KEY_RANKS, KEY_RANK_ORDER };
enum { MAX_SWEEPS = sizeof ((struct ep_profile *)0)->comm / sizeof(struct ep_comm_options) };

struct input {
    struct ep_session_options session;
    const struct ep_profile *profile;
    const char *repeat; /* record id; NULL = the whole profile */
    struct ep_run resumed; /* run.json of --resume */
};

/* What the stages share. The sweeps are made first: what cannot be is told before it is waited for. */
struct suite {
    const struct ep_profile *profile;
    struct ep_comm_sweep *sweeps[MAX_SWEEPS]; /* NULL where the profile has none */
    struct ep_comm_options comm[MAX_SWEEPS];  /* of them */
    char *tokens[MAX_SWEEPS];                 /* in place of the profile's, where links are slow */
    char *skews[MAX_SWEEPS];                  /* the profile's and more, on several nodes */
    struct ep_layer_sweep *layer;
    double seconds_per_byte; /* of the slowest level; 0 = not measured */
};

static enum ep_status check_options(const struct input *input)
{
    const struct ep_session_options *session = &input->session;
    if (session->resume && (session->output != NULL || input->repeat != NULL)) {
        return ep_error_set(EP_EINVAL, "--resume goes on in its own directory: without -o and "
                            "--repeat");
    }
    if ((session->resume || input->repeat != NULL) &&
        (session->comm_ranks != NULL || session->comm_rank_order != NULL)) {
        return ep_error_set(EP_EINVAL, "--ranks and --rank-order are those of the run: without them "
                            "for --resume and --repeat");
    }
    if (input->repeat != NULL && session->append == NULL) {
        return ep_error_set(EP_EINVAL, "--repeat RECORD_ID needs --append DIR, the run that has the "
                            "record");
    }
    return EP_OK;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *input = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &input->session;
        return 0;
    case KEY_RESUME:
        input->session.append = arg;
        input->session.resume = true;
        return 0;
    case KEY_REPEAT:
        input->repeat = arg;
        return 0;
    case KEY_RANKS:
        input->session.comm_ranks = arg;
        return 0;
    case KEY_RANK_ORDER:
        input->session.comm_rank_order = arg;
        return 0;
    case ARGP_KEY_SUCCESS:
        return check_options(input) == EP_OK ? 0 : EINVAL;
    case KEY_PROFILE:
        input->session.profile = arg;
        return ep_profile_find(arg, &input->profile) == EP_OK ? 0 : EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"profile", KEY_PROFILE, "NAME", 0,
     "smoke (20 seconds, to see that all runs), quick (2 minutes), standard (15 minutes) or full (2 "
     "hours); default quick", 1},
    {"ranks", KEY_RANKS, "LIST", 0,
     "measure dispatch and combine on the first so many ranks, e.g. 2,4,8 (default: all ranks)", 1},
    {"ep", KEY_RANKS, "LIST", OPTION_ALIAS, NULL, 1},
    {"rank-order", KEY_RANK_ORDER, "packed|spread", 0,
     "--ranks fills node after node, or goes round the nodes (default packed)", 1},
    {"resume", KEY_RESUME, "DIR", 0, "finish the run in DIR: only what it lacks is measured", 1},
    {"repeat", KEY_REPEAT, "RECORD_ID", 0,
     "measure the point of one comm record of the run in --append DIR again", 1},
    {0},
};

static enum ep_status run_topo(struct ep_session *s, struct suite *suite)
{
    (void)suite;
    if (ep_comm_is_root(s->world)) {
        printf("machine: %s\nranks: %d on %d node%s, %s\n", s->run.machine, ep_comm_size(s->world),
               ep_comm_num_nodes(s->world), ep_comm_num_nodes(s->world) == 1 ? "" : "s",
               ep_comm_mpi_version());
        for (int64_t l = 0; l < s->topo->num_levels; l++) {
            if (s->topo->levels[l].num_pairs > 0) {
                printf("level %s: %lld pairs\n", s->topo->levels[l].name,
                       (long long)s->topo->levels[l].num_pairs);
            }
        }
    }
    return EP_OK;
}

static bool profile_is_short(const struct ep_profile *profile)
{
    return strcmp(profile->name, "quick") == 0 || strcmp(profile->name, "smoke") == 0;
}

static enum ep_status run_links(struct ep_session *s, struct suite *suite)
{
    enum ep_status status = EP_OK;
    struct ep_links_summary summary = {0};
    if (ep_comm_size(s->world) == 1) {
        ep_session_skip(s, "links", "one rank has no links");
        return EP_OK;
    }
    struct ep_links_options links = profile_is_short(suite->profile)
                                        ? ep_links_options_quick()
                                        : ep_links_options_default();
    links.budget_s = suite->profile->links_s;
    EP_TRY(ep_links_sweep(s, &links, &summary));
    suite->seconds_per_byte = ep_suite_seconds_per_byte(s->topo, &summary);
    if (ep_comm_is_root(s->world)) {
        status = ep_links_print_levels(s, &summary, stdout);
    }
    EP_TRY(ep_comm_agree(s->world, status));
out:
    ep_links_summary_fini(&summary);
    return status;
}

static enum ep_status run_kernels(struct ep_session *s, struct suite *suite)
{
    int64_t num_short = 0;
    return ep_kernels_suite_run(s, profile_is_short(suite->profile), suite->profile->kernels_s, stdout,
                                &num_short);
}

static enum ep_status run_bare(struct ep_session *s, struct suite *suite)
{
    if (ep_comm_size(s->world) == 1) {
        ep_session_skip(s, "bare", "one rank exchanges nothing");
        return EP_OK;
    }
    return ep_bare_run(s, suite->profile->bare_s, stdout);
}

/* Halve a sweep's tokens until its fewest repetitions fit its time, so that links too slow for it give
 * three sizes and not one. */
static enum ep_status scale_sweep(struct ep_session *s, struct suite *suite, int i)
{
    enum ep_status status = EP_OK;
    struct ep_comm_options *o = &suite->comm[i];
    const char *const whole = suite->profile->comm[i].tokens;
    int64_t num = 0;
    const struct ep_comm_case *cases = ep_comm_sweep_cases(suite->sweeps[i], &num);
    double time_s = ep_suite_least_time(cases, num, o->num_visits, suite->seconds_per_byte);
    int64_t divisor = 1;
    EP_TRY(ep_comm_max_f64(s->world, &time_s, 1)); /* one answer on all ranks */
    while (time_s / (double)divisor > o->budget_s && divisor < strtoll(whole, NULL, 10)) {
        divisor *= 2;
    }
    if (divisor == 1) {
        return EP_OK;
    }
    suite->tokens[i] = ep_suite_divided_tokens(whole, divisor);
    status = suite->tokens[i] == NULL ? ep_error_set(EP_ENOMEM, "no memory for tokens") : EP_OK;
    EP_TRY(ep_comm_agree(s->world, status));
    o->tokens = suite->tokens[i];
    ep_comm_sweep_destroy(suite->sweeps[i]);
    suite->sweeps[i] = NULL;
    EP_TRY(ep_comm_agree(s->world, ep_comm_sweep_create(o, &suite->sweeps[i])));
    EP_TRY(ep_comm_sweep_prepare(suite->sweeps[i], s));
    ep_session_skip(s, "slow-link", "comm: %s tokens would take %.0f s at least on these links, and %.0f s are "
                    "there; %s in their place", whole, time_s, o->budget_s, o->tokens);
out:
    return status;
}

/* For a resumed run, which has to have the same cases. */
static enum ep_status note_tokens(struct ep_session *s, const struct suite *suite)
{
    enum ep_status status = EP_OK;
    if (!ep_comm_is_root(s->world)) {
        return EP_OK;
    }
    EP_TRY(ep_record_set_text(&s->run.comm_tokens, "%s%s%s", suite->comm[0].tokens,
                              suite->sweeps[1] != NULL ? ";" : "",
                              suite->sweeps[1] != NULL ? suite->comm[1].tokens : ""));
    EP_TRY(ep_run_dir_write_run(&s->dir, &s->run));
out:
    return status;
}

static enum ep_status run_comm(struct ep_session *s, struct suite *suite)
{
    enum ep_status status = EP_OK;
    bool scaled = false;
    for (int i = 0; i < MAX_SWEEPS && !s->options.resume; i++) {
        if (suite->sweeps[i] != NULL) {
            EP_TRY(scale_sweep(s, suite, i));
            scaled = scaled || suite->tokens[i] != NULL;
        }
    }
    if (scaled) {
        EP_TRY(ep_comm_agree(s->world, note_tokens(s, suite)));
    }
    for (int i = 0; i < MAX_SWEEPS; i++) {
        if (suite->sweeps[i] != NULL) {
            EP_TRY(ep_comm_sweep_run(suite->sweeps[i], s));
        }
    }
    if (ep_comm_is_root(s->world)) {
        char cost[32];
        printf("harness: a null operation costs %s per repetition; records of which that is over 1 %% "
               "carry a warning\n", ep_format_time(s->null_s, cost, sizeof cost));
    }
out:
    return status;
}

/* On all ranks, whatever --ranks says: that is of dispatch and combine. */
static enum ep_status run_layer(struct ep_session *s, struct suite *suite)
{
    return ep_layer_sweep_run(suite->layer, s);
}

/* Part i of what note_tokens() wrote; NULL = the profile's own. */
static enum ep_status resumed_tokens(const struct input *input, int i, char **tokens)
{
    const char *at = input->resumed.comm_tokens;
    for (; i > 0 && at != NULL; i--) {
        at = strchr(at, ';');
        at = at != NULL ? at + 1 : NULL;
    }
    *tokens = at != NULL ? strndup(at, strcspn(at, ";")) : NULL;
    return at == NULL || *tokens != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for tokens");
}

/* The profile's sweeps on the ranks that were asked for. */
static enum ep_status create_sweeps(struct input *input, struct suite *suite)
{
    enum ep_status status = EP_OK;
    struct ep_layer_options layer = suite->profile->layer;
    layer.comm.layer = -1;
    layer.tp = 1;
    layer.dp = 1;
    EP_TRY(ep_layer_sweep_create(&layer, &suite->layer));
    for (int i = 0; i < MAX_SWEEPS; i++) {
        struct ep_comm_options comm = suite->profile->comm[i];
        comm.layer = -1; /* profiles name none */
        comm.ranks = input->session.comm_ranks;
        comm.rank_order = input->session.comm_rank_order;
        if (comm.budget_s > 0) {
            EP_TRY(resumed_tokens(input, i, &suite->tokens[i]));
            comm.tokens = suite->tokens[i] != NULL ? suite->tokens[i] : comm.tokens;
            suite->comm[i] = comm;
            EP_TRY(ep_comm_sweep_create(&comm, &suite->sweeps[i]));
            input->session.needed_ranks = ep_comm_sweep_most_ranks(suite->sweeps[i]);
        }
    }
out:
    return status;
}

static void destroy_sweeps(struct suite *suite)
{
    for (int i = 0; i < MAX_SWEEPS; i++) {
        ep_comm_sweep_destroy(suite->sweeps[i]);
        free(suite->tokens[i]);
        free(suite->skews[i]);
    }
    ep_layer_sweep_destroy(suite->layer);
}

/* The measuring stages, in order. */
static const struct {
    const char *name;
    enum ep_status (*run)(struct ep_session *session, struct suite *suite);
    int kind;          /* of its records; -1: none */
    bool knows_visits; /* of a resumed run: measures those that are not there */
} stages[] = {
    {"topo", run_topo, -1, false},
    {"links", run_links, EP_RECORD_LINKS, false},
    {"kernels", run_kernels, EP_RECORD_KERNELS, false},
    {"bare", run_bare, EP_RECORD_COMM, false},
    {"comm", run_comm, EP_RECORD_COMM, true},
    {"layer", run_layer, EP_RECORD_LAYER, true},
};

/* After MPI has ended, on one process: what needs nothing but the records. */
static const struct {
    const char *title;
    const char *option; /* before the directory; NULL = none */
    enum ep_status (*run)(int argc, char **argv);
} reports[] = {
    {"epbench fit", "--quiet", ep_cmd_fit},
    {"epbench report", NULL, ep_cmd_report},
};

/* All of them, even if one fails: a run that cannot be fitted still has a report. */
static enum ep_status write_reports(char *directory, enum ep_status status)
{
    for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++) {
        char *argv[4] = {(char *)reports[i].title};
        int argc = 1;
        if (reports[i].option != NULL) {
            argv[argc++] = (char *)reports[i].option;
        }
        argv[argc++] = directory;
        const enum ep_status made = reports[i].run(argc, argv);
        if (made != EP_OK) {
            fprintf(stderr, "%s: %s\n", reports[i].title, ep_error_text());
            ep_error_clear();
        }
        status = status != EP_OK ? status : made;
    }
    return status;
}

/* A resumed run is past a stage where a later one has records: its own may be but a part. */
static bool is_past(const struct ep_session *session, size_t stage)
{
    bool past = false;
    const bool can_be = stages[stage].kind >= 0 && !stages[stage].knows_visits;
    for (size_t i = stage + 1; can_be && i < sizeof stages / sizeof stages[0]; i++) {
        past = past || (session->done_kinds & 1U << stages[i].kind) != 0;
    }
    return past;
}

/* Skews that tell NICs from ranks, where ranks share NICs. Of all ranks: others may not have theirs. */
static enum ep_status add_skews_of_nodes(struct ep_session *s, struct suite *suite)
{
    enum ep_status status = EP_OK;
    const int num_nodes = ep_comm_num_nodes(s->world);
    const int ranks_per_node = ep_comm_ranks_per_node(s->world);
    for (int i = 0; i < MAX_SWEEPS && s->options.comm_ranks == NULL && num_nodes > 1; i++) {
        if (suite->sweeps[i] == NULL) {
            continue;
        }
        struct ep_comm_options *o = &suite->comm[i];
        suite->skews[i] = ep_suite_skews_of_nodes(o->skew, num_nodes, ranks_per_node);
        status = suite->skews[i] == NULL ? ep_error_set(EP_ENOMEM, "no memory for skews") : EP_OK;
        EP_TRY(ep_comm_agree(s->world, status));
        o->skew = suite->skews[i];
        ep_comm_sweep_destroy(suite->sweeps[i]);
        suite->sweeps[i] = NULL;
        EP_TRY(ep_comm_agree(s->world, ep_comm_sweep_create(o, &suite->sweeps[i])));
    }
out:
    return status;
}

static enum ep_status measure(struct ep_session *session, struct suite *suite)
{
    enum ep_status status = EP_OK;
    EP_TRY(add_skews_of_nodes(session, suite));
    for (int i = 0; i < MAX_SWEEPS; i++) {
        if (suite->sweeps[i] != NULL) {
            EP_TRY(ep_comm_sweep_prepare(suite->sweeps[i], session));
        }
    }
    EP_TRY(ep_layer_sweep_prepare(suite->layer, session));
    const double start_s = ep_comm_now_s();
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        bool interrupted = false;
        if (is_past(session, i)) {
            continue;
        }
        EP_TRY(ep_session_interrupted(session, &interrupted));
        if (interrupted) {
            session->stages_left++;
            ep_session_skip(session, stages[i].name, "interrupted");
            continue;
        }
        const double stage_start_s = ep_comm_now_s();
        EP_TRY(stages[i].run(session, suite));
        if (ep_comm_is_root(session->world)) {
            fprintf(stderr, "%s: %.1f s (%.1f s in all)\n", stages[i].name,
                    ep_comm_now_s() - stage_start_s, ep_comm_now_s() - start_s);
        }
    }
out:
    return status;
}

/* The profile and ranks that the run to be finished was started with. */
static enum ep_status read_resumed(struct input *input)
{
    struct ep_run *run = &input->resumed;
    enum ep_status status = ep_run_read(input->session.append, run);
    if (status != EP_OK) {
        ep_run_init(run);
        return status;
    }
    if (run->profile == NULL) {
        return ep_error_set(EP_EINVAL, "%s: was not made by epbench run: there is no profile to finish",
                            input->session.append);
    }
    status = ep_profile_find(run->profile, &input->profile);
    input->session.profile = run->profile;
    input->session.comm_ranks = run->comm_ranks;
    input->session.comm_rank_order = run->comm_rank_order;
    return status;
}

enum ep_status ep_cmd_run(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&ep_session_argp, 0, "Runs and ranks:", 10},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .children = children,
        .doc = "Measure everything on this allocation, fit the cost model, draw the figures and write "
               "the report.\vExample: epbench run --profile quick -o DIR",
    };
    enum ep_status status = EP_OK;
    struct ep_session *session = NULL;
    struct ep_repeat *repeat = NULL;
    char *directory = NULL;
    struct input input = {.session = ep_session_options_default()};
    struct suite suite = {0};
    ep_run_init(&input.resumed);
    input.session.profile = "quick";
    EP_TRY(ep_profile_find("quick", &input.profile));
    EP_TRY(ep_options_parse(&argp, argc, argv, &input));
    input.session.keep = true;
    if (input.session.resume) {
        EP_TRY(read_resumed(&input));
    }
    suite.profile = input.profile;
    if (input.repeat != NULL) {
        EP_TRY(ep_repeat_create(input.session.append, input.repeat, &input.session, &repeat));
    } else {
        EP_TRY(create_sweeps(&input, &suite));
    }
    EP_TRY(ep_session_open(argc, argv, &input.session, &session));
    EP_TRY(repeat != NULL ? ep_repeat_run(repeat, session) : measure(session, &suite));
    const bool last = session->options.launch_idx + 1 >= session->options.num_launches;
    if (ep_comm_is_root(session->world) && repeat == NULL && last) {
        directory = strdup(session->dir.path);
        if (directory == NULL) {
            status = ep_error_set(EP_ENOMEM, "no memory");
        }
    }
out:;
    enum ep_status closed = ep_session_close(session);
    status = status != EP_OK ? status : closed;
    if (directory != NULL && (status == EP_OK || status == EP_ECHECK)) {
        if (ep_error_text()[0] != '\0') { /* a failed check: said before the reports talk */
            fprintf(stderr, "%s: %s\n", argv[0], ep_error_text());
            ep_error_clear();
        }
        status = write_reports(directory, status);
    }
    free(directory);
    ep_repeat_destroy(repeat);
    destroy_sweeps(&suite);
    ep_run_fini(&input.resumed);
    return status;
}
