#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench topo: the exact forms, and bad input.
cd "$EPBENCH_TEST_DIR/cli_topo"
here=$OLDPWD
xml=$here/tests/data/two_packages.xml

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

synthetic="pack:2 numa:1 l3:2 core:4 pu:1"
"$EPBENCH" topo --synthetic "$synthetic" --ranks 16 --pairs --json - >a.json
for key in '"levels"' '"ranks"' '"pairs"' '"hosts"' '"machines"' '"warnings"'; do
    grep -q "$key" a.json
done
# 4 caches of 4 cores: 24 pairs; 32 in a package; 64 across; one entry each
[ "$(grep -c '"level": "L3"' a.json)" = 24 ]
[ "$(grep -c '"level": "package"' a.json)" = 32 ]
[ "$(grep -c '"level": "host"' a.json)" = 64 ]
"$EPBENCH" topo --synthetic "$synthetic" --ranks 16 --json - >b.json
! grep -q '"pairs"' b.json
grep -q '"num_pairs": 24' b.json

"$EPBENCH" topo --xml "$xml" --json - >c.json
grep -q '"name": "host d=32"' c.json
grep -q '"num_pairs": 16' c.json
"$EPBENCH" topo --xml - --json c2.json <"$xml" >table
cmp c.json c2.json
grep -q 'ConnectX-7' table
"$EPBENCH" topo --xml "$xml" --xml "$xml" --json - | grep -q '"name": "fabric"'
"$EPBENCH" topo --synthetic "$synthetic" --nodes 3 --ranks-per-node 2 --rank-order spread >table
grep -q 'host2' table
"$EPBENCH" topo --synthetic "$synthetic" --ranks 40 | grep -q '^warning: oversubscribed: 24 of 40'

# Ports: the NIC of the file is near package 0; a second one, made of the disk, near package 1.
compact() { tr -d ' \n' <"$1"; }
compact c.json | grep -q '"kind":"nic","direction":"in","host":0,"device":[0-9]*,"name":"ib0,mlx5_0"'
[ "$(compact c.json | grep -o '"kind":"nic","direction"' | wc -l)" = 2 ]
[ "$(compact c.json | grep -o '"kind":"memory"' | wc -l)" = "$(compact c.json | grep -o '"os_idx":[0-9]*,"memory_bytes"' | wc -l)" ]
grep -q '"ports_note": null' c.json
sed 's/0108 \[144d:a80a\] \[144d:a80a\]/0207 [15b3:1021] [15b3:1021]/; s/name="nvme0n1" osdev_type="0"/name="mlx5_1" osdev_type="3"/' \
    "$xml" >nics.xml
"$EPBENCH" topo --xml nics.xml --json nics.json >table
[ "$(compact nics.json | grep -o '"kind":"nic","direction"' | wc -l)" = 4 ]
# 8 cores, a rank on each: the first four are on package 0, the others on package 1
compact nics.json | grep -o '"rank_to_nic":\[[^]]*' | grep -o '"rank":[0-9]*,"host":0,"device":[0-9]*,"name":"[a-z0-9_,]*"' |
    sed 's/"rank":\([0-9]*\).*"name":"\([^"]*\)"/\1 \2/' >nearest
awk '$2 != ($1 < 4 ? "ib0,mlx5_0" : "mlx5_1") { exit 1 } END { exit NR != 8 }' nearest ||
    { cat nearest; exit 1; }
grep -q '"rank_to_nic": \[\]' b.json
grep -q '"ports_note": "no network device on PCI' b.json

# this host
"$EPBENCH" topo >table
grep -q '^this process: bound to' table
"$EPBENCH" topo --json - | grep -q '"usable_cores"'
taskset -c "$(taskset -cp $$ | sed 's/.*: *//; s/[-,].*//')" "$EPBENCH" topo | grep -q '1 usable core$'

# bad input
fails 2 "nofile.xml: cannot be opened" "$EPBENCH" topo --xml nofile.xml
fails 2 "is a directory" "$EPBENCH" topo --xml .
head -c 4000 "$xml" >cut.xml
fails 2 "cut.xml: is truncated" "$EPBENCH" topo --xml cut.xml
sed 's/topology version="2.0"/topology version="3.0"/' "$xml" >three.xml
fails 2 "three.xml: hwloc 3 XML" "$EPBENCH" topo --xml three.xml
: >empty.xml
fails 2 "empty.xml: is empty" "$EPBENCH" topo --xml empty.xml
echo '<xml/>' >other.xml
fails 2 "other.xml: has no <topology>" "$EPBENCH" topo --xml other.xml
sed '0,/complete_cpuset="0x0000000c"/s///' "$xml" >crash.xml
fails 2 "crash.xml: is damaged" "$EPBENCH" topo --xml crash.xml
fails 2 "is not a synthetic host" "$EPBENCH" topo --synthetic "pack:two"
fails 2 "more than 32768" "$EPBENCH" topo --synthetic "pack:1000000 core:1000000 pu:2"
fails 2 "exclude each other" "$EPBENCH" topo --synthetic "$synthetic" --xml "$xml"
fails 2 "--ranks: 'x'" "$EPBENCH" topo --ranks x
fails 2 "--ranks 5 is not" "$EPBENCH" topo --ranks 5 --ranks-per-node 2 --nodes 2
fails 2 "expected packed or spread" "$EPBENCH" topo --rank-order round
fails 2 "did you mean --synthetic" "$EPBENCH" topo --synth x
fails 2 "'extra' is not understood" "$EPBENCH" topo extra
fails 2 "at most the pairs of 2048 ranks" "$EPBENCH" topo --ranks 3000 --pairs --json -
fails 3 "cannot be written" "$EPBENCH" topo --json /nowhere/x.json --synthetic "$synthetic"
