#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench import: the exact form, what goes on to fit, plot and report, and that nothing stays of bad input.
set -eu
cd "$EPBENCH_TEST_DIR/cli_import"

fails() { # EXIT-STATUS TEXT COMMAND...
    want=$1 text=$2
    shift 2
    status=0
    "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    grep -qF -- "$text" err || { echo "$*: no '$text' in:"; cat err; exit 1; }
    [ "$(wc -l <err)" = 1 ] || { echo "$*: more than one message:"; cat err; exit 1; }
    [ ! -s out ] || { echo "$*: wrote on stdout"; exit 1; }
    [ ! -e bad ] || { echo "$*: left something behind"; exit 1; }
}

goes_on() { # DIR: fit, plot and report take it
    "$EPBENCH" fit "$1" >fitted
    "$EPBENCH" plot "$1" >plotted 2>drawn
    "$EPBENCH" report "$1" >reported
    [ -s "$1/report.html" ] && [ -s "$1/machine.json" ]
}

# Links: nothing more is needed.
cat >latency.txt <<END
# OSU MPI Latency Test v5.9
# Size          Latency (us)
1                       0.22
1024                    0.51
1048576                48.60
END
"$EPBENCH" import osu latency.txt -o links >made 2>warned
grep -q '^links: 3 records of 1 file$' made
grep -q 'level' warned
[ "$(wc -l <links/records.jsonl)" = 3 ]
goes_on links
"$EPBENCH" import osu latency.txt latency.txt -o twice --level fabric >/dev/null 2>warned
[ ! -s warned ]
"$EPBENCH" fit twice --json - | grep -q '"name": "fabric"'
[ "$(grep -c '"visit_idx":1' twice/records.jsonl)" = 3 ]
[ "$(grep -c '"launch_idx":1' twice/records.jsonl)" = 3 ]

# All-to-alls: 8 ranks, each message of SIZE bytes takes 10 us + 7 SIZE / 1 GB/s.
{
    printf '# OSU MPI All-to-All Personalized Exchange Latency Test v7.5\n# Datatype: MPI_CHAR.\n'
    printf '# Size       Avg Latency(us)\n'
    for size in 1000 2000 4000 8000 16000 32000; do
        echo "$size $((10 + 7 * size / 1000)).00"
    done
} >alltoall.txt
fails 2 "alltoall.txt:4: the text of osu_alltoall 7.5 does not tell how many ranks: --ranks N" \
    "$EPBENCH" import osu alltoall.txt -o bad
"$EPBENCH" import osu alltoall.txt -o run --ranks 8 --ranks-per-node 4 --host cluster --machine 'two nodes' \
    2>warned >/dev/null
[ ! -s warned ]
[ "$(ls run/traffic | wc -l)" = 6 ]
goes_on run
grep -q 'B 1.00 GB/s' fitted                # 7 messages of SIZE at 1 GB/s
grep -q 'two nodes' run/report.html
"$EPBENCH" fit run --rungs M5 >fitted       # it follows single messages of traffic/
grep -q '^M5 ' fitted

# Several tools in one fit are groups of their own.
cat >nccl.txt <<END
# Collective test starting: alltoall_perf
#  Rank  0 Group  0 Pid   6521 on      node1 device  0 [0000:07:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   6521 on      node1 device  1 [0000:0b:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw  #wrong     time   algbw   busbw  #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             (us)  (GB/s)  (GB/s)
     1048576        131072     float    none      -1   100.00   10.49    5.24       0    99.50   10.54    5.27     N/A
     2097152        262144     float    none      -1   160.00   13.11    6.55       0   158.00   13.27    6.64     N/A
     4194304        524288     float    none      -1   280.00   14.98    7.49       0   281.00   14.93    7.46     N/A
# Out of bounds values : 0 OK
END
"$EPBENCH" import nccl nccl.txt -o gpus --host cluster >/dev/null
goes_on gpus
"$EPBENCH" fit run gpus >fitted
grep -q '^dispatch nccl-alltoall library' fitted
grep -q '^dispatch alltoall library' fitted
sed 's/alltoall_perf/alltoallv_perf/' nccl.txt | awk '{ print } /Rank  1/ { for (r = 2; r < 4; r++) {
    sub("Rank  [0-9]", "Rank  " r); print } }' | sed '/^ *[0-9]/d' >four.txt
# A matrix that `route --matrix` wrote for nccl-tests comes back.
"$EPBENCH" route --ranks 2 --experts 4 --top-k 2 --tokens 64 --hidden 16 --dtype bf16 \
    --matrix copies:nccl-tests:m.txt >/dev/null
