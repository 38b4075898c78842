# SPDX-License-Identifier: Apache-2.0
# epbench run from start to report, resumed and repeated.
cd "$EPBENCH_TEST_DIR"
rm -rf cli_run.d
mkdir cli_run.d
cd cli_run.d
fail() { echo "cli_run: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }

# Little memory, so that the largest sizes of the bare call are left out.
smoke() { "$EPBENCH" run --memory 20M "$@"; }

smoke --profile smoke -n 2 -o run >out 2>err || fail "the smoke profile failed"
for file in run.json records.jsonl topology.xml machine.json report.html; do
    [ -s "run/$file" ] || fail "$file is missing"
done
[ "$(ls run/plots/*.svg | wc -l)" -ge 5 ] || fail "fewer than 5 figures"
grep -q '^report: run/report.html' out || fail "the path of the report is not printed"
grep -q 'a bare\|bare call' out || fail "the comparison with a bare call is not printed"
grep -qE '^route/count/uniform +Mpairs/s +[0-9.]*[1-9]' out || fail "no rate of pairs is printed"
for kind in comm links kernels layer; do
    grep -q "\"kind\":\"$kind\"" run/records.jsonl || fail "no $kind record"
done
grep -q '"verified":false' run/records.jsonl && fail "a record is wrong"

# What was taken away is measured again, and nothing else.
comm() { grep -c '"kind":"comm"' run/records.jsonl; }
all=$(comm)
grep '"kind":"comm"' run/records.jsonl | head -n 2 >two
grep -v '"kind":"comm"' run/records.jsonl >rest
cat rest two >run/records.jsonl
smoke --resume run -n 2 >out 2>err || fail "resume failed"
[ "$(comm)" = "$all" ] || fail "resume left $(comm) of $all comm records"
[ "$(grep -o '"record_id":"[a-z0-9]*"' run/records.jsonl | sort | uniq -d | wc -l)" = 0 ] ||
    fail "a record id twice"

grep -q '^\(links\|kernels\|bare\): ' err && fail "resume took a finished stage again"

# A stage that was cut short is gone on with: what it has is not measured again.
twice() { # visits of one case under one number
    sed 's/.*"case":"\([^"]*\)".*"launch_idx":\([0-9]*\).*"visit_idx":\([0-9]*\).*/\1 \2 \3/' \
        run/records.jsonl | sort | uniq -d
}
[ -z "$(twice)" ] || fail "a visit twice: $(twice)"
grep '"kind":"links"' run/records.jsonl | head -n 3 >some
cat some >run/records.jsonl
smoke --resume run -n 2 >out 2>err || fail "resume of a cut stage failed"
for stage in links kernels bare comm layer; do
    grep -q "^$stage: [0-9]" err || fail "resume left out $stage"
done
[ -z "$(twice)" ] || fail "resume of links took a visit twice: $(twice)"
head -n 3 run/records.jsonl | cmp - some || fail "resume changed what was there"
[ "$(grep -c '"kind":"links"' run/records.jsonl)" -gt 3 ] || fail "resume measured no link"

id=$(grep '"kind":"comm"' run/records.jsonl | head -n 1 | sed 's/.*"record_id":"\([a-z0-9]*\)".*/\1/')
case=$(grep "$id" run/records.jsonl | sed 's/.*"case":"\([^"]*\)".*/\1/')
before=$(grep -cF "\"case\":\"$case\"" run/records.jsonl)
"$EPBENCH" run --repeat "$id" --append run >out 2>err || fail "repeat failed"
[ "$(grep -cF "\"case\":\"$case\"" run/records.jsonl)" = $((before + 3)) ] ||
    fail "repeat did not add three visits of the same case"

# A record of another hand may lack what is not required, or hold what cannot be.
sed 's/"pages":"[^"]*"/"pages":null/' run/records.jsonl >other
cat other >run/records.jsonl
"$EPBENCH" run --repeat "$id" --append run >out 2>err || fail "repeat without pages failed"
sed "/$id/s/\"threads\":1,/\"threads\":99999999,/" run/records.jsonl >other
cat other >run/records.jsonl
status=0
"$EPBENCH" run --repeat "$id" --append run >out 2>err || status=$?
[ $status = 2 ] && grep -q '99999999 threads' err || fail "repeat took 99999999 threads"

# The ranks of dispatch and combine, in an order.
smoke --profile smoke -n 2 --ranks 2 --rank-order spread -o parts >out 2>err ||
    fail "run --ranks failed"
comm() { grep '"kind":"comm"' parts/records.jsonl; }
[ "$(comm | grep -c '"rank_order":"spread"')" = "$(comm | wc -l)" ] || fail "the rank order is lost"
# A list of them, where links and kernels are past: each number of ranks is a case of its own.
comm | head -n 2 >one # one visit: dispatch and combine
cat one >parts/records.jsonl
sed 's/"comm_ranks": "2"/"comm_ranks": "2,3"/; s/"num_ranks": 2/"num_ranks": 3/' parts/run.json >other
cat other >parts/run.json
smoke --resume parts -n 3 >out 2>err || fail "resume on several numbers of ranks failed"
for ranks in 2 3; do
    [ "$(comm | grep -c "\"ranks\":$ranks,")" = "$(($(comm | wc -l) / 2))" ] ||
        fail "not half of the comm records are on $ranks ranks"
done
for bad in "--ranks 2,4 -n 3 -o new" "--ranks 2,x -n 3 -o new" "--rank-order round -n 3 -o new" \
    "--resume parts --ranks 2"; do
    status=0
    # shellcheck disable=SC2086
    "$EPBENCH" run --profile smoke $bad >out 2>err || status=$?
    [ $status = 2 ] && grep -q -e '--rank' err || fail "run $bad gave $status"
done
[ ! -e new ] || fail "a refused run wrote something"

for bad in "--profile fast" "--resume run -o other" "--repeat $id" "--repeat nosuch --append run"; do
    status=0
    # shellcheck disable=SC2086
    "$EPBENCH" run $bad >out 2>err || status=$?
    [ $status = 2 ] || fail "run $bad gave $status"
done
# Without gnuplot the rest goes on and says so.
mkdir path
for tool in sh mpirun orted prterun prted; do # the last two are Open MPI 5's
    ! found=$(command -v $tool) || ln -s "$found" path/
done
PATH=$PWD/path "$EPBENCH" report run >out 2>err || fail "a report without gnuplot failed"
grep -q 'gnuplot-nox' run/report.html || fail "the report does not name the missing package"
