#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench place: the exact form, a trace fitted and judged, files, and bad input.
cd "$EPBENCH_TEST_DIR/cli_place"
make_run=$(dirname "$EPBENCH")/tests/make_planted_run

fails() { # EXIT-STATUS TEXT COMMAND...
    want=$1 text=$2
    shift 2
    status=0
    "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    grep -qF -- "$text" err || { echo "$*: no '$text' in:"; cat err; exit 1; }
    [ "$(wc -l <err)" = 1 ] || { echo "$*: more than one message:"; cat err; exit 1; }
    [ ! -s out ] || { echo "$*: wrote on stdout"; exit 1; }
}
bad() { # TEXT ARGUMENTS...
    text=$1
    shift
    fails 2 "$text" "$EPBENCH" place "$@"
}

# The example of EPLB's README: both layers, and what its ranks carry: rank 0 of layer 0 has experts 5
# and 6, 5 twice there, so 165/2 + 39 = 121.5.
cat >C.csv <<END
90,132,40,61,104,165,39,4,73,56,183,86
20,107,104,64,19,197,187,157,172,86,16,27
END
exact="--counts C.csv --ranks 8 --nodes 2 --groups 4 --replicas 16"
"$EPBENCH" place $exact --policy eplb,eplb-global,contiguous --json - >exact.json
tr -d ' \n' <exact.json >flat
grep -q '"physical_to_logical":\[5,6,5,7,8,4,3,4,10,9,10,2,0,1,11,1\]' flat
grep -q '"physical_to_logical":\[7,10,6,8,6,11,8,9,2,4,5,1,5,0,3,1\]' flat
grep -q '"rank_load":\[121.5,86.5,125.0,113.0,147.5,131.5,156.0,152.0\]' flat
# max/mean of that: 156 / (1033/8)
grep -q '"max_over_mean":1.208131655' flat
[ "$(grep -c '"policy": ' exact.json)" = 6 ]
[ "$(grep -c '"layer": 1' exact.json)" = 3 ]
"$EPBENCH" place $exact --policy hierarchical >table 2>warned
grep -q 'only evens out loads' warned
grep -q 'hierarchical' table

# The same counts as SGLang has them, and in two steps that add up to them.
a='90,132,40,61,104,165,39,4,73,56,183,86' b='20,107,104,64,19,197,187,157,172,86,16,27'
zeros='0,0,0,0,0,0,0,0,0,0,0,0'
echo "{\"logical_count\": [[$a], [$b]]}" >layers.json
echo "{\"logical_count\": [[[$a], [$zeros]], [[$zeros], [$b]]]}" >steps.json
for file in layers.json steps.json; do
    "$EPBENCH" place --counts $file --ranks 8 --nodes 2 --groups 4 --replicas 16 \
        --policy eplb,eplb-global,contiguous --json - >sglang.json
    grep -v '"counts"' sglang.json >sglang
    grep -v '"counts"' exact.json | cmp - sglang
done

# A trace: all policies, fitted to the first half and judged on the rest; the same seed gives the same
# whatever else is asked for.
trace="--skew trace:sample --ranks 8 --nodes 4 --token-bytes 100 --window 256"
"$EPBENCH" place $trace --json a.json >table 2>warned
"$EPBENCH" place $trace --policy coactivation --save b.json --json /dev/null >/dev/null 2>&1
map=$(tr -d ' \n' <b.json | sed 's/.*\[\[/[/; s/\]\].*/]/')
tr -d ' \n' <a.json | grep -qF "\"policy\":\"coactivation\",\"layer\":0,\"physical_to_logical\":$map"
for key in fitted held_out bytes cross_node_bytes ranks_per_token difference against low high dynamic \
    migration_bytes experts_moved predicted; do
    grep -q "\"$key\":" a.json || { echo "no key $key"; exit 1; }
done
for text in 'held out' 'dynamic:' 'coactivation  eplb' 'hierarchical  contiguous'; do
    grep -q -- "$text" table || { echo "no '$text'"; cat table; exit 1; }
done

