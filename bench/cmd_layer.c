/* SPDX-License-Identifier: Apache-2.0 */
/* epbench layer: a whole Mixture-of-Experts layer, and where its time goes. */
#include "base/options.h"
#include "bench/layer_sweep.h"

#include <stdio.h>

/* The table of commands in epbench.c declares it likewise. */
enum ep_status ep_cmd_layer(int argc, char **argv);

struct input {
    struct ep_session_options session;
    struct ep_layer_options layer;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct input *input = state->input;
    (void)arg;
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = &input->layer;
        state->child_inputs[1] = &input->session;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

enum ep_status ep_cmd_layer(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&ep_layer_argp, 0, NULL, 0},
        {&ep_session_argp, 0, "Runs and ranks:", 10},
        {0},
    };
    static const struct argp argp = {
        .parser = parse,
        .children = children,
        .doc = "Measure a whole Mixture-of-Experts layer over MPI: route, dispatch, experts, combine; "
               "waiting apart from moving, stragglers, speed against one rank and against a dense "
               "FFN.\vExample: mpirun -n 2 epbench layer --model deepseek-v2-lite --tokens 256 "
               "--skew trace:FILE --timeline t.json -o DIR",
    };
    enum ep_status status = EP_OK;
    struct ep_session *session = NULL;
    struct ep_layer_sweep *sweep = NULL;
    struct input input = {ep_session_options_default(), ep_layer_options_default()};
    EP_TRY(ep_options_parse(&argp, argc, argv, &input));
    if (input.layer.comm.cold && input.session.cadence == EP_CADENCE_STREAM) {
        status = ep_error_set(EP_EINVAL, "--cold empties the caches before each repetition, but "
                              "--cadence stream leaves no time between them: give only one");
        goto out;
    }
    EP_TRY(ep_layer_sweep_create(&input.layer, &sweep));
    input.session.keep = false;
    input.session.needed_ranks = ep_layer_sweep_most_ranks(sweep);
    input.session.shares = ep_layer_sweep_shares(sweep);
    EP_TRY(ep_session_open(argc, argv, &input.session, &session));
    EP_TRY(ep_layer_sweep_run(sweep, session));
    if (session->writes && ep_comm_is_root(session->world)) {
        fprintf(stderr, "records: %s\n", session->dir.path);
    }
out:
    ep_layer_sweep_destroy(sweep);
    const enum ep_status closed = ep_session_close(session);
    return status != EP_OK ? status : closed;
}
