# SPDX-License-Identifier: Apache-2.0
# The transports in simulated time on a fat tree: their bytes against the time of the busiest port.
root=$PWD
export EPBENCH_SIMULATED=${EPBENCH%/*}/simulated/epbench
command -v smpirun >/dev/null ||
    { echo "smpirun is missing (Debian package libsimgrid-dev): nothing is simulated"; exit 77; }
[ -x "$EPBENCH_SIMULATED" ] || { echo "$EPBENCH_SIMULATED is not there (make simulated)"; exit 77; }
cd "$EPBENCH_TEST_DIR"
dir=cli_simulated.d
rm -rf "$dir"
mkdir "$dir"
cd "$dir"
fail() { echo "cli_simulated: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }
simulate() { "$root/scripts/simulate" "$@" >out 2>err; }
refused() { # STATUS TEXT ARGUMENTS...
    expected=$1 text=$2
    shift 2
    status=0
    timeout 60 "$root/scripts/simulate" "$@" >out 2>err || status=$?
    [ $status = "$expected" ] || fail "$* gave $status, expected $expected"
    grep -q -- "$text" err || fail "$* does not say '$text'"
}
# One line a record: transport, algorithm, seconds of the exchange, of the busiest port, of the schedule at 12.5 GB/s
exchanges() {
    sed 's/.*"bound_s":\([^,]*\),.*"transport":"\([^"]*\)","algorithm":"\([^"]*\)",.*"name":"exchange","median_s":\([^,]*\),.*"schedule_bytes":\([0-9]*\),.*/\2 \3 \4 \1 \5/' \
        "$1/records.jsonl" | awk '{ print $1, $2, $3, $4, $5 / 12.5e9 }'
}
shape="--experts 64 --top-k 8 --hidden 512 --tokens 64,512 --skew uniform,zipf:0.9,hot:4 --op dispatch --visits 1"

# 16 ranks below two leaf switches, two links up from each, so that D-mod-k decides which messages share one. All
# flows at once take as long as the busiest port, and the latency of a route of two or four links of 1 us; a rounding
# of the simulator's, 1 ns, beside.
# shellcheck disable=SC2086
simulate 16 2 linear -- comm $shape --transport alltoallv -o run || fail "linear failed"
[ "$(wc -l <run/records.jsonl)" = 6 ] || fail "expected 6 records"
exchanges run | awk '{ late = $3 - $4; bad += !(late > 2e-6 && late < 4.2e-6); n++ } END { exit bad || n != 6 }' ||
    fail "linear exchanges are not those of the busiest port: $(exchanges run)"

# Pairwise, MPI's and ours: not before their schedule is through, with at most a handshake and a message of 4 us each
# in each of 15 steps.
# shellcheck disable=SC2086
simulate 16 2 pairwise -- comm $shape --transport alltoallv,pairwise --append run || fail "pairwise failed"
exchanges run | awk '$1 == "pairwise" || $2 == "pairwise" { late = $3 - $5; bad += !(late > 0 && late < 15 * 8e-6); n++ }
    END { exit bad || n != 12 }' || fail "pairwise exchanges leave their schedule: $(exchanges run)"
[ "$(grep -c '"verified":true' run/records.jsonl)" = 18 ] || fail "not all is verified"
grep -q '"name":"smpi/alltoallv","text":"ring"' run/records.jsonl || fail "the algorithm is not in the record"
grep -q '"machine": "SimGrid .*fat-tree-16-up2.xml"' run/run.json || fail "the platform is not in run.json"
grep -q '"name": "simulated"' run/run.json || fail "run.json does not warn that times are simulated"
grep -q '"context_switches":null' run/records.jsonl || fail "the system's counters of a simulation are not null"
"$EPBENCH" fit run >out 2>err || fail "fit cannot read the run"

# Four ranks a host share its link: the busiest NIC, of flat and of hierarchical transports.
# shellcheck disable=SC2086
simulate --per-host 4 32 8 linear -- comm $shape --transport alltoallv,hier,hier2d -o nodes || fail "nodes failed"
exchanges nodes | awk '{ late = $3 - $4; bad += !(late > 2e-6 && late < 4.2e-6); n++ } END { exit bad || n != 18 }' ||
    fail "exchanges between nodes are not those of the busiest NIC: $(exchanges nodes)"
[ "$(grep -c '"verified":true' nodes/records.jsonl)" = 18 ] || fail "not all between nodes is verified"

# Again is the same to the last bit. Without checks payloads are folded, which changes no time.
# shellcheck disable=SC2086
simulate 16 2 linear -- comm $shape --transport alltoallv --check 0 --memory 4G -o again || fail "again failed"
samples() { grep '"algorithm":"linear"' "$1/records.jsonl" | grep -o '"case":"[^"]*"\|"samples_s":[^]]*' | paste - - | sort; }
[ "$(samples run)" = "$(samples again)" ] || fail "a second run has other times"
grep -q '"verified":true' again/records.jsonl && fail "verified without a check"

# The fit finds the port that binds, on skews and on ranks that it has not seen; the figures are asked for.
simulate 24 2 linear -- comm --ranks 16,24 --experts 64 --top-k 8 --hidden 512 --tokens 8,64,512 --visits 1 \
    --skew uniform,zipf:0.6,zipf:1.2,hot:2,hot:4@15,khot:2:0.5 --transport alltoallv --op dispatch -o sweep ||
    fail "the sweep failed"
"$EPBENCH" validate --simulated sweep --json - >out 2>err || fail "the fit misses the figures on a simulated tree"
grep -q '"rung": "M4"' out || fail "M4 is not chosen"
grep -q '"extrapolated_median_ape"' out || fail "nothing is extrapolated"
validation_refused() { # TEXT ARGUMENTS...
    text=$1
    shift
    status=0
    "$EPBENCH" validate --simulated "$@" >out 2>err || status=$?
    [ $status = 2 ] && grep -q -- "$text" err || fail "validate --simulated $* gave $status: $text"
}
validation_refused 'simulate-figures are missing'
sed -i 's/"machine": "SimGrid/"machine": "no SimGrid/' sweep/run.json
validation_refused 'measured on no SimGrid' sweep
validation_refused 'nosuch' nosuch

refused 3 'was not started with it' 16 2 linear -- comm --tokens 8 --algorithm pairwise
refused 2 'unknown option --nosuch' 16 2 linear -- comm --nosuch
refused 2 'multiple of 32' --per-host 4 16 2 linear -- comm
refused 2 'multiple of 8' 12 2 linear -- comm
refused 2 '1 to 8 are expected' 16 9 linear -- comm
refused 2 'not linear or pairwise' 16 2 bruck -- comm
refused 2 'are expected' 16 2 linear
refused 2 "is not a rate" --rate 12 16 2 linear -- comm
EPBENCH_SIMULATED=nosuch refused 3 'make simulated' 16 2 linear -- comm
