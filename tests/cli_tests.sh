# SPDX-License-Identifier: Apache-2.0
# tests/run itself: which tests a list of names stands for. The tests it starts are stubs.
dir=$EPBENCH_TEST_DIR/cli_tests/build
mkdir -p "$dir/tests"
num=0
for file in tests/fuzz_*.c tests/test_*.c; do
    stub=$dir/tests/$(basename "$file" .c)
    printf '#!/bin/sh\nexit 0\n' >"$stub"
    chmod +x "$stub"
    num=$((num + 1))
done
counts() { # EXPECTED NAMES...
    expected=$1
    shift
    B=$dir tests/run "$@" >"$dir/out" 2>&1 || true
    [ "$(tail -n 1 "$dir/out")" = "$expected" ] ||
        { echo "tests/run $*: expected $expected"; cat "$dir/out"; exit 1; }
}

counts "1 passed, 0 failed, 0 skipped" test_base
counts "$num passed, 0 failed, 0 skipped" unit
counts "$num passed, 0 failed, 0 skipped" unit test_base test_base # each once
# a name beside `unit` is a test as well, and one that does not exist is a failure
counts "$num passed, 1 failed, 0 skipped" test_nosuch unit
counts "$num passed, 1 failed, 0 skipped" unit nosuch
counts "0 passed, 1 failed, 0 skipped" cli_nosuch
