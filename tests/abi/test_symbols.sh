#!/usr/bin/env bash
# The shared library exports what the headers declare and nothing else.
. "$SOURCE_DIR/tests/cli/common.sh"
nm -D --defined-only "$LIBCANDID" | awk '{print $3}' | sort >"$work/exported"
for header in candid plugin; do
    awk -f "$SOURCE_DIR/tests/abi/declared.awk" "$SOURCE_DIR/include/candid/$header.h" | sed -n 's/^FUNCTION //p' >"$work/$header"
    [ -s "$work/$header" ] || fail "no declarations found in $header.h"
done
sort "$work/candid" "$work/plugin" >"$work/declared"
diff "$work/declared" "$work/exported" >&2 || fail "exported symbols (>) differ from the headers' (<)"
