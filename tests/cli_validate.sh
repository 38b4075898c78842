#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench validate: planted laws and other runs, as tables and as JSON; bad input.
cd "$EPBENCH_TEST_DIR/cli_validate"
make_run=$(dirname "$EPBENCH")/tests/make_planted_run

fails() { # EXIT-STATUS TEXT COMMAND...
    want=$1 text=$2
    shift 2
    status=0
    "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    grep -qF -- "$text" err || { echo "$*: no '$text' in:"; cat err; exit 1; }
}

"$EPBENCH" validate --planted --rungs M0,M2 --seeds 3 --json p.json >p.txt || [ $? = 1 ]
grep -q '^M2 *M1 ' p.txt
! grep -q '^M3' p.txt
for key in rung machine seeds noise outliers right simpler_p95_ape coverage half_width; do
    grep -q "\"$key\":" p.json || { echo "no key $key"; exit 1; }
done

# One law, two seeds: what one run taught holds for the other; the noise floor is beside it.
"$make_run" old noise=0.02
"$make_run" new noise=0.02 seed=2
"$EPBENCH" validate --held-out new old >h.txt
grep -q '^dispatch alltoallv pairwise  *M2  *36 ' h.txt
"$EPBENCH" validate --held-out new old --json - >h.json
python3 - <<'EOF' 2>/dev/null || [ $? = 127 ]
import json
rows = json.load(open("h.json"))
assert len(rows) == 8
for r in rows:
    assert r["rung"] in ("M2", "M3") and r["median_ape"] < 0.04 and r["coverage"] > 0.8, r
EOF

"$EPBENCH" validate --ping-pong --json pp.json >pp.txt
[ "$(grep -c ': ok$' pp.txt)" = 2 ]
for key in held_out_error split_half change_bytes pieces; do
    grep -q "\"$key\":" pp.json || { echo "no key $key"; exit 1; }
done

# A row per row of the shipped table, then those held out and those derived; figures, all reached.
"$EPBENCH" validate --published --json pub.json >pub.txt
[ "$(grep -c ': ok$' pub.txt)" = 3 ]
! grep -q MISSED pub.txt
"$EPBENCH" validate --published --json - >pub2.json
cmp pub.json pub2.json
python3 - <<'EOF' 2>/dev/null || [ $? = 127 ]
import json
rows = json.load(open("pub.json"))
v1 = [r for r in rows if r["set"] == "deepep_v1_ht"]
assert len(rows) == 220 + 4 + 4 and len(v1) == 8
for r in rows:
    assert (r["predicted_s"] is None) == (r["withheld"] is not None), r
    assert r["published_s"] is None or r["byte_basis"], r
for r in v1:
    assert abs(r["error"]) <= 0.07 and r["reached"] and r["fit"].startswith("in-sample"), r
    assert r["bw_remote_bytes_per_s"] < r["bw_logical_bytes_per_s"]
    if r["nodes"] > 1: # printed = N / (N - 1) x real
        ratio = r["bw_logical_bytes_per_s"] / r["bw_remote_bytes_per_s"]
        assert abs(ratio - r["nodes"] / (r["nodes"] - 1)) < 1e-6, r
assert [r["binding_level"] for r in v1] == 4 * ["nvlink"] + 4 * ["rdma"]
EOF

# Pieces of this machine's own ping-pongs.
"$EPBENCH" links -n 2 --factor 1.5 --end 128K --visits 1 --case-time 1ms --pairs 1 -o links >/dev/null 2>&1
"$EPBENCH" validate --pieces links --json pieces.json >pieces.txt
grep -q '^links .* 8 ' pieces.txt
for key in level held_out_error limits_error latency_s end_bytes; do
    grep -q "\"$key\":" pieces.json || { echo "no key $key"; exit 1; }
done
"$EPBENCH" links -n 2 --factor 8 --end 64K --visits 1 --case-time 1ms --pairs 1 -o few >/dev/null 2>&1
fails 2 "sizes: expected at least 20" "$EPBENCH" validate --pieces few
fails 2 "the runs are missing" "$EPBENCH" validate --pieces

fails 2 "nothing to validate" "$EPBENCH" validate
fails 2 "'old': none of the validations" "$EPBENCH" validate --published old
fails 2 "the runs to fit are missing" "$EPBENCH" validate --held-out new
fails 2 "'M9' is no rung" "$EPBENCH" validate --planted --rungs M9
fails 2 "--seeds" "$EPBENCH" validate --planted --seeds 0
fails 2 "nowhere" "$EPBENCH" validate --held-out nowhere old
fails 2 "--plantd" "$EPBENCH" validate --plantd
