# SPDX-License-Identifier: Apache-2.0
# A rank killed at any moment of epbench run: the job ends with that rank named, what was recorded stays
# readable, and --resume measures the rest and nothing twice.
cd "$EPBENCH_TEST_DIR"
rm -rf cli_kill.d
mkdir cli_kill.d
cd cli_kill.d
fail() { echo "cli_kill: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }

# Each rank leaves its process id, then becomes epbench.
cat >ranks.sh <<'END'
echo $$ >"pid.$OMPI_COMM_WORLD_RANK.tmp" && mv "pid.$OMPI_COMM_WORLD_RANK.tmp" "pid.$OMPI_COMM_WORLD_RANK"
exec "$@"
END
cat >launch.sh <<END
shift
n=\$1
shift
exec $EPBENCH_LAUNCHER -n "\$n" sh ranks.sh "\$@"
END
run() { "$EPBENCH" run --memory 20M --profile smoke "$@"; }
visits() { # case, launch and number of each visit; links and kernels take as many as their time allows
    grep '"kind":"comm"' "$1/records.jsonl" |
        sed 's/.*"case":"\([^"]*\)".*"launch_idx":\([0-9]*\).*"visit_idx":\([0-9]*\).*/\1 \2 \3/' |
        sort
}

run -n 2 -o whole >out 2>err || fail "the run that nobody disturbs failed"
visits whole >asked
[ -s asked ] || fail "a run without visits"
grep -q over-budget whole/run.json && : >asked # nothing to compare with

# $1: tenths of a second to wait, $2: the rank to kill
kill_once() {
    rm -rf pid.0 pid.1 killed
    status=0
    EPBENCH_LAUNCHER="sh launch.sh" run -n 2 -o killed >out 2>err &
    job=$!
    for i in $(seq 300); do
        [ -s pid.0 ] && [ -s pid.1 ] && [ -e killed/run.json ] && break
        sleep 0.1
    done
    sleep "$(($1 / 10)).$(($1 % 10))"
    kill -KILL "$(cat "pid.$2")" 2>/dev/null || { # it was faster
        wait $job || fail "a run that nobody killed failed"
        return 0
    }
    for i in $(seq 200); do # far more than the 10 s that users are promised: the machine may be busy
        kill -0 $job 2>/dev/null || break
        sleep 0.1
    done
    kill -0 $job 2>/dev/null && fail "20 s after rank $2 was killed the job still runs"
    wait $job || status=$?
    [ $status != 0 ] || fail "a job whose rank $2 was killed ended well"
    grep -q "rank $2 .*signal 9" err || grep -q "rank $2 .*signal 9" out || fail "rank $2 is not named"
    "$EPBENCH" run --resume killed -n 2 >out 2>err || fail "resume failed (rank $2 killed at $1/10 s)"
    [ -z "$(visits killed | uniq -d)" ] || fail "a visit twice: $(visits killed | uniq -d)"
    visits killed >got
    if [ -s asked ] && ! grep -q over-budget killed/run.json; then # a machine so busy that even these took too long
        cmp -s got asked || fail "resumed visits differ: $(diff asked got | head -n 5)"
    fi
    [ -s killed/report.html ] || fail "the resumed run has no report"
}

# Three moments of the whole run, which lasts some 6 s; other ones each time.
seed=$(date +%s)
for i in 0 1 2; do
    tenths=$(((seed / 7 + i * 17 + seed % 17) % 50))
    echo "rank $((i % 2)) killed after $tenths/10 s"
    kill_once "$tenths" $((i % 2))
done
