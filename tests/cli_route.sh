# SPDX-License-Identifier: Apache-2.0
# epbench route as users call it: the exact forms, exit statuses, and every kind of bad input.
cd "$EPBENCH_TEST_DIR"
mkdir -p route && cd route

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

# Experts 0 1 on rank 0, 2 3 on rank 1. By T.csv tokens 7 and 3 are on rank 0, 5 and 9 on rank 1:
# 7 -> 0 1 local local; 3 -> 2 3 remote remote; 5 -> 0 3 remote local; 9 -> 1 2 remote local.
printf 'token,e0,e1\n7,0,1\n3,2,3\n5,0,3\n9,1,2\n' >A.csv
printf 'token,rank\n3,0\n5,1\n7,0\n9,1\n' >T.csv
"$EPBENCH" route --assignments A.csv --experts-to-ranks 0,0,1,1 --tokens-to-ranks T.csv \
    --token-bytes 8192 --bandwidth 400Gb/s --json - >out
has out '"local_tokens": 4'
has out '"remote_tokens": 4'
has out '"total_remote_bytes": 32768'
has out '"comm_time_ms": 0.0007' # 32768 B / 50 GB/s = 0.00065536 ms
"$EPBENCH" route --assignments A.csv --experts-to-ranks 0,0,1,1 --tokens-to-ranks block \
    --token-bytes 8192 --bandwidth 400Gb/s --json - >block
cmp out block || fail "tokens 7 and 3 are the first block: both forms should agree"
# tokens swapped: every local pair becomes remote and the other way round, 4 and 4 again; all on
# rank 1: 2 + 0 + 1 + 1 = 4 remote; on rank 2, which has no expert: all 8 remote
printf 'token,rank\n3,2\n5,2\n7,2\n9,2\n' >T2.csv
"$EPBENCH" route --assignments A.csv --experts-to-ranks 0,0,1,1 --tokens-to-ranks T2.csv \
    --token-bytes 8192 --bandwidth 0.001Gb/s --json - >out
has out '"remote_tokens": 8'
has out '"ranks": 3'
has out '"comm_time_ms": 524.288' # 65536 B / 125000 B/s

# The forms with a generator; JSON and table agree with each other and with themselves.
"$EPBENCH" route --model deepseek-v3 --ranks 64 --ranks-per-node 8 --tokens 256 --skew zipf:0.8 \
    --json - >a.json
"$EPBENCH" route --model deepseek-v3 --ep 64 --nodes 8 --tokens 256 --skew zipf:0.8 \
    --json b.json >table
cmp a.json b.json || fail "the same case gave two answers"
has a.json '"experts": 256'
has a.json '"row_bytes": 14336'
has a.json '"nodes": 8'
has a.json '"mean_if_uniform": 7.67'
has table 'node-dedup, fan-out'
has table 'textbook volumes'
"$EPBENCH" route --skew hot:4@1 --experts 16 --top-k 4 --ranks 4 --tokens 512 >table
has table 'rank 1 receives 4.0'
"$EPBENCH" route --experts 4 --top-k 2 --ranks 3 --tokens-per-rank 0,7,0 --json - >out
has out '"tokens_total": 7'
has out '"tokens": null'
"$EPBENCH" route --skew trace:sample --ranks 8 --tokens 4096 --json - >out 2>err
has err 'the trace has 8327 tokens for 32768'
has out '"experts": 64'
"$EPBENCH" route --skew trace:A.csv --ranks 2 --tokens 2 --json - >out
has out '"experts": 4'
printf 'token,layer,e0,e1\n0,1,0,0\n1,1,0,1\n0,2,1,1\n' >L.csv
"$EPBENCH" route --assignments L.csv --layer 1 --experts-to-ranks 0,1 --token-bytes 1K --json - \
    >out 2>err
has err 'in 1 of 2 rows an expert comes twice'
has out '"comm_time_ms": null'
# More ranks than a matrix would bear: every token's 2 experts are on other ranks but by chance, and
# all rows that leave arrive. Threads change nothing.
"$EPBENCH" route --experts 64 --top-k 2 --ranks 16384 --ranks-per-node 8 --tokens 3 --threads 1 \
    --json one >table
"$EPBENCH" route --experts 64 --top-k 2 --ranks 16384 --ranks-per-node 8 --tokens 3 --threads 3 \
    --json three >/dev/null
cmp one three || fail "threads changed a number"
has table '16384 on 2048 nodes, 3 tokens each, 49152 tokens'
# a batch of sequences is its tokens; experts on ranks 1 and 3 alone, so that 0 and 2 send all
"$EPBENCH" route --experts 4 --top-k 2 --ranks 4 --batch 2 --seq-len 8 --expert-ranks 1,3 \
    --json batch >/dev/null
