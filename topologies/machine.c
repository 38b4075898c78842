/* SPDX-License-Identifier: Apache-2.0 */
/* Checks, classes, signatures and device kinds of one host; nothing here needs hwloc. */
#include "topologies/machine.h"

#include "topologies/machine_parts.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *ep_scope_name(enum ep_scope scope)
{
    static const char *const names[] = {
        [EP_SCOPE_SELF] = "self",       [EP_SCOPE_CORE] = "core", [EP_SCOPE_CACHE] = "cache",
        [EP_SCOPE_NUMA] = "numa",       [EP_SCOPE_PACKAGE] = "package",
        [EP_SCOPE_HOST] = "host",       [EP_SCOPE_SCALEUP] = "scale-up",
        [EP_SCOPE_LEAF] = "leaf",       [EP_SCOPE_FABRIC] = "fabric",
    };
    EP_ASSERT((unsigned)scope < sizeof names / sizeof names[0]);
    return names[scope];
}

const char *ep_device_kind_name(enum ep_device_kind kind)
{
    static const char *const names[] = {
        [EP_DEVICE_NIC] = "nic", [EP_DEVICE_GPU] = "gpu", [EP_DEVICE_SWITCH] = "switch"};
    EP_ASSERT((unsigned)kind < sizeof names / sizeof names[0]);
    return names[kind];
}

void ep_machine_destroy(struct ep_machine *machine)
{
    if (machine == NULL) {
        return;
    }
    free(machine->cores);
    free(machine->pus);
    free(machine->numas);
    free(machine->slit);
    free(machine->caches);
    free(machine->devices);
    free(machine->classes);
    free(machine->core_class);
    free(machine);
}

/* The element's own text must end the file: hwloc's own complaint about a cut file is silent. */
static bool ends_with_element(const char *xml, size_t length)
{
    static const char closing[] = "</topology>";
    const size_t closing_length = sizeof closing - 1;
    while (length > 0 && (isspace((unsigned char)xml[length - 1]) || xml[length - 1] == '\0')) {
        length--;
    }
    return length >= closing_length &&
           memcmp(xml + length - closing_length, closing, closing_length) == 0;
}

enum ep_status ep_machine_check_xml(const char *what, const char *xml, size_t length)
{
    if (length == 0 || xml[0] == '\0') {
        return ep_error_set(EP_EINVAL, "%s: is empty; hwloc XML was expected", what);
    }
    if (length > EP_MACHINE_MAX_XML_BYTES) {
        return ep_error_set(EP_EINVAL, "%s: %zu bytes of XML; at most %d are read", what, length,
                            EP_MACHINE_MAX_XML_BYTES);
    }
    const char *element = memmem(xml, length, "<topology", 9);
    if (element == NULL) {
        return ep_error_set(EP_EINVAL, "%s: has no <topology> element; hwloc XML was expected",
                            what);
    }
    const char *close = memchr(element, '>', length - (size_t)(element - xml));
    if (close == NULL || !ends_with_element(xml, length)) {
        return ep_error_set(EP_EINVAL, "%s: is truncated: it does not end with </topology>",
                            what);
    }
    char head[128];
    snprintf(head, sizeof head, "%.*s", (int)(close - element < 127 ? close - element : 127),
             element);
    const char *version = strstr(head, "version=\"");
    if (version != NULL && atoi(version + 9) > 2) {
        return ep_error_set(EP_EINVAL,
                            "%s: hwloc %d XML; this build reads versions 1 and 2: export it "
                            "again with `lstopo --export-xml-flags v2 FILE.xml`",
                            what, atoi(version + 9));
    }
    return EP_OK;
}

enum ep_status ep_machine_check_synthetic(const char *description)
{
    if (strlen(description) > 4096) {
        return ep_error_set(EP_EINVAL, "a synthetic host of %zu characters; at most 4096",
                            strlen(description));
    }
    double product = 1;
    int inside = 0; /* attributes in () and memory in [] do not multiply */
    for (const char *p = description; *p != '\0'; p++) {
        inside += *p == '(' || *p == '[';
        inside -= *p == ')' || *p == ']';
        const bool starts_number = isdigit((unsigned char)*p) &&
                                   (p == description || p[-1] == ':' || p[-1] == ' ');
        if (inside == 0 && starts_number) {
            product *= strtod(p, NULL);
        }
        if (product > EP_MACHINE_MAX_PUS) {
            return ep_error_set(EP_EINVAL,
                                "synthetic host '%.80s' has more than %d hardware threads",
                                description, EP_MACHINE_MAX_PUS);
        }
    }
    return EP_OK;
}

static bool same_key(const struct ep_machine_class *a, const struct ep_machine_class *b)
{
    return a->same_numa == b->same_numa && a->slit == b->slit && strcmp(a->type, b->type) == 0 &&
           strcmp(a->subtype, b->subtype) == 0;
}

