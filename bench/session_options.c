/* SPDX-License-Identifier: Apache-2.0 */
/* Options that every measuring command takes. */
#include "bench/session.h"

#include "base/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_APPEND = 1000,
    KEY_LAUNCHER,
    KEY_SEED,
    KEY_PAGES,
    KEY_MEMORY,
    KEY_CADENCE,
    KEY_THREADS,
    KEY_LAUNCHES,
    KEY_LAUNCH_IDX,
    KEY_LINK_RATE,
    KEY_UPLINKS
};

static const struct argp_option options[] = {
    {"output", 'o', "DIR", 0, "write a run into DIR, which must not exist", 10},
    {"append", KEY_APPEND, "DIR", 0, "add records to the run in DIR", 10},
    {"num-ranks", 'n', "N", 0, "ranks to start where no launcher did (default: one per core)", 11},
    {"launcher", KEY_LAUNCHER, "CMD", 0,
     "start ranks with CMD in place of mpirun (also EPBENCH_LAUNCHER)", 11},
    {"launches", KEY_LAUNCHES, "N", 0, "repeat the whole mpirun N times (default 1)", 11},
    {"launch-idx", KEY_LAUNCH_IDX, "N", OPTION_HIDDEN, "which launch this is", 11},
    {"seed", KEY_SEED, "N", 0, "random seed (default 1)", 12},
    {"pages", KEY_PAGES, "4k|thp", 0, "pages of message buffers (default 4k)", 12},
    {"memory", KEY_MEMORY, "SIZE", 0, "buffers of one rank at most (default 1G)", 12},
    {"cadence", KEY_CADENCE, "barrier|stream", 0,
     "start repetitions together, or back to back (default barrier)", 12},
    {"threads", KEY_THREADS, "N", 0, "threads per rank that pack, unpack and sum (default 1)", 12},
    {"link-rate", KEY_LINK_RATE, "RATE", 0,
     "of each node's one NIC, each way, with its unit, such as 400Gb/s (also EPBENCH_LINK_RATE): the bound "
     "of what crosses nodes", 12},
    {"uplinks", KEY_UPLINKS, "RATE:HOST,...;...", 0,
     "switches below one core switch: the rate of each one's uplink, each way, and its hosts by name (also "
     "EPBENCH_UPLINKS); 4xRATE: four links side by side, D-mod-k; needs a link rate", 12},
    {0},
};

/* Which of the two is at fault is said. */
static enum ep_status find_link_rate(const char *text, double *link_bytes_per_s)
{
    const char *what = "--link-rate";
    if (text == NULL) {
        text = getenv("EPBENCH_LINK_RATE");
        what = "EPBENCH_LINK_RATE";
    }
    return text != NULL && text[0] != '\0' ? ep_parse_bandwidth(text, what, link_bytes_per_s) : EP_OK;
}

static enum ep_status find_uplinks(const char *text, double link_bytes_per_s,
                                   struct ep_uplinks *uplinks)
{
    const char *what = "--uplinks";
    if (text == NULL) {
        text = getenv("EPBENCH_UPLINKS");
        what = "EPBENCH_UPLINKS";
    }
    if (text == NULL || text[0] == '\0') {
        return EP_OK;
    }
    return link_bytes_per_s > 0 ? ep_uplinks_parse(text, what, uplinks)
                                : ep_error_set(EP_EINVAL, "%s: needs --link-rate, the rate of the NICs",
                                               what);
}

struct ep_session_options ep_session_options_default(void)
{
    return (struct ep_session_options){
        .seed = 1,
        .pages = EP_PAGES_4K,
        .memory_bytes = (int64_t)1 << 30,
        .cadence = EP_CADENCE_BARRIER,
        .threads = 1,
        .num_launches = 1,
        .launch_idx = -1,
    };
}

static enum ep_status parse_cadence(const char *text, enum ep_cadence *cadence)
{
    if (strcmp(text, "barrier") == 0) {
        *cadence = EP_CADENCE_BARRIER;
    } else if (strcmp(text, "stream") == 0) {
        *cadence = EP_CADENCE_STREAM;
    } else {
        return ep_error_set(EP_EINVAL, "--cadence: '%s' is not barrier or stream", text);
    }
    return EP_OK;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ep_session_options *o = state->input;
    enum ep_status status = EP_OK;
    int64_t number = 0;
    switch (key) {
    case 'o':
        o->output = arg;
        break;
    case KEY_APPEND:
        o->append = arg;
        break;
    case 'n':
        status = ep_parse_i64(arg, "-n", 1, 1 << 20, &o->num_ranks);
        break;
    case KEY_LAUNCHER:
        o->launcher = arg;
        break;
    case KEY_LAUNCHES:
        status = ep_parse_i64(arg, "--launches", 1, 1000, &o->num_launches);
        break;
    case KEY_LAUNCH_IDX:
        status = ep_parse_i64(arg, "--launch-idx", 0, 1000, &o->launch_idx);
        break;
    case KEY_SEED:
        status = ep_parse_i64(arg, "--seed", 0, INT64_MAX, &number);
        o->seed = (uint64_t)number;
        break;
    case KEY_PAGES:
        status = ep_pages_parse(arg, &o->pages);
        break;
    case KEY_MEMORY:
        status = ep_parse_size(arg, "--memory", &o->memory_bytes);
        break;
    case KEY_CADENCE:
        status = parse_cadence(arg, &o->cadence);
        break;
    case KEY_THREADS:
        status = ep_parse_i64(arg, "--threads", 1, 1024, &o->threads);
        break;
    case KEY_LINK_RATE:
        o->link_rate = arg;
        break;
    case KEY_UPLINKS:
        o->uplinks_text = arg;
        break;
    case ARGP_KEY_SUCCESS:
        status = find_link_rate(o->link_rate, &o->link_bytes_per_s);
        if (status == EP_OK) {
            status = find_uplinks(o->uplinks_text, o->link_bytes_per_s, &o->uplinks);
        }
        if (status == EP_OK && o->output != NULL && o->append != NULL) {
            status = ep_error_set(EP_EINVAL, "-o makes a new run and --append adds to one: give "
                                  "only one of them");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return status == EP_OK ? 0 : EINVAL;
}

const struct argp ep_session_argp = {.options = options, .parser = parse};
