#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench fit: the exact forms on planted records, and bad input.
cd "$EPBENCH_TEST_DIR/cli_fit"
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

"$make_run" run noise=0.02
"$EPBENCH" fit run >table
grep -q '^M2 \*' table                    # planted: l + a n + H_rank / B
! grep -q '^M0 \*' table
grep -q 'noise floor' table
grep -q 'all records have n = 3 messages' table
[ -s run/machine.json ]

"$EPBENCH" fit run --json - >fit.json
cmp fit.json run/machine.json
for key in schema levels ports rank_to_nic rungs valid_range parameters value low high withheld unit \
    median_ape p95_ape max_ape coverage chosen in_sample_median_ape noise_floor in_sample_s imbalance order_idx; do
    grep -q "\"$key\":" fit.json || { echo "no key $key"; exit 1; }
done
[ "$(grep -c "\"chosen\": true" fit.json)" = 8 ]      # dispatch and combine of two transports, exchange and whole
[ "$(grep -c "\"chosen\": \"M2\"" fit.json)" = 4 ]      # of the exchange: planted
[ "$(grep -c "\"chosen\": \"M3\"" fit.json)" = 4 ]      # of the whole, with copies
[ "$(grep -c "\"predicted_s\":" fit.json)" = 288 ]  # held out: 36 cases (6 skews, 6 sizes) of each of the 8
grep -q '"latency_s": 5\.[0-9]*e-7' fit.json        # planted link latency, 500 ns
grep -q '"pieces_error": 0\.0' fit.json   # one piece: 500 ns + bytes / 8 GB/s
grep -q '"peak_bytes_per_s": [0-9]' fit.json        # the copy records' peak

# The same records give the same file; another seed moves intervals only.
"$EPBENCH" fit run --json again.json >/dev/null
cmp fit.json again.json
"$EPBENCH" fit run --seed 2 --json - >other.json
! cmp -s fit.json other.json
[ "$(grep '"median_ape"' fit.json)" = "$(grep '"median_ape"' other.json)" ]

# Two runs of one machine are pooled; one named twice is refused.
"$make_run" second noise=0.02 seed=2
"$EPBENCH" fit run second --json - | grep -q '"cases": 72'
fails 2 "occurs twice" "$EPBENCH" fit run run
sed 's/"host":"planted"/"host":"elsewhere"/g' second/records.jsonl >moved && mv moved second/records.jsonl
fails 2 "host 'planted' and host 'elsewhere'" "$EPBENCH" fit run second

# In words: what binds, what plain bytes/bandwidth gets wrong, what is withheld.
"$EPBENCH" fit run --explain >words
grep -q '^M2 is enough (the busiest rank rules): on skews that the fit had not seen it is off by' words
grep -q '^What binds: the busiest rank, in ' words
grep -q '^Plain bytes/bandwidth (M0).* too low for zipf:1.4 and .* too high for uniform' words
grep -q '^Withheld: l, a: all records have n = 3 messages.*What would tell: other numbers of ranks' words
grep -q 'copying on the ranks' words # of the whole
grep -q '"binding_level": "rank"' fit.json
grep -q '"binding_level": "copy"' fit.json

# A physical bound below the planted 8 GB/s withholds B.
"$EPBENCH" fit run --peak 5GB/s | grep -q 'not a physical bandwidth'
# Too little to fit: withheld by name.
"$make_run" one sizes=1
"$EPBENCH" fit one | grep -q '1 size, at least 3 are needed'
"$make_run" flat skews=1
"$EPBENCH" fit flat >flat.txt
grep -q 'whole sizes are held out instead' flat.txt
grep -q 'the same as M1' flat.txt
grep -q 'no intervals and no choice' flat.txt

# Bad input. machine.json stays as it was.
cp run/machine.json before.json
fails 2 "run directory is missing" "$EPBENCH" fit
fails 2 "none/run.json" "$EPBENCH" fit none
fails 2 "--bootstrap" "$EPBENCH" fit run --bootstrap -3
fails 2 "--peak" "$EPBENCH" fit run --peak 5
fails 2 "--jsn" "$EPBENCH" fit run --jsn -
damage() { # SED-SCRIPT TEXT
    rm -rf bad
    cp -r run bad
    sed "$1" run/records.jsonl >bad/records.jsonl
    rm -f bad/machine.json
    fails 2 "$2" "$EPBENCH" fit bad
    [ ! -e bad/machine.json ]
}
damage '5s/"schema":1/"schema":7/' "records.jsonl:5: schema 7"
damage '5s/"median_s":/"median_s":-/' "records.jsonl:5"
damage '5s/,"n":/,"n":1,"n":/' "records.jsonl:5"
damage '5s/$/}/' "records.jsonl:5"
damage '5s/.*//' "records.jsonl:5"
damage '5s/"h_rank_bytes":[0-9]*/"h_rank_bytes":null/' "records.jsonl:5: key 'h_rank_bytes'"
damage '5s/"h_rank_bytes":[0-9]*/"h_rank_bytes":3/' "differ in h_rank_bytes"
sed '2p' run/records.jsonl >bad/records.jsonl
fails 2 "occurs twice" "$EPBENCH" fit bad
# A crash in the middle of the last line loses that record only.
head -c -200 run/records.jsonl >bad/records.jsonl
"$EPBENCH" fit bad >table2 2>err
grep -q 'cut short' err
cmp before.json run/machine.json
