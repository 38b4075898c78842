#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench layer as users call it: the exact form, records, table, timeline, bad input, resume.
cd "$EPBENCH_TEST_DIR"
dir=cli_layer.d
rm -rf "$dir"
mkdir "$dir"
cd "$dir"
fail() { echo "cli_layer: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }
ranks() { # N COMMAND...: under mpirun, on any number of cores
    n=$1
    shift
    $EPBENCH_LAUNCHER -n "$n" "$EPBENCH" "$@"
}
refused() { # STATUS TEXT ARGUMENTS...: one message, the status, nothing written
    expected=$1 text=$2
    shift 2
    status=0
    timeout 60 "$EPBENCH" "$@" >out 2>err || status=$?
    [ $status = "$expected" ] || fail "$* gave $status, expected $expected"
    grep -q -- "$text" err || fail "$* does not say '$text'"
    [ "$(grep -c '^epbench [a-z]*: ' err)" = 1 ] || fail "$*: more than one message"
}
small="--hidden 64 --ffn 32 --iters 3 --visits 1"

# The exact form with a trace of its own, its model shrunk: other options override a model.
{
    echo token,e0,e1,e2,e3,e4,e5
    for t in 0 1 2 3 4 5 6 7; do echo "$t,0,$((t + 1)),20,30,40,63"; done
} >trace.csv
ranks 2 layer --model deepseek-v2-lite --tokens 8 --skew trace:trace.csv --timeline t.json \
    $small --shared-ffn 48 -o run >out 2>err || fail "the exact form failed"
# the layer, and one rank beside it
[ "$(wc -l <run/records.jsonl)" = 2 ] || fail "expected 2 records"
[ "$(grep -c '"kind":"layer"' run/records.jsonl)" = 2 ] || fail "records are of another kind"
[ "$(grep -c '"verified":true' run/records.jsonl)" = 2 ] || fail "not all was verified"
grep -q '"model":"deepseek-v2-lite"' run/records.jsonl || fail "the model is not recorded"
grep '"ranks":2' run/records.jsonl >two
grep -q '"efficiency":[0-9]' two || fail "no efficiency"
grep -q '"dense_s":[0-9]' two || fail "no dense FFN"
grep -q '"wait_matrix_s":\[0.0,[^]]*,0.0\]' two || fail "no wait matrix with an empty diagonal"
# 16 tokens choose expert 0, two of them each of 1 to 8
grep -q '"rank_experts":\[32,32\],"expert_rows":\[16,2,2,2,2,2,2,2,2,0,' two || fail "the rows of experts are not recorded"
grep -q '"shared_ffn":48' two || fail "the shared experts are not recorded"
grep '"ranks":1' run/records.jsonl | grep -q '"efficiency":null' || fail "one rank has an efficiency"
grep -q 'who (line) waited for whom' out || fail "no wait matrix in the text"
# two cases (2 ranks and 1), a slice for each rank and phase: route, counts, pack, exchange, unpack, shared,
# experts, pack, exchange, unpack, add: 11 (2 + 1)
[ "$(grep -c '"ph": "X"' t.json)" = 33 ] || fail "the timeline has other slices"
[ "$(grep -c '"name": "thread_name"' t.json)" = 3 ] || fail "the timeline has other rows"

# In chunks whose exchanges run while experts compute; the last one's results are verified too.
ranks 3 layer --tokens 7 --experts 9 $small --shared-ffn 16 --overlap chunks:1,3 -o overlap >out 2>err ||
    fail "overlap failed"
grep '"ranks":3' overlap/records.jsonl >three
[ "$(grep -o '"chunks":[0-9]*' three | tr '\n' ' ')" = '"chunks":1 "chunks":3 ' ] ||
    fail "the numbers of chunks are not recorded"
grep -q '"verified":false' overlap/records.jsonl && fail "an overlapped layer is wrong"
grep -q '^overlap  *chunks' out || fail "no table of overlaps"
grep '"ranks":1,' overlap/records.jsonl | grep -q '"chunks"' && fail "one rank overlaps with nobody"
refused 2 'chunks:N was expected' layer -n 2 --overlap 4 -o new
refused 2 'overlap with --tp' layer -n 2 --tp 2 --overlap chunks:2 -o new
refused 2 'overlap chunks' layer -n 2 --overlap chunks:0 -o new
refused 2 'transport rma has no exchange that can be left' layer -n 2 --overlap chunks:2 --transport rma -o new
refused 2 'no rank has so many tokens in the case of 4$' layer -n 2 --tokens 64,63,62,61,4 --overlap chunks:5 $small -o early
[ ! -s early/records.jsonl ] || fail "cases were measured before one of them was refused"
[ ! -e new ] || fail "a refused overlap wrote something"

# A sweep on three and on two ranks, in shared memory too, dropping, cold, appended to.
ranks 3 layer --tokens 4,16 --experts 9 --top-k 2 --skew uniform,khot:1:0.9 --transport alltoallv,hier,shm \
    --ranks 2,3 --capacity-rule gshard --drop order --dtype fp32 $small --cold -o sweep >out 2>err ||
    fail "the sweep failed"
# 2 tokens x 2 skews x 3 transports x 2 numbers of ranks, each with one rank beside
[ "$(wc -l <sweep/records.jsonl)" = 48 ] || fail "expected 48 records"
grep -q '"verified":false' sweep/records.jsonl && fail "a record is wrong"
grep -q '"dropped":[1-9]' sweep/records.jsonl || fail "nothing was dropped"
ranks 3 layer --tokens 4 --experts 9 $small --append sweep >out 2>err || fail "append failed"
[ "$(wc -l <sweep/records.jsonl)" = 50 ] || fail "expected 50 records"
# a hot rank needs others to be hotter than: no efficiency, and why
ranks 2 layer --tokens 16 --experts 8 --skew hot:1.5 $small -o hot >out 2>err || fail "hot failed"
grep -q 'skipped: one-rank' err || fail "a missing efficiency is not told"

# Remedies side by side, the hot expert by default; replicas for comm too.
ranks 2 layer --remedies --tokens 32 --experts 8 --dtype fp32 $small -o remedies >out 2>err || fail "remedies failed"
[ "$(grep '"ranks":2' remedies/records.jsonl | grep -o '"remedy":"[a-z-]*"' | sort | tr -d '\n')" = \
    '"remedy":"balance""remedy":"drop""remedy":"expert-choice""remedy":"none""remedy":"replicas"' ] ||
    fail "not five remedies"
grep -q '"verified":false' remedies/records.jsonl && fail "a remedy is wrong"
[ "$(sed -n '2,6s/ .*//p' out | tr '\n' ' ')" = 'none drop balance expert-choice replicas ' ] ||
    fail "the table has other rows"
of() { # REMEDY KEY: of two ranks
    grep '"ranks":2' remedies/records.jsonl | grep "\"remedy\":\"$1\"" | grep -o "\"$2\":[^,]*" | cut -d: -f2
}
[ "$(of drop dropped)" -gt 0 ] && [ "$(of none dropped)" = null ] || fail "drop alone drops"
[ "$(of replicas placement)" = '"eplb+1"' ] && [ "$(of none placement)" = '"contiguous"' ] || fail "placements"
[ "$(of expert-choice router)" = '"expert-choice"' ] && [ "$(of balance skew)" = '"uniform"' ] || fail "routings"
ranks 3 comm --replicas 3 --tokens 9 --experts 6 --hidden 16 --skew khot:1:0.9 --iters 3 --visits 1 -o more >out 2>err ||
    fail "comm with replicas failed"
[ "$(grep -c '"verified":true' more/records.jsonl)" = 2 ] || fail "replicas are wrong"
id=$(sed -n 1p more/records.jsonl | grep -o '"record_id":"[^"]*"' | cut -d'"' -f4)
ranks 3 run --append more --repeat "$id" >out 2>err || fail "--repeat failed"
[ "$(grep -o '"case":"comm/dispatch[^"]*"' more/records.jsonl | sort -u | wc -l)" = 1 ] || fail "replicas are not repeated"

# Slices and copies: 2 x 2 x 1 and 1 x 2 x 2 of five ranks, and all of four.
ranks 5 layer --ep 2 --tp 2 --tokens 8 --experts 4 --shared-ffn 16 $small -o sliced >out 2>err || fail "--tp failed"
ranks 4 layer --tp 2 --dp 2 --tokens 8 --experts 4 --timeline sliced.json $small -o copies >out 2>err || fail "--dp failed"
grep -q '"verified":false' sliced/records.jsonl copies/records.jsonl && fail "slices or copies are wrong"
[ "$(grep '"ranks":4' sliced/records.jsonl | grep -c '"tp":2,"dp":1')" = 1 ] || fail "2 x 2 ranks are not recorded"
[ "$(grep '"ranks":4' copies/records.jsonl | grep -c '"tp":2,"dp":2')" = 1 ] || fail "copies are not recorded"
grep -q '"name":"sum"' sliced/records.jsonl || fail "no sum over slices"
# Backward: both exchanges twice, dX and dW; beside one rank and a dense FFN of both passes.
ranks 2 layer --backward --tokens 8 --experts 4 --shared-ffn 16 --dtype fp32 $small -o backward >out 2>err || fail "--backward failed"
[ "$(grep -c '"verified":true' backward/records.jsonl)" = 2 ] || fail "gradients are wrong"
grep '"ranks":2' backward/records.jsonl | grep -q '"op":"forward+backward"' || fail "the passes are not recorded"
[ "$(grep '"ranks":2' backward/records.jsonl | grep -o '"name":"[a-z]*-*dispatch-exchange"' | wc -l)" = 2 ] ||
    fail "gradients are not dispatched"
grep -q '"name":"back-experts"' backward/records.jsonl || fail "no gradients of experts"
refused 2 'only the forward pass' layer --backward --overlap chunks:2
refused 2 'no multiple of --tp x --dp = 3' layer -n 4 --tp 3
refused 2 'cannot be sliced so often' layer --tp 40 --ffn 32
refused 2 'depends on where experts are' layer -n 2 --replicas 2 --skew hot:1.5 --experts 8
refused 2 'give only one' comm --replicas 2 --placement map.json
refused 2 '--remedies sets it' layer --remedies --router softmax
refused 2 "'magic' is none of none, drop" layer --remedies=none,magic
refused 2 'a layer dispatches and combines' layer --op dispatch
refused 2 'moves nothing' layer --transport null
refused 2 'no back end multiplies fp8' layer --dtype fp8
refused 2 "'tanh' is not swiglu" layer --activation tanh
refused 2 '--ffn' layer --ffn 0
refused 2 'fastest' layer --backend fastest
refused 2 'no file can be written' layer --timeline nowhere/t.json
[ ! -e nowhere ] || fail "a directory was made"
