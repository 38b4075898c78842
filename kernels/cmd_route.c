/* SPDX-License-Identifier: Apache-2.0 */
/* `epbench route`: what a routing makes ranks send, from a generator, a model or a trace. No MPI.
 */
#include "base/command.h"
#include "base/options.h"
#include "kernels/route_mode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum ep_status ep_cmd_route(int argc, char **argv);

/* Options of modes and sections in the order of their tables, behind the shared ones. */
struct request {
    struct ep_route_options shared;
    int num_modes;
    int num_sections;
    void *options[2 * EP_ROUTE_MAX_PARTS]; /* of modes, then of sections */
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct request *request = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &request->shared;
        for (int i = 0; i < request->num_modes + request->num_sections; i++) {
            state->child_inputs[i + 1] = request->options[i];
        }
        return 0;
    case ARGP_KEY_ARG:
        ep_error_set(EP_EINVAL, "unexpected argument '%s'", arg);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void fini_request(struct request *request)
{
    for (int i = 0; i < request->num_modes + request->num_sections; i++) {
        free(request->options[i]);
    }
}

/* Room for the options of each row, and its parser as a child. */
static enum ep_status init_request(struct request *request, struct argp_child *children)
{
    *request = (struct request){.shared = EP_ROUTE_OPTIONS_NONE};
    int num = 0;
    bool lost = false;
    children[0] = (struct argp_child){&ep_route_argp, 0, NULL, 0};
    for (const struct ep_route_mode *m; (m = ep_route_mode_get(request->num_modes)) != NULL;) {
        request->num_modes++;
        request->options[num] = calloc(1, m->options_size);
        lost = lost || request->options[num] == NULL;
        children[++num] = (struct argp_child){m->argp, 0, NULL, 0};
    }
    for (const struct ep_route_section *s;
         (s = ep_route_section_get(request->num_sections)) != NULL;) {
        request->num_sections++;
        request->options[num] = calloc(1, s->options_size);
        lost = lost || request->options[num] == NULL;
        children[++num] = (struct argp_child){s->argp, 0, NULL, 0};
    }
    children[num + 1] = (struct argp_child){0};
    return lost ? ep_error_set(EP_ENOMEM, "no memory for options") : EP_OK;
}

/* The number of the mode that was asked for, -1 = none; two are refused. */
static enum ep_status find_mode(const struct request *request, int *found)
{
    *found = -1;
    for (int i = 0; i < request->num_modes; i++) {
        const struct ep_route_mode *mode = ep_route_mode_get(i);
        if (!mode->asked(request->options[i])) {
            continue;
        }
        if (*found >= 0) {
            return ep_error_set(EP_EINVAL, "%s and %s exclude each other",
                                ep_route_mode_get(*found)->name, mode->name);
        }
        *found = i;
    }
    return EP_OK;
}

/* --- the default: count one routing ------------------------------------------------------- */

static bool is_stdout(const char *path)
{
    return path != NULL && strcmp(path, "-") == 0;
}

static enum ep_status report(const struct ep_route_case *route, const char *json_path,
                             void *const *made)
{
    enum ep_status status = EP_OK;
    json_t *root = NULL;
    if (json_path != NULL) {
        EP_TRY(ep_route_case_to_json(route, &root));
        for (int i = 0; ep_route_section_get(i) != NULL; i++) {
            if (made[i] != NULL && ep_route_section_get(i)->set != NULL) {
                EP_TRY(ep_route_section_get(i)->set(made[i], route, root));
            }
        }
        EP_TRY(ep_json_save(json_path, root));
    }
    if (!is_stdout(json_path)) {
        EP_TRY(ep_route_case_print(route, stdout));
        for (int i = 0; ep_route_section_get(i) != NULL; i++) {
            if (made[i] != NULL && ep_route_section_get(i)->print != NULL) {
                EP_TRY(ep_route_section_get(i)->print(made[i], route, stdout));
            }
        }
    }
out:
    json_decref(root);
    return status;
}

static enum ep_status count(const struct request *request)
{
    enum ep_status status;
    struct ep_route_case route = {0};
    void *made[EP_ROUTE_MAX_PARTS] = {NULL};
    EP_TRY(ep_route_case_init(&request->shared, &route));
    for (int i = 0; i < route.num_warnings; i++) {
        fprintf(stderr, "epbench route: warning: %s\n", route.warnings[i]);
    }
    for (int i = 0; i < request->num_sections; i++) {
        EP_TRY(ep_route_section_get(i)->make(request->options[request->num_modes + i], &route,
                                             &made[i]));
    }
    status = report(&route, request->shared.json_path, made);
out:
    for (int i = 0; i < request->num_sections; i++) {
        if (made[i] != NULL && ep_route_section_get(i)->destroy != NULL) {
            ep_route_section_get(i)->destroy(made[i]);
        }
    }
    ep_route_case_fini(&route);
    return status;
}

enum ep_status ep_cmd_route(int argc, char **argv)
{
    enum ep_status status;
    int mode = -1;
    struct request request;
    struct argp_child children[2 * EP_ROUTE_MAX_PARTS + 2];
    const struct argp argp = {
        .parser = parse_option,
        .children = children,
        .doc = "Count what a routing makes ranks send: rows and bytes in three bases, imbalance, "
               "fan-out and the plain cost.",
    };
    EP_TRY(init_request(&request, children));
    EP_TRY(ep_options_parse(&argp, argc, argv, &request));
    EP_TRY(find_mode(&request, &mode));
    if (mode >= 0) {
        const struct ep_route_mode *m = ep_route_mode_get(mode);
        EP_TRY(ep_route_options_refuse(&request.shared, m->uses, m->name));
        EP_TRY(m->run(&request.shared, request.options[mode]));
    } else {
        EP_TRY(count(&request));
    }
out:
    fini_request(&request);
    return status;
}
