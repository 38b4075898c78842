# SPDX-License-Identifier: Apache-2.0
# epbench plan as users call it: the 512 case in both conventions, what does not fit, bad input.
cd "$EPBENCH_TEST_DIR"
mkdir -p plan && cd plan

fail() { echo "$1" >&2; exit 1; }
has() { # FILE TEXT
    grep -qF -- "$2" "$1" || { cat "$1"; fail "'$2' is not in the output"; }
}
refused() { # TEXT ARGUMENT...
    text=$1
    shift
    status=0
    "$EPBENCH" plan "$@" >out 2>err || status=$?
    [ $status = 2 ] || { cat err; fail "plan $*: exit $status, 2 expected"; }
    [ ! -s out ] || fail "plan $*: refused, yet there is output"
    [ "$(wc -l <err)" = 1 ] || { cat err; fail "plan $*: one line expected"; }
    has err "$text"
}
plan() { "$EPBENCH" plan --model mixtral-8x7b --tokens 256 --samples 3 "$@"; }

# 4 DP x 8 TP x 4 PP x 4 EP = 512, and the folding beside it
plan --world 512 --gpu-memory 80GiB --ep 4 --tp 8 --pp 4 --json - >out
awk '/"convention"/ { c = $2 } /"dp"/ { print c, $2 }' out | sort -u >found
printf '"folding", 16,\n"product", 4,\n' | cmp - found || { cat found; fail "DP of the two"; }
for key in ep tp dp pp memory_bytes bytes_per_step fits reason; do
    has out "\"$key\":"
done
# The same numbers in the same place, whoever asks.
plan --world 512 --gpu-memory 80GiB --ep 4 --tp 8 --pp 4 --json - >again
cmp out again || fail "the same plans should come again"

# 45.1e9 routed parameters in bf16 are over 8 GiB a rank, whatever 4 ranks do; they say so.
plan --world 4 --gpu-memory 8GiB >out
has out 'NO'
has out 'over --gpu-memory: '
plan --world 4 --gpu-memory 8GiB --json - >out
has out '"fits": false'
[ "$(grep -c '"fits": true' out)" = 0 ] || fail "nothing fits into 8 GiB"
plan --world 4 --gpu-memory 200GiB --json - >out
has out '"fits": true'

# 4 stages wait 3 of (micro-batches + 3) parts of a step: 3/4 with one, 3/7 with four; without stages, never.
plan --world 64 --pp 4 --ep 4 --tp 4 --json - >out
has out '"pipeline_idle_fraction": 0.75'
plan --world 64 --pp 4 --ep 4 --tp 4 --microbatches 4 >out
has out '  43  ?'
has out 'The order does not count idle time'
plan --world 64 --pp 1 --ep 4 --tp 4 --json - >out
has out '"pipeline_idle_fraction": 0.0'

# Training, capacity, times, a model without a published total, a rumour.
plan --world 64 --gpu-memory 80GiB --optimizer adam --shard-optimizer --recompute --microbatches 4 \
    --capacity-rule megatron --capacity-factor 1.25 --pad --bandwidth 400Gb/s --ranks 8 >out
has out 'gradients 4 bytes per parameter, optimizer 12 sharded, recomputation'
has out 'capacity megatron'
has out 'factor 1.25'
has out 'bytes that a rank sends / bandwidth'
# Times of a layer by a machine file whose records are bytes / (5 GB/s): a token of 4 ranks sends 2 x 3/4
# rows of 8192 bytes each way; 256 tokens take 2 x 3145728 / 5e9 s. Cut, it sends 3 rows: twice that.
"$(dirname "$EPBENCH")/tests/make_planted_run" run law=M0 bw=5e9 noise=0.001 ranks=4
"$EPBENCH" fit run >table
plan --world 4 --ranks 4 --machine run/machine.json --json - >out
awk -F'[:,]' '/"layer_time_s"/ { time[n++] = $2 }
    END { exit !(n == 3 && time[0] > 1.24e-3 && time[0] < 1.28e-3 && time[1] == 0 &&
                 time[2] / time[0] > 1.99 && time[2] / time[0] < 2.01) }' out ||
    { grep layer_time out; fail "times are not what the machine file says"; }
