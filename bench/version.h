/* SPDX-License-Identifier: Apache-2.0 */
/* What this build is: version, compiler and flags, for --version and run.json. */
#ifndef EP_BENCH_VERSION_H
#define EP_BENCH_VERSION_H

/** "0.1.0" with the commit where the source tree has one: "0.1.0+g1a2b3c4". */
const char *ep_version(void);

/** The compiler's own version text, and the flags of this build. */
const char *ep_version_compiler(void);
const char *ep_version_flags(void);

#endif
