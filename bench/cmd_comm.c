/* SPDX-License-Identifier: Apache-2.0 */
/* epbench comm: dispatch and combine over a sweep of skew, top-k, tokens and transports. */
#include "base/options.h"
#include "bench/bare.h"
#include "bench/comm_sweep.h"

#include <stdio.h>

/* The table of commands in epbench.c declares it likewise. */
enum ep_status ep_cmd_comm(int argc, char **argv);

struct input {
    struct ep_session_options session;
    struct ep_comm_options comm;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *input = state->input;
    (void)arg;
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = &input->comm;
        state->child_inputs[1] = &input->session;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

enum ep_status ep_cmd_comm(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&ep_comm_argp, 0, NULL, 0},
        {&ep_session_argp, 0, "Runs and ranks:", 10},
        {0},
    };
    static const struct argp argp = {
        .parser = parse,
        .children = children,
        .doc = "Measure dispatch and combine over MPI: every combination of the lists is a case, each "
               "is verified.\vExample: mpirun -n 2 epbench comm --experts 16 --top-k 2,4 --tokens "
               "512,2048 --hidden 1024 --skew uniform,zipf:1.0,hot:4 -o DIR",
    };
    enum ep_status status = EP_OK;
    struct ep_session *session = NULL;
    struct ep_comm_sweep *sweep = NULL;
    struct input input = {ep_session_options_default(), ep_comm_options_default()};
    EP_TRY(ep_options_parse(&argp, argc, argv, &input));
    if (input.comm.cold && input.session.cadence == EP_CADENCE_STREAM) {
        status = ep_error_set(EP_EINVAL, "--cold empties the caches before each repetition, but "
                              "--cadence stream leaves no time between them: give only one");
        goto out;
    }
    if (input.comm.limits && input.session.cadence == EP_CADENCE_STREAM) {
        status = ep_error_set(EP_EINVAL, "--limits begins every repetition of a turn together, but --cadence "
                              "stream asks for none of that: give only one");
        goto out;
    }
    EP_TRY(ep_comm_sweep_create(&input.comm, &sweep));
    input.session.keep = false;
    input.session.needed_ranks = ep_comm_sweep_most_ranks(sweep);
    input.session.unchecked = input.comm.no_check;
    input.session.shares = ep_comm_sweep_shares(sweep);
    EP_TRY(ep_session_open(argc, argv, &input.session, &session));
    if (input.comm.bare_s > 0 && ep_comm_size(session->world) > 1) {
        EP_TRY(ep_bare_run(session, input.comm.bare_s, stdout));
    }
    EP_TRY(ep_comm_sweep_run(sweep, session));
    if (session->writes && ep_comm_is_root(session->world)) {
        fprintf(stderr, "records: %s\n", session->dir.path);
    }
out:
    ep_comm_sweep_destroy(sweep);
    const enum ep_status closed = ep_session_close(session);
    return status != EP_OK ? status : closed;
}
