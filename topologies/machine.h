/* SPDX-License-Identifier: Apache-2.0 */
/* One host as plain data, read from hwloc: packages, NUMA, caches, cores, devices, pair classes. */
#ifndef EP_TOPOLOGIES_MACHINE_H
#define EP_TOPOLOGIES_MACHINE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EP_MACHINE_MAX_XML_BYTES = 64 << 20, /* of one host's XML */
    EP_MACHINE_MAX_CORES = 4096,         /* of one host: the class table is cores x cores bytes */
    EP_MACHINE_MAX_PUS = 32768,
    EP_MACHINE_MAX_CLASSES = 200
};

/** How far apart the two ends of a pair are, near to far. */
enum ep_scope {
    EP_SCOPE_SELF,    /* a rank and itself */
    EP_SCOPE_CORE,    /* one core */
    EP_SCOPE_CACHE,   /* a cache, or a cluster or module of cores */
    EP_SCOPE_NUMA,    /* a NUMA node or a group of cores around one */
    EP_SCOPE_PACKAGE, /* a die or package */
    EP_SCOPE_HOST,    /* one operating system */
    EP_SCOPE_SCALEUP, /* one NVLink or XGMI domain over several hosts */
    EP_SCOPE_LEAF,    /* one leaf switch */
    EP_SCOPE_FABRIC   /* different hosts */
};

/** "self", "core", "cache", ... as printed. */
const char *ep_scope_name(enum ep_scope scope);

/** A class of core pairs: (type and subtype of the deepest common object, same home NUMA node,
 *  SLIT distance). Source: topologies/README.md, "Levels". */
struct ep_machine_class {
    char type[32];       /* "L3", "package", "host", "group0": the deepest common object */
    char subtype[32];    /* "" or hwloc's subtype: "Cluster", "Module" */
    bool same_numa;      /* both cores have the same home NUMA node */
    double slit;         /* ACPI SLIT distance, 10 = local; 0 where the firmware gives none */
    enum ep_scope scope;
    int64_t span_pus;    /* hardware threads under the common object, largest of the class */
};

struct ep_machine_core {
    int64_t os_idx;   /* the operating system's number, -1 if none */
    int64_t package;  /* index into packages, -1 if none */
    int64_t numa;     /* home NUMA node: the smallest that holds the core, -1 if none */
    int64_t num_pus;  /* hardware threads, >= 1 */
    int64_t first_pu; /* index into pus; a core's are consecutive */
};

struct ep_machine_pu {
    int64_t os_idx;
    int64_t core; /* index into cores */
};

struct ep_machine_numa {
    int64_t os_idx;
    int64_t memory_bytes; /* 0 where unknown; not stable on some virtual machines */
    int64_t num_pus;      /* hardware threads that are local to it */
    char subtype[32];     /* "" or "HBM", "CXL", ... */
};

struct ep_machine_cache {
    char name[16];           /* "L1d", "L2", "L3" */
    int level;               /* 1, 2, 3, ... */
    int64_t num;             /* caches of this kind */
    int64_t min_size_bytes;  /* smallest of them; 0 where unknown */
    int64_t max_size_bytes;  /* largest of them */
    int64_t max_num_cores;   /* cores that share one, largest */
};

enum ep_device_kind { EP_DEVICE_NIC, EP_DEVICE_GPU, EP_DEVICE_SWITCH };

/** "nic", "gpu", "switch". */
const char *ep_device_kind_name(enum ep_device_kind kind);

struct ep_machine_device {
    enum ep_device_kind kind;
    char name[64];             /* operating system names, "mlx5_0,ib0"; "" if none */
    char model[96];            /* PCI vendor and name, or "vvvv:dddd"; "" if none */
    char busid[24];            /* "0000:c1:00.0"; "" for a device outside PCI */
    double pci_bytes_per_s;    /* reported PCI link speed, one way; NaN where unknown */
    double net_bytes_per_s;    /* reported network line rate of a NIC; NaN where unknown */
    int64_t package;           /* where it hangs: package and NUMA node, -1 if neither is told */
    int64_t numa;
};

