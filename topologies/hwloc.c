/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to hwloc: discovery, XML and synthetic hosts, read into struct ep_machine. */
#include "topologies/machine.h"

#include "base/file.h"
#include "topologies/machine_parts.h"

#include <hwloc.h>
#include <hwloc/distances.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HWLOC_API_VERSION >= 0x00030000
#error "hwloc 3 has another programming interface; build with hwloc 2.x (Debian package libhwloc-dev)"
#endif

enum source { SOURCE_LIVE, SOURCE_XML, SOURCE_XML_WHOLE, SOURCE_SYNTHETIC };

/* Starting X or OpenCL to learn of displays can hang, and tells nothing that is used here. */
static int leave_out_runtimes(hwloc_topology_t topology)
{
    return hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                         "gl") != 0 ||
           hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                         "opencl") != 0;
}

/* Returns 0, or -1 with *topology untouched. text is the XML or the synthetic description. */
static int load(enum source source, const char *text, size_t length, hwloc_topology_t *topology)
{
    hwloc_topology_t t = NULL;
    setenv("HWLOC_HIDE_ERRORS", "2", 0); /* one message, and that ours */
    if (hwloc_topology_init(&t) != 0) {
        return -1;
    }
    int failed = 0;
    switch (source) {
    case SOURCE_LIVE:
        failed = leave_out_runtimes(t);
        break;
    case SOURCE_XML:
    case SOURCE_XML_WHOLE:
        failed = hwloc_topology_set_xmlbuffer(t, text, (int)length + 1);
        break;
    case SOURCE_SYNTHETIC:
        failed = hwloc_topology_set_synthetic(t, text);
        break;
    }
    if (!failed && source == SOURCE_XML_WHOLE) {
        failed = hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_ALL) ||
                 hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    } else if (!failed) {
        failed = hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    }
    if (!failed && source == SOURCE_XML) {
        /* hwloc does not call an NVSwitch important */
        failed = hwloc_topology_set_type_filter(t, HWLOC_OBJ_PCI_DEVICE,
                                                HWLOC_TYPE_FILTER_KEEP_ALL);
    }
    if (failed || hwloc_topology_load(t) != 0) {
        hwloc_topology_destroy(t);
        return -1;
    }
    *topology = t;
    return 0;
}

static enum ep_status export_xml(hwloc_topology_t topology, char **xml, size_t *length)
{
    char *buffer = NULL;
    int buffer_length = 0;
    if (hwloc_topology_export_xmlbuffer(topology, &buffer, &buffer_length, 0) != 0) {
        return ep_error_set(EP_EENV, "hwloc cannot export a topology as XML: %s",
                            strerror(errno));
    }
    char *copy = strdup(buffer);
    hwloc_free_xmlbuffer(topology, buffer);
    if (copy == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for a topology of %d bytes", buffer_length);
    }
    *xml = copy;
    *length = strlen(copy);
    return EP_OK;
}

/* hwloc 2.9 knows a NIC's PCI link but not its line rate: keep what the kernel says as an info. */
static void add_line_rates(hwloc_topology_t topology)
{
    for (hwloc_obj_t os = NULL; (os = hwloc_get_next_osdev(topology, os)) != NULL;) {
        const bool is_ib = os->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
        if (os->name == NULL || (!is_ib && os->attr->osdev.type != HWLOC_OBJ_OSDEV_NETWORK)) {
            continue;
        }
        const double bits_per_s = ep_machine_read_line_rate(os->name, is_ib);
        if (bits_per_s > 0) {
            char text[32];
            snprintf(text, sizeof text, "%.0f", bits_per_s / 1e6);
            (void)hwloc_obj_add_info(os, "EpbenchLineRateMbps", text);
        }
    }
}

enum ep_status ep_machine_discover_xml(char **xml, size_t *length)
{
    hwloc_topology_t topology = NULL;
    if (load(SOURCE_LIVE, NULL, 0, &topology) != 0) {
        return ep_error_set(EP_EENV, "hwloc cannot discover this host: %s", strerror(errno));
    }
    add_line_rates(topology);
    const enum ep_status status = export_xml(topology, xml, length);
    hwloc_topology_destroy(topology);
    return status;
}

