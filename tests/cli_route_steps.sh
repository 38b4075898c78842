# SPDX-License-Identifier: Apache-2.0
# epbench route --steps as users call it: tables, TSV, JSON, warnings, and bad input.
cd "$EPBENCH_TEST_DIR"
mkdir -p route_steps && cd route_steps

fail() { echo "$1" >&2; exit 1; }
has() { # FILE TEXT
    grep -qF -- "$2" "$1" || { cat "$1"; fail "'$2' is not in the output"; }
}
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    status=0
    "$EPBENCH" route "$@" >out 2>err || status=$?
    [ $status = 2 ] || { cat err; fail "route $*: exit $status, 2 expected"; }
    [ ! -s out ] || fail "route $*: refused, yet there is output"
    [ "$(wc -l <err)" = 1 ] || { cat err; fail "route $*: one line expected"; }
    has err "$text"
}

# Two weights, two bias rates, 12 steps: 48 rows of 4 + 11 + 4 columns, and the same again.
set -- --steps 12 --experts 4 --top-k 2 --tokens 32 --dim 8 --clusters 3 --sequence 4 \
    --aux-loss 0,0.01 --bias-rate 0,0.001 --seed 3
"$EPBENCH" route "$@" -o a.tsv --json a.json >table 2>err
"$EPBENCH" route "$@" -o b.tsv --json - >b.json 2>/dev/null
cmp a.tsv b.tsv || fail "the same seed gave two trainings"
cmp a.json b.json || fail "the same seed gave two results"
[ "$(wc -l <a.tsv)" = 49 ] || fail "49 lines expected"
awk -F '\t' 'NF != 19 { exit 1 } NR > 1 && $16 + $17 + $18 + $19 != 64 { exit 1 }' a.tsv ||
    fail "19 columns expected, and 32 x 2 copies in each row"
has table 'aux weight  bias rate  max/mean'
has table '0.01 *'
has table 'Most mutual information'
has a.json '"usual_range": true'
has a.json '"expert_copies"'
# 16 copies per expert at an even load, fewer than 32: each case warns, and 64 tokens would do
[ "$(grep -c 'warning: .*--min-tokens-per-expert.*, 64 at an even one' err)" = 4 ] ||
    { cat err; fail "four warnings expected"; }
"$EPBENCH" route --steps 3 --experts 2 --tokens 512 --sequence 1 --aux-loss 1 \
    --min-tokens-per-expert 1 >table 2>err
[ ! -s err ] || { cat err; fail "no warning expected"; }
"$EPBENCH" route --steps 2 --score sigmoid --aux-formula plain --z-loss 0.001 --jitter 0.01 \
    --aux-loss 0.1 --cluster-zipf 1 --lr 0.5 --router-lr 0.5 >table 2>/dev/null
has table 'sigmoid'
has table 'zipf 1'
has table 'z-loss 0.001'

# the same of a counted routing: 2 ranks x 100 tokens x 2 copies on 8 experts are 50 each at an even load
"$EPBENCH" route --experts 8 --top-k 2 --ranks 2 --tokens 100 --min-tokens-per-expert 80 >out 2>err
has err 'experts get fewer than 80 tokens per step'
has err '320 at an even one'
"$EPBENCH" route --experts 8 --top-k 2 --ranks 2 --tokens 100 --min-tokens-per-expert 10 >out 2>err
[ ! -s err ] || { cat err; fail "no warning expected"; }

touch there.tsv
refused 'there.tsv exists' --steps 2 -o there.tsv
refused '--aux-loss needs --steps' --aux-loss 1
refused '--output needs --steps' -o x.tsv
refused '--steps: ' --steps 0
refused "'x' is not a number" --steps 2 --aux-loss 0,x
refused '--aux-loss: ' --steps 2 --aux-loss -1
refused '--jitter: ' --steps 2 --jitter 2
refused '--lr: a number above 0' --steps 2 --lr 0
refused 'did you mean megatron?' --steps 2 --aux-formula megatrn
refused 'no gradient' --steps 2 --aux-formula tutel-load-importance
refused 'softmax or sigmoid' --steps 2 --score relu
refused 'fewer experts, tokens, clusters' --steps 2 --experts 16384 --tokens 64
refused '--top-k 17: there are 16' --steps 2 --top-k 17
refused 'whole sequences of 8' --steps 2 --tokens 100
refused 'which takes --experts, --top-k, --tokens, --seed' --steps 2 --ranks 4
refused '--skew does not apply to --steps' --steps 2 --skew uniform
refused '--router does not apply' --steps 2 --router top1
refused '--model does not apply' --steps 2 --model mixtral-8x7b
refused '--capacity-rule does not apply' --steps 2 --capacity-rule switch
refused 'diverged at step' --steps 500 --lr 1000 --aux-loss 0
status=0
"$EPBENCH" route --steps 2 --aux-loss 1 -o no/such/file.tsv >out 2>err || status=$?
[ $status = 3 ] || fail "a file that cannot be written: exit $status, 3 expected"
has err 'no/such/file.tsv'
