/* SPDX-License-Identifier: Apache-2.0 */
/* Which hosts share a switch, and how fast each switch's uplink is: told by the user or by scripts/vcluster. */
#ifndef EP_BENCH_UPLINKS_H
#define EP_BENCH_UPLINKS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { EP_UPLINKS_MAX = 64, EP_UPLINKS_MAX_LANES = 64 };

/** Switches below one core switch. Begin with {0}: none. */
struct ep_uplinks {
    int64_t num;
    double bytes_per_s[EP_UPLINKS_MAX]; /* each way, of each lane */
    int32_t lanes[EP_UPLINKS_MAX];      /* equal links side by side, 1 to EP_UPLINKS_MAX_LANES */
    const char *hosts[EP_UPLINKS_MAX];  /* "a,b"; borrowed from the text, not NUL-terminated */
    size_t hosts_length[EP_UPLINKS_MAX];
};

/** Parse "RATE:HOST,HOST;RATE:HOST", one part per switch; rates carry their unit. "4xRATE:..." is four links
 *  side by side, of which a message takes the one that its destination says: D-mod-k routing, the number of the
 *  destination's host in the text modulo 4 (E. Zahavi, "D-Mod-K routing providing non-blocking traffic for
 *  shift permutations on real life fat trees", 2010; SimGrid's fat trees, InfiniBand's ftree).
 *  text     borrowed as long as `uplinks`
 *  what     names the text in messages
 *  uplinks  overwritten where EP_OK
 *  Returns EP_EINVAL: no rate, lanes out of range, no hosts, a host twice, too many switches. */
EP_MUST_CHECK enum ep_status ep_uplinks_parse(const char *text, const char *what,
                                              struct ep_uplinks *uplinks);

/** The switch of a host, or -1. */
int32_t ep_uplinks_switch_of(const struct ep_uplinks *uplinks, const char *host);

/** The number of a host in the text, from 0 over all switches, or -1. */
int32_t ep_uplinks_position_of(const struct ep_uplinks *uplinks, const char *host);

#endif
