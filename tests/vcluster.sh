#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# scripts/vcluster: hosts and rates are what was asked for, transports work across, nothing stays behind.
# usage: tests/vcluster.sh    (make check-vcluster); exit 77 where the system does not allow namespaces
set -eu
cd "$(dirname "$0")/.."
EPBENCH=$PWD/${B:-build}/epbench
scratch=$(mktemp -d "${TMPDIR:-/tmp}/epbench-vcluster.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
fail() { echo "vcluster: $1" >&2; cat "$scratch/out" "$scratch/err" >&2 2>/dev/null || true; exit 1; }
vcluster() { scripts/vcluster "$@" >"$scratch/out" 2>"$scratch/err" </dev/null; }
refused() { # STATUS TEXT ARGUMENTS...
    local expected=$1 text=$2 status=0
    shift 2
    vcluster "$@" || status=$?
    [ $status = "$expected" ] || fail "'$*' gave $status, not $expected"
    grep -qF "$text" "$scratch/err" || fail "'$*' does not say '$text'"
}

refused 2 'whole number from 1 to 64' 0 200mbit -- true
refused 2 'not a rate with its unit' 2 200 -- true
refused 2 'a command is needed' 2 200mbit --
refused 2 'from 1 to 2' 2 200mbit 3 1gbit -- true
refused 2 'UPLINK' 2 200mbit 2 -- true

status=0
vcluster 2 200mbit -- true || status=$?
if [ $status = 3 ]; then
    echo "skipped: $(tail -n 1 "$scratch/err")"
    exit 77
fi
[ $status = 0 ] || fail "cannot run 'true'"
before=$(ip netns list; ip link show)

status=0
vcluster 3 200mbit -- sh -c 'hostname; exit 7' || status=$?
[ $status = 7 ] || fail "the command's exit status 7 became $status"
[ "$(cat "$scratch/out")" = vhost0 ] || fail "the command is not on vhost0"

# No way out, and each pair reaches each other.
vcluster 4 200mbit 2 100mbit -- sh -c 'ip route get 192.0.2.1' && fail "there is a route out"
vcluster 4 200mbit 2 100mbit -- sh -c '! ip route | grep -v 10.77.0.0/24' || fail "other routes"

# A host serves each destination from a queue of its own, all together at the link's rate.
vcluster 3 200mbit -- tc class show dev lab0 || fail "no classes"
[ "$(grep -c 'parent 1:100' "$scratch/out")" = 3 ] || fail "not a queue per destination"
grep -q 'class htb 1:100 root rate 200Mbit ceil 200Mbit' "$scratch/out" || fail "the host's link is not of its rate"

# A plain mpirun finds the hosts.
vcluster 3 200mbit -- sh -c 'mpirun --hostfile "$EPBENCH_HOSTFILE" --map-by node -n 3 hostname' ||
    fail "mpirun failed"
[ "$(sort "$scratch/out" | tr '\n' ' ')" = "vhost0 vhost1 vhost2 " ] || fail "ranks are not on three hosts"

# epbench: each namespace is a node, every transport arrives whole, and a link is never faster than its rate.
run=$scratch/run
vcluster 2 200mbit -- "$EPBENCH" comm -n 4 --experts 16 --top-k 8 --tokens 128 --hidden 2048 \
    --transport alltoallv,alltoallv-dedup,pairwise,rma,hier,hier-shm,hier2d,allgather --memory 1G --iters 5 --visits 1 \
    --warmup 1 -o "$run" || fail "comm failed"
grep -q '"nodes":2,' "$run/records.jsonl" || fail "records do not say 2 nodes"
grep -q '"verified":false' "$run/records.jsonl" && fail "a record is not verified"
[ "$(grep -c '"verified":true' "$run/records.jsonl")" = 16 ] || fail "not 16 verified records"
grep '"transport":"hier"' "$run/records.jsonl" | grep '"op":"dispatch"' |
    grep -q '"bound_name":"nic at 25.*MB/s"' || fail "the link's rate is no bound of a record"
grep -q '"name":"node1","kind":"nic","direction":"in","bytes":[1-9]' "$run/records.jsonl" ||
    fail "the bytes of a NIC are not recorded"
# hier, dispatch: each of 256 tokens of a node crosses to the other with chance 1 - C(8,8)/C(16,8) > 0.9999:
# 256 x 4096 B = 1.05 MB = 42 ms at 25 MB/s; alltoallv sends 4 of 8 copies: 4.2 MB = 168 ms, 4 times as much.
exchange() { # TRANSPORT: median of the exchange phase of dispatch, s
    awk -v transport="$1" '
        index($0, "\"transport\":\"" transport "\"") && /"op":"dispatch"/ {
            text = $0; sub(/.*"name":"exchange","median_s":/, "", text); sub(/[,}].*/, "", text)
            print text; exit }' "$run/records.jsonl"
}
hier=$(exchange hier)
alltoallv=$(exchange alltoallv)
awk -v hier="$hier" -v all="$alltoallv" 'BEGIN { exit !(hier > 0.9 * 0.042 && all > 0.9 * 0.168) }' ||
    fail "faster than the link: hier $hier s, alltoallv $alltoallv s"
