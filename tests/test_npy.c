/* SPDX-License-Identifier: Apache-2.0 */
/* base/npy: every type and format read back, every broken file refused by name. */
#include "tests/check.h"

#include "base/npy.h"

#include <stdio.h>
#include <stdlib.h>

/* A file as NumPy writes it: head, dictionary padded to 64 bytes with a line end, values. */
static size_t make_file(int version, const char *dictionary, const void *values, size_t size,
                        unsigned char *file)
{
    const size_t head = version == 1 ? 10 : 12;
    const size_t length = (head + strlen(dictionary) + 1 + 63) / 64 * 64 - head;
    memcpy(file, "\x93NUMPY", 6);
    file[6] = (unsigned char)version;
    file[7] = 0;
    file[8] = (unsigned char)(length & 255);
    file[9] = (unsigned char)(length >> 8);
    if (version > 1) {
        file[10] = file[11] = 0;
    }
    memset(file + head, ' ', length);
    memcpy(file + head, dictionary, strlen(dictionary));
    file[head + length - 1] = '\n';
    if (size > 0) {
        memcpy(file + head + length, values, size);
    }
    return head + length + size;
}

static void test_types(void **state)
{
    (void)state;
    const float f4[] = {1.5f, -2, 0, 3, 4, 1e30f};
    const double f8[] = {1.5, -2, 0, 3, 4, 1e300};
    const int16_t i2[] = {1, -2, 0, 3, 4, 32767};
    const int32_t i4[] = {1, -2, 0, 3, 4, INT32_MAX};
    const int64_t i8[] = {1, -2, 0, 3, 4, INT64_MAX};
    const struct {
        enum ep_npy_type type;
        const void *values;
        double first, last;
    } cases[] = {
        {EP_NPY_F32, f4, 1.5, (double)1e30f}, {EP_NPY_F64, f8, 1.5, 1e300},
        {EP_NPY_I16, i2, 1, 32767},           {EP_NPY_I32, i4, 1, INT32_MAX},
        {EP_NPY_I64, i8, 1, 0x1p63},
    };
    for (int version = 1; version <= 3; version++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            unsigned char file[512];
            char text[128];
            struct ep_npy npy;
            snprintf(text, sizeof text,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (2, 3), }",
                     ep_npy_type_name(cases[c].type));
            const size_t size = 6 * (size_t)ep_npy_type_bytes(cases[c].type);
            const size_t length = make_file(version, text, cases[c].values, size, file);
            CHECK_OK(ep_npy_init("A", file, length, &npy));
            assert_int_equal(npy.type, cases[c].type);
            assert_int_equal(npy.num_dims, 2);
            assert_int_equal(npy.dims[0], 2);
            assert_int_equal(npy.dims[1], 3);
            assert_memory_equal(npy.values, cases[c].values, size);
            assert_true(ep_npy_get_f64(&npy, 0) == cases[c].first);
            assert_true(ep_npy_get_f64(&npy, 5) == cases[c].last);
            if (cases[c].type >= EP_NPY_I16) {
                assert_int_equal(ep_npy_get_i64(&npy, 1), -2);
            }
            ep_npy_fini(&npy);
            assert_null(npy.values);
        }
    }
}

static void test_shapes(void **state)
{
    (void)state;
    const float values[] = {7, 8};
    const struct {
        const char *shape;
        int64_t num_dims, num_values;
    } cases[] = {{"()", 0, 1},        {"(2,)", 1, 2},      {"(0,)", 1, 0},
                 {"(3, 0, 5)", 3, 0}, {"(1, 2, 1)", 3, 2}, {"(1,2,)", 2, 2}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        unsigned char file[512];
        char text[128];
        struct ep_npy npy;
        snprintf(text, sizeof text, "{'shape': %s, 'descr': '<f4', 'fortran_order': False}",
                 cases[c].shape);
        const size_t length = make_file(1, text, values, 4 * (size_t)cases[c].num_values, file);
        CHECK_OK(ep_npy_init("A", file, length, &npy));
        assert_int_equal(npy.num_dims, cases[c].num_dims);
        assert_int_equal(npy.num_values, cases[c].num_values);
        ep_npy_fini(&npy);
    }
}

static void test_refused(void **state)
{
    (void)state;
    const float values[6] = {0};
    const struct {
        const char *dictionary;
        const char *message;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (6,)}", "type '>f4'; <f4"},
        {"{'descr': '<f2', 'fortran_order': False, 'shape': (6,)}", "type '<f2'"},
        {"{'descr': '<f45', 'fortran_order': False, 'shape': (6,)}", "the end of the type"},
        {"{'descr': <f4, 'fortran_order': False, 'shape': (6,)}", "a type such as '<f4'"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "a type such as"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (6,)}", "Fortran order; C order"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}", "fortran_order True or False"},
        {"{'descr': '<f4', 'fortran_order': False}", "once each"},
        {"{'descr': '<f4', 'descr': '<f4', 'shape': (6,)}", "once each"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}", "once each"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (6,)}", "',' or '}'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6)}", "(N,) for one dimension"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 6}", "a shape such as"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-6,)}", "a shape such as"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}", "',' between dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,,3)}", "a shape such as"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,6)}", "at most 8"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", "smaller"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775, 9999)}", "too many"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}", "24 bytes of values; its shape "
                                                                    "and type need 28"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}", "need 20"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} x", "nothing after '}'"},
        {"'descr'", "'{' expected"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,)", "',' or '}'"},
    };
    struct ep_npy npy;
    unsigned char file[512];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const size_t length = make_file(1, cases[c].dictionary, values, sizeof values, file);
        CHECK_FAILS(ep_npy_init("B.npy", file, length, &npy), EP_EINVAL, cases[c].message);
        assert_true(strncmp(ep_error_text(), "B.npy: ", 7) == 0);
    }
    const char good[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}";
    for (int version = 1; version <= 2; version++) {
        const size_t length = make_file(version, good, values, sizeof values, file);
        for (size_t cut = 0; cut < length; cut++) { /* every truncation, in a block of that size */
            unsigned char *part = malloc(cut + 1);
            memcpy(part, file, cut);
            CHECK_FAILS(ep_npy_init("B.npy", part, cut, &npy), EP_EINVAL, "B.npy: ");
            free(part);
        }
    }
    const size_t length = make_file(1, good, values, sizeof values, file);
    file[6] = 4;
    CHECK_FAILS(ep_npy_init("B.npy", file, length, &npy), EP_EINVAL, "npy format 4.0");
    file[0] = 'P';
    CHECK_FAILS(ep_npy_init("B.npy", file, length, &npy), EP_EINVAL, "is not a .npy file");
    CHECK_FAILS(ep_npy_open("no/such.npy", 1 << 20, &npy), EP_EINVAL, "no/such.npy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
