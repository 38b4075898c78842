#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Traces of other systems wherever a trace goes, counts, and loads by domain, as users call them.
cd "$EPBENCH_TEST_DIR/cli_traces"

fail() { echo "$1"; cat out err 2>/dev/null; exit 1; }
has() { grep -qF -- "$2" "$1" || fail "no '$2' in $1"; } # FILE TEXT
refused() { # TEXT ARGUMENTS...
    text=$1
    shift
    status=0
    "$EPBENCH" "$@" >out 2>err || status=$?
    [ $status = 2 ] || fail "$*: exit $status, 2 expected"
    has err "$text"
}

# Two tokens of layer 3 choose experts 0 2 and 1 3, one of layer 4 chooses 2 3: the same in every
# format. With experts 0 1 on rank 0, 2 3 on rank 1 and a token on each rank, layer 3 sends one copy
# of token 0 to rank 1 and one of token 1 to rank 0: 2 remote, 2 local.
record() { # LAYER ROWS NUM
    printf '{"step":0,"stage":"pre_dispatch","block":"decoder","layer":%s,"rank":0,"num_tokens":%s,"topk":2,"top_indices":%s}\n' "$1" "$3" "$2"
}
{ record 3 '[[0,2],[1,3]]' 2; record 4 '[[2,3]]' 1; } >megatron.jsonl
route() { printf '{"type":"route","req_id":"r","token_idx":%s,"layer":%s,"topk_ids":%s}\n' "$1" "$2" "$3"; }
{ echo '{"type":"meta","top_k":2}'; route 0 3 '[0,2]'; route 0 4 '[2,3]'; route 1 3 '[1,3]'; } >log.jsonl
printf 'token,layer,e0,e1\n0,3,0,2\n0,4,2,3\n1,3,1,3\n' >t.csv
printf '0\t2\t\t0.5\t0.5\n1\t3\t\t0.5\t0.5\n' >esft.txt
for file in megatron.jsonl log.jsonl t.csv esft.txt; do
    gzip -c $file >$file.gz
    layer=@3
    [ $file != esft.txt ] || layer=
    for form in "--assignments $file$layer" "--assignments $file.gz$layer" \
        "--skew trace:$file$layer --tokens 1"; do
        "$EPBENCH" route $form --experts-to-ranks 0,0,1,1 --json - >out 2>err || fail "$form"
        has out '"remote_tokens": 2'
        has out '"local_tokens": 2'
        has out '"fan_out_sampled": false'
    done
done
"$EPBENCH" route --skew trace:log.jsonl --layer 3 --tokens 1 --ranks 2 --json - >out 2>err
has out '"skew": "trace:log.jsonl@3"'
"$EPBENCH" route --skew trace:t.csv --layer 4 --trace-format csv --tokens 1 --ranks 2 --json - >out 2>err
has out '"skew": "trace:csv:t.csv@4"'
"$EPBENCH" route --skew trace:log.jsonl@3 --layer 4 --tokens 1 --ranks 2 --json - >out 2>err
has out '"skew": "trace:log.jsonl@3"'
refused 'log.jsonl: has layers 3 and 4; choose one' route --skew trace:log.jsonl --ranks 2
refused 'megatron.jsonl: has no token of layer 5; it has layers 3 and 4' route \
    --assignments megatron.jsonl --layer 5 --ranks 2
refused '--layer is for --assignments' route --model dbrx --layer 1
refused '--trace-format is for --assignments' route --model dbrx --trace-format csv
refused "t.csv:1: is not valid JSON" route --assignments t.csv --trace-format megatron --ranks 2
refused "trace format 'pickle'" route --assignments t.csv --trace-format pickle --ranks 2
refused 'trace:sample names no layers' route --skew trace:sample --layer 1
head -c 40 t.csv.gz >cut.gz
refused 'cut.gz: ends within its gzip data' route --assignments cut.gz --ranks 2
printf '0\t2\t1\t3\t\t1\t1\t1\t1\n0\t2\t\t1\t1\n' >texts.txt
refused 'texts.txt:2: holds several tokens' route --assignments texts.txt --ranks 2
"$EPBENCH" route --assignments esft:2:texts.txt --ranks 2 --json - >out 2>err
has out '"tokens_total": 3'

# Counts: every token of top-1 goes to expert 1; fan-out is said to be sampled.
echo '{"logical_count": [[0, 12, 0, 0], [1, 1, 1, 1]]}' >counts.json
"$EPBENCH" route --skew trace:counts.json@0 --top-k 1 --ranks 2 --tokens 6 --json - >out 2>err
has out '"fan_out_sampled": true'
has err 'fan-out (which experts come together) is sampled'
"$EPBENCH" route --assignments counts.json --layer 0 --top-k 1 --ranks 2 --json - >out 2>err
has out '"tokens_total": 12'
refused 'holds counts, no tokens; --top-k is needed' route --assignments counts.json@0 --ranks 2
refused '--top-k is needed' route --skew trace:counts.json@0
refused 'expert 1 has 100 % of the counts' route --skew trace:counts.json@0 --top-k 2
"$EPBENCH" route --skew counts:olmoe-1b-7b/github/7 --tokens 512 >out 2>err
has out '64 experts, top-8'
has out 'fan-out (sampled, not recorded)'
printf '3,1,1,1\n' >list.csv
"$EPBENCH" route --skew counts:list.csv --top-k 2 --tokens 8 >out 2>err
has out 'counts:list.csv: 4 experts, top-2'

# 55713 of the 417792 copies on arXiv went to Mixtral's first expert in layer 0: 0.13335...
"$EPBENCH" route --by-domain --model mixtral-8x7b --layer 0 --ranks 4 --nodes 2 --json - >out 2>err
has out '"schema": "epbench-route-domains-1"'
has out '0.133351'
[ "$(grep -c '"domain":' out)" = 6 ] || fail "five domains and their mean expected"
"$EPBENCH" route --by-domain >out 2>err
[ "$(grep -c '^total variation' out)" = 6 ] || fail "three layers of two models expected"
refused "no counts of model 'dbrx'; mixtral-8x7b, olmoe-1b-7b are there" route --by-domain --model dbrx
refused 'no counts of layer 3' route --by-domain --layer 3
refused '--nodes and --ranks-per-node need --ranks' route --by-domain --nodes 2
printf 'model,top_k,domain,layer,expert,count_topk,count_top1\nm,1,x,0,0,3,\nm,1,x,0,1,1,\n' >own.csv
"$EPBENCH" route --by-domain=own.csv >out 2>err
has out 'm, layer 0: 2 experts, top-1'
has out '1.500'
echo "traces: every format, counts and domains as documented"