# A number of one policy's entry: KEY in PART (entry, fitted, held_out), as jansson indents it.
number() { # FILE POLICY PART KEY
    awk -v policy="$2" -v part="$3" -v key="$4" '
        /^      "policy": / { now = $0 ~ "\"" policy "\""; at = "entry" }
        now && /^      "fitted": / { at = "fitted" }
        now && /^      "held_out": / { at = "held_out" }
        now && at == part && $1 == "\"" key "\":" { gsub(",", ""); print $2; exit }' "$1"
}
is() { # EXPRESSION: of numbers, true or the test fails
    [ "$(awk "BEGIN { print ($1) ? 1 : 0 }")" = 1 ] || { echo "not so: $1"; exit 1; }
}
eplb=$(number a.json eplb entry max_over_mean)
for policy in coactivation hierarchical; do
    is "$(number a.json $policy entry max_over_mean) <= $eplb"
    # what a token reaches falls by a fifth and more, on tokens not seen too
    for part in fitted held_out; do
        is "$(number a.json $policy $part nodes_per_token) < 0.8 * $(number a.json eplb $part nodes_per_token)"
    done
done

# One part only, split by blocks, two replicas more, another base for dynamic.
"$EPBENCH" place --skew trace:sample --ranks 8 --nodes 2 --replicas 72 --fit-share 1 --policy eplb \
    --json - >whole.json 2>/dev/null
grep -q '"held_out": null' whole.json
"$EPBENCH" place --skew trace:sample --ranks 8 --nodes 2 --by blocks --fit-share 0.25 \
    --policy dynamic --dynamic-policy eplb-global --model deepseek-v2-lite --json - >blocks.json 2>/dev/null
grep -q '"split": "blocks"' blocks.json
grep -q '"policy": "eplb-global"' blocks.json
# 3 matrices of 2048 x 1408 in bf16
grep -q '"expert_bytes": 17301504' blocks.json

# Times by a machine file; what it cannot tell is said.
"$make_run" run noise=0.02
"$EPBENCH" fit run --quiet
"$EPBENCH" place --skew zipf:1 --experts 32 --top-k 2 --tokens 64 --ranks 4 --policy contiguous,eplb \
    --machine run/machine.json --json - >times.json 2>/dev/null
grep -q '"time_s": [0-9]' times.json
"$EPBENCH" place --skew zipf:1 --experts 32 --top-k 2 --tokens 64 --ranks 8 --policy contiguous,eplb \
    --machine run/machine.json --json - >beyond.json 2>/dev/null
grep -q '"extrapolates": "ranks"' beyond.json # the planted run has 4
! grep -q '"extrapolates": "ranks"' times.json

# The maps of one policy, as SGLang takes them.
"$EPBENCH" place $exact --policy eplb --save map.json --json /dev/null >/dev/null
tr -d ' \n' <map.json >flat
grep -q '^{"physical_to_logical_map":\[\[5,6,5,7,8,4,3,4,10,9,10,2,0,1,11,1\],\[7,10,' flat
bad 'one policy' $exact --save map2.json
[ ! -e map2.json ]

# Similarity from profiles: experts 0 and 2 work for law, 1 and 3 for code, so that with one token in
# two experts each pair belongs on one node; alone, or beside counts.
{
    echo model,top_k,domain,layer,expert,count_topk
    for e in 0 2; do echo m,2,law,0,$e,50; done
    for e in 1 3; do echo m,2,code,0,$e,50; done
} >domains.csv
profiles="--similarity domains --profiles domains.csv --ranks 2 --nodes 2"
"$EPBENCH" place $profiles --by blocks --policy contiguous,hierarchical --json alone.json >/dev/null 2>warned
grep -q 'drawn from counts' warned
grep -q '"drawn": true' alone.json
[ "$(number alone.json contiguous held_out nodes_per_token)" = 2.0 ]
[ "$(number alone.json hierarchical held_out nodes_per_token)" = 1.0 ]
echo 50,50,50,50 >even.csv
"$EPBENCH" place $profiles --counts even.csv --policy hierarchical --json beside.json >/dev/null
tr -d ' \n' <beside.json | grep -qE '"physical_to_logical":\[(0,2,1,3|2,0,1,3|0,2,3,1|2,0,3,1|1,3,0,2|3,1,0,2|1,3,2,0|3,1,2,0)\]'
bad 'profiles are for --similarity' --counts even.csv --profiles domains.csv
echo 50,50,50 >three.csv
bad 'profiles have 4 experts, three.csv has 3' --counts three.csv --similarity domains --profiles domains.csv
bad 'profiles are of one layer; C.csv has 2' --counts C.csv --similarity domains --profiles domains.csv
bad "did you mean 'domains'" --similarity domain
bad 'holds counts, no tokens' --assignments counts:C.csv --layer 0
"$EPBENCH" place --skew counts:C.csv --layer 1 --top-k 2 --tokens 256 --policy eplb --json drawn.json >/dev/null 2>&1
grep -q '"drawn": true' drawn.json
grep -q '"layer": 1' drawn.json

