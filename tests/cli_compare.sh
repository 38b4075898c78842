#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench route --compare: routers side by side, logits of files, capacity, and bad input.
set -eu
mkdir -p "$EPBENCH_TEST_DIR/compare" && cd "$EPBENCH_TEST_DIR/compare"

fail() { echo "$1" >&2; exit 1; }
has() { # FILE TEXT
    grep -qF -- "$2" "$1" || { cat "$1"; fail "'$2' is not in $1"; }
}
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    status=0
    "$EPBENCH" route "$@" >out 2>err || status=$?
    [ $status = 2 ] || { cat err; fail "route $*: exit $status, 2 expected"; }
    [ ! -s out ] || fail "route $*: refused, yet there is output"
    has err "$text"
}

# 8 ranks x 100 tokens: top1 has 800 copies, top2 twice as many; expert choice takes
# floor(100 x 2 / 16) = 12 tokens for each of 16 experts on each of 8 ranks: 1536.
"$EPBENCH" route --compare top1,top2,expert-choice --experts 16 --ranks 8 --tokens 100 \
    --json both.json >table
grep -o '"copies": [0-9][0-9]*' both.json >copies
printf '"copies": 800\n"copies": 1600\n"copies": 1536\n' | cmp - copies ||
    { cat copies; fail "top-1 should move half of top-2's copies"; }
has table 'expert-choice'
has table 'tokens with no expert, 1.920 experts on average'
"$EPBENCH" route --compare top1,top2,expert-choice --experts 16 --ranks 8 --tokens 100 --json - |
    cmp - both.json || fail "the same case gave two answers"

# Every name of the table is accepted.
"$EPBENCH" route --list-routers >list
names=$(awk 'NR > 1 && NF > 1 { sub(/\[.*/, "", $1); print $1 }' list | grep '^[a-z]' | paste -sd, -)
[ "$(echo "$names" | tr ',' '\n' | wc -l)" -ge 16 ] || fail "routers: $names"
"$EPBENCH" route --compare "$names" --experts 64 --top-k 4 --ranks 4 --ranks-per-node 2 \
    --tokens 64 --skew zipf:1 >table
has table 'sigmoid-group'
"$EPBENCH" route --compare model,softmax-group:8:3 --model deepseek-v3 --ranks 8 --tokens 64 \
    --json - >out
has out '"policy": "sigmoid-group"'
has out '"experts": 256'
has out '"row_bytes": 14336'
"$EPBENCH" route --compare model --model gpt4-rumored --ranks 8 --tokens 8 >out 2>err
has err 'is not known; topk-softmax assumed'

# A file by hand: 4 tokens, 2 experts on 2 ranks, all tokens prefer expert 0. Top-1 on ranks of two
# tokens: rank 0 keeps its two rows, rank 1 sends two: one row of 1 KiB each.
printf 'e0,e1\n2,1\n3,1\n1,0\n5,-inf\n' >L.csv
"$EPBENCH" route --compare top1 --logits L.csv --ranks 2 --token-bytes 1K --json - >out
has out '"copies": 4'
has out '"remote": 2048'
has out '"needed_rows": 2'
# capacity 1 per (rank, expert): one copy of each rank is dropped; rank 1 sends one row
"$EPBENCH" route --compare top1 --logits L.csv --ranks 2 --token-bytes 1K --capacity 1 \
    --drop order --json - >out
has out '"dropped": 2'
has out '"capacity_rows": 1'
has out '"remote": 1024'

# losses: all go to expert 0, of probability s(1) s(2) on rank 0, s(1) 1 on rank 1, s the sigmoid:
# 2 x mean of 0.731059 0.880797 0.731059 1 = 1.671457. Squares of logsumexp 2.313262 3.126928
# 1.313262 5 have the mean 10.46338.
"$EPBENCH" route --compare top1,hash,softmax --top-k 1 --logits L.csv --ranks 2 --losses --json losses.json >out
has losses.json '"megatron": 1.67145'
has losses.json '"z-loss": 10.4633'
has losses.json '"tutel-load-importance": null'
[ "$(grep -c '"losses": null' losses.json)" = 1 ] || fail "hash should have no losses"
has out 'megatron                 1.6715     -   1.6715'
refused '--losses is for --compare' --losses

# a capacity of 0 rows leaves nothing, and no ratio of nothing
"$EPBENCH" route --compare top1 --experts 8 --ranks 8 --tokens 1 --capacity-rule switch --min-capacity 0 >out
has out '0 B                -              -'
! grep -qi nan out || fail "a NaN is printed"

refused "unknown router 'top3'; did you mean 'top1'" --compare top3 --experts 8
refused '--top-k is needed for router softmax' --compare softmax --experts 8
refused '--experts, --model or --logits is needed' --compare top1
refused 'top-9 of 8 experts' --compare softmax --experts 8 --top-k 9
refused '10 experts do not make 8 equal groups' --compare sigmoid-group --experts 10 --top-k 2
refused '--compare model: --model is needed' --compare model --experts 8
refused "no logits have skew 'hot:2'" --compare top1 --experts 8 --skew hot:2
refused '--router does not apply' --compare top1 --experts 8 --router top1
refused '--router does not apply to --compare' --compare top1 --experts 8 --router top2
refused '--logits is for --compare' --logits L.csv
refused '--skew cannot be given with --logits' --compare top1 --logits L.csv --skew uniform
refused 'L.csv: 2 experts; 4 expected' --compare top1 --logits L.csv --experts 4
refused 'missing.npy' --compare top1 --logits missing.npy
refused 'exceed 2^29 logits' --compare top1 --experts 2048 --ranks 64 --tokens 100000
refused 'a skew goes to --skew' --compare zipf:1 --experts 8
refused '--assignments does not apply to --compare' --compare top1 --assignments L.csv
refused '--compare: item 2' --compare top1,,top2 --experts 8
printf 'e0,e1\n1,x\n' >B.csv
refused 'B.csv:2' --compare top1 --logits B.csv
echo "compare: all forms as documented"
