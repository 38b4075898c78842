# SPDX-License-Identifier: Apache-2.0
# epbench comm and run as users call them: the exact form, records, bad input, crash and resume.
cd "$EPBENCH_TEST_DIR"
dir=cli_comm.d
rm -rf "$dir"
mkdir "$dir"
cd "$dir"
fail() { echo "cli_comm: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }
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

# The exact form, shortened by --iters.
ranks 2 comm --experts 16 --top-k 2,4 --tokens 512,2048 --hidden 1024 --dtype bf16 \
    --skew uniform,zipf:1.0,hot:4 --transport alltoallv,alltoallv-dedup --seed 7 --iters 3 \
    --visits 1 -o run >out 2>err || fail "the exact form failed"
# 2 top-k x 2 tokens x 3 skews x 2 transports x 2 operations
[ "$(wc -l <run/records.jsonl)" = 48 ] || fail "expected 48 records"
grep -q '"verified":true' run/records.jsonl || fail "nothing was verified"
grep -q '"verified":false' run/records.jsonl && fail "a record is wrong"
[ -s run/run.json ] && [ -s run/topology.xml ] || fail "run.json or topology.xml is missing"
[ "$(ls run/traffic | wc -l)" = 12 ] || fail "expected 12 routings"

# The same seed gives the same routing on another number of ranks' list, and in another order.
ranks 3 comm --experts 16 --top-k 4,2 --tokens 512 --hidden 1024 --skew hot:4,uniform --ranks 2 \
    --seed 7 --iters 3 --visits 1 --op dispatch -o other >out 2>err || fail "three ranks failed"
ids() { grep '"tokens":512' "$1/records.jsonl" | grep "\"skew\":\"$2\"" | grep "\"top_k\":$3" |
        grep -o '"routing_id":"[0-9a-f]*"' | sort -u; }
[ "$(ids run uniform 2)" = "$(ids other uniform 2)" ] || fail "routing depends on the sweep"
[ "$(ids run hot:4 4)" = "$(ids other hot:4 4)" ] || fail "routing depends on the sweep"

# Appending, unequal tokens, padding, streams, forced algorithms, five ranks.
ranks 5 comm --experts 7 --top-k 7 --tokens-per-rank 0,9,0,30,1 --hidden 3 --dtype fp8,fp32 \
    --transport alltoall,alltoallv,alltoallv-dedup,null --algorithm linear,pairwise \
    --iters 3 --visits 2 --cadence stream -o five >out 2>err || fail "five ranks failed"
grep -q '"verified":false' five/records.jsonl && fail "a record is wrong on five ranks"
before=$(wc -l <five/records.jsonl)
printf '{"schema":1,"half' >>five/records.jsonl # a crash in the middle of a record
ranks 5 comm --experts 5 --tokens 4 --hidden 8 --iters 3 --visits 1 --append five >out 2>err ||
    fail "append failed"
[ "$(wc -l <five/records.jsonl)" = $((before + 2)) ] || fail "append lost or kept a bad line"

# Cold buffers: first touching what empties the caches is warm-up, no page fault of the samples.
ranks 2 comm --tokens 4 --hidden 8 --cold --iters 3 --visits 1 -o cold >out 2>err || fail "cold failed"
[ "$(grep -c '"buffers":"cold"' cold/records.jsonl)" = 2 ] || fail "buffers are not cold"
grep -o '"page_faults":[0-9]*' cold/records.jsonl | cut -d: -f2 | while read -r faults; do
    [ "$faults" -lt 1000 ] || fail "$faults page faults counted as the samples'"
done

# Padding crosses, but carries no token: 1 token to 1 of 2 experts in slots for 8 rows.
ranks 2 comm --experts 2 --top-k 1 --tokens-per-rank 0,1 --hidden 8 --skew hot:1 --capacity 8 \
    --transport alltoall --op dispatch --iters 3 --visits 1 -o padded >out 2>err || fail "padding failed"
bandwidth() { grep -o "\"$1\":[0-9.e+-]*" padded/records.jsonl | cut -d: -f2; }
# physical: 8 rows; logical: 1 row, the token's
awk -v physical="$(bandwidth bw_bytes_per_s)" -v logical="$(bandwidth bw_logical_bytes_per_s)" \
    'BEGIN { exit !(physical / logical > 7.99 && physical / logical < 8.01) }' ||
    fail "logical bandwidth counts padding"
# On one node nothing crosses what hier exchanges over: no bandwidth, rather than rows over the time of a call.
ranks 2 comm --tokens 4 --hidden 8 --transport hier,alltoallv --iters 3 --visits 1 -o near >out 2>err || fail "hier failed"
[ "$(grep '"transport":"hier"' near/records.jsonl | grep -c '"bw_bytes_per_s":null.*"bw_logical_bytes_per_s":null')" = 2 ] ||
    fail "hier has a bandwidth on one node"
grep '"transport":"alltoallv"' near/records.jsonl | grep -q '"bw_logical_bytes_per_s":null' && fail "alltoallv has one"

# Without a launcher it starts one itself.
env -u EPBENCH_LAUNCHER "$EPBENCH" comm -n 2 --tokens 8 --iters 3 --visits 1 >out 2>err ||
    fail "self-launch failed"
grep -q '^alltoallv' out || fail "no table"

# Launch after launch into one directory, whatever the options end with.
"$EPBENCH" comm -n 1 --tokens 8 --iters 3 --visits 1 --launches 2 -o launches -- >out 2>err ||
    fail "--launches failed"
[ "$(grep -c '"launch_idx":1' launches/records.jsonl)" = 2 ] || fail "no second launch"

# Sizes of the bare loop that do not fit are left out by name, and what follows goes on.
ranks 2 comm --tokens 8 --hidden 8 --iters 3 --visits 1 --bare 1ms --memory 1M >out 2>err ||
    fail "--bare with little memory failed"
grep -q '^skipped: bare: 16.00 MiB per pair: .*--memory' err || fail "nothing says what was left out"
grep -q '^alltoallv' out || fail "the sweep after the bare loop is missing"

refused 2 'did you mean --tokens' comm --tokns 5
refused 2 'not a whole number' comm --tokens 5x
refused 2 'has no unit' comm --case-time 5
refused 2 'leaves no time between' comm --cold --cadence stream
refused 2 'top-k may be 1 to 8' comm --experts 8 --top-k 9
refused 2 "did you mean 'uniform'" comm --skew unifrom
refused 2 'did you mean alltoall' comm --transport altoall
refused 2 'contradicts trace:sample' comm --experts 16 --skew trace:sample
refused 2 'cannot be opened' comm --skew trace:/nonexistent.csv
refused 2 'exists already; name a new directory, or add to this one by --append' comm -n 1 -o run
refused 3 'cannot be created' comm -n 1 -o /proc/nowhere
refused 2 'no rank has a token' comm -n 2 --tokens-per-rank 0,0 -o a
refused 2 'only 2 were started' comm -n 2 --ranks 3 -o a
refused 2 'only one of them' comm -o a --append b
refused 2 'no run.json\|cannot be opened' comm -n 1 --append nowhere
refused 3 'cannot be started' comm --launcher /nonexistent/mpirun
refused 2 'needs a directory' comm --launches 2
refused 2 'unknown option -x' comm -x
refused 2 "'foo' is not understood" comm --tokens 5 foo
refused 2 "'foo' is not default" comm --algorithm linear,foo -o a
refused 2 'is empty' comm -n 1 -o ''
for option in --skew --transport --launcher -o; do
    refused 2 "^epbench comm: $option: byte 2 of its value (0xff) is not UTF-8" comm -n 1 $option "$(printf 'a\377')"
done
[ ! -e a ] && [ ! -e b ] && [ ! -e nowhere ] || fail "a refused command wrote something"
printf 'token,e0\n0,99999999\n' >bad.csv
refused 2 'bad.csv:2' comm --skew trace:bad.csv
printf 'token,e0,w0\n0,1,nan\n' >bad.csv
refused 2 'bad.csv:2' comm --skew trace:bad.csv
: >bad.csv
refused 2 "pairwise does not use it" comm --transport pairwise --algorithm linear
refused 2 "'pul' is not default, linear or pairwise (of MPI), nor pull" comm --transport shm --algorithm pul
refused 2 'bad.csv: is empty' comm --skew trace:bad.csv

# One bad option on many ranks: every rank ends, none hangs.
status=0
timeout 60 $EPBENCH_LAUNCHER -n 3 "$EPBENCH" comm --skew hot:x >out 2>err || status=$?
[ $status = 2 ] || fail "a bad skew on three ranks gave $status"

# Transports in turns beside bounds: a record of each, bounds among them, and what it came to.
ranks 2 comm --model mixtral-8x7b --hidden 64 --tokens 4,9 --transport shm,alltoallv --limits --visits 2 \
    --case-time 0.2s -o limits >out 2>err || fail "limits failed"
# 2 points x 2 visits x (2 transports x 2 operations + 2 copies + 1 sum)
[ "$(wc -l <limits/records.jsonl)" = 28 ] || fail "expected 28 records of limits"
[ "$(grep -c '"verified":true' limits/records.jsonl)" = 16 ] || fail "not all of limits was verified"
grep '"transport":"shm"' limits/records.jsonl | grep '"op":"combine"' | head -n 1 |
    grep -q '"bound_s":[0-9.e-]*,"bound_name":"bound-sum"' || fail "a record has no bound"
grep -q '^shm dispatch over alltoallv: geometric mean [0-9.]* (asked 4.0: ' out || fail "no verdict"
"$EPBENCH" fit limits >out 2>err || fail "fit does not take a run with limits"
grep -q 'bound-' out && fail "fit fits bounds"
for bad in "--cold" "--algorithm linear" "--iters 3"; do
    status=0
    # shellcheck disable=SC2086
    "$EPBENCH" comm -n 2 --limits $bad -o refused >out 2>err || status=$?
    [ $status = 2 ] && grep -q -- "--limits with $bad" err || fail "--limits $bad gave $status"
done
refused 2 '--cadence stream asks for none' comm -n 2 --limits --cadence stream -o refused
[ ! -e refused ] || fail "refused limits wrote something"

# A transport that takes no algorithm is one case of a list of them; rows that differ can be told apart; a row
# holds 64 visits, and says so; small buffers in shared memory are used, smaller ones leave the case out.
ranks 2 comm --tokens 2 --hidden 8,16 --ranks 1,2 --transport alltoallv,null --algorithm linear,pairwise --op dispatch \
    --iters 1 --visits 1 --case-time 1ms -o told >out 2>err || fail "a list of algorithms failed"
[ "$(wc -l <told/records.jsonl)" = 12 ] || fail "expected (2 + 1) transports x 2 widths x 2 ranks"
grep -q '^transport .* ranks  *hidden  *max/mean' out || fail "no columns for ranks and hidden"
[ "$(grep '^null ' out | awk '{print $4, $5}' | sort -u | wc -l)" = 4 ] || fail "rows of null are alike"
ranks 1 comm --tokens 2 --hidden 8 --op dispatch --iters 1 --visits 66 --case-time 1ms >out 2>err || fail "66 visits failed"
grep -q '^times: of the first 64 visits of a case, 2 more' out || fail "64 of 66 visits are not told"
ranks 2 comm --tokens 2 --hidden 8 --experts 4 --transport shm --memory 64K --iters 1 --visits 1 -o little >out 2>err ||
    fail "64 KiB of shared memory failed"
[ "$(grep -c '"verified":true' little/records.jsonl)" = 2 ] || fail "64 KiB of shared memory do not do"
id=$(sed -n '1s/.*"record_id":"\([^"]*\)".*/\1/p' little/records.jsonl)
ranks 2 run --append little --repeat "$id" >out 2>err || fail "--repeat of shm failed"
[ "$(wc -l <little/records.jsonl)" -gt 2 ] || fail "--repeat of shm measured nothing"
ranks 2 comm --tokens 2 --hidden 8 --experts 4 --transport shm --memory 1 --iters 1 --visits 1 >out 2>err ||
    fail "1 byte of shared memory failed"
grep -q 'skipped: no-memory: shm' err || fail "1 byte of shared memory is not told"

status=0
"$EPBENCH" comm -n 1 --link-rate 400 --tokens 8 >out 2>err || status=$?
[ $status = 2 ] && grep -q -- '--link-rate: 400 has no unit' err || fail "--link-rate 400 gave $status"
status=0
"$EPBENCH" comm -n 1 --uplinks 1GB/s:a --tokens 8 >out 2>err || status=$?
[ $status = 2 ] && grep -q -- '--uplinks: needs --link-rate' err || fail "--uplinks alone gave $status"
status=0
EPBENCH_UPLINKS=1GB/s "$EPBENCH" comm -n 1 --link-rate 1GB/s --tokens 8 >out 2>err || status=$?
[ $status = 2 ] && grep -q "EPBENCH_UPLINKS: '1GB/s' is not RATE:HOST,HOST" err || fail "EPBENCH_UPLINKS gave $status"

# Ranks that were started with other options are told which.
status=0
timeout 60 $EPBENCH_LAUNCHER -n 1 "$EPBENCH" comm --tokens 8 -o apart : -n 1 "$EPBENCH" comm --tokens 16 -o apart \
    >out 2>err || status=$?
[ $status = 2 ] || fail "ranks that disagree gave $status"
grep -q "rank 1 was started with '--tokens 16' where rank 0 has '--tokens 8'" err ||
    fail "the difference is not named"
[ ! -e apart ] || fail "ranks that disagree wrote something"

# A signal ends the sweep after the visit in flight: exit status 1, and how far it came.
"$EPBENCH" comm -n 2 --tokens 64,128 --hidden 8 --case-time 0.5s --visits 50 --op dispatch \
    -o stopped >out 2>err &
job=$!
for i in $(seq 100); do
    [ -s stopped/records.jsonl ] && break
    sleep 0.1
done
kill -INT $job
status=0
wait $job || status=$?
[ $status = 1 ] || fail "a stopped sweep gave $status"
done=$(wc -l <stopped/records.jsonl)
# (Open MPI 5 forwards nothing more once it was interrupted itself.)
mpirun --version | grep -q ' 5\.' ||
    grep -q "^epbench comm: stopped by a signal: $done of 100 visits were measured" err ||
    fail "nothing says that $done of 100 visits were measured"
grep -q "$((100 - done)) of 100 visits of comm are left out" stopped/run.json ||
    fail "run.json does not say what was left out"

# Visits that are added to a case are numbered on.
numbers() { grep -o '"visit_idx":[0-9]*' "$1/records.jsonl" | sort | uniq -c | tr -s ' ' | tr '\n' ';'; }
"$EPBENCH" comm -n 1 --tokens 8 --iters 3 --visits 2 --op dispatch -o added >out 2>err || fail "no run"
"$EPBENCH" comm -n 1 --tokens 8 --iters 3 --visits 1 --op dispatch --append added >out 2>err ||
    fail "append failed"
[ "$(numbers added)" = ' 1 "visit_idx":0; 1 "visit_idx":1; 1 "visit_idx":2;' ] ||
    fail "visits are not numbered on: $(numbers added)"

# A killed rank ends the job, and what was recorded stays readable.
mpirun -n 2 --oversubscribe --mca mpi_yield_when_idle 1 --bind-to none \
    sh -c '[ "$OMPI_COMM_WORLD_RANK" = 1 ] && echo $$ >victim; exec "$0" "$@"' "$EPBENCH" comm \
    --tokens 64,128,256 --skew uniform,zipf:1.0 --case-time 1s --visits 20 -o killed >out 2>err &
job=$!
for i in $(seq 100); do
    [ "$(wc -l <killed/records.jsonl 2>/dev/null || echo 0)" -ge 2 ] && break
    sleep 0.1
done
kill -KILL "$(cat victim)"
status=0
wait $job || status=$?
[ $status != 0 ] || fail "the job with a killed rank ended well"
"$EPBENCH" fit killed >out 2>err || fail "what a killed job recorded is not readable"
