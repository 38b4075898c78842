/* SPDX-License-Identifier: Apache-2.0 */
/* Feeds every file of a directory to a fuzz target once: the corpus as a plain regression test. */
#include "tests/fuzz.h"

#include "base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { LIMIT_BYTES = 1 << 24 };

/* In memory of exactly its size, so that a read beyond the end is seen. */
static void feed(const char *path)
{
    char *text = NULL;
    size_t length = 0;
    if (ep_file_read(path, LIMIT_BYTES, &text, &length) != EP_OK) {
        fprintf(stderr, "%s\n", ep_error_text());
        exit(1);
    }
    char *exact = realloc(text, length > 0 ? length : 1);
    EP_ASSERT(exact != NULL);
    EP_ASSERT(LLVMFuzzerTestOneInput((const uint8_t *)exact, length) == 0);
    free(exact);
}

int main(int argc, char **argv)
{
    DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
    int num = 0;
    if (directory == NULL) {
        fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
        return 2;
    }
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char *path = ep_path_join(argv[1], entry->d_name);
        EP_ASSERT(path != NULL);
        if (entry->d_name[0] != '.') {
            feed(path);
            num++;
        }
        free(path);
    }
    closedir(directory);
    printf("%d inputs\n", num);
    return num > 0 ? 0 : 1;
}
