/* SPDX-License-Identifier: Apache-2.0 */
/* What fuzz targets share. A target is tests/fuzz_NAME.c with LLVMFuzzerTestOneInput: run by libFuzzer
 * (`make fuzz`), and over the files of tests/corpus/NAME by corpus_main.c (`make check`). */
#ifndef EP_TESTS_FUZZ_H
#define EP_TESTS_FUZZ_H

#include "base/error.h"
#include "kernels/trace.h"

#include <stddef.h>
#include <stdint.h>

/** Hand one input to the parser; must always return, and 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** A refusal must be of bad input (or memory) and say why; forgets it. Aborts otherwise. */
void fuzz_check_refusal(enum ep_status status);

/** Load `data` as a trace of `format` (NULL = by content), for the one layer and for layer 0, with
 *  duplicates and without; what is accepted must keep the promises of struct ep_trace. */
void fuzz_trace(const uint8_t *data, size_t size, const char *format);

/** Import `data` as text of `format` with the ranks of a small machine; the records of what is accepted
 *  must be written and read back. */
void fuzz_import(const uint8_t *data, size_t size, const char *format);

/** The input as a file `name` in a directory of this process, written over each time. Returns the
 *  path of the directory where `directory` is not NULL ("" else), and of the file. */
const char *fuzz_write_file(const char *name, const uint8_t *data, size_t size,
                            const char **directory);

#endif
