/* SPDX-License-Identifier: Apache-2.0 */
/* Import: the columns of each tool, bytes by hand, and texts that must be refused by line. */
#include "tests/check.h"

#include "results/import.h"
#include "results/import_nccl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Records of one text. */
struct imported {
    struct ep_import import;
    struct ep_run run;
    struct ep_record *records;
    int64_t **rows;
};

static enum ep_status read_text(const char *format, const char *text,
                                const struct ep_import_options *options, struct ep_import *import)
{
    const struct ep_importer *importer = NULL;
    CHECK_OK(ep_importer_find(format, &importer));
    return ep_import_text(importer, "results.txt", text, strlen(text), options, import);
}

static void begin(const char *format, const char *text, const struct ep_import_options *options,
                  struct imported *made)
{
    *made = (struct imported){0};
    ep_run_init(&made->run);
    CHECK_OK(read_text(format, text, options, &made->import));
    const size_t num = (size_t)made->import.num_points;
    made->records = calloc(num, sizeof *made->records);
    made->rows = calloc(num, sizeof *made->rows);
    assert_non_null(made->records);
    assert_non_null(made->rows);
    for (size_t i = 0; i < num; i++) {
        ep_record_init(&made->records[i], EP_RECORD_COMM);
    }
    CHECK_OK(ep_import_make_records(&made->import, options, 5, &made->run, made->records,
                                    made->rows));
}

static void end(struct imported *made)
{
    for (int64_t i = 0; i < made->import.num_points; i++) {
        ep_record_fini(&made->records[i]);
        free(made->rows[i]);
    }
    free(made->records);
    free(made->rows);
    ep_run_fini(&made->run);
    ep_import_fini(&made->import);
}

static struct ep_import_options ranks(int64_t num_ranks, int64_t per_node)
{
    struct ep_import_options options;
    ep_import_options_init(&options);
    options.num_ranks = num_ranks;
    options.ranks_per_node = per_node;
    return options;
}

static void refuse(const char *format, const char *text, const char *part)
{
    const struct ep_import_options options = ranks(4, -1);
    struct ep_import import = {0};
    CHECK_FAILS(read_text(format, text, &options, &import), EP_EINVAL, part);
    ep_import_fini(&import);
}