plan --world 8 --ranks 8 --machine run/machine.json --json - >out
has out '"time_beyond": "ranks"'
has out '"dispatch alltoallv'
has out '"combine alltoallv'
echo '{"schema": 1}' >broken.json
refused 'broken.json' --model mixtral-8x7b --world 8 --machine broken.json

plan --world 8 --capacity 5 --drop order --ep 2 --json - >out
has out '"capacity": 5,'
"$EPBENCH" plan --model glm-5 --world 64 --gpu-memory 80GiB --tokens 64 --samples 1 --tp 1 >out
has out 'memory is a lower bound'
"$EPBENCH" plan --model gpt4-rumored --world 64 --tokens 64 --samples 1 --tp 1 >out
has out 'rumour'
has out 'attention heads are not known'
"$EPBENCH" plan --experts 8 --top-k 2 --hidden 64 --ffn 64 --layers 2 --world 2 --samples 1 \
    --tokens 16 --skew zipf:1 >out
has out 'custom'

plan --world 8 --token-buffers deepep-ll --ep 8 --json - >out
has out '"token_buffers": "deepep-ll"'
plan --world 4 --ranks 4 --skew zipf:1 --json - >out
awk -F'[:,]' '/"dedup_bytes_per_token"/ && !d { d = $2 } /"bytes_per_token"/ && !b { b = $2 }
    END { exit !(d > 0 && d < b) }' out || fail "no deduplicated bytes of a skew"
refused '--capacity 100 needs --drop order' --model mixtral-8x7b --world 8 --capacity 100
refused '--byte-basis' --model mixtral-8x7b --world 8 --byte-basis node-dedup
refused '--token-buffers' --model mixtral-8x7b --world 8 --token-buffers deepep
refused '--world is missing' --model mixtral-8x7b
refused '--world' --model mixtral-8x7b --world 0
refused "did you mean 'mixtral-8x7b'" --model mixtral-8x7 --world 8
refused 'dense' --model llama-2-70b --world 8
refused 'dense' --model llama-2-70b --world 8 --capacity-rule switch
refused 'has no unit' --model mixtral-8x7b --world 8 --gpu-memory 80
refused '--gpu-memory' --model mixtral-8x7b --world 8 --gpu-memory 0GiB
refused 'unknown unit' --model mixtral-8x7b --world 8 --gpu-memory 80Gib
refused '--ep: 3 does not divide a world of 8' --model mixtral-8x7b --world 8 --ep 3
refused '--tp' --model mixtral-8x7b --world 8 --tp 2,,4
refused 'depends on the ranks' --model mixtral-8x7b --world 8 --skew hot:2
refused '64' --model mixtral-8x7b --world 8 --skew trace:sample
refused '--optimizer' --model mixtral-8x7b --world 8 --optimizer sgd
refused '--shard-optimizer needs' --model mixtral-8x7b --world 8 --shard-optimizer
refused '--recompute is for' --model mixtral-8x7b --world 8 --recompute
refused '--capacity-factor is needed' --experts 60 --top-k 2 --hidden 128 --layers 32 --heads 1 \
    --ffn 512 --world 12 --tp 4 --capacity-rule plain
refused '--capacity-factor needs' --model mixtral-8x7b --world 8 --capacity-factor 1
refused 'all ranks together' --model mixtral-8x7b --world 8 --capacity-rule megablocks \
    --capacity-factor 1
refused '--combine-dtype' --model mixtral-8x7b --world 8 --combine-dtype fp8
refused 'no unit' --model mixtral-8x7b --world 8 --bandwidth 400
refused 'exclude each other' --model mixtral-8x7b --world 8 --bandwidth 1GB/s --machine x.json
refused 'nowhere.json' --model mixtral-8x7b --world 8 --machine nowhere.json
refused '--samples' --model mixtral-8x7b --world 8 --samples 0
