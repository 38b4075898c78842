/* SPDX-License-Identifier: Apache-2.0 */
/* What reading a host needs besides hwloc: text checks, classes, signatures, kinds of devices. */
#ifndef EP_TOPOLOGIES_MACHINE_PARTS_H
#define EP_TOPOLOGIES_MACHINE_PARTS_H

#include "topologies/machine.h"

/** Refuse what hwloc would refuse without a word: empty, too large, not hwloc's, truncated, or of
 *  version 3. `what` names the source. Returns EP_OK or EP_EINVAL. */
EP_MUST_CHECK enum ep_status ep_machine_check_xml(const char *what, const char *xml,
                                                  size_t length);

/** Refuse a synthetic description with more hardware threads than supported, before hwloc tries
 *  to build it. Returns EP_OK or EP_EINVAL. */
EP_MUST_CHECK enum ep_status ep_machine_check_synthetic(const char *description);

/** Index of the class with the key of `class`; it is added if new (span: the largest seen).
 *  -1 where the table is full. */
int64_t ep_machine_find_class(struct ep_machine *machine, const struct ep_machine_class *class);

/** Order classes near to far (hardware threads spanned, same NUMA node first, SLIT distance) and
 *  renumber core_class. */
void ep_machine_sort_classes(struct ep_machine *machine);

/** Negative, 0 or positive as class a is nearer than b; 0 only for equal keys and spans. */
int ep_machine_compare_classes(const struct ep_machine_class *a,
                               const struct ep_machine_class *b);

/** Kind of a PCI device by class (0x0200 Ethernet, 0x0207 InfiniBand, 0x03xx display, 0x12xx
 *  accelerator, 0x0b40 co-processor; 0x0680 of NVIDIA is an NVSwitch). False for other devices. */
bool ep_machine_pci_kind(unsigned class_id, unsigned vendor_id, enum ep_device_kind *kind);

/** Line rate that the kernel tells for a network or InfiniBand device, bits per second; 0 where it
 *  tells none. */
double ep_machine_read_line_rate(const char *name, bool is_infiniband);

/** A 64-bit FNV-1a hash being built. Source: http://www.isthe.com/chongo/tech/comp/fnv/ */
struct ep_machine_signature {
    uint64_t hash;
};
void ep_machine_sign_start(struct ep_machine_signature *signature);
void ep_machine_sign_text(struct ep_machine_signature *signature, const char *text);
void ep_machine_sign_i64(struct ep_machine_signature *signature, int64_t value);

#endif
