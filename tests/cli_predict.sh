#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench predict: exact forms, hand-worked times, what-if, ranking, fitted machines, bad input.
cd "$EPBENCH_TEST_DIR/cli_predict"
make_run=$(dirname "$EPBENCH")/tests/make_planted_run

fails() { # EXIT-STATUS TEXT COMMAND...
    want=$1 text=$2
    shift 2
    status=0
    "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    grep -qF -- "$text" err || { echo "$*: no '$text' in:"; cat err; exit 1; }
    [ ! -s out ] || { echo "$*: wrote on stdout"; exit 1; }
}
number() { # FILE KEY: its first value
    sed -n "s/^ *\"$2\": \([-0-9.e+]*\),*\$/\1/p" "$1" | head -n 1
}
near() { # VALUE WANTED TOLERANCE
    awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { exit !(a >= b * (1 - t) && a <= b * (1 + t)) }' ||
        { echo "$1 is not within $3 of $2"; exit 1; }
}

"$EPBENCH" predict --list-machines >list
grep -q '^h800-nvl8-ib400 .* 160 ' list
[ "$(grep -c -- '-nvl\|-xgmi' list)" -ge 8 ]

# The exact form.
"$EPBENCH" predict --machine h800-nvl8-ib400 --model deepseek-v3 --ep 64 --ranks-per-node 8 --tokens 4096 --skew uniform \
    --transport hier --dtype fp8 --json - >v3.json
for key in time_s low_s high_s binding_level phases ports changes memory_bytes; do
    grep -q "\"$key\":" v3.json || { echo "no key $key"; exit 1; }
done
grep -q '"binding_level": "nic"' v3.json

# EP8 on one node: a token reaches 5.295 of 8 ranks; 4096 tokens x 7392 B x 5.295 x 7/8 over 130 GB/s: 1079 us.
"$EPBENCH" predict --machine h800-nvl8-ib400 --set scale-up=130GB/s --set latency=0us --router none --model deepseek-v3 \
    --ep 8 --transport hier --dtype fp8 --json ep8.json >ep8.txt
near "$(sed -n '/"phases"/,$p' ep8.json >p8.json; number p8.json time_s)" 1.0791e-3 0.01
grep -q '^dispatch .*scale-up' ep8.txt
# With NICs of half the rate an exchange that the NIC binds takes twice as long.
"$EPBENCH" predict --machine h800-nvl8-ib400 --set latency=0us --model deepseek-v3 --ep 64 --transport hier --dtype fp8 --json a.json >/dev/null
"$EPBENCH" predict --machine h800-nvl8-ib400 --set latency=0us --set nic=25GB/s --model deepseek-v3 --ep 64 --transport hier --dtype fp8 \
    --json b.json >/dev/null
for f in a b; do sed -n '/"phases"/,$p' $f.json >$f.p; done
near "$(number b.p time_s)" "$(awk -v t="$(number a.p time_s)" 'BEGIN { print 2 * t }')" 1e-6

# Any scale, quickly; several machines ranked; a dense model beside.
"$EPBENCH" predict --machine h100-nvl8-ib400 --model deepseek-v3 --world 16384 --ep 256 --skew zipf:1.0 --router none --transport hier \
    --dtype fp8 >large
grep -q 'EP 256 of 16384 ranks, 32 nodes a group' large
grep -q 'an even load' large
"$EPBENCH" predict --machine h800-nvl8-ib400,gb200-nvl72-ib400 --model deepseek-v3 --ep 64 --transport hier --dtype fp8 >rank
sed -n 2p rank | grep -q '^gb200' # the faster one first
"$EPBENCH" predict --machine h100-nvl8-ib400 --model mixtral-8x7b --ep 8 --against llama-2-70b >dense
grep -q '12.9 against 69 1e9 parameters work on a token: 5.35 x less' dense
grep -q 'claimed .*6x faster' dense

# Experts where a file says: one more replica per rank evens the load out.
"$EPBENCH" place --skew zipf:1.2 --experts 8 --top-k 2 --ranks 4 --replicas 12 --policy eplb,contiguous --json place.json >/dev/null
imbalance() {
    "$EPBENCH" predict --machine h100-nvl8-ib400 --model mixtral-8x7b --ep 4 --skew zipf:1.2 "$@" --json i.json >/dev/null
    number i.json imbalance
}
near "$(imbalance --placement place.json --placement-policy eplb)" 1 0.05
near "$(imbalance)" 1.786 0.01
fails 2 "must leave one" "$EPBENCH" predict --machine h100-nvl8-ib400 --model mixtral-8x7b --ep 4 --placement place.json
fails 2 "is for 4 ranks" "$EPBENCH" predict --machine h100-nvl8-ib400 --model mixtral-8x7b --ep 8 --placement place.json \
    --placement-policy eplb
fails 2 "--placement FILE is missing" "$EPBENCH" predict --machine h100-nvl8-ib400 --model mixtral-8x7b --ep 4 --placement-policy eplb

# A fitted machine: planted 23 us + H_rank / 8 GB/s, 4 ranks. Uniform, top-2 of 8 experts on 4 ranks: 0.5 copies to each rank;
# 640 tokens x 8192 B x 1.5 = 7.864 MB: 1.006 ms, with an interval around it.
"$make_run" run noise=0.02
"$EPBENCH" fit run >/dev/null
"$EPBENCH" predict --machine run/machine.json --model mixtral-8x7b --ep 4 --tokens 640 --json f.json >fitted
sed -n '/"phases"/,$p' f.json >f.p
near "$(number f.p time_s)" 1.006e-3 0.03
awk -v l="$(number f.p low_s)" -v h="$(number f.p high_s)" -v t="$(number f.p time_s)" 'BEGIN { exit !(l < t && t < h) }'
grep -q '^dispatch .* rank ' fitted
grep -q '^experts .*flops' fitted # GEMM rates of the run