# Route counts under these maps what place counted: 400 tokens, each 2 of 12 experts.
awk 'BEGIN { print "token,e0,e1"
    for (t = 0; t < 400; t++) { a = t * 7 % 12; print t "," a "," (a + 1 + t % 11) % 12 } }' >T.csv
"$EPBENCH" place --assignments T.csv --ranks 4 --nodes 2 --replicas 16 --fit-share 1 --token-bytes 10 \
    --policy eplb --save t.json --json own.json >/dev/null
"$EPBENCH" route --assignments T.csv --placement t.json --ranks 4 --nodes 2 --token-bytes 10 --json r.json >/dev/null
"$EPBENCH" route --assignments T.csv --placement own.json --nodes 2 --token-bytes 10 --json o.json >/dev/null
cmp r.json o.json
bytes() { # FILE: all byte counts, in their order
    tr -d ' \n' <"$1" | sed 's/.*"bytes":{\(.*\)/\1/; s/}}.*//' | tr -c '0-9' '\n' | grep . | sort -n | tr '\n' ' '
}
[ -n "$(bytes r.json)" ] && [ "$(bytes r.json)" = "$(bytes own.json)" ]

# comm moves rows by such a map, replicas and all: rank 0 has experts 1 and 0, rank 1 has 0 and 2.
printf '8,1,1\n' >three_loads.csv
"$EPBENCH" place --counts three_loads.csv --ranks 2 --replicas 4 --policy eplb --save comm.json >/dev/null
comm="comm -n 2 --top-k 2 --tokens 16 --hidden 8 --visits 1 --iters 3 --transport alltoall,alltoallv-dedup"
"$EPBENCH" $comm --experts 3 --placement comm.json -o moved >table 2>warned || { cat warned; exit 1; }
[ "$(grep -c '"placement": *"comm.json"' moved/records.jsonl)" = 4 ]
[ "$(grep -c '"verified": *true' moved/records.jsonl)" = 4 ]
id=$(sed -n '1s/.*"record_id": *"\([^"]*\)".*/\1/p' moved/records.jsonl)
"$EPBENCH" run --append moved --repeat "$id" >/dev/null 2>warned || { cat warned; exit 1; }
[ "$(sed -n 's/.*"routing_id": *"\([^"]*\)".*/\1/p' moved/records.jsonl | sort -u | wc -l)" = 1 ]
"$EPBENCH" $comm --experts 4 --placement comm.json -o unmoved >out 2>err && exit 1
grep -q 'comm.json: expert 3 is in no slot' err
[ ! -s unmoved/records.jsonl ]

badly() { # TEXT ARGUMENTS...: of route
    text=$1
    shift
    fails 2 "$text" "$EPBENCH" route --top-k 2 --experts 12 --tokens 4 "$@"
}
"$EPBENCH" place $exact --policy eplb,contiguous --json both.json >/dev/null
"$EPBENCH" route --top-k 2 --experts 12 --tokens 4 --placement both.json --placement-policy eplb \
    --placement-layer 1 >/dev/null
badly '4 of its placements fit' --placement both.json
badly '0 of its placements fit' --placement both.json --placement-policy random
badly 'is for 8 ranks, not 4' --placement both.json --placement-policy eplb --placement-layer 0 --ranks 4
badly '--ranks is needed' --placement map.json --placement-layer 0
badly 'has 2 layers; say which one' --placement map.json --ranks 8
badly 'has 2 layers, no layer 2' --placement map.json --ranks 8 --placement-layer 2
badly '16 slots cannot be dealt to 6 ranks' --placement map.json --ranks 6 --placement-layer 0
badly 'names no policies' --placement map.json --ranks 8 --placement-policy eplb
badly 'is for --placement' --placement-layer 1
badly 'exclude each other' --placement map.json --experts-to-ranks 0,1
echo '{"physical_to_logical_map": [[0, 1, 2, 99]]}' >high.json
badly 'high.json: slot 3 holds expert 99' --placement high.json --ranks 4
echo '{"physical_to_logical_map": [[0, 1, 2, -1]]}' >low.json
badly 'low.json: slot 3 must hold an expert' --placement low.json --ranks 4
echo '{"physical_to_logical_map": [[0, 1, 2, 3]]}' >few.json
badly 'few.json: expert 4 is in no slot' --placement few.json --ranks 4
echo '{"logical_count": [[1]]}' >counts.json
badly "neither 'physical_to_logical_map' nor 'placements'" --placement counts.json --ranks 4
echo '{"physical_to_logical_map": 3}' >scalar.json
badly 'neither' --placement scalar.json --ranks 4
echo '[' >torn.json
badly 'torn.json' --placement torn.json --ranks 4

# Bad input.
bad 'one of --counts' --ranks 8
bad 'only one of' --counts C.csv --skew uniform
bad "did you mean 'hierarchical'" $exact --policy heirarchical
bad 'needs tokens' $exact --policy coactivation
bad 'needs tokens' $exact --policy eplb,dynamic
bad 'named twice' $exact --policy eplb,eplb
bad '--replicas 12 is no multiple of 8 ranks' --counts C.csv --replicas 12
bad '--replicas 8 is less than the 12 experts' --counts C.csv --replicas 8
bad '--groups 5 does not divide 12 experts' --counts C.csv --groups 5
bad '--nodes 3 does not divide 8 ranks' --counts C.csv --nodes 3
bad 'contradict 8 ranks' --counts C.csv --nodes 2 --ranks-per-node 2
bad '--fit-share is for tokens' --counts C.csv --fit-share 0.5
bad '--fit-share' --skew trace:sample --fit-share 0
bad 'cannot place anew' --skew trace:sample --policy dynamic --dynamic-policy dynamic
bad "did you mean 'eplb'" --skew trace:sample --policy dynamic --dynamic-policy epbl
bad 'neither first nor blocks' --skew trace:sample --by half
bad '--machine predicts' --counts C.csv --machine run/machine.json
bad 'absent.json' --skew trace:sample --machine absent.json
echo '{"schema": 1}' >broken.json
bad "broken.json: key 'host' is missing" --skew trace:sample --machine broken.json
sed 's/"schema": 1/"schema": 2/' run/machine.json >newer.json
bad 'newer.json: schema 2; 1 expected' --skew trace:sample --machine newer.json
sed 's/"chosen": "M2"/"chosen": "M9"/' run/machine.json >unknown.json
bad "'M9' is no rung" --skew trace:sample --machine unknown.json
sed 's/"coefficients": \[$/"coefficients": [-1, /' run/machine.json >negative_time.json
bad 'negative_time.json: groups[0]' --skew trace:sample --machine negative_time.json
printf '1,2,3\n4,5\n' >ragged.csv
bad 'ragged.csv:2: has 2 numbers, the first line has 3' --counts ragged.csv
printf '1,2,-3\n' >negative.csv
bad 'negative.csv:1' --counts negative.csv
printf '1,2\n3,nan\n' >nan.csv
bad 'nan.csv:2' --counts nan.csv
printf '1,2\n3,\n' >hole.csv
bad 'hole.csv:2' --counts hole.csv
: >empty.csv
bad 'empty.csv: is empty' --counts empty.csv
bad 'absent.csv' --counts absent.csv
echo '{"logical_count": [[1, 2], [3]]}' >ragged.json
bad 'ragged.json: layer 1, expert 0' --counts ragged.json
echo '{"logical_count": [[1, -2]]}' >negative.json
bad 'negative.json: layer 0, expert 1' --counts negative.json
echo '{"logical_count": [[[1, 2]], [[1, 2], [3, 4]]]}' >uneven.json
bad 'as many layers in every step' --counts uneven.json
echo '{"logical_count": 7}' >number.json
bad "'logical_count' must be a list of layers" --counts number.json
