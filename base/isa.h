/* SPDX-License-Identifier: Apache-2.0 */
/* A function in several instruction sets, of which the best is chosen when the program starts. */
#ifndef EP_BASE_ISA_H
#define EP_BASE_ISA_H

/** Before a function definition: compile it for AVX-512, AVX2 and the baseline. GCC alone: clang
 *  (14 was tried) gives such functions a name that other files do not find. Not under
 *  AddressSanitizer, since ifuncs are resolved before its runtime is ready. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define EP_BEST_ISA __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EP_BEST_ISA
#endif

#endif
