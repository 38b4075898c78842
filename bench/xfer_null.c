/* SPDX-License-Identifier: Apache-2.0 */
/* Transport `null`: moves nothing, so that what it costs is the harness itself. */
#include "bench/transport.h"

static enum ep_status create(const struct ep_exchange *exchange, void **state)
{
    (void)exchange;
    *state = NULL;
    return EP_OK;
}

static void extras(const void *state, struct ep_transport_extras *e)
{
    (void)state;
    *e = (struct ep_transport_extras){0};
}

static void destroy(void *state)
{
    (void)state;
}

const struct ep_transport ep_transport_null = {
    .name = "null",
    .summary = "moves nothing: prices the harness itself",
    .basis = EP_BASIS_COPIES,
    .create = create,
    .view = NULL,
    .extras = extras,
    .destroy = destroy,
};
