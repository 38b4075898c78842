#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench report: one page that needs nothing else, its summary, and bad input.
cd "$EPBENCH_TEST_DIR/cli_report"
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
shows() { # FILE TEXT
    grep -qF -- "$2" "$1" || { echo "$1 does not hold '$2'"; exit 1; }
}

"$make_run" run noise=0.02
"$EPBENCH" report run >summary
[ "$(head -n 1 summary)" = "report: run/report.html" ]
[ "$(wc -l <summary)" -le 20 ]
grep -q '^dispatch alltoallv .*M2 .*GB/s (.* to .* GB/s)' summary     # planted: M2 at 8 GB/s
grep -q '^slowest level: ' summary
grep -q 'failed checks: 0 of ' summary
page=run/report.html
[ "$(head -n 1 $page)" = "<!DOCTYPE html>" ]
[ "$(tail -n 1 $page)" = "</html>" ]
for section in summary figures doubts fit links kernels harness machine runs words; do
    shows $page "<h2 id=\"$section\">"
    shows $page "<a href=\"#$section\">"
done
shows $page '<meta charset="utf-8">'
shows $page 'name="viewport"'
shows $page '<html lang="en">'
# Every figure is there, drawn.
"$EPBENCH" plot run >plotted
for figure in run/plots/*.svg; do
    name=$(basename "$figure" .svg)
    shows $page "<figure id=\"figure-$name\">"
    shows $page "plots/$name.tsv"
done
[ "$(grep -c '<figure id=' $page)" -ge 5 ]
[ "$(grep -c '<svg role="img" aria-label="' $page)" = "$(ls run/plots/*.svg | wc -l)" ]
# Nothing from outside: no reference but to places in the page, no script.
! grep -oiE '(href|src)="[^#"][^"]*"' $page | grep .
! grep -iE '<script|<link|<iframe|@import|url\(' $page
# Every id is there once.
grep -oE ' id="[^"]*"' $page | sort | uniq -d >twice
[ ! -s twice ] || { echo "ids that occur twice:"; cat twice; exit 1; }

# Again: replaced, the same, and nothing else is touched.
cp $page first.html
ls run >before
"$EPBENCH" report run >again
cmp again summary
cmp first.html $page
ls run | cmp - before

# What the first screen says is what fit says.
"$EPBENCH" fit run --json fit.json >/dev/null
[ "$(grep -c '(chosen)' $page)" = "$(grep -c '"chosen": true' fit.json)" ]

# Texts that would be markup.
cp -r run odd
sed -i 's|"machine":"[^"]*"|"machine":"<b>A\&B</b> \\"q\\" '"'s'"' \\u00e9\\nnext"|; s|"machine": "[^"]*"|"machine": "<b>A\&B</b> \\"q\\" '"'s'"' \\u00e9\\nnext"|' odd/run.json
sed -i 's/"skew":"hot:2"/"skew":"<i>hot<\/i>"/' odd/records.jsonl
"$EPBENCH" report odd >/dev/null
shows odd/report.html '&lt;b&gt;A&amp;B&lt;/b&gt; &quot;q&quot; &#39;s&#39; é'
! grep -qF '<b>A' odd/report.html
! grep -qF '<i>' odd/report.html

# Without records of some kind, or none at all, there is a report that says so.
"$make_run" bare others=0
"$EPBENCH" report bare >out
shows out 'slowest level: not known'
shows bare/report.html 'No links were measured'
shows bare/report.html 'No kernels were measured'
cp -r run none && : >none/records.jsonl
"$EPBENCH" report none >out
shows out 'no model: '
shows none/report.html 'Nothing was fitted: '
# A failed check is on the first screen.
cp -r run wrong
sed -i '1s/"wrong":0/"wrong":3/; 1s/"verified":true/"verified":false/' wrong/records.jsonl
"$EPBENCH" report wrong >out
shows out 'failed checks: 1 of '
shows wrong/report.html 'FAILED CHECKS: in 1 of '

# Bad input.
fails 2 "run directory is missing" "$EPBENCH" report
fails 2 "nowhere/run.json" "$EPBENCH" report nowhere
fails 2 "--jsn" "$EPBENCH" report run --jsn
fails 2 "occurs twice" "$EPBENCH" report run run
cp -r run bad
sed -i '5s/"schema":1/"schema":7/' bad/records.jsonl
rm bad/report.html
fails 2 "records.jsonl:5: schema 7" "$EPBENCH" report bad
[ ! -e bad/report.html ]
# A page that is not ours stays; a directory in its place is refused.
echo "<p>mine</p>" >bare/report.html
fails 2 "not a report of epbench" "$EPBENCH" report bare
[ "$(cat bare/report.html)" = "<p>mine</p>" ]
rm bare/report.html && mkdir bare/report.html
fails 2 "not a report of epbench" "$EPBENCH" report bare
# A directory that cannot be written: root needs its privilege to do so taken away.
cp -r run locked && rm locked/report.html
mkdir -p locked/plots && chmod 555 locked locked/plots
drop=
if [ "$(id -u)" = 0 ]; then
    drop="setpriv --bounding-set=-all --inh-caps=-all --"
    $drop true 2>/dev/null || { chmod 755 locked; exit 0; }
fi
fails 3 "locked/" $drop "$EPBENCH" report locked
chmod 755 locked
[ ! -e locked/report.html ]
