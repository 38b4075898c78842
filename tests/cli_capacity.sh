# SPDX-License-Identifier: Apache-2.0
# Capacity, dropping and styles as users ask for them, in comm and in route, and every kind of bad input.
cd "$EPBENCH_TEST_DIR"
rm -rf cli_capacity.d && mkdir cli_capacity.d && cd cli_capacity.d
fail() { echo "cli_capacity: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }
has() { # FILE TEXT
    grep -qF -- "$2" "$1" || fail "'$2' is not in $1"
}
ranks() { # N COMMAND...
    n=$1
    shift
    $EPBENCH_LAUNCHER -n "$n" "$EPBENCH" "$@"
}
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    status=0
    timeout 60 "$EPBENCH" "$@" >out 2>err || status=$?
    [ $status = 2 ] || fail "$*: exit $status, 2 expected"
    [ ! -s out ] || fail "$*: refused, yet there is output"
    [ "$(grep -c '^epbench [a-z]*: ' err)" = 1 ] || fail "$*: one message expected"
    has err "$text"
}
key() { grep -o "\"$2\":[^,}]*" "$1/records.jsonl" | cut -d: -f2- | sort -u; }

# --- comm ---
quick="--iters 3 --visits 1 --hidden 8 --op dispatch"
# 2 ranks x 32 tokens, top-2 of 4 experts, half of all copies to one: by order each expert takes
# ceil(32 x 2 / 4 x 0.5) = 8 of a rank's rows. Whatever the drop policy, no more than 4 x 8 x 2 stay.
for drop in order choice prob random; do
    ranks 2 comm --experts 4 --top-k 2 --tokens 32 --skew khot:1:0.5 --transport alltoall,alltoallv-dedup $quick \
        --capacity-rule megatron --capacity-factor 0.5 --drop $drop -o $drop >out 2>err || fail "$drop failed"
    [ "$(key $drop capacity)" = 8 ] || fail "$drop: the capacity is not 8"
    [ "$(key $drop asked)" = 128 ] || fail "$drop: asked is not 128"
    [ "$(key $drop drop)" = "\"$drop\"" ] || fail "$drop: not in the record"
    [ $(($(key $drop kept) + $(key $drop dropped))) = 128 ] || fail "$drop: copies are lost"
    [ "$(key $drop kept)" -le 64 ] || fail "$drop: more was kept than the capacity"
    [ "$(key $drop verified)" = true ] || fail "$drop: not verified"
done
[ "$(key order kept)" = "$(key random kept)" ] || fail "policies keep different numbers"
[ "$(for d in order choice prob random; do key $d routing_id; done | sort -u | wc -l)" = 4 ] ||
    fail "routing_id does not tell policies apart"

awk 'NR == 1 { exit !($NF == "dropped") }' out || fail "the table does not say what was dropped"

# What is rerouted finds room as long as there is any: 4 experts x 16 rows take all 64 of a rank.
ranks 3 comm --experts 4 --top-k 2 --tokens 32 --skew khot:1:0.5 $quick --overflow next \
    --capacity-rule tutel --capacity-factor 1 -o next >out 2>err || fail "next failed"
[ "$(key next kept)" -lt 192 ] && [ "$(key next rerouted)" -gt 0 ] || fail "nothing was rerouted"
[ "$(key next verified)" = true ] || fail "next: not verified"

# Padding to the capacity is what crosses: rank 1's only token to rank 0, in slots of
# max(ceil(1 / 2 x 1), 4) = 4 rows of 2 experts: 7 of 8 carry nothing; on the wire 1 x 4 rows a rank,
# of 16 bytes, one of them with the token.
ranks 2 comm --experts 2 --top-k 1 --tokens-per-rank 0,1 --skew hot:1 --transport alltoall $quick \
    --capacity-rule deepspeed --pad -o padded >out 2>err || fail "padding failed"
[ "$(key padded capacity)" = 4 ] || fail "the floor is not DeepSpeed's"
[ "$(key padded padded)" = 15 ] || fail "16 rows of both sources, one with a token"

# The same point again, from its record alone; a capacity of all ranks together; five ranks.
ranks 5 comm --experts 10 --top-k 1 --tokens 20 --skew zipf:1 $quick --capacity-rule fastmoe \
    --capacity-factor 0.8 --drop random --overflow expert:3 -o five >out 2>err || fail "five ranks failed"