# Fitted parts: the busiest rank has 1280 rows on 2 experts, 2 x 1280 x 3 x 4096 x 14336 = 4.5097e11 flop at 1e-11 s: 4.5097 s and
# the start of 1e-5 s; copies in and out are 2 x 8192 B x (1280 + 1280) at 1e-10 s/byte: 4.1943e-3 s and two starts.
part='"part": "x", "form": "longer", "coefficients": [1e-5, 0, 1e-11, 1e-10], "prediction_half_width": 0.1'
with_part() { # PART: in place of the experts' and of permute's
    sed "s/^    \"permute\": {},*/    \"permute\": {\"bf16\": {$1}},/
/^    \"experts\": {\$/,/^    }/c\\    \"experts\": {\"bf16\": {$1}}," run/machine.json
}
with_part "$part" >parts.json
"$EPBENCH" predict --machine ./parts.json --model mixtral-8x7b --ep 4 --tokens 640 --json g.json >parts
phase() { # FILE NAME
    sed -n "/\"name\": \"$2\"/,\$p" "$1" >phase.p
}
phase g.json experts
near "$(number phase.p time_s)" 4.5097 1e-4
near "$(number phase.p high_s)" 4.9607 1e-4
phase g.json permute
near "$(number phase.p time_s)" 4.2143e-3 1e-4
if grep -q '^unpermute' parts; then
    echo "unpermute is not in the file"
    exit 1
fi

# Bad input.
fails 2 "--machine is missing" "$EPBENCH" predict --model deepseek-v3 --ep 8
fails 2 "did you mean 'h800-nvl8-ib400'" "$EPBENCH" predict --machine h800-nvl8-ib40 --model deepseek-v3 --ep 8
fails 2 "--ep is missing" "$EPBENCH" predict --machine h800-nvl8-ib400 --model deepseek-v3
fails 2 "no multiple of --ep" "$EPBENCH" predict --machine h800-nvl8-ib400 --model deepseek-v3 --ep 8 --world 12
fails 2 "'heir' cannot be predicted" "$EPBENCH" predict --machine h800-nvl8-ib400 --model deepseek-v3 --ep 8 --transport heir
fails 2 "--set" "$EPBENCH" predict --machine h800-nvl8-ib400 --set nic=-5GB/s --model deepseek-v3 --ep 8
fails 2 "--set" "$EPBENCH" predict --machine h800-nvl8-ib400 --set nics=5GB/s --model deepseek-v3 --ep 8
fails 2 "is a fitted machine" "$EPBENCH" predict --machine run/machine.json --set nic=5GB/s --model mixtral-8x7b --ep 4
fails 2 "hot:2" "$EPBENCH" predict --machine h800-nvl8-ib400 --skew hot:2 --model mixtral-8x7b --ep 4
fails 2 "llama-2-70b" "$EPBENCH" predict --machine h800-nvl8-ib400 --model llama-2-70b --ep 4
damage() { # SED-SCRIPT TEXT
    sed "$1" run/machine.json >bad.json
    fails 2 "$2" "$EPBENCH" predict --machine ./bad.json --model mixtral-8x7b --ep 4
}
damage 's/"schema": 1/"schema": 9/' "schema 9"
damage 's/"coefficients": \[$/"coefficients": [1e300,/' "bad.json: groups["
damage 's/"coefficients": \[$/"coefficients": [-1,/' "bad.json: groups["
damage 's/"read_bytes_per_s": .*/"read_bytes_per_s": 1e300,/' "is no rate"
with_part "$(printf '%s' "$part" | sed 's/longer/larger/')" >bad.json
fails 2 "longer or both" "$EPBENCH" predict --machine ./bad.json --model mixtral-8x7b --ep 4
damage 's/"prediction_half_width": [0-9][-0-9.e]*/"prediction_half_width": 1e300/' "was expected"
damage 's/"prediction_half_width": [0-9][-0-9.e]*/"prediction_half_width": -1/' "was expected"
damage 's/"h_rank_bytes": {/"h_rank_bytes": {"min": 9e9, /' "is not valid JSON" # twice in one object
with_part "$(printf '%s' "$part" | sed 's/1e-11/0/')" >bad.json
fails 2 "no rate" "$EPBENCH" predict --machine ./bad.json --model mixtral-8x7b --ep 4
# A file of before a feature was known is read.
awk '/"step_sum_bytes": {/ { skip = 4 } skip-- > 0 { next } { print }' run/machine.json >older.json
if grep -q '"step_sum_bytes"' older.json; then
    echo "the feature was not taken out"
    exit 1
fi
"$EPBENCH" predict --machine ./older.json --model mixtral-8x7b --ep 4 >/dev/null
with_part "$(printf '%s' "$part" | sed 's/1e-11/-1/')" >bad.json
fails 2 "compute.experts.bf16" "$EPBENCH" predict --machine ./bad.json --model mixtral-8x7b --ep 4
head -c 3000 run/machine.json >bad.json
fails 2 "bad.json:" "$EPBENCH" predict --machine ./bad.json --model mixtral-8x7b --ep 4
