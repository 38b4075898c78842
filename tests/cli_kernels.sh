#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench kernels: the exact form on tiny shapes, records, the table, and bad input.
cd "$EPBENCH_TEST_DIR/cli_kernels"
tiny="--hidden 48 --ffn 32 --tokens 1,3"

is_json() { # where there is a parser: one document and nothing else
    if command -v jq >/dev/null; then
        jq -e . "$1" >/dev/null || { echo "$1 is not JSON"; exit 1; }
    fi
    [ "$(head -c 1 "$1")" = "${2:-{}" ] || { echo "$1 does not begin with ${2:-{}"; exit 1; }
}

fails() { # EXIT-STATUS TEXT ARGUMENTS...
    want=$1 text=$2
    shift 2
    status=0
    "$EPBENCH" kernels -n 1 "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    grep -qF -- "$text" err || { echo "$*: no '$text' in:"; cat err; exit 1; }
    [ ! -s out ] || { echo "$*: wrote on stdout"; cat out; exit 1; }
}

# 2 dtypes x 2 matrices x 2 token counts by ref and the default, each on one rank and on both:
# 32 cases of 2 repetitions; permuted, FFN and peak benchmarks are left out by the filter.
"$EPBENCH" kernels -n 2 $tiny --backends ref,default --benchmark_repetitions=2 \
    --benchmark_filter=gemm --benchmark_format=json -o run >gemm.json
is_json gemm.json
[ "$(grep -c '"run_type": "iteration"' gemm.json)" = 64 ]
[ "$(grep -c '"name": "gemm/.*_median"' gemm.json)" = 32 ]
! grep -q '"name": "\(ffn\|peak\|permute\)' gemm.json
! grep -q '"library_build_type": "debug"' gemm.json
grep -q '"epbench_flags":' gemm.json
grep -q '"flops_per_s":' gemm.json
[ "$(wc -l <run/records.jsonl)" = 32 ]
[ "$(grep -c '"kind": *"kernels"' run/records.jsonl)" = 32 ]
[ "$(grep -c '"ranks_active": *2' run/records.jsonl)" = 16 ]
# 2 m n k of w13: n = 2 x 32 (gate and up), k = 48, m = 3
grep -q '"flops": *18432' run/records.jsonl

# The other kinds, without a launcher line of their own, once each.
"$EPBENCH" kernels -n 1 $tiny --backends default --benchmark_repetitions=1 \
    --benchmark_filter='^(ffn|permute|unpermute|peak|membw/[^/]*/16KiB|copy/[^/]*/16KiB)' \
    --benchmark_format=csv >all.csv
for name in ffn/ ffn-backward/ permute/ unpermute/ peak/ membw/ copy/; do
    grep -q "^\"$name" all.csv || { echo "no $name"; cat all.csv; exit 1; }
done
# Routing: two generators and two counts, on one rank and on both; pairs are all ranks'.
"$EPBENCH" kernels -n 2 $tiny --backends default --benchmark_repetitions=1 \
    --benchmark_filter='^route/' --benchmark_format=json -o routes >route.json
[ "$(grep -c '"pairs_per_s": *[1-9]' route.json)" = 8 ]
[ "$(grep -c '"kernel": *"route-generate"' routes/records.jsonl)" = 4 ]
[ "$(grep -c '"pairs_per_s": *[1-9]' routes/records.jsonl)" = 8 ]
"$EPBENCH" kernels -n 2 $tiny --benchmark_list_tests=true --benchmark_filter=gemm/ref --backends ref \
    >list
[ "$(wc -l <list)" = 16 ]

# The table: head, a row for each of 2 matrices x 2 token counts, records of each back end and of
# peak and read bandwidth per block.
"$EPBENCH" kernels -n 2 --gemm-table $tiny --dtype fp32 --backends ref,default --row-time 1ms \
    --min-samples 3 -o table --json rows.json >table.txt
[ "$(grep -c '^custom' table.txt)" = 4 ]
grep -q 'rows short of what is asked' table.txt
is_json rows.json '['
[ "$(grep -c '"weights_once_s":' rows.json)" = 4 ]
[ "$(grep -c '"kernel": *"gemm"' table/records.jsonl)" = 8 ]
[ "$(grep -c '"kernel": *"\(peak\|read\)"' table/records.jsonl)" = 4 ]

fails 2 "one of console, json, csv is expected" --benchmark_format=foo
fails 3 "cannot be written" --benchmark_out=/nonexistent/x
fails 2 "did you mean 'onednn'" --backends onedn
fails 2 "both --hidden and --ffn" --hidden 8
fails 2 "moved, not multiplied" --dtype fp8
fails 2 "--tokens" --tokens 0
fails 2 "extended regular expression" --benchmark_filter='('
fails 2 "no benchmark matches" $tiny --benchmark_filter=nosuch
fails 2 "--benchmark_repetitions" --benchmark_repetitions=0
fails 2 "--benchmark_nosuch" --benchmark_nosuch=1
fails 2 "one thread per rank" --threads 2
fails 2 "--gemm-table" --json -
fails 2 "'deepseek-v3'" --model deepseek-v33

# Routers: the figure's router by every instruction set but the plain function, others by the best.
"$EPBENCH" kernels -n 1 --gate-table -o gates --json gates.json >gates.txt
is_json gates.json '['
[ "$(grep -c '"asked": 6.0' gates.json)" = 1 ]
[ "$(grep -c '"model": "deepseek-v3"' gates.json)" -ge 1 ]
[ "$(grep -c '"kernel": *"gate"' gates/records.jsonl)" = "$(grep -c '"isa":' gates.json)" ]
grep -q 'sigmoid-group .* 256 ' gates.txt
grep -q 'rows short of what is asked' gates.txt
fails 2 "exclude each other" --gate-table --gemm-table

# FFNs: 2 dtypes x 2 token counts x 2 loads; a row for the grouped call and one for its GEMMs one by one.
# 256 tiny experts; skewed, those 0 to 255 that are not 3 modulo 4 and get one of 256 x 1 - 128 rows.
"$EPBENCH" kernels -n 2 --ffn-table $tiny --row-time 1ms --min-samples 3 -o ffns --json ffns.json \
    >ffns.txt
[ "$(grep -c '^ *[13] *\(equal\|skewed\)' ffns.txt)" = 8 ]
is_json ffns.json '['
[ "$(grep -c '"of_bound":' ffns.json)" = 8 ]
grep -q '"active": *129' ffns.json # expert 0, and 128 of the 191 others
[ "$(grep -c '"kernel": *"ffn-swiglu-grouped"' ffns/records.jsonl)" = 8 ]
[ "$(grep -c '"kernel": *"ffn-swiglu-single"' ffns/records.jsonl)" = 8 ]
fails 2 "exclude each other" --ffn-table --gemm-table