[ "$(key five capacity_per)" = '"expert"' ] || fail "FastMoE's Switch gate counts all ranks"
[ "$(key five verified)" = true ] || fail "five ranks: not verified"
ranks 5 run --append five --repeat "$(key five record_id | tr -d '"')" >out 2>err || fail "--repeat failed"
[ "$(grep -c . five/records.jsonl)" -ge 2 ] && [ "$(key five case | wc -l)" = 1 ] ||
    fail "the repeated case is another"

# Megablocks drops after the dispatch: the routing is the whole one.
ranks 2 comm --experts 4 --top-k 2 --tokens 32 --skew khot:1:0.5 $quick -o whole >out 2>err || fail "whole failed"
ranks 2 comm --experts 4 --top-k 2 --tokens 32 --skew khot:1:0.5 $quick --capacity-rule megablocks \
    -o receiver >out 2>err || fail "megablocks failed"
[ "$(key whole routing_id)" = "$(key receiver routing_id)" ] || fail "megablocks sends less"
[ "$(key receiver dropped)" -gt 0 ] && [ "$(key whole dropped)" = null ] || fail "dropped"

# Styles.
has_hier=no
ranks 1 comm --transport hier --tokens 1 $quick >out 2>err && has_hier=yes
ranks 2 comm --style deepep --experts 8 --top-k 2 --tokens 8 $quick -o deepep >out 2>err || fail "deepep failed"
if [ $has_hier = yes ]; then
    [ "$(key deepep transport)" = '"hier"' ] || fail "deepep's transport"
else
    [ "$(key deepep transport)" = '"alltoallv-dedup"' ] || fail "deepep's nearest transport"
    has err 'this program lacks it and uses alltoallv-dedup'
    has deepep/run.json 'style-transport'
fi
ranks 2 comm --style deepspeed --experts 8 --top-k 2 --tokens 8 $quick -o style >out 2>err || fail "deepspeed failed"
[ "$(key style transport) $(key style drop) $(key style capacity)" = '"alltoall" "choice" 4' ] || fail "deepspeed"
has err 'beyond: '
# topkgating ranks an expert's copies by p, which is divided by its sum only after dropping: of p = (.4, .1, ...)
# and (.45, .45, ...) it keeps the second one's .45 in expert 0; by weights, .8 and .5, the first would stay.
"$EPBENCH" route --style deepspeed --experts 8 --top-k 3 --tokens 8 --json - >out || fail "deepspeed top-3 failed"
has out '"router": "softmax"' && has out '"drop": "prob"'
ranks 2 comm --capacity-rule gshard --capacity-factor 3 --experts 8 --top-k 2 --tokens 8 $quick -o unused >out 2>err ||
    fail "gshard failed"
has err 'rule gshard uses no --capacity-factor'
[ "$(key unused capacity_factor) $(key unused capacity)" = 'null 2' ] || fail "gshard took the factor"
ranks 2 comm --style megatron --experts 8 --top-k 2 --tokens 8 $quick -o dropless >out 2>err || fail "megatron failed"
[ "$(key dropless capacity_rule)" = null ] || fail "megatron without a factor is dropless"

