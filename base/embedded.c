/* SPDX-License-Identifier: Apache-2.0 */
/* Look-up in the generated table of embedded files. */
#include "base/embedded.h"

#include <string.h>

const struct ep_embedded *ep_embedded_find(const char *path)
{
    for (const struct ep_embedded *file = ep_embedded_files; file->path != NULL; file++) {
        if (strcmp(file->path, path) == 0) {
            return file;
        }
    }
    return NULL;
}
