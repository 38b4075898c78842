/* SPDX-License-Identifier: Apache-2.0 */
/* epbench links: latency and bandwidth of each level, one pair at a time and all at once. */
#include "base/command.h"
#include "base/json.h"
#include "base/options.h"
#include "base/units.h"
#include "bench/links_sweep.h"
#include "bench/session.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum ep_status ep_cmd_links(int argc, char **argv);

enum { KEY_VISITS = 2000, KEY_PAIRS, KEY_CASE_TIME, KEY_QUICK, KEY_TIME,
       KEY_JSON };

struct arguments {
    struct ep_session_options session;
    struct ep_links_options links;
    const char *json;
};

static const struct argp_option options[] = {
    {"begin", 'b', "SIZE", 0, "smallest message (default 8)", 1},
    {"end", 'e', "SIZE", 0, "largest message (default 4M); always measured", 1},
    {"factor", 'f', "F", 0, "from size to size (default 4)", 1},
    {"pairs", KEY_PAIRS, "N", 0, "pairs of a level measured one by one (default 3)", 1},
    {"visits", KEY_VISITS, "N", 0, "visits of each case, spread over the run (default 3)", 1},
    {"case-time", KEY_CASE_TIME, "TIME", 0, "time for the samples of one visit (default 30ms)", 1},
    {"time", KEY_TIME, "TIME", 0, "stop after so long; what is left is named (default: no limit)", 1},
    {"quick", KEY_QUICK, NULL, 0, "few sizes, 1 pair, 2 visits; options after it win", 1},
    {"json", KEY_JSON, "FILE", 0, "write JSON (\"-\": on standard output, in place of tables)", 1},
    {0},
};

static const struct argp_child children[] = {{&ep_session_argp, 0, "Run:", 10}, {0}};

static enum ep_status parse_value(int key, const char *value, struct arguments *a)
{
    switch (key) {
    case 'b':
    case 'e': {
        int64_t *field = key == 'b' ? &a->links.begin_bytes : &a->links.end_bytes;
        int64_t size = 0;
        const enum ep_status status = ep_parse_size(value, key == 'b' ? "-b" : "-e", &size);
        if (status != EP_OK) {
            return status;
        }
        if (size < 1 || size > EP_LINKS_MAX_BYTES) {
            return ep_error_set(EP_EINVAL, "-%c: '%s' is outside 1 byte to 1 GiB", key, value);
        }
        *field = size;
        return EP_OK;
    }
    case 'f':
        return ep_parse_f64(value, "-f", 1.01, 1e9, &a->links.factor);
    case KEY_PAIRS:
        return ep_parse_i64(value, "--pairs", 1, 100000, &a->links.pairs_per_level);
    case KEY_VISITS:
        return ep_parse_i64(value, "--visits", 1, 1000, &a->links.visits);
    case KEY_CASE_TIME:
        return ep_parse_time(value, "--case-time", &a->links.case_time_s);
    case KEY_TIME:
        return ep_parse_time(value, "--time", &a->links.budget_s);
    case KEY_QUICK:
        a->links = ep_links_options_quick();
        return EP_OK;
    default:
        a->json = value;
        return EP_OK;
    }
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct arguments *a = state->input;
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = &a->session;
        return 0;
    }
    if (key != 'b' && key != 'e' && key != 'f' && (key < KEY_VISITS || key > KEY_JSON)) {
        return ARGP_ERR_UNKNOWN;
    }
    return parse_value(key, value, a) == EP_OK ? 0 : EINVAL;
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .doc = "Measure messages between ranks, level by level (see epbench topo): latency by ping-pong, "
           "bandwidth by ping-pong and by windows of messages one way, for a sample of pairs one "
           "at a time and for as many pairs at once as there are.",
    .children = children,
};

static enum ep_status show(const struct ep_session *session,
                           const struct ep_links_summary *summary, const char *json_path)
{
    enum ep_status status = EP_OK;
    json_t *json = NULL;
    if (json_path != NULL) {
        EP_TRY(ep_links_to_json(session, summary, &json));
        EP_TRY(ep_json_save(json_path, json));
    }
    if (session->topo->num_ranks < 2) {
        fprintf(stderr, "epbench links: one rank has no links; nothing was measured\n");
    } else if (json_path == NULL || strcmp(json_path, "-") != 0) {
        EP_TRY(ep_links_print_points(session, summary, stdout));
        printf("\n");
        EP_TRY(ep_links_print_levels(session, summary, stdout));
    }
    if (session->writes) {
        fprintf(stderr, "run: %s\n", session->dir.path);
    }
out:
    json_decref(json);
    return status;
}

enum ep_status ep_cmd_links(int argc, char **argv)
{
    struct arguments a = {.session = ep_session_options_default(),
                          .links = ep_links_options_default()};
    struct ep_session *session = NULL;
    struct ep_links_summary summary = {0};
    enum ep_status status = EP_OK;
    EP_TRY(ep_options_parse(&parser, argc, argv, &a));
    EP_TRY(ep_links_options_check(&a.links, a.session.memory_bytes));
    a.links.progress = isatty(STDERR_FILENO);
    EP_TRY(ep_session_open(argc, argv, &a.session, &session));
    EP_TRY(ep_links_sweep(session, &a.links, &summary));
    if (ep_comm_is_root(session->world)) {
        status = show(session, &summary, a.json);
    }
    EP_TRY(ep_comm_agree(session->world, status));
out:
    ep_links_summary_fini(&summary);
    const enum ep_status closed = ep_session_close(session);
    return status != EP_OK ? status : closed;
}