static bool warns(const struct ep_record_notes *notes, const char *name)
{
    for (int64_t i = 0; i < notes->num; i++) {
        if (strcmp(notes->items[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* --- OSU ------------------------------------------------------------------------------------- */

#define OSU_ALLTOALL "# OSU MPI All-to-All Personalized Exchange Latency Test v7.5\n"

static void test_osu_alltoall(void **state)
{
    (void)state;
    const struct ep_import_options options = ranks(4, 2);
    struct imported m;
    begin("osu", "\n" OSU_ALLTOALL "# Datatype: MPI_CHAR.\n# Size       Avg Latency(us)\n"
                 "1000                    40.00\n2000                    60.00\n", &options, &m);
    assert_int_equal(m.import.num_points, 2);
    const struct ep_record *r = &m.records[0];
    /* 4 ranks send 1000 bytes to each rank, themselves included: 4000 each, 3000 of them remote */
    assert_int_equal(r->kind, EP_RECORD_COMM);
    assert_string_equal(r->transport, "alltoall");
    assert_string_equal(r->skew, "uniform");
    assert_int_equal(r->ranks, 4);
    assert_int_equal(r->nodes, 2);
    assert_int_equal(r->tokens * r->row_bytes, 4000);
    assert_int_equal(r->bytes[EP_RECORD_COPIES].total, 16000);
    assert_int_equal(r->bytes[EP_RECORD_COPIES].remote, 12000);
    CHECK_NEAR(r->mean_out_bytes, 3000, 0);
    assert_int_equal(r->h_rank_bytes, 3000);
    assert_int_equal(r->self_bytes_max, 1000);
    assert_int_equal(r->step_sum_bytes, 3000); /* 3 steps of 1000 */
    assert_int_equal(r->schedule_bytes, 3000);
    assert_int_equal(r->messages_max, 3);
    assert_int_equal(r->h_node_bytes, 4000); /* 2 ranks of a node to 2 of the other */
    assert_int_equal(r->levels.num, 2);
    assert_string_equal(r->levels.items[0].name, "host");
    assert_int_equal(r->levels.items[0].total, 4000); /* 4 ranks to their one neighbour */
    assert_string_equal(r->levels.items[1].name, "fabric");
    assert_int_equal(r->levels.items[1].max_out, 2000);
    CHECK_NEAR(r->median_s, 40e-6, 1e-18);
    CHECK_NEAR(r->bw_bytes_per_s, 3000 / 40e-6, 1e-3);
    assert_int_equal(r->n, 1);
    assert_true(warns(&r->warnings, "mean-only"));
    assert_int_equal(r->verified, -1);
    assert_int_equal(m.rows[0][1], 1000);
    assert_string_equal(r->cadence, "barrier");
    assert_int_equal(m.records[1].h_rank_bytes, 6000);
    assert_false(warns(&m.run.warnings, "nodes-unknown"));
    end(&m);
}

static void test_osu_full(void **state)
{
    (void)state;
    struct imported m;
    const struct ep_import_options options = ranks(2, -1);
    /* -f: the slowest rank's time is taken; a check that failed is one */
    begin("osu", OSU_ALLTOALL "# Size  Avg Latency(us)   Min Latency(us)   Max Latency(us)  Iterations"
                 "   Validation\n8     4.00   3.00   6.00   100   Pass\n16   5.00  3.00  7.00  100  Fail\n",
          &options, &m);
    CHECK_NEAR(m.records[0].median_s, 6e-6, 1e-18);
    assert_int_equal(m.records[0].verified, 1);
    assert_int_equal(m.records[1].verified, 0);
    assert_true(warns(&m.run.warnings, "nodes-unknown"));
    assert_int_equal(m.records[0].nodes, 1);
    assert_int_equal(m.records[0].levels.num, 0);
    end(&m);
    /* the pure time of a non-blocking one, not the one with computation */
    begin("osu", "# OSU MPI-CUDA Non-blocking All-to-All Latency Test v5.6.3\n"
                 "# Overall = Coll. Init + Compute + MPI_Test + MPI_Wait\n\n"
                 "# Size           Overall(us)       Compute(us)    Pure Comm.(us)        Overlap(%)\n"
                 "1                      11.09              6.10              5.18              3.46\n",
          &options, &m);
    CHECK_NEAR(m.records[0].median_s, 5.18e-6, 1e-18);
    assert_string_equal(m.records[0].transport, "ialltoall");
    assert_string_equal(m.records[0].mpi_params.items[0].text, "osu_ialltoall-CUDA 5.6.3");
    end(&m);
}

static void test_osu_links(void **state)
{
    (void)state;
    struct ep_import_options options = ranks(8, -1);
    options.level = "fabric";
    struct imported m;
    begin("osu", "# OSU MPI Latency Test v5.9\n# Size          Latency (us)\n0   0.20\n1024   0.50\n"
                 "# OSU MPI Bandwidth Test v5.9\n# Size      Bandwidth (MB/s)\n1000   500.00\n"
                 "# OSU MPI Bi-Directional Bandwidth Test v5.9\n# Size      Bandwidth (MB/s)\n1000   500.00\n"
                 "# OSU MPI Multi Latency Test v5.9\n# Size          Latency (us)\n1024   2.00\n",
          &options, &m);
    assert_int_equal(m.import.num_points, 4);
    assert_true(warns(&m.run.warnings, "empty-messages"));
    assert_int_equal(m.records[0].kind, EP_RECORD_LINKS);
    assert_string_equal(m.records[0].pattern, "pingpong");
    assert_string_equal(m.records[0].level, "fabric");
    CHECK_NEAR(m.records[0].median_s, 0.5e-6, 1e-18); /* one way, as it is printed */
    CHECK_NEAR(m.records[0].bw_bytes_per_s, 1024 / 0.5e-6, 1);
    /* MB = 1e6: 1000 bytes at 500e6 bytes/s take 2 us; both ways together: each 250e6 */
    CHECK_NEAR(m.records[1].median_s, 2e-6, 1e-18);
    CHECK_NEAR(m.records[2].median_s, 4e-6, 1e-18);
    CHECK_NEAR(m.records[2].bw_bytes_per_s, 250e6, 1e-3);
    assert_int_equal(m.records[3].concurrent_pairs, 4); /* 8 ranks */
    assert_int_equal(m.records[0].ranks, 2);
    assert_null(m.rows[0]);
    end(&m);
}

static void test_osu_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "no result"},
        {"hello\n", "results.txt:1: 'hello'"},
        {"1 2.0\n", "results.txt:1: '1'"},
        {OSU_ALLTOALL, "the table of osu_alltoall has no line"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1  2.00\n2  3.0", "results.txt:4: the text ends within"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1\n", "results.txt:3: 1 numbers; the table of"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1  2,50\n", "another locale"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1  -2.5\n", "results.txt:3: Avg Latency(us)"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n-1  2.5\n", "results.txt:3: Size"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1  nan\n", "not a number"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1  0.00\n", "above 0"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1  1e300\n", "outside"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n1099511627776  0.01\n", "no possible bandwidth"},
        {OSU_ALLTOALL "# Size  Avg Latency(us)\n4  2.0\n2  3.0\n", "ascending sizes"},
        {OSU_ALLTOALL "# Size  Mean Latency(ms)\n4  2.0\n", "'Mean Latency(ms)' is no column"},
        {OSU_ALLTOALL "# Size  Iterations\n4  2\n", "a latency in us"},
        {OSU_ALLTOALL "4 2.0\n", "results.txt:2: '4'"},
        {"# OSU MPI Allgather Latency Test v7.5\n", "none of the OSU benchmarks"},
        {"# OSU UPC Latency Test v7.5\n", "a title"},
        {"# OSU MPI Latency Test\n", "a title"},
        {"# Size  Latency (us)\n", "columns without a title"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refuse("osu", bad[i].text, bad[i].part);
    }
}

/* --- ranks and visits ------------------------------------------------------------------------ */

static enum ep_status make(const char *text, const struct ep_import_options *options)
{
    struct ep_import import = {0};
    struct ep_run run;
    struct ep_record record;
    int64_t *rows = NULL;
    ep_run_init(&run);
    ep_record_init(&record, EP_RECORD_COMM);
    CHECK_OK(read_text("osu", text, options, &import));
    assert_int_equal(import.num_points, 1);
    const enum ep_status status =
        ep_import_make_records(&import, options, 5, &run, &record, &rows);
    free(rows);
    ep_record_fini(&record);
    ep_run_fini(&run);
    ep_import_fini(&import);
    return status;
}

static void test_ranks(void **state)
{
    (void)state;
    const char *text = OSU_ALLTOALL "# Size  Avg Latency(us)\n4  2.0\n";
    struct ep_import_options options = ranks(-1, -1);
    CHECK_FAILS(make(text, &options), EP_EINVAL, "results.txt:3: the text of osu_alltoall 7.5 does");
    options = ranks(6, 4);
    CHECK_FAILS(make(text, &options), EP_EINVAL, "no whole number of nodes");
    options = ranks(EP_IMPORT_MAX_RANKS + 1, -1);
    CHECK_FAILS(make(text, &options), EP_EINVAL, "up to 4096");
    options = ranks(4, 8); /* fewer ranks than a node has room for */
    CHECK_OK(make(text, &options));
}

static void test_visits(void **state)
{
    (void)state;
    const char *table = "# OSU MPI Latency Test v5.9\n# Size          Latency (us)\n1024   0.50\n";
    char twice[256];
    struct imported m;
    const struct ep_import_options options = ranks(-1, -1);
    snprintf(twice, sizeof twice, "%s%s", table, table);
    begin("osu", twice, &options, &m);
    assert_string_equal(m.records[0].case_name, m.records[1].case_name);
    assert_int_equal(m.records[0].visit_idx, 0);
    assert_int_equal(m.records[1].visit_idx, 1);
    end(&m);
}

/* --- nccl-tests ------------------------------------------------------------------------------ */

#define NCCL_HEAD(test)                                                                            \
    "# nccl-tests version 2.17.1 nccl-headers=22803 nccl-library=22803\n"                         \
    "# Collective test starting: " test "_perf\n# nThread 1 nGpus 2 minBytes 32 maxBytes 32\n#\n"    \
    "# Using devices\n"                                                                            \
    "#  Rank  0 Group  0 Pid   6521 on      node1 device  0 [0000:07:00] NVIDIA H100 80GB HBM3\n"   \
    "#  Rank  1 Group  0 Pid   6521 on      node1 device  1 [0000:0b:00] NVIDIA H100 80GB HBM3\n"   \
    "#  Rank  2 Group  0 Pid   7521 on      node2 device  0 [0000:07:00] NVIDIA H100 80GB HBM3\n"   \
    "#  Rank  3 Group  0 Pid   7521 on      node2 device  1 [0000:0b:00] NVIDIA H100 80GB HBM3\n"   \
    "#\n#                                        out-of-place                       in-place\n"
#define NCCL_COLUMNS                                                                               \
    "#  size  count  type  redop  root  time  algbw  busbw  #wrong  time  algbw  busbw  #wrong\n"     \
    "#   (B)    (elements)         (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
#define NCCL_FOOT "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 9.64\n#\n"

static void test_nccl_alltoall(void **state)
{
    (void)state;
    const struct ep_import_options options = ranks(-1, -1);
    struct imported m;
    /* 65536 floats to each of 4 ranks: 262144 bytes a message, 1048576 a rank; 10.49 GB/s */
    begin("nccl", NCCL_HEAD("alltoall") NCCL_COLUMNS
          "1048576  65536  float  none  -1  100.00  10.49  7.86  0  99.50  10.54  7.90  N/A\n"
          "1048576  65536  float  none  -1  100.00  10.49  7.86  3  99.50  10.54  7.90  N/A\n"
          "0  0  float  none  -1  5.00  0.00  0.00  0  5.00  0.00  0.00  N/A\n" NCCL_FOOT,
          &options, &m);
    assert_int_equal(m.import.num_points, 2); /* without the one of 0 bytes */
    const struct ep_record *r = &m.records[0];
    assert_string_equal(r->transport, "nccl-alltoall");
    assert_int_equal(r->ranks, 4);
    assert_int_equal(r->nodes, 2);
    assert_int_equal(r->ranks_per_node, 2);
    assert_int_equal(r->tokens, 1048576);
    assert_int_equal(r->h_rank_bytes, 3 * 262144);
    assert_int_equal(r->h_node_bytes, 4 * 262144);
    CHECK_NEAR(r->median_s, 100e-6, 1e-18);
    CHECK_NEAR(r->bw_bytes_per_s / 1e9, 7.86, 0.005); /* what they call busbw */
    assert_int_equal(r->verified, 1);
    assert_int_equal(m.records[1].verified, 0);
    assert_int_equal(m.records[1].check.wrong, 3);
    assert_int_equal(m.records[1].visit_idx, 1);
    end(&m);
}

static void test_nccl_sendrecv(void **state)
{
    (void)state;
    const struct ep_import_options options = ranks(-1, -1);
    struct imported m;
    begin("nccl", "rccl-tests: Version HEAD:e1b8a3a\n" NCCL_HEAD("sendrecv") NCCL_COLUMNS
          "1048576  262144  float  sum  -1  50.00  20.97  20.97  0  50.00  20.97  20.97  N/A\n" NCCL_FOOT,
          &options, &m);
    assert_int_equal(m.records[0].kind, EP_RECORD_LINKS);
    assert_string_equal(m.records[0].pattern, "ring");
    assert_int_equal(m.records[0].size_bytes, 1048576);
    assert_int_equal(m.records[0].concurrent_pairs, 4);
    CHECK_NEAR(m.records[0].bw_bytes_per_s, 1048576 / 50e-6, 1);
    end(&m);
}

/* total = 20 floats x 4 bytes x 4 ranks = 320. Distances 0..3, their sum 6: 320 d / 6 = 0, 53.3, 106.7, 160,
 * rounded down to 16: 0, 48, 96, 160; together 304. */
static void test_nccl_alltoallv_distance(void **state)
{
    (void)state;
    struct ep_import_options options = ranks(-1, -1);
    options.spread = 1;
    struct imported m;
    begin("nccl", NCCL_HEAD("alltoallv") NCCL_COLUMNS
          "304  20  float  none  -1  3.04  0.10  0.07  0  3.04  0.10  0.07  N/A\n" NCCL_FOOT,
          &options, &m);
    const int64_t expected[4][4] = {{0, 48, 96, 160}, {160, 0, 48, 96}, {96, 160, 0, 48}, {48, 96, 160, 0}};
    assert_memory_equal(m.rows[0], expected, sizeof expected);
    assert_string_equal(m.records[0].skew, "distance:1");
    assert_int_equal(m.records[0].h_rank_bytes, 304);
    assert_int_equal(m.records[0].self_bytes_max, 0);
    end(&m);
    /* half and half: 0.5 x 80 + 0.5 x (0, 53.3, 106.7, 160) = 40, 66.7, 93.3, 120 -> 32, 64, 80, 112 = 288 */
    options.spread = 0.5;
    begin("nccl", NCCL_HEAD("alltoallv") NCCL_COLUMNS
          "288  20  float  none  -1  2.88  0.10  0.07  0  2.88  0.10  0.07  N/A\n" NCCL_FOOT,
          &options, &m);
    assert_int_equal(m.rows[0][0], 32);
    assert_int_equal(m.rows[0][1], 64);
    assert_int_equal(m.rows[0][3], 112);
    end(&m);
    /* another spread than that of the run shows in the size */
    options.spread = 0;
    struct ep_import import = {0};
    CHECK_FAILS(read_text("nccl", NCCL_HEAD("alltoallv") NCCL_COLUMNS
                          "288  20  float  none  -1  2.88  0.10  0.07  0  2.88  0.10  0.07  N/A\n" NCCL_FOOT,
                          &options, &import), EP_EINVAL, "size 288; 320 was expected");
    ep_import_fini(&import);
}

static void test_nccl_matrix(void **state)
{
    (void)state;
    struct ep_import import = {0};
    int64_t idx = -1, again = -1;
    const char *text = "100 200 150\n50 100 75\n\n300 150 200\n";
    CHECK_OK(ep_nccl_read_matrix("m.txt", text, strlen(text), 1, &import, &idx));
    /* rounded down to 16 */
    const int64_t expected[] = {96, 192, 144, 48, 96, 64, 288, 144, 192};
    assert_int_equal(import.matrices[idx].num_ranks, 3);
    assert_memory_equal(import.matrices[idx].bytes, expected, sizeof expected);
    CHECK_OK(ep_nccl_read_matrix("m.txt", text, strlen(text), 0.5, &import, &again));
    assert_int_equal(import.matrices[again].bytes[6], 144); /* 150 */
    /* the pattern is the skew, whatever its scale */
    assert_string_equal(import.matrices[idx].skew, import.matrices[again].skew);
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "no number"},
        {"1 2\n3\n", "m.txt:2: 1 numbers; 2 were expected"},
        {"1 2\n3 4 5\n", "m.txt:2: more than 2 numbers"},
        {"1 2\n", "1 lines of numbers; 2 were expected"},
        {"1\n2\n", "m.txt:2: a line more"},
        {"1 x\n2 3\n", "not a number"},
        {"1,5 2\n2 3\n", "another locale"},
        {"1 -2\n2 3\n", "outside"},
        {"1 2\n3 4", "the text ends within this line"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(ep_nccl_read_matrix("m.txt", bad[i].text, strlen(bad[i].text), 1, &import, &idx),
                    EP_EINVAL, bad[i].part);
    }
    ep_import_fini(&import);
}

#define NCCL_ROW "1048576  65536  float  none  -1  100.00  10.49  7.86  0  99.50  10.54  7.90  N/A\n"

static void test_nccl_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "before '# Out of bounds values'"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS NCCL_ROW, "is it cut"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS NCCL_FOOT, "no result"},
        {NCCL_HEAD("all_gather") NCCL_COLUMNS NCCL_ROW NCCL_FOOT, "results.txt:2: 'all_gather_perf'"},
        {NCCL_COLUMNS NCCL_ROW NCCL_FOOT, "--op"},
        {NCCL_HEAD("alltoall") NCCL_ROW NCCL_FOOT, "lines of columns"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS "1048576  65536  float\n" NCCL_FOOT, "3 words; 13 columns"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS
         "1048576  65536  float  none  -1  100,00  10.49  7.86  0  99.50  10.54  7.90  N/A\n" NCCL_FOOT,
         "another locale"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS
         "1048576  65536  float  none  -1  -100.0  10.49  7.86  0  99.50  10.54  7.90  N/A\n" NCCL_FOOT,
         "time"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS
         "1048576  65536  quad  none  -1  100.00  10.49  7.86  0  99.50  10.54  7.90  N/A\n" NCCL_FOOT,
         "'quad' is no type"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS
         "2097152  65536  float  none  -1  200.00  10.49  7.86  0  99.50  10.54  7.90  N/A\n" NCCL_FOOT,
         "size 2097152; 1048576 was expected"},
        {NCCL_HEAD("alltoall") NCCL_COLUMNS
         "1048576  65536  float  none  -1  100.00  20.49  7.86  0  99.50  10.54  7.90  N/A\n" NCCL_FOOT,
         "algbw 20.49"},
        {NCCL_HEAD("alltoallv") NCCL_COLUMNS
         "304  20  float  none  -1  3.04  0.10  0.07  0  3.04  0.10  0.07  N/A\n" NCCL_FOOT, "--spread"},
        {NCCL_HEAD("alltoallv") NCCL_COLUMNS
         "304  0  float  none  -1  3.04  0.10  0.07  0  3.04  0.10  0.07  N/A\n" NCCL_FOOT, "--matrix"},
        {"#  Rank  1 Group  0 Pid 1 on n device  0 [0] GPU\n", "rank 0 was expected"},
        {"#  Rank  0 Group  1 Pid 1 on n device  0 [0] GPU\n", "one group"},
        {"#  size  count  type  redop  root  cputime  algbw  busbw  #wrong  cputime  algbw  busbw  #wrong\n",
         "of the processor"},
        {"#  size  count  type  time\n", "were expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refuse("nccl", bad[i].text, bad[i].part);
    }
}

static void test_nccl_hosts(void **state)
{
    (void)state;
    /* in turn: node1, node2, node1, node2 */
    struct ep_nccl_run run = {.spread = 1, .scale = 1};
    static const char *const hosts[] = {"node1", "node2", "node1", "node2", "node2"};
    for (int r = 0; r < 4; r++) {
        CHECK_OK(ep_nccl_add_device(&run, "w", r, 0, hosts[r]));
    }
    CHECK_OK(ep_nccl_place(&run, "w"));
    assert_true(run.is_spread);
    assert_int_equal(run.ranks_per_node, 2);
    CHECK_OK(ep_nccl_add_device(&run, "w", 4, 0, hosts[4]));
    CHECK_FAILS(ep_nccl_place(&run, "w"), EP_EINVAL, "5 ranks on 2 hosts");
    ep_nccl_run_fini(&run);
}

#define JSON_HEAD                                                                                  \
    "{\"version\":3,\"start_time\":\"2026-01-01 00:00:00\",\"args\":[\"/x/alltoallv_perf\",\"-a\",\"3\"],"  \
    "\"env\":[\"NCCL_TESTS_ALLTOALLV_SPREAD=0.5\"],\"nccl_version\":22803,\"config\":{\"nthreads\":1,"  \
    "\"blocking_collectives\":\"false\",\"devices\":["                                              \
    "{\"rank\":0,\"group\":0,\"pid\":1,\"hostname\":\"a\",\"device\":0},"                             \
    "{\"rank\":1,\"group\":0,\"pid\":1,\"hostname\":\"a\",\"device\":1},"                             \
    "{\"rank\":2,\"group\":0,\"pid\":2,\"hostname\":\"b\",\"device\":0},"                             \
    "{\"rank\":3,\"group\":0,\"pid\":2,\"hostname\":\"b\",\"device\":1}]},\"results\":["

static void test_nccl_json(void **state)
{
    (void)state;
    const struct ep_import_options options = ranks(-1, -1);
    struct imported m;
    begin("nccl", JSON_HEAD
          "{\"size\":288,\"count\":20,\"type\":\"float\",\"redop\":\"none\",\"root\":\"-1\",\"out_of_place\":"
          "{\"time\":2.880000,\"alg_bw\":0.100000,\"bus_bw\":0.075000,\"nwrong\":0.000000},"
          "\"in_place\":{\"time\":2.9,\"alg_bw\":0.1,\"bus_bw\":0.07,\"nwrong\":null}},"
          "{\"size\":288,\"count\":20,\"type\":\"float\",\"out_of_place\":"
          "{\"time\":2.880000,\"alg_bw\":0.100000,\"bus_bw\":0.075000,\"nwrong\":null},"
          "\"out_of_place_per_iter\":{\"skipped_iterations\":1,\"times_us\":[9.0,3.0,2.0,5.0]}}],"
          "\"out_of_bounds\":{\"count\":0}}", &options, &m);
    assert_int_equal(m.import.num_points, 2);
    assert_int_equal(m.rows[0][3], 112); /* as in the text, by the spread in the environment */
    assert_int_equal(m.records[0].nodes, 2);
    assert_int_equal(m.records[0].verified, 1);
    assert_true(warns(&m.records[0].warnings, "mean-only"));
    /* single times: 3, 2, 5 us, the first one left out */
    assert_int_equal(m.records[1].n, 3);
    CHECK_NEAR(m.records[1].median_s, 3e-6, 1e-18);
    assert_int_equal(m.records[1].verified, -1);
    assert_false(warns(&m.records[1].warnings, "mean-only"));
    end(&m);
    refuse("nccl", JSON_HEAD "{\"size\":288,", "results.txt");
    refuse("nccl", "{\"version\":9}", "version");
    refuse("nccl", "{\"version\":3}", "'args' must be a list");
    refuse("nccl", JSON_HEAD "{\"size\":288,\"count\":20,\"type\":\"float\"}]}", "results[0]: 'out_of_place'");
    refuse("nccl", JSON_HEAD "{\"size\":-1}]}", "results[0]");
    refuse("nccl", JSON_HEAD "]}", "no result");
}

/* --- IMB ------------------------------------------------------------------------------------- */

#define IMB_HEAD "#    Intel(R) MPI Benchmarks 2021.2, MPI-1 part\n# Machine : x86_64\n"
#define IMB_TITLE(name, ranks) "# Benchmarking " name " \n# #processes = " ranks " \n#-------\n"
#define IMB_TIMES "  #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]\n"
#define IMB_FOOT "\n\n# All processes entering MPI_Finalize\n\n"

static void test_imb(void **state)
{
    (void)state;
    const struct ep_import_options options = ranks(-1, 2);
    struct imported m;
    begin("imb", IMB_HEAD IMB_TITLE("PingPong", "2") "  #bytes #repetitions      t[usec]   Mbytes/sec\n"
          "  0  1000  0.50  0.00\n  1024  1000  1.00  1024.00\n"
          IMB_TITLE("Sendrecv", "4") "  #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]  Mbytes/sec\n"
          "  1000  1000  0.90  2.00  0.95  1000.00\n"
          IMB_TITLE("Bcast", "4") IMB_TIMES "  1  1000  0.65  6.07  3.36\n"
          IMB_TITLE("Alltoall", "1") IMB_TIMES "  1  1000  0.65  0.70  0.68\n"
          IMB_TITLE("Alltoall", "4; rank order (rowwise):") IMB_TIMES "  0  1000  0.07  0.07  0.07\n"
          "  1000  1000  4.00  7.00  5.00\n  4000 out-of-mem.; needed X=   1.001 GB; use flag \"-mem X\"\n"
          IMB_TITLE("Ialltoallv", "2")
          "  #bytes #repetitions t_ovrl[usec] t_pure[usec]  t_CPU[usec]   overlap[%]      defects\n"
          "  8  1000  9.00  5.00  4.50  11.11  0.00\n  16  1000  9.00  6.00  4.50  11.11  1.00\n" IMB_FOOT,
          &options, &m);
    assert_int_equal(m.import.num_points, 5);
    CHECK_NEAR(m.records[0].median_s, 1e-6, 1e-18); /* half of the way and back, as it is printed */
    assert_string_equal(m.records[0].pattern, "pingpong");
    CHECK_NEAR(m.records[1].median_s, 2e-6, 1e-18); /* the slowest process */
    CHECK_NEAR(m.records[1].bw_bytes_per_s, 500e6, 1e-3); /* each way; theirs counts both */
    assert_int_equal(m.records[1].concurrent_pairs, 4);
    const struct ep_record *r = &m.records[2];
    CHECK_NEAR(r->median_s, 7e-6, 1e-18);
    assert_int_equal(r->ranks, 4);
    assert_int_equal(r->nodes, 2);
    assert_int_equal(r->h_rank_bytes, 3000); /* size is of each message */
    assert_int_equal(r->tokens, 4000);
    assert_string_equal(r->mpi_params.items[0].text, "IMB Alltoall 2021.2");
    CHECK_NEAR(m.records[3].median_s, 5e-6, 1e-18); /* without computation */
    assert_string_equal(m.records[3].transport, "ialltoallv");
    assert_int_equal(m.records[3].nodes, 1);
    assert_int_equal(m.records[3].verified, 1);
    assert_int_equal(m.records[4].verified, 0);
    assert_true(warns(&m.run.warnings, "left-out"));
    assert_true(warns(&m.run.warnings, "not-measured"));
    assert_true(warns(&m.run.warnings, "empty-messages"));
    end(&m);
}

static void test_imb_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "before '# All processes entering MPI_Finalize'"},
        {"1 2 3\n", "results.txt:1: '1 2 3'"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES "  8  1000  4.00  7.00  5.00\n", "is it cut"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES IMB_FOOT, "no line with a size"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES "  8  1000  4.00\n", "3 numbers; the table of Alltoall has 5"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES "  8  1000  4,00  7.00  5.00\n", "another locale"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES "  8  1000  4.00  -7.00  5.00\n", "t_max[usec]"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES "  8  0  4.00  7.00  5.00\n", "#repetitions"},
        {IMB_TITLE("Alltoall", "4") IMB_TIMES "  8 1 4.0 7.0 5.0\n  4 1 4.0 7.0 5.0\n", "ascending sizes"},
        {IMB_TITLE("Alltoall", "four") IMB_TIMES, "results.txt:2: #processes: 'four'"},
        {IMB_TITLE("Alltoall", "4") "  #bytes #repetitions  t_best[usec]\n", "'t_best[usec]' is no column"},
        {IMB_TITLE("Alltoall", "4") "  #bytes #repetitions  t_min[usec]\n", "were expected"},
        {"# Benchmarking Alltoall\n" IMB_TIMES "  8  1000  4.00  7.00  5.00\n", "'# #processes = N'"},
        {IMB_TITLE("Bcast", "4") IMB_TIMES "  8  1000  4.00  7.00  5.00\n" IMB_FOOT, "no result"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refuse("imb", bad[i].text, bad[i].part);
    }
}

