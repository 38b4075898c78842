/* SPDX-License-Identifier: Apache-2.0 */
/* Version, compiler and flags, as the Makefile gives them. */
#include "bench/version.h"

const char *ep_version(void)
{
    return EP_VERSION;
}

const char *ep_version_compiler(void)
{
    return __VERSION__;
}

const char *ep_version_flags(void)
{
    return EP_FLAGS;
}
