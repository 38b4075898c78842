#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench plot: well-formed drawings, data beside them, odd texts, no gnuplot, bad input.
cd "$EPBENCH_TEST_DIR/cli_plot"
command -v gnuplot >/dev/null || { echo "gnuplot is not installed"; exit 77; }
make_run=$(dirname "$EPBENCH")/tests/make_planted_run
names="bandwidth_size time_skew bandwidth_skew predicted_measured phases gemm_rate links"

"$make_run" run noise=0.02
"$EPBENCH" plot run >drawn 2>talk
[ "$(grep -vc '^epbench plot: against: not drawn: it takes' talk)" = 0 ] # no all-reduce in this run
for name in $names; do
    grep -qx "run/plots/$name.svg" drawn
    [ -s run/plots/$name.tsv ] && [ -s run/plots/$name.gp ]
    # Every row has as many cells as the header.
    awk -F '\t' 'NR == 1 {n = NF} NF != n {print FILENAME ": line " NR; bad = 1} END {exit bad || NR < 3}' \
        run/plots/$name.tsv
    grep -q 'viewBox' run/plots/$name.svg
    for place in planted "4 ranks on 1 node"; do # each drawing says where
        tr '\n' ' ' <run/plots/$name.svg | sed 's/<[^>]*>/ /g' | tr -s '[:space:]' ' ' | grep -qF "$place" ||
            { echo "$name.svg does not say '$place'"; exit 1; }
    done
    if command -v xmllint >/dev/null; then
        xmllint --noout run/plots/$name.svg
    fi
    ! sed 's|"http://www.w3.org/[^"]*"||g' run/plots/$name.svg | grep -E 'https?:|href="[^#]|date'
done
[ "$(wc -l <drawn)" = "$(echo $names | wc -w)" ]

# The same records, the same bytes; the script draws it again where it lies.
cp -r run/plots first
echo mine >run/plots/notes.txt
"$EPBENCH" plot run >again
cmp drawn again
for name in $names; do
    cmp first/$name.svg run/plots/$name.svg
done
[ "$(cat run/plots/notes.txt)" = mine ]
(cd first && rm links.svg && gnuplot -d links.gp && cmp links.svg ../run/plots/links.svg)

# One case is too few for any rung: its figures are drawn, and nothing is predicted.
mkdir few
cp run/run.json few
grep '"kind":"comm"' run/records.jsonl | head -n 1 >few/records.jsonl
"$EPBENCH" plot few >drawn 2>talk || true
grep -qx few/plots/bandwidth_size.svg drawn

# Texts that would be markup, gnuplot's own marks, commands or quotes.
cp -r run odd
sed -i 's|"machine":"[^"]*"|@@|; s|"machine": "[^"]*"|@@|' odd/run.json
sed -i 's|@@|"machine": "<b>\&A_b^{c}</b> ]]> \\"q\\" '"'s'"' `touch pwned` $(touch pwned) \\u00e9\\nnext\\\\"|' odd/run.json
sed -i 's/"skew":"hot:2"/"skew":"<i>a_b \&`touch pwned`\x27{^}\xc3\xa9"/' odd/records.jsonl
"$EPBENCH" plot odd >drawn 2>talk
[ "$(grep -vc '^epbench plot: against: not drawn: it takes' talk)" = 0 ] || { cat talk; exit 1; }
[ "$(wc -l <drawn)" = "$(echo $names | wc -w)" ]
[ ! -e pwned ] && [ ! -e odd/plots/pwned ]
if command -v xmllint >/dev/null; then
    xmllint --noout odd/plots/*.svg
fi
grep -qF '&lt;b>&amp;A_b^{c}&lt;/b>' odd/plots/links.svg # XML asks for no more
grep -qF "\"q\" 's' " odd/plots/links.svg
grep -qF '&lt;i>a_b &amp;`touch pwned`' odd/plots/time_skew.svg

# What the records do not hold is named, and an old drawing of it goes.
"$make_run" bare others=0 skews=1
mkdir -p bare/plots && echo old >bare/plots/links.svg
"$EPBENCH" plot bare >drawn 2>talk
grep -q 'links: not drawn: no links were measured' talk
grep -q 'gemm_rate: not drawn: no expert GEMM was measured' talk
grep -q 'time_skew: not drawn: it takes 2 skews at one size; these records have 1' talk
grep -q 'bandwidth_size.svg' drawn
[ ! -e bare/plots/links.svg ]

# Without gnuplot: says which package, keeps the data, and the report is written all the same.
mkdir -p nowhere
status=0
PATH=$PWD/nowhere "$EPBENCH" plot bare >drawn 2>talk || status=$?
[ "$status" = 3 ]
grep -q 'bandwidth_size: not drawn: gnuplot is not installed (Debian package gnuplot-nox)' talk
[ -s bare/plots/bandwidth_size.tsv ] && [ ! -e bare/plots/bandwidth_size.svg ]
PATH=$PWD/nowhere "$EPBENCH" report bare >summary
grep -q 'Not drawn: gnuplot is not installed' bare/report.html

# In the report every figure is inline.
"$EPBENCH" report run >summary
for name in $names; do
    grep -q "<figure id=\"figure-$name\">" run/report.html
done
[ "$(grep -c '<svg role="img"' run/report.html)" = "$(echo $names | wc -w)" ]

fails() { # EXIT-STATUS TEXT COMMAND...
    want=$1 text=$2
    shift 2
    status=0
    "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    grep -qF -- "$text" err || { echo "$*: no '$text' in:"; cat err; exit 1; }
    [ ! -s out ] || { echo "$*: wrote on stdout"; exit 1; }
}
fails 2 "run directory is missing" "$EPBENCH" plot
fails 2 "absent/run.json" "$EPBENCH" plot absent
fails 2 "--svg" "$EPBENCH" plot run --svg
cp -r run blocked && rm -r blocked/plots && echo file >blocked/plots
fails 3 "blocked/plots" "$EPBENCH" plot blocked