awk -v hier="$hier" -v all="$alltoallv" 'BEGIN { exit !(all > 2 * hier) }' ||
    fail "hier ($hier s) does not save what it should against alltoallv ($alltoallv s)"

grep -q '"name":"btl_tcp_rndv_eager_limit","text":"8388608"' "$run/records.jsonl" &&
    grep -q '"name":"btl_tcp_max_send_size","text":"8388608"' "$run/records.jsonl" &&
    grep -q '"name":"btl_tcp_flags","text":"1"' "$run/records.jsonl" || fail "MPI's settings are not recorded"

# Interface counters: of hier only rows once per (token, node) cross. All 256 x 2 tokens of a host do, 4096 B each, in each
# of 14 dispatches (the first, 1 to warm up, 5 samples, 1 + 5 of the phases, 1 verified): 29.4 MB, and 8 % for metadata,
# headers, barriers and the start. Fan-out through the network would double it: nothing inside a host goes there.
for transport in hier hier-shm; do
    vcluster 2 200mbit -- sh -c '"$1" comm -n 4 --experts 16 --top-k 8 --tokens 256 --hidden 2048 --transport "$2" \
        --op dispatch --memory 1G --iters 5 --visits 1 --warmup 1 >&2 && cat /sys/class/net/lab0/statistics/tx_bytes' \
        _ "$EPBENCH" "$transport" || fail "$transport failed"
    awk '{ exit !($1 > 14 * 2097152 && $1 < 1.08 * 14 * 2097152) }' "$scratch/out" ||
        fail "$transport sent $(cat "$scratch/out") bytes, not 14 x 2097152 and a little"
done

# Two switches: uplinks are told, counted, and bind. Uniform top-8 of 16 on 4 ranks: 64 x 8 copies of a rank, half of them
# to the other switch, 2 ranks each: 64 x 8 x 4096 B = 2.1 MB through 12.5 MB/s; a NIC has 3/4 of it at 25 MB/s.
uplinks=$scratch/uplinks
vcluster 4 200mbit 2 100mbit -- sh -c 'echo "$EPBENCH_UPLINKS"; "$1" comm -n 4 --experts 16 --top-k 8 --tokens 64 \
    --hidden 2048 --transport alltoallv --iters 3 --visits 1 --warmup 1 -o "$2" >&2' _ "$EPBENCH" "$uplinks" ||
    fail "comm over two switches failed"
[ "$(cat "$scratch/out")" = "100Mb/s:vhost0,vhost1;100Mb/s:vhost2,vhost3" ] || fail "uplinks are not told"
[ "$(grep -c '"bound_name":"uplink at 12.5 MB/s"' "$uplinks/records.jsonl")" = 2 ] || fail "uplinks do not bind"
sed 's/.*"name":"switch0","kind":"uplink","direction":"out","bytes":\([0-9]*\).*/\1/' "$uplinks/records.jsonl" |
    awk '{ n += $1 > 0.9 * 2097152 && $1 < 1.1 * 2097152 } END { exit n != 2 }' || fail "wrong bytes of an uplink"

