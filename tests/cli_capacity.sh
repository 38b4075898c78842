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
ranks 2 comm --style deepep --experts 8 --top-k 2 --tokens 8 $quick -o deepep >out 2>err || fail "deepep failed"
[ "$(key deepep transport)" = '"alltoallv-dedup"' ] || fail "deepep's nearest transport"
has err 'this program lacks it and uses alltoallv-dedup'
has deepep/run.json 'style-transport'
ranks 2 comm --style deepspeed --experts 8 --top-k 2 --tokens 8 $quick -o style >out 2>err || fail "deepspeed failed"
[ "$(key style transport) $(key style drop) $(key style capacity)" = '"alltoall" "choice" 4' ] || fail "deepspeed"
has err 'beyond: '
ranks 2 comm --style megatron --experts 8 --top-k 2 --tokens 8 $quick -o dropless >out 2>err || fail "megatron failed"
[ "$(key dropless capacity_rule)" = null ] || fail "megatron without a factor is dropless"

rule="--capacity-rule plain --capacity-factor 1"
for command in comm; do
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
refused 'only alltoall pads' comm $rule --pad --transport alltoallv
refused 'bounds the rows of all ranks together' comm -n 1 --capacity-rule fastmoe --top-k 1 --pad --transport alltoall
echo "capacity: all forms as documented"