/* --- UCC ------------------------------------------------------------------------------------- */

#define UCC_HEAD(name)                                                                             \
    "Collective:             " name "\nMemory type:            host\nDatatype:               float32\n" \
    "Reduction:              N/A\nInplace:                0\nWarmup:\n  small                 100\n\n"
#define UCC_COLUMNS "       Count        Size                Time, us\n     avg         min         max\n"
#define UCC_WITH_BW                                                                                \
    "       Count        Size                Time, us       Bus Bandwidth, GB/s\n"                   \
    "     avg         min         max         avg         max         min\n"
#define UCC_FOOT "Total time: 0.03 ms\n"

static void test_ucc(void **state)
{
    (void)state;
    struct ep_import_options options = ranks(4, -1);
    struct imported m;
    /* 4096 floats of a rank's buffer: 4096 bytes to each of 4; 12288 in 10.24 us are 1.2 GB/s */
    begin("ucc", UCC_HEAD("Alltoall") UCC_WITH_BW
          "  4096  16384  9.00  8.00  10.24  1.37  1.54  1.20\n" UCC_FOOT, &options, &m);
    assert_int_equal(m.records[0].h_rank_bytes, 12288);
    CHECK_NEAR(m.records[0].median_s, 10.24e-6, 1e-18); /* the slowest rank */
    CHECK_NEAR(m.records[0].bw_bytes_per_s, 1.2e9, 1);
    assert_string_equal(m.records[0].transport, "ucc-alltoall");
    end(&m);
    /* before UCC 1.5 the size was that of a message: 16384 bytes to each */
    options.size_of = "message";
    begin("ucc", UCC_HEAD("alltoallv") UCC_COLUMNS
          "  4096  16384  9.00  8.00  10.24\n  8192  32768  9.00  8.00  12.00\n", &options, &m);
    assert_int_equal(m.records[0].h_rank_bytes, 3 * 16384);
    end(&m);
    /* the bandwidth tells: 4 x 16384 bytes, 3/4 of them in 20.48 us are 2.4 GB/s */
    options.size_of = NULL;
    begin("ucc", UCC_HEAD("Alltoall")
          "       Count        Size                Time, us           Bandwidth, GB/s\n"
          "  4096  16384  19.00  18.00  20.48  2.59  2.73  2.40\n", &options, &m);
    assert_int_equal(m.records[0].h_rank_bytes, 3 * 16384);
    end(&m);
}

