/* SPDX-License-Identifier: Apache-2.0 */
/* The text of uplinks. */
#include "bench/uplinks.h"

#include "base/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool holds(const char *hosts, size_t length, const char *host, size_t host_length)
{
    for (size_t at = 0; at < length;) {
        const char *comma = memchr(hosts + at, ',', length - at);
        const size_t end = comma != NULL ? (size_t)(comma - hosts) : length;
        if (end - at == host_length && memcmp(hosts + at, host, host_length) == 0) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

static int32_t find(const struct ep_uplinks *u, const char *host, size_t length)
{
    for (int64_t i = 0; i < u->num; i++) {
        if (holds(u->hosts[i], u->hosts_length[i], host, length)) {
            return (int32_t)i;
        }
    }
    return -1;
}

int32_t ep_uplinks_switch_of(const struct ep_uplinks *uplinks, const char *host)
{
    return find(uplinks, host, strlen(host));
}

/* One switch: RATE:HOST,HOST of `length` characters. */
static enum ep_status add_switch(const char *part, size_t length, const char *what,
                                 struct ep_uplinks *u)
{
    enum ep_status status = EP_OK;
    char rate[64];
    const char *colon = memchr(part, ':', length);
    if (colon == NULL || colon == part || colon + 1 == part + length ||
        (size_t)(colon - part) >= sizeof rate) {
        return ep_error_set(EP_EINVAL, "%s: '%.*s' is not RATE:HOST,HOST", what, (int)length, part);
    }
    if (u->num == EP_UPLINKS_MAX) {
        return ep_error_set(EP_EINVAL, "%s: more than %d switches", what, EP_UPLINKS_MAX);
    }
    snprintf(rate, sizeof rate, "%.*s", (int)(colon - part), part);
    EP_TRY(ep_parse_bandwidth(rate, what, &u->bytes_per_s[u->num]));
    const char *hosts = colon + 1;
    const size_t hosts_length = length - (size_t)(hosts - part);
    for (size_t at = 0; at <= hosts_length;) {
        const char *comma = memchr(hosts + at, ',', hosts_length - at);
        const size_t end = comma != NULL ? (size_t)(comma - hosts) : hosts_length;
        if (end == at) {
            return ep_error_set(EP_EINVAL, "%s: '%.*s' has an empty host", what, (int)length, part);
        }
        if (find(u, hosts + at, end - at) >= 0 || holds(hosts, at > 0 ? at - 1 : 0, hosts + at, end - at)) {
            return ep_error_set(EP_EINVAL, "%s: host %.*s is there twice", what, (int)(end - at),
                                hosts + at);
        }
        at = end + 1;
    }
    u->hosts[u->num] = hosts;
    u->hosts_length[u->num] = hosts_length;
    u->num++;
out:
    return status;
}

enum ep_status ep_uplinks_parse(const char *text, const char *what, struct ep_uplinks *uplinks)
{
    enum ep_status status = EP_OK;
    struct ep_uplinks u = {0};
    for (const char *part = text;; part++) {
        const size_t length = strcspn(part, ";");
        EP_TRY(add_switch(part, length, what, &u));
        part += length;
        if (*part == '\0') {
            break;
        }
    }
    *uplinks = u;
out:
    return status;
}