total=$(awk '{ for (i = 1; i <= NF; i++) { v = int($i / 16) * 16; row[NR] += v; col[i] += v } }
    END { for (i in row) if (row[i] > most) most = row[i]; for (i in col) if (col[i] > most) most = col[i]; print most }' m.txt)
awk -v size="$total" '/^ *1048576/ { printf "%d 0 float none -1 %.2f 1.00 0.50 0 1.00 1.00 0.50 N/A\n", size, size / 1000; next }
    /^ *[24]/ { next } { print }' nccl.txt | sed 's/alltoall_perf/alltoallv_perf/' >matrix.txt
fails 2 "--matrix FILE" "$EPBENCH" import nccl matrix.txt -o bad
"$EPBENCH" import nccl matrix.txt -o matrix --matrix m.txt >/dev/null
grep -q '"skew":"matrix:' matrix/records.jsonl
fails 2 "size $total" "$EPBENCH" import nccl matrix.txt -o bad --matrix m.txt --scale 2

# The other formats.
cat >imb.txt <<END
#    Intel(R) MPI Benchmarks 2021.2, MPI-1 part
# Benchmarking Alltoall 
# #processes = 4 
       #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
            0         1000         0.07         0.07         0.07
         1024         1000         4.00         9.00         5.00
        65536         1000        40.00       200.00        50.00
      1048576           40       900.00      3000.00       950.00
# All processes entering MPI_Finalize
END
"$EPBENCH" import imb imb.txt -o imb --ranks-per-node 4 >/dev/null
goes_on imb
cat >ucc.txt <<END
Collective:             Alltoall
Datatype:               float32
Inplace:                0

       Count        Size                Time, us
                                 avg         min         max
        4096       16384        9.00        8.00       10.24
        8192       32768       18.00       17.00       20.48
       16384       65536       36.00       35.00       40.96
Total time: 0.07 ms
END
fails 2 "--ranks N" "$EPBENCH" import ucc ucc.txt -o bad
"$EPBENCH" import ucc ucc.txt -o ucc --ranks 4 --ranks-per-node 2 >/dev/null
goes_on ucc
head -n 9 ucc.txt >cut.txt
fails 2 "no line 'Total time'" "$EPBENCH" import ucc cut.txt -o bad --ranks 4
printf 'bytes,us\n1000,10\n1000,11\n2000,20\n4000,40\n' >any.csv
"$EPBENCH" import csv any.csv -o csv --op alltoall --map time_us=us,size_bytes=bytes --ranks 4 2>/dev/null >made
grep -q '^csv: 3 records of 1 file$' made
goes_on csv
fails 2 "any.csv:1: no column 'bytes;us'" "$EPBENCH" import csv any.csv -o bad --op alltoall --ranks 4 \
    --map 'time_us=bytes;us,size_bytes=bytes'

# Six patterns in four scales, where the busiest rank's bytes rule (5 us + H / 10 GB/s): fitted together they
# say so. Rank 0 receives HOT times what others do, which bytes over bandwidth (M0) cannot see.
dirs=
for hot in 1 2 3 4 6 8; do
    awk -v hot=$hot 'BEGIN { for (i = 0; i < 4; i++) { for (j = 0; j < 4; j++)
        printf "%d ", 65536 * (j == 0 ? hot : 1); print "" } }' >pattern.txt
    for scale in 1 2 4 8; do
        awk -v hot=$hot -v scale=$scale 'NR <= 1 || /^#/ { if ($0 !~ /Out of/) print }
            END { into = 65536 * scale * hot; out = 65536 * scale * (hot + 3); size = 4 * into > out ? 4 * into : out
                rest = out - 65536 * scale; h = 3 * into > rest ? 3 * into : rest; t = 5 + h / 10000
                printf "%d 0 float none -1 %.2f %.2f 0 0 1.00 1.00 0.50 N/A\n# Out of bounds values : 0 OK\n",
                    size, t, size / t / 1000 }' four.txt >text.txt
        "$EPBENCH" import nccl text.txt -o "p$hot.$scale" --matrix pattern.txt --scale $scale >/dev/null
        dirs="$dirs p$hot.$scale"
    done
done
"$EPBENCH" fit $dirs >fitted
grep -q 'whole time of 24 cases (6 skews' fitted
grep -q '^M2 \*.*B 10.00 GB/s' fitted
"$EPBENCH" plot $dirs >/dev/null 2>&1
"$EPBENCH" report $dirs >/dev/null

# Wrong data fail the records and the exit status; the run is there.
sed 's/7.49       0/7.49       7/' nccl.txt >wrong.txt
status=0
"$EPBENCH" import nccl wrong.txt -o wrong >/dev/null 2>err || status=$?
[ $status = 1 ]
grep -q '1 records failed' err
grep -q '"wrong":7' wrong/records.jsonl
"$EPBENCH" fit wrong | grep -q 'failed are left out'

# A disk that is full at run.json, at the records: nothing stays either (512 bytes a block).
for blocks in 1 4; do
    fails 3 "cannot be written" sh -c "trap '' XFSZ; ulimit -f $blocks; \"$EPBENCH\" import osu alltoall.txt -o bad --ranks 8"
done

# Bad input: one message, exit 2, nothing on disk.
head -c 300 nccl.txt >cut.txt
fails 2 "cut.txt" "$EPBENCH" import nccl cut.txt -o bad
head -n 9 nccl.txt >cut.txt
fails 2 "before '# Out of bounds values'" "$EPBENCH" import nccl cut.txt -o bad
sed 's/0\.51/0,51/' latency.txt >locale.txt
fails 2 "locale.txt:4: Latency (us) is '0,51'" "$EPBENCH" import osu locale.txt -o bad
fails 2 "locale.txt:4" "$EPBENCH" import osu latency.txt locale.txt -o bad
fails 2 "2 ranks; 8 were expected" "$EPBENCH" import nccl nccl.txt --ranks 8 -o bad
fails 2 "nothing.txt" "$EPBENCH" import osu nothing.txt -o bad
fails 2 "'xml' is no format" "$EPBENCH" import xml latency.txt -o bad
fails 2 "a format is missing" "$EPBENCH" import
fails 2 "a file is missing" "$EPBENCH" import osu -o bad
fails 2 "--ranks" "$EPBENCH" import osu alltoall.txt --ranks 0 -o bad
fails 2 "links" "$EPBENCH" import osu latency.txt -o links # exists
[ "$(wc -l <links/records.jsonl)" = 3 ]
