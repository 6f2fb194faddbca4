#!/usr/bin/env bash
# The shared library exports what the headers declare and nothing else.
. "$SOURCE_DIR/tests/cli/common.sh"
nm -D --defined-only "$LIBCANDID" | awk '{print $3}' | sort >"$work/exported"
cat "$SOURCE_DIR"/include/candid/*.h | grep '^CANDID_API' | grep -oE '\bcandid_[a-z_]+\(' | tr -d '(' | sort -u >"$work/declared"
[ -s "$work/declared" ] || fail "no declarations found"
diff "$work/declared" "$work/exported" >&2 || fail "exported symbols (>) differ from the headers' (<)"