static void test_ucc_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "no result"},
        {"Segmentation fault\n", "results.txt:1: 'Segmentation fault'"},
        {UCC_HEAD("Allreduce"), "'Allreduce': alltoall or alltoallv"},
        {UCC_HEAD("Alltoall") "  4096  16384  9.00  8.00  10.24\n", "'4096'"},
        {UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  9.00  8.00  10.24\n", "no line 'Total time'"},
        {UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  9.00  8.00\n" UCC_FOOT, "4 numbers; 5 columns"},
        {UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  4096  9.00  8.00  10.24\n" UCC_FOOT, "makes 16384"},
        {UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  9.00  10.00  10.24\n" UCC_FOOT, "min <= avg"},
        {UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  9,00  8.00  10.24\n" UCC_FOOT, "another locale"},
        {UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  0.00  0.00  0.00\n" UCC_FOOT, "above 0"},
        {UCC_HEAD("Alltoallv") UCC_COLUMNS
         "  16  64  9.00  8.00  10.24\n  48  192  9.0  8.0  10.0\n  64  256  9.0  8.0  10.0\n" UCC_FOOT,
         "do not grow by one ratio"},
        {UCC_HEAD("Alltoall") UCC_WITH_BW
         "  4096  16384  9.00  8.00  10.24  13.70  15.40  12.00\n" UCC_FOOT, "by its bandwidth"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refuse("ucc", bad[i].text, bad[i].part);
    }
    struct ep_import import = {0};
    struct ep_import_options options = ranks(3, -1);
    CHECK_FAILS(read_text("ucc", UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  9.00  8.00  10.24\n" UCC_FOOT,
                          &options, &import), EP_EINVAL, "no whole number of messages to 3 ranks");
    options = ranks(-1, -1);
    CHECK_FAILS(read_text("ucc", UCC_HEAD("Alltoall") UCC_COLUMNS "  4096  16384  9.00  8.00  10.24\n" UCC_FOOT,
                          &options, &import), EP_EINVAL, "--ranks N");
    options.size_of = "all";
    CHECK_FAILS(read_text("ucc", "", &options, &import), EP_EINVAL, "--size-of: 'all'");
    ep_import_fini(&import);
}

/* --- CSV ------------------------------------------------------------------------------------- */

static void test_csv(void **state)
{
    (void)state;
    struct ep_import_options options = ranks(-1, -1);
    struct imported m;
    options.op = "alltoall";
    options.map = "time_ms=t,rank_bytes=all,ranks=p,ranks_per_node=r";
    begin("csv", "all,p,r,t\n4000,4,2,0.3\n4000,4,2,0.1\n4000,4,2,0.2\n8000,4,2,0.5\n4000,4,2,0.4\n", &options,
          &m);
    assert_int_equal(m.import.num_points, 3);
    assert_int_equal(m.records[0].n, 3);
    CHECK_NEAR(m.records[0].median_s, 0.2e-3, 1e-15);
    assert_false(warns(&m.records[0].warnings, "mean-only"));
    assert_int_equal(m.records[0].h_rank_bytes, 3000);
    assert_int_equal(m.records[0].nodes, 2);
    assert_true(warns(&m.records[1].warnings, "mean-only"));
    assert_int_equal(m.records[2].visit_idx, 1); /* of the first case again */
    end(&m);
    options.op = "pingpong";
    options.map = "time_s=t,size_bytes=b";
    begin("csv", "b,t\n1000,0.001\n", &options, &m);
    CHECK_NEAR(m.records[0].bw_bytes_per_s, 1e6, 1e-6);
    end(&m);
}

static void test_csv_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *op, *map, *part;
    } bad[] = {
        {"b,t\n1,2\n", NULL, "time_s=t,size_bytes=b", "--op"},
        {"b,t\n1,2\n", "bcast", "time_s=t,size_bytes=b", "--op: 'bcast'"},
        {"b,t\n1,2\n", "alltoall", NULL, "needs --map"},
        {"b,t\n1,2\n", "alltoall", "time_s=t", "one of size_bytes"},
        {"b,t\n1,2\n", "alltoall", "time_s=t,time_us=t,size_bytes=b", "one of time_s"},
        {"b,t\n1,2\n", "alltoall", "time_s=t,time_s=t", "given twice"},
        {"b,t\n1,2\n", "alltoall", "time_h=t,size_bytes=b", "'time_h=t'"},
        {"b,t\n1,2\n", "alltoall", "time_s,size_bytes=b", "'time_s'"},
        {"b;t\n1;2\n", "alltoall", "time_s=t,size_bytes=b", "results.txt:1: no column 't'"},
        {"b,t\n1,2", "alltoall", "time_s=t,size_bytes=b", "may be cut"},
        {"b,t\n1,-2\n", "alltoall", "time_s=t,size_bytes=b", "results.txt:2"},
        {"b,t\n1\n", "alltoall", "time_s=t,size_bytes=b", "results.txt:2"},
        {"b,t\n7,2\n", "alltoall", "time_s=t,rank_bytes=b", "no whole number of messages to 4"},
        {"b,t\n", "alltoall", "time_s=t,size_bytes=b", "no result"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ep_import_options options = ranks(4, -1);
        struct ep_import import = {0};
        options.op = bad[i].op;
        options.map = bad[i].map;
        CHECK_FAILS(read_text("csv", bad[i].text, &options, &import), EP_EINVAL, bad[i].part);
        ep_import_fini(&import);
    }
}

static void test_table(void **state)
{
    (void)state;
    const struct ep_importer *found = NULL;
    CHECK_FAILS(ep_importer_find("xml", &found), EP_EINVAL, "'xml' is no format to import: osu, imb, nccl, ucc, csv");
    for (int i = 0; ep_importer_at(i) != NULL; i++) {
        CHECK_OK(ep_importer_find(ep_importer_at(i)->name, &found));
        assert_ptr_equal(found, ep_importer_at(i));
        struct ep_import import = {0};
        const struct ep_import_options options = ranks(4, -1);
        CHECK_FAILS(ep_import_text(found, "nul", "# a\0b\n", 6, &options, &import), EP_EINVAL, "");
        ep_import_fini(&import);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_osu_alltoall),
        cmocka_unit_test(test_osu_full),
        cmocka_unit_test(test_osu_links),
        cmocka_unit_test(test_osu_refused),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_visits),
        cmocka_unit_test(test_nccl_alltoall),
        cmocka_unit_test(test_nccl_sendrecv),
        cmocka_unit_test(test_nccl_alltoallv_distance),
        cmocka_unit_test(test_nccl_matrix),
        cmocka_unit_test(test_nccl_refused),
        cmocka_unit_test(test_nccl_hosts),
        cmocka_unit_test(test_nccl_json),
        cmocka_unit_test(test_imb),
        cmocka_unit_test(test_imb_refused),
        cmocka_unit_test(test_ucc),
        cmocka_unit_test(test_ucc_refused),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_csv_refused),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