enum ep_status ep_machine_synthesize_xml(const char *description, char **xml, size_t *length)
{
    enum ep_status status = ep_machine_check_synthetic(description);
    if (status != EP_OK) {
        return status;
    }
    hwloc_topology_t topology = NULL;
    if (load(SOURCE_SYNTHETIC, description, 0, &topology) != 0) {
        return ep_error_set(EP_EINVAL,
                            "'%s' is not a synthetic host; expected levels from package to "
                            "hardware thread as in \"pack:2 numa:1 l3:2 core:4 pu:1\"",
                            description);
    }
    status = export_xml(topology, xml, length);
    hwloc_topology_destroy(topology);
    return status;
}

/* --- reading a loaded topology into plain data ----------------------------------------------- */

struct reader {
    hwloc_topology_t topology;
    struct ep_machine *machine;
    hwloc_obj_t *core_objs; /* [num_cores]: Core, or PU where there are no cores */
    struct ep_machine_signature signature;
};

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from != NULL ? from : "");
}

static void read_names(struct reader *r)
{
    hwloc_obj_t root = hwloc_get_root_obj(r->topology);
    hwloc_obj_t package = hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_PACKAGE, 0);
    const char *model = package != NULL ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    copy_text(r->machine->name, sizeof r->machine->name,
              hwloc_obj_get_info_by_name(root, "HostName"));
    copy_text(r->machine->source, sizeof r->machine->source,
              hwloc_obj_get_info_by_name(root, "Backend"));
    copy_text(r->machine->model, sizeof r->machine->model,
              model != NULL ? model : hwloc_obj_get_info_by_name(root, "CPUModel"));
}

static void read_counts(struct reader *r)
{
    struct ep_machine *m = r->machine;
    const int packages = hwloc_get_nbobjs_by_type(r->topology, HWLOC_OBJ_PACKAGE);
    m->num_packages = packages > 0 ? packages : 0;
    m->num_complete_pus =
        hwloc_bitmap_weight(hwloc_topology_get_complete_cpuset(r->topology));
    m->num_allowed_pus = hwloc_bitmap_weight(hwloc_topology_get_allowed_cpuset(r->topology));
}

/* The smallest NUMA node around a hardware thread: HBM and CXL nodes at the root hold them all. */
static int64_t home_numa(const struct reader *r, unsigned pu_os_idx)
{
    hwloc_obj_t best = NULL;
    for (hwloc_obj_t n = NULL;
         (n = hwloc_get_next_obj_by_type(r->topology, HWLOC_OBJ_NUMANODE, n)) != NULL;) {
        if (hwloc_bitmap_isset(n->cpuset, pu_os_idx) &&
            (best == NULL || hwloc_bitmap_weight(n->cpuset) < hwloc_bitmap_weight(best->cpuset))) {
            best = n;
        }
    }
    return best != NULL ? (int64_t)best->logical_index : -1;
}

static enum ep_status read_cores(struct reader *r, const char *what)
{
    struct ep_machine *m = r->machine;
    const int num_pus = hwloc_get_nbobjs_by_type(r->topology, HWLOC_OBJ_PU);
    if (num_pus < 1 || num_pus > EP_MACHINE_MAX_PUS) {
        return ep_error_set(EP_EINVAL, "%s: %d hardware threads; 1 to %d are supported", what,
                            num_pus, EP_MACHINE_MAX_PUS);
    }
    m->num_pus = num_pus;
    m->pus = calloc((size_t)num_pus, sizeof *m->pus);
    m->cores = calloc((size_t)num_pus, sizeof *m->cores);
    r->core_objs = calloc((size_t)num_pus, sizeof *r->core_objs);
    if (m->pus == NULL || m->cores == NULL || r->core_objs == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory for %d hardware threads", what, num_pus);
    }
    for (int i = 0; i < num_pus; i++) {
        hwloc_obj_t pu = hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_PU, (unsigned)i);
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(r->topology, HWLOC_OBJ_CORE, pu);
        core = core != NULL ? core : pu;
        if (m->num_cores == 0 || r->core_objs[m->num_cores - 1] != core) {
            hwloc_obj_t package =
                hwloc_get_ancestor_obj_by_type(r->topology, HWLOC_OBJ_PACKAGE, pu);
            r->core_objs[m->num_cores] = core;
            m->cores[m->num_cores++] = (struct ep_machine_core){
                .os_idx = core->os_index == HWLOC_UNKNOWN_INDEX ? -1 : (int64_t)core->os_index,
                .package = package != NULL ? (int64_t)package->logical_index : -1,
                .numa = home_numa(r, pu->os_index),
                .first_pu = i,
            };
        }
        m->cores[m->num_cores - 1].num_pus++;
        m->pus[i] = (struct ep_machine_pu){.os_idx = pu->os_index, .core = m->num_cores - 1};
    }
    if (m->num_cores > EP_MACHINE_MAX_CORES) {
        return ep_error_set(EP_EINVAL, "%s: %" PRId64 " cores; at most %d are supported", what,
                            m->num_cores, EP_MACHINE_MAX_CORES);
    }
    return EP_OK;
}