# --- route ---
# Experts 0 1 on rank 0, 2 on rank 1; all tokens on rank 0; two rows of each expert:
#   t0 -> 0 1   t1 -> 0 1   t2 -> 0 2   t3 -> 1 0      (weights .9 .1  .6 .4  .7 .3  .8 .2)
# By order 0 and 1 are full after t1: three copies are dropped, t3 has none left. What crosses is
# t2's copy for expert 2, before and after. Slots: 3 experts x 2 rows x 2 sources = 12, 5 of them with
# a token; on other ranks 2 of source 0 and 4 of source 1, one with a token. Buffers: 3 x 2 rows laid
# out to be sent, 2 experts x 2 rows x 2 sources received; without capacity 8 and 7.
printf 'token,e0,e1,w0,w1\n0,0,1,.9,.1\n1,0,1,.6,.4\n2,0,2,.7,.3\n3,1,0,.8,.2\n' >A.csv
printf 'token,rank\n0,0\n1,0\n2,0\n3,0\n' >T.csv
small="route --assignments A.csv --experts-to-ranks 0,0,1 --tokens-to-ranks T.csv --token-bytes 100 --capacity 2"
json() { # EXPECTED KEY: the key's value in the flattened output
    [ "$(grep -o "\"$2\": [^,]*" out | head -n 1)" = "\"$2\": $1" ] || fail "$2 is not $1"
}
"$EPBENCH" $small --drop order --pad --json - >out 2>err || fail "small failed"
json 8 asked && json 5 kept && json 3 dropped && json 2 tokens_dropped && json 1 tokens_lost
json 7 padded && json 5 padded_remote && json 500 added_bytes
json 600 send_bytes && json 800 receive_bytes && json 800 whole_send_bytes && json 700 whole_receive_bytes
json null routing_id
"$EPBENCH" $small --drop order --overflow next --json - >out 2>err || fail "small next failed"
json 1 rerouted && json 2 dropped && json 0 tokens_lost
[ "$(sed -n '/"saved_bytes"/,/}/p' out | grep -o '"copies": .*' | head -n 1)" = '"copies": -100,' ] ||
    fail "t3's copy for expert 2 crosses besides: -100 bytes saved"
"$EPBENCH" $small --drop prob --json - >out 2>err || fail "small prob failed"
json 3 tokens_dropped && json 0 tokens_lost
# plain: 1.25 x 100 / 8 = 15.625 rows of 4096 bytes; Megatron's 32 of the worked example.
"$EPBENCH" route --experts 8 --top-k 2 --ranks 1 --tokens 100 --token-bytes 4096 --capacity-rule plain \
    --capacity-factor 1.25 --json - >out || fail "plain failed"
has out '"capacity": 16,' && json 64000.0 plain_expert_bytes
"$EPBENCH" route --experts 8 --top-k 2 --ranks 1 --tokens 100 --style megatron --capacity-factor 1.25 >out ||
    fail "megatron failed"
has out 'capacity 32 rows per (source rank, expert): megatron'
has out 'topk-softmax'
# A softmax over one chosen expert is 1 for every token: Megatron takes p at k = 1, and drops the lowest.
"$EPBENCH" route --experts 8 --top-k 1 --ranks 1 --tokens 100 --style megatron --capacity-factor 1 --json - >out ||
    fail "megatron top-1 failed"
has out '"router": "top1"' && has out '"drop": "prob"'
"$EPBENCH" route --experts 8 --top-k 2 --tokens 100 --style deepep --json - >out || fail "deepep failed"
json null capacity_rule
has out '"transport": "hier"'
# Any number of ranks: 16,384 of one token each, expert 0 in slots for 4, the floor.
"$EPBENCH" route --experts 1 --top-k 1 --ranks 16384 --tokens 1 --style switch --json - >out || fail "many ranks failed"
json 16384 kept && json 0 dropped
# The same counts as comm's records, from one process.
"$EPBENCH" route --experts 4 --top-k 2 --ranks 2 --tokens 32 --skew khot:1:0.5 --hidden 8 \
    --capacity-rule megatron --capacity-factor 0.5 --drop random --json - >out || fail "as comm failed"
json "$(key random dropped)" dropped
has out "\"routing_id\": $(key random routing_id)"
printf 'token,e0\n0,1\n' >N.csv
refused '--drop prob: this routing has no weights' route --assignments N.csv --experts-to-ranks 0,0 --capacity 1 --drop prob
refused '--capacity 3 needs --drop' route --experts 8 --top-k 2 --capacity 3

# Routers on logits of the skew's popularity: verified, named, the same in route.
ranks 3 comm --router sigmoid-group:8:4 --experts 24 --top-k 4 --tokens 60 --skew uniform,zipf:1 $quick \
    --transport alltoallv,alltoallv-dedup --capacity-rule tutel -o routed >out 2>err || fail "a router failed"
[ "$(key routed router) $(key routed verified)" = '"sigmoid-group:8:4" true' ] || fail "router"
"$EPBENCH" route --router sigmoid-group:8:4 --experts 24 --top-k 4 --tokens 60 --ranks 3 --skew zipf:1 --hidden 8 \
    --capacity-rule tutel --json - >out || fail "route with a router failed"