/** All of one host. Created by ep_machine_create; freed by ep_machine_destroy. */
struct ep_machine {
    char name[64];       /* host name in the XML; "" where the source tells none */
    char model[96];      /* CPU model text; "" where unknown */
    char source[16];     /* hwloc's backend: "Linux", "Synthetic", ... */
    uint64_t signature;  /* equal for hosts whose structure is equal; sizes of memory left out */
    int64_t num_packages;
    int64_t num_cores;
    int64_t num_pus;
    int64_t num_numas;
    int64_t num_caches;
    int64_t num_devices;
    int64_t num_classes;
    int64_t num_complete_pus; /* hardware threads that the machine has */
    int64_t num_allowed_pus;  /* hardware threads that cgroup or cpuset allow */
    struct ep_machine_core *cores;
    struct ep_machine_pu *pus;
    struct ep_machine_numa *numas;
    double *slit; /* [num_numas][num_numas] row to column, NULL where the firmware gives none */
    struct ep_machine_cache *caches; /* one row per kind, nearest first */
    struct ep_machine_device *devices;
    struct ep_machine_class *classes; /* nearest first */
    uint8_t *core_class; /* [num_cores][num_cores], class of a pair; symmetric; diagonal unused */
};

/** Read one host from hwloc XML (versions 1 and 2).
 *  what     names the source in messages: a file, "host 3"
 *  xml      [length] bytes and a NUL, read only
 *  Returns EP_EINVAL for text that is truncated, not hwloc's, of version 3, or beyond the limits
 *  above; EP_ENOMEM. Only hosts loaded so can be bound to nothing: they are descriptions. */
EP_MUST_CHECK enum ep_status ep_machine_create(const char *what, const char *xml, size_t length,
                                               struct ep_machine **machine);
void ep_machine_destroy(struct ep_machine *machine);

/** Try XML from outside in a child process first: hwloc 2.9 itself can crash or spin on damaged
 *  XML (an object without complete_cpuset, for one). Not for processes that run MPI.
 *  Returns EP_EINVAL where the child dies; EP_OK otherwise, also for text that
 *  ep_machine_create then refuses with its own message. */
EP_MUST_CHECK enum ep_status ep_machine_try_xml(const char *what, const char *xml, size_t length);

/** Discover this host (packages, NUMA, caches, cores, PCI NICs and GPUs) and export it as XML.
 *  The gl and opencl components are left out: they start GPU and X runtimes.
 *  xml  NUL-terminated, to be freed by the caller; length without the NUL
 *  Returns EP_EENV where discovery fails. About 30 ms. */
EP_MUST_CHECK enum ep_status ep_machine_discover_xml(char **xml, size_t *length);

/** XML of a synthetic host: "pack:2 numa:1 l3:2 core:4 pu:1", hwloc's notation.
 *  Returns EP_EINVAL for a text that hwloc refuses or that exceeds the limits above. */
EP_MUST_CHECK enum ep_status ep_machine_synthesize_xml(const char *description, char **xml,
                                                       size_t *length);

/** The hardware threads that the calling thread may run on, as a list of the operating system's
 *  numbers ("0-3,8"); new string, to be freed. Returns EP_EENV where the kernel does not tell. */
EP_MUST_CHECK enum ep_status ep_machine_discover_binding(char **cpuset);

/** Where a rank bound to `cpuset` sits on `machine`.
 *  cpuset  a list "0-3,8"; hardware threads that the machine lacks are left out
 *  core    the one core that holds all of it, or -1: floating over several
 *  pu      the one hardware thread, or -1
 *  Returns EP_EINVAL for a text that is no list, or that names no thread of the machine. */
EP_MUST_CHECK enum ep_status ep_machine_locate(const struct ep_machine *machine,
                                               const char *cpuset, int64_t *core, int64_t *pu);

/** Number of cores, and of hardware threads, that a process bound to `cpuset` may use. */
EP_MUST_CHECK enum ep_status ep_machine_count_cores(const struct ep_machine *machine,
                                                    const char *cpuset, int64_t *num_cores,
                                                    int64_t *num_pus);

/** One measured value to be written into a host's XML. */
struct ep_machine_note {
    const char *name;  /* "epbench L3": an info of the root object, and a box in lstopo's drawing */
    const char *value; /* "latency 0.3 us, bandwidth 12.1 GB/s" */
};

/** Copy `xml` with notes added: each an info of the root object and a Misc object below it.
 *  Returns as ep_machine_create. */
EP_MUST_CHECK enum ep_status ep_machine_annotate_xml(const char *xml, size_t length,
                                                     const struct ep_machine_note *notes,
                                                     int64_t num_notes, char **annotated,
                                                     size_t *annotated_length);

#endif
