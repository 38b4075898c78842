#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/reference: quick figures, the table made of them, bad arguments.
command -v python3 >/dev/null || exit 77
reference="$(cd "$(dirname "$0")/.." && pwd)/scripts/reference"
cd "$EPBENCH_TEST_DIR"
dir=cli_reference.d
rm -rf "$dir"
mkdir "$dir"
cd "$dir"
fail() { echo "cli_reference: $1" >&2; cat out err >&2 2>/dev/null || true; exit 1; }

status=0
"$reference" --out here --name some-machine published ping-pong >out 2>err || status=$?
[ $status = 0 ] || fail "published and ping-pong gave $status"
grep -q '^published: deepep_v1_ht, 8 rows.* asked <= 7 %: ok$' out || fail "no line on published rows"
[ "$(grep -c '| met |' here/some-machine/README.md)" = 5 ] || fail "the table has other rows"
grep -q '^| ping-pong | held-out mean error, pieces | <= 1.05 %' here/some-machine/README.md || fail "no row on ping-pong"
grep -q '"epbench validate --published"' here/some-machine/published.json || fail "the command is not kept"

# A figure that is missed is said to be: two seeds cannot hold 92 to 98 % each.
status=0
"$reference" --out here --name some-machine --seeds 2 planted >out 2>err || status=$?
[ $status = 1 ] || fail "two seeds gave $status"
grep -q ': MISSED$' out || fail "nothing is missed"
grep -q '\*\*missed\*\*' here/some-machine/README.md || fail "the table hides it"
grep -q '^| published ' here/some-machine/README.md || fail "the table forgot the others"

# One that cannot be made leaves what was there.
cp here/some-machine/published.json before.json
status=0
EPBENCH=/bin/false "$reference" --out here --name some-machine ping-pong >out 2>err || status=$?
[ $status = 3 ] || fail "a program that fails gave $status"
grep -q 'not made, what was there stands' err || fail "it does not say so"
cmp -s before.json here/some-machine/published.json || fail "another figure changed"
status=0
"$reference" --out here no-such >out 2>err || status=$?
[ $status = 2 ] || fail "an unknown figure gave $status"
grep -q "no figure 'no-such': planted" err || fail "figures are not named"