"$EPBENCH" route --experts 4 --top-k 2 --ranks 4 --tokens 16 --experts-to-ranks 1,1,3,3 \
    --json list >/dev/null
grep -v routing_id batch >a && grep -v routing_id list >b && cmp a b || fail "--batch, --expert-ranks"
# S_ik and copies. Ranks 0 and 1 have 2 experts each; 7 -> 0 1; 3 -> 2 3; 5 -> 0 3; 9 -> 1 2.
# Rank 0 sends 7 to rank 0 and 3 to rank 1, each once, as 2 copies; rank 1 sends 5 and 9 to both.
"$EPBENCH" route --assignments A.csv --experts-to-ranks 0,0,1,1 --tokens-to-ranks T.csv \
    --token-bytes 16 --matrix rank-dedup:csv:S.csv --matrix copies:csv:C.csv \
    --matrix copies:nccl-tests:C.txt --json m.json >out
[ "$(cat S.csv)" = "from,0,1
0,1,1
1,2,2" ] || { cat S.csv; fail "S_ik"; }
[ "$(cat C.csv)" = "from,0,1
0,2,2
1,2,2" ] || { cat C.csv; fail "copies"; }
[ "$(cat C.txt)" = "32 32
32 32" ] || { cat C.txt; fail "nccl-tests"; }
has out 'alltoallv_perf -b 64 -e 64'
has m.json '"most_bytes": 64'
refused 'S.csv exists; nothing is written over' --model dbrx --matrix copies:csv:S.csv
refused "'copies:S.csv'; copies, rank-dedup" --model dbrx --matrix copies:S.csv
refused 'expected: rank-dedup:csv:S.csv' --model dbrx --matrix copy:csv:x
refused 'expected: rank-dedup:csv:S.csv' --model dbrx --matrix copies:csv:
refused 'x is given twice' --model dbrx --matrix copies:csv:x --matrix rank-dedup:csv:x
refused '--matrix is for 8192' --experts 16 --top-k 1 --ranks 16384 --tokens 1 --matrix copies:csv:x
[ ! -e x ] || fail "a refused matrix was written"
# modifiers are part of the skew that is printed
"$EPBENCH" route --skew zipf:1 --popularity source --masked 0.5 --experts 8 --top-k 2 --ranks 4 \
    --tokens 512 --json - >out
has out '"skew": "zipf:1+source+masked:0.5"'
"$EPBENCH" route --skew khot:1:0.9 --experts 16 --top-k 4 --ranks 2 --tokens 1000 --json - >out
grep -qE ' (1799|1800|1801)' out || fail 'of 2,000 tokens 90 % should have the expert'
"$EPBENCH" route --help >out
has out '--experts-to-ranks'
"$EPBENCH" help route >out2
cmp out out2 || fail 'help COMMAND is not COMMAND --help'

plain="--assignments A.csv --experts-to-ranks 0,0,1,1 --token-bytes 8192"
refused 'unknown option --skwe; did you mean --skew' --skwe uniform
refused "unexpected argument 'x'" x
refused '--experts is needed' --skew uniform
refused '--top-k is needed for skew uniform (or --model' --experts 8
refused 'counts that are built in are written as counts:mixtral-8x7b/c4/0' --skew counts:mixtral-8x7b
refused "skew 'zipf': its parameter is missing; write zipf:S, for example zipf:1.0" --skew zipf --experts 8 --top-k 2
refused "write hot:R[@RANKS], for example hot:4" --skew hot --experts 8 --top-k 2
refused "write gini:G, for example gini:0.5" --skew gini:+source --experts 8 --top-k 2
refused "unknown skew 'zpif:1'; did you mean 'zipf'" --skew zpif:1 --experts 8 --top-k 2
refused 'top-9 of 8 experts' --experts 8 --top-k 9
refused "--experts: 'x' is not a whole number" --experts x
refused '--tokens: 0 is outside' --experts 8 --top-k 2 --tokens 0
refused 'exclude each other' --experts 8 --top-k 2 --tokens 1 --tokens-per-rank 1
refused 'has 2 numbers for 8 ranks' --experts 8 --top-k 2 --tokens-per-rank 1,2
refused 'no rank has a token' --experts 8 --top-k 2 --ranks 2 --tokens-per-rank 0,0
refused '12 ranks for 8 experts' --experts 8 --top-k 2 --ranks 12
refused '--ranks-per-node 3 does not divide 8' --experts 8 --top-k 2 --ranks-per-node 3
refused '--nodes 3 does not divide' --experts 8 --top-k 2 --nodes 3
refused 'contradict 8 ranks' --experts 8 --top-k 2 --nodes 2 --ranks-per-node 2
refused "unknown model 'mixtrl-8x7b'; did you mean 'mixtral-8x7b'" --model mixtrl-8x7b
refused "unknown type 'bf17'; did you mean bf16" --model dbrx --dtype bf17
refused 'has no unit' --model dbrx --bandwidth 400
refused '--token-bytes replaces' --model dbrx --token-bytes 10 --hidden 10
refused 'exceed 2^62 bytes' --experts 2 --top-k 1 --ranks 2 --tokens 1 --token-bytes 2097152T
refused '--token-bytes: 1 and more' --model dbrx --token-bytes 0
refused 'contradicts trace:sample' --skew trace:sample --experts 32
refused 'contradicts trace:sample' --skew trace:sample --top-k 2
refused 'at most 3 times' --skew hot:3.5 --experts 16 --top-k 8 --ranks 4
refused '--tokens-to-ranks is for --assignments' --model dbrx --tokens-to-ranks block
refused '--batch and --seq-len are needed together' --model dbrx --batch 2
refused 'stand for --tokens' --model dbrx --batch 2 --seq-len 2 --tokens 4
refused 'more than 2147483647' --model dbrx --batch 2147483647 --seq-len 2
refused "--popularity: 'all', common or source" --model dbrx --popularity all
refused 'masked share F' --model dbrx --masked x
refused 'below 1 expected' --model dbrx --masked 1
refused '--masked cannot be given' $plain --masked 0.1
refused 'hot says which they are' --model dbrx --skew hot:2 --popularity source
refused 'outside 0 to 7' --model dbrx --expert-ranks 8
refused 'exclude each other' --experts 2 --top-k 1 --experts-to-ranks 0,1 --expert-ranks 0
refused '--threads: 0 is outside' --model dbrx --threads 0
refused 'wants logits' --experts 8 --top-k 1 --router switch --masked 0.5
refused '--layer is for --assignments' --model dbrx --layer 1
refused '--skew cannot be given' $plain --skew uniform
refused '--seed cannot be given' $plain --seed 1
refused '--experts-to-ranks or --ranks' --assignments A.csv
refused 'A.csv:3: column' --assignments A.csv --experts-to-ranks 0,1,1
refused "'x' is not a whole number" --assignments A.csv --experts-to-ranks 0,x
refused 'names 4 experts; 5 expected' --experts 5 --top-k 2 --experts-to-ranks 0,0,1,1
refused 'missing.csv' --assignments missing.csv --experts-to-ranks 0,1
refused 'missing.csv' $plain --tokens-to-ranks missing.csv
for bad in 'token,e0,e1\n0,0\n=B.csv:2: has 2 fields' 'token,e0,e1\n0,0,-2\n=-2 is outside' \
    'e0,e1\n0,0\n=B.csv:1: header' '=B.csv: is empty' 'token,e0\n=B.csv: has no token' \
    'token,e0,w0\n0,1,nan\n=is not a number' 'token,layer,e0\n0,1,1\n0,2,1\n=B.csv: has layers 1 and 2; choose one'; do
    printf "${bad%%=*}" >B.csv
    refused "${bad#*=}" --assignments B.csv --experts-to-ranks 0,0,1,1
done
for bad in 'token,rank\n3,0\n5,1\n7,0\n=token 9 (A.csv:5) has no rank' \
    'token,rank\n3,0\n5,1\n7,0\n8,1\n=B.csv:5: token 8 is not in A.csv' \
    'token,rank\n3,0\n5,1\n7,0\n9,1\n10,1\n=B.csv:6: more tokens than the 4' \
    'token,rank\n3,0\n5,1\n3,0\n9,1\n=B.csv:4: token 3 comes twice, first on line 2' \
    'token,rank\n3,0\n5,-1\n7,0\n9,1\n=B.csv:3: column' 'token,gpu\n3,0\n=B.csv:1: header' \
    'token,rank\n3,0,1\n=B.csv:2: has 3 fields'; do
    printf "${bad%%=*}" >B.csv
    refused "${bad#*=}" $plain --tokens-to-ranks B.csv
done
refused "T2.csv:2: column 'rank': 2 is outside 0 to 1" $plain --ranks 2 --tokens-to-ranks T2.csv
status=0
"$EPBENCH" route --model dbrx --tokens 1 --json /nonexistent/x.json >out 2>err || status=$?
[ $status = 3 ] || fail "unwritable output: exit $status, 3 expected"
has err '/nonexistent/x.json'
# Tokens without an expert, and a capacity that leaves no copy, have no ratios: never a NaN.
printf 'token,e0\n0,-1\n1,-1\n' >none.csv
"$EPBENCH" route --assignments none.csv --experts 2 --ranks 2 >out
has out 'expert        0   0.0         -'
"$EPBENCH" route --ranks 8 --tokens 2 --experts 17 --top-k 2 --capacity-rule gshard >both
has both 'no copy is left'
cat out >>both
! grep -qi nan both || { cat both; fail "a NaN is printed"; }
echo "route: all forms as documented"
