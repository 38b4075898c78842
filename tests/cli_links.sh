#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# epbench links on 1, 2, 3 and 5 ranks: records, JSON, topology.xml, bad input.
cd "$EPBENCH_TEST_DIR/cli_links"
mpi() { # RANKS ARGUMENTS...
    ranks=$1
    shift
    timeout 60 mpirun -n "$ranks" --oversubscribe --mca mpi_yield_when_idle 1 --bind-to none \
        "$EPBENCH" links "$@"
}
small="-b 8 -e 64K -f 64 --visits 2 --pairs 2 --case-time 2ms"

# one rank: nothing to do, and that is no failure
mpi 1 $small --json - >one.json 2>err
grep -q 'nothing was measured' err
grep -q '"levels": \[\]' one.json

# two: sizes 8, 512, 32768 and the last, 65536; 2 patterns, 2 visits, one pair
mpi 2 $small -o two --json two.json >table 2>err
[ "$(wc -l <two/records.jsonl)" = 16 ]
[ "$(grep -c '"verified":true' two/records.jsonl)" = 16 ]
grep -q '"size_bytes": 32768' two.json
grep -q '64.00 KiB' table
grep -q 'epbench level' two/topology.xml
# a case is visited twice, under one name
[ "$(grep -o '"case":"[^"]*pingpong[^"]*/512B"' two/records.jsonl | sort | uniq -c | awk '{print $1}')" = 2 ]
mpi 2 $small --append two >table 2>err
[ "$(wc -l <two/records.jsonl)" = 32 ]

# three: 2 of 3 pairs one by one, no two pairs at once; five: two pairs at once
mpi 3 $small -o three >table 2>err
[ "$(wc -l <three/records.jsonl)" = 32 ]
mpi 5 $small -o five >table 2>err
[ "$(wc -l <five/records.jsonl)" = 48 ]
[ "$(grep -c '"concurrent_pairs":2' five/records.jsonl)" = 16 ]
grep -q '2 at once' table

# a link that is too slow for large messages: they are left out by name, in the run too, the rest is there
mpi 2 -b 8 -e 4M -f 8 --visits 1 --case-time 1us -o slow >table 2>err
grep -q '^skipped: slow-link: links/.*B and larger: .*more than 20 times --case-time (20.000 us)' err
grep -q '"name": *"slow-link"' slow/run.json
[ "$(grep -c '"size_bytes":8,' slow/records.jsonl)" = 2 ]
[ "$(grep -c '"size_bytes":4194304,' slow/records.jsonl)" = 0 ]

# bad input: one message, no hang, nothing written
fails() { # EXIT-STATUS TEXT ARGUMENTS...
    want=$1 text=$2
    shift 2
    status=0
    "$how" "$@" >out 2>err || status=$?
    [ "$status" = "$want" ] || { echo "$*: exit $status, expected $want"; cat err; exit 1; }
    [ "$(grep -cF -- "$text" err)" = 1 ] || { echo "$*: not one '$text' in:"; cat err; exit 1; }
    [ ! -s out ] || { echo "$*: wrote on stdout"; exit 1; }
}
three_ranks() {
    mpi 3 "$@"
}
as_first_rank() { # what is refused before MPI starts needs no launcher
    OMPI_COMM_WORLD_RANK=0 "$EPBENCH" links "$@"
}
how=three_ranks
fails 2 "exists already" $small -o two
fails 2 "unknown unit" -b 8Q
how=as_first_rank
fails 2 "make no sweep" -b 1M -e 1K
fails 2 "outside 1 byte to 1 GiB" -e 2G
fails 2 "-f: 1 is outside" -f 1
fails 2 "--visits: 0 is outside" --visits 0
fails 2 "has no unit" --case-time 3
fails 2 "give only one" -o new --append two
fails 2 "need 134217728 bytes" -e 64M --memory 16M -o new
[ ! -e new ]
