# SPDX-License-Identifier: Apache-2.0
# comm --buffers: what static and dynamic buffers of rows take, by hand-worked sizes, and who cannot have them.
cd "$EPBENCH_TEST_DIR"
rm -rf cli_buffers.d && mkdir cli_buffers.d && cd cli_buffers.d
fail() { echo "cli_buffers: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    status=0
    "$EPBENCH" "$@" >out 2>err || status=$?
    [ $status = 2 ] || fail "$*: exit $status, 2 expected"
    grep -qF -- "$text" err || fail "'$text' is not in the message of $*"
}
ranks() { # N COMMAND...
    n=$1
    shift
    $EPBENCH_LAUNCHER -n "$n" "$EPBENCH" "$@"
}
# DIR TRANSPORT POLICY KEY: of its dispatch
key() {
    grep "\"transport\":\"$2\"" "$1/records.jsonl" | grep '"op":"dispatch"' | grep "\"buffer_policy\":\"$3\"" |
        grep -o "\"$4\":[^,}]*" | cut -d: -f2- | sort -u
}
is() { # DIR TRANSPORT POLICY KEY VALUE
    [ "$(key "$1" "$2" "$3" "$4")" = "$5" ] || fail "$1 $2 $3: $4 is $(key "$1" "$2" "$3" "$4"), $5 expected"
}
quick="--iters 3 --visits 1 --hidden 16 --dtype fp32 --experts 4 --top-k 2 --tokens 64 --skew khot:1:0.5"

# 2 ranks x 64 tokens, top-2 of 4 experts, 2 on each rank, rows of 64 bytes. A rank sends 128 rows, and receives at
# most 128 tokens x 2: alltoallv (128 + 256 + 256 + 256) x 64; dedup's rows on the way are 128 and 128, a token once
# per rank; a slot of alltoall holds 64 tokens at most, and each side has 4 of them: 256 and 256.
ranks 2 comm $quick --transport alltoallv,pairwise,alltoallv-dedup,alltoall --buffers exact,static,dynamic -o worst \
    >out 2>err || fail "buffers"
for t in alltoallv pairwise; do
    is worst $t static buffer_peak_bytes 57344
done
is worst alltoallv-dedup static buffer_peak_bytes 49152
is worst alltoall static buffer_peak_bytes 65536
for t in alltoallv pairwise alltoallv-dedup alltoall; do
    is worst $t static buffer_sized_by '"worst case"'
    is worst $t dynamic buffer_sized_by '"counts"'
    for policy in exact dynamic; do
        is worst $t $policy buffer_waste_bytes 0
        [ "$(key worst $t $policy buffer_peak_bytes)" = "$(key worst $t static buffer_used_bytes)" ] ||
            fail "$t: $policy takes other bytes than static uses"
    done
    for policy in static dynamic; do
        key worst $t $policy buffer_alloc_s | grep -q '[1-9]' || fail "$t: $policy was allocated in no time"
    done
    [ "$(key worst $t exact buffer_alloc_s)" = null ] || fail "$t: exact has an allocation"
done
grep -q '"verified":false' worst/records.jsonl && fail "a result is wrong"
[ "$(grep -c '"verified":true' worst/records.jsonl)" = 24 ] || fail "not all of 24 are verified"
awk '$1 == "alltoallv" && $5 == "static" && $6 == "56.00" { found = 1 } END { exit !found }' out ||
    fail "the table does not say what static buffers take"

# An expert takes 64 / 4 = 16 rows of each source, so that a rank sends 4 x 16 rows at most, and receives 2 x 2 x 16.
ranks 2 comm $quick --transport alltoallv,rma,shm --buffers static --capacity-rule plain --capacity-factor 1 \
    --drop order -o capacity >out 2>err || fail "capacity"
for t in alltoallv rma shm; do
    is capacity $t static buffer_sized_by '"capacity"'
done
is capacity alltoallv static buffer_peak_bytes 16384
is capacity rma static buffer_peak_bytes 12288
is capacity shm static buffer_peak_bytes 8192

# A rank without tokens, more ranks, thp; and a record measured again.
ranks 3 comm --iters 3 --visits 1 --hidden 16 --experts 6 --top-k 2 --tokens-per-rank 5,0,9 --pages thp \
    --transport alltoallv,alltoallv-dedup,alltoall --buffers static,dynamic -o odd >out 2>err || fail "odd ranks"
[ "$(grep -c '"verified":true' odd/records.jsonl)" = 12 ] || fail "odd: not all are verified"
id=$(grep '"buffer_policy":"dynamic"' worst/records.jsonl | head -1 | grep -o '"record_id":"[^"]*"' | cut -d'"' -f4)
"$EPBENCH" run -n 2 --repeat "$id" --append worst >out 2>err || fail "repeat"
tail -1 worst/records.jsonl | grep -q '"buffer_policy":"dynamic"' || fail "another policy was repeated"

refused "'some' is not exact, static or dynamic" comm --buffers some
refused 'the buffers of shm are windows' comm --buffers dynamic --transport shm
refused 'the buffers of hier follow the tokens alone' comm --buffers static --transport hier
refused '--limits with --buffers static' comm --buffers static --limits
refused 'it is for epbench comm' layer --buffers static