has out '"router": "sigmoid-group:8:4"'
grep '"skew":"zipf:1"' routed/records.jsonl | grep -q "\"dropped\":$(grep -o '"dropped": [0-9]*' out | cut -d' ' -f2)," ||
    fail "route and comm drop different numbers"
ranks 2 comm --router expert-choice --experts 6 --top-k 2 --tokens 30 --skew zipf:1 $quick -o choice2 >out 2>err ||
    fail "expert choice failed"
[ "$(key choice2 verified)" = true ] && [ "$(key choice2 asked)" = null ] || fail "expert choice"
ranks 2 run --append choice2 --repeat "$(key choice2 record_id | tr -d '"')" >out 2>err || fail "--repeat failed"
[ "$(key choice2 case | wc -l)" = 1 ] || fail "the repeated router is another case"
ranks 2 comm --style switch --experts 8 --tokens 20 --skew zipf:1,trace:sample --top-k 1 $quick -o own >out 2>err && \
    fail "a trace of top-6 is no switch"
ranks 2 comm --style switch --experts 8 --tokens 20 --skew zipf:1,hot:1.5 $quick -o own >out 2>err || fail "switch failed"
[ "$(key own top_k)" = 1 ] || fail "a switch has top-1"
has err 'tokens that follow hot:1.5 have no logits'
has own/run.json 'style-router'
[ "$(key own router | tr '\n' ' ')" = '"switch:0.01" null ' ] || fail "hot:1.5 has no logits"
refused 'did you mean' comm --router sofmax --experts 8 --top-k 2
refused 'hot:2 cannot' comm --router softmax --experts 8 --top-k 2 --skew hot:2
refused 'hot:2 cannot' route --router softmax --experts 8 --top-k 2 --skew hot:2
refused 'equal groups' comm --router sigmoid-group:3:2 --experts 8 --top-k 2

rule="--capacity-rule plain --capacity-factor 1"
for command in comm route; do
    refused "did you mean megatron?" $command --capacity-rule megatrn
    refused "did you mean random?" $command $rule --drop randm
    refused "did you mean next?" $command $rule --overflow nxt
    refused "did you mean deepep" $command --style deepe
    refused "'nan' is not" $command --capacity-rule plain --capacity-factor nan
    refused '--capacity-factor is needed' $command --capacity-rule megatron --experts 8 --top-k 2
    refused 'more than 0 is expected' $command --capacity-rule plain --capacity-factor 0 --experts 8 --top-k 2
    refused '-1 is no factor of plain' $command --capacity-rule plain --capacity-factor=-1 --experts 8 --top-k 2
    refused 'there are experts 0 to 7' $command $rule --overflow expert:8 --experts 8 --top-k 2
    refused '--drop needs a capacity' $command --drop order --experts 8 --top-k 2
    refused '--overflow needs a capacity' $command --overflow next --experts 8 --top-k 2
    refused '--capacity-factor needs a --capacity-rule' $command --capacity-factor 2 --experts 8 --top-k 2
    refused 'exclude each other' $command $rule --capacity 5 --experts 8 --top-k 2
    refused 'rows is more than 2147483647' $command --capacity-rule plain --capacity-factor 1e12 --experts 8 --top-k 2
    refused 'top-2 only, not top-1' $command --capacity-rule gshard --experts 8 --top-k 1
    refused 'nothing overflows where nothing is dropped' $command $rule --drop none --overflow next --experts 8 --top-k 2
    refused 'megatron has no evaluation fraction' $command --capacity-rule megatron --capacity-factor 1 \
        --capacity-eval 0.5 --experts 8 --top-k 2
done
# 4096 experts x 4096 ranks x 2^31 - 1 rows of 14336 bytes: more than an int64 holds
refused 'bytes exceed 2^62 bytes' route --experts 4096 --ranks 4096 --tokens 1 --top-k 1 \
    --capacity 2147483647 --drop order --pad
refused 'none of these transports has slots to pad' comm $rule --pad --transport alltoallv
refused 'bounds the rows of all ranks together' comm -n 1 --capacity-rule fastmoe --top-k 1 --pad --transport alltoall
echo "capacity: all forms as documented"