# A transport that cannot run on these ranks says why; the others run.
vcluster 2 200mbit -- "$EPBENCH" comm -n 3 --tokens 8 --transport alltoallv,hier --iters 3 --visits 1 ||
    fail "a transport that cannot run ends the sweep"
grep -q 'unavailable: hier.*equally many ranks' "$scratch/err" || fail "no reason given"
grep -q '^alltoallv' "$scratch/out" || fail "no table"

# Links too slow for the sizes of a sweep, 10 Mbit/s: a window of 256 KiB takes 3.4 s, of 8 KiB 0.1 s; 20 repetitions of
# a bare call with 256 KiB per pair 25 x 4 x 0.2 = 21 s. Both are left out by name, and smaller ones measured.
vcluster 2 10mbit -- "$EPBENCH" links -n 2 --quick -o "$scratch/links" || fail "slow links failed"
grep -q 'slow-link: links/fabric/window/pair=.*/262144B and larger' "$scratch/err" || fail "slow links are not named"
grep -q '"pattern":"window".*"size_bytes":8192,' "$scratch/links/records.jsonl" || fail "no small windows"
grep -q '"size_bytes":4194304,' "$scratch/links/records.jsonl" && fail "large messages over slow links"
vcluster 2 10mbit -- "$EPBENCH" comm -n 2 --tokens 8 --hidden 8 --iters 3 --visits 1 --bare 1ms ||
    fail "a bare loop over slow links failed"
grep -q 'slow-link: bare: 256.00 KiB per pair and more' "$scratch/err" || fail "the bare loop's rest is not named"
grep -q '^16.00 KiB  *20 ' "$scratch/out" || fail "not 20 repetitions of 16 KiB per pair"

[ "$before" = "$(ip netns list; ip link show)" ] || fail "something was left behind"
# Killed, it leaves no process.
nap=98765.$$
scripts/vcluster 2 200mbit -- sh -c \
    "mpirun --hostfile \"\$EPBENCH_HOSTFILE\" --map-by node -n 2 sh -c 'echo up; exec sleep $nap'" \
    >"$scratch/out" 2>"$scratch/err" </dev/null &
pid=$!
napping() { ps -eo args | grep -c "^sleep $nap\$" || true; }
for _ in $(seq 100); do [ "$(napping)" = 2 ] && break; sleep 0.1; done
[ "$(napping)" = 2 ] || fail "two ranks did not start"
kill -9 $pid
wait $pid || true
for _ in $(seq 50); do [ "$(napping)" = 0 ] && break; sleep 0.1; done
[ "$(napping)" = 0 ] || fail "a killed one leaves processes"
[ "$before" = "$(ip netns list; ip link show)" ] || fail "a killed one leaves devices"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && setpriv --reuid=65534 --regid=65534 --clear-groups \
    test -x "$EPBENCH"; then
    ordinary() { # COMMAND...: on two hosts, for an ordinary user
        setpriv --reuid=65534 --regid=65534 --clear-groups scripts/vcluster 2 200mbit -- "$@" \
            >"$scratch/out" 2>"$scratch/err" </dev/null || fail "'$*' failed for an ordinary user"
    }
    ordinary hostname
    [ "$(cat "$scratch/out")" = vhost0 ] || fail "an ordinary user's command is not on vhost0"
    ordinary "$EPBENCH" comm -n 4 --tokens 8 --hidden 64 --transport alltoallv,hier --iters 3 --visits 1
    [ "$(grep -c '^hier ' "$scratch/out")" = 2 ] || fail "comm lacks hier for an ordinary user"
    ordinary sh -c 'mpirun --hostfile "$EPBENCH_HOSTFILE" --map-by node -n 4 "$1" layer --tokens 16 --hidden 64 \
        --ffn 32 --experts 16 --top-k 2 --iters 3 --visits 1' _ "$EPBENCH"
    grep -q '^alltoallv ' "$scratch/out" || fail "layer has no table for an ordinary user"
fi
echo "ok: scripts/vcluster"
