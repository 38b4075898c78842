/* SPDX-License-Identifier: Apache-2.0 */
/* The text of uplinks. */
#include "bench/uplinks.h"

#include "base/units.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Number of the host among "a,b"; -1 = not there. *num = how many there are, up to it. */
static int32_t place(const char *hosts, size_t length, const char *host, size_t host_length, int32_t *num)
{
    *num = 0;
    for (size_t at = 0; at < length; ++*num) {
        const char *comma = memchr(hosts + at, ',', length - at);
        const size_t end = comma != NULL ? (size_t)(comma - hosts) : length;
        if (end - at == host_length && memcmp(hosts + at, host, host_length) == 0) {
            return *num;
        }
        at = end + 1;
    }
    return -1;
}

static bool holds(const char *hosts, size_t length, const char *host, size_t host_length)
{
    int32_t num = 0;
    return place(hosts, length, host, host_length, &num) >= 0;
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

int32_t ep_uplinks_position_of(const struct ep_uplinks *u, const char *host)
{
    int32_t before = 0;
    for (int64_t i = 0; i < u->num; i++) {
        int32_t num = 0;
        const int32_t found = place(u->hosts[i], u->hosts_length[i], host, strlen(host), &num);
        if (found >= 0) {
            return before + found;
        }
        before += num;
    }
    return -1;
}

/* "4x12.5GB/s": how many links side by side, and of what rate; without "4x" one. */
static enum ep_status parse_rate(const char *text, const char *what, double *bytes_per_s, int32_t *lanes)
{
    const size_t digits = strspn(text, "0123456789");
    *lanes = 1;
    if (digits > 0 && text[digits] == 'x') {
        const long num = digits < 9 ? strtol(text, NULL, 10) : LONG_MAX;
        if (num < 1 || num > EP_UPLINKS_MAX_LANES) {
            return ep_error_set(EP_EINVAL, "%s: '%s': 1 to %d links side by side are possible", what, text,
                                EP_UPLINKS_MAX_LANES);
        }
        *lanes = (int32_t)num;
        text += digits + 1;
    }
    return ep_parse_bandwidth(text, what, bytes_per_s);
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
    EP_TRY(parse_rate(rate, what, &u->bytes_per_s[u->num], &u->lanes[u->num]));
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