int64_t ep_machine_find_class(struct ep_machine *machine, const struct ep_machine_class *class)
{
    for (int64_t i = 0; i < machine->num_classes; i++) {
        struct ep_machine_class *known = &machine->classes[i];
        if (same_key(known, class)) {
            known->span_pus = class->span_pus > known->span_pus ? class->span_pus
                                                                : known->span_pus;
            return i;
        }
    }
    if (machine->num_classes == EP_MACHINE_MAX_CLASSES) {
        return -1;
    }
    machine->classes[machine->num_classes] = *class;
    return machine->num_classes++;
}

int ep_machine_compare_classes(const struct ep_machine_class *a, const struct ep_machine_class *b)
{
    if (a->span_pus != b->span_pus) {
        return a->span_pus < b->span_pus ? -1 : 1;
    }
    if (a->same_numa != b->same_numa) {
        return a->same_numa ? -1 : 1;
    }
    if (a->slit != b->slit) {
        return a->slit < b->slit ? -1 : 1;
    }
    const int types = strcmp(a->type, b->type);
    return types != 0 ? types : strcmp(a->subtype, b->subtype);
}

static int compare_order(const void *a, const void *b, void *classes)
{
    const struct ep_machine_class *all = classes;
    return ep_machine_compare_classes(&all[*(const uint8_t *)a], &all[*(const uint8_t *)b]);
}

void ep_machine_sort_classes(struct ep_machine *machine)
{
    uint8_t order[EP_MACHINE_MAX_CLASSES];
    uint8_t new_idx[EP_MACHINE_MAX_CLASSES];
    struct ep_machine_class sorted[EP_MACHINE_MAX_CLASSES];
    const size_t num = (size_t)machine->num_classes;
    for (size_t i = 0; i < num; i++) {
        order[i] = (uint8_t)i;
    }
    qsort_r(order, num, sizeof order[0], compare_order, machine->classes);
    for (size_t i = 0; i < num; i++) {
        sorted[i] = machine->classes[order[i]];
        new_idx[order[i]] = (uint8_t)i;
    }
    if (num == 0) {
        return;
    }
    memcpy(machine->classes, sorted, num * sizeof sorted[0]);
    const int64_t cells = machine->num_cores * machine->num_cores;
    for (int64_t i = 0; i < cells; i++) {
        machine->core_class[i] = new_idx[machine->core_class[i]];
    }
}

bool ep_machine_pci_kind(unsigned class_id, unsigned vendor_id, enum ep_device_kind *kind)
{
    enum { CLASS_NETWORK = 0x02, CLASS_DISPLAY = 0x03, CLASS_ACCELERATOR = 0x12 };
    enum { COPROCESSOR = 0x0b40, BRIDGE_OTHER = 0x0680, VENDOR_NVIDIA = 0x10de };
    const unsigned base = class_id >> 8;
    if (base == CLASS_NETWORK) {
        *kind = EP_DEVICE_NIC;
    } else if (base == CLASS_DISPLAY || base == CLASS_ACCELERATOR || class_id == COPROCESSOR) {
        *kind = EP_DEVICE_GPU;
    } else if (class_id == BRIDGE_OTHER && vendor_id == VENDOR_NVIDIA) {
        *kind = EP_DEVICE_SWITCH;
    } else {
        return false;
    }
    return true;
}

double ep_machine_read_line_rate(const char *name, bool is_infiniband)
{
    char path[256];
    char text[64] = "";
    snprintf(path, sizeof path,
             is_infiniband ? "/sys/class/infiniband/%s/ports/1/rate" : "/sys/class/net/%s/speed",
             name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    /* A link that is down answers with an error or -1. */
    if (fgets(text, sizeof text, file) == NULL) {
        text[0] = '\0';
    }
    fclose(file);
    /* "400 Gb/sec (4X NDR)" there, megabits per second here */
    const double value = strtod(text, NULL);
    return value > 0 ? value * (is_infiniband ? 1e9 : 1e6) : 0;
}

void ep_machine_sign_start(struct ep_machine_signature *signature)
{
    signature->hash = 0xcbf29ce484222325u;
}

static void sign_byte(struct ep_machine_signature *signature, unsigned byte)
{
    signature->hash = (signature->hash ^ byte) * 0x100000001b3u;
}

void ep_machine_sign_text(struct ep_machine_signature *signature, const char *text)
{
    for (; *text != '\0'; text++) {
        sign_byte(signature, (unsigned char)*text);
    }
    sign_byte(signature, 0);
}

void ep_machine_sign_i64(struct ep_machine_signature *signature, int64_t value)
{
    for (int shift = 0; shift < 64; shift += 8) {
        sign_byte(signature, (unsigned)((uint64_t)value >> shift) & 0xff);
    }
}