static enum ep_status read_numas(struct reader *r)
{
    struct ep_machine *m = r->machine;
    const int num = hwloc_get_nbobjs_by_type(r->topology, HWLOC_OBJ_NUMANODE);
    m->num_numas = num > 0 ? num : 0;
    m->numas = calloc((size_t)m->num_numas + 1, sizeof *m->numas);
    if (m->numas == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %d NUMA nodes", num);
    }
    for (int64_t i = 0; i < m->num_numas; i++) {
        hwloc_obj_t n = hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_NUMANODE, (unsigned)i);
        m->numas[i].os_idx = n->os_index;
        m->numas[i].memory_bytes = (int64_t)n->attr->numanode.local_memory;
        m->numas[i].num_pus = hwloc_bitmap_weight(n->cpuset);
        copy_text(m->numas[i].subtype, sizeof m->numas[i].subtype, n->subtype);
    }
    unsigned num_distances = 1;
    struct hwloc_distances_s *distances = NULL;
    if (hwloc_distances_get_by_name(r->topology, "NUMALatency", &num_distances, &distances, 0) !=
            0 ||
        num_distances == 0 || distances == NULL) {
        return EP_OK;
    }
    m->slit = calloc((size_t)(m->num_numas * m->num_numas) + 1, sizeof *m->slit);
    for (int64_t i = 0; i < m->num_numas && m->slit != NULL; i++) {
        for (int64_t k = 0; k < m->num_numas; k++) {
            hwloc_obj_t a = hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_NUMANODE, (unsigned)i);
            hwloc_obj_t b = hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_NUMANODE, (unsigned)k);
            hwloc_uint64_t there = 0;
            hwloc_uint64_t back = 0;
            if (hwloc_distances_obj_pair_values(distances, a, b, &there, &back) == 0) {
                m->slit[i * m->num_numas + k] = (double)there;
            }
        }
    }
    hwloc_distances_release(r->topology, distances);
    return m->slit != NULL ? EP_OK : ep_error_set(EP_ENOMEM, "no memory for NUMA distances");
}

static int64_t count_cores_of(const struct reader *r, hwloc_obj_t object)
{
    int64_t num = 0;
    for (int64_t i = 0; i < r->machine->num_cores; i++) {
        num += hwloc_bitmap_isincluded(r->core_objs[i]->cpuset, object->cpuset);
    }
    return num;
}

static enum ep_status read_caches(struct reader *r)
{
    struct ep_machine *m = r->machine;
    const int depths = hwloc_topology_get_depth(r->topology);
    m->caches = calloc((size_t)depths + 1, sizeof *m->caches);
    if (m->caches == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for caches");
    }
    for (int depth = depths - 1; depth >= 0; depth--) {
        if (!hwloc_obj_type_is_dcache(hwloc_get_depth_type(r->topology, depth))) {
            continue;
        }
        struct ep_machine_cache *cache = &m->caches[m->num_caches++];
        for (hwloc_obj_t c = NULL;
             (c = hwloc_get_next_obj_by_depth(r->topology, depth, c)) != NULL;) {
            const int64_t size = (int64_t)c->attr->cache.size;
            const int64_t cores = count_cores_of(r, c);
            hwloc_obj_type_snprintf(cache->name, sizeof cache->name, c, 0);
            cache->level = (int)c->attr->cache.depth;
            cache->min_size_bytes =
                cache->num == 0 || size < cache->min_size_bytes ? size : cache->min_size_bytes;
            cache->max_size_bytes = size > cache->max_size_bytes ? size : cache->max_size_bytes;
            cache->max_num_cores = cores > cache->max_num_cores ? cores : cache->max_num_cores;
            cache->num++;
        }
    }
    return EP_OK;
}

/* --- devices --------------------------------------------------------------------------------- */

