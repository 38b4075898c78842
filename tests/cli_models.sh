# SPDX-License-Identifier: Apache-2.0
# epbench models as users call it: list, one model, JSON, own models, and bad input.
cd "$EPBENCH_TEST_DIR"
mkdir -p models && cd models

fail() { echo "$1" >&2; exit 1; }
has() { # FILE TEXT
    grep -qF -- "$2" "$1" || { cat "$1"; fail "'$2' is not in the output"; }
}
refused() { # TEXT COMMAND ARGUMENT...
    text=$1
    shift
    status=0
    "$EPBENCH" "$@" >out 2>err || status=$?
    [ $status = 2 ] || { cat err; fail "$*: exit $status, 2 expected"; }
    [ ! -s out ] || fail "$*: refused, yet there is output"
    [ "$(wc -l <err)" = 1 ] || { cat err; fail "$*: one line expected"; }
    has err "$text"
}

# Every row of the zoo is a model that the other commands know; the dense one is refused there.
"$EPBENCH" models --json - >zoo.json
"$EPBENCH" models >list
names=$(sed -n 's/^      "name": "\(.*\)",$/\1/p' zoo.json)
[ "$(echo "$names" | wc -l)" = 32 ] || fail "32 models expected"
for name in $names; do
    grep -q "^$name " list || fail "$name is not in the list"
    [ "$name" = llama-2-70b ] || "$EPBENCH" route --model "$name" --ranks 1 --tokens 4 --json - >out
done
awk 'length > 80 { print; bad = 1 } END { exit bad }' list || fail "wider than a terminal"
"$EPBENCH" models --ranks 8 >list8
awk 'length > 80 { print; bad = 1 } END { exit bad }' list8 || fail "wider than a terminal"
refused "'llama-2-70b' is dense" route --model llama-2-70b

# 64 experts on 8 ranks: an eighth each.
"$EPBENCH" models olmoe-1b-7b --ranks 8 --json - >one
has one '"weights_fraction_per_rank": 0.125'
# Bytes to the last one: 3 x 7168 x 2048 fp8 with 4 bytes per 128 x 128 are 44,050,944; 256, 8, and 58 x 32 of them.
"$EPBENCH" models deepseek-v3 --ranks 8 --json - >one
has one '"expert_bytes": 44050944,'
has one '"layer_memory_bytes": 11277041664,'
has one '"layer_compute_bytes": 352407552,'
has one '"expert_weight_bytes_per_rank": 81758552064'
grep -q '^switch-c-2048 .* 0\.05%' list || fail "1 of 2,048 experts is not 0 %"
"$EPBENCH" models gpt4-rumored >one
has one 'RUMOURED'
has one 'also claimed'
"$EPBENCH" models gpt4-rumored --json - >one
has one '"rumoured": true'

"$EPBENCH" models --details >all
for word in 'router ' 'weights ' 'source ' 'confidence ' 'also claimed '; do
    grep -q "^$word" all || fail "--details says nothing of $word"
done
"$EPBENCH" models --details --ranks 100 >few
[ "$(grep -c 'cannot be dealt' few)" -gt 5 ] || fail "8 experts cannot be dealt to 100 ranks"
[ "$(grep -c '^router ' all)" = 32 ] || fail "--details should show every model"

# A model of one's own: by options, by file; JSON output is a model file too.
"$EPBENCH" models --experts 64 --top-k 2 --hidden 1024 --ffn 512 --layers 4 --no-gated --ranks 8 \
    --json own.json >one
has one '8 of 64 experts on the fullest'
"$EPBENCH" models --model-file own.json --ranks 8 --json again.json >list
cmp own.json again.json || fail "the JSON of a model, read again, says otherwise"
"$EPBENCH" models --model deepseek-v3 --experts 128 --ranks 64 >one
has one '2 of 128 experts'
has one 'no total is published'

# ... and in every command that takes a model.
"$EPBENCH" place --model-file own.json --skew zipf:1 --ranks 8 --json - >out
has out '"experts": 64'
"$EPBENCH" route --model-file own.json --ranks 8 --tokens 4 --json - >out
has out '"experts": 64'
"$EPBENCH" comm --model-file own.json --tokens 4 --visits 1 --iters 6 --case-time 50ms -o run >out 2>err ||
    { cat err; fail "comm with a model of one's own"; }
grep -q '"experts": *64' run/records.jsonl || fail "comm did not take the file's experts"

refused "did you mean 'deepseek-v3'" models deepseek-v33
refused "there are deepseek-v2-lite, deepseek-v2, deepseek-v3" models deepseek
refused 'unknown model' models zzzzzzzz
refused '--ranks' models --ranks 0
refused 'PRank' models --model-file PRank.csv
refused '--top-k is missing' models --experts 8
refused 'names go with no shape' models deepseek-v3 --experts 8
refused '100 ranks' models olmoe-1b-7b --ranks 100
printf 'name,hidden,expert_ffn,n_routed,top_k,n_layers,n_moe_layers,gated\na,8,8,4,9,1,1,1\n' >bad.csv
refused 'bad.csv:2: top_k 9' models --model-file bad.csv