static void append_os_names(struct ep_machine_device *device, hwloc_obj_t parent)
{
    for (hwloc_obj_t os = parent->io_first_child; os != NULL; os = os->next_sibling) {
        if (os->type != HWLOC_OBJ_OS_DEVICE || os->name == NULL) {
            continue;
        }
        const size_t used = strlen(device->name);
        snprintf(device->name + used, sizeof device->name - used, "%s%s", used > 0 ? "," : "",
                 os->name);
        const char *rate = hwloc_obj_get_info_by_name(os, "EpbenchLineRateMbps");
        const double mbps = rate != NULL ? strtod(rate, NULL) : 0;
        if (isfinite(mbps) && mbps > 0) {
            device->net_bytes_per_s = mbps * 1e6 / 8;
        }
    }
}

static void locate_device(const struct reader *r, hwloc_obj_t object,
                          struct ep_machine_device *device)
{
    hwloc_obj_t holder = hwloc_get_non_io_ancestor_obj(r->topology, object);
    device->package = -1;
    device->numa = -1;
    if (holder == NULL || holder->cpuset == NULL || hwloc_bitmap_iszero(holder->cpuset)) {
        return;
    }
    hwloc_obj_t package = holder->type == HWLOC_OBJ_PACKAGE
                              ? holder
                              : hwloc_get_ancestor_obj_by_type(r->topology, HWLOC_OBJ_PACKAGE,
                                                               holder);
    if (package == NULL && r->machine->num_packages == 1) {
        package = hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_PACKAGE, 0);
    }
    device->package = package != NULL ? (int64_t)package->logical_index : -1;
    const int64_t home = home_numa(r, (unsigned)hwloc_bitmap_first(holder->cpuset));
    if (home >= 0 && hwloc_bitmap_isincluded(
                         holder->cpuset, hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_NUMANODE,
                                                               (unsigned)home)->cpuset)) {
        device->numa = home;
    }
}

static void read_pci(const struct reader *r, hwloc_obj_t object, struct ep_machine_device *device)
{
    const struct hwloc_pcidev_attr_s *pci = &object->attr->pcidev;
    const char *vendor = hwloc_obj_get_info_by_name(object, "PCIVendor");
    const char *name = hwloc_obj_get_info_by_name(object, "PCIDevice");
    snprintf(device->busid, sizeof device->busid, "%04x:%02x:%02x.%x", pci->domain, pci->bus,
             pci->dev, pci->func);
    if (vendor != NULL || name != NULL) {
        snprintf(device->model, sizeof device->model, "%s%s%s", vendor != NULL ? vendor : "",
                 vendor != NULL && name != NULL ? " " : "", name != NULL ? name : "");
    } else {
        snprintf(device->model, sizeof device->model, "%04x:%04x", pci->vendor_id,
                 pci->device_id);
    }
    const double speed = (double)pci->linkspeed; /* GB/s; 0 = unknown */
    device->pci_bytes_per_s = isfinite(speed) && speed > 0 ? speed * 1e9 : NAN;
    device->net_bytes_per_s = NAN;
    append_os_names(device, object);
    locate_device(r, object, device);
}

static bool os_device_kind(hwloc_obj_t os, enum ep_device_kind *kind)
{
    switch (os->attr->osdev.type) {
    case HWLOC_OBJ_OSDEV_NETWORK:
    case HWLOC_OBJ_OSDEV_OPENFABRICS:
        *kind = EP_DEVICE_NIC;
        return true;
    case HWLOC_OBJ_OSDEV_GPU:
    case HWLOC_OBJ_OSDEV_COPROC:
        *kind = EP_DEVICE_GPU;
        return true;
    default:
        return false;
    }
}

static enum ep_status read_devices(struct reader *r)
{
    struct ep_machine *m = r->machine;
    size_t capacity = 1;
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_pcidev(r->topology, o)) != NULL;) {
        capacity++;
    }
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_osdev(r->topology, o)) != NULL;) {
        capacity++;
    }
    m->devices = calloc(capacity, sizeof *m->devices);
    if (m->devices == NULL) {
        return ep_error_set(EP_ENOMEM, "no memory for %zu devices", capacity);
    }
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_pcidev(r->topology, o)) != NULL;) {
        struct ep_machine_device *device = &m->devices[m->num_devices];
        if (ep_machine_pci_kind(o->attr->pcidev.class_id, o->attr->pcidev.vendor_id,
                                &device->kind)) {
            read_pci(r, o, device);
            m->num_devices++;
        }
    }
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_osdev(r->topology, o)) != NULL;) {
        struct ep_machine_device *device = &m->devices[m->num_devices];
        if (o->parent->type != HWLOC_OBJ_PCI_DEVICE && os_device_kind(o, &device->kind)) {
            copy_text(device->name, sizeof device->name, o->name);
            device->pci_bytes_per_s = NAN;
            device->net_bytes_per_s = NAN;
            locate_device(r, o, device);
            m->num_devices++;
        }
    }
    return EP_OK;
}

/* --- classes --------------------------------------------------------------------------------- */

static void describe_common(const struct reader *r, hwloc_obj_t common, int64_t numa,
                            struct ep_machine_class *class)
{
    hwloc_obj_t node = numa >= 0 ? hwloc_get_obj_by_type(r->topology, HWLOC_OBJ_NUMANODE,
                                                         (unsigned)numa)
                                 : NULL;
    hwloc_obj_type_snprintf(class->type, sizeof class->type, common, 0);
    copy_text(class->subtype, sizeof class->subtype, common->subtype);
    class->span_pus = hwloc_bitmap_weight(common->cpuset);
    if (hwloc_obj_type_is_cache(common->type)) {
        class->scope = EP_SCOPE_CACHE;
        return;
    }
    switch (common->type) {
    case HWLOC_OBJ_MACHINE:
        copy_text(class->type, sizeof class->type, "host");
        class->scope = EP_SCOPE_HOST;
        break;
    case HWLOC_OBJ_GROUP:
        if (node != NULL && hwloc_bitmap_isequal(node->cpuset, common->cpuset)) {
            copy_text(class->type, sizeof class->type, "numa");
            class->scope = EP_SCOPE_NUMA;
        } else if (node != NULL && hwloc_bitmap_isincluded(common->cpuset, node->cpuset)) {
            class->scope = EP_SCOPE_CACHE;
        } else {
            class->scope = hwloc_get_ancestor_obj_by_type(r->topology, HWLOC_OBJ_PACKAGE, common)
                               ? EP_SCOPE_PACKAGE
                               : EP_SCOPE_HOST;
        }
        break;
    default:
        class->scope = EP_SCOPE_PACKAGE;
        break;
    }
    for (char *p = class->type; *p != '\0'; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
}

static struct ep_machine_class class_of(const struct reader *r, hwloc_obj_t common, int64_t a,
                                        int64_t b)
{
    const struct ep_machine *m = r->machine;
    struct ep_machine_class class = {.slit = 0};
    describe_common(r, common, a, &class);
    /* Two cores without a home are not on the same node. */
    class.same_numa = a >= 0 && a == b;
    if (class.same_numa) {
        class.slit = 10;
    } else if (m->slit != NULL && a >= 0 && b >= 0) {
        class.slit = fmax(m->slit[a * m->num_numas + b], m->slit[b * m->num_numas + a]);
    }
    return class;
}

static enum ep_status read_classes(struct reader *r, const char *what)
{
    struct ep_machine *m = r->machine;
    const int64_t n = m->num_cores;
    m->core_class = calloc((size_t)(n * n), 1);
    m->classes = calloc(EP_MACHINE_MAX_CLASSES, sizeof *m->classes);
    if (m->core_class == NULL || m->classes == NULL) {
        return ep_error_set(EP_ENOMEM, "%s: no memory for %" PRId64 " cores squared", what, n);
    }
    for (int64_t i = 0; i < n; i++) {
        /* runs of neighbours have the same common object: do not describe it again */
        hwloc_obj_t last_common = NULL;
        int64_t last_numa = -1;
        int64_t found = -1;
        for (int64_t k = i + 1; k < n; k++) {
            hwloc_obj_t common = hwloc_get_common_ancestor_obj(r->topology, r->core_objs[i],
                                                               r->core_objs[k]);
            if (common != last_common || m->cores[k].numa != last_numa) {
                const struct ep_machine_class class =
                    class_of(r, common, m->cores[i].numa, m->cores[k].numa);
                found = ep_machine_find_class(m, &class);
                last_common = common;
                last_numa = m->cores[k].numa;
            }
            if (found < 0) {
                return ep_error_set(EP_EINVAL,
                                    "%s: more than %d classes of core pairs; its NUMA "
                                    "distances look wrong",
                                    what, EP_MACHINE_MAX_CLASSES);
            }
            m->core_class[i * n + k] = (uint8_t)found;
            m->core_class[k * n + i] = (uint8_t)found;
        }
    }
    ep_machine_sort_classes(m);
    return EP_OK;
}

static void sign_object(struct reader *r, hwloc_obj_t object)
{
    struct ep_machine_signature *s = &r->signature;
    /* not hwloc_obj_type_snprintf, which asserts on bridges of unknown kind */
    ep_machine_sign_text(s, hwloc_obj_type_string(object->type));
    ep_machine_sign_text(s, object->subtype != NULL ? object->subtype : "");
    if (object->cpuset != NULL) {
        char *set = NULL;
        if (hwloc_bitmap_list_asprintf(&set, object->cpuset) >= 0) {
            ep_machine_sign_text(s, set);
        }
        free(set);
    }
    if (hwloc_obj_type_is_cache(object->type)) {
        ep_machine_sign_i64(s, (int64_t)object->attr->cache.size);
    } else if (object->type == HWLOC_OBJ_PCI_DEVICE) {
        ep_machine_sign_i64(s, object->attr->pcidev.class_id);
        ep_machine_sign_i64(s, object->attr->pcidev.vendor_id);
        ep_machine_sign_i64(s, object->attr->pcidev.device_id);
    } else if (object->type == HWLOC_OBJ_OS_DEVICE) {
        ep_machine_sign_i64(s, (int64_t)object->attr->osdev.type);
    }
    for (hwloc_obj_t c = object->memory_first_child; c != NULL; c = c->next_sibling) {
        sign_object(r, c);
    }
    for (hwloc_obj_t c = object->first_child; c != NULL; c = c->next_sibling) {
        sign_object(r, c);
    }
    for (hwloc_obj_t c = object->io_first_child; c != NULL; c = c->next_sibling) {
        sign_object(r, c);
    }
    ep_machine_sign_text(s, "up");
}

static void sign(struct reader *r)
{
    struct ep_machine *m = r->machine;
    ep_machine_sign_start(&r->signature);
    sign_object(r, hwloc_get_root_obj(r->topology));
    for (int64_t i = 0; m->slit != NULL && i < m->num_numas * m->num_numas; i++) {
        ep_machine_sign_i64(&r->signature, (int64_t)m->slit[i]);
    }
    m->signature = r->signature.hash;
}

enum ep_status ep_machine_create(const char *what, const char *xml, size_t length,
                                 struct ep_machine **machine)
{
    struct reader r = {.topology = NULL};
    enum ep_status status = EP_OK;
    EP_TRY(ep_machine_check_xml(what, xml, length));
    if (load(SOURCE_XML, xml, length, &r.topology) != 0) {
        return ep_error_set(EP_EINVAL, "%s: hwloc cannot read it as a topology; expected XML "
                                       "as lstopo or epbench export it (version 1 or 2)",
                            what);
    }
    r.machine = calloc(1, sizeof *r.machine);
    if (r.machine == NULL) {
        status = ep_error_set(EP_ENOMEM, "%s: no memory", what);
        goto out;
    }
    read_names(&r);
    read_counts(&r);
    EP_TRY(read_cores(&r, what));
    EP_TRY(read_numas(&r));
    EP_TRY(read_caches(&r));
    EP_TRY(read_devices(&r));
    EP_TRY(read_classes(&r, what));
    sign(&r);
    *machine = r.machine;
    r.machine = NULL;
out:
    free(r.core_objs);
    ep_machine_destroy(r.machine);
    if (r.topology != NULL) {
        hwloc_topology_destroy(r.topology);
    }
    return status;
}

enum ep_status ep_machine_annotate_xml(const char *xml, size_t length,
                                       const struct ep_machine_note *notes, int64_t num_notes,
                                       char **annotated, size_t *annotated_length)
{
    enum ep_status status = ep_machine_check_xml("topology", xml, length);
    if (status != EP_OK) {
        return status;
    }
    hwloc_topology_t topology = NULL;
    if (load(SOURCE_XML_WHOLE, xml, length, &topology) != 0) {
        return ep_error_set(EP_EINVAL, "hwloc cannot read a topology to be annotated");
    }
    hwloc_obj_t root = hwloc_get_root_obj(topology);
    for (int64_t i = 0; i < num_notes && status == EP_OK; i++) {
        char *text = ep_format_new("%s: %s", notes[i].name, notes[i].value);
        if (text == NULL || hwloc_obj_add_info(root, notes[i].name, notes[i].value) != 0 ||
            hwloc_topology_insert_misc_object(topology, root, text) == NULL) {
            status = ep_error_set(EP_ENOMEM, "a topology cannot be annotated with '%s'",
                                  notes[i].name);
        }
        free(text);
    }
    if (status == EP_OK) {
        status = export_xml(topology, annotated, annotated_length);
    }
    hwloc_topology_destroy(topology);
    return status;
}
